"""Predict with the saved network of a finished run, on its own recording or on a new one.

    python main_predict.py --run run
    python main_predict.py --run run --data ../data/csd_darnn/other.tif --scaler own

Reads results/csd_darnn/<run>/: encoder.torch, decoder.torch, network.json, settings.json and
scaler.json (or a published scaler.pkl). Writes into <run>/reloaded/: final_y_pred.npy (n, o) in
z-units, attention.npz, plots/final_predicted_reloaded.png, metrics.csv and recording.json
(the recording they belong to, with its scales).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from settings import SCALE_NAMES, Flag, RunSettings, flags_of, parse, published

# What is predicted
RUN = "run"  # folder below results/csd_darnn/, or a path
DATA = ""  # recording; "" = the one of the run
SCALER = "run"  # run = mean and scale of the run, own = new ones from the recording
PART = "test"  # test = the rows after the training part, all = every row
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
    "SCALER": Flag(str, "mean and scale of the run or of the recording", ("run", "own")),
    "PART": Flag(str, "rows that are predicted", ("test", "all")),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
    **{name.upper(): flags_of(RunSettings)[name.upper()] for name in SCALE_NAMES},
}

PUBLISHED = {"reload_run": "runs.reloading"}


def __getattr__(name):
    """Find a published function in its module."""
    return published(__name__, PUBLISHED, name)


@one_line_faults
def main(argv=None):
    """Predict, draw and write."""
    chosen = parse(argv, __doc__.splitlines()[0], globals(), FLAGS)
    from runs.reloading import predict_again, run_folder

    predict_again(run_folder(chosen.run), chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
