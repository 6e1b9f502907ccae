"""Training: one run in full, its files, resume, overfitting, devices, bad input."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import tiny_split
import train_twostream
from common import limits
from common.files import InputError
from little import FOLDER, assert_one_line, run_script
from published import STEP_OF_FOUR
from runs.run_folder import clear_left
from runs.twostream import balanced_weights, learning_rate


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train 2 epochs on a tiny split; return (root, folder of the run)."""
    root = tiny_split.write_split(tmp_path_factory.mktemp("split"))
    out = tmp_path_factory.mktemp("run")
    opened = []
    sys.addaudithook(lambda name, args: opened.append(str(args[0])) if name == "open" else None)
    assert train_twostream.main(tiny_split.train_flags(root, out)) == 0
    last_train = max(i for i, path in enumerate(opened) if "split0_train" in path)
    first_test = min(i for i, path in enumerate(opened) if "split0_test" in path)
    assert first_test > last_train, "a test movie was opened before the end of training"
    return root, out


def rows_of(path):
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_files_of_a_run(trained):
    _, out = trained
    rows = rows_of(out / "two_stream_csv" / "t0.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["lr"]) == pytest.approx(1e-3)
    assert 0 < float(rows[1]["lr"]) < 1e-3
    info = json.loads((out / "t0.json").read_text())
    assert info["depth"] == 18
    assert info["input_size"] == list(tiny_split.SIZE)
    best = max(rows, key=lambda row: (float(row["val_auc"]), -float(row["val_loss"])))
    assert info["best_epoch"] == int(best["epoch"])
    assert 0 <= info["test"]["test_auc"] <= 1
    assert (out / "t0_curves.png").stat().st_size > 1000
    assert not list(out.rglob("*.tmp*"))


def test_training_and_prediction_give_one_auc(trained, tmp_path):
    import predict

    root, out = trained
    flags = ("--root", root, "--weights", out / "t0.weights.h5", "--splitnum", 0, "--out", tmp_path)
    assert predict.main([str(x) for x in (*flags, "--device", "cpu")]) == 0
    predicted = json.loads(
        (tmp_path / "predictions" / "output_split0" / "metrics.json").read_text()
    )
    trained_as = json.loads((out / "t0.json").read_text())
    assert predicted["test"]["movies"]["auc"] == trained_as["test"]["test_auc"]
    assert predicted["val"]["movies"]["auc"] == trained_as["val_auc"]


def test_a_complete_run_is_left_alone(trained, capsys):
    root, out = trained
    before = (out / "t0.weights.h5").read_bytes()
    assert train_twostream.main(tiny_split.train_flags(root, out)) == 0
    assert "already trained" in capsys.readouterr().out
    assert (out / "t0.weights.h5").read_bytes() == before


def test_changed_settings_are_listed(trained, capsys):
    root, out = trained
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(root, out, "--threshold", "1"))
    assert "threshold 2 -> 1" in capsys.readouterr().err


def test_a_run_is_not_resumed_on_movies_of_another_recipe(trained, tmp_path, capsys):
    root, out = trained
    info, other = json.loads((out / "t0.json").read_text()), tmp_path / "other"
    shutil.copytree(root, other)
    path = other / "data_mean_std.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"std": 2.0}))
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(other, out))
    assert f"recipe '{info['recipe']}' -> '" in capsys.readouterr().err


def test_a_run_is_not_resumed_on_other_movies_of_the_same_names(trained, tmp_path, capsys):
    root, out = trained
    other = shutil.copytree(root, tmp_path / "other")
    path = next((other / "greyscale" / "split0_train").glob("*.npy"))
    np.save(path, np.load(path) + 1)
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(other, out))
    assert "resumed: movies '" in capsys.readouterr().err


def test_weights_that_have_no_room_are_told_before_the_first_epoch(tmp_path, monkeypatch, capsys):
    root = tiny_split.write_split(tmp_path / "split")
    usage = SimpleNamespace(free=limits.DISK_MARGIN)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(root, tmp_path / "run"))
    assert "weights and state needs" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("*.h5"))


