"""Which image of a TIFF is the movie, whether it is whole, and which of its axes is which.

Letters of axes: T time, Z depth, C channel, Y row, X column, S colour; I and Q have no name.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from common.files import InputError
from common.limits import check_shape
from settings.recording import Given

UNNAMED = "IQ"
MAPPED_BYTES = 1 << 28  # larger plain files are mapped into memory instead of loaded
WORDS = {"T": "frames", "Z": "planes of depth (z)", "C": "channels", "S": "colours"}


@dataclass(frozen=True)
class Stack:
    """The one image of a file that is read.

    Attributes:
        path: of the file.
        axes: one letter for each axis of ``shape``.
        shape: as stored, (t, ...) or whatever the file says.
        series: its pieces; several where each frame was written as an image of its own.
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    series: tuple

    def read(self) -> np.ndarray:
        """Return the values, ``shape``; large plain files are mapped, not loaded."""
        if len(self.series) > 1:
            return np.stack([one.asarray() for one in self.series])
        one = self.series[0]
        if one.dataoffset is None or one.nbytes < MAPPED_BYTES:
            return one.asarray()
        dtype = one.dtype.newbyteorder(one.parent.byteorder)
        if not dtype.isnative:
            return one.asarray()
        return np.memmap(self.path, dtype, "r", one.dataoffset, self.shape)


def choose_stack(path: Path, tif: tifffile.TiffFile) -> Stack:
    """Return the image of a file that is a movie; check that all of it is there.

    Raises:
        InputError: several images of different kinds, parts of a set, missing pages or bytes.
    """
    xml = tif.ome_metadata or ""
    if "<BinaryOnly" in xml or ":BinaryOnly" in xml:
        name = xml.partition('MetadataFile="')[2].partition('"')[0] or "of the set"
        raise InputError(f"{path}: is one part of a set of OME files; give its main file {name}")
    series = [one for one in tif.series if not one.keyframe.is_reduced] or list(tif.series)
    if tif.is_stk:
        series = [_metamorph(tif)]
    if tif.is_lsm:
        series = series[:1]  # the others are small pictures of it
    first = series[0]
    if len(series) > 1:
        alike = all((one.shape, one.dtype) == (first.shape, first.dtype) for one in series)
        if not alike or len([n for n in first.shape if n > 1]) > 2:
            shapes = ", ".join(str(one.shape) for one in series[:4])
            raise InputError(
                f"{path}: {len(series)} images ({shapes}); expected one movie: export it alone"
            )
        # Frames written one by one are images of their own; together they are the movie.
        axes, shape = f"I{first.axes}", (len(series), *first.shape)
    else:
        axes, shape = first.axes, first.shape
        _check_announced(path, tif, first)
    check_shape(shape, first.dtype.itemsize, f"{path}: movie")
    for one in series:
        _check_pages(path, tif, one)
    return Stack(path, _unstated(tif, first, axes), shape, tuple(series))


def _metamorph(tif):
    """Return the image of a MetaMorph stack, whatever text another program has left in it."""
    page, meta = tif.pages.first, tif.stk_metadata
    planes = int(meta["NumberPlanes"])
    deep = planes > 1 and np.all(np.asarray(meta.get("ZDistance", 0)) != 0)
    axes, shape = ("Z" if deep else "T") + page.axes, (planes, *page.shape)
    return tifffile.TiffPageSeries(
        [page], shape, page.dtype, axes, truncated=planes > 1, kind="stk"
    )


def _unstated(tif, series, axes):
    """Return the axes with I where the name of an axis is a reader's default, not the file's."""
    ij = tif.imagej_metadata or {}
    if series.kind == "imagej" and not {"frames", "slices", "channels"} & set(ij):
        return "".join("I" if letter in "TZC" else letter for letter in axes)
    return axes


def _check_announced(path, tif, series):
    """Raise InputError when the ImageJ text announces more pages than the file holds."""
    ij = {} if tif.is_stk else tif.imagej_metadata or {}
    announced = int(ij.get("images", 1) or 1)
    held = math.prod(series.shape) // math.prod(series.keyframe.shape)
    if len(tif.pages) > 1:
        held = len(tif.pages)
    if announced > held:
        raise InputError(
            f"{path}: truncated TIFF, {held} of {announced} pages are complete as its ImageJ text "
            "counts them; copy or export the file again, or remove that text where another program "
            "has left it behind"
        )


