"""What a few frames say of an event that is shorter than they can resolve, and how surely.

Between two frames a spark can rise, reach its peak and begin to fade: many courses fit the same
samples, and a fit names one of them. Here all of them are weighed: every onset, rise and decay of
a grid, sampled at an instant (a scanned pixel) and averaged over the whole frame (a camera), as a
file does not say which. The mean over what fits is given, with its spread as its error.

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


def weighed_course(
    trace: np.ndarray,
    weight: np.ndarray,
    *,
    peak: float,
    rise: float,
    tau: float,
    variance: float,
) -> dict[str, tuple[float, float]]:
    """Return mean and error of what describes the course of a short event.

    Args:
        trace: (N,) dF/F0 of all frames.
        weight: (N,) precision of each frame, 0 leaves it out.
        peak, rise, tau: of the fit around which the courses lie, in frames.
        variance: of a frame of weight 1.

    Returns:
        {"height", "peak", "rise", "tau", "fdhm": (mean, standard deviation)}, height in dF/F0, the
        others in frames.
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
    inside = steps**2 / 12  # variance between the lines of the grid
    below = {"rise": inside}
    below["fdhm"] = inside / 4 + (taus * np.log(TAUS[1] / TAUS[0]) * math.log(2)) ** 2 / 12
    r, u = rises[:, None], taus[None, :]
    values = {
        "height": height,
        "peak": np.broadcast_to(peaks[:, None, None], height.shape),
        "rise": np.broadcast_to(r, height.shape),
        "tau": np.broadcast_to(u, height.shape),
        "fdhm": np.broadcast_to(r / 2 + u * math.log(2), height.shape),
    }
    means = {}
    for name, one in values.items():
        mean = float((likely * one).sum())
        spread = (one - mean) ** 2 + below.get(name, 0.0)
        means[name] = mean, math.sqrt(float((likely * spread).sum()))
    return means


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
