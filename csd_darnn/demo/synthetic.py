"""Make a synthetic calcium movie of a cortical spreading depression with planted truth.

A target pixel repeats, 3 frames later, the private events of a driver patch; a depression wave
crosses the field near the end. Rates and amplitudes follow the literature named in the
specification, section 4.5; the recipe is its table.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from common.files import read_json, sha256, write_json
from common.locks import hold
from inputs.movie_files import write_tiff
from inputs.scales import Known, Scales
from settings import DemoMovie

DEMO = DemoMovie()
RECIPE = 2  # counts changes of the recipe below: a movie of another recipe is made anew
KERNEL_FRAMES = 60
KERNEL_DECAY = 6.0  # frames
COMMON_GAP, LOCAL_GAP, DRIVER_GAP = (30, 120), (30, 150), (20, 80)  # frames between events
COMMON_DFF, LOCAL_DFF, DRIVER_DFF = 0.08, 0.10, 0.15
N_FOCI = 12
FIRST, LAST = 2, 5  # rows and columns of the driver patch, inclusive
LAG_FRAMES = 3
CSD_DFF = 0.4
SPEED_MM_MIN = 3.5
NOISE = 1.5  # standard deviation, fluorescence units
DEPRESSION_S, DEPRESSION_SCALE = 120.0, 0.2


def event_trace(
    n_frames: int, gap: tuple[int, int], rng: np.random.Generator, *, delay: int = 0
) -> np.ndarray:
    """Return (n_frames,) the sum of transients with random gaps and amplitudes U(0.5, 1).

    ``delay`` shifts all events to later frames; the random numbers stay the same.
    """
    kernel = np.exp(-np.arange(KERNEL_FRAMES) / KERNEL_DECAY)
    kernel[0] = 0.5
    impulses = np.zeros(n_frames)
    frame = rng.uniform(*gap)
    while frame < n_frames:
        amplitude = rng.uniform(0.5, 1.0)
        if int(frame) + delay < n_frames:
            impulses[int(frame) + delay] += amplitude
        frame += rng.uniform(*gap)
    return np.convolve(impulses, kernel)[:n_frames]


def csd_trace(seconds: np.ndarray) -> np.ndarray:
    """Return dF/F of a passing wave at ``seconds`` after its arrival (array of any shape)."""
    rise = 1 / (1 + np.exp(-np.clip(seconds, -60, 60)))
    decay = np.where(seconds > 10, np.exp(-(np.maximum(seconds, 10) - 10) / 15), 1.0)
    return CSD_DFF * rise * decay


def synthesise(recipe: DemoMovie) -> tuple[np.ndarray, dict]:
    """Return (movie (F, H, W) float32, truth dict without the file's name) of a DemoMovie."""
    seed, height, width, n_frames = recipe.seed, recipe.height, recipe.width, recipe.n_frames
    frame_rate_hz = recipe.frame_rate_hz
    # One generator a part: switching an option changes nothing but that part.
    rngs = [np.random.default_rng([seed, part]) for part in range(5)]
    rows, columns = np.mgrid[:height, :width]  # (H, W)
    pixel_um = 1000 * recipe.field_mm / width

    common = event_trace(n_frames, COMMON_GAP, rngs[0])
    gain = 1 + 0.2 * rngs[1].standard_normal((height, width))
    dff = COMMON_DFF * common[:, None, None] * gain  # (F, H, W)
    for _ in range(N_FOCI):
        row, column = rngs[2].uniform(0, height), rngs[2].uniform(0, width)
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
        dff += LOCAL_DFF * event_trace(n_frames, LOCAL_GAP, rngs[2])[:, None, None] * spot

    mask = (rows >= FIRST) & (rows <= LAST) & (columns >= FIRST) & (columns <= LAST)
    if recipe.driver:
        dff += DRIVER_DFF * event_trace(n_frames, DRIVER_GAP, rngs[3])[:, None, None] * mask
    target = (height // 2, int(0.7 * width))
    # The same random numbers as the patch's events, LAG_FRAMES later.
    copy = event_trace(n_frames, DRIVER_GAP, np.random.default_rng([seed, 3]), delay=LAG_FRAMES)
    dff[:, target[0], target[1]] = COMMON_DFF * common * gain[target] + DRIVER_DFF * copy

    origin = (height // 2, 1)
    distance_mm = np.hypot(rows - origin[0], columns - origin[1]) * pixel_um / 1000  # (H, W)
    starts = [0.25 * n_frames, 0.75 * n_frames] if recipe.train_csd else [0.75 * n_frames]
    arrivals = [s + distance_mm / SPEED_MM_MIN * 60 * frame_rate_hz for s in starts]
    frames = np.arange(n_frames)[:, None, None]
    since = [(frames - arrival) / frame_rate_hz for arrival in arrivals]  # seconds, (F, H, W)
    if recipe.depression:
        for seconds in since:
            dff[(seconds >= 0) & (seconds < DEPRESSION_S)] *= DEPRESSION_SCALE
    for seconds in since:
        dff += csd_trace(seconds)

    resting = 100 * (1 + 0.2 * np.sin(rows / 5) * np.cos(columns / 6))  # (H, W)
    bleach = 1 - 0.1 * (1 - np.exp(-frames / (n_frames / 2)))  # (F, 1, 1)
    noise = rngs[4].normal(0, NOISE, dff.shape)
    movie = (resting * bleach * (1 + dff) + noise).astype(np.float32)
    arrival = arrivals[-1]
    truth = {
        "target": list(target),
        "driver_mask": mask.astype(int).tolist(),
        "driver": recipe.driver,
        "lag_frames": LAG_FRAMES,
        "origin": list(origin),
        "speed_mm_min": SPEED_MM_MIN,
        "csd_start_frame": float(starts[-1]),
        "arrival_frame": [[t if t < n_frames else None for t in row] for row in arrival.tolist()],
        "frame_rate_hz": frame_rate_hz,
        "pixel_um": pixel_um,
        "seed": seed,
    }
    return movie, truth


def make_demo(out_dir: str | Path, recipe: DemoMovie = DEMO) -> dict:
    """Write movie.tif and truth.json into ``out_dir``, or reuse them when they are the same.

    Returns:
        The content of truth.json; ``truth["movie"]`` is the name of the movie in ``out_dir``.
    """
    settings = asdict(recipe)
    out_dir = Path(out_dir)
    hold(out_dir)
    movie_path, truth_path = out_dir / "movie.tif", out_dir / "truth.json"
    if truth_path.is_file() and movie_path.is_file():
        truth = read_json(truth_path)
        same = truth.get("settings") == settings and truth.get("recipe") == RECIPE
        if same and truth.get("movie_sha256") == sha256(movie_path):
            return truth
    movie, truth = synthesise(recipe)
    truth_path.unlink(missing_ok=True)
    size = Known(truth["pixel_um"], "planted")
    rate = Known(truth["frame_rate_hz"], "planted")
    write_tiff(movie_path, movie, Scales(rate_hz=rate, row_um=size, column_um=size))
    truth |= {"recipe": RECIPE, "settings": settings}
    truth |= {"movie": movie_path.name, "movie_sha256": sha256(movie_path)}
    # Written last: a truth.json without its movie cannot be left behind.
    write_json(truth_path, truth)
    return truth
