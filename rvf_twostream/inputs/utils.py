"""Names, tables and movie files shared by the scripts (specification sections 4.1, 4.2).

Letters in shape comments: n frames, r rows, c columns, k channels (1 grey, 2 flow x and y).
"""

import argparse
import csv
import difflib
import functools
import os
import string
import tokenize
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from joblib import cpu_count

from common.files import InputError, atomic_path, raise_faults, read_json
from common.locks import visible, writing
from common.names import file_name
from common.tables import write_rows

# data
CLASSES = ("normal", "mild", "moderate", "severe")  # class index 0..3
SETS = ("train", "val", "test")
LETTERS = string.ascii_lowercase + string.digits  # one per movie of a patient


def movie_id(name: str | Path) -> str:
    """Return the patient id of a movie: the stem of its name without the last character."""
    stem = Path(name).stem if str(name).endswith((".npy", ".dcm", ".pkl")) else Path(name).name
    return stem[:-1]


def movie_letter(k: int, patient: str) -> str:
    """Return the character of movie ``k`` (0-based) of ``patient``: a-z, then 0-9.

    Differs: the published code runs on into punctuation after z.
    """
    if k >= len(LETTERS):
        raise InputError(
            f"patient {patient}: more than {len(LETTERS)} movies; remove some or split the patient"
        )
    return LETTERS[k]


def read_table(path: Path, allowed: Sequence[str]) -> dict[str, str]:
    """Return {id: value} from a CSV whose first column is the id and second one of ``allowed``.

    The header is optional; one that names id and set or class says where they stand. Upper case is
    accepted with a warning.

    Raises:
        InputError: file missing, a value not allowed (with row number), an id with two values.

    Source: section 4.2. Differs: the published reader drops the first line without looking at it.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, delimiter=_delimiter(handle))
            rows = [(i, [x.strip() for x in row]) for i, row in enumerate(reader, 1)]
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; write a CSV with the columns id, {_column(allowed)}"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as a UTF-8 CSV file ({error})") from None
    rows = [(i, row) for i, row in rows if any(row)]
    if rows and _is_header(rows[0][1], allowed):
        header, rows = rows[0][1], rows[1:]
        if rows and len(header) > max(len(row) for _, row in rows):
            raise InputError(
                f"{path}: row 1 has {len(header)} fields, no other row has: a line break is lost"
            )
        rows = _by_name(header, rows, _column(allowed))
    table, faults, folded = {}, [], []
    for i, row in rows:
        value = row[1] if len(row) > 1 else ""
        if value not in allowed and value.lower() in allowed:
            folded.append(i)
            value = value.lower()
        if not row[0]:
            faults.append(f"row {i}: the id is empty")
            continue
        try:
            file_name(row[0], f"row {i}: id")  # movies are named after it
        except InputError as error:
            faults.append(str(error))
            continue
        if value not in allowed and len(row) == 1:
            faults.append(f"row {i}: one field, expected id and one of {', '.join(allowed)}")
        elif value not in allowed:
            faults.append(f"row {i}: value '{value}' is unknown, allowed are {', '.join(allowed)}")
        elif table.setdefault(row[0], value) != value:
            faults.append(f"row {i}: id {row[0]} is both {table[row[0]]} and {value}")
    raise_faults([f"{path}: {fault}" for fault in faults])
    if not table:
        raise InputError(f"{path}: no rows; expected id and one of {', '.join(allowed)}")
    if folded:
        warnings.warn(
            f"{path}: upper-case values in rows {folded[:20]} read as lower case", stacklevel=2
        )
    return table


def _column(allowed):
    """Return the name of the column whose values are ``allowed``."""
    return "set" if tuple(allowed) == tuple(SETS) else "class"


def _by_name(header, rows, column):
    """Return the rows with id and value in front, where the header names both columns once."""
    names = [name.lower() for name in header]
    if names.count("id") != 1 or names.count(column) != 1:
        return rows
    places = names.index("id"), names.index(column)
    return [(i, [row[k] if k < len(row) else "" for k in places]) for i, row in rows]


def _delimiter(handle):
    """Return what separates the fields of an open table: a comma, or a semicolon or tab.

    Spreadsheets write semicolons where the comma is the decimal sign.
    """
    line = next((line for line in handle if line.strip()), "")
    handle.seek(0)
    return "," if "," in line else next((x for x in ";\t" if x in line), ",")


def _is_header(row, allowed):
    """Say whether the first row names columns.

    It does when its second field is no allowed value. A digit in the first field, or a second field
    close to an allowed value, makes it a faulty row instead: no patient is lost to a misspelling.
    """
    value = row[1].lower() if len(row) > 1 else ""
    if value in allowed or any(char.isdigit() for char in row[0]):
        return False
    return not difflib.get_close_matches(value, allowed, n=1, cutoff=0.75)


def read_classes(path: Path) -> dict[str, str]:
    """Return {id: class name} of a class file."""
    return read_table(path, CLASSES)


def make_redcapmap(path: Path) -> dict[str, int]:
    """Return {id: class index 0..3} of a class file."""
    return {patient: CLASSES.index(name) for patient, name in read_classes(path).items()}


def read_split(path: Path) -> dict[str, str]:
    """Return {id: train|val|test} of a split file."""
    return read_table(path, SETS)


def split_file(root: Path, splitnum: int | str) -> Path:
    """Return the path of split file ``splitnum`` of a data set."""
    return Path(root) / f"split_allocation_{splitnum}.csv"


def read_classmap(root: Path) -> dict[str, int]:
    """Return {movie stem: class index 0..3} from ``<root>/classmap.json``."""
    path = Path(root) / "classmap.json"
    table = read_json(path, remedy="run preprocess.py first")
    good = isinstance(table, dict) and all(v in range(len(CLASSES)) for v in table.values())
    if not good:
        raise InputError(
            f"{path}: expected movie names with class indices 0..3; run preprocess.py -r"
        )
    return table


def read_stats(
    path: Path, *, remedy: str = "run preprocess.py and optical_flow_calculator.py"
) -> dict:
    """Return the content of ``data_mean_std*.json``: mean, std, n_movies, files, options.

    Raises:
        InputError: no such file, a key missing, a mean or deviation that is no finite number.
    """
    return checked_stats(path, read_json(path, remedy=remedy), remedy)


def checked_stats(path: Path, stats: dict, remedy: str) -> dict:
    """Return ``stats``, read from ``path``, or raise InputError (see ``read_stats``)."""
    good = isinstance(stats, dict) and isinstance(stats.get("options"), dict)
    numbers = [stats.get(key) for key in ("mean", "std")] if good else [None]
    if not all(type(x) in (int, float) and np.isfinite(x) for x in numbers) or numbers[1] <= 0:
        raise InputError(f"{path}: expected a finite mean, a positive std and options; {remedy}")
    return stats


def existing_root(root: str | Path) -> Path:
    """Return ``root`` as a Path, or raise InputError when it is no folder."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --root names the folder with the DICOM files")
    return root


