"""Which animal and run a file belongs to: the names of recordings, and the search for them."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.files import InputError, raise_faults

log = logging.getLogger(__name__)
NAME = re.compile(r"(?P<date>\d+)-(?P<mouse>\w+)-fc(?P<run>\d+)", re.IGNORECASE)
NEARLY = re.compile(r"\d+[-_ ].*fc\d+", re.IGNORECASE)  # meant as a recording, of another form


@dataclass(frozen=True, order=True)
class Name:
    """Date code, mouse tag and run number in the name of a recording; sorts by date, mouse, run."""

    date: str
    mouse: str
    run: int


class Named(Protocol):
    """Anything that knows its animal: a Name or the record of an epoch."""

    date: str
    mouse: str


def parse_name(path: Path | str) -> Name | None:
    """Return the parts of `200128-L2-fc7-GSR_Ben.mat`, or None when the name has another form."""
    match = NAME.match(Path(path).name)
    return Name(match["date"], match["mouse"], int(match["run"])) if match else None


def files_below(folder: Path, pattern: str) -> list[Path]:
    """List the files below ``folder`` that match ``pattern``, through symbolic links as well.

    A file that several links lead to comes once; hidden files (leftovers of a stopped write, the
    companions that macOS leaves) do not come.
    """
    seen, paths = set(), {}
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if not name.startswith(".") and path.match(pattern):
                paths.setdefault(os.path.realpath(path), path)
    return sorted(paths.values())


def animals_named(held: Iterable[Named], mice: Sequence[str]) -> dict[str, set[tuple[str, str]]]:
    """Map every entry of ``mice`` to the animals (date, tag) of ``held`` that it names.

    An entry is a date code (published), a tag, or `<date>-<tag>`.

    Raises:
        InputError: an entry is the date code of one animal and the tag of another.
    """
    animals = {(one.date, one.mouse) for one in held}
    found = {}
    for mouse in mice:
        by_date = {a for a in animals if mouse in (a[0], f"{a[0]}-{a[1]}")}
        by_tag = {a for a in animals if mouse == a[1]}
        if by_date and by_tag - by_date:
            raise InputError(
                f"mouse {mouse} is a date code and a tag as well: write <date>-<tag>, one of "
                + ", ".join(sorted("-".join(a) for a in by_date | by_tag))
            )
        found[mouse] = by_date or by_tag
    return found


def some(names: Sequence[str], most: int = 5) -> str:
    """Return names as text, the first ``most`` of them and a count."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def of_animals(held: Sequence, mice: Sequence[str], where: Path, of: str = "") -> list:
    """Return what of ``held`` (each with date and mouse) belongs to ``mice``, see animals_named.

    ``of`` says in an error where the names come from.

    Raises:
        InputError: an entry of ``mice`` that names nothing.
    """
    named = animals_named(held, mice)
    absent = [mouse for mouse, animals in named.items() if not animals]
    if absent:
        there = sorted({f"{one.date}-{one.mouse}" for one in held})
        raise InputError(
            f"{where}: mouse {some(absent)}{of} has no epochs there; found {some(there)}"
            + ("; name your own mice in a --split_file, see mouse_split.json" if of else "")
        )
    wanted = set().union(*named.values()) if named else set()
    return [one for one in held if (one.date, one.mouse) in wanted]


def twice(named: Iterable[tuple[Name, Path]]) -> list[str]:
    """Return one fault per file that has the date, mouse and run of an earlier one."""
    first, faults = {}, []
    for name, path in named:
        other = first.setdefault(name, path)
        if other != path:
            faults.append(
                f"{path}: has the same date, mouse and run as {other}; keep one file of each run, "
                f"or name one variant with --pattern '*{NAME.sub('', other.stem, count=1)}.mat'"
            )
    return faults


def find_recordings(
    folder: Path, *, mice: Sequence[str] = (), pattern: str = "*.mat"
) -> list[Path]:
    """List the recordings below ``folder``, ordered by date, mouse and run number.

    Args:
        folder: searched recursively, through symbolic links; or one recording.
        mice: date codes, tags or `<date>-<tag>` to keep; all when empty.
        pattern: file name pattern that narrows the search.

    Raises:
        InputError: no such folder, no file in it with a usable name, a file that is nearly named
            like a recording, or two files of one run.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; expected a folder with recordings (.mat)")
    named, faults, other = [], [], []
    for path in [folder] if folder.is_file() else files_below(folder, pattern):
        name = parse_name(path)
        if name is not None:
            named.append((name, path))
        elif NEARLY.match(path.name):
            faults.append(
                f"{path}: its name is not <date>-<mouse>-fc<n>..., with letters, digits and _ in "
                "<mouse>: rename it, or leave it out with --pattern"
            )
        else:
            other.append(path)
    if not named:
        raise_faults(faults)
        raise InputError(
            f"{folder}: no recording matches {pattern} with a name like 200128-L2-fc7-GSR_Ben.mat"
        )
    for path in other:
        log.warning("%s: skipped, its name is not <date>-<mouse>-fc<n>...", path)
    if mice:
        keep = set(of_animals([name for name, _ in named], mice, folder))
        named = [(name, path) for name, path in named if name in keep]
    named.sort()
    raise_faults(faults + twice(named))
    return [path for _, path in named]


def size_faults(sizes: dict[Path, tuple[int, int]]) -> list[str]:
    """Return one fault per recording whose frame differs from that of most recordings.

    Args:
        sizes: recording -> (rows, columns).
    """
    if not sizes:
        return []
    usual = Counter(sizes.values()).most_common(1)[0][0]
    return [
        f"{path}: frames are {size[0]} x {size[1]} pixels, those of most recordings here "
        f"{usual[0]} x {usual[1]}: keep one folder per frame size"
        for path, size in sizes.items()
        if size != usual
    ]
