"""Which driving series add to the prediction of the target, how many frames before, and how surely.

No network takes part. A candidate (a block of pixels, or one series) at one lag is added to a
linear prediction of the target from the target's own past, the past and present of the field, the
present of all candidates and of the target's surroundings, and slow drift; its gain is measured on
rows that the coefficient was not fitted on. The present is taken off because most of what is left
unexplained is what strikes the whole field at once. The same gain with the target shifted in time
against the candidates is what chance gives: it has their courses, their noise and their likeness to
each other. A candidate counts by how seldom the best of all candidates stands as far out of its own
shifts in a shifted record: the chance of a single false discovery is that, and the false discovery
rate at most that.

A discovery says that the candidate's past holds something about the target that neither the
target's own past nor the field holds: a cause of both that reaches the candidate first is found as
well.

Letters: n rows, n' of them with a whole past, K candidates, L lags, S shifts.
Source: Westfall and Young 1993, Resampling-Based Multiple Testing (maximum statistic).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from inputs.custom_types import TrainData
from inputs.windows import WindowRule

FOLDS = 5  # parts of the rows; each is predicted from the other four
SHIFTS = 1000  # shifted records, where the record is long enough
ROUNDS = 3  # the field of each leaves out what the one before found
SUSPECT = 0.05  # error rate at which what is found is left out of the field
GUARD_WINDOWS = 5  # windows that a shift is at least long
LEAST_FIELD = 20  # series that make a field with a middle of its own
CHUNK_VALUES = 20_000_000  # candidates x shifts worked on at once
DRIFT_WINDOWS = 20  # windows in half the shortest period that counts as drift
ROWS_A_PRESENT = 20  # rows for every series of the present that is taken off
MOST_PRESENT = 200  # of them; the strongest components stand for more candidates
# Of what is left unexplained: smaller gains lie within what an incomplete description of the field
# leaves to every block, which no shift of time can tell from a driver.
LEAST_GAIN = 0.01
MARGIN = 3.0  # standard errors of a share of shifted records that are added to it
HIGH = 0.9  # quantile of a candidate's shifts that is one unit above their median


@dataclass(frozen=True)
class Drivers:
    """What is known of every candidate for one target.

    Attributes:
        gain: (K,) share of the target's unexplained variance that the best lag explains, held out.
        lag: (K,) that lag, in frames before the target.
        p: (K,) chance of such a gain of this candidate without any relation.
        q: (K,) chance that the best of all candidates gains as much; bounds the false discovery
            rate of all candidates up to this one.
        by_lag: (L, K) gain at every lag.
        lags: (L,) frames.
        least_q: no q below is told: that of gains above all in shifted records.
    """

    gain: np.ndarray
    lag: np.ndarray
    p: np.ndarray
    q: np.ndarray
    by_lag: np.ndarray
    lags: np.ndarray
    least_q: float = 0.0

    def found(self, error_rate: float) -> np.ndarray:
        """Return (K,) bool, candidates with a q of at most ``error_rate`` and gain enough."""
        return (self.q <= error_rate) & (self.gain >= LEAST_GAIN)


def lagged(values: np.ndarray, lags: Sequence[int], first: int) -> np.ndarray:
    """Return (n - first, L, ...) of ``values`` (n, ...): what lies ``lags`` before each row."""
    return np.stack([values[first - lag : len(values) - lag] for lag in lags], axis=1)


def drift(n_rows: int, length: int) -> np.ndarray:
    """Return (n, d) cosines with half periods of at least ``length`` rows, the first constant."""
    count = max(1, n_rows // length)
    phase = (np.arange(n_rows) + 0.5) / n_rows * np.pi
    return np.cos(phase[:, None] * np.arange(count + 1))


def candidate_means(feats: np.ndarray, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean series (n, K) of every block of driving series."""
    return np.stack([feats[:, block].mean(axis=1) for block in blocks], axis=1)


