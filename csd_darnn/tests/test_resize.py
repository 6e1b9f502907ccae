"""Resizing with its cache, cutting in space and time, CSV and splits."""

import json
import os

import h5py
import numpy as np
import pytest
import tifffile

from common.files import InputError
from helpers import call, run_script
from inputs.movie_files import open_movie, read_movie, write_tiff
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
from inputs.scales import Known, Scales


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
    dark = Scales(offset=Known(7.0, "flag"))  # lies in a JSON file beside each strip
    crop_numpy_width(movie, tmp_path, None, 5, target_rc=(0, 0), scales=dark)
    assert len(list(tmp_path.glob("video_*.json"))) == 5
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


def scaled(path, frames, **scales):
    """Write an NPY movie with the JSON file of its scales; return its path."""
    np.save(path, frames)
    told = dict(zip("FHW", frames.shape, strict=True)) | {"scales": scales}
    path.with_name(f"{path.name}.json").write_text(json.dumps(told))
    return path


SMALLER = ("--new_width", 9, "--new_height", 6, "--number_splits", 2, "--target", "1,1")


def test_scales_and_their_origin_go_with_every_result(tmp_path, movie):
    times = [40 + 0.5 * k for k in range(10)]
    told = {"rate_hz": 2, "row_um": 10, "column_um": 10, "offset": 7}
    for name, more in (("even", {}), ("timed", {"frame_times_s": times})):
        source = scaled(tmp_path / f"{name}.npy", movie.astype(np.float32), **told, **more)
        given = "--video_dir", source, "--output_dir", tmp_path / name, *SMALLER, "--crop_time"
        done = call("resize.py", *given)
        assert done.returncode == 0, done.stderr
        for file in ("resized.npy", "resized_video.tiff", "splits/video_1.tiff", "test_part.tiff"):
            scales = open_movie(tmp_path / name / file).scales
            assert (scales.rate_hz.value, scales.offset.value) == (2, 7), file
            assert scales.row_um.value == pytest.approx(20)
            if more:
                assert scales.frame_times_s.value[0] == (43.5 if file[0] == "t" else 40)
                assert f"the first at {43.5 if file[0] == 't' else 40:g} s" in scales.words()
        note = open_movie(tmp_path / name / "test_part.tiff").scales.note
        assert note == "frames from 7 of resized_video.tiff on (test_part.tiff.json)"


def test_times_of_playback_stay_such(tmp_path, movie):
    times = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]  # proportions only
    scales = {"frame_times_s": times, "frame_times_origin": "file: played, GIF"}
    source = scaled(tmp_path / "a.npy", movie.astype(np.float32), **scales)
    resize_video(source, tmp_path / "out" / "resized_video.tiff", 9, 6)
    told = open_movie(tmp_path / "out" / "resized.npy").scales
    assert told.frame_times_s.origin == "file: played, resized.json"
    stretched = told.at_rate(Known(4.0, "flag")).frame_times_s.value
    np.testing.assert_allclose(stretched, np.array(times) / 4)


def test_new_scales_of_the_same_movie_are_taken(tmp_path, movie):
    source, out = tmp_path / "a.npy", tmp_path / "out"
    scaled(source, movie.astype(np.float32), rate_hz=10)
    given = "--video_dir", source, "--output_dir", out, *SMALLER
    assert call("resize.py", *given).returncode == 0
    scaled(source, movie.astype(np.float32), rate_hz=20)
    assert call("resize.py", *given).returncode == 0
    assert open_movie(out / "resized_video.tiff").scales.rate_hz.value == 20
    done = call("resize.py", *given, "--frame_rate_hz", 5, "--pixel_um", 3)
    assert "--frame_rate_hz 5 differs from 20" in done.stderr
    scales = load_recording(out / "splits" / "crop_0.csv").scales
    assert (scales.rate_hz.value, scales.row_um.value) == (5, 6)
    assert "reused" in call("resize.py", *given, "--frame_rate_hz", 5, "--pixel_um", 3).stdout


def test_channel_axes_and_dataset_are_chosen_as_elsewhere(tmp_path, movie):
    pair = np.stack((movie, movie // 3), axis=1)  # (F, 2, H, W)
    tifffile.imwrite(tmp_path / "two.tif", pair, imagej=True, metadata={"axes": "TCYX"})
    np.save(tmp_path / "turned.npy", movie.transpose(1, 2, 0))
    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["a"], file["b"] = movie // 3, movie
    wanted = resize_block(movie, 9, 6)
    for name, *flags in (
        ("two.tif", "--channel", "1/2"),
        ("turned.npy", "--axes", "HWF"),
        ("both.h5", "--dataset", "b"),
    ):
        out = tmp_path / "out"  # one folder: another choice is another result
        given = "--video_dir", tmp_path / name, "--output_dir", out, *SMALLER
        done = call("resize.py", *given, *flags)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(np.load(out / "resized.npy"), wanted)
    assert call("resize.py", *given, "--dataset", "a").returncode == 0
    np.testing.assert_array_equal(np.load(out / "resized.npy"), resize_block(movie // 3, 9, 6))


def test_no_result_replaces_the_movie_or_another_result(tmp_path, movie):
    out = tmp_path / "out"
    given = "--output_dir", out, *SMALLER
    assert call("resize.py", "--video_dir", tmp_path / "movie.tif", *given).returncode == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for source, *flags in (
        ("out/resized.npy",),
        ("out/resized_video.tiff",),
        ("out/splits/video_0.tiff", "--new_width", 4),
        ("movie.tif", "--csv_path", "resized.npy"),
        ("movie.tif", "--csv_path", "splits/crop_0.csv"),
        ("movie.tif", "--csv_path", "resized.json"),
        ("movie.tif", "--crop_time", "--start", 5, "--stop", 2),
    ):
        done = call("resize.py", "--video_dir", tmp_path / source, *given, *flags)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), source
        assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match="is the movie itself"):
        crop_tiff_time(tmp_path / "movie.tif", tmp_path / "movie.tif", 0, 3)


def test_a_packed_csv_is_packed_and_read_again(tmp_path, movie):
    path = convert_csv(movie, tmp_path / "movie.csv.gz", scales=Scales(rate_hz=Known(5, "flag")))
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    recording = load_recording(path)
    np.testing.assert_array_equal(recording.values.reshape(movie.shape), movie)
    assert recording.scales.rate_hz.value == 5


def test_values_that_float32_does_not_hold_are_named(tmp_path, movie, capsys):
    out = tmp_path / "out" / "resized_video.tiff"
    np.save(tmp_path / "high.npy", 2**31 + (movie % 100).astype(np.uint32))
    resize_video(tmp_path / "high.npy", out, 9, 6)
    assert "rounds by up to 99, more than 1 % of what they vary by" in capsys.readouterr().err
    np.save(tmp_path / "large.npy", movie * 1e40)
    with pytest.raises(InputError, match="expected what a float32 holds"):
        resize_video(tmp_path / "large.npy", out, 9, 6)
    np.save(tmp_path / "plain.npy", movie.astype(np.float64) / 7)
    resize_video(tmp_path / "plain.npy", out, 9, 6)
    assert "rounds" not in capsys.readouterr().err
