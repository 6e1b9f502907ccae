"""prepare_echonet.py on a look-alike of EchoNet-Dynamic."""

import csv
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from common.files import InputError
from demo.synthetic import write_echonet
from inputs.echonet import find_videos, prepare, read_file_list
from inputs.video import read_video
from little import assert_one_line, call_script, run_script
from settings import echonet_settings


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four videos of 34 to 40 frames."""
    root = tmp_path_factory.mktemp("echonet") / "set"
    write_echonet(root, n_videos=4, seed=1, frames=(34, 40))
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def test_look_alike_has_the_published_layout(made):
    with open(made / "FileList.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    columns = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
    assert ",".join(rows[0]) == columns
    for row in rows:
        frames, rate = read_video(made / "Videos" / f"{row['FileName']}.avi")
        assert frames.shape == (int(row["NumberOfFrames"]), 112, 112)
        assert rate == pytest.approx(float(row["FPS"]))
        ef = 100 * (1 - float(row["ESV"]) / float(row["EDV"]))
        assert ef == pytest.approx(float(row["EF"]), abs=1e-3)
    with open(made / "VolumeTracings.csv", newline="") as handle:
        assert len(list(csv.DictReader(handle))) == 4 * 2 * 21


def test_script_end_to_end(root):
    done = run_script("prepare_echonet.py", "--root", root, "-m")
    assert done.returncode == 0, done.stderr
    targets = json.loads((root / "filename2class.json").read_text())
    assert len(targets) == 4
    movies = [np.load(p).astype(float) for p in sorted((root / "train_norm1").glob("*.npy"))]
    assert len(movies) == 3
    assert np.load(next((root / "train_norm_OF").glob("*.npy"))).shape[1:] == (112, 112, 2)
    # z-scored with the training videos: mean of means 0, mean of variances 1, up to float16
    assert abs(np.mean([m.mean() for m in movies])) < 1e-3
    assert abs(np.mean([m.var() for m in movies]) - 1) < 2e-3
    assert not (root / "unscaled_norm1").exists()
    assert "exist already" in call_script("prepare_echonet.py", "--root", root).stdout


def test_unusable_videos_are_listed_and_the_rest_is_done(root):
    names = sorted(p.stem for p in (root / "Videos").iterdir())
    (root / "Videos" / f"{names[0]}.avi").write_bytes(b"no video")
    (root / "Videos" / f"{names[1]}.avi").unlink()
    fourcc = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(root / "Videos" / f"{names[3]}.avi"), fourcc, 30, (112, 112))
    for _ in range(20):
        writer.write(np.full((112, 112, 3), 80, np.uint8))
    writer.release()
    assert (
        prepare(root, echonet_settings(kinds=("norm1",), nrows=40, ncols=48, dtype="float32")) == 0
    )
    with open(root / "skipped.csv", newline="") as handle:
        skipped = {row["file"]: row["reason"] for row in csv.DictReader(handle)}
    assert set(skipped) == {names[0], names[1], names[3]}
    assert "20 frames, 32 needed" in skipped[names[3]]
    assert np.load(root / "train_norm1" / f"{names[2]}.npy").shape[1:] == (40, 48, 1)
    assert not (root / "train_norm_OF").exists()
    with pytest.raises(InputError, match="other options"):
        prepare(root, echonet_settings(kinds=("norm1",)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("Split", "Part"), ("columns missing: Split", "--make_split")),
        (("EF,", "Fraction,"), ("columns missing: EF",)),
        (("TRAIN", "EXTRA"), ("row 2", "EXTRA", "TRAIN, VAL, TEST")),
        (("0XSYN000001", "0XSYN000000"), ("occurs twice",)),
    ],
)
def test_bad_lists(root, change, words):
    path = root / "FileList.csv"
    path.write_text(path.read_text().replace(*change))
    assert_one_line(call_script("prepare_echonet.py", "--root", root), *words)


def test_suffixes_and_a_drawn_split(root):
    path = root / "FileList.csv"
    lines = [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]
    lines[1] = lines[1].replace(",", ".avi,", 1)
    path.write_text("\n".join(lines))
    table = read_file_list(root, make_split=True, seed=0)
    assert sorted(table) == [f"0XSYN{k:06d}" for k in range(4)]
    assert {split for _, split in table.values()} >= {"train"}
    assert table == read_file_list(root, make_split=True, seed=0)


def test_missing_folder_and_list(tmp_path):
    assert_one_line(call_script("prepare_echonet.py", "--root", tmp_path / "x"), "no such folder")
    assert_one_line(
        call_script("prepare_echonet.py", "--root", tmp_path), "FileList.csv", "not found"
    )


def test_a_picture_whose_name_is_damaged_is_missed(tmp_path):
    """Every decoder passes over it: before, a movie of 8 pictures was read as one of 7."""
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (48, 32))
    for _ in range(8):
        writer.write(np.zeros((32, 48, 3), np.uint8))
    writer.release()
    assert len(read_video(path)[0]) == 8
    data = bytearray(path.read_bytes())
    at = data.index(b"00dc", data.index(b"00dc", data.index(b"movi")) + 4)
    data[at] ^= 1 << 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="7 of 8 pictures"):
        read_video(path)


def video_list(root, text):
    """Write a FileList.csv and an empty folder of videos."""
    (root / "Videos").mkdir(exist_ok=True)
    (root / "FileList.csv").write_text(f"FileName,EF,Split\n{text}")
    return root


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,0.55,TRAIN\nb,0.6,VAL\n", "EF is at most 0.6: these are fractions"),
        ("a,55,TRAIN\n../../b,60,VAL\n", "it holds /"),
        ("a,55,TRAIN\n.b,60,VAL\n", "begins with ."),
        ("a,55,TRAIN\nb\n", "shorter than the header"),
    ],
)
def test_lists_that_mislead_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        read_file_list(video_list(tmp_path, text))


def test_a_name_means_one_video_in_any_case(tmp_path):
    video_list(tmp_path, "a.AVI,55,TRAIN\n")
    assert list(read_file_list(tmp_path)) == ["a"]
    (tmp_path / "Videos" / "a.AVI").write_bytes(b"x")
    assert find_videos(tmp_path, ["a", "b"]) == {
        "a": tmp_path / "Videos" / "a.AVI",
        "b": tmp_path / "Videos" / "b.avi",
    }
    (tmp_path / "Videos" / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.AVI and a\.mp4 have one name"):
        find_videos(tmp_path, ["a"])


def test_a_video_in_another_set_does_not_stay_in_both(root):
    made = echonet_settings(kinds=("norm1",), nrows=32, ncols=32)
    prepare(root, made)
    listed = (root / "FileList.csv").read_text()
    name = next((root / "train_norm1").glob("*.npy")).stem
    lines = [
        line.replace("TRAIN", "VAL") if line.startswith(name) else line
        for line in listed.splitlines()
    ]
    (root / "FileList.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="in another set"):
        prepare(root, made)
    assert not (root / "val_norm1" / f"{name}.npy").exists()
    prepare(root, echonet_settings(kinds=("norm1",), nrows=32, ncols=32, recalculate=True))
    assert (root / "val_norm1" / f"{name}.npy").is_file()
    assert not (root / "train_norm1" / f"{name}.npy").exists()
    assert json.loads((root / "data_mean_std.json").read_text())["n_movies"] == 2
