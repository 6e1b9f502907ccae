"""Read the epochs of an HDF5 array one by one, at the price of one pass for any chunk layout.

E epochs, F frames, W columns, H rows, P masked pixels. HDF5 inflates whole chunks. Where a chunk
holds several epochs, reading epoch by epoch would inflate every chunk once per epoch: such groups
of epochs are inflated once, into memory or, when they are large, into a temporary file in which
every epoch lies together.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

BUDGET_BYTES = 96 << 20  # inflated at once


def tile_shape(chunks: tuple, shape: tuple, itemsize: int, budget: int) -> tuple[int, ...]:
    """Return the tile (F, W, H) of a group of epochs that is inflated at once.

    Tiles are whole chunks, as many along each axis as fit into ``budget`` bytes.

    Args:
        chunks: (E, F, W, H) of a chunk.
        shape: (E, F, W, H) of a group of epochs.
        itemsize: bytes of a value.
        budget: bytes of a tile; a single chunk may be larger.
    """
    tile = [min(c, n) for c, n in zip(chunks[1:], shape[1:], strict=True)]
    for axis in range(3):
        rest = shape[0] * itemsize * tile[0] * tile[1] * tile[2] // tile[axis]
        fitting = max(1, budget // (rest * chunks[axis + 1])) * chunks[axis + 1]
        tile[axis] = min(shape[axis + 1], max(tile[axis], fitting))
    return tuple(tile)


class EpochReader:
    """The masked pixels of one epoch after another.

    Args:
        data: (E, F, W, H) array or dataset, or (F, W, H) of a single epoch.
        mask: (H, W) bool.
        spool_dir: folder of the temporary file; the system's when None.
        budget: bytes that are inflated at once.
    """

    def __init__(
        self, data, mask: np.ndarray, *, spool_dir: Path | None = None, budget: int = BUDGET_BYTES
    ):
        self._data = data
        self._mask = mask
        rows, columns = np.nonzero(mask)
        # Positions of the masked pixels, in row-major order, within a stored frame (column, row).
        self._stored = columns * mask.shape[0] + rows
        self._spool_dir = spool_dir
        self._budget = budget
        chunks = data.chunks if isinstance(data, h5py.Dataset) and data.ndim == 4 else None
        self._group = chunks[0] if chunks else 1
        self._number = None  # of the group of epochs at hand
        self._held = None  # (n, F, P) of it
        self._spool, self._pieces = None, []

    def close(self) -> None:
        """Remove the temporary file."""
        self._held, self._number = None, None
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def read(self, epoch: int) -> np.ndarray:
        """Return the masked pixels of one epoch: (F, P) float32, pixels in row-major order."""
        if self._group == 1:
            frames = self._data[epoch] if len(self._data.shape) == 4 else self._data[()]
            return self._select(np.asarray(frames, np.float32))
        if epoch // self._group != self._number:
            self._load(epoch // self._group)
        place = epoch % self._group
        return self._held[place] if self._held is not None else self._from_spool(place)

    def _select(self, frames: np.ndarray) -> np.ndarray:
        return np.take(frames.reshape(*frames.shape[:-2], -1), self._stored, axis=-1)

    def _load(self, number: int) -> None:
        """Inflate the chunks of one group of epochs, once."""
        self.close()
        first = number * self._group
        epochs = slice(first, min(first + self._group, self._data.shape[0]))
        shape = (epochs.stop - first, *self._data.shape[1:])
        # Values are at hand twice for a moment: as they are stored and as masked float32.
        if np.prod(shape, dtype=float) * self._data.dtype.itemsize <= self._budget:
            self._held = self._select(np.asarray(self._data[epochs], np.float32))
        else:
            self._fill_spool(epochs, shape)
        self._number = number

    def _tiles(self, shape: tuple) -> Iterator[tuple[slice, slice, slice]]:
        size = self._data.dtype.itemsize
        tile = tile_shape(self._data.chunks, shape, size, self._budget)
        starts = (range(0, n, step) for n, step in zip(shape[1:], tile, strict=True))
        frames, columns, rows = (list(s) for s in starts)
        for f in frames:
            for c in columns:
                for r in rows:
                    yield slice(f, f + tile[0]), slice(c, c + tile[1]), slice(r, r + tile[2])

    def _fill_spool(self, epochs: slice, shape: tuple) -> None:
        """Write the group tile by tile; within a tile the values of an epoch lie together."""
        self._spool = tempfile.TemporaryFile(dir=self._spool_dir)  # noqa: SIM115 - see close()
        self._pieces, offset = [], 0
        number = np.full(self._mask.shape, -1)  # of every masked pixel
        number[self._mask] = np.arange(self._stored.size)
        for frames, columns, rows in self._tiles(shape):
            inside = number[rows, columns].T.ravel()  # (w h) of a tile, as it is stored
            keep = np.flatnonzero(inside >= 0)
            if not keep.size:
                continue
            block = self._data[epochs, frames, columns, rows]
            values = np.take(block.reshape(*block.shape[:2], -1), keep, axis=2)
            del block
            np.ascontiguousarray(values, np.float32).tofile(self._spool)
            frame_count = values.shape[1]
            self._pieces.append((offset, frames.start, frame_count, inside[keep]))
            offset += values.size * 4
        self._spool.flush()

    def _from_spool(self, place: int) -> np.ndarray:
        signals = np.empty((self._data.shape[1], self._stored.size), np.float32)
        for offset, start, count, pixels in self._pieces:
            n = count * pixels.size
            self._spool.seek(offset + place * n * 4)
            piece = np.fromfile(self._spool, np.float32, n).reshape(count, pixels.size)
            signals[start : start + count, pixels] = piece
        return signals
