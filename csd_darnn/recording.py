"""Load a recording as a matrix (frames, series) with names and places of its columns.

Movies become one column per pixel. CSV files come in four kinds: all pixels of an image
(header 0..H*W-1), one split of an image (with splits.json beside it), the files of the published
project with their wrong header, and tables of named series. Nothing is skipped in silence: a
short row, a text cell, a wrong number of pixels or a value that is not finite is an InputError.

Source: specification, sections 4.2, 4.3 and 5.2.
"""

import csv
import difflib
import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import InputError, read_json
from movie_files import MOVIE_SUFFIXES, load_array, open_movie, reader_faults

CSV_SUFFIXES = (".csv", ".csv.gz")
OUTSIDE = -1  # `pixels` of a target column that lies outside the split it was appended to


@dataclass(frozen=True)
class Recording:
    """A recording in memory.

    Attributes:
        values: (F, K) float32, or float64 for CSV and types that float32 does not hold exactly.
        columns: K labels as the user names them.
        shape: (H, W) of the image, None for a table or a bare CSV without known shape.
        pixels: (K,) int64, 0-based pixel (row * W + column) of each column, OUTSIDE for a target
            appended to a split; None for a table.
        kind: "movie", "pixels", "split" or "table".
        source: file.
        legacy: True for a CSV of the published project (section 4.3).
        target_label: the label that "target" stands for.
        split: entry of splits.json with the keys of the whole movie added, or None.
        frame_rate_hz, pixel_um: from the file's metadata, or None.
    """

    values: np.ndarray
    columns: list[str]
    shape: tuple[int, int] | None
    pixels: np.ndarray | None
    kind: str
    source: Path
    legacy: bool = False
    target_label: str = ""
    split: dict | None = None
    frame_rate_hz: float | None = None
    pixel_um: float | None = None

    def movie(self) -> np.ndarray:
        """Return the image pixels as (F, H, W); an appended target column is left out."""
        if self.shape is None:
            raise InputError(f"{self.source}: no image shape is known; give --shape H,W")
        height, width = self.shape
        return self.values[:, : height * width].reshape(-1, height, width)


