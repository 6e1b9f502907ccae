"""Metrics, confusion figure, state counts and rater comparison (no TensorFlow).

Source: specification section 8.2.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import metrics

from analysis.label_files import classes_in, read_label_vectors  # noqa: F401 (imported from here)
from common.figures import new_figure, save_figure
from common.files import InputError, write_json
from inputs.hypnogram import mouse_names
from inputs.shards import find_records
from inputs.states import STATE_NAMES

BLOCK_S = 300  # length of the blocks that the bootstrap resamples
RESAMPLES = 1000
CALIBRATION_BINS = 10


def class_metrics(y_true: np.ndarray, y_pred: np.ndarray, num_classes: int = 3) -> dict:
    """Return all metrics of two label vectors (N,), over the full list of states.

    Returns:
        dict of plain values: confusion (rows truth), confusion_rownorm, accuracy, kappa, precision,
        recall, f1 and support per state, states_present, f1_macro, f1_macro_present, f1_weighted,
        f1_micro, balanced_accuracy. A ratio that is undefined is 0 in f1_macro and None per state,
        so that an absent state pulls f1_macro down (Faithful); f1_macro_present and
        balanced_accuracy are means over the states that the truth holds. kappa is None when truth
        and prediction are both one identical class.
    """
    labels = np.arange(num_classes)
    confusion = metrics.confusion_matrix(y_true, y_pred, labels=labels)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=labels, zero_division=0
    )
    predicted = confusion.sum(axis=0)
    rows = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    single = len(np.union1d(y_true, y_pred)) < 2
    present = support > 0

    def shown(values, defined):
        return [float(v) if d else None for v, d in zip(values, defined, strict=True)]

    def average(kind):
        return float(metrics.f1_score(y_true, y_pred, labels=labels, average=kind, zero_division=0))

    return {
        "n": len(y_true),
        "states": list(STATE_NAMES[num_classes]),
        "confusion": confusion.tolist(),
        "confusion_rownorm": (confusion / rows).tolist(),
        "accuracy": float(metrics.accuracy_score(y_true, y_pred)),
        "kappa": None
        if single
        else float(metrics.cohen_kappa_score(y_true, y_pred, labels=labels)),
        "precision": shown(precision, predicted > 0),
        "recall": shown(recall, present),
        "f1": shown(f1, present | (predicted > 0)),
        "support": support.tolist(),
        "states_present": [n for n, p in zip(STATE_NAMES[num_classes], present, strict=True) if p],
        "f1_macro": average("macro"),
        "f1_macro_present": float(f1[present].mean()) if present.any() else None,
        "f1_weighted": average("weighted"),
        "f1_micro": average("micro"),
        "balanced_accuracy": float(recall[present].mean()) if present.any() else None,
    }


def kappa_interval(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    groups: np.ndarray,
    *,
    epoch_s: float = 10,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of kappa, from 5-minute blocks within each recording.

    Args:
        y_true, y_pred: (N,) labels in time order.
        groups: (N,) number of the recording of each epoch.
        epoch_s: time from one epoch to the next in s.
        seed: seed of the resampling.

    Returns:
        the interval, or None when no resample has a defined kappa.
    """
    per_block = max(1, round(BLOCK_S / epoch_s))
    blocks = []
    for group in dict.fromkeys(groups):
        places = np.flatnonzero(groups == group)
        blocks += [places[i : i + per_block] for i in range(0, len(places), per_block)]
    rng, values = np.random.default_rng(seed), []
    # Counts per block make each of the resamples a small sum.
    matrices = np.stack(
        [metrics.confusion_matrix(y_true[b], y_pred[b], labels=range(3)) for b in blocks]
    )
    for _ in range(RESAMPLES):
        matrix = matrices[rng.integers(len(blocks), size=len(blocks))].sum(axis=0)
        n = matrix.sum()
        expected = (matrix.sum(axis=0) * matrix.sum(axis=1)).sum() / n**2
        if expected < 1:
            values.append((np.trace(matrix) / n - expected) / (1 - expected))
    return tuple(float(v) for v in np.percentile(values, [2.5, 97.5])) if values else None


