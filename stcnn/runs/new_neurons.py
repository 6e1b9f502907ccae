"""Where a new neuron looks and how strongly it answers, from a few stimuli and a trained network.

The network stays as it is. A grid of positions is tried, the best ones are refined, with gain and
offset fitted at each position, and the one that leaves least is taken: with few stimuli another
place can look right from close by. How sure it is comes from leaving out one stimulus at a time
(jackknife, by the slope of the response).

Letters: S stimuli, T frames, H and W the coarse grid.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

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
REFINEMENTS, LONGEST_STEP_DEG = 5, 1.5  # of a place by more stimuli
STEP_DEG = 1.0  # over which the slope of the response is taken
BATCH = 10


@dataclass(frozen=True)
class Found:
    """What was found of a neuron; the sd are those of the jackknife over stimuli."""

    azimuth_deg: float
    elevation_deg: float
    position_sd_deg: float
    gain: float  # of the type's activity, dF/F
    gain_sd: float
    offset: float  # dF/F
    fit_correlation: float
    stimuli: int


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
            sampled = []
            for first, contrast in chosen:
                small = sample_at(self.model.pr, contrast, shift)
                whole = torch.zeros(self.dataset.n_frames, 1, *small.shape[1:])
                whole[first : first + len(small), 0] = small
                sampled.append(whole)
            stack = torch.stack(sampled)  # (S, T, 1, H, W)
            window = self.model.read_window([kind], stack.shape[3:])
            v = self.model.voltage(
                self.model.trunk(stack, window), kind, window=window, map_size=stack.shape[3:]
            )
            curves.extend(self.model.activity(v, kind).numpy().astype(np.float64))
        return [curve[frames] for curve, frames in zip(curves, self.frames, strict=True)]

    def error(self, curves: list[np.ndarray]) -> float:
        """Return the squared error that the best gain of at least 0 and offset leave."""
        a, b = np.concatenate(curves), np.concatenate(self.recorded)
        a, b = a - a.mean(), b - b.mean()
        spread = float(a @ a)
        gain = max(float(a @ b) / spread, 0.0) if spread > 0 else 0.0
        return float(((b - gain * a) ** 2).sum())

    def slopes(self, place: np.ndarray) -> list[np.ndarray]:
        """Return of each item the columns (T, 4): 1, activity, its slope by azimuth, elevation."""
        here = self.activity(place)
        columns = [[np.ones_like(curve), curve] for curve in here]
        for axis in range(2):
            step = np.zeros(2)
            step[axis] = STEP_DEG
            ahead, behind = self.activity(place + step), self.activity(place - step)
            for own, late, early in zip(columns, ahead, behind, strict=True):
                own.append((late - early) / (2 * STEP_DEG))
        return [np.stack(own, 1) for own in columns]

    def normal(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the normal equations of each item, (S, 4, 4) and (S, 4)."""
        columns = self.slopes(place)
        square = np.stack([own.T @ own for own in columns])
        target = [own.T @ trace for own, trace in zip(columns, self.recorded, strict=True)]
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
    tried = {
        place: neuron.error(neuron.activity(place)) for place in itertools.product(steps, steps)
    }
    starts = sorted(tried, key=tried.get)[:STARTS]
    roughly = [_refined(neuron, np.array(start), SIMPLEX_DEG, FIRST_TRIALS) for start in starts]
    best = min(roughly, key=lambda one: one.fun)
    place = _refined(neuron, best.x, LAST_SIMPLEX_DEG, LAST_TRIALS).x
    return _told(neuron, place)


def refine(
    model: STCNN, dataset: CalciumDataset, rows: Sequence[int], place: Sequence[float]
) -> tuple[float, float]:
    """Return the place of a neuron by all its items ``rows``, from one that a few of them gave.

    Gauss-Newton steps by the slope of the response over a degree, which many stimuli together make
    smooth; a step that leaves more than the place before it is not taken.

    Args:
        model, dataset, rows: as in ``locate``.
        place: (azimuth, elevation), degrees.
    """
    neuron = Neuron(model, dataset, rows)
    at = np.array(place, dtype=np.float64)
    left = neuron.error(neuron.activity(at))
    for _ in range(REFINEMENTS):
        square, target = neuron.normal(at)
        step = _move(_solve(square.sum(0), target.sum(0)))
        step = step * min(1.0, LONGEST_STEP_DEG / max(float(np.hypot(*step)), 1e-9))
        error = neuron.error(neuron.activity(at + step))
        if error >= left:
            break
        at, left = at + step, error
    return float(at[0]), float(at[1])


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


def _told(neuron, place):
    """Return what was found at ``place``, with the jackknife's standard deviations."""
    square, target = neuron.normal(place)
    left_out = np.array([
        _solve(square.sum(0) - one, target.sum(0) - other)
        for one, other in zip(square, target, strict=True)
    ])  # fmt: skip
    n = len(square)
    moves = np.array([_move(values) for values in left_out])
    place_sd = math.sqrt((n - 1) / n * ((moves - moves.mean(0)) ** 2).sum())
    gain_sd = math.sqrt((n - 1) / n * ((left_out[:, 1] - left_out[:, 1].mean()) ** 2).sum())
    curves = neuron.activity(place)
    flat = np.stack([np.ones(sum(map(len, curves))), np.concatenate(curves)], 1)
    offset, gain = np.linalg.lstsq(flat, np.concatenate(neuron.recorded), rcond=None)[0]
    return Found(
        azimuth_deg=float(place[0]), elevation_deg=float(place[1]), position_sd_deg=place_sd,
        gain=max(float(gain), 0.0), gain_sd=gain_sd, offset=float(offset),
        fit_correlation=correlation(np.concatenate(neuron.recorded), flat[:, 1]), stimuli=n,
    )  # fmt: skip


def _solve(square, target):
    return np.linalg.lstsq(square, target, rcond=1e-12)[0]


def _move(values):
    """Return the step (azimuth, elevation) of fitted (offset, gain, slopes)."""
    return values[2:] / values[1] if values[1] > 0 else np.zeros(2)
