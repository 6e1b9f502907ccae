"""The synthetic movie holds what its truth tells."""

import json
from dataclasses import replace

import numpy as np
import pytest

from demo.synthetic import csd_trace, event_trace, make_demo
from helpers import call, run_script
from inputs.reading import load_recording
from settings import DemoMovie

SMALL = DemoMovie(n_frames=1500, height=12, width=20)


def lagged(a, b, lag):
    """Return the correlation of ``b`` with ``a`` ``lag`` frames earlier."""
    return np.corrcoef(a[: len(a) - lag], b[lag:])[0, 1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of the demo's movie and its truth, read only."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, make_demo(folder)


def private_traces(folder, truth):
    """Return (mean of the driver patch, target) minus the mean of the field, before the wave."""
    movie = load_recording(folder / truth["movie"]).movie()
    movie = movie[: int(truth["csd_start_frame"])] / movie.mean(axis=0)
    mask = np.array(truth["driver_mask"], bool)
    field = movie[:, ~mask].mean(axis=1)
    row, column = truth["target"]
    return movie[:, mask].mean(axis=1) - field, movie[:, row, column] - field


def test_movie_and_truth(demo):
    folder, truth = demo
    recording = load_recording(folder / "movie.tif")
    assert recording.movie().shape == (3000, 18, 23)
    assert recording.movie().dtype == np.float32
    assert recording.scales.rate_hz.value == pytest.approx(10)
    assert recording.scales.column_um.value == pytest.approx(4000 / 23, rel=1e-4)
    assert truth == json.loads((folder / "truth.json").read_text())
    assert truth["target"] == [9, 16]
    assert truth["origin"] == [9, 1]
    mask = np.array(truth["driver_mask"])
    assert np.argwhere(mask).min(axis=0).tolist() == [2, 2]
    assert np.argwhere(mask).max(axis=0).tolist() == [5, 5]
    # 10 pixels of 174 um at 3.5 mm/min and 10 frames/s
    arrival = truth["arrival_frame"][9][11]
    assert arrival == pytest.approx(2250 + 10 * 4 / 23 / 3.5 * 600)


def test_target_repeats_the_driver_three_frames_later(demo):
    driver, target = private_traces(*demo)
    by_lag = [lagged(driver, target, lag) for lag in range(7)]
    assert int(np.argmax(by_lag)) == 3
    assert by_lag[3] > 0.7


def test_negative_control_removes_the_events_from_the_patch_only(demo, tmp_path):
    driver, target = private_traces(tmp_path, make_demo(tmp_path, DemoMovie(driver=False)))
    assert abs(lagged(driver, target, 3)) < 0.15
    _, with_driver = private_traces(*demo)
    assert target.std() == pytest.approx(with_driver.std(), rel=0.05)


def test_csd_and_depression(tmp_path):
    assert csd_trace(np.array([-30.0, 0, 10, 25]))[[0, 1]].tolist() == pytest.approx([0, 0.2])
    assert csd_trace(np.array([25.0]))[0] == pytest.approx(0.4 / np.e, rel=1e-3)
    make_demo(tmp_path / "quiet", replace(SMALL, depression=True))
    make_demo(tmp_path / "plain", SMALL)
    make_demo(tmp_path / "twice", replace(SMALL, train_csd=True))
    movies = {p.parent.name: load_recording(p).movie() for p in tmp_path.glob("*/movie.tif")}
    np.testing.assert_array_equal(movies["quiet"][:1100], movies["plain"][:1100])
    difference = (movies["twice"] - movies["plain"]).mean(axis=(1, 2))
    assert np.abs(difference[:300]).max() < 1
    assert difference[375:700].max() > 15


def test_event_trace_is_the_kernel_of_each_event():
    early = event_trace(500, (20, 80), np.random.default_rng(5))
    late = event_trace(500, (20, 80), np.random.default_rng(5), delay=3)
    np.testing.assert_allclose(late[3:], early[:-3])
    first = int(np.flatnonzero(early)[0])
    ratio = early[first + 1 : first + 15] / early[first]
    np.testing.assert_allclose(ratio, 2 * np.exp(-np.arange(1, 15) / 6))


def test_same_seed_same_file_and_reuse(tmp_path):
    first = make_demo(tmp_path / "a", SMALL)
    assert first["movie_sha256"] == make_demo(tmp_path / "b", SMALL)["movie_sha256"]
    assert (
        first["movie_sha256"] != make_demo(tmp_path / "c", replace(SMALL, seed=1))["movie_sha256"]
    )
    movie = tmp_path / "a" / "movie.tif"
    stamp = movie.stat().st_mtime_ns
    make_demo(tmp_path / "a", SMALL)
    assert movie.stat().st_mtime_ns == stamp
    movie.write_bytes(movie.read_bytes()[:-1])
    assert make_demo(tmp_path / "a", SMALL) == first
    assert load_recording(movie).movie().shape == (1500, 12, 20)


def test_script(tmp_path):
    done = run_script("make_demo.py", "--out_dir", tmp_path, "--n_frames", 300)
    assert done.returncode == 0, done.stderr
    assert load_recording(tmp_path / "movie.tif").movie().shape == (300, 18, 23)
    wrong = call("make_demo.py", "--out_dir", tmp_path, "--height", 3)
    assert wrong.returncode == 2
    assert "height" in wrong.stderr
