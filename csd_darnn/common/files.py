"""Faults in one line, atomic files, the settings record of a run, and the rules of its folder.

``FOLDER`` is the pipeline's own folder; data lie in ``DATA_DIR``, everything produced in
``RESULTS_DIR``/<run>/.
"""

import argparse
import contextlib
import difflib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
DATA_DIR = FOLDER.parent / "data" / FOLDER.name
RESULTS_DIR = FOLDER.parent / "results" / FOLDER.name


class InputError(Exception):
    """A fault in what the user gave: its text names file, found, expected and remedy."""


class DefaultsHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names a default where there is one to name."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False or action.default in ("", []):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """ArgumentParser without abbreviations that answers an unknown flag with the nearest one."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", DefaultsHelp)
        super().__init__(*args, **kwargs)

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else "see --help"
            self.error(f"unknown argument {unknown[0]}: {hint}")
        return parsed

    def error(self, message):
        """Print one line and leave with exit code 2."""
        self.exit(2, f"error: {message}\n")


def fault_line(error: Exception) -> str:
    """Return the one line that tells an InputError or an OSError (full disk, no permission)."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        text += "; check free space and permission of the folder"
    return f"error: {text}"


def one_line_faults(main: Callable) -> Callable:
    """Turn what stops ``main(argv)`` into one line on stderr and an exit code.

    InputError and OSError give 2, ``--debug`` among the arguments lets their traceback through;
    Ctrl-C gives 130.
    """

    @functools.wraps(main)
    def wrapped(argv=None):
        try:
            return main(argv)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except (InputError, OSError) as error:
            if "--debug" in (sys.argv[1:] if argv is None else argv):
                raise
            print(fault_line(error), file=sys.stderr)
            raise SystemExit(2) from None

    return wrapped


def raise_faults(faults: list[str], limit: int = 20) -> None:
    """Raise one InputError for all ``faults`` (list of str): the first ``limit``, then a count."""
    if not faults:
        return
    more = f"; and {len(faults) - limit} more" if len(faults) > limit else ""
    raise InputError("; ".join(faults[:limit]) + more)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success flush it to disk and move it into place.

    When the block fails the temporary file is removed and an older ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value) -> None:
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
):
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


def sha256(path: str | os.PathLike, limit: int | None = None) -> str:
    """Return the SHA-256 hex digest of a file, or of its first ``limit`` bytes."""
    digest, left = hashlib.sha256(), limit
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20 if left is None else min(1 << 20, left)):
            digest.update(block)
            left = None if left is None else left - len(block)
    return digest.hexdigest()


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
    inputs: Iterable[str | os.PathLike] = (),
    libraries: Iterable[str] = (),
) -> None:
    """Write ``settings.json``: settings, versions, git commit and SHA-256 of the inputs."""
    record = {
        "settings": {key: str(v) if isinstance(v, Path) else v for key, v in settings.items()},
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "git_commit": git_commit(),
        "inputs": {Path(path).name: sha256(path) for path in inputs},
    }
    write_json(Path(run_dir) / "settings.json", record)


def plain_name(name: str) -> str:
    """Return the name of a run; refuse one that leads out of the folder of the results."""
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"--run {name}: expected a plain name")
    return name


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
    """Return whether ``run_dir`` holds this very run, complete.

    A run that stopped before its first result, at a fault of the data, may change its settings.

    Args:
        run_dir: folder of the run.
        settings: resolved settings.
        fresh: remove the run that is there; a folder without settings.json is never removed.
        free: names of settings that may differ between two calls of one run.
    """
    record = Path(run_dir) / "settings.json"
    if fresh and record.is_file():
        shutil.rmtree(run_dir)
    if not check_own(run_dir):
        return False
    old = read_json(record, remedy="use --fresh")
    if not isinstance(old.get("settings"), dict):
        raise InputError(f"{record}: not readable (no settings in it); use --fresh")
    check_same(run_dir, old["settings"], settings, free=free)
    return (Path(run_dir) / "summary.json").is_file()
