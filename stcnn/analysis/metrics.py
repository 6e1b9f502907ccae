"""Scores of predicted against recorded traces: error, R2, peaks, and what the noise allows.

Letters: N items, T frames.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch

from inputs.ca_dataloader import CalciumDataset, EpochOrder, Item, make_loader
from network.models import STCNN

SURE = 2.0  # sampling errors by which what trials share must exceed nothing, to be a signal
COLUMNS = (
    "mse",
    "r2",
    "trace_correlation",
    "peak_correlation",
    "ceiling_correlation",
    "ceiling_r2",
    "normalised_correlation",
    "normalised_r2",
)


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation, or NaN when either side is constant."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) < 2 or a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def concordance(a: Sequence[float], b: Sequence[float]) -> float:
    """Return how well two series agree, -1 to 1: Lin's concordance, NaN when both are constant.

    Pearson's correlation, lowered by a difference of mean or of spread: ups and downs of a
    hundredth of the right size agree with nothing, whatever their correlation. Source: Lin,
    Biometrics 1989.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    spread = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    if len(a) < 2 or spread < 1e-24:
        return float("nan")
    return float(2 * ((a - a.mean()) * (b - b.mean())).mean() / spread)


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


def scored_trials(dataset: CalciumDataset, item: Item) -> np.ndarray:
    """Return the trials of an item at the samples of its loss (trials, samples) float64, dF/F."""
    traces = dataset.session_of(item)["neuron"][item.uid]["traces"]
    start, stop = dataset.samples(item)
    return traces[:, start:stop].numpy().astype(np.float64)


def reliability(trials: np.ndarray) -> float:
    """Return how well the mean over trials repeats: Spearman-Brown of their correlation, or NaN."""
    n = len(trials)
    if n < 2 or trials.shape[1] < 2 or (trials.std(1) < 1e-12).any():
        return float("nan")
    rho = float(np.corrcoef(trials)[np.triu_indices(n, 1)].mean())
    return n * rho / (1 + (n - 1) * rho) if rho > 0 else float("nan")


def noise_power(trials: np.ndarray, *, averaged: bool) -> float:
    """Return the expected squared noise of an item, mean over samples; NaN for one trial.

    The variance between trials of each sample, divided by the trials of the mean.
    """
    if len(trials) < 2:
        return float("nan")
    return float(trials.var(0, ddof=1).mean() / (len(trials) if averaged else 1))


def signal_power(trials: np.ndarray, mean: float) -> float:
    """Return the mean square per sample of what all trials of an item share, NaN for one trial.

    The mean over pairs of trials of their products, each around ``mean``: noise that the trials do
    not share has none. Source: Schoppe et al., Frontiers in Computational Neuroscience 2016.
    """
    n = len(trials)
    if n < 2:
        return float("nan")
    around = trials - mean
    return float(((around.sum(0) ** 2).sum() - (around**2).sum()) / (n * (n - 1)) / trials.shape[1])


def power_error(trials: np.ndarray) -> float:
    """Return the standard error of signal_power where trials share nothing, NaN for one trial.

    Var = 2 / (n (n - 1)) sum_k (T - |k|) c_k^2 / T^2 of n trials of T samples, c_k the
    autocovariance of what differs between trials, up to the lag where it falls below 0 (beyond it
    is what a short recording happens to have).
    """
    n, length = trials.shape
    if n < 2:
        return float("nan")
    rest = trials - trials.mean(0)
    size = 2 * length  # room for all lags: none wraps round
    spectrum = (np.abs(np.fft.rfft(rest, size)) ** 2).sum(0)
    weight = length - np.arange(length)
    lags = np.fft.irfft(spectrum, size)[:length] / weight / (n - 1)
    below = np.flatnonzero(lags <= 0)
    lags = lags[: below[0]] if len(below) else lags
    squares = weight[: len(lags)] * lags**2
    total = 2 * squares.sum() - (squares[0] if len(squares) else 0.0)
    return float(np.sqrt(2 * total / (n * (n - 1))) / length)


