"""Measure every event of a movie in physical units: the event table and the event frequency.

The numbers of sparks and puffs come from a fit (event_fit.py) that is kept only where its own
errors say that the data determine it; beside them stand measures of the trace that need no model.
Waves get the speed of their front. Source: sections 8.10, 8.11 and 13.2 of the specification.

Letters: T frames, H rows, W columns; t, y, x the same in the box of one event.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from analysis.event_fit import Fit, fit_profiles, in_units
from analysis.event_traces import Trace
from analysis.preds_processing_tools import Prediction
from analysis.traces import trace_measures
from analysis.wave_front import wave_front
from inputs.calibration import UNKNOWN, Calibration
from inputs.cell import Cell, find_cell
from inputs.data_processing import padded_box
from inputs.movie_state import COARSE, MovieState, level_floor, look_at
from settings.config import CLASSES, EVENT_CLASSES

COLUMNS = (
    *("id", "class", "t_peak", "y_peak", "x_peak", "t_peak_ms", "y_peak_um", "x_peak_um"),
    *(
        "start_frame",
        "end_frame",
        "duration_ms",
        "area_max_um2",
        "height_um",
        "width_um",
        "radius_um",
    ),
    *("amplitude_df_f0", "fwhm_um", "fdhm_ms", "rise_ms", "tau_ms", "mass_um3", "integral_um2_s"),
    *("speed_um_s", "mean_probability", "f0_counts", "background_counts"),
    *("quality", "fit_error", "peak_df_f0", "trace_rise_ms", "trace_fdhm_ms"),
    *("saturated_voxels", "bad_frames", "step_df_f0", "background_origin"),
    # the scale of all of these
    *("pixel_um", "pixel_y_um", "pixel_origin", "frame_ms", "frame_origin"),
)
BEFORE_FRAMES = 40  # event-free frames before an event that give F0
FOOT_FRAMES = 2  # an event begins this much before its mask, which starts above the noise
MIN_REST_FRAMES = 5  # fewer event-free frames before it: frames after it are used too
PAD_FRAMES = 12  # context of the fit before and after the event
WAVE_PAD_FRAMES = 60  # the same of a wave, whose tail outlasts its mask
PAD_UM = 1.0  # context of the fit around the event
LIGHT = (0.4, 1.0)  # frames and pixels of the smoothing that keeps the height of a peak
OUTSIDE_RATIO = 0.5  # the left column is background when darker than this share of the cell
CLASS_NAMES = {CLASSES[name]: name for name in EVENT_CLASSES}

# what an event and its fit must show before a number is given
MIN_CLEAR = 8.0  # height of the fit over its error
MAX_ERROR = 0.25  # error of height, width and duration as a share of them
MAX_RANGE = {"rise": 0.1, "fdhm": 0.1}  # half the range of all courses that fit, as a share
TRACE_FRAMES = {"rise": 3.0, "fdhm": 12.0}  # shorter ones are shaped by the frames, not the event
MAX_MISFIT = 0.35  # residuals of the trace over its height
MAX_OVER_PEAK = 1.5  # amplitude of the fit over the smoothed peak
GIVEN = (  # what is given when these errors are small enough, and the word where they are not
    (("amplitude_df_f0",), ("height",), "amplitude of the brightest frame"),
    (("fwhm_um",), ("width",), "width undetermined"),
    (("fdhm_ms",), ("fdhm",), "duration undetermined"),
    (("rise_ms",), ("rise",), ""),
    (("tau_ms",), ("tau",), ""),
    (("mass_um3",), ("height", "width"), ""),
)
MIN_PEAK = 6.0  # smoothed peak over the noise of the smoothed movie, where no fit holds


@dataclass(frozen=True)
class Scene:
    """A recording while its events are measured: its counts and what is known about them."""

    movie: np.ndarray  # (T, H, W) counts
    busy: np.ndarray  # (T, H, W) bool, voxels of any event
    scale: Calibration
    state: MovieState
    background: float
    background_origin: str
    floor: float  # smallest F0 above the background that is divided by


def event_table(
    movie: np.ndarray,
    prediction: Prediction,
    *,
    calibration: Calibration,
    probabilities: np.ndarray | None = None,
    background: float | None = None,
    state: MovieState | None = None,
    cell: Cell | None = None,
    traces: dict[int, Trace] | None = None,
) -> pd.DataFrame:
    """Measure all events of a movie.

    Args:
        movie: (T, H, W) counts of the camera, before any normalisation.
        prediction: preds_processing_tools.Prediction.
        calibration: Calibration of the movie, pixel size and frame interval known.
        probabilities: (4, T, H, W) of the network, for the column mean_probability.
        background: counts without light, subtracted in dF/F0 = (F - F0) / (F0 - background); None
            takes the offset of the calibration, else the left-most column where it lies outside the
            cell, else 0.
        state: MovieState of the movie; None looks at it.
        cell: inputs.cell.Cell of the movie; None looks for it.
        traces: is given {id: Trace} of the events that were fitted.

    Returns:
        DataFrame with the columns COLUMNS, one row for each event in the order of ids. A quantity
        that the data do not determine is NaN (an empty cell in the CSV); ``quality`` says why.
    """
    scale = calibration
    state = look_at(movie, scale.offset_counts) if state is None else state
    background, origin = _background(movie, scale, background, state, cell)
    scene = Scene(
        *(movie, prediction.instances > 0, scale, state, background, origin),
        floor=level_floor(movie),
    )
    origins = {
        **{"pixel_um": scale.pixel_x_um, "pixel_y_um": scale.pixel_y_um},
        **{"pixel_origin": scale.pixel_origin, "frame_ms": scale.frame_ms},
        **{"frame_origin": scale.frame_origin, "background_origin": origin},
    }
    rows = []
    for number, box in enumerate(ndimage.find_objects(prediction.instances), start=1):
        if box is None or prediction.class_of_id[number] not in CLASS_NAMES:
            continue
        inside = prediction.instances[box] == number
        row = {"id": number, "class": CLASS_NAMES[prediction.class_of_id[number]], **origins}
        row |= _extent(prediction.instances, number, box, scale)
        if probabilities is not None:
            channel = probabilities[prediction.class_of_id[number]][box]
            row["mean_probability"] = float(channel[inside].mean(dtype=np.float64))
        row |= _measured(scene, inside, box, row["class"])
        trace = row.pop("trace", None)
        if traces is not None and trace is not None:
            traces[number] = trace
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"id": int, "class": str})


def _background(movie, scale, given, state, cell):
    """Return (counts without light, where they come from)."""
    if given is not None:
        return float(given), "given"
    if scale.offset_counts is not None:
        return float(scale.offset_counts), scale.offset_origin
    if cell is None:
        sizes = scale.pixel_x_um or 0.2, scale.pixel_y_um or 0.2
        cell = find_cell(movie, state.good, pixel_um=sizes)
    counts = background_counts(movie, cell, state.good)
    return counts, "left column, outside the cell" if counts else f"{UNKNOWN}: 0 is used"


def background_counts(
    movie: np.ndarray, cell: Cell | None = None, good: np.ndarray | None = None
) -> float:
    """Return the counts without light: mean of the left-most column, 0 when it is in the cell.

    Args:
        movie: (T, H, W) counts.
        cell: where the cell is; None looks for it.
        good: (T,) bool, frames that count; None: all.

    Source: section 8.10 (self ratio).
    """
    cell = find_cell(movie, good) if cell is None else cell
    if cell.mask is None or not cell.mask.any() or cell.mask[:, 0].any():
        return 0.0
    mean = movie.mean(axis=0, dtype=np.float64) if good is None or good.all() else None
    mean = movie[good].mean(axis=0, dtype=np.float64) if mean is None else mean
    column = float(mean[:, 0].mean())
    return column if column < OUTSIDE_RATIO * float(mean[cell.mask].mean()) else 0.0


def event_frequency(
    table: pd.DataFrame,
    movie: np.ndarray,
    *,
    calibration: Calibration,
    cell: Cell | None = None,
    state: MovieState | None = None,
) -> pd.DataFrame:
    """Return the number of events of every class and their rate in the cell.

    Args:
        table: DataFrame of event_table.
        movie: (T, H, W) counts.
        calibration: Calibration of the movie.
        cell: inputs.cell.Cell of the movie; None looks for it.
        state: MovieState of the movie; None looks at it.

    Returns:
        DataFrame with one row for each class: n, cell area in um2 and how it is known, duration of
        the frames that show the cell in s, events per 100 um2 and second, events per 100 um (longer
        side of the frame) and second, and the scale with its origins. Without a known cell area and
        rate per area are NaN.
    """
    scale = calibration
    state = look_at(movie, scale.offset_counts) if state is None else state
    if cell is None:
        sizes = scale.pixel_x_um, scale.pixel_y_um
        offset = scale.offset_counts or 0.0
        cell = find_cell(movie, state.good, pixel_um=sizes, offset=offset)
    area = math.nan if cell.mask is None else float(cell.mask.sum()) * scale.pixel_um2
    seconds = int(state.good.sum()) * scale.frame_ms / 1e3
    length = max(movie.shape[1] * scale.pixel_y_um, movie.shape[2] * scale.pixel_x_um)
    rows = []
    for name in EVENT_CLASSES:
        n = int((table["class"] == name).sum())
        rates = {
            "per_100um2_s": n / area / seconds * 100,
            "per_100um_s": n / length / seconds * 100,
        }
        rows.append({"class": name, "n": n, "cell_um2": area, "duration_s": seconds, **rates})
    origins = {
        **{"cell_origin": cell.origin + (f": {cell.why}" if cell.why else "")},
        **{"pixel_um": scale.pixel_x_um, "pixel_y_um": scale.pixel_y_um},
        **{"pixel_origin": scale.pixel_origin, "frame_ms": scale.frame_ms},
        "frame_origin": scale.frame_origin,
    }
    return pd.DataFrame([row | origins for row in rows])


def relative_fluorescence(
    movie: np.ndarray,
    busy: np.ndarray,
    box: tuple[slice, ...],
    start: int,
    *,
    background: float,
    good: np.ndarray | None = None,
    floor: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return dF/F0 in a box and F0.

    Args:
        movie: (T, H, W) counts.
        busy: (T, H, W) bool, voxels of any event.
        box: (t, y, x) slices around the event.
        start: first frame of the event.
        background: counts without light.
        good: (T,) bool, frames that may give F0; None: all.
        floor: smallest F0 above background that is divided by.

    Returns:
        (dF/F0 (t, y, x), F0 (y, x) counts), float64. F0 is the mean of up to 40 event-free
        frames of each pixel before the event, or after it where there are too few.
    """
    t, y, x = box
    columns, occupied = movie[:, y, x], busy[:, y, x]
    if good is not None and not good.all():
        occupied = occupied | ~good[:, None, None]
    before = slice(max(0, start - FOOT_FRAMES - BEFORE_FRAMES), max(start - FOOT_FRAMES, 0))
    total, count = _event_free_sum(columns[before], occupied[before])
    poor = count < MIN_REST_FRAMES
    if poor.any():
        after = slice(t.stop, t.stop + BEFORE_FRAMES)
        more, n = _event_free_sum(columns[after], occupied[after])
        total, count = total + np.where(poor, more, 0), count + np.where(poor, n, 0)
    if (count == 0).any():
        # A pixel that is never at rest nearby: its 20th percentile stands for the resting level.
        low = np.percentile(columns if good is None else columns[good], 20, axis=0)
        total, count = np.where(count == 0, low, total), np.maximum(count, 1)
    f0 = total / count
    return (movie[box] - f0) / np.maximum(f0 - background, floor), f0


