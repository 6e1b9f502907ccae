"""Resize frames as the published project did, as two small matrices (specification section 5.4).

The published code calls scikit-image: a Gaussian low-pass, then bilinear sampling. Both are linear
and separable, so the whole is out = A x B^T. Verified against scikit-image in the tests.
"""

import functools

import numpy as np
from scipy import sparse


@functools.lru_cache(maxsize=32)
def resize_matrix(size_in: int, size_out: int) -> sparse.csr_matrix:
    """Return the sparse (size_out, size_in) float32 matrix of low-pass and bilinear sampling.

    Gaussian with sigma = max(0, (f - 1) / 2), f = size_in / size_out, cut at 4 sigma; samples at
    (i + 0.5) f - 0.5; the border is mirrored without repeating the edge in both.

    Source: section 5.4. Weights are positive and sum to 1, so no value leaves the input's range.
    """
    factor = size_in / size_out
    position = (np.arange(size_out) + 0.5) * factor - 0.5
    low = np.floor(position).astype(int)
    part = position - low
    bilinear = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(bilinear, (rows, _mirror(low, size_in)), 1 - part)
    np.add.at(bilinear, (rows, _mirror(low + 1, size_in)), part)
    sigma = max(0.0, (factor - 1) / 2)
    if sigma == 0:
        return sparse.csr_matrix(bilinear.astype(np.float32))
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    gauss = np.zeros((size_in, size_in))
    for offset, weight in zip(offsets, kernel, strict=True):
        np.add.at(
            gauss, (np.arange(size_in), _mirror(np.arange(size_in) + offset, size_in)), weight
        )
    return sparse.csr_matrix((bilinear @ gauss).astype(np.float32))


def _mirror(index, size):
    """Reflect indices into 0..size-1 without repeating the edge."""
    period = max(2 * (size - 1), 1)
    index = np.abs(index) % period
    return np.where(index >= size, period - index, index)


def resize_frame(frame: np.ndarray, nrows: int, ncols: int) -> np.ndarray:
    """Return a frame (r, c) or (r, c, k) resized to nrows x ncols, float32.

    A frame of that size passes unchanged.
    """
    frame = np.asarray(frame, np.float32)
    r, c = frame.shape[:2]
    if (r, c) == (nrows, ncols):
        return frame
    flat = frame.reshape(r, -1)
    down = resize_matrix(r, nrows) @ flat  # (nrows, c * k)
    down = down.reshape(nrows, c, -1).transpose(1, 0, 2).reshape(c, -1)  # (c, nrows * k)
    out = resize_matrix(c, ncols) @ down  # (ncols, nrows * k)
    out = out.reshape(ncols, nrows, -1).transpose(1, 0, 2)  # (nrows, ncols, k)
    return np.ascontiguousarray(out.reshape(nrows, ncols, *frame.shape[2:]))


def resize_img_list(frames: np.ndarray, nrows: int, ncols: int) -> np.ndarray:
    """Return a stack of frames (n, r, c) or (n, r, c, k) resized to nrows x ncols, float32."""
    return np.stack([resize_frame(frame, nrows, ncols) for frame in frames])
