"""Where a new neuron looks and how strongly it answers, from a few stimuli and a trained network.

The network stays as it is. A grid of positions is tried, the best ones are refined, with gain and
offset fitted at each position, and the one that leaves least is taken: with few stimuli another
place can look right from close by. What is left is measured on a scale on which large answers count
by their logarithm: a trained network is off by a share of its answer, and the few largest would
decide alone. How sure a place is comes from leaving out one stimulus at a time (jackknife, by the
slope of the response); whether there is evidence of one at all, from dealing the recordings to the
stimuli anew.

Letters: S stimuli, T frames, H and W the coarse grid.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
import torch

from analysis.metrics import correlation
from common.files import InputError
from inputs.ca_dataloader import CalciumDataset, shift_movie
from network.layers import Photoreceptor
from network.models import STCNN

MOST_STIMULI = 20
REACH_DEG, GRID_DEG = 12.0, 3.0  # positions that are tried first
STARTS = 4  # positions of the grid that are refined
SIMPLEX_DEG, FIRST_TRIALS = 1.5, 30  # size of the first triangle, positions tried
LAST_SIMPLEX_DEG, LAST_TRIALS = 0.3, 30  # of the best one
REFINEMENTS, LONGEST_STEP_DEG, LEAST_STEP_DEG = 5, 1.5, 0.02  # of a place by more stimuli
STEP_DEG = 1.0  # over which the slope of the response is taken
BATCH = 10
LOUD = 0.5  # of the sd of the recordings: beyond it answers count by their logarithm
DEALS, CHANCE, DEAL_SEED = 999, 0.01, 0  # recordings dealt anew; below this share it is no chance
MOST_SD_DEG = 3.0  # of a place: the distance of the grid


@dataclass(frozen=True)
class Found:
    """What was found of a neuron; the sd are those of the jackknife over stimuli."""

    azimuth_deg: float
    elevation_deg: float
    azimuth_sd_deg: float
    elevation_sd_deg: float
    position_sd_deg: float
    gain: float  # of the type's activity, dF/F
    gain_sd: float
    offset: float  # dF/F
    fit_correlation: float
    stimuli: int
    chance: float = math.nan  # of a fit as good, recordings dealt to the stimuli at random

    @property
    def place(self) -> tuple[float, float]:
        """Return (azimuth, elevation), degrees."""
        return self.azimuth_deg, self.elevation_deg

    def doubt(self) -> str:
        """Return why this is no evidence of a place, or nothing.

        The tests: dealt to the stimuli at random, the recordings fit as well in less than 1 % of
        999 deals, at the best position of the grid; the place lies inside the grid; its sd is at
        most the grid's distance.
        """
        if not self.chance < CHANCE:
            return f"recordings of other stimuli fit as well (p = {self.chance:.3f})"
        if max(abs(self.azimuth_deg), abs(self.elevation_deg)) >= REACH_DEG:
            return f"beyond the {REACH_DEG:g} degrees that were searched"
        if not self.position_sd_deg <= MOST_SD_DEG:
            return f"sd of the place {self.position_sd_deg:.1f} degrees, above {MOST_SD_DEG:g}"
        return ""


def sample_at(
    lens: Photoreceptor, contrast: torch.Tensor, shift: tuple[float, float]
) -> torch.Tensor:
    """Sample contrast (T, rows, columns) moved up and left by ``shift`` pixels, (T, H, W).

    Between whole pixels straight: the acceptance angle of a photoreceptor is five of them.
    """
    whole = [math.floor(step) for step in shift]
    shares = [(1.0 - (step - low), step - low) for step, low in zip(shift, whole, strict=True)]
    total = 0.0
    for row, column in itertools.product((0, 1), repeat=2):
        share = shares[0][row] * shares[1][column]
        if share:
            moved = shift_movie(contrast, (whole[0] + row, whole[1] + column))
            total = total + share * lens.sample(moved)
    return total


class Neuron:
    """The recordings of a new neuron beside what a network answers from any position."""

    def __init__(self, model: STCNN, dataset: CalciumDataset, rows: Sequence[int]):
        """Take the items ``rows`` of one neuron whose cell type the network knows."""
        self.model, self.dataset = model.eval(), dataset
        self.items = [dataset.items[row] for row in rows]
        self.px = dataset.layout.px_res_deg
        self.shown = [dataset.shown(item) for item in self.items]
        self.frames = [dataset.scored(item) for item in self.items]
        self.recorded = [
            dataset.trace(item).numpy()[frames].astype(np.float64)
            for item, frames in zip(self.items, self.frames, strict=True)
        ]
        self.whole = np.concatenate(self.recorded)
        self.loud = LOUD * float(self.whole.std()) or 1.0  # of a flat recording nothing is loud

    @torch.no_grad()
    def activity(self, place: Sequence[float]) -> list[np.ndarray]:
        """Return the type's activity at the scored frames of each item, seen from ``place``.

        ``place`` is (azimuth, elevation), degrees, as azi_shift and ele_shift.
        """
        kind = self.items[0].cell_type
        shift = (-place[1] / self.px, place[0] / self.px)
        curves = []
        for start in range(0, len(self.items), BATCH):
            chosen = self.shown[start : start + BATCH]
            # settled filters answer all grey before the movies as its last frame
            still = max(min(first for first, _ in chosen) - 1, 0)
            still = still if self.model.settled_frames else 0
            sampled = []
            for first, contrast in chosen:
                small = sample_at(self.model.pr, contrast, shift)
                whole = torch.zeros(self.dataset.n_frames - still, 1, *small.shape[1:])
                whole[first - still : first - still + len(small), 0] = small
                sampled.append(whole)
            stack = torch.stack(sampled)  # (S, T, 1, H, W)
            window = self.model.read_window([kind], stack.shape[3:])
            v = self.model.voltage(
                self.model.trunk(stack, window), kind, window=window, map_size=stack.shape[3:]
            )
            answer = self.model.activity(v, kind)
            answer = torch.cat([answer[:, :1].expand(-1, still), answer], 1)  # (S, T)
            curves.extend(answer.numpy().astype(np.float64))
        return [curve[frames] for curve, frames in zip(curves, self.frames, strict=True)]

    def gain(self, curves: list[np.ndarray]) -> tuple[float, float]:
        """Return the gain, at least 0, and the offset that leave the least squared error."""
        a = np.concatenate(curves)
        rise = a - a.mean()
        spread = float(rise @ rise)
        gain = max(float(rise @ (self.whole - self.whole.mean())) / spread, 0.0) if spread else 0.0
        return gain, float(self.whole.mean() - gain * a.mean())

    def heard(self, values: np.ndarray) -> np.ndarray:
        """Return dF/F on the scale on which large answers count by their logarithm."""
        return np.arcsinh(values / self.loud)

    def error(self, curves: list[np.ndarray]) -> float:
        """Return the squared error that the best gain and offset leave, large answers damped."""
        gain, offset = self.gain(curves)
        a = self.heard(offset + gain * np.concatenate(curves))
        b = self.heard(self.whole)
        a, b = a - a.mean(), b - b.mean()
        spread = float(a @ a)
        slope = max(float(a @ b) / spread, 0.0) if spread > 0 else 0.0
        return float(((b - slope * a) ** 2).sum())

    def slopes(self, place: np.ndarray, here: list[np.ndarray]) -> list[np.ndarray]:
        """Return of each item the columns (T, 4): 1, answer, its slope by azimuth, elevation.

        ``here`` is the activity at ``place``.
        """
        gain, offset = self.gain(here)

        def heard(curves):
            return [self.heard(offset + gain * curve) for curve in curves]

        columns = [[np.ones_like(curve), curve] for curve in heard(here)]
        for axis in range(2):
            step = np.zeros(2)
            step[axis] = STEP_DEG
            ahead, behind = heard(self.activity(place + step)), heard(self.activity(place - step))
            for own, late, early in zip(columns, ahead, behind, strict=True):
                own.append((late - early) / (2 * STEP_DEG))
        return [np.stack(own, 1) for own in columns]

    def normal(self, place: np.ndarray, here: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the normal equations of each item, (S, 4, 4) and (S, 4), as ``slopes``."""
        columns = self.slopes(place, here)
        square = np.stack([own.T @ own for own in columns])
        target = [
            own.T @ self.heard(trace) for own, trace in zip(columns, self.recorded, strict=True)
        ]
        return square, np.stack(target)


