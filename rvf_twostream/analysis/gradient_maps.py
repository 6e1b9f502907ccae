"""Guided gradients as pictures: streams stacked, frames scaled, projected over time (section 8.3).

Letters: t frames, r rows, c columns.
"""

import numpy as np

from common.files import InputError
from inputs.resize import resize_frame


def stack_streams(grey: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return grey, flow x and flow y one under the other: (t,r,c,1), (t,r,c,2) -> (t, 3 r, c)."""
    return np.concatenate([grey[..., 0], flow[..., 0], flow[..., 1]], axis=1)


def scaled_frames(
    stack: np.ndarray, *, size: tuple[int, int] = (1152, 384), center: bool = True
) -> np.ndarray:
    """Return the frames of the pictures: resized, divided by the largest absolute value, centred.

    Args:
        stack: (t, 3 r, c) gradient.
        size: rows and columns of the pictures.
        center: subtract the mean. Faithful: a gradient of zero is then not exactly white.

    Raises:
        InputError: the gradient is zero everywhere.
    """
    frames = np.stack([resize_frame(frame, *size) for frame in stack])
    largest = np.abs(frames).max()
    if not largest > 0:
        raise InputError(
            "gradient is zero everywhere: a dead network, or weights that are all zero"
        )
    frames = frames / largest
    return frames - frames.mean() if center else frames


def projection(frames: np.ndarray) -> np.ndarray:
    """Return min over frames of the negative part plus max over frames of the positive part."""
    return np.minimum(frames, 0).min(axis=0) + np.maximum(frames, 0).max(axis=0)
