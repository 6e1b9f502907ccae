"""Sort, read and resize the DICOM movies of a data set, and measure their scale (section 5).

The body of ``preprocess.py``, whose docstring lists the files. Letters: r rows, c columns.
"""

import hashlib
import sys
from pathlib import Path

from joblib import delayed
from tqdm import tqdm

from common.cluster import run_jobs
from common.files import InputError, read_json, sha256, write_json
from common.hashes import hashed_file
from inputs.burnt_text import find_text, text_reader
from inputs.contact_sheet import save_picture, write_sheets
from inputs.deid import report
from inputs.flow import FlowFault
from inputs.flow_files import flow_options, flow_root, save_flow
from inputs.frames import make_movie
from inputs.manifest import DONE, Keeper, manifest_path, sorted_path
from inputs.recipe import options_hash
from inputs.scaling import FLOW_STREAM, GREY_STREAM, check_options, write_stats
from inputs.sorting import FAILED, PROCESSED, SORTED, scan, sort_dicoms, write_manifest
from inputs.storage import check_room, stored_grey
from inputs.utils import (
    CLASSES,
    one_writer,
    read_classes,
    read_split,
    save_array,
    split_file,
)
from settings import Settings, flow_settings

# How a movie is made.
OPTIONS = ("crop", "grey", "resample_fps", "frame_rate", "nrows", "ncols", "store")


def preprocess_dicom(
    root: Path, row: dict, options: dict, nframes: int, flow: dict | None = None
) -> dict:
    """Process one DICOM into ``processed_dicoms`` and, when asked, ``processed_OF``.

    Args:
        root: folder of the data set.
        row: of the manifest.
        options: how movies are made.
        nframes: fewest frames.
        flow: options of the flow, to make it in the same pass over the frames.

    Returns:
        dict with warnings, fault (or None, without the file's name), and what changes in ``row``.
    """
    source, stem = sorted_path(root, row), row["name"]
    try:
        stamp = source_stamp(source)
        with hashed_file(source) as held:
            try:
                made = make_movie(source, options, flow, nframes=nframes)
            except FlowFault:
                # ``flow_root``, which follows, says so; the grey movie is sound without it.
                made, flow = make_movie(source, options, nframes=nframes), None
        digest = held.sha256
        movie = stored_grey(made.grey, options["store"])
        save_array(root / GREY_STREAM.made / f"{stem}.npy", movie)
        save_picture(root, stem, made.low, made.high)
        changes = {
            "source_stamp": stamp,
            "source_sha256": digest,
            "recipe": options_hash(options),
            "movie_sha256": hashlib.sha256(movie.tobytes()).hexdigest(),
            "flow": "",
        }
        if flow is not None:
            save_flow(root, stem, made.flow, flow)
            changes |= {"flow": DONE, "flow_recipe": options_hash(flow), "flow_of": digest}
    except InputError as error:
        fault = str(error).removeprefix(f"{source}: ")
        return {"warnings": [], "fault": fault, "changes": {}}
    return {"warnings": made.info["warnings"], "fault": None, "changes": changes}


def source_stamp(path: Path) -> str:
    """Return size and time of change of a file: while both stay, its content is taken as known."""
    stat = Path(path).stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def scanned(root: Path, classes: dict[str, str], settings: Settings) -> list[dict]:
    """Return the rows of ``sorting.scan`` after the check of identity in all headers.

    Raises:
        InputError: no DICOM, none usable, or one that names a person and may not.
    """
    rows = scan(root, classes, workers=settings.workers, cluster=settings.cluster)
    first = not manifest_path(root).exists()
    if not rows and first:
        raise InputError(f"{root}: no DICOM files; put *.dcm files and {settings.csv} there")
    findings = {row["source"]: row["findings"] for row in rows}
    if not rows:
        return rows  # all were moved by an earlier run, whose report stays
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


def is_made(root: Path, row: dict, recipe: str) -> bool:
    """Say whether a row's movie is there and was made of this file in this way."""
    if not (root / GREY_STREAM.made / f"{row['name']}.npy").exists() or row["recipe"] != recipe:
        return False
    source = sorted_path(root, row)
    stamp = source_stamp(source)
    if row["source_stamp"] == stamp:
        return True
    # Copied or touched, or another file under the old name.
    same = row["source_sha256"] == sha256(source)
    if same:
        row["source_stamp"] = stamp
    return same


def make_movies(
    root: Path, rows: list[dict], options: dict, settings: Settings, flow: dict | None = None
) -> tuple[list[dict], list[dict]]:
    """Make the movies that are missing and enter in ``rows`` what became of each.

    Returns:
        rows of the movies that were to be made, and what ``preprocess_dicom`` returned for each.
    """
    todo = [row for row in rows if row["status"] == SORTED]
    recipe = options_hash(options)
    jobs = [row for row in todo if settings.recalculate or not is_made(root, row, recipe)]
    check_room(root / GREY_STREAM.made, jobs, options, "grey")
    if flow is not None:
        check_room(root / FLOW_STREAM.made, jobs, flow, "of")
    calls = (
        delayed(preprocess_dicom)(root, _plain(row), options, settings.nframes, flow)
        for row in jobs
    )
    made = run_jobs(calls, settings.workers, cluster=settings.cluster, folder=root)
    results, keep = [], Keeper(root, rows)
    bar = tqdm(jobs, desc="preprocess", disable=None, unit="file")
    for row, result in zip(bar, made, strict=True):
        results.append(result)
        row.update(result["changes"])
        keep.now_and_then()
        for note in result["warnings"]:
            print(f"warning: {note}", file=sys.stderr)
        if result["fault"]:
            row.update(status=FAILED, reason=result["fault"])
    for row in todo:
        if row["status"] == SORTED:
            row["status"] = PROCESSED
    return jobs, results


