"""Predict one pixel of a calcium-imaging movie from all others and show what the network used.

Follows Qin et al. 2017 (arXiv 1704.02971) with stacked LSTM layers, as the published project.

    python main.py --data ../data/csd_darnn/resized.npy --target 20,25
    python main.py --demo

Reads a recording: movie (F, H, W) as .tif, .npy, .npz, .avi, .mp4, .mov or .gif, or a CSV with one
column per pixel (F, H*W) or per named series. Writes results/csd_darnn/<run>/: weights,
weight_tensor_rs.pt (n_test, T-1, N), attention.npz, final_y_pred.npy (n_test, o), losses,
metrics.csv, plots/, heatmap.mp4 and .gif, report.html.
"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.device import describe_device
from common.files import RESULTS_DIR, InputError, one_line_faults, plain_name
from settings import RunSettings, flag_name, flags_of, parse, published, taken

# Recording
DATA = RunSettings.data  # file, or a folder of crop_<i>.csv: one run each
TARG_COLS = RunSettings.targ_cols  # labels of the columns that are predicted
TARGET = RunSettings.target  # row,col instead of a label, 0-based; several as 20,25;30,40
EACH_TARGET = RunSettings.each_target  # one network for each target instead of one for all
TARGET_GRID = RunSettings.target_grid  # R,C: one network for each of R x C spread pixels
SHAPE = RunSettings.shape  # H,W of a bare pixel CSV
GRAY = RunSettings.gray  # mean of the channels of a colour movie
LEGACY_LABELS = RunSettings.legacy_labels  # reference, intended: CSV with a wrong header
ALLOW_DUPLICATE_TARGET = RunSettings.allow_duplicate_target
TIME_COLUMN = RunSettings.time_column  # clock of a table: auto, none, name of a column
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

# Model
T = RunSettings.T  # window parameter, rows; T - 1 steps are read
ENCODER_HIDDEN_SIZE = RunSettings.encoder_hidden_size
DECODER_HIDDEN_SIZE = RunSettings.decoder_hidden_size
ATTENTION = RunSettings.attention  # linear (published), tanh (equation 8 of the paper)
READOUT = RunSettings.readout  # bottom (published), top decoder layer
PREDICT = RunSettings.predict  # level (published), change since the last history value
LAYERS = RunSettings.layers  # LSTM layers
ATTENTION_SCALE = RunSettings.attention_scale  # factor on the weighted series; n = number of series
HORIZON = RunSettings.horizon  # rows from the last history row to the target row
CURRENT_X = RunSettings.current_x  # the driving series reach up to the target row

# Training
BATCH_SIZE = RunSettings.batch_size  # windows
N_EPOCHS = RunSettings.n_epochs
LEARNING_RATE = RunSettings.learning_rate  # times 0.9 after every 10,000 iterations
TRAIN_FRACTION = RunSettings.train_fraction  # first part of the recording
VALIDATION = RunSettings.validation  # last part of the training rows that chooses the epoch
SCALER = RunSettings.scaler  # train, all (published, leaks the test part)
SHUFFLE_PIXELS = RunSettings.shuffle_pixels  # epoch (promised), none (what the published code did)
SEED = RunSettings.seed
DEVICE = RunSettings.device  # auto, cpu, gpu or cuda, cuda:k, mps
JOBS = RunSettings.jobs  # runs at the same time, for several targets or crops
CLUSTER = RunSettings.cluster  # tcp://HOST:PORT, local:N, slurm:FILE.json: runs of a dask cluster

# Results
RUN = RunSettings.run  # folder below results/csd_darnn/
WEIGHT_TENSOR_DIR = RunSettings.weight_tensor_dir  # a file; "" = in the run's folder
ITER_LOSS_DIR = RunSettings.iter_loss_dir  # file
EPOCH_LOSS_DIR = RunSettings.epoch_loss_dir  # file
FINAL_Y_PRED_DIR = RunSettings.final_y_pred_dir  # file
SAVE_WEIGHT_TENSOR = RunSettings.save_weight_tensor  # full, compact, auto (full below 1 GB)
MAX_RAM = RunSettings.max_ram  # GB; a larger weight tensor is collected on disk

# Displays
SAVE_PLOTS = RunSettings.save_plots
MAPS = RunSettings.maps  # maps and importance
MAP = RunSettings.map  # reference, attention, control, signed: the map of the movie
CLIM = RunSettings.clim  # frame, global, p99: colour limits of the movie
ALIGN = RunSettings.align  # target (published), input: the frame behind the map
FPS = RunSettings.fps  # frames per second of the movie
MOVIE = RunSettings.movie  # mp4+gif, mp4, gif, none
BLOCK = RunSettings.block  # pixels, side of the blocks of the permutation importance
IMPORTANCE_EVERY = RunSettings.importance_every  # every k-th training window
IMPORTANCE_REPEATS = RunSettings.importance_repeats  # permutations of a block
ERROR_RATE = RunSettings.error_rate  # chance of any false driver in their search; 0 = none
GRADIENT_EPOCHS = RunSettings.gradient_epochs  # last epochs that the gradient map is the mean of

FLAGS = flags_of(RunSettings)
# Functions of the published main.py that live in modules of their own here.
PUBLISHED = {
    "preprocess_data": "inputs.preprocessing",
    "da_rnn": "network.build",
    "train": "runs.training",
    "train_iteration": "runs.training",
    "adjust_learning_rate": "runs.training",
    "prep_train_data": "inputs.windows",
    "predict": "network.prediction",
    "create_plots": "analysis.plots",
    "run_all": "runs.many",
}


def __getattr__(name):
    """Find a published function in its module; run_all starts from the globals above."""
    function = published(__name__, PUBLISHED, name)
    return (
        functools.partial(function, defaults=default_settings()) if name == "run_all" else function
    )


def default_settings() -> dict:
    """Return the globals as the dict of lower-case names that RunSettings takes."""
    return {flag_name(name): globals()[name] for name in FLAGS}


def add_actions(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that are no globals."""
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    parser.add_argument("--overwrite", action="store_true", help="the same as --fresh")
    parser.add_argument("--demo", action="store_true", help="synthetic data with planted truth")
    parser.add_argument("--fresh", action="store_true", help="start the run anew")
    parser.add_argument("--full", action="store_true", help="with --demo: the larger demo")


@one_line_faults
def main(argv=None):
    """Run from the command line."""
    arguments = parse(argv, __doc__.splitlines()[0], globals(), FLAGS, extra=add_actions)
    plain_name(arguments.run)
    if arguments.full and not arguments.demo:
        raise InputError("--full belongs to --demo")
    settings = taken(
        RunSettings,
        arguments,
        run_dir=RESULTS_DIR / arguments.run,
        resume=arguments.resume,
        overwrite=arguments.overwrite or arguments.fresh,
    )
    from network.device import choose_device

    device, _ = choose_device(settings.device)
    print(describe_device("torch", device, asked=settings.device != "auto"), flush=True)
    if arguments.demo:
        from demo.planted import run_demo

        return run_demo(settings, named="run" in arguments.given, full=arguments.full)
    from runs.many import run_each

    run_each(settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
