"""Read an ultrasound DICOM movie as grey frames (specification section 5.1).

Everything that pydicom and its decoders raise is turned into one InputError here.
Letters in shape comments: n frames, r rows, c columns.
"""

import contextlib
import io
import itertools
import warnings
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.encaps import generate_fragments, generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut

from common.files import InputError
from inputs.crop import apply_crop, ultrasound_regions

LUMA = {  # weights of R, G, B
    "luma": (0.2989, 0.5870, 0.1140),
    "reference": (0.2989, 0.1140, 0.5870),  # the published script swaps green and blue
}
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
DECODERS = {  # transfer syntax: pip packages of which any one decodes it
    JPEG_BASELINE: "pillow or pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.57": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.70": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.80": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.81": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg or pillow or python-gdcm",
    "1.2.840.10008.1.2.4.91": "pylibjpeg-openjpeg or pillow or python-gdcm",
}
SAMPLES = {  # samples per pixel of each photometric interpretation
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
USED_TAGS = {
    0x00080016,  # SOPClassUID
    0x00080018,  # SOPInstanceUID
    0x0008002A,  # AcquisitionDateTime
    0x00080023,  # ContentDate
    0x00080033,  # ContentTime
    0x00082144,  # RecommendedDisplayFrameRate
    0x00100020,  # PatientID
    0x00180040,  # CineRate
    0x00181063,  # FrameTime
    0x00181065,  # FrameTimeVector
    0x00186011,  # SequenceOfUltrasoundRegions
    0x00280002,  # SamplesPerPixel
    0x00280004,  # PhotometricInterpretation
    0x00280006,  # PlanarConfiguration
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280014,  # UltrasoundColorDataPresent
    0x00280100,  # BitsAllocated
    0x00280101,  # BitsStored
    0x00280102,  # HighBit
    0x00280103,  # PixelRepresentation
    0x7FE00010,  # PixelData
}


def is_dicom(path: str | Path) -> bool:
    """Say whether a file counts as DICOM input: suffix ``.dcm``, or the preamble ``DICM``.

    Scanners name files by UID too, so any other suffix may hide one.
    """
    path = Path(path)
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with open(path, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def read_header(path: Path, *, pixels: bool = False) -> Dataset:
    """Return the data set of a DICOM file, without its pixels unless asked.

    Raises:
        InputError: not a file, not DICOM, cut within the header, or an element in use damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # malformed values are judged where they are used
            data = pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError:
        raise InputError(
            f"{path}: not a DICOM file; remove it or give it back its header"
        ) from None
    except Exception as error:
        # pydicom raises a dozen kinds on damaged files; all mean the same to the user.
        raise InputError(
            f"{path}: header not readable ({_brief(error)}); the file is damaged or cut"
        ) from None
    for tag in sorted(set(data.keys()) & USED_TAGS):
        # Values are converted on first use: do it here, where the fault can name its tag.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data[tag]
        except Exception as error:
            raise InputError(
                f"{path}: {_name(tag)} not readable ({_brief(error)}); the file is damaged"
            ) from None
    return data


def _name(tag):
    """Return keyword and number of a tag for messages."""
    return f"{keyword_for_tag(tag) or 'element'} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _brief(error):
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


def frame_rate_hz(data: Dataset) -> float | None:
    """Return frames per second, or None when the header does not tell.

    FrameTime (ms) and FrameTimeVector are what FrameIncrementPointer points to and win over
    CineRate and RecommendedDisplayFrameRate, which say how to play the movie.
    """
    time_ms = _positive(data.get("FrameTime"))
    if time_ms:
        return 1000 / time_ms
    vector = data.get("FrameTimeVector")
    if vector is not None and not isinstance(vector, str):
        try:
            steps = [float(step) for step in list(vector)[1:]]  # the first increment is 0
        except (TypeError, ValueError):
            steps = []
        mean_ms = _positive(np.mean(steps)) if steps else None
        if mean_ms:
            return 1000 / mean_ms
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = _positive(data.get(keyword))
        if rate:
            return rate
    return None


def _positive(value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def read_frames(
    path: str | Path, *, crop: str = "none", grey: str = "luma"
) -> tuple[np.ndarray, dict]:
    """Return the grey frames of a DICOM file.

    Args:
        path: DICOM file.
        crop: "none" keeps the whole frame, "region" cuts the 2-D tissue region of the header,
            "sector" the moving fan found in the picture, with everything outside it set to 0.
        grey: "luma", or "reference" for the swapped weights of the published script.

    Returns:
        frames: (n, r, c) float32, 0..255 for 8-bit data.
        info: dict with frame_rate_hz (None when unknown), rows, columns (of the file), n_frames,
            transfer_syntax, photometric, bits_stored (of the grey values), warnings (list of str)
            and crop (row0, row1, col0, col1, inclusive, or None).

    Raises:
        InputError: in one line with the file and the tag or the package that is missing.

    Source: section 5.1. Differs: colour tables, YBR and single frames are handled; see the README.
    """
    data = read_header(path, pixels=True)
    try:
        return _read(path, data, crop, grey)
    except InputError:
        raise
    except Exception as error:
        # Values of the header may break anything behind them; all mean the same to the user.
        raise InputError(
            f"{path}: header or pixels not usable ({_brief(error)}); the file is damaged"
        ) from None


def _read(path, data, crop, grey):
    """Return frames and info of a data set (see read_frames)."""
    _check_header(path, data)
    notes = _check_length(path, data)
    pixels = decode(path, data)  # (n, r, c) or (n, r, c, 3)
    if data.PhotometricInterpretation != "PALETTE COLOR":
        notes += _odd_values(data, pixels)
    frames = to_grey(pixels, grey)
    if data.PhotometricInterpretation == "MONOCHROME1":
        frames = float(2 ** int(data.get("BitsStored", 8)) - 1) - frames
    if any(item.get("UltrasoundColorDataPresent") for item in (data, *ultrasound_regions(data))):
        notes.append("UltrasoundColorDataPresent is 1: colour Doppler is kept in the grey picture")
    n, r, c = frames.shape
    frames, box, crop_notes = apply_crop(frames, crop, data)
    return frames, {
        "frame_rate_hz": frame_rate_hz(data),
        "n_frames": n,
        "rows": r,
        "columns": c,
        "transfer_syntax": str(data.file_meta.TransferSyntaxUID),
        "photometric": str(data.PhotometricInterpretation),
        "bits_stored": 8 if pixels.dtype == np.uint8 else int(data.BitsStored),
        "crop": box,
        "warnings": [f"{Path(path).name}: {note}" for note in notes + crop_notes],
    }


def _check_header(path, data):
    """Raise InputError when an element that decoding needs is missing or impossible."""
    missing = [
        f"{keyword} {tag}"
        for keyword, tag in (
            ("Rows", "(0028,0010)"),
            ("Columns", "(0028,0011)"),
            ("BitsAllocated", "(0028,0100)"),
            ("PhotometricInterpretation", "(0028,0004)"),
            ("PixelData", "(7FE0,0010)"),
        )
        if data.get(keyword) in (None, "", b"")
    ]
    if missing:
        raise InputError(f"{path}: no {', no '.join(missing)}; this is no picture, remove it")
    if not getattr(data, "file_meta", None) or "TransferSyntaxUID" not in data.file_meta:
        raise InputError(f"{path}: no TransferSyntaxUID (0002,0010); export the file again")
    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise InputError(
            f"{path}: TransferSyntaxUID (0002,0010) is {syntax}, which is none; the file is damaged"
        )
    for keyword, tag in (("Rows", "(0028,0010)"), ("Columns", "(0028,0011)")):
        value = data.get(keyword)
        if not isinstance(value, int) or value < 8:
            raise InputError(f"{path}: {keyword} {tag} is {value}, expected a whole number >= 8")
    photometric, samples = data.PhotometricInterpretation, data.get("SamplesPerPixel", 1)
    if samples != SAMPLES.get(photometric):
        raise InputError(
            f"{path}: PhotometricInterpretation (0028,0004) {photometric!r} with SamplesPerPixel "
            f"(0028,0002) {samples}; expected one of {SAMPLES}"
        )


def _check_length(path, data):
    """Compare the size of the pixel data with frames x rows x columns; return warnings.

    Raises:
        InputError: fewer frames than the header promises.
    """
    wanted = number_of_frames(data)
    notes = []
    if data.file_meta.TransferSyntaxUID.is_compressed:
        try:
            _offsets, *fragments = generate_fragments(data.PixelData)
        except Exception as error:
            raise InputError(
                f"{path}: compressed pixel data (7FE0,0010) is damaged ({_brief(error)}), expected "
                f"{wanted} frames; copy the file again"
            ) from None
        # A frame may be spread over fragments: count those that begin a picture.
        starts = [f for f in fragments if f[:2] == b"\xff\xd8" or f[:4] == b"\xff\x4f\xff\x51"]
        found = len(starts) or len(fragments)
        if found < wanted:
            raise InputError(f"{path}: {found} frames found, {wanted} expected; the file is cut")
        _check_size(path, data, (starts or fragments)[0])
        if found > wanted:
            notes.append(
                f"{found} frames found, NumberOfFrames (0028,0008) says {wanted}: rest left out"
            )
        return notes
    samples = int(data.get("SamplesPerPixel", 1))
    per_pixel = 2 if data.PhotometricInterpretation == "YBR_FULL_422" else samples
    bits = int(data.BitsAllocated)
    frame_bytes = data.Rows * data.Columns * per_pixel * bits // 8
    have, need = len(data.PixelData), frame_bytes * wanted
    if have < need:
        raise InputError(
            f"{path}: {have // frame_bytes} complete frames found, {wanted} expected "
            f"({need} bytes for NumberOfFrames x Rows x Columns, {have} there); the file is cut"
        )
    if have > need + 1:  # one byte of padding is allowed
        notes.append(
            f"PixelData (7FE0,0010) has {have} bytes, {wanted} x {data.Rows} x {data.Columns} "
            f"needs {need}: NumberOfFrames, Rows or Columns may be wrong"
        )
    return notes


def _check_size(path, data, picture):
    """Raise InputError when a JPEG or JPEG 2000 picture has another size than the header says.

    pydicom arranges the pixels by Rows and Columns alone: exchanged, they give a scrambled movie.
    """
    try:
        columns, rows = Image.open(io.BytesIO(picture)).size  # reads the picture's header only
    except OSError:
        return  # RLE and JPEG-LS, which Pillow does not know; a damaged picture fails in decode()
    if (rows, columns) != (data.Rows, data.Columns):
        raise InputError(
            f"{path}: pictures of {rows} x {columns} found, Rows (0028,0010) x Columns (0028,0011) "
            f"say {data.Rows} x {data.Columns}; the header is damaged, export the file again"
        )


def decode(path: Path, data: Dataset) -> np.ndarray:
    """Return the decoded pixels (n, r, c) or RGB (n, r, c, 3) of a data set.

    The number of samples decides about colour, never the number of axes.
    """
    syntax = data.file_meta.TransferSyntaxUID
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pixels = _pixels(data, syntax)
    except Exception as error:
        text = _brief(error)
        if "missing dependencies" in str(error) or isinstance(error, NotImplementedError):
            needed = DECODERS.get(str(syntax), "a decoder that pydicom knows")
            raise InputError(
                f"{path}: transfer syntax {syntax} ({syntax.name}) has no decoder here; "
                f"pip install {needed}"
            ) from None
        raise InputError(
            f"{path}: pixel data not decodable as {syntax.name} ({text}); it is damaged or cut"
        ) from None
    damaged = [str(w.message) for w in caught if "trunc" in str(w.message).lower()]
    if damaged:
        raise InputError(f"{path}: pixel data is cut ({damaged[0][:160]})")
    samples = int(data.get("SamplesPerPixel", 1))
    shape = (number_of_frames(data), data.Rows, data.Columns) + ((3,) if samples == 3 else ())
    n_values = int(np.prod(shape))
    if pixels.size < n_values or pixels.size % (n_values // shape[0]):
        raise InputError(
            f"{path}: decoded pixels {pixels.shape} are not NumberOfFrames x Rows x Columns {shape}"
        )
    # pydicom hands out frames beyond NumberOfFrames too; _check_length warns of them.
    pixels = pixels.reshape(-1)[:n_values]
    pixels = pixels.reshape(shape)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        pixels = _through_colour_table(path, data, pixels)
    # YBR needs nothing more: pydicom 3 hands out RGB, compressed or not.
    return pixels


def _pixels(data, syntax):
    """Return pixel_array, but JPEG baseline by Pillow alone: same values in a third of the time."""
    if syntax == JPEG_BASELINE and data.PhotometricInterpretation != "RGB":
        # On a fault pydicom's decoders may still read it; theirs is the error to show.
        with contextlib.suppress(Exception):
            return _jpeg_frames(data)
    return data.pixel_array


def _jpeg_frames(data):
    """Return the grey (n, r, c) or RGB (n, r, c, 3) pictures of JPEG baseline data, one by one.

    pydicom turns YBR into RGB for the whole movie at once in float32; libjpeg does it as it goes.
    """
    n = number_of_frames(data)
    frames = itertools.islice(generate_frames(data.PixelData, number_of_frames=n), n)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in frames])
    if pixels.shape[1:] != (data.Rows, data.Columns) + (3,) * (data.SamplesPerPixel == 3):
        raise ValueError(f"pictures of shape {pixels.shape[1:]}")
    return pixels


def _through_colour_table(path, data, pixels):
    """Return the RGB uint8 (n, r, c, 3) that palette indices (n, r, c) stand for."""
    try:
        if not data.file_meta.TransferSyntaxUID.is_little_endian:
            # pydicom 3.0.2 reads plain 16-bit tables in the order of the machine.
            for colour in ("Red", "Green", "Blue"):
                keyword = f"{colour}PaletteColorLookupTableData"
                if (
                    keyword in data
                    and len(data[keyword].value) > data[f"{keyword[:-4]}Descriptor"][0]
                ):
                    swapped = np.frombuffer(data[keyword].value, ">u2").astype("<u2")
                    data[keyword].value = swapped.tobytes()
        rgb = apply_color_lut(pixels, data)[..., :3]
        wide = data.RedPaletteColorLookupTableDescriptor[2] > 8 and int(rgb.max()) > 255
    except Exception as error:
        raise InputError(
            f"{path}: colour table (0028,1101)..(0028,1203) not usable ({_brief(error)}); "
            "the file is damaged"
        ) from None
    return (rgb >> 8 if wide else rgb).astype(np.uint8)


def _odd_values(data, pixels):
    """Return warnings on pixel values that the header does not allow."""
    notes = []
    if int(pixels.min()) < 0:
        notes.append(f"PixelRepresentation (0028,0103) is signed, values go down to {pixels.min()}")
    allocated, stored = int(data.BitsAllocated), int(data.get("BitsStored") or data.BitsAllocated)
    if not data.file_meta.TransferSyntaxUID.is_compressed and allocated == 8 and stored < 8:
        # pydicom masks the upper bits, so look at the bytes of the file.
        top = int(np.frombuffer(data.PixelData, np.uint8).max())
        if top >= 2**stored:
            notes.append(f"values up to {top} do not fit BitsStored (0028,0101) {stored}")
    return notes


def to_grey(pixels: np.ndarray, grey: str = "luma") -> np.ndarray:
    """Return grey frames (n, r, c) float32 of grey (n, r, c) or RGB (n, r, c, 3) pixels."""
    if pixels.ndim == 3:
        return pixels.astype(np.float32)
    weights = np.array(LUMA[grey], np.float32)
    out = np.empty(pixels.shape[:3], np.float32)
    for k, frame in enumerate(pixels):  # frame by frame: a float32 colour movie may not fit
        out[k] = frame.astype(np.float32) @ weights
    return out


def dicom2imglist(path: Path, *, crop: str = "none", grey: str = "luma") -> list[np.ndarray]:
    """Return the grey frames of a DICOM file as a list of (r, c) float32 arrays."""
    return list(read_frames(path, crop=crop, grey=grey)[0])
