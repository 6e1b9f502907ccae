"""Which driving series the prediction rests on: permutation, occlusion and gradient.

All three work on training windows and count pixels in the recording's own order, whatever order
the network was trained with. Source: specification, sections 4.5 and 8.2.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from inputs.custom_types import DaRnnNet, TrainData
from inputs.windows import SeriesWindows, WindowRule, gather
from network.block_sums import BlockSums
from network.build import shuffled, slot_tensor, to_device
from network.prediction import parts

SUMS_BATCH = 1024  # inputs that are encoded and decoded at once


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
    """Windows in the recording's own order of the series.

    ``slots`` (N,) is the order that the network was trained with, None when it is the same.
    """

    net: DaRnnNet
    X: torch.Tensor | SeriesWindows  # (n, S, N)
    y_history: torch.Tensor  # (n, T-1, o)
    y_target: torch.Tensor  # (n, o)
    slots: torch.Tensor | None = None

    def predict(self, part: slice, X: torch.Tensor) -> torch.Tensor:
        """Return the prediction (b, o) of the windows ``part`` from their series X (b, S, N)."""
        _, encoded = self.net.encoder(shuffled(X, self.slots))
        return self.net.decoder(encoded, self.y_history[part])

    def mse(
        self, series: torch.Tensor | None = None, order: torch.Tensor | None = None
    ) -> np.ndarray:
        """Return the mean squared error (o,) of the prediction.

        Args:
            series: (b,) series that come from the windows ``order`` (n,), without one set to 0.
        """
        total = 0.0
        with torch.no_grad():
            for part in parts(len(self.X)):
                X = self.X[part]
                if series is not None:
                    X = X.clone()
                    X[:, :, series] = 0.0 if order is None else self.X[order[part]][:, :, series]
                squares = ((self.predict(part, X) - self.y_target[part]) ** 2).sum(dim=0)
                total = total + squares.cpu().double()  # an Apple GPU has no float64
        return (total / len(self.X)).numpy()

    def errors_of(self, sums: BlockSums, inputs: torch.Tensor) -> np.ndarray:
        """Return the mean squared error (k, o) of inputs (k n, S, 4m), k times all windows."""
        history, target = self.y_history, self.y_target
        k = len(inputs) // len(history)
        misses = []
        for low in range(0, len(inputs), SUMS_BATCH):
            rows = torch.arange(low, min(low + SUMS_BATCH, len(inputs)), device=inputs.device)
            window = rows % len(history)
            encoded = sums.encode(inputs[rows[0] : rows[-1] + 1])
            misses.append((self.net.decoder(encoded, history[window]) - target[window]) ** 2)
        squares = torch.cat(misses).reshape(k, len(history), -1).cpu().double()
        return squares.mean(dim=1).numpy()


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
    return WindowSet(
        net,
        SeriesWindows(data.feats, rule.x_rows(starts)),
        gather(data.targs, rule.history_rows(starts)),
        gather(data.targs, rule.target_rows(starts)),
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
    route = changed_sums if has_sums(windows, blocks) else changed_windows
    errors = route(windows, blocks, repeats if replace == "permute" else 0, seed)
    base = next(errors)[0]
    mean = np.zeros((len(base), windows.X.shape[2]))
    spread = np.zeros_like(mean)
    for block, growth in zip(blocks, errors, strict=True):
        mean[:, block] = np.mean(growth - base, axis=0)[:, None]
        spread[:, block] = np.std(growth - base, axis=0)[:, None]
    return base, mean, spread


def has_sums(windows: WindowSet, blocks: list[np.ndarray]) -> bool:
    """Return whether the attention is linear and every series lies in one block."""
    series = np.concatenate(blocks) if blocks else np.array([], int)
    whole = np.array_equal(np.sort(series), np.arange(windows.X.shape[2]))
    return whole and windows.net.encoder.attention == "linear"


def draw_orders(
    random: np.random.Generator, windows: WindowSet, repeats: int
) -> list[torch.Tensor | None]:
    """Return ``repeats`` orders of the windows for a block; [None] stands for a block set to 0."""
    count, device = len(windows.X), windows.X.device
    orders = [torch.from_numpy(random.permutation(count)).to(device) for _ in range(repeats)]
    return orders or [None]


def errors_of_windows(
    windows: WindowSet, block: np.ndarray, orders: list[torch.Tensor | None]
) -> np.ndarray:
    """Return the error (k, o) with a block exchanged, from the whole network run again."""
    series = torch.from_numpy(block).to(windows.X.device)
    return np.array([windows.mse(series, order) for order in orders])


def changed_windows(
    windows: WindowSet, blocks: list[np.ndarray], repeats: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield the error (1, o) as it is, then for every block (repeats, o) with its series exchanged.

    0 repeats set the series to 0.
    """
    yield windows.mse()[None]
    random = np.random.default_rng([seed, 2])
    for block in blocks:
        yield errors_of_windows(windows, block, draw_orders(random, windows, repeats))


def changed_sums(
    windows: WindowSet, blocks: list[np.ndarray], repeats: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield what ``changed_windows`` does, from the two sums of a linear attention."""
    random = np.random.default_rng([seed, 2])
    with torch.no_grad():
        sums = BlockSums(windows.net.encoder, windows.X, windows.slots, blocks)
        yield windows.errors_of(sums, sums.whole())
        for block in blocks:
            part, orders = sums.part(block), draw_orders(random, windows, repeats)
            if not sums.leaves_others(part):
                yield errors_of_windows(windows, block, orders)
                continue
            inputs = [
                sums.zeroed(part) if order is None else sums.exchanged(part, order)
                for order in orders
            ]
            yield windows.errors_of(sums, torch.cat(inputs))


def gradient_of_states(windows: WindowSet, states: Sequence[dict]) -> np.ndarray:
    """Return the mean gradient importance (o, N) of one network in several states (see state_of).

    Every epoch deals the series anew, so what the last epoch has not unlearnt of the one before
    lies on other pixels in each state, while what the series carry lies on the same.
    """
    net = DaRnnNet(
        copy.deepcopy(windows.net.encoder), copy.deepcopy(windows.net.decoder), None, None
    )
    total = 0.0
    for state in states:
        net.encoder.load_state_dict(state["encoder"])
        net.decoder.load_state_dict(state["decoder"])
        slots = slot_tensor(state["permutation"].numpy(), windows.X.device)
        total = total + gradient_importance(replace(windows, net=net, slots=slots))
    return total / len(states)


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
