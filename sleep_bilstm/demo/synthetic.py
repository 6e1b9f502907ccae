"""Synthetic wide-field recordings with planted sleep states, in the published .mat form.

Follows specification section 4.7 (bouts: Soltani et al. 2019, McShane et al. 2010; delta band:
Brier et al. 2019). The brain mask and the parcels are drawn here, without the published atlas.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score

from common.files import DATA_DIR, InputError, atomic_path, write_json
from common.locks import writing
from demo.brain_shape import PARCELS_PER_SIDE, brain_mask, parcels
from inputs.mat_writer import write_recording
from inputs.states import (
    ARTIFACT_CODE,
    FRAME_RATE_HZ,
    FRAMES_PER_EPOCH,
    HUMAN_KAPPA,
    LABEL_TO_RAW,
    NREM,
    REM,
    WAKE,
)

# recording
OUT = DATA_DIR / "synthetic"
MICE = 4
MINUTES = 30.0
EPOCHS_PER_RUN = 30
SIZE = 128  # pixels per side: 16, 32, 64 or 128
SEED = 0
# signal
SNR = 0.15  # factor on the state-specific parts; about 0.1 is as hard as real data
NOISE = 1.0  # factor on the camera noise
REM_AMPLITUDE = 0.015  # REM rhythm, relative fluorescence, before SNR is applied
REM_BOOST = 0.15  # probability of NREM -> REM
MIN_STATE_FRACTION = 0.0  # redraw the states until each takes at least this fraction of the epochs
ARTIFACT_RATE = 0.015
MEAN_BOUT_S = {WAKE: 120.0, NREM: 90.0, REM: 60.0}
BOUT_SHAPE = 1.5  # of the gamma distribution
HOMOTOPIC_CORRELATION = 0.7
WAVE_DELAY_S = 0.25  # front to back
AMPLITUDE = {
    "slow": 0.012,
    "local": 0.010,
    "infraslow": 0.008,
    "movement": 0.010,
    "hemo": 0.003,
}
CAMERA_NOISE = 0.012
LOCAL_WEIGHT = {WAKE: 1.0, NREM: 0.55, REM: 0.45}
# bursts of slow waves
BURST_INTERVAL_S = 0.0  # mean time between them; 0: slow waves all through NREM
BURST_S = 3.0  # length of one
BURST_JITTER = 0.25  # deviation of the time of one, in intervals
BURST_REM_REACH = 2.5  # factor on the map of the rhythm of REM, cut at 1
# highest value of settings that start at 0
NOT_NEGATIVE = {
    "seed": math.inf,
    "snr": math.inf,
    "noise": math.inf,
    "rem_amplitude": math.inf,
    "rem_boost": 1,
    "min_state_fraction": 1,
    "artifact_rate": 1,
}
FLAG_HELP = {
    "mice": "number of mice",
    "minutes": "length of the recording of one mouse",
    "epochs_per_run": "10-s epochs in one file",
    "size": "pixels per side: 16, 32, 64 or 128",
    "seed": "seed of all random numbers",
    "snr": "factor on the state-specific signals; 0.1 is about as hard as real data",
    "noise": "factor on the camera noise",
    "rem_amplitude": "relative fluorescence of the rhythm of REM, before --snr is applied",
    "rem_boost": "probability that a NREM bout ends in REM; natural is about 0.15",
    "min_state_fraction": "redraw until every state takes this fraction of the epochs",
    "artifact_rate": "fraction of epochs with a movement artifact (code 2)",
    "gsr": "subtract the mean over the brain from every frame",
    "hemo": "add residual haemodynamics at the vessels",
    "localised": "confine slow waves to the front half and local activity to the back half",
    "burst_interval_s": "mean time in s between bursts of 3 s of slow waves, which take the place "
    "of local activity of the same power, so that NREM is like wakefulness between them; 0: slow "
    "waves all through NREM",
    "second_rater": "store the labels of a second rater, kappa about 0.65, in the truth files",
}


@dataclass(frozen=True)
class Plan:
    """Settings of a synthetic data set; every field is a flag of the same name."""

    mice: int = MICE
    minutes: float = MINUTES
    epochs_per_run: int = EPOCHS_PER_RUN
    size: int = SIZE
    seed: int = SEED
    snr: float = SNR
    noise: float = NOISE
    rem_amplitude: float = REM_AMPLITUDE
    rem_boost: float = REM_BOOST
    min_state_fraction: float = MIN_STATE_FRACTION
    artifact_rate: float = ARTIFACT_RATE
    gsr: bool = False
    hemo: bool = False
    localised: bool = False
    burst_interval_s: float = BURST_INTERVAL_S
    second_rater: bool = False


def check_plan(plan: Plan) -> None:
    """Raise an InputError for a number out of its range."""
    for name in ("mice", "epochs_per_run", "minutes"):
        if not 0 < getattr(plan, name) < math.inf:
            raise InputError(f"{name} is {getattr(plan, name)}: expected a number above 0")
    for name, high in NOT_NEGATIVE.items():
        if not 0 <= getattr(plan, name) <= high or getattr(plan, name) == math.inf:
            limit = "0 or more" if high == math.inf else f"0 to {high}"
            raise InputError(f"{name} is {getattr(plan, name)}: expected {limit}")
    if not plan.burst_interval_s:
        return
    if not BURST_S <= plan.burst_interval_s < math.inf:
        raise InputError(
            f"burst_interval_s is {plan.burst_interval_s}: expected 0, or at least {BURST_S:g}, "
            "the length of a burst"
        )
    if plan.localised or plan.rem_amplitude != REM_AMPLITUDE:
        raise InputError(
            "burst_interval_s gives all activity the same power everywhere: leave out localised "
            "and rem_amplitude"
        )


def draw_states(n_frames: int, rem_boost: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a semi-Markov sequence of states, one per frame: (n_frames,) int."""
    states = np.empty(n_frames, int)
    state, start = WAKE, 0
    while start < n_frames:
        bout_s = rng.gamma(BOUT_SHAPE, MEAN_BOUT_S[state] / BOUT_SHAPE)
        stop = start + max(1, round(bout_s * FRAME_RATE_HZ))
        states[start:stop] = state
        if state == WAKE:
            state = NREM
        elif state == NREM:
            state = REM if rng.random() < rem_boost else WAKE
        else:
            state = WAKE if rng.random() < 0.8 else NREM
        start = stop
    return states


