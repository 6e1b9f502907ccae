"""Measure every event of a movie in physical units: the event table and the event frequency.

The profile of a spark or puff is taken as S(y, x) K(t), fitted to dF/F0 in the box of the event: a
(flat-topped) Gaussian in space, and in time a linear rise and an exponential decay, blurred where
the data show a rounded peak. Waves get the
speed of their front. Source: sections 8.10, 8.11 and 13.2 of the specification.

Letters: T frames, H rows, W columns; t, y, x the same in the box of one event.
"""

import math
import warnings

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.optimize import OptimizeWarning, curve_fit

from inputs.data_processing import cell_mask, padded_box
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
    *("pixel_um", "pixel_origin", "frame_ms", "frame_origin"),  # the scale of all of these
)
MASS_FACTOR = (
    1.206  # mass of a Gaussian spark = 1.206 amplitude FWHM^3 (volume under a 3D Gaussian)
)
BEFORE_FRAMES = 40  # event-free frames before an event that give F0
FOOT_FRAMES = 2  # an event begins this much before its mask, which starts above the noise
MIN_REST_FRAMES = 5  # fewer event-free frames before it: frames after it are used too
PAD_FRAMES = 12  # context of the fit before and after the event
PAD_UM = 1.0  # context of the fit around the event
OUTSIDE_RATIO = 0.5  # the left column is background when darker than this share of the cell
BASELINE = 0.1  # largest dF/F0 under an event that the fit takes for bleaching
BLUR_FRAMES = 6  # shorter events do not determine a blur
BLUR_STEP = 0.2  # frames, step at which a blurred time course is computed
BLUR_GAIN = 0.5  # a blurred time course must leave at most this share of the misfit
FOOT_SHARE = 0.05  # of the peak: where the rise of a blurred time course begins
ROUNDS = 3  # alternating estimates of the spatial and the temporal profile
FRONT_BLOCK_PX = 4  # the front of a wave is timed in blocks of this edge
MIN_FRONT_BLOCKS = 6  # a plane through fewer arrival times is not fitted
CLASS_NAMES = {CLASSES[name]: name for name in EVENT_CLASSES}


def event_table(movie, prediction, *, calibration, probabilities=None, background=None):
    """Measure all events of a movie.

    Args:
        movie: (T, H, W) counts of the camera, before any normalisation.
        prediction: preds_processing_tools.Prediction.
        calibration: Calibration of the movie, pixel size and frame interval known.
        probabilities: (4, T, H, W) of the network, for the column mean_probability.
        background: counts without light, subtracted in dF/F0 = (F - F0) / (F0 - background); None
            takes the offset of the calibration, else the left-most column where it lies outside the
            cell, else 0.

    Returns:
        DataFrame with the columns COLUMNS, one row for each event in the order of ids. A quantity
        that the data do not determine is NaN (an empty cell in the CSV).
    """
    scale = calibration
    if background is None:
        background = calibration.offset_counts
    background = background_counts(movie) if background is None else float(background)
    origins = {
        **{"pixel_um": scale.pixel_um, "pixel_origin": scale.pixel_origin},
        **{"frame_ms": scale.frame_ms, "frame_origin": scale.frame_origin},
    }
    busy = prediction.instances > 0
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
        row |= _measured(movie, busy, inside, box, row["class"], background, scale)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"id": int, "class": str})


def background_counts(movie):
    """Return the counts without light: mean of the left-most column, 0 when it is in the cell.

    Source: section 8.10 (self ratio).
    """
    cell = cell_mask(movie)
    column = float(movie[:, :, 0].mean(dtype=np.float64))
    if not cell.any() or cell[:, 0].any():
        return 0.0
    inside = float(movie[:, cell].mean(dtype=np.float64))
    return column if column < OUTSIDE_RATIO * inside else 0.0


