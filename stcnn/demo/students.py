"""A student network trained on a teacher network's calcium: does a training find what is there?

The recordings are private, so nobody can check a training on them. Here a teacher answers instead:
a trained network of three cell types, with gains, places and noise of recordings. A student of the
same architecture from another seed sees random scenes and is asked about families of stimuli that
it has never seen (rectangles, expanding and contracting discs, gratings, flicker); beside it stand
LN models and the same training on dealt labels. Then neurons that nobody has seen get their gain
from twenty scenes and their place from all, calibrated by the neurons of the training.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.metrics import normalised_correlation, predict_rows, scored_trials, told
from common.files import InputError, read_json
from common.tables import read_rows, write_rows
from demo.planted import peak_agreement, score
from demo.scenes import FIRST_CODE
from demo.synthetic import RECIPE, make_synthetic, teacher_hash
from inputs.ca_dataloader import CalciumDataset
from network.checkpoints import load_model
from network.models import STCNN
from runs.configuration import compose_settings
from runs.data import open_dataset
from runs.ln_baseline import score_baseline
from runs.new_neurons import MOST_STIMULI, Neuron, locate, refine
from runs.place_calibration import calibrate
from runs.story import read_items
from runs.training import sampler_of, train

HZ, PX, PREPAD, EPOCHS = 30, 51, 8, 8
NEURONS, NEW_NEURONS, SHIFT_DEG = 3, 1, 3.0  # per cell type; off centre by up to so much
PEAK = 1.0  # dF/F of the strongest stimulus of each type: a selective type answers few of them
HELD_OUT = f"300-{FIRST_CODE - 1}"  # all numbers below the scenes'
LEAST, CONTROL_LIMIT, PLACE_LIMIT_DEG = 0.9, 0.3, 0.5
TEACHER_SEED, STUDENT_SEED, NEW_SEED = 10, 100, 200  # added to the seed of the check


def check_student(
    out: Path,
    seed: int,
    *,
    teacher: Path | None = None,
    epochs: int = EPOCHS,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """Train a student and its control in ``out``, write the tables, and return the scores.

    What is complete in ``out`` is used again, where it was made with the same settings.

    Args:
        out: folder: teacher/, set/, new/, student/, control/, scores.csv, families.csv,
            new_neurons.csv.
        seed: of gains, places and noise, and with an offset of the student and its labels.
        teacher: run folder of three cell types at 30 Hz; None trains the demo's network.
        epochs: of the student and of the control.
        say: told what begins.

    Raises:
        InputError: no epoch, or ``out`` holds sets or runs of another seed, teacher or number of
            epochs.
    """
    if epochs < 1:
        raise InputError(f"--epochs {epochs}: expected at least 1")
    check_same_check(out, seed, teacher=teacher, epochs=epochs)
    if teacher is None:
        say("teacher: the demo's network")
        teacher = teacher_run(out, seed)
    sets = {"set": (seed, NEURONS), "new": (seed + NEW_SEED, NEW_NEURONS)}
    for name, (own_seed, neurons) in sets.items():
        if not (out / name / "truth.json").is_file():
            say(f"{name}: the teacher's calcium")
            make_synthetic(
                out / name, seed=own_seed, hz=HZ, px=PX, neurons=neurons, stimuli="scenes",
                teacher=teacher, shift_deg=SHIFT_DEG, peak=PEAK,
            )  # fmt: skip
    for name in ("student", "control"):
        if not (out / name / "scores.csv").is_file():
            say(f"{name}: training")
            settings = student_settings(out / "set", seed, epochs)
            settings["shuffle_labels"] = name == "control"
            train(settings, run_dir=out / name, score_training=False)
    say("LN models and new neurons")
    score_baseline(out / "student")
    families = [{"model": name, **row} for name in ("student", "control")
                for row in family_scores(out / name, out / "set")]  # fmt: skip
    found = new_neurons(out / "student", out / "new", out / "set")
    write_rows(out / "families.csv", families)
    write_rows(out / "new_neurons.csv", found)
    scores = scores_of(out, found)
    write_rows(out / "scores.csv", scores)
    return scores


def check_same_check(out: Path, seed: int, *, teacher: Path | None, epochs: int) -> None:
    """Refuse a folder whose sets or runs, finished or not, were made with other settings."""
    from_whom = "teacher" if teacher is None else Path(teacher).name
    wanted = {
        out / name / "truth.json": {"seed": own_seed, "recipe": RECIPE, "teacher": from_whom}
        for name, own_seed in (("set", seed), ("new", seed + NEW_SEED))
    }
    for name in ("student", "control"):
        asked = {"seed": seed + STUDENT_SEED, "n_epochs": epochs}
        wanted[out / name / "settings.json"] = asked
    for path, asked in wanted.items():
        if not path.is_file():
            continue
        record = read_json(path)
        record = record.get("settings", record)
        if teacher is not None and record.get("teacher_sha256"):
            # two teachers may have one name, and one teacher two: its content decides
            asked.pop("teacher")
            asked["teacher_sha256"] = teacher_hash(teacher)
        for key, value in asked.items():
            if record.get(key) != value:
                raise InputError(
                    f"{path}: made with {key} {record.get(key)}, asked is {value}; give another "
                    f"--out, or remove {path.parent}"
                )


def scores_of(out: Path, found: list[dict]) -> list[dict]:
    """Return the scores of a check with their targets, from the tables of its runs."""
    table = read_rows(out / "student" / "baseline.csv")
    table += [{**row, "model": "control"} for row in read_rows(out / "control" / "scores.csv")]
    reached = {
        name: {
            row["cell_type"]: float(row["normalised_correlation"] or "nan")
            for row in table if row["model"] == name
        }
        for name in ("network", "LN", "control")
    }  # fmt: skip
    word = "normalised correlation, held-out families"
    scores = []
    for kind, value in reached["network"].items():
        scores.append(score(f"{word}, {kind}", value, f">= {LEAST}", value >= LEAST))
    for kind, value in reached["LN"].items():
        scores.append(score(f"LN models: {word}, {kind}", value, "", None))
    for kind, value in reached["control"].items():
        # no target: all traces rise with their stimulus, whichever it is, and a control learns that
        scores.append(score(f"dealt labels: {word}, {kind}", value, "", None, control=True))
    for name, label in (("network", "student"), ("control", "dealt labels")):
        dealt = name == "control"
        for row in (row for row in table if row["model"] == name):
            value = float(row["normalised_r2"] or "nan")
            target, passed = (f"< {CONTROL_LIMIT}", value < CONTROL_LIMIT) if dealt else ("", None)
            words = f"{label}: normalised R2, held-out families, {row['cell_type']}"
            scores.append(score(words, value, target, passed, control=dealt))
    truth = read_json(out / "set" / "truth.json")
    for name, label in (("student", "student"), ("control", "dealt labels")):
        items, dealt = read_items(out / name), name == "control"
        for kind in truth["types"]:
            value = peak_agreement(items, truth, kind)
            words = f"{label}: agreement of planted and predicted peaks, {kind}"
            target, passed = (f"< {CONTROL_LIMIT}", value < CONTROL_LIMIT) if dealt else ("", None)
            scores.append(score(words, value, target, passed, control=dealt))
    worst = max(row["error_deg"] for row in found)
    target = f"<= {PLACE_LIMIT_DEG}"
    scores.append(score("new neurons: largest error of position", worst, target,
                        worst <= PLACE_LIMIT_DEG, unit="deg"))  # fmt: skip
    off = max(abs(row["gain_ratio"] - 1.0) for row in found)
    scores.append(score("new neurons: largest relative error of gain", off, "", None))
    return scores


def teacher_run(out: Path, seed: int) -> Path:
    """Return a trained teacher in ``out``: the demo's network on the demo's planted data."""
    data = out / "teacher_data"
    if not (out / "teacher" / "scores.csv").is_file():
        settings = _settings(["preset=demo"], data, seed + TEACHER_SEED)
        settings["dataset"]["make"]["seed"] = settings["seed"]
        make_synthetic(data, **settings["dataset"]["make"])
        train(settings, run_dir=out / "teacher", score_training=False)
    return out / "teacher"


def _settings(own: list[str], data: Path, seed: int) -> dict:
    places = [f"dataset.{key}={json.dumps(str(data / name))}"
              for key, name in (("ca_path", "ca_traces"), ("mov_path", "movies"))]  # fmt: skip
    return compose_settings([*own, *places, f"seed={seed}", "device=cpu"])


def student_settings(data: Path, seed: int, epochs: int) -> dict:
    """Return the settings of a student's training on the scenes of the set ``data``."""
    own = [
        "model=stcnn_small", "batch_size=4", "lr=0.004", "lr_warmup=80", "lr_decay=cosine",
        f"n_epochs={epochs}", "print_freq=1000000", f"val_stimuli=[{HELD_OUT}]",
        f"dataset.sampling_rate={HZ}", f"dataset.num_t_pts_prepad={PREPAD}",
        "prepad=settled", "dataset.make=null",
    ]  # fmt: skip
    return _settings(own, data, seed + STUDENT_SEED)


