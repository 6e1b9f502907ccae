"""A synthetic data set with planted tuning, in the very format of the recordings. Source: 4.4."""

import contextlib
import io
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from common.files import InputError, read_json, write_bytes, write_json
from common.hashes import sha256
from common.locks import visible
from demo.scenes import random_scenes
from demo.teacher import TYPES, analytic_calcium, noisy_trials
from inputs.ca_dataloader import shift_movie
from inputs.display import Display
from inputs.stimuli import (
    BACKGROUND,
    BRIGHT,
    DARK,
    Stimulus,
    approaching,
    disc,
    flicker,
    grating,
    growing,
    make_family,
    moving_rectangle,
    shrinking,
)
from network.checkpoints import load_model, resolve_checkpoint
from network.predict import predict_movies
from runs.continuing import is_running
from runs.data import truth_file
from settings import SETS

RECIPE = 4  # raised when a set of the same settings would differ from an older one
PRE_S, POST_S = 0.5, 2.5  # recorded before and after stimulus onset, seconds
N_TRIALS = 3
SHIFT_DEG = 6.0  # receptive fields are off centre by up to this much
GAIN_MU, GAIN_SIGMA = -0.35, 0.35  # of the log-normal neuron gain
PUBLISHED = ("size_tuning", "looming", "grating", "rf_map")  # families of known numbers
N_SCENES, SCENE_SEED = 600, 0
LEAST_ANSWER = 1e-6  # dF/F between largest and smallest; below it a teacher's read-out is dead
SIZES_DEG = (2.25, 4.5, 9.0, 15.0, 30.0, 45.0)


def synthetic_stimuli(which: str, *, rate_hz: float, size: tuple[int, int]) -> list[Stimulus]:
    """Return the stimuli of a set: rectangles, discs, rings, gratings, flicker, grey.

    Numbers: 1000s rectangles, 300s expanding and contracting, 500s gratings, 600s flicker, 900
    grey. The set called published holds the numbered stimuli of the recordings that are known; the
    one called scenes, random scenes (2000s) and the stimuli of the small set.
    """
    if which == "published":
        return published_stimuli(Display(rate_hz, 1.0, BACKGROUND, size))
    if which == "scenes":
        scenes = random_scenes(N_SCENES, Display(rate_hz, 1.0, BACKGROUND, size), SCENE_SEED)
        return [*synthetic_stimuli("small", rate_hz=rate_hz, size=size), *scenes]
    end = min(45.0, min(size) - 6.0)
    stimuli, display = [], Display(rate_hz, 1.0, BACKGROUND, size)

    def add(barcode, label, family, contrast):
        limit = round(POST_S * rate_hz)
        stimuli.append(Stimulus(barcode, label, family, contrast[:limit]))

    def rectangle(barcode, w, h, direction, speed, level):
        word = "dark" if level == DARK else "bright"
        frames = moving_rectangle(
            display, (w, h), speed=speed, direction=direction, start=-30.0,
            seconds=(60.0 + w) / speed, level=level,
        )  # fmt: skip
        add(barcode, f"{word} {w:g} x {h:g} deg {direction} {speed:g} deg/s", "rectangle", frames)

    sizes = SIZES_DEG if which != "tiny" else (4.5, 9.0)
    for i, w in enumerate(sizes):
        for j, h in enumerate(sizes):
            number = 1000 + 20 * i + 2 * j
            ways = ("right", "left") if which == "full" else (("right", "left")[(i + j) % 2],)
            for way in ways:
                rectangle(number + (way == "left"), w, h, way, 60.0, DARK)
                if which == "full" and (i + j) % 2:
                    rectangle(number + 200 + (way == "left"), w, h, way, 100.0, DARK)
    if which != "tiny":
        for i, w in enumerate((9.0, 15.0)):
            rectangle(1400 + i, w, w, "right", 60.0, BRIGHT)
    speeds = (20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0) if which != "tiny" else (100.0,)
    for i, speed in enumerate(speeds):
        for number, wall in ((300, None), (320, 5.0)) if which == "full" else ((300, None),):
            kind = "disc" if wall is None else "ring"
            label = f"expanding {kind} {speed:g} deg/s"
            add(
                number + i,
                label,
                "expanding",
                disc(display, growing(speed, rate_hz=rate_hz, end=end), wall=wall),
            )
    shrink = {"full": speeds, "small": (50.0, 200.0), "tiny": (100.0,)}[which]
    for i, speed in enumerate(shrink):
        frames = disc(display, shrinking(speed, rate_hz=rate_hz, start=end))
        add(340 + i, f"contracting disc {speed:g} deg/s", "contracting", frames)
    if which == "small":
        frames = disc(display, growing(100.0, rate_hz=rate_hz, end=end), wall=5.0)
        add(320, "expanding ring 100 deg/s", "expanding", frames)
    for i, ms in enumerate((10, 20, 40, 80) if which != "tiny" else ()):
        diameter = approaching(ms / 1000, rate_hz=rate_hz, end=end)
        add(360 + i, f"looming disc r/v {ms} ms", "expanding", disc(display, diameter))
    if which != "tiny":
        for i, speed in enumerate((50.0, 100.0) if which == "full" else (100.0,)):
            frames = disc(display, growing(speed, rate_hz=rate_hz, end=end), level=BRIGHT)
            add(380 + i, f"bright expanding disc {speed:g} deg/s", "expanding bright", frames)
    periods = ((9.0, 25.0), (9.0, 100.0), (30.0, 25.0), (30.0, 100.0))
    for i, (period, speed) in enumerate(periods[:: 1 if which == "full" else 3]):
        frames = grating(display, period=period, speed=speed)
        add(500 + i, f"grating {period:g} deg {speed:g} deg/s", "grating", frames)
    for hertz in {"full": (1, 2, 4, 8), "small": (2,), "tiny": ()}[which]:
        add(
            600 + hertz,
            f"flicker {hertz} Hz",
            "flicker",
            flicker(display, hertz),
        )
    add(900, "grey", "blank", flicker(display, 1, seconds=0.5, level=0.0))
    return sorted(stimuli, key=lambda stimulus: stimulus.barcode)