def shared_power(trials: Sequence[np.ndarray], mean: float) -> tuple[float, bool]:
    """Return (sum of squares that trials share over all items, whether it is a signal).

    It is one where it is above SURE times the sampling error that noise alone would give it.
    """
    power = sum(own.shape[1] * signal_power(own, mean) for own in trials)
    error = sum((own.shape[1] * power_error(own)) ** 2 for own in trials) ** 0.5
    return power, bool(power > SURE * error and power > 0)


def normalised_correlation(
    recorded: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    trials: Sequence[np.ndarray],
) -> float:
    """Return the correlation that a prediction would have with recordings free of noise.

    All items count as one long recording. What trials share is an estimate, and where it comes out
    too small the quotient passes 1: it is cut to -1..1, which no correlation can leave. NaN where
    an item has one trial, where what trials share is not above SURE times its sampling error (a
    family that the neurons do not answer), or the prediction does not vary.

    Args:
        recorded, predicted: of each item, (T,) dF/F.
        trials: of each item, (trials, T) dF/F.
    """
    a, b = (np.concatenate(curves).astype(np.float64) for curves in (recorded, predicted))
    mean = float(a.mean())
    power, sure = shared_power(trials, mean)
    spread = float(((b - b.mean()) ** 2).sum())
    if not (sure and spread > 0):
        return float("nan")
    quotient = ((a - a.mean()) * (b - b.mean())).sum() / np.sqrt(power * spread)
    return float(np.clip(quotient, -1.0, 1.0))


def told(scores: dict) -> dict:
    """Return a row of scores for a table: what is not known is an empty cell."""
    return {
        name: "" if isinstance(value, float) and np.isnan(value) else value
        for name, value in scores.items()
    }


def unanswered(scores: dict) -> list[str]:
    """Return the cell types whose trials share no signal, so that nothing can be normalised."""
    return [
        name
        for name, own in scores.items()
        if np.isfinite(own["ceiling_correlation"]) and not np.isfinite(own["normalised_r2"])
    ]


def gain_rows(
    dataset: CalciumDataset, rows: Sequence[int], seen: Collection[int]
) -> dict[int, list[int]]:
    """Return {uid: rows} from which the gains of neurons without training data are fitted.

    Every second stimulus of such a neuron, in the order of their numbers; at least one is left to
    be scored.
    """
    own = {}
    for row in rows:
        item = dataset.items[row]
        if item.uid not in seen:
            own.setdefault(item.uid, []).append(row)
    for uid, own_rows in own.items():
        codes = sorted({dataset.items[row].barcode for row in own_rows})
        fitted = set(codes[1::2])
        own[uid] = [row for row in own_rows if dataset.items[row].barcode in fitted]
    return own


