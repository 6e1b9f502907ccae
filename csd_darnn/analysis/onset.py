"""Find when a spreading depression reaches each pixel, where it starts and how fast it runs.

No network takes part. A rise that lasts is looked for in every pixel, against the time just before
it and the fluctuations of the record (onset_traces.py); rises that follow each other from pixel to
pixel are a wave when a front from one point explains them better than in surrogates
(onset_waves.py, onset_front.py). Without that evidence the answer is "no wave", with the reason.
Source: specification, section 13, item 4. Differs: its recipe (half of the 99th percentile above
the median of the record, origin among the pixels) finds a speed in noise.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from analysis.onset_figures import as_text, draw_onset
from analysis.onset_front import local_slopes, slope_interval, time_bands
from analysis.onset_shape import LEAST_TRAVEL, travel_of_rise
from analysis.onset_traces import (
    Events,
    Grid,
    Lengths,
    average_cells,
    coarser,
    find_events,
    recipe_lengths,
)
from analysis.onset_waves import (
    SLOWEST_MM_MIN,
    Field,
    Wave,
    best_of_each_cell,
    find_waves,
    make_field,
)
from common.files import write_json
from common.locks import writing
from common.tables import write_rows
from inputs.film import with_bar
from inputs.reading import load_film
from inputs.scales import NO_SCALES, Scales
from settings import OnsetSettings, given_scales, taken

RECIPE = OnsetSettings()
USUAL_MM_MIN = (1.0, 10.0)  # speeds of spreading depressions; others are named, not dropped
LOCAL_PARTS = 12  # the local speed is fitted over windows of about that part of the field
COARSE = 3  # pixels along a side of the cells of a second look
LEAST_COARSE = 6  # cells along the shorter side that it needs
ARRAYS = ("arrival", "peak", "local_speed")


@dataclass(frozen=True)
class Place:
    """What turns cells and frames of one movie into its units."""

    grid: Grid
    field: Field
    scales: Scales

    def time(self, frames: float) -> float:
        """Return a length of time in the movie's unit."""
        return float(frames) / (self.scales.rate_hz.value or 1.0)

    def pixel(self, place: np.ndarray) -> tuple[int, int]:
        """Return (row, column) of the pixel nearest to a place in widths of a pixel."""
        return round(float(place[0] / self.scales.row_ratio)), round(float(place[1]))

    def count(self, cells: np.ndarray) -> int:
        """Return how many pixels ``cells`` hold."""
        chosen = np.zeros(self.grid.traces.shape[1], bool)
        chosen[cells] = True
        chosen = self.grid.to_image(chosen)
        mask = self.scales.mask.value
        return int(chosen.sum() if mask is None else (chosen & mask).sum())

    def image(self, cells: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return values of ``cells`` as an image (H, W), NaN elsewhere."""
        whole = np.full(self.grid.traces.shape[1], np.nan)
        whole[cells] = values
        return self.grid.to_image(whole)


def onset_map(
    movie: np.ndarray, scales: Scales = NO_SCALES, recipe: OnsetSettings = RECIPE
) -> dict:
    """Find the waves in a movie (F, H, W): arrival, origin and speed of each.

    Args:
        movie: raw fluorescence, or any signal that a wave raises (``recipe.polarity``).
        scales: clock, size of a pixel, dark level and mask; what is unknown leaves the result in
            frames and pixels.

    Returns:
        dict: waves (list, see ``wave_row``, in the order of time), note (why there is none, or
        what is unusual), and of the largest wave, None without one: origin (row, column; outside
        the image it may be, too), speed, speed_low, speed_high (95 % interval, blocks of pixels
        resampled) in speed_unit, speed_mm_min (None when a scale is unknown), residual (median
        absolute residual) in time_unit, n_pixels. Arrays (H, W) with NaN: arrival in frames,
        peak in peak_unit, local_speed in speed_unit; without a wave, arrival and peak are those
        of the highest rise of every pixel.
    """
    return onset_of_blocks([movie], movie.shape, scales, recipe)


def onset_of_blocks(
    blocks: Iterable[np.ndarray],
    size: tuple[int, int, int],
    scales: Scales = NO_SCALES,
    recipe: OnsetSettings = RECIPE,
) -> dict:
    """Do what ``onset_map`` does for a movie of ``size`` (F, H, W) that comes in blocks."""
    lengths = recipe_lengths(recipe, scales.rate_hz.value)
    grid = average_cells(blocks, size, lengths, scales.mask.value)
    place, events, waves, note = look(grid, lengths, scales, recipe)
    if not waves and min(grid.shape) >= COARSE * LEAST_COARSE:
        # What single pixels do not show may stand out of the noise in the mean of some.
        second = look(coarser(grid, COARSE), lengths, scales, recipe)
        if second[2]:
            place, events, waves, note = second
            grid = place.grid
    peak, peak_unit = peak_heights(events, scales)
    main = max(waves, key=lambda wave: len(wave.times), default=None)
    rows = [wave_row(wave, place, recipe) for wave in waves]
    shown = best_of_each_cell(events.cell, events.score)
    shown = shown[events.score[shown] >= recipe.least_score]
    own, heights = events.take(shown), peak[shown]
    if main is not None:
        own, heights = main.events, peak_heights(main.events, scales)[0]
    result = {
        "waves": [{"wave": number, **row} for number, row in enumerate(rows, start=1)],
        "arrival": place.image(own.cell, own.frame), "peak": place.image(own.cell, heights),
        "local_speed": np.full(grid.image, np.nan), "local_window_pixels": None,
        "peak_unit": peak_unit, "origin": None, "speed": None, "speed_low": None,
        "speed_high": None, "speed_unit": scales.speed_unit, "speed_mm_min": None,
        "n_pixels": place.count(own.cell), "residual": None, "time_unit": scales.time_unit,
        "note": note, "cell_pixels": list(grid.cell), "bin_frames": lengths.frames,
        "even_clock": scales.even_clock,
    }  # fmt: skip
    if main is None:
        return result
    row = rows[[wave is main for wave in waves].index(True)]
    keys = ("origin", "speed", "speed_low", "speed_high", "n_pixels", "residual")
    result |= {key: row[key] for key in keys}
    result["note"] = remarks(row, scales, ends_a_fall(main, grid, recipe))
    if scales.speed_unit == "mm/min":
        result["speed_mm_min"] = row["speed"]
    return result | local_speed(main, place)


def field_of(grid: Grid, lengths: Lengths, scales: Scales) -> Field:
    """Return the Field of a Grid: how late a neighbour may be."""
    hold = lengths.hold * lengths.frames
    patience = 2.0 * hold
    if scales.rate_hz.value and scales.column_um.value:
        width = max(grid.cell[0] * scales.row_um.value, grid.cell[1] * scales.column_um.value)
        patience += width / 1000 / SLOWEST_MM_MIN * 60 * scales.rate_hz.value
    last = float(scales.clock(np.array([grid.n_frames - 1.0]))[0]) + 1
    resolution = float(lengths.smooth * lengths.frames)
    return make_field(grid, scales.row_ratio, patience, last, max(2.0, resolution))


def peak_heights(events: Events, scales: Scales) -> tuple[np.ndarray, str]:
    """Return the height of every rise, and its unit: dF/F where the level before it is positive.

    A movie of dF/F, or one around 0, has heights in its own units.
    """
    level = events.base - (scales.offset.value or 0.0)
    if len(level) and (level > 0).mean() > 0.5:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(level > 0, events.rise / level, np.nan), "dff"
    return events.rise, "recording"


def look(
    grid: Grid, lengths: Lengths, scales: Scales, recipe: OnsetSettings
) -> tuple[Place, Events, list[Wave], str]:
    """Return the place, all rises, the waves among them, and why there is none."""
    events = find_events(grid, lengths, recipe)
    if recipe.least_peak is not None:
        events = events.take(np.abs(peak_heights(events, scales)[0]) >= recipe.least_peak)
    place = Place(grid, field_of(grid, lengths, scales), scales)
    waves, note = find_waves(place.field, events, scales.clock(events.frame), recipe)
    sign = -1 if recipe.polarity == "fall" else 1
    looked = [
        replace(wave, travel=travel_of_rise(
            grid, lengths, sign, wave.events, wave.front, place.field.places[wave.events.cell]
        )) for wave in waves
    ]  # fmt: skip
    waves = [wave for wave in looked if wave.travel is None or wave.travel >= LEAST_TRAVEL]
    if looked and not waves:
        note = (
            f"the rise begins nearly everywhere at once (its beginning has {looked[0].travel:.2f}"
            f" of the delay of its half, a wave about 1, at least {LEAST_TRAVEL:g} is needed):"
            " light that grows and levels off place by place"
        )
    return place, events, waves, note


def wave_row(wave: Wave, place: Place, recipe: OnsetSettings) -> dict:
    """Return what is known of one wave, in the units of the movie.

    Returns:
        dict: onset and last arrival, duration (median time above half the height, None where most
        pixels stay up) in time_unit; origin, origin_inside (the image); speed with its interval;
        direction_deg (0 to the right, 90 down; None where the origin lies inside the wave);
        n_pixels, area (mm2 or pixels), share (of the pixels with data); explained (R2), p_value,
        n_blocks, travel (delay of the beginning of the rise per delay of its half), residual.
    """
    front, events, scales, field = wave.front, wave.events, place.scales, place.field
    places = field.places[events.cell]
    low = high = None
    if recipe.bootstrap:
        # What moves an arrival moves all within a moving average before and behind it.
        bands = time_bands(front, places, 2 * field.resolution)
        groupings = field.block[events.cell], bands
        interval = slope_interval(
            front, places, wave.times, groupings, resamplings=recipe.bootstrap, seed=recipe.seed
        )
        if interval:
            low, high = (float(scales.speed(slope)) for slope in interval[::-1])
    first, last = (place.time(value) for value in np.quantile(wave.times, (0.01, 0.99)))
    above = events.frames_above
    duration = np.median(np.where(np.isfinite(above), above, np.inf))
    origin, pixels = place.pixel(front.origin), place.count(events.cell)
    inside = all(0 <= o < size for o, size in zip(origin, place.grid.image, strict=True))
    around = np.ptp(np.arctan2(*(places - front.origin).T)) > np.pi
    pixel_mm2 = (scales.row_um.value or 0) * (scales.column_um.value or 0) / 1e6
    mask = scales.mask.value
    all_pixels = np.prod(place.grid.image) if mask is None else mask.sum()
    return {
        "cell_pixels": list(place.grid.cell), "onset": first, "last": last,
        "duration": place.time(duration) if np.isfinite(duration) else None,
        "origin": None if front.far else origin, "origin_inside": inside,
        "speed": float(scales.speed(front.slope)), "speed_low": low, "speed_high": high,
        "direction_deg": None if around else front.direction(),
        "n_pixels": pixels, "area": pixels * (pixel_mm2 or 1.0),
        "area_unit": "mm2" if pixel_mm2 else "pixel", "share": float(pixels / all_pixels),
        "explained": wave.explained, "p_value": wave.p_value, "n_blocks": wave.n_blocks,
        "travel": wave.travel, "residual": place.time(front.residual),
    }  # fmt: skip


def ends_a_fall(wave: Wave, grid: Grid, recipe: OnsetSettings) -> bool:
    """Return whether the level before most rises lies half their height below the record's start.

    So does the recovery from a wave that darkens; the start is the mean of the first bins.
    """
    start = grid.traces[: max(2, len(grid.traces) // 50), wave.events.cell].mean(axis=0)
    drop = (start - wave.events.base) / wave.events.rise
    return recipe.polarity == "rise" and bool(np.median(drop) > 0.5)


def remarks(row: dict, scales: Scales, recovery: bool) -> str:
    """Return what is unusual about a wave, "" when nothing is."""
    notes = []
    if recovery:
        notes.append("the record starts brighter than before this rise: it may be the end of a"
                     " wave that darkens (--polarity fall)")  # fmt: skip
    low, high = USUAL_MM_MIN
    if scales.speed_unit == "mm/min" and not low <= row["speed"] <= high:
        notes.append(
            f"a spreading depression runs at {low:g} to {high:g} mm/min: check frame rate and size"
            " of a pixel"
        )
    if row["speed_low"] is None:
        notes.append("the interval of the speed is open")
    if row["origin"] is None:
        notes.append("the front is straight: its origin is too far away to be told")
    return "; ".join(notes)


def local_speed(wave: Wave, place: Place) -> dict:
    """Return local_speed (H, W) and local_window_pixels, the side of the window of its fit."""
    grid, ratio = place.grid, place.scales.row_ratio
    arrival = np.full(grid.traces.shape[1], np.nan)
    arrival[wave.events.cell] = wave.times
    reach = max(1, round(min(grid.shape) / LOCAL_PARTS))
    sides = grid.cell[0] * ratio, float(grid.cell[1])
    slopes = local_slopes(arrival.reshape(grid.shape), sides, reach)
    with np.errstate(divide="ignore"):
        speed = np.where(slopes > 0, place.scales.speed(slopes), np.nan)
    return {
        "local_speed": grid.to_image(speed.ravel()),
        "local_window_pixels": (2 * reach + 1) * grid.cell[1],
    }


def write_onset(
    run_dir: Path,
    movie: np.ndarray,
    scales: Scales = NO_SCALES,
    recipe: OnsetSettings = RECIPE,
) -> dict:
    """Write the onset map of ``movie`` (F, H, W) into ``run_dir``; return the dict."""
    return write_result(run_dir, onset_map(movie, scales, recipe), scales, recipe)


def write_result(run_dir: Path, result: dict, scales: Scales, recipe: OnsetSettings) -> dict:
    """Write onset.json, onset_waves.csv and plots/onset_map.png and .csv; return ``result``."""
    run_dir = Path(run_dir)
    draw_onset(run_dir / "plots" / "onset_map.png", result, scales, describe(result))
    numbers = {key: value for key, value in result.items() if key not in ARRAYS}
    lengths = recipe_lengths(recipe, scales.rate_hz.value)
    numbers |= {
        "smooth_frames": lengths.smooth * lengths.frames,
        "hold_frames": lengths.hold * lengths.frames,
        "recipe": asdict(recipe), "recording": scales.record(),
    }  # fmt: skip
    write_json(run_dir / "onset.json", numbers)
    write_waves(run_dir / "onset_waves.csv", result)
    return result


def write_waves(path: Path, result: dict) -> None:
    """Write one row a wave; the names of the columns tell their units."""
    time, speed = result["time_unit"], result["speed_unit"].replace("/", "_per_")
    names = {"onset": f"onset_{time}", "last": f"last_{time}", "duration": f"duration_{time}",
             "residual": f"residual_{time}", "speed": f"speed_{speed}",
             "speed_low": f"speed_low_{speed}", "speed_high": f"speed_high_{speed}"}  # fmt: skip
    columns = ["wave", "onset", "last", "duration", "speed", "speed_low", "speed_high",
               "direction_deg", "origin_row", "origin_column", "origin_inside", "n_pixels", "area",
               "area_unit", "share", "explained", "p_value", "n_blocks", "travel",
               "residual"]  # fmt: skip
    rows = []
    for wave in result["waves"]:
        row, column = wave["origin"] or (None, None)
        told = wave | {"origin_row": row, "origin_column": column}
        rows.append({names.get(key, key): "" if told[key] is None else told[key]
                     for key in columns})  # fmt: skip
    write_rows(path, rows, [names.get(key, key) for key in columns])


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
    if result["origin"] is not None:
        row, column = result["origin"]
        text += f", origin row {row}, column {column}"
    waves = result.get("waves", ())
    if len(waves) > 1:
        text += f", largest of {len(waves)} waves"
    text += f", {result['n_pixels']} pixels"
    if result.get("even_clock"):
        text += "; times of the frames unknown, the speed holds if none was lost"
    return text + (f"; {result['note']}" if waves and result["note"] else "")


def find_onset(chosen: argparse.Namespace) -> None:
    """Make the onset map of one movie; ``chosen`` holds the flags of onset.py."""
    given = replace(given_scales(chosen), shape=chosen.shape)
    film = load_film(chosen.data, given)
    print(film.words(), flush=True)
    recipe = taken(OnsetSettings, chosen)
    rate_known = bool(film.scales.rate_hz.value)
    unit, other = ("frames", "s") if rate_known else ("s", "frames")
    idle = sorted({f"smooth_{unit}", f"hold_{unit}"} & chosen.given)
    if idle:
        used = ", ".join(f"--{name.removesuffix(unit)}{other}" for name in idle)
        print(
            f"warning: --{', --'.join(idle)} not used: the frame rate is"
            f" {'known' if rate_known else 'unknown'}; give {used}"
            + ("" if rate_known else " or --frame_rate_hz"),
            file=sys.stderr,
        )
    if not rate_known:
        print(
            f"the recipe counts frames: moving average {recipe.smooth_frames}, hold"
            f" {recipe.hold_frames} (--smooth_frames, --hold_frames)"
        )
    with writing(chosen.out_dir):
        blocks = with_bar(film.blocks(), film.n_frames, "frames")
        result = onset_of_blocks(blocks, film.size, film.scales, recipe)
        write_result(chosen.out_dir, result, film.scales, recipe)
    if len(result["waves"]) > 1:
        for wave in result["waves"]:
            print(
                f"wave {wave['wave']}: onset {wave['onset']:.1f} {result['time_unit']}, speed"
                f" {as_text(wave['speed'])} {result['speed_unit']}, {wave['n_pixels']} pixels"
            )
    print(f"{describe(result)}; {chosen.out_dir / 'plots' / 'onset_map.png'}")
