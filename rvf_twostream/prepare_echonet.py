"""Turn an EchoNet-Dynamic folder into movies and flow for pre-training (specification section 4.5).

    python prepare_echonet.py --root ../data/rvf_twostream/EchoNet-Dynamic -m
    python prepare_echonet.py --root ../data/rvf_twostream/demo/echonet --nrows 56 --ncols 56

Reads FileList.csv (FileName, EF, Split, ...) and Videos/<FileName>.avi. Writes
{train,val,test}_norm1/*.npy (n, NROWS, NCOLS, 1), {train,val,test}_norm_OF/*.npy (..., 2), both
z-scored with the training videos' mean and standard deviation, filename2class.json (name: EF in
percent), data_mean_std.json, data_mean_std_OF.json, skipped.csv.

Letters in shape comments: n frames, r rows, c columns.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.faults import add_cluster_flag
from common.files import Parser, one_line_faults
from settings import ECHONET, Settings, add_file_flags, add_globals

# data
NFRAMES = ECHONET.NFRAMES  # fewest frames of a video
NROWS = ECHONET.NROWS  # rows of a movie, pixels
NCOLS = ECHONET.NCOLS  # columns of a movie, pixels
DTYPE = ECHONET.DTYPE  # float16 or float32, of the stored movies
LIMIT = ECHONET.LIMIT  # videos to take from the list; 0: all
# split
SEED = ECHONET.SEED  # of --make_split

# published functions, found where they stand now
PUBLISHED = {
    "prepare": "inputs.echonet",
    "read_file_list": "inputs.echonet",
    "read_video": "inputs.video",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--root", type=Path, required=True, help="EchoNet-Dynamic folder")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="recompute existing movies"
    )
    parser.add_argument(
        "--make_split", action="store_true", help="draw a split if the list has none"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--grey_only", action="store_true", help="no flow")
    only.add_argument("--of_only", action="store_true", help="only flow")
    add_file_flags(parser)
    add_cluster_flag(parser)
    add_globals(parser, globals(), ECHONET)
    return parser


@one_line_faults
def main(argv=None):
    """Prepare the folder named on the command line."""
    args = build_parser().parse_args(argv)
    from inputs.echonet import GREY, OF, prepare
    from inputs.utils import workers_of

    args.kinds = (GREY,) if args.grey_only else (OF,) if args.of_only else (GREY, OF)
    args.workers = workers_of(args)
    return prepare(args.root, Settings(**vars(args)))


if __name__ == "__main__":
    sys.exit(main())
