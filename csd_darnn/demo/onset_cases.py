"""Movies with and without a wave, to try the onset map on: how often it is wrong, how far off.

Letters: F frames, H x W pixels.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from analysis.onset import onset_map
from inputs.scales import Known, Scales
from settings import OnsetSettings

SPEED_MM_MIN = 3.5
RATE_HZ, PIXEL_UM = 10.0, 60.0
WAVE_FREE = ("noise", "slow", "lamp")  # those of the error rate
MOST_WAVES = 5  # movies of each kind with a wave
RECIPE = OnsetSettings()


@dataclass(frozen=True)
class Front:
    """A planted wave.

    Attributes:
        n_frames, rate_hz, row_um: size, clock and height of a pixel.
        origin: (row, column) in pixels, also outside.
        starts_s: time at which each wave enters the field.
        amplitude, lasts_s, noise: dF/F, time above half of it, sd of the noise in F (base 100).
    """

    n_frames: int = 800
    rate_hz: float = RATE_HZ
    row_um: float = PIXEL_UM
    origin: tuple[float, float] = (12, 1)
    starts_s: tuple[float, ...] = (20.0,)
    amplitude: float = 0.4
    lasts_s: float = 15.0
    noise: float = 1.0


KINDS = {
    "near": Front(),
    "far": Front(origin=(12, -150)),
    "corner": Front(origin=(-80, -80)),
    "oblong": Front(row_um=2 * PIXEL_UM, n_frames=900),
    "rare": Front(n_frames=7200, rate_hz=2.0, starts_s=(1200.0,)),  # 18 s of 3,600 s
    "three": Front(n_frames=2400, starts_s=(30.0, 110.0, 190.0)),
    "lasting": Front(n_frames=1200, lasts_s=500.0),
    "dropped": Front(),
    "vessels": Front(),
    "weak": Front(amplitude=0.04, noise=1.5, n_frames=1200),
    "masked": Front(),
    "dff": Front(),
    "fall": Front(amplitude=-0.3, n_frames=1200, starts_s=(40.0,)),
}


def known_scales(rate_hz: float = RATE_HZ, row_um: float = PIXEL_UM) -> Scales:
    """Return the Scales of a planted movie."""
    return Scales(
        Known(rate_hz, "planted"), row_um=Known(row_um, "planted"),
        column_um=Known(PIXEL_UM, "planted"),
    )  # fmt: skip


def random_events(seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (F,) transients of the whole field at random times, in heights of ``resting``."""
    course, time = np.zeros(len(seconds)), rng.uniform(0, 8)
    while time < seconds[-1]:
        since = seconds - time
        height = rng.uniform(0.5, 1.25)
        course += np.where(since >= 0, height * np.exp(-np.maximum(since, 0) / 0.6), 0)
        time += rng.uniform(1, 8)
    return course