def _plain(row):
    """Return what a worker process needs of a row."""
    return {"name": row["name"], "class": row["class"]}


@one_writer
def preprocess_root(root: Path, settings: Settings, flow: dict | None = None) -> int:
    """Preprocess a data set; settings as the flags of the script.

    Args:
        settings: of PREPROCESS, and csv, workers, recalculate, move, debug.
        flow: options of the flow, to decode each file once for both; None leaves the flow to
            ``flow_root``.

    Returns:
        exit code: 0, or 1 when a file failed.
    """
    classes = read_classes(root / settings.csv)
    if settings.find_text:
        text_reader()  # a missing package is told before hours of work
    if settings.stats == "train":
        read_split(split_file(root, settings.splitnum))
    rows = scanned(root, classes, settings)
    options = {name: getattr(settings, name) for name in OPTIONS}
    for stream, wanted in ((GREY_STREAM, options), (FLOW_STREAM, flow)):
        if wanted is not None:
            (root / stream.made).mkdir(exist_ok=True)
            recalculate, keep = settings.recalculate, stream is FLOW_STREAM
            check_options(root, stream.made, wanted, recalculate=recalculate, keep=keep)
    rows = sort_dicoms(root, classes, rows, nframes=settings.nframes, move=settings.move)
    write_manifest(root, rows)
    jobs, results = make_movies(root, rows, options, settings, flow)
    write_manifest(root, rows)
    _print_table(rows)
    done = {row["name"]: row["class"] for row in rows if row["status"] == PROCESSED}
    if not done:
        raise InputError(f"{root}: no usable movie among {len(rows)} files; see manifest.csv")
    # A movie without flow is in no split, so it is not behind the scale either.
    failed = {row["name"] for row in rows if row["flow"].startswith("failed")}
    measured = sorted(set(done) - failed) or sorted(done)
    changed = write_stats(root, measured, GREY_STREAM, options, settings)
    classmap = {name: CLASSES.index(done[name]) for name in sorted(done)}
    path = root / "classmap.json"
    if not path.exists() or read_json(path) != classmap:
        write_json(path, classmap)
    made = len(jobs) - sum(1 for result in results if result["fault"])
    _contact_sheet(root, sorted(done))
    if settings.find_text:
        n_found = find_text(root, sorted(done))
        print(f"text in {n_found} of {len(done)} movies: places in {root / 'deid_text.csv'}")
    if made or changed:
        print(f"{made} movies processed, {len(done)} in {root / GREY_STREAM.made}")
    else:
        print(f"all {len(done)} movies exist already: nothing changed (-r recalculates)")
    if (root / GREY_STREAM.scaled).is_dir():
        print(
            f"note: {GREY_STREAM.scaled}/ and {FLOW_STREAM.scaled}/ of an older version are no "
            "longer read; remove them"
        )
    failed = [row for row in rows if row["status"] == FAILED]
    for row in failed:
        print(f"failed: {row['source'] or row['name']}: {row['reason']}", file=sys.stderr)
    return 1 if failed else 0


def preprocess_and_flow(root: Path, settings: Settings) -> int:
    """Preprocess a data set, with --with_flow also its flow at full size; return the exit code.

    The flow is made in the pass over the frames; ``flow_root`` makes it of movies that were there
    already, and measures its mean and deviation.
    """
    if settings.with_flow == "none":
        return preprocess_root(root, settings)
    names = ("nframes", "nrows", "ncols", "stats", "splitnum", "workers", "cluster")
    shared = {name: getattr(settings, name) for name in names}
    flow = flow_settings(**shared, flow_unit=settings.with_flow)
    grey = {name: getattr(settings, name) for name in OPTIONS}
    failed = preprocess_root(root, settings, flow_options(grey, flow))
    return failed | flow_root(root, flow)


def _print_table(rows, stream=None):
    """Print what was skipped or failed, one line a file."""
    left_out = [row for row in rows if row["status"] in ("skipped", "failed")]
    if left_out:
        print(f"{len(left_out)} of {len(rows)} files left out:", file=stream)
    for row in left_out:
        print(
            f"  {row['source'] or row['name']:<40} {row['status']:<8} {row['reason']}", file=stream
        )


def _contact_sheet(root, stems):
    """Write the pages with all movies of the data set, and remind of burnt-in text."""
    pages, missing = write_sheets(root, stems)
    shown = " to ".join(dict.fromkeys(page.name for page in [*pages[:1], *pages[-1:]]))
    print(f"text burnt into the picture is not found by tags: look at {shown} in {root}")
    if missing:
        print(f"note: {len(missing)} movies of an older version are on no page; -r makes them anew")
