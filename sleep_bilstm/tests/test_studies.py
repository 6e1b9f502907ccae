"""The epoch-length study and the notebook, run as a user runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from common.files import DATA_DIR, RESULTS_DIR, write_json

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
RUN = "pytest_lengths"


def test_epoch_length_study(recordings, tmp_path):
    split = {"train": ["990101", "990102"], "val": ["990103"], "test": "990104"}
    write_json(tmp_path / "split.json", split)
    command = [sys.executable, str(FOLDER / "epoch_length_study.py"), "--data_path"]
    command += [str(recordings), "--run", RUN, "--lengths", "2", "1", "--", "--split", "mouse"]
    command += ["--split_file", str(tmp_path / "split.json"), "--num_epochs", "1", "--device"]
    command += ["cpu", "--num_filters", "4", "--num_blocks", "2", "--num_rnn_units", "4"]
    out = RESULTS_DIR / RUN
    try:
        for _ in range(2):  # the second call finds both lengths and only draws
            subprocess.run(command, env=QUIET, check=True)
        table = pd.read_csv(out / "lengths.csv")
        assert table["seconds"].tolist() == [1, 2]
        assert table["f1_weighted"].between(0, 1).all()
        assert (out / "lengths.png").is_file()
        for seconds, frames in ((1, 16), (2, 33)):
            config = json.loads((out / f"{seconds}s" / "config.json").read_text())
            assert str(frames) in json.dumps(config)
    finally:
        for folder in (out, DATA_DIR / RUN):
            shutil.rmtree(folder, ignore_errors=True)


def test_notebook_runs_from_top_to_bottom(tmp_path):
    cells = json.loads((FOLDER / "example_notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    # The last cell shows a picture and needs Jupyter; its file must be there.
    assert "_hypnogram.png" in code[-1]
    script = tmp_path / "notebook.py"
    script.write_text("\n".join([*code[:-1], 'print(next(out.glob("*_hypnogram.png")))']))
    environment = {**QUIET, "PYTHONPATH": str(FOLDER), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_file()
