"""Two states: labels in any shape teach the same, and nothing joined is called NREM."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.io
import tensorflow as tf

from analysis.bouts import first_line, sleep_statistics
from fragmented_sleep import main as fragmented_sleep
from main import main
from network.losses_metrics import make_loss
from network.model_attention_bilstm import Architecture, build
from plot_hypnogram import main as plot_hypnogram
from runs.train import Training, compile_network
from test_main import use

PROBS = np.array([[0.9], [0.2], [0.6], [0.3]], np.float32)
LABELS = np.array([1, 0, 0, 1])


@pytest.mark.parametrize("loss", ["focal", "cross_entropy"])
def test_labels_in_both_shapes_give_one_loss(loss):
    right = np.where(LABELS[:, None] == 1, PROBS, 1 - PROBS)[:, 0]
    wanted = -np.log(right) * ((1 - right) ** 2 if loss == "focal" else 1)
    for target in (LABELS, LABELS[:, None], LABELS.astype(np.float32)):
        value = make_loss(loss, 2, 2.0)(target, PROBS)
        assert float(value) == pytest.approx(wanted.mean(), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_labels_that_do_not_fit_are_refused(classes):
    probs = np.full((4, 1 if classes == 2 else 3), 0.5, np.float32)
    for target in (np.zeros(3), np.zeros((4, 4)), np.zeros((4, 1, 1))):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            make_loss("focal", classes, 2.0)(target, probs)


@pytest.mark.parametrize("loss", ["focal", "cross_entropy"])
def test_two_states_that_differ_are_learnt(loss):
    """The labels come from tf.data as (B,); the network must end with each frame's own state."""
    labels = np.arange(16) % 2
    rng = np.random.default_rng(0)
    frames = rng.normal(0, 0.1, (16, 4, 16, 16, 1)).astype(np.float32)
    frames += labels[:, None, None, None, None]
    shape = {"num_frames": 4, "height": 16, "width": 16, "num_classes": 2}
    small = {"num_filters": 4, "num_blocks": 1, "num_rnn_units": 4, "dropout": 0.0}
    network = build(Architecture(**shape, **small), seed=0)
    compile_network(network, Training(loss=loss, lr_init=0.02))
    data = tf.data.Dataset.from_tensor_slices((frames, labels)).batch(8)
    network.model.fit(data, epochs=25, verbose=0)
    asleep = network.infer(frames[..., 0])["probs"][:, 0] > 0.5
    assert asleep.tolist() == (labels == 1).tolist()


def test_loss_can_be_stored():
    loss = make_loss("focal", 2, 1.5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert float(again(LABELS, PROBS)) == float(loss(LABELS, PROBS))


@pytest.fixture(scope="module")
def two_states(tiny_flags, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "run"
    flags = ["--mode", "train", *tiny_flags, "--num_classes", "2", "--model_savedir", str(out)]
    assert main(flags) == 0
    return out


def test_joined_sleep_has_a_hypnogram_and_its_name(two_states, tfrecords, tmp_path, capsys):
    assert use(two_states, tfrecords, "test_subjectwise", "--result_savedir", str(tmp_path)) == 0
    out, shown = tmp_path / "test_subjectwise", capsys.readouterr().out
    assert "Sleep" in shown
    assert "NREM" not in shown
    assert "human raters" not in shown
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["states"] == ["Wakefulness", "Sleep"]
    assert "kappa_human_raters_published" not in metrics
    drawn = pd.read_csv(out / "990104_1.4s_hypnogram.csv")
    assert drawn["Attention CNN-BiLSTM"].dropna().isin([0, 1]).all()
    assert int(scipy.io.loadmat(out / "990104_1.4s.mat")["num_classes"][0, 0]) == 2
    fragmented_sleep([str(out / "990104_1.4s.csv")])
    assert "mean bout: Wakefulness" in (shown := capsys.readouterr().out)
    assert "NREM" not in shown
    plot_hypnogram([str(out / "990104_1.4s.mat"), "--out", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").is_file()


def test_statistics_of_two_states():
    statistics = sleep_statistics(np.array([0, 0, 1, 1, 1]), num_classes=2)
    assert first_line(statistics) == "mean bout: Wakefulness 20 s, Sleep 30 s; transitions: 1"
    assert statistics["pair_counts"].tolist() == [[1, 1], [0, 2]]
