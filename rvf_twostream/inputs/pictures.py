"""The pictures of a DICOM file one by one: where they lie, and their decoded components.

A movie is never held as a whole where its file allows it: 120 colour frames of 480 x 640 are
110 MB. Letters in shape comments: r rows, c columns.
"""

import contextlib
import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, parse_fragments
from pydicom.pixels import get_decoder

from common.files import InputError
from inputs.codestream import begins_picture

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
DECODERS = {  # transfer syntax: pip packages of which any one decodes it
    JPEG_BASELINE: "pillow or pylibjpeg-libjpeg or python-gdcm",
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{k}" for k in (51, 57, 70, 80, 81)),
        "pylibjpeg-libjpeg or python-gdcm",
    ),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{k}" for k in (90, 91)),
        "pylibjpeg-openjpeg or pillow or python-gdcm",
    ),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{k}" for k in (201, 202, 203)), "pylibjpeg-openjpeg or python-gdcm"
    ),
}


def brief(error: Exception) -> str:
    """Return kind and text of an exception, short enough for a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def number_of_frames(data: Dataset) -> int:
    """Return NumberOfFrames when it is a positive whole number, else 1."""
    value = data.get("NumberOfFrames")
    try:
        count = int(value)
    except (TypeError, ValueError):
        return 1
    return max(count, 1)


class PixelData:
    """The pixel data element of an open file.

    Attributes:
        handle: file, or the inflated content of a deflated one.
        start, size: place of the value and the bytes of it that are there.
        promised: its length as the file says, None when undefined.
        vr: its type, OB or OW.
    """

    def __init__(self, path: Path, data: Dataset):
        self.path, self.data = path, data
        self.syntax = str(data.file_meta.TransferSyntaxUID)
        self.handle: BinaryIO
        if self.syntax == DEFLATED:
            value = pydicom.dcmread(path).PixelData
            self.handle, self.start, self.promised = io.BytesIO(value), 0, len(value)
            self.vr = "OB"
        else:
            self.handle = open(path, "rb")  # noqa: SIM115  (close() is the caller's)
            self._find()
        end = self.handle.seek(0, 2)
        whole = end - self.start if self.promised is None else self.promised
        self.size = max(min(whole, end - self.start), 0)

    def close(self) -> None:
        """Close the file; what was inflated stays."""
        if self.syntax != DEFLATED:
            self.handle.close()

    def reopen(self) -> None:
        """Open the file again after ``close``."""
        if self.handle.closed:
            self.handle = open(self.path, "rb")  # noqa: SIM115

    def _find(self):
        """Set start and promised length from the element's head."""
        warnings_off = warnings.catch_warnings()
        with warnings_off:
            warnings.simplefilter("ignore")
            pydicom.dcmread(self.handle, stop_before_pixels=True, force=False)
        order = "big" if self.syntax == BIG_ENDIAN else "little"
        head = self.handle.read(12)
        if head[:4] != (b"\x7f\xe0\x00\x10" if order == "big" else b"\xe0\x7f\x10\x00"):
            raise InputError(
                f"{self.path}: no PixelData (7FE0,0010); this is no picture, remove it"
            )
        implicit = not head[4:6].isalpha()
        self.vr = "OW" if implicit else head[4:6].decode("ascii")
        length = int.from_bytes(head[4:8] if implicit else head[8:12], order)
        if implicit:
            self.handle.seek(-4, 1)
        self.start = self.handle.tell()
        self.promised = None if length == 0xFFFFFFFF else length

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the value."""
        self.handle.seek(self.start + offset)
        return self.handle.read(max(min(size, self.size - offset), 0))


def fragments(source: PixelData, wanted: int | None) -> list[tuple[int, int]]:
    """Return (offset in the file, length) of the fragments of compressed pixel data.

    The offset table is passed over: where it is right it tells nothing new, and it is often wrong.
    """
    handle = source.handle
    try:
        handle.seek(source.start)
        if handle.read(4) != b"\xfe\xff\x00\xe0":
            raise ValueError("no offset table at its beginning")
        handle.seek(int.from_bytes(handle.read(4), "little"), 1)
        _, places = parse_fragments(handle)
    except Exception as error:
        # pydicom raises what reading beyond an end raises; all mean the same to the user.
        raise InputError(
            f"{source.path}: compressed pixel data (7FE0,0010) is damaged ({brief(error)}), "
            f"expected {wanted or 'some'} frames; copy the file again"
        ) from None
    parts = []
    for place in places:
        handle.seek(place + 4)
        length = int.from_bytes(handle.read(4), "little")
        if place + 8 + length > source.start + source.size:
            raise InputError(
                f"{source.path}: the last of {len(places)} pieces of pixel data is cut, "
                f"{wanted or 'some'} frames expected; copy the file again"
            )
        parts.append((place + 8, length))
    return [(place, length) for place, length in parts if length]


def group_pictures(
    source: PixelData, wanted: int | None
) -> tuple[list[list[tuple[int, int]]], list[str]]:
    """Return the fragments of each picture, and warnings.

    Args:
        wanted: NumberOfFrames, None where the header does not tell.

    Raises:
        InputError: fewer pictures than NumberOfFrames.
    """
    parts, pictures = fragments(source, wanted), []
    begins = []
    for place, _ in parts:
        source.handle.seek(place)
        begins.append(begins_picture(source.handle.read(8)))
    for part, begin in zip(parts, begins, strict=True):
        if begin or not any(begins) or not pictures:
            pictures.append([part])
        else:
            pictures[-1].append(part)  # a picture may be spread over fragments
    n_pictures = len(pictures)
    if wanted is None:
        return pictures, []
    if n_pictures < wanted:
        raise InputError(
            f"{source.path}: {n_pictures} frames found, {wanted} expected; the file is cut"
        )
    notes = []
    if n_pictures > wanted:
        notes.append(
            f"{n_pictures} frames found, NumberOfFrames (0028,0008) says {wanted}: rest left out"
        )
    return pictures[:wanted], notes


def picture_bytes(source: PixelData, parts: list[tuple[int, int]]) -> bytes:
    """Return one compressed picture."""
    out = []
    for place, length in parts:
        source.handle.seek(place)
        out.append(source.handle.read(length))
    return b"".join(out)


def decoder_options(data: Dataset, photometric: str | None = None) -> dict:
    """Return what pydicom's decoders need for one picture of a data set."""
    samples = int(data.get("SamplesPerPixel") or 1)
    return {
        "rows": int(data.Rows),
        "columns": int(data.Columns),
        "number_of_frames": 1,
        "samples_per_pixel": samples,
        "planar_configuration": int(data.get("PlanarConfiguration") or 0) if samples > 1 else None,
        "photometric_interpretation": photometric or str(data.PhotometricInterpretation),
        "bits_allocated": int(data.BitsAllocated),
        "bits_stored": int(data.get("BitsStored") or data.BitsAllocated),
        "pixel_representation": int(data.get("PixelRepresentation") or 0),
        "pixel_keyword": "PixelData",
    }


