"""``manifest.csv``: the one list of what lies in a data set and what became of it.

Every later step takes its movies from here, never from what happens to lie in a folder.
"""

import time
from pathlib import Path

from common.files import InputError
from common.tables import read_rows, write_rows

BASE = (
    "source",
    "sop_instance_uid",
    "id",
    "class",
    "name",
    "rows",
    "columns",
    "frames",
    "fps",
    "transfer_syntax",
    "photometric",
    "status",
    "reason",
)
NEWER = (
    "key",  # SOPInstanceUID, or the file's SHA-256 where that is empty
    "fps_origin",
    "placed",  # linked, copied or moved into the class folder
    "source_stamp",  # size and time of change of the file that the movie was made of
    "source_sha256",
    "recipe",  # of the movie, 12 digits over its options
    "movie_sha256",  # of the stored values
    "flow_recipe",
    "flow_of",  # source_sha256 that the flow was made of
    "flow",  # done, or why there is none
)
MANIFEST = (*BASE, *NEWER)
SKIPPED, FAILED, SORTED, PROCESSED = "skipped", "failed", "sorted", "processed"
DONE = "done"
KEEP_S = 5.0  # seconds of work that a kill may cost


def manifest_path(root: Path) -> Path:
    """Return the path of a data set's manifest."""
    return Path(root) / "manifest.csv"


def read_manifest(root: Path) -> list[dict]:
    """Return the rows of ``manifest.csv`` as dicts, or an empty list without one.

    Columns that an older version did not write are empty; its key is the SOPInstanceUID.
    """
    path = manifest_path(root)
    if not path.is_file():
        return []
    stored = read_rows(path)
    names = tuple(stored[0]) if stored else BASE
    if names[: len(BASE)] != BASE or set(names) - set(MANIFEST):
        raise InputError(f"{path}: columns {names}, expected {MANIFEST}; remove it")
    for number, row in enumerate(stored, 2):
        if None in row.values() or None in row:
            raise InputError(
                f"{path}: row {number} has not {len(names)} cells; the file is cut or damaged: "
                f"give it back, or remove it and run preprocess.py with all DICOM files in {root}"
            )
    rows = [{name: row.get(name) or "" for name in MANIFEST} for row in stored]
    for row in rows:
        row["key"] = row["key"] or row["sop_instance_uid"]
    return rows


def write_manifest(root: Path, rows: list[dict]) -> None:
    """Write ``manifest.csv``, one row per input file."""
    table = [{name: row.get(name, "") for name in MANIFEST} for row in rows]
    write_rows(manifest_path(root), table, MANIFEST)


class Keeper:
    """Writes the manifest every few seconds of a long loop: a killed run goes on where it was."""

    def __init__(self, root: Path, rows: list[dict]):
        self._root, self._rows, self._last = root, rows, time.monotonic()

    def now_and_then(self) -> None:
        """Write the rows as they are, unless that was done just now."""
        if time.monotonic() - self._last > KEEP_S:
            write_manifest(self._root, self._rows)
            self._last = time.monotonic()


def sorted_path(root: Path, row: dict) -> Path:
    """Return where the DICOM of a row lies in its class folder."""
    return Path(root) / row["class"] / f"{row['name']}.dcm"


def processed_rows(root: Path, rows: list[dict] | None = None) -> list[dict]:
    """Return the rows of the manifest whose movies are made, sorted by name.

    Args:
        rows: of ``read_manifest``, when they are at hand.

    Raises:
        InputError: there is no manifest.
    """
    rows = read_manifest(root) if rows is None else rows
    if not rows:
        raise InputError(f"{root}: no manifest.csv; run preprocess.py --root {root} first")
    rows = [row for row in rows if row["status"] == PROCESSED and row["name"]]
    return sorted(rows, key=lambda row: row["name"])


def sorted_movies(root: Path) -> dict[str, Path]:
    """Return {stem: path of the sorted DICOM} of the manifest's processed movies."""
    return {row["name"]: sorted_path(root, row) for row in processed_rows(root)}
