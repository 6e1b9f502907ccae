"""Colour-coded hypnograms, one row per series of states.

Python port of the published plot_hypnogram.m; specification section 8.5.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from common.figures import PRINT_DPI, new_figure, save_figure
from common.files import InputError
from inputs.states import EPOCH_S, STATE_NAMES, STATE_RGB

TITLES = {
    "y_preds": "Attention CNN-BiLSTM",
    "pred": "Attention CNN-BiLSTM",
    "y_trues": "Human scoring",
    "true": "Human scoring",
}
HOUR_S = 3600
MINUTE_S = 60
SHORT_S = 2 * HOUR_S  # shorter recordings have their axis in minutes
TICK_MINUTES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
TICK_HOURS = (0.5, 1, 2, 5, 10, 20)  # half an hour is the published distance
MOST_TICKS = 10
GAP_COLOUR = "0.85"
ROW_INCHES = 1.7
AXES_POINTS = 640  # width of the axes in points (1/72 inch)
OVERLAP_POINTS = 0.3  # of neighbouring strokes: without it a line of the background shines through


def hour_axis(axes: Axes, count: int, epoch_seconds: float, *, gaps: bool) -> None:
    """Label the x axis of ``count`` epochs in hours, or minutes when there are few; with ``gaps``
    say what is grey.
    """
    short = count * epoch_seconds < SHORT_S
    unit_s, steps = (MINUTE_S, TICK_MINUTES) if short else (HOUR_S, TICK_HOURS)
    length = count * epoch_seconds / unit_s
    step = next((s for s in steps if length / s <= MOST_TICKS), steps[-1])
    # Faithful: hours begin with the first tick after 0; minutes, which are ours, with 0.
    numbers = np.arange(0 if short else 1, int(length / step + 1e-9) + 1)
    # Differs: the published script puts the tick of 3.0 h at epoch 1060 instead of 1080.
    names = [f"{n * step:g}" if short else f"{n * step:.1f}" for n in numbers]
    axes.set_xticks(numbers * step * unit_s / epoch_seconds, names)
    unit = "min" if short else "hr"
    axes.set_xlabel(f"Time ({unit})" + ("; grey: artifact or not scored" if gaps else ""))


def grey_gaps(axes: Axes, gap: np.ndarray, offset: float) -> None:
    """Paint the epochs of ``gap`` (N,) bool grey, each one wide, the first from ``offset`` on."""
    edges = np.flatnonzero(np.diff(np.r_[False, gap, False].astype(int)))
    for start, stop in edges.reshape(-1, 2):
        axes.axvspan(start + offset, stop + offset, color=GAP_COLOUR, linewidth=0, zorder=0)


def plot_hypnogram(
    series: Sequence[np.ndarray],
    titles: Sequence[str],
    epoch_seconds: float = EPOCH_S,
    num_classes: int = 3,
) -> Figure:
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
    any_gap = False
    for axes, labels, title in zip(grid[:, 0], series, titles, strict=True):
        scored = np.isfinite(labels) & (labels >= 0)
        x, y = np.flatnonzero(scored) + 1, labels[scored]
        # Strokes of short recordings are widened until neighbours touch.
        width_pt = max(1, OVERLAP_POINTS + AXES_POINTS / labels.size)
        strokes = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], axis=1)
        axes.add_collection(
            LineCollection(strokes, colors=[STATE_RGB[int(s)] for s in y], linewidths=width_pt)
        )
        grey_gaps(axes, ~scored, 0.5)
        any_gap |= not scored.all()
        # Differs: wakefulness is on top, as hypnograms have it; the published script has REM there.
        axes.set_ylim(num_classes, 0)
        axes.set_yticks(np.arange(num_classes) + 0.5, STATE_NAMES[num_classes], fontweight="bold")
        # Faithful: room for 20 epochs on the right. Differs: at most a fiftieth of the recording,
        # as 20 epochs of a short one look like a part without data.
        axes.set_xlim(0, labels.size + max(0.5, min(20, labels.size / 50)))
        axes.set_title(title, fontsize=10)
    hour_axis(grid[-1, 0], max(labels.size for labels in series), epoch_seconds, gaps=any_gap)
    return figure


def save_hypnogram(
    series: Sequence[np.ndarray],
    titles: Sequence[str],
    path: Path,
    epoch_seconds: float = EPOCH_S,
    *,
    num_classes: int = 3,
    index: pd.DataFrame | None = None,
) -> Path:
    """Draw the series and write PNG, PDF and the CSV with one column per series.

    Args:
        series, titles, epoch_seconds, num_classes: see plot_hypnogram.
        path: the picture.
        index: first columns of the CSV, one row per epoch; numbers and times when absent.
    """
    figure = plot_hypnogram(series, titles, epoch_seconds, num_classes)
    if index is None:
        axis = np.arange(max(len(labels) for labels in series))
        index = pd.DataFrame({"epoch": axis, "time_s": axis * epoch_seconds})
    columns = {}
    for title, labels in zip(titles, series, strict=True):
        name, number = title, 2
        while name in columns or name in index:  # two rows may be called alike
            name, number = f"{title} ({number})", number + 1
        columns[name] = pd.Series(np.asarray(labels, float))
    return save_figure(figure, path, index.assign(**columns), dpi=PRINT_DPI, pdf=True)
