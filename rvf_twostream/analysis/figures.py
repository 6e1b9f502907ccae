"""Figures of training and evaluation: one function, one figure, saved and closed.

Behind each lies a CSV: the training table, ``predictions.csv`` and ``patients.csv``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure

CALIBRATION = "Calibration over patients in fifths; the numbers are patients per point."


def training_curves(
    history: list[dict],
    path: Path,
    *,
    panels: Sequence[tuple[str, str]],
    best_epoch: int | None = None,
) -> Path:
    """Draw training (blue) and validation (orange) over the epochs; return the path.

    Args:
        history: list of rows of the training table.
        panels: (column, label of the axis) of each panel; ``val_<column>`` is drawn beside it.
        best_epoch: marked by a dashed line.
    """
    figure, axes = new_figure(3.3 * len(panels), 2.9, columns=len(panels), squeeze=False)
    epochs = [row["epoch"] for row in history]
    for axis, (column, label) in zip(axes[0], panels, strict=True):
        for name, colour, title in (
            (column, BLUE, "training"),
            (f"val_{column}", ORANGE, "validation"),
        ):
            if any(row.get(name) is not None for row in history):
                values = [np.nan if row[name] is None else row[name] for row in history]
                axis.plot(epochs, values, "o-", color=colour, label=title, markersize=3)
        if best_epoch is not None:
            axis.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label="best epoch")
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    names = [f"{part}{column}" for column, _ in panels for part in ("", "val_")]
    table = {name: [row.get(name) for row in history] for name in ("epoch", *names)}
    return save_figure(figure, path, table)


def roc(curves: list[tuple], path: Path) -> Path:
    """Draw ROC curves with the paper's two operating points; return the path.

    Args:
        curves: list of (label, y (n,), score (n,)); curves without both classes are left out.
    """
    figure, axis = new_figure(4.4, 4.2)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axis.axhline(0.8, color=GREY, linewidth=0.8, linestyle="--")
    axis.axvline(0.2, color=GREY, linewidth=0.8, linestyle="--")
    drawn = [curve for curve in curves if len(np.unique(curve[1])) == 2]
    rows = []
    for (label, y, score), colour in zip(drawn, (ORANGE, BLUE, GREEN), strict=False):
        false_rate, true_rate, cut = roc_curve(y, score)
        axis.plot(false_rate, true_rate, color=colour, label=label)
        rows += [(label, *row) for row in zip(false_rate, true_rate, cut, strict=True)]
    axis.set(
        xlabel="1 - specificity",
        ylabel="sensitivity",
        title="dashed: 80 % sensitivity, 80 % specificity",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axis.title.set_fontsize(9)
    if drawn:
        axis.legend(frameon=False, loc="lower right")
    else:
        axis.text(0.5, 0.5, "one class only", ha="center")
    header = ("curve", "one_minus_specificity", "sensitivity", "probability_from")
    return save_figure(figure, path, (header, rows))


def calibration(curves: list[tuple], path: Path) -> Path:
    """Draw observed share over mean probability in groups, each with its size; return the path.

    Args:
        curves: list of (label, [(mean probability, observed share, n)]).
    """
    figure, axis = new_figure(4.4, 4.2)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="perfect")
    places = ((0, 5), (0, -11), (6, -3))  # of the numbers, in points: those of curves keep apart
    inks = (ORANGE, BLUE, GREEN)
    for (label, bins), colour, place in zip(curves, inks, places, strict=False):
        mean, share, counts = zip(*bins, strict=True)
        axis.plot(mean, share, "o-", color=colour, label=label)
        for x, y, n in zip(mean, share, counts, strict=True):
            axis.annotate(
                str(n), (x, y), place, textcoords="offset points", ha="center", color=colour,
                fontsize=8,
            )  # fmt: skip
    axis.set(
        xlabel="mean predicted probability",
        ylabel="observed share of RV failure",
        xlim=(-0.02, 1.02),
        ylim=(-0.07, 1.07),  # room for numbers above 1 and below 0
        aspect="equal",
    )
    axis.legend(frameon=False)
    return save_figure(figure, path)