def _event_free_sum(values, occupied):
    free = ~occupied
    return (values * free).sum(axis=0, dtype=np.float64), free.sum(axis=0)


def region_statistics(
    ids: np.ndarray, number: int, box: tuple[slice, ...], sizes: tuple[float, float] = (1.0, 1.0)
) -> tuple[int, float, int]:
    """Return (frames, radius of the largest disk inside one frame, voxels) of an event.

    Args:
        ids: (T, H, W) event ids.
        number: id of the event.
        box: box of the event.
        sizes: height and width of a pixel; 1 gives the radius in pixels.
    """
    wide = padded_box(box, ids.shape, (0, 1, 1))
    inside = ids[wide] == number
    areas = inside.sum(axis=(1, 2))
    # The border of the frame is no border of the event; an event that fills frames has no radius.
    radius, open_frames = math.nan, np.flatnonzero(areas < inside[0].size)
    for index in open_frames[np.argsort(-areas[open_frames], kind="stable")]:
        # no disk in a frame is larger than its area allows: smaller ones need no look
        largest = math.sqrt(areas[index] / math.pi * sizes[0] * sizes[1]) + max(sizes)
        if largest < radius:
            break
        radius = np.fmax(radius, ndimage.distance_transform_edt(inside[index], sizes).max())
    return box[0].stop - box[0].start, radius, int(areas.sum())


