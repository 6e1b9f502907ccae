"""Lasting rises in the traces of a movie: when, how high, how long (first part of the onset map).

A movie is averaged over cells (one pixel where it fits) and short bins of time. At every bin the
mean of the time behind it is compared with the mean of the time before it; the noise is what this
difference does in most of the record, so that slow fluctuations count as noise and bleaching drops
out. The baseline of a rise is the time just before it, wherever in the record that lies.

Letters: F frames, B bins of time, K cells, E events.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from common.files import InputError
from settings import OnsetSettings

BINS_OF_SMOOTHING = 5  # bins of time in a moving average
MOST_CELLS = 1 << 14  # a movie of more pixels is averaged over cells of several
MOST_VALUES = 100_000_000  # cells x bins: 400 MB
CHUNK_VALUES = 4_000_000  # cells x bins worked on at once
WEAK_SCORE = 3.0  # weaker rises are no rises: a wave takes in those between this and its threshold
QUARTER_OF_NORMAL = 0.3186  # a quarter of a normal distribution lies within that many sd


@dataclass(frozen=True)
class Lengths:
    """Lengths of the recipe for one movie.

    Attributes:
        frames: frames in a bin.
        smooth, hold, before: moving average, time that a rise lasts, and baseline, in bins.
    """

    frames: int
    smooth: int
    hold: int

    @property
    def before(self) -> int:
        """Return the length of the baseline before a rise in bins."""
        return 2 * self.hold

    def frame(self, bins: np.ndarray) -> np.ndarray:
        """Return the frame at the middle of (fractional) bins."""
        return np.asarray(bins) * self.frames + (self.frames - 1) / 2


@dataclass(frozen=True)
class Grid:
    """A movie averaged over cells and bins.

    Attributes:
        traces: (B, K) float32, NaN in cells without data.
        shape: (h, w) cells, K = h * w.
        cell: (rows, columns) pixels of a cell.
        image: (H, W) of the movie.
        n_frames: F.
    """

    traces: np.ndarray
    shape: tuple[int, int]
    cell: tuple[int, int]
    image: tuple[int, int]
    n_frames: int

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the row and column (K,) of the middle of every cell, in pixels."""
        middles = [
            (np.arange(count) * side + np.minimum((np.arange(count) + 1) * side, size) - 1) / 2
            for count, side, size in zip(self.shape, self.cell, self.image, strict=True)
        ]
        rows, columns = np.meshgrid(*middles, indexing="ij")
        return rows.ravel(), columns.ravel()

    def to_image(self, values: np.ndarray) -> np.ndarray:
        """Return values (K,) of cells as an image (H, W)."""
        large = np.asarray(values).reshape(self.shape)
        for axis, side in enumerate(self.cell):
            large = large.repeat(side, axis)
        return large[: self.image[0], : self.image[1]]


