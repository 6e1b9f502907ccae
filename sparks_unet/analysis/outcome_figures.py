"""Figures of what became of the events: found, missed, false; planted numbers against measured
ones; a wave in space and time.

Section 8.12 of the specification. Letters: T frames, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from analysis.metrics_tools import annotated_instances, event_scores
from analysis.overlays import COLOURS
from analysis.preds_processing_tools import Prediction
from common.figures import SCREEN_DPI, save_figure
from inputs.calibration import Calibration
from inputs.data_processing import class_contour
from settings.config import CLASSES, EVENT_CLASSES, PostParams

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = ("found", "missed", "false")
ANNOTATION = (0.3, 0.9, 1.0)
EACH = 6  # pictures of every outcome
HALF_UM = 6.0  # half the side of a picture
BAR_UM = 2.0  # pictures at the edge of a movie are cut, so that each has a scale of its own
PANEL_INCHES = 1.6  # width of a picture
IN_CELL = 0.3  # of the median resting light: darker columns lie beside the cell
REST_FRAMES = 20  # before an event, whose mean is its resting picture
NAMES = {CLASSES[name]: name for name in EVENT_CLASSES}


@dataclass(frozen=True)
class Outcome:
    """What became of an event: its kind of outcome, class, peak frame and place in pixels."""

    outcome: str
    kind: str
    frame: int
    y: int
    x: int


def event_outcomes(
    classes: np.ndarray, events: np.ndarray, prediction: Prediction, post: PostParams
) -> list[Outcome]:
    """Return what became of every annotated and every predicted event.

    Args:
        classes: (T, H, W) class labels 0..4.
        events: (T, H, W) event ids.
        prediction: preds_processing_tools.Prediction.
        post: config.PostParams: a pair matches from ``iomin`` on.

    Returns:
        "found": annotated events that a prediction of their class matches; "missed": those that no
        prediction matches; "false": predictions that match no annotation and do not lie on
        label 4. Events that match one of another class only are in none of them.
    """
    scores = event_scores(classes, events, prediction)
    match = scores.iomin >= post.iomin
    annotated, _ = annotated_instances(classes, events)
    kept = [number for number, kind in enumerate(prediction.class_of_id) if int(kind) in NAMES]
    same = scores.annotated_class[:, None] == scores.predicted_class[None]
    outcomes = []
    for number, box in enumerate(ndimage.find_objects(annotated), start=1):
        kind = NAMES[int(scores.annotated_class[number - 1])]
        if (match & same)[number - 1].any():
            outcomes.append(_outcome("found", kind, annotated, number, box))
        elif not match[number - 1].any():
            outcomes.append(_outcome("missed", kind, annotated, number, box))
    boxes = ndimage.find_objects(prediction.instances)
    for column, number in enumerate(kept):
        if not match[:, column].any() and scores.ignored_share[column] < post.iomin:
            kind = NAMES[int(scores.predicted_class[column])]
            outcomes.append(
                _outcome("false", kind, prediction.instances, number, boxes[number - 1])
            )
    return outcomes


def _outcome(name, kind, ids, number, box):
    """Return the Outcome of an event, shown in the frame in which it covers the largest area."""
    inside = ids[box] == number
    frame = int(inside.sum(axis=(1, 2)).argmax())
    y, x = (round(v) for v in ndimage.center_of_mass(inside[frame]))
    places = (frame, y, x)
    return Outcome(name, kind, *(p + one.start for p, one in zip(places, box, strict=True)))


def plot_outcomes(
    path: str | Path,
    movies: Sequence[tuple[str, np.ndarray, tuple[np.ndarray, np.ndarray], list[Outcome]]],
    *,
    calibration: Calibration,
) -> Path:
    """Draw some events that were found, missed and false, each in its busiest frame.

    Args:
        path: PNG to write.
        movies: list of (id, counts, (predicted, annotated) classes, outcomes), (T, H, W) each.
        calibration: Calibration of the movies.

    Each picture shows counts above the mean of the frames before, with the outlines of the
    prediction and the annotation.
    """
    every = {name: [] for name in OUTCOMES}
    for movie_id, movie, labels, outcomes in movies:
        for one in outcomes:
            every[one.outcome].append((movie_id, movie, labels, one))
    chosen_of = {name: [found[i] for i in _spread(found)] for name, found in every.items()}
    heights = [_row_inches(chosen, calibration) for chosen in chosen_of.values()]
    size = PANEL_INCHES * EACH + 0.8, sum(heights) + 0.5
    figure = Figure(figsize=size, dpi=SCREEN_DPI, layout="constrained")
    panels = figure.subplots(len(OUTCOMES), EACH, squeeze=False, height_ratios=heights)
    rows = []
    for line, (name, found) in enumerate(every.items()):
        chosen = chosen_of[name]
        for axes in panels[line]:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        panels[line, 0].set_ylabel(f"{name} ({len(found)})")
        for axes, (movie_id, movie, labels, one) in zip(panels[line], chosen, strict=False):
            _draw_event(axes, movie, labels, one, calibration)
            axes.set_title(f"{one.kind[:-1]}, movie {movie_id}", fontsize=8)
        rows += [
            (name, movie_id, one.kind, one.frame, one.y, one.x) for movie_id, _, _, one in found
        ]
    handles = [
        panels[0, 0].plot([], [], color=np.array(COLOURS[kind]) / 255, label=f"predicted {kind}")[0]
        for kind in EVENT_CLASSES
    ]
    handles += panels[0, 0].plot([], [], color=ANNOTATION, label="annotation")
    handles += panels[0, 0].plot([], [], color="0.5", linewidth=3, label=f"bar: {BAR_UM:g} um")
    figure.legend(handles=handles, frameon=False, ncols=5, loc="outside lower center", fontsize=8)
    return save_figure(figure, path, (("outcome", "movie", "class", "frame", "y", "x"), rows))


def _spread(found):
    """Return the numbers of at most EACH events, of all classes in turn."""
    by_class = [[i for i, one in enumerate(found) if one[3].kind == k] for k in EVENT_CLASSES]
    turns = [i for turn in range(EACH) for part in by_class for i in part[turn : turn + 1]]
    return turns[:EACH]


def _surroundings(shape, one, calibration):
    """Return the slices (y, x) of at most twice HALF_UM around an event, inside (T, H, W)."""
    half = [round(HALF_UM / size) for size in (calibration.pixel_y_um, calibration.pixel_x_um)]
    return tuple(
        slice(max(0, p - h), min(n, p + h + 1))
        for p, h, n in zip((one.y, one.x), half, shape[1:], strict=True)
    )


def _row_inches(chosen, calibration):
    """Return the height of a row of pictures: that of its tallest, and its heading."""
    tallest = 0.3  # of the width; a row without pictures keeps its name
    for _, movie, _, one in chosen:
        rows, columns = (s.stop - s.start for s in _surroundings(movie.shape, one, calibration))
        shape = rows * calibration.pixel_y_um / (columns * calibration.pixel_x_um)
        tallest = max(tallest, min(shape, 1.5))
    return PANEL_INCHES * tallest + 0.35


def _draw_event(axes, movie, labels, one, calibration):
    """Draw the surroundings of an event with the outlines of (predicted, annotated) classes."""
    predicted, annotated = labels
    box = _surroundings(movie.shape, one, calibration)
    before = slice(max(0, one.frame - REST_FRAMES), max(one.frame - 3, 1))
    rest = movie[before][(slice(None), *box)].mean(axis=0, dtype=np.float64)
    picture = ndimage.gaussian_filter(movie[one.frame][box] - rest, 1.0)
    height, width = picture.shape
    sides = (0, width * calibration.pixel_x_um, height * calibration.pixel_y_um, 0)
    axes.imshow(picture, cmap="gray", extent=sides)
    shown = np.zeros((*picture.shape, 4))
    events = np.isin(annotated[one.frame][box], list(NAMES))
    shown[class_contour(events[None])[0]] = (*ANNOTATION, 1.0)
    for kind in EVENT_CLASSES:
        mask = (predicted[one.frame][box] == CLASSES[kind])[None]
        shown[class_contour(mask)[0]] = (*(np.array(COLOURS[kind]) / 255), 1.0)
    axes.imshow(shown, extent=sides)
    _, right, low, _ = sides
    bar = [0.04 * right, 0.04 * right + BAR_UM]
    axes.plot(bar, [0.93 * low] * 2, color="black", linewidth=4, solid_capstyle="butt")
    axes.plot(bar, [0.93 * low] * 2, color="white", linewidth=2, solid_capstyle="butt")
    axes.set(xlim=(0, right), ylim=(low, 0))


def matched_truth(
    sample_events: np.ndarray, prediction: Prediction, table: "pd.DataFrame", truth: list[dict]
) -> list[tuple]:
    """Return (class, quantity, planted, measured) of planted events and the events on them.

    Args:
        sample_events: (T, H, W) ids of the planted events.
        prediction: preds_processing_tools.Prediction.
        table: DataFrame of kinetics.event_table.
        truth: rows of NN_truth.csv as dicts of text.

    A planted event belongs to the predicted one of its class that covers most of it; empty cells
    are left out.
    """
    measured = table.set_index("id")
    pairs = []
    for row in truth:
        on_it = prediction.instances[sample_events == int(row["id"])]
        if not on_it.any():
            continue
        number = int(np.bincount(on_it[on_it > 0]).argmax())
        if number not in measured.index or measured.loc[number, "class"] != row["class"]:
            continue
        for name in ("amplitude_df_f0", "fwhm_um", "fdhm_ms", "speed_um_s"):
            value = measured.loc[number, name]
            if row.get(name) and np.isfinite(value):
                pairs.append((row["class"], name, float(row[name]), float(value)))
    return pairs


def plot_truth(path: str | Path, pairs: list[tuple]) -> Path:
    """Draw measured against planted amplitude and width; the line is equality.

    Args:
        path: PNG to write.
        pairs: of ``matched_truth``.
    """
    shown = (("amplitude_df_f0", "amplitude (dF/F0)"), ("fwhm_um", "width FWHM (um)"))
    figure = Figure(figsize=(8.4, 4.2), dpi=SCREEN_DPI, layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, 2), shown, strict=True):
        own = [pair for pair in pairs if pair[1] == name]
        top = 1.1 * max((max(pair[2:]) for pair in own), default=1.0)
        axes.plot([0, top], [0, top], color="0.6", linewidth=0.8)
        for kind, mark in zip(EVENT_CLASSES, "os^", strict=True):
            values = np.array([pair[2:] for pair in own if pair[0] == kind]).reshape(-1, 2)
            if len(values):
                ink = np.array(COLOURS[kind]) / 255 * 0.8
                axes.plot(*values.T, mark, color=ink, markeredgecolor="0.2", label=kind)
        ratio = np.median([pair[3] / pair[2] for pair in own]) if own else np.nan
        axes.set(
            xlim=(0, top), ylim=(0, top), xlabel=f"planted {label}", ylabel=f"measured {label}"
        )
        axes.set_title(f"{len(own)} events, median measured / planted {ratio:.2f}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if own:
            axes.legend(frameon=False)
    return save_figure(figure, path, (("class", "quantity", "planted", "measured"), pairs))


def plot_space_time(
    path: str | Path, movie: np.ndarray, event: "pd.Series", *, calibration: Calibration
) -> Path:
    """Draw a wave in space and time: the mean over its rows, each column over its resting level.

    Args:
        path: PNG to write.
        movie: (T, H, W) counts.
        event: row of kinetics.event_table of the wave.
        calibration: Calibration of the movie.
    """
    first = max(0, int(event["start_frame"]) - REST_FRAMES)
    last = min(len(movie), int(event["end_frame"]) + REST_FRAMES + 1)
    lines = movie[first:last].mean(axis=1, dtype=np.float64)  # (t, W)
    rest = np.percentile(lines, 20, axis=0)
    resting = rest - event["background_counts"]
    # beside the cell there is nothing that a change could be a share of
    inside = resting > IN_CELL * np.median(resting)
    ratio = np.where(inside, (lines - rest) / np.where(inside, resting, 1.0), np.nan)
    width_um = movie.shape[2] * calibration.pixel_x_um
    times = np.arange(first, last + 1) * calibration.frame_ms
    figure = Figure(figsize=(6.6, 3.9), dpi=SCREEN_DPI, layout="constrained")
    axes = figure.subplots()
    high = float(np.nanpercentile(ratio, 99.5))
    extent = (0, width_um, times[-1], times[0])
    image = axes.imshow(ratio, aspect="auto", cmap="viridis", vmin=0, vmax=high, extent=extent)
    axes.set_xlabel("x (um)")
    axes.set_ylabel("time (ms)")
    speed = event["speed_um_s"]
    told = f"{speed:.0f} um/s" if np.isfinite(speed) else "speed undetermined"
    words = r"mean over the rows; $F_0$: 20th percentile of each column"
    axes.set_title(f"event {event['id']}, {told}; {words}", fontsize=9)
    figure.colorbar(image, label=r"$\Delta F/F_0$")
    header = ("time_ms", *(f"x={x * calibration.pixel_x_um:.4g} um" for x in range(len(rest))))
    rows = [
        (f"{time:.6g}", *("" if np.isnan(v) else f"{v:.4g}" for v in line))
        for time, line in zip(times, ratio, strict=False)
    ]
    return save_figure(figure, path, (header, rows))
