"""Find when a spreading depression reaches each pixel, where it starts and how fast it runs.

No network takes part. Recipe: 2 s moving average; d = (trace - median) / median; the peak of a
pixel is the 99th percentile of d; its onset is the first frame after which d stays above half the
peak for 5 s; arrival = a * distance + b is fitted for every candidate origin, the origin with the
least median absolute residual is kept, and the speed is pixel size / a.

    python onset.py --data data/csd_darnn/demo/movie.tif    # scales from the file
    python onset.py --data movie.tif --frame_rate_hz 10 --pixel_um 44

Reads a movie (F, H, W). Writes into ``--out_dir``: onset.json (numbers), plots/onset_map.png and
plots/onset_map.csv (pixel, row, column, arrival in s, peak dF/F, distance from the origin in mm).
Source: specification, section 13, item 4.
"""

from pathlib import Path

import numpy as np

from common.files import DATA_DIR, RESULTS_DIR, InputError, one_line_faults, seed_number, write_json
from recording import load_recording
from settings import Flag, parse
from utils import BLUE, ORANGE, save_or_show_plot

# data
DATA = DATA_DIR / "demo" / "movie.tif"
FRAME_RATE_HZ = 0.0  # frames per second; 0 takes the file's
PIXEL_UM = 0.0  # size of a pixel in um; 0 takes the file's
OUT_DIR = RESULTS_DIR / "onset"
# recipe
SMOOTH_S = 2.0  # moving average
HOLD_S = 5.0  # d has to stay above half the peak this long
BOOTSTRAP = 200  # resamplings of pixels for the interval of the speed
SEED = 0

FLAGS = {
    "DATA": Flag(Path, "movie"),
    "FRAME_RATE_HZ": Flag(float, "frames per second of the recording, 0: from the file", low=0),
    "PIXEL_UM": Flag(float, "size of a pixel in um, 0: from the file", low=0),
    "OUT_DIR": Flag(Path, "folder that the results go to"),
    "SMOOTH_S": Flag(float, "length of the moving average in s", above=0),
    "HOLD_S": Flag(float, "time that d has to stay above half its peak in s", above=0),
    "BOOTSTRAP": Flag(int, "resamplings for the interval of the speed", low=0),
    "SEED": Flag(seed_number, "seed of the resampling"),
}
MOST_PIXELS = 4000  # the origin is searched with every k-th pixel of a larger wave
LEAST_PIXELS = 10  # fewer pixels with an onset give no speed


def moving_average(movie, length):
    """Return the centred mean over ``length`` frames along axis 0; the ends use what is there."""
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(movie, length, axis=0, mode="nearest", output=np.float32)


def first_lasting(above, hold):
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


def arrival_frames(movie, *, frame_rate_hz, smooth_s=SMOOTH_S, hold_s=HOLD_S, least_peak=None):
    """Return (arrival (H, W) in frames with NaN, peak (H, W) in dF/F) of a movie (F, H, W).

    Args:
        least_peak: pixels with a smaller peak are left out; None leaves the choice to the hold.
    """
    n_frames, height, width = movie.shape
    smooth = max(1, round(smooth_s * frame_rate_hz))
    hold = max(1, round(hold_s * frame_rate_hz))
    if n_frames <= smooth + hold:
        raise InputError(
            f"onset map: found {n_frames} frames, expected more than {smooth + hold} (moving "
            "average plus hold); check --frame_rate_hz"
        )
    traces = moving_average(movie, smooth).reshape(n_frames, -1)  # (F, H*W)
    middle = np.median(traces, axis=0)
    if (middle <= 0).any():
        raise InputError(
            f"onset map: the median of {(middle <= 0).sum()} pixels is not positive, expected raw "
            "fluorescence, not dF/F; give the raw movie"
        )
    change = traces / middle - 1  # d, (F, H*W)
    peak = np.percentile(change, 99, axis=0)
    first = first_lasting(change > peak / 2, hold)
    arrival = np.where(first < 0, np.nan, first)
    if least_peak is not None:
        arrival[peak < least_peak] = np.nan
    return arrival.reshape(height, width), peak.reshape(height, width)


