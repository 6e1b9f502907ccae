"""Movies that lie in a file: read in parts, each of which gives its memory back.

The system would do so by itself, but only once nothing is free; until then the whole movie counts
as memory of the process.
"""

import mmap
from collections.abc import Iterator

import numpy as np

PART_VOXELS = 2**22


def forget_pages(movie: np.ndarray) -> None:
    """Give back the memory of what was read of a movie that lies in a file; it is read again."""
    base = movie
    while isinstance(base, np.ndarray) and not base.flags.writeable:
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def frames_of(movie: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the frames of a movie (T, H, W); those of a file are forgotten part by part."""
    size = max(1, PART_VOXELS // max(1, movie[:1].size))
    for first in range(0, len(movie), size):
        yield from movie[first : first + size]
        forget_pages(movie)


def extremes(movie: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest value of a movie (T, H, W), of its own dtype."""
    ends = [(frame.min(), frame.max()) for frame in frames_of(movie)]
    return min(low for low, _ in ends), max(high for _, high in ends)
