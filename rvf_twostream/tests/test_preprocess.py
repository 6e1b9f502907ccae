"""preprocess.py: sorting, resizing, normalising, running again, kills and bad inputs."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from skimage.transform import resize as published_resize

from common.files import InputError
from inputs.dicom_io import read_frames
from inputs.frames import movie_from_frames, resample_time
from inputs.movies import read_clip
from inputs.one_dicom import dicom_to_input, dicom_to_stored
from inputs.recipe import Recipe
from inputs.resize import resize_frame, resize_img_list
from inputs.sorting import read_manifest
from inputs.storage import Scaling
from little import (
    FOLDER,
    assert_one_line,
    call_script,
    compute_flow,
    preprocess,
    run_script,
    texture,
    tree,
    write_data_set,
    write_dicom,
)


@pytest.mark.parametrize("size", [(300, 400), (96, 130), (112, 150), (50, 700)])
def test_resize_equals_the_published_one(size):
    frame = np.random.default_rng(0).random(size)
    np.testing.assert_allclose(
        resize_frame(frame, 112, 112), published_resize(frame, (112, 112)), atol=1e-6
    )
    field = np.random.default_rng(1).random((*size, 2))
    np.testing.assert_allclose(
        resize_frame(field, 112, 112), published_resize(field, (112, 112)), atol=1e-6
    )


def test_resize_passes_a_frame_of_the_right_size():
    frames = np.random.default_rng(0).random((3, 112, 112)).astype(np.float32)
    np.testing.assert_array_equal(resize_img_list(frames, 112, 112), frames)


def test_movie_is_scaled_by_its_maximum_and_an_empty_one_is_an_error():
    movie = movie_from_frames(texture(3).astype(np.float32))
    assert movie.shape == (3, 112, 112, 1)
    assert movie.dtype == np.float32
    assert movie.max() == 1
    with pytest.raises(InputError, match="maximum is 0"):
        movie_from_frames(np.zeros((3, 50, 50), np.float32))


def test_resampling_in_time_is_linear():
    frames = np.arange(11, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    twice = resample_time(frames, 30.0, 60.0)
    np.testing.assert_allclose(twice[:, 0, 0], np.arange(21) / 2, atol=1e-6)
    with pytest.raises(InputError, match="no frame rate"):
        resample_time(frames, None, 60.0)


SMALL = {"nrows": 32, "ncols": 32}  # of the movies where their size proves nothing
FLAGS = ("--nrows", 32, "--ncols", 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four patients with two movies of 34 frames each; only read."""
    return write_data_set(tmp_path_factory.mktemp("made") / "set", movies=2, rows=64, cols=80)


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def prepare(root, **settings):
    """Preprocess a data set to small movies."""
    return preprocess(root, **{**SMALL, **settings})


def test_script_end_to_end(root):
    done = run_script("preprocess.py", "--root", root)
    assert done.returncode == 0, done.stderr
    stats = json.loads((root / "data_mean_std.json").read_text())
    assert stats["n_movies"] == 8
    assert stats["files"] == "all"
    classmap = json.loads((root / "classmap.json").read_text())
    assert classmap["p02a"] == 3
    assert classmap["p03b"] == 1
    movies = [np.load(root / "processed_dicoms" / f"{stem}.npy") for stem in classmap]
    assert all(m.shape == (34, 112, 112, 1) and m.dtype == np.uint8 for m in movies)
    assert all(m.max() == 255 for m in movies)
    mean = np.mean([m.mean() / 255 for m in movies])
    std = np.sqrt(np.mean([(m / 255).var() for m in movies]))
    np.testing.assert_allclose([stats["mean"], stats["std"]], [mean, std], atol=1e-7)
    clip = read_clip(root / "processed_dicoms" / "p02a.npy", 1, 8, Scaling.zscore(mean, std))
    true = movie_from_frames(read_frames(root / "p02_0.dcm")[0])[1:9]
    np.testing.assert_allclose(clip, (true - mean) / std, atol=0.51 / 255 / std)
    assert not (root / "normalized_dicoms").exists()
    assert (root / "severe" / "p02a.dcm").samefile(root / "p02_0.dcm")
    rows = {row["source"]: row for row in read_manifest(root)}
    assert rows["p02_0.dcm"]["status"] == "processed"
    assert rows["p02_0.dcm"]["fps"] == "30.0000"


