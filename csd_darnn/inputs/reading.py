"""Load a recording as a matrix (frames, series): movies, arrays, CSV of pixels or series.

Nothing is skipped in silence: a short row, a text cell, a wrong number of pixels or a value that is
not finite is an InputError. Source: specification, sections 4.2 and 4.3.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.files import InputError, read_json
from inputs.csv_files import header_labels, number_labels, read_numbers, scan_csv
from inputs.movie_files import MOVIE_SUFFIXES, load_array, open_movie, reader_faults
from inputs.recording import OUTSIDE, Recording
from inputs.scales import (
    SECONDS,
    UNKNOWN,
    Known,
    Scales,
    check_times,
    fill_frames,
    give,
    scales_of_sidecar,
)
from settings import RunSettings

CSV_SUFFIXES = (".csv", ".csv.gz")
LEAST_PIXELS = 9  # with fewer pixels equal ones are no sign of a missing picture
RARE = 0.01  # share of the pixels of other frames that may reach the level of a bad one
TIME_NAME = re.compile(
    r"(?:time|times|timestamp|timestamps|t)(?:[_ (\[]+(?P<unit>[a-z]+)[)\]]?)?|frame|frames|seconds"
)


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
    elif name.endswith(".npy") and (array := read_matrix(path)) is not None:
        recording = pixel_recording(path, array, number_labels(array.shape[1]), shape)
    elif name.endswith(MOVIE_SUFFIXES):
        recording = load_movie(path, shape, gray)
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
    values, scales = recording.values, recording.scales
    image = recording.shape is not None
    if given is not None:
        scales = give(scales, given, recording.source, recording.shape)
    if image and scales.mask.value is None:
        scales = replace(scales, mask=find_mask(recording))
    if scales.mask.value is not None:
        outside = np.flatnonzero(~scales.mask.value.ravel())
        if len(outside) and (values[:, outside] != 0).any():
            values = np.array(values)
            values[:, outside] = 0
    if image and scales.bad_frames.value is None:
        scales = replace(scales, bad_frames=find_bad_frames(values, scales.mask.value))
    if scales.bad_frames.value is not None:
        values = fill_frames(values, scales.bad_frames.value, recording.source)
    times = scales.frame_times_s.value
    if times is not None and len(times) != len(values):
        raise InputError(
            f"{recording.source}: found {len(times)} times ({scales.frame_times_s.origin}) for"
            f" {len(values)} frames, expected as many; give the time of every frame"
        )
    return replace(recording, values=values, scales=scales)


def find_mask(recording: Recording) -> Known:
    """Return the mask of pixels that hold data: not NaN, or not 0, in every frame."""
    values, n_pixels = recording.values, recording.shape[0] * recording.shape[1]
    first = values[0, :n_pixels]
    empty = np.flatnonzero(np.isnan(first) | (first == 0))
    some = values[:, empty]
    empty = empty[(np.isnan(some) | (some == 0)).all(axis=0)]
    if not len(empty) or len(empty) == n_pixels:
        return UNKNOWN
    mask = np.ones(recording.shape, bool)
    mask.flat[empty] = False
    return Known(mask, "file: the others are 0 or NaN throughout")


def find_bad_frames(values: np.ndarray, mask: np.ndarray | None = None) -> Known:
    """Return the frames of one colour that hardly any pixel of the other frames reaches.

    So a frame of 0 in a movie of photon counts, where 0 is common, is a frame like any other.
    """
    shown = values if mask is None else values[:, np.flatnonzero(mask.ravel())]
    if shown.shape[1] < LEAST_PIXELS:
        return UNKNOWN
    flat = np.flatnonzero(shown.min(axis=1) == shown.max(axis=1))
    flat = flat[np.isfinite(shown[flat, 0])]  # what is no number is refused, not filled
    if not len(flat) or 2 * len(flat) > len(values):
        return UNKNOWN
    others = np.delete(shown, flat, axis=0)
    levels = {level: min((others <= level).mean(), (others >= level).mean()) for level in
              np.unique(shown[flat, 0])}  # fmt: skip
    bad = [frame for frame in flat if levels[shown[frame, 0]] < RARE]
    return Known(np.array(bad, int), "file: all pixels are equal") if bad else UNKNOWN


def as_float(array: np.ndarray) -> np.ndarray:
    """Return ``array`` as float32 when that holds its values exactly, else as float64."""
    return np.asarray(array, dtype=np.result_type(array.dtype, np.float32))


def load_movie(path: Path, shape: tuple[int, int] | None, gray: bool) -> Recording:
    """Return the Recording of a movie file, one column per pixel."""
    opened = open_movie(path, gray=gray)
    scales = opened.scales
    if path.suffix.lower() == ".npy":
        scales = scales_of_sidecar(read_sidecar(path), f"{path.stem}.json")
    movie = as_float(opened.read())  # (F, H, W)
    n_frames, height, width = movie.shape
    check_shape(path, height * width, shape, (height, width))
    return Recording(
        movie.reshape(n_frames, -1), number_labels(height * width), (height, width),
        np.arange(height * width), "movie", path, target_label=str(height * width - 1),
        scales=scales,
    )  # fmt: skip


def read_matrix(path: Path) -> np.ndarray | None:
    """Return an NPY array of two axes (F, K) as floats, None when it has another number of axes."""
    with reader_faults(path):
        array = load_array(path)
        return as_float(array) if array.ndim == 2 else None


def check_shape(
    path: Path, n_pixels: int, shape: tuple[int, int] | None, found: tuple[int, int] | None = None
) -> None:
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


def read_sidecar(path: Path) -> dict:
    """Return the JSON file beside ``path`` (same stem) that tells frames F, H and W, or {}."""
    sidecar = path.with_name(path.name.split(".")[0] + ".json")
    told = read_json(sidecar) if sidecar.is_file() else {}
    return told if all(isinstance(told.get(key), int) for key in "FHW") else {}


def check_bytes(path: Path, told: dict) -> None:
    """Refuse a file that is no longer as long as the JSON file beside it tells."""
    size = path.stat().st_size
    if told.get("bytes") not in (None, size):
        raise InputError(
            f"{path}: found {size} bytes, expected {told['bytes']} (JSON file beside it): the file "
            "is cut or was changed; make it again, or remove the JSON file"
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
    name = "splits.json" if split else f"{path.name.split('.')[0]}.json"
    pixels = np.arange(count)  # (K,)
    if extra:
        pixels[-1] = OUTSIDE
    return Recording(
        values, columns, None if shape is None else tuple(shape), pixels,
        "split" if split or extra else "pixels", path, legacy=legacy,
        target_label=target_label, split=split,
        scales=scales_of_sidecar(told, name),
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
    column = time_column(labels, values, "auto" if given is None else given.time_column, path)
    scales = Scales()
    if column is not None:
        values, labels, scales = take_clock(values, labels, column)
    return Recording(
        values, labels, None, None, "table", path, target_label=labels[-1], scales=scales
    )


def time_column(labels: list[str], values: np.ndarray, wanted: str, path: Path) -> int | None:
    """Return the position of the column that is the clock of a table, or None.

    Args:
        wanted: name of the column, none, or auto: the first column, when it is called like a time
            and grows in every row.
    """
    if wanted == "none":
        return None
    if wanted != "auto":
        if wanted not in labels:
            raise InputError(
                f"{path}: found no column {wanted!r}, expected the one that --time_column names"
            )
        check_times(values[:, labels.index(wanted)], path)
        return labels.index(wanted)
    grows = len(values) > 1 and (np.diff(values[:, 0]) > 0).all()
    return 0 if grows and len(labels) > 2 and TIME_NAME.fullmatch(labels[0].lower()) else None


def take_clock(
    values: np.ndarray, labels: list[str], column: int
) -> tuple[np.ndarray, list[str], Scales]:
    """Return the values and labels without the column of times, and the Scales it tells.

    Without a unit in its name it tells the order of the rows only.
    """
    name, times = labels[column], values[:, column]
    unit = TIME_NAME.fullmatch(name.lower())
    factor = SECONDS.get((unit and unit["unit"]) or "")
    origin = f"file: column {name}"
    scales = Scales(note=f"column {name} is a clock of unknown unit and no driving series")
    if factor:
        times = times * factor
        scales = Scales(
            rate_hz=Known(1 / float(np.median(np.diff(times))), origin),
            frame_times_s=Known(times, origin),
            note=f"column {name} is the clock and no driving series",
        )
    labels = [label for position, label in enumerate(labels) if position != column]
    return np.delete(values, column, axis=1), labels, scales


def check_finite(recording: Recording) -> None:
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
