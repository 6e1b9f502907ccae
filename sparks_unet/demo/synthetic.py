"""Synthetic confocal movies with planted sparks, puffs and waves, and the truth beside them.

Source: section 4.5 of the specification: a super-ellipse cell with mottled, striated resting
fluorescence F0, events multiplied onto F0, shot noise and read noise, 16-bit counts.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from common.files import InputError, write_json
from common.tables import write_table
from inputs.calibration import Calibration
from inputs.movie_io import movie_ids, write_stack
from settings.config import CLASSES, IGNORE_INDEX, logger

STANDARD_VOXELS = 500 * 64 * 512  # movie for which the rates below are given
RATES = (23.0, 5.0, 0.6)  # sparks, puffs, waves expected in such a movie
SMALL = {"frames": 160, "height": 32, "width": 96, "rates": (14, 3, 0.5), "exact": True}
FIRST_EVENT_ID = 5
MARGIN_FRAMES = 6  # events that reach into the first or last frames become label 4
VISIBLE_SNR = 2.0  # weaker events become label 4
LABEL_LEVEL = 0.35  # a voxel belongs to an event above this share of the event's amplitude
SHORT_FRAMES = (200, 24)  # fewer than a chunk of the published (256) and of the demo (32) setting
TRUTH_COLUMNS = (
    *("id", "class", "label", "t", "y", "x", "amplitude_df_f0", "fwhm_um", "fdhm_ms", "rise_ms"),
    *("tau_ms", "speed_um_s", "snr", "voxels"),
)


@dataclass(frozen=True)
class DemoSettings:
    """Everything that decides the content of a synthetic data set."""

    movies: int = 6
    frames: int = 500
    height: int = 64  # pixels
    width: int = 512  # pixels; at least 75, or every wave is too narrow to be kept
    seed: int = 0
    first_id: int = 1
    rates: tuple = RATES  # sparks, puffs, waves per movie; scaled by size unless exact
    exact: bool = False  # numbers themselves instead of Poisson draws; wave .5 = every second movie
    waves: tuple | None = None  # number of waves of each movie, instead of the rate
    empty: int = 0  # number of movies without events, at the end
    touching: bool = False  # sparks come in pairs 8 to 14 pixels apart, at the same time
    short: bool = False  # the last movie has fewer frames than a chunk
    jump: float = 0.0  # relative intensity jump in the middle of the movie, as in movie 05
    pixel_um: float = 0.2
    frame_ms: float = 6.8
    gain: float = 60.0  # counts per photon
    read_noise: float = 60.0  # counts
    offset: float = 1500.0  # counts


@dataclass
class Planted:
    """One event: its noise-free profile in a box, and what truth.csv says about it."""

    kind: str
    box: tuple  # slices (t, y, x) in the movie
    profile: np.ndarray  # amplitude 1, shape of the box
    amplitude: float  # dF/F0
    truth: dict


def make_demo_data(out_dir: str | Path, **settings: Any) -> list[str]:
    """Write a synthetic data set.

    Args:
        out_dir: folder to write into.
        settings: fields of DemoSettings.

    Returns:
        Ids of the movies, ("01", ...).
    """
    settings = DemoSettings(**settings)
    _check(settings)
    out_dir = Path(out_dir)
    truth_path = out_dir / "truth.json"
    # A stale truth.json beside half of the new movies would vouch for a mixed data set.
    truth_path.unlink(missing_ok=True)
    records = []
    for index in range(settings.movies):
        movie_id = f"{settings.first_id + index:02d}"
        data, classes, events, truths = make_movie(settings, index)
        calibration = {"calibration": Calibration.of(settings.pixel_um, settings.frame_ms)}
        write_stack(out_dir / f"{movie_id}_video.tif", data, **calibration)
        write_stack(out_dir / f"{movie_id}_class_label.tif", classes, **calibration)
        write_stack(out_dir / f"{movie_id}_event_label.tif", events, **calibration)
        _write_truth(out_dir / f"{movie_id}_truth.csv", truths)
        kept = [row["class"] for row in truths if row["label"] != IGNORE_INDEX]
        counts = {name: kept.count(name) for name in ("sparks", "waves", "puffs")}
        records.append({"id": movie_id, "frames": len(data), "ignored": len(truths) - len(kept)})
        records[-1] |= counts
    own = [record["id"] for record in records]
    if left := sorted(set(movie_ids(out_dir)) - set(own)):
        logger.warning(
            "%s: holds movies of an earlier call (%s), of which truth.json does not tell; remove "
            "them, or write into another folder",
            *(out_dir, ", ".join(left)),
        )
    write_json(truth_path, {"settings": asdict(settings), "movies": records})
    return own


def make_movie(
    settings: DemoSettings, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
    """Return one movie.

    Args:
        settings: DemoSettings.
        index: number of the movie in the data set, from 0.

    Returns:
        (movie (T, H, W) uint16, classes (T, H, W) uint8, event ids (T, H, W) uint16, list of dicts
        with the keys TRUTH_COLUMNS).
    """
    rng = np.random.default_rng([settings.seed, settings.first_id + index])
    frames = settings.frames
    if settings.short and index == settings.movies - 1:
        frames = SHORT_FRAMES[0] if frames > SHORT_FRAMES[0] else SHORT_FRAMES[1]
    shape = (frames, settings.height, settings.width)
    cell, f0 = _resting_cell(rng, shape[1:])
    events = (
        []
        if index >= settings.movies - settings.empty
        else _plant(rng, settings, shape, cell, index)
    )
    contribution = np.zeros(shape, np.float32)
    classes = np.zeros(shape, np.uint8)
    ids = np.zeros(shape, np.uint16)
    truths = []
    for number, event in enumerate(events, start=FIRST_EVENT_ID):
        contribution[event.box] += np.float32(event.amplitude) * event.profile
        truths.append(_label(event, number, classes, ids, cell, f0, settings))
    brightness = np.linspace(1.0, 1.0 - rng.uniform(0, 0.1), frames, dtype=np.float32)
    brightness[frames // 2 :] *= 1.0 + settings.jump
    signal = f0 * brightness[:, None, None] * (1.0 + contribution) + settings.offset  # (T, H, W)
    counts = settings.gain * rng.poisson(signal / settings.gain)
    counts = counts + rng.normal(0.0, settings.read_noise, shape)
    return np.clip(np.round(counts), 0, 65535).astype(np.uint16), classes, ids, truths


def _resting_cell(rng, shape):
    """Return (cell mask (H, W) bool, resting fluorescence F0 (H, W) float32 in counts)."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    cell = (np.abs(y) / (0.45 * height)) ** 4 + (np.abs(x) / (0.45 * width)) ** 4 <= 1.0
    mottling = ndimage.gaussian_filter(rng.standard_normal(shape), 12)
    mottling *= 0.25 / max(np.abs(mottling).max(), 1e-9)
    striation = 1.0 + 0.12 * np.cos(2 * np.pi * x / 9.0)
    level = rng.uniform(3500, 5000)
    inside = ndimage.gaussian_filter(np.where(cell, 1.0, 0.06), 1.0)
    return cell, (level * (1.0 + mottling) * striation * inside).astype(np.float32)


