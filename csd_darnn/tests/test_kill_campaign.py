"""Training killed at random points and taken up again ends in the very same weights."""

import hashlib
import subprocess
import time

import numpy as np
import pytest

from helpers import SMALL, apart, run_apart, tiny_movie

pytestmark = pytest.mark.slow
N_EPOCHS, N_KILLS = 40, 3
WEIGHTS = ("encoder.torch", "decoder.torch")


def weights_sha256(run_dir):
    return [hashlib.sha256((run_dir / name).read_bytes()).hexdigest() for name in WEIGHTS]


def epochs_logged(run_dir):
    log = run_dir / "log.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0


def test_three_random_kills_leave_the_same_weights(tmp_path):
    movie = tiny_movie(tmp_path / "movie.npy")
    settings = SMALL | {"data": movie, "n_epochs": N_EPOCHS, "maps": False}
    done = run_apart(settings, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    random = np.random.default_rng(0)
    for kill in range(N_KILLS):
        run_dir = tmp_path / f"killed_{kill}"
        command = apart(settings, run_dir)
        after_epochs, wait_s = random.integers(0, N_EPOCHS - 10), random.random() * 0.05
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while epochs_logged(run_dir) < after_epochs or not (run_dir / "settings.json").exists():
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(wait_s)
            process.kill()
        assert not (run_dir / "network.json").exists(), "the run was over before the kill"
        done = run_apart(settings, run_dir, resume=True)
        assert done.returncode == 0, done.stderr
        assert weights_sha256(run_dir) == weights_sha256(tmp_path / "whole")
        print(f"killed after epoch {after_epochs}: equal")
