"""Sizes are checked before memory is asked for; names and data of a run are what they were."""

import io
import json
import os
import socket
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from common.files import InputError
from inputs.recordings import read_movies
from inputs.safe_load import load_tree
from inputs.user_movies import UserMovie
from network.checkpoints import model_from_config, read_config
from runs.configuration import compose_settings
from runs.continuing import new_run_dir
from runs.data import data_digests
from runs.pipeline import check_data

HUGE = (1_000_000, 1_000_000, 1_000)


def npz_with_header(path, shape):
    """Write an .npz whose only array says that it has ``shape`` and holds nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("movie.npy", header.getvalue())


def test_headers_that_ask_for_more_than_the_memory_are_refused(tmp_path):
    npz_with_header(tmp_path / "m.npz", HUGE)
    with pytest.raises(InputError, match=r"m\.npz: movie of shape .* asks for"):
        UserMovie(tmp_path / "m.npz", rate_hz=60.0)
    with pytest.raises(InputError, match=r"m\.npz: movie of shape .* asks for"):
        load_tree(tmp_path / "m.npz")
    (tmp_path / "mov").mkdir()
    film = {"rect_mov": torch.zeros(1, 1, 1).expand(HUGE), "t_axis": torch.zeros(2)}
    torch.save({"vstim_5": film}, tmp_path / "mov" / "vstim_5.pt")
    with pytest.raises(InputError, match=r"vstim_5: rect_mov of shape .* asks for"):
        read_movies(tmp_path / "mov")


def test_a_configuration_that_asks_for_more_than_the_memory_is_refused(tiny_run):
    config = read_config(tiny_run / "config.json")
    config["network_config"]["out_channels"] = [10**7, 10**7]
    with pytest.raises(InputError, match=r"model configuration: kernels of shape .* asks for"):
        model_from_config(config)


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden"])
def test_the_name_of_a_run_is_a_plain_one(tmp_path, name):
    settings = compose_settings([f"expt_path={tmp_path}"]) | {"expt_name": name}
    with pytest.raises(InputError, match="expt_name"):
        new_run_dir(settings)
    assert not any(tmp_path.iterdir())


def test_a_new_training_removes_the_bare_folders_of_killed_ones(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, names = socket.gethostname(), {}
    for i, (process, word) in enumerate([
        (gone.pid, "killed"), (gone.pid, "killed_with_config"), (os.getpid(), "alive")
    ]):  # fmt: skip
        names[word] = tmp_path / f"20261128_12000{i}_{word}"
        names[word].mkdir()
        lock = {"process": process, "host": host}
        (names[word] / ".writer.lock").write_text(json.dumps(lock))
        (names[word] / f".settings.json.{process}.tmp.a1").write_text("{")
    (names["killed_with_config"] / "config.json").write_text("{}")
    (tmp_path / "20261128_120009_foreign").mkdir()  # no lock: not begun by us, or just now
    settings = compose_settings([f"expt_path={tmp_path}", "expt_name=next"])
    new = new_run_dir(settings)
    assert new.is_dir()
    left = {path.name for path in tmp_path.iterdir()} - {new.name}
    assert left == {names[k].name for k in ("killed_with_config", "alive")} | {
        "20261128_120009_foreign"
    }
    assert (names["alive"] / f".settings.json.{os.getpid()}.tmp.a1").is_file()


def test_a_complete_run_notices_that_its_recordings_changed(tiny_set, tiny_args, tmp_path):
    settings = compose_settings(tiny_args)
    digests = data_digests(settings)
    assert "lc11/synthetic.pt" in digests
    assert "vstim_300.pt" in digests
    record = {"settings": settings, "inputs": digests}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    check_data(tmp_path, settings)
    record["inputs"] |= {"lc11/synthetic.pt": "0" * 64}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"changed: lc11/synthetic\.pt"):
        check_data(tmp_path, settings)


def test_a_file_of_another_kind_is_not_called_truncated(tmp_path):
    (tmp_path / "scores.csv").write_text("part,mse\n")
    with pytest.raises(InputError, match=r"its name ends in none of \.pt, \.npz, \.safetensors"):
        load_tree(tmp_path / "scores.csv")
