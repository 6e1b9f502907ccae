"""Figures of a training and its predictions (section 8.4); every figure has its CSV beside it."""

from pathlib import Path

import numpy as np

from analysis.utils import save_or_show_plot
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure


def create_plots(
    iter_losses: np.ndarray,
    epoch_losses: np.ndarray,
    truth: np.ndarray,
    y_pred: np.ndarray,
    *,
    folder: Path,
    first_frame: int = 0,
    label: str = "",
    rate_hz: float | None = None,
    suffix: str = "",
    save: bool = True,
) -> list[Path | None]:
    """Draw the three published figures and return their paths.

    Args:
        iter_losses: (iterations,) mean squared error of every training iteration, z-units.
        epoch_losses: (epochs,) its mean per epoch.
        truth, y_pred: (n_test,) of one target, z-units.
        folder: where the figures go.
        first_frame: frame of test index 0.
        label: name of the target.
        rate_hz: frames per second, None where they are not known.
        suffix: end of the name of the prediction's file, for a second target.
    """
    return [
        plot_iter_loss(iter_losses, folder / "iter_loss.png", save=save),
        plot_epoch_loss(epoch_losses, folder / "epoch_loss.png", save=save),
        plot_prediction(
            truth,
            y_pred,
            folder / f"final_predicted{suffix}.png",
            first_frame=first_frame,
            label=label,
            rate_hz=rate_hz,
            save=save,
        ),
    ]


def plot_iter_loss(iter_losses: np.ndarray, path: Path, *, save: bool = True) -> Path | None:
    """Draw the loss of every iteration with a logarithmic axis."""
    figure, axes = new_figure(6.6, 3.4)
    axes.semilogy(iter_losses, color=BLUE, linewidth=0.8)
    axes.set(xlabel="iteration", ylabel="mean squared error (z²)", title="Training loss")
    numbers = {"iteration": np.arange(len(iter_losses)), "mse": np.asarray(iter_losses)}
    return save_or_show_plot(figure, path, numbers, save=save)


def plot_epoch_loss(epoch_losses: np.ndarray, path: Path, *, save: bool = True) -> Path | None:
    """Draw the mean loss of every epoch with a logarithmic axis."""
    figure, axes = new_figure(6.6, 3.4)
    epochs = np.arange(len(epoch_losses))
    axes.semilogy(epochs, epoch_losses, color=BLUE, marker="o")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="mean squared error (z²)", title="Training loss per epoch")
    numbers = {"epoch": epochs, "mse": np.asarray(epoch_losses)}
    return save_or_show_plot(figure, path, numbers, save=save)


def plot_prediction(
    truth: np.ndarray,
    y_pred: np.ndarray,
    path: Path,
    *,
    first_frame: int = 0,
    label: str = "",
    rate_hz: float | None = None,
    save: bool = True,
) -> Path | None:
    """Draw the test part of one target: true and predicted, with the frames on a second axis."""
    figure, axes = new_figure(6.6, 3.6)
    axes.plot(truth, color=GREY, linewidth=1.0, label="True")
    axes.plot(y_pred, color=BLUE, linewidth=0.9, label="Predicted")
    axes.set(xlabel="test index", ylabel="intensity (z-score)")
    axes.legend(loc="upper left", frameon=False)
    top = axes.secondary_xaxis(
        "top",
        functions=(
            lambda x: (x + first_frame) / (rate_hz or 1),
            lambda x: x * (rate_hz or 1) - first_frame,
        ),
    )
    top.spines["right"].set_visible(False)
    axes.set_title(label and f"Target {label}", pad=8)
    top.set_xlabel("time in the recording (s)" if rate_hz else "frame of the recording")
    index = np.arange(len(truth))
    numbers = {"test_index": index, "frame": index + first_frame}
    numbers |= {"true": np.asarray(truth), "predicted": np.asarray(y_pred)}
    return save_or_show_plot(figure, path, numbers, save=save)


def plot_whole_record(
    truth: np.ndarray,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    path: Path,
    *,
    title: str = "",
    rate_hz: float | None = None,
    save: bool = True,
) -> Path | None:
    """Draw the whole record of one target with its predictions.

    Args:
        truth: (n,) z-units.
        parts: dict with "Train" and "Test" -> (frames (k,), y_pred (k,)).
            Differs: the published figure draws the training part one frame early.
    """
    figure, axes = new_figure(6.6, 3.6)
    axes.plot(truth, color=GREY, linewidth=0.9, label="True")
    numbers = {"frame": np.arange(len(truth)), "true": np.asarray(truth)}
    for (name, (frames, y_pred)), colour in zip(parts.items(), (GREEN, ORANGE), strict=False):
        axes.plot(frames, y_pred, color=colour, linewidth=0.9, label=f"Predicted - {name}")
        column = np.full(len(truth), np.nan)
        column[frames] = y_pred
        numbers[f"predicted_{name.lower()}"] = column
    axes.set(xlabel="frame", ylabel="intensity (z-score)")
    if rate_hz:
        top = axes.secondary_xaxis("top", functions=(lambda x: x / rate_hz, lambda x: x * rate_hz))
        top.spines["right"].set_visible(False)
        top.set_xlabel("time (s)")
    axes.set_title(title, pad=8)
    axes.legend(loc="upper left", frameon=False)
    return save_or_show_plot(figure, path, numbers, save=save)
