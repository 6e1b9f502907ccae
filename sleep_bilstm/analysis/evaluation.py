"""From probabilities to results: prediction tables, metrics per mouse, calibration, hypnograms,
files.

Source: specification sections 4.5, 8.1, 8.2 and 13.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.hypnogram_figures import save_hypnogram
from analysis.smoothing import class_shares, smooth, transition_matrix
from analysis.tables import write_table
from analysis.utils import (
    all_probabilities,
    calibration,
    class_metrics,
    confusion_figure,
    entropy_bits,
    kappa_interval,
    text_of,
)
from common.figures import BLUE, GREY, new_figure, save_figure
from common.files import write_json
from inputs.dataloader_sleep import Epochs
from inputs.hypnogram import Hypnogram, mouse_names, places_of_mice
from inputs.mat_writer import save_mat
from inputs.states import EPOCH_S, HUMAN_KAPPA, NO_LABEL

log = logging.getLogger(__name__)
PROBABILITY_COLUMNS = {3: ("p_wake", "p_nrem", "p_rem"), 2: ("p_wake", "p_sleep")}


def prediction_table(
    epochs: Epochs, probs: np.ndarray, *, min_confidence: float = 0.0
) -> pd.DataFrame:
    """Return one row per epoch: mouse, run, epoch, time_s, true, pred, probabilities, entropy and
    confidence.

    Args:
        epochs: the epochs, labels -1 where unknown.
        probs: (N, K) or (N, 1).
        min_confidence: an epoch whose highest probability is lower is marked uncertain; 0 leaves
            the column out.
    """
    columns = all_probabilities(probs)
    records = epochs.records
    time_s = np.empty(len(records), int)
    for mouse, places in places_of_mice(records).items():
        own = [records[i] for i in places]
        axis = Hypnogram.of_records(mouse, own, epochs.labels[places])
        time_s[places] = axis.places([r.run for r in own], [r.epoch for r in own]) * EPOCH_S
    table = pd.DataFrame(
        {
            "mouse": mouse_names(records),
            "date": [r.date for r in records],
            "tag": [r.mouse for r in records],
            "run": [r.run for r in records],
            "epoch": [r.epoch for r in records],
            "time_s": time_s,
            "true": epochs.labels,
            "pred": columns.argmax(axis=1)
            if probs.shape[1] > 1
            else (probs[:, 0] > 0.5).astype(int),
        }
    )
    for name, values in zip(PROBABILITY_COLUMNS[columns.shape[1]], columns.T, strict=True):
        table[name] = values
    table["entropy_bits"] = entropy_bits(columns)
    if min_confidence:
        table["uncertain"] = columns.max(axis=1) < min_confidence
    return table


def without_evidence(
    table: pd.DataFrame, flags: list[str], scores: np.ndarray, *, keep: bool = False
) -> pd.DataFrame:
    """Return a prediction table with why an epoch has no evidence of a state, and its score.

    Such an epoch has no state (-1) unless ``keep``; see analysis/evidence.py.
    """
    table = table.assign(flag=flags, artifact_score=scores)
    if not keep:
        table.loc[table["flag"] != "", "pred"] = NO_LABEL
    return table


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """Return the probabilities (N, K) of a prediction table."""
    return table[[c for c in table.columns if c.startswith("p_")]].to_numpy()


def recording_numbers(table: pd.DataFrame) -> np.ndarray:
    """Return (N,) a number per recording of a prediction table."""
    return table.groupby(["mouse", "run"], sort=False).ngroup().to_numpy()


def save_mouse(
    table: pd.DataFrame, axis: Hypnogram, out: Path, name: str, *, hypnogram: bool = True
) -> None:
    """Write the results of one mouse as `<name>.mat`, `<name>.csv` and a hypnogram.

    The hypnogram stands on the time axis of the session: artifacts and epochs without a result are
    gaps.
    """
    probs = probabilities_of(table)
    known = bool((table["true"] >= 0).all())
    variables = {
        "y_preds": table["pred"].to_numpy()[None],
        "y_scores": probs if probs.shape[1] == 3 else probs[:, 1:],
        "run": table["run"].to_numpy()[None],
        "epoch": table["epoch"].to_numpy()[None],
        "time_s": table["time_s"].to_numpy()[None],
        "num_classes": probs.shape[1],
    }
    if known:
        variables["y_trues"] = table["true"].to_numpy()[None]
    save_mat(out / f"{name}.mat", variables)
    write_table(table if known else table.drop(columns="true"), out / f"{name}.csv")
    if hypnogram:
        series, titles = [table["pred"]], ["Attention CNN-BiLSTM"]
        if "smoothed" in table:
            series, titles = (
                [*series, table["smoothed"]],
                [*titles, "Attention CNN-BiLSTM, smoothed"],
            )
        if known:
            series, titles = [*series, table["true"]], [*titles, "Scoring of the recording"]
        places = axis.places(table["run"], table["epoch"])
        series = [axis.on_axis(places, one) for one in series]
        save_hypnogram(
            series,
            titles,
            out / f"{name}_hypnogram.png",
            axis.epoch_s,
            num_classes=probs.shape[1],
            index=pd.DataFrame(axis.columns),
        )


def learnt_from(train: Epochs) -> tuple[np.ndarray, np.ndarray]:
    """Return transition_matrix (K, K) and class_shares (K,) of the labels of training epochs."""
    place = sorted(range(len(train.records)), key=lambda i: _time_key(train.records[i]))
    records = [train.records[i] for i in place]
    recording = (
        pd.DataFrame([(r.date, r.mouse, r.run) for r in records])
        .groupby([0, 1, 2], sort=False)
        .ngroup()
        .to_numpy()
    )
    epoch = np.array([r.epoch for r in records])
    labels, classes = train.labels[place], train.view.num_classes
    return transition_matrix(labels, [recording, epoch], classes), class_shares(labels, classes)


def add_smoothed(
    table: pd.DataFrame, kind: str, learnt: Epochs | tuple[np.ndarray, np.ndarray] | None
) -> pd.DataFrame:
    """Return the table with a column ``smoothed``; epochs without a state stay without.

    Args:
        table: of prediction_table.
        kind: see smooth.
        learnt: of "hmm": training epochs, or what learnt_from returns of them.
    """
    if kind == "none":
        return table
    if isinstance(learnt, Epochs):
        learnt = learnt_from(learnt) if kind == "hmm" else None
    states = table["pred"].to_numpy().copy()
    use = states >= 0
    own = table[use]
    states[use] = smooth(
        kind, probabilities_of(own), recording_numbers(own), own["epoch"].to_numpy(), learnt
    )
    return table.assign(smoothed=states)


def _time_key(record):
    return record.date, record.mouse, record.run, record.epoch


def evaluate(table: pd.DataFrame, split_text: str) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """Return the metrics of a labelled prediction table.

    Returns:
        metrics (plain values: overall, kappa_interval_95, expected_calibration_error, smoothed,
        split); table per mouse with mean and standard deviation; reliability table.
    """
    probs = probabilities_of(table)
    classes = probs.shape[1]
    true, pred = table["true"].to_numpy(), table["pred"].to_numpy()
    result = {"split": split_text, **class_metrics(true, pred, classes)}
    if classes == 3:  # the raters told three states apart
        result["kappa_human_raters_published"] = HUMAN_KAPPA
    interval = kappa_interval(true, pred, recording_numbers(table), epoch_s=EPOCH_S)
    result["kappa_interval_95"] = list(interval) if interval else None
    reliability, error = calibration(true, probs)
    result["expected_calibration_error"] = error
    if "smoothed" in table:
        result["smoothed"] = class_metrics(true, table["smoothed"].to_numpy(), classes)
    rows = []
    for mouse, part in table.groupby("mouse", sort=False):
        own = class_metrics(part["true"].to_numpy(), part["pred"].to_numpy(), classes)
        rows.append(
            {
                "mouse": mouse,
                "date": part["date"].iloc[0],
                "tag": part["tag"].iloc[0],
                **{k: own[k] for k in ("n", "accuracy", "kappa", "f1_macro", "f1_weighted")},
                "f1_macro_present": own["f1_macro_present"],
                "states_present": " ".join(own["states_present"]),
            }
        )
    per_mouse = pd.DataFrame(rows)
    numbers = per_mouse.drop(columns=["mouse", "date", "tag", "states_present"]).astype(float)
    summary = pd.DataFrame([{"mouse": "mean", **numbers.mean()}, {"mouse": "sd", **numbers.std()}])
    return result, pd.concat([per_mouse, summary], ignore_index=True), reliability


def reliability_figure(table: pd.DataFrame, error: float, path: Path) -> Path:
    """Draw accuracy against confidence with the number of epochs per bin."""
    figure, axes = new_figure(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
    used = table[table["n"] > 0]
    axes.plot(used["confidence"], used["accuracy"], marker="o", color=BLUE, label="network")
    for row in used.itertuples():
        axes.annotate(
            f"{row.n}",
            (row.confidence, row.accuracy),
            textcoords="offset points",
            xytext=(6, -10),
            fontsize=8,
        )
    axes.set(
        xlim=(0, 1.05), ylim=(0, 1.05), xlabel="Confidence (highest probability)", ylabel="Accuracy"
    )
    axes.set_title(f"Expected calibration error {error:.3f}; numbers are epochs", fontsize=9)
    axes.legend(frameon=False, loc="upper left")
    return save_figure(figure, path, table)


def write_results(
    table: pd.DataFrame,
    axes: dict[str, Hypnogram],
    out: Path,
    split_text: str,
    *,
    seconds: float,
    hypnograms: bool = True,
) -> dict:
    """Write everything about a labelled prediction table into ``out`` and return the metrics.

    Writes metrics.json, predictions.csv, per_mouse.csv, confusion.png, reliability.png (each with
    its CSV), the .mat and CSV of every mouse, and with ``hypnograms`` its hypnogram: the test part
    of an epoch or block split has gaps that a hypnogram would hide.
    """
    metrics, mice, reliability = evaluate(table, split_text)
    classes = len(metrics["states"])
    write_table(table, out / "predictions.csv")
    write_table(mice, out / "per_mouse.csv")
    confusion_figure(metrics["confusion"], out / "confusion.png", num_classes=classes)
    reliability_figure(reliability, metrics["expected_calibration_error"], out / "reliability.png")
    for mouse, part in table.groupby("mouse", sort=False):
        name = f"{mouse}_{seconds:g}s"
        save_mouse(part.reset_index(drop=True), axes[mouse], out, name, hypnogram=hypnograms)
    write_json(out / "metrics.json", metrics)
    log.info("%s", split_text)
    log.info("%s", text_of(metrics))
    if classes == 3:
        log.info("for comparison: two human raters of EEG/EMG agree with kappa %.2f", HUMAN_KAPPA)
    if "smoothed" in metrics:
        log.info("smoothed:\n%s", text_of(metrics["smoothed"]))
    return metrics
