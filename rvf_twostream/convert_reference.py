"""Convert files of the published project: pickled movies and tables, Keras 2 weights (section 4.4).

    python convert_reference.py --root /path/to/reference/dataset
    python convert_reference.py --weights W.hdf5 --out W.weights.h5

Reads every *.pkl below root and writes beside it: movies (n, r, c, k) as .npy float32, class maps
and ejection fractions as .json, mean and standard deviation as .json. The pickles stay.
``inputs/published_files.py`` is the only module that reads pickles.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import InputError, Parser, one_line_faults
from settings import integer


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="data set with pickles")
    parser.add_argument("--weights", type=Path, help="Keras 2 HDF5 weights")
    parser.add_argument("--out", type=Path, help="new name of the weights, ending in .weights.h5")
    parser.add_argument("--depth", type=integer(18, 152), help="depth the weights must have")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Convert the data set or the weights named on the command line."""
    args = build_parser().parse_args(argv)
    if args.root is None and args.weights is None:
        raise InputError("nothing to do: give --root DATASET, or --weights FILE --out FILE")
    if args.root is not None:
        from inputs.published_files import convert_root

        convert_root(args.root)
    if args.weights is not None:
        if args.out is None or not args.out.name.endswith(".weights.h5"):
            raise InputError(f"--out {args.out}: expected a name that ends in .weights.h5")
        # Imported first: it holds back what TensorFlow writes at its first import.
        import network.start  # noqa: F401
        from network.published_weights import convert_reference_weights

        info = convert_reference_weights(args.weights, args.out, depth=args.depth)
        print(f"{args.out}: {info['kind']}, depth {info['depth']}, width {info['width']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
