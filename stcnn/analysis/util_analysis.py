"""All still figures: traces, tuning, loss, kernels, parameters. One function, one figure.

Every function takes arrays, writes one PNG and returns its path. Source: specification 8, 9.4.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.figures import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, save_figure

PANEL_IN = 1.5  # trace grids
TITLE_LETTERS = 22  # of a line above a panel of a trace grid
KERNEL_IN = 1.75  # six in a row of a report keep their letters readable
HISTOGRAM_IN = 2.5
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, "#000000", "#F0E442")
RECORDED_COLOUR, PREDICTED_COLOUR = ORANGE, BLUE  # in every figure and animation
TRACE_Y = (-0.5, 1.5)
LOSS_RANGE = (1e-3, 1e-1)
HISTOGRAM_BINS = 20


def bare(axis: Axes) -> Axes:
    """Remove the top and right spines."""
    axis.spines[["top", "right"]].set_visible(False)
    return axis


@dataclass(frozen=True)
class Traces:
    """What a grid of traces shows: predictions, and recordings behind them.

    Args:
        seconds: (T,) time axis of the predictions.
        predicted: (stimuli, T) or (stimuli, neurons, T) dF/F.
        spread: standard deviation over an ensemble, same shape as predicted, or None.
        recorded: list of (seconds, (neurons, T)) per stimulus, or None.
    """

    seconds: np.ndarray
    predicted: np.ndarray
    spread: np.ndarray | None = None
    recorded: list[tuple] | None = None


def plot_trace_grid(
    path: Path,
    traces: Traces,
    titles: Sequence[str],
    *,
    shape: tuple[int, int],
    y: tuple[float, float] = TRACE_Y,
    onset_s: float | None = None,
) -> Path:
    """Draw one panel per stimulus: predicted thick blue, recorded neurons thin orange.

    Args:
        path: PNG.
        traces: what is drawn.
        titles: one per stimulus.
        shape: (rows, columns) of the grid; the first stimulus is bottom left.
        y: limits in dF/F.
        onset_s: time of stimulus onset, drawn as a thin line, or None.
    """
    rows, columns = shape
    size = (max(columns, 3) * PANEL_IN, max(rows, 1.4) * PANEL_IN)
    figure = Figure(figsize=size)
    figure.subplots_adjust(hspace=0.35, wspace=0.15)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for i, axis in enumerate(axes[::-1].ravel()):
        bare(axis)
        if i >= len(traces.predicted):
            axis.set_visible(False)
            continue
        if onset_s is not None:
            axis.axvline(onset_s, color="0.8", lw=0.8)
        _draw_traces(axis, traces, i)
        axis.set_title(textwrap.fill(titles[i], TITLE_LETTERS), fontsize=7, pad=2)
        axis.set(xlim=(traces.seconds[0], traces.seconds[-1]), ylim=y)
        axis.tick_params(labelsize=7)
    below = figure.subplotpars.bottom - 0.36 / figure.get_size_inches()[1]  # under the tick labels
    figure.supxlabel("time (s)", fontsize=9, y=below)
    figure.supylabel("dF/F", fontsize=9, x=0.02)
    return save_figure(figure, path, tight=True)


def _draw_traces(axis, traces, i):
    """Draw the traces of stimulus ``i``; many recorded neurons are drawn thinner than one."""
    predicted = traces.predicted[i]
    if traces.recorded is not None:
        seconds, neurons = traces.recorded[i]
        style = {"lw": 1.4} if len(neurons) == 1 else {"lw": 0.5, "alpha": 0.6}
        for trace in neurons:
            axis.plot(seconds, trace, color=RECORDED_COLOUR, **style)
    for row in np.atleast_2d(predicted):
        width = 1.8 if predicted.ndim == 1 else 0.8
        axis.plot(traces.seconds, row, color=PREDICTED_COLOUR, lw=width)
    if traces.spread is not None:
        low, high = predicted - traces.spread[i], predicted + traces.spread[i]
        axis.fill_between(traces.seconds, low, high, color=PREDICTED_COLOUR, alpha=0.25, lw=0)


def plot_size_tuning(path: Path, peaks: np.ndarray, sizes: Sequence[float], title: str) -> Path:
    """Draw peak responses (height, width) as a map, small sizes bottom left."""
    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axis = figure.add_subplot()
    image = axis.imshow(peaks, origin="lower", cmap="viridis", vmin=0, vmax=max(peaks.max(), 1e-6))
    labels = [f"{size:g}" for size in sizes]
    axis.set_xticks(range(len(sizes)), labels)
    axis.set_yticks(range(len(sizes)), labels)
    axis.set(xlabel="width along motion (deg)", ylabel="height (deg)", title=title)
    figure.colorbar(image, ax=axis, label="peak dF/F", shrink=0.85)
    return save_figure(figure, path, tight=True)


def plot_tuning(
    path: Path,
    sizes: Sequence[float],
    maps: dict[str, np.ndarray],
    labels: Sequence[str],
    looming: dict[str, np.ndarray],
) -> Path:
    """Draw size tuning above looming responses, a column per cell type, with CSV.

    Args:
        path: PNG.
        sizes: degrees of the rows (height) and columns (width along the motion) of the maps.
        maps: {type: (heights, widths)} peak dF/F.
        labels: names of the looming stimuli.
        looming: {type: (stimuli,)} peak dF/F.
    """
    figure = Figure(figsize=(3.4 * len(maps) + 1.2, 6.0), layout="constrained")
    axes = figure.subplots(2, len(maps), squeeze=False, sharey="row", height_ratios=(1.4, 1))
    ticks, rows = [f"{size:g}" for size in sizes], []
    for (above, below), kind in zip(axes.T, maps, strict=True):
        top = max(maps[kind].max(), looming[kind].max(), 1e-6)
        image = above.imshow(maps[kind], origin="lower", cmap="viridis", vmin=0, vmax=top,
                             aspect="auto")  # fmt: skip
        above.set_xticks(range(len(sizes)), ticks, fontsize=8)
        above.set_yticks(range(len(sizes)), ticks, fontsize=8)
        above.set(xlabel="width along motion (deg)", title=kind)
        figure.colorbar(image, ax=above, label="peak dF/F")
        bare(below).plot(looming[kind], range(len(labels)), "o", color=PREDICTED_COLOUR)
        below.set_yticks(range(len(labels)), labels, fontsize=8)
        below.set(xlim=(min(0.0, 1.1 * looming[kind].min()), 1.1 * top), xlabel="peak dF/F")
        rows += [
            (kind, f"{sizes[j]:g} x {sizes[i]:g} deg", float(value))
            for (i, j), value in np.ndenumerate(maps[kind])
        ]
        rows += [(kind, name, float(v)) for name, v in zip(labels, looming[kind], strict=True)]
    axes[0, 0].set_ylabel("height (deg)")
    axes[1, 0].invert_yaxis()
    return save_figure(figure, path, (("cell_type", "stimulus", "peak_dff"), rows), tight=True)


def plot_peaks(
    path: Path,
    labels: Sequence[str],
    peaks: dict[str, np.ndarray],
    *,
    spread: dict[str, np.ndarray] | None = None,
    title: str = "",
    xlabel: str = "stimulus",
) -> Path:
    """Draw peak responses per stimulus as points; ``peaks`` is {cell type: (stimuli,)}."""
    figure = Figure(figsize=(max(5.0, 0.55 * len(labels) + 2), 3.6), layout="constrained")
    axis = bare(figure.add_subplot())
    x = np.arange(len(labels))
    for i, (name, values) in enumerate(peaks.items()):
        colour = PALETTE[i % len(PALETTE)]
        error = None if spread is None else spread[name]
        axis.errorbar(x, values, yerr=error, fmt="o-", ms=4, lw=1, color=colour, label=name)
    axis.set_xticks(x, labels, rotation=35, ha="right", fontsize=8)
    axis.set(xlabel=xlabel, ylabel="peak dF/F", title=title)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return save_figure(figure, path, tight=True)


def plot_movie_traces(
    path: Path,
    frames: Sequence[np.ndarray],
    frame_seconds: Sequence[float],
    seconds: np.ndarray,
    curves: dict[str, np.ndarray],
    title: str,
) -> Path:
    """Draw stills of a movie above the predicted traces.

    Args:
        path: PNG.
        frames: (n, rows, columns) contrast stills. frame_seconds: (n,).
        seconds: (T,). curves: {name: (T,)} dF/F.
        title: of the figure.
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    grid = figure.add_gridspec(2, len(frames), height_ratios=(1, 1.8))
    for i, frame in enumerate(frames):
        axis = figure.add_subplot(grid[0, i])
        axis.imshow(frame, cmap="gray", vmin=-0.5, vmax=0.5)
        axis.set_title(f"{frame_seconds[i]:.1f} s", fontsize=8)
        axis.set_axis_off()
    axis = bare(figure.add_subplot(grid[1, :]))
    for i, (name, curve) in enumerate(curves.items()):
        axis.plot(seconds, curve, lw=1.2, color=PALETTE[i % len(PALETTE)], label=name)
    axis.set(xlabel="time (s)", ylabel="predicted dF/F", xlim=(seconds[0], seconds[-1]))
    axis.legend(frameon=False, fontsize=8, ncols=max(1, len(curves) // 2))
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path, tight=True)


def loss_limits(values: list[float]) -> tuple[float, float]:
    """Return the published range of a loss, widened where 1 % of the values lie beyond an end."""
    low, high = LOSS_RANGE
    if not values:
        return low, high
    least, most = np.percentile(values, [1, 99])
    return min(low, float(least)), max(high, float(most))


def plot_loss_history(path: Path, history: dict[str, list[float]], n_epochs: int) -> Path:
    """Draw the loss per batch and its rolling mean over a quarter epoch, log scale, with CSV."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    raw, smooth = (bare(axis) for axis in figure.subplots(2, 1, sharex=True))
    values = [v for losses in history.values() for v in losses if v > 0]
    rows, means_drawn = [], []
    for i, (name, losses) in enumerate(history.items()):
        if not losses:
            continue
        colour = PALETTE[i % len(PALETTE)]
        per_epoch = max(1, len(losses) // max(n_epochs, 1))
        epoch = np.arange(len(losses)) / per_epoch
        raw.plot(epoch, losses, lw=0.5, color=colour, label=name)
        window = min(max(1, per_epoch // 4), len(losses))
        mean = np.convolve(losses, np.ones(window) / window, mode="valid")
        smooth.plot(epoch[window - 1 :], mean, lw=1.2, color=colour, label=name)
        means_drawn += mean.tolist()
        means = [""] * (window - 1) + mean.tolist()
        rows += [(name, *row) for row in zip(epoch.tolist(), losses, means, strict=True)]
    drawn = (raw, "loss per batch", values), (smooth, "rolling mean,\nquarter epoch", means_drawn)
    for axis, label, heights in drawn:
        limits = loss_limits([height for height in heights if height > 0])
        axis.set(yscale="log", ylim=limits, ylabel=f"{label} ((dF/F)²)")
    raw.legend(frameon=False, ncols=len(history), loc="upper right")
    smooth.set_xlabel("epoch")
    table = (("cell_type", "epoch", "loss", "rolling_mean"), rows)
    return save_figure(figure, path, table, tight=True)


def plot_kernels(path: Path, weights: np.ndarray, name: str, degrees: tuple[float, float]) -> Path:
    """Draw kernels (out, in, rows, columns): a row per output, or one row of a single input's.

    White is 0, orange above and purple below, on one scale for all; the CSV has every weight.
    ``degrees`` are those between neighbouring weights, along rows and along columns.
    """
    n_out, n_in, rows, columns = weights.shape
    shape = (1, n_out) if n_in == 1 else (n_out, n_in)
    width, height = KERNEL_IN * shape[1] + 1.4, KERNEL_IN * shape[0] + 0.7
    figure = Figure(figsize=(width, height))
    # In inches, since a solved layout of 100 panels takes minutes.
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.8 / width, bottom=0.5 / height, top=1 - 0.2 / height,
        wspace=0.1, hspace=0.2,
    )  # fmt: skip
    axes = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    high, wide = degrees[0] * rows / 2, degrees[1] * columns / 2
    top = max(float(np.abs(weights).max()), 1e-12)
    for axis, (i, j) in zip(axes.ravel(), np.ndindex(n_out, n_in), strict=True):
        image = axis.imshow(weights[i, j], cmap="PuOr_r", vmin=-top, vmax=top,
                            extent=(-wide, wide, -high, high))  # fmt: skip
        axis.set_title(f"{name}_{i}_{j}", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_xticks(_three_ticks(wide))  # more would reach into the next panel
        axis.set_yticks(_three_ticks(high))
        place = axis.get_subplotspec()
        if not (place.is_first_col() or place.is_last_row()):
            axis.set_axis_off()
    inches = min(KERNEL_IN, height - 0.7)
    place = (1 - 0.7 / width, 0.5 / height, 0.12 / width, inches / height)
    figure.colorbar(image, cax=figure.add_axes(place), label="weight").ax.tick_params(labelsize=7)
    figure.supxlabel("degrees, along rows", fontsize=8, y=0.08 / height)
    figure.supylabel("degrees", fontsize=8, x=0.08 / width)
    up = degrees[0] * ((rows - 1) / 2 - np.arange(rows))
    right = degrees[1] * (np.arange(columns) - (columns - 1) / 2)
    cells = (
        (*place, float(weight), up[place[2]], right[place[3]])
        for place, weight in np.ndenumerate(weights)
    )
    header = ("output", "input", "row", "column", "weight", "up_deg", "right_deg")
    return save_figure(figure, path, (header, cells), tight=True)


def _three_ticks(half):
    """Return ticks at 0 and at a round number on both sides, for an axis of -half to half."""
    tick = float(f"{0.6 * half:.1g}")
    return [-tick, 0.0, tick]


def plot_parameter_histograms(path: Path, groups: dict[str, dict[str, np.ndarray]]) -> Path:
    """Draw a histogram per parameter; ``groups`` is {pattern: {name: values}}, a column each."""
    rows = max(len(group) for group in groups.values())
    figure = Figure(figsize=(HISTOGRAM_IN * 2 * len(groups), HISTOGRAM_IN * rows))
    figure.subplots_adjust(hspace=0.7, wspace=0.3)  # a solved layout of 60 panels takes a minute
    axes = figure.subplots(rows, len(groups), squeeze=False)
    for column, (pattern, group) in enumerate(groups.items()):
        unit = "s" if pattern == ".tau" else "weight"
        for row in range(rows):
            axis = bare(axes[row, column])
            if row >= len(group):
                axis.set_visible(False)
                continue
            name = list(group)[row]
            axis.hist(np.ravel(group[name]), bins=HISTOGRAM_BINS, color=PREDICTED_COLOUR)
            axis.set_title(name, fontsize=9)
            axis.set_xlabel(f"value ({unit})" if unit == "s" else "value", fontsize=8)
            axis.set_ylabel("count", fontsize=8)
    return save_figure(figure, path, tight=True)


def plot_planted(
    path: Path,
    truth: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray],
    names: dict[str, str],
    title: str,
) -> Path:
    """Draw predicted against planted peaks, a panel per cell type, held-out stimuli only.

    Args:
        path: PNG.
        truth, predicted: {type: (items,)} dF/F.
        names: {type: heading}.
        title: of the figure.
    """
    figure = Figure(figsize=(3.4 * len(truth), 3.6), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(truth), squeeze=False)[0], truth, strict=True):
        bare(axis)
        top = max(truth[kind].max(), predicted[kind].max(), 0.1) * 1.05
        low = min(0.0, predicted[kind].min())
        axis.plot([low, top], [low, top], color="0.8", lw=1)
        axis.plot(truth[kind], predicted[kind], "o", ms=4, color=PREDICTED_COLOUR, alpha=0.7)
        axis.set(xlabel="planted peak dF/F", ylabel="predicted peak dF/F", title=names[kind])
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path, tight=True)
