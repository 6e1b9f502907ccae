"""main.py as a user runs it, the published functions, and the second run."""

import csv
import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import main
from common.files import InputError
from common.locks import visible
from demo import planted
from helpers import FOLDER, SMALL, call, flags, run_script, tiny_movie
from network.checkpoints import load_network, load_weight_tensor
from runs import many
from runs.reloading import reload_run
from settings import RunSettings

PUBLISHED = (
    "preprocess_data", "da_rnn", "train", "prep_train_data", "adjust_learning_rate",
    "train_iteration", "predict", "run_all", "create_plots",
)  # fmt: skip


def files_of(folder):
    return {p.relative_to(folder): p for p in visible(folder, recursive=True) if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a tiny movie with every display; returns (folder, movie)."""
    folder = tmp_path_factory.mktemp("finished")
    movie = tiny_movie(folder / "movie.npy")
    run_dir = folder / "run"
    main.run_all(
        movie,
        **SMALL | {"movie": "mp4+gif", "frame_rate_hz": 2.0, "pixel_um": 100.0},
        target="2,3",
        run_dir=run_dir,
    )
    return run_dir, movie


def test_published_names_come_from_main():
    for name in PUBLISHED:
        assert callable(getattr(main, name))
    with pytest.raises(AttributeError):
        _ = main.no_such_function


def test_run_writes_what_the_readme_lists(finished):
    run_dir, _ = finished
    names = {str(path) for path in files_of(run_dir)}
    expected = {
        "settings.json", "log.csv", "checkpoint.pt", "encoder.torch", "decoder.torch",
        "encoder.safetensors", "decoder.safetensors", "enc_kwargs.json", "dec_kwargs.json",
        "da_rnn_kwargs.json", "network.json", "scaler.json", "iter_loss.npy", "epoch_loss.npy",
        "final_y_pred.npy", "weight_tensor_rs.pt", "attention.npz", "importance.npz",
        "metrics.json", "metrics.csv", "heatmap.mp4", "heatmap.gif", "report.html", "summary.json",
        "plots/iter_loss.png", "plots/epoch_loss.png", "plots/final_predicted.png",
        "plots/final_predicted.csv", "plots/pred_0.png", "plots/maps.png", "plots/maps.csv",
    }  # fmt: skip
    assert expected <= names
    assert not [name for name in names if ".tmp" in name]
    assert np.load(run_dir / "final_y_pred.npy").shape == (36, 1)
    with open(run_dir / "metrics.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {(row["target"], row["target_place"]) for row in rows} == {("13", "row 2, column 3")}
    told = {
        row["model"]: row["rmse"] for row in rows if (row["part"], row["units"]) == ("test", "z")
    }
    scores = json.loads((run_dir / "summary.json").read_text())["scores"]
    assert [score["value"] for score in scores] == pytest.approx(
        [float(told[model]) for model in ("network", "persistence")], rel=1e-6
    )  # the predictor to beat beside the network
    assert load_weight_tensor(run_dir / "weight_tensor_rs.pt").shape == (36, 4, 19)


def test_saved_attention_is_the_softmax_of_unshuffled_data(finished):
    """Section 14, check 5: from the saved weights and the data alone, shuffling on."""
    run_dir, movie = finished
    values = np.load(movie).reshape(120, 20).astype(np.float64)
    scaler = json.loads((run_dir / "scaler.json").read_text())
    z = (values - scaler["mean"]) / scaler["scale"]
    with np.load(run_dir / "attention.npz") as file:
        saved = {name: file[name] for name in file.files}
    x = z[:, saved["feature_pixels"]]
    state = torch.load(run_dir / "encoder.torch", weights_only=True)
    w = state["attn_linear.weight"][0, 12:].double().numpy()
    first, T = int(saved["first_frame"]), int(saved["T"])
    assert (first, T) == (84, 5)
    assert not (saved["permutation"] == np.arange(19)).all()
    weighted = load_weight_tensor(run_dir / "weight_tensor_rs.pt").numpy()
    for j in range(36):
        window = x[first + j - T : first + j - 1]
        energy = w @ window
        alpha = np.exp(energy - energy.max())
        alpha /= alpha.sum()
        np.testing.assert_allclose(saved["attention"][j], alpha, rtol=0, atol=1e-6)
        np.testing.assert_allclose(weighted[j], alpha * window, rtol=0, atol=1e-5)


def test_second_run_changes_no_file(finished, capsys):
    run_dir, movie = finished
    before = {
        path: (f.stat().st_mtime_ns, f.stat().st_size) for path, f in files_of(run_dir).items()
    }
    main.run_all(
        movie,
        **SMALL | {"movie": "mp4+gif", "frame_rate_hz": 2.0, "pixel_um": 100.0},
        target="2,3",
        run_dir=run_dir,
    )
    after = {
        path: (f.stat().st_mtime_ns, f.stat().st_size) for path, f in files_of(run_dir).items()
    }
    assert before == after
    assert "complete" in capsys.readouterr().out
    with pytest.raises(InputError, match="learning_rate"):
        main.run_all(movie, **SMALL, target="2,3", run_dir=run_dir, learning_rate=0.5)


def test_same_seed_gives_identical_files_and_overwrite_retrains(tmp_path):
    movie = tiny_movie(tmp_path / "movie.npy")
    settings = SMALL | {"maps": False}
    for name in ("a", "b"):
        main.run_all(movie, **settings, run_dir=tmp_path / name)
    timed = {"log.csv", "settings.json", "report.html", "summary.json"}
    for path, file in files_of(tmp_path / "a").items():
        if file.name not in timed:
            assert file.read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    old = (tmp_path / "a/encoder.torch").read_bytes()
    main.run_all(movie, **settings, run_dir=tmp_path / "a", overwrite=True, seed=1)
    assert (tmp_path / "a/encoder.torch").read_bytes() != old


def test_command_line_with_several_targets_and_options(tmp_path, monkeypatch):
    monkeypatch.setattr(main, "RESULTS_DIR", tmp_path)
    movie = tiny_movie(tmp_path / "movie.npy")
    settings = SMALL | {
        "data": movie, "target": "3,1;0,2", "attention": "tanh", "readout": "top",
        "predict": "change", "layers": 1, "attention_scale": "n", "horizon": 1, "current_x": "true",
        "validation": 0.2, "save_weight_tensor": "compact", "map": "attention",
        "run": "run",
    }  # fmt: skip
    assert main.main(flags(settings)) == 0
    record = json.loads((tmp_path / "run/network.json").read_text())
    assert record["target_columns"] == ["2", "16"]  # file order, not the order of the argument
    assert record["validation_mse"] is not None
    assert np.load(tmp_path / "run/final_y_pred.npy").shape == (36, 2)
    assert not (tmp_path / "run/weight_tensor_rs.pt").exists()
    assert (tmp_path / "run/plots/final_predicted_16.png").exists()


def test_grid_of_targets_in_two_processes(tmp_path):
    movie = tiny_movie(tmp_path / "movie.npy")
    main.run_all(
        movie,
        **SMALL | {"maps": False, "n_epochs": 1},
        target_grid="1,2",
        jobs=2,
        run_dir=tmp_path / "grid",
    )
    folders = sorted(path.name for path in (tmp_path / "grid").iterdir())
    assert folders == ["target_2_1", "target_2_3"]
    assert all((tmp_path / "grid" / name / "summary.json").exists() for name in folders)


def test_display_flags_show_a_finished_run_again_without_training(finished, tmp_path, capsys):
    run_dir = shutil.copytree(finished[0], tmp_path / "run", ignore=lambda *_: [".writer.lock"])
    movie, shown = finished[1], SMALL | {"movie": "mp4+gif", "frame_rate_hz": 2.0}
    before = {path: file.read_bytes() for path, file in files_of(run_dir).items()}
    again = shown | {"movie": "gif", "map": "attention", "pixel_um": 50.0, "save_plots": True}
    main.run_all(movie, **again, target="2,3", run_dir=run_dir)
    assert "shown again from its files (map, movie, pixel_um)" in capsys.readouterr().out
    after = {path: file.read_bytes() for path, file in files_of(run_dir).items()}
    names = {path.name for path in after}
    assert "heatmap.gif" in names
    assert "heatmap.mp4" not in names  # it would still show the other map
    for path in before:
        if path.suffix in (".pt", ".npy", ".safetensors", ".torch") or path.name == "log.csv":
            assert after[path] == before[path], path
    told = json.loads((run_dir / "settings.json").read_text())["settings"]
    assert (told["map"], told["pixel_um"]) == ("attention", 50.0)
    main.run_all(movie, **again, target="2,3", run_dir=run_dir)
    assert "complete" in capsys.readouterr().out
    assert {path: file.read_bytes() for path, file in files_of(run_dir).items()} == after


def test_another_shape_or_range_is_no_fit_for_a_network(finished, tmp_path, capsys):
    run_dir, movie = finished
    frames = np.load(movie)
    np.save(tmp_path / "turned.npy", np.ascontiguousarray(frames.transpose(0, 2, 1)))
    with pytest.raises(InputError, match="found 5 x 4 pixels, expected 4 x 5"):
        reload_run(run_dir, tmp_path / "turned.npy")
    capsys.readouterr()
    reload_run(run_dir, movie)
    assert "warning" not in capsys.readouterr().err
    np.save(tmp_path / "bright.npy", frames * 100 + 1000)
    reload_run(run_dir, tmp_path / "bright.npy")
    assert "the network has never seen such values" in capsys.readouterr().err


def test_main_predict_and_encoder_train(finished):
    run_dir, _ = finished
    done = run_script("main_predict.py", "--run", run_dir)
    assert done.returncode == 0, done.stderr
    again = np.load(run_dir / "reloaded/final_y_pred.npy")
    np.testing.assert_array_equal(again, np.load(run_dir / "final_y_pred.npy"))
    assert (run_dir / "reloaded/plots/final_predicted_reloaded.png").exists()
    done = run_script("encoder_train.py", "--run", run_dir)
    assert done.returncode == 0, done.stderr
    with np.load(run_dir / "encoded/encoded.npz") as file:
        assert file["states"].shape == (115, 4, 6)
        np.testing.assert_allclose(file["attention"].sum(axis=1), 1, atol=1e-5)


def test_encoder_train_freezes_by_name(finished, tmp_path):
    run_dir, _ = finished
    out = tmp_path / "trained"
    done = call(
        "encoder_train.py", "--run", run_dir, "--freeze", "hh_l0", "--n_epochs", 1, "--out", out
    )
    assert done.returncode == 0, done.stderr
    old, new = load_network(run_dir)[0], load_network(out)[0]
    for part in ("encoder", "decoder"):
        before, after = getattr(old, part).state_dict(), getattr(new, part).state_dict()
        for name in before:
            assert torch.equal(before[name], after[name]) == ("hh_l0" in name or name in NO_USE)
    net, record, prepared = reload_run(out)
    assert record["permutation"].shape == (19,)
    assert prepared.targets == [13]
    assert net.encoder.steps == 4


def test_another_recording_keeps_its_own_scales(finished, tmp_path):
    run_dir, movie = finished  # 2 Hz, 100 um, by flags
    other = tmp_path / "other.npy"
    np.save(other, np.load(movie))
    told = {"rate_hz": 8, "row_um": 25, "column_um": 25, "offset": 3}
    (tmp_path / "other.npy.json").write_text(json.dumps({"F": 120, "H": 4, "W": 5, "scales": told}))
    done = call("main_predict.py", "--run", run_dir, "--data", other)
    assert done.returncode == 0, done.stderr
    assert "frame rate of 8 Hz (file: other.npy.json), that of the training" in done.stderr
    record = json.loads((run_dir / "reloaded/recording.json").read_text())
    assert (record["data"], record["recording"]["rate_hz"]["value"]) == (str(other), 8)
    out = tmp_path / "trained"
    done = call("encoder_train.py", "--run", run_dir, "--data", other, "--freeze", "hh_l0",
                "--n_epochs", 1, "--out", out, "--pixel_um", 40)  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = json.loads((out / "settings.json").read_text())["settings"]
    assert "identity" not in saved
    assert (saved["run_dir"], saved["frame_rate_hz"], saved["pixel_um"]) == (str(out), 0, 40)
    kept = {name: known["value"] for name, known in saved["recording"].items()}
    assert (kept["rate_hz"], kept["column_um"], kept["offset"]) == (8, 40, 3)
    done = call("main_predict.py", "--run", out)
    assert "frame rate 8 Hz (file: other.npy.json); pixel 40 um (flag)" in done.stdout


def test_another_recording_is_read_like_that_of_the_run_or_a_line_says_so(tmp_path):
    pair = np.repeat(np.load(tiny_movie(tmp_path / "m.npy")), 2, axis=0)
    pair[1::2] *= 0.3
    np.save(tmp_path / "pair.npy", pair)
    run_dir, small = tmp_path / "run", SMALL | {"n_epochs": 0, "maps": False, "save_plots": False}
    main.run_all(tmp_path / "pair.npy", **small, target="2,3", channel="1/2", run_dir=run_dir)
    np.save(tmp_path / "other.npy", pair[:, ::-1])
    given = "--run", run_dir, "--data", tmp_path / "other.npy", "--scaler", "own"
    done = call("main_predict.py", *given, "--channel", "1/2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "120 frames" in done.stdout
    np.save(tmp_path / "single.npy", pair[::2])
    done = call("main_predict.py", "--run", run_dir, "--data", tmp_path / "single.npy")
    assert "is read without the --channel 1/2 of" in done.stderr


def test_the_gradient_map_of_several_epochs_comes_from_their_states(tmp_path):
    settings = SMALL | {"data": tiny_movie(tmp_path / "a.npy"), "target": "1,1"}
    with pytest.raises(InputError, match="--gradient_epochs: found 3 with 2 epochs, expected at"):
        main.run_all(**settings, gradient_epochs=3, run_dir=tmp_path / "none")
    maps = {}
    for count in (1, 2):
        run_dir = tmp_path / str(count)
        main.run_all(**settings, gradient_epochs=count, run_dir=run_dir)
        with np.load(run_dir / "importance.npz") as archive:
            maps[count] = archive["gradient"], archive["permutation"]
    np.testing.assert_array_equal(maps[1][1], maps[2][1])  # nothing else changes
    # The other half of the mean of two is the map of a run of one epoch.
    main.run_all(**settings | {"n_epochs": 1}, run_dir=tmp_path / "first")
    with np.load(tmp_path / "first" / "importance.npz") as archive:
        first = archive["gradient"]
    np.testing.assert_allclose(maps[2][0], (first + maps[1][0]) / 2, rtol=1e-5)
    assert not np.allclose(maps[2][0], maps[1][0])


def test_own_data_run_without_the_demo_wing(tmp_path):
    """In a copy of the folder without demo/, as a user runs it."""
    home = tmp_path / FOLDER.name
    left_out = shutil.ignore_patterns("tests", "demo", "__pycache__")
    shutil.copytree(FOLDER, home, ignore=left_out)
    settings = SMALL | {"maps": "false", "n_epochs": 1, "target": "2,3"}
    words = flags(settings | {"data": tiny_movie(tmp_path / "movie.npy")})
    command = [sys.executable, "main.py", *words]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / FOLDER.name / "run" / "report.html").is_file()
    assert not (home / "demo").exists()


NO_USE = ("attn_linear.bias",)  # softmax cancels it


def modules():
    """Return the names of all modules of the folder, doors and wings."""
    paths = [path.relative_to(FOLDER) for path in FOLDER.glob("*.py")]
    paths += [p.relative_to(FOLDER) for p in FOLDER.glob("*/*.py") if p.parent.name != "tests"]
    return sorted(str(p.with_suffix("")).replace("/", ".").removesuffix(".__init__") for p in paths)


def test_help_loads_no_framework_and_imports_do_nothing(tmp_path):
    done = run_script("main.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--learning_rate" in done.stdout
    code = (
        "import sys, importlib\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "import main\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
        f"for name in {modules()!r}:\n"
        "    importlib.import_module(name)\n"
        "from network.build import Adam\n"
        "import torch\n"
        "Adam([torch.nn.Parameter(torch.zeros(1))]).step()\n"
        "assert 'torch._dynamo' not in sys.modules, 'the compiler costs seconds and has no use'\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_global_is_a_flag():
    module = importlib.import_module("main")
    names = {n for n in vars(module) if n.isupper()} - {"FLAGS", "PUBLISHED"}
    assert names - {"RESULTS_DIR"} == set(main.FLAGS)


def test_fresh_starts_anew_and_leaves_foreign_files(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(main, "RESULTS_DIR", tmp_path)
    words = flags(SMALL | {"data": finished[1], "maps": "false", "run": "run"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main.main([*words, "--fresh"])
    assert "holds files of something else; give another --run" in capsys.readouterr().err
    (tmp_path / "run" / "mine.txt").unlink()
    assert main.main(words) == 0
    assert "device: cpu (asked for)" in capsys.readouterr().out
    network = tmp_path / "run" / "network.json"
    before = network.stat().st_mtime_ns
    assert main.main(words) == 0
    assert "is complete; --fresh starts anew" in capsys.readouterr().out
    assert network.stat().st_mtime_ns == before
    assert main.main([*words, "--fresh"]) == 0
    assert network.stat().st_mtime_ns > before


def test_reuse_of_a_demo_that_missed_ends_with_1(tmp_path, monkeypatch, capsys):
    for name in ("RESULTS_DIR", "DATA_DIR"):
        monkeypatch.setattr(planted, name, tmp_path / name)
    words = [*flags(SMALL | {"n_epochs": 0, "importance_every": 90}), "--demo"]
    assert main.main(words) == 1  # an untrained network finds no driver
    first = capsys.readouterr().out.splitlines()[-2:]
    assert first[0].startswith("missed: AUC of permutation importance for driver pixels")
    assert first[1].startswith("AUC of permutation importance for driver pixels: 0.")
    assert first[1].endswith("report.html")
    assert main.main(words) == 1
    again = capsys.readouterr().out.splitlines()
    assert again[1].endswith("is complete; --fresh starts anew")
    assert again[-2:] == first


def test_interrupt_and_full_disk_are_one_line(monkeypatch, capsys):
    for fault, code, words in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 2, "check free space"),
    ):
        monkeypatch.setattr(many, "run_each", lambda _, fault=fault: (_ for _ in ()).throw(fault))
        with pytest.raises(SystemExit) as stopped:
            main.main([])
        assert stopped.value.code == code
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert words in error[0]


def test_a_demo_trains_at_its_own_rate_unless_one_is_given():
    assert planted.learning_rate(RunSettings()) == planted.LEARNING_RATE
    assert planted.learning_rate(RunSettings(learning_rate=0.02)) == 0.02