def published_stimuli(display: Display) -> list[Stimulus]:
    """Return size tuning, looming, gratings and receptive-field mapping, in order of number."""
    limit = display.frames(POST_S)
    stimuli = [stimulus for name in PUBLISHED for stimulus in make_family(name, display)]
    return sorted(
        (replace(stimulus, contrast=stimulus.contrast[:limit]) for stimulus in stimuli),
        key=lambda stimulus: stimulus.barcode,
    )


def make_synthetic(
    out: Path,
    *,
    seed: int = 0,
    hz: float = 60,
    px: int = 51,
    neurons: int = 3,
    stimuli: str = "small",
    teacher: str | Path = "analytic",
    config: Path | None = None,
    shift_deg: float = SHIFT_DEG,
    peak: float | None = None,
) -> Path:
    """Write the data set below ``out``; an older set there is replaced only when it was made by us.

    Args:
        out: folder.
        seed: of gains, shifts and noise.
        hz: frame and sampling rate.
        px: rows and columns of the movies, one degree each.
        neurons: per cell type.
        stimuli: tiny, small, full, scenes, or published (those of the recordings).
        teacher: analytic, or the path of a checkpoint that gives the responses.
        config: config.json of the checkpoint, default beside it.
        shift_deg: receptive fields are off centre by up to this much in both directions.
        peak: dF/F to which a checkpoint's calcium is scaled, type by type: that of the strongest
            stimulus in the middle, before the neuron's gain. None leaves it as it is; analytic
            responses have 1.
    """
    if stimuli not in SETS:
        raise InputError(f"stimuli={stimuli}: expected one of {', '.join(SETS)}")
    if hz < 20 or px < 35 or neurons < 1:
        raise InputError(f"hz={hz}, px={px}, neurons={neurons}: expected at least 20, 35 and 1")
    out = Path(out)
    if visible(out) and not (out / "truth.json").is_file():
        raise InputError(
            f"{out}: holds files that are no finished synthetic set; choose another folder"
        )
    replaces = out.exists()
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)
    # A folder of its own: the jobs of a sweep may make the set at the same time.
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.{os.getpid()}.", dir=out.parent))
    try:
        size = {"neurons": neurons, "shift_deg": shift_deg, "peak": peak}
        _write_set(building, seed, hz, px, stimuli, str(teacher), config, **size)
        building.chmod(0o755)
        if replaces:
            shutil.rmtree(out)
        with contextlib.suppress(OSError):  # another job was first: its set stays
            building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if not (out / "truth.json").is_file():
        raise InputError(f"{out}: the finished set could not be moved there")
    return out


