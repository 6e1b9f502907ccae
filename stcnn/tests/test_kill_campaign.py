"""Training killed at random points and taken up again ends in the very same weights."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from network.checkpoints import checkpoint_epochs

pytestmark = pytest.mark.slow
TRAIN = Path(__file__).resolve().parents[1] / "train.py"
N_EPOCHS, N_KILLS = 40, 3


def final_sha256(run_dir):
    """Return the digest of the last weights (the .safetensors twin holds no time stamp)."""
    weights = run_dir / f"model_chkpnt_{N_EPOCHS}.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def test_three_random_kills_leave_the_same_weights(script, tiny_args, tmp_path):
    settings = [*tiny_args, f"n_epochs={N_EPOCHS}", "seed=5"]
    script("train.py", *settings, f"expt_path={tmp_path / 'whole'}")
    whole = next((tmp_path / "whole").iterdir())
    random = np.random.default_rng(0)
    for kill in range(N_KILLS):
        runs = tmp_path / f"killed_{kill}"
        command = [sys.executable, str(TRAIN), *settings, f"expt_path={runs}"]
        after_epoch, wait_s = random.integers(0, N_EPOCHS // 2), random.random()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not list(runs.glob(f"*/model_chkpnt_{after_epoch}.pt")):
                assert process.poll() is None, "training ended before it could be killed"
                time.sleep(0.01)
            time.sleep(wait_s)
            process.kill()
        run = next(runs.iterdir())
        done = max(checkpoint_epochs(run))
        assert done < N_EPOCHS, "the run was over before the kill"
        script("train.py", f"resume={run}")
        assert final_sha256(run) == final_sha256(whole)
        print(f"killed after epoch {done}: equal")
