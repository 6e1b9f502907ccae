"""Sort the DICOM files of a data set by class and name them (specification section 5.3).

Files are hard linked (or copied, or moved) to ``<class>/<id><letter>.dcm``; ``manifest.csv`` says
what became of every input. Known recordings keep their letters when new ones are added. The
manifest is on disk before the first file is moved, and no file is ever put over another one: a
killed run loses nothing and the same command finishes it.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from joblib import delayed

from common.cluster import run_jobs
from common.files import InputError, sha256
from common.locks import visible
from inputs.cine import why_no_cine
from inputs.deid import check_header
from inputs.dicom_io import is_dicom, number_of_frames, read_header
from inputs.dicom_movie import counted_frames
from inputs.manifest import (
    FAILED,
    MANIFEST,
    PROCESSED,
    SKIPPED,
    SORTED,
    read_manifest,
    sorted_movies,
    sorted_path,
    write_manifest,
)
from inputs.timing import timing
from inputs.utils import CLASSES, LETTERS, movie_letter

__all__ = [
    "FAILED",
    "PROCESSED",
    "SKIPPED",
    "SORTED",
    "read_manifest",
    "sorted_movies",
    "write_manifest",
]
MOVED, LINKED = "moved", "linked"


def scan_file(path: Path, known_ids: Collection[str]) -> dict:
    """Read one header.

    Returns:
        row: dict with the manifest's columns and "order" (sort key), "findings" and "patient".
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
    uid = str(data.get("SOPInstanceUID") or "").strip()
    when = str(data.get("AcquisitionDateTime") or "") or "".join(
        str(data.get(keyword) or "") for keyword in ("ContentDate", "ContentTime")
    )
    rate = timing(data)
    meta = getattr(data, "file_meta", None)
    frames = number_of_frames(data)
    if "NumberOfFrames" not in data:
        frames = counted_frames(path, data)
    row.update(
        sop_instance_uid=uid,
        # Without a UID the content is the identity: names of files change.
        key=uid or f"sha256:{sha256(path)}",
        rows=data.get("Rows", ""),
        columns=data.get("Columns", ""),
        frames=frames,
        fps=f"{rate.rate_hz:.4f}" if rate.rate_hz else "",
        fps_origin=rate.origin,
        transfer_syntax=str(meta.get("TransferSyntaxUID", "")) if meta else "",
        photometric=str(data.get("PhotometricInterpretation", "")),
        order=(patient, when, uid, path.name),
    )
    reason = why_no_cine(data)
    if patient not in known_ids:
        # The id itself is not repeated: it may be a hospital number.
        row.update(status=SKIPPED, reason="PatientID is not in the class file")
        return row
    row["id"] = patient
    if reason:
        row.update(status=SKIPPED, reason=reason)
    return row


def dicom_files(root: Path) -> list[Path]:
    """Return the paths of the DICOM files in ``root``, sorted."""
    return [path for path in visible(root) if is_dicom(path)]


def scan(
    root: Path, known_ids: Collection[str], *, workers: int = 1, cluster: str = ""
) -> list[dict]:
    """Return the rows of all DICOM files in ``root``, sorted by patient, time, UID and name."""
    jobs = (delayed(scan_file)(path, known_ids) for path in dicom_files(root))
    rows = run_jobs(jobs, workers, cluster=cluster, folder=root)
    return sorted(rows, key=lambda row: row["order"])


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
    earlier = {row["key"]: row for row in read_manifest(root) if row["name"]}
    present = {row["key"] for row in rows if row["key"]}
    kept = [
        {**row, "_before": row, "placed": MOVED, **_today(row, classes)}
        for key, row in earlier.items()
        if key not in present and sorted_path(root, row).exists()
    ]
    _give_names(rows, classes, earlier, taken={row["key"] for row in kept}, nframes=nframes)
    plan = kept + rows
    write_manifest(root, plan)  # the plan: where each file goes, before the first one goes there
    for name in CLASSES:
        (root / name).mkdir(exist_ok=True)
    for row in kept:
        if row["class"] != row["_before"]["class"] and row["status"] == SORTED:
            _move(sorted_path(root, row["_before"]), sorted_path(root, row))
    for row in rows:
        if row["status"] == SORTED:
            _place(root, row, earlier.get(row["key"]), move=move)
    return plan


