"""Resizing with its cache, cutting in space and time, CSV and splits."""

import json
import os

import numpy as np
import pytest

from common.files import InputError
from helpers import call, run_script
from inputs.movie_files import read_movie, write_tiff
from inputs.reading import load_recording
from inputs.recording import resolve_targets
from inputs.resizing import (
    convert_csv,
    crop_numpy_width,
    crop_tiff_time,
    crop_video,
    reader,
    resize_block,
    resize_video,
    split_borders,
)


@pytest.fixture
def movie(tmp_path):
    """A movie of 10 frames, 12 x 17 pixels, as big-endian ImageJ TIFF."""
    frames = np.random.default_rng(3).integers(0, 60000, (10, 12, 17)).astype(np.uint16)
    write_tiff(tmp_path / "movie.tif", frames)
    return frames


def test_resize_video_writes_npy_and_tiff_and_reuses_them(tmp_path, movie, capsys):
    out = tmp_path / "out" / "resized_video.tiff"
    first = resize_video(tmp_path / "movie.tif", out, 9, 6)
    assert first.shape == (10, 6, 9)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, resize_block(movie, 9, 6))
    np.testing.assert_array_equal(read_movie(out), first)
    recording = load_recording(out.with_name("resized.npy"))
    assert recording.shape == (6, 9)
    stamp = out.stat().st_mtime_ns
    resize_video(tmp_path / "movie.tif", out, 9, 6)
    assert "reused" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == stamp


def test_cache_is_not_used_for_another_movie_size_or_cut_file(tmp_path, movie):
    source, out = tmp_path / "movie.tif", tmp_path / "resized_video.tiff"
    resize_video(source, out, 9, 6)
    assert resize_video(source, out, 8, 6).shape == (10, 6, 8)
    state = source.stat()
    write_tiff(source, movie[::-1])
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))  # same size and time, other data
    changed = resize_video(source, out, 8, 6)
    np.testing.assert_array_equal(changed, resize_block(movie[::-1], 8, 6))
    out.write_bytes(out.read_bytes()[:100])
    resize_video(source, out, 8, 6)
    np.testing.assert_array_equal(read_movie(out), changed)


def test_warning_when_the_aspect_ratio_changes(tmp_path, movie, capsys):
    resize_video(tmp_path / "movie.tif", tmp_path / "a.tiff", 17, 6)
    assert "aspect ratio" in capsys.readouterr().err
    resize_video(tmp_path / "movie.tif", tmp_path / "b.tiff", 34, 24)
    assert capsys.readouterr().err == ""


def test_video_file_is_resized(tmp_path):
    from analysis.heatmap import write_mp4

    frames = np.stack([np.full((32, 32, 3), 20 * k, np.uint8) for k in range(8)])
    write_mp4(tmp_path / "movie.mp4", frames, 10, "1000k")
    small = resize_video(tmp_path / "movie.mp4", tmp_path / "resized_video.tiff", 16, 16)
    assert small.shape == (8, 16, 16)
    np.testing.assert_allclose(small.mean(axis=(1, 2)), 20 * np.arange(8), atol=3)
    assert reader(tmp_path / "movie.mp4").shape == (8, 32, 32)


def test_crop_video(movie):
    np.testing.assert_array_equal(crop_video(movie, 2, 3, 5, 7), movie[:, 2:7, 3:10])
    for place in ((8, 0, 5, 5), (-1, 0, 5, 5), (0, 0, 0, 5), (0, 13, 5, 5)):
        with pytest.raises(InputError, match="12 x 17"):
            crop_video(movie, *place)


def test_crop_tiff_time(tmp_path, movie):
    source, out = tmp_path / "movie.tif", tmp_path / "part.tif"
    crop_tiff_time(source, out)
    np.testing.assert_array_equal(read_movie(out), movie[7:])
    crop_tiff_time(source, out, start=2, stop=5)
    np.testing.assert_array_equal(read_movie(out), movie[2:5])
    with pytest.raises(InputError, match="10"):
        crop_tiff_time(source, out, start=4, stop=11)


