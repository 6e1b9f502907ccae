"""Attention weights: mean per state, in time, histograms, around transitions.

Python port of the published visualize_attention_weights.m; specification section 8.5.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.hypnogram_figures import grey_gaps, hour_axis
from analysis.label_files import epoch_length, held_in, read_labels, with_classes
from common.figures import BLUE, ORANGE, PRINT_DPI, new_figure, save_figure
from common.files import InputError
from inputs.states import EPOCH_S, STATE_NAMES, STATE_RGB

GAP = 30  # samples on each side of a transition
BINS = 100
NO_STATE_RGB = (0.6, 0.6, 0.6)  # of epochs without a predicted state
RELATIVE = "Attention weight x steps (1 = even)"


def rescale_rows(weights: np.ndarray) -> np.ndarray:
    """Rescale each row of weights (N, F) to 0..1; a constant row becomes 0."""
    low = weights.min(axis=1, keepdims=True)
    span = np.ptp(weights, axis=1, keepdims=True)
    return np.divide(weights - low, span, out=np.zeros_like(weights, dtype=float), where=span > 0)


def effective_steps(weights: np.ndarray) -> np.ndarray:
    """Return (N,) over how many time steps the weights (N, F) of an epoch are spread, 1 to F.

    Rescaled rows always reach from 0 to 1; this number tells sharp attention from even attention.
    """
    return weights.sum(axis=1) ** 2 / np.maximum((weights**2).sum(axis=1), 1e-30)


def probability_histogram(values: np.ndarray) -> np.ndarray:
    """Return the fraction of ``values`` in each of 100 bins on 0..1; zeros without values."""
    counts = np.histogram(values, bins=BINS, range=(0, 1))[0]
    return counts / max(values.size, 1)


@dataclass(frozen=True)
class AttentionStatistics:
    """What the figures show.

    Attributes:
        names: of the states.
        rescaled: (N, F) rows rescaled to 0..1, as published: a nearly even row looks as strong as a
            sharp one.
        relative: (N, F) weight times number of steps: 1 is even attention.
        means: per state mean of ``rescaled`` over its predicted epochs (F,), NaN when absent.
        relative_means: the same of ``relative``.
        counts: per state number of epochs.
        effective: per state median of effective_steps, NaN when absent.
        histograms: per state (100,).
        transition, other: samples around transitions and the rest; None without true states.
        time_s: (N,) start of every epoch on the axis of the session, in s; None when not known.
    """

    names: tuple[str, ...]
    rescaled: np.ndarray
    relative: np.ndarray
    means: list
    relative_means: list
    counts: list
    effective: list
    histograms: list
    transition: np.ndarray | None
    other: np.ndarray | None
    time_s: np.ndarray | None = None


def attention_statistics(
    weights: np.ndarray,
    y_pred: np.ndarray,
    y_true: np.ndarray | None = None,
    gap: int = GAP,
    *,
    num_classes: int = 3,
    parts: list[slice] | None = None,
    time_s: np.ndarray | None = None,
) -> AttentionStatistics:
    """Reduce weights (N, F) by predicted state (N,) and around changes of the true state (N,).

    Around every change from epoch i-1 to i lie the 2 gap + 1 samples centred on the last sample of
    epoch i-1, clipped to the recording. Differs: epochs are joined row after row; the published
    script interleaves them. With ``parts``, stretches of epochs that follow each other, neither a
    change nor a sample is looked for across their borders; the published script joins them.
    """
    weights = np.asarray(weights, float)
    rescaled, steps = rescale_rows(weights), effective_steps(weights)
    n_frames = rescaled.shape[1]
    relative = weights * n_frames
    means, relative_means, counts, effective, histograms = [], [], [], [], []
    for state in range(num_classes):
        own = y_pred == state
        counts.append(int(own.sum()))
        effective.append(float(np.median(steps[own])) if own.any() else np.nan)
        for kept, values in ((means, rescaled), (relative_means, relative)):
            kept.append(values[own].mean(axis=0) if own.any() else np.full(n_frames, np.nan))
        histograms.append(probability_histogram(rescaled[own]))
    common = {
        "names": STATE_NAMES[num_classes],
        "rescaled": rescaled,
        "relative": relative,
        "means": means,
        "relative_means": relative_means,
        "counts": counts,
        "effective": effective,
        "histograms": histograms,
        "time_s": time_s,
    }
    if y_true is None:
        return AttentionStatistics(**common, transition=None, other=None)
    flat = rescaled.ravel()
    near = np.zeros(flat.size, bool)
    pooled = []
    for part in parts or [slice(0, len(y_true))]:
        first, last = part.start * n_frames, part.stop * n_frames
        true = y_true[part]
        # An epoch that nobody scored is no other state.
        changes = (np.diff(true) != 0) & (true[:-1] >= 0) & (true[1:] >= 0)
        for epoch in part.start + np.flatnonzero(changes) + 1:
            centre = epoch * n_frames - 1
            around = slice(max(first, centre - gap), min(last, centre + gap + 1))
            pooled.append(flat[around])
            near[around] = True
    transition = np.concatenate(pooled) if pooled else np.empty(0)
    return AttentionStatistics(**common, transition=transition, other=flat[~near])


def mark_even(axes: Axes, rescaled: bool) -> None:
    """Draw the line of even attention, which rescaled weights do not have."""
    if not rescaled:
        axes.axhline(1, color="0.3", linewidth=0.8, linestyle="--")


def plot_means(
    statistics: AttentionStatistics, epoch_seconds: float = EPOCH_S, *, rescaled: bool = False
) -> Figure:
    """Return bar charts of the mean weight per time step, one per predicted state.

    Differs: weight times number of steps. With ``rescaled`` rows are rescaled to 0..1, as
    published, so that the state whose attention is nearly even looks strongest.
    """
    figure, row = new_figure(11, 3.2, columns=len(statistics.names), sharey=True)
    for state, axes in enumerate(row):
        mean = (statistics.means if rescaled else statistics.relative_means)[state]
        mark_even(axes, rescaled)
        if statistics.counts[state]:
            axes.bar(np.arange(1, mean.size + 1), mean, width=1, color=STATE_RGB[state])
        title = f"{statistics.names[state]} ({statistics.counts[state]} epochs)"
        if statistics.counts[state]:
            title += f", spread over {statistics.effective[state]:.0f} of {mean.size} steps"
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"Time step ({mean.size} in {epoch_seconds:g} s)")
    row[0].set_ylabel("Average attention weights" if rescaled else RELATIVE)
    return figure


def plot_in_time(
    statistics: AttentionStatistics,
    y_pred: np.ndarray,
    epoch_seconds: float = EPOCH_S,
    *,
    rescaled: bool = False,
) -> Figure:
    """Return all weights of a session in time order, coloured by predicted state; gaps are grey.

    Epochs without known times follow each other. ``rescaled``: see plot_means.
    """
    weights = statistics.rescaled if rescaled else statistics.relative
    figure, axes = new_figure(11, 3.0)
    n, n_frames = weights.shape
    known = statistics.time_s is not None
    place = np.round(statistics.time_s / epoch_seconds).astype(int) if known else np.arange(n)
    count = int(place.max()) + 1 if n else 1
    x = (place[:, None] + np.arange(n_frames) / n_frames).ravel()
    height = weights.ravel()
    bars = np.stack([np.stack([x, np.zeros_like(x)], 1), np.stack([x, height], 1)], axis=1)
    colours = np.array([*STATE_RGB, NO_STATE_RGB])[np.repeat(y_pred, n_frames)]  # the last is -1
    axes.add_collection(LineCollection(bars, colors=colours, linewidths=0.5, rasterized=True))
    gap = ~np.isin(np.arange(count), place)
    grey_gaps(axes, gap, 0.0)
    hour_axis(axes, count, epoch_seconds, gaps=bool(gap.any()))
    mark_even(axes, rescaled)
    top = 1.02 if rescaled else 1.02 * max(1.0, float(height.max(initial=0)))
    axes.set(xlim=(0, count), ylim=(0, top))
    axes.set_ylabel("Attention weights" if rescaled else RELATIVE)
    for state, name in enumerate(statistics.names):
        axes.plot([], [], color=STATE_RGB[state], linewidth=4, label=name)
    if (np.asarray(y_pred) < 0).any():
        axes.plot([], [], color=NO_STATE_RGB, linewidth=4, label="no state")
    figure.legend(frameon=False, loc="outside upper right", ncols=4)
    return figure


def plot_histograms(statistics: AttentionStatistics) -> Figure:
    """Return the distributions of the rescaled weights, one per predicted state."""
    figure, row = new_figure(11, 3.0, columns=len(statistics.names), sharey=True)
    edges = np.linspace(0, 1, BINS + 1)
    for state, axes in enumerate(row):
        axes.stairs(statistics.histograms[state], edges, fill=True, color=STATE_RGB[state])
        axes.set_yscale("log")
        axes.set_title(statistics.names[state], fontsize=10)
        axes.set_xlabel("Attention weight (rescaled per epoch)")
    row[0].set_ylabel("Probability")
    return figure


def plot_transitions(statistics: AttentionStatistics) -> Figure:
    """Return both distributions: samples around transitions and all others."""
    figure, axes = new_figure(5.5, 3.4)
    edges = np.linspace(0, 1, BINS + 1)
    for values, colour, label in (
        (statistics.transition, ORANGE, "around transitions"),
        (statistics.other, BLUE, "all other samples"),
    ):
        axes.stairs(
            probability_histogram(values), edges, color=colour, label=f"{label} (n = {values.size})"
        )
    axes.set_yscale("log")
    axes.set(xlabel="Attention weight (rescaled per epoch)", ylabel="Probability")
    axes.legend(frameon=False)
    return figure


def save_attention_figures(
    statistics: AttentionStatistics,
    y_pred: np.ndarray,
    out: Path,
    mouse: str,
    *,
    rescaled: bool = False,
    epoch_s: float = EPOCH_S,
) -> list[Path]:
    """Draw and save all figures of one mouse, PNG and PDF, with their CSV; return the pictures.

    ``rescaled``: see plot_means; histograms and transitions are of rescaled weights either way.
    """
    look = {"dpi": PRINT_DPI, "pdf": True}
    names, edges = statistics.names, np.linspace(0, 1, BINS + 1)[:-1]
    n_frames = statistics.rescaled.shape[1]
    means = statistics.means if rescaled else statistics.relative_means
    shown = statistics.rescaled if rescaled else statistics.relative
    steps = pd.DataFrame(
        {
            "time_step": np.arange(1, n_frames + 1),
            **dict(zip(names, means, strict=True)),
        }
    )
    bins = pd.DataFrame({"bin_low": edges, **dict(zip(names, statistics.histograms, strict=True))})
    in_time = pd.DataFrame(shown, columns=[f"w{i}" for i in range(n_frames)])
    in_time = in_time.assign(pred=y_pred)
    if statistics.time_s is not None:
        in_time.insert(0, "time_s", statistics.time_s)
    saved = [
        save_figure(
            plot_means(statistics, epoch_s, rescaled=rescaled),
            out / f"{mouse}_attention_means.png",
            steps,
            **look,
        ),
        save_figure(
            plot_in_time(statistics, y_pred, epoch_s, rescaled=rescaled),
            out / f"{mouse}_attention_in_time.png",
            in_time,
            **look,
        ),
        save_figure(
            plot_histograms(statistics), out / f"{mouse}_attention_histograms.png", bins, **look
        ),
    ]
    if statistics.transition is not None and statistics.transition.size:
        both = pd.DataFrame(
            {
                "bin_low": edges,
                "transition": probability_histogram(statistics.transition),
                "other": probability_histogram(statistics.other),
            }
        )
        saved.append(
            save_figure(
                plot_transitions(statistics),
                out / f"{mouse}_attention_transitions.png",
                both,
                **look,
            )
        )
    return saved


@dataclass(frozen=True)
class Weights:
    """Attention weights read from a file.

    Attributes:
        weights: (N, F).
        y_pred, y_true: (N,) states, -1 none; y_true None when not known.
        parts: stretches of epochs that follow each other; None when not known.
        time_s: (N,) start of every epoch; None when not known.
        num_classes: number of states.
        epoch_s: length of an epoch in s.
        notes: where it comes from, in words.
    """

    weights: np.ndarray
    y_pred: np.ndarray
    y_true: np.ndarray | None
    parts: list[slice] | None
    time_s: np.ndarray | None
    num_classes: int
    epoch_s: float = EPOCH_S
    notes: tuple[str, ...] = ()


def read_weights(path: Path, states: Path | None, num_classes: int | None = None) -> Weights:
    """Read weights, predicted and true states, and the stretches of epochs that follow each other.

    The states may lie in another result file; files without run and epoch have no stretches.

    Args:
        path: .mat with att_weights (N, F).
        states: .mat or CSV with y_preds and y_trues; None when they lie in ``path``.
        num_classes: 2 joins NREM and REM; as the file says when None.

    Raises:
        InputError: unreadable files, weights that are no numbers of 0 or more, or other lengths.
    """
    held = held_in(path)
    if "att_weights" not in held:
        raise InputError(f"{path}: has no att_weights; found {', '.join(held)}")
    weights = held["att_weights"]
    if weights.ndim != 2 or weights.dtype.kind not in "iuf":
        raise InputError(f"{path}: att_weights is {weights.shape}; expected numbers N x F")
    other = held_in(states) if states else held
    if not {"y_preds", "pred"} & set(other):
        raise InputError(
            f"{states or path}: holds no y_preds, the states of the weights; give --states FILE"
        )
    known = bool({"y_trues", "true"} & set(other))
    read = read_labels(states or path, ["y_preds", "y_trues"] if known else ["y_preds"])
    (file,), classes = with_classes([read], num_classes)
    if file.count != len(weights):
        raise InputError(
            f"{path}: att_weights is {weights.shape}, there are {file.count} states; expected N "
            "x F and N"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        row = int(np.flatnonzero((~np.isfinite(weights) | (weights < 0)).any(axis=1))[0])
        raise InputError(
            f"{path}: att_weights of row {row} (from 0) are negative or no numbers; leave the row "
            "out of weights and states"
        )
    epoch_s, notes = epoch_length([file], None)
    parts = file.stretches(np.ones(file.count, bool)) if file.run is not None else None
    return Weights(
        weights=weights.astype(float),
        y_pred=file.states[0],
        y_true=file.states[1] if known else None,
        parts=parts,
        time_s=file.time_s,
        num_classes=classes,
        epoch_s=epoch_s,
        notes=(*file.notes, *notes),
    )