def _today(row, classes):
    """Return what of a moved file's row follows from today's class file."""
    wanted = classes.get(row["id"])
    if wanted is None:
        return {"status": SKIPPED, "reason": "PatientID is not in the class file"}
    return {"class": wanted, "status": SORTED, "reason": ""}


def _give_names(rows, classes, earlier, *, taken, nframes):
    """Fill in status, class and name of the rows; names of an earlier run stay."""
    used = {}
    for row in earlier.values():
        used.setdefault(row["id"], set()).add(row["name"])
    for row in rows:
        before = earlier.get(row["key"])
        if before is not None and row["status"] == SKIPPED:
            # A patient who comes back gets the same letters, and no other movie has had them.
            row.update(name=before["name"], id=before["id"])
            row["class"] = before["class"]
        if row["status"] != SORTED:
            continue
        if row["frames"] < nframes:
            row.update(status=SKIPPED, reason=f"{row['frames']} frames, {nframes} needed")
            continue
        if row["key"] in taken:
            what = "SOPInstanceUID" if row["sop_instance_uid"] else "content"
            row.update(status=SKIPPED, reason=f"same {what} as another file")
            continue
        taken.add(row["key"])
        patient = row["id"]
        names = used.setdefault(patient, set())
        row["class"] = classes[patient]
        if before and before["id"] == patient:
            row["name"] = before["name"]
        else:
            k = 0
            while k < len(LETTERS) and patient + movie_letter(k, patient) in names:
                k += 1
            if k == len(LETTERS):
                row.update(
                    status=SKIPPED,
                    reason=f"patient {patient} has more than {len(LETTERS)} movies, names have one "
                    "letter: the first in time are used; take files away to choose others",
                )
                row["class"] = ""
                continue
            row["name"] = patient + movie_letter(k, patient)
        for column in ("source_stamp", "source_sha256", "recipe", "movie_sha256"):
            row[column] = before[column] if before else ""
        for column in ("flow_recipe", "flow_of", "flow", "placed"):
            row[column] = before[column] if before else ""
        names.add(row["name"])


def _place(root, row, before, *, move):
    """Move, link or (where links are impossible) copy a file to its place; an equal one stays.

    Raises:
        InputError: a file that was moved there is the only one of its kind.
    """
    source, target = root / row["source"], sorted_path(root, row)
    if before and before["class"] and before["class"] != row["class"]:
        old = sorted_path(root, before)
        if old.exists() and before["placed"] != MOVED:
            old.unlink()
    if target.exists():
        if os.path.samefile(source, target) or sha256(source) == sha256(target):
            if move:
                source.unlink()
            row["placed"] = MOVED if move or row["placed"] == MOVED else LINKED
            return
        if row["placed"] == MOVED or move:
            raise InputError(
                f"{source}: {target} is another file that was moved there; nothing is replaced, "
                "take one of the two away"
            )
    if move:
        _move(source, target)
        row["placed"] = MOVED
        return
    link_or_copy(source, target)
    row["placed"] = LINKED


def _move(source, target):
    """Move a file to a name that does not exist; a kill leaves it at one place or at both."""
    try:
        os.link(source, target)
    except FileExistsError:
        if not os.path.samefile(source, target):
            raise InputError(f"{target}: exists, {source} is not moved over it") from None
    except OSError:  # a disk without hard links
        if target.exists():
            raise InputError(f"{target}: exists, {source} is not moved over it") from None
        link_or_copy(source, target, copy=True)
    source.unlink()


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


def inputs_of(settings: dict) -> list[Path]:
    """Return the tables and DICOM files that the run reads; those of a demo are not made yet."""
    if settings["root"] is None:
        return []
    root = Path(settings["root"])
    tables = [root / "REDcap_class.csv", root / f"split_allocation_{settings['splitnum']}.csv"]
    if settings["echonet"] is not None:
        tables.append(Path(settings["echonet"]) / "FileList.csv")
    return [*(path for path in tables if path.is_file()), *dicom_files(root)]