@dataclass(frozen=True)
class Events:
    """Rises of single cells, each an array (E,).

    Attributes:
        cell: number of the cell.
        frame: time at which half the rise is reached, in (fractional) frames.
        score: height of the rise over the noise of the record.
        base, rise: level before it and height, in units of the recording.
        frames_above: frames until it is back at half its height, NaN where it stays up.
    """

    cell: np.ndarray
    frame: np.ndarray
    score: np.ndarray
    base: np.ndarray
    rise: np.ndarray
    frames_above: np.ndarray

    def take(self, chosen: np.ndarray) -> "Events":
        """Return the events at an index or mask."""
        return Events(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def recipe_lengths(recipe: OnsetSettings, rate_hz: float | None) -> Lengths:
    """Return the lengths of the recipe at a frame rate, or in frames where it is not known."""
    smooth, hold = recipe.smooth_frames, recipe.hold_frames
    if rate_hz:
        smooth = max(1, round(recipe.smooth_s * rate_hz))
        hold = max(1, round(recipe.hold_s * rate_hz))
    frames = max(1, smooth // BINS_OF_SMOOTHING)
    # An odd number of bins: an even one would move every arrival by half a bin.
    return Lengths(frames, 2 * (smooth // (2 * frames)) + 1, max(1, round(hold / frames)))


def average_cells(
    blocks: Iterable[np.ndarray],
    size: tuple[int, int, int],
    lengths: Lengths,
    mask: np.ndarray | None = None,
) -> Grid:
    """Average a movie over cells and bins.

    Args:
        blocks: arrays (b, H, W), the frames in order.
        size: (F, H, W).
        mask: (H, W) bool, pixels that hold data.
    """
    n_frames, *image = size
    n_bins = n_frames // lengths.frames
    most = min(MOST_CELLS, max(64, MOST_VALUES // max(1, n_bins)))
    side = int(np.ceil(np.sqrt(image[0] * image[1] / most)))
    cell = tuple(min(side, length) for length in image)
    edges = [np.arange(0, length, step) for length, step in zip(image, cell, strict=True)]
    inside = np.ones(image, bool) if mask is None else mask
    counts = sum_cells(inside[None].astype(np.float32), edges)[0]  # (h, w)
    traces = np.empty((n_bins, len(edges[0]) * len(edges[1])), np.float32)
    done, waiting = 0, np.empty((0, *image), np.float32)
    for block in blocks:
        frames = np.concatenate((waiting, np.asarray(block, np.float32)))
        full = len(frames) // lengths.frames
        binned = frames[: full * lengths.frames].reshape(full, lengths.frames, *image)
        binned = binned.mean(axis=1) if lengths.frames > 1 else binned[:, 0]
        if mask is not None:
            binned = np.where(inside, binned, 0)
        cells = sum_cells(binned, edges) if side > 1 else binned
        full = min(full, n_bins - done)
        traces[done : done + full] = cells[:full].reshape(full, traces.shape[1])
        done += full
        waiting = frames[len(frames) - len(frames) % lengths.frames :]
    with np.errstate(divide="ignore"):
        traces *= np.where(counts > 0, 1 / counts, np.nan).ravel().astype(np.float32)
    return Grid(traces[:done], (len(edges[0]), len(edges[1])), cell, tuple(image), n_frames)


def coarser(grid: Grid, side: int) -> Grid:
    """Return a Grid whose cells are ``side`` x ``side`` of the grid's; those without data drop."""
    edges = [np.arange(0, length, side) for length in grid.shape]
    traces = grid.traces.reshape(len(grid.traces), *grid.shape)
    known = np.isfinite(traces[:1])
    counts = sum_cells(known.astype(np.float32), edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sum_cells(np.where(known, traces, 0), edges) / counts  # (B, h, w), NaN outside
    return Grid(
        means.reshape(len(means), -1), means.shape[1:], tuple(side * n for n in grid.cell),
        grid.image, grid.n_frames,
    )  # fmt: skip


def sum_cells(frames: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """Return the sums of frames (b, H, W) over cells that begin at ``edges``: (b, h, w)."""
    return np.add.reduceat(np.add.reduceat(frames, edges[0], axis=1), edges[1], axis=2)


def step_heights(traces: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Return how much higher the ``hold`` bins from each bin on are than those before, (B, k).

    0 where fewer than ``hold`` bins lie on one side.
    """
    n_bins, hold = len(traces), lengths.hold
    total = np.zeros((n_bins + 1, traces.shape[1]))
    np.cumsum(traces - traces[:1], axis=0, dtype=np.float64, out=total[1:])
    bins = np.arange(hold, n_bins - hold + 1)
    count = np.minimum(lengths.before, bins)
    heights = np.zeros((n_bins, traces.shape[1]), np.float32)
    after = (total[bins + hold] - total[bins]) / hold
    heights[bins[0] : bins[-1] + 1] = after - (total[bins] - total[bins - count]) / count[:, None]
    return heights


def find_events(grid: Grid, lengths: Lengths, recipe: OnsetSettings) -> Events:
    """Return every rise of a cell that stands out of the record's own fluctuations.

    A rise lasts ``hold`` and is higher than WEAK_SCORE times the noise: of the cell, or of the
    median cell where that is larger, because the noise of one cell is known badly.
    """
    n_bins, n_cells = grid.traces.shape
    threshold = min(WEAK_SCORE, recipe.least_score)
    if n_bins < 2 * lengths.hold + lengths.smooth:
        needed = (2 * lengths.hold + lengths.smooth) * lengths.frames
        raise InputError(
            f"onset map: found {grid.n_frames} frames, expected at least {needed} (moving average,"
            " and the hold before and behind a rise); check --frame_rate_hz and --hold_s, or"
            " --hold_frames where the rate is unknown"
        )
    cells = np.flatnonzero(np.isfinite(grid.traces[0]))
    sign = -1 if recipe.polarity == "fall" else 1
    step = max(1, CHUNK_VALUES // n_bins)
    parts = [cells[start : start + step] for start in range(0, len(cells), step)]
    noise = np.zeros(n_cells)
    peaks = []
    for part in parts:
        heights = step_heights(sign * grid.traces[:, part], lengths)
        used = heights[lengths.hold : n_bins - lengths.hold + 1]
        used -= np.median(used, axis=0)
        noise[part] = np.percentile(np.abs(used), 25, axis=0) / QUARTER_OF_NORMAL
        highest = maximum_filter1d(heights, 2 * lengths.hold + 1, axis=0, mode="nearest")
        peak = (heights == highest) & (heights > threshold * noise[part])
        peak[: lengths.hold + 1] = peak[n_bins - lengths.hold :] = False  # ends of a slope
        place, column = np.nonzero(peak)
        peaks.append((place, part[column], heights[place, column]))
    place, cell, height = (np.concatenate(values) for values in zip(*peaks, strict=True))
    alive = noise[cells][noise[cells] > 0]
    least = np.maximum(noise, np.median(alive) if len(alive) else np.inf)
    score = height / least[cell]
    chosen = score > threshold
    return measure_events(grid, lengths, sign, place[chosen], cell[chosen], score[chosen])


def measure_events(
    grid: Grid,
    lengths: Lengths,
    sign: int,
    place: np.ndarray,
    cell: np.ndarray,
    score: np.ndarray,
) -> Events:
    """Return the Events whose steps lie at bins ``place`` (E,) of cells ``cell`` (E,).

    The arrival is where the smoothed trace passes half its height, nearest to the step.
    """
    smooth = uniform_filter1d(grid.traces, lengths.smooth, axis=0, mode="nearest")
    n_bins, half_smooth = len(smooth), lengths.smooth // 2
    before = np.arange(-lengths.before, -half_smooth)
    bins = place[:, None] + before  # (E, b)
    known = bins >= 0
    levels = np.where(known, sign * grid.traces[np.maximum(bins, 0), cell[:, None]], 0)
    base = levels.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    around = np.arange(-lengths.before, 2 * lengths.hold)
    bins = np.clip(place[:, None] + around, 0, n_bins - 1)
    trace = sign * smooth[bins, cell[:, None]] - base[:, None]  # (E, b + 2 hold)
    later = np.where(around >= 0, trace, -np.inf)
    top, at_top = later.max(axis=1), later.argmax(axis=1)
    passes = (trace[:, :-1] < top[:, None] / 2) & (trace[:, 1:] >= top[:, None] / 2)
    distance = np.where(passes, np.abs(around[:-1] + 1), n_bins)
    nearest = distance.argmin(axis=1)
    event = np.arange(len(place))
    low, high = trace[event, nearest], trace[event, nearest + 1]
    share = (top / 2 - low) / np.where(high > low, high - low, 1)
    arrival = bins[event, nearest] + share
    arrival[distance[event, nearest] == n_bins] = np.nan
    end = last_bin_above(sign * smooth, cell, bins[event, at_top], base + top / 2)
    events = Events(
        cell, lengths.frame(arrival), score, sign * base, sign * top,
        (end - arrival) * lengths.frames,
    )  # fmt: skip
    return events.take(np.isfinite(arrival) & (top > 0))


def last_bin_above(
    smooth: np.ndarray, cell: np.ndarray, start: np.ndarray, level: np.ndarray
) -> np.ndarray:
    """Return the first bin (E,) from ``start`` on at which a trace is below ``level``, or NaN."""
    end = np.full(len(cell), np.nan)
    waiting, bins = np.arange(len(cell)), start.copy()
    while len(waiting):
        below = smooth[bins[waiting], cell[waiting]] < level[waiting]
        end[waiting[below]] = bins[waiting[below]]
        waiting = waiting[~below]
        bins[waiting] += 1
        waiting = waiting[bins[waiting] < len(smooth)]
    return end
