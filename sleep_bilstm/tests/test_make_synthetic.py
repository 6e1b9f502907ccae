"""The generators: planted states, slow waves in front, a second rater, and the quadrant set."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, signal
from sklearn.metrics import cohen_kappa_score

from common.files import InputError
from demo.brain_shape import brain_mask, parcels
from demo.synthetic import (
    AMPLITUDE as SIGNALS,
)
from demo.synthetic import (
    BURST_S,
    Plan,
    make_data_set,
    render,
    same_plan,
    spatial_weights,
    time_courses,
)
from demo.toy_quadrant import AMPLITUDE, make_toy, quadrant_masks, textures
from inputs.preprocess import to_frames
from inputs.recordings import Recording, find_recordings
from inputs.states import FRAME_RATE_HZ, NREM, REM, WAKE
from make_synthetic import main

FOLDER = Path(__file__).resolve().parents[1]


def mean_power(movie, part, low, high):
    frequency, power = signal.periodogram(movie[:, part].mean(axis=1), FRAME_RATE_HZ)
    return power[(frequency >= low) & (frequency < high)].sum()


def test_mask_and_parcels_are_mirror_images():
    mask = brain_mask(64)
    assert (mask == mask[:, ::-1]).all()
    left, right = np.split(parcels(mask), 2, axis=1)
    assert set(np.unique(left[left > 0])) == set(range(1, 25))
    assert (right[:, ::-1] == np.where(left > 0, left + 24, 0)).all()


def test_planted_signals(tmp_path):
    """NREM has slow waves that are larger in front, REM a fast rhythm behind, as the truth says."""
    plan = Plan(
        mice=1, minutes=10, size=32, snr=2, rem_boost=0.8, min_state_fraction=0.2, noise=0.3
    )
    powers = {NREM: [], REM: []}
    for path in make_data_set(tmp_path / "data", plan):
        truth = np.load(path.with_suffix(".truth.npz"))
        majority = [np.bincount(row, minlength=3).argmax() for row in truth["state"]]
        assert truth["label"].tolist() == majority
        with Recording(path) as recording:
            mask = recording.mask
            half = np.arange(32)[:, None] < 16
            clean = ~truth["mixed"] & (truth["raw_label"] != 2)
            assert recording.raw_labels.tolist() == truth["raw_label"].tolist()
            for epoch in np.flatnonzero(clean & (truth["label"] != 0)):
                movie = to_frames(recording.read(int(epoch)), mask)
                bands = [(0.5, 3), (5, 8)]
                row = [mean_power(movie, mask & p, *b) for b in bands for p in (half, ~half)]
                powers[int(truth["label"][epoch])].append(row)
    slow, fast = (np.median(powers[state], axis=0) for state in (NREM, REM))
    assert slow[0] > slow[1]
    assert fast[3] > fast[2]
    assert slow[0] > 2 * fast[0]
    assert fast[3] > 2 * slow[3]


def test_rem_amplitude_scales_the_rhythm_of_rem_alone(tmp_path):
    plan = {"mice": 1, "minutes": 5, "size": 16, "rem_boost": 0.9, "min_state_fraction": 0.1}
    movies = []
    for amplitude in (0.0, 0.01, 0.03):
        paths = make_data_set(tmp_path / str(amplitude), Plan(**plan, rem_amplitude=amplitude))
        with Recording(paths[0]) as recording:
            n = len(recording.raw_labels)
            movies.append(
                np.concatenate([to_frames(recording.read(e), recording.mask) for e in range(n)])
            )
    state = np.load(paths[0].with_suffix(".truth.npz"))["state"].ravel()
    once, thrice = (movie - movies[0] for movie in movies[1:])
    np.testing.assert_allclose(thrice, 3 * once, atol=1e-6)
    # The states fade into each other over half a second.
    far = ~ndimage.binary_dilation(state == REM, iterations=10)
    assert np.abs(once[far]).max() < 1e-6 < once[state == REM].std()


@pytest.fixture(scope="module")
def bursts():
    """Return states (n,), the courses and signals (n, P) of bursts without anything else, and the
    map of the parcels.
    """
    states = np.repeat([WAKE, NREM, REM], 20_000)
    plan = Plan(burst_interval_s=5.0, snr=0.5, size=16)
    courses = time_courses(states, plan, np.random.default_rng(3))
    courses["infraslow"] *= 0
    places = parcels(brain_mask(plan.size))
    maps = spatial_weights(places > 0, plan)
    return states, courses, render(courses, slice(0, states.size), maps, places, plan), places


def test_with_bursts_every_pixel_has_the_same_power_at_all_times(bursts):
    """So that no z-score of an epoch tells a state, or a burst, by how strong its frames are."""
    states, courses, signals, _ = bursts
    strong = courses["envelope"][0] > 0.7
    wanted = 0.5 * SIGNALS["local"]
    for part in (states == WAKE, (states == NREM) & strong, (states == NREM) & ~strong):
        np.testing.assert_allclose(signals[part].std(), wanted, rtol=0.03)
        np.testing.assert_allclose(signals[part].std(axis=0), wanted, rtol=0.15)
    np.testing.assert_allclose(signals[states == REM].std(axis=0), wanted, rtol=0.15)


def test_between_bursts_nrem_is_like_wakefulness(bursts):
    """There the mean over the brain is that of independent parcels; in a burst it swings at 1 Hz;
    the rhythm of REM goes on all the time.
    """
    states, courses, signals, places = bursts
    envelope, mean = courses["envelope"][0], signals.mean(axis=1)
    n_bursts = (np.diff((envelope > 0).astype(int)) == 1).sum()
    assert BURST_S * FRAME_RATE_HZ * n_bursts < states.size
    assert n_bursts == pytest.approx(states.size / (5 * FRAME_RATE_HZ), rel=0.15)
    assert envelope.max() == pytest.approx(1, abs=0.01)
    pause = ndimage.binary_erosion(envelope == 0, iterations=4)  # the wave reaches the back later
    inner = ndimage.binary_erosion(states == NREM, iterations=10)
    quiet, awake = mean[pause & inner].std(), mean[states == WAKE].std()
    assert quiet == pytest.approx(awake, rel=0.1)
    assert mean[inner & (envelope > 0.8)].std() > 2 * awake
    back = signals[
        :, (np.argwhere(places > 0)[:, 0] >= 10) & (np.abs(np.argwhere(places > 0)[:, 1] - 7.5) < 2)
    ]
    frequency, power = signal.periodogram(back.mean(axis=1)[states == REM], FRAME_RATE_HZ)
    assert 5 < frequency[power.argmax()] < 8


def test_a_set_older_than_a_setting_holds_its_default(tmp_path):
    plan = Plan(mice=1, minutes=1, size=16, seed=4)
    make_data_set(tmp_path, plan)
    marker = tmp_path / "truth.json"
    record = json.loads(marker.read_text())
    del record["plan"]["burst_interval_s"]
    marker.write_text(json.dumps(record))
    assert same_plan(marker, plan)
    assert not same_plan(marker, replace(plan, burst_interval_s=5.0))


def test_same_seed_same_file_and_other_settings_are_refused(tmp_path):
    plan = Plan(mice=1, minutes=1, size=16, seed=4)
    (first,), (second,) = (make_data_set(tmp_path / name, plan) for name in "ab")
    with Recording(first) as one, Recording(second) as two:
        np.testing.assert_array_equal(one.read(3), two.read(3))
    stamp = first.stat().st_mtime_ns
    assert make_data_set(tmp_path / "a", plan) == [first]
    assert first.stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="other settings"):
        make_data_set(tmp_path / "a", Plan(mice=1, minutes=1, size=16, seed=5))
    (tmp_path / "a" / "truth.json").write_text("{")
    with pytest.raises(InputError, match=r"truth\.json: is no readable JSON"):
        make_data_set(tmp_path / "a", plan)


def test_interrupted_set_is_written_anew(tmp_path):
    make_data_set(tmp_path, Plan(mice=2, minutes=1, size=16, seed=4))
    (tmp_path / "truth.json").unlink()
    (path,) = make_data_set(tmp_path, Plan(mice=1, minutes=1, size=16, seed=4))
    assert list(tmp_path.rglob("*.mat")) == [path]
    (tmp_path / "truth.json").unlink()
    (tmp_path / "own.mat").touch()
    with pytest.raises(InputError, match="not synthetic"):
        make_data_set(tmp_path, Plan(mice=1, minutes=1, size=16, seed=4))


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--seed", "-1", "seed is -1: expected 0 or more"),
        ("--minutes", "nan", "minutes is nan: expected a number above 0"),
        ("--artifact_rate", "2", "artifact_rate is 2.0: expected 0 to 1"),
        ("--snr", "inf", "snr is inf: expected 0 or more"),
        (
            "--burst_interval_s",
            "0.5",
            "burst_interval_s is 0.5: expected 0, or at least 3, the length of a burst",
        ),
    ],
)
def test_bad_numbers(tmp_path, capsys, flag, value, said):
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "data"), flag, value])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {said}\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("other", [["--localised"], ["--rem_amplitude", "0.03"]])
def test_what_bursts_leave_no_room_for_is_refused(tmp_path, capsys, other):
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "data"), "--burst_interval_s", "5", *other])
    assert stop.value.code == 2
    assert "leave out localised and rem_amplitude" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_second_rater_differs_as_humans_do(tmp_path):
    plan = Plan(mice=1, minutes=30, size=16, second_rater=True, rem_boost=0.5)
    paths = make_data_set(tmp_path, plan)
    truth = [np.load(path.with_suffix(".truth.npz")) for path in paths]
    first, second = (np.concatenate([t[key] for t in truth]) for key in ("label", "second_rater"))
    assert cohen_kappa_score(first, second) == pytest.approx(0.65, abs=0.03)


def test_script_runs_as_a_user_does(tmp_path):
    flags = ["--out", "data", "--mice", "1", "--minutes", "1", "--size", "16", "--gsr", "--hemo"]
    command = [sys.executable, str(FOLDER / "make_synthetic.py"), *flags]
    subprocess.run(command, cwd=tmp_path, check=True, env=dict(os.environ))
    (path,) = find_recordings(tmp_path / "data")
    with Recording(path) as recording:
        assert np.abs(recording.read(0).mean(axis=1)).max() < 1e-6
    assert json.loads((tmp_path / "data" / "truth.json").read_text())["plan"]["gsr"]


def test_quadrant_holds_all_the_evidence(tmp_path):
    """In the test mouse the texture of the state, and no other, stands in the quadrant alone."""
    quadrant = make_toy(tmp_path, 7)
    inside, patterns = quadrant_masks(16, 16)[quadrant], textures(16, 16)
    path = find_recordings(tmp_path)[-1]
    with Recording(path) as recording:
        for epoch in range(4):
            movie = to_frames(recording.read(epoch), recording.mask)
            label = {0: 0, 1: 1, 3: 2}[int(recording.raw_labels[epoch])]
            strength = [(movie * p)[:, inside].mean(axis=1).std() for p in patterns]
            outside = [(movie * p)[:, ~inside].mean(axis=1).std() for p in patterns]
            assert strength[label] == pytest.approx(AMPLITUDE, rel=0.2)
            assert max(strength[k] for k in range(3) if k != label) < 0.3
            assert max(outside) < 0.3
