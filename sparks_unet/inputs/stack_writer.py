"""Movies that are written frame by frame as they are found, as TIFFs that ImageJ opens.

Letters: T frames, H rows, W columns.
"""

from pathlib import Path
from typing import Self

import numpy as np
import tifffile

from common.files import atomic_path
from inputs.calibration import Calibration

DEFLATE_LEVEL = 1  # higher ones take three times as long for masks that are a tenth smaller
BIG_BYTES = 2**32 - 2**25  # a plain TIFF counts its bytes in 32 bits


class StackWriter:
    """A TIFF of T frames that is there under its name once all of them are written.

    Deflated without a predictor: ImageJ reads no other compression of all these types. Above 4 GB
    the file is a BigTIFF, for which ImageJ needs Bio-Formats.

    Args:
        path: file to write.
        shape: (T, H, W).
        dtype: uint8, uint16 or float32.
        calibration: Calibration; what it does not know is left out of the file.
        compress: deflate the frames.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int, int],
        dtype: np.dtype | type,
        *,
        calibration: Calibration | None = None,
        compress: bool = True,
    ):
        self.path, self.shape, self.dtype = Path(path), tuple(shape), np.dtype(dtype)
        if self.dtype.name not in ("uint8", "uint16", "float32") or len(self.shape) != 3:
            raise ValueError(f"cannot write {self.dtype} {self.shape} as an ImageJ stack")
        calibration = calibration or Calibration()
        pixel_um, frame_ms = calibration.pixel_um, calibration.frame_ms
        metadata = {"unit": "um"} if pixel_um else {}
        if frame_ms:
            metadata |= {"finterval": frame_ms / 1e3, "fps": 1e3 / frame_ms, "tunit": "sec"}
        self.description = tifffile.imagej_description(self.shape, axes="TYX", **metadata)
        self.options = {
            "photometric": "minisblack",
            "metadata": None,
            "software": False,
            "resolution": (1.0 / pixel_um, 1.0 / calibration.pixel_y_um) if pixel_um else None,
            "resolutionunit": "NONE" if pixel_um else None,
            "compression": "zlib" if compress else None,
            "compressionargs": {"level": DEFLATE_LEVEL} if compress else None,
            "predictor": False if compress else None,
        }

    def __enter__(self) -> Self:
        self.place = atomic_path(self.path)
        temporary = self.place.__enter__()
        big = np.prod(self.shape, dtype=np.int64) * self.dtype.itemsize > BIG_BYTES
        self.tif, self.count = tifffile.TiffWriter(temporary, bigtiff=bool(big)), 0
        return self

    def write(self, frames: np.ndarray) -> None:
        """Add the next frames (n, H, W)."""
        for frame in np.asarray(frames, self.dtype):
            first = {} if self.count else {"description": self.description}
            self.tif.write(np.ascontiguousarray(frame), **self.options, **first)
            self.count += 1

    def __exit__(self, kind, error, traceback) -> bool | None:
        self.tif.close()
        if kind is None and self.count != self.shape[0]:
            kind = ValueError
            error = ValueError(f"{self.path}: {self.count} of {self.shape[0]} frames written")
            self.place.__exit__(kind, error, None)
            raise error
        return self.place.__exit__(kind, error, traceback)


def write_deflated(
    path: str | Path, array: np.ndarray, *, calibration: Calibration | None = None
) -> Path:
    """Write (T, H, W) bool, uint8, uint16 or float32 as a deflated ImageJ TIFF, atomically."""
    array = np.asarray(array)
    if array.dtype == bool:
        array = array.view(np.uint8)
    with StackWriter(path, array.shape, array.dtype, calibration=calibration) as stack:
        stack.write(array)
    return stack.path
