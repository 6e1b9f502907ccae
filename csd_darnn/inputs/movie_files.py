"""Read and write movies (frames, height, width) as TIFF, NPY, NPZ, AVI, MP4, MOV and GIF.

A movie is handed on in blocks, so that a recording larger than the memory can be resized. Every
fault of a file becomes one InputError here: the readers of the libraries raise many kinds of
exceptions and, worse, sometimes only log that frames are missing.

Source: specification, sections 4.2 and 5.1.
"""

import contextlib
import logging
import math
import textwrap
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs  # noqa: F401  tifffile decodes LZW, JPEG and Zstandard only with it
import imageio_ffmpeg
import numpy as np
import tifffile
from PIL import Image, ImageSequence

from common.files import InputError, atomic_path
from inputs.file_scales import imagej_scales, ome_scales, playback
from inputs.scales import NO_SCALES, Scales

TIFF_SUFFIXES = (".tif", ".tiff")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mov")
MOVIE_SUFFIXES = (*TIFF_SUFFIXES, ".npy", ".npz", *VIDEO_SUFFIXES, ".gif")
BLOCK_BYTES = 32 << 20  # size of one block of frames handed on by a reader


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
    """

    path: Path
    n_frames: int | None
    height: int
    width: int
    dtype: np.dtype
    read_blocks: object = field(repr=False)
    scales: Scales = NO_SCALES

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
        movie, start = np.empty((self.n_frames, self.height, self.width), self.dtype), 0
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


def open_movie(path: str | Path, *, gray: bool = False) -> Movie:
    """Open a movie file by its suffix.

    Args:
        path: one of MOVIE_SUFFIXES.
        gray: True takes the mean of the colour channels; without it colour is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: not found, expected a movie file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes), expected a movie; copy it again")
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        opener = open_tiff
    elif suffix in (".npy", ".npz"):
        opener = open_numpy
    elif suffix in VIDEO_SUFFIXES:
        opener = open_video
    elif suffix == ".gif":
        opener = open_gif
    else:
        raise InputError(
            f"{path}: unknown suffix {suffix or '(none)'}, expected one of "
            f"{' '.join(MOVIE_SUFFIXES)}; convert the recording"
        )
    with reader_faults(path):
        return opener(path, gray)


def read_movie(path: str | Path, *, gray: bool = False) -> np.ndarray:
    """Return the movie in ``path`` as (F, H, W), file type, native byte order."""
    return open_movie(path, gray=gray).read()


def write_tiff(path: str | Path, movie: np.ndarray, scales: Scales = NO_SCALES) -> None:
    """Write ``movie`` (F, H, W) as one contiguous TIFF, atomically.

    ImageJ's format keeps the scales, but holds three types, no file above 4 GB and no width of 1;
    every other movie becomes a plain TIFF (BigTIFF above 2 GB) without them.
    """
    movie = np.asarray(movie)
    large = movie.nbytes > 2**31
    types = (np.uint8, np.uint16, np.float32)
    imagej = not large and movie.shape[2] > 1 and movie.dtype in types
    metadata = {"axes": "TYX"} if imagej else None
    rate_hz = scales.rate_hz.value
    if imagej and rate_hz:
        metadata |= {"fps": rate_hz, "finterval": 1 / rate_hz}
    options = {}
    if imagej and scales.column_um.value:
        metadata["unit"] = "um"
        options["resolution"] = (1 / scales.column_um.value, 1 / scales.row_um.value)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            movie,
            photometric="minisblack",
            imagej=imagej,
            bigtiff=large,
            metadata=metadata,
            **options,
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