def _extent(ids, number, box, scale):
    """Return what follows from the mask of an event alone."""
    sizes = scale.pixel_y_um, scale.pixel_x_um
    n_frames, radius, _ = region_statistics(ids, number, box, sizes)
    return {
        "start_frame": box[0].start,
        "end_frame": box[0].stop - 1,
        "duration_ms": n_frames * scale.frame_ms,
        "area_max_um2": (ids[box] == number).sum(axis=(1, 2)).max() * scale.pixel_um2,
        "height_um": (box[1].stop - box[1].start) * scale.pixel_y_um,
        "width_um": (box[2].stop - box[2].start) * scale.pixel_x_um,
        "radius_um": radius,
    }


def _measured(scene, inside, box, kind):
    """Return peak, amplitude, widths and times of one event."""
    scale = scene.scale
    pads = (WAVE_PAD_FRAMES, 0, 0)
    if kind != "waves":
        pads = PAD_FRAMES, *(math.ceil(PAD_UM / s) for s in (scale.pixel_y_um, scale.pixel_x_um))
    wide = padded_box(box, scene.movie.shape, pads)
    good = scene.state.good[wide[0]]
    options = {"background": scene.background, "good": scene.state.good, "floor": scene.floor}
    ratio, f0 = relative_fluorescence(scene.movie, scene.busy, wide, box[0].start, **options)
    inner = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, wide, strict=True)
    )
    precision = pixel_precision(f0, scene.background, scene.floor)
    smoothed = smoothed_ratio(ratio, precision, good, scale.aspect)
    usable = inside & good[inner[0], None, None]
    masked = np.where(usable if usable.any() else inside, smoothed[inner], -np.inf)
    peak = np.unravel_index(np.argmax(masked), masked.shape)
    strong = float(masked.max())
    t, y, x = (int(i) + one.start for i, one in zip(peak, box, strict=True))
    start = tuple(a - b.start for a, b in zip((t, y, x), wide, strict=True))
    own = np.zeros(ratio.shape, bool)
    own[inner] = inside
    voxel = scale.pixel_um2 * scale.frame_ms / 1e3
    row = {
        **{"t_peak": t, "y_peak": y, "x_peak": x, "t_peak_ms": t * scale.frame_ms},
        **{"y_peak_um": y * scale.pixel_y_um, "x_peak_um": x * scale.pixel_x_um},
        "peak_df_f0": light_peak(ratio, precision, good, start, scale.aspect),
        "integral_um2_s": float(smoothed[inner][usable].sum() * voxel),
        "f0_counts": float(f0[start[1:]]),
        "background_counts": scene.background,
        "bad_frames": int(np.count_nonzero(~scene.state.good[box[0]])),
        "saturated_voxels": 0,
        "step_df_f0": math.nan,
    }
    if scene.state.step is not None:
        row["step_df_f0"] = scene.state.step / max(f0[start[1:]] - scene.background, scene.floor)
    if scene.state.ceiling is not None:
        top = scene.movie[box][inside] >= scene.state.ceiling
        row["saturated_voxels"] = int(np.count_nonzero(top))
    if f0[start[1:]] - scene.background <= scene.floor:
        return row | {"quality": "F0 is not above the background"}
    if kind == "waves":
        # another wave before or after it is no part of its course
        alone = np.where(scene.busy[wide] & ~own, np.nan, ratio)
        front = wave_front(smoothed, alone, own, scale)
        return row | front | {"quality": _word(row, "" if front else "no wave above the noise")}
    # Voxels of other events would pull the fit; they count as missing, as do black frames.
    missing = (scene.busy[wide] & ~own) | ~good[:, None, None]
    weight = np.where(missing, 0.0, precision)
    rest = smoothed[~scene.busy[wide] & good[:, None, None]]
    noise = 1.4826 * float(np.median(np.abs(rest - np.median(rest)))) if rest.size else 0.0
    if strong <= MIN_PEAK * noise:
        return row | {"quality": _word(row, "no event above the noise")}
    fit = fit_profiles(ratio, weight, start, flat=kind == "puffs", aspect=scale.aspect)
    if fit is not None:
        fitted = fit.height * fit.course.at(np.arange(len(fit.trace), dtype=np.float64))
        row["trace"] = Trace(wide[0].start, fit.trace, fitted)
    return row | judged(fit, row, scale, trace_span(own, good))


