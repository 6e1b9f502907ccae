"""Where this checkout's parts lie, and what every command of run.py needs: faults, names, calls."""

import contextlib
import difflib
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
# Its input ends when run.py does, however that happens; groups still listed then are ended.
WATCH = """
import os, signal, sys, time
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for number in (signal.SIGTERM, signal.SIGKILL) if groups else ():
    for group in groups:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass
    if number == signal.SIGTERM:
        time.sleep(5)
"""


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


@contextlib.contextmanager
def watcher():
    """Yield a function that notes a process group ('+', id) or its end ('-', id)."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )

    def note(sign, group):
        with contextlib.suppress(OSError):  # a watcher that was killed itself is no reason to stop
            process.stdin.write(f"{sign}{group}\n")
            process.stdin.flush()

    try:
        yield note
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


def call(command, cwd=ROOT, log=None, env=None):
    """Run ``command`` and return its exit code.

    Ctrl-C or SIGTERM here ends it and its children, and so does the end of this process, however
    that comes about: what is started again then finds no second writer.
    """
    with watcher() as note:
        child = subprocess.Popen(
            command, cwd=cwd, stdout=log, stderr=log, env=env, start_new_session=True
        )
        note("+", child.pid)
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
        finally:
            note("-", child.pid)
