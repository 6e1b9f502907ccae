"""Read and write TIFF movies with their calibration, and refuse damaged ones.

Reading follows section 4.3 of the specification: (t, y, x) stacks, frame times from tag 270, OME or
ImageJ metadata, pixel size from OME or ImageJ metadata. tifffile only logs most faults of a file;
here every such message, every missing page and every missing byte is an InputError.

Files read: ``NN_video.tif`` (T, H, W) uint16 or float32, ``NN_class_label.tif`` (T, H, W) uint8,
``NN_event_label.tif`` (T, H, W) uint8 or uint16.
Files written: TIFF (T, H, W) or (T, H, W, 3) that opens in ImageJ and napari with axes, pixel size
and frame interval.
"""

import logging
import math
import re
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from common.files import InputError, atomic_path
from inputs.calibration import UNKNOWN, Calibration, interval_of_times

CLASS_VALUES = (0, 1, 2, 3, 4)
LENGTH_UM = {
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": 25400.0,
    "inches": 25400.0,
    "in": 25400.0,
}
LARGEST_PIXEL_UM = 20.0  # of a microscope; coarser resolutions are those of a screen or a printer
TIME_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "msec": 1.0, "s": 1e3, "sec": 1e3, "min": 6e4}
FRAME_TIME_LINE = re.compile(r"^\s*(\d+)\t([-+0-9.eE]+)")
READ_ERRORS = (
    tifffile.TiffFileError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    SyntaxError,  # ElementTree.ParseError of OME metadata
    OSError,
    MemoryError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Movie:
    """A movie with its calibration.

    Attributes:
        data: (T, H, W), integer type of the file in native byte order, or float32; camera counts.
        calibration: Calibration, with unknown values where the file does not say them.
        source: path of the file.
    """

    data: np.ndarray
    calibration: Calibration
    source: Path


class _Messages(logging.Handler):
    """Collect what tifffile logs in this thread, because it reports damaged files only there."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.texts = []

    def __enter__(self):
        logger = logging.getLogger("tifffile")
        self.propagated, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        return self

    def __exit__(self, *_):
        logger = logging.getLogger("tifffile")
        logger.removeHandler(self)
        logger.propagate = self.propagated

    def emit(self, record):
        if record.thread == self.thread:
            self.texts.append(record.getMessage())


def read_movie(path):
    """Read a movie and its calibration.

    Args:
        path: TIFF with axes (t, y, x); axes of length 1, as in (t, 1, y, x), are dropped.

    Returns:
        Movie with finite data.

    Raises:
        InputError: file missing, damaged or truncated, not a (t, y, x) stack, RGB, not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: file not found; expected a TIFF movie with axes (t, y, x)")
    with _Messages() as messages:
        try:
            with tifffile.TiffFile(path) as tif:
                data, calibration = _read_open_file(path, tif)
        except InputError:
            raise
        except READ_ERRORS as error:
            raise InputError(
                f"{path}: damaged or unreadable TIFF ({error or type(error).__name__}); "
                "export the movie again"
            ) from error
    if messages.texts:
        raise InputError(
            f"{path}: damaged or truncated TIFF, {len(data)} pages read, more expected "
            f"({messages.texts[0]}); copy or export the file again"
        )
    return Movie(_checked_values(path, data), calibration, path)


def read_class_labels(path, shape):
    """Read a class mask (T, H, W) uint8 with values 0..4 and the shape of its movie."""
    labels = _integer_stack(path, shape, "class mask")
    wrong = ~np.isin(labels, CLASS_VALUES)
    if wrong.any():
        frame = int(np.argmax(wrong.any(axis=(1, 2))))
        value = int(labels[frame][wrong[frame]][0])
        raise InputError(
            f"{path}: class value {value} first in frame {frame}; expected 0 background, 1 spark, "
            "2 wave, 3 puff, 4 ignore"
        )
    return labels.astype(np.uint8, copy=False)


def read_event_labels(path, shape):
    """Read an event mask (T, H, W) int32 with ids >= 0 and the shape of its movie."""
    labels = _integer_stack(path, shape, "event mask")
    if labels.size and labels.min() < 0:
        frame = int(np.argmax((labels < 0).any(axis=(1, 2))))
        raise InputError(
            f"{path}: negative event id {int(labels.min())} (first negative one in frame {frame}); "
            "expected 0 for background and positive ids"
        )
    if labels.size and labels.max() > np.iinfo(np.int32).max:
        raise InputError(f"{path}: event id {int(labels.max())}; expected ids below 2**31")
    return labels.astype(np.int32)


def label_warnings(name, classes, events):
    """Return warnings about a pair of masks that disagree: support, and events of two classes.

    Args:
        name: what the messages start with, usually the path of the event mask.
        classes: (T, H, W) class mask.
        events: (T, H, W) event ids.
    """
    warnings = []
    only_class = int(np.count_nonzero((classes != 0) & (events == 0)))
    only_event = int(np.count_nonzero((classes == 0) & (events != 0)))
    if only_class or only_event:
        warnings.append(
            f"{name}: {only_class} voxels have a class and no event id, {only_event} an event id "
            "and no class"
        )
    inside = (events != 0) & (classes != 0)
    pairs = np.unique(events[inside].astype(np.int64) * 8 + classes[inside])
    ids, counts = np.unique(pairs // 8, return_counts=True)
    mixed = ids[counts > 1]
    if mixed.size:
        listed = ", ".join(str(i) for i in mixed[:20])
        warnings.append(f"{name}: events with more than one class: {listed}")
    return warnings


def write_stack(path, array, *, calibration=None):
    """Write a movie as ImageJ TIFF, atomically.

    Args:
        path: file to write.
        array: (T, H, W) bool, uint8, uint16 or float32, or (T, H, W, 3) uint8 colours.
        calibration: Calibration; what it does not know is left out of the file.

    Returns:
        The path.
    """
    calibration = calibration or Calibration()
    pixel_um, frame_ms = calibration.pixel_um, calibration.frame_ms
    array = np.asarray(array)
    if array.dtype == bool:
        array = array.view(np.uint8)
    colour = array.ndim == 4
    allowed = ("uint8",) if colour else ("uint8", "uint16", "float32")
    if array.ndim not in (3, 4) or array.dtype.name not in allowed:
        raise ValueError(f"cannot write {array.dtype} {array.shape} as an ImageJ stack")
    metadata = {"axes": "TYXS" if colour else "TYX", "unit": "um"}
    if frame_ms:
        metadata |= {"finterval": frame_ms / 1e3, "fps": 1e3 / frame_ms, "tunit": "sec"}
    resolution = (1.0 / pixel_um, 1.0 / pixel_um) if pixel_um else None
    if not pixel_um:
        del metadata["unit"]
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            array,
            imagej=True,
            resolution=resolution,
            photometric="rgb" if colour else "minisblack",
            metadata=metadata,
        )
    return Path(path)


def same_shape(stack, movie):
    """Raise InputError when a stack and its movie (both Movie) differ in shape."""
    if stack.data.shape != movie.data.shape:
        raise InputError(
            f"{stack.source}: shape {stack.data.shape}, its movie {movie.source.name} "
            f"{movie.data.shape}; expected equal shapes"
        )


def movie_ids(folder, suffix="video"):
    """Return the sorted ids NN of the files ``NN_<suffix>.tif`` in ``folder``."""
    ending = f"_{suffix}.tif"
    names = [path.name[: -len(ending)] for path in Path(folder).glob(f"*{ending}")]
    return sorted(name for name in names if name and "_" not in name)


def _read_open_file(path, tif):
    """Return (data, Calibration) of an open TIFF after all checks."""
    if len(tif.pages) == 0:
        raise InputError(f"{path}: no image in the file; expected a (t, y, x) stack")
    first = tif.pages[0]
    if first.samplesperpixel > 1 or first.photometric == tifffile.PHOTOMETRIC.RGB:
        raise InputError(
            f"{path}: colour image {first.shape}; expected a grey (t, y, x) stack: "
            "convert it to grey values"
        )
    _check_complete(path, tif)
    if len(tif.series) != 1:
        shapes = ", ".join(str(series.shape) for series in tif.series[:4])
        raise InputError(
            f"{path}: {len(tif.series)} images of different kinds ({shapes}); expected one"
        )
    series = tif.series[0]
    shape = tuple(n for n in series.shape if n > 1) if len(series.shape) > 3 else series.shape
    if len(shape) == 2:
        raise InputError(f"{path}: two-dimensional image {shape}; expected a movie (t, y, x)")
    if len(shape) != 3:
        raise InputError(
            f"{path}: axes {series.axes} with shape {series.shape}; expected (t, y, x), one channel"
        )
    description = first.description or ""
    times = _frame_times(path, description, shape[0])
    data = series.asarray().reshape(shape)
    ij = tif.imagej_metadata or {}
    if ij.get("cf") == 0 and ij.get("c0") is not None:
        data = _imagej_values(data, float(ij["c0"]), float(ij.get("c1", 1.0)))
    return data, _calibration(path, tif, ij, times)


def _check_complete(path, tif):
    """Raise InputError when pages or bytes that the file announces are missing."""
    size = tif.filehandle.size
    series_pages = sum(math.prod(series.shape[:-2]) for series in tif.series)
    ij = tif.imagej_metadata or {}
    expected = max(int(ij.get("images", 1)), series_pages)
    present = len(tif.pages)
    whole = next((i for i, page in enumerate(tif.pages) if not _page_complete(page, size)), present)
    if present == 1 and expected > 1:
        # One directory, all frames behind it: how ImageJ and tifffile write large stacks.
        page = tif.pages[0]
        frame_bytes = math.prod(page.shape) * page.dtype.itemsize
        whole = min(expected, max(0, size - page.dataoffsets[0]) // max(frame_bytes, 1))
    if whole < expected or whole < present:
        raise InputError(
            f"{path}: truncated TIFF, {whole} of {max(expected, present)} pages are complete; "
            "copy or export the file again"
        )


def _page_complete(page, size):
    """Return whether all strips of a page lie inside a file of ``size`` bytes."""
    page = page.aspage()
    strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    stored = sum(count for _, count in strips)
    return (
        len(strips) >= math.prod(page.chunked)
        and all(offset + count <= size for offset, count in strips)
        and (page.compression != 1 or stored >= page.nbytes)
    )


def _imagej_values(data, offset, slope):
    """Undo the linear grey-value code of ImageJ, by which it keeps signed 16-bit stacks."""
    if slope == 1.0 and offset.is_integer() and data.dtype.kind in "iu":
        return data.astype(np.int32) + int(offset)
    return (data * np.float32(slope) + np.float32(offset)).astype(np.float32)


def _frame_times(path, description, n_frames):
    """Return the frame times in s from the lines ``index<TAB>time`` of tag 270, or None."""
    found = [FRAME_TIME_LINE.match(line) for line in description.splitlines()]
    values = [match.group(2) for match in found if match]
    if len(values) < 2:
        return None
    try:
        times = np.array([float(value) for value in values])
    except ValueError:
        return None
    if len(times) != n_frames or not np.all(np.diff(times) > 0) or not np.isfinite(times).all():
        raise InputError(
            f"{path}: tag 270 lists {len(times)} frame times for {n_frames} frames, "
            "expected one rising time per frame; remove or repair the tag"
        )
    return times


def _calibration(path, tif, ij, times):
    """Return the Calibration that OME, ImageJ or TIFF metadata hold, with the tags as origins.

    ``times``: frame times of tag 270 in s, or None; they win over an interval.
    """
    frame, frame_tag = None, "tag 270"
    if tif.ome_metadata:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]
        pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
        width, height = (
            _scaled(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "XY"
        )
        pixel_tag = "OME PhysicalSize"
        if times is None:
            frame = _scaled(
                pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"), TIME_MS
            )
            frame_tag = "OME TimeIncrement"
            if frame is None:
                times, frame_tag = _plane_times(pixels), "OME DeltaT"
    else:
        width, height, pixel_tag = _tiff_pixel(tif.pages[0], str(ij.get("unit", "")))
        if times is None:
            # fps of ImageJ is how fast the movie was played, not how fast it was recorded
            frame = _scaled(ij.get("finterval"), str(ij.get("tunit", "sec")), TIME_MS)
            frame_tag = "ImageJ finterval"
    if width and height and abs(width - height) > 0.01 * width:
        raise InputError(
            f"{path}: pixels of {width:.4g} x {height:.4g} um; expected square pixels: "
            "resample the movie"
        )
    if times is not None:
        frame = interval_of_times(times, path)
    return Calibration(
        *(width, height, frame),
        frame_times_s=times,
        pixel_origin=f"file: {pixel_tag}" if width else UNKNOWN,
        frame_origin=f"file: {frame_tag}" if frame else UNKNOWN,
    )


def _plane_times(pixels):
    """Return the times in s of the planes of OME metadata, or None where some have none."""
    planes = pixels.get("Plane", [])
    planes = planes if isinstance(planes, list) else [planes]
    if len(planes) != int(pixels.get("SizeT", 1)) or len(planes) < 2:
        return None
    planes = sorted(planes, key=lambda plane: int(plane.get("TheT", 0)))
    times = [_scaled_time(plane.get("DeltaT"), plane.get("DeltaTUnit", "s")) for plane in planes]
    if None in times or not np.all(np.diff(times) > 0):
        return None
    return np.array(times) / 1e3


def _scaled_time(value, unit):
    """Return a time in ms, None when it or its unit is missing."""
    scale = TIME_MS.get(unit.strip().lower())
    return None if value is None or scale is None else float(value) * scale


def _tiff_pixel(page, unit):
    """Return (width, height, tag) of a pixel in um from the resolution of a TIFF.

    ImageJ names the unit; else that of the TIFF counts, if the pixel is as small as those of a
    microscope: scanners and screens write 72 or 300 pixels an inch.
    """
    sizes = [_pixel_size(page, f"{axis}Resolution") for axis in "XY"]
    if unit.strip().lower() in LENGTH_UM:
        return *(_scaled(size, unit) for size in sizes), f"ImageJ resolution, unit {unit}"
    tag = page.tags.get("ResolutionUnit")
    unit = {2: "inch", 3: "cm"}.get(int(tag.value) if tag else 0, "")
    sizes = [_scaled(size, unit) for size in sizes]
    if None in sizes or max(sizes) > LARGEST_PIXEL_UM:
        return None, None, ""
    return *sizes, f"TIFF resolution per {unit}"


def _pixel_size(page, tag):
    """Return the pixel edge in the unit of the file from a resolution tag (rational), or None."""
    if tag not in page.tags:
        return None
    numerator, denominator = page.tags[tag].value
    return denominator / numerator if numerator else None


def _scaled(value, unit, table=LENGTH_UM):
    """Return a positive finite ``value`` times the scale of its unit, None when it has none."""
    scale = table.get(unit.strip().lower())
    if value is None or scale is None:
        return None
    value = float(value) * scale
    return value if math.isfinite(value) and value > 0 else None


def _checked_values(path, data):
    """Return data as native integers or finite float32."""
    if data.dtype.kind == "f":
        bad = ~np.isfinite(data)
        if bad.any():
            frame = int(np.argmax(bad.any(axis=(1, 2))))
            raise InputError(
                f"{path}: {int(bad.sum())} values are NaN or infinite, first in frame {frame}; "
                "expected finite values"
            )
        return data.astype(np.float32)
    if data.dtype.kind not in "iub":
        raise InputError(f"{path}: values of type {data.dtype}; expected integers or floats")
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def _integer_stack(path, shape, what):
    """Read a mask as integers with the shape of its movie."""
    data = read_movie(path).data
    if data.shape != tuple(shape):
        raise InputError(
            f"{path}: {what} has shape {data.shape}, its movie {tuple(shape)}; "
            "expected equal shapes"
        )
    if data.dtype.kind == "f":
        if not np.array_equal(data, np.round(data)):
            raise InputError(f"{path}: {what} holds fractions; expected whole numbers")
        data = data.astype(np.int64)
    return data
