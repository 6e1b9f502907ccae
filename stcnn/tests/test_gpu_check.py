"""gpu_check.py, rehearsed on the processor."""

import pytest

import gpu_check
from common.cases import read_results

CASE = "filter chunk, autocast"


def test_a_case_is_run_and_written(tmp_path, capsys):
    out = tmp_path / "gpu.jsonl"
    arguments = ["--device", "cpu", "--tiny", "--only", CASE, "--out", str(out)]
    assert gpu_check.main(arguments) == 0
    (row,) = read_results(out)
    assert row["case"] == CASE
    assert row["passed"]
    assert row["output"] < 1e-5  # beside float64
    assert "device: cpu" in capsys.readouterr().out


def test_an_unknown_device_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        gpu_check.main(["--device", "tpu"])
    assert stop.value.code == 2
    assert "tpu" in capsys.readouterr().err
