"""Cells of CSV files of four kinds; a bad one is named by its place (sections 4.2 and 4.3)."""

import csv
import gzip
import sys
import warnings
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from common.files import InputError
from common.limits import check_shape

ROW_NUMBERS = "row number"  # label of a first column without a name


def number_labels(count: int) -> list[str]:
    """Return the labels "0" .. "count-1"."""
    return [str(k) for k in range(count)]


def open_text(path: Path) -> TextIO:
    """Open a CSV file, compressed or not, as text without its byte order mark."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


class Layout(NamedTuple):
    """How a CSV is laid out.

    Attributes:
        names: names in the header.
        hashed: the header starts with #.
        first_cells: cells of the first row.
        n_lines: lines of data.
        mark: what separates cells.
        comma: numbers have a decimal comma.
    """

    names: list[str]
    hashed: bool
    first_cells: list[str]
    n_lines: int
    mark: str = ","
    comma: bool = False


def scan_csv(path: Path) -> Layout:
    """Return the Layout of a CSV file."""
    with open_text(path) as handle:
        header = handle.readline()
        if not header.strip():
            raise InputError(f"{path}: no header in the first line, expected column names")
        first, n_lines, last = handle.readline(), 0, ""
        if first.strip():
            n_lines, last = 1, first
            for line in handle:
                n_lines += 1
                last = line
    if n_lines == 0:
        raise InputError(f"{path}: found no row after the header, expected one row per frame")
    if not last.endswith("\n"):
        print(
            f"warning: {path}: the last line has no line end; if the file was cut, its last number "
            "may be incomplete",
            file=sys.stderr,
        )
    mark = separator(header, first)
    hashed = header.strip().startswith("#")
    header = header.strip("\r\n").lstrip("# ") if hashed else header.strip("\r\n")
    names = next(csv.reader([header], delimiter=mark))
    cells = next(csv.reader([first.strip("\r\n")], delimiter=mark))
    comma = mark != "," and any("," in cell for cell in cells)
    return Layout([name.strip() for name in names], hashed, cells, n_lines, mark, comma)


def separator(header: str, first: str) -> str:
    """Return what separates cells: the mark that cuts header and first row into as many."""
    for mark in (";", "\t"):
        counts = [len(next(csv.reader([line.strip("\r\n")], delimiter=mark))) for line in
                  (header, first)]  # fmt: skip
        if counts[0] == counts[1] > 1:
            return mark
    return ","


def header_labels(path: Path, layout: Layout, legacy_labels: str) -> tuple[list[str], bool]:
    """Return (label of each column, True for a file of the published project).

    A first column without a name is called ROW_NUMBERS.
    """
    names, count = layout.names, len(layout.first_cells)
    if len(names) == 1 and count == 1 and any(mark in layout.first_cells[0] for mark in ";\t"):
        raise InputError(f"{path}: columns are not separated by commas; save it as comma CSV")
    if layout.hashed and len(names) == count - 1 and names == number_labels(count)[1:]:
        # Differs: pandas takes the first column of such a file as row names and loses pixel 0.
        # Here the columns are pixels 0..K-1; what a label means is chosen by `legacy_labels`.
        shift = 0 if legacy_labels == "reference" else 1
        return [str(k + shift) for k in range(count)], True
    if len(names) != count:
        raise InputError(
            f"{path}: found {len(names)} names in the header and {count} cells in the first row, "
            "expected as many; repair the header"
        )
    if "" in names[1:]:
        raise InputError(
            f"{path}: column {names.index('', 1) + 1} has no name, expected a name for every"
            " column; name it or remove it"
        )
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: the column name {twice} stands twice; rename one of them")
    if not names[0]:
        return [ROW_NUMBERS, *names[1:]], False
    if all(is_number(name) for name in names) and names != number_labels(count):
        raise InputError(
            f"{path}: the first line holds numbers ({names[0]}, ...), expected a header 0,1,..,"
            f"{count - 1} or names; add the header line"
        )
    return names, False


def is_number(text: str) -> bool:
    """Return True when ``text`` reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_numbers(path: Path, labels: list[str], layout: Layout) -> np.ndarray:
    """Return the rows of a CSV as float64 (F, K); a bad cell is named by line and column."""
    check_shape((layout.n_lines, len(labels)), 8, f"{path}: a table")
    values, filled = np.empty((layout.n_lines, len(labels))), 0  # (F, K)
    rows = max(1, (1 << 24) // len(labels))
    try:
        with open_text(path) as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # empty lines at the end
            handle.readline()
            lines = (line.replace(",", ".") for line in handle) if layout.comma else handle
            while filled < layout.n_lines:
                # In parts: the reader holds a second copy of what it returns.
                chunk = np.loadtxt(
                    lines,
                    delimiter=layout.mark,
                    comments=None,
                    quotechar='"',
                    ndmin=2,
                    max_rows=rows,
                )
                if not chunk.size:
                    break
                if chunk.shape[1] != len(labels):
                    raise ValueError("rows of different length")
                values[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
    except ValueError as error:
        find_bad_cell(path, labels, layout)
        raise InputError(f"{path}: no table of numbers ({error}); export it again") from error
    return values[:filled]


def find_bad_cell(path: Path, labels: list[str], layout: Layout) -> None:
    """Raise an InputError for the first short or long row or the first cell without a number."""
    with open_text(path) as handle:
        handle.readline()
        rows = csv.reader(handle, delimiter=layout.mark)
        for frame, cells in enumerate(row for row in rows if row):
            place = f"{path}: line {rows.line_num + 1} (row {frame}, counted from 0)"
            if len(cells) != len(labels):
                raise InputError(
                    f"{place} has {len(cells)} cells, expected {len(labels)}: the row is cut or "
                    "broken; export the file again"
                )
            for label, cell in zip(labels, cells, strict=True):
                if not is_number(cell.replace(",", ".") if layout.comma else cell):
                    raise InputError(
                        f"{place}, column {label}: found {cell.strip()[:40]!r}, expected a number; "
                        "correct the cell or remove the column"
                    )
