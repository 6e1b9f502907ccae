"""Small tables as CSV: written atomically, every line ended by a bare newline.

A text that a spreadsheet would take for a formula gets an apostrophe in front, which is how
spreadsheets mark text; ``read_rows`` takes it off again. Numbers stay as they are.
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from common.faults import InputError
from common.files import atomic_path

# the wide signs count as their narrow ones in spreadsheets of East Asian languages
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan|infinity)", re.I | re.A)


def safe_cell(value: Any) -> Any:
    """Return a cell as it is written: a text that begins like a formula gets an apostrophe."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def plain_cell(text: str) -> str:
    """Return the text of a cell that ``safe_cell`` has written."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def safe_frame(table: Any) -> Any:
    """Return a pandas table whose texts and column names a spreadsheet takes for no formula."""
    texts = [name for name in table.columns if table[name].dtype.kind not in "biufcmM"]
    changed = table.copy()
    for name in texts:
        changed[name] = changed[name].map(safe_cell)
    return changed.rename(columns=safe_cell)


class _BareLines:
    """A text file whose rows end in a bare newline.

    Python's csv quotes a carriage return inside a cell only where lines end in one.
    """

    def __init__(self, out):
        self.out = out

    def write(self, row):
        self.out.write(f"{row[:-2]}\n")


def write_table(path: str | os.PathLike, header: Sequence, rows: Iterable[Sequence]) -> Path:
    """Write a header and rows of plain values; return the path."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(_BareLines(out), lineterminator="\r\n")
        writer.writerow(map(safe_cell, header))
        writer.writerows(map(safe_cell, row) for row in rows)
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
    """Return the rows of a CSV with a header as dicts of text, without the apostrophes of ours.

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
    missing = [name for name in needed if name not in map(plain_cell, names)]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)} among {', '.join(names) or 'none'}; add it"
        )

    def plain(value):
        return plain_cell(value) if isinstance(value, str) else value

    return [{plain(name): plain(value) for name, value in row.items()} for row in rows]
