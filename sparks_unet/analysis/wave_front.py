"""Measure a wave: its speed from the arrival times of its front, its local course in time.

Letters: t, y, x of the box of the wave; blocks of FRONT_BLOCK_PX pixels.
"""

import numpy as np
from scipy import ndimage

from analysis.traces import trace_measures
from inputs.calibration import Calibration

FRONT_BLOCK_PX = 4  # the front of a wave is timed in blocks of this edge
MIN_FRONT_BLOCKS = 6  # a plane through fewer arrival times is not fitted
NOISE_TIMES = 5.0  # a block whose peak is lower, in noise of its trace, shows no wave
LAG = 4  # frames between values whose differences give the noise
STRAIGHT = 1.5  # frames that arrival times may lie beside the plane of a front, in the median
LAG_STEP = 0.5  # frames, step of the course that all places of a wave share
MOST_PLACES = 4000  # a median over more of them takes longer and says the same
MIN_SHARE = 0.6  # of the places that must be seen at a lag


def wave_front(
    smooth: np.ndarray, ratio: np.ndarray, inside: np.ndarray, scale: Calibration
) -> dict[str, float]:
    """Measure a wave.

    Args:
        smooth: (t, y, x) smoothed dF/F0 around the wave.
        ratio: (t, y, x) dF/F0 itself, NaN where another event is.
        inside: (t, y, x) bool, voxels of the wave.
        scale: Calibration.

    Returns:
        Dict of amplitude_df_f0, rise_ms and fdhm_ms of the course of a place as the wave passes
        (median over places, aligned by their arrival times) and speed_um_s; without the speed
        when the front crosses the box within a frame, empty when too few blocks are covered or
        none is above the noise.
    """
    block = min(FRONT_BLOCK_PX, *smooth.shape[1:])
    height, width = (n // block * block for n in smooth.shape[1:])
    cut = (slice(None), slice(0, height), slice(0, width))
    grid = (len(smooth), height // block, block, width // block, block)
    covered = inside[cut].reshape(grid).any(axis=0).mean(axis=(1, 3)) > 0.5
    rows, columns = np.nonzero(covered)
    if len(rows) < MIN_FRONT_BLOCKS:
        return {}
    traces = smooth[cut].reshape(grid).mean(axis=(2, 4))[:, rows, columns]  # (t, blocks)
    active = inside[cut].reshape(grid).any(axis=(2, 4))[:, rows, columns]
    top = np.where(active, traces, -np.inf).max(axis=0)
    # differences over LAG frames: the smoothed movie changes little from one frame to the next
    steps = np.abs(traces[LAG:] - traces[:-LAG]) if len(traces) > LAG else np.abs(traces)
    if np.median(top) < NOISE_TIMES * 1.4826 * np.median(steps) / np.sqrt(2):
        return {}
    row = {"amplitude_df_f0": float(np.median(top))}
    others = np.isnan(ratio)[cut].reshape(grid).mean(axis=(2, 4))[:, rows, columns] > 0.5
    first = np.argmax((traces >= top / 2) & ~others, axis=0)
    seen = first > 0
    if seen.sum() < MIN_FRONT_BLOCKS:
        return row
    at, index = first[seen], np.flatnonzero(seen)
    after, before = traces[at, index], traces[at - 1, index]
    arrival = at - (after - top[seen] / 2) / np.maximum(after - before, 1e-9)  # frames
    centre = (block - 1) / 2
    places = np.stack(
        [
            np.ones(len(at)),
            (rows[seen] * block + centre) * scale.aspect,
            columns[seen] * block + centre,
        ],
        axis=1,
    )
    kept = np.ones(len(at), bool)
    for _ in range(3):
        solution = np.linalg.lstsq(places[kept], arrival[kept], rcond=None)[0]
        residual = np.abs(arrival - places @ solution)
        kept = residual <= max(3 * 1.4826 * np.median(residual[kept]), 1.0)
    if np.median(residual) <= STRAIGHT:
        covered = inside.any(axis=0)
        y, x = np.nonzero(covered)
        chosen = np.linspace(0, len(y) - 1, min(MOST_PLACES, len(y))).astype(int)
        y, x = y[chosen], x[chosen]
        lag = solution[0] + solution[1] * y * scale.aspect + solution[2] * x
        row |= _course(ratio[:, y, x], lag, scale)
    slowness = float(np.hypot(*solution[1:]))  # frames per pixel of x
    if slowness * max(height * scale.aspect, width) < 1:
        return row
    return row | {"speed_um_s": scale.pixel_x_um / (slowness * scale.frame_ms / 1e3)}


def _course(traces, arrival, scale):
    """Return amplitude, rise and full duration at half maximum of the aligned traces (t, n)."""
    # every place at every lag: places that fall into one bin only would lie side by side
    lags = np.arange(-np.ceil(arrival.max()), len(traces) - arrival.min(), LAG_STEP)
    places = np.arange(traces.shape[1])
    course = np.full(len(lags), np.nan)
    for number, lag in enumerate(lags):
        at = arrival + lag
        seen = (at >= 0) & (at <= len(traces) - 1)
        if seen.sum() < MIN_SHARE * len(at):
            continue
        before = np.minimum(at[seen].astype(int), len(traces) - 2)
        share = at[seen] - before
        columns = places[seen]
        values = (1 - share) * traces[before, columns] + share * traces[before + 1, columns]
        values = values[np.isfinite(values)]
        if len(values) >= MIN_SHARE * len(at):
            course[number] = np.median(values)
    # the longest stretch without a gap
    seen, n = ndimage.label(np.isfinite(course))
    course = course[seen == 1 + np.argmax(np.bincount(seen)[1:])] if n else course[:0]
    if len(course) < MIN_FRONT_BLOCKS:
        return {}
    measures = trace_measures(course, np.ones(len(course), bool))
    row = {"amplitude_df_f0": measures["peak"]}
    for name in ("rise", "fdhm"):
        if np.isfinite(measures[name]):
            row[f"{name}_ms"] = float(measures[name]) * LAG_STEP * scale.frame_ms
    return row
