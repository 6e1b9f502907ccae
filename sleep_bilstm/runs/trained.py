"""Load a trained network, and the epochs that fit it: same storage, same frame, right mice.

Source: specification sections 6.5 and 8.1.
"""

import logging
from dataclasses import fields
from pathlib import Path

from common.files import InputError
from inputs.dataloader_sleep import (
    Epochs,
    MouseSplit,
    Split,
    View,
    mouse_text,
    of_mice,
    read_mouse_split,
    split_records,
)
from inputs.names import animals_named
from inputs.shards import MANIFEST, find_records, in_time_order, read_manifest
from inputs.states import EPOCH_S
from inputs.storage import Storage
from network.checkpoints import find_tf2_prefix, load_own, load_tf2, read_config
from network.model_attention_bilstm import Architecture, AttentionBiLSTM
from runs.split_record import SETS, epochs_of_set, read_split
from settings import Settings

log = logging.getLogger(__name__)
# What must be the same in training and use; the last two count beyond 10 s only.
STORAGE_KEYS = ("seconds", "normalization", "downsample", "edge", "artifact_neighbours")
SIZE = 128  # rows and columns of the published network


def storage_rules(held: dict) -> dict:
    """Return the rules in a manifest or config.json by which epochs are comparable.

    A key that is absent means the default; without any there is nothing to compare.
    """
    if not held:
        return {}
    rules = {key: held.get(key, getattr(Storage, key)) for key in STORAGE_KEYS}
    if rules["seconds"] <= EPOCH_S:
        rules |= {key: getattr(Storage, key) for key in ("edge", "artifact_neighbours")}
    return rules


def check_storage(folder: Path, data: dict) -> None:
    """Refuse data that was prepared in another way than the training data."""
    held, trained = (storage_rules(d) for d in (read_manifest(folder), data.get("storage", {})))
    for key, value in trained.items():
        if key in held and held[key] != value:
            raise InputError(
                f"{folder / MANIFEST}: {key} is {held[key]}, the network is trained with {value}: "
                "create tfrecords with the same settings"
            )


def check_shape(network: AttentionBiLSTM, epochs: Epochs, folder: Path) -> None:
    """Refuse epochs of another frame size than the network takes."""
    a = network.architecture
    if epochs.shape != (a.num_frames, a.height, a.width):
        raise InputError(
            f"{folder}: an input is {epochs.shape} (frames, rows, columns); the network takes "
            f"{(a.num_frames, a.height, a.width)}: give data of the size it is trained on"
        )


def view_of_network(network: AttentionBiLSTM, data: dict) -> View:
    """Return what ``network`` sees of an epoch."""
    return View(
        network.architecture.num_frames, network.architecture.num_classes, data["hemisphere"]
    )


def load_network(settings: Settings, run_dir: Path, folder: Path) -> tuple[AttentionBiLSTM, dict]:
    """Load the network that --weights names, from ``run_dir`` or a path.

    Args:
        settings: of main.py.
        run_dir: folder of the run.
        folder: data; its manifest gives the frame of a published checkpoint without config.json.

    Returns:
        network, data settings stored with it (of a published checkpoint only its hemisphere).
    """
    named = settings.weights in ("best", "last")
    path = run_dir / f"{settings.weights}.weights.h5" if named else Path(settings.weights)
    prefix = None if named else find_tf2_prefix(path)
    if prefix is not None:
        return _load_published(settings, prefix, folder)
    names = {field.name for field in fields(Architecture)} & settings.given
    network, data = load_own(path, expected={name: settings.values[name] for name in names})
    hemisphere = settings.hemisphere if settings.hemispheric else None
    data = {"hemisphere": hemisphere, **data, "stored_split": read_split(path.parent)}
    if data["hemisphere"] != hemisphere and {"hemispheric", "hemisphere"} & settings.given:
        raise InputError(
            f"{path.parent / 'config.json'}: hemisphere is {data['hemisphere']}, {hemisphere} is "
            "asked for: leave --hemispheric and --hemisphere out"
        )
    return network, data


