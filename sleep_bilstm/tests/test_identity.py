"""Which animal, which run, which file: nothing twice, nothing missed, nobody on both sides."""

import logging
import os
import re
import shutil

import h5py
import numpy as np
import pytest
import scipy.io

from check_data import main as check_data
from common.files import InputError
from common.hashes import sha256
from inputs.dataloader_sleep import (
    MouseSplit,
    Split,
    blocks,
    guard_epochs,
    of_mice,
    split_records,
)
from inputs.mat_writer import write_recording
from inputs.names import find_recordings, parse_name
from inputs.preprocess import frames_of
from inputs.shards import Record, find_records, read_mask_of
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create, identified


def write(folder, name, codes=(0, 1), size=16, seed=0):
    movie = np.random.default_rng(seed).normal(size=(len(codes), 168, size, size))
    path = folder / f"{name}.mat"
    write_recording(path, movie.astype(np.float32), np.ones((size, size), bool), codes)
    return path


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("tag", ["2918", "R5M2286", "L_2", "L2", "mouse"])
def test_tags_of_the_published_pattern(tag):
    name = parse_name(f"200128-{tag}-fc12-GSR_Ben.mat")
    assert (name.date, name.mouse, name.run) == ("200128", tag, 12)


@pytest.mark.parametrize("name", ["200128-L-2-fc1-GSR.mat", "200128_L2_fc1.mat"])
def test_file_that_is_nearly_named_is_no_silent_loss(tmp_path, name):
    touch(tmp_path, "200128-L2-fc1-GSR.mat", name, "200128-L2-LandmarksandMask.mat")
    with pytest.raises(InputError, match=name):
        find_recordings(tmp_path)
    assert len(find_recordings(tmp_path, pattern="200128-L2-*")) == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("200128-L2-fc1-GSR_Ben.mat", "200128-L2-fc1-Affine.mat"), r"--pattern '\*-Affine.mat'"),
        (("200128-L2-fc1-GSR.mat", "backup/200128-L2-fc1-GSR.mat"), "backup"),
    ],
)
def test_one_run_in_two_files_is_refused(tmp_path, names, said):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match="has the same date, mouse and run as") as fault:
        find_recordings(tmp_path)
    assert "keep one file of each run" in str(fault.value)
    assert re.search(said, str(fault.value))


def test_links_are_followed_and_counted_once(tmp_path):
    touch(tmp_path, "store/200128-L2-fc1-a.mat", "raw/200127-L1-fc1-a.mat", "raw/.hidden-fc1.mat")
    os.symlink(tmp_path / "store", tmp_path / "raw" / "200128")
    os.symlink(tmp_path / "store", tmp_path / "raw" / "again")
    os.symlink(tmp_path / "raw", tmp_path / "raw" / "loop")
    paths = find_recordings(tmp_path / "raw")
    assert [path.name for path in paths] == ["200127-L1-fc1-a.mat", "200128-L2-fc1-a.mat"]


def record(date, tag, run=1, epoch=0, frames=168):
    return Record(None, 0, 0, 0, date, tag, run, epoch, epoch, frames, 16, 16, "")


def test_mice_are_named_by_date_tag_or_both(tmp_path):
    held = [record("200127", "L2"), record("200128", "L2"), record("200128", "M5")]
    assert of_mice(held, ["200128"], tmp_path) == held[1:]
    assert of_mice(held, ["L2"], tmp_path) == held[:2]
    assert of_mice(held, ["200128-M5", "200127"], tmp_path) == [held[0], held[2]]
    with pytest.raises(InputError, match="2 more of the split has no epochs there") as fault:
        of_mice(held, ["M6", *"abcdef"], tmp_path)
    said = str(fault.value)
    assert "mouse M6, a, b, c, d and 2 more of" in said
    assert "found 200127-L2, 200128-L2, 200128-M5; name your own mice in a --split_file" in said
    with pytest.raises(InputError, match="is a date code and a tag as well"):
        of_mice([*held, record("200204", "200127")], ["200127"], tmp_path)


def test_animal_under_two_names_is_refused(tmp_path):
    held = [record(d, t) for d, t in (("200127", "L2"), ("200128", "M5"), ("200129", "M6"))]
    mice = MouseSplit(("200127", "M5"), ("200129",), ("L2",))
    with pytest.raises(InputError, match="200127-L2 is in two of train, val and test"):
        split_records(held, mice, "mouse", seed=1, where=tmp_path)
    leak = MouseSplit(mice.train, mice.val, mice.test, allow_leak=True)
    text = split_records(held, leak, "mouse", seed=1, where=tmp_path).text
    assert text == "leak allowed: mouse 200127-L2 is in training and in the test"


