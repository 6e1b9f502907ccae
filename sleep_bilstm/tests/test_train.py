"""Training: exact resume after a kill, faults, replicas, splits."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import cohen_kappa_score

from common.files import InputError
from inputs.dataloader_sleep import (
    Epochs,
    View,
    blocks,
    fold_mice,
    read_mouse_split,
    report_counts,
    shuffle_order,
    split_records,
)
from inputs.feed import make_dataset
from inputs.shards import find_records, read_epoch
from inputs.states import STATE_NAMES
from main import main
from network.checkpoints import load_weights
from network.losses_metrics import make_loss
from network.model_attention_bilstm import Architecture, build
from runs.train import Training, chance_loss, compile_network, fit

FOLDER = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def arrays_of(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        record = json.loads(file.attrs["record"])
    return arrays, record


@pytest.fixture
def without_demo(tmp_path):
    """Copy of this folder without demo/: own data run without it."""
    left_out = shutil.ignore_patterns("tests", "demo", "__pycache__")
    return shutil.copytree(FOLDER, tmp_path / FOLDER.name, ignore=left_out)


def test_killed_training_resumes_to_the_same_weights(tiny_flags, without_demo, tmp_path):
    flags = ["--mode", "train", *tiny_flags, "--num_epochs", "4"]
    assert main([*flags, "--model_savedir", str(tmp_path / "whole")]) == 0
    cut = tmp_path / "cut"
    command = [sys.executable, str(without_demo / "main.py"), *flags, "--model_savedir", str(cut)]
    process = subprocess.Popen(
        command, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 300
    while (
        not (cut / "training_state.h5").is_file()
        and process.poll() is None
        and time.time() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (cut / "training_state.h5").is_file()
    done = len(arrays_of(cut / "training_state.h5")[1]["history"])
    assert 1 <= done <= 4
    assert main([*flags, "--model_savedir", str(cut), "--model_continue"]) == 0
    (first, one), (second, two) = (
        arrays_of(tmp_path / run / "training_state.h5") for run in ("whole", "cut")
    )
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)
    for row in (*one["history"], *two["history"]):
        row.pop("seconds")
    assert one == two
    log = pd.read_csv(cut / "log.csv")
    assert log["epoch"].tolist() == [1, 2, 3, 4]
    steps = log["steps"].to_numpy()
    assert (np.diff(steps) == steps[0]).all()


def test_averaged_weights_are_saved_and_training_goes_on_with_its_own(tfrecords, tmp_path):
    """The file holds the mean that decays per step, also of a training that was resumed."""
    epochs = Epochs(find_records(tfrecords)[:9], View(4))
    shape = {"num_frames": 4, "height": 16, "width": 16, "num_filters": 2, "num_blocks": 1}
    architecture = Architecture(**shape, num_rnn_units=2, dropout=0.0)
    plain, means = build(architecture, seed=0).model, None
    optimizer, loss = keras.optimizers.Adam(1e-2), make_loss("focal", 3, 2.0)
    for number in (1, 2):
        order = shuffle_order(9, 42, number)
        for frames, labels in make_dataset(epochs, order, 4, drop_remainder=True):
            with tf.GradientTape() as tape:
                value = loss(labels, plain(frames, training=True))
            slopes = tape.gradient(value, [v.value for v in plain.trainable_variables])
            optimizer.apply(slopes, plain.trainable_variables)
            now = [np.array(v) for v in plain.trainable_variables]
            means = [0.7 * a + 0.3 * v for a, v in zip(means or now, now, strict=True)]
    for passes in (1, 2):
        network = build(architecture, seed=0)
        training = Training(num_epochs=passes, lr_init=1e-2, average=0.7)
        history = fit(network, epochs, epochs, training, tmp_path, resume=passes == 2)
    again = build(architecture, seed=1)
    load_weights(again, tmp_path / "last.weights.h5")
    for held in (network, again):
        for value, wanted in zip(held.model.trainable_variables, means, strict=True):
            np.testing.assert_allclose(value, wanted, atol=1e-6)
    probs = again.infer(np.stack([epochs.read(i) for i in range(9)]))["probs"]
    assert history[-1]["val_loss"] == pytest.approx(float(loss(epochs.labels, probs)), abs=1e-6)


def test_nan_stops_training_and_keeps_the_last_good_weights(tiny_flags, trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = (run / "last.weights.h5").read_bytes()
    flags = ["--mode", "train", *tiny_flags, "--num_epochs", "3", "--model_continue"]
    with h5py.File(run / "training_state.h5", "r+") as file:
        file["model/0000"][...] = np.nan
    with pytest.raises(SystemExit) as stop:
        main([*flags, "--model_savedir", str(run)])
    assert stop.value.code == 2
    assert "the training loss is nan" in capsys.readouterr().err
    assert (run / "last.weights.h5").read_bytes() == before


def test_patience_stops(tiny_flags, tmp_path):
    """A network that learns nothing is best in its first epoch: one more is waited for."""
    flags = ["--num_epochs", "6", "--lr_init", "0", "--patience", "1", "--limit_train", "8"]
    assert main(["--mode", "train", *tiny_flags, *flags, "--model_savedir", str(tmp_path)]) == 0
    assert pd.read_csv(tmp_path / "log.csv")["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("loss", "classes"),
    [(loss, n) for n in (2, 3) for loss in ("focal", "cross_entropy")]
    + [("poly", 3), ("polyfocal", 3)],
)
def test_chance_loss_is_that_of_even_probabilities(loss, classes):
    probs = np.full((6, 1 if classes == 2 else 3), 1 / classes, np.float32)
    labels = np.arange(6) % classes
    target = labels[:, None] if classes == 2 else labels
    wanted = float(make_loss(loss, classes, 1.5)(target, probs))
    assert chance_loss(loss, classes, 1.5) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_hint_when_the_loss_stays_at_chance(tfrecords, tmp_path, caplog, classes):
    epochs = Epochs(find_records(tfrecords)[:4], View(4, classes))
    shape = {"num_frames": 4, "height": 16, "width": 16, "num_classes": classes}
    network = build(Architecture(**shape, num_filters=2, num_blocks=1, num_rnn_units=2), seed=0)
    network.head.get_layer("classes").kernel.assign(0 * network.head.get_layer("classes").kernel)
    with caplog.at_level(logging.WARNING):
        fit(network, epochs, epochs, Training(num_epochs=5, lr_init=0.0), tmp_path)
    said = [line for line in caplog.messages if line.startswith("hint")]
    assert said == [
        f"hint: the loss has stayed at its chance value {0.173 if classes == 2 else 0.488} for 5 "
        "epochs; try --kernel_init he_normal or a higher --lr_init"
    ]


def test_rare_state_is_named(tfrecords, caplog):
    records = [record for record in find_records(tfrecords) if record.label == 0]
    with caplog.at_level(logging.WARNING):
        report_counts("training", Epochs(records[:20], View(4)), STATE_NAMES[3])
    assert caplog.messages == [
        "warning: only 0 training epochs of NREM",
        "warning: only 0 training epochs of REM",
    ]


def test_two_replicas(two_devices):
    """Under MirroredStrategy every batch is counted once, kappa is that of all, weights of one."""
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(16, 6, 16, 16, 1)).astype(np.float32)
    labels = rng.integers(0, 3, 16).astype(np.int32)
    strategy = tf.distribute.MirroredStrategy(two_devices)
    assert strategy.num_replicas_in_sync == 2
    shape = {"num_frames": 6, "height": 16, "width": 16, "num_filters": 2, "num_blocks": 2}
    # No dropout: replicas draw masks for their shares, one device for the batch.
    architecture = Architecture(**shape, num_rnn_units=3, dropout=0.0)
    data = tf.data.Dataset.from_tensor_slices((frames, labels)).batch(4)
    trained = []
    for scope in (strategy.scope(), contextlib.nullcontext()):
        with scope:
            network = build(architecture, seed=0)
            optimizer = compile_network(network, Training(lr_init=1e-3))
        network.model.fit(data, epochs=1, verbose=0)
        trained.append(network)
        assert int(optimizer.iterations.numpy()) == 4
    for shared, alone in zip(*(one.model.trainable_variables for one in trained), strict=True):
        np.testing.assert_allclose(shared, alone, atol=1e-5, err_msg=alone.path)
    result = trained[0].model.evaluate(data, verbose=0, return_dict=True)
    predicted = trained[0].infer(frames[..., 0])["probs"].argmax(axis=1)
    assert result["kappa"] == pytest.approx(cohen_kappa_score(labels, predicted), abs=1e-6)


def test_dataset_keeps_the_given_order(tfrecords):
    epochs = Epochs(find_records(tfrecords), View(24))
    order = shuffle_order(len(epochs), 3, 1)
    assert sorted(order) == list(range(len(epochs)))
    assert order.tolist() != shuffle_order(len(epochs), 3, 2).tolist()
    batches = list(make_dataset(epochs, order, 5, workers=3))
    assert sum(len(labels) for _, labels in batches) == len(epochs)
    np.testing.assert_array_equal(np.concatenate([b for _, b in batches]), epochs.labels[order])
    np.testing.assert_array_equal(
        batches[0][0][1, ..., 0], read_epoch(epochs.records[order[1]])[:24]
    )


def test_hemispheres(tfrecords):
    records = find_records(tfrecords)[:3]
    stored = read_epoch(records[1])
    left, right = stored[:10, :, :8], stored[:10, :, 8:]
    for side, wanted in (
        ("left", [left]),
        ("right", [right]),
        ("both-mirrored", [left, right[..., ::-1]]),
    ):
        epochs = Epochs(records, View(10, hemisphere=side))
        assert epochs.shape == (10, 16, 8)
        assert len(epochs) == 3 * len(wanted)
        for offset, movie in enumerate(wanted):
            np.testing.assert_array_equal(epochs.read(len(wanted) + offset), movie)


def test_block_split_leaves_a_guard_epoch(tfrecords):
    records = find_records(tfrecords)
    train, val, test = blocks(records)
    for run in {(r.date, r.run) for r in records}:
        last = [max(r.kept for r in part if (r.date, r.run) == run) for part in (train, val)]
        first = [min(r.kept for r in part if (r.date, r.run) == run) for part in (val, test)]
        assert [b - a for a, b in zip(last, first, strict=True)] == [2, 2]


def test_mouse_split_shares_no_mouse(tfrecords):
    mice = read_mouse_split(tfrecords / "split.json")
    split = split_records(find_records(tfrecords), mice, "mouse", seed=1, where=tfrecords)
    dates = [{r.date for r in part} for part in (split.train, split.val, split.test)]
    assert dates == [{"990101", "990102"}, {"990103"}, {"990104"}]


def test_shipped_split_and_folds():
    mice = read_mouse_split(FOLDER / "mouse_split.json")
    assert len(mice.train) == 17
    assert mice.test == ("200128",)
    groups = fold_mice((*mice.train, *mice.test), 4)
    assert sorted(m for g in groups for m in g) == sorted((*mice.train, *mice.test))
    with pytest.raises(InputError, match="expected 2 to 18"):
        fold_mice((*mice.train, *mice.test), 19)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{broken", "no valid mouse split"),
        ('{"train": [1]}', "no valid mouse split"),
        ('{"train": [1, 2], "test": 2}', "test mouse 2 is also used for training"),
        ('{"train": [1, 2], "val": [2], "test": 3}', "mouse 2 is in train and in val"),
        ('{"train": [1.5], "test": 3}', "expected a mouse id"),
        ('{"train": ["990101", "777"], "test": "990104"}', "mouse 777 of the split has no epochs"),
    ],
)
def test_bad_splits(tfrecords, tmp_path, text, said):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        split_records(find_records(tfrecords), read_mouse_split(path), "epoch", seed=1, where=path)


def test_leak_can_be_allowed_or_left_out(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": [1, 2], "test": 3}')
    assert read_mouse_split(path, test_mouse=["2"], allow_leak=True).train == ("1", "2")
    mice = read_mouse_split(path, test_mouse=["2"], leave_out=True)
    assert (mice.train, mice.test) == (("1", "3"), ("2",))
