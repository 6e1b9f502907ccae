"""Whether the rise itself travels, or light grows everywhere at once and levels off place by place.

A passing wave has the same course everywhere, only later: a fifth of the rise is as late as half of
it. Where a lamp warms up or a camera runs into its ceiling, all places begin to rise together and
the bright ones are done first: half the rise is reached one after the other, its beginning is not.
That order of arrivals has a speed, too, and a front explains it as well as brightness varies
smoothly.

Letters: B bins of time, n cells.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

from analysis.onset_front import Front
from analysis.onset_traces import Events, Grid, Lengths

BANDS = 6  # groups of cells, by the time at which the front passes
LEAST_TRAVEL = 0.7  # of the delay of the half rise that its beginning has to have
EARLY, HALF = 0.2, 0.5  # shares of the rise
LOOK_BACK = 8  # holds before the first arrival in which the level before the rise is looked for


def travel_of_rise(
    grid: Grid, lengths: Lengths, sign: int, events: Events, front: Front, places: np.ndarray
) -> float | None:
    """Return how much later the rise begins per delay of its half, 1 for a wave, 0 for a lamp.

    Args:
        sign: -1 where a wave darkens.
        events: of the wave, one a cell.
        places: (n, 2) of its cells in widths of a pixel.

    Returns:
        the slope, None where the record does not show the level before the rise.
    """
    early, half = [], []
    first = (np.quantile(events.frame, 0.01) / lengths.frames) - lengths.smooth
    start = max(0, int(first) - LOOK_BACK * lengths.hold)
    if first - start < lengths.hold:
        return None
    for cells in np.array_split(np.argsort(front.times(places)), BANDS):
        trace = sign * grid.traces[start:, events.cell[cells]].astype(np.float64)
        trace = ((trace - sign * events.base[cells]) / np.abs(events.rise[cells])).mean(axis=1)
        trace = uniform_filter1d(trace, lengths.smooth, mode="nearest")  # (B,)
        middle = int(np.median(events.frame[cells]) / lengths.frames) - start
        level = np.quantile(trace[: max(1, int(first) - start)], 0.25)
        top = trace[middle : middle + 2 * lengths.hold].max()
        at_half = last_pass(trace[: middle + lengths.hold], level + HALF * (top - level))
        at_early = last_pass(trace[: int(at_half) + 1], level + EARLY * (top - level))
        early.append(at_early)
        half.append(at_half)
    late = np.array(half) - np.mean(half)
    spread = (late**2).sum()
    return float((late * early).sum() / spread) if spread > 0 else None


def last_pass(trace: np.ndarray, level: float) -> float:
    """Return the (fractional) bin at which ``trace`` (B,) last rises through ``level``, or 0."""
    passes = np.flatnonzero((trace[:-1] < level) & (trace[1:] >= level))
    if not len(passes):
        return 0.0
    low, high = trace[passes[-1]], trace[passes[-1] + 1]
    return float(passes[-1] + (level - low) / (high - low))