def one_writer(function: Callable) -> Callable:
    """Let ``function(root, ...)`` run as the one process that writes the data set ``root``."""

    @functools.wraps(function)
    def wrapped(root, *args, **kwargs):
        root = existing_root(root)
        with writing(root):
            return function(root, *args, **kwargs)

    return wrapped


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``, atomically: a killed run leaves no truncated file."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.lib.format.write_array(handle, np.ascontiguousarray(array), allow_pickle=False)


def load_movie(
    path: Path, *, channels: int | None = None, nrows: int | None = None, ncols: int | None = None
) -> np.ndarray:
    """Return the movie at ``path`` as a memory map (n, r, c, k); only its header is read here.

    Raises:
        InputError: no such file, not ``.npy``, not four axes, not float, another size.
    """
    try:
        movie = np.lib.format.open_memmap(path, mode="r")  # np.load would open a zip as well
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; run preprocess.py and optical_flow_calculator.py"
        ) from None
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        # NumPy reads a damaged header as Python text.
        raise InputError(
            f"{path}: not a complete .npy movie ({error}); recalculate it with -r"
        ) from None
    excess = Path(path).stat().st_size - movie.offset - movie.nbytes
    if excess:
        # NumPy maps what the header asks for and never looks at the rest.
        raise InputError(
            f"{path}: {excess} bytes more than shape {movie.shape} {movie.dtype} needs; its header "
            "is damaged, recalculate it with -r"
        )
    wanted = ("n", nrows or "rows", ncols or "columns", channels or "channels")
    given = (None, nrows, ncols, channels)
    fits = movie.ndim == 4 and all(w in (None, s) for w, s in zip(given, movie.shape, strict=True))
    grey = movie.dtype == np.uint8 and movie.shape[-1] == 1
    if not fits or not (movie.dtype.kind == "f" or grey):
        raise InputError(
            f"{path}: shape {movie.shape} {movie.dtype}, expected ({', '.join(map(str, wanted))}) "
            "float, or uint8 grey; recalculate it with -r"
        )
    return movie


def same_file(source: Path, target: Path) -> bool:
    """Say whether a target is the source's link or an up-to-date copy of it."""
    if not target.exists():
        return False
    if os.path.samefile(source, target):
        return True
    a, b = source.stat(), target.stat()
    return a.st_size == b.st_size and a.st_mtime_ns == b.st_mtime_ns


def check_finite(path: Path, array: np.ndarray) -> None:
    """Raise InputError when ``array``, read from ``path``, holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise InputError(f"{path}: holds NaN or infinite values; recalculate it with -r")


def list_stems(folder: str | Path, suffix: str = ".npy") -> list[str]:
    """Return the sorted stems of the movies in a folder (empty when there is no such folder)."""
    folder = Path(folder)
    return [p.stem for p in visible(folder, f"*{suffix}")] if folder.is_dir() else []


def num_movies(folder: str | Path) -> int:
    """Return the number of movies in a folder."""
    return len(list_stems(folder))


def workers_of(args: argparse.Namespace) -> int:
    """Return the number of processes that --multiprocess and --workers ask for."""
    return args.workers or (cpu_count() if args.multiprocess else 1)


def write_table(path: Path, rows: list[dict], columns: Sequence[str]) -> None:
    """Write dicts as a CSV with a header."""
    write_rows(path, rows, columns)
