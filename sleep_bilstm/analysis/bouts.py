"""Bouts and transitions of a hypnogram.

Python port of the published fragmented_sleep.m; specification section 8.5.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.label_files import read_labels
from common.files import InputError
from inputs.states import EPOCH_S, STATE_NAMES


def sleep_statistics(
    labels: np.ndarray,
    parts: list[slice] | None = None,
    *,
    epoch_s: float = EPOCH_S,
    num_classes: int = 3,
) -> dict:
    """Return bouts per state, transitions and transition counts.

    Args:
        labels: (N,) states 0 wake, 1 NREM, 2 REM (or 0 wake, 1 sleep) in time order.
        parts: stretches without a gap; a bout ends where a stretch ends. All of it when None.
        epoch_s: length of an epoch in s.
        num_classes: 3, or 2 with NREM and REM joined.

    Returns:
        dict: states (names); per state name bouts (lengths in epochs), n, mean_s, median_s, max_s
            (NaN when absent), total_s, percent; transitions; pair_counts (K, K), i to i included;
            probabilities (K, K); transitions_per_hour.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise InputError("the hypnogram is empty; expected at least one epoch")
    names = STATE_NAMES[num_classes]
    bouts = {state: [] for state in range(len(names))}
    pairs = np.zeros((len(names), len(names)), int)
    for part in parts or [slice(None)]:
        piece = labels[part]
        edges = np.flatnonzero(np.diff(piece)) + 1
        for bout in np.split(piece, edges):
            bouts[int(bout[0])].append(len(bout))
        np.add.at(pairs, (piece[:-1], piece[1:]), 1)
    transitions = int(pairs.sum() - np.trace(pairs))
    rows = pairs.sum(axis=1, keepdims=True)
    probabilities = np.divide(pairs, rows, out=np.full(pairs.shape, np.nan), where=rows > 0)
    result = {
        "states": list(names),
        "transitions": transitions,
        "transitions_per_hour": transitions / (labels.size * epoch_s / 3600),
        "pair_counts": pairs,
        "probabilities": probabilities,
    }
    for state, name in enumerate(names):
        seconds = np.array(bouts[state]) * epoch_s
        result[name] = {
            "bouts": bouts[state],
            "n": len(bouts[state]),
            "mean_s": float(seconds.mean()) if seconds.size else math.nan,
            "median_s": float(np.median(seconds)) if seconds.size else math.nan,
            "max_s": float(seconds.max()) if seconds.size else math.nan,
            "total_s": float(seconds.sum()),
            "percent": 100 * float((labels == state).mean()),
        }
    return result


def first_line(statistics: dict) -> str:
    """Return the line of the published script: mean seconds per state and the transitions."""
    means = [statistics[name]["mean_s"] for name in statistics["states"]]
    shown = ", ".join(
        f"{name} {'-' if math.isnan(mean) else round(mean)} s"
        for name, mean in zip(statistics["states"], means, strict=True)
    )
    return f"mean bout: {shown}; transitions: {statistics['transitions']}"


def statistics_table(statistics: dict) -> pd.DataFrame:
    """Return one row per state."""
    keys = ("n", "mean_s", "median_s", "max_s", "total_s", "percent")
    return pd.DataFrame(
        [{"state": name, **{k: statistics[name][k] for k in keys}} for name in statistics["states"]]
    )


def as_json(statistics: dict) -> dict:
    """Return the statistics as plain values, NaN as None."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, list):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return plain(statistics)


def read_states(path: Path, key: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Read states, run and epoch numbers from a CSV or .mat result; run and epoch are None when
    absent.
    """
    file = read_labels(path, [key])
    return file.states[0], file.run, file.epoch
