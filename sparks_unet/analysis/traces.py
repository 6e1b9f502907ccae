"""Measures of a trace that follow from no model: peak, rise, full duration at half maximum."""

import math

import numpy as np
from scipy import ndimage

SMOOTHING = 0.6  # frames; more would lower the peak of a spark of three frames
QUIET = 0.03  # noise over peak below which a trace is not smoothed
MIN_REST = 6  # frames outside the event that give the noise
RISE = (0.1, 0.9)  # shares of the peak between which the rise is timed


def trace_measures(trace: np.ndarray, span: np.ndarray) -> dict[str, float]:
    """Return peak, rise and fdhm of a trace (t,) in its own unit and in frames.

    Args:
        trace: dF/F0.
        span: (t,) bool, frames among which the peak is sought.

    Returns:
        Dict: ``peak`` of the trace, lightly smoothed where it is noisy; ``rise``, the time from 10
        to 90 % of the peak divided by 0.8, the whole rise where it is linear; ``fdhm``. NaN where
        the trace does not come down to the level inside its ends.
    """
    steps = np.diff(trace[~span]) if np.count_nonzero(~span) > MIN_REST else np.diff(trace)
    noise = 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2)
    smooth = trace
    if noise > QUIET * np.max(trace[span], initial=0.0):
        smooth = ndimage.gaussian_filter1d(trace, SMOOTHING, mode="nearest")
    at = int(np.argmax(np.where(span, smooth, -np.inf)))
    top = float(smooth[at])
    nothing = {"peak": top, "rise": math.nan, "fdhm": math.nan}
    if top <= 0:
        return nothing
    # a plateau is as high in many frames: its middle counts, not the highest grain of its noise
    up, down = _fall(smooth, at, top / 2, -1), _fall(smooth, at, top / 2, 1)
    low = _fall(smooth, at, RISE[0] * top, -1)
    rise = math.nan
    if math.isfinite(low):
        start = math.ceil(low)
        high = start + int(np.argmax(smooth[start : at + 1] >= RISE[1] * top))
        if high > 0 and smooth[high] > smooth[high - 1]:
            share = (RISE[1] * top - smooth[high - 1]) / (smooth[high] - smooth[high - 1])
            rise = (high - 1 + min(max(share, 0.0), 1.0) - low) / (RISE[1] - RISE[0])
    return {"peak": top, "rise": rise, "fdhm": down - up}


def _fall(trace, at, level, step):
    """Return where a trace first falls below a level from ``at`` on, between frames, or NaN."""
    i = at
    while 0 <= i + step < len(trace):
        i += step
        if trace[i] < level:
            inner = trace[i - step]
            return i - step * (level - trace[i]) / (inner - trace[i])
    return math.nan
