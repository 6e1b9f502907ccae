"""The story and its demo: settings of a run, bad flags, the quick demo as a user runs it."""

import json
import shutil

import numpy as np
import pytest

import main
from common.files import DATA_DIR as DATA
from common.files import RESULTS_DIR as RESULTS
from common.files import InputError, open_run, write_settings
from common.report import write_summary
from demo import presets
from demo.data import make_data
from demo.phantom import HALF_ANGLE_DEG, screen
from demo.scores import planted_scores, score
from inputs.dicom_io import read_frames
from little import run_script
from settings import FREE_STORY


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--root", "--demo"]),
        (["--root", "/nowhere"], ["/nowhere"]),
        (["--demo", "--root", "."], ["leave --root away"]),
        (["--demo", "--depth", "20"], ["20", "152"]),
        (["--demo", "--effect", "weak"], ["strong"]),
        (["--demoo"], ["did you mean --demo?"]),
        (["--demo", "--full", "--quick"], ["exclude each other"]),
        (["--demo", "--run", "../demo"], ["--run ../demo: expected a plain name"]),
        (["--demo", "--run", ".."], ["--run ..: expected a plain name"]),
        (["--demo", "--seed", "-1"], ["--seed -1: expected a whole number of 0 or more"]),
        (["--root", ".", "--full"], ["--full belongs to --demo"]),
        (["--root", ".", "--quick"], ["--quick belongs to --demo"]),
    ],
)
def test_bad_flags(capsys, flags, words):
    with pytest.raises(SystemExit, match="2"):
        main.main(flags)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in error


def test_a_run_is_opened_once(tmp_path):
    settings = {"seed": 0, "depth": 18, "workers": 2}
    other = {**settings, "depth": 34}
    run_dir = tmp_path / "run"
    assert open_run(run_dir, settings, free=FREE_STORY) is False
    write_settings(run_dir, other)
    assert open_run(run_dir, settings, free=FREE_STORY) is False  # nothing was done yet
    (run_dir / "log.csv").write_text("epoch\n")
    assert open_run(run_dir, {**other, "workers": 4}, free=FREE_STORY) is False
    with pytest.raises(InputError, match=r"other settings \(depth\)"):
        open_run(run_dir, settings, free=FREE_STORY)
    many = {**other, **dict.fromkeys("abcdefg", 1)}
    with pytest.raises(InputError, match=r"\(a, b, c, d, e and 2 more\)"):
        open_run(run_dir, many, free=FREE_STORY)
    (run_dir / "summary.json").write_text("{}")
    assert open_run(run_dir, other, free=FREE_STORY) is True
    assert open_run(run_dir, settings, fresh=True, free=FREE_STORY) is False
    assert not (run_dir / "summary.json").exists()


def test_reuse_of_a_demo_that_missed_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(main, "RESULTS_DIR", tmp_path)
    argv = ["--demo", "--quick"]
    settings = main.resolve(main.build_parser().parse_args(argv))
    settings = presets.demo_settings(settings, main.given_flags(argv))
    write_settings(tmp_path / "demo", settings)
    scores = [
        score("test AUC over patients", 0.9, ">= 0.8", passed=True),
        score("AUC for a fast heart rate", 0.8, "0.3 to 0.7", passed=False, control=True),
    ]
    summary = {"scores": scores, "planted_truth": scores[0], "data": "", "seconds": 7.2}
    write_summary(tmp_path / "demo", {**summary, "report": "report.html"})
    assert main.main([*argv, "--workers", "1"]) == 1
    device, *lines = capsys.readouterr().out.splitlines()
    assert device.startswith("device: ")
    assert lines == [
        f"{tmp_path / 'demo'} is complete; --fresh starts anew",
        "missed: AUC for a fast heart rate",
        f"test AUC over patients: 0.900; 7 s; {tmp_path / 'demo' / 'report.html'}",
    ]


def test_fresh_removes_nothing_of_the_users(tmp_path):
    results, data = tmp_path / "results", tmp_path / "data"
    for folder in (results, data):
        folder.mkdir()
        (folder / "mine.dcm").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        open_run(results, {"seed": 0}, fresh=True)
    settings = {"full": False, "quick": True, "seed": 0, "effect": "strong", "workers": 1}
    for fresh in (False, True):
        with pytest.raises(InputError, match="did not make"):
            make_data(settings, data, fresh=fresh)
    assert (results / "mine.dcm").exists()
    assert (data / "mine.dcm").exists()


