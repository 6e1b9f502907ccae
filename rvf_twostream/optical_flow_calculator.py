"""Compute the optical flow of every movie and normalise it (specification section 5.6).

    python optical_flow_calculator.py --root ../data/rvf_twostream/study -m
    python optical_flow_calculator.py --root ../data/rvf_twostream/demo/cohort

Reads <root>/manifest.csv and the sorted DICOM files, with the crop, grey and frame-rate options of
preprocess.py. Writes processed_OF/*.npy (n, NROWS, NCOLS, 2) float16 (float32 as --store of
preprocess.py), x (right) and y (down) in the unit of --flow_unit: pixels of the full-size frame per
frame interval or per second, or cm/s of the patient; data_mean_std_OF.json.

Letters in shape comments: n frames, r rows, c columns.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.faults import add_cluster_flag
from common.files import Parser, one_line_faults
from settings import (
    CROP,
    FLOW,
    FLOW_UNITS,
    Settings,
    add_file_flags,
    add_globals,
    flow_size_of_text,
    one_of,
)

# data
NFRAMES = FLOW.NFRAMES  # fewest frames of a movie
NROWS = FLOW.NROWS  # rows of the flow, pixels
NCOLS = FLOW.NCOLS  # columns of the flow, pixels
STATS = FLOW.STATS  # movies behind mean and standard deviation: all or train
SPLITNUM = FLOW.SPLITNUM  # split whose training patients --stats train takes
# Farneback
PYR_SCALE = FLOW.PYR_SCALE  # scale of the next level of the pyramid
LEVELS = FLOW.LEVELS  # levels of the pyramid
WINSIZE = FLOW.WINSIZE  # averaging window, pixels
ITERATIONS = FLOW.ITERATIONS  # at each level
POLY_N = FLOW.POLY_N  # neighbourhood of the polynomial, pixels
POLY_SIGMA = FLOW.POLY_SIGMA  # width of its weights, pixels

# published functions, found where they stand now
PUBLISHED = {
    "video2OF": "inputs.flow",
    "convert2OF": "inputs.flow_files",
    "flow_root": "inputs.flow_files",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--recalculate", action="store_true", help="recompute existing flows")
    parser.add_argument(
        "--flow_size",
        type=flow_size_of_text,
        help="ROWSxCOLS at which to compute; or the size of a pixel, as 1.5mm, then between the "
        "frames as recorded",
    )
    parser.add_argument(
        "--flow_unit", type=one_of(*FLOW_UNITS), default=FLOW_UNITS[0], help=", ".join(FLOW_UNITS)
    )
    parser.add_argument("--per_second", action="store_true", help="the same as px_per_s")
    parser.add_argument("--crop", type=CROP.kind, help="must equal that of preprocess.py")
    add_file_flags(parser)
    add_cluster_flag(parser)
    add_globals(parser, globals(), FLOW)
    return parser


@one_line_faults
def main(argv=None):
    """Compute the flow of the data set named on the command line."""
    args = build_parser().parse_args(argv)
    from inputs.flow_files import flow_root
    from inputs.utils import workers_of

    args.workers = workers_of(args)
    return flow_root(args.root, Settings(**vars(args)))


if __name__ == "__main__":
    sys.exit(main())