def remove_unfinished(out: Path) -> None:
    """Remove the unfinished sets beside ``out`` of processes that a kill has ended."""
    for folder in out.parent.glob(f".{out.name}.*.*"):
        number = folder.name.removeprefix(f".{out.name}.").split(".")[0]
        if number.isdecimal() and not is_running(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def teacher_hash(teacher: str | Path) -> str | None:
    """Return the SHA-256 of a teacher's checkpoint, which its name does not tell; None: analytic.

    Raises:
        InputError: no checkpoint there.
    """
    return None if teacher == "analytic" else sha256(resolve_checkpoint(teacher))


def _write_set(out, seed, hz, px, which, teacher, config, *, neurons, shift_deg, peak):
    n_pre, n_t = round(PRE_S * hz), round((PRE_S + POST_S) * hz)
    respond, types = (
        _analytic(hz, n_pre)
        if teacher == "analytic"
        else _from_checkpoint(teacher, config, hz, n_pre)
    )
    shown = synthetic_stimuli(which, rate_hz=hz, size=(px, px))
    generator = np.random.default_rng(seed)
    t_axis = (torch.arange(n_t) - n_pre) / hz
    (out / "movies").mkdir()
    for stimulus in shown:
        frames = stimulus.movie
        entry = {"rect_mov": frames, "t_axis": torch.arange(len(frames)) / hz}
        save_tree(
            out / "movies" / f"vstim_{stimulus.barcode}.pt", {f"vstim_{stimulus.barcode}": entry}
        )
    types = TYPES if types is None else types
    truth = {"recipe": RECIPE, "seed": seed, "hz": hz, "px": px, "stimuli": which,
             "teacher": Path(teacher).name,
             "teacher_sha256": teacher_hash(teacher),
             "noise": {"trial_gain_sd": 0.1, "white_sd": 0.02, "slow_sd": 0.02, "imaging_hz": 7.5},
             "families": {str(s.barcode): [s.family, s.label] for s in shown},
             "types": {}}  # fmt: skip
    padded = [_pad_frames(stimulus.contrast, n_t - n_pre) for stimulus in shown]
    for k, kind in enumerate(types):
        shifts = generator.uniform(-shift_deg, shift_deg, (neurons, 2))
        # a trained network's calcium is that of its mean neuron: gains around 1
        middle = GAIN_MU if teacher == "analytic" else 0.0
        gains = np.exp(generator.normal(middle, GAIN_SIGMA, neurons))
        centred = respond(padded, kind)  # (stimuli, frames), the grey before onset included
        wanted = 1.0 if teacher == "analytic" else peak
        if wanted and not (centred.max() > 0.0 and np.ptp(centred) > LEAST_ANSWER):
            raise InputError(
                f"{teacher}: {kind} answers no stimulus of the set with calcium above 0 "
                f"(largest {centred.max():.3g} dF/F), so it cannot be scaled to {wanted:g} dF/F; "
                "use another teacher"
            )
        best = centred.max() / wanted if wanted else 1.0
        session = {f"vstim_{s.barcode}": {"t_axis": t_axis, "Hz": hz, "neuron": {}} for s in shown}
        record = truth["types"][kind] = {
            "centred_peak": {
                str(s.barcode): float(c.max() / best) for s, c in zip(shown, centred, strict=True)
            },
            "neurons": {},
        }
        for i in range(neurons):
            uid = 2019010100 + 100 * k + i + 1
            azimuth, elevation = (float(np.float32(v)) for v in shifts[i])
            step = (-int(np.rint(elevation)), int(np.rint(azimuth)))
            clean = (
                respond([shift_movie(frames, step) for frames in padded], kind) * gains[i] / best
            )
            peaks = {}
            for stimulus, curve in zip(shown, clean, strict=True):
                trials = noisy_trials(curve, N_TRIALS, generator, rate_hz=hz)
                session[f"vstim_{stimulus.barcode}"]["neuron"][uid] = {
                    "traces": torch.from_numpy(trials.astype(np.float32)),
                    "azi_shift": torch.tensor(azimuth),
                    "ele_shift": torch.tensor(elevation),
                }
                peaks[str(stimulus.barcode)] = float(curve.max())
            record["neurons"][str(uid)] = {
                "gain": float(gains[i]), "azi_shift": azimuth, "ele_shift": elevation,
                "peak": peaks,
            }  # fmt: skip
        (out / "ca_traces" / kind).mkdir(parents=True)
        save_tree(out / "ca_traces" / kind / "synthetic.pt", session)
    (out / "README").write_text(
        f"Synthetic recordings made by make_synthetic.py (seed {seed}): not measured from "
        "any animal.\n"
        f"Format: README.md of stcnn; background {BACKGROUND}; planted tuning in truth.json.\n",
        encoding="utf-8",
    )
    write_json(out / "truth.json", truth)


def save_tree(path: Path, tree: dict) -> None:
    """Write a torch file; through memory, since torch puts the name of a path into its bytes."""
    whole = io.BytesIO()
    torch.save(tree, whole)
    write_bytes(path, whole.getbuffer())


def _pad_frames(contrast, n):
    return torch.cat([contrast, contrast.new_zeros(n - len(contrast), *contrast.shape[1:])])


def _analytic(hz, n_pre):
    def respond(movies, kind):
        curves = np.stack([analytic_calcium(frames, kind, 1.0 / hz) for frames in movies])
        return np.pad(curves, ((0, 0), (n_pre, 0)))

    return respond, None


def _from_checkpoint(path, config, hz, n_pre):
    model = load_model(path, config=config)
    display = model.display
    if abs(display.rate_hz - hz) > 1e-6 * hz:
        raise InputError(
            f"{path}: trained at {display.rate_hz:g} Hz, the set is asked at {hz} Hz; use --hz"
        )
    if abs(display.background - BACKGROUND) > 1e-6 or display.deg_per_px != 1.0:
        raise InputError(
            f"{path}: trained on {display.deg_per_px:g} degrees per pixel and background "
            f"{display.background:g}; a synthetic set has 1 and {BACKGROUND}"
        )

    def respond(movies, kind):
        # a network's calcium on grey is not 0: it is shown the grey before onset as well
        shown = [
            torch.cat([frames.new_zeros(n_pre, *frames.shape[1:]), frames]) for frames in movies
        ]
        return predict_movies(model, shown)[kind].astype(np.float64)

    return respond, model.cell_types


def make_on_first_use(settings: dict) -> None:
    """Make the synthetic set that ``dataset.make`` describes when it is absent."""
    config = settings["dataset"]
    if config.get("make") and not Path(config["ca_path"]).is_dir():
        folder = Path(config["ca_path"]).parent
        print(f"making the synthetic set in {folder} (first use)")
        make_synthetic(folder, **config["make"])


def ensure_data(settings: dict, seed: int) -> dict | None:
    """Make the synthetic set when it is absent or was made otherwise; return its truth.

    None is a set without an analytic teacher.
    """
    recipe = settings["dataset"].get("make")
    record = truth_file(settings)
    folder = record.parent
    if recipe:
        recipe["seed"] = seed
        wanted = {key: recipe[key] for key in ("seed", "hz", "px", "stimuli")}
        wanted["recipe"] = RECIPE
        old = read_json(record, remedy="remove it") if record.is_file() else {}
        if any(old.get(key) != value for key, value in wanted.items()):
            print(f"making the synthetic set in {folder}")
            make_synthetic(folder, **recipe)
    if not record.is_file():
        return None
    truth = read_json(record, remedy="remove it")
    return truth if truth.get("teacher") == "analytic" else None
