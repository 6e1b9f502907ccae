"""Read TIFFs: pages, contiguous blocks, sets of several files, folders of single frames.

Source: specification, sections 4.2 and 5.1.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs  # noqa: F401  tifffile decodes LZW, JPEG and Zstandard only with it
import numpy as np
import tifffile

from common.files import InputError
from common.locks import visible
from inputs.file_scales import imagej_scales, ome_scales, scanimage_channels, scanimage_scales
from inputs.movie import Movie, frames_per_block, native, to_gray
from inputs.scales import Scales

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


def open_tiff(path: Path, gray: bool, channel: str = "") -> Movie:
    """Open a TIFF: page by page, as one contiguous block behind a single page, or compressed.

    ``channel`` k/n lets a file of n channels pass; which pages belong to one is told in the Movie.
    """
    with tifffile.TiffFile(path) as tif:
        places = set_places(path, tif) if tif.is_ome else {}
        pages = check_pages(path, list(tif.pages))
        first = pages[0]
        metadata = tif.imagej_metadata or {}
        channels = scanimage_channels(tif) if tif.is_scanimage else 1
        counts = [count_frames(path, series, first, channel) for series in tif.series]
        promised = sum(count for count, _ in counts)
        channels = max(channels, *(number for _, number in counts))
        if tif.is_imagej:
            promised = max(promised, int(metadata.get("images", 1)))
        n_frames = len(places) or max(promised, len(pages))
        if len(pages) > 1 and promised != len(pages) and not places:
            raise InputError(
                f"{path}: found {len(pages)} pages but the file's metadata tells of {promised} "
                "frames: the file is cut or was changed; export it again"
            )
        scales = tiff_scales(path, tif, n_frames)
        offset = None if places else contiguous_offset(pages)
    samples = first.samplesperpixel
    if samples > 1 and not gray:
        # The hint comes before anything is read: colour planes may be of any size.
        raise InputError(
            f"{path}: found {samples} channels per pixel (RGB), expected one gray channel; choose "
            "a channel in the imaging program or give --gray for the mean of the channels"
        )
    height, width = first.imagelength, first.imagewidth
    dtype = np.dtype(first.dtype)
    if len(pages) == 1 and n_frames > 1 and offset is None and not places:
        raise InputError(
            f"{path}: one compressed page tells of {n_frames} frames; save it page by page"
        )
    if offset is not None and offset + n_frames * first.nbytes > path.stat().st_size:
        held = (path.stat().st_size - offset) // first.nbytes
        raise InputError(
            f"{path}: found data for {max(0, held)} frames, expected {n_frames}: the file is cut; "
            "copy or export it again"
        )
    if offset is not None:
        stored = dtype.newbyteorder(first.parent.byteorder)
        reader = mapped_reader(path, stored, offset, (n_frames, height, width))
    else:
        places = places or {frame: (path, frame) for frame in range(n_frames)}
        reader = paged_reader([places[frame] for frame in sorted(places)], first, gray)
    if samples > 1:
        dtype = np.dtype(np.float32)
    reader, scales = counted_from_black(reader, scales, first)
    files = tuple(dict.fromkeys(place[0] for place in places.values()))
    return Movie(
        path, n_frames, height, width, dtype, reader, scales, channels,
        files if len(files) > 1 else (),
    )  # fmt: skip


def mapped_reader(path: Path, stored: np.dtype, offset: int, shape: tuple[int, int, int]):
    """Return the reader of frames that lie uncompressed in one piece."""

    def mapped():
        step = frames_per_block(*shape[1:], stored.itemsize)
        size = stored.itemsize * shape[1] * shape[2]
        for start in range(0, shape[0], step):
            # Mapped anew for each block: pages of a file mapped whole stay in memory.
            part = (min(step, shape[0] - start), *shape[1:])
            yield native(np.memmap(path, stored, "r", offset + start * size, part))  # (b, H, W)

    return mapped


def paged_reader(places: Sequence[tuple[Path, int]], first: tifffile.TiffPage, gray: bool):
    """Return the reader of frames that are pages; ``places``: file and page of every frame."""
    samples, separate = first.samplesperpixel, tifffile.PLANARCONFIG.SEPARATE
    apart = samples > 1 and first.planarconfig == separate
    step = frames_per_block(first.imagelength, first.imagewidth, first.dtype.itemsize * samples)

    def block_of(held, path):
        block = native(np.stack(held))
        if samples > 1:
            block = np.moveaxis(block, 1, -1) if apart else block
            block = to_gray(block, path, gray)
        return block  # (b, H, W)

    def paged():
        opened, tif, held = None, None, []
        try:
            for path, page in places:
                if path != opened:
                    if tif is not None:
                        tif.close()
                    opened, tif = path, tifffile.TiffFile(path)
                held.append(tif.pages[page].asarray())
                if len(held) == step:
                    yield block_of(held, path)
                    held = []
            if held:
                yield block_of(held, opened)
        finally:
            if tif is not None:
                tif.close()

    return paged


def counted_from_black(
    reader: Callable, scales: Scales, first: tifffile.TiffPage
) -> tuple[Callable, Scales]:
    """Return the reader of light from a TIFF that may count from white, and its Scales.

    Where 0 is white (MINISWHITE), light is the largest number of its bits less the pixel.
    """
    if first.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return reader, scales
    kind, tag = np.dtype(first.dtype).kind, "0 is white in this TIFF (MINISWHITE)"
    if kind not in "ub":
        note = f"{tag}, which has no meaning for {first.dtype} pixels: they are read as they are"
        return reader, replace(scales, note="; ".join(filter(None, (scales.note, note))))
    top = True if kind == "b" else np.array(2**first.bitspersample - 1, first.dtype)

    def inverted():
        for block in reader():
            yield top ^ block  # top - block, also of 1 bit

    note = f"{tag}: inverted on reading"
    return inverted, replace(scales, note="; ".join(filter(None, (scales.note, note))))


def tiff_scales(path: Path, tif: tifffile.TiffFile, n_frames: int) -> Scales:
    """Return the Scales that the metadata of a TIFF tell."""
    if tif.is_ome:
        return ome_scales(path, tif, n_frames)
    if tif.is_scanimage:
        return scanimage_scales(tif)
    return imagej_scales(tif.pages[0], tif.imagej_metadata or {})


def set_places(path: Path, tif: tifffile.TiffFile) -> dict[int, tuple[Path, int]]:
    """Return file and page of every frame of an OME set over several files, {} for one file.

    Micro-Manager cuts long recordings into files of 4 GB; every one tells of all.
    """
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
        return {}  # ome_scales says so
    places, names = {}, set()
    for element in root.iter():
        if not element.tag.endswith("}TiffData"):
            continue
        uuid = next((e for e in element if e.tag.endswith("}UUID")), None)
        name = uuid.get("FileName") if uuid is not None else None
        if name is None:
            return {}
        names.add(name)
        first, page = int(element.get("FirstT", 0)), int(element.get("IFD", 0))
        for step in range(int(element.get("PlaneCount", 1))):
            if first + step in places:
                return {}  # several channels or planes at one time
            places[first + step] = path.with_name(Path(name).name), page + step
    if len(names) < 2:
        return {}
    missing = sorted(name for name in names if not path.with_name(Path(name).name).is_file())
    if missing:
        raise InputError(
            f"{path}: found {len(names) - len(missing)} of the {len(names)} files that the"
            f" recording lies in, missing {', '.join(missing[:3])}; put them into one folder"
        )
    return places


def open_folder(path: Path, gray: bool) -> Movie:
    """Open a folder of TIFFs with one frame each, in the order of the numbers in their names."""
    names = [name for name in visible(path, "*") if name.suffix.lower() in TIFF_SUFFIXES]
    if not names:
        raise InputError(
            f"{path}: found a folder without crop_<i>.csv and without TIFFs, expected a recording"
        )

    def numbers(name):
        parts = re.split(r"(\d+)", name.name)
        return [int(part) if part.isdigit() else part for part in parts]

    names.sort(key=numbers)
    first = None
    for name in names:
        with tifffile.TiffFile(name) as tif:
            count = len(tif.pages)
            if (
                count != 1
                or len(tif.series) != 1
                or int((tif.imagej_metadata or {}).get("images", 1)) != 1
            ):
                raise InputError(
                    f"{name}: found {count} frames, expected one: a folder of movies is no movie;"
                    " name the file"
                )
            page = check_pages(name, list(tif.pages))[0]
            if first is None:
                first, scales = page, tiff_scales(name, tif, 1)
            if page.shape != first.shape or page.dtype != first.dtype:
                raise InputError(
                    f"{name}: found {page.shape} {page.dtype}, expected {first.shape}"
                    f" {first.dtype} as in {names[0].name}; a folder holds one recording"
                )
    if first.samplesperpixel > 1 and not gray:
        raise InputError(f"{path}: found colour frames (RGB), expected gray; give --gray")
    dtype = np.dtype(np.float32 if first.samplesperpixel > 1 else first.dtype)
    reader = paged_reader([(name, 0) for name in names], first, gray)
    reader, scales = counted_from_black(reader, scales, first)
    return Movie(
        path, len(names), first.imagelength, first.imagewidth, dtype, reader, scales,
        files=tuple(names),
    )  # fmt: skip


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


def count_frames(
    path: Path, series: tifffile.TiffPageSeries, first: tifffile.TiffPage, channel: str
) -> tuple[int, int]:
    """Return the number of frames (H, W) that a series of pages tells of, and of its channels."""
    plane = (first.imagelength, first.imagewidth)
    axes = [(n, axis) for n, axis in zip(series.shape, series.axes, strict=True) if axis != "S"]
    shape = [n for n, _ in axes]
    long_axes = [(n, axis) for n, axis in axes[:-2] if n > 1]
    channels = [n for n, axis in long_axes if axis == "C"]
    in_turn = len(long_axes) == 2 and len(channels) == 1 and long_axes[1][1] == "C"
    if tuple(shape[-2:]) != plane or (len(long_axes) > 1 and not (in_turn and channel)):
        hint = "; colour movies need --gray" if series.shape[-1] in (3, 4) else ""
        hint = f"; take one channel with --channel 1/{channels[0]}" if in_turn else hint
        raise InputError(
            f"{path}: found axes {series.axes} of shape {series.shape}, expected frames x height x "
            f"width; save one channel and one plane{hint}"
        )
    return math.prod(shape[:-2]), channels[0] if in_turn else 1


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