def _load_published(settings: Settings, prefix: Path, folder: Path):
    """Load a TensorFlow-2 checkpoint; its frames come from config.json unless the user gives them.

    Without config.json the frame is that of the manifest of ``folder``, or 128 x 128.
    """
    config = prefix.parent / "config.json"
    held, data = read_config(config) if config.is_file() else ({}, {})
    frame = held or read_manifest(folder)
    stored = data.get("hemisphere")
    height, width = frame.get("height", SIZE), frame.get("width", SIZE) * (2 if stored else 1)
    half = settings.hemispheric if "hemispheric" in settings.given else bool(stored)
    side = stored if stored and "hemisphere" not in settings.given else settings.hemisphere
    hemisphere = side if half else None
    if half:
        width //= 2
    frames = settings.num_frames
    if "num_frames" not in settings.given:
        frames = held.get("num_frames", frames)
    network = load_tf2(
        prefix,
        spatial_attention=settings.spatial_attention,
        config=config if held else None,
        frames=(frames, height, width),
    )
    log.info(
        "loaded %s: %d parameters, %d frames of %d x %d pixels, hemisphere %s",
        prefix,
        network.model.count_params(),
        frames,
        height,
        width,
        hemisphere or "both",
    )
    return network, {"hemisphere": hemisphere}


def test_sets(
    settings: Settings, folder: Path, network: AttentionBiLSTM, data: dict, *, subjectwise: bool
) -> tuple[Epochs, Epochs | None, str]:
    """Return (epochs to test, training epochs or None, sentence about the split)."""
    check_storage(folder, data)
    view = view_of_network(network, data)
    records = find_records(folder)
    chosen = [m for m in settings.test_mouse.split(",") if m]
    known = "mice" in data  # not of a published checkpoint
    if known and "split_file" in settings.given:
        log.warning(
            "split_file %s is not read: a network is tested by the split it is trained with; "
            "test_mouse chooses another mouse",
            settings.split_file,
        )
    if known:
        stored, kind, seed = data["mice"], data["split"], data["seed"]
        if chosen and not subjectwise and kind != "mouse":
            raise InputError(
                f"test_mouse {settings.test_mouse}: --mode test tests the test part of the {kind} "
                "split that the network is trained on; use --mode test_subjectwise for a mouse"
            )
        mice = MouseSplit(
            tuple(stored["train"]),
            tuple(stored["val"]),
            tuple(chosen or stored["test"]),
            settings.allow_leak,
        )
    else:
        mice = read_mouse_split(
            Path(settings.split_file), test_mouse=chosen, allow_leak=settings.allow_leak
        )
        kind, seed = "mouse", settings.seed
    named = animals_named(records, (*mice.train, *mice.val))
    stored = data.get("stored_split")
    if subjectwise or not known:
        test, train = of_mice(records, mice.test, folder), None
        trained = set().union(*named.values()) if named else set()
        rest = [r for r in records if (r.date, r.mouse) in trained]
        text = f"{mouse_text(rest, test)}; test mouse {', '.join(mice.test)}"
        both = {(r.date, r.mouse) for r in test} & trained
        if known and both and not settings.allow_leak:
            raise InputError(
                f"test mouse {', '.join(sorted('-'.join(a) for a in both))} is one the network is "
                "trained on: give --allow_leak"
            )
        # A folder may hold the test mouse alone: then there is nothing to fit a baseline on.
        if known and all(named.values()):
            if stored:
                train = epochs_of_set(stored, "train", records, folder)
            else:
                train = split_records(records, mice, kind, seed=seed, where=folder).train
    elif stored and not chosen:
        parts = {name: epochs_of_set(stored, name, records, folder) for name in SETS}
        split = Split(kind, **parts)
        text, test, train = split.text, split.test, split.train
    else:
        split = split_records(records, mice, kind, seed=seed, where=folder)
        text, test, train = split.text, split.test, split.train
    if not test:
        raise InputError(f"{folder}: the split names no test mouse: give --test_mouse")
    epochs = Epochs(in_time_order(test), view)
    check_shape(network, epochs, folder)
    return epochs, Epochs(train, view) if train else None, text
