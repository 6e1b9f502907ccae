"""A front that runs away from a point: its fit, the interval of its speed, and local speeds.

The point may lie inside the field, outside, or so far that the front is straight. Positions are
measured in widths of a pixel, so that pixels that are higher than wide need no second formula.

Letters: n cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.optimize import least_squares
from scipy.stats import t as student_t

MOST_CELLS = 4000  # every k-th cell of a larger wave is fitted
FAR = 15.0  # an origin further than that many radii of the wave is told as a direction only
STARTS = 4  # places from which the origin is searched
MAD_OF_NORMAL = 1.4826
LEAST_GROUPS = 4  # groups of cells that an interval needs
NORMAL_95 = 1.96  # standard deviations of a normal distribution on each side of 95 % of it


@dataclass(frozen=True)
class Front:
    """A fitted front: arrival = middle_time + slope * (distance to origin - that of the middle).

    Attributes:
        origin: (row, column) in widths of a pixel.
        middle: (row, column) of the middle of the cells.
        slope: time per width of a pixel, above 0.
        middle_time: arrival at the middle.
        residual: median absolute residual.
        explained: share of the variance of the arrivals that the front explains (R2).
        transit: time between the first and the last cell on the fitted front.
        far: the origin is too far away to be told.
    """

    origin: np.ndarray
    middle: np.ndarray
    slope: float
    middle_time: float
    residual: float
    explained: float
    transit: float
    far: bool

    def distance(self, places: np.ndarray) -> np.ndarray:
        """Return the distance (n,) of places (n, 2) to the origin, less that of the middle."""
        away = np.hypot(*(places - self.origin).T)
        return away - np.hypot(*(self.middle - self.origin))

    def times(self, places: np.ndarray) -> np.ndarray:
        """Return the fitted arrival (n,) at places (n, 2)."""
        return self.middle_time + self.slope * self.distance(places)

    def direction(self) -> float:
        """Return where the front runs to at the middle, in degrees: 0 to the right, 90 down."""
        down, right = self.middle - self.origin
        return float(np.degrees(np.arctan2(down, right)) % 360)


def front_residuals(values: np.ndarray, places: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the residuals (n,) of a front (row, column, slope, time) around the place (0, 0)."""
    away = np.hypot(*(places - values[:2]).T) - np.hypot(*values[:2])
    return values[3] + values[2] * away - times


