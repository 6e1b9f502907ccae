"""Predict one pixel of a calcium-imaging movie from all others and show what the network used.

Follows Qin et al. 2017 (arXiv 1704.02971) with stacked LSTM layers, as the published project.

    python main.py --data ../data/csd_darnn/resized.npy --target 20,25
    python main.py --demo

Reads a recording: movie (F, H, W) as .tif, .npy, .npz, .avi, .mp4, .mov or .gif, or a CSV with one
column per pixel (F, H*W) or per named series. Writes results/csd_darnn/<run>/: weights,
weight_tensor_rs.pt (n_test, T-1, N), attention.npz, final_y_pred.npy (n_test, o), losses,
metrics.csv, plots/, heatmap.mp4 and .gif, report.html.
"""

import importlib
from pathlib import Path

from common.device import describe_device
from common.files import DATA_DIR, RESULTS_DIR, InputError, one_line_faults, plain_name, seed_number
from settings import Flag, flag_name, parse

# Recording
DATA = DATA_DIR / "splits" / "crop_0.csv"  # file, or a folder of crop_<i>.csv: one run each
TARG_COLS = ("target",)  # labels of the columns that are predicted
TARGET = ""  # row,col instead of a label, 0-based; several as 20,25;30,40
EACH_TARGET = False  # one network for each target instead of one for all
TARGET_GRID = ""  # R,C: one network for each of R x C pixels spread over the image
SHAPE = ""  # H,W of a bare pixel CSV
GRAY = False  # mean of the channels of a colour movie
LEGACY_LABELS = "reference"  # reference, intended: labels of a CSV with a wrong header
ALLOW_DUPLICATE_TARGET = False
FRAME_RATE_HZ = 0.0  # frames per second of the recording; 0 = from the file
PIXEL_UM = 0.0  # size of a pixel in micrometres; 0 = from the file

# Model
T = 10  # window parameter, rows; T - 1 steps are read
ENCODER_HIDDEN_SIZE = 64
DECODER_HIDDEN_SIZE = 64
ATTENTION = "linear"  # linear (published), tanh (equation 8 of the paper)
READOUT = "bottom"  # bottom (published), top decoder layer
PREDICT = "level"  # level (published), change since the last history value
LAYERS = 2  # LSTM layers
ATTENTION_SCALE = "1"  # factor on the weighted series; n = number of series
HORIZON = 2  # rows from the last history row to the target row
CURRENT_X = False  # the driving series reach up to the target row

# Training
BATCH_SIZE = 20  # windows
N_EPOCHS = 5
LEARNING_RATE = 0.01  # times 0.9 after every 10,000 iterations
TRAIN_FRACTION = 0.7  # first part of the recording
VALIDATION = 0.0  # last part of the training rows that chooses the epoch
SCALER = "train"  # train, all (published, leaks the test part)
SHUFFLE_PIXELS = "epoch"  # epoch (promised), none (what the published code did)
SEED = 0
DEVICE = "auto"  # auto, cpu, gpu or cuda, cuda:k, mps
JOBS = 1  # runs at the same time, for several targets or crops

# Results
RUN = "run"  # folder below results/csd_darnn/
WEIGHT_TENSOR_DIR = ""  # file, in spite of the published name; "" = in the run's folder
ITER_LOSS_DIR = ""  # file
EPOCH_LOSS_DIR = ""  # file
FINAL_Y_PRED_DIR = ""  # file
SAVE_WEIGHT_TENSOR = "auto"  # full, compact, auto (full below 1 GB)
MAX_RAM = 4.0  # GB; a larger weight tensor is collected on disk

# Displays
SAVE_PLOTS = True
MAPS = True  # maps and importance
MAP = "reference"  # reference, attention, control, signed: the map of the movie
CLIM = "frame"  # frame, global, p99: colour limits of the movie
ALIGN = "target"  # target (published), input: the frame behind the map
FPS = 5.0  # frames per second of the movie
MOVIE = "mp4+gif"  # mp4+gif, mp4, gif, none
BLOCK = 4  # pixels, side of the blocks of the permutation importance
IMPORTANCE_EVERY = 7  # every k-th training window
IMPORTANCE_REPEATS = 3  # permutations of a block