def test_workers_give_the_same_bytes_and_a_second_run_changes_nothing(root, made, tmp_path, capsys):
    again = shutil.copytree(made, tmp_path / "again")
    assert prepare(root) == 0
    assert call_script("preprocess.py", "--root", again, "-m", *FLAGS).returncode == 0
    assert compute_flow(root, **SMALL) == 0
    assert (
        call_script(
            "optical_flow_calculator.py", "--root", again, "--workers", 2, *FLAGS
        ).returncode
        == 0
    )
    movies = {name: data for name, data in tree(root).items() if name.endswith(".npy")}
    assert len(movies) == 16
    assert movies == {name: data for name, data in tree(again).items() if name.endswith(".npy")}
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*.npy")}
    for repeat in (preprocess, compute_flow):
        assert repeat(root, **SMALL) == 0
        assert "nothing changed" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*.npy")}
    assert prepare(root, recalculate=True) == 0
    changed = [p for p, t in before.items() if p.stat().st_mtime_ns != t]
    assert len(changed) == 8  # the flows stay
    assert movies == {name: data for name, data in tree(root).items() if name.endswith(".npy")}


def test_new_files_continue_the_letters_and_leave_the_others_alone(root):
    assert prepare(root) == 0
    before = {p: p.read_bytes() for p in (root / "processed_dicoms").glob("*.npy")}
    # The new file sorts before the known ones by name.
    write_dicom(root / "a_new.dcm", texture(34, seed=77), "p01")
    assert prepare(root) == 0
    assert (root / "normal" / "p01c.dcm").samefile(root / "a_new.dcm")
    for path, content in before.items():
        assert path.read_bytes() == content
    new = np.load(root / "processed_dicoms" / "p01c.npy")
    expected = movie_from_frames(read_frames(root / "a_new.dcm")[0], 32, 32)
    np.testing.assert_array_equal(new, np.floor(255 * expected + np.float32(0.5)))


def test_move_duplicates_and_a_changed_class(root):
    (root / "copy.dcm").write_bytes((root / "p01_0.dcm").read_bytes())
    assert prepare(root, move=True) == 0
    assert sorted(p.name for p in root.glob("*.dcm")) == ["p01_0.dcm"]
    rows = {row["source"]: row for row in read_manifest(root)}
    assert rows["p01_0.dcm"]["reason"] == "same SOPInstanceUID as another file"
    (root / "p01_0.dcm").unlink()
    text = (root / "REDcap_class.csv").read_text().replace("p01,normal", "p01,severe")
    (root / "REDcap_class.csv").write_text(text)
    assert prepare(root) == 0
    assert (root / "severe" / "p01a.dcm").exists()
    assert not (root / "normal" / "p01a.dcm").exists()
    assert json.loads((root / "classmap.json").read_text())["p01a"] == 3


def test_movies_of_other_options_are_not_mixed(root):
    assert prepare(root) == 0
    with pytest.raises(InputError, match="crop none -> region"):
        prepare(root, crop="region")
    assert prepare(root, crop="region", recalculate=True) == 0
    with pytest.raises(InputError, match=r"preprocess\.py used --crop region"):
        compute_flow(root, **SMALL, crop="none")


def test_stats_of_training_patients_only(root):
    (root / "split_allocation_2.csv").write_text("p01,train\np02,train\np03,val\np04,test\n")
    assert prepare(root, stats="train", splitnum=2) == 0
    stats = json.loads((root / "data_mean_std.json").read_text())
    assert (stats["n_movies"], stats["files"]) == (4, "train split 2")


