"""Training killed at three random moments and resumed ends in the same weights, bit for bit."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from helpers import FOLDER, make_tiny_data, script, write_ini
from network.checkpoints import available_iterations, checkpoint_path, load_state

pytestmark = pytest.mark.slow
KILLS = 3
ITERATIONS = 60


def digest(folder):
    """Return the SHA-256 of all weights of the last network; the container holds no times."""
    state = load_state(checkpoint_path(folder, "network", ITERATIONS))
    parts = hashlib.sha256()
    for name, value in sorted(state.items()):
        parts.update(name.encode() + value.numpy().tobytes())
    return parts.hexdigest()


def test_three_kills_change_nothing(tmp_path):
    data = make_tiny_data(tmp_path / "data")
    path = write_ini(tmp_path / "a.ini", data, tmp_path, train_epochs=ITERATIONS, save_every="2")
    start = time.monotonic()
    script("training.py", path, "--run-name", "whole", "--threads", 1)
    seconds = time.monotonic() - start
    command = [sys.executable, str(FOLDER / "training.py"), str(path), "--threads", "1", "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    rng, killed = random.Random(0), []
    for _ in range(KILLS):
        before = len(available_iterations(tmp_path / "tiny"))
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            # not before this start has saved, so that every kill falls into new work
            while len(available_iterations(tmp_path / "tiny")) == before:
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(rng.uniform(0, seconds / 30))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "the run was over before the kill"
        killed.append(available_iterations(tmp_path / "tiny")[-1])
    assert killed == sorted(set(killed))
    assert killed[-1] < ITERATIONS
    script("training.py", path, "--threads", 1, "--resume")
    assert digest(tmp_path / "tiny") == digest(tmp_path / "whole")
    print(f"killed after the checkpoints {killed} of {ITERATIONS} iterations: equal weights")
