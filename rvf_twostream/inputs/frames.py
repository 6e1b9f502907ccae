"""From a DICOM file to a movie and its flow: frames in time, resized, maximum 1 (section 5.4, 5.5).

Each frame is decoded once: it is resized, compared with the one before for the flow, and kept only
as the highest and lowest value of every pixel. Letters in shape comments: n frames, r rows,
c columns.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import InputError
from inputs.dicom_movie import DicomMovie
from inputs.flow import FlowMaker, is_physical
from inputs.resize import resize_frame, resize_img_list
from inputs.timing import PLAUSIBLE_HZ
from settings import NCOLS, NROWS

FLAG_ORIGIN = "flag --frame_rate"


class Made(NamedTuple):
    """What one pass over a DICOM movie gives."""

    grey: np.ndarray  # (n, nrows, ncols, 1) float32, maximum 1
    flow: np.ndarray | None  # (n, nrows, ncols, 2) float32, or None
    low: np.ndarray  # (r, c) float32 minimum over all frames, 0..255
    high: np.ndarray  # (r, c) float32 maximum
    info: dict  # of read_frames


def movie_from_frames(frames: np.ndarray, nrows: int = NROWS, ncols: int = NCOLS) -> np.ndarray:
    """Return the movie (n, nrows, ncols, 1) float32 of grey frames (n, r, c): resized, maximum 1.

    Source: sections 5.4, 5.5. Differs: the published resize blurs 8-bit frames in 8 bit.
    """
    return _to_maximum(resize_img_list(frames, nrows, ncols))


def _to_maximum(small):
    """Return resized frames (n, r, c) as a movie (n, r, c, 1) of maximum 1."""
    movie = small[..., None]
    top = float(movie.max())
    if not np.isfinite(top) or top <= 0:
        raise InputError(f"the movie's maximum is {top}, expected a positive number; it is empty")
    return movie / np.float32(top)


def resample_time(frames: np.ndarray, rate_hz: float | None, new_rate_hz: float) -> np.ndarray:
    """Return frames (n, r, c) interpolated linearly in time to another frame rate."""
    if not new_rate_hz or rate_hz == new_rate_hz:
        return frames
    return np.stack(list(resampled(frames, rate_hz, new_rate_hz)))


def resampled(
    frames: Iterable[np.ndarray],
    rate_hz: float | None,
    new_rate_hz: float,
    steps_s: tuple[float, ...] | None = None,
) -> Iterator[np.ndarray]:
    """Yield frames (r, c) interpolated linearly in time to another frame rate.

    Args:
        steps_s: intervals between frames where they are uneven.

    Raises:
        InputError: no frame rate, or a gap in time, which no interpolation can fill.
    """
    if not rate_hz:
        raise InputError(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --resample_fps; give "
            "--frame_rate"
        )
    if steps_s is not None and max(steps_s) > 1 / PLAUSIBLE_HZ[0]:
        raise InputError(
            f"FrameTimeVector (0018,1065) has a gap of {1000 * max(steps_s):g} ms, --resample_fps "
            "would invent frames; cut the movie there, or leave --resample_fps out"
        )
    before, k, wanted, now = None, 0, 0, 0.0
    for frame in frames:
        if k:
            step = 1 / rate_hz if steps_s is None else steps_s[k - 1]
            start, now = now, (k / rate_hz if steps_s is None else now + step)
            while wanted / new_rate_hz <= now + 1e-9:
                part = np.float32(np.clip((wanted / new_rate_hz - start) / step, 0, 1))
                yield before * (1 - part) + frame * part
                wanted += 1
        before, k = frame, k + 1
    if k == 1:
        yield before


def open_movie(path: Path, options: dict) -> tuple[Iterator[np.ndarray], dict]:
    """Return the frames (r, c) of a DICOM, cropped and resampled by ``options``, and info.

    Args:
        options: dict with crop, grey, resample_fps and (newer ones) frame_rate, as stored in
            ``data_mean_std.json``.
    """
    frames, info, _ = _opened(path, options)
    return frames, info


def _opened(path, options, flow=None):
    """Return the frames and info of ``open_movie``, and a FlowMaker, or None without ``flow``."""
    movie = DicomMovie(path, crop=options["crop"], grey=options["grey"])
    info, frames = dict(movie.info), movie.frames()
    if info["frame_rate_hz"] is None and options.get("frame_rate"):
        info |= {"frame_rate_hz": options["frame_rate"], "frame_rate_origin": FLAG_ORIGIN}
    rate, wanted, steps_s = info["frame_rate_hz"], options["resample_fps"], info["frame_steps_s"]
    anew = bool(wanted) and (rate != wanted or bool(steps_s))
    # Flow between frames mixed of two others is not that of the tissue: those recorded are used.
    recorded = flow is not None and is_physical(flow)
    if anew:
        info |= {"frame_rate_hz": wanted, "frame_steps_s": None}
    maker = None
    if flow is not None:
        maker = FlowMaker(flow, info, _times_s(rate, steps_s) if anew and recorded else None)
    if maker is not None and recorded:
        frames = _watched(frames, maker)
    if anew:
        frames = resampled(frames, rate, wanted, steps_s)
    if maker is not None and not recorded:
        frames = _watched(frames, maker)
    return frames, info, maker


def _watched(frames, maker):
    """Yield frames after ``maker`` has seen each."""
    for frame in frames:
        maker.add(frame)
        yield frame


def _times_s(rate_hz, steps_s):
    """Return an iterator over when the frames of a recording were taken, s."""
    if not rate_hz:
        return iter(())  # ``resampled`` says what is missing
    if steps_s is None:
        return (k / rate_hz for k in itertools.count())
    return itertools.accumulate(steps_s, initial=0.0)


def read_movie(path: Path, options: dict) -> tuple[np.ndarray, dict]:
    """Return frames (n, r, c) float32 and info of a DICOM (see ``open_movie``)."""
    frames, info = open_movie(path, options)
    try:
        return np.stack(list(frames)), info
    except InputError as error:
        raise _named(path, error) from None


def make_movie(
    path: Path, options: dict, flow: dict | None = None, *, nframes: int | None = None
) -> Made:
    """Return movie, flow and the extremes of a DICOM file in one pass over its frames.

    Args:
        options: how movies are made: crop, grey, resample_fps, nrows, ncols.
        flow: how flow is made (see ``flow.FlowMaker``), or None for none.
        nframes: fewest frames.
    """
    try:
        frames, info, maker = _opened(path, options, flow)
        small, low, high = [], None, None
        for frame in frames:
            small.append(resize_frame(frame, options["nrows"], options["ncols"]))
            low = frame if low is None else np.minimum(low, frame)
            high = frame if high is None else np.maximum(high, frame)
        if nframes is not None and len(small) < nframes:
            raise InputError(f"{len(small)} frames, {nframes} needed")
        fields = None if maker is None else maker.fields()
        to_8_bits = np.float32(255 / (2.0 ** info["bits_stored"] - 1))
        return Made(_to_maximum(np.stack(small)), fields, low * to_8_bits, high * to_8_bits, info)
    except InputError as error:
        raise _named(path, error) from None


def _named(path, error):
    """Return the error with the file's name in front."""
    text = str(error)
    return error if text.startswith(str(path)) else type(error)(f"{path}: {text}")
