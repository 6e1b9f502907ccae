"""Load a recording as a matrix (frames, series): movies, arrays, CSV of pixels or series.

Nothing is skipped in silence: a short row, a text cell, a wrong number of pixels or a value that is
not finite is an InputError. Source: specification, sections 4.2 and 4.3.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.files import InputError, read_json
from common.limits import check_shape as check_shape_fits
from inputs.array_files import axis_order
from inputs.csv_files import number_labels
from inputs.film import (
    Film,
    as_float,
    check_in_turn,
    find_bad_frames,
    find_mask,
    look_over,
    open_film,
    with_repeats,
)
from inputs.movie_files import MOVIE_SUFFIXES, Movie, load_array, open_movie, reader_faults
from inputs.recording import OUTSIDE, Recording
from inputs.scales import UNKNOWN, check_times_fit, fill_frames, give, scales_of_sidecar
from inputs.sidecars import check_bytes, find_sidecar
from inputs.table_files import read_table
from settings import RunSettings

CSV_SUFFIXES = (".csv", ".csv.gz")
SOME = 2000  # rows and columns of a matrix that are looked at
SMOOTHER = 0.3  # correlation of neighbours along one axis above that along the other


def parse_shape(text: str) -> tuple[int, int] | None:
    """Return (H, W) from "72,91", or None."""
    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise InputError(f"--shape: found {text!r}, expected H,W, for example 72,91")
    return tuple(int(part) for part in parts)


def load_recording(
    path: str | Path,
    *,
    shape: tuple[int, int] | None = None,
    legacy_labels: str = "reference",
    gray: bool = False,
    given: RunSettings | None = None,
) -> Recording:
    """Load a movie, an array, or a CSV of pixels or named series, and check every value.

    Args:
        path: .csv, .csv.gz or one of MOVIE_SUFFIXES; an NPY (F, K) counts as a pixel matrix.
        shape: (H, W) of a bare CSV or matrix; a movie must agree with it.
        legacy_labels: "reference" (label k means 0-based pixel k, what the published runs used) or
            "intended" (label k means pixel k - 1) for old CSV files.
        gray: take the mean of the channels of a colour movie.
        given: object with the flags of the scales (see ``give``), None where nothing is given.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.exists():
        raise InputError(f"{path}: not found, expected a recording; check the path")
    if name.endswith(CSV_SUFFIXES):
        recording = load_csv(path, shape, legacy_labels, given)
    elif name.endswith(".npy") and (array := read_matrix(path, given, shape)) is not None:
        recording = pixel_recording(path, array, number_labels(array.shape[1]), shape)
    elif path.is_dir() or name.endswith(MOVIE_SUFFIXES):
        return load_movie(path, shape, gray, given)
    else:
        expected = " ".join((*CSV_SUFFIXES, *MOVIE_SUFFIXES))
        raise InputError(
            f"{path}: unknown suffix {path.suffix or '(none)'}, expected one of {expected}"
        )
    recording = mend(recording, given)
    check_finite(recording)
    return recording