def test_one_dicom_becomes_the_input_of_the_training_set(root):
    prepare(root)
    compute_flow(root, **SMALL)
    stats = [
        json.loads((root / n).read_text()) for n in ("data_mean_std.json", "data_mean_std_OF.json")
    ]
    grey, flow, info = dicom_to_input(root / "p02_0.dcm", *stats)
    scaling = Recipe.of_root(root).scaling()
    for movie, folder, stream in ((grey, "processed_dicoms", "grey"), (flow, "processed_OF", "of")):
        stored = read_clip(root / folder / "p02a.npy", 0, 34, scaling[stream])
        np.testing.assert_array_equal(movie, stored)
    assert info["frame_rate_hz"] == pytest.approx(30)


@pytest.mark.slow
def test_kill_leaves_no_truncated_movie(tmp_path):
    root = write_data_set(tmp_path / "set", movies=4, rows=200, cols=300)
    command = [sys.executable, str(FOLDER / "preprocess.py"), "--root", str(root)]
    folders = [root / "processed_dicoms"]
    for wanted in (1, 5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(folders[0].glob("p*.npy"))) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for folder in folders:
            for path in folder.glob("p*.npy"):
                assert np.isfinite(np.load(path)).all()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    whole = write_data_set(tmp_path / "whole", movies=4, rows=200, cols=300)
    preprocess(whole)
    for folder in folders:
        for path in folder.glob("p*.npy"):
            assert path.read_bytes() == (whole / folder.name / path.name).read_bytes()


def test_one_bad_file_does_not_stop_the_others(root):
    content = (root / "p01_0.dcm").read_bytes()
    (root / "p01_0.dcm").write_bytes(content[: len(content) // 2])
    (root / "notes.dcm").write_text("no DICOM")
    write_dicom(root / "short.dcm", texture(20), "p01")
    write_dicom(root / "stranger.dcm", texture(34), "hospital4711")
    done = call_script("preprocess.py", "--root", root, *FLAGS)
    assert done.returncode == 1
    assert "p01_0.dcm" in done.stderr
    assert "17 expected" not in done.stderr
    assert "34 expected" in done.stderr
    assert "Traceback" not in done.stderr
    rows = {row["source"]: row for row in read_manifest(root)}
    assert rows["short.dcm"]["reason"] == "20 frames, 32 needed"
    assert rows["stranger.dcm"]["reason"] == "PatientID is not in the class file"
    assert rows["notes.dcm"]["status"] == "failed"
    assert sum(row["status"] == "processed" for row in rows.values()) == 7
    assert "hospital4711" not in done.stdout + (root / "manifest.csv").read_text()
    assert "hospital4711" in call_script("preprocess.py", "--root", root, *FLAGS, "--debug").stdout


def test_too_many_movies_of_a_patient(tmp_path):
    root = write_data_set(tmp_path / "set", ids=("p01",), movies=37, n=32, rows=16, cols=16)
    write_dicom(root / "other.dcm", texture(32, 16, 16), "q01")
    with open(root / "REDcap_class.csv", "a") as handle:
        handle.write("q01,severe\n")
    done = call_script("preprocess.py", "--root", root, *FLAGS)
    assert done.returncode == 0, done.stderr
    rows = {row["source"]: row for row in read_manifest(root)}
    assert rows["other.dcm"]["status"] == "processed"
    assert rows["p01_36.dcm"]["status"] == "skipped"
    assert "p01 has more than 36 movies" in rows["p01_36.dcm"]["reason"]
    assert sum(row["status"] == "processed" for row in rows.values()) == 37


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "REDcap_class.csv").unlink(), ("REDcap_class.csv", "not found")),
        (
            lambda root: (root / "REDcap_class.csv").write_text(
                "id,class\np01,normal\np02,sever\n"
            ),
            ("row 3", "sever", "normal, mild, moderate, severe"),
        ),
        (
            lambda root: (root / "REDcap_class.csv").write_text("p01,normal\np01,severe\n"),
            ("p01", "both normal and severe"),
        ),
        (lambda root: [p.unlink() for p in root.glob("*.dcm")], ("no DICOM files",)),
        (
            lambda root: (root / "REDcap_class.csv").write_text("q1,normal\n"),
            ("no usable movie",),
        ),
    ],
)
def test_bad_inputs_are_one_line(root, change, words):
    change(root)
    done = call_script("preprocess.py", "--root", root, *FLAGS)
    done.stderr = "\n".join(x for x in done.stderr.splitlines() if x.startswith("error"))
    assert_one_line(done, *words)


