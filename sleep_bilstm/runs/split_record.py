"""Which epochs a network was trained, validated and tested on: kept with the run, used ever after.

A split that is drawn anew from a folder to which recordings were added would put training epochs
into the test.
"""

import hashlib
from pathlib import Path

from common.files import InputError, read_json, write_json
from inputs.dataloader_sleep import Split
from inputs.shards import Record, checksums

SPLIT_FILE = "split.json"
SETS = ("train", "val", "test")


def content_of(records: list[Record]) -> str:
    """Return the SHA-256 of names, labels and checksums of the signals of records."""
    digest = hashlib.sha256()
    for record, checksum in sorted(zip(records, checksums(records), strict=True), key=_name_of):
        digest.update(f"{record.name}\0{record.label}\0".encode() + checksum)
    return digest.hexdigest()


def _name_of(pair: tuple[Record, bytes]) -> str:
    return pair[0].name


def write_split(run_dir: Path, split: Split) -> None:
    """Write the names of the epochs of every set and the SHA-256 of their content."""
    sets = {name: getattr(split, name) for name in SETS}
    held = {
        "kind": split.kind,
        "names": {name: sorted(r.name for r in records) for name, records in sets.items()},
        "content": {name: content_of(records) for name, records in sets.items()},
    }
    write_json(run_dir / SPLIT_FILE, held)


def read_split(run_dir: Path) -> dict | None:
    """Return what write_split wrote; None for runs of older versions.

    Raises:
        InputError: the file is damaged.
    """
    path = run_dir / SPLIT_FILE
    if not path.is_file():
        return None
    held = read_json(path, remedy="train anew in another --run")
    try:
        whole = all(isinstance(held["names"][n], list) and held["content"][n] for n in SETS)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{path}: names no epochs; train anew in another --run")
    return held


def check_same_epochs(run_dir: Path, split: Split) -> None:
    """Refuse to go on with a training whose epochs were added to, taken from or changed."""
    held = read_split(run_dir)
    for name in ("train", "val") if held else ():
        records = getattr(split, name)
        old, new = set(held["names"][name]), {r.name for r in records}
        if old != new:
            what = f"{len(new - old)} epochs added, {len(old - new)} missing"
        elif held["content"][name] != content_of(records):
            what = "signals or labels changed"
        else:
            continue
        raise InputError(
            f"{run_dir / SPLIT_FILE}: the {name} epochs are not those of the run ({what}): give "
            "the old data to continue, or train anew with --fresh or in another --run"
        )


def epochs_of_set(held: dict, name: str, records: list[Record], where: Path) -> list[Record]:
    """Return the records of a stored set.

    Raises:
        InputError: some are missing, or their content is another one.
    """
    wanted = set(held["names"][name])
    epochs = [r for r in records if r.name in wanted]
    if len(epochs) < len(wanted):
        raise InputError(
            f"{where}: {len(wanted) - len(epochs)} of {len(wanted)} {name} epochs of the run are "
            "missing, such as "
            f"{min(wanted - {r.name for r in epochs})}: give the data that it was trained on, or "
            "use --mode test_subjectwise"
        )
    if content_of(epochs) != held["content"][name]:
        raise InputError(
            f"{where}: signals or labels of the {name} epochs changed since the training: give the "
            "data that it was trained on, or train anew with --fresh"
        )
    return epochs