def open_tiff(path: Path, gray: bool) -> Movie:
    """Open a TIFF: page by page, as one contiguous block behind a single page, or compressed."""

    with tifffile.TiffFile(path) as tif:
        pages = check_pages(path, list(tif.pages))
        first = pages[0]
        promised = sum(count_frames(path, series, first) for series in tif.series)
        metadata = tif.imagej_metadata or {}
        if tif.is_imagej:
            promised = max(promised, int(metadata.get("images", 1)))
        n_frames = max(promised, len(pages))
        if len(pages) > 1 and promised != len(pages):
            raise InputError(
                f"{path}: found {len(pages)} pages but the file's metadata tells of {promised} "
                "frames: the file is cut or was changed; export it again"
            )
        scales = ome_scales(path, tif, n_frames) if tif.is_ome else imagej_scales(first, metadata)
        offset = contiguous_offset(pages)
    samples = first.samplesperpixel
    if samples > 1 and not gray:
        # The hint comes before anything is read: colour planes may be of any size.
        raise InputError(
            f"{path}: found {samples} channels per pixel (RGB), expected one gray channel; choose "
            "a channel in the imaging program or give --gray for the mean of the channels"
        )
    height, width = first.imagelength, first.imagewidth
    dtype = np.dtype(first.dtype)
    if len(pages) == 1 and n_frames > 1 and offset is None:
        raise InputError(
            f"{path}: one compressed page tells of {n_frames} frames; save it page by page"
        )

    def mapped():
        stored = dtype.newbyteorder(first.parent.byteorder)
        frames = np.memmap(path, stored, "r", offset=offset, shape=(n_frames, height, width))
        step = frames_per_block(height, width, dtype.itemsize)
        for start in range(0, n_frames, step):
            yield native(frames[start : start + step])  # (b, H, W)

    def paged():
        step = frames_per_block(height, width, dtype.itemsize * samples)
        with tifffile.TiffFile(path) as tif:
            for start in range(0, n_frames, step):
                some = [tif.pages[i].asarray() for i in range(start, min(start + step, n_frames))]
                block = native(np.stack(some))
                if samples > 1:
                    if first.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
                        block = np.moveaxis(block, 1, -1)
                    block = to_gray(block, path, gray)
                yield block  # (b, H, W)

    if offset is not None and offset + n_frames * first.nbytes > path.stat().st_size:
        held = (path.stat().st_size - offset) // first.nbytes
        raise InputError(
            f"{path}: found data for {max(0, held)} frames, expected {n_frames}: the file is cut; "
            "copy or export it again"
        )
    if samples > 1:
        dtype = np.dtype(np.float32)
    reader = paged if offset is None else mapped
    return Movie(path, n_frames, height, width, dtype, reader, scales)


def check_pages(path: Path, pages: list) -> list:
    """Return ``pages`` when all hold one plane of the same kind and their data lie in the file."""
    if not pages:
        raise InputError(f"{path}: found no image in the TIFF, expected a movie; export it again")
    size, first = path.stat().st_size, pages[0]

    def kind(page):
        return (
            page.imagelength, page.imagewidth, page.imagedepth, str(page.dtype), page.compression,
            page.samplesperpixel, page.planarconfig, page.predictor, page.bitspersample,
            page.photometric, page.fillorder,
        )  # fmt: skip

    for index, page in enumerate(pages):
        if page.dtype is None or page.imagedepth != 1 or 0 in page.shape:
            raise InputError(
                f"{path}: page {index} is no plain image ({page.bitspersample} bits, shape "
                f"{page.shape}), expected integer or float pixels; export it as 8, 16 or 32 bits"
            )
        if kind(page) != kind(first):
            raise InputError(
                f"{path}: page {index} is {page.shape} {page.dtype}, page 0 is {first.shape} "
                f"{first.dtype}, expected equal frames (no previews or pyramids); export again"
            )
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        empty = not ends or 0 in page.dataoffsets or 0 in page.databytecounts
        plain = page.compression == 1 and page.bitspersample % 8 == 0
        short = plain and sum(page.databytecounts) < page.nbytes
        if empty or short or max(ends) > size:
            raise InputError(
                f"{path}: the pixels of page {index} are not all in the file (size {size} bytes): "
                "the file is cut; copy or export it again"
            )
    return pages


def count_frames(path: Path, series: tifffile.TiffPageSeries, first: tifffile.TiffPage) -> int:
    """Return the number of frames (H, W) that a series of pages tells of."""
    plane = (first.imagelength, first.imagewidth)
    shape = [n for n, axis in zip(series.shape, series.axes, strict=True) if axis != "S"]
    long_axes = [n for n in shape[:-2] if n > 1]
    if tuple(shape[-2:]) != plane or len(long_axes) > 1:
        hint = "; colour movies need --gray" if series.shape[-1] in (3, 4) else ""
        raise InputError(
            f"{path}: found axes {series.axes} of shape {series.shape}, expected frames x height x "
            f"width; save one channel and one plane{hint}"
        )
    return math.prod(shape[:-2])