def mend(recording: Recording, given: RunSettings | None) -> Recording:
    """Return the recording with the scales that were given; pixels without data become 0.

    Frames without a picture are filled from their neighbours. Both are found or given, and named
    in ``scales``.
    """
    values, scales, source = recording.values, recording.scales, recording.source
    shape = recording.shape
    if given is not None:
        scales = give(scales, given, source, shape)

    def passes():
        step = max(1, (1 << 22) // values.shape[1])
        return (values[start : start + step] for start in range(0, len(values), step))

    if shape is not None and scales.mask.value is None:
        scales = replace(scales, mask=find_mask(passes, shape))
    if scales.mask.value is not None:
        outside = np.flatnonzero(~scales.mask.value.ravel())
        if len(outside) and (values[:, outside] != 0).any():
            values = np.array(values)
            values[:, outside] = 0
    if shape is not None:
        seen = look_over(passes, scales.mask.value)
        wanted = given.bad_frames if given is not None else ""
        if scales.bad_frames.value is None:
            without_picture = find_bad_frames(passes, scales.mask.value, seen, wanted)
            scales = replace(scales, bad_frames=without_picture)
        scales = with_repeats(scales, seen)
        if given is None or not given.channel:
            check_in_turn(seen.mean, scales.bad_frames.value, source)
    if scales.bad_frames.value is not None:
        values = fill_frames(values, scales.bad_frames.value, source)
    check_times_fit(scales, len(values), source)
    return replace(recording, values=values, scales=scales)


def load_movie(
    path: Path, shape: tuple[int, int] | None, gray: bool, given: RunSettings | None
) -> Recording:
    """Return the Recording of a movie file, one column per pixel."""
    opened = open_movie(path, gray=gray, given=given)
    check_shape(path, opened.height * opened.width, shape, (opened.height, opened.width))
    film = open_film(opened, given)
    n_frames, height, width = film.size
    return Recording(
        read_film(film).reshape(n_frames, -1), number_labels(height * width), (height, width),
        np.arange(height * width), "movie", path, target_label=str(height * width - 1),
        scales=film.scales,
    )  # fmt: skip


def load_film(path: str | Path, given: RunSettings | None = None) -> Film:
    """Return the Film of a movie, or of any other recording of an image (pixel CSV, matrix)."""
    path, shape = Path(path), None if given is None else parse_shape(given.shape)
    movie = path.is_dir() or path.name.lower().endswith(MOVIE_SUFFIXES)
    matrix = path.suffix.lower() == ".npy" and read_matrix(path, given, shape) is not None
    if movie and not matrix:
        return open_film(
            open_movie(path, gray=given is not None and given.gray, given=given), given
        )
    recording = load_recording(path, shape=shape, given=given)
    frames = recording.movie()  # (F, H, W)
    held = Movie(
        path, *frames.shape, frames.dtype, lambda: iter([frames]), recording.scales, mapped=frames
    )
    # Bad frames are filled already.
    return Film(held, len(frames), replace(recording.scales, bad_frames=UNKNOWN))


def read_film(film: Film) -> np.ndarray:
    """Return the frames of a Film, (F, H, W) floats; a plain NPY of floats stays on disk."""
    movie = film.movie
    kept = film.scales.mask.value is None and film.scales.bad_frames.value is None
    if kept and movie.mapped is not None and movie.mapped.dtype.kind == "f":
        return as_float(movie.mapped)
    kind = np.result_type(movie.dtype, np.float32)
    check_shape_fits(film.size, kind.itemsize, f"{movie.path}: the movie in memory")
    values, start = np.empty(film.size, kind), 0
    for block in film.blocks():
        values[start : start + len(block)] = block
        start += len(block)
    return values


def read_matrix(
    path: Path, given: RunSettings | None = None, shape: tuple[int, int] | None = None
) -> np.ndarray | None:
    """Return an NPY array of two axes (F, K) as floats, None when it has another number of axes."""
    with reader_faults(path):
        array = load_array(path)
        if array.ndim != 2:
            return None
        order = axis_order("" if given is None else given.axes, 2, path)
        if order is not None:
            return as_float(array.transpose(order))
        if shape is None and not find_sidecar(path)[0]:
            check_matrix(path, array)
        return as_float(array)


def check_matrix(path: Path, array: np.ndarray) -> None:
    """Ask for the axes of a matrix whose values go on smoothly along its second, longer axis.

    So does suite2p's F.npy, (ROIs, frames).
    """
    n_rows, count = array.shape
    if count <= n_rows or n_rows < 2:
        return
    some = np.array(array[:SOME, :SOME], float)
    some -= some.mean(axis=0)
    some -= some.mean(axis=1, keepdims=True)
    size = (some**2).mean()
    along, down = (some[:, 1:] * some[:, :-1]).mean(), (some[1:] * some[:-1]).mean()
    if size > 0 and along - down > SMOOTHER * size:
        raise InputError(
            f"{path}: found {n_rows} x {count} values that go on smoothly along the second axis,"
            " expected frames x series: are these series x frames? give --axes KF, or --axes FK if"
            " frames come first"
        )


def check_shape(
    path: Path, n_pixels: int, shape: tuple[int, int] | None, in_file: tuple[int, int] | None = None
) -> None:
    """Refuse an image shape that does not hold ``n_pixels`` or that the file contradicts."""
    if shape is None:
        return
    height, width = shape
    if height * width != n_pixels or (in_file is not None and tuple(shape) != in_file):
        held = f"{n_pixels} pixels" + (f" ({in_file[0]} x {in_file[1]})" if in_file else "")
        raise InputError(
            f"{path}: found {held}, expected {height} x {width} = {height * width}; give --shape "
            "H,W with H*W equal to the number of pixel columns"
        )


def pixel_recording(
    path: Path,
    values: np.ndarray,
    columns: list[str],
    shape: tuple[int, int] | None,
    *,
    legacy: bool = False,
) -> Recording:
    """Return the Recording of a matrix of pixels, with the shape and split that are known of it."""
    n_frames, count = values.shape
    split = find_split(path, count)
    told, beside = (split, "splits.json") if split else find_sidecar(path)
    check_bytes(path, told, beside)
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
        scales=scales_of_sidecar(told, beside),
    )  # fmt: skip


def find_split(path: Path, count: int) -> dict | None:
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
        split["scales"] = told.get("scales")
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


def load_csv(
    path: Path, shape: tuple[int, int] | None, legacy_labels: str, given: RunSettings | None = None
) -> Recording:
    """Return the Recording of a CSV file of any kind."""
    table = read_table(path, legacy_labels, "auto" if given is None else given.time_column)
    values, labels = table.values, table.labels
    if table.of_pixels:
        return pixel_recording(path, values, labels, shape, legacy=table.legacy)
    check_bytes(path, *find_sidecar(path))
    if shape is not None:
        raise InputError(
            f"{path}: found named columns ({labels[0]}, ...), expected pixel labels 0.. for "
            "--shape; leave --shape out"
        )
    return Recording(
        values, labels, None, None, "table", path, target_label=labels[-1], scales=table.scales
    )


def check_finite(recording: Recording) -> None:
    """Refuse NaN and infinity: names the first frame and pixel and the count."""
    bad, first, count = 0, None, recording.values.shape[1]
    rows_at_once = max(1, (1 << 24) // count)
    for start in range(0, len(recording.values), rows_at_once):
        faulty = ~np.isfinite(recording.values[start : start + rows_at_once])  # (rows, K)
        in_rows = int(faulty.sum())
        if in_rows and first is None:
            row, column = np.argwhere(faulty)[0]
            first = (start + int(row), int(column))
        bad += in_rows
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