def test_a_full_disk_keeps_the_last_state_and_ends_in_one_line(tmp_path, monkeypatch):
    import keras

    from network.checkpoints import load_weights, save_h5

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    path = tmp_path / "last.weights.h5"
    save_h5(model, path, attribute="{}")
    before = path.read_bytes()
    usage = SimpleNamespace(free=limits.DISK_MARGIN)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(InputError, match=r"last\.weights\.h5 needs .* no space left"):
        save_h5(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    wanted = [array.copy() for array in model.get_weights()]
    model.set_weights([array + 1 for array in wanted])
    load_weights(model, path)
    for array, other in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(array, other)


def test_corrupted_state(trained, tmp_path, capsys):
    root, _ = trained
    (tmp_path / "t0_state").mkdir()
    (tmp_path / "t0_state" / "state.json").write_text('{"epoch": 1')
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(root, tmp_path))
    assert "state.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--root", "/nowhere"], ["classmap.json", "not found"]),
        (["--splitnum", "7"], ["split7_train", "split_data.py"]),
        (["--nframes", "4"], ["--nframes", ">= 8"]),
        (["--cosine_anneal", "true", "--use_clr", "true"], ["exclude each other"]),
        (["--lr_weight", "conv3d"], ["JSON"]),
        (["--class_weight", '{"1": 2}'], ["0", "1"]),
        (["--grey_weights", "missing.h5"], ["missing.h5", "not found"]),
        (["--precision", "mixed_bfloat16"], ["mixed_bfloat16", "CPU"]),
        (["--batchsize", "4"], ["--batch_size"]),
        (["--nrows", "48"], ["expected", "48"]),
        (["--ckpt_monitor", "val_accuracy_"], ["val_accuracy"]),
    ],
)
def test_bad_flags(trained, tmp_path, capsys, change, words):
    root, _ = trained
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(root, tmp_path, *change))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())


def test_validation_with_one_class(tmp_path, capsys):
    root = tiny_split.write_split(tmp_path / "root")
    classes = json.loads((root / "classmap.json").read_text())
    (root / "classmap.json").write_text(json.dumps(dict.fromkeys(classes, 3)))
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(root, tmp_path / "out"))
    assert "one class only" in capsys.readouterr().err


def test_not_a_number_in_a_movie(tmp_path, capsys):
    root = tiny_split.write_split(tmp_path / "root")
    path = root / "OF" / "split0_train" / "p00a.npy"
    movie = np.load(path)
    movie[3, 2, 2] = np.nan
    np.save(path, movie)
    with pytest.raises(SystemExit, match="2"):
        train_twostream.main(tiny_split.train_flags(root, tmp_path / "out"))
    error = capsys.readouterr().err
    assert "p00a.npy" in error
    assert "NaN" in error


def test_balanced_weights():
    weights = balanced_weights([1, 0, 0, 0])
    assert weights == {0: pytest.approx(2 / 3), 1: 2.0}
    with pytest.raises(InputError, match="one class"):
        balanced_weights([1, 1])


def test_learning_rate_of_each_schedule():
    args = train_twostream.build_parser().parse_args(
        tiny_split.train_flags("r", "c", "--min_lr", "1e-5", "--max_lr", "1e-3")
    )
    cosine = learning_rate(args, 10)
    assert float(cosine(0)) == pytest.approx(1e-3)
    assert float(cosine(19)) == pytest.approx(0, abs=1e-12)
    args.use_clr, args.cosine_anneal = True, False
    cyclic = learning_rate(args, 10)
    assert float(cyclic(0)) == pytest.approx(1e-5)
    assert float(cyclic(40)) == pytest.approx(1e-3)
    args.use_clr = False
    assert learning_rate(args, 10) == args.lr


