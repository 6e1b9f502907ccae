"""benchmark.py and benchmark_series.py; the series need real data (--real DIR)."""

import json

import numpy as np
import pytest

from analysis.metrics import regression_metrics
from common.files import RESULTS_DIR, InputError
from demo import series
from demo.driver_cases import driver_row
from helpers import call, run_script


def test_benchmark_runs_and_agrees_with_its_baseline(tmp_path):
    """The script stops with an error when the published loop gives other numbers."""
    out = tmp_path / "benchmark.json"
    done = run_script(
        "benchmark.py", "--rows", "12,3", "--steps", 2, "--predict_frames", 300,
        "--movie_frames", 2, "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"].split(",")[0] for row in rows[:2]] == ["training step", "movie frame"]
    assert all(row["ours_s"] > 0 for row in rows)


def test_the_table_of_the_search_counts_what_is_found_and_what_is_false(monkeypatch):
    row = driver_row("driver", {}, range(30, 31), 0.05)
    assert (row["found"], row["right_lag"], row["with_false"], row["rate"]) == (1, 1, 0, 0.0)
    assert row["text"].startswith("driver found in 1, lag right in 1; a false block in 0")
    monkeypatch.setattr("analysis.drivers.LEAST_GAIN", -1.0)
    none = driver_row("no driver", {"driver": False}, range(30, 31), 1.0)  # q <= 1: all are found
    assert (none["with_any"], none["with_false"], none["found"], none["rate"]) == (1, 1, 0, 1.0)


def test_series_without_data_is_one_line(tmp_path):
    done = run_script("benchmark_series.py", "--real_dir", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "NEW-DATA-1.T15.txt" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "found 0 lines"), ("# 1:Date 2:Time 3:a\nd t 1\n", "found no column")],
)
def test_series_of_another_kind_are_one_line(tmp_path, text, told):
    for file in series.SML_FILES:
        (tmp_path / file).write_text(text)
    done = call("benchmark_series.py", "--real_dir", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert told in done.stderr
    with pytest.raises(InputError, match="found 3 rows, expected 4137"):
        series.check_rows(tmp_path, np.zeros((3, 2)), series.SML_ROWS)
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(InputError, match="no weights in it"):
        series.load_derivative(tmp_path / "weights.npz")


@pytest.mark.data
def test_sml2010_names_are_not_shifted(real_dir):
    values, names = series.read_sml(real_dir)
    assert values.shape == (4137, 17)
    assert names[-1] == "Temperature_Comedor_Sensor"
    assert "Day_Of_Week" not in names
    error = regression_metrics(values[-537:, -1], series.least_squares(values, 3200, 537))
    assert error["rmse"] == pytest.approx(0.0166, abs=1e-4)
    assert error["mae"] == pytest.approx(0.0133, abs=1e-4)


@pytest.mark.data
def test_nasdaq_derivative_weights(real_dir):
    from inputs.reading import load_recording

    values = load_recording(real_dir / series.NASDAQ_FILE).values
    net, scaler, arrays = series.load_derivative(real_dir / series.NASDAQ_WEIGHTS)
    y_pred, target, alpha = series.predict_derivative(net, scaler, values)
    assert np.abs(y_pred[:300] - arrays["expected_ndx_first300"]).max() < 0.02
    assert np.abs(alpha[:50] - arrays["expected_alpha_first50"]).max() < 1e-6
    assert len(target) == 4507
    errors = regression_metrics(target, y_pred)
    assert errors["rmse"] == pytest.approx(2.193, abs=1e-3)
    assert errors["mae"] == pytest.approx(1.359, abs=1e-3)


@pytest.mark.data
@pytest.mark.slow
def test_sml2010_reaches_the_paper(real_dir):
    done = run_script("benchmark_series.py", "--real_dir", real_dir, timeout=1800)
    assert done.returncode == 0, done.stderr
    rows = json.loads((RESULTS_DIR / "benchmark_series" / "series.json").read_text())["rows"]
    network = next(row for row in rows if row["model"] == "network tanh, seed 0")
    assert network["rmse"] <= 0.027
    assert network["mae"] <= 0.021


@pytest.mark.slow
def test_demo_finds_its_planted_truth():
    done = run_script("main.py", "--demo", "--run", "demo_test", "--fresh", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((RESULTS_DIR / "demo_test" / "summary.json").read_text())
    assert summary["planted_truth"]["passed"]
    again = run_script("main.py", "--demo", "--run", "demo_test")
    assert again.returncode == 0
    assert "complete" in again.stdout
    other = run_script("main.py", "--demo", "--run", "demo_test", "--n_epochs", 1)
    assert other.returncode == 2
    assert "--fresh" in other.stderr
