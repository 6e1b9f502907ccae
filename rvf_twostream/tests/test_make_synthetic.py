"""make_synthetic.py: the planted truth is in the pictures. Check 12."""

import itertools
import json

import cv2
import numpy as np
import pytest
from scipy.stats import rankdata

from demo.phantom import draw_movie, screen
from demo.synthetic import draw_heart, draw_population, movie_truth, write_cohort
from inputs.dicom_io import read_frames
from inputs.flow import video2OF
from little import assert_one_line, call_script, run_script, tree


def area(x, z):
    """Return the area of a closed outline."""
    return abs(np.dot(x, np.roll(z, 1)) - np.dot(z, np.roll(x, 1))) / 2


@pytest.mark.parametrize("k", range(8))
def test_annulus_rises_by_tapse_and_cavity_shrinks_by_fac(k):
    patient = draw_population(8, 5, "strong", False)[k]
    rng = np.random.default_rng(k)
    heart = draw_heart(patient, rng, n_frames=60, frame_rate_hz=30)
    truth = movie_truth(heart, patient, n_frames=60, frame_rate_hz=30, rows=600, cols=800)
    rows = np.array(truth["annulus_rows"])
    assert abs(np.ptp(rows) - truth["TAPSE_mm"] / truth["pixel_mm"]) < 0.5
    assert rows.argmin() in truth["end_systolic_frames"]
    assert np.ptp(rows[truth["end_diastolic_frames"]]) < 1e-6
    for side, change in (("rv", patient["FAC_pct"]), ("lv", None)):
        areas = [area(*heart.outline(side, g, n=2000)) for g in (0.0, 1.0)]
        fac_pct = 100 * (1 - areas[1] / areas[0])
        wanted = change or 100 * (1 - (1 - patient["LVEF_pct"] / 100) ** (2 / 3))
        assert abs(fac_pct - wanted) < 1


def test_the_bright_annulus_moves_in_the_picture_as_the_truth_says():
    patient = {**draw_population(1, 0, "strong", False)[0], "TAPSE_mm": 22.0, "FAC_pct": 40.0}
    heart = draw_heart(patient, np.random.default_rng(0), n_frames=40, frame_rate_hz=30)
    rows, cols = 600, 800
    movie = draw_movie(heart, 40, rows, cols, np.random.default_rng(1)).astype(np.float32)
    truth = movie_truth(heart, patient, n_frames=40, frame_rate_hz=30, rows=rows, cols=cols)
    frames = truth["end_diastolic_frames"][:1] + truth["end_systolic_frames"][:1]
    places = [(truth["annulus_rows"][f], truth["annulus_columns"][f]) for f in frames]
    for here in (0, 1):
        smooth = cv2.GaussianBlur(movie[frames[here]], (0, 0), 4)
        bright = [smooth[round(r), round(c)] for r, c in places]
        assert bright[here] > 120
        assert bright[here] > bright[1 - here] or abs(places[0][0] - places[1][0]) < 20


def test_population_follows_its_effect():
    strong = draw_population(4000, 0, "strong", False)
    failing = np.array([p["failure"] for p in strong])
    tapse = np.array([p["TAPSE_mm"] for p in strong])
    ranks = rankdata(-tapse)
    n = failing.sum()
    auc = (ranks[failing].sum() - n * (n + 1) / 2) / (n * (len(strong) - n))
    assert abs(failing.mean() - 0.43) < 0.03
    assert abs(auc - 0.96) < 0.015
    assert abs(tapse[~failing].mean() - tapse[failing].mean() - 6.1) < 0.4
    realistic = draw_population(4000, 0, "realistic", False)
    assert abs(np.mean([p["failure"] for p in realistic]) - 0.24) < 0.03
    none = [p["failure"] for p in draw_population(4000, 0, "none", False)]
    assert abs(np.mean([p["f"] for p, bad in zip(strong, none, strict=True) if bad])) < 0.1
    classes = [p["class"] for p in strong]
    assert classes.count("severe") == n
    assert abs(classes.count("normal") - classes.count("moderate")) <= 1
    assert {p["class"] for p in draw_population(50, 0, "strong", True)} == {"normal", "severe"}