def load_recording(path, *, shape=None, legacy_labels="reference", gray=False) -> Recording:
    """Load a movie, an array, or a CSV of pixels or named series, and check every value.

    Args:
        path: .csv, .csv.gz or one of MOVIE_SUFFIXES; an NPY (F, K) counts as a pixel matrix.
        shape: (H, W) of a bare CSV or matrix; a movie must agree with it.
        legacy_labels: "reference" (label k means 0-based pixel k, what the published runs used) or
            "intended" (label k means pixel k - 1) for old CSV files.
        gray: take the mean of the channels of a colour movie.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.exists():
        raise InputError(f"{path}: not found, expected a recording; check the path")
    if name.endswith(CSV_SUFFIXES):
        recording = load_csv(path, shape, legacy_labels)
    elif name.endswith(".npy") and (array := read_matrix(path)) is not None:
        recording = pixel_recording(path, array, number_labels(array.shape[1]), shape)
    elif name.endswith(MOVIE_SUFFIXES):
        recording = load_movie(path, shape, gray)
    else:
        expected = " ".join((*CSV_SUFFIXES, *MOVIE_SUFFIXES))
        raise InputError(
            f"{path}: unknown suffix {path.suffix or '(none)'}, expected one of {expected}"
        )
    check_finite(recording)
    return recording


def number_labels(count):
    """Return the labels "0" .. "count-1"."""
    return [str(k) for k in range(count)]


def as_float(array):
    """Return ``array`` as float32 when that holds its values exactly, else as float64."""
    return np.asarray(array, dtype=np.result_type(array.dtype, np.float32))


def load_movie(path, shape, gray):
    """Return the Recording of a movie file, one column per pixel."""
    opened = open_movie(path, gray=gray)
    movie = as_float(opened.read())  # (F, H, W)
    n_frames, height, width = movie.shape
    check_shape(path, height * width, shape, (height, width))
    return Recording(
        movie.reshape(n_frames, -1), number_labels(height * width), (height, width),
        np.arange(height * width), "movie", path, target_label=str(height * width - 1),
        frame_rate_hz=opened.frame_rate_hz, pixel_um=opened.pixel_um,
    )  # fmt: skip


def read_matrix(path):
    """Return an NPY array of two axes (F, K) as floats, None when it has another number of axes."""
    with reader_faults(path):
        array = load_array(path)
        return as_float(array) if array.ndim == 2 else None


def check_shape(path, n_pixels, shape, found=None):
    """Refuse an image shape that does not hold ``n_pixels`` or that the file contradicts."""
    if shape is None:
        return
    height, width = shape
    if height * width != n_pixels or (found is not None and tuple(shape) != found):
        held = f"{n_pixels} pixels" + (f" ({found[0]} x {found[1]})" if found else "")
        raise InputError(
            f"{path}: found {held}, expected {height} x {width} = {height * width}; give --shape "
            "H,W with H*W equal to the number of pixel columns"
        )


def read_sidecar(path):
    """Return the JSON file beside ``path`` (same stem) that tells frames F, H and W, or {}."""
    sidecar = path.with_name(path.name.split(".")[0] + ".json")
    told = read_json(sidecar) if sidecar.is_file() else {}
    return told if all(isinstance(told.get(key), int) for key in "FHW") else {}


def check_bytes(path, told):
    """Refuse a file that is no longer as long as the JSON file beside it tells."""
    size = path.stat().st_size
    if told.get("bytes") not in (None, size):
        raise InputError(
            f"{path}: found {size} bytes, expected {told['bytes']} (JSON file beside it): the file "
            "is cut or was changed; make it again, or remove the JSON file"
        )


def pixel_recording(path, values, columns, shape, *, legacy=False):
    """Return the Recording of a matrix of pixels, with the shape and split that are known of it."""
    n_frames, count = values.shape
    split = find_split(path, count)
    told = split or read_sidecar(path)
    check_bytes(path, told)
    if told.get("F") is not None and told["F"] != n_frames:
        raise InputError(
            f"{path}: found {n_frames} frames, expected {told['F']} (JSON file beside it): the "
            "file is cut or was changed; make it again"
        )
    if shape is None and {"H", "W"} <= told.keys():
        shape = (told["H"], told["width"] if split else told["W"])
    target_label = columns[-1]
    extra = 0
    if shape is not None:
        # A split that lacks the target carries it as one more column, after the image's pixels.
        extra = int(count == shape[0] * shape[1] + 1)
        check_shape(path, count - extra, shape)
        if split and not extra:
            target_label = columns[split["target_column"]]
    pixels = np.arange(count)  # (K,)
    if extra:
        pixels[-1] = OUTSIDE
    return Recording(
        values, columns, None if shape is None else tuple(shape), pixels,
        "split" if split or extra else "pixels", path, legacy=legacy,
        target_label=target_label, split=split,
    )  # fmt: skip


def find_split(path, count):
    """Return the entry of splits.json beside ``path`` for crop_<i>.csv, with F, H, W and target.

    None when there is no splits.json or the file is none of its splits.
    """
    record = path.with_name("splits.json")
    if not (path.name.startswith("crop_") and record.is_file()):
        return None
    told = read_json(record)
    try:
        index = int(path.name.split(".")[0].removeprefix("crop_"))
        entry = told["splits"][index]
        row, column = told["target_row"], told["target_col"]
        split = {key: told[key] for key in ("F", "H", "W", "n_splits")}
        split |= {key: int(entry[key]) for key in ("left", "right", "width")}
        split |= {"index": index, "target_row": row, "target_col": column}
        split |= {"contains_target": bool(entry["contains_target"]), "bytes": entry.get("bytes")}
        split["target_column"] = int(entry["target_column"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{record}: does not describe {path.name} ({type(error).__name__}: {error}); run "
            "resize.py again"
        ) from None
    expected = split["H"] * split["width"] + (not split["contains_target"])
    if count != expected or not 0 <= split["target_column"] < count:
        raise InputError(
            f"{path}: found {count} columns, splits.json expects {expected}; run resize.py again"
        )
    return split


# ------------------------------------------------------------------------------------------- CSV


def load_csv(path, shape, legacy_labels):
    """Return the Recording of a CSV file of any kind."""
    with reader_faults(path):
        names, hashed, first_cells, n_lines = scan_csv(path)
    labels, legacy = header_labels(path, names, hashed, first_cells, legacy_labels)
    with reader_faults(path):
        values = read_numbers(path, labels, n_lines)  # (F, K) float64
    if legacy or labels == number_labels(len(labels)):
        return pixel_recording(path, values, labels, shape, legacy=legacy)
    check_bytes(path, read_sidecar(path))
    if shape is not None:
        raise InputError(
            f"{path}: found named columns ({labels[0]}, ...), expected pixel labels 0.. for "
            "--shape; leave --shape out"
        )
    return Recording(values, labels, None, None, "table", path, target_label=labels[-1])


def open_text(path):
    """Open a CSV file, compressed or not, as text without its byte order mark."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def scan_csv(path):
    """Return (names in the header, True when it starts with #, cells of first row, data lines)."""
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
    header = header.strip()
    hashed = header.startswith("#")
    names = next(csv.reader([header.lstrip("# \t")]))
    return [name.strip() for name in names], hashed, next(csv.reader([first.strip()])), n_lines


