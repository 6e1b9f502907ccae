"""Predict with a trained network, without gradients and in batches (section 8.1)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from inputs.custom_types import DaRnnNet, TrainData
from inputs.windows import WindowRule, gather
from network.build import PREDICT_BATCH, shuffled, slot_tensor, to_device


class Prediction(NamedTuple):
    """What the network gives for n windows; pixels in the recording's own order."""

    y_pred: np.ndarray  # (n, o) z-units
    attention: np.ndarray | None  # (n, N) mean of alpha over the steps
    weighted: np.ndarray | None  # (n, S, N) alpha * x


def parts(count: int) -> Iterator[slice]:
    """Yield the slices of PREDICT_BATCH windows that make up ``count``."""
    for low in range(0, count, PREDICT_BATCH):
        yield slice(low, min(low + PREDICT_BATCH, count))


def window_batches(
    data: TrainData, starts: np.ndarray, rule: WindowRule, slots: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield the windows ``starts`` in batches.

    Yields:
        their slice of ``starts``, X (b, S, N) in the network's order, y_history (b, T-1, o).
    """
    for part in parts(len(starts)):
        X = shuffled(gather(data.feats, rule.x_rows(starts[part])), slots)
        yield part, X, gather(data.targs, rule.history_rows(starts[part]))


def predict_windows(
    net: DaRnnNet,
    train_data: TrainData,
    starts: np.ndarray,
    rule: WindowRule,
    *,
    permutation: np.ndarray | None = None,
    attention: bool = False,
    weighted_out: np.ndarray | None = None,
) -> Prediction:
    """Predict the windows ``starts`` (n,).

    Args:
        net: DaRnnNet.
        train_data: TrainData in z-units, numpy or tensors.
        rule: WindowRule.
        permutation: (N,) order of the series that the network was trained with last.
        attention: whether the attention is returned.
        weighted_out: array or memory map (n, S, N) float32 that takes alpha * x.
    """
    device = next(net.encoder.parameters()).device
    data = train_data if torch.is_tensor(train_data.feats) else to_device(train_data, device)
    n_feats = data.feats.shape[1]
    permutation = np.arange(n_feats) if permutation is None else np.asarray(permutation)
    slots = slot_tensor(permutation, device)
    # out[..., permutation] = slots is the same as slots[..., inverse].
    inverse = slot_tensor(np.argsort(permutation), device)
    y_pred = np.empty((len(starts), data.targs.shape[1]))
    alphas = np.empty((len(starts), n_feats), np.float32) if attention else None
    net.encoder.eval()
    net.decoder.eval()
    with torch.no_grad():
        for part, X, y_history in window_batches(data, starts, rule, slots):
            weighted, encoded, alpha = net.encoder.encode(X)
            y_pred[part] = net.decoder(encoded, y_history).cpu().numpy()
            if attention:
                alphas[part] = shuffled(alpha, inverse).mean(dim=1).cpu().numpy()
            if weighted_out is not None:
                weighted_out[part] = shuffled(weighted, inverse).cpu().numpy()
    return Prediction(y_pred, alphas, weighted_out)


def predict(
    t_net: DaRnnNet,
    t_dat: TrainData,
    train_size: int,
    batch_size: int,
    T: int,
    on_train: bool = False,
    *,
    rule: WindowRule | None = None,
    permutation: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predict the test part, or with ``on_train`` the training part, as the published function.

    ``batch_size`` is taken for compatibility: windows are independent, so that batches of 256 give
    the same numbers whatever the training batch was.

    Returns:
        y_pred (n, o) in z-units and, for the test part, alpha * x (n, S, N) float32, else None.
    """
    rule = rule or WindowRule(T)
    if on_train:
        starts, out = rule.on_train_starts(train_size), None
    else:
        n_rows, n_feats = t_dat.feats.shape
        starts = rule.test_starts(n_rows, train_size)
        out = np.empty((len(starts), rule.steps, n_feats), np.float32)
    result = predict_windows(t_net, t_dat, starts, rule, permutation=permutation, weighted_out=out)
    return result.y_pred, result.weighted
