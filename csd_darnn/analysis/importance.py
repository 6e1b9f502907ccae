"""Which driving series the prediction rests on: permutation, occlusion and gradient.

All three work on training windows and count pixels in the recording's own order, whatever order
the network was trained with. Source: specification, sections 4.5 and 8.2.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from inputs.custom_types import DaRnnNet, TrainConfig, TrainData
from inputs.windows import WindowRule, prep_train_data
from network.build import shuffled, slot_tensor, to_device
from network.prediction import parts


def pixel_blocks(
    n_series: int,
    pixels: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
    size: int = 4,
) -> list[np.ndarray]:
    """Return index arrays, one per block of size x size pixels of the image.

    Args:
        n_series: N.
        pixels: (N,) 0-based pixel of every driving series, -1 outside the image; None for named
            series. A series without a place is a block of its own.
        shape: (H, W) of the image.
    """
    if pixels is None or shape is None:
        return [np.array([series]) for series in range(n_series)]
    pixels = np.asarray(pixels)
    row, col = np.divmod(pixels, shape[1])
    across = -(-shape[1] // size)
    block = np.where(pixels < 0, -1 - np.arange(n_series), row // size * across + col // size)
    return [np.flatnonzero(block == name) for name in np.unique(block)]


@dataclass
class WindowSet:
    """Windows as tensors, in the recording's own order of the series.

    ``slots`` (N,) is the order that the network was trained with, None when it is the same.
    """

    net: DaRnnNet
    X: torch.Tensor  # (n, S, N)
    y_history: torch.Tensor  # (n, T-1, o)
    y_target: torch.Tensor  # (n, o)
    slots: torch.Tensor | None = None

    def predict(self, part: slice, X: torch.Tensor) -> torch.Tensor:
        """Return the prediction (b, o) of the windows ``part`` from their series X (b, S, N)."""
        _, encoded = self.net.encoder(shuffled(X, self.slots))
        return self.net.decoder(encoded, self.y_history[part])

    def mse(self, X: torch.Tensor) -> np.ndarray:
        """Return the mean squared error (o,) of the prediction from ``X`` (n, S, N)."""
        total = 0.0
        with torch.no_grad():
            for part in parts(len(X)):
                squares = ((self.predict(part, X[part]) - self.y_target[part]) ** 2).sum(dim=0)
                total = total + squares.cpu().double()  # an Apple GPU has no float64
        return (total / len(X)).numpy()


def take_windows(
    net: DaRnnNet,
    train_data: TrainData,
    starts: np.ndarray,
    rule: WindowRule,
    permutation: np.ndarray,
) -> WindowSet:
    """Return the WindowSet of the windows ``starts`` of a recording in z-units."""
    device = next(net.encoder.parameters()).device
    data = to_device(train_data, device)
    config = TrainConfig(rule.T, 0, 0, None)
    return WindowSet(
        net,
        *prep_train_data(starts, config, data, rule),
        slots=slot_tensor(np.asarray(permutation), device),
    )


def block_importance(
    windows: WindowSet,
    blocks: list[np.ndarray],
    *,
    repeats: int = 3,
    seed: int = 0,
    replace: str = "permute",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how much the error grows when the series of one block carry no information.

    Args:
        windows: WindowSet.
        blocks: list of index arrays over the N driving series.
        repeats: permutations per block.
        replace: "permute" exchanges the block's series across windows, one permutation of the
            windows for the whole block; "zero" sets them to 0 (occlusion, one repeat).

    Returns:
        base error (o,), mean (o, N) and standard deviation (o, N) of the growth in z-units
        squared; all series of a block share its value.
    """
    X = windows.X.clone()
    base = windows.mse(X)
    mean = np.zeros((len(base), X.shape[2]))
    spread = np.zeros_like(mean)
    random = np.random.default_rng([seed, 2])
    for block in blocks:
        series = torch.from_numpy(block).to(X.device)
        growth = []
        for _ in range(repeats if replace == "permute" else 1):
            if replace == "permute":
                order = torch.from_numpy(random.permutation(len(X))).to(X.device)
                X[:, :, series] = windows.X[:, :, series][order]
            else:
                X[:, :, series] = 0.0
            growth.append(windows.mse(X) - base)
        X[:, :, series] = windows.X[:, :, series]
        mean[:, block] = np.mean(growth, axis=0)[:, None]
        spread[:, block] = np.std(growth, axis=0)[:, None]
    return base, mean, spread


def gradient_importance(windows: WindowSet) -> np.ndarray:
    """Return the mean over windows and steps of abs(d y_hat / d x), (o, N)."""
    X, total = windows.X, 0.0
    with differentiable(windows.net):
        for part in parts(len(X)):
            series = X[part].clone().requires_grad_()
            y_pred = windows.predict(part, series)
            # Windows are independent: the gradient of the sum holds that of every window.
            rows = [
                torch.autograd.grad(column.sum(), series, retain_graph=True)[0].abs().sum((0, 1))
                for column in y_pred.unbind(dim=1)
            ]
            total = total + torch.stack(rows).cpu().double()
    return (total / (X.shape[0] * X.shape[1])).numpy()


@contextlib.contextmanager
def differentiable(net: DaRnnNet) -> Iterator[None]:
    """Put ``net`` into training mode for a block; it computes the same, having no dropout.

    cuDNN refuses the backward pass of an LSTM in evaluation mode.
    """
    modes = net.encoder.training, net.decoder.training
    net.encoder.train()
    net.decoder.train()
    try:
        yield
    finally:
        net.encoder.train(modes[0])
        net.decoder.train(modes[1])