def family_scores(run: Path, data: Path) -> list[dict]:
    """Return the normalised correlation of a run for each held-out family and cell type."""
    families = read_json(data / "truth.json")["families"]
    dataset, model = _opened(run, data)
    groups = {}
    for row, item in enumerate(dataset.items):
        if item.barcode < FIRST_CODE:
            groups.setdefault((families[str(item.barcode)][0], item.cell_type), []).append(row)
    table = []
    for (family, kind), rows in sorted(groups.items()):
        curves = predict_rows(model, dataset, rows)
        value, power = _normalised(dataset, rows, curves)
        table.append(told({"family": family, "cell_type": kind, "items": len(rows),
                           "normalised_correlation": value, "recorded_sd": power}))  # fmt: skip
    return table


def _opened(run: Path, data: Path) -> tuple[CalciumDataset, STCNN]:
    """Return the set ``data`` as a run sees it, and the run's network."""
    settings = read_json(run / "settings.json")["settings"]
    settings["dataset"] |= {"ca_path": str(data / "ca_traces"), "mov_path": str(data / "movies")}
    model = load_model(run)
    dataset = open_dataset(settings)
    dataset.sample = sampler_of(model)
    return dataset, model


def _normalised(dataset, rows, curves):
    frames = [dataset.scored(dataset.items[row]) for row in rows]
    traces = [dataset.trace(dataset.items[row]).numpy()[f]
              for row, f in zip(rows, frames, strict=True)]  # fmt: skip
    trials = [scored_trials(dataset, dataset.items[row]) for row in rows]
    own = [curve[f] for curve, f in zip(curves, frames, strict=True)]
    return normalised_correlation(traces, own, trials), float(np.concatenate(traces).std())


