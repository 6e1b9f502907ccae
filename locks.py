"""The locks: exact versions of all indirect packages of an environment, made by run.py lock.

A lock is a constraint file for pip, uv and conda's pip section alike. The direct packages are not
in it: their versions stand in the requirement files alone, whose digest the lock's header holds.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import uv_install
from checkout import ROOT, Fault
from venvs import PYTHONS, dotted

# torch's own CUDA packages follow its build, which differs from machine to machine.
TORCH_CUDA = re.compile(r"(nvidia|cuda)-|triton$")
HEADER = (
    "# Versions of the indirect packages, made by: python3 run.py lock\n"
    "# pins: {digest}; a constraint file: pip install -r {source} -c {lock}\n"
)


def pins(files):
    """Return {package: its whole requirement line} of requirement files and of those they name."""
    found = {}
    for path in files:
        for raw in path.read_text(encoding="utf-8").splitlines():
            line = raw.split("#")[0].strip()
            if line.startswith("-r"):
                found.update(pins([path.parent / line[2:].strip()]))
            elif line:
                name = re.match(r"[\w.-]+", line).group()
                found[normal(name)] = line
    return found


def normal(name):
    """Return a package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(files):
    """Return a short digest of the pins in ``files``, whatever their order and comments."""
    text = "\n".join(sorted(pins(files).values()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_lock(environment, uv, upgrade):
    """Resolve the environment for every Python it runs on and write its lock; return the path.

    Versions of an existing lock stay where they still fit, unless ``upgrade`` is set.
    """
    lock = environment.lock
    python = dotted(environment.python or PYTHONS[0])
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.lock"
        if lock.exists() and not upgrade:
            shutil.copy(lock, raw)
        flags = ["--universal", "--python-version", python, "--no-header", "--no-annotate"]
        flags += ["--no-emit-index-url", "--no-emit-find-links", "--python", sys.executable]
        flags += uv_install.pip_flags()
        code, _, complaint = uv_install.ask_uv(
            uv, "pip", "compile", *environment.files_for("cuda"), "--output-file", raw, *flags
        )
        if code:
            raise Fault(f"no lock for {environment.name}: {uv_install.explain_text(complaint)}")
        lines = raw.read_text(encoding="utf-8").splitlines()
    direct = pins(environment.files)
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    kept = [line for line in lines if normal(re.match(r"[\w.-]+", line).group()) not in direct]
    if environment.torch:
        kept = [line for line in kept if not TORCH_CUDA.match(normal(line.split("==")[0]))]
    header = HEADER.format(
        digest=digest(environment.files), source=environment.files[0].name, lock=lock.name
    )
    part = lock.with_name(f"{lock.name}.part")
    part.write_text(header + "".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(part, lock)
    print(f"{lock.relative_to(ROOT)}: {len(kept)} versions", flush=True)
    return lock
