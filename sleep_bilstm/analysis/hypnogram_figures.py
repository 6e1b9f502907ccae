"""Colour-coded hypnograms, one row per series of states.

Python port of the published plot_hypnogram.m; specification section 8.5.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection

from common.figures import PRINT_DPI, new_figure, save_figure
from common.files import InputError
from inputs.states import EPOCH_S, STATE_NAMES, STATE_RGB

TITLES = {
    "y_preds": "Attention CNN-BiLSTM",
    "pred": "Attention CNN-BiLSTM",
    "y_trues": "Human scoring",
    "true": "Human scoring",
}
HALF_HOUR_S = 1800
ROW_INCHES = 1.7
AXES_POINTS = 640  # width of the axes in points (1/72 inch)


def plot_hypnogram(
    series: Sequence[np.ndarray], titles: Sequence[str], epoch_seconds: float = EPOCH_S
):
    """Return a figure with one row per label series (N,).

    Epoch l = 1..N is a vertical stroke at x = l from y = s to s + 1 in the colour of state s.

    Raises:
        InputError: an empty series, or as many titles as series are not given.
    """
    series = [np.asarray(labels, float) for labels in series]
    if not series or any(labels.size == 0 for labels in series):
        raise InputError("a hypnogram without epochs cannot be drawn")
    if len(titles) != len(series):
        raise InputError(
            f"{len(series)} series and {len(titles)} titles; expected one title per series"
        )
    figure, grid = new_figure(
        10, 0.6 + ROW_INCHES * len(series), rows=len(series), squeeze=False, sharex=True
    )
    for axes, labels, title in zip(grid[:, 0], series, titles, strict=True):
        scored = np.isfinite(labels) & (labels >= 0)
        x, y = np.flatnonzero(scored) + 1, labels[scored]
        # Strokes of short recordings are widened until neighbours touch.
        width_pt = max(1, AXES_POINTS / (labels.size + 20))
        strokes = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], axis=1)
        axes.add_collection(
            LineCollection(strokes, colors=[STATE_RGB[int(s)] for s in y], linewidths=width_pt)
        )
        axes.set_ylim(0, 3)
        axes.set_yticks([0.5, 1.5, 2.5], STATE_NAMES[3], fontweight="bold")
        axes.set_xlim(0, labels.size + 20)
        axes.set_title(title, fontsize=10)
    # Differs: the published script puts the tick of 3.0 h at epoch 1060 instead of 1080.
    step = HALF_HOUR_S / epoch_seconds
    ticks = np.arange(1, max(labels.size for labels in series) // step + 1)
    if ticks.size:
        grid[-1, 0].set_xticks(ticks * step, [f"{0.5 * tick:.1f}" for tick in ticks])
        grid[-1, 0].set_xlabel("Time (hr)")
    else:
        grid[-1, 0].set_xlabel(f"Epoch ({epoch_seconds:g} s each)")
    return figure


def save_hypnogram(series, titles, path: Path, epoch_seconds: float = EPOCH_S) -> Path:
    """Draw the series and write PNG, PDF and the CSV with one column per series."""
    figure = plot_hypnogram(series, titles, epoch_seconds)
    length = max(len(labels) for labels in series)
    columns = {
        title: pd.Series(np.asarray(labels, float))
        for title, labels in zip(titles, series, strict=True)
    }
    axis = np.arange(length)
    table = pd.DataFrame({"epoch": axis, "time_s": axis * epoch_seconds, **columns})
    return save_figure(figure, path, table, dpi=PRINT_DPI, pdf=True)
