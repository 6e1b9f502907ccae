"""From settings to a run: device, folders, split, network, training, and what a run may continue.

Source: specification sections 7 and 8.1.
"""

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import tensorflow as tf

from analysis.evaluation import learnt_from
from analysis.evidence import learn_usual
from common.device import describe_device, quiet_start, why_no_gpu
from common.files import RESULTS_DIR, InputError, read_json, write_settings
from common.locks import clear_folder, hold, visible
from inputs.dataloader_sleep import (
    Epochs,
    MouseSplit,
    Split,
    View,
    read_mouse_split,
    report_counts,
    split_records,
)
from inputs.hypnogram import hypnograms_of
from inputs.shards import find_records, read_manifest
from inputs.states import STATE_NAMES
from network.checkpoints import load_own, read_config, save_config
from network.model_attention_bilstm import Architecture, AttentionBiLSTM, build
from runs.context import train_context
from runs.split_record import check_same_epochs, write_split
from runs.train import STATE_FILE, Training, fit
from runs.trained import load_network, storage_rules
from settings import Settings

log = logging.getLogger(__name__)
LIBRARIES = ("tensorflow", "keras", "focal-loss", "numpy", "scipy", "scikit-learn", "h5py")
# Settings that decide which weights are best and how they are learnt: one run, one value of each.
TRAINING_KEYS = ("loss", "gamma", "lr_init", "batch_size", "limit_val", "average")

# Of an architecture, what its weights do not depend on.
HOW_TO_TRAIN = ("dropout", "mixed_precision", "grad_checkpoint", "kernel_init")


def choose_device(wanted: str) -> str:
    """Hide the GPUs when the CPU is asked for, and return "cpu" or "gpu"."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_start():
        gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        raise InputError(
            f"--device gpu: TensorFlow sees no GPU ({why_no_gpu('tensorflow')}); use --device cpu"
        )
    if wanted == "cpu" or not gpus:
        tf.config.set_visible_devices([], "GPU")
        return "cpu"
    for gpu in gpus:  # takes memory as it needs it, so that two pipelines fit on one card
        tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu"


def say_device(wanted: str) -> str:
    """Choose the device, print the line that says so, and return "cpu" or "gpu"."""
    device = choose_device(wanted)
    print(describe_device("tensorflow", device, asked=wanted != "auto"), flush=True)
    return device


def strategy_scope() -> contextlib.AbstractContextManager:
    """Return the scope in which to build the network: MirroredStrategy with several GPUs."""
    if len(tf.config.get_visible_devices("GPU")) > 1:
        strategy = tf.distribute.MirroredStrategy()
        log.info("MirroredStrategy over %d GPUs", strategy.num_replicas_in_sync)
        return strategy.scope()
    return contextlib.nullcontext()


def check_replicas(batch_size: int, count: int, strategy: tf.distribute.Strategy) -> None:
    """Refuse a batch of ``count`` training epochs that the replicas cannot share evenly."""
    replicas = strategy.num_replicas_in_sync
    batch = min(batch_size, count)
    if batch % replicas:
        raise InputError(
            f"batch_size is {batch}: {replicas} GPUs train together and each takes an equal part; "
            f"expected a multiple of {replicas}"
        )


def run_folder(settings: Settings) -> Path:
    """Return the folder of the run."""
    name = settings.run or settings.model_name
    if not name:
        parts = (settings.split, settings.loss, f"u{settings.num_rnn_units}")
        name = "_".join((*parts, f"{settings.num_classes}c", f"seed{settings.seed}"))
    return Path(settings.model_savedir) if settings.model_savedir else RESULTS_DIR / name


def data_folder(settings: Settings) -> Path:
    """Return the data folder, or say how to get data."""
    if not settings.data_path:
        raise InputError(
            "data_path is not given: expected a folder with tfrecords. Convert recordings with "
            "create_tfrecords.py, make synthetic ones with make_synthetic.py, or run main.py --demo"
        )
    return Path(settings.data_path)


def view_of(settings: Settings) -> View:
    """Return what the network sees of an epoch."""
    return View(
        settings.num_frames,
        settings.num_classes,
        settings.hemisphere if settings.hemispheric else None,
    )


def architecture_of(settings: Settings, shape: tuple[int, int, int]) -> Architecture:
    """Return the architecture of the settings for inputs of ``shape`` (F, H, W)."""
    names = {field.name for field in fields(Architecture)} - {"num_frames", "height", "width"}
    chosen = {name: settings.values[name] for name in names}
    return Architecture(num_frames=shape[0], height=shape[1], width=shape[2], **chosen)


def training_of(settings: Settings) -> Training:
    """Return the training settings."""
    return Training(**{field.name: settings.values[field.name] for field in fields(Training)})


def load_split(settings: Settings, folder: Path) -> tuple[Split, MouseSplit]:
    """Return (split, mice) of the settings over the records in ``folder``."""
    records = find_records(folder)
    mice = read_mouse_split(
        Path(settings.split_file),
        test_mouse=[m for m in settings.test_mouse.split(",") if m],
        allow_leak=settings.allow_leak,
        leave_out=settings.leave_out,
    )
    return split_records(records, mice, settings.split, seed=settings.seed, where=folder), mice


def claim_run(run_dir: Path, settings: Settings) -> None:
    """Refuse to mix two runs; --fresh removes the one that is there."""
    if settings.fresh and settings.model_continue:
        raise InputError("fresh removes the run that model_continue goes on with: give one of them")
    hold(run_dir)
    if visible(run_dir) and settings.fresh:
        if not (run_dir / "settings.json").is_file():
            raise InputError(f"{run_dir}: holds files of something else; give another --run")
        clear_folder(run_dir)
    elif any(run_dir.rglob("training_state.h5")) and not settings.model_continue:
        raise InputError(
            f"{run_dir}: holds a run already; give --model_continue, --fresh or another --run"
        )


def data_record(settings: Settings, mice: MouseSplit, folder: Path) -> dict:
    """Return what config.json keeps about the data, to repeat the split and to check other data."""
    return {
        "hemisphere": settings.hemisphere if settings.hemispheric else None,
        "split": settings.split,
        "seed": settings.seed,
        "mice": {"train": mice.train, "val": mice.val, "test": mice.test},
        "limit_train": settings.limit_train,
        "storage": storage_rules(read_manifest(folder)),
    }


def settings_of_run(run_dir: Path) -> dict:
    """Return the settings in the `settings.json` of a run."""
    path = run_dir / "settings.json"
    remedy = "train anew in another --run"
    settings = read_json(path, remedy=remedy).get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"{path}: no readable settings of a run; {remedy}")
    return settings


def differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield (name, old value, new value) of what differs; nested names are joined by dots."""
    for key, value in new.items():
        held = old.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            yield from differences(held, value, f"{prefix}{key}.")
        elif held != value:
            yield f"{prefix}{key}", held, value