def front_jacobian(values: np.ndarray, places: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the derivatives (n, 4) of ``front_residuals``."""
    gap = places - values[:2]
    away, middle = np.hypot(*gap.T), np.hypot(*values[:2])
    unit = gap / np.maximum(away, 1e-9)[:, None]
    turn = -unit - values[:2] / max(middle, 1e-9)
    return np.column_stack((values[2] * turn, away - middle, np.ones(len(places))))


def first_guesses(places: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """Return the best of many origins, inside the wave and around it, as starts of the search.

    ``places`` have their middle at (0, 0) and a mean square radius of 1.
    """
    sides = np.linspace(places.min(axis=0), places.max(axis=0), 9)  # (9, 2)
    inside = np.stack(np.meshgrid(*sides.T, indexing="ij"), axis=-1).reshape(-1, 2)
    slopes = np.linalg.lstsq(np.column_stack((np.ones(len(places)), places)), times, rcond=None)[0]
    angle = np.arctan2(slopes[1], slopes[2]) + np.pi  # against the run of the front
    angles = angle + np.linspace(-np.pi, np.pi, 12, endpoint=False)
    rings = [r * np.stack((np.sin(angles), np.cos(angles)), axis=-1) for r in (2.5, 5.0, 10.0)]
    guesses = []
    for origin in np.concatenate((inside, *rings)):
        away = np.hypot(*(places - origin).T) - np.hypot(*origin)
        spread = away - away.mean()
        slope = (spread * times).sum() / max((spread**2).sum(), 1e-12)
        if slope > 0:
            time = times.mean() - slope * away.mean()
            miss = np.median(np.abs(time + slope * away - times))
            guesses.append((miss, np.array([*origin, slope, time])))
    guesses.sort(key=lambda guess: guess[0])
    return [guess for _, guess in guesses[:STARTS]]


def fit_front(places: np.ndarray, times: np.ndarray) -> Front | None:
    """Fit a front to arrivals (n,) at places (n, 2); None when none runs away from any point.

    The loss is soft: cells that are reached by something else count little.
    """
    some = slice(None, None, -(-len(places) // MOST_CELLS))
    middle = places.mean(axis=0)
    radius = np.sqrt(((places - middle) ** 2).sum(axis=1).mean())
    mean, spread = times.mean(), times.std()
    if not (radius > 0 and spread > 0):
        return None
    near, late = (places[some] - middle) / radius, (times[some] - mean) / spread
    best = None
    for start in first_guesses(near, late):
        miss = np.median(np.abs(front_residuals(start, near, late)))
        scale = max(MAD_OF_NORMAL * miss, 1e-3)
        done = least_squares(
            front_residuals, start, front_jacobian, args=(near, late), loss="soft_l1",
            f_scale=scale, max_nfev=60, x_scale="jac",
        )  # fmt: skip
        miss = np.abs(front_residuals(done.x, near, late)).mean()
        if done.x[2] > 0 and (best is None or miss < best[0]):
            best = miss, done.x
    if best is None:
        return None
    origin, slope = best[1][:2], best[1][2] * spread / radius
    front = Front(
        middle + radius * origin, middle, float(slope), float(mean + best[1][3] * spread), 0.0,
        0.0, 0.0, bool(np.hypot(*origin) > FAR),
    )  # fmt: skip
    fitted = front.times(places)
    miss = times - fitted
    return Front(
        front.origin, middle, front.slope, front.middle_time, float(np.median(np.abs(miss))),
        float(1 - (miss**2).sum() / ((times - mean) ** 2).sum()), float(np.ptp(fitted)), front.far,
    )  # fmt: skip


def slope_interval(
    front: Front,
    places: np.ndarray,
    times: np.ndarray,
    groupings: Sequence[np.ndarray],
    *,
    resamplings: int,
    seed: int,
) -> tuple[float, float] | None:
    """Return the 95 % interval of the slope, groups of cells resampled; None when it is open.

    Neighbours are late together, and so are all cells that the front passes while the whole field
    flickers. Groups are drawn in each grouping apart and the variances added, which counts what
    both hold twice and so errs to the wide side. Every resampling takes one step of the fit from
    its solution.
    Source: Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136 (clusters of two kinds).

    Args:
        groupings: (n,) each, name of the group of every cell: block of the field, band of time.
    """
    steps, fewest = [], len(places)
    for number, group in enumerate(groupings):
        names = np.unique(group, return_inverse=True)[1]
        fewest = min(fewest, names.max() + 1)
        if fewest < LEAST_GROUPS:
            return None
        random = np.random.default_rng([seed, 7, number])
        steps.append(slope_steps(front, places, times, names, resamplings, random))
    # Quantiles, because a draw without some side of the field gives a wild step.
    deviation = [np.ptp(np.quantile(step, (0.025, 0.975))) / 2 / NORMAL_95 for step in steps]
    half = student_t.ppf(0.975, fewest - 1) * np.hypot(*deviation)
    low, high = float(front.slope - half), float(front.slope + half)
    return (low, high) if low > 0 else None


def slope_steps(
    front: Front,
    places: np.ndarray,
    times: np.ndarray,
    group: np.ndarray,
    resamplings: int,
    random: np.random.Generator,
) -> np.ndarray:
    """Return the change (resamplings,) of the slope when groups of cells are drawn anew.

    Args:
        group: (n,) number of the group of every cell.
    """
    scale = max(MAD_OF_NORMAL * front.residual, 1e-9)
    shift = front.origin - front.middle
    values = np.array([*shift, front.slope, front.middle_time])
    near = places - front.middle
    miss, slopes = front_residuals(values, near, times), front_jacobian(values, near, times)
    weight = 1 / np.sqrt(1 + (miss / scale) ** 2)
    count = group.max() + 1
    squares, sums = np.zeros((count, 4, 4)), np.zeros((count, 4))
    np.add.at(squares, group, weight[:, None, None] * slopes[:, :, None] * slopes[:, None, :])
    np.add.at(sums, group, (weight * miss)[:, None] * slopes)
    if front.far:  # a straight front: the distance of the origin is nothing that the data tell
        along = shift / np.hypot(*shift)
        turn = np.zeros((4, 3))
        turn[:2, 0] = -along[1], along[0]
        turn[2, 1] = turn[3, 2] = 1
        squares, sums = turn.T @ squares @ turn, sums @ turn
    drawn = random.multinomial(count, np.full(count, 1 / count), resamplings)
    matrix = np.einsum("rb,bij->rij", drawn, squares)  # (resamplings, 4, 4)
    matrix += 1e-12 * np.trace(squares.sum(axis=0)) * np.eye(matrix.shape[-1])
    step = np.linalg.solve(matrix, -np.einsum("rb,bi->ri", drawn, sums)[..., None])[..., 0]
    return step[:, -2]


def time_bands(front: Front, places: np.ndarray, length: float) -> np.ndarray:
    """Return the number (n,) of the band of ``length`` in time in which the front passes cells."""
    fitted = front.times(places)
    return ((fitted - fitted.min()) // length).astype(int)


def local_slopes(arrival: np.ndarray, sides: tuple[float, float], reach: int) -> np.ndarray:
    """Return the time per width of a pixel that the front takes at every cell (h, w).

    A plane is fitted to the arrivals in (2 reach + 1)^2 cells around each; NaN where fewer than
    half of them are reached.

    Args:
        arrival: (h, w) with NaN.
        sides: height and width of a cell in widths of a pixel.
    """
    known = np.isfinite(arrival)
    size = 2 * reach + 1
    rows, columns = np.indices(arrival.shape) * np.array(sides)[:, None, None]
    time = np.where(known, arrival - np.nanmean(arrival) if known.any() else 0, 0)

    def mean(values):
        return uniform_filter(values * known, size, output=float, mode="constant")

    count = mean(1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = {
            name: mean(values) / count for name, values in
            (("r", rows), ("c", columns), ("t", time), ("rr", rows**2), ("cc", columns**2),
             ("rc", rows * columns), ("rt", rows * time), ("ct", columns * time))
        }  # fmt: skip

        def spread(first, second):
            return middle[first + second] - middle[first] * middle[second]

        rr, cc, rc = spread("r", "r"), spread("c", "c"), spread("r", "c")
        rt, ct = spread("r", "t"), spread("c", "t")
        whole = rr * cc - rc**2
        slope = np.hypot((rt * cc - ct * rc) / whole, (ct * rr - rt * rc) / whole)
    enough = known & (count * size**2 >= size**2 / 2) & (whole > 1e-9)
    return np.where(enough, slope, np.nan)