def epoch_labels(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (majority state, whether it holds a transition) of every epoch of 168 frames."""
    counts = np.stack(
        [(states.reshape(-1, FRAMES_PER_EPOCH) == s).sum(1) for s in (WAKE, NREM, REM)], 1
    )
    return counts.argmax(1), counts.max(1) < FRAMES_PER_EPOCH


def band_noise(
    n: int, low_hz: float, high_hz: float, rng: np.random.Generator, *, rows: int = 1
) -> np.ndarray:
    """Return (rows, n) Gaussian noise of unit deviation between two frequencies."""
    frequency = np.fft.rfftfreq(n, 1 / FRAME_RATE_HZ)
    spectrum = rng.normal(size=(rows, frequency.size)) + 1j * rng.normal(
        size=(rows, frequency.size)
    )
    spectrum[:, (frequency < low_hz) | (frequency > high_hz) | (frequency == 0)] = 0
    signal = np.fft.irfft(spectrum, n, axis=1)
    return signal / np.maximum(signal.std(axis=1, keepdims=True), 1e-12)


def slow_wave(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a slow oscillation (n,) that peaks near 1 Hz and its log-normal envelope (n,)."""
    envelope = np.exp(0.6 * band_noise(n, 0.05, 0.15, rng)[0])
    carrier = band_noise(n, 0.5, 3.0, rng)[0] * 0.5 + band_noise(n, 0.8, 1.3, rng)[0]
    return envelope * carrier / carrier.std(), envelope


def wave_bursts(n: int, interval_s: float, rng: np.random.Generator) -> np.ndarray:
    """Return an envelope (n,) from 0 to 1: bursts ``interval_s`` apart on average, 0 between."""
    interval = interval_s * FRAME_RATE_HZ
    times = (np.arange(math.ceil(n / interval)) + 0.5) * interval
    times += BURST_JITTER * interval * rng.standard_normal(times.size)
    impulses = np.zeros(n)
    impulses[np.clip(times, 0, n - 1).astype(int)] = 1
    shape = np.hanning(round(BURST_S * FRAME_RATE_HZ) + 2)
    return np.minimum(np.convolve(impulses, shape, mode="same"), 1)


def movement_bursts(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return 0.5-s transients of exponential size, one per 20 s of wakefulness on average: (n,)."""
    starts = (rng.random(states.size) < 1 / (20 * FRAME_RATE_HZ)) & (states == WAKE)
    impulses = np.where(starts, rng.exponential(size=states.size), 0)
    shape = np.hanning(round(0.5 * FRAME_RATE_HZ) + 2)
    return np.convolve(impulses, shape, mode="same")


def spatial_weights(mask: np.ndarray, plan: Plan) -> dict[str, np.ndarray]:
    """Return one map (H, W) per component: slow, local, rem, infraslow, movement, hemo.

    With bursts, slow and rem are the share of local activity whose place they take.
    """
    size = mask.shape[0]
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    front, back = 1 - 0.65 * y, 0.35 + 0.65 * y
    if plan.localised:
        front, back = np.where(y < 0.5, 1.0, 0.0), np.where(y < 0.5, 0.0, 1.0)
    vessels = np.exp(-(((x - 0.5) / 0.03) ** 2)) + np.exp(
        -(((np.abs(x - 0.5) - 0.2 - 0.1 * y) / 0.03) ** 2)
    )
    maps = {
        "slow": front,
        "local": back,
        "rem": np.exp(-(((x - 0.5) / 0.16) ** 2) - ((y - 0.75) / 0.18) ** 2),
        "infraslow": np.ones_like(y),
        "movement": np.ones_like(y),
        "hemo": vessels,
    }
    if plan.burst_interval_s:
        reach = np.minimum(1, BURST_REM_REACH * maps["rem"])
        even, none = np.ones_like(y), np.zeros_like(y)
        maps |= {"local": even, "rem": reach, "movement": none}
    return {key: value * mask for key, value in maps.items()}


def time_courses(states: np.ndarray, plan: Plan, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the time course of every component, weighted by state, (rows, n) in units of signal
    deviation.

    With bursts, local, slow and rem have deviation 1 all the time, and ``slow_share`` and
    ``rem_share`` (1, n), from 0 to 1, say how far the latter take the place of local activity.
    """
    n = states.size
    smooth = {
        s: ndimage.uniform_filter1d((states == s).astype(float), round(0.5 * FRAME_RATE_HZ))
        for s in (WAKE, NREM, REM)
    }
    wave, envelope = slow_wave(n, rng)
    left = band_noise(n, 0.1, 4.0, rng, rows=PARCELS_PER_SIDE)
    own = band_noise(n, 0.1, 4.0, rng, rows=PARCELS_PER_SIDE)
    right = HOMOTOPIC_CORRELATION * left + np.sqrt(1 - HOMOTOPIC_CORRELATION**2) * own
    rhythm = band_noise(n, 5.0, 8.0, rng)
    activity = sum(LOCAL_WEIGHT[s] * smooth[s] for s in LOCAL_WEIGHT)
    courses = {
        "slow": plan.snr * (wave * smooth[NREM])[None],
        "envelope": envelope[None],
        "local": plan.snr * activity * np.concatenate([left, right]),
        "rem": plan.snr * rhythm * smooth[REM],
        "infraslow": band_noise(n, 0.01, 0.08, rng),
        "movement": plan.snr * movement_bursts(states, rng)[None],
    }
    if plan.hemo:
        courses["hemo"] = band_noise(n, 0.01, 0.1, rng) + band_noise(n, 7.8, 8.2, rng)
    if plan.burst_interval_s:
        carrier = wave / envelope
        bursts = wave_bursts(n, plan.burst_interval_s, rng)
        courses |= {
            "slow": carrier[None] / carrier.std(),
            "slow_share": (bursts * smooth[NREM])[None],
            "envelope": bursts[None],
            "local": np.concatenate([left, right]),
            "rem": rhythm,
            "rem_share": smooth[REM][None],
        }
    return courses


def render(
    courses: dict[str, np.ndarray],
    frames: slice,
    maps: dict[str, np.ndarray],
    parcel_map: np.ndarray,
    plan: Plan,
) -> np.ndarray:
    """Turn the time courses of one run into noise-free masked signals (F, P)."""
    mask = parcel_map > 0
    rows = np.nonzero(mask)[0]
    n = frames.stop - frames.start
    signals = np.zeros((n, rows.size), np.float32)
    amplitude = {**AMPLITUDE, "rem": plan.rem_amplitude}
    even = () if plan.burst_interval_s else ("rem",)
    for key in (*even, "infraslow", "movement", "hemo"):
        if key in courses:
            signals += np.outer(amplitude[key] * courses[key][0, frames], maps[key][mask]).astype(
                np.float32
            )
    if plan.burst_interval_s:
        return signals + mixed_activity(courses, frames, maps, parcel_map, plan)
    local = AMPLITUDE["local"] * courses["local"][parcel_map[mask] - 1, frames]
    signals += (local * maps["local"][mask][:, None]).T.astype(np.float32)
    waves = delayed(courses["slow"][0], frames, plan.size)
    signals += (AMPLITUDE["slow"] * waves[rows] * maps["slow"][mask][:, None]).T.astype(np.float32)
    return signals


def delayed(course: np.ndarray, frames: slice, size: int) -> np.ndarray:
    """Return a course (n,) as the rows of pixels see it: (H, F). It reaches each row a little later
    than the one in front of it.
    """
    time = np.arange(frames.start, frames.stop, dtype=float)
    all_frames = np.arange(course.size)
    delay = WAVE_DELAY_S * FRAME_RATE_HZ * (np.arange(size) + 0.5) / size
    return np.stack([np.interp(time - d, all_frames, course) for d in delay])


def mixed_activity(
    courses: dict[str, np.ndarray],
    frames: slice,
    maps: dict[str, np.ndarray],
    parcel_map: np.ndarray,
    plan: Plan,
) -> np.ndarray:
    """Return slow waves, rhythm and local activity of one run (F, P), of the same power in every
    pixel at all times: what waves and rhythm take, local activity lacks.
    """
    mask = parcel_map > 0
    rows = np.nonzero(mask)[0]
    wave, share = (
        delayed(courses[key][0], frames, plan.size)[rows] for key in ("slow", "slow_share")
    )  # (P, F)
    share = share * maps["slow"][mask][:, None]
    rhythm = np.outer(maps["rem"][mask], courses["rem_share"][0, frames])
    rhythm = np.minimum(rhythm, np.sqrt(1 - share**2))  # both, where states fade into each other
    rest = np.sqrt(np.maximum(1 - share**2 - rhythm**2, 0))
    mixed = share * wave + rhythm * courses["rem"][:, frames]
    mixed += rest * courses["local"][parcel_map[mask] - 1, frames]
    return (plan.snr * AMPLITUDE["local"] * mixed).T.astype(np.float32)


def camera_noise(shape: tuple[int, int, int], plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Return spatially smoothed white noise (F, H, W) of the deviation of the camera noise."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = 0.6 * shape[1] / 32
    noise = ndimage.gaussian_filter(noise, (0, sigma, sigma))
    return noise * (plan.noise * CAMERA_NOISE / noise.std())


def rate_again(labels: np.ndarray, mixed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the labels of a second rater, who differs mostly at transitions, kappa about 0.65."""
    changes = np.flatnonzero(np.diff(labels) != 0)
    near = mixed.copy()
    near[changes] = near[np.minimum(changes + 1, labels.size - 1)] = True
    second = labels.copy()
    # Epochs near a transition come first; each takes the label of a neighbour.
    for epoch in np.argsort(rng.random(labels.size) - near, kind="stable"):
        if len(np.unique(labels)) < 2 or cohen_kappa_score(labels, second) <= HUMAN_KAPPA:
            break
        around = labels[max(0, epoch - 3) : epoch + 4]
        others = around[around != labels[epoch]]
        second[epoch] = others[0] if others.size else (labels[epoch] + 1) % 3
    return second


def make_mouse(mouse: int, plan: Plan, out: Path) -> list[Path]:
    """Write the runs of one mouse and the truth beside each; return the recordings."""
    rng = np.random.default_rng([plan.seed, mouse])
    n_epochs = max(1, round(plan.minutes * 60 * FRAME_RATE_HZ / FRAMES_PER_EPOCH))
    for _ in range(10_000):
        states = draw_states(n_epochs * FRAMES_PER_EPOCH, plan.rem_boost, rng)
        labels, mixed = epoch_labels(states)
        if np.bincount(labels, minlength=3).min() >= plan.min_state_fraction * n_epochs:
            break
    else:
        raise InputError(
            f"min_state_fraction {plan.min_state_fraction} is not reached in {plan.minutes:g} "
            "minutes: lower it, or raise --minutes or --rem_boost"
        )
    mask = brain_mask(plan.size)
    parcel_map, maps = parcels(mask), spatial_weights(mask, plan)
    courses = time_courses(states, plan, rng)
    raw = np.array([LABEL_TO_RAW[int(label)] for label in labels])
    raw[rng.random(n_epochs) < plan.artifact_rate] = ARTIFACT_CODE
    second = rate_again(labels, mixed, rng) if plan.second_rater else None
    date, written = f"9901{mouse + 1:02d}", []
    for run, start in enumerate(range(0, n_epochs, plan.epochs_per_run), start=1):
        epochs = slice(start, min(start + plan.epochs_per_run, n_epochs))
        frames = slice(epochs.start * FRAMES_PER_EPOCH, epochs.stop * FRAMES_PER_EPOCH)
        signals = render(courses, frames, maps, parcel_map, plan)
        movie = camera_noise((len(signals), plan.size, plan.size), plan, rng)
        movie[:, mask] += signals
        movie = movie.reshape(-1, FRAMES_PER_EPOCH, plan.size, plan.size)
        for epoch in np.flatnonzero(raw[epochs] == ARTIFACT_CODE):
            burst = rng.integers(FRAMES_PER_EPOCH - 40)
            movie[epoch, burst : burst + 40] += (
                20 * AMPLITUDE["movement"] * np.hanning(40)[:, None, None]
            )
        if plan.gsr:
            movie -= movie[..., mask].mean(axis=-1)[..., None, None]
        movie *= mask
        path = out / date / f"{date}-S{mouse + 1}-fc{run}-synthetic.mat"
        truth = {
            "state": states[frames].reshape(-1, FRAMES_PER_EPOCH),
            "label": labels[epochs],
            "raw_label": raw[epochs],
            "mixed": mixed[epochs],
            "slow_wave_envelope": courses["envelope"][0, frames].reshape(-1, FRAMES_PER_EPOCH),
            "parcels": parcel_map,
            **{f"map_{key}": value for key, value in maps.items()},
        }
        if second is not None:
            truth["second_rater"] = second[epochs]
        with atomic_path(path.with_suffix(".truth.npz")) as temporary:
            np.savez_compressed(temporary, **truth)
        # After its truth: by that a recording is known as synthetic when the set is interrupted.
        write_recording(path, movie, mask, raw[epochs])
        written.append(path)
    return written


def record_of(plan: Plan) -> dict:
    """Return what `truth.json` says of a complete set of ``plan``."""
    return {"format": 1, "plan": asdict(plan)}


def same_plan(marker: Path, plan: Plan) -> bool:
    """Say whether ``marker``, the `truth.json` of a complete set, is of ``plan``."""
    try:
        held = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{marker}: is no readable JSON ({error}); remove it to write the set again"
        ) from error
    if isinstance(held, dict) and isinstance(held.get("plan"), dict):
        # A set older than a setting was made with what is now its default.
        held["plan"] = {**asdict(Plan()), **held["plan"]}
    return held == record_of(plan)


def is_synthetic(folder: Path) -> bool:
    """Say whether every recording below ``folder`` has its truth beside it."""
    return all(path.with_suffix(".truth.npz").is_file() for path in folder.rglob("*.mat"))


def make_data_set(out: Path, plan: Plan) -> list[Path]:
    """Write all mice of ``plan`` below ``out`` and, last, `truth.json`; reuse a complete equal set.

    Raises:
        InputError: ``out`` holds a set of other settings, or recordings that are not synthetic.
    """
    if plan.size not in (16, 32, 64, 128):
        raise InputError(f"size is {plan.size}: expected 16, 32, 64 or 128")
    with writing(out):
        return _make_data_set(out, plan)


def _make_data_set(out: Path, plan: Plan) -> list[Path]:
    """Write or reuse the set; the folder is this process's own."""
    marker = out / "truth.json"
    if marker.is_file():
        if not same_plan(marker, plan):
            raise InputError(
                f"{out}: holds synthetic data of other settings; give another --out or remove it"
            )
        return sorted(out.rglob("*.mat"))
    if not is_synthetic(out):
        raise InputError(f"{out}: holds recordings that are not synthetic; give another --out")
    for pattern in ("*.mat", "*.truth.npz"):  # of an interrupted set of any settings
        for path in out.rglob(pattern):
            path.unlink()
    parallel = joblib.Parallel(n_jobs=min(plan.mice, joblib.cpu_count()))
    made = parallel(joblib.delayed(make_mouse)(mouse, plan, out) for mouse in range(plan.mice))
    write_json(marker, record_of(plan))
    return [path for paths in made for path in paths]
