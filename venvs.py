"""Virtual environments of the pipeline folders, one each under .venvs/, and the calls into them."""

import contextlib
import difflib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
PYTHON = (3, 11)
GB_PER_ENVIRONMENT = 6  # a CUDA build of PyTorch or TensorFlow with its libraries


class Fault(Exception):
    """Something the user has to mend; printed as one line, exit code 2."""


def find_folders():
    """Return the names of the pipeline folders, sorted."""
    return sorted(
        p.parent.name for p in ROOT.glob("*/main.py") if (p.parent / "requirements.txt").exists()
    )


def find_environments():
    """Return {environment name: requirement files}, read from environments/*.yml, and ``root``."""
    found = {"root": [ROOT / "tests" / "requirements.txt"]}
    for folder in find_folders():
        files = [ROOT / folder / "requirements.txt", ROOT / folder / "tests" / "requirements.txt"]
        found[folder] = [path for path in files if path.exists()]
    for recipe in sorted((ROOT / "environments").glob("*.yml")):
        line = re.search(r"-r \.\./(\S+)", recipe.read_text(encoding="utf-8"))
        if line and recipe.stem not in found:
            found[recipe.stem] = [ROOT / line.group(1)]
    return found


def choose(names, known, what):
    """Return ``names``, or all of ``known`` when empty; raise a Fault that names the nearest."""
    for name in names:
        if name.rstrip("/") not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]}?" if near else f"this checkout holds no {what}"
            raise Fault(f"no {what} named {name}: {hint}")
    return [name.rstrip("/") for name in names] or list(known)


def interpreter(name):
    """Return the path of the Python of environment ``name``."""
    return VENVS / name / "bin" / "python"


def environment_key(files):
    """Return the key of an environment: hash of its requirement files and the Python version."""
    digest = hashlib.sha256(platform.python_version().encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_built(name, files):
    """Tell whether environment ``name`` was finished from exactly these files."""
    stamp = VENVS / name / "stamp"
    return stamp.exists() and stamp.read_text() == environment_key(files)


def check_machine(missing):
    """Raise a Fault unless Python and the free disk are enough to build ``missing``."""
    if sys.version_info[:2] != PYTHON:
        wanted = ".".join(map(str, PYTHON))
        raise Fault(
            f"Python {wanted} is needed, found {platform.python_version()}: "
            f"call python{wanted} run.py"
        )
    try:
        import ensurepip  # noqa: F401 - Debian ships it in a package of its own
    except ImportError:
        raise Fault("Python's venv module is incomplete: apt install python3.11-venv") from None
    free = shutil.disk_usage(ROOT).free / 1e9
    needed = GB_PER_ENVIRONMENT * len([name for name in missing if name != "root"])
    if free < needed:
        raise Fault(
            f"{needed} GB of free disk are needed for {', '.join(missing)}, found {free:.0f} GB"
        )


def call(command, cwd=ROOT, log=None):
    """Run ``command`` and return its exit code; Ctrl-C or SIGTERM here ends it and its children."""
    child = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, start_new_session=True)
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


def build(name, files):
    """Make environment ``name`` unless a finished one is there; return whether it is usable."""
    VENVS.mkdir(exist_ok=True)
    with open(VENVS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_built(name, files):
            return True
        shutil.rmtree(VENVS / name, ignore_errors=True)
        log_path = VENVS / f"{name}.log"
        print(f"building {name} (log: {log_path.relative_to(ROOT)})", flush=True)
        start = time.monotonic()
        with open(log_path, "w") as log:
            requirements = [word for path in files for word in ("-r", str(path))]
            failed = call([sys.executable, "-m", "venv", str(VENVS / name)], log=log) or call(
                [str(interpreter(name)), "-m", "pip", "install", *requirements], log=log
            )
        if failed:
            lines = [line for line in log_path.read_text().splitlines() if "ERROR" in line]
            print(f"building {name} failed: {(lines or ['see the log'])[-1]}", flush=True)
            return False
        (VENVS / name / "stamp").write_text(environment_key(files))
        print(f"built {name} in {time.monotonic() - start:.0f} s", flush=True)
        return True


def build_all(names):
    """Build the environments ``names``; return {name: usable}."""
    known = find_environments()
    missing = [name for name in names if not is_built(name, known[name])]
    if missing:
        check_machine(missing)
    return {name: build(name, known[name]) for name in names}
