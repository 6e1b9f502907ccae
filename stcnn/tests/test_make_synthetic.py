"""The planted tuning, the noise and the format of the synthetic set."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.files import InputError
from demo.synthetic import SIZES_DEG, make_synthetic, remove_unfinished, synthetic_stimuli
from demo.teacher import analytic_calcium, noisy_trials
from inputs.display import Display
from inputs.recordings import read_movies, read_recordings
from inputs.stimuli import disc, growing, moving_rectangle, shrinking

DISPLAY = Display(60, 1.0, 0.498, (51, 51))


def peak(contrast, kind):
    padded = torch.cat([contrast, torch.zeros(60, 51, 51)])
    return analytic_calcium(padded, kind, 1 / 60).max()


def test_planted_peaks_of_the_specification():
    """Section 4.4: 60 Hz, 51 pixels, 60 deg/s."""

    def rectangle(w, h):
        return moving_rectangle(
            DISPLAY, (w, h), speed=60, direction="right", start=-30, seconds=(60 + w) / 60
        )

    expected = {
        (2.25, 2.25): 0.09,
        (9, 9): 0.84,
        (9, 15): 1.0,
        (15, 15): 0.86,
        (30, 30): 0.07,
        (45, 45): 0.0,
    }
    peaks = {size: peak(rectangle(*size), "lc11") for size in expected}
    for size, value in expected.items():
        assert abs(peaks[size] / peaks[9, 15] - value) < 0.02, size
    looming = {
        s: peak(disc(DISPLAY, growing(s, rate_hz=60, end=45)), "lplc2") for s in (25, 50, 100, 200)
    }
    best = max(looming.values())
    for speed, value in {25: 0.16, 50: 0.56, 100: 0.99, 200: 1.0}.items():
        assert abs(looming[speed] / best - value) < 0.025, speed
    shrink = peak(disc(DISPLAY, shrinking(100, rate_hz=60, start=45)), "lplc2")
    assert max(shrink, peak(rectangle(15, 15), "lplc2")) < 0.005 * best


def test_set_on_disk_has_the_published_format(tiny_set):
    recordings = read_recordings(tiny_set / "ca_traces")
    movies = read_movies(tiny_set / "movies", rate_hz=60)
    truth = json.loads((tiny_set / "truth.json").read_text())
    assert list(recordings) == ["lc11", "lc12", "lplc2"]
    session = recordings["lplc2"]["synthetic.pt"]
    assert set(session) == set(movies)
    neuron = session[300]["neuron"][2019010301]
    assert neuron["traces"].shape == (3, 180)
    planted = truth["types"]["lplc2"]["neurons"]["2019010301"]["peak"]["300"]
    assert abs(float(neuron["traces"].mean(0).max()) - planted) < 0.25


def test_noise_has_the_stated_size():
    trials = noisy_trials(np.zeros(6000), 40, np.random.default_rng(0), rate_hz=60)
    assert abs(trials.std() - np.hypot(0.02, 0.02)) < 0.002
    assert abs(trials.mean(0).std() * np.sqrt(40) - trials.std()) < 0.002


def test_full_set_holds_every_size_in_both_directions():
    labels = [s.label for s in synthetic_stimuli("full", rate_hz=60, size=(51, 51))]
    for w in SIZES_DEG:
        for h in SIZES_DEG:
            for way in ("right", "left"):
                assert f"dark {w:g} x {h:g} deg {way} 60 deg/s" in labels


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="no finished synthetic set"):
        make_synthetic(tmp_path / "set", stimuli="tiny")
    assert (tmp_path / "set" / "mine.txt").read_text() == "keep"


def test_a_checkpoint_can_be_the_teacher(here, tiny_run, tmp_path):
    from make_synthetic import main

    here(
        main, "--out", tmp_path / "set", "--teacher", tiny_run, "--stimuli", "tiny", "--neurons", 1
    )
    truth = json.loads((tmp_path / "set" / "truth.json").read_text())
    assert list(truth["types"]) == ["lc11", "lc12", "lplc2"]


def test_the_grey_before_onset_is_the_teachers_own(tiny_run, tmp_path):
    """A network's calcium on grey is not 0: without it the recordings would begin with a step."""
    sets = {}
    for peak in (None, 2.0):
        options = {"stimuli": "tiny", "neurons": 1, "teacher": tiny_run, "peak": peak}
        out = make_synthetic(tmp_path / f"set {peak}", shift_deg=0.0, **options)
        truth = json.loads((out / "truth.json").read_text())["types"]["lc11"]
        session = read_recordings(out / "ca_traces")["lc11"]["synthetic.pt"]
        sets[peak] = truth, session[900]["neuron"][2019010101]["traces"].mean(0)
    truth, grey = sets[None]
    before, after = float(grey[:25].mean()), float(grey[35:60].mean())  # onset at 30
    assert before > 0.08  # 0 before the mend
    assert abs(before - after) < 0.05
    truth, _ = sets[2.0]
    assert max(truth["centred_peak"].values()) == pytest.approx(2.0)
    neuron = truth["neurons"]["2019010101"]
    assert max(neuron["peak"].values()) == pytest.approx(2.0 * neuron["gain"], rel=1e-5)


@pytest.mark.parametrize("level", [-0.2, 0.3])
def test_a_dead_teacher_is_not_scaled(tiny_run, tmp_path, monkeypatch, level):
    """Its constant would become the asked peak, turned upside down where it lies below 0."""

    def flat(model, movies):
        return dict.fromkeys(model.cell_types, np.full((len(movies), 180), level, np.float32))

    monkeypatch.setattr("demo.synthetic.predict_movies", flat)
    with pytest.raises(InputError, match="lc11 answers no stimulus"):
        make_synthetic(tmp_path / "set", stimuli="tiny", teacher=tiny_run, peak=1.0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_let_alone(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [tmp_path / f".set.{number}.abc" for number in (gone.pid, os.getpid(), "notes")]
    for folder in left:
        folder.mkdir()
    remove_unfinished(tmp_path / "set")
    assert [folder.exists() for folder in left] == [False, True, True]


def test_the_published_set_has_the_published_numbers():
    stimuli = synthetic_stimuli("published", rate_hz=20, size=(35, 35))
    codes = [stimulus.barcode for stimulus in stimuli]
    assert len(codes) == 49 + 5 + 2 + 63
    assert codes == sorted(set(codes))
    assert {321, 329, 5619, 5667, 5688, 48_304_090} <= set(codes)
    assert max(len(stimulus.contrast) for stimulus in stimuli) <= 50  # 2.5 s
