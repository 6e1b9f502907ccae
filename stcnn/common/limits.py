"""Memory and disk are asked before they are used: sizes from headers and settings are checked."""

import contextlib
import math
import os
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

from common.faults import InputError

GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
DISK_MARGIN = 1 << 20  # for directories and the records beside the data


def readable(n_bytes: float) -> str:
    """Return a number of bytes as a text of three digits with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.0f} TB"


def memory_limit() -> tuple[int, str]:
    """Return the bytes of memory that this process may have at most, and who sets the limit."""
    limits = [(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "memory of this machine")]
    for path in GROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" stands for no limit
            limits.append((int(Path(path).read_text()), "memory limit of this container"))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append((soft, "memory limit of this shell (ulimit -v)"))
    return min(limits)


def check_size(n_bytes: float, what: str, remedy: str = "give less, or an intact file") -> None:
    """Refuse a size from a header or a setting that memory can never hold, before allocating it.

    Args:
        n_bytes: bytes that are about to be allocated.
        what: file and array, or the settings, that ask for them: the start of the error.
        remedy: what to do about it, the end of the error.
    """
    limit, name = memory_limit()
    if not 0 <= n_bytes <= limit:
        raise InputError(
            f"{what}: asks for {readable(n_bytes)} of memory, "
            f"the limit is {readable(limit)} ({name}); {remedy}"
        )


def check_shape(
    shape: Iterable[int], item_bytes: int, what: str, remedy: str = "give less, or an intact file"
) -> int:
    """Return the bytes of an array; refuse a negative axis or more than memory. See check_size."""
    shape = [int(n) for n in shape]
    if any(n < 0 for n in shape):
        raise InputError(f"{what}: shape {tuple(shape)} has a negative axis; {remedy}")
    n_bytes = math.prod(shape) * int(item_bytes)
    check_size(n_bytes, f"{what} of shape {tuple(shape)}", remedy)
    return n_bytes


def check_free_space(folder: str | os.PathLike, n_bytes: float, what: str = "the output") -> None:
    """Refuse to begin writing ``n_bytes`` (estimated) where less is free.

    Args:
        folder: where the files go; it may not exist yet.
        n_bytes: estimate of all that will be written.
        what: names the output in the error.
    """
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if n_bytes + DISK_MARGIN > free:
        raise InputError(
            f"{folder}: {what} needs {readable(n_bytes)}, {readable(free)} are free: no space left;"
            " free space or give another folder"
        )