FLAGS = {
    "DATA": Flag(Path, "recording, or a folder of crop_<i>.csv"),
    "TARG_COLS": Flag(tuple, "labels of the predicted columns"),
    "TARGET": Flag(str, "row,col of the target, several as row,col;row,col"),
    "EACH_TARGET": Flag(bool, "one network for each target"),
    "TARGET_GRID": Flag(str, "R,C: one network for each of R x C pixels"),
    "SHAPE": Flag(str, "H,W of a bare pixel CSV"),
    "GRAY": Flag(bool, "mean of the channels of a colour movie"),
    "LEGACY_LABELS": Flag(str, "labels of a published CSV", ("reference", "intended")),
    "ALLOW_DUPLICATE_TARGET": Flag(bool, "accept a driving series equal to the target"),
    "FRAME_RATE_HZ": Flag(float, "frames per second of the recording, 0 = from the file", low=0),
    "PIXEL_UM": Flag(float, "size of a pixel in micrometres, 0 = from the file", low=0),
    "T": Flag(int, "window parameter, rows", low=2),
    "ENCODER_HIDDEN_SIZE": Flag(int, "hidden size m", low=1),
    "DECODER_HIDDEN_SIZE": Flag(int, "hidden size p", low=1),
    "ATTENTION": Flag(str, "input attention", ("linear", "tanh")),
    "READOUT": Flag(str, "decoder layer of the output", ("bottom", "top")),
    "PREDICT": Flag(str, "what the output is", ("level", "change")),
    "LAYERS": Flag(int, "LSTM layers", low=1, high=8),
    "ATTENTION_SCALE": Flag(str, "factor on the weighted series, n = their number"),
    "HORIZON": Flag(int, "rows from the last history row to the target row", low=1),
    "CURRENT_X": Flag(bool, "driving series up to the target row"),
    "BATCH_SIZE": Flag(int, "windows in a step", low=1),
    "N_EPOCHS": Flag(int, "epochs", low=0),
    "LEARNING_RATE": Flag(float, "rate of Adam", above=0),
    "TRAIN_FRACTION": Flag(float, "first part of the recording", above=0, below=1),
    "VALIDATION": Flag(float, "last part of the training rows", low=0, high=0.5),
    "SCALER": Flag(str, "rows that mean and scale come from", ("train", "all")),
    "SHUFFLE_PIXELS": Flag(str, "order of the driving series", ("epoch", "none")),
    "SEED": Flag(seed_number, "seed of every random choice"),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
    "JOBS": Flag(int, "runs at the same time", low=1),
    "RUN": Flag(str, "name of the run, its folder in the results; a demo's: demo"),
    "WEIGHT_TENSOR_DIR": Flag(str, "file of the weight tensor"),
    "ITER_LOSS_DIR": Flag(str, "file of the iteration losses"),
    "EPOCH_LOSS_DIR": Flag(str, "file of the epoch losses"),
    "FINAL_Y_PRED_DIR": Flag(str, "file of the prediction"),
    "SAVE_WEIGHT_TENSOR": Flag(str, "form of the attention", ("full", "compact", "auto")),
    "MAX_RAM": Flag(float, "GB for the weight tensor in memory", above=0),
    "SAVE_PLOTS": Flag(bool, "draw the plots"),
    "MAPS": Flag(bool, "draw the maps and compute the importance"),
    "MAP": Flag(str, "map of the movie", ("reference", "attention", "control", "signed")),
    "CLIM": Flag(str, "colour limits of the movie", ("frame", "global", "p99")),
    "ALIGN": Flag(str, "frame behind the map", ("target", "input")),
    "FPS": Flag(float, "frames per second of the movie", above=0),
    "MOVIE": Flag(str, "kinds of movie", ("mp4+gif", "mp4", "gif", "none")),
    "BLOCK": Flag(int, "side of an importance block, pixels", low=1),
    "IMPORTANCE_EVERY": Flag(int, "every k-th training window", low=1),
    "IMPORTANCE_REPEATS": Flag(int, "permutations of a block", low=1),
}
# Functions of the published main.py that live in modules of their own here.
PUBLISHED = {
    "preprocess_data": "preprocessing",
    "da_rnn": "training",
    "train": "training",
    "train_iteration": "training",
    "adjust_learning_rate": "training",
    "prep_train_data": "windows",
    "predict": "prediction",
    "create_plots": "plots",
}


def __getattr__(name):
    """Find a published function in its module, so that ``from main import da_rnn`` works.

    The modules load torch; ``--help`` must not.
    """
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def default_settings():
    """Return the globals as the dict of lower-case names that a run takes."""
    return {flag_name(name): globals()[name] for name in FLAGS}


def run_all(
    data=DATA,
    targ_cols=TARG_COLS,
    weight_tensor_dir=WEIGHT_TENSOR_DIR,
    iter_loss_dir=ITER_LOSS_DIR,
    epoch_loss_dir=EPOCH_LOSS_DIR,
    final_y_pred_dir=FINAL_Y_PRED_DIR,
    *,
    resume=False,
    overwrite=False,
    **settings,
):
    """Train, predict and show one recording, or show a finished run; return its folder.

    Args:
        data: recording.
        targ_cols: labels of the targets.
        weight_tensor_dir, iter_loss_dir, epoch_loss_dir, final_y_pred_dir: files; "" puts them
            into the run's folder.
        resume: go on with an unfinished run.
        overwrite: train again.
        settings: any other global in lower case; ``run_dir`` names the folder itself.
    """
    values = default_settings() | {"resume": resume, "overwrite": overwrite}
    values |= {"data": data, "targ_cols": targ_cols, "weight_tensor_dir": weight_tensor_dir}
    values |= {"iter_loss_dir": iter_loss_dir, "epoch_loss_dir": epoch_loss_dir}
    values["final_y_pred_dir"] = final_y_pred_dir
    unknown = set(settings) - set(values) - {"run_dir"}
    if unknown:
        raise InputError(f"run_all: found unknown settings {sorted(unknown)}; see FLAGS in main.py")
    values |= settings
    values.setdefault("run_dir", RESULTS_DIR / values["run"])
    from many import run_each

    return run_each(values)


def add_actions(parser):
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
    settings = {key: value for key, value in vars(arguments).items() if key != "given"}
    actions = {key: settings.pop(key) for key in ("demo", "fresh", "full", "debug")}
    plain_name(settings["run"])
    if actions["full"] and not actions["demo"]:
        raise InputError("--full belongs to --demo")
    settings["overwrite"] |= actions["fresh"]
    from utils import choose_device

    device, _ = choose_device(settings["device"])
    print(describe_device("torch", device, asked=settings["device"] != "auto"), flush=True)
    if actions["demo"]:
        from demo import run_demo

        return run_demo(settings, arguments.given, full=actions["full"])
    run_all(**settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
