"""Read and check the header of a DICOM file (specification section 5.1).

Everything that pydicom raises is turned into one InputError here.
"""

import warnings
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.errors import InvalidDicomError

from common.files import InputError
from inputs.dicom_video import CODECS
from inputs.pictures import brief

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
OF_VIDEO = ("YBR_PARTIAL_420", "YBR_PARTIAL_422")  # labels of MPEG, whose decoder knows the rest
USED_TAGS = {
    0x00080008,  # ImageType
    0x00080016,  # SOPClassUID
    0x00080018,  # SOPInstanceUID
    0x0008002A,  # AcquisitionDateTime
    0x00080023,  # ContentDate
    0x00080033,  # ContentTime
    0x00080060,  # Modality
    0x00082144,  # RecommendedDisplayFrameRate
    0x00100020,  # PatientID
    0x00180040,  # CineRate
    0x00181063,  # FrameTime
    0x00181065,  # FrameTimeVector
    0x00181242,  # ActualFrameDuration
    0x00186011,  # SequenceOfUltrasoundRegions
    0x00280002,  # SamplesPerPixel
    0x00280004,  # PhotometricInterpretation
    0x00280006,  # PlanarConfiguration
    0x00280008,  # NumberOfFrames
    0x00280009,  # FrameIncrementPointer
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280014,  # UltrasoundColorDataPresent
    0x00280100,  # BitsAllocated
    0x00280101,  # BitsStored
    0x00280102,  # HighBit
    0x00280103,  # PixelRepresentation
    0x20500020,  # PresentationLUTShape
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


def read_header(path: Path) -> Dataset:
    """Return the data set of a DICOM file without its pixels.

    Raises:
        InputError: not a file, not DICOM, cut within the header, or an element in use damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # malformed values are judged where they are used
            data = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        raise InputError(
            f"{path}: not a DICOM file; remove it or give it back its header"
        ) from None
    except Exception as error:
        # pydicom raises a dozen kinds on damaged files; all mean the same to the user.
        raise InputError(
            f"{path}: header not readable ({brief(error)}); the file is damaged or cut"
        ) from None
    for tag in sorted(set(data.keys()) & USED_TAGS):
        # Values are converted on first use: do it here, where the fault can name its tag.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data[tag]
        except Exception as error:
            raise InputError(
                f"{path}: {_name(tag)} not readable ({brief(error)}); the file is damaged"
            ) from None
    return data


def _name(tag):
    """Return keyword and number of a tag for messages."""
    return f"{keyword_for_tag(tag) or 'element'} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def check_header(path: Path, data: Dataset) -> None:
    """Raise InputError when an element that decoding needs is missing or impossible."""
    missing = [
        f"{keyword} {tag}"
        for keyword, tag in (
            ("Rows", "(0028,0010)"),
            ("Columns", "(0028,0011)"),
            ("BitsAllocated", "(0028,0100)"),
            ("PhotometricInterpretation", "(0028,0004)"),
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
    photometric, samples = str(data.PhotometricInterpretation), data.get("SamplesPerPixel", 1)
    allowed = SAMPLES | (dict.fromkeys(OF_VIDEO, 3) if str(syntax) in CODECS else {})
    if photometric not in allowed:
        raise InputError(
            f"{path}: PhotometricInterpretation (0028,0004) is {photometric!r}, expected one of "
            f"{', '.join(allowed)}"
        )
    if samples != allowed[photometric]:
        raise InputError(
            f"{path}: PhotometricInterpretation (0028,0004) {photometric!r} needs SamplesPerPixel "
            f"(0028,0002) {allowed[photometric]}, found {samples}; the header is damaged"
        )