def fit_line(distance, arrival):
    """Return (a, b) of the least-squares line arrival = a * distance + b along the last axis."""
    centred = distance - distance.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    slope = (centred * (arrival - arrival.mean(axis=-1, keepdims=True))).sum(axis=-1)
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
    return slope, arrival.mean(axis=-1) - slope * distance.mean(axis=-1)


def find_origin(rows, columns, arrival, shape):
    """Return (row, column) of the candidate pixel with the least median absolute residual."""
    best, origin = np.inf, None
    for row in range(shape[0]):
        candidates = np.arange(shape[1])[:, None]  # (W, 1)
        distance = np.hypot(rows - row, columns - candidates)  # (W, pixels)
        slope, offset = fit_line(distance, np.broadcast_to(arrival, distance.shape))
        residual = np.abs(arrival - slope[:, None] * distance - offset[:, None])
        middle = np.median(residual, axis=1)
        middle[slope <= 0] = np.inf  # a wave runs away from its origin
        column = int(np.argmin(middle))
        if middle[column] < best:
            best, origin = middle[column], (row, column)
    return origin


def onset_map(
    movie, *, frame_rate_hz, pixel_um, seed=SEED, bootstrap=BOOTSTRAP, smooth_s=SMOOTH_S,
    hold_s=HOLD_S, least_peak=None,
):  # fmt: skip
    """Find arrival, origin and speed of a wave in a movie (F, H, W) of raw fluorescence.

    Returns:
        dict with arrival (H, W) in frames (NaN where none), peak (H, W) in dF/F, origin (row,
        column), speed_mm_min, speed_low and speed_high (95 % bootstrap interval over pixels),
        n_pixels with an onset, residual_s (median absolute residual), note. Origin and speed are
        None, with the reason in note, when fewer than LEAST_PIXELS pixels have an onset or the
        arrival does not grow with the distance from any pixel.
    """
    arrival, peak = arrival_frames(
        movie, frame_rate_hz=frame_rate_hz, smooth_s=smooth_s, hold_s=hold_s, least_peak=least_peak
    )
    rows, columns = np.nonzero(np.isfinite(arrival))
    times = arrival[rows, columns]  # (pixels,) frames
    result = {
        "arrival": arrival, "peak": peak, "origin": None, "speed_mm_min": None,
        "speed_low": None, "speed_high": None, "n_pixels": len(rows), "residual_s": None,
        "frame_rate_hz": frame_rate_hz, "pixel_um": pixel_um, "note": "",
    }  # fmt: skip
    if len(rows) < LEAST_PIXELS:
        result["note"] = f"{len(rows)} pixels have an onset, at least {LEAST_PIXELS} are needed"
        return result
    some = slice(None, None, -(-len(rows) // MOST_PIXELS))
    origin = find_origin(rows[some], columns[some], times[some], arrival.shape)
    if origin is None:
        result["note"] = "arrival does not grow with the distance from any pixel: no wave"
        return result
    distance = np.hypot(rows - origin[0], columns - origin[1])
    slope, offset = fit_line(distance, times)

    def speed(frames_per_pixel):
        return pixel_um / frames_per_pixel * frame_rate_hz * 60 / 1000

    result |= {
        "origin": (int(origin[0]), int(origin[1])),
        "speed_mm_min": float(speed(slope)),
        "residual_s": float(np.median(np.abs(times - slope * distance - offset)) / frame_rate_hz),
    }
    if bootstrap:
        picks = np.random.default_rng(seed).integers(0, len(rows), (bootstrap, len(rows)))
        slopes, _ = fit_line(distance[picks], times[picks])
        # The interval is taken of the slope: a slope near 0 would make a speed without bound.
        low, high = np.quantile(slopes, (0.025, 0.975))
        if low > 0:
            result |= {"speed_low": float(speed(high)), "speed_high": float(speed(low))}
        else:
            result["note"] = "the interval of the speed is open: some resamplings show no wave"
    return result


def write_onset(run_dir, movie, *, frame_rate_hz, pixel_um, seed=SEED, **recipe):
    """Write the onset map of ``movie`` as onset.json and plots/onset_map.png; return the dict."""
    run_dir = Path(run_dir)
    result = onset_map(movie, frame_rate_hz=frame_rate_hz, pixel_um=pixel_um, seed=seed, **recipe)
    draw_onset(run_dir / "plots" / "onset_map.png", result)
    numbers = {key: value for key, value in result.items() if key not in ("arrival", "peak")}
    write_json(run_dir / "onset.json", numbers)
    return result


def describe(result):
    """Return one sentence with the speed and its interval, or why there is none."""
    if result["speed_mm_min"] is None:
        return f"no wave found: {result['note']}"
    text = f"speed {result['speed_mm_min']:.2f} mm/min"
    if result["speed_low"] is not None:
        text += f" (95 % interval {result['speed_low']:.2f} to {result['speed_high']:.2f})"
    row, column = result["origin"]
    return f"{text}, origin row {row}, column {column}, {result['n_pixels']} pixels"


def draw_onset(path, result):
    """Draw the arrival map and arrival over distance; the CSV beside it holds every pixel."""
    from matplotlib.figure import Figure

    rate, arrival = result["frame_rate_hz"], result["arrival"]
    height, width = arrival.shape
    rows, columns = np.mgrid[:height, :width]
    table = {
        "pixel": np.arange(arrival.size), "row": rows.ravel(), "column": columns.ravel(),
        "arrival_s": arrival.ravel() / rate, "peak_dff": result["peak"].ravel(),
    }  # fmt: skip
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn = left.imshow(arrival / rate, cmap="viridis", interpolation="nearest")
    figure.colorbar(drawn, ax=left, label="arrival (s)").outline.set_visible(False)
    left.set(xlabel="column (pixel)", ylabel="row (pixel)", title="CSD onset (white: none)")
    right.spines[["top", "right"]].set_visible(False)
    right.set(xlabel="distance from the origin (mm)", ylabel="arrival (s)")
    if result["origin"] is None:
        right.set_title("no wave found", fontsize=10)
        right.text(0.5, 0.5, result["note"], ha="center", va="center", transform=right.transAxes)
    else:
        row, column = result["origin"]
        left.plot(column, row, "o", color="w", markeredgecolor="k", markersize=7)
        mm = np.hypot(rows - row, columns - column) * result["pixel_um"] / 1000
        table["distance_mm"] = mm.ravel()
        found = np.isfinite(arrival)
        slope, offset = fit_line(mm[found], arrival[found] / rate)
        right.plot(mm[found], arrival[found] / rate, ".", color=BLUE, markersize=4, label="pixel")
        ends = np.array([0, mm[found].max()])
        right.plot(ends, slope * ends + offset, color=ORANGE, label="least-squares line")
        right.legend(loc="lower right", frameon=False)
        figure.suptitle(describe(result), fontsize=10)
    return save_or_show_plot(figure, Path(path), table)


@one_line_faults
def main(argv=None):
    """Make the onset map of one movie."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    recording = load_recording(chosen.data)
    rate = chosen.frame_rate_hz or recording.frame_rate_hz
    pixel_um = chosen.pixel_um or recording.pixel_um
    if not rate or not pixel_um:
        missing = "--frame_rate_hz" if not rate else "--pixel_um"
        raise InputError(f"{chosen.data}: the file does not tell it, expected {missing}; give it")
    result = write_onset(
        chosen.out_dir, recording.movie(), frame_rate_hz=rate, pixel_um=pixel_um,
        seed=chosen.seed, smooth_s=chosen.smooth_s, hold_s=chosen.hold_s,
        bootstrap=chosen.bootstrap,
    )  # fmt: skip
    print(f"{describe(result)}; {chosen.out_dir / 'plots' / 'onset_map.png'}")


if __name__ == "__main__":
    main()