def calibration(y_true: np.ndarray, probs: np.ndarray) -> tuple[pd.DataFrame, float]:
    """Return the reliability table of the predicted states and the expected calibration error.

    Args:
        y_true: (N,) labels.
        probs: (N, K) probabilities of all states.

    Returns:
        table with bin_low, bin_high, n, confidence, accuracy per confidence bin; and the error, 0
        to 1.
    """
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == y_true
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    rows = []
    for number in range(CALIBRATION_BINS):
        here = place == number
        rows.append(
            {
                "bin_low": edges[number],
                "bin_high": edges[number + 1],
                "n": int(here.sum()),
                "confidence": confidence[here].mean() if here.any() else np.nan,
                "accuracy": correct[here].mean() if here.any() else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    gap = (table["confidence"] - table["accuracy"]).abs() * table["n"]
    return table, float(gap.sum() / len(y_true))


def all_probabilities(probs: np.ndarray) -> np.ndarray:
    """Return (N, K) probabilities; one sigmoid column p becomes the two columns 1 - p, p."""
    return np.concatenate([1 - probs, probs], axis=1) if probs.shape[1] == 1 else probs


def entropy_bits(probs: np.ndarray) -> np.ndarray:
    """Return the entropy of each row of probabilities (N, K) in bits."""
    return -(probs * np.log2(np.maximum(probs, 1e-12))).sum(axis=1)


def text_of(result: dict) -> str:
    """Return the metrics as a table of text; what is undefined reads "n/a"."""

    def cell(value):
        return "n/a" if value is None else f"{value:.3f}"

    lines = [f"{'':<12} precision    recall        F1   support"]
    for i, name in enumerate(result["states"]):
        values = "".join(f"{cell(result[key][i]):>10}" for key in ("precision", "recall", "f1"))
        lines.append(f"{name:<12}{values}{result['support'][i]:>10}")
    kappa = "undefined" if result["kappa"] is None else cell(result["kappa"])
    absent = [name for name in result["states"] if name not in result["states_present"]]
    only = f" ({cell(result['f1_macro_present'])} without {', '.join(absent)})" if absent else ""
    totals = (
        f"accuracy {cell(result['accuracy'])}",
        f"kappa {kappa}",
        f"F1 unweighted (macro) {cell(result['f1_macro'])}{only}",
        f"F1 weighted {cell(result['f1_weighted'])}",
        f"F1 micro (= accuracy) {cell(result['f1_micro'])}",
    )
    return "\n".join([*lines, "   ".join(totals)])


def confusion_figure(confusion: np.ndarray, path: Path, *, num_classes: int = 3) -> Path:
    """Draw a confusion matrix (rows truth), counts and row percentages, and write its CSV beside
    ``path``.
    """
    confusion = np.asarray(confusion)
    names = STATE_NAMES[num_classes]
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(5.2, 4.2)
    image = axes.imshow(confusion, cmap="Greens", vmin=0)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if count > 0.6 * max(confusion.max(), 1) else "black"
        text = (
            f"{count}\n{100 * share[row, column]:.2f} %"
            if confusion[row].sum()
            else f"{count}\nn/a"
        )
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(num_classes), names)
    axes.set_yticks(range(num_classes), names)
    axes.set_xlabel("Predictions")
    axes.set_ylabel("True Labels")
    figure.colorbar(image, label="number of epochs")
    table = pd.DataFrame(confusion, index=pd.Index(names, name="true"), columns=names)
    return save_figure(figure, path, table.reset_index())


def count_sleep_state(
    labels: np.ndarray, mice: Sequence[str], num_classes: int = 3
) -> pd.DataFrame:
    """Return the number of epochs per mouse (rows) and state (columns)."""
    mice = np.asarray(mice)
    rows = {
        m: [int((labels[mice == m] == s).sum()) for s in range(num_classes)]
        for m in dict.fromkeys(mice)
    }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=STATE_NAMES[num_classes]
    ).rename_axis("mouse")


def count_folder(folder: Path) -> pd.DataFrame:
    """Return the epochs per mouse and state of the tfrecords below ``folder``."""
    records = find_records(folder)
    labels = np.array([record.label for record in records])
    return count_sleep_state(labels, mouse_names(records)).reset_index()


def compare_two_raters(
    first: np.ndarray, second: np.ndarray, out: Path, *, num_classes: int = 3
) -> dict:
    """Compare two label vectors (N,) like truth and prediction; write metrics.json and the
    confusion figure. Epochs that one of them leaves without a state are counted in ``left_out``.

    Raises:
        InputError: no epoch has a state of both.
    """
    both = (first >= 0) & (second >= 0)
    if not both.any():
        raise InputError(f"none of {both.size} epochs has a state in both vectors")
    result = class_metrics(first[both], second[both], num_classes)
    result["left_out"] = int((~both).sum())
    confusion_figure(result["confusion"], out / "confusion.png", num_classes=num_classes)
    write_json(out / "metrics.json", result)
    return result