def decode(path: Path, data: Dataset, value: bytes, options: dict) -> np.ndarray:
    """Return the components (r, c) or (r, c, 3) of one picture, as stored: nothing converted.

    Args:
        options: of ``decoder_options``, and pixel_vr of big-endian words.

    Raises:
        InputError: no decoder, or damaged bytes.
    """
    syntax = data.file_meta.TransferSyntaxUID
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decoder = get_decoder(syntax)
            if syntax.is_compressed:
                value = encapsulate([value], has_bot=False)
            pixels, _ = decoder.as_array(value, raw=True, **options)
    except Exception as error:
        if "missing dependencies" in str(error) or isinstance(error, NotImplementedError):
            needed = DECODERS.get(str(syntax), "a decoder that pydicom knows")
            raise InputError(
                f"{path}: transfer syntax {syntax} ({syntax.name}) has no decoder here; "
                f"pip install {needed}"
            ) from None
        raise InputError(
            f"{path}: pixel data not decodable as {syntax.name} ({brief(error)}); it is damaged "
            "or cut"
        ) from None
    damaged = [str(w.message) for w in caught if "trunc" in str(w.message).lower()]
    if damaged:
        raise InputError(f"{path}: pixel data is cut ({damaged[0][:160]})")
    return pixels


def by_pillow(data: Dataset, value: bytes, *, raw: bool) -> np.ndarray | None:
    """Return a JPEG picture of 8 bits in a third of the time, None where Pillow will not.

    Args:
        raw: components as stored; else RGB of YCbCr, which libjpeg converts as it goes.
    """
    with contextlib.suppress(Exception):  # pydicom's decoders may still read it, or name the fault
        picture = Image.open(io.BytesIO(value))
        if raw and picture.mode == "RGB":
            picture.draft("YCbCr", picture.size)
        pixels = np.asarray(picture)
        samples = int(data.get("SamplesPerPixel") or 1)
        if pixels.shape == (data.Rows, data.Columns) + (3,) * (samples == 3):
            return pixels
    return None


def plain_layout(data: Dataset, have: int, wanted: int) -> tuple[int, str, str | None]:
    """Return bytes of an uncompressed picture, the label its layout has, and a warning.

    YBR_FULL_422 means 2 bytes a pixel; servers that decompress leave the label on 3.
    """
    samples, bits = int(data.get("SamplesPerPixel") or 1), int(data.BitsAllocated)
    pixels, label = int(data.Rows) * int(data.Columns), str(data.PhotometricInterpretation)
    if label == "YBR_FULL_422":
        full = pixels * 3 * bits // 8
        if full * wanted <= have <= full * wanted + 1:
            note = (
                "PixelData (7FE0,0010) has 3 bytes a pixel, PhotometricInterpretation (0028,0004) "
                "YBR_FULL_422 means 2: read as 3"
            )
            return full, "YBR_FULL", note
        return pixels * 2 * bits // 8, label, None
    return pixels * samples * bits // 8, label, None
