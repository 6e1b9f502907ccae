"""Sort, read, resize and normalise the DICOM movies of a data set (specification section 5).

The body of ``preprocess.py``, whose docstring lists the files. Letters: r rows, c columns.
"""

import sys
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from common.files import InputError, read_json, write_json
from inputs.deid import report, write_contact_sheet
from inputs.frames import movie_from_frames, read_movie
from inputs.scaling import GREY_STREAM, check_options, normalize_movies
from inputs.sorting import FAILED, PROCESSED, SORTED, scan, sort_dicoms, write_manifest
from inputs.utils import CLASSES, existing_root, read_classes, read_split, save_array, split_file
from settings import Settings

OPTIONS = ("crop", "grey", "resample_fps", "nrows", "ncols")  # how a movie is made


def preprocess_dicom(source: Path, target: Path, options: dict, nframes: int) -> dict:
    """Process one DICOM into ``processed_dicoms``.

    Returns:
        dict with first (r, c) uint8 frame for the contact sheet, warnings, and fault (or None),
        without the file's name.
    """
    try:
        frames, info = read_movie(source, options)
        if len(frames) < nframes:
            raise InputError(f"{len(frames)} frames, {nframes} needed")
        first = np.clip(frames[0] * (255 / max(float(frames.max()), 255.0)), 0, 255).astype(
            np.uint8
        )
        save_array(target, movie_from_frames(frames, options["nrows"], options["ncols"]))
    except InputError as error:
        return {"first": None, "warnings": [], "fault": str(error).removeprefix(f"{source}: ")}
    return {"first": first, "warnings": info["warnings"], "fault": None}


def scanned(root: Path, classes: dict[str, str], settings: Settings) -> list[dict]:
    """Return the rows of ``sorting.scan`` after the check of identity in all headers.

    Raises:
        InputError: no DICOM, none usable, or one that names a person and may not.
    """
    rows = scan(root, classes, workers=settings.workers)
    first = not (root / "manifest.csv").exists()
    if not rows and first:
        raise InputError(f"{root}: no DICOM files; put *.dcm files and {settings.csv} there")
    findings = {row["source"]: row["findings"] for row in rows}
    for line in report(root / "deid_report.csv", findings, settings.deid):
        print(f"deid: {line}")
    if settings.debug:
        for row in rows:
            if any(f.keyword == "PatientID" for f in row["findings"]):
                print(f"deid: {row['source']}: PatientID {row['order'][0]} is not a study id")
    if first and not any(row["status"] == SORTED for row in rows):
        _print_table(rows, stream=sys.stderr)
        raise InputError(f"{root}: no usable movie among {len(rows)} files; see the list above")
    return rows


def make_movies(
    root: Path, rows: list[dict], options: dict, settings: Settings
) -> tuple[list[dict], list[dict]]:
    """Make the movies that are missing and enter in ``rows`` what became of each.

    Returns:
        rows of the movies that were to be made, and what ``preprocess_dicom`` returned for each.
    """
    folder = root / GREY_STREAM.made
    todo = [row for row in rows if row["status"] == SORTED]
    jobs = [
        row for row in todo if settings.recalculate or not (folder / f"{row['name']}.npy").exists()
    ]
    results = Parallel(n_jobs=settings.workers)(
        delayed(preprocess_dicom)(
            root / row["class"] / f"{row['name']}.dcm",
            folder / f"{row['name']}.npy",
            options,
            settings.nframes,
        )
        for row in tqdm(jobs, desc="preprocess", disable=None, unit="file")
    )
    for row, result in zip(jobs, results, strict=True):
        for note in result["warnings"]:
            print(f"warning: {note}", file=sys.stderr)
        if result["fault"]:
            row.update(status=FAILED, reason=result["fault"])
    for row in todo:
        if row["status"] == SORTED:
            row["status"] = PROCESSED
    return jobs, results


def preprocess_root(root: Path, settings: Settings) -> int:
    """Preprocess a data set; settings as the flags of the script.

    Args:
        settings: of PREPROCESS, and csv, workers, recalculate, move, debug.

    Returns:
        exit code: 0, or 1 when a file failed.
    """
    root = existing_root(root)
    classes = read_classes(root / settings.csv)
    if settings.stats == "train":
        read_split(split_file(root, settings.splitnum))
    rows = scanned(root, classes, settings)
    options = {name: getattr(settings, name) for name in OPTIONS}
    (root / GREY_STREAM.made).mkdir(exist_ok=True)
    check_options(root, GREY_STREAM.made, options, recalculate=settings.recalculate)
    rows = sort_dicoms(root, classes, rows, nframes=settings.nframes, move=settings.move)
    write_manifest(root, rows)
    jobs, results = make_movies(root, rows, options, settings)
    write_manifest(root, rows)
    _print_table(rows)
    done = {row["name"]: row["class"] for row in rows if row["status"] == PROCESSED}
    if not done:
        raise InputError(f"{root}: no usable movie among {len(rows)} files; see manifest.csv")
    written = normalize_movies(root, sorted(done), GREY_STREAM, options, settings)
    classmap = {name: CLASSES.index(done[name]) for name in sorted(done)}
    path = root / "classmap.json"
    if not path.exists() or read_json(path) != classmap:
        write_json(path, classmap)
    _contact_sheet(root, jobs, results)
    made = len(jobs) - sum(1 for result in results if result["fault"])
    if made or written:
        place = root / GREY_STREAM.scaled
        print(f"{made} movies processed, {written} normalised, {len(done)} in {place}")
    else:
        print(f"all {len(done)} movies exist already: nothing changed (-r recalculates)")
    failed = [row for row in rows if row["status"] == FAILED]
    for row in failed:
        print(f"failed: {row['source'] or row['name']}: {row['reason']}", file=sys.stderr)
    return 1 if failed else 0


def _print_table(rows, stream=None):
    """Print what was skipped or failed, one line a file."""
    left_out = [row for row in rows if row["status"] in ("skipped", "failed")]
    if left_out:
        print(f"{len(left_out)} of {len(rows)} files left out:", file=stream)
    for row in left_out:
        print(
            f"  {row['source'] or row['name']:<40} {row['status']:<8} {row['reason']}", file=stream
        )


def _contact_sheet(root, jobs, results):
    """Write the contact sheet of the movies read in this run, and remind of burnt-in text."""
    read = [
        (row["name"], r["first"]) for row, r in zip(jobs, results, strict=True) if not r["fault"]
    ]
    if not read:
        return
    names, pictures = zip(*read, strict=True)
    sheet = write_contact_sheet(root / "deid_contact_sheet.png", pictures, names)
    print(f"text burnt into the picture is not found by tags: look at {sheet}")
