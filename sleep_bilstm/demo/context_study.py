"""What neighbouring epochs are worth on held-out synthetic mice with weak signals.

Called by context_study.py. A network that starts at snr 0.15 stays at chance, so it is trained on
clearer signals first. Mice for that have seeds of their own; the held-out mice come from
make_synthetic.py as it is.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.band_power import baselines
from analysis.evaluation import add_smoothed, prediction_table
from analysis.tables import write_table
from analysis.utils import class_metrics
from common.files import DATA_DIR, InputError, read_json, write_json
from common.locks import hold
from demo.synthetic import Plan, make_data_set
from inputs.dataloader_sleep import Epochs, View
from inputs.states import STATE_NAMES
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create
from network.checkpoints import load_own
from network.context import ContextNet, keys_of, vectors_of
from network.forward import states_of
from network.model_attention_bilstm import Architecture, build
from runs.context import cached, fit_context, load_context, ordered
from runs.setup import choose_device, fit_split, load_split
from settings import FRAME_CHUNK, Settings, resolve

DOWNSAMPLE = 4  # block average of 16 x 16 pixels: activity is alike in many pixels, noise is not
CONTEXT = 3  # epochs on each side
NETWORK = {"num_blocks": 3, "num_filters": 16, "num_rnn_units": 16, "kernel_init": "he_normal"}
TRAINING = {"batch_size": 16, "loss": "cross_entropy", "average": 0.98, "frame_chunk": 168}
NEXT_SEED = 1000  # apart are the seeds of the mice of two stages
REPEATS = 3  # of both parts of the cost, in turn
COST_EPOCHS = 64
FULL_SIZE = Architecture()  # the published network, 128 x 128 pixels
STATES = tuple(name.lower() for name in STATE_NAMES[3])


@dataclass(frozen=True)
class Stage:
    """One part of the training: how clear the signals are, and how it learns."""

    snr: float
    rem_boost: float
    num_epochs: int
    lr_init: float


@dataclass(frozen=True)
class Herd:
    """Number of mice for training, validation and test, and minutes of each."""

    train: int = 8
    val: int = 2
    test: int = 6
    minutes: float = 30.0


REM_BOOST = 0.8  # as in the demo: with the default REM is too rare to be learnt or counted
CLEAR = (
    Stage(snr=1.0, rem_boost=REM_BOOST, num_epochs=3, lr_init=3e-3),
    Stage(snr=0.4, rem_boost=REM_BOOST, num_epochs=2, lr_init=2e-3),
)  # trained on once
WEAK = Stage(snr=Plan.snr, rem_boost=REM_BOOST, num_epochs=5, lr_init=2e-3)  # for each seed


def stage_data(folder: Path, seed: int, stage: Stage, herd: Herd) -> Path:
    """Make the mice of a stage below ``folder``, as recordings and tfrecords; return the folder."""
    count = herd.train + herd.val + herd.test
    plan = Plan(
        mice=count,
        minutes=herd.minutes,
        size=16,
        seed=seed,
        snr=stage.snr,
        rem_boost=stage.rem_boost,
    )
    make_data_set(folder / "recordings", plan)
    create(
        folder / "recordings",
        folder / "10s",
        Storage(downsample=DOWNSAMPLE),
        Conversion(resume=True),
    )
    dates = [f"9901{mouse + 1:02d}" for mouse in range(count)]
    split = {
        "train": dates[: herd.train],
        "val": dates[herd.train : herd.train + herd.val],
        "test": dates[herd.train + herd.val :],
    }
    write_json(folder / "split.json", split)
    return folder


def stage_settings(folder: Path, stage: Stage, seed: int, weights: Path | None) -> Settings:
    """Return the settings of main.py with which a stage is trained, from ``weights`` if any."""
    values = {
        "mode": "train",
        "data_path": folder / "10s",
        "split": "mouse",
        "split_file": folder / "split.json",
        "device": "cpu",
        "seed": seed,
        "num_epochs": stage.num_epochs,
        "lr_init": stage.lr_init,
        "context": CONTEXT if stage == WEAK else 0,
        **NETWORK,
        **TRAINING,
        **({"weights": weights} if weights else {}),
    }
    return resolve([part for key, value in values.items() for part in (f"--{key}", str(value))])


def train_stage(
    stage: Stage, seed: int, herd: Herd, run_dir: Path, weights: Path | None
) -> Settings:
    """Train one stage into ``run_dir``, from ``weights`` if any; return its settings.

    A stage that was interrupted goes on; one that is complete is not repeated.
    """
    data = stage_data(DATA_DIR / run_dir.parent.name / run_dir.name, seed, stage, herd)
    settings = stage_settings(data, stage, seed, weights)
    if (run_dir / "training_state.h5").is_file():
        settings = Settings({**settings.values, "model_continue": True}, settings.given)
    split, mice = load_split(settings, data / "10s")
    fit_split(settings, split, mice, data / "10s", run_dir)
    return settings


def train_clear(run_dir: Path, herd: Herd) -> Path:
    """Train on clear signals, of mice that no seed has; return the weights."""
    weights = None
    for number, stage in enumerate(CLEAR, start=1):
        out, few = run_dir / f"clear{number}", Herd(herd.train, 1, 1, herd.minutes)
        train_stage(stage, NEXT_SEED * number, few, out, weights)
        weights = out / "best.weights.h5"
    return weights


def shuffled(keys: list[tuple], rng: np.random.Generator) -> list[tuple]:
    """Return the keys of epochs dealt out anew among the epochs of each mouse."""
    keys, result = list(keys), list(keys)
    for mouse in dict.fromkeys(key[:2] for key in keys):
        places = [i for i, key in enumerate(keys) if key[:2] == mouse]
        for place, other in zip(places, rng.permutation(places), strict=True):
            result[place] = keys[other]
    return result


def states_by_source(settings: Settings, run_dir: Path) -> Iterator[tuple[str, np.ndarray, Epochs]]:
    """Yield (where states come from, states (N,), the held-out epochs)."""
    folder = Path(settings.data_path)
    split, _ = load_split(settings, folder)
    network, _ = load_own(run_dir / "best.weights.h5")
    view = View(network.architecture.num_frames, network.architecture.num_classes)
    sets = [ordered(Epochs(part, view)) for part in (split.train, split.val, split.test)]
    train, val, test = sets
    outputs = [cached(network, one, settings) for one in sets]
    vectors, keys = [vectors_of(one) for one in outputs], [keys_of(one.records) for one in sets]
    single = outputs[2]["probs"]
    table = prediction_table(test, single)
    yield "single epochs", states_of(single), test
    yield "single epochs, HMM", add_smoothed(table, "hmm", train)["smoothed"].to_numpy(), test
    net = load_context(run_dir)
    yield "context", states_of(net.probabilities(vectors[2], keys[2])), test
    rng = np.random.default_rng([settings.seed, CONTEXT])
    mixed = [shuffled(own, rng) for own in keys]
    labels = train.labels, val.labels
    control, _ = fit_context(
        tuple(vectors[:2]), tuple(mixed[:2]), labels, CONTEXT, 3, seed=settings.seed
    )
    found = control.probabilities(vectors[2], mixed[2])
    yield "context, epochs in shuffled order (control)", states_of(found), test
    band_power = baselines(train, test, (0, CONTEXT))
    for name, states in zip(("alone", f"+-{CONTEXT} epochs"), band_power, strict=True):
        yield f"band power, {name}", states, test


def study_seed(seed: int, run_dir: Path, herd: Herd, weights: Path) -> list[dict]:
    """Train from ``weights`` and test one seed; return one row per source of states.

    A seed whose rows are there is not repeated.
    """
    rows_file = run_dir / "rows.json"
    if rows_file.is_file():
        return read_json(rows_file, kind=list, remedy="remove it to test this seed again")
    settings, rows = train_stage(WEAK, seed, herd, run_dir, weights), []
    for source, states, test in states_by_source(settings, run_dir):
        own = class_metrics(test.labels, states)
        recalls = zip(STATES, own["recall"], strict=True)
        rows.append(
            {
                "seed": seed,
                "states_from": source,
                "kappa": own["kappa"],
                **{f"recall_{state}": recall for state, recall in recalls},
                "epochs": own["n"],
                "epochs_rem": own["support"][2],
            }
        )
    write_json(rows_file, rows)
    return rows


def record_of(herd: Herd) -> dict:
    """Return the settings that all rows of a study depend on."""
    return {
        "herd": asdict(herd),
        "stages": [asdict(stage) for stage in (*CLEAR, WEAK)],
        "context": CONTEXT,
        "downsample": DOWNSAMPLE,
        **NETWORK,
        **TRAINING,
    }


def cost_of(architecture: Architecture, epochs: int) -> dict:
    """Return the CPU time of a plain forward pass and what the second stage adds, in ms an epoch.

    Both are measured in turn, after their graphs are built; the medians are compared.
    """
    network = build(architecture, seed=0)
    a = network.architecture
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((epochs, a.num_frames, a.height, a.width), np.float32)
    vectors = vectors_of(network.infer(frames[:1], FRAME_CHUNK))
    net = ContextNet(CONTEXT, vectors.shape[1], a.num_classes)
    keys = [("990101", "S1", 1, epoch) for epoch in range(COST_EPOCHS)]
    vectors = np.repeat(vectors, COST_EPOCHS, axis=0)
    net.probabilities(vectors, keys)
    plain, more = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        network.infer(frames, FRAME_CHUNK)
        plain.append((time.process_time() - start) / epochs)
        start = time.process_time()
        net.probabilities(vectors, keys)
        more.append((time.process_time() - start) / COST_EPOCHS)
    first, second = float(np.median(plain)), float(np.median(more))
    return {
        "network": f"{a.height} x {a.width} pixels, {a.num_filters} filters, {a.num_blocks} blocks",
        "forward_ms": 1e3 * first,
        "second_stage_ms": 1e3 * second,
        "more_percent": 100 * second / first,
    }


def measure_cost(run_dir: Path) -> pd.DataFrame:
    """Measure the second stage beside the network of this study and the published; write cost.csv.

    Returns:
        one row per network, of cost_of.
    """
    small = Architecture(height=16 // DOWNSAMPLE, width=16 // DOWNSAMPLE, **NETWORK)
    table = pd.DataFrame([cost_of(small, COST_EPOCHS), cost_of(FULL_SIZE, 1)])
    write_table(table, run_dir / "cost.csv")
    return table


def run_study(seeds: list[int], run_dir: Path, herd: Herd) -> pd.DataFrame:
    """Study all seeds; write context.csv and mean.csv.

    Returns:
        the mean over the seeds per source of states.
    """
    if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= NEXT_SEED:
        raise InputError(f"seeds are {seeds}: expected each once, 0 to {NEXT_SEED - 1}")
    hold(run_dir)
    choose_device("cpu")
    logging.getLogger().setLevel(logging.ERROR)  # the line of every mouse of every stage
    held, about = run_dir / "about.json", json.loads(json.dumps(record_of(herd)))
    if not held.is_file():
        write_json(held, about)
    elif read_json(held, remedy=f"remove {run_dir} to study anew") != about:
        raise InputError(f"{held}: is of other settings; give another --run")
    weights, rows = train_clear(run_dir, herd), []
    for seed in seeds:
        rows += study_seed(seed, run_dir / f"seed{seed}", herd, weights)
        write_table(pd.DataFrame(rows), run_dir / "context.csv")
    table = pd.DataFrame(rows)
    numbers = table.drop(columns=["seed", "epochs", "epochs_rem"])
    mean = numbers.groupby("states_from", sort=False).mean().reset_index()
    write_table(mean, run_dir / "mean.csv")
    return mean