def goes_on(run_dir: Path, settings: Settings) -> bool:
    """Say whether a training goes on, or begins: also one that ended before its first epoch did.

    Raises:
        InputError: --model_continue without a run, or with one that lost its training state.
    """
    if not settings.model_continue or (run_dir / STATE_FILE).is_file():
        return settings.model_continue
    begun = (run_dir / "settings.json").is_file()
    if begun and not any(run_dir.glob("*.weights.h5")):
        return False
    raise InputError(
        f"{run_dir / STATE_FILE}: no such file; there is nothing to continue, leave "
        "--model_continue out"
    )


def check_resume(run_dir: Path, settings: Settings, architecture: Architecture, data: dict) -> None:
    """Refuse to go on with a run of another network, other data or other training settings."""
    config, record = run_dir / "config.json", run_dir / "settings.json"
    network, trained_on = read_config(config)
    trained_on["storage"] = storage_rules(trained_on.get("storage", {}))
    own = {key: settings.values[key] for key in TRAINING_KEYS}
    for path, old, new in (
        (config, network, architecture.to_json()),
        (config, trained_on, data),
        (record, {"average": 0.0, **settings_of_run(run_dir)}, own),  # older runs: no average
    ):
        # Tuples become lists, as they are in the file.
        for name, held, value in differences(old, json.loads(json.dumps(new))):
            raise InputError(
                f"{path}: {name} of the run is {held}, now it is {value}: give the old one to "
                "continue, or train anew in another --run"
            )


def prepare(
    settings: Settings, split: Split, mice: MouseSplit, folder: Path, run_dir: Path
) -> tuple[Epochs, Epochs, Architecture, dict]:
    """Check all that can be wrong with a training before anything is written or removed.

    Returns:
        training epochs, validation epochs, architecture, data record of config.json.
    """
    view = view_of(settings)
    train = Epochs(split.train[: settings.limit_train or None], view)
    val = Epochs(split.val[: settings.limit_val or None], view)
    for name, epochs in (("training", train), ("validation", val)):
        if not len(epochs):
            raise InputError(f"{folder}: no epoch is left for {name} ({split.text})")
    architecture = architecture_of(settings, train.shape)
    data = data_record(settings, mice, folder)
    if goes_on(run_dir, settings):
        check_resume(run_dir, settings, architecture, data)
        check_same_epochs(run_dir, split)
    starting_weights(settings, architecture, folder, run_dir)
    return train, val, architecture, data