def header_labels(path, names, hashed, first_cells, legacy_labels):
    """Return (label of each column, True for a file of the published project)."""
    count = len(first_cells)
    if len(names) == 1 and count == 1 and any(mark in first_cells[0] for mark in ";\t"):
        raise InputError(f"{path}: columns are not separated by commas; save it as comma CSV")
    if hashed and len(names) == count - 1 and names == number_labels(count)[1:]:
        # Differs: pandas takes the first column of such a file as row names and loses pixel 0.
        # Here the columns are pixels 0..K-1; what a label means is chosen by `legacy_labels`.
        shift = 0 if legacy_labels == "reference" else 1
        return [str(k + shift) for k in range(count)], True
    if len(names) != count:
        raise InputError(
            f"{path}: found {len(names)} names in the header and {count} cells in the first row, "
            "expected as many; repair the header"
        )
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} has no name, expected a name for every column; "
            "remove a column of row numbers (pandas: index=False)"
        )
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: the column name {twice} stands twice; rename one of them")
    if all(is_number(name) for name in names) and names != number_labels(count):
        raise InputError(
            f"{path}: the first line holds numbers ({names[0]}, ...), expected a header 0,1,..,"
            f"{count - 1} or names; add the header line"
        )
    return names, False


def is_number(text):
    """Return True when ``text`` reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_numbers(path, labels, n_lines):
    """Return the rows of a CSV as float64 (F, K); a bad cell is named by line and column."""
    import pandas as pd

    values = np.empty((n_lines, len(labels)))  # (F, K)
    filled = 0
    try:
        chunks = pd.read_csv(
            path, header=None, skiprows=1, dtype=np.float64, encoding="utf-8-sig",
            chunksize=max(1, (1 << 24) // len(labels)),
        )  # fmt: skip
        for chunk in chunks:
            if chunk.shape[1] != len(labels):
                raise ValueError("rows of different length")
            values[filled : filled + len(chunk)] = chunk.to_numpy()
            filled += len(chunk)
    except ValueError as error:
        find_bad_cell(path, labels)
        raise InputError(f"{path}: no table of numbers ({error}); export it again") from error
    values = values[:filled]
    if not np.isfinite(values).all():
        # pandas fills short rows and empty cells with NaN: a fault of the file, not of the data.
        find_bad_cell(path, labels)
    return values


def find_bad_cell(path, labels):
    """Raise an InputError for the first short or long row or the first cell without a number."""
    with open_text(path) as handle:
        handle.readline()
        rows = csv.reader(handle)
        for frame, cells in enumerate(row for row in rows if row):
            place = f"{path}: line {rows.line_num + 1} (row {frame}, counted from 0)"
            if len(cells) != len(labels):
                raise InputError(
                    f"{place} has {len(cells)} cells, expected {len(labels)}: the row is cut or "
                    "broken; export the file again"
                )
            for label, cell in zip(labels, cells, strict=True):
                if not is_number(cell):
                    raise InputError(
                        f"{place}, column {label}: found {cell.strip()[:40]!r}, expected a number; "
                        "correct the cell or remove the column"
                    )


# ---------------------------------------------------------------------------- checks and targets


def check_finite(recording):
    """Refuse NaN and infinity: names the first frame and pixel and the count."""
    bad, first, count = 0, None, recording.values.shape[1]
    rows_at_once = max(1, (1 << 24) // count)
    for start in range(0, len(recording.values), rows_at_once):
        faulty = ~np.isfinite(recording.values[start : start + rows_at_once])  # (rows, K)
        found = int(faulty.sum())
        if found and first is None:
            row, column = np.argwhere(faulty)[0]
            first = (start + int(row), int(column))
        bad += found
    if first is None:
        return
    frame, column = first
    place = f"column {recording.columns[column]}"
    if recording.shape is not None and recording.pixels[column] != OUTSIDE:
        row, col = divmod(int(recording.pixels[column]), recording.shape[1])
        place = f"pixel row {row}, column {col}"
    raise InputError(
        f"{recording.source}: found {bad} values that are NaN or infinite, first in frame "
        f"{frame}, {place} ({recording.values[frame, column]}), expected finite numbers; replace "
        "or crop them"
    )


def resolve_targets(recording, targ_cols=("target",), target_rc=None) -> list[int]:
    """Return the column positions of the targets in FILE order.

    Args:
        recording: the loaded recording.
        targ_cols: labels, text or integers; "target" and "last" are aliases.
        target_rc: (row, column), 0-based, or a list of such pairs; used instead of ``targ_cols``.

    Source: section 5.2; an unknown label names the nearest ones and the range.
    """
    if target_rc is not None:
        pairs = [target_rc] if np.ndim(target_rc) == 1 else list(target_rc)
        found = {pixel_column(recording, int(row), int(col)) for row, col in pairs}
    else:
        found = {label_column(recording, str(label).strip()) for label in targ_cols}
    if not found:
        raise InputError(f"{recording.source}: no target is given, expected at least one label")
    if len(found) == len(recording.columns):
        raise InputError(
            f"{recording.source}: all {len(found)} columns are targets, expected at least one "
            "driving series; name fewer targets"
        )
    return sorted(found)


def pixel_column(recording, row, col):
    """Return the column that holds image pixel (row, col)."""
    if recording.shape is None:
        raise InputError(
            f"{recording.source}: a target by row,col needs the image shape; give --shape H,W or "
            "a column label"
        )
    height, width = recording.shape
    if not (0 <= row < height and 0 <= col < width):
        raise InputError(
            f"{recording.source}: target row {row}, column {col} lies outside the image, expected "
            f"rows 0..{height - 1} and columns 0..{width - 1}"
        )
    return row * width + col


def label_column(recording, label):
    """Return the position of a label; "target" and "last" are aliases."""
    columns = recording.columns
    if label == "last" and label not in columns:
        return len(columns) - 1
    if label == "target" and label not in columns:
        label = recording.target_label
    if label not in columns:
        near = difflib.get_close_matches(label, columns, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}; " if near else ""
        raise InputError(
            f"{recording.source}: no column {label}, {hint}labels run from {columns[0]} to "
            f"{columns[-1]} ({len(columns)} columns); choose one of them"
        )
    position = columns.index(label)
    if recording.legacy:
        place = f"0-based pixel {position}"
        if recording.shape is not None:
            row, col = divmod(position, recording.shape[1])
            place += f" = row {row}, column {col}"
        print(
            f"warning: {recording.source}: file of the published project, label {label} means "
            f"{place}; --legacy_labels chooses the other reading",
            file=sys.stderr,
        )
    return position


def find_duplicate_series(values, target_columns) -> list[tuple[int, int]]:
    """Return pairs (driving column, target column) whose series are identical."""
    targets = set(target_columns)
    pairs = []
    for target in target_columns:
        same = np.flatnonzero((values == values[:, [target]]).all(axis=0))
        pairs += [(int(column), target) for column in same if column not in targets]
    return pairs
