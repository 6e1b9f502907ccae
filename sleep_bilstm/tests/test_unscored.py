"""Prediction without a look at scores, states only where there is evidence, settings from files."""

import json
import logging
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse
from sklearn.metrics import roc_auc_score

from analysis.evidence import flags_of, learn_usual, missing_share, quality_features
from common.files import InputError, write_json
from inputs.dataloader_sleep import Epochs, View
from inputs.mat_writer import write_recording
from inputs.preprocess import temporal_zscore, to_frames
from inputs.recordings import Recording, read_mask
from inputs.shards import find_records
from inputs.storage import Storage
from inputs.tfrecords import create
from main import main
from network.checkpoints import save_config, save_weights
from network.model_attention_bilstm import Architecture, build
from settings import resolve
from test_main import fails, use

NAME = "200128-L2-fc1-GSR_Ben.mat"


def write(folder, scores=None, *, epochs=4, name=NAME, nan=()):
    movie = np.random.default_rng(1).normal(size=(epochs, 168, 16, 16)).astype(np.float32)
    movie[list(nan)] = np.nan
    write_recording(folder / name, movie, np.ones((16, 16), bool), scores)
    return folder / name


def predictions(out):
    return pd.read_csv(out / "predict" / "predictions.csv")


def edit(path, function):
    with h5py.File(path, "r+") as file:
        function(file)


@pytest.fixture
def long_run(tmp_path):
    """A network for 20 s that is trained with zeros in the place of artifact neighbours."""
    shape = {"num_frames": 336, "height": 16, "width": 16}
    network = build(Architecture(**shape, num_filters=2, num_blocks=1, num_rnn_units=2), seed=0)
    storage = {"seconds": 20, "artifact_neighbours": "zeros"}
    save_config(tmp_path / "run", network.architecture, {"hemisphere": None, "storage": storage})
    save_weights(network, tmp_path / "run" / "best.weights.h5")
    return tmp_path / "run"


def test_one_score_changes_nothing(long_run, tmp_path):
    tables = []
    for number, scores in enumerate(([0, 1, 1, 3], [0, 2, 1, 3], None)):
        raw, out = tmp_path / f"raw{number}", tmp_path / f"out{number}"
        write(raw, scores)
        assert use(long_run, raw, "predict", "--result_savedir", str(out)) == 0
        tables.append(predictions(out))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


@pytest.mark.parametrize("kind", ["nan", "words", "too few"])
def test_scores_are_not_even_read(trained, tmp_path, kind):
    path = write(tmp_path / "raw", [0, 1, 1, np.nan] if kind == "nan" else None)
    if kind == "words":
        edit(path, lambda f: f.create_dataset("scoringindex_file", data=[ord(c) for c in "odd!"]))
    elif kind == "too few":
        edit(path, lambda f: f.create_dataset("scoringindex_file", data=[1.0]))
    assert use(trained, tmp_path / "raw", "predict", "--result_savedir", str(tmp_path)) == 0
    assert len(predictions(tmp_path)) == 4


def test_one_file_mask_and_pattern(trained, tmp_path, capsys):
    raw = tmp_path / "raw"
    path = write(raw)
    edit(path, lambda f: f.__delitem__("xform_mask"))
    scipy.io.savemat(tmp_path / "mask.mat", {"xform_isbrain": np.ones((16, 16))})
    flags = ["--mode", "predict", "--model_savedir", str(trained), "--data_path", str(path)]
    flags += ["--result_savedir", str(tmp_path / "out"), "--device", "cpu"]
    fails(capsys, flags, "give a mask with --mask FILE")
    assert main([*flags, "--mask", str(tmp_path / "mask.mat")]) == 0
    assert len(predictions(tmp_path / "out")) == 4
    write(raw, name="200128-L2-fc1-other.mat")
    flags[flags.index(str(path))] = str(raw)
    fails(capsys, flags, "has the same date, mouse and run as")
    assert main([*flags, "--pattern", "*-other.mat"]) == 0


