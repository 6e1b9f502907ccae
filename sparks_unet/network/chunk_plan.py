"""Which frames of which level of the U-Net a chunk needs, and which of them chunks can share.

Letters: D frames of a chunk, s stride, l level (0 the finest), n poolings, d dilation. Frames of a
level are counted in that level: level l has D / 2^l of them. A block of two convolutions reaches
2d frames to each side.

* The frames a chunk is kept for need, at each level of the decoder, themselves and 2d more frames.
* The encoder gives a chunk the same values as it gives the whole movie, except in the first and the
  last r_l frames of level l, where the chunk's own zero padding shows: r_0 = 2d,
  r_l = r_(l-1) / 2 + 2d, each rounded up to an even number so that poolings fall together.
* A level is shared where the pooling grids of all chunks coincide, s % 2^(l+1) == 0, and the two
  ends of a chunk stay apart, 2 (r_l + 2d) <= D / 2^l.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Plan:
    """How the chunks of one movie go through the network.

    Attributes:
        frames: D, a multiple of 2^n: the chunk with ``before`` zero frames in front, ``after`` at
            its end.
        before, after: frames of zeros.
        stride: s.
        steps: n.
        reach: 2d.
        edges: r_l of the levels that all chunks share, finest first; may be empty.
    """

    frames: int
    before: int
    after: int
    stride: int
    steps: int
    reach: int
    edges: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, duration: int, stride: int, *, steps: int, dilation: int = 1, share: bool = True
    ) -> Self:
        """Return the plan of chunks of ``duration`` frames every ``stride`` frames.

        Args:
            duration, stride: in frames of the movie.
            steps: n.
            dilation: d.
            share: False where the input of a frame depends on the chunk that it is in.
        """
        total = -duration % 2**steps
        before, after = total // 2, total - total // 2
        frames, reach, edges = duration + total, 2 * dilation, []
        edge = max(before, after)
        for level in range(steps + 1 if share else 0):
            edge = (edge // 2 if level else edge) + reach
            edge += edge % 2
            grid = 2 ** min(level + 1, steps)  # the coarsest level is not pooled
            if stride % grid or 2 * (edge + reach) > frames >> level:
                break
            edges.append(edge)
        return cls(frames, before, after, stride, steps, reach, tuple(edges))

    @property
    def shared(self) -> int:
        """Number of levels of the encoder that all chunks share."""
        return len(self.edges)

    def size(self, level: int) -> int:
        """Return the number of frames of a chunk at ``level``."""
        return self.frames >> level

    def around(self, level: int, first: int, last: int) -> tuple[int, int]:
        """Return the frames (first, last) that a block needs for ``first`` to ``last``."""
        return max(0, first - self.reach), min(self.size(level), last + self.reach)

    def needed(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the frames (first, last) of each level's output that the decoder needs.

        Args:
            first, last: kept frames of the chunk, without its zero frames.

        Returns:
            Of level 0 to n.
        """
        ranges = [(first + self.before, last + self.before)]
        for level in range(self.steps):
            low, high = self.around(level, *ranges[-1])
            ranges.append((low // 2, -(-high // 2)))
        return ranges


def slabs(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of parts of one even length of at most about ``size``; the last is short.

    One length for all: memory that a part leaves fits the next one.
    """
    count = max(1, -(-(last - first) // max(2, size)))
    length = -(-(last - first) // count)
    length += length % 2
    for low in range(first, last, max(2, length)):
        yield low, min(low + length, last)
