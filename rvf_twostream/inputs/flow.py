"""Optical flow of frames by Farneback's method (specification section 5.6).

Letters in shape comments: n frames, r rows, c columns.
"""

import cv2
import numpy as np

from common.files import InputError
from inputs.resize import resize_frame, resize_img_list
from settings import FARNEBACK, NCOLS, NROWS


def video2OF(
    frames: np.ndarray,
    *,
    nrows: int = NROWS,
    ncols: int = NCOLS,
    flow_size: tuple[int, int] | None = None,
    frame_rate_hz: float | None = None,
    **farneback: float,
) -> np.ndarray:
    """Return the flow (n, nrows, ncols, 2) float32 of frames (n, r, c) with values 0..255.

    Channel 0 is x (right positive), 1 is y (down positive). The last field is repeated, so that
    fields equal frames. Vectors keep the unit of full-size pixels when they are resized.

    Args:
        flow_size: (rows, columns) at which to compute, or None for full size.
        frame_rate_hz: multiply by it, for pixels per second; None keeps pixels per frame.
        farneback: pyr_scale, levels, winsize, iterations, poly_n, poly_sigma of the method, as in
            ``farneback_defaults`` unless given.

    Source: section 5.6. The method is not invariant to scale: always give 0..255.
    """
    cv2.setNumThreads(1)  # one process per file
    method = {**farneback_defaults(), **farneback}
    _, r, c = frames.shape
    if len(frames) < 2:
        raise InputError(f"{len(frames)} frame has no flow, at least 2 needed")
    unit = np.ones(2, np.float32)
    if flow_size:
        frames = resize_img_list(frames, *flow_size)
        unit = np.array([c / flow_size[1], r / flow_size[0]], np.float32)
    if frame_rate_hz:
        unit = unit * np.float32(frame_rate_hz)
    fields = np.empty((len(frames), nrows, ncols, 2), np.float32)
    for k in range(len(frames) - 1):
        field = cv2.calcOpticalFlowFarneback(
            frames[k],
            frames[k + 1],
            None,
            flags=0,
            **method,
        )
        fields[k] = resize_frame(field, nrows, ncols)
    fields[-1] = fields[-2]
    return fields * unit


def flow_of_frames(frames: np.ndarray, options: dict, info: dict) -> np.ndarray:
    """Return the flow of frames (n, r, c) under the options of data_mean_std_OF.json."""
    if options["per_second"] and not info["frame_rate_hz"]:
        raise InputError(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --per_second"
        )
    top = 2.0 ** info["bits_stored"] - 1
    if top > 255:
        frames = frames * np.float32(255 / top)
    return video2OF(
        frames,
        nrows=options["nrows"],
        ncols=options["ncols"],
        flow_size=options["flow_size"],
        frame_rate_hz=info["frame_rate_hz"] if options["per_second"] else None,
        **options["farneback"],
    )


def farneback_defaults() -> dict[str, float]:
    """Return the method's six numbers as set in settings.py."""
    return {name.lower(): setting.default for name, setting in FARNEBACK.items()}
