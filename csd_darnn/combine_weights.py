"""Join the weights of a recording that was trained in vertical splits into maps of the full frame.

    python combine_weights.py --root_folder results/csd_darnn --video data/csd_darnn/resized.npy

Reads ``--root_folder``/results_<i>/ of every split (numbers from 0 or 1, without a gap):
    weight_tensor_rs.pt  (n_test, T-1, N_i) weighted inputs, or attention.npz of a run of main.py
and the resized movie (F, H, W). Writes into ``--out_dir``: heatmap_final.mp4, heatmap_final.gif,
mean_map.png with mean_map.csv, combined.npy (n_test, H, W) with combined.json (which map it is, of
which frames).

Every split was trained alone and its attention sums to 1 within the split: values of different
splits do not compare. The full frame trains at once in main.py; splitting is no longer needed.
Source: specification, section 8.5.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, RESULTS_DIR, one_line_faults
from settings import Flag, parse, published

# data
ROOT_FOLDER = RESULTS_DIR  # holds results_0 or results_1 .. results_n
VIDEO = DATA_DIR / "resized.npy"  # background: the whole movie or its test part
SPLITS = DATA_DIR / "splits" / "splits.json"  # "" for old results without it
OUT_DIR = RESULTS_DIR / "combined"
# old results without splits.json
HEIGHT = 0  # pixels, 0: from splits.json or attention.npz
WIDTH = 0  # width of one split in pixels, 0: from the data
FRAMENO = 0  # number of test frames, 0: from the data
TARGET_LOCAL = -1  # place of the target inside its split (row * width + column), -1: from the data
# figures
MAP = "auto"  # attention, reference (|alpha x| at step 1), auto: attention when it is saved
RAW = False  # True leaves out the factor N_i, as published
CLIM = "frame"  # frame, global, p99
FPS = 5.0  # frames per second of the movie

FLAGS = {
    "ROOT_FOLDER": Flag(Path, "folder with results_<i>"),
    "VIDEO": Flag(Path, "movie of the full frame, all frames or the test part"),
    "SPLITS": Flag(str, "splits.json, empty for old results without it"),
    "OUT_DIR": Flag(Path, "folder for the movie"),
    "HEIGHT": Flag(int, "height of old results in pixels, 0: from the data", low=0),
    "WIDTH": Flag(int, "width of one split of old results, 0: from the data", low=0),
    "FRAMENO": Flag(int, "number of test frames, 0: from the data", low=0),
    "TARGET_LOCAL": Flag(int, "place of the target in its split, -1: from the data", low=-1),
    "MAP": Flag(str, "what is shown", ("auto", "attention", "reference")),
    "RAW": Flag(bool, "leave out the factor N_i (published)"),
    "CLIM": Flag(str, "colour limits", ("frame", "global", "p99")),
    "FPS": Flag(float, "frames per second of the movie", above=0),
}

PUBLISHED = {"concat_weight_tensors": "runs.combining"}


def __getattr__(name):
    """Find a published function in its module."""
    return published(__name__, PUBLISHED, name)


@one_line_faults
def main(argv=None):
    """Join the splits and write the movie."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    from runs.combining import join_and_show

    join_and_show(chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
