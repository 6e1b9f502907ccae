"""Training killed at random points and taken up again ends in the very same weights."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
N_EPOCHS, N_KILLS = 12, 3


def weights_sha256(run_dir):
    """Return the digest of all arrays of the final weights; the file itself holds time stamps."""
    digest, names = hashlib.sha256(), []
    with h5py.File(run_dir / "last.weights.h5") as file:
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
        for name in sorted(names):
            digest.update(name.encode() + np.asarray(file[name]).tobytes())
    assert names
    return digest.hexdigest()


def epochs_logged(run_dir):
    log = run_dir / "log.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0


def test_three_random_kills_leave_the_same_weights(tiny_flags, tmp_path):
    command = [sys.executable, str(FOLDER / "main.py"), "--mode", "train", *tiny_flags]
    command += ["--num_epochs", str(N_EPOCHS), "--model_savedir"]

    def run(run_dir, *flags):
        done = subprocess.run(
            [*command, str(run_dir), *flags], env=QUIET, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    run(tmp_path / "whole")
    random = np.random.default_rng(0)
    for kill in range(N_KILLS):
        run_dir = tmp_path / f"killed_{kill}"
        after_epochs, wait_s = random.integers(1, N_EPOCHS - 4), random.random() * 0.3
        process = subprocess.Popen(
            [*command, str(run_dir)],
            env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while epochs_logged(run_dir) < after_epochs or not list(run_dir.glob("*state.h5")):
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(wait_s)
        finally:
            process.kill()
            process.wait()
        done = epochs_logged(run_dir)
        assert done < N_EPOCHS, "the run was over before the kill"
        run(run_dir, "--model_continue")
        assert weights_sha256(run_dir) == weights_sha256(tmp_path / "whole")
        print(f"killed in epoch {done + 1}, {wait_s:.2f} s after the count reached: equal")
