"""A run is continued as it began, or refused with its files untouched; a drawn seed is kept."""

import json
import shutil

import pandas as pd
import pytest

from common.files import write_json
from main import main
from settings import resolve
from test_main import fails


@pytest.fixture
def run(trained, tmp_path):
    """Copy of the trained run that a test may damage."""
    return shutil.copytree(trained, tmp_path / "run")


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num_rnn_units", "8"], "num_rnn_units of the run is 4, now it is 8"),
        (["--num_frames", "16"], "num_frames of the run is 24, now it is 16"),
        (["--split", "block"], "split of the run is mouse, now it is block"),
        (["--seed", "43"], "seed of the run is 42, now it is 43"),
        (
            ["--test_mouse", "990103", "--leave_out"],
            "mice.train of the run is ['990101', '990102'], now",
        ),
        (["--hemispheric"], "width of the run is 16, now it is 8"),
        (["--limit_train", "12"], "limit_train of the run is 0, now it is 12"),
        (["--loss", "cross_entropy"], "loss of the run is focal, now it is cross_entropy"),
        (["--fresh"], "fresh removes the run that model_continue goes on with"),
    ],
)
def test_another_network_or_data_is_refused(run, tiny_flags, capsys, flags, said):
    before = contents(run)
    own = ["--mode", "train", *tiny_flags, "--model_savedir", str(run), "--model_continue"]
    fails(capsys, [*own, *flags], said)
    assert contents(run) == before


def test_other_storage_is_refused(run, tiny_flags, tfrecords, tmp_path, capsys):
    other = shutil.copytree(tfrecords, tmp_path / "other")
    manifest = json.loads((other / "dataset.json").read_text())
    write_json(other / "dataset.json", {**manifest, "normalization": "minmax"})
    before = contents(run)
    own = ["--mode", "train", *tiny_flags, "--model_savedir", str(run), "--model_continue"]
    said = "storage.normalization of the run is temporal, now it is minmax"
    fails(capsys, [*own, "--data_path", str(other)], said)
    assert contents(run) == before


def test_nothing_to_continue_writes_nothing(tiny_flags, tmp_path, capsys):
    run = tmp_path / "none"
    own = ["--mode", "train", *tiny_flags, "--model_savedir", str(run), "--model_continue"]
    fails(capsys, own, "there is nothing to continue")
    assert not run.exists()


def test_a_run_without_a_complete_epoch_starts_from_the_beginning(
    run, tiny_flags, tmp_path, capsys
):
    """As a kill before the first epoch leaves it; its settings are those of an undisturbed run."""
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("settings.json", "split.json", "config.json"):
        shutil.copy(run / name, begun)
    own = ["--mode", "train", *tiny_flags, "--model_savedir", str(begun), "--model_continue"]
    assert main(own) == 0
    assert "no epoch is complete; the training starts from the beginning" in capsys.readouterr().out
    first, again = (pd.read_csv(folder / "log.csv") for folder in (run, begun))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), again.drop(columns="seconds"))
    held, wanted = (
        json.loads((folder / "settings.json").read_text())["settings"] for folder in (begun, run)
    )
    assert {key for key in wanted if held.get(key) != wanted[key]} <= {
        "model_savedir",
        "tensorboard",
    }
    assert held.keys() == wanted.keys()
    (begun / "training_state.h5").unlink()  # weights that nobody asked to replace
    fails(capsys, own, "there is nothing to continue")


def test_fresh_keeps_the_run_when_the_new_one_cannot_start(run, tiny_flags, capsys):
    before = contents(run)
    own = ["--mode", "train", *tiny_flags, "--model_savedir", str(run), "--fresh"]
    fails(capsys, [*own, "--num_frames", "169"], "holds 168 frames; num_frames is 169")
    assert contents(run) == before


def test_folds_are_refused_before_anything_is_written(tiny_flags, run, capsys):
    (run / "fold1").mkdir()
    for name in ("config.json", "settings.json", "training_state.h5"):
        shutil.move(run / name, run / "fold1" / name)
    before = contents(run)
    own = ["--mode", "train", *tiny_flags, "--model_savedir", str(run), "--model_continue"]
    fails(capsys, [*own, "--folds", "2"], "of the run is")
    assert contents(run) == before


def test_demo_goes_on_where_it_stopped(tiny_flags, tfrecords, tmp_path):
    from demo.run_demo import changed, train_once

    settings = resolve(["--demo", *tiny_flags])
    split, run = tfrecords / "split.json", tmp_path / "training"
    for passes in (1, 2):
        train_once(changed(settings, num_epochs=passes), tfrecords, split, run)
    assert pd.read_csv(run / "log.csv")["epoch"].tolist() == [1, 2]


def test_drawn_seed_is_kept(tiny_flags, tfrecords, tmp_path, capsys):
    """A negative seed is drawn once: the test and a resumed training see the same epoch split."""
    run = tmp_path / "run"
    split = tiny_flags.index("--split")  # left out: the default is the epoch split
    flags = tiny_flags[:split] + tiny_flags[split + 2 :]
    own = [*flags, "--model_savedir", str(run), "--seed", "-1"]
    assert main(["--mode", "train", *own]) == 0
    config = json.loads((run / "config.json").read_text())
    seed = config["data"]["seed"]
    assert seed >= 0
    assert json.loads((run / "settings.json").read_text())["settings"]["seed"] == seed
    assert main(["--mode", "train", *own, "--num_epochs", "2", "--model_continue"]) == 0
    assert json.loads((run / "config.json").read_text()) == config
    test = ["--mode", "test", "--data_path", str(tfrecords), "--model_savedir", str(run)]
    tables = []
    for _ in range(2):
        assert main(test) == 0
        tables.append((run / "test" / "predictions.csv").read_text())
    assert tables[0] == tables[1]
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert "epochs of the same mice, also neighbours" in metrics["split"]
    assert f"warning: {metrics['split']}" in capsys.readouterr().out


def test_run_without_a_seed_is_not_tested(run, tfrecords, capsys):
    """Older runs kept neither the seed nor the epochs of their split."""
    (run / "split.json").unlink()
    config = json.loads((run / "config.json").read_text())
    write_json(
        run / "config.json", {**config, "data": {**config["data"], "split": "epoch", "seed": -1}}
    )
    test = ["--mode", "test", "--data_path", str(tfrecords), "--model_savedir", str(run)]
    fails(capsys, test, "the seed of the epoch split is -1")
