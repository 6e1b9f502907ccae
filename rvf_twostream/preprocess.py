"""Sort, read, resize and normalise the DICOM movies of a data set (specification section 5).

    python preprocess.py --root ../data/rvf_twostream/study -m
    python preprocess.py --root ../data/rvf_twostream/demo/cohort

Reads <root>/*.dcm and the class file (id, class). Writes <class>/<id><letter>.dcm,
processed_dicoms/*.npy (n, NROWS, NCOLS, 1) uint8, 255 the movie's maximum (float32 0..1 with
--store float32), data_mean_std.json, classmap.json, manifest.csv, deid_report.csv, deid_pictures/,
deid_contact_sheet*.png, deid_text.csv (--find_text); with --with_flow UNIT also what
optical_flow_calculator.py --flow_unit UNIT writes. Mean and deviation are applied when clips are
read.

Letters in shape comments: n frames, r rows, c columns.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.faults import add_cluster_flag
from common.files import Parser, one_line_faults
from settings import FLOW_UNITS, PREPROCESS, Settings, add_file_flags, add_globals, one_of

# data
NFRAMES = PREPROCESS.NFRAMES  # fewest frames of a movie
NROWS = PREPROCESS.NROWS  # rows of a preprocessed movie, pixels
NCOLS = PREPROCESS.NCOLS  # columns of a preprocessed movie, pixels
CROP = PREPROCESS.CROP  # none, region (of the header) or sector (found in the picture)
GREY = PREPROCESS.GREY  # luma, or reference for the swapped weights of the published script
RESAMPLE_FPS = PREPROCESS.RESAMPLE_FPS  # frames/s after interpolation; 0 keeps the recording's
FRAME_RATE = PREPROCESS.FRAME_RATE  # frames/s of files that tell none; 0 leaves it unknown
STORE = PREPROCESS.STORE  # compact: uint8 grey and float16 flow; or float32
# checks
DEID = PREPROCESS.DEID  # refuse, warn or ignore headers with identity
STATS = PREPROCESS.STATS  # movies behind mean and standard deviation: all or train
SPLITNUM = PREPROCESS.SPLITNUM  # split whose training patients --stats train takes

# published functions, found where they stand now
PUBLISHED = {
    "preprocess_dicom": "inputs.preprocessing",
    "preprocess_root": "inputs.preprocessing",
    "write_stats": "inputs.scaling",
    "movie_from_frames": "inputs.frames",
    "dicom_to_input": "inputs.one_dicom",
    "sort_dicoms": "inputs.sorting",
    "resize_img_list": "inputs.resize",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-d", "--root", type=Path, required=True, help="folder with the DICOM files"
    )
    parser.add_argument("-c", "--csv", default="REDcap_class.csv", help="class file inside root")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="recompute existing movies"
    )
    parser.add_argument(
        "--move", action="store_true", help="move the DICOM files instead of linking"
    )
    parser.add_argument(
        "--find_text", action="store_true", help="search for burnt-in text (requirements-text.txt)"
    )
    parser.add_argument(
        "--with_flow",
        type=one_of("none", *FLOW_UNITS),
        default="none",
        help="flow in this unit as optical_flow_calculator.py makes it at full size; files "
        f"that are read anyway are decoded once for both: {', '.join(FLOW_UNITS)}",
    )
    add_file_flags(parser)
    add_cluster_flag(parser)
    add_globals(parser, globals(), PREPROCESS)
    return parser


@one_line_faults
def main(argv=None):
    """Preprocess the data set named on the command line."""
    args = build_parser().parse_args(argv)
    from inputs.preprocessing import preprocess_and_flow
    from inputs.utils import workers_of

    args.workers = workers_of(args)
    return preprocess_and_flow(args.root, Settings(**vars(args)))


if __name__ == "__main__":
    sys.exit(main())
