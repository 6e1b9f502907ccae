"""Draw loss and kappa of a training run from its log."""

from pathlib import Path

import pandas as pd

from common.figures import BLUE, ORANGE, new_figure, save_figure


def save_learning_curve(history: pd.DataFrame, path: Path) -> Path:
    """Draw training and validation loss (left) and kappa (right) over epochs, CSV beside it."""
    figure, (left, right) = new_figure(6.6, 2.9, columns=2)
    for axes, key, label in ((left, "loss", "Loss"), (right, "kappa", "Cohen's kappa")):
        axes.plot(history["epoch"], history[key], marker=".", color=BLUE, label="training")
        axes.plot(
            history["epoch"], history[f"val_{key}"], marker=".", color=ORANGE, label="validation"
        )
        axes.set(xlabel="Epoch of training", ylabel=label)
        axes.legend(frameon=False)
    return save_figure(figure, path, history)
