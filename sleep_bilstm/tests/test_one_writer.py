"""One writer a folder, the stored split, epochs of the run's own content, and read-only shards."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from common.files import InputError, write_json
from common.locks import LOCK_NAME, release_all
from inputs.mat_writer import write_recording
from inputs.shards import find_records
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create
from main import main
from network.model_attention_bilstm import Architecture, build
from runs.split_record import read_split
from scripts import FOLDER
from test_main import fails


def add_recording(folder, run, codes=(0, 1, 3, 1)):
    movie = np.random.default_rng(run).normal(size=(len(codes), 168, 16, 16)).astype(np.float32)
    path = folder / f"990101-S1-fc{run}-synthetic.mat"
    write_recording(path, movie, np.ones((16, 16), bool), codes)


def held_by_another(folder):
    """Hold the lock of ``folder`` in a process of its own; return it."""
    code = (
        "import sys, time; from common.locks import hold; hold(sys.argv[1]);"
        "print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=FOLDER, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_second_writer_is_refused(recordings, trained, tiny_flags, tmp_path, capsys):
    out = tmp_path / "out"
    process = held_by_another(out)
    try:
        with pytest.raises(InputError, match="is being written by process"):
            create(recordings, out, Storage())
        flags = ["--mode", "train", *tiny_flags, "--model_savedir", str(out)]
        fails(capsys, flags, "is being written by process")
    finally:
        process.kill()
        process.wait()
    left = out / f".x.{process.pid}.tmp.tfrecord"
    left.write_bytes(b"half")
    assert create(recordings, out, Storage())
    assert not left.exists()
    release_all()


def test_temporary_files_are_no_epochs(tfrecords, tmp_path):
    data = shutil.copytree(tfrecords, tmp_path / "data")
    shard = next(data.rglob("*.tfrecord"))
    shutil.copy(shard, shard.with_name(f".{shard.stem}.1.tmp.tfrecord"))
    assert len(find_records(data)) == len(find_records(tfrecords))


@pytest.fixture
def grown(recordings, tmp_path, tiny_flags):
    """A run of an epoch split, and its data folder, that can be added to."""
    raw = shutil.copytree(recordings, tmp_path / "raw")
    data, run = tmp_path / "data", tmp_path / "run"
    create(raw, data, Storage())
    split = {"train": ["990101", "990102"], "val": ["990103"], "test": ["990104"]}
    write_json(data / "split.json", split)
    flags = [*tiny_flags, "--split", "epoch", "--data_path", str(data)]
    flags += ["--split_file", str(data / "split.json"), "--model_savedir", str(run)]
    assert main(["--mode", "train", *flags]) == 0
    return raw, data, run, flags


def test_stored_split_is_used(grown, tmp_path, capsys):
    """Recordings that come later draw no epoch of the training into the test."""
    raw, data, run, flags = grown
    held = read_split(run)
    test = ["--mode", "test", *flags, "--result_savedir", str(tmp_path)]
    assert main(test) == 0
    before = (tmp_path / "test" / "predictions.csv").read_bytes()
    add_recording(raw / "990101", 7)
    create(raw, data, Storage(), Conversion(resume=True))
    assert main(test) == 0
    assert (tmp_path / "test" / "predictions.csv").read_bytes() == before
    assert len(before.splitlines()) == len(held["names"]["test"]) + 1
    fails(capsys, ["--mode", "train", *flags, "--model_continue"], "epochs added, ")


def test_changed_labels_are_no_resume(grown, tmp_path, capsys):
    raw, data, _, flags = grown
    name = sorted((raw / "990101").glob("*.mat"))[0]
    with h5py.File(name, "r+") as file:
        codes = file["scoringindex_file"][()]
        file["scoringindex_file"][...] = np.where(codes == 0, 1, codes)
    create(raw, data, Storage(), Conversion(resume=True))
    fails(capsys, ["--mode", "train", *flags, "--model_continue"], "signals or labels changed")


def test_shards_on_a_read_only_medium_are_trained_from(tfrecords, tiny_flags, tmp_path):
    data = shutil.copytree(tfrecords, tmp_path / "data")
    for index in data.rglob("*.index.json"):
        index.unlink()
        index.mkdir()  # nothing can be written under that name
    flags = [*tiny_flags, "--data_path", str(data), "--model_savedir", str(tmp_path / "run")]
    assert main(["--mode", "train", *flags, "--limit_train", "4"]) == 0
    assert not list(data.rglob(LOCK_NAME))


def test_settings_that_no_memory_holds(trained, tmp_path, capsys):
    with pytest.raises(InputError, match="of memory, the limit is"):
        build(Architecture(num_filters=10**9))
    run = shutil.copytree(trained, tmp_path / "run")
    held = json.loads((run / "config.json").read_text())
    held["architecture"]["num_frames"] = 10**15
    write_json(run / "config.json", held)
    flags = ["--mode", "predict", "--data_path", str(tmp_path), "--model_savedir", str(run)]
    fails(capsys, flags, "of memory, the limit is")
