"""Make a synthetic calcium movie of a cortical spreading depression with planted truth.

A target pixel repeats, 3 frames later, the private events of a driver patch; a depression wave
crosses the field near the end. Rates and amplitudes follow the literature named in the
specification, section 4.5; the recipe is its table.

    python make_demo.py                          # the demo's movie, 18 x 23 pixels, 3,000 frames
    python make_demo.py --height 72 --width 91   # the size of the published recording

Writes into ``--out_dir`` (default data/csd_darnn/demo/):
    movie.tif   (n_frames, height, width) float32, arbitrary fluorescence units
    truth.json  what was planted: target, driver mask, origin, speed, arrival frame of every pixel
"""

from pathlib import Path

import numpy as np

from common.files import DATA_DIR, one_line_faults, read_json, seed_number, sha256, write_json
from movie_files import write_tiff
from settings import Flag, parse

# movie
HEIGHT = 18  # pixels; the published size is 72
WIDTH = 23  # pixels; the published size is 91
N_FRAMES = 3000
FRAME_RATE_HZ = 10.0
FIELD_MM = 4.0  # width of the field of view
# planted truth
TRAIN_CSD = False  # True adds a wave at a quarter of the record, inside the training part
DEPRESSION = False  # True scales spontaneous events by 0.2 for 120 s behind the wave
DRIVER = True  # False is the negative control: the patch does not carry what the target repeats
# run
SEED = 0
OUT_DIR = DATA_DIR / "demo"

FLAGS = {
    "HEIGHT": Flag(int, "rows of the movie in pixels", low=8),
    "WIDTH": Flag(int, "columns of the movie in pixels", low=10),
    "N_FRAMES": Flag(int, "number of frames", low=200),
    "FRAME_RATE_HZ": Flag(float, "frames per second", above=0),
    "FIELD_MM": Flag(float, "width of the field of view in mm", above=0),
    "TRAIN_CSD": Flag(bool, "add a wave inside the training part"),
    "DEPRESSION": Flag(bool, "silence spontaneous events for 120 s behind the wave"),
    "DRIVER": Flag(bool, "false is the negative control: the patch carries no private events"),
    "SEED": Flag(seed_number, "seed of every random choice"),
    "OUT_DIR": Flag(Path, "folder that the files are written to"),
}

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


def event_trace(n_frames, gap, rng, *, delay=0):
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


def csd_trace(seconds):
    """Return dF/F of a passing wave at ``seconds`` after its arrival (array of any shape)."""
    rise = 1 / (1 + np.exp(-np.clip(seconds, -60, 60)))
    decay = np.where(seconds > 10, np.exp(-(np.maximum(seconds, 10) - 10) / 15), 1.0)
    return CSD_DFF * rise * decay


def synthesise(
    *, seed, height, width, n_frames, frame_rate_hz, field_mm, train_csd, depression, driver
):
    """Return (movie (F, H, W) float32, truth dict without the file's name)."""
    # One generator a part: switching an option changes nothing but that part.
    rngs = [np.random.default_rng([seed, part]) for part in range(5)]
    rows, columns = np.mgrid[:height, :width]  # (H, W)
    pixel_um = 1000 * field_mm / width

    common = event_trace(n_frames, COMMON_GAP, rngs[0])
    gain = 1 + 0.2 * rngs[1].standard_normal((height, width))
    dff = COMMON_DFF * common[:, None, None] * gain  # (F, H, W)
    for _ in range(N_FOCI):
        row, column = rngs[2].uniform(0, height), rngs[2].uniform(0, width)
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
        dff += LOCAL_DFF * event_trace(n_frames, LOCAL_GAP, rngs[2])[:, None, None] * spot

    mask = (rows >= FIRST) & (rows <= LAST) & (columns >= FIRST) & (columns <= LAST)
    if driver:
        dff += DRIVER_DFF * event_trace(n_frames, DRIVER_GAP, rngs[3])[:, None, None] * mask
    target = (height // 2, int(0.7 * width))
    # The same random numbers as the patch's events, LAG_FRAMES later.
    copy = event_trace(n_frames, DRIVER_GAP, np.random.default_rng([seed, 3]), delay=LAG_FRAMES)
    dff[:, target[0], target[1]] = COMMON_DFF * common * gain[target] + DRIVER_DFF * copy

    origin = (height // 2, 1)
    distance_mm = np.hypot(rows - origin[0], columns - origin[1]) * pixel_um / 1000  # (H, W)
    starts = [0.25 * n_frames, 0.75 * n_frames] if train_csd else [0.75 * n_frames]
    arrivals = [s + distance_mm / SPEED_MM_MIN * 60 * frame_rate_hz for s in starts]
    frames = np.arange(n_frames)[:, None, None]
    since = [(frames - arrival) / frame_rate_hz for arrival in arrivals]  # seconds, (F, H, W)
    if depression:
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
        "driver": driver,
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


def make_demo(
    out_dir,
    *,
    seed=SEED,
    height=HEIGHT,
    width=WIDTH,
    n_frames=N_FRAMES,
    frame_rate_hz=FRAME_RATE_HZ,
    field_mm=FIELD_MM,
    train_csd=TRAIN_CSD,
    depression=DEPRESSION,
    driver=DRIVER,
):
    """Write movie.tif and truth.json into ``out_dir``, or reuse them when they are the same.

    Returns:
        The content of truth.json; ``truth["movie"]`` is the name of the movie in ``out_dir``.
    """
    settings = {
        "seed": seed, "height": height, "width": width, "n_frames": n_frames,
        "frame_rate_hz": frame_rate_hz, "field_mm": field_mm, "train_csd": train_csd,
        "depression": depression, "driver": driver,
    }  # fmt: skip
    out_dir = Path(out_dir)
    movie_path, truth_path = out_dir / "movie.tif", out_dir / "truth.json"
    if truth_path.is_file() and movie_path.is_file():
        truth = read_json(truth_path)
        same = truth.get("settings") == settings and truth.get("recipe") == RECIPE
        if same and truth.get("movie_sha256") == sha256(movie_path):
            return truth
    movie, truth = synthesise(**settings)
    truth_path.unlink(missing_ok=True)
    write_tiff(movie_path, movie, frame_rate_hz=truth["frame_rate_hz"], pixel_um=truth["pixel_um"])
    truth |= {"recipe": RECIPE, "settings": settings}
    truth |= {"movie": movie_path.name, "movie_sha256": sha256(movie_path)}
    # Written last: a truth.json without its movie cannot be left behind.
    write_json(truth_path, truth)
    return truth


@one_line_faults
def main(argv=None):
    """Write the demo's movie and truth as the flags say."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    options = {name.lower(): getattr(chosen, name.lower()) for name in FLAGS if name != "OUT_DIR"}
    truth = make_demo(chosen.out_dir, **options)
    print(f"{chosen.out_dir / truth['movie']}: {chosen.n_frames} frames, target {truth['target']}")


if __name__ == "__main__":
    main()
