"""Scores of predicted against recorded traces: error, R2, peaks, and what the noise allows.

Letters: N items, T frames.
"""

from collections.abc import Sequence

import numpy as np
import torch

from inputs.ca_dataloader import CalciumDataset, EpochOrder, Item, make_loader
from network.models import STCNN

COLUMNS = (
    "mse",
    "r2",
    "trace_correlation",
    "peak_correlation",
    "ceiling_correlation",
    "ceiling_r2",
)


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation, or NaN when either side is constant."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) < 2 or a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


@torch.no_grad()
def predict_rows(
    model: STCNN,
    dataset: CalciumDataset,
    rows: Sequence[int],
    *,
    batch_size: int = 8,
    device: str = "cpu",
) -> np.ndarray:
    """Return predicted traces of the items ``rows`` (N, T), float32 numpy, in that order."""
    model.eval()
    loader = make_loader(dataset, EpochOrder(rows, seed=0, shuffle=False), batch_size=batch_size)
    curves = []
    for batch in loader:
        neurons = batch["neuron_num"][:, 0].to(device)
        curves.append(
            model.predict_items(batch["sampled"].to(device), batch["lc_type"], neurons).cpu()
        )
    return torch.cat(curves).numpy()


def reliability(dataset: CalciumDataset, item: Item) -> tuple[float, int]:
    """Return (mean correlation between trials, trials) of an averaged item; NaN for one trial."""
    traces = dataset.session_of(item)["neuron"][item.uid]["traces"]
    start, stop = (frame - dataset.layout.n_prepad for frame in dataset.window(item))
    n = len(traces)
    if n < 2:
        return float("nan"), n
    matrix = np.corrcoef(traces[:, start:stop].numpy().astype(np.float64))
    return float(matrix[np.triu_indices(n, 1)].mean()), n


def score_rows(
    model: STCNN, dataset: CalciumDataset, rows: Sequence[int], *, device: str = "cpu"
) -> tuple[dict, list[dict]]:
    """Return ({type: {score: value}}, item table) for the items ``rows``.

    Scores: mse and r2 over all scored frames; trace_correlation, mean over items;
    peak_correlation of
    the largest value after stimulus onset over items; ceiling_correlation and ceiling_r2, the
    most a
    perfect model can reach with these noisy means (Spearman-Brown over trials; mean over items
    whose reliability is positive).
    """
    predicted = predict_rows(model, dataset, rows, device=device)
    table, sums = [], {}
    for row, curve in zip(rows, predicted, strict=True):
        item = dataset.items[row]
        start, stop = dataset.window(item)
        onset = dataset.onset(item)
        truth = dataset.trace(item).numpy()
        squared = float(((truth[start:stop] - curve[start:stop]) ** 2).sum())
        rho, n = reliability(dataset, item)
        shared = n * rho / (1 + (n - 1) * rho) if rho > 0 else float("nan")
        table.append(
            {
                "cell_type": item.cell_type,
                "uid": item.uid,
                "barcode": item.barcode,
                "trial": "" if item.trial is None else item.trial,
                "peak_recorded": float(truth[onset:stop].max()),
                "peak_predicted": float(curve[onset:stop].max()),
                "mse": squared / (stop - start),
                "trace_correlation": correlation(truth[start:stop], curve[start:stop]),
                "trial_reliability": shared,
            }
        )
        entry = sums.setdefault(item.cell_type, [0.0, []])
        entry[0] += squared
        entry[1].append(truth[start:stop])
    scores = {}
    for name, (squared, pieces) in sums.items():
        joined = np.concatenate(pieces).astype(np.float64)
        own = [entry for entry in table if entry["cell_type"] == name]
        shared = [entry["trial_reliability"] for entry in own]
        scores[name] = {
            "mse": squared / len(joined),
            "r2": 1.0 - squared / float(((joined - joined.mean()) ** 2).sum()),
            "trace_correlation": _mean([entry["trace_correlation"] for entry in own]),
            "peak_correlation": correlation(
                [entry["peak_recorded"] for entry in own],
                [entry["peak_predicted"] for entry in own],
            ),
            "ceiling_correlation": _mean(np.sqrt(shared)),
            "ceiling_r2": _mean(shared),
        }
    return scores, table


def _mean(values):
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
