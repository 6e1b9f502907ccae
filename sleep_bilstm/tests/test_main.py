"""main.py as a user runs it: every mode, help, settings, faults."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from common.files import InputError, write_json
from inputs.mat_writer import write_recording
from inputs.storage import Storage
from inputs.tfrecords import create
from main import main
from network.checkpoints import find_tf2_prefix
from settings import build_parser, defaults, resolve

FOLDER = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
SCRIPTS = (
    "main",
    "create_tfrecords",
    "create_tfrecords_over_10s",
    "make_synthetic",
    "check_data",
    "plot_hypnogram",
    "plot_gradcam",
    "plot_scoring_length",
    "fragmented_sleep",
    "hypnogram",
    "visualize_attention_weights",
    "context_study",
    "epoch_length_study",
    "benchmark",
    "utils",
)
NO_TENSORFLOW = (
    "utils",
    "common.figures",
    "plot_hypnogram",
    "plot_gradcam",
    "plot_scoring_length",
    "fragmented_sleep",
    "visualize_attention_weights",
    "make_synthetic",
    "main",
    "settings",
    "analysis.atlas",
    "analysis.attention_figures",
    "analysis.bouts",
    "analysis.evaluation",
    "analysis.hypnogram_figures",
    "analysis.map_figures",
    "analysis.scoring_length",
    "analysis.smoothing",
    "analysis.utils",
    "demo.synthetic",
    "inputs.dataloader_sleep",
    "hypnogram",
    "inputs.data_check",
    "inputs.scoring_files",
    "inputs.preprocess",
    "inputs.recordings",
    "inputs.shards",
    "inputs.storage",
)


def fails(capsys, argv, said, function=main):
    with pytest.raises(SystemExit) as stop:
        function(argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def use(trained, tfrecords, mode, *flags):
    return main(
        ["--mode", mode, "--data_path", str(tfrecords), "--model_savedir", str(trained), *flags]
    )


def test_every_script_answers_help_without_tensorflow():
    code = (
        "import sys, runpy\n"
        "for name in sys.argv[1:]:\n"
        "    sys.argv = [name, '--help']\n"
        "    try:\n"
        "        runpy.run_module(name, run_name='__main__')\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code == 0, name\n"
        "    assert 'tensorflow' not in sys.modules, name\n"
    )
    command = [sys.executable, "-c", code, *SCRIPTS]
    environment = {**QUIET, "PYTHONPATH": str(FOLDER)}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.count("usage:") == len(SCRIPTS)


def test_imports_have_no_tensorflow_and_no_window():
    code = f"import sys\nfor name in {NO_TENSORFLOW}: __import__(name)\n"
    code += (
        "assert 'tensorflow' not in sys.modules\nassert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {**QUIET, "PYTHONPATH": str(FOLDER)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_globals_of_main_are_the_settings():
    """Every setting stands at the top of main.py, and a global that is changed there counts."""
    import main as door

    assert {name: getattr(door, name.upper()) for name in defaults()} == defaults()
    changed = {**vars(door), "NUM_EPOCHS": 7}
    assert resolve([], changed).num_epochs == 7
    assert resolve(["--num_epochs", "8"], changed).num_epochs == 8


def test_train_writes_what_a_run_holds(trained):
    for name in ("settings.json", "config.json", "log.csv", "best.weights.h5", "last.weights.h5"):
        assert (trained / name).is_file()
    assert (trained / "learning_curve.png").is_file()
    assert (trained / "ckpt_1.weights.h5").is_file()
    assert list((trained / "logs").iterdir())
    log = pd.read_csv(trained / "log.csv")
    assert np.isfinite(log[["loss", "val_loss"]]).all(axis=None)
    settings = json.loads((trained / "settings.json").read_text())
    assert {"settings", "libraries", "inputs", "git_commit"} <= settings.keys()
    assert set(settings["settings"]) == {*defaults(), "recordings"}


def test_second_run_is_not_mixed_in(trained, tiny_flags, capsys):
    flags = ["--mode", "train", *tiny_flags, "--model_savedir", str(trained)]
    fails(capsys, flags, "holds a run already; give --model_continue, --fresh or another --run")


def test_subjectwise_results(trained, tfrecords, tmp_path):
    flags = (
        "--result_savedir",
        str(tmp_path),
        "--smooth",
        "hmm",
        "--baseline",
        "--min_confidence",
        "0.5",
    )
    assert use(trained, tfrecords, "test_subjectwise", *flags) == 0
    out = tmp_path / "test_subjectwise"
    table = pd.read_csv(out / "990104_1.4s.csv")
    held = scipy.io.loadmat(out / "990104_1.4s.mat")
    assert held["y_preds"].shape == held["y_trues"].shape == (1, len(table))
    assert held["y_scores"].shape == (len(table), 3)
    np.testing.assert_allclose(table[["p_wake", "p_nrem", "p_rem"]].sum(axis=1), 1, atol=1e-5)
    assert table[["run", "epoch"]].apply(tuple, axis=1).is_monotonic_increasing
    assert {"uncertain", "smoothed", "entropy_bits"} <= set(table.columns)
    metrics = json.loads((out / "metrics.json").read_text())
    assert "mouse split" in metrics["split"]
    assert metrics["n"] == len(table)
    assert metrics["band_power_baseline"]["n"] == len(table)
    assert (out / "990104_1.4s_hypnogram.pdf").is_file()
    assert (out / "reliability.csv").is_file()


def test_maps_and_attention(trained, tfrecords, tmp_path):
    flags = ("--result_savedir", str(tmp_path), "--no-only_correct")
    for mode in ("gradcam", "occlusion", "attention_weights"):
        assert use(trained, tfrecords, mode, *flags) == 0
    for mode in ("gradcam", "occlusion"):
        counts = 0
        for state in range(3):
            held = scipy.io.loadmat(tmp_path / mode / "maps" / f"990104_avg_label{state}.mat")
            assert held["subject_avg_gradcam"].shape == (16, 16)
            assert held["example_data"].shape == (24, 16, 16)
            counts += held["n_epochs"].item()
            assert np.isfinite(held["subject_avg_gradcam"]).all() == bool(held["n_epochs"].item())
        front = json.loads((tmp_path / mode / "front_back.json").read_text())
        assert sum(front["mice"]["990104"]["n_epochs"].values()) == counts
        halves = pd.read_csv(tmp_path / mode / "front_back.csv")
        there = halves["front"].notna()
        assert halves.loc[there, "state"].nunique() == there.sum() >= 1
        assert (tmp_path / mode / f"{mode}.png").is_file()
    held = scipy.io.loadmat(tmp_path / "attention_weights" / "990104_attention_weights.mat")
    np.testing.assert_allclose(held["att_weights"].sum(axis=1), 1, atol=1e-5)
    assert counts == len(held["att_weights"])


def test_maps_of_one_state_by_another_method(trained, tfrecords, tmp_path):
    """The flags of the map arrive: one state, the differentiated value, the weights."""
    maps = {}
    for name, flags in (
        ("gradcam on logit", ["--gradcam_target", "logit"]),
        ("gradcam++ on logit", ["--gradcam_method", "gradcam++"]),
    ):
        out = tmp_path / str(len(maps))
        flags = [*flags, "--gradcam_label", "0", "--no-only_correct", "--result_savedir", str(out)]
        assert use(trained, tfrecords, "gradcam", *flags) == 0
        (path,) = (out / "gradcam" / "maps").glob("*.mat")
        held = scipy.io.loadmat(path)
        assert path.name == "990104_avg_label0.mat"
        assert held["method"] == [name]
        maps[name] = held["subject_avg_gradcam"]
        assert np.isfinite(maps[name]).all()
    assert not np.allclose(*maps.values(), atol=1e-6)


def write_atlas(path):
    """Write an atlas of 16 x 16 pixels: 20 mirrored pairs of parcels of one pixel a side."""
    left = np.zeros((16, 8), int)
    left.flat[40:60] = np.arange(1, 21)
    parcels = np.hstack([left, np.where(left > 0, left + 20, 0)[:, ::-1]])
    with h5py.File(path, "w") as file:
        file["AtlasSeeds"], file["parcelisbrain"] = parcels.T.astype(float), np.ones((16, 16))
        for i in range(40):
            file[f"#refs#/{i}"] = np.frombuffer(f"V{i % 20} L".encode("utf-16-le"), np.uint16)
        names = [file[f"#refs#/{i}"].ref for i in range(40)]
        file.create_dataset("parcelnames", data=names, dtype=h5py.ref_dtype)


def test_occlusion_of_parcels(trained, tfrecords, tmp_path, capsys):
    """The drop of a pair of parcels stands at both of them and nowhere else."""
    write_atlas(tmp_path / "atlas.mat")
    flags = ["--result_savedir", str(tmp_path), "--no-only_correct", "--occlusion_parcels"]
    assert use(trained, tfrecords, "occlusion", *flags, "--atlas", str(tmp_path / "atlas.mat")) == 0
    table = pd.read_csv(tmp_path / "occlusion" / "regions.csv").set_index("parcel")
    # A parcel outside the brain mask has no pixel and no value.
    assert table["pixels"].isin([0, 1]).all()
    assert table["pixels"].sum() > 20
    values = table[["Wakefulness", "NREM", "REM"]].dropna(axis=1, how="all").to_numpy()
    assert (np.isnan(values).all(axis=1) == (table["pixels"] == 0)).all()
    assert values.shape[1] >= 1
    np.testing.assert_allclose(values[:20], values[20:])
    figure = pd.read_csv(tmp_path / "occlusion" / "occlusion.csv")
    assert (figure[[f"column{c}" for c in range(16)]].iloc[:5] == 0).all(axis=None)
    flags = ["--data_path", str(tfrecords), "--model_savedir", str(trained), *flags]
    fails(capsys, ["--mode", "occlusion", *flags], "needs --atlas")


def test_predict_agrees_with_test(trained, tfrecords, recordings, tmp_path):
    """Recordings and their shards give the same states; artifacts are predicted as well."""
    unlabelled = tmp_path / "raw"
    shutil.copytree(recordings / "990104", unlabelled)
    for name, source in (("mat", unlabelled), ("shards", tfrecords)):
        assert use(trained, source, "predict", "--result_savedir", str(tmp_path / name)) == 0
    tables = [
        pd.read_csv(tmp_path / name / "predict" / "predictions.csv") for name in ("mat", "shards")
    ]
    both = tables[0].merge(tables[1], on=["mouse", "run", "epoch"])
    assert len(both) == (tables[1]["mouse"] == 990104).sum()
    np.testing.assert_allclose(both["p_rem_x"], both["p_rem_y"], atol=1e-5)
    assert "true" not in tables[0]


def test_recording_without_rem(trained, tmp_path):
    rng = np.random.default_rng(0)
    movie = rng.normal(size=(6, 168, 16, 16)).astype(np.float32)
    name = "200128-L2-fc1-GSR_Ben.mat"
    write_recording(tmp_path / "raw" / name, movie, np.ones((16, 16), bool), [0, 1, 0, 0, 1, 1])
    create(tmp_path / "raw", tmp_path / "data", Storage())
    flags = ("--test_mouse", "200128", "--result_savedir", str(tmp_path))
    for mode in ("test_subjectwise", "gradcam", "occlusion", "attention_weights"):
        assert use(trained, tmp_path / "data", mode, *flags) == 0
    metrics = json.loads((tmp_path / "test_subjectwise" / "metrics.json").read_text())
    assert metrics["recall"][2] is None
    assert np.array(metrics["confusion"]).shape == (3, 3)
    held = scipy.io.loadmat(tmp_path / "gradcam" / "maps" / "200128_avg_label2.mat")
    assert held["n_epochs"].item() == 0
    assert np.isnan(held["subject_avg_gradcam"]).all()


def test_two_classes_and_half_frames(tfrecords, tiny_flags, tmp_path):
    run = str(tmp_path / "run")
    flags = ["--num_classes", "2", "--hemispheric", "--hemisphere", "both-mirrored"]
    more = [*flags, "--split", "block", "--model_savedir", run, "--loss", "cross_entropy"]
    assert main(["--mode", "train", *tiny_flags, *more]) == 0
    for mode in ("test", "test_subjectwise", "gradcam", "attention_weights"):
        assert main(["--mode", mode, "--data_path", str(tfrecords), "--model_savedir", run]) == 0
    means = pd.read_csv(tmp_path / "run" / "attention_weights" / "990104_attention_means.csv")
    assert means.columns.tolist() == ["time_step", "Wakefulness", "Sleep"]
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert metrics["states"] == ["Wakefulness", "Sleep"]
    assert "block split" in metrics["split"]
    held = scipy.io.loadmat(tmp_path / "run" / "test_subjectwise" / "990104_1.4s.mat")
    assert held["y_scores"].shape[1] == 1
    assert (tmp_path / "run" / "gradcam" / "maps" / "990104_avg_hemis_label0.mat").is_file()


def test_folds(tfrecords, tiny_flags, tmp_path):
    flags = ["--folds", "2", "--model_savedir", str(tmp_path / "run")]
    assert main(["--mode", "train", *tiny_flags, *flags]) == 0
    table = pd.read_csv(tmp_path / "run" / "folds" / "predictions.csv")
    assert table["mouse"].nunique() == 4
    assert table.groupby("mouse")["fold"].nunique().eq(1).all()


def test_config_file(tmp_path, capsys):
    path = tmp_path / "settings.json"
    write_json(path, {"num_rnn_units": 32, "lr_init": 1, "hemispheric": True})
    settings = resolve(["--config", str(path), "--lr_init", "0.5"])
    assert (settings.num_rnn_units, settings.lr_init, settings.hemispheric) == (32, 0.5, True)
    path.with_suffix(".yml").write_text("loss: cross_entropy\n")
    assert resolve(["--config", str(path.with_suffix(".yml"))]).loss == "cross_entropy"
    for held, said in (
        ({"num_rnn_unit": 32}, "did you mean num_rnn_units"),
        ({"num_rnn_units": "32"}, "expected int"),
        ({"loss": "hinge"}, "expected one of"),
        ({"dropout": 3}, "expected 0 to 0.99"),
    ):
        write_json(path, held)
        with pytest.raises(InputError, match=said):
            resolve(["--config", str(path)])
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        resolve(["--config", str(path)])


def test_every_global_is_a_flag():
    flags = {option for action in build_parser()._actions for option in action.option_strings}
    assert {f"--{name}" for name in defaults()} <= flags
    assert resolve(["--demo"]).mode == "demo"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mode", "sleep"], "invalid choice"),
        (["--loss", "hinge"], "invalid choice"),
        (["--num_rnn_unts", "3"], "did you mean --num_rnn_units"),
        (["--batch_size", "0"], "batch_size is 0: expected 1 or more"),
        (["--num_classes", "2", "--loss", "poly"], "needs three classes"),
        ([], "data_path is not given"),
        (["--demo", "--seed", "-1"], "--seed -1: expected a whole number of 0 or more"),
        (["--full"], "--full belongs to --demo"),
        (["--run", "../elsewhere"], "--run ../elsewhere: expected a plain name"),
        (["--demo", "--num_classes", "2"], "num_classes is 2: the demo plants 3 states"),
        (["--demo", "--temporal_attention", "none"], "the demo shows its weights"),
    ],
)
def test_bad_flags(capsys, flags, said):
    fails(capsys, flags, said)


def test_bad_data(trained, tfrecords, tiny_flags, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    train = ["--mode", "train", *tiny_flags, "--model_savedir", str(tmp_path / "run")]
    fails(capsys, [*train, "--data_path", str(tmp_path / "none")], "no such folder")
    fails(capsys, [*train, "--data_path", str(tmp_path / "empty")], "holds no *.tfrecord")
    fails(capsys, [*train, "--num_frames", "169"], "holds 168 frames; num_frames is 169")
    assert not (tmp_path / "run").exists()
    test = ["--mode", "test", "--data_path", str(tfrecords)]
    fails(capsys, [*test, "--model_savedir", str(tmp_path)], "no such weights")
    fails(capsys, [*test, "--model_savedir", str(trained), "--num_filters", "8"], "8 is asked for")
    leak = ["--mode", "gradcam", "--data_path", str(tfrecords), "--test_mouse", "990101"]
    fails(capsys, [*leak, "--model_savedir", str(trained)], "is one the network is trained on")
    shutil.copytree(tfrecords, tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "dataset.json").read_text())
    write_json(tmp_path / "other" / "dataset.json", {**manifest, "normalization": "minmax"})
    test = [
        "--mode",
        "test",
        "--data_path",
        str(tmp_path / "other"),
        "--model_savedir",
        str(trained),
    ]
    fails(capsys, test, "normalization is minmax, the network is trained with temporal")


def test_index_of_a_checkpoint_alone(tfrecords, tmp_path, capsys):
    (tmp_path / "ckpt_24.index").write_bytes(b"x")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt_24"\n')
    test = ["--mode", "test_subjectwise", "--data_path", str(tfrecords)]
    fails(capsys, [*test, "--weights", str(tmp_path)], "ckpt_24.data-00000-of-00001: this file")
    assert find_tf2_prefix(tmp_path / "nothing") is None
    (tmp_path / "ckpt_24.data-00000-of-00001").write_bytes(b"x")
    fails(
        capsys,
        [*test, "--weights", str(tmp_path / "ckpt_24")],
        "no readable TensorFlow-2 checkpoint",
    )


def test_shell_script(trained, tfrecords, tmp_path):
    script = str(FOLDER / "train_tfrecords.sh")
    environment = {**QUIET, "data_path": str(tmp_path / "none"), "python": sys.executable}
    shown = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert "make_synthetic.py" in shown.stderr
    # What the script would start is run here: another interpreter would load TensorFlow again.
    environment.update(mode="test", data_path=str(tfrecords), python="echo")
    flags = ["--model_savedir", str(trained), "--result_savedir", str(tmp_path)]
    shown = subprocess.run(
        [script, *flags], env=environment, check=True, capture_output=True, text=True
    )
    path, *started = shown.stdout.split()
    assert path == str(FOLDER / "main.py")
    assert main(started) == 0
    assert (tmp_path / "test" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("mode", "flags"),
    [("demo", ["--seed", "3"]), ("train", ["--demo"]), ("train", ["--mode", "demo"])],
)
def test_shell_script_leaves_the_demo_its_preset(tmp_path, mode, flags):
    environment = {**QUIET, "python": "echo", "mode": mode, "data_path": str(tmp_path / "none")}
    command = [str(FOLDER / "train_tfrecords.sh"), *flags]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == [str(FOLDER / "main.py"), "--demo", *flags]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["test_subjectwise", "gradcam", "attention_weights", "occlusion", "predict"]
)
def test_shell_script_runs_every_mode(trained, tfrecords, tmp_path, mode):
    environment = {**QUIET, "python": sys.executable, "mode": mode, "data_path": str(tfrecords)}
    flags = ["--model_savedir", str(trained), "--result_savedir", str(tmp_path)]
    script = str(FOLDER / "train_tfrecords.sh")
    subprocess.run([script, *flags], env=environment, check=True, capture_output=True)
    assert list((tmp_path / mode).rglob("*.png"))


@pytest.mark.slow
def test_shell_script_trains(tiny_flags, tfrecords, tmp_path):
    environment = {**QUIET, "python": sys.executable, "data_path": str(tfrecords)}
    script, flags = str(FOLDER / "train_tfrecords.sh"), tiny_flags[2:]
    flags += ["--model_savedir", str(tmp_path)]
    subprocess.run([script, *flags], env=environment, check=True, capture_output=True)
    assert (tmp_path / "best.weights.h5").is_file()
