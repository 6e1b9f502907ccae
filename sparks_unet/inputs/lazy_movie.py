"""A movie whose frames are prepared for the network when they are asked for.

The float32 copy of a whole movie is twice its size; here only the counts are kept, in memory or in
a file, and the values are those of ``MovieDataset``.

Letters: T frames, H rows, W columns, D frames of a chunk, s stride.

Source: specification sections 5.2 and 5.3.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from inputs.pages import forget_pages
from inputs.preprocessing import count_chunks, padding, preprocess_movie, smooth
from settings.config import Params

SLAB_VOXELS = 2**22  # prepared at a time
REACH = 1  # frames to each side that smoothing in three dimensions looks at


def can_be_lazy(params: Params) -> bool:
    """Return whether a frame depends on its neighbours and on the movie's range only."""
    by_chunk = params.norm_video in ("chunk", "std_dev") or params.sin_channels
    return not by_chunk and params.remove_background == "none"


class LazyMovie:
    """Chunks of one movie for inference, as ``MovieDataset``, without a copy of the movie.

    Args:
        movie: (T, H, W) counts: an array, or what has ``shape`` and gives frames by a slice.
        params: Params for which ``can_be_lazy`` holds.
        stride: s; default the stride of [inference].
        name: named in warnings.

    Attributes:
        shape: (T', H, W) of the padded movie.
        pads: (before, after) frames of padding.
        duration, stride: D and s in frames.
    """

    def __init__(self, movie, params: Params, *, stride: int | None = None, name: str = "movie"):
        self.movie, self.params = movie, params
        self.duration, default = params.chunk
        self.stride = stride or default
        self.pads = padding(len(movie), self.duration, self.stride)
        self.shape = (len(movie) + sum(self.pads), *movie.shape[1:])
        ends = [(part.min(), part.max()) for _, part in self._smoothed_parts()]
        extremes = np.array([min(low for low, _ in ends), max(high for _, high in ends)])
        self.low, self.flat = np.float32(extremes[0]), extremes[0] == extremes[1]
        self.plain = params.norm_video == "none"
        # the scale of a movie is that of its two extremes
        scaling = dataclasses.replace(params, data_smoothing="none")
        _, scale = preprocess_movie(extremes.reshape(1, 1, 2), scaling, name=name)
        self.scale = np.float32(scale)

    def __len__(self) -> int:
        return count_chunks(self.shape[0], self.duration, self.stride)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return chunk ``index`` (D, H, W) float32."""
        return self.frames(index * self.stride, index * self.stride + self.duration)

    def frames(self, first: int, last: int) -> np.ndarray:
        """Return the frames ``first`` to ``last`` of the padded movie, (n, H, W) float32."""
        before, length = self.pads[0], len(self.movie)
        low, high = max(first - before, 0), min(last - before, length)
        values = np.zeros((last - first, *self.shape[1:]), np.float32)
        if low < high:
            values[low + before - first : high + before - first] = self._prepared(low, high)
        return values

    def prepared(self) -> np.ndarray:
        """Return the whole movie as the network sees it, (T, H, W) float32."""
        values = np.empty((len(self.movie), *self.shape[1:]), np.float32)
        for first, last in self._parts():
            values[first:last] = self._prepared(first, last)
        return values

    def _prepared(self, first, last):
        values = self._smoothed(first, last)
        if self.plain:
            return values
        return np.zeros_like(values) if self.flat else (values - self.low) / self.scale

    def _smoothed(self, first, last):
        """Return the frames ``first`` to ``last`` of the movie, smoothed, float32."""
        reach = REACH if self.params.data_smoothing == "3d" else 0
        low, high = max(0, first - reach), min(len(self.movie), last + reach)
        values = smooth(np.array(self.movie[low:high], np.float32), self.params.data_smoothing)
        forget_pages(self.movie)
        return values[first - low : last - low]

    def _smoothed_parts(self) -> Iterator[tuple[int, np.ndarray]]:
        for first, last in self._parts():
            yield first, self._smoothed(first, last)

    def _parts(self):
        size = max(1, SLAB_VOXELS // max(1, self.shape[1] * self.shape[2]))
        for first in range(0, len(self.movie), size):
            yield first, min(first + size, len(self.movie))
