"""Read and write TIFF movies with their calibration, and refuse damaged ones.

Reading follows section 4.3 of the specification: (t, y, x) stacks. Which axes a file has is decided
in tiff_axes.py, its scale in tiff_scale.py. tifffile only logs most faults of a file; here every
such message, every missing page and every missing byte is an InputError.

Files read: ``NN_video.tif`` (T, H, W) uint16 or float32, ``NN_class_label.tif`` (T, H, W) uint8,
``NN_event_label.tif`` (T, H, W) uint8 or uint16.
Files written: TIFF (T, H, W) or (T, H, W, 3) that opens in ImageJ and napari with axes, pixel size
and frame interval.
"""

import dataclasses
import logging
import struct
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from common.files import InputError, atomic_path
from common.hashes import hashed_file
from common.locks import visible
from common.names import file_name
from inputs.calibration import TOLERANCE, Calibration
from inputs.movie_state import MovieState, look_at, tell_state
from inputs.pages import extremes
from inputs.tiff_axes import as_movie, choose_stack
from inputs.tiff_scale import channel_names, file_calibration
from inputs.vendors import VENDOR_SUFFIXES, read_vendor
from settings.config import logger
from settings.recording import Given

CLASS_VALUES = (0, 1, 2, 3, 4)
ROUNDING = 1e-3  # by which a sum of rounded probabilities may exceed 1
ENDINGS = (".tif", ".tiff", ".TIF", ".TIFF")  # of the movies in a data folder
MASK_ENDINGS = (".roi", ".zip", ".tif", ".tiff")
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
        calibration: Calibration, with unknown values where neither file nor user says them.
        source: path of the file.
        state: black, repeated and saturated parts; None: of a mask or of made-up data.
        cell_mask: ImageJ ROI or TIFF of the cell: given, or ``NN_cell_mask.roi`` (.zip, .tif)
            beside ``NN_video.tif``; None: the cell is sought in the movie.
        sha256: of the file, taken while it was read.
    """

    data: np.ndarray
    calibration: Calibration
    source: Path
    state: MovieState | None = None
    cell_mask: Path | None = None
    sha256: str | None = None


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


def read_movie(path: str | Path, given: Given | None = None) -> Movie:
    """Read a recording and its calibration.

    Args:
        path: TIFF, or a vendor's file for which requirements-vendors.txt is installed.
        given: what the user says about the recording; it wins over the file.

    Returns:
        Movie (t, y, x) with finite data; a line scan has one row.

    Raises:
        InputError: file missing, damaged or truncated, no (t, y, x) stack, not finite, or a flag
            is needed to say what its axes are.
    """
    given = given or Given()
    if not Path(path).is_file():
        raise InputError(f"{path}: file not found; expected a TIFF movie with axes (t, y, x)")
    with hashed_file(path) as file:
        data, calibration = _read_stack(Path(path), given)
        data = _checked_values(path, data)
    calibration = calibration.given(given, source=path)
    state = look_at(data, calibration.offset_counts)
    tell_state(path, data, state, calibration.offset_counts)
    mask = given.cell_mask or _mask_beside(Path(path))
    return Movie(data, calibration, Path(path), state, mask, file.sha256)


def _mask_beside(path):
    """Return the cell mask that lies beside a movie, or None."""
    stem = path.stem.removesuffix("_video")
    paths = [path.with_name(f"{stem}_cell_mask{ending}") for ending in MASK_ENDINGS]
    return next((one for one in paths if one.is_file()), None)


def read_stack(path: str | Path) -> Movie:
    """Read masks or probabilities (T, H, W); what programs call their axes does not matter."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: file not found; expected a TIFF with axes (t, y, x)")
    with hashed_file(path) as file:
        data, calibration = _read_stack(path, Given(), mask=True)
        data = _checked_values(path, data)
    return Movie(data, calibration, path, sha256=file.sha256)


def read_probabilities(path: str | Path) -> Movie:
    """Read the probabilities of a class, or a mask, (T, H, W); refuse what is neither.

    A mask holds one value beside 0, whichever: ImageJ writes 255. It is returned as 0 and 1.
    """
    stack = read_stack(path)
    lowest, highest = extremes(stack.data)
    if lowest < 0 or highest > 1 + ROUNDING:
        if lowest == 0 and all(np.isin(frame, (0, highest)).all() for frame in stack.data):
            return dataclasses.replace(stack, data=(stack.data > 0).astype(np.float32))
        damage = "the file is damaged or holds something else; predict the movie again"
        scaled = "are they percent or grey levels? divide them by 100, 255 or 65535"
        raise InputError(
            f"{path}: values from {float(lowest):.6g} to {float(highest):.6g}; expected "
            f"probabilities from 0 to 1, or a mask: {damage if lowest < 0 else scaled}"
        )
    return stack