def starting_weights(
    settings: Settings, architecture: Architecture, folder: Path, run_dir: Path
) -> tuple[list, set]:
    """Return the weights that a training starts from, those that --weights names by a path, and the
    names of the epochs that they are trained on, as far as known. Both are empty without.

    Raises:
        InputError: they are of a network of another architecture, or --fresh would remove them.
    """
    if settings.weights in ("best", "last") or goes_on(run_dir, settings):
        return [], set()
    path = Path(settings.weights)
    if settings.fresh and run_dir.resolve() in path.resolve().parents:
        raise InputError(
            f"{path}: lies in the run that --fresh removes; give another --run, or move it"
        )
    given = settings.given - set(HOW_TO_TRAIN)
    held, data = load_network(Settings(settings.values, given), run_dir, folder)
    other = held.architecture.to_json()
    for name, value in architecture.to_json().items():
        if name not in HOW_TO_TRAIN and other[name] != value:
            raise InputError(
                f"{path}: {name} of its network is {other[name]}, here it is {value}: give the "
                "same settings and data, or leave --weights out"
            )
    names = (data.get("stored_split") or {}).get("names", {})
    return held.model.get_weights(), {*names.get("train", []), *names.get("val", [])}


def fit_split(
    settings: Settings, split: Split, mice: MouseSplit, folder: Path, run_dir: Path
) -> tuple[AttentionBiLSTM, list[dict]]:
    """Train on a split into ``run_dir``; return the network, as it is last, and the history."""
    train, val, architecture, data = prepare(settings, split, mice, folder, run_dir)
    start, trained_on = starting_weights(settings, architecture, folder, run_dir)
    if seen := trained_on & {record.name for record in split.test}:
        log.warning(
            "warning: %s: %d of the epochs to be tested trained these weights, such as %s; the "
            "score is not that of new data",
            settings.weights,
            len(seen),
            min(seen),
        )
    resume = goes_on(run_dir, settings)
    for name, epochs in (("training", train), ("validation", val)):
        report_counts(name, epochs, STATE_NAMES[settings.num_classes])
    records = [*split.train, *split.val, *split.test]
    axes = hypnograms_of(records, [record.label for record in records])
    for axis in axes.values():
        log.info("%s", axis.describe())
    inputs = [
        path for path in (Path(settings.split_file), folder / "dataset.json") if path.is_file()
    ]
    if settings.model_continue and not resume:
        log.info("%s: no epoch is complete; the training starts from the beginning", run_dir)
    recordings = {mouse: axis.record() for mouse, axis in axes.items()}
    # Whether a call begins a run or goes on with it is no property of the run.
    kept = {**settings.values, "model_continue": False, "fresh": False, "recordings": recordings}
    write_settings(run_dir, kept, inputs=inputs, libraries=LIBRARIES)
    transitions, shares = learnt_from(train)
    labels = {"transitions": transitions.tolist(), "shares": shares.tolist()}
    write_split(run_dir, split)
    usual = learn_usual(train)
    more = {"labels": labels, "usual": usual and usual.to_json()}
    save_config(run_dir, architecture, {**data, **more})
    with strategy_scope():
        check_replicas(settings.batch_size, len(train), tf.distribute.get_strategy())
        network = build(architecture, seed=settings.seed)
        log.info("network: %d parameters", network.model.count_params())
        if start:
            network.model.set_weights(start)
            log.info("the training starts from the weights in %s", settings.weights)
        history = fit(
            network,
            train,
            val,
            training_of(settings),
            run_dir,
            resume=resume,
            logs_dir=Path(settings.logs_dir) if settings.logs_dir else None,
        )
    if settings.context:
        best, _ = load_own(run_dir / "best.weights.h5")
        train_context(best, train, val, settings, run_dir)
    return network, history


def seeded(settings: Settings, run_dir: Path) -> Settings:
    """Return the settings with a seed: a negative one is drawn, or taken from the run to continue.

    A split that nobody can repeat would put training epochs into the test.
    """
    if settings.seed >= 0:
        return settings
    if settings.model_continue and (run_dir / "settings.json").is_file():
        seed, origin = settings_of_run(run_dir).get("seed", -1), "taken from the run"
        if seed < 0:
            raise InputError(
                f"{run_dir / 'settings.json'}: seed is {seed}, so the run cannot be repeated or "
                "continued: train anew in another --run"
            )
    else:
        seed, origin = secrets.randbelow(2**31), "drawn and stored"
    log.info("seed is %d: %d is %s", settings.seed, seed, origin)
    return Settings({**settings.values, "seed": seed}, settings.given)
