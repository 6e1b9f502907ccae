"""One writer a folder: a lock that is held to the end, and what killed writers left is removed.

The lock is ``flock`` on ``.writer.lock`` in the folder, which names process, host, start and
command. The system frees it when its process ends, however that happens: a file that was left
behind locks nothing. Readers ask for no lock.

- A process, its children and theirs count as one writer (a script that calls others, the workers
  of a data loader); so do the ranks of one torchrun, of which only rank 0 takes the lock.
- ``clear_folder`` empties a folder and keeps its lock; whoever removes and makes the folder anew
  calls ``hold`` again.
- On a file system without locks (some network disks) the work goes on after one line on stderr.
"""

import atexit
import contextlib
import datetime
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common.faults import InputError, at_end_of_main

LOCK_NAME = ".writer.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\..*)?", re.DOTALL)  # as atomic_path names them
CLOCK_SLACK_S = 2.0  # the start of a process is known to the second


class _Held:
    """A lock of this process: its open file, the blocks inside it, and whether it stays."""

    def __init__(self, handle: int | None, made: bool):
        self.handle = handle  # None: the file system has no locks
        self.made = made  # the folder was not there before
        self.owner = os.getpid()
        self.depth = 0
        self.stays = False


_held: dict[str, _Held] = {}


def _forget_in_child():
    """Close the parent's locks in a forked child: it counts as the same writer without them.

    A worker that outlives its killed parent for a moment must not keep the folder locked.
    """
    for held in _held.values():
        if held.handle is not None:
            with contextlib.suppress(OSError):
                os.close(held.handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _parent(pid: int) -> int:
    """Return the id of a process's parent, 0 when there is none to be found."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(status.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        asked = ["ps", "-o", "ppid=", "-p", str(pid)]
        return int(subprocess.run(asked, capture_output=True, text=True, check=False).stdout)
    except (OSError, ValueError):
        return 0


def _is_ancestor(pid: int) -> bool:
    """Tell whether ``pid`` is this process or one that started it, directly or by others."""
    here = os.getpid()
    for _ in range(100):
        if here == pid:
            return True
        if here <= 1:
            return False
        here = _parent(here)
    return False


def _started_at(pid: int) -> float | None:
    """Return when a process started, in seconds since 1970, or None where the system hides it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        ticks = int(status.rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def _lives(pid: int, written: float) -> bool:
    """Tell whether process ``pid`` runs and ran when a file was last ``written``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's; or no number of a process
    started = _started_at(pid)
    return started is None or started <= written + CLOCK_SLACK_S


def remove_left(folder: str | os.PathLike, *, starts: tuple[str, ...] = ("",)) -> list[Path]:
    """Remove the temporary files of processes that no longer run, here and below; return them.

    Only for the one writer of the folder, or of all files there whose names begin with one of
    ``starts``: ``hold`` and ``writing`` call it.
    """
    starts = tuple(f".{start}" for start in starts)
    removed = []
    for place, _, names in os.walk(folder):
        for name in names:
            match = TEMPORARY.fullmatch(name)
            if not match or not name.startswith(starts):
                continue
            path = Path(place, name)
            with contextlib.suppress(OSError):
                if not _lives(int(match[1]), path.stat().st_mtime):
                    path.unlink()
                    removed.append(path)
    return removed


def visible(
    folder: str | os.PathLike, pattern: str = "*", *, recursive: bool = False
) -> list[Path]:
    """Return what lies in a folder under a glob pattern, sorted, without hidden files.

    Locks, temporary files and what other programs hide (``._x.tif``, ``.ipynb_checkpoints``) are
    never data; below a hidden folder nothing is either. A folder that is missing is empty.
    """
    folder = Path(folder)
    found = folder.rglob(pattern) if recursive else folder.glob(pattern)
    return sorted(
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def clear_folder(folder: str | os.PathLike) -> None:
    """Remove everything in a folder but its lock; the caller holds the folder.

    ``summary.json`` goes first: without it nobody takes the rest for a complete run.
    """
    folder = Path(folder)
    (folder / "summary.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name == LOCK_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _holder(handle: int) -> dict:
    """Return what the holder of a lock wrote about itself; it may be just about to do so."""
    for _ in range(20):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(os.pread(handle, 4096, 0))
            if isinstance(found, dict) and isinstance(found.get("process"), int):
                return found
        time.sleep(0.01)
    return {}


def _refusal(folder, holder):
    """Return the error that tells who writes in ``folder``."""
    who = "another process"
    if holder:
        who = f"process {holder['process']} on {holder.get('host')}"
        who += f" since {holder.get('start')} ({holder.get('command')})"
    return InputError(f"{folder}: is being written by {who}; wait until it ends, or stop it")


def _open_lock(path: Path) -> int:
    """Return an open handle of a folder's lock file."""
    problem = ""
    for _ in range(5):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError as error:  # its last holder removed the empty folder just now
            problem = error.strerror
        except OSError as error:
            problem = error.strerror
            break
    raise InputError(
        f"{path.parent}: cannot be written ({problem}); give a folder that may be written"
    )


def _take(folder: Path) -> _Held | None:
    """Take the lock of ``folder``; return None when a process above this one has it."""
    made = not folder.exists()
    path = folder / LOCK_NAME
    while True:
        handle = _open_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            same_host = holder.get("host") == socket.gethostname()
            if holder and same_host and _is_ancestor(holder["process"]):
                return None
            raise _refusal(folder, holder) from None
        except OSError as error:
            os.close(handle)
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"note: {folder}: its file system has no locks; start no second writer there",
                file=sys.stderr,
            )
            return _Held(None, made)
        # Its last holder may have removed the file between our opening and locking it.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return _Held(handle, made)
        os.close(handle)


def _write_holder(held: _Held) -> None:
    start = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    about = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "start": start,
        "command": " ".join(sys.argv)[:300],
    }
    os.ftruncate(held.handle, 0)
    os.pwrite(held.handle, json.dumps(about).encode(), 0)


