"""Figures of a training and its predictions (section 8.4); every figure has its CSV beside it."""

import numpy as np

from utils import BLUE, GREEN, GREY, ORANGE, new_figure, save_or_show_plot


def create_plots(iter_losses, epoch_losses, truth, y_pred, *, folder, first_frame=0, label="",
                 suffix="", save=True):  # fmt: skip
    """Draw the three published figures and return their paths.

    Args:
        iter_losses: (iterations,) mean squared error of every training iteration, z-units.
        epoch_losses: (epochs,) its mean per epoch.
        truth, y_pred: (n_test,) of one target, z-units.
        folder: where the figures go.
        first_frame: frame of test index 0.
        label: name of the target.
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
            save=save,
        ),
    ]


def plot_iter_loss(iter_losses, path, *, save=True):
    """Draw the loss of every iteration with a logarithmic axis."""
    figure, axes = new_figure()
    axes.semilogy(iter_losses, color=BLUE, linewidth=0.8)
    axes.set(xlabel="iteration", ylabel="mean squared error (z²)", title="Training loss")
    numbers = {"iteration": np.arange(len(iter_losses)), "mse": np.asarray(iter_losses)}
    return save_or_show_plot(figure, path, numbers, save=save)


def plot_epoch_loss(epoch_losses, path, *, save=True):
    """Draw the mean loss of every epoch with a logarithmic axis."""
    figure, axes = new_figure()
    epochs = np.arange(len(epoch_losses))
    axes.semilogy(epochs, epoch_losses, color=BLUE, marker="o")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="mean squared error (z²)", title="Training loss per epoch")
    numbers = {"epoch": epochs, "mse": np.asarray(epoch_losses)}
    return save_or_show_plot(figure, path, numbers, save=save)


def plot_prediction(truth, y_pred, path, *, first_frame=0, label="", save=True):
    """Draw the test part of one target: true and predicted, with the frames on a second axis."""
    figure, axes = new_figure(9, 4)
    axes.plot(truth, color=GREY, linewidth=1.0, label="True")
    axes.plot(y_pred, color=BLUE, linewidth=0.9, label="Predicted")
    axes.set(xlabel="test index", ylabel="intensity (z-score)")
    axes.legend(loc="upper left", frameon=False)
    top = axes.secondary_xaxis(
        "top", functions=(lambda x: x + first_frame, lambda x: x - first_frame)
    )
    top.spines["right"].set_visible(False)
    top.set_xlabel(f"frame of the recording{f' (target {label})' if label else ''}")
    index = np.arange(len(truth))
    numbers = {"test_index": index, "frame": index + first_frame}
    numbers |= {"true": np.asarray(truth), "predicted": np.asarray(y_pred)}
    return save_or_show_plot(figure, path, numbers, save=save)


def plot_whole_record(truth, parts, path, *, title="", save=True):
    """Draw the whole record of one target with its predictions.

    Args:
        truth: (n,) z-units.
        parts: dict with "Train" and "Test" -> (frames (k,), y_pred (k,)).
            Differs: the published figure draws the training part one frame early.
    """
    figure, axes = new_figure(9, 4)
    axes.plot(truth, color=GREY, linewidth=0.9, label="True")
    numbers = {"frame": np.arange(len(truth)), "true": np.asarray(truth)}
    for (name, (frames, y_pred)), colour in zip(parts.items(), (GREEN, ORANGE), strict=False):
        axes.plot(frames, y_pred, color=colour, linewidth=0.9, label=f"Predicted - {name}")
        column = np.full(len(truth), np.nan)
        column[frames] = y_pred
        numbers[f"predicted_{name.lower()}"] = column
    axes.set(xlabel="frame", ylabel="intensity (z-score)", title=title)
    axes.legend(loc="upper left", frameon=False)
    return save_or_show_plot(figure, path, numbers, save=save)