def _plant(rng, settings, shape, cell, index):
    """Draw the events of a movie in the order waves, puffs, sparks."""
    n_sparks, n_puffs, n_waves = _numbers(rng, settings, shape, index)
    taken = np.zeros(shape, bool)
    events = []
    for _ in range(n_waves):
        events += _placed(lambda: [_wave(rng, settings, shape, cell)], taken, cell)
    for _ in range(n_puffs):
        events += _placed(
            lambda: [_puff(rng, settings, shape, _place(rng, shape, cell))], taken, cell
        )
    for _ in range(n_sparks // 2 if settings.touching else n_sparks):
        events += _placed(lambda: _sparks(rng, settings, shape, cell), taken, cell)
    return events


def _numbers(rng, settings, shape, index):
    """Return how many sparks, puffs and waves a movie gets."""
    sparks, puffs, waves = settings.rates
    if settings.exact:
        # Every k-th movie has a wave when the rate is 1/k.
        n_waves = math.floor((index + 1) * waves + 1e-9) - math.floor(index * waves + 1e-9)
        numbers = [round(sparks), round(puffs), n_waves]
    else:
        scale = math.prod(shape) / STANDARD_VOXELS
        numbers = [int(rng.poisson(sparks * scale)), int(rng.poisson(puffs * scale))]
        numbers.append(int(rng.binomial(2, min(waves / 2, 1.0))))
    if settings.waves is not None:
        numbers[2] = settings.waves[index]
    return numbers


def _placed(draw, taken, cell, tries=60):
    """Return drawn events of which at least half is visible, or none after ``tries`` draws.

    A person does not annotate a spark inside a wave, so a hidden event would be no truth.
    """
    for _ in range(tries):
        group = draw()
        masks = [(event.profile > LABEL_LEVEL) & cell[event.box[1:]] for event in group]
        visible = all(
            2 * np.count_nonzero(mask & ~taken[event.box]) > mask.sum()
            for event, mask in zip(group, masks, strict=True)
        )
        if visible:
            for event, mask in zip(group, masks, strict=True):
                taken[event.box] |= mask
            return group
    return []


def _place(rng, shape, cell, margin_px=3):
    """Draw (t, y, x) of an onset inside the cell and away from both ends of the movie."""
    inside = ndimage.binary_erosion(cell, iterations=margin_px)
    rows, columns = np.nonzero(inside if inside.any() else cell)
    at = rng.integers(len(rows))
    return rng.uniform(0, shape[0]), float(rows[at]), float(columns[at])


def _sparks(rng, settings, shape, cell):
    """Return one spark, or two that touch."""
    t, y, x = _place(rng, shape, cell)
    group = [_spark(rng, settings, shape, (t, y, x))]
    if settings.touching:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(8, 14)
        y = np.clip(y + distance * np.sin(angle), 0, shape[1] - 1)
        x = np.clip(x + distance * np.cos(angle), 0, shape[2] - 1)
        group.append(_spark(rng, settings, shape, (t, y, x)))
    return group


def _spark(rng, settings, shape, place):
    fwhm = max(rng.normal(2.0, 0.3), 1.0)
    timing = {"rise_ms": rng.uniform(5, 10), "tau_ms": rng.uniform(20, 35)}
    return _local_event("sparks", settings, shape, place, fwhm, timing, rng.uniform(0.4, 1.0), None)


def _puff(rng, settings, shape, place):
    fwhm = max(rng.normal(4.0, 0.8), 2.5)
    timing = {"rise_ms": rng.uniform(20, 50), "tau_ms": rng.uniform(60, 150)}
    frames = rng.uniform(60, 80)
    return _local_event(
        "puffs", settings, shape, place, fwhm, timing, rng.uniform(0.3, 0.8), frames
    )


def _local_event(kind, settings, shape, place, fwhm_um, timing, amplitude, frames):
    """Return a spark (Gaussian) or puff (flat-topped Gaussian, exponent 4) as Planted.

    The time course rises linearly, then decays exponentially; ``frames`` limits its length.
    """
    onset, y0, x0 = place
    rise = timing["rise_ms"] / settings.frame_ms
    tau = timing["tau_ms"] / settings.frame_ms
    length = frames or rise + 6 * tau
    order = 2 if kind == "sparks" else 4
    half = 0.5 * fwhm_um / settings.pixel_um
    reach = math.ceil(half * (7 / math.log(2)) ** (1 / order))
    box = tuple(
        slice(max(0, math.floor(low)), min(n, math.ceil(high) + 1))
        for low, high, n in (
            (onset, onset + length, shape[0]),
            (y0 - reach, y0 + reach, shape[1]),
            (x0 - reach, x0 + reach, shape[2]),
        )
    )
    t, y, x = np.ogrid[box]
    course = np.minimum(np.clip((t - onset) / rise, 0, 1), np.exp(-(t - onset - rise) / tau))
    radius = np.hypot(y - y0, x - x0)
    profile = course * np.exp(-math.log(2) * (radius / half) ** order)
    truth = {"t": onset + rise, "y": y0, "x": x0, "fwhm_um": fwhm_um, **timing}
    truth["fdhm_ms"] = timing["rise_ms"] / 2 + timing["tau_ms"] * math.log(2)
    return Planted(kind, box, profile.astype(np.float32), amplitude, truth)


def _wave(rng, settings, shape, cell):
    """Return a wave that crosses the cell along x, in either direction."""
    speed = rng.uniform(60, 120)  # um/s
    pixels_per_frame = speed / settings.pixel_um * settings.frame_ms / 1e3
    columns = np.flatnonzero(cell.any(axis=0))
    left, right = columns[0], columns[-1]
    crossing = (right - left) / pixels_per_frame
    latest = max(shape[0] - MARGIN_FRAMES - 2 - crossing - 60, MARGIN_FRAMES + 2.0)
    start = rng.uniform(MARGIN_FRAMES + 2.0, latest) if latest > MARGIN_FRAMES + 2 else latest
    box = tuple(slice(0, n) for n in shape)
    t, _, x = np.ogrid[box]
    forward = rng.random() < 0.5
    along = x - left if forward else right - x
    front = (t - start) * pixels_per_frame
    behind = front - along
    profile = np.where(behind >= 0, np.exp(-behind / 120.0), np.exp(-(behind**2) / (2 * 6.0**2)))
    profile = np.broadcast_to(profile, shape).astype(np.float32)
    middle = (left + right) / 2
    truth = {"t": start + crossing / 2, "y": (shape[1] - 1) / 2, "x": middle, "speed_um_s": speed}
    return Planted("waves", box, profile, rng.uniform(1, 2), truth)


def _label(event, number, classes, ids, cell, f0, settings):
    """Write the voxels of an event into the masks where they are free; return its truth row."""
    mask = (event.profile > LABEL_LEVEL) & cell[event.box[1:]] & (classes[event.box] == 0)
    y, x = (min(round(event.truth[axis]), n - 1) for axis, n in zip("yx", f0.shape, strict=True))
    base = float(f0[y, x])
    noise = math.sqrt(settings.gain * (base + settings.offset) + settings.read_noise**2)
    snr = event.amplitude * base / noise
    frames = np.flatnonzero(mask.any(axis=(1, 2))) + event.box[0].start
    marginal = len(frames) == 0 or (
        frames[0] < MARGIN_FRAMES or frames[-1] >= len(classes) - MARGIN_FRAMES
    )
    label = IGNORE_INDEX if marginal or snr < VISIBLE_SNR else CLASSES[event.kind]
    classes[event.box][mask] = label
    ids[event.box][mask] = number
    row = {"id": number, "class": event.kind, "label": label, **event.truth}
    return row | {"amplitude_df_f0": event.amplitude, "snr": snr, "voxels": int(mask.sum())}


def _write_truth(path, rows):
    def cell(value):
        return f"{value:.6g}" if isinstance(value, float) else value

    write_table(
        path, TRUTH_COLUMNS, ([cell(row.get(n, "")) for n in TRUTH_COLUMNS] for row in rows)
    )


def _check(settings):
    """Raise InputError for settings that cannot make a movie."""
    for name in ("movies", "frames", "height", "width"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)}: expected at least 1")
    for name in ("pixel_um", "frame_ms", "gain"):
        if not 0 < getattr(settings, name) < math.inf:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} {getattr(settings, name)}: expected a positive number")
    for name in ("seed", "first_id", "empty", "read_noise", "offset"):
        if not 0 <= getattr(settings, name) < math.inf:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} {getattr(settings, name)}: expected a number >= 0")
    if min(settings.waves or (0,)) < 0:
        raise InputError(f"--waves {settings.waves}: expected numbers >= 0")
    if len(settings.rates) != 3 or not all(0 <= rate < math.inf for rate in settings.rates):
        raise InputError(
            f"--rates {settings.rates}: expected three numbers >= 0: sparks puffs waves"
        )
    if settings.waves is not None and len(settings.waves) != settings.movies:
        raise InputError(
            f"--waves has {len(settings.waves)} numbers; expected one for each of "
            f"{settings.movies} movies"
        )
    if not 0 <= settings.empty <= settings.movies:
        raise InputError(f"--empty {settings.empty}: expected 0 to {settings.movies} movies")