def test_a_few_updates_without_a_trace_equal_traced_ones():
    import keras
    import tensorflow as tf

    from network.model_zoo import make_optimizer
    from published import fill
    from runs.training import FEW_CALLS, make_train_step

    small = keras.Sequential(
        [
            keras.Input((4, 6, 6, 1)),
            keras.layers.Conv3D(3, 3, kernel_regularizer=keras.regularizers.L2(1e-4)),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(1),
        ]
    )
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((n, 4, 6, 6, 1)).astype(np.float32) for n in (3, 2)]
    losses = []
    for n_steps in (FEW_CALLS, FEW_CALLS + 1):
        step = make_train_step(
            fill(small, 1),
            make_optimizer(small, 1e-3),
            lambda y, outputs: keras.ops.square(outputs[:, 0] - y),
            tf.distribute.get_strategy(),
            n_steps=n_steps,
        )
        losses.append([])
        for x in batches:
            y, weight = np.arange(len(x), dtype=np.float32), np.ones(len(x), np.float32)
            losses[-1].append(float(step(x, y, weight, len(x))[0]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][0] != losses[0][1]


def test_one_batch_can_be_overfitted():
    import keras
    import tensorflow as tf

    from network.model_zoo import make_optimizer, two_stream
    from runs.training import l2_penalty, make_train_step

    keras.utils.set_random_seed(0)
    model = two_stream(input_size=(8, 32, 32), depth=18, width=4)
    rng = np.random.default_rng(0)
    x = {
        "grey": rng.standard_normal((4, 8, 32, 32, 1)).astype(np.float32),
        "of": rng.standard_normal((4, 8, 32, 32, 2)).astype(np.float32),
    }
    y = np.array([0, 1, 0, 1], np.float32)

    def sample_loss(labels, outputs):
        return keras.losses.binary_crossentropy(labels[:, None], outputs)

    strategy = tf.distribute.get_strategy()
    step = make_train_step(model, make_optimizer(model, 1e-3), sample_loss, strategy)
    losses = []
    for _ in range(60):
        penalty = l2_penalty(model)
        losses.append(float(step(x, y, np.ones(4, np.float32), 4)[0]) - penalty)
        if losses[-1] < 0.05:
            break
    assert min(losses) < 0.05
    assert losses[0] > 0.2


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    root = tiny_split.write_split(tmp_path / "root")
    flags = {
        name: tiny_split.train_flags(root, tmp_path / name, "--epoch", "4")
        for name in ("whole", "killed")
    }
    assert run_script("train_twostream.py", *flags["whole"]).returncode == 0
    command = [sys.executable, str(FOLDER / "train_twostream.py"), *flags["killed"]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    table = tmp_path / "killed" / "two_stream_csv" / "t0.csv"
    while process.poll() is None and not (table.exists() and len(rows_of(table)) >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(rows_of(table)) < 4
    resumed = run_script("train_twostream.py", *flags["killed"])
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch" in resumed.stdout
    whole, again = (
        rows_of(tmp_path / name / "two_stream_csv" / "t0.csv") for name in ("whole", "killed")
    )
    for one, other in zip(whole, again, strict=True):
        one.pop("seconds"), other.pop("seconds")
        assert one == other
    import h5py

    files = [h5py.File(tmp_path / n / "t0_state" / "last.weights.h5") for n in ("whole", "killed")]
    names = []
    files[0].visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    assert len(names) > 100
    for name in names:
        np.testing.assert_array_equal(files[0][name][()], files[1][name][()])
    best = [json.loads((tmp_path / n / "t0.json").read_text()) for n in ("whole", "killed")]
    assert best[0]["best_epoch"] == best[1]["best_epoch"]


TWO_DEVICES = """
import sys
sys.path[:0] = [{folder!r}, {tests!r}]
from network.start import start_tensorflow
strategy = start_tensorflow(device="cpu", gpus={gpus})
{step}
for _ in range(2):
    print(float(step(clips, y, weight, 4)[0]))
"""


@pytest.mark.slow
def test_two_devices_equal_one(tmp_path):
    losses = {}
    for gpus in (1, 2):
        places = {"folder": str(FOLDER), "tests": str(FOLDER / "tests")}
        code = TWO_DEVICES.format(**places, gpus=gpus, step=STEP_OF_FOUR)
        script = tmp_path / f"devices{gpus}.py"
        script.write_text(code)
        done = subprocess.run([sys.executable, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        losses[gpus] = [float(line) for line in done.stdout.split()]
    np.testing.assert_allclose(losses[1], losses[2], rtol=1e-3)


@pytest.mark.slow
def test_two_devices_with_a_last_batch_of_one(tmp_path):
    root = tiny_split.write_split(tmp_path / "root", n=12)
    stems = sorted((root / "greyscale" / "split0_train").glob("*.npy"))
    for path in stems[5:]:
        path.unlink()
        (root / "OF" / "split0_train" / path.name).unlink()
    flags = tiny_split.train_flags(root, tmp_path / "out", "--gpus", "2", "--batch_size", "4")
    done = run_script("train_twostream.py", *flags)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "out" / "two_stream_csv" / "t0.csv")) == 2


@pytest.mark.slow
def test_as_a_user_without_data(tmp_path):
    done = run_script("train_twostream.py", *tiny_split.train_flags(tmp_path / "no", tmp_path))
    assert_one_line(done, "classmap.json")


def test_what_a_killed_training_left_goes_that_of_another_stays(tmp_path):
    own, other = (tmp_path / f".{name}_curves.{os.getpid()}.tmp.png" for name in ("t1", "t10"))
    for path in (own, other):
        path.touch()
        os.utime(path, (1, 1))  # older than this process: left by an earlier one of its number
    clear_left(tmp_path, "t1")
    assert not own.exists()
    assert other.exists()