@pytest.mark.parametrize("seconds", [10, 15, 20, 25, 30])
def test_blocks_share_no_frame(seconds):
    frames = frames_of(seconds)
    side = (frames - 168) // 2
    records = [record("200128", "L2", epoch=e, frames=frames) for e in range(40)]

    def span(r):
        return set(range(r.epoch * 168 - side, (r.epoch + 1) * 168 + side))

    train, val, test = (set().union(*map(span, part)) for part in blocks(records))
    assert not train & val
    assert not val & test
    assert not train & test
    assert guard_epochs(frames) == (2 if seconds > 20 else 1)
    text = Split("block", *blocks(records)).text
    assert ("2 guard epochs" if seconds > 20 else "one guard epoch") in text


def test_corrected_scores_are_converted_again(tmp_path):
    """The size of a file says nothing: its content does."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    path = write(raw, "200128-L2-fc1-a", (0, 1, 3))
    size = path.stat().st_size
    create(raw, out, Storage())
    write(raw, "200128-L2-fc1-a", (1, 1, 1))
    assert path.stat().st_size == size
    create(raw, out, Storage(), Conversion(resume=True))
    assert [r.label for r in find_records(out)] == [1, 1, 1]


def test_another_mask_is_converted_again(tmp_path):
    raw, out, mask = tmp_path / "raw", tmp_path / "out", tmp_path / "mask.mat"
    path = write(raw, "200128-L2-fc1-a")
    with h5py.File(path, "r+") as file:
        del file["xform_mask"]
    half = np.ones((16, 16))
    for width in (8, 4):
        half[:, :width] = 0
        scipy.io.savemat(mask, {"xform_mask": half})
        create(raw, out, Storage(), Conversion(mask_file=mask, resume=True))
        assert read_mask_of(find_records(out)[0]).sum() == half.sum()
        half[:] = 1


def test_overwrite_leaves_no_old_epochs(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    how = Storage(reference_format=True)
    write(raw, "200128-L2-fc1-a", (0, 1, 0), size=128)
    create(raw, out, how)
    write(raw, "200128-L2-fc1-a", (2, 3, 2), size=128)
    create(raw, out, how, Conversion(overwrite=True))
    assert [r.label for r in find_records(out)] == [2]
    shutil.move(raw / "200128-L2-fc1-a.mat", raw / "200128-L2-fc1-b.mat")
    with pytest.raises(InputError, match="from another file; both would be counted"):
        create(raw, out, how, Conversion(overwrite=True))


def test_a_recording_that_changes_while_it_is_read_has_no_identity(tmp_path):
    path = write(tmp_path, "200128-L2-fc1-a")
    with identified(path, None) as known:
        assert known["source_sha256"] == sha256(path)
        assert known["source_bytes"] == path.stat().st_size
    said = r"fc1-a\.mat: changed while it was read"
    with pytest.raises(InputError, match=said), identified(path, None):
        write(tmp_path, "200128-L2-fc1-a", codes=(1, 1))


def test_copy_of_a_shard_is_refused(tmp_path):
    write(tmp_path / "raw", "200128-L2-fc1-a")
    create(tmp_path / "raw", tmp_path / "out", Storage())
    shutil.copytree(tmp_path / "out" / "200128", tmp_path / "out" / "backup")
    with pytest.raises(InputError, match="holds epoch 0 of run 1 of mouse 200128-L2, and so does"):
        find_records(tmp_path / "out")


def test_transposed_mask_is_said(tmp_path, caplog):
    mask = np.ones((16, 16), bool)
    mask[10:] = False
    movie = np.random.default_rng(0).normal(size=(2, 168, 16, 16)).astype(np.float32) * mask
    write_recording(tmp_path / "200128-L2-fc1-a.mat", movie, mask.T, [0, 1])
    with caplog.at_level(logging.WARNING):
        create(tmp_path, tmp_path / "out", Storage())
    assert "60 of 160 pixels inside the brain mask never change" in caplog.text
    caplog.clear()
    check_data(["--data_path", str(tmp_path)])
    assert "60 of 160 pixels inside the brain mask never change" in caplog.text
    caplog.clear()
    write_recording(tmp_path / "200128-L2-fc1-a.mat", movie, mask, [0, 1])
    create(tmp_path, tmp_path / "out", Storage(), Conversion(overwrite=True))
    assert "never change" not in caplog.text