def locate(model: STCNN, dataset: CalciumDataset, rows: Sequence[int]) -> Found:
    """Find position, gain and offset of the neuron whose items are ``rows``.

    Raises:
        InputError: fewer than three stimuli, or a cell type that the network does not have.
    """
    neuron = Neuron(model, dataset, rows)
    item = neuron.items[0]
    if item.cell_type not in model.cell_types:
        raise InputError(
            f"{item.cell_type}: not a cell type of the network, which has "
            f"{', '.join(model.cell_types)}"
        )
    if len(rows) < 3:
        raise InputError(
            f"{item.cell_type}/{item.file}, neuron {item.uid}: {len(rows)} stimuli; expected at "
            "least 3 to find position and gain"
        )
    steps = np.arange(-REACH_DEG, REACH_DEG + GRID_DEG / 2, GRID_DEG)
    answers = {place: neuron.activity(place) for place in itertools.product(steps, steps)}
    tried = {place: neuron.error(curves) for place, curves in answers.items()}
    starts = sorted(tried, key=tried.get)[:STARTS]
    roughly = [_refined(neuron, np.array(start), SIMPLEX_DEG, FIRST_TRIALS) for start in starts]
    best = min(roughly, key=lambda one: one.fun)
    place = _refined(neuron, best.x, LAST_SIMPLEX_DEG, LAST_TRIALS).x
    here = neuron.activity(place)
    found = _told(neuron, place, here, neuron.normal(place, here))
    return replace(found, chance=chance_of(neuron.recorded, list(answers.values())))


