"""What a few frames say of an event that is shorter than they can resolve, and how surely.

Between two frames a spark can rise, reach its peak and begin to fade: many courses fit the same
samples, and a fit names one of them. Here all of them are weighed: every onset, rise and decay of
a grid, sampled at an instant (a scanned pixel) and averaged over the whole frame (a camera), as a
file does not say which. Times are given with half the range of those that fit as their error; the
height lies below the middle, as courses of a sharp peak between two frames fit nearly always.

Letters: P times of the peak, R rises, U decay times, N frames.
"""

import math

import numpy as np

PEAK_STEP = 0.0625  # frames
PEAK_REACH = 1.5  # frames around the peak of the fit
FINE_RISES = np.arange(0.0, 2.01, 0.125)  # frames
COARSE_RISES = 8  # further ones, up to twice that of the fit
LONGEST_RISE = 4.0  # frames, at least
TAUS = np.exp(np.linspace(-0.45, 0.45, 31))  # of the decay of the fit
EXPOSURES = (0.0, 0.5, 1.0)  # share of the frame interval over which light is collected
BASELINE = 0.1  # dF/F0, as large as the level under an event may be
HEIGHT_SHARE = 0.3  # of the courses that fit are lower: the middle of sharp and of slow rises
RANGE = (0.05, 0.95)  # shares of the courses that fit between which a time lies
NEGLIGIBLE = 1e-6  # of the likeliest course
SHORTEST_RISE = 1.0  # frames: shorter ones look alike and are given as one frame


def weighed_course(
    trace: np.ndarray,
    weight: np.ndarray,
    *,
    peak: float,
    rise: float,
    tau: float,
    variance: float,
) -> dict[str, tuple[float, float]]:
    """Return value and error of what describes the course of a short event.

    Args:
        trace: (N,) dF/F0 of all frames.
        weight: (N,) precision of each frame, 0 leaves it out.
        peak, rise, tau: of the fit around which the courses lie, in frames.
        variance: of a frame of weight 1.

    Returns:
        {"height", "peak", "rise", "tau", "fdhm": (value, error)}, height in dF/F0, the others in
        frames. Height, peak and tau have standard deviations as errors; rise, at least one frame,
        and fdhm half of the range in which 9 of 10 courses that fit lie. The rise is the middle of
        this range, fdhm, peak and tau are means.
    """
    used = weight > 0
    t, y, w = np.flatnonzero(used).astype(np.float64), trace[used], weight[used]
    peaks = peak + np.arange(-PEAK_REACH, PEAK_REACH + PEAK_STEP / 2, PEAK_STEP)
    longest = max(LONGEST_RISE, 2 * rise)
    rises = np.concatenate([FINE_RISES, np.linspace(2.25, longest, COARSE_RISES)])
    taus = tau * TAUS
    least, heights = [], []
    for exposure in EXPOSURES:
        misfit, height = _fitted(t - peaks[:, None], rises, taus, (y, w), exposure, variance)
        least.append(misfit)
        heights.append(height)
    misfit, height = np.stack(least), np.stack(heights)  # (exposures, P, R, U)
    noise = max(misfit.min() / max(len(t) - 5, 1), 1e-30)
    likely = np.exp(-(misfit - misfit.min()) / (2 * noise))
    steps = np.gradient(rises)[:, None]  # each rise stands for those up to its neighbours
    likely *= steps
    likely /= likely.sum()
    r, u = rises[:, None], taus[None, :]
    values = {
        "height": height,
        "peak": np.broadcast_to(peaks[:, None, None], height.shape),
        "tau": np.broadcast_to(u, height.shape),
    }
    told = {}
    for name, one in values.items():
        mean = float((likely * one).sum())
        told[name] = mean, math.sqrt(float((likely * (one - mean) ** 2).sum()))
    told["height"] = _quantiles(height, likely, (HEIGHT_SHARE,))[0], told["height"][1]
    shares = likely.sum(axis=(0, 1))  # (R, U)
    duration = r / 2 + u * math.log(2)
    low, high = _quantiles(duration, shares, RANGE)
    told["fdhm"] = float((shares * duration).sum()), (high - low) / 2
    low, high = _quantiles(np.maximum(rises, SHORTEST_RISE), shares.sum(axis=1), RANGE)
    told["rise"] = (low + high) / 2, (high - low) / 2
    return told


def _quantiles(values, likely, shares):
    """Return the values below which these shares of what is likely lie."""
    some = likely > NEGLIGIBLE * likely.max()  # sorting the others would cost most of the time
    values, likely = values[some], likely[some]
    order = np.argsort(values)
    below = np.cumsum(likely[order])
    at = np.minimum(np.searchsorted(below, np.multiply(shares, below[-1])), len(order) - 1)
    return [float(v) for v in values[order][at]]


def _fitted(lag, rises, taus, data, exposure, variance):
    """Return misfit and height (P, R, U) of the best height and level of every course.

    Args:
        lag: (P, N) frames after the peak.
        rises, taus: (R,) and (U,) in frames.
        data: (N,) trace and weights.
        exposure: share of a frame over which light is collected.
        variance: of a frame of weight 1.
    """
    up = _mean_rise(lag[:, None], rises[:, None], exposure)  # (P, R, N)
    down = _mean_fall(lag[:, None], taus[:, None], exposure)  # (P, U, N)
    y, w = data
    both = 2 * (up * w) @ down.swapaxes(1, 2)  # (P, R, U)
    squares = both + (up**2 @ w)[:, :, None] + (down**2 @ w)[:, None]
    sums = (up @ w)[:, :, None] + (down @ w)[:, None]
    products = (up @ (w * y))[:, :, None] + (down @ (w * y))[:, None]
    total, level = float((w * y).sum()), float(w.sum()) + variance / BASELINE**2
    determinant = np.maximum(squares * level - sums**2, 1e-12)
    height = (products * level - sums * total) / determinant
    base = (squares * total - sums * products) / determinant
    misfit = float((w * y**2).sum()) - height * products - base * total
    return np.where(height > 0, np.maximum(misfit, 0.0), np.inf), height


def _mean_rise(lag, rise, exposure):
    """Return the linear rise to 1 at lag 0, 0 afterwards, averaged over the exposure."""
    if not exposure:
        return np.where(lag < 0, np.clip(1 + lag / np.maximum(rise, 1e-9), 0, 1), 0.0)

    def area(end):
        return np.clip(end + rise, 0, rise) ** 2 / (2 * np.maximum(rise, 1e-9))

    return (area(lag + exposure / 2) - area(lag - exposure / 2)) / exposure


def _mean_fall(lag, tau, exposure):
    """Return the exponential decay from 1 at lag 0, 0 before it, averaged over the exposure."""
    if not exposure:
        return np.where(lag >= 0, np.exp(-np.clip(lag, 0, None) / tau), 0.0)

    def area(end):
        return -tau * np.expm1(-np.clip(end, 0, None) / tau)

    return (area(lag + exposure / 2) - area(lag - exposure / 2)) / exposure
