"""Every command of the README runs in short form, in a copy of the folder, on tiny data."""

import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers import FOLDER
from inputs.movie_files import write_tiff

pytestmark = pytest.mark.slow
NETWORK = "--T 4 --encoder_hidden_size 3 --decoder_hidden_size 3 --batch_size 16 --n_epochs 1"
SHORT = {  # script and a part of its command -> flags that make it short
    "main.py --demo": f"{NETWORK} --movie none --importance_every 40 --importance_repeats 1",
    "main.py --data": f"{NETWORK} --movie none --maps false",
    "resize.py": "",
    "combine_weights.py": "",
    "main_predict.py": "",
    "encoder_train.py": "--out continued",
    "onset.py": "--bootstrap 5",
    "benchmark.py": "--rows 12,3 --steps 1 --predict_frames 300 --movie_frames 2",
}
MISSES_TARGETS = ("main.py --demo",)  # one epoch cannot find the planted driver: exit code 1
ELSEWHERE = {  # commands that are not run here, and why
    "pip install -r requirements.txt": "run.py builds the environment of this test from that file",
    "python -m pytest": "is this test run",
    "python -m pytest tests/test_parity.py --fixtures DIR": "is part of this test run",
    "python benchmark_series.py": "needs data that are not shipped: test_benchmarks.py",
}


def readme_commands():
    """Return the commands of README.md and DETAILS.md in their order, without comments."""
    text = "".join((FOLDER / name).read_text() for name in ("README.md", "DETAILS.md"))
    commands = re.findall(r"```bash\n(.*?)```|`(python [^`]+)`", text, flags=re.S)
    lines = [line for block, inline in commands for line in (block or inline).splitlines()]
    return list(dict.fromkeys(line.split("  #")[0].strip() for line in lines if line.strip()))


def told_elsewhere(command):
    """Return whether ``command``, with or without more flags, is one that is not run here."""
    return any(f"{command} ".startswith(f"{known} ") for known in ELSEWHERE)


def short_form(command):
    """Return the arguments after ``python`` of the short form of ``command``."""
    keys = [key for key in SHORT if command.startswith(f"python {key}")]
    assert keys, f"the README's command has no short form here: {command}"
    return shlex.split(command.removeprefix("python ")) + shlex.split(SHORT[keys[0]])


def test_every_command_runs(tmp_path):
    home, data = tmp_path / FOLDER.name, tmp_path / "data" / FOLDER.name
    shutil.copytree(FOLDER, home, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    data.mkdir(parents=True)
    movie = 100 + np.cumsum(np.random.default_rng(0).normal(size=(140, 72, 91)), axis=0)
    for path in (data / "my.tif", home / "my.tif", home / "other.tif"):
        write_tiff(path, movie.astype(np.float32))
    commands = [command for command in readme_commands() if not told_elsewhere(command)]
    assert len(commands) > 8
    for command in commands:
        done = subprocess.run(
            [sys.executable, *short_form(command)],
            cwd=home, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        misses = any(part in command for part in MISSES_TARGETS)
        assert done.returncode in ((0, 1) if misses else (0,)), f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
