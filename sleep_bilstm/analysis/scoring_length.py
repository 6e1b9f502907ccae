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
RANGES = {"seconds": (0.05, 3600, False), "f1_weighted": (0, 1, False), "kappa": (-1, 1, True)}
PUBLISHED_TICKS = [*range(1, 11), 15, 20]  # s


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
        # Faithful: 0 to 1 and 0.5 to 20.5 s, wider only for what lies outside.
        low = min(0, np.floor(10 * table[list(COLUMNS[1:])].min().min()) / 10)
        axes.set_ylim(low, 1)
        axes.set_yticks(np.arange(low, 1.01, 0.1))
        axes.set_ylabel(label)
    outside = [s for s in table["seconds"] if not 0.5 <= s <= 20.5]
    left.set_xticks([*PUBLISHED_TICKS, *outside])
    left.set_xlim(min([0.5, *(s - 0.5 for s in outside)]), max([20.5, *(s + 0.5 for s in outside)]))
    left.set_xlabel("Epoch length (s)")
    left.grid(alpha=0.4)
    left.legend(lines, [line.get_label() for line in lines], frameon=False, loc="lower right")
    return figure


def read_lengths(path: Path, own: list[str]) -> pd.DataFrame:
    """Read the table, or build it from `<seconds>=<metrics.json>` pairs when there are any.

    Raises:
        InputError: unreadable files, lengths or scores that are no such numbers, a length twice.
    """
    rows, where = [], path
    if own:
        where = "--metrics"
        for pair in own:
            seconds, _, file = pair.partition("=")
            try:
                held = json.loads(Path(file).read_text(encoding="utf-8"))
                rows.append((seconds, held["f1_weighted"], held["kappa"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{pair}: expected <seconds>=<metrics.json> ({error})") from error
        table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    else:
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    absent = [column for column in COLUMNS if column not in table]
    if absent or table.empty:
        raise InputError(
            f"{path}: lacks {', '.join(absent) or 'rows'}; expected columns {', '.join(COLUMNS)}"
        )
    return checked_lengths(table, str(where))


def checked_lengths(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the table with numbers, by rising length; a kappa that is undefined stays NaN."""
    for column in COLUMNS:
        try:
            values = pd.to_numeric(table[column]).astype(float)
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}: {column} holds no numbers ({error})") from error
        table = table.assign(**{column: values})
        low, high, may_lack = RANGES[column]
        bad = values[~values.between(low, high) & ~(values.isna() & may_lack)]
        if not bad.empty:
            raise InputError(
                f"{where}: {column} is {bad.iloc[0]:g}; expected {low:g} to {high:g}"
                + ("" if column == "seconds" else ", a fraction and no percentage")
            )
    twice = table["seconds"][table["seconds"].duplicated()]
    if not twice.empty:
        raise InputError(f"{where}: {twice.iloc[0]:g} s comes twice; expected each length once")
    return table.sort_values("seconds")


def save_scoring_length(table: pd.DataFrame, path: Path) -> Path:
    """Draw the table and write PNG, PDF and CSV."""
    return save_figure(plot_scoring_length(table), path, table, dpi=PRINT_DPI, pdf=True)
