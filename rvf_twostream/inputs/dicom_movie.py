"""A DICOM movie as grey frames, one by one (specification section 5.1).

What the header says is compared with what the pixels are: colour, range, layout and number of
pictures; where they disagree the pixels win and a line says so.
Letters in shape comments: n frames, r rows, c columns.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from common.files import InputError
from inputs.codestream import RGB, YBR, stream_facts
from inputs.colour import decide_colour, decide_planar, to_grey, to_rgb
from inputs.crop import mask_box, pixel_cm, region_box, sector_of_extremes, ultrasound_regions
from inputs.dicom_header import check_header, read_header
from inputs.dicom_video import CODECS, codec_note, video_pictures
from inputs.pictures import (
    BIG_ENDIAN,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    PixelData,
    brief,
    by_pillow,
    decode,
    decoder_options,
    fragments,
    group_pictures,
    number_of_frames,
    picture_bytes,
    plain_layout,
)
from inputs.timing import timing

UNUSED_BITS = 2  # so many upper bits empty in the whole movie: BitsStored is not its range


class DicomMovie:
    """A DICOM movie whose grey frames are read one by one, as often as asked.

    Attributes:
        n: number of frames.
        info: what ``read_frames`` returns with the frames.
    """

    def __init__(self, path: str | Path, *, crop: str = "none", grey: str = "luma"):
        self.path, self.grey = Path(path), grey
        self.data = read_header(self.path)
        check_header(self.path, self.data)
        self.n, self.notes = number_of_frames(self.data), []
        self.mask, self.box = None, None
        self._guarded(self._open, crop)

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the grey frames (r, c) float32, cropped; 0..255 for 8-bit data."""
        frames = self._grey_frames()
        while (frame := self._guarded(next, frames, None)) is not None:
            yield self._cut(frame)

    def _guarded(self, function, *args):
        """Call ``function``; values of the header may break anything behind them."""
        try:
            return function(*args)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{self.path}: header or pixels not usable ({brief(error)}); the file is damaged"
            ) from None

    def _open(self, crop):
        data = self.data
        self.source = PixelData(self.path, data)
        self.parts, self.plain_bytes = None, 0
        self.colour, self.stream, self.stored = None, None, None
        self.bits, self.lowest, self.shift, self.mask_bits = 8, 0, 0, None
        self.options = decoder_options(data)
        self.is_video = self.source.syntax in CODECS
        self.inverted = data.PhotometricInterpretation == "MONOCHROME1"
        shape = str(data.get("PresentationLUTShape") or "").strip().upper()
        if data.PhotometricInterpretation == "MONOCHROME2" and shape == "INVERSE":
            self.inverted = True
            self.notes.append("PresentationLUTShape (2050,0020) is INVERSE: read inverted")
        if self.source.syntax == BIG_ENDIAN:
            swap_colour_tables(data)
        try:
            self._prepare()
        finally:
            self.source.close()
        regions = ultrasound_regions(data)
        if any(item.get("UltrasoundColorDataPresent") for item in (data, *regions)):
            self.notes.append(
                "UltrasoundColorDataPresent is 1: colour Doppler is kept in the grey picture"
            )
        when = timing(data, self.n)
        self.notes += when.notes if self.n > 1 else ()
        self._find_crop(crop)
        self.info = {
            "frame_rate_hz": when.rate_hz,
            "frame_rate_origin": when.origin,
            "frame_steps_s": when.steps_s,
            "n_frames": self.n,
            "rows": int(data.Rows),
            "columns": int(data.Columns),
            "transfer_syntax": str(data.file_meta.TransferSyntaxUID),
            "photometric": str(data.PhotometricInterpretation),
            "bits_stored": self.bits,
            "crop": self.box,
            "pixel_cm": pixel_cm(data),
            "warnings": [f"{self.path.name}: {note}" for note in self.notes],
        }

    def _prepare(self):
        """Find the pictures, decide about colour and range; the file is open."""
        if self.is_video:
            note = codec_note(self.source.syntax, self._video_bytes())
            self.notes += [note] if note else []
            return
        if self.data.file_meta.TransferSyntaxUID.is_compressed:
            told = self.n if "NumberOfFrames" in self.data else None
            self.parts, notes = group_pictures(self.source, told)
            self.n = len(self.parts)
            self.notes += notes
            self._check_stream()
        else:
            self.plain_bytes, label, note = plain_layout(self.data, self.source.size, self.n)
            self.options["photometric_interpretation"] = label
            self.notes += [note] if note else []
            self._check_length()
            self._find_bits()
            if self.source.syntax == BIG_ENDIAN:
                self.options["pixel_vr"] = self.source.vr
        if self.data.get("SamplesPerPixel", 1) == 3:
            self._decide_colour()
        if self.data.PhotometricInterpretation != "PALETTE COLOR":
            self._find_range()

    def _video_bytes(self):
        return picture_bytes(self.source, fragments(self.source, self.n))

    def _check_length(self):
        """Raise InputError when plain pixel data end before the last frame; note what is over."""
        if "NumberOfFrames" not in self.data:
            self.n = max(self.source.size // self.plain_bytes, 1)
        have, need = self.source.size, self.plain_bytes * self.n
        if have < need:
            raise InputError(
                f"{self.path}: {have // self.plain_bytes} complete frames found, {self.n} expected "
                f"({need} bytes for NumberOfFrames x Rows x Columns, {have} there); the file is cut"
            )
        if have > need + 1:  # one byte of padding is allowed
            self.notes.append(
                f"PixelData (7FE0,0010) has {have} bytes, {self.n} x {self.data.Rows} x "
                f"{self.data.Columns} needs {need}: NumberOfFrames, Rows or Columns may be wrong"
            )

    def _check_stream(self):
        """Compare the first picture with the header.

        pydicom arranges the pixels by Rows and Columns alone: exchanged, they give a scrambled
        movie.
        """
        data = self.data
        self.stream = stream_facts(picture_bytes(self.source, self.parts[0]))
        if self.stream is None:
            return  # RLE; a damaged picture fails where it is decoded
        if (self.stream.rows, self.stream.columns) != (data.Rows, data.Columns):
            raise InputError(
                f"{self.path}: pictures of {self.stream.rows} x {self.stream.columns} found, Rows "
                f"(0028,0010) x Columns (0028,0011) say {data.Rows} x {data.Columns}; the header "
                "is damaged, export the file again"
            )
        samples = int(data.get("SamplesPerPixel") or 1)
        if self.stream.components != samples:
            raise InputError(
                f"{self.path}: pixel data not decodable as the header says: pictures of "
                f"{self.stream.components} components found, SamplesPerPixel (0028,0002) is "
                f"{samples}; export the file again"
            )

    def _find_bits(self):
        """Find which bits of a plain value count, from HighBit and BitsStored."""
        stored, allocated = self.options["bits_stored"], self.options["bits_allocated"]
        self.options["bits_stored"] = allocated  # pydicom masks without looking at HighBit
        high = self.data.get("HighBit")
        high = high if isinstance(high, int) else stored - 1
        if stored < allocated and high < allocated:
            self.shift = max(high + 1 - stored, 0)
            self.mask_bits = stored

    def _samples(self):
        """Return the first, middle and last picture as decoded: (k, r, c, 3) components."""
        chosen = sorted({0, self.n // 2, self.n - 1})
        return np.stack([self._components(k) for k in chosen])

    def _decide_colour(self):
        """Find out whether the three components are RGB or YCbCr, and how they are arranged."""
        label = str(self.data.PhotometricInterpretation)
        bits = self.options["bits_stored"]
        if self.parts is None and self.options["photometric_interpretation"] != "YBR_FULL_422":
            planar, note = decide_planar(
                lambda k: self._samples_as(k), self.options["planar_configuration"], bits
            )
            self.options["planar_configuration"] = planar
            self.notes += [note] if note else []
        if self.options["photometric_interpretation"] == "YBR_FULL_422" and self.parts is None:
            self.colour = YBR  # two bytes a pixel can be nothing else
            return
        samples = self._samples() if self.stream is None or self.stream.colour is None else None
        self.colour, note = decide_colour(label, self.stream, samples, bits)
        self.notes += [note] if note else []

    def _samples_as(self, planar):
        self.options["planar_configuration"] = planar
        return self._samples()

    def _components(self, k):
        """Return picture k as stored: (r, c) or (r, c, 3), no colour converted; file open."""
        if self.parts is None:
            value = self.source.read(k * self.plain_bytes, self.plain_bytes)
        else:
            value = picture_bytes(self.source, self.parts[k])
            if self._is_jpeg() and (pixels := by_pillow(self.data, value, raw=True)) is not None:
                return pixels
        pixels = decode(self.path, self.data, value, self.options)
        if pixels.shape[:2] != (self.data.Rows, self.data.Columns):
            raise InputError(
                f"{self.path}: decoded picture {pixels.shape} is not Rows x Columns "
                f"{self.data.Rows} x {self.data.Columns}; the file is damaged"
            )
        return pixels

    def _is_jpeg(self):
        """Say whether Pillow reads the pictures: JPEG of 8 bits."""
        return self.source.syntax in (JPEG_BASELINE, JPEG_EXTENDED) and self.stream is not None

    def _find_range(self):
        """Find black and the number of bits of the values; wide values are kept in memory."""
        options = self.options
        wide, signed = options["bits_allocated"] > 8, options["pixel_representation"] == 1
        if not (wide or signed or self.mask_bits):
            return
        self.stored = [self._components(k) for k in range(self.n)]
        self._apply_bits()
        low = min(int(frame.min()) for frame in self.stored)
        high = max(int(frame.max()) for frame in self.stored)
        if low < 0:
            self.lowest = -128 if not wide else low
            self.notes.append(
                f"PixelRepresentation (0028,0103) is signed, values go down to {low}: "
                f"{self.lowest} is read as black"
            )
        if not wide:
            return
        told = int(self.data.get("BitsStored") or options["bits_allocated"])
        used = max((high - self.lowest).bit_length(), 8)
        self.bits = max(told, 8)
        if told - used >= UNUSED_BITS or used > told:
            self.bits = used
            self.notes.append(
                f"BitsStored (0028,0101) is {told}, values reach {high}: read as {used} bits"
            )

    def _apply_bits(self):
        """Shift and mask the values of plain data as HighBit and BitsStored say, if they fit."""
        if self.mask_bits is None:
            return
        top = max(int(frame.max()) for frame in self.stored)
        stored, shift = self.mask_bits, self.shift
        if shift and all(not (frame & ((1 << shift) - 1)).any() for frame in self.stored):
            self.stored = [frame >> shift for frame in self.stored]
            self.notes.append(f"HighBit (0028,0102) is {stored + shift - 1}: values are shifted")
        elif top >= 2**stored:
            if self._overlay_in_pixels():
                self.stored = [frame & (2**stored - 1) for frame in self.stored]
                return
            self.notes.append(f"values up to {top} do not fit BitsStored (0028,0101) {stored}")

    def _overlay_in_pixels(self):
        """Say whether an overlay lies in the unused bits (OverlayBitPosition, retired)."""
        return any(
            tag >> 16 & 0xFF00 == 0x6000 and tag & 0xFFFF == 0x0102 and self.data[tag].value
            for tag in list(self.data.keys())
        )

    def _grey_frames(self):
        """Yield the whole grey frames (r, c) float32."""
        self.source.reopen()
        try:
            if self.is_video:
                yield from self._video_frames()
                return
            for k in range(self.n):
                yield self._to_grey(k)
        finally:
            self.source.close()

    def _video_frames(self):
        data, count = self.data, 0
        size = (int(data.Rows), int(data.Columns))
        for picture in video_pictures(self.path, self._video_bytes()):
            if picture.shape[:2] != size:
                raise InputError(
                    f"{self.path}: pictures of {picture.shape[0]} x {picture.shape[1]} found, Rows "
                    f"(0028,0010) x Columns (0028,0011) say {size[0]} x {size[1]}; export it again"
                )
            if count == self.n:
                break
            count += 1
            yield to_grey(picture[None], self.grey)[0]
        if count < self.n:
            raise InputError(
                f"{self.path}: {count} frames found, {self.n} expected; the file is cut"
            )

    def _to_grey(self, k):
        """Return frame k as grey (r, c) float32."""
        data = self.data
        if self.stored is not None:
            pixels = self.stored[k]
        else:
            pixels = self._rgb_by_pillow(k) if self.colour else None
            if pixels is not None:
                return to_grey(pixels[None], self.grey)[0]
            pixels = self._components(k)
        if data.PhotometricInterpretation == "PALETTE COLOR":
            pixels = through_colour_table(self.path, data, pixels)
        if self.lowest:
            pixels = pixels.astype(np.int32) - self.lowest
            pixels = pixels.astype(np.uint8 if self.bits == 8 else np.uint32)
        if self.colour == YBR:
            pixels = to_rgb(pixels, self.bits)
        frame = to_grey(pixels[None], self.grey)[0]
        if self.inverted:
            frame = float(2**self.bits - 1) - frame
        return frame

    def _rgb_by_pillow(self, k):
        """Return frame k of a colour JPEG as RGB, converted by libjpeg as it goes, or None."""
        if self.parts is None or not self._is_jpeg():
            return None
        value = picture_bytes(self.source, self.parts[k])
        # libjpeg takes a stream without marks for YCbCr.
        as_stored = self.colour == RGB and self.stream.colour is None
        return by_pillow(self.data, value, raw=as_stored)

    def _find_crop(self, crop):
        """Set box and mask; the sector needs the whole movie, which is decoded once more for it."""
        size = (int(self.data.Rows), int(self.data.Columns))
        notes = []
        if crop == "region":
            self.box, notes = region_box(size, self.data)
        elif crop == "sector":
            low = high = None
            for frame in self._grey_frames():
                low = frame if low is None else np.minimum(low, frame)
                high = frame if high is None else np.maximum(high, frame)
            self.mask = sector_of_extremes(low, high)
            if self.mask is None:
                notes = ["no moving sector found: not cropped"]
            else:
                self.box = mask_box(self.mask)
        self.notes += notes

    def _cut(self, frame):
        if self.box is None:
            return frame
        if self.mask is not None:
            frame = np.where(self.mask, frame, np.float32(0))
        row0, row1, col0, col1 = self.box
        return np.ascontiguousarray(frame[row0 : row1 + 1, col0 : col1 + 1])


def swap_colour_tables(data: Dataset) -> None:
    """Turn the plain 16-bit tables of a big-endian file, which pydicom 3.0.2 reads as little."""
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTableData"
        if keyword in data and len(data[keyword].value) > data[f"{keyword[:-4]}Descriptor"][0]:
            swapped = np.frombuffer(data[keyword].value, ">u2").astype("<u2")
            data[keyword].value = swapped.tobytes()


def through_colour_table(path: Path, data: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Return the RGB uint8 (r, c, 3) that palette indices (r, c) stand for."""
    try:
        rgb = apply_color_lut(pixels, data)[..., :3]
        wide = data.RedPaletteColorLookupTableDescriptor[2] > 8 and int(rgb.max()) > 255
    except Exception as error:
        raise InputError(
            f"{path}: colour table (0028,1101)..(0028,1203) not usable ({brief(error)}); "
            "the file is damaged"
        ) from None
    return (rgb >> 8 if wide else rgb).astype(np.uint8)


def counted_frames(path: Path, data: Dataset) -> int:
    """Return the pictures of a file whose header has no NumberOfFrames; 1 where none can be told.

    Args:
        data: its header.
    """
    try:
        source = PixelData(Path(path), data)
        try:
            if data.file_meta.TransferSyntaxUID.is_compressed:
                return max(len(group_pictures(source, None)[0]), 1)
            return max(source.size // plain_layout(data, source.size, 1)[0], 1)
        finally:
            source.close()
    except (InputError, AttributeError, TypeError, ValueError, ZeroDivisionError):
        return 1  # what is wrong is told when the file is read
