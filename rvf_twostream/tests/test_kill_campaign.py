"""Training killed at random points and taken up again ends in the very same weights."""

import hashlib
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

import tiny_split
from little import FOLDER, run_script

pytestmark = pytest.mark.slow
N_EPOCHS, N_KILLS = 6, 3
WEIGHTS = ("t0.weights.h5", "t0_state/last.weights.h5")  # best epoch; last one with its optimiser


def arrays_sha256(path):
    """Return the SHA-256 over names and bytes of all arrays: the container holds time stamps."""
    digest = hashlib.sha256()

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode() + np.asarray(item).tobytes())

    with h5py.File(path, "r") as handle:
        handle.visititems(add)
    return digest.hexdigest()


def epochs_logged(out):
    table = out / "two_stream_csv" / "t0.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def test_three_random_kills_leave_the_same_weights(tmp_path):
    root = tiny_split.write_split(tmp_path / "root")
    more = ("--epoch", N_EPOCHS, "--width", 2, "--val_clips", 1)
    whole = tmp_path / "whole"
    done = run_script("train_twostream.py", *tiny_split.train_flags(root, whole, *more))
    assert done.returncode == 0, done.stderr
    expected = [arrays_sha256(whole / name) for name in WEIGHTS]
    random = np.random.default_rng(0)
    for kill in range(N_KILLS):
        out = tmp_path / f"killed_{kill}"
        flags = tiny_split.train_flags(root, out, *more)
        command = [sys.executable, str(FOLDER / "train_twostream.py"), *flags]
        after_epochs, wait_s = random.integers(1, N_EPOCHS - 2), random.random() * 0.2
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while epochs_logged(out) < after_epochs:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(wait_s)
            process.kill()
        assert after_epochs <= epochs_logged(out) < N_EPOCHS, "the run was over before the kill"
        done = run_script("train_twostream.py", *flags)
        assert done.returncode == 0, done.stderr
        assert "resuming after epoch" in done.stdout
        assert [arrays_sha256(out / name) for name in WEIGHTS] == expected
        print(f"killed {1000 * wait_s:.0f} ms after epoch {after_epochs}: equal")
