"""Link the normalised movies into the folders of a split (specification section 5.7).

    python split_data.py --root ../data/rvf_twostream/study --splitnum 0 -m
    python split_data.py --root ../data/rvf_twostream/study --make_splits 5 --stratify

Reads split_allocation_<N>.csv (id, train|val|test), manifest.csv, processed_dicoms/ and
processed_OF/ (normalized_* of published and older data sets). Writes
greyscale/split<N>_{train,val,test}/*.npy and OF/split<N>_{...}/*.npy as hard links. With
--make_splits K it writes split_allocation_0..K-1.csv by patient instead.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import InputError, Parser, one_line_faults
from settings import SPLIT, add_file_flags, add_globals, integer

# split
THRESHOLD = SPLIT.THRESHOLD  # a class index above it is positive
SEED = SPLIT.SEED  # of --make_splits
VAL_FRACTION = SPLIT.VAL_FRACTION  # part of the patients in the validation set, --make_splits
TEST_FRACTION = SPLIT.TEST_FRACTION  # part of the patients in the test set, --make_splits

# published functions, found where they stand now
PUBLISHED = {
    "make_sortmap": "inputs.splits",
    "copy_sort": "inputs.splits",
    "split_root": "inputs.splits",
    "make_splits": "inputs.splits",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("-s", "--splitnum", type=integer(0), help="number of the split file")
    parser.add_argument("--copy", action="store_true", help="copy instead of linking")
    parser.add_argument("--recalculate", action="store_true", help="replace what differs")
    parser.add_argument("--make_splits", type=integer(1), metavar="K", help="write K split files")
    parser.add_argument("--stratify", action="store_true", help="spread positives over the sets")
    parser.add_argument("--csv", default="REDcap_class.csv", help="class file of --make_splits")
    add_file_flags(parser)
    add_globals(parser, globals(), SPLIT)
    return parser


@one_line_faults
def main(argv=None):
    """Make the split named on the command line, or write split files."""
    args = build_parser().parse_args(argv)
    if args.make_splits is None and args.splitnum is None:
        raise InputError("--splitnum N is missing (or --make_splits K to write split files)")
    from inputs.splits import make_splits, split_root
    from inputs.utils import workers_of

    if args.make_splits is not None:
        paths = make_splits(
            args.root,
            args.make_splits,
            csv_name=args.csv,
            seed=args.seed,
            stratify=args.stratify,
            val_fraction=args.val_fraction,
            test_fraction=args.test_fraction,
            threshold=args.threshold,
            recalculate=args.recalculate,
            alone=True,
        )
        print(f"{len(paths)} split files: {paths[0].name} .. {paths[-1].name} in {args.root}")
    if args.splitnum is None:
        return 0
    return split_root(
        args.root,
        args.splitnum,
        workers=workers_of(args),
        copy=args.copy,
        recalculate=args.recalculate,
        threshold=args.threshold,
    )


if __name__ == "__main__":
    sys.exit(main())
