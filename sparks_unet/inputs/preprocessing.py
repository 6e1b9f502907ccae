"""From a movie in camera counts to the float32 array that the network sees.

Letters: T frames, H rows, W columns, D frames of a chunk, s stride.

Source: specification sections 5.2 to 5.5.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import interpolate, ndimage

from settings.config import IGNORE_INDEX, Params, logger

FULL_SCALE = 65535.0  # counts of a 16-bit camera


def _kernel(ndim, centre, other):
    kernel = np.full((3,) * ndim, other)
    kernel[(1,) * ndim] = centre
    return kernel if ndim == 3 else kernel[None]


def _gaussian_kernel():
    taps = np.exp(-0.5 * np.array([-1.0, 0.0, 1.0]) ** 2)
    taps /= taps.sum()
    return np.outer(taps, taps)[None]


SMOOTHING = {  # kernel over (t, y, x) and border of scipy.ndimage
    "2d": (_kernel(2, 1 / 2, 1 / 16), "reflect"),
    "3d": (_kernel(3, 1 / 2, 1 / 52), "reflect"),
    "gaussian2d": (_gaussian_kernel(), "mirror"),
}


def remove_background(movie: np.ndarray, method: str, *, duration: int) -> np.ndarray:
    """Subtract the resting light.

    Args:
        movie: (T, H, W).
        method: ``average`` (mean over the movie), ``moving`` (mean of the frames t-N .. t+N-1 with
            N = duration // 2), ``chunk_average`` (done per chunk by the caller) or ``none``.
        duration: D, frames of a chunk.

    Returns:
        (T, H, W) float32; values may be negative.
    """
    movie = movie.astype(np.float32, copy=False)
    if method == "average":
        return movie - movie.mean(axis=0, dtype=np.float64).astype(np.float32)
    if method == "moving":
        frames, half = len(movie), duration // 2
        total = np.zeros((frames + 1, *movie.shape[1:]))  # float64: sums of thousands of counts
        np.cumsum(movie, axis=0, dtype=np.float64, out=total[1:])
        t = np.arange(frames)
        low, high = np.maximum(0, t - half), np.minimum(frames, t + half)
        high = np.maximum(high, low + 1)  # a duration of 1 has the frame itself
        mean = (total[high] - total[low]) / (high - low)[:, None, None]
        return movie - mean.astype(np.float32)
    return movie


def smooth(movie: np.ndarray, method: str) -> np.ndarray:
    """Convolve (T, H, W) with the kernel of ``method``: 2d, 3d, gaussian2d or none; float32."""
    movie = movie.astype(np.float32, copy=False)
    if method == "none":
        return movie
    kernel, border = SMOOTHING[method]
    return ndimage.convolve(movie, kernel, mode=border)


def normalise(
    movie: np.ndarray, method: str, *, name: str = "movie", full_scale: float = FULL_SCALE
) -> tuple[np.ndarray, float]:
    """Scale (T, H, W) by ``method`` of section 5.2.

    ``full_scale``: counts that become 1 under ``abs_max``.

    Returns:
        (scaled float32, scale): ``scaled * scale + offset`` are the counts again.

    A constant movie becomes all zeros. Differs: NaN in the published code.
    """
    movie = movie.astype(np.float32, copy=False)
    if method in ("none", "chunk"):
        return movie, 1.0
    low, high = float(movie.min()), float(movie.max())
    if high == low:
        logger.warning("%s: all values are %g; no event can be found in it", name, low)
        return np.zeros_like(movie), 1.0
    if method == "std_dev":
        mean = movie.mean(dtype=np.float64)
        scale = float(movie.std(dtype=np.float64, ddof=1))
        return ((movie - mean) / scale).astype(np.float32), scale
    if method == "abs_max" and high <= 1.0:
        logger.warning(
            "%s: largest value %g; it looks normalised already, abs_max makes it almost 0",
            name,
            high,
        )
    scale = (full_scale if method == "abs_max" else high) - low
    return (movie - np.float32(low)) / np.float32(scale), scale


def preprocess_movie(
    movie: np.ndarray, params: Params, *, name: str = "movie"
) -> tuple[np.ndarray, float]:
    """Return (background removed, smoothed and normalised float32 (T, H, W), scale)."""
    movie = remove_background(movie, params.remove_background, duration=params.data_duration)
    smoothed = smooth(movie, params.data_smoothing)
    return normalise(smoothed, params.norm_video, name=name, full_scale=params.full_scale)


def preprocess_chunk(chunk: np.ndarray, params: Params) -> np.ndarray:
    """Return the chunk (D, H, W) after the steps that belong to chunks."""
    if params.remove_background == "chunk_average":
        chunk = chunk - chunk.mean(axis=0)
    if params.norm_video == "chunk":
        low, high = chunk.min(), chunk.max()
        chunk = (chunk - low) / (high - low) if high > low else np.zeros_like(chunk)
    return chunk


def padding(frames: int, duration: int, stride: int) -> tuple[int, int]:
    """Return (before, after) frames that make chunks of ``duration`` at ``stride`` fit exactly."""
    if frames < duration:
        total = duration - frames
    else:
        total = stride * math.ceil((frames - duration) / stride) - (frames - duration)
    return total // 2, total - total // 2


def pad_frames(array: np.ndarray, before: int, after: int, value: float) -> np.ndarray:
    """Pad the first axis of (T, H, W) with ``value``."""
    if not before and not after:
        return array
    return np.pad(array, ((before, after), (0, 0), (0, 0)), constant_values=value)


def count_chunks(frames: int, duration: int, stride: int) -> int:
    """Return the number of chunks of a padded movie."""
    return (frames - duration) // stride + 1


def sin_channels(chunk: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Append sinusoids along x, y and t to a chunk.

    Args:
        chunk: (D, H, W) float32.
        counts: (k_t, k_y, k_x) channels per axis; channel i is sin(2^i u), u from -pi to pi.

    Returns:
        (1 + k_x + k_y + k_t, D, H, W) float32.
    """
    channels = [chunk]
    for axis in (2, 1, 0):
        u = np.linspace(-np.pi, np.pi, chunk.shape[axis])
        shape = [1, 1, 1]
        shape[axis] = -1
        for i in range(counts[axis]):
            wave = np.sin(2**i * u).astype(np.float32).reshape(shape)
            channels.append(np.broadcast_to(wave, chunk.shape))
    return np.stack(channels)


def reduce_labels(labels: np.ndarray, factor: int = 4) -> np.ndarray:
    """Shrink (T, H, W) class labels in time: all 0 -> 0; any 1 -> 1; else any 3 -> 3; else maximum.

    Differs: the published code returns 0 as soon as one of the frames is background.
    """
    groups = labels.reshape(-1, factor, *labels.shape[1:])  # (T/4, 4, H, W)
    reduced = groups.max(axis=1)
    reduced[(groups == 3).any(axis=1)] = 3
    reduced[(groups == 1).any(axis=1)] = 1
    return reduced


def keep_sparks(labels: np.ndarray) -> np.ndarray:
    """Return class labels with sparks and ignored voxels only."""
    return np.where((labels == 1) | (labels == IGNORE_INDEX), labels, 0).astype(labels.dtype)


def resample_times(times_s: np.ndarray, fps: float) -> np.ndarray:
    """Return frame times (n,) in s at ``fps`` inside the recorded interval."""
    count = int(np.floor((times_s[-1] - times_s[0]) * fps + 1e-6)) + 1
    return times_s[0] + np.arange(count) / fps


def resample_movie(movie: np.ndarray, times_s: np.ndarray, new_times_s: np.ndarray) -> np.ndarray:
    """Interpolate (T, H, W) cubically along real frame times; float32."""
    result = np.empty((len(new_times_s), *movie.shape[1:]), np.float32)
    degree = min(3, len(times_s) - 1)
    for row in range(movie.shape[1]):  # row by row: the spline holds float64 copies
        spline = interpolate.make_interp_spline(times_s, movie[:, row].astype(float), k=degree)
        result[:, row] = spline(new_times_s)
    return result


def resample_labels(labels: np.ndarray, times_s: np.ndarray, new_times_s: np.ndarray) -> np.ndarray:
    """Take the label of the nearest frame. Differs: the published code interpolates cubically."""
    nearest = np.abs(new_times_s[:, None] - times_s[None]).argmin(axis=1)
    return labels[nearest]
