"""Rotation, translation and zoom of a clip in one affine warp (specification section 7.3).

A clip is (t, r, c, 3): grey, flow x, flow y. All frames and channels of it get the same transform.
Flow values stay as they are unless ``rotate_flow`` is set. Zero is the mean of z-scored data.
"""

import cv2
import numpy as np

PROBABILITY = 0.5  # of each of the three steps
MAX_ANGLE_DEG = 30.0  # rotation by U(-30, 30), counter-clockwise positive
MAX_SHIFT = 10  # translation by integers in [-10, 10], pixels of a picture of SHIFT_SIZE
SHIFT_SIZE = 112  # in smaller pictures the shift is smaller in proportion
CHANNELS = 4  # of a call of OpenCV, exact up to here
ZOOM_RANGE = (0.8, 1.2)  # zoom by U(0.8, 1.2)


def rotation_matrix(angle_deg: float, nrows: int, ncols: int) -> np.ndarray:
    """Return the 3 x 3 map (column, row, 1) of a rotation about the centre."""
    angle = np.deg2rad(angle_deg)
    centre_x, centre_y = (ncols - 1) / 2, (nrows - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])  # rows point down
    return _shift(centre_x, centre_y) @ turn @ _shift(-centre_x, -centre_y)


def translation_matrix(dx: float, dy: float) -> np.ndarray:
    """Return the 3 x 3 map that moves the content ``dx`` columns right and ``dy`` rows down."""
    return _shift(dx, dy)


def zoom_matrix(
    scale: float, nrows: int, ncols: int, row_offset: int, col_offset: int
) -> np.ndarray:
    """Return the 3 x 3 map of a resize to int(size * scale) followed by a crop or a zero padding.

    Args:
        scale: zoom; above 1 the result is cropped at the offset, below 1 padded at the offset.
        row_offset, col_offset: first row and column of the crop, or of the picture in the padding.
    """
    new_rows, new_cols = int(nrows * scale), int(ncols * scale)
    scale_y, scale_x = new_rows / nrows, new_cols / ncols
    # Pixel centres: (i + 0.5) * scale - 0.5
    resize = np.array(
        [[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1.0]]
    )
    sign_y = -1 if new_rows >= nrows else 1
    sign_x = -1 if new_cols >= ncols else 1
    return _shift(sign_x * col_offset, sign_y * row_offset) @ resize


def _shift(dx, dy):
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def warp_clip(clip: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the clip (t, r, c, k) with every frame warped bilinearly by ``matrix``, outside = 0.

    Frame by frame, at most four channels a call: OpenCV 5 takes at most 128, and from 5 on it
    samples in steps of 1/32 of a pixel.
    """
    _, r, c, k = clip.shape
    clip = np.ascontiguousarray(clip, dtype=np.float32)
    out = np.empty_like(clip)
    for frame, target in zip(clip, out, strict=True):
        for first in range(0, k, CHANNELS):
            part = np.ascontiguousarray(frame[..., first : first + CHANNELS])
            warped = cv2.warpAffine(part, matrix[:2], (c, r), flags=cv2.INTER_LINEAR)
            target[..., first : first + CHANNELS] = warped.reshape(part.shape)
    return out  # (t, r, c, k)


def draw_transform(
    rng: np.random.Generator, nrows: int, ncols: int, *, p: float = PROBABILITY
) -> tuple[np.ndarray | None, float]:
    """Draw rotation, translation and zoom, each with probability ``p``.

    Returns:
        matrix: 3 x 3 map of the three steps in this order, or None when none was drawn.
        angle_deg: the rotation drawn, 0 without one.
    """
    matrix, angle_deg, drawn = np.eye(3), 0.0, False
    if rng.random() < p:
        angle_deg, drawn = rng.uniform(-MAX_ANGLE_DEG, MAX_ANGLE_DEG), True
        matrix = rotation_matrix(angle_deg, nrows, ncols) @ matrix
    if rng.random() < p:
        top = [round(MAX_SHIFT * size / SHIFT_SIZE) for size in (ncols, nrows)]
        dx, dy = rng.integers(np.negative(top), top, endpoint=True)
        matrix, drawn = translation_matrix(dx, dy) @ matrix, True
    if rng.random() < p:
        scale, drawn = rng.uniform(*ZOOM_RANGE), True
        row_offset = rng.integers(abs(int(nrows * scale) - nrows), endpoint=True)
        col_offset = rng.integers(abs(int(ncols * scale) - ncols), endpoint=True)
        matrix = zoom_matrix(scale, nrows, ncols, row_offset, col_offset) @ matrix
    return (matrix if drawn else None), angle_deg


def augment_clip(
    clip: np.ndarray, rng: np.random.Generator, *, p: float = PROBABILITY, rotate_flow: bool = False
) -> np.ndarray:
    """Return an augmented copy of a clip (t, r, c, 3), or the clip itself when no step is drawn.

    Args:
        clip: float32 grey, flow x (right positive), flow y (down positive), z-scored.
        rng: numpy Generator that decides everything.
        rotate_flow: rotate the flow vectors with the picture.

    Source: section 7.3. Faithful: flow values are not rotated unless asked.
    Differs: the published zoom cannot run; all steps are one warp, so the picture is sampled once.
    """
    _, r, c, _ = clip.shape
    matrix, angle_deg = draw_transform(rng, r, c, p=p)
    if matrix is None:
        return clip
    warped = warp_clip(clip, matrix)
    if rotate_flow and angle_deg:
        cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        x, y = warped[..., 1].copy(), warped[..., 2].copy()
        warped[..., 1], warped[..., 2] = cos * x + sin * y, cos * y - sin * x
    return warped
