"""Scores as laboratories write them: codes, letters, words, cells, gaps; and what looks wrong."""

import logging

import h5py
import numpy as np
import pytest
import scipy.io

from check_data import main as check_data
from common.files import InputError
from inputs.mat_writer import write_recording
from inputs.recordings import Recording, map_labels
from inputs.scores import doubts, parse_codes
from inputs.shards import find_records, recording_codes
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create

NAME = "200128-L2-fc1-GSR_Ben.mat"
CODES = [0, 0, 1, 2, 3, -1]


def movie_of(epochs):
    return np.random.default_rng(0).normal(size=(epochs, 168, 16, 16)).astype(np.float32)


def write(folder, scores=None, count=6, name=NAME):
    write_recording(folder / name, movie_of(count), np.ones((16, 16), bool), scores)
    return folder / name


def set_scores(path, make):
    with h5py.File(path, "r+") as file:
        make(file)


def letters(text):
    return np.array([[ord(c)] for c in text], np.uint16)


def as_cell(words, shape):
    def make(file):
        group = file.create_group("#refs#")
        refs = np.empty(len(words), h5py.ref_dtype)
        for i, word in enumerate(words):
            held = group.create_dataset(f"c{i}", data=letters(word) if word else np.zeros(2, "u8"))
            held.attrs["MATLAB_class"] = np.bytes_("char")
            if not word:
                held.attrs["MATLAB_empty"] = np.uint8(1)
            refs[i] = held.ref
        data = file.create_dataset(
            "scoringindex_file", data=refs.reshape(shape), dtype=h5py.ref_dtype
        )
        data.attrs["MATLAB_class"] = np.bytes_("cell")

    return make


def as_char(rows):
    def make(file):
        held = np.array([[ord(c) for c in row] for row in rows], np.uint16).T
        data = file.create_dataset("scoringindex_file", data=held)
        data.attrs["MATLAB_class"] = np.bytes_("char")

    return make


WORDS = ["wake", "Wake", "NREM", "Artifact", "REM", ""]


@pytest.mark.parametrize(
    "make",
    [
        as_cell(WORDS, (1, 6)),
        as_cell(["W", "wakefulness", "NR", "artefact", "R", "NaN"], (6, 1)),
        as_cell(["W", "w", "SWS", "A", "PS", "unscored"], (1, 6)),
        as_char(["WWNARU"]),
        as_char([f"{word:8}" for word in WORDS]),
    ],
)
def test_words_of_version_7_3(tmp_path, make):
    path = write(tmp_path)
    set_scores(path, make)
    with Recording(path) as recording:
        assert recording.raw_labels.tolist() == CODES
        assert map_labels(recording).tolist() == [0, 0, 1, -1, 2, -1]


@pytest.mark.parametrize(
    "held",
    [
        np.array(WORDS, object),
        np.array(WORDS, object)[:, None],
        "WWNARU",
        np.array(WORDS),
        np.array([0, 0, 1, 2, 3, np.nan]),
        np.array([[0], [0], [1], [2], [3], [np.nan]]),
    ],
)
def test_scores_of_version_5(tmp_path, held):
    path = tmp_path / NAME
    data = {"data": movie_of(6).transpose(2, 3, 1, 0), "xform_mask": np.ones((16, 16))}
    scipy.io.savemat(path, {**data, "scoringindex_file": held})
    with Recording(path) as recording:
        assert recording.raw_labels.tolist() == CODES


@pytest.mark.parametrize("shape", [(1, 6), (6, 1)])
def test_row_or_column(tmp_path, shape):
    path = write(tmp_path)
    set_scores(path, lambda f: f.create_dataset("scoringindex_file", data=np.reshape(CODES, shape)))
    with Recording(path, codes="0=wake,1=NREM,2=artifact,3=REM,-1=unscored") as recording:
        assert recording.raw_labels.tolist() == CODES


def test_codes_of_another_program(tmp_path, caplog):
    """AccuSleep: 1 REM, 2 wake, 3 NREM."""
    stored = [2] * 8 + [3] * 10 + [1] * 4 + [2] * 6
    write(tmp_path / "raw", stored, count=28)
    with caplog.at_level(logging.WARNING):
        create(tmp_path / "raw", tmp_path / "wrong", Storage())
    assert "mouse 200128-L2: 14 of 28 scored epochs are artifacts; no epoch is wake" in caplog.text
    assert "--codes 1=REM,2=wake,3=NREM" in caplog.text
    caplog.clear()
    codes = "1=REM, 2 = wake,3=nrem"
    create(tmp_path / "raw", tmp_path / "out", Storage(codes=codes))
    assert not caplog.messages
    records = sorted(find_records(tmp_path / "out"), key=lambda r: r.epoch)
    assert [r.label for r in records] == [{2: 0, 3: 1, 1: 2}[c] for c in stored]
    assert recording_codes(records[0].path).tolist() == [{2: 0, 3: 1, 1: 3}[c] for c in stored]
    with pytest.raises(InputError, match="another codes"):
        create(tmp_path / "raw", tmp_path / "out", Storage(), Conversion(overwrite=True))


def test_code_outside_the_map_is_unknown(tmp_path):
    path = write(tmp_path, [1, 2, 3, 0, 1, 2])
    with Recording(path, codes="1=REM,2=wake,3=NREM") as recording:
        with pytest.raises(InputError, match="epoch 3 has the unknown code 0"):
            map_labels(recording)
        assert map_labels(recording, unknown="drop").tolist() == [2, 0, 1, -1, 2, 0]


def test_epochs_without_score_are_left_out_and_said(tmp_path, caplog):
    write(tmp_path / "raw", [0, 1, 3, 1, 0, np.nan])
    with caplog.at_level(logging.WARNING):
        create(tmp_path / "raw", tmp_path / "out", Storage())
    assert "1 epochs are not scored and are left out" in caplog.text
    assert len(find_records(tmp_path / "out")) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1=REM,2", "expected <code>=<state>"),
        ("1=REMM", "did you mean REM"),
        ("1=REM,1.0=wake", "comes twice"),
    ],
)
def test_bad_maps(text, said):
    with pytest.raises(InputError, match=said):
        parse_codes(text)
    assert parse_codes("") == {}


def test_doubts():
    assert doubts(np.array([0, 0, 1, 1, 3])) == ""
    assert "REM (2 epochs) outnumbers NREM (1)" in doubts(np.array([0, 1, 3, 3]))
    assert "no epoch is wake or NREM" in doubts(np.array([3, 3]))
    assert doubts(np.array([-1, -1])) == "2 epochs are not scored and are left out"


def test_check_data_says_so_too(tmp_path, capsys, caplog):
    write(tmp_path, [2, 2, 3, 3, 1, 2])
    with caplog.at_level(logging.WARNING):
        check_data(["--data_path", str(tmp_path)])
    assert "no epoch is wake" in caplog.text
    caplog.clear()
    check_data(["--data_path", str(tmp_path), "--codes", "1=REM,2=wake,3=NREM"])
    assert not caplog.messages
    assert "not_scored" in capsys.readouterr().out
