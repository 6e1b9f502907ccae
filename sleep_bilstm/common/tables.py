"""Small tables as CSV: written atomically, every line ended by a bare newline."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from common.files import InputError, atomic_path


def write_table(path: str | os.PathLike, header: Sequence, rows: Iterable[Sequence]) -> Path:
    """Write a header and rows of plain values; return the path."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return Path(path)


def write_rows(
    path: str | os.PathLike, rows: Sequence[Mapping], columns: Sequence[str] | None = None
) -> Path:
    """Write dicts of the same keys; ``columns`` (default: keys of the first) give the order."""
    columns = list(rows[0]) if columns is None else list(columns)
    return write_table(path, columns, ([row[name] for name in columns] for row in rows))


def write_columns(path: str | os.PathLike, columns: Mapping[str, Iterable]) -> Path:
    """Write named columns, floats with 9 significant digits; short columns end in empty cells."""

    def cell(value):
        return f"{value:.9g}" if isinstance(value, float | np.floating) else value

    rows = zip_longest(*columns.values(), fillvalue="")
    return write_table(path, list(columns), (map(cell, row) for row in rows))


def read_rows(path: str | os.PathLike, needed: Iterable[str] = ()) -> list[dict[str, str]]:
    """Return the rows of a CSV with a header as dicts of text.

    Raises:
        InputError: the file is missing or no text, or lacks one of the ``needed`` columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            rows, names = list(reader), reader.fieldnames or []
    except FileNotFoundError:
        raise InputError(f"{path}: not found; give a CSV with a header") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV ({error}); give an intact file") from None
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)} among {', '.join(names) or 'none'}; add it"
        )
    return rows