def resting(
    n_frames: int,
    shape: tuple[int, int],
    rate_hz: float = RATE_HZ,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return a movie (F, H, W) at rest: brightness by row, bleaching, events of the whole field.

    The events come every 3.7 s, or at random times drawn from ``rng``.
    """
    seconds = np.arange(n_frames) / rate_hz
    rows = np.arange(shape[0])[:, None]
    events = np.exp(-(seconds % 3.7) / 0.6) if rng is None else random_events(seconds, rng)
    bleach = 1 - 0.05 * (1 - np.exp(-2 * seconds / seconds[-1]))
    course = bleach * (1 + 0.08 * events)
    return course[:, None, None] * (100 * (1 + 0.1 * np.sin(rows / 4)) * np.ones(shape))


def wave_free(kind: str, seed: int) -> tuple[np.ndarray, Scales]:
    """Return a movie (F, H, W) without a wave and its Scales.

    Kinds: noise; slow (fluctuations of many sizes and lengths); lamp (light on the whole field for
    a while), vignette (the same, brighter on one side); ceiling (light that grows slowly until the
    camera's ceiling cuts it, bright places first); walk (drift without any scale of time); local
    (events that spread over a part of the field).
    """
    rng = np.random.default_rng([seed, 1])
    n_frames, height, width = 2000, 30, 38
    if kind == "noise":
        movie = np.full((n_frames, height, width), 100.0)
    elif kind in ("slow", "walk"):
        movie = rng.normal(size=(n_frames, height, width)).astype(np.float32)
        sizes = rng.uniform(2, 8, 2)
        length = rng.uniform(10, 80) if kind == "slow" else 0
        movie = gaussian_filter(movie, (length, *sizes), mode="wrap")
        movie = movie if kind == "slow" else np.cumsum(movie, axis=0)
        movie = 100 + rng.uniform(0.5, 3) * movie / movie.std()
    elif kind == "ceiling":
        movie = ceiling_ramp(rng, n_frames, (height, width))
    else:
        movie = resting(n_frames, (height, width))
        rows, columns = np.mgrid[:height, :width]
        frames = np.arange(n_frames)[:, None, None]
        if kind == "local":
            for _ in range(12):
                near = np.hypot(rows - rng.uniform(0, height), columns - rng.uniform(0, width))
                since = frames - rng.integers(100, n_frames - 100) - near * rng.uniform(0, 8)
                spot = np.exp(-((near / rng.uniform(2, 6)) ** 2) / 2)
                movie += 20 * spot * np.where(since > 0, np.exp(-since / 60), 0)
        else:
            first, length = rng.integers(200, 1500), rng.integers(50, 400)
            light = np.ones((height, width))
            if kind == "vignette":
                light = np.exp(-np.hypot(rows, columns) / 30)
            on = (frames >= first) & (frames < first + length)
            movie = movie * (1 + rng.uniform(0.05, 0.5) * light * on)
    return movie + rng.normal(0, 1.5, movie.shape), known_scales()


def ceiling_ramp(rng: np.random.Generator, n_frames: int, shape: tuple[int, int]) -> np.ndarray:
    """Return a movie (F, H, W) of a lamp that warms up until pixels reach the camera's ceiling."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    middle = [rng.uniform(-5, length / 2) for length in shape]
    away = np.hypot(rows - middle[0], columns - middle[1])
    light = np.exp(-away / rng.uniform(25, 50))
    first, length = rng.integers(300, 700), rng.uniform(100, 900)
    growth = np.maximum(np.arange(n_frames) - first, 0)[:, None, None] / length
    movie = resting(n_frames, shape) * light
    ceiling = movie[0].max() * rng.uniform(0.9, 1.2)
    return np.minimum(movie * (1 + 1.5 * growth), ceiling)


def passing_wave(
    kind: str, seed: int, *, events: str = "even"
) -> tuple[np.ndarray, Scales, float, OnsetSettings]:
    """Return a movie (F, H, W) with waves of one of KINDS, its Scales, their speed in mm/min, and
    the recipe to find them with; the events of the whole field come ``even`` or at ``random``."""
    front, rng, shape = KINDS[kind], np.random.default_rng([seed, 2]), (24, 30)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    down = (rows - front.origin[0]) * front.row_um
    away = np.hypot(down, (columns - front.origin[1]) * PIXEL_UM) / 1000  # mm
    away -= away.min()
    random = np.random.default_rng([seed, 77]) if events == "random" else None
    movie = resting(front.n_frames, shape, front.rate_hz, random)
    amplitude = np.full(shape, front.amplitude)
    if kind == "vessels":
        amplitude[rng.random(shape) < 0.4] = 0
    frames, change = np.arange(front.n_frames), 0
    for start in front.starts_s:
        since = frames[:, None, None] / front.rate_hz - start - away / SPEED_MM_MIN * 60
        rise = 1 / (1 + np.exp(-np.clip(since / 0.5, -50, 50)))
        change = change + rise * np.exp(-np.clip(since - front.lasts_s, 0, 300) / 5)
    movie = movie * (1 + amplitude * change) + rng.normal(0, front.noise, movie.shape)
    scales, recipe = known_scales(front.rate_hz, front.row_um), RECIPE
    if kind == "dropped":
        kept = np.sort(rng.choice(front.n_frames, int(0.9 * front.n_frames), replace=False))
        movie = movie[kept]
        scales = replace(scales, frame_times_s=Known(kept / front.rate_hz, "planted"))
    if kind == "masked":
        mask = np.hypot(rows - 12, columns - 15) < 12
        movie[:, ~mask] = 0
        scales = replace(scales, mask=Known(mask, "planted"))
    if kind == "dff":
        movie = movie / np.median(movie, axis=0) - 1
    if kind == "fall":
        recipe = replace(recipe, polarity="fall")
    return movie, scales, SPEED_MM_MIN, recipe


def onset_table(n_seeds: int) -> list[dict]:
    """Return one row a kind: false waves of ``n_seeds`` wave-free movies, errors of speeds.

    Returns:
        dicts: kind, movies, false (waves where none is), worst (relative error of the speed; 1
        where a wave was missed or one was found too many), covered (intervals that hold the
        truth), text.
    """
    rows = []
    for kind in (*WAVE_FREE, "vignette", "ceiling", "walk", "local"):
        false = 0
        for seed in range(n_seeds):
            movie, scales = wave_free(kind, seed)
            false += onset_map(movie, scales, RECIPE)["speed"] is not None
        rows.append({"kind": kind, "movies": n_seeds, "false": false, "worst": None,
                     "covered": None, "text": f"{false} false waves"})  # fmt: skip
    for kind, front in KINDS.items():
        count, errors, covered, waves = min(n_seeds, MOST_WAVES), [], 0, 0
        for seed in range(count):
            movie, scales, speed, recipe = passing_wave(kind, seed)
            seen = onset_map(movie, scales, recipe)["waves"]
            waves += len(seen)
            if len(seen) != len(front.starts_s):
                errors.append(1.0)
            for wave in seen:
                errors.append(abs(wave["speed"] / speed - 1))
                low, high = wave["speed_low"], wave["speed_high"]
                covered += low is not None and low <= speed <= high
        rows.append({"kind": kind, "movies": count, "false": None, "worst": max(errors),
                     "covered": covered, "text": f"worst speed off by {max(errors):.1%}, interval"
                     f" holds the truth in {covered} of {waves}"})  # fmt: skip
    return rows


def coverage_table(kinds: tuple[str, ...], seeds: range) -> list[dict]:
    """Return one row a kind: how often the interval of the speed holds the planted one.

    The events of the whole field come at random times: they move all arrivals of a moment together,
    which is what an interval from single pixels leaves out.

    Returns:
        dicts: kind, waves (found), covered, width (median of the interval over the speed).
    """
    rows = []
    for kind in kinds:
        covered, widths = 0, []
        for seed in seeds:
            movie, scales, speed, recipe = passing_wave(kind, seed, events="random")
            for wave in onset_map(movie, scales, replace(recipe, surrogates=0))["waves"]:
                low, high = wave["speed_low"] or 0.0, wave["speed_high"] or np.inf
                covered += low <= speed <= high
                widths.append((high - low) / speed)
        rows.append({"kind": kind, "waves": len(widths), "covered": covered,
                     "width": float(np.median(widths))})  # fmt: skip
    return rows
