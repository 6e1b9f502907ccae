"""Synthetic movies: the truth beside the files is what the files hold."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from common.files import InputError
from demo.synthetic import SMALL, DemoSettings, make_demo_data, make_movie
from inputs.data_processing import signal_to_noise
from inputs.movie_io import read_movie
from make_demo_data import main


def test_command_writes_files_and_truth(tmp_path):
    main(["--out", str(tmp_path), "--preset", "small", "--movies", "2", "--seed", "3"])
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [movie["id"] for movie in truth["movies"]] == ["01", "02"]
    assert truth["movies"][1]["waves"] + truth["movies"][1]["ignored"] >= 1
    movie = read_movie(tmp_path / "02_video.tif")
    assert (movie.data.shape, movie.data.dtype) == ((160, 32, 96), np.uint16)
    scale = movie.calibration
    assert (scale.pixel_um, scale.frame_ms) == (pytest.approx(0.2), pytest.approx(6.8))
    classes = read_movie(tmp_path / "02_class_label.tif").data
    events = read_movie(tmp_path / "02_event_label.tif").data
    np.testing.assert_array_equal(classes > 0, events > 0)
    with open(tmp_path / "02_truth.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["id"]) for row in rows] == list(range(5, 5 + len(rows)))
    for row in rows:
        inside = events == int(row["id"])
        assert inside.sum() == int(row["voxels"])
        assert set(np.unique(classes[inside])) <= {int(row["label"])}
    assert 2 < signal_to_noise(movie.data, classes) < 8


def test_same_settings_give_same_movie():
    first, second = (make_movie(DemoSettings(**SMALL), 1) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    other = make_movie(DemoSettings(**SMALL | {"seed": 1}), 1)[0]
    assert not np.array_equal(first[0], other)


def test_events_at_the_ends_are_ignored_but_keep_their_id():
    _, classes, events, truths = make_movie(DemoSettings(**SMALL), 0)
    marginal = np.unique(np.concatenate([events[:6].ravel(), events[-6:].ravel()]))
    for number in marginal[marginal > 0]:
        assert set(np.unique(classes[events == number])) == {4}
        assert truths[number - 5]["label"] == 4


def test_options(tmp_path):
    settings = SMALL | {"movies": 3, "waves": (1, 0, 0), "empty": 1, "short": True, "frames": 60}
    ids = make_demo_data(tmp_path, **settings)
    movies = json.loads((tmp_path / "truth.json").read_text())["movies"]
    assert ids == ["01", "02", "03"]
    assert movies[2]["sparks"] == movies[2]["waves"] == movies[2]["ignored"] == 0
    assert [movie["frames"] for movie in movies] == [60, 60, 24]


def test_touching_sparks_come_in_pairs():
    _, _, _, truths = make_movie(
        DemoSettings(**SMALL | {"touching": True, "rates": (12, 0, 0), "width": 300}), 0
    )
    assert len(truths) >= 8
    for one, other in zip(truths[::2], truths[1::2], strict=True):
        distance = np.hypot(one["y"] - other["y"], one["x"] - other["x"])
        assert distance <= 14.01


def test_standard_rates_scale_with_size():
    settings = DemoSettings(frames=125, height=32, width=512)
    numbers = [len(make_movie(settings, index)[3]) for index in range(4)]
    # 28 events in 8 times the voxels, and up to two waves.
    assert 1 <= np.mean(numbers) <= 8


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"waves": (1,)}, "--waves"), ({"frames": 0}, "--frames"), ({"empty": 9}, "--empty")],
)
def test_bad_settings(tmp_path, settings, text):
    with pytest.raises(InputError, match=text):
        make_demo_data(tmp_path, **SMALL | {"movies": 2} | settings)


def test_what_a_killed_process_left_is_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".01_video.{gone.pid}.tmp.tif"
    left.write_bytes(b"half a movie")
    main(["--out", str(tmp_path), "--preset", "small", "--movies", "1"])
    assert not left.exists()
    assert (tmp_path / "truth.json").is_file()


@pytest.mark.parametrize(
    "flags",
    [("--rates", "nan", "0", "0"), ("--seed", "-1"), ("--waves", "-1"), ("--pixel-um", "inf")],
)
def test_impossible_numbers_are_one_line(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as caught:
        main(["--out", str(tmp_path / "d"), "--preset", "small", "--movies", "1", *flags])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert flags[0] in told
    assert not list(tmp_path.rglob("*.tif"))


def test_movies_of_an_earlier_call_are_named(tmp_path, caplog):
    settings = {"frames": 8, "height": 8, "width": 16, "rates": (0, 0, 0)}
    make_demo_data(tmp_path, movies=2, **settings)
    assert not caplog.text
    make_demo_data(tmp_path, movies=1, **settings)
    assert "movies of an earlier call (02)" in caplog.text
