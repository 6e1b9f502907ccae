"""Tiny recordings and runs that several test files use."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1]
SMALL = {  # settings that make a run of a tiny movie take a second or two
    "T": 5, "encoder_hidden_size": 6, "decoder_hidden_size": 5, "batch_size": 16, "n_epochs": 2,
    "movie": "none", "importance_every": 9, "importance_repeats": 1, "device": "cpu",
}  # fmt: skip


def tiny_movie(path, *, n_frames=120, height=4, width=5, seed=0):
    """Write a smooth random movie (F, H, W) float32 as NPY and return its path."""
    random = np.random.default_rng(seed)
    movie = 100 + np.cumsum(random.normal(size=(n_frames, height, width)), axis=0)
    np.save(path, movie.astype(np.float32))
    return path


def flags(settings):
    """Return settings as command-line flags."""
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def run_script(script, *arguments, cwd=None, timeout=300):
    """Run a script of the folder as a user does and return the finished process."""
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd or FOLDER, capture_output=True, text=True, env=environment, timeout=timeout
    )
