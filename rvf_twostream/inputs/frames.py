"""From a DICOM file to a movie: frames in time, resized, maximum 1 (specification 5.4, 5.5).

Letters in shape comments: n frames, r rows, c columns.
"""

from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.dicom_io import read_frames
from inputs.resize import resize_img_list
from settings import NCOLS, NROWS


def movie_from_frames(frames: np.ndarray, nrows: int = NROWS, ncols: int = NCOLS) -> np.ndarray:
    """Return the movie (n, nrows, ncols, 1) float32 of grey frames (n, r, c): resized, maximum 1.

    Source: sections 5.4, 5.5. Differs: the published resize blurs 8-bit frames in 8 bit.
    """
    movie = resize_img_list(frames, nrows, ncols)[..., None]
    top = float(movie.max())
    if not np.isfinite(top) or top <= 0:
        raise InputError(f"the movie's maximum is {top}, expected a positive number; it is empty")
    return movie / np.float32(top)


def resample_time(frames: np.ndarray, rate_hz: float | None, new_rate_hz: float) -> np.ndarray:
    """Return frames (n, r, c) interpolated linearly in time to another frame rate."""
    if not new_rate_hz or rate_hz == new_rate_hz:
        return frames
    if not rate_hz:
        raise InputError(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --resample_fps"
        )
    last = len(frames) - 1
    position = np.arange(int(last * new_rate_hz / rate_hz + 1e-9) + 1) * (rate_hz / new_rate_hz)
    low = np.minimum(position.astype(int), last)
    part = (position - low).astype(np.float32)[:, None, None]
    return frames[low] * (1 - part) + frames[np.minimum(low + 1, last)] * part


def read_movie(path: Path, options: dict) -> tuple[np.ndarray, dict]:
    """Return frames (n, r, c) float32 and info of a DICOM, cropped and resampled by ``options``.

    Args:
        options: dict with crop, grey and resample_fps, as stored in ``data_mean_std.json``.
    """
    frames, info = read_frames(path, crop=options["crop"], grey=options["grey"])
    rate = info["frame_rate_hz"]
    try:
        frames = resample_time(frames, rate, options["resample_fps"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return frames, {**info, "frame_rate_hz": options["resample_fps"] or rate}
