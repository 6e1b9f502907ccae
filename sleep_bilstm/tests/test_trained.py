"""A trained network meets data: what fits is read as in training, what does not is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

from common.files import write_json
from inputs.mat_writer import write_recording
from inputs.storage import Storage
from inputs.tfrecords import create
from main import main
from network.checkpoints import load_own, save_config, save_weights
from network.model_attention_bilstm import Architecture, build
from runs.trained import load_network
from settings import resolve
from test_main import fails, use

FIXTURE = Path(__file__).parent / "fixtures" / "checkpoint_tf2.npz"
PUBLISHED = {"num_rnn_units": 5, "num_classes": 3}


def write(folder, codes, *, size=16):
    movie = np.random.default_rng(1).normal(size=(len(codes), 168, size, size))
    mask = np.ones((size, size), bool)
    name = "200128-L2-fc1-GSR_Ben.mat"
    write_recording(folder / name, movie.astype(np.float32), mask, codes)
    return folder


def predictions(out):
    return pd.read_csv(out / "predict" / "predictions.csv")


def test_mode_test_writes_the_mat_of_every_mouse(trained, tfrecords, tmp_path):
    assert use(trained, tfrecords, "test", "--result_savedir", str(tmp_path)) == 0
    out = tmp_path / "test"
    table = pd.read_csv(out / "990104_1.4s.csv")
    held = scipy.io.loadmat(out / "990104_1.4s.mat")
    for key, column in (("y_trues", "true"), ("y_preds", "pred"), ("epoch", "epoch")):
        assert held[key].tolist() == [table[column].tolist()]
    assert held["y_scores"].shape == (len(table), 3)
    assert not list(out.glob("*hypnogram*"))


def test_another_split_file_is_named_as_not_read(trained, tfrecords, tmp_path, capsys):
    out, other = ["--result_savedir", str(tmp_path)], str(tmp_path / "other.json")
    assert use(trained, tfrecords, "test", *out) == 0
    assert "is not read" not in capsys.readouterr().out
    assert use(trained, tfrecords, "test", *out, "--split_file", other) == 0
    assert f"split_file {other} is not read" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["test_subjectwise", "gradcam", "predict"])
def test_frames_of_another_size_are_refused(trained, tmp_path, capsys, mode):
    create(write(tmp_path / "raw", [0, 1, 3], size=32), tmp_path / "data", Storage())
    flags = ["--data_path", str(tmp_path / "data"), "--model_savedir", str(trained)]
    flags += ["--test_mouse", "200128", "--result_savedir", str(tmp_path / "out")]
    said = "an input is (24, 32, 32) (frames, rows, columns); the network takes (24, 16, 16)"
    fails(capsys, ["--mode", mode, *flags], said)
    if mode == "predict":
        fails(capsys, ["--mode", mode, *flags, "--data_path", str(tmp_path / "raw")], said)
    assert not (tmp_path / "out").exists()


def test_predict_refuses_shards_of_another_normalisation(trained, tmp_path, capsys):
    create(write(tmp_path / "raw", [0, 1, 3]), tmp_path / "data", Storage(normalization="minmax"))
    flags = ["--data_path", str(tmp_path / "data"), "--model_savedir", str(trained)]
    flags += ["--result_savedir", str(tmp_path / "out")]
    said = "normalization is minmax, the network is trained with temporal"
    fails(capsys, ["--mode", "predict", *flags], said)
    assert not (tmp_path / "out").exists()


def test_half_frames_and_baseline_are_refused_before_work(trained, recordings, tmp_path, capsys):
    create(recordings / "990104", tmp_path / "data", Storage())
    flags = ["--data_path", str(tmp_path / "data"), "--model_savedir", str(trained)]
    flags = ["--mode", "test_subjectwise", *flags, "--result_savedir", str(tmp_path / "out")]
    fails(capsys, [*flags, "--hemispheric"], "hemisphere is None, left is asked for")
    fails(capsys, [*flags, "--baseline"], "baseline needs the training epochs")
    assert not (tmp_path / "out").exists()


def test_predict_keeps_the_edge_rules_of_training(tmp_path, capsys):
    """Recordings and shards give the same probabilities, also where a neighbour is missing."""
    how = Storage(seconds=20, edge="reflect", artifact_neighbours="zeros")
    raw, data, run = write(tmp_path / "raw", [0, 1, 1, 3]), tmp_path / "data", tmp_path / "run"
    create(raw, data, how)
    shape = {"num_frames": 336, "height": 16, "width": 16}
    network = build(Architecture(**shape, num_filters=2, num_blocks=1, num_rnn_units=2), seed=0)
    manifest = json.loads((data / "dataset.json").read_text())
    record = {"hemisphere": None, "storage": manifest}
    save_config(run, network.architecture, record)
    save_weights(network, run / "best.weights.h5")
    for name, source in (("shards", data), ("mat", raw)):
        flags = ["--data_path", str(source), "--result_savedir", str(tmp_path / name)]
        assert main(["--mode", "predict", "--model_savedir", str(run), *flags]) == 0
    both = predictions(tmp_path / "shards").merge(predictions(tmp_path / "mat"), on="epoch")
    assert both["epoch"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(both["p_wake_x"], both["p_wake_y"], atol=1e-6)
    # A manifest from before the keys means the defaults, which are others.
    for key in ("edge", "artifact_neighbours"):
        del manifest[key]
    write_json(data / "dataset.json", manifest)
    flags = ["--data_path", str(data), "--model_savedir", str(run)]
    fails(capsys, ["--mode", "predict", *flags], "edge is zeros, the network is trained with")


def test_predict_says_when_the_edge_rule_leaves_nothing(tmp_path, capsys):
    shape = {"num_frames": 336, "height": 16, "width": 16}
    network = build(Architecture(**shape, num_filters=2, num_blocks=1, num_rnn_units=2), seed=0)
    record = {"hemisphere": None, "storage": {"seconds": 20, "edge": "drop"}}
    save_config(tmp_path / "run", network.architecture, record)
    save_weights(network, tmp_path / "run" / "best.weights.h5")
    flags = ["--data_path", str(write(tmp_path / "raw", [0, 1]))]
    flags += ["--model_savedir", str(tmp_path / "run")]
    fails(capsys, ["--mode", "predict", *flags], "no epoch has both neighbours")


def test_predict_needs_no_scores(trained, tmp_path):
    """A recording without scoringindex_file is predicted; truth appears nowhere."""
    movie = np.random.default_rng(0).normal(size=(3, 168, 16, 16)).astype(np.float32)
    name = "200128-L2-fc1-GSR_Ben.mat"
    write_recording(tmp_path / "raw" / name, movie, np.ones((16, 16), bool), None)
    assert use(trained, tmp_path / "raw", "predict", "--result_savedir", str(tmp_path)) == 0
    assert predictions(tmp_path)["epoch"].tolist() == [0, 1, 2]
    held = scipy.io.loadmat(tmp_path / "predict" / "200128_1.4s.mat")
    assert "y_trues" not in held
    assert held["y_preds"].shape == (1, 3)
    assert (tmp_path / "predict" / "200128_1.4s_hypnogram.png").is_file()


@pytest.fixture
def published(tmp_path):
    """Folder with a TensorFlow-2 checkpoint of the published code and its config.json."""
    folder = tmp_path / "published"
    folder.mkdir()
    with np.load(FIXTURE, allow_pickle=False) as held:
        for key, name in (
            ("index", "ckpt_3.index"),
            ("data", "ckpt_3.data-00000-of-00001"),
            ("checkpoint", "checkpoint"),
        ):
            (folder / name).write_bytes(held[key].tobytes())
    config = {**PUBLISHED, "num_frames": 252, "image_shape": [252, 128, 64, 1]}
    write_json(folder / "config.json", config)
    return folder


@pytest.mark.parametrize(
    ("flags", "frames", "hemisphere"),
    [
        ([], (252, 128, 64), "left"),
        (["--hemisphere", "right"], (252, 128, 64), "right"),
        (["--num_frames", "84", "--no-hemispheric"], (84, 128, 128), None),
    ],
)
def test_published_frames_come_from_config(published, tmp_path, flags, frames, hemisphere):
    settings = resolve(["--weights", str(published), *flags])
    network, data = load_network(settings, tmp_path, tmp_path)
    a = network.architecture
    assert (a.num_frames, a.height, a.width) == frames
    assert data["hemisphere"] == hemisphere


def test_published_half_frames_are_predicted(published, tmp_path):
    """With config.json the frame is known; without, --hemispheric and the manifest give it."""
    config = {**PUBLISHED, "num_frames": 6, "image_shape": [6, 32, 16, 1]}
    write_json(published / "config.json", config)
    raw, data = write(tmp_path / "raw", [0, 3], size=32), tmp_path / "data"
    create(raw, data, Storage(seconds=1))
    weights = ["--mode", "predict", "--weights", str(published), "--device", "cpu"]
    one = ["--data_path", str(raw), "--result_savedir", str(tmp_path / "a")]
    assert main([*weights, *one]) == 0
    (published / "config.json").unlink()
    two = ["--data_path", str(data), "--result_savedir", str(tmp_path / "b")]
    assert main([*weights, *two, "--hemispheric", "--num_frames", "6"]) == 0
    first, second = predictions(tmp_path / "a"), predictions(tmp_path / "b")
    np.testing.assert_allclose(first["p_rem"], second["p_rem"], atol=1e-6)


def test_a_training_starts_from_the_weights_of_another(trained, tiny_flags, tmp_path, capsys):
    """At a rate of 0 they stay what they are."""
    start, run = trained / "best.weights.h5", tmp_path / "run"
    flags = ["--mode", "train", *tiny_flags, "--lr_init", "0", "--model_savedir", str(run)]
    split = {"train": ["990103", "990104"], "val": ["990102"], "test": ["990101"]}
    write_json(tmp_path / "other.json", split)
    flags += ["--split_file", str(tmp_path / "other.json")]
    assert main([*flags, "--weights", str(start), "--dropout", "0.5"]) == 0
    said = capsys.readouterr().out
    assert f"the training starts from the weights in {start}" in said
    assert f"warning: {start}: 22 of the epochs to be tested trained these weights" in said
    held = [load_own(folder / "best.weights.h5")[0] for folder in (trained, run)]
    for first, second in zip(*(n.model.get_weights() for n in held), strict=True):
        np.testing.assert_array_equal(first, second)
    fails(
        capsys,
        [*flags, "--weights", str(start), "--num_filters", "5", "--fresh"],
        "num_filters is 4, 5 is asked for",
    )
    fails(
        capsys,
        [*flags, "--weights", str(run / "best.weights.h5"), "--fresh"],
        "lies in the run that --fresh removes",
    )
    assert (run / "best.weights.h5").is_file()
