"""Onset map and speed of a wave, without a network."""

import json

import numpy as np
import pytest

from analysis.onset import describe, first_lasting, fit_line, onset_map, write_onset
from common.files import InputError
from demo.synthetic import make_demo, synthesise
from helpers import call, run_script
from inputs.reading import load_recording
from inputs.scales import Known, Scales
from settings import DemoMovie, OnsetSettings


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("depression", [False, True])
def scales_of(rate_hz, pixel_um):
    """Return the Scales of a rate and square pixels."""
    size = Known(pixel_um, "flag")
    return Scales(Known(rate_hz, "flag"), row_um=size, column_um=size)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("depression", [False, True])
def test_planted_speed_and_origin_are_found(seed, depression):
    movie, truth = synthesise(DemoMovie(seed=seed, depression=depression))
    scales = scales_of(truth["frame_rate_hz"], truth["pixel_um"])
    found = onset_map(movie, scales, OnsetSettings(seed=seed))
    assert found["speed_mm_min"] == pytest.approx(truth["speed_mm_min"], rel=0.02)
    assert found["speed_low"] < found["speed_mm_min"] < found["speed_high"]
    assert found["origin"] == tuple(truth["origin"])
    planted = np.array(truth["arrival_frame"], float)
    late = found["arrival"] - planted
    assert found["n_pixels"] == planted.size
    assert abs(np.nanmedian(late)) < 10  # frames of 0.1 s


def test_other_speed_size_and_direction():
    """A plane wave of 2 mm/min from the right edge, with pixels of 50 um at 5 frames/s."""
    rate, pixel_um, speed = 5.0, 50.0, 2.0
    rng = np.random.default_rng(4)
    columns = np.arange(30)
    arrival = 100 + (29 - columns) * pixel_um / 1000 / speed * 60 * rate
    frames = np.arange(1200)[:, None, None]
    wave = (frames >= arrival) & (frames < arrival + 150)
    movie = 100 * (1 + 0.5 * wave) + rng.normal(0, 1, (1200, 12, 30))
    movie[:, :, 3] = 100 + rng.normal(0, 1, (1200, 12))  # a vessel: no wave there
    found = onset_map(movie, scales_of(rate, pixel_um))
    assert found["speed_mm_min"] == pytest.approx(speed, rel=0.1)
    assert found["origin"][1] >= 27
    assert np.isnan(found["arrival"][:, 3]).all()


def test_bleaching_is_no_arrival():
    """The movie ends before the wave has crossed the field; the rest only bleaches."""
    movie, truth = synthesise(DemoMovie(n_frames=1500))
    found = onset_map(movie, scales_of(10, truth["pixel_um"]))
    assert found["speed_mm_min"] == pytest.approx(3.5, rel=0.1)
    reached = np.array(truth["arrival_frame"], float) < 1500 - 60
    assert (np.isfinite(found["arrival"]) <= reached).mean() > 0.98


def test_no_wave_gives_no_speed_and_says_why():
    noise = np.random.default_rng(0).normal(100, 1, (600, 8, 9))
    found = onset_map(noise, scales_of(10, 100))
    assert found["speed_mm_min"] is None
    assert "no wave found" in describe(found)


@pytest.mark.parametrize(
    ("change", "word"), [(lambda m: m[:40], "40 frames"), (lambda m: m - 100, "median")]
)
def test_unfit_movies_are_refused(change, word):
    noise = np.random.default_rng(0).normal(100, 1, (600, 8, 9))
    with pytest.raises(InputError, match=word):
        onset_map(change(noise), scales_of(10, 100))


def test_first_lasting_counts_the_hold():
    rises = [0, 0, 0, 1, 1, 0, 1, 1, 1, 1]
    never, always = [0] * 10, [1] * 10
    bleaches = [1, 1, 0, 1, 1, 0, 1, 1, 1, 1]
    too_early = [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    above = np.array([rises, never, always, bleaches, too_early], bool).T
    np.testing.assert_array_equal(first_lasting(above, 3), [6, -1, -1, -1, -1])


def test_fit_line_is_least_squares():
    x, y = np.random.default_rng(0).random((2, 20))
    slope, offset = fit_line(x, y)
    np.testing.assert_allclose((slope, offset), np.polyfit(x, y, 1))


def test_script_writes_numbers_and_figure(tmp_path):
    truth = make_demo(tmp_path, DemoMovie(n_frames=1200, height=9, width=12, field_mm=1.0))
    done = run_script(
        "onset.py", "--data", tmp_path / truth["movie"], "--out_dir", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "onset.json").read_text())
    assert told["speed_mm_min"] == pytest.approx(3.5, rel=0.1)
    table = np.genfromtxt(tmp_path / "out/plots/onset_map.csv", delimiter=",", names=True)
    assert len(table) == 9 * 12
    np.save(tmp_path / "bare.npy", load_recording(tmp_path / truth["movie"]).movie())
    done = call("onset.py", "--data", tmp_path / "bare.npy", "--pixel_um", 100, "--bootstrap", 9,
                "--out_dir", tmp_path / "bare")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "frame rate unknown (--frame_rate_hz); pixel 100 um (flag)" in done.stdout
    assert "moving average 20, hold 50" in done.stdout
    table = np.genfromtxt(tmp_path / "bare/plots/onset_map.csv", delimiter=",", names=True)
    assert table.dtype.names[3:] == ("arrival_frame", "peak_dff", "distance_mm")
    refused = call("onset.py", "--data", tmp_path / "bare.npy", "--row_um", 100)
    assert refused.returncode == 2
    assert "without --pixel_um" in refused.stderr


@pytest.mark.data
def test_real_calcium_transient_starts_where_it_is_known_to(real_dir, tmp_path):
    """One calcium transient: onset frame 16-17, centre row 18, column 27 (README of the data)."""
    movie = load_recording(real_dir / "adu340_4small_tyx.tif").movie()
    recipe = OnsetSettings(smooth_frames=1, hold_frames=5, least_peak=0.03)
    found = write_onset(tmp_path, movie, recipe=recipe)  # the frame rate is not known
    assert (found["time_unit"], found["speed_mm_min"]) == ("frame", None)
    patch = found["arrival"][14:23, 23:32]
    assert abs(np.nanmedian(patch) - 16.5) <= 2.5
    inside = np.isfinite(patch).mean()
    outside = np.isfinite(found["arrival"]).mean()
    assert inside > 0.5 > outside