def light_peak(
    ratio: np.ndarray,
    precision: np.ndarray,
    good: np.ndarray,
    peak: tuple[int, int, int],
    aspect: float = 1.0,
) -> float:
    """Return the largest lightly smoothed dF/F0 next to the place of a peak (t, y, x).

    The smoothing that finds the peak lowers it: by 40 % in a spark of four frames. A light one
    keeps most of it, and only next to the place found is its largest value no grain of noise.
    """
    reach = (4, 6, 6)
    box = padded_box([slice(p, p + 1) for p in peak], ratio.shape, reach)
    part = smoothed_ratio(ratio[box], precision[box[1:]], good[box[0]], aspect, LIGHT)
    near = tuple(
        slice(max(p - one.start - 1, 0), p - one.start + 2)
        for p, one in zip(peak, box, strict=True)
    )
    return float(part[near].max())


def trace_span(own: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return the frames (t,) bool of an event that show it."""
    span = own.any(axis=(1, 2))
    return span & good if (span & good).any() else span


def judged(
    fit: Fit | None, row: dict, scale: Calibration, span: np.ndarray
) -> dict[str, float | str]:
    """Return the numbers of an event that its data determine, and the word for its quality.

    Args:
        fit: of ``fit_profiles``.
        row: what is known of the event: peak_df_f0, saturated_voxels.
        scale: Calibration.
        span: (t,) bool, frames of the event.
    """
    peak = row["peak_df_f0"]
    if fit is not None and fit.clear < MIN_CLEAR:
        return {"quality": _word(row, "no event above the noise")}
    cells = {"amplitude_df_f0": peak}
    faults = ["no fit"]
    if fit is not None:
        measures = trace_measures(fit.trace, span)
        for name, least in TRACE_FRAMES.items():
            if measures[name] >= least:
                cells[f"trace_{name}_ms"] = measures[name] * scale.frame_ms
        cells["fit_error"] = float(max(fit.errors[name] for name in ("height", "width", "fdhm")))
        faults = ["fit undetermined"]
    if row["saturated_voxels"]:
        # the fit sees a clipped profile: its width is too large, its height too low
        faults = []
    elif fit is not None and fit.misfit <= MAX_MISFIT and fit.amplitude <= MAX_OVER_PEAK * peak:
        values, faults = in_units(fit, scale), []
        for names, errors, word in GIVEN:
            if all(fit.errors[name] <= _largest_error(fit, name) for name in errors):
                cells |= {name: values[name] for name in names}
            elif word:
                faults.append(word)
    return cells | {"quality": _word(row, "; ".join(faults))}


def _largest_error(fit, name):
    """Return the error, as a share, up to which a number of a fit is given."""
    return MAX_RANGE[name] if name in fit.weighed else MAX_ERROR


def _word(row, fault):
    """Return the cell ``quality``: good, or what is wrong."""
    words = [fault] if fault else []
    if row["saturated_voxels"] and "saturated" not in words:
        words.append("saturated")
    if row["bad_frames"]:
        words.append(f"{row['bad_frames']} black or repeated frames")
    if row["step_df_f0"] > COARSE:
        words.append(f"few grey levels: one step is {row['step_df_f0']:.2g} dF/F0")
    return "; ".join(words) or "good"


def pixel_precision(f0: np.ndarray, background: float, floor: float = 1.0) -> np.ndarray:
    """Return the weight of each pixel's dF/F0: one over its variance under shot noise, (y, x)."""
    precision = np.maximum(f0 - background, floor) ** 2 / np.maximum(f0, floor)
    return precision / precision.max()


def smoothed_ratio(
    ratio: np.ndarray,
    precision: np.ndarray,
    good: np.ndarray | None = None,
    aspect: float = 1.0,
    sigmas: tuple[float, float] = (1.0, 2.0),
) -> np.ndarray:
    """Return dF/F0 (t, y, x) smoothed in time and space, weighted by precision (y, x).

    The weights keep pixels outside the cell, where F0 is close to the background, from dominating.

    Args:
        ratio: (t, y, x) dF/F0.
        precision: (y, x) weights.
        good: (t,) bool, frames that count; None: all.
        aspect: height over width of a pixel.
        sigmas: frames and pixels of x.
    """
    sigma = (sigmas[0], sigmas[1] / aspect, sigmas[1])
    if good is None or good.all():
        weighted = ndimage.gaussian_filter(ratio * precision, sigma)
        return weighted / ndimage.gaussian_filter(precision, sigma[1:])
    weight = np.where(good[:, None, None], precision, 0.0)
    total = ndimage.gaussian_filter(weight, sigma)
    weighted = ndimage.gaussian_filter(ratio * weight, sigma)
    return np.where(total > 1e-3 * precision.max(), weighted / np.maximum(total, 1e-12), 0.0)
