"""Read files of the published project: pickled movies and tables (specification section 4.4).

The body of ``convert_reference.py``. This is the only module that reads pickles, and its reader
builds nothing but numpy data.
"""

import json
import pickle
import sys
from pathlib import Path

import numpy as np

from common.files import InputError, raise_faults, write_json
from common.locks import visible
from inputs.flow import farneback_defaults
from inputs.utils import one_writer, save_array
from settings import NCOLS, NROWS

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

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in ALLOWED:
            raise InputError(f"refused: the pickle asks for {module}.{name}, which could run code")
        # numpy 2 keeps its old module name only as an alias that warns.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def read_pickle(path: Path) -> object:
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


def checked(path: Path, value: object) -> object:
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
        if np.abs(value).max(initial=0) > np.finfo(np.float32).max:
            raise InputError(f"{path}: its largest value does not fit into float32")
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


def stats_of_pair(name: str, pair: list[float], where: str = "") -> dict:
    """Return the content of data_mean_std.json for a published [mean, std] pair.

    The published grey values have the weights of green and blue swapped, so the options say so.

    Raises:
        InputError: a deviation that is not above 0.
    """
    if not pair[1] > 0:
        raise InputError(
            f"{where or name}: holds mean {pair[0]:g} and deviation {pair[1]:g}; expected a "
            "deviation above 0: movies cannot be scaled with it"
        )
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


def convert_file(path: Path) -> Path | None:
    """Convert one pickle beside itself; return the written path, or None for an epoch counter."""
    value = checked(path, read_pickle(path))
    if isinstance(value, np.ndarray):
        target = path.with_suffix(".npy")
        _say_replaced(target, lambda: np.array_equal(np.load(target), value))
        save_array(target, value)
        return target
    if isinstance(value, int | float):
        return None
    target = path.with_suffix(".json")
    if path.stem == "filename2class" and isinstance(value, dict):
        outside = [key for key, v in value.items() if not 0 <= v <= 100]
        if outside:
            raise InputError(
                f"{path}: {outside[0]} is {value[outside[0]]:g}; expected ejection fractions in "
                "percent or classes, 0 to 100"
            )
    held = stats_of_pair(path.stem, value, str(path)) if isinstance(value, list) else value
    _say_replaced(target, lambda: json.loads(target.read_bytes()) == held)
    write_json(target, held)
    return target


def _say_replaced(target, is_equal):
    """Warn when ``target`` is there already and holds something else."""
    try:
        if not target.exists() or is_equal():
            return
    except (OSError, ValueError):  # damaged: replaced anyway
        pass
    print(f"warning: {target} held something else and is replaced", file=sys.stderr)


@one_writer
def convert_root(root: Path) -> None:
    """Convert all pickles below ``root``; good ones are written even when others are refused."""
    paths = [p for p in visible(root, "*", recursive=True) if p.suffix.lower() == ".pkl"]
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