def chance_of(recorded: list[np.ndarray], answers: Sequence[list[np.ndarray]]) -> float:
    """Return how often recordings dealt to the stimuli at random fit an answer as well.

    The fit is the largest correlation over the positions, of the frames that all stimuli have, in
    which large answers count by their logarithm as well: one stimulus may answer more than all
    others. The share counts the true deal, so that of few stimuli it can't be small.

    Args:
        recorded: (T,) of each stimulus.
        answers: of each position, (T,) of each stimulus.
    """
    n = min(map(len, recorded))
    traces = _loudness(np.stack([trace[:n] for trace in recorded]).reshape(1, -1))
    fits = _loudness(np.stack([np.concatenate([curve[:n] for curve in own]) for own in answers]))
    if not len(fits) or not len(traces):
        return 1.0
    traces = traces.reshape(len(recorded), n)
    generator = np.random.default_rng(DEAL_SEED)
    own = float((fits @ traces.ravel()).max())
    dealt = [
        float((fits @ traces[generator.permutation(len(traces))].ravel()).max())
        for _ in range(DEALS)
    ]
    return (1 + sum(fit >= own * (1 - 1e-9) for fit in dealt)) / (1 + DEALS)


def _loudness(curves):
    """Return curves (m, n) around their medians, by their logarithm, at a norm of 1.

    Those that never move are left out.
    """
    curves = curves - np.median(curves, axis=1, keepdims=True)
    sizes = curves.std(1)
    curves = curves[sizes > 1e-9 * max(float(np.abs(curves).max()), 1e-300)]
    curves = np.arcsinh(curves / (LOUD * curves.std(1, keepdims=True)))
    curves = curves - curves.mean(1, keepdims=True)
    return curves / np.linalg.norm(curves, axis=1, keepdims=True)


def refine(
    model: STCNN, dataset: CalciumDataset, rows: Sequence[int], place: Sequence[float]
) -> Found:
    """Return what all items ``rows`` of a neuron say, from a place that a few of them gave.

    Gauss-Newton steps by the slope of the response over a degree, which many stimuli together make
    smooth; a step that leaves more than the place before it is not taken.

    Args:
        model, dataset, rows: as in ``locate``.
        place: (azimuth, elevation), degrees.
    """
    neuron = Neuron(model, dataset, rows)
    at = np.array(place, dtype=np.float64)
    here = neuron.activity(at)
    left, normal = neuron.error(here), neuron.normal(at, here)
    for _ in range(REFINEMENTS):
        step = _move(_solve(*(part.sum(0) for part in normal)))
        step = step * min(1.0, LONGEST_STEP_DEG / max(float(np.hypot(*step)), 1e-9))
        there = neuron.activity(at + step)
        error = neuron.error(there)
        if error >= left:
            break
        at, here, left = at + step, there, error
        normal = neuron.normal(at, here)
        if np.hypot(*step) < LEAST_STEP_DEG:
            break
    return _told(neuron, at, here, normal)


def _refined(neuron, place, simplex_deg, trials):
    """Return the best place of ``trials`` around ``place``, by simplex.

    Between whole pixels a movie is sampled straight, so the error has edges and narrow valleys:
    the search is not ended by its own size but by the number of trials.
    """
    return scipy.optimize.minimize(
        lambda at: neuron.error(neuron.activity(at)),
        place,
        method="Nelder-Mead",
        options={
            "initial_simplex": place + simplex_deg * np.array([[0, 0], [1, 0], [0, 1]]),
            "maxfev": trials,
            "xatol": 0.0,
            "fatol": 0.0,
        },
    )


def _told(neuron, place, curves, normal):
    """Return what was found at ``place``, with the jackknife's standard deviations."""
    square, target = normal
    n = len(square)
    moves = np.array([_move(values) for values in _left_out(square, target)])
    sds = np.sqrt((n - 1) / n * ((moves - moves.mean(0)) ** 2).sum(0))
    flat = [np.stack([np.ones_like(curve), curve], 1) for curve in curves]
    gains = _left_out(
        np.stack([own.T @ own for own in flat]),
        np.stack([own.T @ trace for own, trace in zip(flat, neuron.recorded, strict=True)]),
    )[:, 1]
    gain, offset = neuron.gain(curves)
    return Found(
        azimuth_deg=float(place[0]), elevation_deg=float(place[1]),
        azimuth_sd_deg=float(sds[0]), elevation_sd_deg=float(sds[1]),
        position_sd_deg=float(np.hypot(*sds)), gain=gain,
        gain_sd=math.sqrt((n - 1) / n * ((gains - gains.mean()) ** 2).sum()), offset=offset,
        fit_correlation=correlation(neuron.whole, np.concatenate(curves)), stimuli=n,
    )  # fmt: skip


def _left_out(square, target):
    """Return the solutions (S, n) of the summed equations without each stimulus in turn."""
    return np.array([
        _solve(square.sum(0) - one, target.sum(0) - other)
        for one, other in zip(square, target, strict=True)
    ])  # fmt: skip


def _solve(square, target):
    return np.linalg.lstsq(square, target, rcond=1e-12)[0]


def _move(values):
    """Return the step (azimuth, elevation) of fitted (level, answer, slopes)."""
    return values[2:] / values[1] if values[1] > 0 else np.zeros(2)
