"""Weighted F1 and Cohen's kappa against the length of an input.

Python port of the published plot_scoring_length.m; specification section 8.5.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.figures import BLUE, ORANGE, PRINT_DPI, new_figure, save_figure
from common.files import InputError

COLUMNS = ("seconds", "f1_weighted", "kappa")


def plot_scoring_length(table: pd.DataFrame) -> Figure:
    """Return the figure of a table with columns seconds, f1_weighted and kappa."""
    figure, left = new_figure(6.5, 4)
    right = left.twinx()
    right.spines["right"].set_visible(True)
    lines = left.plot(
        table["seconds"], table["f1_weighted"], color=BLUE, linewidth=2, label="weighted F1"
    )
    lines += right.plot(
        table["seconds"],
        table["kappa"],
        color=ORANGE,
        linewidth=2,
        linestyle="--",
        label="Cohen's kappa",
    )
    for axes, label in ((left, "Weighted F1"), (right, "Cohen's kappa")):
        axes.set_ylim(0, 1)
        axes.set_yticks(np.arange(0, 1.01, 0.1))
        axes.set_ylabel(label)
    left.set_xticks([*range(1, 11), 15, 20])
    left.set_xlim(0.5, 20.5)
    left.set_xlabel("Epoch length (s)")
    left.grid(alpha=0.4)
    left.legend(lines, [line.get_label() for line in lines], frameon=False, loc="lower right")
    return figure


def read_lengths(path: Path, own: list[str]) -> pd.DataFrame:
    """Read the table, or build it from `<seconds>=<metrics.json>` pairs when there are any."""
    if own:
        rows = []
        for pair in own:
            seconds, _, file = pair.partition("=")
            try:
                held = json.loads(Path(file).read_text(encoding="utf-8"))
                rows.append((float(seconds), held["f1_weighted"], held["kappa"]))
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{pair}: expected <seconds>=<metrics.json> ({error})") from error
        return pd.DataFrame(rows, columns=COLUMNS).sort_values("seconds")
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    absent = [column for column in COLUMNS if column not in table]
    if absent or table.empty:
        raise InputError(
            f"{path}: lacks {', '.join(absent) or 'rows'}; expected columns {', '.join(COLUMNS)}"
        )
    return table.sort_values("seconds")


def save_scoring_length(table: pd.DataFrame, path: Path) -> Path:
    """Draw the table and write PNG, PDF and CSV."""
    return save_figure(plot_scoring_length(table), path, table, dpi=PRINT_DPI, pdf=True)