def new_neurons(run: Path, data: Path, trained: Path) -> list[dict]:
    """Return where a run's network places the neurons of the set ``data``, unseen by it.

    Gain and a first place from the first twenty scenes (``error_20_deg``), the place then from all
    scenes (``error_raw_deg``), less what the neurons of the set ``trained`` are off by, whose
    places the network was told (``error_deg``). ``gain_ratio`` is 1 by the factor that brings the
    calcium predicted for the held-out families, with that gain, nearest to the recorded.
    """
    calibration = calibrate(*_scenes_of(run, trained)[:3])
    model, dataset, scenes, held_out = _scenes_of(run, data)
    truth = read_json(data / "truth.json")["types"]
    table = []
    for (kind, uid), rows in scenes.items():
        first = locate(model, dataset, rows[:MOST_STIMULI])
        raw = refine(model, dataset, rows, first.place)
        azimuth, elevation = np.array(raw.place) - calibration.off_at(kind, raw.place)
        planted = truth[kind]["neurons"][str(uid)]
        place = np.rint([planted["azi_shift"], planted["ele_shift"]])  # as its movies were moved
        error, error_raw, error_20 = (
            float(np.hypot(*(np.array(one) - place)))
            for one in ((azimuth, elevation), raw.place, first.place)
        )
        found = replace(raw, gain=first.gain, gain_sd=first.gain_sd, offset=first.offset)
        ratio, reached = _judged(model, dataset, held_out[kind, uid], found)
        told_of = vars(found) | {"azimuth_deg": azimuth, "elevation_deg": elevation,
                                 "chance": first.chance}  # fmt: skip
        table.append({"cell_type": kind, "uid": uid, "azimuth_planted": place[0],
                      "elevation_planted": place[1], **told_of, "error_deg": error,
                      "error_raw_deg": error_raw, "error_20_deg": error_20,
                      "gain_ratio": ratio, "normalised_correlation": reached})  # fmt: skip
    return table


def _scenes_of(run, data):
    """Return model, set, and {(type, uid): items} of the scenes and of the held-out families."""
    dataset, model = _opened(run, data)
    scenes, held_out = {}, {}
    for row in sorted(range(len(dataset)), key=lambda row: dataset.items[row].barcode):
        item = dataset.items[row]
        part = scenes if item.barcode >= FIRST_CODE else held_out
        part.setdefault((item.cell_type, item.uid), []).append(row)
    return model, dataset, scenes, held_out


def _judged(model, dataset, rows, found):
    """Return (gain_ratio, normalised correlation) of a placed neuron on the items ``rows``."""
    neuron = Neuron(model, dataset, rows)
    curves = [found.offset + found.gain * curve for curve in neuron.activity(found.place)]
    trials = [scored_trials(dataset, item) for item in neuron.items]
    a, b = np.concatenate(curves), np.concatenate(neuron.recorded)
    spread = float(((a - a.mean()) ** 2).sum())
    slope = float(((a - a.mean()) * (b - b.mean())).sum()) / spread if spread > 0 else np.nan
    return 1.0 / slope if slope else np.nan, normalised_correlation(neuron.recorded, curves, trials)
