"""A linear-nonlinear (LN) model of each neuron: the baseline that a network has to beat.

Each neuron is fitted by itself: a ridge regression on the sampled stimulus around its receptive
field, low-passed with a few time constants and then with the calcium indicator's, followed by a
cubic of the result. Letters: B items, T frames, H and W the coarse grid, F features.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.signal import lfilter

from inputs.ca_dataloader import CalciumDataset

TAUS_S = (0.02, 0.08, 0.32)  # of the linear filter's temporal basis
CALCIUM_TAU_S = 0.4
REACH = 4  # points of the grid to each side of the middle
PENALTIES = 10.0 ** np.arange(-6.0, 1.0)  # of the ridge, times the mean variance of the features
CHECKED = 5  # every how many stimuli chooses the penalty
DEGREE = 3  # of the nonlinearity


def features(sampled: torch.Tensor, dt: float) -> np.ndarray:
    """Return the features (T, F) float64 of a sampled stimulus (T, 1, H, W), frames ``dt`` s."""
    rows, columns = (slice(max(n // 2 - REACH, 0), n // 2 + REACH + 1) for n in sampled.shape[-2:])
    window = sampled[:, 0, rows, columns].flatten(1).numpy().astype(np.float64)
    slow = [low_pass(window, tau, dt) for tau in TAUS_S]
    return low_pass(np.concatenate(slow, 1), CALCIUM_TAU_S, dt)


def low_pass(x: np.ndarray, tau_s: float, dt: float) -> np.ndarray:
    """Return x (T, F) through an exponential filter of unit sum, from zero history."""
    rho = np.exp(-dt / tau_s)
    return lfilter([1.0 - rho], [1.0, -rho], x, axis=0)


class LNModel:
    """The LN models of all neurons; answers as a network does (predict_items)."""

    def __init__(self, dt: float):
        self.dt, self.fitted = dt, {}

    def eval(self) -> None:
        """Do nothing; a network would switch here."""

    def fit(self, dataset: CalciumDataset, rows: Sequence[int]) -> "LNModel":
        """Fit every neuron on its items among ``rows``; return the model."""
        own = {}
        for row in rows:
            item = dataset.items[row]
            own.setdefault((item.cell_type, item.neuron_num), []).append(row)
        for neuron, chosen in own.items():
            self.fitted[neuron] = self._fit_neuron(dataset, chosen)
        return self

    def _fit_neuron(self, dataset, rows):
        """Return (weights, offset, cubic, lowest and highest linear response) of a neuron."""
        x, y, code = [], [], []
        for row in rows:
            item = dataset.items[row]
            frames = dataset.scored(item)
            x.append(features(dataset[row]["sampled"], self.dt)[frames])
            y.append(dataset.trace(item).numpy()[frames].astype(np.float64))
            code += [item.barcode] * len(frames)
        x, y = np.concatenate(x), np.concatenate(y)
        codes, place = np.unique(code, return_inverse=True)
        checked = place % CHECKED == CHECKED - 1
        penalty = PENALTIES[len(PENALTIES) // 2]
        if len(codes) >= CHECKED:
            errors = [
                ((_ridge(x[~checked], y[~checked], p)(x[checked]) - y[checked]) ** 2).mean()
                for p in PENALTIES
            ]
            penalty = PENALTIES[int(np.argmin(errors))]
        linear = _ridge(x, y, penalty)
        z = linear(x)
        cubic = np.polynomial.Polynomial.fit(z, y, DEGREE if np.ptp(z) > 0 else 0)
        return linear, cubic, (float(z.min()), float(z.max()))

    def predict_items(
        self, sampled: torch.Tensor, types: Sequence[str], neurons: torch.Tensor
    ) -> torch.Tensor:
        """Return calcium (B, T) for sampled stimuli (B, T, 1, H, W) of these neurons, dF/F.

        A neuron that was not fitted answers 0. Beyond the fitted range the cubic is held.
        """
        curves = []
        for stimulus, kind, neuron in zip(sampled, types, neurons.tolist(), strict=True):
            if (kind, neuron) not in self.fitted:
                curves.append(torch.zeros(len(stimulus)))
                continue
            linear, cubic, (low, high) = self.fitted[kind, neuron]
            z = linear(features(stimulus, self.dt)).clip(low, high)
            curves.append(torch.from_numpy(cubic(z)).float())
        return torch.stack(curves)


def _ridge(x, y, penalty):
    """Return the linear response as a function of features (T, F) -> (T,)."""
    middle, level = x.mean(0), y.mean()
    centred = x - middle
    square = centred.T @ centred
    load = penalty * np.trace(square) / len(square) + 1e-12
    weights = np.linalg.solve(square + load * np.eye(len(square)), centred.T @ (y - level))
    return lambda new: (new - middle) @ weights + level
