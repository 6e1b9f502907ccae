"""Identity is content: SHA-256 of the very bytes that were read, kept and compared."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from common.faults import InputError


class Hashed(NamedTuple):
    """A file that is open for reading, from its first byte, and the SHA-256 of its content."""

    handle: BinaryIO
    sha256: str


def sha256(path: str | os.PathLike, limit: int | None = None) -> str:
    """Return the SHA-256 hex digest of a file, or of its first ``limit`` bytes."""
    with open(path, "rb") as handle:
        return _digest(handle, limit)


def _digest(handle, left=None):
    digest = hashlib.sha256()
    while block := handle.read(1 << 20 if left is None else min(1 << 20, left)):
        digest.update(block)
        left = None if left is None else left - len(block)
    return digest.hexdigest()


def _state(found):
    """Return what differs in ``os.stat`` when a file is replaced or written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def hashed_file(path: str | os.PathLike) -> Iterator[Hashed]:
    """Yield an open file and its SHA-256; at the end of the block both are of the same bytes.

    The block may read from the handle or open ``path`` itself, for libraries that want a name: a
    file that was replaced or written to in between is an error then, so that the digest belongs
    to what was read either way.

    Raises:
        InputError: the file is missing, or changed during the block.
    """
    try:
        handle = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise InputError(f"{path}: not found; give an existing file") from None
    with handle:
        before = _state(os.fstat(handle.fileno()))
        digest = _digest(handle)
        handle.seek(0)
        yield Hashed(handle, digest)
        same = False
        with contextlib.suppress(OSError):
            same = before == _state(os.stat(path))
        if not same:
            raise InputError(f"{path}: changed while it was read; start again when it is complete")


def read_bytes_hashed(path: str | os.PathLike) -> tuple[bytes, str]:
    """Return the content of a file and the SHA-256 of exactly these bytes."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: not found; give an existing file") from None
    return content, hashlib.sha256(content).hexdigest()


def check_hashes(
    place: str | os.PathLike,
    recorded: Mapping[str, str],
    present: Mapping[str, str],
    *,
    remedy: str = "use --fresh to start anew, or bring the former files back",
) -> None:
    """Refuse to go on with other inputs than those that a run or a result was made from.

    Args:
        place: folder or file that holds the record: the start of the error.
        recorded: {name: SHA-256} at the time.
        present: {name: SHA-256} of what was read now.
        remedy: the way on, with the flag of the script (--fresh, --recalculate).
    """
    kinds = (
        ("changed", sorted(n for n in recorded if n in present and recorded[n] != present[n])),
        ("missing", sorted(set(recorded) - set(present))),
        ("added", sorted(set(present) - set(recorded))),
    )
    told = []
    for kind, names in kinds:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            told.append(f"{kind}: {', '.join(names[:3])}{more}")
    if told:
        raise InputError(f"{place}: made from other inputs ({'; '.join(told)}); {remedy}")
