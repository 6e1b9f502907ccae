"""Encode a new recording with the saved weights of a run, or train its network on.

    python encoder_train.py --run run --data ../data/csd_darnn/other.tif
    python encoder_train.py --run run --data ../data/csd_darnn/other.tif --freeze hh_l0

Reads a finished run in results/csd_darnn/<run>/. Without --freeze it writes
<run>/encoded/encoded.npz: states (n, T-1, m) and attention (n, N) of every window, and
recording.json (what they belong to). With --freeze it trains all parameters whose name does not
contain that text and writes a new run of its own, results/csd_darnn/<run>_trained/: weights,
network.json, scaler.json, losses.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults, seed_number
from settings import SCALE_NAMES, Flag, RunSettings, flags_of, parse

# What is encoded or trained
RUN = "run"  # folder below results/csd_darnn/, or a path
DATA = ""  # recording; "" = the one of the run
FREEZE = ""  # text; parameters whose name contains it stay as they are, "none" trains all
OUT = ""  # folder of the new run below results/csd_darnn/; "" = <run>_trained

# Training
N_EPOCHS = 10
LEARNING_RATE = 0.01
SEED = 0
DEVICE = "auto"  # auto, cpu, cuda, cuda:k, mps

# Scales and reading of --data; those of the run hold for its own recording
FRAME_RATE_HZ = RunSettings.frame_rate_hz  # frames per second; 0 = from the file
FRAME_TIMES = RunSettings.frame_times  # file with the time in s of every frame
PIXEL_UM = RunSettings.pixel_um  # size of a pixel in micrometres; 0 = from the file
ROW_UM = RunSettings.row_um  # height of a pixel in micrometres; 0 = its width
OFFSET = RunSettings.offset  # level of darkness in units of the recording
MASK = RunSettings.mask  # picture or NPY (H, W), not 0 where the recording has data
BAD_FRAMES = RunSettings.bad_frames  # 3,17-20; file; none; auto; empty = frames of one colour
CHANNEL = RunSettings.channel  # k/n: the k-th of n channels whose frames follow each other
HAEMODYNAMIC = RunSettings.haemodynamic  # ratio, regress: correct by the other channel of a pair
CROP = RunSettings.crop  # top,left,height,width of the part that is used
AXES = RunSettings.axes  # HWF, KF: order of the axes of an array
DATASET = RunSettings.dataset  # name in an HDF5 file of several

FLAGS = {
    "RUN": Flag(str, "folder below results/csd_darnn/, or a path"),
    "DATA": Flag(str, "recording, empty = the one of the run"),
    "FREEZE": Flag(str, "text in the names of the frozen parameters; none = train all"),
    "OUT": Flag(str, "folder of the new run below results/csd_darnn/"),
    "N_EPOCHS": Flag(int, "epochs", low=1),
    "LEARNING_RATE": Flag(float, "rate of Adam", above=0),
    "SEED": Flag(seed_number, "seed of every random choice"),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
    **{name.upper(): flags_of(RunSettings)[name.upper()] for name in SCALE_NAMES},
}


@one_line_faults
def main(argv=None):
    """Encode, or train on."""
    chosen = parse(argv, __doc__.splitlines()[0], globals(), FLAGS)
    from runs.encoding import encode_or_train
    from runs.reloading import run_folder

    encode_or_train(run_folder(chosen.run), chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
