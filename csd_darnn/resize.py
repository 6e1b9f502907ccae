"""Resize a recording, cut it in space or time, and write it as NPY, TIFF and CSV.

    python resize.py                                    # with the globals below
    python resize.py --video_dir movie.tif --new_width 91 --new_height 72 --target 20,25

Reads any movie (F, H, W) that main.py reads: TIFF, NPY, NPZ, HDF5, AVI, MP4, MOV, GIF. Writes into
``--output_dir``:
    resized_video.tiff, resized.npy   (F, new_height, new_width) float32
    resized.json                      source, its size, time and hash: the key of the cache
    splits/crop_<i>.csv, splits/video_<i>.tiff, splits/splits.json    vertical strips of the movie
    with --csv_path: that file, one frame a row
    with --crop_time: test_part.tiff, the frames from --start to --stop
resize_video resizes (it keeps the whole field); crop_video cuts a part out.
Source: specification, sections 5.1, 5.3 and 5.4.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, one_line_faults
from settings import SCALE_NAMES, Flag, RunSettings, flags_of, parse, published

# data
VIDEO_DIR = DATA_DIR / "08_baseline_norm.tif"  # a file, in spite of the name (published name)
OUTPUT_DIR = DATA_DIR  # folder of the resized movie and of splits/
GRAY = False  # take the mean of the channels of a colour movie
# scales and reading of the movie; the scales go with the results
FRAME_RATE_HZ = RunSettings.frame_rate_hz  # frames per second; 0 = from the file
FRAME_TIMES = RunSettings.frame_times  # file with the time in s of every frame
PIXEL_UM = RunSettings.pixel_um  # size of a pixel of VIDEO_DIR in micrometres; 0 = from the file
ROW_UM = RunSettings.row_um  # height of such a pixel in micrometres; 0 = its width
OFFSET = RunSettings.offset  # level of darkness in units of the recording
CHANNEL = RunSettings.channel  # k/n: the k-th of n channels whose frames follow each other
HAEMODYNAMIC = RunSettings.haemodynamic  # ratio, regress: correct by the other channel of a pair
CROP = RunSettings.crop  # top,left,height,width of the part that is resized
AXES = RunSettings.axes  # HWF: order of the axes of an array
DATASET = RunSettings.dataset  # name in an HDF5 file of several
# size
NEW_WIDTH = 91  # pixels
NEW_HEIGHT = 72  # pixels
# splits
NUMBER_SPLITS = 7
TARGET = ("20", "25")  # row, column of the target in the resized movie, 0-based
# further files
CSV_PATH = ""  # name of the CSV in OUTPUT_DIR, "" writes none (4.75 GB at the published size)
CROP_TIME = False  # write test_part.tiff
START = -1  # first frame of it, -1: the test part (after 70 %)
STOP = -1  # frame behind its last one, -1: the end

# Pixels without data and bad frames are found in the resized movie.
SCALES = [name for name in SCALE_NAMES if name not in ("mask", "bad_frames")]
FLAGS = {
    "VIDEO_DIR": Flag(Path, "movie to resize (a file)"),
    "OUTPUT_DIR": Flag(Path, "folder that everything is written to"),
    "GRAY": Flag(bool, "take the mean of the channels of a colour movie"),
    **{name.upper(): flags_of(RunSettings)[name.upper()] for name in SCALES},
    "NEW_WIDTH": Flag(int, "width in pixels", low=1),
    "NEW_HEIGHT": Flag(int, "height in pixels", low=1),
    "NUMBER_SPLITS": Flag(int, "number of vertical strips", low=1),
    "TARGET": Flag(tuple, "row,column of the target in the resized movie, 0-based"),
    "CSV_PATH": Flag(str, "CSV of the whole resized movie, empty: none"),
    "CROP_TIME": Flag(bool, "write the frames from --start to --stop as test_part.tiff"),
    "START": Flag(int, "first frame of test_part.tiff, -1: after 70 % of the frames", low=-1),
    "STOP": Flag(int, "frame behind the last one, -1: the end", low=-1),
}

# Published functions, and ours of the same kind.
NAMES = ("reader", "resize_video", "convert_csv", "crop_video", "crop_tiff_time",
         "crop_numpy_width", "resize_block", "split_borders")  # fmt: skip
PUBLISHED = dict.fromkeys(NAMES, "inputs.resizing")


def __getattr__(name):
    """Find a published function in its module."""
    return published(__name__, PUBLISHED, name)


@one_line_faults
def main(argv=None):
    """Resize one movie and write its splits."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    from inputs.resizing import resize_and_split

    resize_and_split(chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
