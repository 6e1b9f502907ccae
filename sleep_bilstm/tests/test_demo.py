"""The demo as a user runs it: scores, files, and a second call."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo import TARGET_CONTROL, TARGET_KAPPA
from states import RESULTS_DIR

FOLDER = Path(__file__).resolve().parents[1]
RUN = "pytest_demo"


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
