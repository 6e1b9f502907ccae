"""The study of depth and frame rate: what is filmed is what the headers say; falls of the AUC."""

import numpy as np
import pytest
from pydicom import dcmread

from analysis.metrics import auc
from analysis.motion_numbers import motion_numbers
from demo.geometry import (
    ARMS,
    DEPTHS_CM,
    RATES_HZ,
    SECONDS,
    cohort_numbers,
    difference,
    filmed,
    prepare_arm,
    story,
)
from demo.synthetic import draw_heart, draw_population, movie_truth, write_cohort
from inputs.storage import values


@pytest.fixture(scope="module")
def truths(tmp_path_factory):
    """Return {varied: (folder, truth of the movies)} of the study's two cohorts, three patients."""
    made = {}
    for varied in (False, True):
        folder = tmp_path_factory.mktemp("study") / "cohort"
        made[varied] = folder, write_cohort(folder, filmed(3, 1, varied=varied), workers=1)
    return made


def test_both_cohorts_hold_the_same_patients(truths):
    one, many = (truths[varied][1]["movies"] for varied in (False, True))
    assert list(one) == list(many)
    for name, truth in one.items():
        for key in ("id", "class", "TAPSE_mm", "FAC_pct", "LVEF_pct"):
            assert truth[key] == many[name][key]


def test_headers_tell_the_drawn_depth_and_rate(truths):
    seen = set()
    for varied, (folder, truth) in truths.items():
        for name, movie in truth["movies"].items():
            data = dcmread(folder / name)
            region = data.SequenceOfUltrasoundRegions[0]
            depth = region.PhysicalDeltaY * 0.94 * data.Rows  # the fan fills 0.94 of the rows
            assert 10 * region.PhysicalDeltaX == pytest.approx(movie["pixel_mm"])
            rate = movie["frame_rate_hz"]
            assert float(data.FrameTime) == pytest.approx(1000 / rate, abs=1e-5)
            assert data.NumberOfFrames == round(SECONDS * rate)
            if varied:
                assert DEPTHS_CM[0] <= depth <= DEPTHS_CM[1]
                assert rate in RATES_HZ
                seen.add((round(depth, 3), rate))
            else:
                assert (depth, rate) == (pytest.approx(16), 50)
    assert len(seen) == 3


@pytest.mark.parametrize("depth_cm", [12.0, 20.0])
def test_the_annulus_rises_by_tapse_at_any_depth(depth_cm):
    patient = draw_population(1, 4, "strong", False)[0]
    rng = np.random.default_rng(0)
    heart = draw_heart(patient, rng, n_frames=60, frame_rate_hz=30, depth_cm=depth_cm)
    truth = movie_truth(heart, patient, n_frames=60, frame_rate_hz=30, rows=600, cols=800)
    assert truth["pixel_mm"] == pytest.approx(10 * depth_cm / (0.94 * 600))
    assert np.ptp(truth["annulus_rows"]) * truth["pixel_mm"] == pytest.approx(
        truth["TAPSE_mm"], abs=0.02
    )


def test_a_fall_of_the_auc_is_that_of_the_same_patients(monkeypatch):
    monkeypatch.setattr("demo.geometry.DRAWS", 100)  # what is shown holds for any number of draws
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4 == 0
    good, bad = rng.normal(size=200) + 2 * y, rng.normal(size=200) + 0.5 * y
    row = difference(y, bad, good, seed=0)
    assert row["auc"] == auc(y, bad)
    assert row["fall"] == pytest.approx(auc(y, good) - auc(y, bad))
    assert 0 < row["fall_low"] < row["fall"] < row["fall_high"] < 0.5
    same = difference(y, good, good, seed=0)
    assert (same["fall"], same["fall_low"], same["fall_high"]) == (0, 0, 0)


def test_every_varied_way_has_its_one_geometry_before_it():
    units = []
    for arm in ARMS:
        if not arm.varied:
            units.append(arm.flow_unit)
        assert ("cm_per_s" if arm.resample_fps else "px_per_frame") in units


def test_the_numbers_are_those_of_a_data_set_made_in_the_same_way(truths, tmp_path):
    cohort, _ = truths[True]
    settings = story(ARMS[1], 0, 1)
    y, numbers = cohort_numbers(cohort, settings, 1)
    prepare_arm(cohort, tmp_path / "arm", settings)
    stored = sorted((tmp_path / "arm" / "processed_OF").glob("*.npy"))
    assert numbers.shape == (len(y), 5) == (len(stored), 5)
    for row, path in zip(numbers, stored, strict=True):
        np.testing.assert_array_equal(row, motion_numbers(values(np.load(path))))