def _check_pages(path, tif, series):
    """Raise InputError when pages of other files, pages or bytes of an image are missing."""
    pages = list(series.pages)
    missing = sum(page is None for page in pages)
    if missing:
        raise InputError(
            f"{path}: {missing} of the {len(pages)} pages lie in other files of its set that are "
            "not beside it under their own names; copy the whole set"
        )
    total = math.prod(series.shape) // math.prod(series.keyframe.shape)
    if len(pages) == 1 and total > 1:
        # One directory, all frames behind it: how ImageJ, MetaMorph and tifffile write stacks.
        page = pages[0].aspage()
        frame_bytes = math.prod(page.shape) * page.dtype.itemsize
        room = max(0, page.parent.filehandle.size - page.dataoffsets[0])
        whole = min(total, room // max(frame_bytes, 1))
    else:
        own = [page for page in pages if page.parent is tif]
        others = {page.parent.filehandle.path for page in pages if page.parent is not tif}
        for other in sorted(others):
            with tifffile.TiffFile(other) as file:
                _complete(other, list(file.pages), len(file.pages))
        _complete(path, own, total if not others else len(own))
        return
    _raise_cut(path, whole, total)


def _complete(path, pages, total):
    """Raise InputError unless ``total`` pages of one open file are there and whole."""
    whole = next((i for i, page in enumerate(pages) if not _page_complete(page)), len(pages))
    _raise_cut(path, whole, max(total, len(pages)))


def _raise_cut(path, whole, total):
    if whole < total:
        raise InputError(
            f"{path}: truncated TIFF, {whole} of {total} pages are complete; "
            "copy or export the file again"
        )


def _page_complete(page):
    """Return whether all strips of a page lie inside its file."""
    page = page.aspage()
    size = page.parent.filehandle.size
    strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    stored = sum(count for _, count in strips)
    return (
        len(strips) >= math.prod(page.chunked)
        and all(offset + count <= size for offset, count in strips)
        and (page.compression != 1 or stored >= _page_bytes(page))
    )


def _page_bytes(page):
    """Return the bytes of an uncompressed page; 12 bits a value may be packed."""
    bits = page.bitspersample
    if bits % 8 == 0 or page.is_tiled:
        return page.nbytes if bits % 8 == 0 else 0
    rows = page.imagelength * page.imagedepth
    return rows * math.ceil(page.imagewidth * page.samplesperpixel * bits / 8)


def as_movie(path: Path, stack: Stack, given: Given, names: tuple[str, ...] = ()) -> np.ndarray:
    """Read the movie (T, H, W) of a file whose axes are known.

    Args:
        path: named in errors.
        stack: of ``choose_stack``.
        given: ``axes`` wins over the letters of the file; ``channel``, ``z``, ``linescan``.
        names: of the channels, for the error that asks for one.

    Raises:
        InputError: the axes are no movie, or a flag is needed to say what they are.
    """
    axes = _named_axes(path, stack, given)
    data = stack.read().reshape(stack.shape)
    if axes.count("S") and data.shape[axes.index("S")] > 1:
        data, axes = _grey(path, data, axes, given)
    long = [n > 1 or letter in "TYX" for n, letter in zip(data.shape, axes, strict=True)]
    if not given.axes and sum(long) > 3:
        # an unnamed axis of length 1 beside named ones says nothing
        long = [n > 1 for n in data.shape]
    data = data.reshape([n for n, kept in zip(data.shape, long, strict=True) if kept])
    axes = "".join(letter for letter, kept in zip(axes, long, strict=True) if kept)
    if "T" not in axes and sum(letter in UNNAMED for letter in axes) == 1:
        # the only axis without a name: the convention of movies is (t, y, x)
        axes = axes.replace("I", "T").replace("Q", "T")
    if any(letter not in "TZCYX" for letter in axes):
        raise InputError(
            f"{path}: axes {axes} with shape {data.shape}; expected (t, y, x), one channel: name "
            "them with --axes, e.g. --axes TCYX"
        )
    for letter, index, flag in (("C", given.channel, "--channel"), ("Z", given.z, "--z")):
        data, axes = _one_of(path, data, axes, letter, index, flag, names)
    return _time_first(path, data, axes, given)


def _named_axes(path, stack, given):
    """Return the letters of the axes of ``stack.shape``, the user's or the file's."""
    if not given.axes:
        return stack.axes
    if len(given.axes) == len(stack.shape):
        return given.axes
    long = [n for n in stack.shape if n > 1]
    if len(given.axes) != len(long):
        raise InputError(
            f"{path}: --axes {given.axes} names {len(given.axes)} axes, the file has "
            f"{len(long)}, shape {tuple(long)}"
        )
    letters = iter(given.axes)
    free = iter([letter for letter in "SCZTYXIQ" if letter not in given.axes])
    return "".join(next(letters) if n > 1 else next(free) for n in stack.shape)


def _grey(path, data, axes, given):
    """Return a colour image as grey values: its channels are equal, or one is chosen."""
    at = axes.index("S")
    colours = np.moveaxis(data, at, 0)
    # grey values stored as colours are read where the rest of the axes makes a recording
    grey = given.linescan or len([n for n in colours.shape[1:] if n > 1]) > 2
    grey = grey and all(np.array_equal(colours[0], one) for one in colours[1:])
    if given.channel is None and not grey:
        raise InputError(
            f"{path}: colour image {data.shape}; expected a grey (t, y, x) stack: choose a colour "
            "with --channel 0, 1 or 2, or convert it to grey values"
        )
    index = given.channel or 0
    if index >= len(colours):
        raise InputError(f"{path}: --channel {index}: expected 0 to {len(colours) - 1} (colours)")
    return colours[index], axes.replace("S", "")


def _one_of(path, data, axes, letter, index, flag, names):
    """Return (data, axes) with one channel or one plane of depth taken out."""
    if letter not in axes:
        if index and flag == "--z":
            raise InputError(f"{path}: {flag} {index}: the file has one plane of depth")
        if index and flag == "--channel" and "S" not in axes:
            raise InputError(f"{path}: {flag} {index}: the file has one channel")
        return data, axes
    at = axes.index(letter)
    count = data.shape[at]
    if index is None and count > 1:
        known = ", ".join(f"{i} {name}" for i, name in enumerate(names)) if letter == "C" else ""
        remedy = f"choose one with {flag} 0 to {count - 1}"
        if "T" not in axes:
            frames = axes.replace(letter, "T")
            remedy = f"where they are the frames of a movie, give --axes {frames}"
        raise InputError(
            f"{path}: axes {axes} with shape {data.shape}: {count} {WORDS[letter]}"
            f"{f' ({known})' if known else ''}"
            f"{'' if 'T' in axes else ' and no time'}; expected (t, y, x), one channel: {remedy}"
        )
    index = index or 0
    if index >= count:
        raise InputError(f"{path}: {flag} {index}: expected 0 to {count - 1}")
    return np.take(data, index, axis=at), axes.replace(letter, "")


def _time_first(path, data, axes, given):
    """Return the movie (T, H, W); a line scan has H = 1."""
    shape = data.shape
    if given.linescan and sorted(axes) in (["T", "X"], ["X", "Y"], ["T", "X", "Y"]):
        flat = [n for n in shape if n > 1]
        if len(flat) > 2:
            raise InputError(
                f"{path}: --linescan: the file is a movie {shape}; leave --linescan out"
            )
        image = data.reshape(flat) if len(flat) == 2 else data.reshape(shape[0], -1)
        image = image if given.linescan == "rows" else image.T
        return np.ascontiguousarray(image)[:, None, :]
    if sorted(axes) == ["T", "X"]:
        return np.transpose(data, (axes.index("T"), axes.index("X")))[:, None, :]
    if sorted(axes) == ["X", "Y"]:
        raise InputError(
            f"{path}: two-dimensional image {shape}; expected a movie (t, y, x): read a line scan "
            "with --linescan (rows are times) or --linescan columns"
        )
    if sorted(axes) != ["T", "X", "Y"]:
        raise InputError(
            f"{path}: axes {axes} with shape {shape}; expected (t, y, x): name them with --axes, "
            "e.g. --axes TYX"
        )
    order = [axes.index(letter) for letter in "TYX"]
    return np.transpose(data, order)
