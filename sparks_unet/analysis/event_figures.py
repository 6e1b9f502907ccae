"""Figures of the evaluation: one function, one figure, and the CSV with its numbers beside it.

Section 8.12 of the specification. Every function takes arrays or tables, writes <path> (PNG) and
<path>.csv, and returns the path of the PNG.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from analysis.event_traces import Trace
from analysis.overlays import COLOURS, blend, grey_movie
from common.figures import save_figure
from common.report import plain_name
from inputs.calibration import Calibration
from inputs.data_processing import class_contour, moving_average
from settings.config import CLASSES, EVENT_CLASSES

if TYPE_CHECKING:
    import pandas as pd

DPI = 120
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"  # Okabe-Ito
BAR_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", SKY, "#D55E00")
CLASS_NAMES = ("background", *EVENT_CLASSES)
SHOWN_METRICS = ("precision", "recall", "f1-score", "detected", "correctly_classified")
MIN_AVERAGE = 20  # loss values from which the running mean is drawn
MONTAGE_FRAMES = 5


def plot_confusion(path: str | Path, matrix: np.ndarray | Sequence) -> Path:
    """Draw a 4 x 4 confusion matrix of voxels, coloured by the share of each true class.

    Args:
        path: PNG to write.
        matrix: (4, 4) counts, rows truth, columns prediction.
    """
    matrix = np.asarray(matrix, np.int64)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = _new(5.2, 4.4)
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    for row, column in np.ndindex(4, 4):
        text = f"{share[row, column]:.1%}\n{matrix[row, column]:,}"
        ink = "black" if share[row, column] > 0.5 else "white"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
    axes.set_xticks(range(4), CLASS_NAMES)
    axes.set_yticks(range(4), CLASS_NAMES)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("annotated class")
    figure.colorbar(image, label="share of the annotated voxels")
    rows = [(name, *counts) for name, counts in zip(CLASS_NAMES, matrix.tolist(), strict=True)]
    return _save(figure, path, ("annotated", *CLASS_NAMES), rows)


def plot_class_bars(
    path: str | Path, metrics: dict, intervals: dict[str, tuple] | None = None
) -> Path:
    """Draw the event metrics of each class, their unweighted mean and the pooled value.

    Args:
        path: PNG to write.
        metrics: dict of metrics_tools.metrics_from_counts.
        intervals: {name: (low, high)} of metrics_tools.bootstrap_intervals, drawn as error bars.
    """
    groups = (*EVENT_CLASSES, "average", "total")
    labels = (*EVENT_CLASSES, "class mean", "pooled")
    figure, axes = _new(6.6, 3.6)
    width, rows = 0.8 / len(SHOWN_METRICS), []
    for index, metric in enumerate(SHOWN_METRICS):
        names = [f"{group}/{metric}" for group in groups]
        values = [metrics[name] for name in names]
        at = np.arange(len(groups)) + (index - (len(SHOWN_METRICS) - 1) / 2) * width
        label = plain_name(metric)
        axes.bar(at, values, width, label=label, color=BAR_COLOURS[index])
        for place, name, value in zip(at, names, values, strict=True):
            low, high = (intervals or {}).get(name, (None, None))
            if low is not None:
                axes.plot([place, place], [low, high], color="black", linewidth=0.8)
            elif name in metrics["not_available"]:
                axes.text(place, 0.01, "n/a", ha="center", fontsize=6, rotation=90)
            rows.append((name, value, low, high))
    axes.set_xticks(range(len(groups)), labels)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("share of events")
    axes.legend(frameon=False, fontsize=7, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _save(figure, path, ("metric", "value", "low", "high"), rows)


def plot_iou(path: str | Path, metrics: dict) -> Path:
    """Draw the intersection over union of the voxels of each class and of any event."""
    names = [f"segmentation/{name}_IoU" for name in (*EVENT_CLASSES, "average")]
    names.append("segmentation/binary_IoU")
    values = [metrics[name] for name in names]
    figure, axes = _new(5.8, 3.2)
    axes.bar(range(len(names)), values, color=BLUE)
    axes.set_xticks(range(len(names)), (*EVENT_CLASSES, "class mean", "any event"))
    axes.set_ylim(0, 1)
    axes.set_ylabel("intersection over union")
    return _save(figure, path, ("metric", "value"), list(zip(names, values, strict=True)))


def plot_snr(path: str | Path, ratios: Mapping[str, float | None]) -> Path:
    """Draw the signal-to-noise ratio of each movie.

    Args:
        path: PNG to write.
        ratios: {movie id: ratio or None} of data_processing.signal_to_noise.
    """
    known = {name: value for name, value in ratios.items() if value is not None}
    figure, axes = _new(max(3.6, 0.35 * len(known) + 1.5), 3.2)
    axes.bar(list(known), list(known.values()), color=BLUE)
    axes.set_xlabel("movie")
    axes.set_ylabel("signal-to-noise ratio\n(99th percentile of event voxels)")
    return _save(figure, path, ("movie", "snr"), list(ratios.items()))


def plot_curves(
    path: str | Path, loss_csv: str | Path, metrics_csv: str | Path | None = None
) -> Path:
    """Draw the training loss, and the metrics of the validations when there are any.

    Args:
        path: PNG to write.
        loss_csv: CSV with the columns iteration, loss.
        metrics_csv: CSV with the column iteration and some of average/detected, ...
    """
    iterations, (losses,) = _columns(loss_csv, ("loss",))
    shown = ("average/detected", "average/correctly_classified", "segmentation/average_IoU")
    with_metrics = metrics_csv is not None and Path(metrics_csv).is_file()
    figure = Figure(figsize=(6.4, 5.6 if with_metrics else 3.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(2 if with_metrics else 1, sharex=True, squeeze=False)[:, 0]
    axes = panels[0]
    axes.plot(iterations, losses, color=SKY, linewidth=0.8, label="logged value")
    if len(losses) >= MIN_AVERAGE:
        window = len(losses) // 10 // 2 * 2 + 1
        smooth = moving_average(np.array(losses), window)
        axes.plot(iterations, smooth, color=BLUE, label=f"mean of {window} values")
        axes.legend(frameon=False)
    axes.set_ylabel("training loss")
    rows = [(i, "loss", v) for i, v in zip(iterations, losses, strict=True)]
    if with_metrics:
        steps, columns = _columns(metrics_csv, shown)
        for name, values, colour in zip(shown, columns, BAR_COLOURS, strict=False):
            label = (
                name.replace("average/", "").replace("segmentation/average_", "").replace("_", " ")
            )
            panels[1].plot(steps, values, "o-", color=colour, label=label, markersize=4)
            rows += [(i, name, v) for i, v in zip(steps, values, strict=True)]
        panels[1].set_ylim(0, 1)
        panels[1].set_ylabel("validation, class mean")
        panels[1].legend(frameon=False)
    panels[-1].set_xlabel("iteration")
    for one in panels:
        one.spines[["top", "right"]].set_visible(False)
    return _save(figure, path, ("iteration", "quantity", "value"), rows)


def plot_event(
    path: str | Path,
    movie: np.ndarray,
    event: "pd.Series",
    *,
    calibration: Calibration,
    trace: Trace | None = None,
    radius_um: float = 0.6,
    context_frames: int = 20,
) -> Path:
    """Draw one event: its trace, and the surface of its peak frame.

    Args:
        path: PNG to write.
        movie: (T, H, W) counts.
        event: row of kinetics.event_table.
        calibration: Calibration of the movie.
        trace: of the event table, in the middle of the event, drawn with its fit; None: the mean
            in a circle around the peak, relative to the shown frames before the event.
        radius_um: of the circle.
        context_frames: shown before and after the event where there is no trace.
    """
    pixel_um, frame_ms = calibration.pixel_um, calibration.frame_ms
    t, y, x = (int(event[f"{axis}_peak"]) for axis in "tyx")
    if trace is None:
        trace = _circle_trace(movie, event, radius_um / pixel_um, context_frames)
    time_ms = (trace.first_frame + np.arange(len(trace.values))) * frame_ms
    figure = Figure(figsize=(9, 3.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(1, 2, 1)
    axes.axvspan(event["start_frame"] * frame_ms, event["end_frame"] * frame_ms, color="0.9")
    axes.plot(time_ms, trace.values, ".-", color=BLUE, linewidth=0.8, label="trace")
    if np.isfinite(trace.fit).any():
        axes.plot(time_ms, trace.fit, color=ORANGE, label="fit")
        axes.legend(frameon=False)
    axes.set_xlabel("time (ms)")
    axes.set_ylabel(r"$\Delta F/F_0$")
    axes.set_title(f"{event['class'][:-1]} {event['id']}: grey is the event's span", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    half = math.ceil(5 / pixel_um)
    box = slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1)
    frame = ndimage.gaussian_filter(movie[t][box].astype(np.float64), 2)
    grid_y, grid_x = np.mgrid[
        box[0].start : box[0].start + frame.shape[0], box[1].start : box[1].start + frame.shape[1]
    ]
    surface = figure.add_subplot(1, 2, 2, projection="3d")
    surface.plot_surface(grid_x * pixel_um, grid_y * pixel_um, frame, cmap="viridis")
    surface.set_xlabel("x (um)")
    surface.set_ylabel("y (um)")
    surface.set_zlabel("smoothed counts", labelpad=8)
    surface.set_title(f"frame {t}", fontsize=9)
    rows = list(zip(time_ms, trace.values, trace.fit, strict=True))
    return _save(figure, path, ("time_ms", "df_f0", "fit_df_f0"), rows)


def _circle_trace(movie, event, radius_px, context_frames):
    """Return the Trace of the mean in a circle around the peak of an event, without a fit."""
    first = max(0, int(event["start_frame"]) - context_frames)
    last = min(len(movie), int(event["end_frame"]) + context_frames + 1)
    rows, columns = np.ogrid[: movie.shape[1], : movie.shape[2]]
    y, x = int(event["y_peak"]), int(event["x_peak"])
    circle = (rows - y) ** 2 + (columns - x) ** 2 <= max(radius_px, 1) ** 2
    counts = movie[first:last, circle].mean(axis=1, dtype=np.float64)
    rest = counts[: max(int(event["start_frame"]) - first, 1)].mean()
    ratio = (counts - rest) / max(rest - event["background_counts"], 1.0)
    return Trace(first, ratio, np.full(len(ratio), np.nan))


def plot_montage(
    path: str | Path,
    movie: np.ndarray,
    classes: np.ndarray,
    truth_classes: np.ndarray,
    *,
    calibration: Calibration,
    frames: Sequence[int] | None = None,
) -> Path:
    """Draw some frames, annotation left of the prediction.

    Args:
        path: PNG to write.
        movie: (T, H, W) counts.
        classes, truth_classes: (T, H, W) predicted and annotated class numbers.
        calibration: Calibration of the movie.
        frames: numbers of the frames; None spreads MONTAGE_FRAMES of the busiest ones over time.
    """
    pixel_um, frame_ms = calibration.pixel_um, calibration.frame_ms
    frames = _busy_frames(truth_classes) if frames is None else list(frames)
    grey = grey_movie(movie)[frames]
    aspect = movie.shape[1] / movie.shape[2]
    figure = Figure(
        figsize=(9.5, 1.3 + 9 * aspect * len(frames) / 2), dpi=DPI, layout="constrained"
    )
    panels = figure.subplots(len(frames), 2, squeeze=False)
    extent = (0, movie.shape[2] * pixel_um, movie.shape[1] * pixel_um, 0)
    rows = []
    for column, labels in enumerate((truth_classes, classes)):
        shown = np.repeat(grey[..., None], 3, axis=-1)
        for name, colour in COLOURS.items():
            mask = labels[frames] == CLASSES[name]
            blend(shown, mask, colour, 0.35)
            shown[mask & class_contour(mask)] = colour
            rows += [
                (frame, ("annotation", "prediction")[column], name, int(n))
                for frame, n in zip(frames, mask.sum(axis=(1, 2)), strict=True)
            ]
        for axes, frame, picture in zip(panels[:, column], frames, shown, strict=True):
            axes.imshow(picture, extent=extent, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_ylabel(f"{frame * frame_ms:.0f} ms" if column == 0 else "", fontsize=8)
    panels[0, 0].set_title("annotation", fontsize=9)
    panels[0, 1].set_title("prediction", fontsize=9)
    panels[-1, 0].set_xlabel(f"width {extent[1]:.0f} um", fontsize=8)
    handles = [
        panels[0, 0].plot([], [], "s", color=np.array(colour) / 255, label=name)[0]
        for name, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, frameon=False, ncols=4, loc="outside lower center", fontsize=8)
    return _save(figure, path, ("frame", "source", "class", "pixels"), rows)


def _busy_frames(classes):
    """Return the busiest frame of each of MONTAGE_FRAMES parts of the movie."""
    numbers = np.arange(len(classes))
    present = np.stack([(classes == CLASSES[n]).any(axis=(1, 2)) for n in EVENT_CLASSES]).sum(
        axis=0
    )
    area = (classes > 0).mean(axis=(1, 2))
    parts = np.array_split(numbers, min(MONTAGE_FRAMES, len(classes)))
    return [int(part[np.argmax(present[part] + area[part] / 2)]) for part in parts]


def _columns(path, names):
    """Return (iterations, list of columns) of a CSV; empty cells become NaN."""
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    iterations = [int(float(row["iteration"])) for row in rows]
    return iterations, [[float(row.get(name) or "nan") for row in rows] for name in names]


def _new(width, height):
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path, header, rows):
    """Write the figure and its CSV; return the path of the figure."""
    return save_figure(figure, path, (header, rows), dpi=DPI)
