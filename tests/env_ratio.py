#!/usr/bin/env python3
"""Build the environments with pip and with run.py (uv); print time and disk of both, and the ratio.

    python3 tests/env_ratio.py [name ...] [--scratch FOLDER]

Outside CI: pip takes 5 minutes and more. One after the other, in an empty folder and with empty
caches: pip, one environment after the other (``python -m venv``, ``pip install -r``, as before uv);
``run.py env`` in a fresh clone of this checkout's last commit; the same in a second clone, which
finds uv's cache. run.py installs its own uv in both, that counts. Disk is what ``du`` counts: a
file with several hard links once; uv's counts its cache, pip's does not. Ends with 1 when a target
is missed.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from checkout import choose  # noqa: E402 - run.py's own modules lie one folder up
from venvs import find_environments  # noqa: E402

TIME_SHARE, DISK_SHARE, SECOND_S = 1 / 5, 1 / 2, 15


def disk_gb(*folders):
    """Return the disk that ``folders`` take together, hard links counted once."""
    blocks = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in (".", *names):
                found = os.lstat(os.path.join(place, name))
                blocks[found.st_dev, found.st_ino] = found.st_blocks
    return sum(blocks.values()) * 512 / 1e9


def timed(commands, cwd, env):
    """Run ``commands`` one after the other; return (seconds, seconds of processor time)."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        command = list(map(str, command))
        done = subprocess.run(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            sys.exit(f"error: {' '.join(command[:6])} ... failed:\n{done.stdout[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start, busy


def build_with_pip(scratch, environments, env):
    """Build as run.py did before uv; return the commands' times."""
    commands = []
    for environment in environments:
        folder = scratch / "pip" / environment.name
        files = [word for path in environment.files for word in ("-r", path)]
        commands.append([sys.executable, "-m", "venv", folder])
        commands.append([folder / "bin" / "python", "-m", "pip", "install", *files])
    return timed(commands, ROOT, env)


def build_clone(folder, names, env):
    """Clone this checkout's last commit and build with its run.py; return the times."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return timed([[sys.executable, "run.py", "env", *names]], folder, env)


def main():
    """Measure, print the table, return 1 when a target is missed."""
    known = find_environments()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="environments; default: all")
    parser.add_argument("--scratch", help="folder for the builds; default: the system's")
    options = parser.parse_args()
    names = choose(options.names, known, "environment")
    scratch = Path(tempfile.mkdtemp(prefix="env_ratio_", dir=options.scratch))
    caches = {"PIP_CACHE_DIR": scratch / "pip_cache", "UV_CACHE_DIR": scratch / "uv_cache"}
    env = {**os.environ, **{name: str(folder) for name, folder in caches.items()}}
    try:
        rows = [("pip", *build_with_pip(scratch, [known[n] for n in names], env))]
        rows.append(("uv, first clone", *build_clone(scratch / "first", names, env)))
        one = disk_gb(scratch / "first" / ".venvs", caches["UV_CACHE_DIR"])
        rows.append(("uv, second clone", *build_clone(scratch / "second", names, env)))
        both = disk_gb(*(scratch / n / ".venvs" for n in ("first", "second")), scratch / "uv_cache")
        return tell(names, rows, (disk_gb(scratch / "pip"), one, both - one))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def tell(names, rows, disk):
    """Print times (``rows``) and gigabytes (``disk``); return 1 when a target is missed."""
    print(f"{', '.join(names)}; Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"{'':18}{'seconds':>9}{'CPU s':>9}{'GB':>7}")
    for (what, seconds, busy), gigabytes in zip(rows, disk):
        print(f"{what:18}{seconds:9.1f}{busy:9.1f}{gigabytes:7.2f}")
    time_share, disk_share = rows[1][1] / rows[0][1], disk[1] / disk[0]
    print(
        f"time {time_share:.3f} (target <= {TIME_SHARE}), disk {disk_share:.3f} (<= {DISK_SHARE})"
    )
    print(f"second clone {rows[2][1]:.1f} s (target < {SECOND_S})", flush=True)
    met = time_share <= TIME_SHARE and disk_share <= DISK_SHARE and rows[2][1] < SECOND_S
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