def event_frequency(table, movie, *, calibration):
    """Return the number of events of every class and their rate in the cell.

    Args:
        table: DataFrame of event_table.
        movie: (T, H, W) counts.
        calibration: Calibration of the movie.

    Returns:
        DataFrame with one row for each class: n, cell area in um2, duration in s, events per
        100 um2 and second, events per 100 um (longer side of the frame) and second.
    """
    area = float(cell_mask(movie).sum() or movie[0].size) * calibration.pixel_um**2
    seconds = len(movie) * calibration.frame_ms / 1e3
    length = max(movie.shape[1:]) * calibration.pixel_um
    rows = []
    for name in EVENT_CLASSES:
        n = int((table["class"] == name).sum())
        rates = {
            "per_100um2_s": n / area / seconds * 100,
            "per_100um_s": n / length / seconds * 100,
        }
        rows.append({"class": name, "n": n, "cell_um2": area, "duration_s": seconds, **rates})
    return pd.DataFrame(rows)


def spark_course(t, onset, rise, tau, blur=0.0):
    """Return a linear rise to 1 and an exponential decay, blurred by a Gaussian, at times t (N,).

    Args:
        t: times in frames.
        onset, rise, tau: of the sharp course, in frames.
        blur: standard deviation of the Gaussian in frames; 0 keeps the sharp peak.
    """
    if blur:
        fine = np.arange(t[0] - 4 * blur, t[-1] + 4 * blur + BLUR_STEP, BLUR_STEP)
        course = ndimage.gaussian_filter1d(spark_course(fine, onset, rise, tau), blur / BLUR_STEP)
        return np.interp(t, fine, course)
    decay = np.exp(-np.clip((t - onset - rise) / tau, 0, 50))
    return np.where(t < onset + rise, np.clip((t - onset) / rise, 0, 1), decay)


def course_times(rise, tau, blur):
    """Return (peak, time to peak, full duration at half maximum) of spark_course, in frames.

    The sharp course has 1, rise and rise / 2 + tau ln 2.
    """
    if not blur:
        return 1.0, rise, rise / 2 + tau * math.log(2)
    t = np.arange(-4 * blur, rise + 6 * tau + 4 * blur, BLUR_STEP)
    values = spark_course(t, 0.0, rise, tau, blur)
    top = float(values.max())
    above = t[values >= top / 2]
    foot = t[values >= FOOT_SHARE * top][0]
    return top, float(t[np.argmax(values)] - foot), float(above[-1] - above[0])


def spot(radius, half_width, order):
    """Return a spatial profile of amplitude 1: 1/2 at ``half_width``; order 2 is a Gaussian."""
    return np.exp(-math.log(2) * (radius / half_width) ** order)


def spot_slopes(rows, columns, height, half_width, order):
    """Return the derivatives (N, 5) of ``height`` times a spot at offsets from its centre (N,).

    Columns: height, column of the centre, half width, row of the centre, order.
    """
    radius = np.hypot(rows, columns)
    power = math.log(2) * (radius / half_width) ** order
    shape = np.exp(-power)
    steep = height * shape * power
    inwards = order * steep / np.maximum(radius, 1e-9) ** 2
    bend = -steep * np.log(np.maximum(radius, 1e-9) / half_width)
    slopes = (shape, inwards * columns, order * steep / half_width, inwards * rows, bend)
    return np.stack(slopes, axis=1)


def relative_fluorescence(movie, busy, box, start, *, background):
    """Return dF/F0 in a box and F0.

    Args:
        movie: (T, H, W) counts.
        busy: (T, H, W) bool, voxels of any event.
        box: (t, y, x) slices around the event.
        start: first frame of the event.
        background: counts without light.

    Returns:
        (dF/F0 (t, y, x), F0 (y, x) counts), float64. F0 is the mean of up to 40 event-free
        frames of each pixel before the event, or after it where there are too few.
    """
    t, y, x = box
    columns, occupied = movie[:, y, x], busy[:, y, x]
    before = slice(max(0, start - FOOT_FRAMES - BEFORE_FRAMES), max(start - FOOT_FRAMES, 0))
    total, count = _event_free_sum(columns[before], occupied[before])
    poor = count < MIN_REST_FRAMES
    if poor.any():
        after = slice(t.stop, t.stop + BEFORE_FRAMES)
        more, n = _event_free_sum(columns[after], occupied[after])
        total, count = total + np.where(poor, more, 0), count + np.where(poor, n, 0)
    if (count == 0).any():
        # A pixel that is never at rest nearby: its 20th percentile stands for the resting level.
        low = np.percentile(columns, 20, axis=0)
        total, count = np.where(count == 0, low, total), np.maximum(count, 1)
    f0 = total / count
    return (movie[box] - f0) / np.maximum(f0 - background, 1.0), f0


