"""Convert files of the published project: pickled movies and tables, Keras 2 weights (section 4.4).

    python convert_reference.py --root /path/to/reference/dataset
    python convert_reference.py --weights W.hdf5 --out W.weights.h5

Reads every *.pkl below root and writes beside it: movies (n, r, c, k) as .npy float32, class maps
and ejection fractions as .json, mean and standard deviation as .json. The pickles stay.
This is the only module that reads pickles, and its reader builds nothing but numpy data.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

from common.files import InputError, Parser, one_line_faults, raise_faults, write_json
from optical_flow_calculator import farneback_defaults
from options import integer
from utils import NCOLS, NROWS, existing_root, save_array

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that knows the eight names numpy data needs and refuses every other one."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise InputError(f"refused: the pickle asks for {module}.{name}, which could run code")
        # numpy 2 keeps its old module name only as an alias that warns.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def read_pickle(path):
    """Return the array, dict or list in a published pickle, read without running its code.

    Raises:
        InputError: a refused name (given in the text), or a damaged file.
    """
    try:
        with open(path, "rb") as handle:
            return RestrictedUnpickler(handle).load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        # Damaged pickles raise nearly anything; all mean the same to the user.
        text = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: damaged pickle ({type(error).__name__}: {text})") from None


def checked(path, value):
    """Return a pickle's value in plain form: float32 array, {str: number} or [mean, std].

    Raises:
        InputError: another type, number of axes or dtype, or a value that is not finite.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 4 or value.dtype.kind not in "fui" or not np.isfinite(value).all():
            raise InputError(
                f"{path}: array {value.shape} {value.dtype}, expected a movie (n, rows, columns, "
                "channels) of finite numbers"
            )
        return value.astype(np.float32)
    if isinstance(value, dict) and value:
        if all(isinstance(key, str) and _is_number(v) for key, v in value.items()):
            return {key: _plain(v) for key, v in value.items()}
        raise InputError(f"{path}: expected a dict of names to finite numbers")
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)):
        return [float(v) for v in value]
    if _is_number(value):
        return _plain(value)
    raise InputError(
        f"{path}: holds {type(value).__name__}, expected a movie, a table or two numbers"
    )


def _is_number(value):
    plain = isinstance(value, int | float | np.integer | np.floating)
    return plain and not isinstance(value, bool) and bool(np.isfinite(value))


def _plain(value):
    return int(value) if isinstance(value, int | np.integer) else float(value)


def stats_of_pair(name, pair):
    """Return the content of data_mean_std.json for a published [mean, std] pair.

    The published grey values have the weights of green and blue swapped, so the options say so.
    """
    options = {
        "crop": "none",
        "grey": "reference",
        "resample_fps": 0.0,
        "nrows": NROWS,
        "ncols": NCOLS,
    }
    if name.endswith("_OF"):
        options |= {"flow_size": None, "per_second": False, "farneback": farneback_defaults()}
    return {"mean": pair[0], "std": pair[1], "n_movies": None, "files": "all", "options": options}


def convert_file(path):
    """Convert one pickle beside itself; return the written path, or None for an epoch counter."""
    value = checked(path, read_pickle(path))
    if isinstance(value, np.ndarray):
        target = path.with_suffix(".npy")
        save_array(target, value)
        return target
    if isinstance(value, int | float):
        return None
    target = path.with_suffix(".json")
    write_json(target, stats_of_pair(path.stem, value) if isinstance(value, list) else value)
    return target


def convert_root(root):
    """Convert all pickles below ``root``; good ones are written even when others are refused."""
    root = existing_root(root)
    paths = sorted(root.rglob("*.pkl"))
    if not paths:
        raise InputError(
            f"{root}: no *.pkl files; --root names a data set of the published project"
        )
    faults, written = [], 0
    for path in paths:
        try:
            target = convert_file(path)
        except InputError as error:
            faults.append(str(error))
            continue
        written += target is not None
        if target is None:
            print(f"{path.name}: an epoch counter, not needed: ignored")
    print(f"{written} of {len(paths)} files converted in {root}")
    raise_faults(faults)


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
        convert_root(args.root)
    if args.weights is not None:
        if args.out is None or not args.out.name.endswith(".weights.h5"):
            raise InputError(f"--out {args.out}: expected a name that ends in .weights.h5")
        from checkpoints import convert_reference_weights

        info = convert_reference_weights(args.weights, args.out, depth=args.depth)
        print(f"{args.out}: {info['kind']}, depth {info['depth']}, width {info['width']}")


if __name__ == "__main__":
    sys.exit(main())
