"""Files of microscope vendors, read through bioio (requirements-vendors.txt), an optional package.

bioio gives one face to the readers of Nikon (.nd2), Leica (.lif) and Zeiss (.czi): axes TCZYX,
sizes in um, time between frames.
"""

from datetime import timedelta
from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.calibration import UNKNOWN, Calibration
from inputs.tiff_axes import Stack, as_movie
from inputs.units import length_um, time_ms
from settings.recording import Given

VENDOR_SUFFIXES = (".nd2", ".lif", ".czi")
AXES = "TCZYX"


def read_vendor(path: Path, given: Given) -> tuple[np.ndarray, Calibration]:
    """Return (data (T, H, W), Calibration) of a file that bioio reads.

    Raises:
        InputError: bioio or its reader is not installed, the file holds several scenes or cannot
            be read.
    """
    # bioio is optional and large
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError:
        raise InputError(
            f"{path}: a {path.suffix} file is read by bioio: pip install -r "
            "requirements-vendors.txt, or export the movie as OME-TIFF"
        ) from None
    try:
        image = BioImage(path)
        scenes = tuple(image.scenes)
        data = image.get_image_data(AXES) if len(scenes) == 1 else None
        sizes, interval = image.physical_pixel_sizes, image.time_interval
        names = tuple(map(str, image.channel_names or ()))
    except UnsupportedFileFormatError as error:
        raise InputError(f"{path}: bioio has no reader for it ({error}); export as TIFF") from None
    except Exception as error:  # each vendor's reader raises its own
        raise InputError(
            f"{path}: cannot be read ({error or type(error).__name__}); export as OME-TIFF"
        ) from error
    if data is None:
        raise InputError(
            f"{path}: {len(scenes)} scenes ({', '.join(scenes[:4])}); export one as OME-TIFF"
        )
    stack = Stack(path, AXES, data.shape, (_Read(data),))
    movie = as_movie(path, stack, given, names)
    width, height = length_um(sizes.X, "um"), length_um(sizes.Y, "um")
    if isinstance(interval, timedelta):
        interval = interval.total_seconds()
    frame = time_ms(interval, "s") if len(movie) > 1 else None
    known = bool(width and height)
    return movie, Calibration(
        *((width, height) if known else (None, None)),
        frame,
        pixel_origin=f"file: {path.suffix} pixel size" if known else UNKNOWN,
        frame_origin=f"file: {path.suffix} time interval" if frame else UNKNOWN,
    )


class _Read:
    """An image that is in memory, with the face of a series of tifffile."""

    dataoffset = None

    def __init__(self, data):
        self.data = data

    def asarray(self) -> np.ndarray:
        """Return the image."""
        return self.data