def _event_free_sum(values, occupied):
    free = ~occupied
    return (values * free).sum(axis=0, dtype=np.float64), free.sum(axis=0)


def region_statistics(ids, number, box):
    """Return (frames, radius in pixels of the largest disk inside one frame, voxels) of an event.

    Args:
        ids: (T, H, W) event ids.
        number: id of the event.
        box: box of the event.
    """
    wide = padded_box(box, ids.shape, (0, 1, 1))
    inside = ids[wide] == number
    # The border of the frame is no border of the event; an event that fills frames has no radius.
    radii = [ndimage.distance_transform_edt(frame).max() for frame in inside if not frame.all()]
    return box[0].stop - box[0].start, max(radii, default=math.nan), int(inside.sum())


def _extent(ids, number, box, scale):
    """Return what follows from the mask of an event alone."""
    n_frames, radius, _ = region_statistics(ids, number, box)
    area = (ids[box] == number).sum(axis=(1, 2)).max() * scale.pixel_um**2
    return {
        "start_frame": box[0].start,
        "end_frame": box[0].stop - 1,
        "duration_ms": n_frames * scale.frame_ms,
        "area_max_um2": area,
        "height_um": (box[1].stop - box[1].start) * scale.pixel_um,
        "width_um": (box[2].stop - box[2].start) * scale.pixel_um,
        "radius_um": radius * scale.pixel_um,
    }


def _measured(movie, busy, inside, box, kind, background, scale):
    """Return peak, amplitude, widths and times of one event."""
    pad = 0 if kind == "waves" else math.ceil(PAD_UM / scale.pixel_um)
    wide = padded_box(box, movie.shape, (PAD_FRAMES, pad, pad))
    ratio, f0 = relative_fluorescence(movie, busy, wide, box[0].start, background=background)
    inner = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, wide, strict=True)
    )
    precision = pixel_precision(f0, background)
    smoothed = smoothed_ratio(ratio, precision)
    masked = np.where(inside, smoothed[inner], -np.inf)
    peak = np.unravel_index(np.argmax(masked), masked.shape)
    t, y, x = (int(i) + one.start for i, one in zip(peak, box, strict=True))
    voxel = scale.pixel_um**2 * scale.frame_ms / 1e3
    row = {
        **{"t_peak": t, "y_peak": y, "x_peak": x, "t_peak_ms": t * scale.frame_ms},
        **{"y_peak_um": y * scale.pixel_um, "x_peak_um": x * scale.pixel_um},
        "amplitude_df_f0": float(masked.max()),
        "integral_um2_s": float(smoothed[inner][inside].sum() * voxel),
        "f0_counts": float(f0[y - wide[1].start, x - wide[2].start]),
        "background_counts": background,
    }
    if kind == "waves":
        return row | wave_front(smoothed[inner], inside, scale)
    # Voxels of other events would pull the fit; they count as missing.
    own = np.zeros(ratio.shape, bool)
    own[inner] = inside
    weight = np.where(busy[wide] & ~own, 0.0, precision)
    start = tuple(a - b.start for a, b in zip((t, y, x), wide, strict=True))
    return row | fit_event(ratio, weight, start, scale, flat=kind == "puffs")


def pixel_precision(f0, background):
    """Return the weight of each pixel's dF/F0: one over its variance under shot noise, (y, x)."""
    precision = np.maximum(f0 - background, 1.0) ** 2 / np.maximum(f0, 1.0)
    return precision / precision.max()


def smoothed_ratio(ratio, precision):
    """Return dF/F0 (t, y, x) smoothed by sigma 1 frame and 2 pixels, weighted by precision (y, x).

    The weights keep pixels outside the cell, where F0 is close to the background, from dominating.
    """
    sigma = (1, 2, 2)
    weighted = ndimage.gaussian_filter(ratio * precision, sigma)
    return weighted / ndimage.gaussian_filter(precision, sigma[1:])