def keep_inputs(results: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Refuse results that would take the place of a file that they are made from."""
    sources = {Path(path).resolve() for path in inputs if path is not None}
    for result in results:
        if Path(result).resolve() in sources:
            raise InputError(
                f"{result}: is read, and the result of that name would replace it; give another "
                "--out"
            )


def _read_stack(path, given, *, mask=False):
    """Return (data (T, H, W) as stored, Calibration of the file)."""
    if path.suffix.lower() in VENDOR_SUFFIXES:
        return read_vendor(path, given)
    with _Messages() as messages:
        try:
            with tifffile.TiffFile(path) as tif:
                data, calibration = _read_open_file(path, tif, given, mask)
        except InputError:
            raise
        except READ_ERRORS as error:
            raise InputError(
                f"{path}: damaged or unreadable TIFF ({error or type(error).__name__}); "
                "export the movie again"
            ) from error
    if messages.texts:
        raise InputError(
            f"{path}: TIFF that cannot be read with certainty, {len(data)} frames read "
            f"({messages.texts[0]}); copy or export the file again"
        )
    return data, calibration


def read_class_labels(path: str | Path, shape: tuple[int, ...]) -> np.ndarray:
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


def read_event_labels(path: str | Path, shape: tuple[int, ...]) -> np.ndarray:
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


def label_warnings(name: str | Path, classes: np.ndarray, events: np.ndarray) -> list[str]:
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


def write_stack(
    path: str | Path, array: np.ndarray, *, calibration: Calibration | None = None
) -> Path:
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
    resolution = (1.0 / pixel_um, 1.0 / calibration.pixel_y_um) if pixel_um else None
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


def same_shape(stack: Movie, movie: Movie) -> None:
    """Raise InputError when a stack and its movie (both Movie) differ in shape.

    Scales of their two files that differ by more than 1 % are said: they may not belong together.
    """
    if stack.data.shape != movie.data.shape:
        raise InputError(
            f"{stack.source}: shape {stack.data.shape}, its movie {movie.source.name} "
            f"{movie.data.shape}; expected equal shapes"
        )
    for field, origin, what in (
        ("pixel_um", "pixel_origin", "pixel of %.4g um"),
        ("frame_ms", "frame_origin", "frame interval of %.4g ms"),
    ):
        own, there = getattr(stack.calibration, field), getattr(movie.calibration, field)
        told = getattr(movie.calibration, origin).startswith("file")  # not where a flag corrects it
        if told and own and there and abs(own - there) > TOLERANCE * there:
            logger.warning(
                f"%s: {what}, its movie %s {what}: do they belong together? the movie's is used",
                *(stack.source, own, movie.source.name, there),
            )


def movie_ids(folder: str | Path, suffix: str = "video") -> list[str]:
    """Return the sorted ids NN of the files ``NN_<suffix>.tif`` (or .tiff) in ``folder``."""
    paths = [path for path in visible(folder, f"*_{suffix}.*") if path.suffix in ENDINGS]
    names = {path.stem.removesuffix(f"_{suffix}") for path in paths}
    # a smoothed movie 05_smoothed_video.tif belongs to movie 05
    derived = {name for name in names if name.rpartition("_")[0] in names}
    derived |= {name for name in names if name.endswith("_smoothed")}
    return sorted(name for name in names - derived if name)


def movie_file(folder: str | Path, movie_id: str, suffix: str = "video") -> Path:
    """Return the path of ``NN_<suffix>.tif``, with the ending that is there.

    Raises:
        InputError: the id cannot be part of a file's name, or there are two files of it.
    """
    movie_id = file_name(movie_id, "movie id")
    paths = [Path(folder) / f"{movie_id}_{suffix}{ending}" for ending in ENDINGS]
    there = [path for path in paths if path.is_file()]
    if len(there) > 1:
        raise InputError(f"{there[0]} and {there[1].name}: two files of one name; remove one")
    return there[0] if there else paths[0]


def _read_open_file(path, tif, given, mask):
    """Return (data (T, H, W), Calibration) of an open TIFF after all checks."""
    if len(tif.pages) == 0:
        raise InputError(f"{path}: no image in the file; expected a (t, y, x) stack")
    stack = choose_stack(path, tif)
    if mask and len(stack.shape) == 2:
        raise InputError(
            f"{path}: one image of {stack.shape[0]} x {stack.shape[1]} pixels; expected frames "
            "(t, y, x) like those of its movie: a line scan of T lines has the shape (T, 1, X)"
        )
    if mask and len(stack.shape) == 3 and "S" not in stack.axes:
        given = Given(axes="TYX")
    names = channel_names(tif)
    data = as_movie(path, stack, given, names)
    ij = tif.imagej_metadata or {}
    if ij.get("cf") == 0 and ij.get("c0") is not None and not tif.is_stk:
        data = _imagej_values(data, float(ij["c0"]), float(ij.get("c1", 1.0)))
    return data, file_calibration(path, tif, len(data), given)


def _imagej_values(data, offset, slope):
    """Undo the linear grey-value code of ImageJ, by which it keeps signed 16-bit stacks."""
    if slope == 1.0 and offset.is_integer() and data.dtype.kind in "iu":
        return data.astype(np.int32) + int(offset)
    return (data * np.float32(slope) + np.float32(offset)).astype(np.float32)


def _checked_values(path, data):
    """Return data as native integers or finite float32."""
    if data.dtype.kind == "f":
        bad = [np.count_nonzero(~np.isfinite(frame)) for frame in data]
        if any(bad):
            raise InputError(
                f"{path}: {sum(bad)} values are NaN or infinite, first in frame "
                f"{int(np.argmax(np.array(bad) > 0))}; expected finite values"
            )
        return np.ascontiguousarray(data, np.float32)
    if data.dtype.kind not in "iub":
        raise InputError(f"{path}: values of type {data.dtype}; expected integers or floats")
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def _integer_stack(path, shape, what):
    """Read a mask as integers with the shape of its movie."""
    data = read_stack(path).data
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
