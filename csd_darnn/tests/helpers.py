"""Tiny recordings and runs that several test files use."""

import contextlib
import importlib
import io
import json
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


def apart(settings, run_dir, **more):
    """Return the command that calls main.run_all in a process of its own, into any folder."""
    call = (
        f"import json, sys\nsys.path.insert(0, {str(FOLDER)!r})\n"
        "import main\nfrom common.files import one_line_faults\n"
        "one_line_faults(lambda argv: main.run_all(**json.loads(argv[0])))(sys.argv[1:])\n"
    )
    values = json.dumps(settings | {"run_dir": run_dir} | more, default=str)
    return [sys.executable, "-c", call, values]


def run_apart(settings, run_dir, **more):
    """Call main.run_all in a process of its own and return the finished process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = apart(settings, run_dir, **more)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def call(script, *arguments):
    """Call main(argv) of a script in this process; return what ``run_script`` returns.

    One start of a script as a user starts it shows that it starts; the rest needs no interpreter
    of its own.
    """
    out, err, argv = io.StringIO(), io.StringIO(), [str(argument) for argument in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(Path(script).stem).main(argv)
        except SystemExit as stopped:
            code = stopped.code
    return subprocess.CompletedProcess(argv, code or 0, out.getvalue(), err.getvalue())


def run_script(script, *arguments, cwd=None, timeout=300):
    """Run a script of the folder as a user does and return the finished process."""
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd or FOLDER, capture_output=True, text=True, env=environment, timeout=timeout
    )