def test_atlas_beside_tfrecords_is_no_recording(trained, recordings, tmp_path):
    create(recordings / "990104", tmp_path / "data", Storage())
    scipy.io.savemat(tmp_path / "data" / "AtlasandIsbrain.mat", {"parcelisbrain": np.ones((4, 4))})
    assert use(trained, tmp_path / "data", "predict", "--result_savedir", str(tmp_path)) == 0
    assert len(predictions(tmp_path)) == len(find_records(tmp_path / "data"))
    one = find_records(tmp_path / "data")[0].path
    assert use(trained, one, "predict", "--result_savedir", str(tmp_path)) == 0
    assert predictions(tmp_path)["run"].nunique() == 1


def test_files_of_an_earlier_mouse_go(trained, recordings, tmp_path):
    out = tmp_path / "predict"
    for mouse in ("990103", "990104"):
        assert use(trained, recordings / mouse, "predict", "--result_savedir", str(tmp_path)) == 0
    (out / "notes.txt").write_text("mine")
    assert {p.name.split("_")[0] for p in out.glob("9901*")} == {"990104"}
    table = predictions(tmp_path)
    assert set(table.columns) >= {"date", "tag", "run", "epoch", "time_s", "flag"}
    assert set(table["date"].astype(str)) == {"990104"}


def test_smoothing_knows_the_training_labels(trained, recordings, tmp_path):
    flags = ("--smooth", "hmm", "--result_savedir", str(tmp_path))
    assert use(trained, recordings / "990104", "predict", *flags) == 0
    assert "smoothed" in predictions(tmp_path)


def test_epoch_without_signal_has_no_state(trained, tmp_path):
    write(tmp_path / "raw", nan=(1,), epochs=3)
    for flags in ((), ("--keep_artifacts",)):
        out = ("--result_savedir", str(tmp_path), *flags)
        assert use(trained, tmp_path / "raw", "predict", *out) == 0
        table = predictions(tmp_path)
        assert table["flag"][1] == "100 % of the signal is missing"
        if flags:
            assert (table["pred"] >= 0).all()
        else:
            assert table["pred"][1] == -1
    held = scipy.io.loadmat(tmp_path / "predict" / "200128_1.4s.mat")
    assert held["y_preds"].shape == (1, 3)


def planted(signals, kind, rng):
    """Return raw signals (F, P) of an epoch with an artifact of ``kind``."""
    signals = signals.copy()
    start = rng.integers(len(signals) - 40)
    scale = signals.std()
    if kind == "burst":
        signals[start : start + 20] += 8 * scale * np.hanning(20)[:, None]
    elif kind == "held":
        signals[start : start + 12] = signals[start]
    elif kind == "black":
        signals[start : start + 12] = 0
    elif kind == "lost":
        signals[start : start + 12] = np.nan
    else:
        limit = np.quantile(signals, 0.9, axis=0)
        signals = np.minimum(signals, limit)
    return signals


def test_artifacts_stand_out(recordings, tfrecords):
    """Movement bursts, dropped frames (held, black, lost) and saturation, on a mouse not seen."""
    records = find_records(tfrecords)
    train = Epochs([r for r in records if r.date != "990104"], View(168))
    usual = learn_usual(train)
    rng, clean, marked = np.random.default_rng(0), [], {}
    for path in sorted((recordings / "990104").glob("*.mat")):
        with Recording(path) as recording:
            for epoch in np.flatnonzero(~recording.is_artifact):
                signals = recording.read(int(epoch))
                for kind in ("", "burst", "held", "black", "lost", "saturated"):
                    own = planted(signals, kind, rng) if kind else signals
                    frames = to_frames(temporal_zscore(own)[0], recording.mask)
                    features = quality_features(frames)
                    (marked.setdefault(kind, []) if kind else clean).append(features)
                    assert missing_share(frames, recording.mask) < 0.5
    usual_scores = usual.scores(np.stack(clean))[0]
    for kind, features in marked.items():
        scores = np.r_[usual_scores, usual.scores(np.stack(features))[0]]
        truth = np.repeat([0, 1], [len(clean), len(features)])
        assert roc_auc_score(truth, scores) >= 0.95, kind
        texts = flags_of(np.zeros(len(features)), np.stack(features), usual)[0]
        if kind != "burst":  # an awake mouse that moves shows bursts as well, on such clear signals
            assert np.mean([text != "" for text in texts]) > 0.8, kind
    texts = flags_of(np.zeros(len(clean)), np.stack(clean), usual)[0]
    assert np.mean([text != "" for text in texts]) < 0.1


