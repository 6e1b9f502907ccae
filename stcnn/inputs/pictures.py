"""Picture files as arrays of their own numbers: every kind that PIL and tifffile know.

A picture is (values, opacity): values (rows, columns) or (rows, columns, 3) of the file's dtype,
opacity (rows, columns) 0..1 or None.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from common.files import InputError
from common.limits import check_shape
from inputs.safe_load import DAMAGE

TIFFS = (".tif", ".tiff")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", *TIFFS)
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
MINISWHITE, MINISBLACK, RGB = 0, 1, 2  # photometric interpretations of TIFF
PLANAR = 2  # planar configuration of TIFF: a plane per colour
PLAIN_MODES = ("1", "L", "RGB", "I", "F")
Picture = tuple[np.ndarray, np.ndarray | None]


def grey(values: np.ndarray) -> np.ndarray:
    """Return luminance (rows, columns) of grey or RGB values 0..1."""
    return values if values.ndim == 2 else values @ LUMINANCE


def read_pictures(path: Path) -> Iterator[Picture]:
    """Yield the pictures of one file: one, or the pages of a TIFF in their order."""
    try:
        yield from (_tiff_pages(path) if path.suffix.lower() in TIFFS else [_pil_picture(path)])
    except (
        *DAMAGE,
        av.error.FFmpegError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(f"{path}: no readable image ({type(error).__name__})") from None


def count_pictures(path: Path) -> int:
    """Return how many pictures a file holds, without reading them."""
    if path.suffix.lower() not in TIFFS:
        return 1
    try:
        with _complaints(path), tifffile.TiffFile(path) as file:
            return len(_movie_pages(file, path))
    except DAMAGE as error:
        raise InputError(f"{path}: no readable image ({type(error).__name__})") from None


def _pil_picture(path):
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(
                f"{path}: an animation of {image.n_frames} pictures; expected one picture a file, "
                "or convert it to a video"
            )
        if _is_deep_colour(image):
            return _of_deep_colour(path)
        return _of_pil(ImageOps.exif_transpose(image), path)


def _is_deep_colour(image):
    """Return whether PIL would keep the upper half only of 16-bit numbers, as of colour PNGs."""
    raw = image.tile[0].args if image.tile else ""
    raw = raw[0] if isinstance(raw, tuple) else raw
    return image.mode in ("RGB", "RGBA", "LA") and str(raw).endswith(";16B")


def _of_deep_colour(path):
    """Return the Picture of a PNG of 16 bits a colour, read with PyAV."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    values = frame.to_ndarray(format="rgba64le")
    opacity = values[..., 3].astype(np.float32) / 65535.0
    return values[..., :3], None if (opacity == 1.0).all() else opacity


def _of_pil(image, path):
    """Return the Picture of a PIL image."""
    mode = image.mode
    if mode in ("P", "PA") or "transparency" in image.info:
        clear = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if clear else "RGB")
    elif mode in ("CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif mode in ("La", "RGBa"):
        image = image.convert(mode[:-1] + "A")
    if image.mode in ("LA", "RGBA"):
        values = np.asarray(image)
        opacity = values[..., -1].astype(np.float32) / 255.0
        return (values[..., 0] if image.mode == "LA" else values[..., :3]), opacity
    if image.mode not in PLAIN_MODES and not image.mode.startswith("I;16"):
        raise InputError(
            f"{path}: a picture of the kind {mode}; expected grey, RGB, CMYK or a palette; "
            "convert it to PNG"
        )
    values = np.asarray(image)
    return values.astype(values.dtype.newbyteorder("=")), None


def _movie_pages(file, path):
    """Return the pages of a TIFF that are the frames of one movie."""
    series = file.series[0]
    names = dict(zip(series.axes, series.shape, strict=True))
    many = [axis for axis, n in names.items() if axis not in "YXS" and n > 1]
    if len(file.series) > 1 and any(s.shape != series.shape for s in file.series):
        raise InputError(f"{path}: holds pictures of several sizes; expected one movie")
    if len(many) > 1:
        shape = " x ".join(f"{names[axis]} {axis}" for axis in many)
        raise InputError(f"{path}: a stack of {shape}; expected frames of one axis: save one movie")
    for page in file.pages:
        check_shape(page.shape, page.dtype.itemsize if page.dtype else 1, f"{path}: a page")
    return list(file.pages)


@contextlib.contextmanager
def _complaints(path):
    """Refuse a TIFF that tifffile complains about.

    It only logs a broken chain of pages and then shows a shorter movie.
    """
    texts = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if texts:
        raise InputError(
            f"{path}: the TIFF is damaged or cut ({texts[0].splitlines()[0]}); copy or export it "
            "again"
        )


def _tiff_pages(path):
    with contextlib.ExitStack() as opened:
        with _complaints(path):
            file = opened.enter_context(tifffile.TiffFile(path))
            pages = _movie_pages(file, path)
        single = len(pages) == 1 and len(file.series[0].shape) == 3
        if single and "S" not in file.series[0].axes:
            # one page that holds all frames, as ImageJ writes large stacks
            yield from ((frame, None) for frame in file.series[0].asarray())
            return
        plain = {int(page.photometric) for page in pages} <= {MINISWHITE, MINISBLACK, RGB}
        if plain:
            try:
                first = pages[0].asarray()
            except (ValueError, ImportError, KeyError):
                plain = False  # compressed in a way that asks for imagecodecs; PIL knows the common
        if plain:
            for i, page in enumerate(pages):
                with _complaints(path):
                    values = first if i == 0 else page.asarray()
                yield _of_page(page, values, path)
            return
    with Image.open(path) as image:
        for i in range(len(pages)):
            image.seek(i)
            yield _of_pil(image, path)


def _of_page(page, values, path):
    """Return the Picture of a TIFF page."""
    if int(page.photometric) == MINISWHITE:
        if values.dtype.kind not in "bu":
            raise InputError(
                f"{path}: white is zero, of {values.dtype.name}; save it black is zero"
            )
        values = ~values if values.dtype == bool else np.iinfo(values.dtype).max - values
    if values.ndim == 2:
        return values, None
    if page.planarconfig == PLANAR:
        values = np.moveaxis(values, 0, -1)  # (rows, columns, colours)
    colours = 3 if int(page.photometric) == RGB else 1
    opacity = None
    if values.shape[-1] > colours and page.extrasamples:
        scale = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1.0
        opacity = values[..., colours].astype(np.float32) / scale
    return (values[..., :3] if colours == 3 else values[..., 0]), opacity