def contiguous_offset(pages: list) -> int | None:
    """Return the byte offset of frames that lie uncompressed in one piece, else None."""
    first = pages[0]
    if first.samplesperpixel > 1 or not first.is_contiguous or first.bitspersample % 8:
        return None
    start = first.dataoffsets[0]
    for index, page in enumerate(pages):
        if not page.is_contiguous or page.dataoffsets[0] != start + index * first.nbytes:
            return None
    return start


def load_array(path: Path) -> np.ndarray:
    """Return the array of an NPY file (memory mapped) or the only array of an NPZ file."""
    if path.suffix.lower() == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = [n for n in ("movie", "video") if n in archive.files] or archive.files
                if len(names) != 1:
                    raise InputError(
                        f"{path}: found arrays {', '.join(archive.files)}, expected one, or one "
                        "named movie; save it alone"
                    )
                array = archive[names[0]]
        except (zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: the archive is damaged ({error}); save it again") from error
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        raise InputError(
            f"{path}: found values of type {array.dtype}, expected integers or floats up to 64 bits"
        )
    if array.size == 0:
        raise InputError(f"{path}: found an empty array of shape {array.shape}, expected frames")
    return array


def open_numpy(path: Path, gray: bool) -> Movie:
    """Open an array (F, H, W), or (F, H, W, 3) with ``gray``."""
    array = load_array(path)
    colour = array.ndim == 4 and array.shape[-1] in (3, 4)
    if array.ndim != 3 and not colour:
        raise InputError(
            f"{path}: found an array of shape {array.shape}, expected (frames, height, width)"
        )
    n_frames, height, width = array.shape[:3]
    step = frames_per_block(height, width, array.itemsize)

    def blocks():
        for start in range(0, n_frames, step):
            block = native(array[start : start + step])
            yield to_gray(block, path, gray) if colour else block  # (b, H, W)

    dtype = np.dtype(np.float32) if colour and gray else array.dtype.newbyteorder("=")
    return Movie(path, n_frames, height, width, dtype, blocks)


def open_video(path: Path, gray: bool) -> Movie:
    """Open AVI, MP4 or MOV with the ffmpeg that imageio-ffmpeg brings along."""

    def start(pixel_format, bits):
        # passthrough: a variable frame rate must not make ffmpeg repeat or drop frames.
        return imageio_ffmpeg.read_frames(
            str(path),
            pix_fmt=pixel_format,
            bits_per_pixel=bits,
            output_params=["-fps_mode", "passthrough"],
        )

    probe = start("rgb24", 24)
    meta = next(probe)
    probe.close()
    deep = any(f"gray{bits}" in meta["pix_fmt"] for bits in (9, 10, 12, 14, 16))
    width, height = meta["source_size"]
    # The container tells the length of a file whose end is missing: compare after decoding.
    told = meta["duration"] * meta["fps"]

    def blocks():
        frames = start("gray16le", 16) if deep else start("rgb24", 24)
        next(frames)
        step, seen, held = frames_per_block(height, width, 6), 0, []
        shape = (height, width) if deep else (height, width, 3)

        def block():
            stack = np.stack(held)
            return native(stack) if deep else to_gray(stack, path, gray)  # (b, H, W)

        with contextlib.closing(frames):
            for raw in frames:
                held.append(np.frombuffer(raw, "<u2" if deep else np.uint8).reshape(shape))
                seen += 1
                if len(held) == step:
                    yield block()
                    held = []
        if held:
            yield block()
        if seen < told - 1.5:
            raise InputError(
                f"{path}: found {seen} frames, expected about {told:.0f} (duration in its header): "
                "the file is cut; copy or export it again"
            )

    dtype = np.uint16 if deep else (np.float32 if gray else np.uint8)
    return Movie(path, None, height, width, np.dtype(dtype), blocks, playback(meta["fps"]))


def open_gif(path: Path, gray: bool) -> Movie:
    """Open a GIF of gray frames."""
    if path.read_bytes()[-1:] != b";":
        # A GIF ends with one semicolon; Pillow reads a cut file as a shorter movie.
        raise InputError(f"{path}: the GIF has no end mark: the file is cut; copy it again")
    with Image.open(path) as image:
        width, height = image.size
        n_frames, delay = image.n_frames, image.info.get("duration", 0)

    def blocks():
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield to_gray(np.asarray(frame.convert("RGB"))[None], path, gray)  # (1, H, W)

    dtype = np.dtype(np.float32 if gray else np.uint8)
    return Movie(
        path, n_frames, height, width, dtype, blocks, playback(1000 / delay if delay else 0)
    )
