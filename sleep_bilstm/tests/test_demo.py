"""The demo as a user runs it: scores, files, and a second call."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import RESULTS_DIR
from common.locks import visible
from demo.presets import TARGET_CONTROL, TARGET_KAPPA
from demo.run_demo import remove_older_data
from demo.synthetic import Plan, make_data_set

FOLDER = Path(__file__).resolve().parents[1]
RUN = "pytest_demo"


def test_fresh_replaces_data_of_an_older_preset_but_nobodys_recordings(tmp_path):
    plan, other = (Plan(mice=1, minutes=0.5, size=16, seed=seed) for seed in (1, 2))
    recordings = tmp_path / "small" / "recordings"
    make_data_set(recordings, plan)
    remove_older_data(tmp_path / "small", plan)
    assert recordings.is_dir()
    foreign = recordings / "200128" / "200128-M1-fc1-GSR_Ben.mat"
    foreign.parent.mkdir()
    foreign.write_bytes(b"of a user")
    remove_older_data(tmp_path / "small", other)
    assert foreign.is_file()
    foreign.unlink()
    remove_older_data(tmp_path / "small", other)
    assert not visible(tmp_path / "small")  # the lock of this process alone is left


@pytest.mark.slow
def test_demo_finds_what_is_planted():
    out = RESULTS_DIR / RUN
    command = [sys.executable, str(FOLDER / "main.py"), "--demo", "--run", RUN]
    # As a user runs it: with oneDNN, which conftest switches off for parity.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}

    def run(*flags):
        return subprocess.run(
            [*command, *flags], env=environment, capture_output=True, text=True, check=False
        )

    try:
        done = run("--fresh")
        assert done.returncode in (0, 1), done.stderr
        summary = json.loads((out / "summary.json").read_text())
        scores = {score["name"]: score for score in summary["scores"]}
        assert summary["planted_truth"]["value"] >= TARGET_KAPPA
        (control,) = (score["value"] for score in summary["scores"] if score["control"])
        assert abs(control) < TARGET_CONTROL
        assert scores["planted quadrant found by occlusion"]["passed"]
        failed = [name for name, score in scores.items() if score["passed"] is False]
        assert done.returncode == (1 if failed else 0)
        assert (f"missed: {'; '.join(failed)}\n" in done.stdout) == bool(failed)
        assert all(score["target"] for score in scores.values() if score["passed"] is not None)
        for figure in summary["figures"]:
            assert (out / figure["path"]).is_file()
        assert "truth.json" in json.loads((out / "settings.json").read_text())["inputs"]
        again = run()
        assert again.returncode == done.returncode
        assert f"{out} is complete; --fresh starts anew" in again.stdout
        assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
        refused = run("--num_epochs", "3")
        assert refused.returncode == 2
        assert "other settings (num_epochs); use --fresh" in refused.stderr
    finally:
        shutil.rmtree(out, ignore_errors=True)