def test_pictures_look_like_real_ones():
    """Mean, spread, dark part and frame-to-frame correlation inside the ranges of section 4.7."""
    moments = []
    for k, patient in enumerate(draw_population(6, 2, "strong", False)):
        rng = np.random.default_rng(k)
        heart = draw_heart(patient, rng, n_frames=12, frame_rate_hz=40)
        inside = screen(300, 400)[2]
        pixels = draw_movie(heart, 12, 300, 400, rng)[:, inside].astype(float)
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(pixels)]
        top = np.percentile(pixels, 95)
        moments.append(
            [pixels.mean(), pixels.std(), top, (pixels <= 12).mean(), np.mean(correlation)]
        )
    mean = np.mean(moments, axis=0)
    low, high = [30, 29, 92, 0.24, 0.94], [62, 60, 185, 0.37, 0.98]
    assert (mean >= low).all(), mean
    assert (mean <= high).all(), mean


def test_cohort_script_writes_readable_files_and_repeats_itself(tmp_path):
    flags = ["--n_patients", 2, "--rows", 96, "--cols", 128, "--min_frames", 33, "--max_frames", 34]
    for name, more, start in (
        ("a", [], run_script),
        ("b", ["--workers", 2], call_script),
        ("c", ["--jpeg"], call_script),
    ):
        done = start("make_synthetic.py", "--out", tmp_path / name, *flags, *more)
        assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    truth = json.loads((tmp_path / "a" / "truth.json").read_text())
    for name, movie in truth["movies"].items():
        frames, info = read_frames(tmp_path / "a" / name)
        assert frames.shape[1:] == (96, 128)
        assert info["frame_rate_hz"] == pytest.approx(movie["frame_rate_hz"], abs=1e-3)
        assert len(movie["annulus_rows"]) == len(frames)
        compressed, info = read_frames(tmp_path / "c" / name, crop="region")
        assert info["photometric"] == "YBR_FULL_422"
        assert len(compressed) == len(frames)
    done = call_script("make_synthetic.py", "--out", tmp_path / "a", *flags)
    assert_one_line(done, "holds files already")
    done = call_script("make_synthetic.py", "--out", tmp_path / "d", "--effect", "huge")
    assert_one_line(done, "strong, realistic, none")


def test_hard_cohort_goes_through_preprocessing(tmp_path):
    root = tmp_path / "set"
    write_cohort(root, n_patients=2, rows=96, cols=128, frames=33, movies_per_patient=1, hard=True)
    done = call_script("preprocess.py", "--root", root)
    assert_one_line(done, "named.dcm: PatientName")
    done = call_script("preprocess.py", "--root", root, "--deid", "warn")
    assert done.returncode == 1
    for text in ("truncated.dcm", "notes.dcm"):
        assert text in done.stderr
    for text in ("20 frames, 32 needed", "not in the class file"):
        assert text in done.stdout
    assert "Doe" not in done.stdout + done.stderr


@pytest.mark.slow
def test_flow_of_the_right_half_follows_tapse():
    """Spearman correlation >= 0.6 between |flow| per beat in the RV half and TAPSE.

    Per beat (mean per frame times frames of the cycle): the heart rate and frame rate drop out.
    """
    patients = draw_population(24, 11, "strong", False)
    paths = []
    for k, patient in enumerate(patients):
        rng = np.random.default_rng(k)
        heart = draw_heart(patient, rng, n_frames=40, frame_rate_hz=40)
        movie = draw_movie(heart, 40, 120, 160, rng).astype(np.float32)
        flow = video2OF(movie, nrows=56, ncols=56)
        speed = np.hypot(flow[..., 0], flow[..., 1])[:-1, :, :28].mean()
        paths.append(speed * heart.cycle)
    tapse = [p["TAPSE_mm"] for p in patients]
    spearman = np.corrcoef(rankdata(paths), rankdata(tapse))[0, 1]
    print(f"Spearman correlation of |flow| per beat and TAPSE: {spearman:.2f}")
    assert spearman >= 0.6


def test_flags_that_do_not_apply_are_refused(tmp_path):
    out = tmp_path / "x"
    for flags, words in (
        (("--echonet", "--rows", "128"), "--rows does not describe videos"),
        (("--echonet", "--jpeg"), "--jpeg does not describe videos"),
        (("--n_videos", "5"), "--n_videos is of --echonet only"),
    ):
        assert_one_line(call_script("make_synthetic.py", "--out", out, *flags), words)
    assert not out.exists()
