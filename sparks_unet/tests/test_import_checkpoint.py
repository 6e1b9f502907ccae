"""Released weights come in with one command and are tested on a planted movie."""

import json
import zipfile

import pytest
import torch

from demo.self_test import planted_movie
from helpers import make_tiny_data, write_ini
from import_checkpoint import main
from network.checkpoints import load_state
from runs.training_tools import seeded_model
from settings.read_config import load_config


@pytest.fixture
def released(tmp_path):
    """Return (INI file, weights, archive of a network file whose names have the prefix)."""
    ini = write_ini(tmp_path / "a.ini", make_tiny_data(tmp_path / "data"), tmp_path)
    weights = seeded_model(load_config(ini), torch.device("cpu")).state_dict()
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "n.pth")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(tmp_path / "n.pth", "final_model/network_000700.pth")
    return ini, weights, tmp_path / "m.zip"


def run(files, ini, *more):
    size = ("--height", "16", "--width", "80")
    return main([*map(str, files), "--config", str(ini), *size, *more])


def test_parts_of_an_archive_become_a_run(released, tmp_path, capsys):
    ini, weights, archive = released
    content = archive.read_bytes()
    parts = [tmp_path / f"m.zip.00{n}" for n in (1, 2)]
    parts[0].write_bytes(content[: len(content) // 2])
    parts[1].write_bytes(content[len(content) // 2 :])
    # random weights detect nothing: the test of the events fails, all others pass
    assert run(parts, ini) == 1
    state = load_state(tmp_path / "tiny" / "network_000700.pth")
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    record = json.loads((tmp_path / "tiny" / "self_test.json").read_text())
    assert list(record["checks"].values()) == [True, True, True, False]
    assert sum(record["planted"].values()) > 0
    assert capsys.readouterr().out.count("FAILED") == 1


def test_the_same_weights_are_not_imported_twice(released, capsys):
    ini, _, archive = released
    run([archive], ini)
    with pytest.raises(SystemExit) as caught:
        run([archive], ini)
    assert caught.value.code == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "no whole zip archive"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "no file network_<iteration>.pth"),
    ],
)
def test_faults_of_the_archive_leave_with_code_2(released, capsys, make, message):
    ini, _, archive = released
    make(archive)
    with pytest.raises(SystemExit) as caught:
        run([archive], ini)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_of_another_network_are_refused(released, capsys):
    ini, _, archive = released
    ini.write_text(ini.read_text().replace("unet_steps = 2", "unet_steps = 1"))
    with pytest.raises(SystemExit) as caught:
        run([archive], ini)
    assert caught.value.code == 2
    assert "unet_steps 1 expected, file has 2" in capsys.readouterr().err


def test_planted_movie_has_the_density_of_the_demo():
    movie, classes, events = planted_movie(160, (32, 96), 0)
    assert movie.shape == classes.shape == events.shape == (160, 32, 96)
    assert 14 + 3 + 1 - 4 <= len(set(events.ravel())) - 1 <= 14 + 3 + 1
