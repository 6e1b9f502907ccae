"""Sort the DICOM files of a data set by class and name them (specification section 5.3).

Files are hard linked (or copied, or moved) to ``<class>/<id><letter>.dcm``; ``manifest.csv`` says
what became of every input. Known recordings keep their letters when new ones are added.
"""

import csv
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from joblib import Parallel, delayed

from common.files import InputError, atomic_path
from inputs.deid import check_header
from inputs.dicom_io import frame_rate_hz, is_dicom, number_of_frames, read_header
from inputs.utils import CLASSES, movie_letter

MANIFEST = (
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
SKIPPED, FAILED, SORTED, PROCESSED = "skipped", "failed", "sorted", "processed"


def scan_file(path: Path, known_ids: Collection[str]) -> dict:
    """Read one header.

    Returns:
        row: dict with the manifest's columns and "order" (sort key) and "findings".
    """
    row = dict.fromkeys(MANIFEST, "")
    row.update(source=path.name, order=("", "", "", path.name), findings=[], status=SORTED)
    try:
        data = read_header(path)
    except InputError as error:
        row.update(status=FAILED, reason=str(error).removeprefix(f"{path}: "))
        return row
    row["findings"] = check_header(data, known_ids)
    patient = str(data.get("PatientID") or "").strip()
    uid = str(data.get("SOPInstanceUID") or "")
    when = str(data.get("AcquisitionDateTime") or "") or "".join(
        str(data.get(keyword) or "") for keyword in ("ContentDate", "ContentTime")
    )
    rate = frame_rate_hz(data)
    meta = getattr(data, "file_meta", None)
    row.update(
        sop_instance_uid=uid,
        rows=data.get("Rows", ""),
        columns=data.get("Columns", ""),
        frames=number_of_frames(data),
        fps=f"{rate:.4f}" if rate else "",
        transfer_syntax=str(meta.get("TransferSyntaxUID", "")) if meta else "",
        photometric=str(data.get("PhotometricInterpretation", "")),
        order=(patient, when, uid, path.name),
    )
    if patient in known_ids:
        row["id"] = patient
    else:
        # The id itself is not repeated: it may be a hospital number.
        row.update(status=SKIPPED, reason="PatientID is not in the class file")
    return row


def dicom_files(root: Path) -> list[Path]:
    """Return the paths of the DICOM files in ``root``, sorted."""
    return sorted(path for path in Path(root).iterdir() if is_dicom(path))


def scan(root: Path, known_ids: Collection[str], *, workers: int = 1) -> list[dict]:
    """Return the rows of all DICOM files in ``root``, sorted by patient, time, UID and name."""
    rows = Parallel(n_jobs=workers)(
        delayed(scan_file)(path, known_ids) for path in dicom_files(root)
    )
    return sorted(rows, key=lambda row: row["order"])


def read_manifest(root: Path) -> list[dict]:
    """Return the rows of ``manifest.csv`` as dicts, or an empty list without one."""
    path = Path(root) / "manifest.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != MANIFEST:
            raise InputError(f"{path}: columns {reader.fieldnames}, expected {MANIFEST}; remove it")
        return list(reader)


def write_manifest(root: Path, rows: list[dict]) -> None:
    """Write ``manifest.csv``, one row per input file."""
    path = Path(root) / "manifest.csv"
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.DictWriter(handle, MANIFEST, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def sort_dicoms(
    root: Path, classes: dict[str, str], rows: list[dict], *, nframes: int, move: bool = False
) -> list[dict]:
    """Give every usable recording its letter and its place in the class folders.

    Args:
        root: folder of the data set.
        classes: {id: class name}.
        rows: rows of ``scan``; status, reason, class and name are filled in.
        nframes: fewest frames of a movie.
        move: move the files instead of linking them.

    Returns:
        rows: all rows for the manifest; those of files moved by an earlier run come first.

    Source: section 5.3. Differs: the published numbering follows the directory and restarts at
    ``a`` in every run, which overwrites files.
    """
    root = Path(root)
    for name in CLASSES:
        (root / name).mkdir(exist_ok=True)
    earlier = {row["sop_instance_uid"]: row for row in read_manifest(root) if row["name"]}
    present = {row["sop_instance_uid"] for row in rows}
    kept = [row for uid, row in earlier.items() if uid not in present]
    kept = [_at_present(root, row, classes) for row in kept if _sorted_path(root, row).exists()]
    used = {}
    for row in earlier.values():
        used.setdefault(row["id"], set()).add(row["name"])
    taken = {row["sop_instance_uid"] for row in kept}
    for row in rows:
        if row["status"] != SORTED:
            continue
        if row["frames"] < nframes:
            row.update(status=SKIPPED, reason=f"{row['frames']} frames, {nframes} needed")
            continue
        uid = row["sop_instance_uid"]
        if uid and uid in taken:
            row.update(status=SKIPPED, reason="same SOPInstanceUID as another file")
            continue
        taken.add(uid)
        patient = row["id"]
        before = earlier.get(uid) if uid else None
        names = used.setdefault(patient, set())
        row["class"] = classes[patient]
        if before and before["id"] == patient:
            row["name"] = before["name"]
            if before["class"] != row["class"]:
                _sorted_path(root, before).unlink(missing_ok=True)
        else:
            k = 0
            while patient + movie_letter(k, patient) in names:
                k += 1
            row["name"] = patient + movie_letter(k, patient)
        names.add(row["name"])
        _place(root / row["source"], _sorted_path(root, row), move=move)
    return kept + rows


def _at_present(root, row, classes):
    """Return a moved file's row with today's class; the file follows a changed class."""
    wanted = classes.get(row["id"])
    if wanted is None:
        return {**row, "status": SKIPPED, "reason": "PatientID is not in the class file"}
    if wanted != row["class"]:
        os.replace(_sorted_path(root, row), _sorted_path(root, {**row, "class": wanted}))
    return {**row, "class": wanted, "status": SORTED, "reason": ""}


def _sorted_path(root, row):
    return Path(root) / row["class"] / f"{row['name']}.dcm"


def _place(source, target, *, move):
    """Move, link or (where links are impossible) copy a file; an equal target stays."""
    if move:
        os.replace(source, target)
        return
    if target.exists() and os.path.samefile(source, target):
        return
    link_or_copy(source, target)


def link_or_copy(source: Path, target: Path, *, copy: bool = False) -> None:
    """Make ``target`` a hard link of ``source``, or a copy where that is wanted or impossible."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if copy:
            shutil.copy2(source, temporary)
        else:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copy2(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def sorted_movies(root: Path) -> dict[str, Path]:
    """Return {stem: path of the sorted DICOM} of the manifest's processed movies."""
    rows = read_manifest(root)
    if not rows:
        raise InputError(f"{root}: no manifest.csv; run preprocess.py --root {root} first")
    return {
        row["name"]: _sorted_path(root, row)
        for row in rows
        if row["status"] == PROCESSED and row["name"]
    }


def inputs_of(settings: dict) -> list[Path]:
    """Return the tables and DICOM files that the run reads; those of a demo are not made yet."""
    if settings["root"] is None:
        return []
    root = Path(settings["root"])
    tables = [root / "REDcap_class.csv", root / f"split_allocation_{settings['splitnum']}.csv"]
    if settings["echonet"] is not None:
        tables.append(Path(settings["echonet"]) / "FileList.csv")
    return [*(path for path in tables if path.is_file()), *dicom_files(root)]