def present_of(series: np.ndarray) -> np.ndarray:
    """Return (n, P) of candidates (n, K): themselves, or the strongest components of too many."""
    centred = series - series.mean(axis=0)
    most = min(MOST_PRESENT, len(series) // ROWS_A_PRESENT)
    n_series = centred.shape[1]
    if n_series <= most:
        return centred
    kept = n_series - most, n_series - 1
    return centred @ scipy.linalg.eigh(centred.T @ centred, subset_by_index=kept)[1]


def shared_past(
    data: TrainData,
    target: int,
    near: np.ndarray,
    field: np.ndarray,
    rule: WindowRule,
    present: np.ndarray,
) -> np.ndarray:
    """Return (n', d) what is known without any candidate: past of target, field, present, drift.

    Args:
        near: (N,) int, 0 or the ring around the target in which a series shares its light. Its
            rings are taken off as they are at the target's row: what happens beside the target
            lies in all of them, the target's own light most in the inner ones.
        field: (N,) bool, series whose median and mean are the field. The median holds less of a few
            drivers, the mean less noise: without it the past of every block tells a little more of
            what is common to all.
        present: (n, P) series taken as they are at the target's row.
    """
    lags, first = range(rule.horizon, rule.reach + 1), rule.reach
    columns = [lagged(data.targs[:, target], lags, first), present[first:]]
    if field.sum() >= LEAST_FIELD:
        for middle in (np.median, np.mean):
            course = middle(data.feats[:, field], axis=1)
            columns.append(lagged(course, range(rule.reach + 1), first))
    if near.any():
        columns.append(lagged(data.feats[:, near > 0].mean(axis=1), lags, first))
        rings = [
            data.feats[first:, near == ring].mean(axis=1) for ring in np.unique(near[near > 0])
        ]
        columns.append(np.stack(rings, axis=1))
    columns.append(drift(len(data.targs), DRIFT_WINDOWS * rule.T)[first:])
    return np.concatenate(columns, axis=1).astype(np.float64)


def held_out_gain(x: np.ndarray, y: np.ndarray, power_y: np.ndarray | None = None) -> np.ndarray:
    """Return the share (K, S) of the variance of each y (n, S) that each x (n, K) explains.

    Every fold is predicted with the slope of the other folds; less than 0 where that does harm.

    Args:
        power_y: (S,) what is to be explained of each y, by default its sum of squares.
    """
    parts = np.array_split(np.arange(len(x)), FOLDS)
    products = np.stack([x[rows].T @ y[rows] for rows in parts])  # (folds, K, S)
    squares = np.stack([(x[rows] ** 2).sum(axis=0) for rows in parts])[..., None]
    whole, power = products.sum(axis=0), squares.sum(axis=0)
    total = 0.0
    for product, square in zip(products, squares, strict=True):
        slope = (whole - product) / np.maximum(power - square, 1e-12)
        total = total + slope * (2 * product - slope * square)
    return total / ((y**2).sum(axis=0) if power_y is None else power_y)


def find_drivers(
    data: TrainData,
    blocks: Sequence[np.ndarray],
    rule: WindowRule,
    *,
    target: int = 0,
    near: np.ndarray | None = None,
    seed: int = 0,
) -> Drivers | None:
    """Test every block of driving series as a driver of a target; None for too short a record.

    A patch of drivers moves even the median of the field a little; what is then taken off the other
    candidates gives them a share in the drivers. So what one round finds is left out of the field
    of the next.

    Args:
        data: feats (n, N), targs (n, o) in z-units, training rows only.
        blocks: index arrays over the N driving series, K of them.
        rule: the lags are those of the network's window.
        near: (N,) int, rings of series that share the target's light, 0 elsewhere: no candidates
            should hold them.
    """
    n_rows = len(data.targs) - rule.reach
    if n_rows < 4 * GUARD_WINDOWS * rule.T or not len(blocks):
        return None
    near = np.zeros(data.feats.shape[1], int) if near is None else near
    series = candidate_means(data.feats, blocks).astype(np.float32)
    present = present_of(series.astype(np.float64))
    field, drivers = near == 0, None
    for _ in range(ROUNDS):
        basis = np.linalg.qr(shared_past(data, target, near, field, rule, present))[0]
        drivers = test_series(series, data.targs[:, target], basis, rule, seed)
        found = drivers.found(SUSPECT)
        suspects = [block for block, hit in zip(blocks, found, strict=True) if hit]
        kept = near == 0
        kept[np.concatenate([[], *suspects]).astype(int)] = False
        if (kept == field).all() or kept.sum() < LEAST_FIELD:
            break
        field = kept
    return drivers


def test_series(
    series: np.ndarray, target: np.ndarray, basis: np.ndarray, rule: WindowRule, seed: int
) -> Drivers:
    """Return the Drivers among candidates (n, K) of a target (n,), beyond a basis (n', d)."""
    lags, first = np.arange(rule.horizon, rule.reach + 1), rule.reach
    y = target[first:].astype(np.float64)
    y = (y - basis @ (basis.T @ y)).astype(np.float32)
    random, guard = np.random.default_rng([seed, 13]), GUARD_WINDOWS * rule.T
    shifts = np.arange(guard, len(y) - guard)
    shifts = random.choice(shifts, min(SHIFTS, len(shifts)), replace=False)
    rolled = np.stack([y, *(np.roll(y, shift) for shift in shifts)], axis=1)  # (n', 1 + S)
    basis = basis.astype(np.float32)
    # A shifted record holds something of the basis again, which no candidate can explain.
    power_y = (rolled**2).sum(axis=0) - ((basis.T @ rolled) ** 2).sum(axis=0)
    n_series = series.shape[1]
    by_lag = np.empty((len(lags), n_series))
    best = np.full((n_series, rolled.shape[1]), -np.inf, np.float32)
    step = max(1, CHUNK_VALUES // (FOLDS * rolled.shape[1]))
    for start in range(0, n_series, step):
        some = slice(start, start + step)
        for number, lag in enumerate(lags):
            x = lagged(series[:, some], [lag], first)[:, 0]
            x = x - basis @ (basis.T @ x)
            gain = held_out_gain(x, rolled, power_y)
            by_lag[number, some] = gain[:, 0]
            best[some] = np.maximum(best[some], gain)
    apart = max(1, min(len(shifts), len(y) // len(lags)))
    p, q = chances(best[:, 0], best[:, 1:], apart)
    lag = lags[by_lag.argmax(axis=0)]
    least_q = float(with_margin(1 / (1 + len(shifts)), apart))
    return Drivers(by_lag.max(axis=0), lag, p, q, by_lag, lags, least_q)


def with_margin(share: np.ndarray | float, apart: int) -> np.ndarray | float:
    """Return shares of shifted records, ``apart`` of them unlike, with MARGIN standard errors."""
    return np.minimum(1, share + MARGIN * np.sqrt(share * (1 - share) / apart))


def chances(own: np.ndarray, shifted: np.ndarray, apart: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the chances (K,), (K,) of gains as large as ``own`` (K,) among shifted ones (K, S).

    The first is that of the candidate among its own shifts. The second is that of the best of all
    candidates in a shifted record, each in units of its own shifts: it is as fine for many
    candidates as for one, so that a lone driver among many can be seen. It lies MARGIN standard
    errors above the share that was counted.

    Args:
        apart: how many of the shifts tell something new: shifts closer than the span of the lags
            hold nearly the same comparisons.
    """
    alone = (1 + (shifted >= own[:, None]).sum(axis=1)) / (1 + shifted.shape[1])
    middle = np.median(shifted, axis=1)
    unit = np.maximum(np.quantile(shifted, HIGH, axis=1) - middle, 1e-12)
    best = np.sort(((shifted - middle[:, None]) / unit[:, None]).max(axis=0))  # (S,)
    above = len(best) - np.searchsorted(best, (own - middle) / unit)
    return alone, with_margin((1 + above) / (1 + len(best)), apart)
