"""Predict with a trained network, without gradients and in batches (section 8.1)."""

from typing import NamedTuple

import numpy as np
import torch

from training import PREDICT_BATCH, shuffled, slot_tensor, to_device
from windows import WindowRule, gather


class Prediction(NamedTuple):
    """What the network gives for n windows; pixels in the recording's own order."""

    y_pred: np.ndarray  # (n, o) z-units
    attention: np.ndarray | None  # (n, N) mean of alpha over the steps
    weighted: np.ndarray | None  # (n, S, N) alpha * x


def predict_windows(
    net, train_data, starts, rule, *, permutation=None, attention=False, weighted_out=None
):
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
        for low in range(0, len(starts), PREDICT_BATCH):
            batch = starts[low : low + PREDICT_BATCH]
            stop = low + len(batch)
            X = shuffled(gather(data.feats, rule.x_rows(batch)), slots)
            weighted, encoded, alpha = net.encoder.encode(X)
            y_history = gather(data.targs, rule.history_rows(batch))
            y_pred[low:stop] = net.decoder(encoded, y_history).cpu().numpy()
            if attention:
                mean = shuffled(alpha, inverse).mean(dim=1)
                alphas[low:stop] = mean.cpu().numpy()
            if weighted_out is not None:
                weighted_out[low:stop] = shuffled(weighted, inverse).cpu().numpy()
    return Prediction(y_pred, alphas, weighted_out)


def predict(
    t_net, t_dat, train_size, batch_size, T, on_train=False, *, rule=None, permutation=None
):
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