def fit_event(ratio, precision, peak, scale, *, flat):
    """Fit S(y, x) K(t) to one event.

    Args:
        ratio: (t, y, x) dF/F0.
        precision: (t, y, x) weight of each voxel, 0 leaves it out.
        peak: (t, y, x) where the fit starts, in voxels of ``ratio``.
        scale: Calibration.
        flat: True fits the exponent of the spatial profile too (puffs).

    Returns:
        Dict of amplitude_df_f0, fwhm_um, fdhm_ms, rise_ms, tau_ms, mass_um3; empty when the fit
        finds no event with finite width inside the box.
    """
    t = np.arange(ratio.shape[0], dtype=np.float64)
    y, x = np.mgrid[: ratio.shape[1], : ratio.shape[2]].astype(np.float64)
    course = spark_course(t, peak[0] - 1.0, 1.0, max(4.0, ratio.shape[0] / 6))
    weighted = ratio * precision
    try:
        for _ in range(ROUNDS):
            # Least-squares map for this course, then least-squares trace for its spot.
            weight = np.einsum("t,tyx->yx", course**2, precision)
            image = np.einsum("t,tyx->yx", course, weighted) / np.maximum(weight, 1e-9)
            row, column, half, order = _fit_spot(image, weight, y, x, peak, flat)
            shape = spot(np.hypot(y - row, x - column), half, order)
            weight = np.einsum("yx,tyx->t", shape**2, precision)
            trace = np.einsum("yx,tyx->t", shape, weighted) / np.maximum(weight, 1e-9)
            height, *times = _fit_course(t, trace, weight, peak[0])
            course = spark_course(t, *times)
    except (RuntimeError, ValueError):
        return {}
    fwhm = 2 * half * scale.pixel_um
    onset, rise, tau, blur = times
    if height <= 0 or half > max(ratio.shape[1:]) or tau > len(t) or onset + rise > len(t):
        return {}
    top, to_peak, duration = course_times(rise, tau, blur)
    amplitude = height * top
    return {
        "amplitude_df_f0": amplitude,
        "fwhm_um": fwhm,
        "fdhm_ms": duration * scale.frame_ms,
        "rise_ms": to_peak * scale.frame_ms,
        "tau_ms": tau * scale.frame_ms,
        "mass_um3": MASS_FACTOR * amplitude * fwhm**3,
    }


def _fit_spot(image, weight, y, x, peak, flat):
    """Return (row, column, half width, order) of the spot in an image (y, x).

    An image of one row is a line scan: its row is the centre.
    """
    used = weight > 0
    line = len(image) == 1

    def model(_, height, column, half, *rest):
        row = 0.0 if line else rest[0]
        order = rest[-1] if flat else 2.0
        return height * spot(np.hypot(y - row, x - column), half, order)[used]

    def slopes(_, height, column, half, *rest):
        row = 0.0 if line else rest[0]
        order = rest[-1] if flat else 2.0
        kept = [0, 1, 2] + [3] * (not line) + [4] * flat
        return spot_slopes((y - row)[used], (x - column)[used], height, half, order)[:, kept]

    near = image[max(peak[1] - 1, 0) : peak[1] + 2, max(peak[2] - 1, 0) : peak[2] + 2]
    start = [max(float(near.mean()), 1e-3), peak[2], 8.0 if flat else 4.0]
    low, high = [0, peak[2] - 6, 0.5], [np.inf, peak[2] + 6, 2.0 * max(image.shape)]
    if not line:
        start, low, high = [*start, peak[1]], [*low, peak[1] - 6], [*high, peak[1] + 6]
    if flat:
        start, low, high = [*start, 3.0], [*low, 1.5], [*high, 8.0]
    sigma = 1 / np.sqrt(weight[used])
    found = _bounded_fit(model, None, image[used], start, low, high, sigma, slopes)
    row = 0.0 if line else found[3]
    return row, found[1], found[2], found[-1] if flat else 2.0