def test_missing_root_and_unknown_flag(tmp_path):
    done = call_script("preprocess.py", "--root", tmp_path / "none")
    assert_one_line(done, "no such folder")
    done = call_script("preprocess.py", "--root", tmp_path, "--recalculat")
    assert_one_line(done, "did you mean --recalculate?")
    done = call_script("preprocess.py", "--root", tmp_path, "--nrows", 8)
    assert_one_line(done, "--nrows", ">= 32")


def test_upper_case_class_is_accepted_with_a_warning(root):
    text = (root / "REDcap_class.csv").read_text().replace("p02,severe", "p02,Severe ")
    (root / "REDcap_class.csv").write_text(text)
    with pytest.warns(UserWarning, match="lower case"):
        assert prepare(root) == 0
    with open(root / "manifest.csv", newline="") as handle:
        assert {r["class"] for r in csv.DictReader(handle) if r["id"] == "p02"} == {"severe"}


def test_an_interrupted_change_of_options_leaves_no_old_movie(root):
    assert prepare(root) == 0
    (root / "p01_0.dcm").write_text("damaged")  # stops the recalculation of one movie
    (root / "normal" / "p01a.dcm").unlink()
    assert prepare(root, nrows=40, recalculate=True) == 1
    assert not (root / "processed_dicoms" / "p01a.npy").exists()
    sizes = {np.load(p).shape[1] for p in (root / "processed_dicoms").glob("*.npy")}
    assert sizes == {40}


def test_a_dicom_may_have_any_name(root):
    (root / "p01_0.dcm").rename(root / "1.2.840.10008.77")
    (root / "p01_1.dcm").rename(root / "IM0001")
    assert prepare(root) == 0
    assert {row["source"] for row in read_manifest(root)} >= {"1.2.840.10008.77", "IM0001"}


def test_one_dicom_tells_where_its_rate_comes_from(root, tmp_path):
    prepare(root)
    compute_flow(root, **SMALL)
    grey, flow = (
        json.loads((root / n).read_text()) for n in ("data_mean_std.json", "data_mean_std_OF.json")
    )
    info = dicom_to_stored(root / "p02_0.dcm", grey, flow)[2]
    assert info["frame_rate_origin"].startswith("file: FrameTime")
    silent = write_dicom(
        tmp_path / "a.dcm", texture(34, 96, 128), "p09", FrameTime=None, CineRate=None
    )
    assert dicom_to_stored(silent, grey, flow)[2]["frame_rate_hz"] is None
    # The training set was made with --frame_rate 25: not this file's rate, so it is said.
    for stats in (grey, flow):
        stats["options"]["frame_rate"] = 25.0
    info = dicom_to_stored(silent, grey, flow)[2]
    assert info["frame_rate_hz"] == 25
    assert info["frame_rate_origin"] == "--frame_rate of the training data"
    assert "its frame rate is unknown: 25/s" in info["warnings"][-1]
    info = dicom_to_stored(silent, grey, flow, frame_rate=40.0)[2]
    assert (info["frame_rate_hz"], info["frame_rate_origin"]) == (40, "flag --frame_rate")
    assert not any("unknown: 25" in text for text in info["warnings"])
    grey["options"]["resample_fps"] = flow["options"]["resample_fps"] = 20.0
    info = dicom_to_stored(silent, grey, flow, frame_rate=40.0)[2]
    assert (info["frame_rate_hz"], info["n_frames"]) == (20, 34)
    assert info["frame_rate_origin"] == "resampled; flag --frame_rate"
