"""Tables as spreadsheets save them: cells between commas, semicolons or tabs, decimal commas.

A comma is read as a decimal comma only where it cannot be anything else: cells are separated by
semicolons or tabs, and no number has a point.
"""

import codecs
import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from common.files import InputError
from common.tables import plain_cell

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def read_cells(
    path: Path,
    needed: Sequence[str],
    *,
    numbers: Collection[str] = (),
    known: Collection[str] = (),
) -> list[dict[str, str | None]]:
    """Return the rows of a table with a header as {column: text}, None where a row ends before it.

    Args:
        path: text in UTF-8, UTF-16 with its mark, or an 8-bit code; names of columns in any case.
        needed: columns that must be there, lower case.
        numbers: those that hold decimals; theirs come back with a point.
        known: others that are read where they are there; no name may head two columns.
    """
    lines = _text(path).splitlines()
    if lines and lines[0].lower().startswith("sep=") and len(lines[0]) == 5:
        lines = lines[1:]  # Excel's own remark, not a row
    if not lines:
        raise InputError(f"{path}: is empty; expected a header with {', '.join(needed)}")
    separator, names = _header(path, lines[0], needed)
    twice = [name for name in (*needed, *known) if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]}; rename or remove one")
    try:
        rows = [row for row in csv.reader(lines[1:], delimiter=separator) if row]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as CSV ({error}); give an intact file") from None
    table = []
    for i, row in enumerate(rows, start=2):
        if any(cell.strip() for cell in row[len(names) :]):
            raise InputError(
                f"{path}: row {i}: {len(row)} cells under {len(names)} columns; cells are "
                f"separated by {SEPARATORS[separator]}, "
                + ("so numbers need a point, or the file semicolons" if separator == "," else
                   "give each row one per column")
            )  # fmt: skip
        cells = [plain_cell(cell) for cell in row] + [None] * (len(names) - len(row))
        table.append(dict(zip(names, cells, strict=False)))
    if separator != ",":
        _with_points(path, table, [name for name in numbers if name in names])
    return table


def _text(path):
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a CSV file") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # what is read of a row are digits, the same in all of them
    if "\0" in text:
        raise InputError(f"{path}: not readable as CSV (it holds zero bytes); give an intact file")
    return text


def _header(path, line, needed):
    """Return (separator, lower-case names) of a header that holds the needed columns."""
    read = {}
    for separator in SEPARATORS:
        cells = next(csv.reader([line], delimiter=separator), [])
        read[separator] = [plain_cell(cell).strip().lower() for cell in cells]
        if set(needed) <= set(read[separator]):
            return separator, read[separator]
    separator, names = max(read.items(), key=lambda pair: len(set(needed) & set(pair[1])))
    missing = [name for name in needed if name not in names]
    raise InputError(
        f"{path}: no column {', '.join(missing)} among {', '.join(names)} (cells separated by "
        f"{SEPARATORS[separator]}); add it"
    )


def _with_points(path, table, numbers):
    """Turn decimal commas of the columns ``numbers`` into points; refuse a table that has both."""
    first = {}
    for i, row in enumerate(table, start=2):
        for name in numbers:
            text = row[name] or ""
            for sign in ",.":
                if sign in text:
                    first.setdefault(sign, f"row {i}: {name} is {text.strip()!r}")
            row[name] = row[name] and text.replace(",", ".")
    if len(first) == 2:
        raise InputError(
            f"{path}: {first[',']}, {first['.']}; expected decimal commas or decimal points, not "
            "both"
        )