def _fit_course(t, trace, weight, peak_frame):
    """Return (height, onset, rise, tau, blur) of spark_course, in frames, for a trace (t,).

    A constant under the event takes up what bleaching leaves between F0 and the event. The blur
    stays 0 unless it removes a good part of the misfit: few frames do not determine it.
    """
    used = weight > 0
    sigma = 1 / np.sqrt(weight[used])

    def model(t, height, onset, rise, tau, baseline, blur=0.0):
        return baseline + height * spark_course(t, onset, rise, tau, blur)

    # no exact slopes here: at its kinks they lead into a wrong minimum that differences step over
    def fit(start, low, high):
        found = _bounded_fit(model, t[used], trace[used], start, low, high, sigma)
        misfit = float((((model(t[used], *found) - trace[used]) / sigma) ** 2).sum())
        return found, misfit

    start = [max(float(trace[peak_frame]), 1e-3), peak_frame - 1.5, 1.5, 5.0, 0.0]
    low = [0, -5, 0.2, 0.3, -BASELINE]
    high = [np.inf, len(t), max(len(t) / 2, 2.0), 3.0 * len(t) + 10, BASELINE]
    sharp, misfit = fit(start, low, high)
    if course_times(*sharp[2:4], 0.0)[2] < BLUR_FRAMES:
        return (*sharp[:4], 0.0)
    blurred, less = fit([*sharp, 1.0], [*low, 0.2], [*high, len(t) / 4])
    if less < BLUR_GAIN * misfit:
        return (*blurred[:4], blurred[5])
    return (*sharp[:4], 0.0)


def _bounded_fit(model, t, values, start, low, high, sigma, slopes=None):
    """Return the parameters of a weighted least-squares fit that starts inside its bounds.

    ``slopes`` returns the derivatives of the model (N, parameters); None: finite differences.
    """
    if np.size(values) <= len(start):
        raise ValueError("fewer values than parameters")
    start = np.clip(start, np.add(low, 1e-6), np.subtract(high, 1e-6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # about the covariance, which is unused
        return curve_fit(model, t, values, start, sigma, bounds=(low, high), jac=slopes)[0]


def wave_front(ratio, inside, scale):
    """Measure a wave: its amplitude, and its speed from a plane fitted to the arrival times.

    Args:
        ratio: (t, y, x) smoothed dF/F0 in the box of the wave.
        inside: (t, y, x) bool, voxels of the wave.
        scale: Calibration.

    Returns:
        Dict of amplitude_df_f0 (median of the peaks of all blocks) and speed_um_s; without the
        speed when the front crosses the box within a frame, empty when too few blocks are covered.
    """
    block = FRONT_BLOCK_PX
    height, width = (n // block * block for n in ratio.shape[1:])
    cut = (slice(None), slice(0, height), slice(0, width))
    grid = (len(ratio), height // block, block, width // block, block)
    covered = inside[cut].reshape(grid).any(axis=0).mean(axis=(1, 3)) > 0.5
    rows, columns = np.nonzero(covered)
    if len(rows) < MIN_FRONT_BLOCKS:
        return {}
    traces = ratio[cut].reshape(grid).mean(axis=(2, 4))[:, rows, columns]  # (t, blocks)
    top = traces.max(axis=0)
    first = np.argmax(traces >= top / 2, axis=0)
    row = {"amplitude_df_f0": float(np.median(top))}
    seen = first > 0
    if seen.sum() < MIN_FRONT_BLOCKS:
        return row
    at, index = first[seen], np.flatnonzero(seen)
    after, before = traces[at, index], traces[at - 1, index]
    arrival = at - (after - top[seen] / 2) / np.maximum(after - before, 1e-9)  # frames
    plane = np.stack([np.ones(len(at)), rows[seen] * block, columns[seen] * block], axis=1)
    kept = np.ones(len(at), bool)
    for _ in range(3):
        solution = np.linalg.lstsq(plane[kept], arrival[kept], rcond=None)[0]
        residual = np.abs(arrival - plane @ solution)
        kept = residual <= max(3 * 1.4826 * np.median(residual[kept]), 1.0)
    slowness = float(np.hypot(*solution[1:]))  # frames per pixel
    if slowness * max(height, width) < 1:
        return row
    return row | {"speed_um_s": scale.pixel_um / (slowness * scale.frame_ms / 1e3)}
