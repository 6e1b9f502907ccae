"""Error measures, baselines and the plain verdict (section 8.1); AUC of a map against a mask."""

import numpy as np

from inputs.custom_types import TrainData
from inputs.preprocessing import Scaler
from inputs.windows import WindowRule

RIDGE = 1.0  # penalty in z-units
RIDGE_PIXELS = 50  # best-correlated driving series that the ridge baseline may use


def regression_metrics(y: np.ndarray, y_pred: np.ndarray) -> dict:
    """Return mse, rmse, mae, mape_percent, pearson_r, r2 of one series (n,), float64.

    mape_percent is None when a value is closer to 0 than 1e-8 of the range, pearson_r and r2 when
    a series does not vary.
    """
    y, y_pred = np.asarray(y, np.float64).ravel(), np.asarray(y_pred, np.float64).ravel()
    error = y - y_pred
    mse = float(np.mean(error**2))
    near_zero = np.abs(y).min() < 1e-8 * np.ptp(y) or not np.abs(y).min() > 0
    spread = float(np.sum((y - y.mean()) ** 2))
    return {
        "mse": mse,
        "rmse": float(np.sqrt(mse)),
        "mae": float(np.mean(np.abs(error))),
        "mape_percent": None if near_zero else float(100 * np.mean(np.abs(error / y))),
        "pearson_r": pearson(y, y_pred),
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else None,
    }


def pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the Pearson correlation of two series, or None when one does not vary."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else None


def auc(score: np.ndarray, mask: np.ndarray) -> float | None:
    """Return the probability that a pixel of ``mask`` scores above one outside; ties count half."""
    score, mask = np.ravel(score), np.ravel(mask).astype(bool)
    inside, outside = int(mask.sum()), int((~mask).sum())
    if not inside or not outside:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse]  # from 1; equal scores share their mean
    return float((ranks[mask].sum() - inside * (inside + 1) / 2) / (inside * outside))


def persistence(targs: np.ndarray, starts: np.ndarray, rule: WindowRule) -> np.ndarray:
    """Return the last history value (n, o) of every window: the same horizon as the network."""
    return np.asarray(targs)[rule.history_rows(starts)[:, -1]].astype(np.float64)


def ridge_prediction(
    train_data: TrainData, fit_starts: np.ndarray, starts: np.ndarray, rule: WindowRule
) -> np.ndarray:
    """Return the ridge prediction (n, o) of the windows ``starts`` in z-units.

    Features: the T - 1 history rows of the targets and the S rows of the best-correlated driving
    series (correlation of the last driving row with the target row), fitted on ``fit_starts``.
    """
    feats, targs = train_data
    wanted = targs[rule.target_rows(fit_starts)].astype(np.float64)
    columns = []
    for target in range(targs.shape[1]):
        strength = correlations(feats, rule.x_rows(fit_starts)[:, -1], wanted[:, target])
        columns += np.argsort(-strength, kind="stable")[:RIDGE_PIXELS].tolist()
    columns = np.unique(columns)
    chosen = feats[:, columns]

    def design(at):
        parts = chosen[rule.x_rows(at)], targs[rule.history_rows(at)]
        flat = [part.reshape(len(at), -1).astype(np.float64) for part in parts]
        return np.hstack([*flat, np.ones((len(at), 1))])

    X = design(fit_starts)
    penalty = np.full(X.shape[1], RIDGE)
    penalty[-1] = 0.0  # the offset is free
    # A zero on the diagonal of the offset keeps the matrix regular: its column is constant 1.
    weights = np.linalg.solve(X.T @ X + np.diag(penalty), X.T @ wanted)
    return design(starts) @ weights


def correlations(
    feats: np.ndarray, rows: np.ndarray, wanted: np.ndarray, block: int = 512
) -> np.ndarray:
    """Return |correlation| (N,) of ``feats[rows]`` with ``wanted`` (n,), 0 where constant."""
    wanted = wanted - wanted.mean()
    strength = np.zeros(feats.shape[1])
    for low in range(0, feats.shape[1], block):
        part = feats[rows, low : low + block].astype(np.float64)
        part -= part.mean(axis=0)
        norm = np.sqrt((part**2).sum(axis=0) * (wanted @ wanted))
        product = np.abs(wanted @ part)
        strength[low : low + block] = np.divide(
            product, norm, out=np.zeros_like(product), where=norm > 0
        )
    return strength


def metric_rows(
    train_data: TrainData,
    predictions: dict[str, np.ndarray],
    starts: np.ndarray,
    rule: WindowRule,
    scaler: Scaler,
    target_columns: list[int],
    part: str,
) -> list[dict]:
    """Return one row per target, predictor and unit.

    Args:
        predictions: dict of predictor name -> (n, o) in z-units.
        starts: windows (n,) of the predictions.
        target_columns: positions (o,) of the targets in the scaler.
        part: name of the part of the recording, for the table.
    """
    truth = train_data.targs[rule.target_rows(starts)]
    units = {"z": lambda z: z, "data": lambda z: scaler.invert(z, target_columns)}
    rows = []
    for position, column in enumerate(target_columns):
        for model, y_pred in predictions.items():
            for name, convert in units.items():
                pair = convert(truth)[:, position], convert(y_pred)[:, position]
                head = {"model": model, "part": part, "target": scaler.columns[column]}
                measures = regression_metrics(*pair)
                if name == "z":
                    measures["mape_percent"] = None  # a ratio to a z-score means nothing
                rows.append({**head, "units": name, **measures})
    return rows


def verdict(rows: list[dict], part: str, words: dict[str, str] | None = None) -> str:
    """Return one sentence that says which predictor has the least error on ``part``.

    ``words``: what to call a target instead of its label.
    """
    sentences = []
    picked = [row for row in rows if row["part"] == part and row["units"] == "z"]
    for target in dict.fromkeys(row["target"] for row in picked):
        ranked = sorted(
            (row for row in picked if row["target"] == target), key=lambda row: row["rmse"]
        )
        table = ", ".join(f"{row['model']} {row['rmse']:.3g}" for row in ranked)
        best = ranked[0]["model"]
        network = (
            "the network predicts best"
            if best == "network"
            else f"{best} predicts better than the network"
        )
        called = (words or {}).get(target, target)
        sentences.append(f"Target {called}, {part}: {network} (RMSE in z-units: {table}).")
    return " ".join(sentences)