def test_synthetic_data_are_reused_and_made_anew_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.COHORTS, "quick", (3, 96, 128, 32, (1, 1), 4, (33, 34)))
    settings = {"full": False, "quick": True, "seed": 0, "effect": "strong", "workers": 1}
    make_data(settings, tmp_path)
    made, truth = tmp_path / "made.json", tmp_path / "cohort" / "truth.json"
    written = truth.stat().st_mtime_ns
    make_data(settings, tmp_path)
    assert truth.stat().st_mtime_ns == written
    with pytest.raises(InputError, match="other synthetic data"):
        make_data({**settings, "seed": 1}, tmp_path)
    with pytest.raises(InputError, match="other synthetic data"):
        make_data({**settings, "no_text": True}, tmp_path)
    made.write_text(made.read_text().replace("true", "false"))
    make_data(settings, tmp_path)
    assert truth.stat().st_mtime_ns > written


def test_the_control_without_text_shows_nothing_outside_the_fan(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.COHORTS, "quick", (3, 96, 128, 32, (1, 1), 4, (33, 34)))
    settings = {"full": False, "quick": True, "seed": 0, "effect": "strong", "workers": 1}
    brightest = []
    for name, more in (("plain", {}), ("control", {"no_text": True})):
        cohort, _ = make_data(settings | more, tmp_path / name)
        frames, _ = read_frames(next(cohort.glob("*.dcm")))
        *_, apex_row, apex_col = screen(96, 128)
        rows, cols = np.mgrid[:96, :128] - np.array([apex_row, apex_col])[:, None, None]
        outside = np.abs(np.arctan2(cols, rows)) > np.deg2rad(HALF_ANGLE_DEG + 3)
        brightest.append(frames[:, outside & (rows > 5)].max())
    assert brightest[0] > 100
    assert brightest[1] == 0
    plain = main.resolve(main.build_parser().parse_args(["--demo"]))
    assert "no_text" not in plain  # the settings of older runs, which are resumed
    assert main.resolve(main.build_parser().parse_args(["--demo", "--no_text"]))["no_text"]
    with pytest.raises(InputError, match="--no_text belongs to --demo"):
        main.resolve(main.build_parser().parse_args(["--no_text"]))


def test_flags_go_before_the_preset():
    argv = ["--demo", "--epoch", "3"]
    settings = main.resolve(main.build_parser().parse_args(argv))
    settings = presets.demo_settings(settings, main.given_flags(argv))
    assert settings["epoch"] == 3
    assert settings["width"] == presets.SMALL["width"]


def test_planted_scores_judge_the_effect():
    rng = np.random.default_rng(0)
    truth = {
        f"p{i}": {"TAPSE_mm": float(i), "FAC_pct": 30.0, "hr_per_min": float(rng.integers(60, 99))}
        for i in range(40)
    }
    patients = [
        {"id": f"p{i}", "y": str(int(i < 20)), "probability": str(1 - i / 40)} for i in range(40)
    ]
    main_score, scores, _ = planted_scores(
        patients, truth, "strong", interval=[0.5, 1.0], judged=True
    )
    assert main_score["value"] == 1
    assert main_score["passed"] is True
    assert scores[3]["value"] == 1  # TAPSE itself
    main_score, *_ = planted_scores(patients, truth, "none", interval=None, judged=True)
    assert main_score["passed"] is False
    assert main_score["control"] is True


@pytest.mark.slow
def test_quick_demo_as_a_user_runs_it():
    name = "pytest_quick"
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    try:
        done = run_script("main.py", "--demo", "--quick", "--run", name, "--seed", 1)
        assert done.returncode == 0, done.stderr
        last = done.stdout.strip().splitlines()[-1]
        assert last.startswith("test AUC over patients: ")
        assert last.endswith("report.html")
        summary = json.loads((RESULTS / name / "summary.json").read_text())
        assert summary["status"] == "complete"
        for figure in summary["figures"]:
            assert (RESULTS / name / figure["path"]).is_file()
        assert (RESULTS / name / summary["main_picture"]).stat().st_size < 1_000_000
        assert {score["control"] for score in summary["scores"]} == {True, False}
        again = run_script("main.py", "--demo", "--quick", "--run", name, "--seed", 1)
        assert again.returncode == 0
        assert "is complete; --fresh starts anew" in again.stdout
        inputs = json.loads((RESULTS / name / "settings.json").read_text())["inputs"]
        assert list(inputs) == ["truth.json"]
        other = run_script("main.py", "--demo", "--quick", "--run", name, "--seed", 2)
        assert other.returncode == 2
        assert "--fresh" in other.stderr
        one = next((DATA / name / "cohort").glob("*.dcm"))
        weights = RESULTS / name / "rvf_0.weights.h5"
        single = run_script("predict.py", "--weights", weights, "--dicom", one, "--json")
        assert single.returncode == 0, single.stderr
        result = json.loads(single.stdout)
        assert 0 <= result["probability"] <= 1
        assert len(result["starts"]) == 5
    finally:
        for folder in (RESULTS / name, DATA / name):
            shutil.rmtree(folder, ignore_errors=True)
