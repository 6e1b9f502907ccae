"""Find when a spreading depression reaches each pixel, where it starts and how fast it runs.

No network takes part. Recipe: 2 s moving average; d = (trace - median) / median; the peak of a
pixel is the 99th percentile of d; its onset is the first frame after which d stays above half the
peak for 5 s; arrival = a * distance + b is fitted for every candidate origin, the origin with the
least median absolute residual is kept, and the speed is pixel size / a.
Source: specification, section 13, item 4.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from analysis.utils import save_or_show_plot
from common.figures import BLUE, ORANGE
from common.files import InputError, write_json
from inputs.reading import load_recording
from inputs.scales import NO_SCALES, Scales
from settings import OnsetSettings, given_scales, taken

RECIPE = OnsetSettings()
MOST_PIXELS = 4000  # the origin is searched with every k-th pixel of a larger wave
LEAST_PIXELS = 10  # fewer pixels with an onset give no speed


def moving_average(movie: np.ndarray, length: int) -> np.ndarray:
    """Return the centred mean over ``length`` frames along axis 0; the ends use what is there."""
    return uniform_filter1d(movie, length, axis=0, mode="nearest", output=np.float32)


def first_lasting(above: np.ndarray, hold: int) -> np.ndarray:
    """Return the first frame from which ``above`` (F, K) stays True ``hold`` frames, else -1.

    A pixel that lies above for most of the time before it, or has less than ``hold`` frames before
    it, gets -1, too: it bleaches, or the record starts inside the wave.
    """
    held, before = (np.zeros(above.shape[1], np.int32) for _ in range(2))
    first = np.full(above.shape[1], -1)
    waiting = np.ones(above.shape[1], bool)
    for frame, row in enumerate(above):
        held = np.where(row, held + 1, 0)
        before += row
        found = waiting & (held == hold)
        start = frame - hold + 1
        rises = found & (start >= hold) & (2 * (before - hold) < start)
        first[rises] = start
        waiting &= ~found
    return first


def frames_of_recipe(scales: Scales, recipe: OnsetSettings = RECIPE) -> tuple[int, int]:
    """Return the lengths in frames of the moving average and of the hold."""
    rate_hz = scales.rate_hz.value
    if not rate_hz:
        return recipe.smooth_frames, recipe.hold_frames
    return max(1, round(recipe.smooth_s * rate_hz)), max(1, round(recipe.hold_s * rate_hz))


def arrival_frames(
    movie: np.ndarray, scales: Scales, recipe: OnsetSettings = RECIPE
) -> tuple[np.ndarray, np.ndarray]:
    """Return (arrival (H, W) in frames with NaN, peak (H, W) in dF/F) of a movie (F, H, W)."""
    n_frames, height, width = movie.shape
    smooth, hold = frames_of_recipe(scales, recipe)
    if n_frames <= smooth + hold:
        raise InputError(
            f"onset map: found {n_frames} frames, expected more than {smooth + hold} (moving "
            "average plus hold); check --frame_rate_hz"
        )
    traces = moving_average(movie, smooth).reshape(n_frames, -1)  # (F, H*W)
    if scales.offset.value is not None:
        traces -= np.float32(scales.offset.value)
    middle = np.median(traces, axis=0)
    outside = np.zeros(middle.size, bool)
    if scales.mask.value is not None:
        outside = ~scales.mask.value.ravel()
        middle = np.where(outside, 1, middle)
    if (middle <= 0).any():
        raise InputError(
            f"onset map: the median of {(middle <= 0).sum()} pixels is not positive, expected raw "
            "fluorescence above the dark level, not dF/F; give the raw movie, --offset or --mask"
        )
    change = traces / middle - 1  # d, (F, H*W)
    peak = np.percentile(change, 99, axis=0)
    first = first_lasting(change > peak / 2, hold)
    arrival = np.where((first < 0) | outside, np.nan, first)
    if recipe.least_peak is not None:
        arrival[peak < recipe.least_peak] = np.nan
    peak = np.where(outside, np.nan, peak)
    return arrival.reshape(height, width), peak.reshape(height, width)


def fit_line(distance: np.ndarray, arrival: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (a, b) of the least-squares line arrival = a * distance + b along the last axis."""
    centred = distance - distance.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    slope = (centred * (arrival - arrival.mean(axis=-1, keepdims=True))).sum(axis=-1)
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
    return slope, arrival.mean(axis=-1) - slope * distance.mean(axis=-1)