def test_integers_stay_integers_in_the_csv(tmp_path):
    large = np.array([[[2**31 - 1, -(2**31)]], [[0, 16777217]]], np.int32)
    recording = load_recording(convert_csv(large, tmp_path / "large.csv"))
    np.testing.assert_array_equal(recording.movie(), large)


@pytest.mark.parametrize(("width", "count"), [(91, 7), (23, 4), (5, 5), (6, 1), (14, 3)])
def test_splits_cover_every_column_once(tmp_path, width, count):
    movie = np.random.default_rng(1).random((4, 3, width), np.float32)
    target = (1, int(0.6 * width))
    paths = crop_numpy_width(movie, tmp_path, None, count, target_rc=target)
    strips = [read_movie(tmp_path / f"video_{i}.tiff") for i in range(count)]
    np.testing.assert_array_equal(np.concatenate(strips, axis=2), movie)
    assert [b - a for a, b in split_borders(width, count)] == [s.shape[2] for s in strips]
    for path in paths:
        recording = load_recording(path)
        (column,) = resolve_targets(recording)
        series = recording.values[:, column].astype(np.float32)
        np.testing.assert_array_equal(series, movie[:, target[0], target[1]])


def test_target_given_as_series_is_found_or_asked_for(tmp_path, movie):
    crop_numpy_width(movie, tmp_path, movie[:, 4, 9], 3)
    told = json.loads((tmp_path / "splits.json").read_text())
    assert (told["target_row"], told["target_col"]) == (4, 9)
    twin = movie.copy()
    twin[:, 0, 0] = twin[:, 4, 9]
    for series, words in ((twin[:, 4, 9], "2 pixels"), (twin[:, 4, 9] + 1, "0 pixels")):
        with pytest.raises(InputError, match=words):
            crop_numpy_width(twin, tmp_path, series, 3)
    with pytest.raises(InputError, match="1 to 17"):
        crop_numpy_width(movie, tmp_path, None, 18, target_rc=(0, 0))
    with pytest.raises(InputError, match=r"rows 0\.\.11"):
        crop_numpy_width(movie, tmp_path, None, 2, target_rc=(12, 0))


def test_a_new_split_leaves_no_file_of_the_old_one(tmp_path, movie):
    crop_numpy_width(movie, tmp_path, None, 5, target_rc=(0, 0))
    crop_numpy_width(movie, tmp_path, None, 2, target_rc=(0, 0))
    assert sorted(p.name for p in tmp_path.glob("crop_*")) == ["crop_0.csv", "crop_1.csv"]
    assert len(list(tmp_path.glob("video_*"))) == 2


def test_script_resizes_and_splits(tmp_path, movie):
    done = run_script(
        "resize.py",
        "--video_dir", tmp_path / "movie.tif", "--output_dir", tmp_path / "out", "--new_width", 10,
        "--new_height", 8, "--number_splits", 3, "--target", "2,5", "--csv_path", "all.csv",
        "--crop_time",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_recording(tmp_path / "out" / "all.csv").movie().shape == (10, 8, 10)
    assert read_movie(tmp_path / "out" / "test_part.tiff").shape == (3, 8, 10)
    assert len(list((tmp_path / "out" / "splits").iterdir())) == 7


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--target", "99,1"), "outside"),
        (("--target", "x,1"), "row,column"),
        (("--number_splits", 30), "1 to 17"),
        (("--new_width", 0), "new_width"),
        (("--nwe_width", 5), "--new_width"),
        (("--video_dir", "no_such.tif"), "no_such.tif"),
    ],
)
def test_script_refuses_in_one_line(tmp_path, movie, arguments, word):
    defaults = ("--video_dir", tmp_path / "movie.tif", "--output_dir", tmp_path / "out",
                "--new_width", 17, "--new_height", 12, "--target", "2,5")  # fmt: skip
    done = call("resize.py", *defaults, *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
