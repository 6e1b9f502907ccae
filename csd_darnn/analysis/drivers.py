"""Which driving series add to the prediction of the target, how many frames before, and how surely.

No network takes part. A candidate (a block of pixels, or one series) at one lag is added to a
linear prediction of the target from the target's own past, the past of the field and slow drift;
its gain is measured on rows that the coefficient was not fitted on. The same gain with the target
shifted in time against the candidates is what chance gives: it has their courses, their noise and
their likeness to each other. q-values are false discovery rates over all candidates.

A discovery says that the candidate's past holds something about the target that neither the
target's own past nor the middle of the field holds: a cause of both that reaches the candidate
first is found as well.

Letters: n rows, n' of them with a whole past, K candidates, L lags, S shifts.
Source: Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inputs.custom_types import TrainData
from inputs.windows import WindowRule

FOLDS = 5  # parts of the rows; each is predicted from the other four
SHIFTS = 1000  # shifted records
ROUNDS = 3  # the field of each leaves out what the one before found
SUSPECT = 0.2  # q-value up to which a candidate is left out of the field
GUARD_WINDOWS = 5  # windows that a shift is at least long
LEAST_FIELD = 20  # series that make a field with a middle of its own
CHUNK_VALUES = 20_000_000  # candidates x shifts worked on at once
DRIFT_WINDOWS = 20  # windows in half the shortest period that counts as drift


@dataclass(frozen=True)
class Drivers:
    """What is known of every candidate for one target.

    Attributes:
        gain: (K,) share of the target's unexplained variance that the best lag explains, held out.
        lag: (K,) that lag, in frames before the target.
        p, q: (K,) chance of such a gain without any relation, and false discovery rate.
        by_lag: (L, K) gain at every lag.
        lags: (L,) frames.
    """

    gain: np.ndarray
    lag: np.ndarray
    p: np.ndarray
    q: np.ndarray
    by_lag: np.ndarray
    lags: np.ndarray


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """Return the q-values (K,) of p-values (K,) after Benjamini and Hochberg."""
    order = np.argsort(p)
    rates = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(rates[::-1])[::-1].clip(max=1)
    return q


def least_together(n_candidates: int, error_rate: float) -> int:
    """Return how many candidates must stand out together for any to be discovered.

    No chance below 1 / (1 + SHIFTS) is told, so that the smallest q of m that beat every shifted
    record is K / (1 + SHIFTS) / m.
    """
    return max(1, math.ceil(n_candidates / ((1 + SHIFTS) * error_rate)))


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


def shared_past(
    data: TrainData, target: int, near: np.ndarray, field: np.ndarray, rule: WindowRule
) -> np.ndarray:
    """Return (n', d) what is known without any candidate: past of target, field, drift.

    Args:
        near: (N,) bool, series so close to the target that they share its light.
        field: (N,) bool, series whose median is the field.
    """
    lags, first = range(rule.horizon, rule.reach + 1), rule.reach
    past = [data.targs[:, target]]
    if field.sum() >= LEAST_FIELD:
        past.append(np.median(data.feats[:, field], axis=1))
    if near.any():
        past.append(data.feats[:, near].mean(axis=1))
    columns = [lagged(series, lags, first) for series in past]
    columns.append(drift(len(data.targs), DRIFT_WINDOWS * rule.T)[first:])
    return np.concatenate(columns, axis=1).astype(np.float64)


def held_out_gain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the share (K, S) of the variance of each y (n, S) that each x (n, K) explains.

    Every fold is predicted with the slope of the other folds; less than 0 where that does harm.
    """
    parts = np.array_split(np.arange(len(x)), FOLDS)
    products = np.stack([x[rows].T @ y[rows] for rows in parts])  # (folds, K, S)
    squares = np.stack([(x[rows] ** 2).sum(axis=0) for rows in parts])[..., None]
    whole, power = products.sum(axis=0), squares.sum(axis=0)
    total = 0.0
    for product, square in zip(products, squares, strict=True):
        slope = (whole - product) / np.maximum(power - square, 1e-12)
        total = total + slope * (2 * product - slope * square)
    return total / (y**2).sum(axis=0)


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
        near: (N,) bool, series that share the target's light: no candidates should hold them.
    """
    n_rows = len(data.targs) - rule.reach
    if n_rows < 4 * GUARD_WINDOWS * rule.T or not len(blocks):
        return None
    near = np.zeros(data.feats.shape[1], bool) if near is None else near
    series = candidate_means(data.feats, blocks).astype(np.float32)
    field, drivers = ~near, None
    for _ in range(ROUNDS):
        basis = np.linalg.qr(shared_past(data, target, near, field, rule))[0]
        drivers = test_series(series, data.targs[:, target], basis, rule, seed)
        suspects = [block for block, q in zip(blocks, drivers.q, strict=True) if q <= SUSPECT]
        kept = ~near
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
    shifts = random.integers(guard, len(y) - guard, SHIFTS)
    rolled = np.stack([y, *(np.roll(y, shift) for shift in shifts)], axis=1)  # (n', 1 + S)
    basis = basis.astype(np.float32)
    n_series = series.shape[1]
    by_lag = np.empty((len(lags), n_series))
    best = np.full((n_series, 1 + SHIFTS), -np.inf, np.float32)
    step = max(1, CHUNK_VALUES // (FOLDS * (1 + SHIFTS)))
    for start in range(0, n_series, step):
        some = slice(start, start + step)
        for number, lag in enumerate(lags):
            x = lagged(series[:, some], [lag], first)[:, 0]
            x = x - basis @ (basis.T @ x)
            gain = held_out_gain(x, rolled)
            by_lag[number, some] = gain[:, 0]
            best[some] = np.maximum(best[some], gain)
    p = chance_of(best[:, 0], best[:, 1:])
    lag = lags[by_lag.argmax(axis=0)]
    return Drivers(by_lag.max(axis=0), lag, p, false_discovery_rates(p), by_lag, lags)


def chance_of(own: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Return the chance (K,) of gains as large as ``own`` (K,) among shifted ones (K, S).

    Each candidate is compared with its own shifts, and with those of all candidates in units of
    their mean and standard deviation; the larger chance counts. The first alone is coarse, the
    second alone takes all candidates to be alike.
    """
    alone = (1 + (shifted >= own[:, None]).sum(axis=1)) / (1 + shifted.shape[1])
    middle, spread = shifted.mean(axis=1), np.maximum(shifted.std(axis=1), 1e-12)
    drawn = np.sort(((shifted - middle[:, None]) / spread[:, None]).ravel())
    above = len(drawn) - np.searchsorted(drawn, (own - middle) / spread)
    return np.maximum(alone, (1 + above) / (1 + len(drawn)))