def find_origin(
    rows: np.ndarray,
    columns: np.ndarray,
    arrival: np.ndarray,
    shape: tuple[int, int],
    row_ratio: float = 1.0,
) -> tuple[int, int] | None:
    """Return (row, column) of the candidate pixel with the least median absolute residual.

    ``row_ratio`` is the height of a pixel over its width.
    """
    best, origin = np.inf, None
    for row in range(shape[0]):
        candidates = np.arange(shape[1])[:, None]  # (W, 1)
        distance = np.hypot((rows - row) * row_ratio, columns - candidates)  # (W, pixels)
        slope, offset = fit_line(distance, np.broadcast_to(arrival, distance.shape))
        residual = np.abs(arrival - slope[:, None] * distance - offset[:, None])
        middle = np.median(residual, axis=1)
        middle[slope <= 0] = np.inf  # a wave runs away from its origin
        column = int(np.argmin(middle))
        if middle[column] < best:
            best, origin = middle[column], (row, column)
    return origin


def onset_map(
    movie: np.ndarray, scales: Scales = NO_SCALES, recipe: OnsetSettings = RECIPE
) -> dict:
    """Find arrival, origin and speed of a wave in a movie (F, H, W) of raw fluorescence.

    Args:
        scales: clock, size of a pixel, dark level and mask; what is unknown leaves the result in
            frames and pixels.

    Returns:
        dict with arrival (H, W) in frames (NaN where none), peak (H, W) in dF/F, origin (row,
        column), speed, speed_low and speed_high (95 % bootstrap interval over pixels) in
        speed_unit, speed_mm_min (None when a scale is unknown), n_pixels with an onset, residual
        (median absolute residual) in time_unit, note. Origin and speed are None, with the reason
        in note, when fewer than LEAST_PIXELS pixels have an onset or the arrival does not grow
        with the distance from any pixel.
    """
    arrival, peak = arrival_frames(movie, scales, recipe)
    rows, columns = np.nonzero(np.isfinite(arrival))
    times = scales.clock(arrival[rows, columns])  # (pixels,) frames on an even clock
    result = {
        "arrival": arrival, "peak": peak, "origin": None, "speed": None, "speed_low": None,
        "speed_high": None, "speed_unit": scales.speed_unit, "speed_mm_min": None,
        "n_pixels": len(rows), "residual": None, "time_unit": scales.time_unit, "note": "",
    }  # fmt: skip
    if len(rows) < LEAST_PIXELS:
        result["note"] = f"{len(rows)} pixels have an onset, at least {LEAST_PIXELS} are needed"
        return result
    some, ratio = slice(None, None, -(-len(rows) // MOST_PIXELS)), scales.row_ratio
    origin = find_origin(rows[some], columns[some], times[some], arrival.shape, ratio)
    if origin is None:
        result["note"] = "arrival does not grow with the distance from any pixel: no wave"
        return result
    distance = np.hypot((rows - origin[0]) * ratio, columns - origin[1])  # widths of a pixel
    slope, offset = fit_line(distance, times)
    residual = float(np.median(np.abs(times - slope * distance - offset)))
    result |= {
        "origin": (int(origin[0]), int(origin[1])),
        "speed": float(scales.speed(slope)),
        "residual": residual / (scales.rate_hz.value or 1.0),
    }
    if recipe.bootstrap:
        result |= speed_interval(distance, times, scales, recipe)
    if scales.speed_unit == "mm/min":
        result["speed_mm_min"] = result["speed"]
    return result


def speed_interval(
    distance: np.ndarray, times: np.ndarray, scales: Scales, recipe: OnsetSettings
) -> dict:
    """Return speed_low and speed_high, the 95 % bootstrap interval over pixels, or a note."""
    shape = recipe.bootstrap, len(times)
    picks = np.random.default_rng(recipe.seed).integers(0, len(times), shape)
    slopes, _ = fit_line(distance[picks], times[picks])
    # The interval is taken of the slope: a slope near 0 would make a speed without bound.
    low, high = np.quantile(slopes, (0.025, 0.975))
    if low > 0:
        return {"speed_low": float(scales.speed(high)), "speed_high": float(scales.speed(low))}
    return {"note": "the interval of the speed is open: some resamplings show no wave"}


def write_onset(
    run_dir: Path, movie: np.ndarray, scales: Scales = NO_SCALES, recipe: OnsetSettings = RECIPE
) -> dict:
    """Write the onset map of ``movie`` as onset.json and plots/onset_map.png; return the dict."""
    run_dir = Path(run_dir)
    result = onset_map(movie, scales, recipe)
    draw_onset(run_dir / "plots" / "onset_map.png", result, scales)
    numbers = {key: value for key, value in result.items() if key not in ("arrival", "peak")}
    smooth, hold = frames_of_recipe(scales, recipe)
    numbers |= {"smooth_frames": smooth, "hold_frames": hold, "recording": scales.record()}
    write_json(run_dir / "onset.json", numbers)
    return result


def describe(result: dict) -> str:
    """Return one sentence with the speed and its interval, or why there is none.

    Runs of before tell speed_mm_min alone.
    """
    speed, unit = result.get("speed", result["speed_mm_min"]), result.get("speed_unit", "mm/min")
    if speed is None:
        return f"no wave found: {result['note']}"
    text = f"speed {as_text(speed)} {unit}"
    if result["speed_low"] is not None:
        ends = as_text(result["speed_low"]), as_text(result["speed_high"])
        text += f" (95 % interval {ends[0]} to {ends[1]})"
    row, column = result["origin"]
    return f"{text}, origin row {row}, column {column}, {result['n_pixels']} pixels"


def as_text(speed: float) -> str:
    """Return a speed with two decimals, or three digits when it is small."""
    return f"{speed:.2f}" if speed >= 0.1 else f"{speed:.3g}"


def draw_onset(path: Path, result: dict, scales: Scales) -> Path:
    """Draw the arrival map and arrival over distance; the CSV beside it holds every pixel."""
    arrival, time, length = result["arrival"], scales.time_unit, scales.length_unit
    shown = scales.times(arrival)  # (H, W) in time_unit
    height, width = arrival.shape
    rows, columns = np.mgrid[:height, :width]
    table = {
        "pixel": np.arange(arrival.size), "row": rows.ravel(), "column": columns.ravel(),
        f"arrival_{time}": shown.ravel(), "peak_dff": result["peak"].ravel(),
    }  # fmt: skip
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    aspect = scales.row_ratio
    drawn = left.imshow(shown, cmap="viridis", interpolation="nearest", aspect=aspect)
    figure.colorbar(drawn, ax=left, label=f"arrival ({time})").outline.set_visible(False)
    left.set(xlabel="column (pixel)", ylabel="row (pixel)", title="CSD onset (white: none)")
    right.spines[["top", "right"]].set_visible(False)
    right.set(xlabel=f"distance from the origin ({length})", ylabel=f"arrival ({time})")
    if result["origin"] is None:
        right.set_title("no wave found", fontsize=10)
        right.text(0.5, 0.5, result["note"], ha="center", va="center", transform=right.transAxes)
    else:
        row, column = result["origin"]
        left.plot(column, row, "o", color="w", markeredgecolor="k", markersize=7)
        far = scales.lengths(np.hypot((rows - row) * scales.row_ratio, columns - column))
        table[f"distance_{length}"] = far.ravel()
        found = np.isfinite(arrival)
        slope, offset = fit_line(far[found], shown[found])
        right.plot(far[found], shown[found], ".", color=BLUE, markersize=4, label="pixel")
        ends = np.array([0, far[found].max()])
        right.plot(ends, slope * ends + offset, color=ORANGE, label="least-squares line")
        right.legend(loc="lower right", frameon=False)
        figure.suptitle(describe(result), fontsize=10)
    return save_or_show_plot(figure, Path(path), table)


def find_onset(chosen: argparse.Namespace) -> None:
    """Make the onset map of one movie; ``chosen`` holds the flags of onset.py."""
    recording = load_recording(chosen.data, given=given_scales(chosen))
    print(recording.words())
    recipe = taken(OnsetSettings, chosen)
    if not recording.scales.rate_hz.value:
        print(
            f"the recipe counts frames: moving average {recipe.smooth_frames}, hold"
            f" {recipe.hold_frames} (--smooth_frames, --hold_frames)"
        )
    result = write_onset(chosen.out_dir, recording.movie(), recording.scales, recipe)
    print(f"{describe(result)}; {chosen.out_dir / 'plots' / 'onset_map.png'}")
