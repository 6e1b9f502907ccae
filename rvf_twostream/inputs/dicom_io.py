"""Read an ultrasound DICOM movie as grey frames (specification section 5.1).

The reader's public names; ``dicom_movie.py`` reads frame by frame. Letters in shape comments:
n frames, r rows, c columns.
"""

from pathlib import Path

import numpy as np

from inputs.colour import LUMA, to_grey
from inputs.dicom_header import is_dicom, read_header
from inputs.dicom_movie import DicomMovie
from inputs.pictures import number_of_frames
from inputs.timing import frame_rate_hz

__all__ = [
    "LUMA",
    "dicom2imglist",
    "frame_rate_hz",
    "is_dicom",
    "number_of_frames",
    "read_frames",
    "read_header",
    "to_grey",
]


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
        info: dict with frame_rate_hz (None when unknown), frame_rate_origin, frame_steps_s
            (uneven intervals, or None), rows, columns (of the file), n_frames, transfer_syntax,
            photometric, bits_stored (of the grey values), warnings (list of str) and crop (row0,
            row1, col0, col1, inclusive, or None).

    Raises:
        InputError: in one line with the file and the tag or the package that is missing.

    Source: section 5.1. Differs: colour tables, YBR and single frames are handled; see the README.
    """
    movie = DicomMovie(path, crop=crop, grey=grey)
    return np.stack(list(movie.frames())), movie.info


def dicom2imglist(path: Path, *, crop: str = "none", grey: str = "luma") -> list[np.ndarray]:
    """Return the grey frames of a DICOM file as a list of (r, c) float32 arrays."""
    return list(DicomMovie(path, crop=crop, grey=grey).frames())
