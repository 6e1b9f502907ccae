"""Where this checkout's parts lie, and what every command of run.py needs: faults, names, calls."""

import contextlib
import difflib
import os
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"


class Fault(Exception):
    """Something the user has to mend; printed as one line, exit code 2."""


def find_folders():
    """Return the names of the pipeline folders, sorted."""
    return sorted(
        p.parent.name for p in ROOT.glob("*/main.py") if (p.parent / "requirements.txt").exists()
    )


def choose(names, known, what):
    """Return ``names``, or all of ``known`` when empty; raise a Fault that names the nearest."""
    for name in names:
        if name.rstrip("/") not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]}?" if near else f"this checkout holds no {what}"
            raise Fault(f"no {what} named {name}: {hint}")
    return [name.rstrip("/") for name in names] or list(known)


def call(command, cwd=ROOT, log=None, env=None):
    """Run ``command`` and return its exit code; Ctrl-C or SIGTERM here ends it and its children."""
    child = subprocess.Popen(
        command, cwd=cwd, stdout=log, stderr=log, env=env, start_new_session=True
    )
    try:
        return child.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        raise