def _acquire(folder: str | os.PathLike) -> _Held | None:
    """Return the lock of ``folder``, taken now or before; None when an ancestor or rank 0 has it.

    Raises:
        InputError: another process writes in the folder, or nobody may write there.
    """
    if int(os.environ.get("RANK") or 0) > 0:
        return None
    folder = Path(os.path.realpath(folder))
    for gone in [name for name in _held if name != str(folder) and not os.path.isdir(name)]:
        _release(gone, _held[gone])
    held = _held.get(str(folder))
    if held is not None:
        with contextlib.suppress(OSError):
            if held.handle is None or os.path.samestat(
                os.fstat(held.handle), os.stat(folder / LOCK_NAME)
            ):
                return held
        _release(str(folder), held)  # the folder was removed and perhaps made anew
    fresh = _take(folder)
    if fresh is None:
        return None
    _held[str(folder)] = fresh
    if held is not None:
        fresh.depth, fresh.stays = held.depth, held.stays
    if fresh.handle is not None:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its words
            _write_holder(fresh)
        remove_left(folder)
    return fresh


def _release(folder: str, held: _Held) -> None:
    """Free a lock and remove its file; remove a folder that this process made and left empty."""
    if _held.get(folder) is held:
        del _held[folder]
    if held.handle is None or held.owner != os.getpid():
        return
    path = Path(folder, LOCK_NAME)
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(held.handle), os.stat(path)):
            path.unlink()
            if held.made:
                os.rmdir(folder)
    with contextlib.suppress(OSError):
        os.close(held.handle)


def release_all() -> None:
    """Free every lock of this process but those of a ``writing`` block that has not ended.

    Called at the end of a script's main, and of the process.
    """
    for folder, held in list(_held.items()):
        held.stays = False
        if not held.depth:
            _release(folder, held)


atexit.register(release_all)
at_end_of_main(release_all)


def hold(folder: str | os.PathLike) -> None:
    """Make this process the one writer of ``folder`` until it ends; called again it does nothing.

    The end is that of the script's main, where that is called by another program (a notebook).
    The folder is made when it is missing. What killed writers left in it is removed.

    Raises:
        InputError: another process writes in the folder (named), or nobody may write there.
    """
    held = _acquire(folder)
    if held is not None:
        held.stays = True


@contextlib.contextmanager
def writing(folder: str | os.PathLike) -> Iterator[Path]:
    """Make this process the one writer of ``folder``, as ``hold`` does, for a block; yield it."""
    held = _acquire(folder)
    if held is not None:
        held.depth += 1
    try:
        yield Path(folder)
    finally:
        key = os.path.realpath(folder)
        held = _held.get(key) if held is not None else None
        if held is not None:
            held.depth -= 1
            if held.depth <= 0 and not held.stays:
                _release(key, held)