def fit_gain(recorded: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return (factor of at least 0, offset) that bring ``predicted`` nearest to ``recorded``."""
    a, b = predicted.astype(np.float64), recorded.astype(np.float64)
    spread = float(((a - a.mean()) ** 2).sum())
    factor = float(((a - a.mean()) * (b - b.mean())).sum()) / spread if spread > 0 else 0.0
    factor = max(factor, 0.0)
    return factor, float(b.mean() - factor * a.mean())


def score_rows(
    model: STCNN,
    dataset: CalciumDataset,
    rows: Sequence[int],
    *,
    device: str = "cpu",
    seen: Collection[int] | None = None,
) -> tuple[dict, list[dict]]:
    """Return ({type: {score: value}}, item table) for the items ``rows``.

    ``seen`` are the neurons with training data. The gain and offset of another one are random
    numbers until they are fitted: on every second of its stimuli (gain_rows), which are not
    scored; such rows of the table hold "gain" under ``use``. A neuron with one stimulus is judged
    by its correlation only. None: all neurons were seen.

    Scores of a type: mse and r2 over all scored frames of its items; trace_correlation, mean over
    items; peak_correlation over items of the largest recorded and predicted value after stimulus
    onset. ceiling_r2 and ceiling_correlation are what a perfect model is expected to reach with
    these noisy traces, by the same sums over the same items: the noise is the variance between
    trials. normalised_correlation is the correlation over all frames, divided by what the noise
    leaves of it; normalised_r2 is r2 / ceiling_r2, the explained share of the variance that can be
    explained (Cadena et al., PLoS Computational Biology 2019), which falls with a wrong size as
    well. All are NaN where an item has one trial, the normalised ones also where trials
    share no signal (shared_power).
    """
    predicted = predict_rows(model, dataset, rows, device=device)
    fitted = gain_rows(dataset, rows, seen) if seen is not None else {}
    gains = _gains(dataset, dict(zip(rows, predicted, strict=True)), fitted)
    table, kinds = [], {}
    for row, curve in zip(rows, predicted, strict=True):
        item = dataset.items[row]
        frames = dataset.scored(item)
        known = item.uid not in fitted or bool(fitted[item.uid])
        if item.uid in gains:
            curve = gains[item.uid][0] * curve + gains[item.uid][1]
        truth = dataset.trace(item).numpy()
        recorded, modelled = truth[frames], curve[frames]
        trials = scored_trials(dataset, item)
        noise = noise_power(trials, averaged=item.trial is None)
        spread = float(recorded.astype(np.float64).var())
        squared = float(((recorded - modelled) ** 2).sum())
        after = slice(dataset.onset(item), frames[-1] + 1)
        table.append(
            {
                "cell_type": item.cell_type,
                "uid": item.uid,
                "barcode": item.barcode,
                "trial": "" if item.trial is None else item.trial,
                "peak_recorded": _peak(truth[after]),
                "peak_predicted": _peak(curve[after]),
                "mse": squared / len(frames) if known else float("nan"),
                "trace_correlation": correlation(recorded, modelled),
                "trial_reliability": reliability(trials),
                "use": "gain" if row in fitted.get(item.uid, ()) else "score",
            }
        )
        if table[-1]["use"] == "gain":
            continue
        entry = kinds.setdefault(item.cell_type, {"error": 0.0, "noise": 0.0, "traces": [],
                                                  "curves": [], "trials": [], "ceilings": [],
                                                  "rows": []})  # fmt: skip
        entry["error"] += squared if known else float("nan")
        entry["noise"] += noise * len(frames)
        entry["traces"].append(recorded)
        entry["curves"].append(modelled)
        entry["trials"].append(trials)
        shared = 1.0 - noise / spread if spread > 0 else float("nan")
        if np.isfinite(table[-1]["trace_correlation"]):  # the items that trace_correlation counts
            entry["ceilings"].append(np.sqrt(max(shared, 0.0)) if shared == shared else shared)
        entry["rows"].append(table[-1])
    return {name: _scores(entry) for name, entry in kinds.items()}, table


def _gains(dataset, curves, fitted):
    """Return {uid: (factor, offset)} of the neurons whose gain is fitted."""
    gains = {}
    for uid, rows in fitted.items():
        pairs = [
            (dataset.trace(item).numpy()[frames], curves[row][frames])
            for row in rows
            for item in [dataset.items[row]]
            for frames in [dataset.scored(item)]
        ]
        if pairs:
            gains[uid] = fit_gain(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
    return gains


def _scores(entry):
    """Return the scores of one type from the sums over its items."""
    joined = np.concatenate(entry["traces"]).astype(np.float64)
    total = float(((joined - joined.mean()) ** 2).sum())

    def share(part):
        return 1.0 - part / total if total > 0 else float("nan")

    own, r2 = entry["rows"], share(entry["error"])
    ceiling = max(share(entry["noise"]), 0.0) if entry["noise"] >= 0 else float("nan")
    _, signal = shared_power(entry["trials"], float(joined.mean()))
    return {
        "mse": entry["error"] / len(joined),
        "r2": r2,
        "trace_correlation": _mean([row["trace_correlation"] for row in own]),
        "peak_correlation": correlation(
            [row["peak_recorded"] for row in own], [row["peak_predicted"] for row in own]
        ),
        "ceiling_correlation": float(np.mean(entry["ceilings"] or [np.nan])),
        "ceiling_r2": ceiling,
        "normalised_correlation": normalised_correlation(
            entry["traces"], entry["curves"], entry["trials"]
        ),
        "normalised_r2": r2 / ceiling if signal and ceiling > 0 else float("nan"),
    }


def _peak(values):
    return float(values.max()) if len(values) else float("nan")


def _mean(values):
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
