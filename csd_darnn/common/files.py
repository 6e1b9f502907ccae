"""Atomic files, the settings record of a run, and the rules of its folder.

``FOLDER`` is the pipeline's own folder; data lie in ``DATA_DIR``, everything produced in
``RESULTS_DIR``/<run>/.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Scripts and wings find faults, parser and digest here, beside what they use with them.
from common.faults import (  # noqa: F401
    DISK_FULL,
    DefaultsHelp,
    InputError,
    Parser,
    fault_line,
    is_disk_full,
    one_line_faults,
    raise_faults,
)
from common.hashes import sha256
from common.limits import check_free_space
from common.locks import clear_folder, hold
from common.names import file_name

FOLDER = Path(__file__).resolve().parents[1]
DATA_DIR = FOLDER.parent / "data" / FOLDER.name
RESULTS_DIR = FOLDER.parent / "results" / FOLDER.name


def _temporary_name(path):
    """Return the hidden name under which ``path`` is written; locks.TEMPORARY knows its form."""
    ending = f".{os.getpid()}.tmp{path.suffix}"
    stem = path.stem
    if len(os.fsencode(stem + ending)) > 254:  # a name has 255 bytes at most
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()[:32]
    return f".{stem}{ending}"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success flush it to disk and move it into place.

    When the block fails the temporary file is removed and an older ``path`` stays as it was.

    Raises:
        InputError: the disk or the quota is full, whatever exception the library made of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path))
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if is_disk_full(error) or (
            # PyTorch and HDF5 say only that a write failed
            isinstance(error, OSError | RuntimeError)
            and not isinstance(error, FileNotFoundError)
            and shutil.disk_usage(path.parent).free < 1 << 16
        ):
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number in DISK_FULL else os.strerror(errno.ENOSPC)
            raise InputError(
                f"{path}: not written ({reason}), an older file stays as it was; "
                "check free space and quota, then start again"
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes | bytearray | memoryview) -> None:
    """Write bytes atomically, after asking whether the disk has room for them.

    For libraries that crash on a full disk (HDF5 does when it closes): let them fill a BytesIO.
    """
    path = Path(path)
    check_free_space(path.parent, memoryview(content).nbytes, path.name)
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        handle.write(content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _unique(pairs):
    """Return the dict of a JSON object, refusing a name that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def read_json(
    path: str | os.PathLike,
    *,
    kind: type | tuple[type, ...] = dict,
    remedy: str = "give an intact file",
) -> Any:
    """Return the value in a JSON file; a missing, damaged or other one is an InputError.

    Args:
        path: file, in UTF-8 with or without a byte-order mark.
        kind: type of the whole value (dict, list) or a tuple of types.
        remedy: what to do about a fault, the end of its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        value = json.loads(text, object_pairs_hook=_unique)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no valid JSON ({error}); {remedy}") from None
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(one.__name__ for one in kinds)
        raise InputError(f"{path}: holds a {type(value).__name__}, expected a {wanted}; {remedy}")
    return value


def git_commit() -> str | None:
    """Return the commit of the folder's repository, or None outside one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=FOLDER, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def write_settings(
    run_dir: str | os.PathLike,
    settings: dict,
    *,
    inputs: Iterable[str | os.PathLike] | Mapping[str, str] = (),
    libraries: Iterable[str] = (),
) -> None:
    """Write ``settings.json``: settings, versions, git commit and SHA-256 of the inputs.

    Args:
        run_dir: folder of the run.
        settings: resolved settings.
        inputs: {name: SHA-256} of what was read, taken while reading (``hashes.hashed_file``), or
            paths of files that are hashed now.
        libraries: packages whose versions are recorded.
    """
    if not isinstance(inputs, Mapping):
        inputs = {Path(path).name: sha256(path) for path in inputs}
    record = {
        "settings": {key: str(v) if isinstance(v, Path) else v for key, v in settings.items()},
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "git_commit": git_commit(),
        "inputs": dict(inputs),
    }
    write_json(Path(run_dir) / "settings.json", record)


def plain_name(name: str) -> str:
    """Return the name of a run; refuse one that leads out of the folder of the results."""
    return file_name(name, "--run")


def seed_number(text: str | int) -> int:
    """Return the whole number of ``--seed``."""
    if not (str(text).isascii() and str(text).isdigit()):
        raise InputError(f"--seed {text}: expected a whole number of 0 or more")
    return int(text)


def check_same(
    run_dir: str | os.PathLike, old: dict, new: dict, *, free: Iterable[str] = ()
) -> None:
    """Refuse to go on with a run of other settings, as settings.json holds them; ``free`` differ.

    Args:
        run_dir: folder of the run.
        old, new: settings of the run that is there and those asked for.
        free: names that may differ between two calls of one run.
    """
    new = json.loads(json.dumps(new, default=str))
    names = sorted({*old, *new} - set(free))
    changed = [
        name for name in names if name not in old or name not in new or old[name] != new[name]
    ]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise InputError(
            f"{run_dir}: holds a run with other settings ({', '.join(changed[:5])}{more}); "
            "use --fresh to start anew, or another --run"
        )


def check_own(
    run_dir: str | os.PathLike, *, starts: Iterable[str] = ("settings.json", "log.txt")
) -> bool:
    """Return whether a run has begun in ``run_dir``; refuse files that no run has left there.

    A run that stopped before its first result has written ``starts`` at most.
    """
    run_dir = Path(run_dir)
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    begun = any(name not in starts and not name.startswith(".") for name in names)
    if begun and "settings.json" not in names:
        raise InputError(f"{run_dir}: holds files of something else; give another --run")
    return begun


def open_run(
    run_dir: str | os.PathLike, settings: dict, *, fresh: bool = False, free: Iterable[str] = ()
) -> bool:
    """Return whether ``run_dir`` holds this very run, complete; else hold it as its one writer.

    A run that stopped before its first result, at a fault of the data, may change its settings. A
    complete run is only looked at: it may lie on a read-only disk, and several may look.

    Args:
        run_dir: folder of the run.
        settings: resolved settings.
        fresh: remove the run that is there; a folder without settings.json is never removed.
        free: names of settings that may differ between two calls of one run.

    Raises:
        InputError: another process writes in the folder, or it holds something else.
    """
    run_dir, record = Path(run_dir), Path(run_dir) / "settings.json"
    complete = run_dir / "summary.json"
    if not fresh and complete.is_file() and check_own(run_dir):
        _check_record(run_dir, settings, free)
        return True
    hold(run_dir)
    if fresh and record.is_file():
        clear_folder(run_dir)
    if not check_own(run_dir):
        return False
    _check_record(run_dir, settings, free)
    return complete.is_file()  # another process may have completed it just before


def _check_record(run_dir, settings, free):
    """Refuse a run whose record is damaged or tells other settings."""
    record = run_dir / "settings.json"
    old = read_json(record, remedy="use --fresh")
    if not isinstance(old.get("settings"), dict):
        raise InputError(f"{record}: not readable (no settings in it); use --fresh")
    check_same(run_dir, old["settings"], settings, free=free)
