"""A movie that is read block by block, and the one place where faults of readers become ours.

Every fault of a file becomes one InputError here: the readers of the libraries raise many kinds of
exceptions and, worse, sometimes only log that frames are missing.
"""

import contextlib
import logging
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.files import InputError
from common.limits import check_shape
from inputs.scales import NO_SCALES, Scales

BLOCK_BYTES = 32 << 20  # size of one block of frames handed on by a reader
ROUNDED = 0.01  # share of the standard deviation by which float32 may round


@dataclass(frozen=True)
class Movie:
    """A movie that is read block by block.

    Attributes:
        path: file.
        n_frames: number of frames, None where only decoding tells (video files).
        height, width: pixels.
        dtype: numpy type of the blocks, native byte order.
        read_blocks: function that starts a new pass and yields arrays (b, height, width).
        scales: what the file's metadata tell of clock and sizes.
        channels: channels that the frames belong to in turn, as the file tells; 1: one, or unknown.
        files: all files that it lies in, where these are several.
        mapped: the frames (F, H, W) where they lie in one mapped array.
    """

    path: Path
    n_frames: int | None
    height: int
    width: int
    dtype: np.dtype
    read_blocks: object = field(repr=False)
    scales: Scales = NO_SCALES
    channels: int = 1
    files: tuple[Path, ...] = ()
    mapped: np.ndarray | None = field(default=None, repr=False)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield arrays (b, H, W) in order; an error of the file's reader becomes an InputError."""
        seen = 0
        with reader_faults(self.path):
            for block in self.read_blocks():
                if block.shape[1:] != (self.height, self.width):
                    raise InputError(
                        f"{self.path}: frame {seen} has {block.shape[1]} x {block.shape[2]} pixels,"
                        f" expected {self.height} x {self.width} as in the first; export it again"
                    )
                seen += len(block)
                yield block
        if seen == 0 or (self.n_frames is not None and seen != self.n_frames):
            raise InputError(
                f"{self.path}: found {seen} frames, expected {self.n_frames or 'at least 1'}: the "
                "file is cut; copy or export it again"
            )

    def read(self) -> np.ndarray:
        """Return the whole movie, (F, H, W), in the file's type and native byte order."""
        if self.n_frames is None:
            return np.concatenate(list(self.blocks()))  # (F, H, W)
        shape = self.n_frames, self.height, self.width
        check_shape(shape, self.dtype.itemsize, f"{self.path}: a movie")
        movie, start = np.empty(shape, self.dtype), 0
        for block in self.blocks():
            movie[start : start + len(block)] = block
            start += len(block)
        return movie


@contextlib.contextmanager
def reader_faults(path: str | Path) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file, and tifffile's warnings, into InputError.

    Damaged bytes reach the libraries as struct, value, key, type, overflow and many more errors:
    everything but our own error and an exhausted memory counts as damage of the file.
    """
    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    except (InputError, MemoryError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: not found, expected a file there; check the path") from None
    except Exception as error:
        reason = textwrap.shorten(str(error), 200)  # ffmpeg's whole report comes with many lines
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {reason}), expected a complete "
            f"{Path(path).suffix} file; copy or export it again"
        ) from error
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if warnings:
        # tifffile only logs a broken chain of pages and then shows a shorter movie.
        raise InputError(
            f"{path}: the TIFF is damaged or cut ({warnings[0]}), expected a file without "
            "warnings; copy or export it again"
        )


def frames_per_block(height: int, width: int, itemsize: int) -> int:
    """Return how many frames make up one block of about BLOCK_BYTES."""
    return max(1, BLOCK_BYTES // max(1, height * width * itemsize))


def native(block: np.ndarray) -> np.ndarray:
    """Return ``block`` in the machine's byte order."""
    # Differs: the reference hands big-endian pages of ImageJ to Pillow as they are: garbage.
    return np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("="))


def to_gray(block: np.ndarray, path: Path, gray: bool) -> np.ndarray:
    """Return (b, H, W) from colour frames (b, H, W, 3 or 4), alpha ignored.

    Equal channels are a gray movie stored as colour; different ones need ``gray``.
    """
    colour = block[..., :3]
    if (colour == colour[..., :1]).all():
        return colour[..., 0]
    if not gray:
        raise InputError(
            f"{path}: found colour frames (RGB), expected one gray channel; choose the channel in "
            "the imaging program or give --gray for the mean of the channels"
        )
    return colour.mean(axis=-1, dtype=np.float32)  # (b, H, W)


def held_in_float32(blocks: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """Yield blocks; refuse values beyond float32, and say once where it rounds what varies."""
    said = False
    for block in blocks:
        if np.result_type(block.dtype, np.float32) != np.float32:
            exact = np.asarray(block, np.float64)
            with np.errstate(over="ignore"):
                rounded = exact.astype(np.float32)
            if (np.isfinite(exact) & ~np.isfinite(rounded)).any():
                raise InputError(
                    f"{path}: found values up to {np.nanmax(np.abs(exact)):.3g}, expected what a"
                    " float32 holds (3.4e38), the type of a resized movie; divide them first"
                )
            with np.errstate(invalid="ignore"):
                lost = np.abs(rounded - exact).max()
            if not said and lost > ROUNDED * exact.std():
                print(
                    f"warning: {path}: found {block.dtype} values that a resized movie, float32,"
                    f" rounds by up to {lost:.3g}, more than {100 * ROUNDED:g} % of what they vary"
                    " by; subtract their level first",
                    file=sys.stderr,
                )
                said = True
        yield block