def test_sparse_masks(tmp_path):
    mask = np.zeros((16, 16))
    mask[2:9, 3:12] = 1
    held = sparse.csc_matrix(mask)
    new = write(tmp_path, [0, 1, 1, 3])

    def fill(file):
        del file["xform_mask"]
        group = file.create_group("xform_mask")
        group.attrs["MATLAB_sparse"] = np.uint64(16)
        for key, values in (("data", held.data), ("ir", held.indices), ("jc", held.indptr)):
            group.create_dataset(key, data=values)

    edit(new, fill)
    old = tmp_path / "old" / NAME
    old.parent.mkdir()
    data = {"data": np.zeros((16, 16, 168, 2)), "xform_mask": held}
    scipy.io.savemat(old, {**data, "scoringindex_file": [0, 1]})
    for path in (new, old):
        with Recording(path) as recording:
            np.testing.assert_array_equal(recording.mask, mask > 0)
        np.testing.assert_array_equal(read_mask(path), mask)


def test_mask_file_says_what_it_holds(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"WL": np.ones((4, 4))})
    with pytest.raises(InputError, match="holds WL; expected one of xform_mask"):
        read_mask(tmp_path / "a.mat")
    with pytest.raises(InputError, match="no such file"):
        read_mask(tmp_path / "b.mat")
    write_recording(tmp_path / "c.mat", np.zeros((1, 168, 16, 16)), np.ones((16, 16), bool), None)
    whole = (tmp_path / "c.mat").read_bytes()
    assert read_mask(tmp_path / "c.mat").all()
    (tmp_path / "c.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"c\.mat: cannot be read .*truncated file: eof"):
        read_mask(tmp_path / "c.mat")


def test_yaml_values_are_what_they_look_like(tmp_path, capsys):
    path = tmp_path / "s.yml"
    path.write_text(
        "lr_init: 1e-4\ngamma: 2\nmixed_precision: off\nrun: 0123\nhemispheric: yes\n"
        "test_mouse: [200128, L2]\nnum_epochs: 7\ndata_path: ~\n"
    )
    settings = resolve(["--config", str(path)])
    assert (settings.lr_init, settings.gamma, settings.mixed_precision) == (1e-4, 2.0, "off")
    assert (settings.run, settings.hemispheric, settings.test_mouse) == ("0123", True, "200128,L2")
    assert (settings.num_epochs, settings.data_path) == (7, "")
    for text, said in (
        ("num_epochs: 7.5", "num_epochs is '7.5'; expected int"),
        ("hemispheric: 1", "hemispheric is '1'; expected bool"),
        ("lr_init: fast", "lr_init is 'fast'; expected float"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            resolve(["--config", str(path)])
    write_json(tmp_path / "s.json", {"test_mouse": 200128})
    assert resolve(["--config", str(tmp_path / "s.json")]).test_mouse == "200128"


def test_mouse_for_the_test_of_an_epoch_split_is_refused(trained, tfrecords, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    config = (run / "config.json").read_text().replace('"split": "mouse"', '"split": "epoch"')
    (run / "config.json").write_text(config)
    flags = ["--mode", "test", "--model_savedir", str(run), "--data_path", str(tfrecords)]
    flags += ["--test_mouse", "990104", "--result_savedir", str(tmp_path / "out")]
    fails(capsys, flags, "--mode test tests the test part of the epoch split")


def test_settings_of_a_training_keep_the_time_axes(trained, caplog):
    held = json.loads((trained / "settings.json").read_text())["settings"]["recordings"]
    assert set(held) == {"990101", "990102", "990103", "990104"}
    assert held["990101"]["epochs"] == 24
    with caplog.at_level(logging.INFO):
        config = json.loads((trained / "config.json").read_text())["data"]
    assert np.allclose(np.sum(config["labels"]["transitions"], axis=1), 1)
    assert config["usual"]["n"] > 30
