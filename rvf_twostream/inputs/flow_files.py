"""Compute the flow of every movie of a data set (specification section 5.6).

The body of ``optical_flow_calculator.py``, whose docstring lists the files.
"""

import sys
from pathlib import Path

import numpy as np
from joblib import delayed
from tqdm import tqdm

from common.cluster import run_jobs
from common.files import InputError, read_json, write_json
from common.hashes import hashed_file
from inputs.flow import flow_unit
from inputs.frames import make_movie
from inputs.manifest import DONE, Keeper, processed_rows, read_manifest, sorted_path, write_manifest
from inputs.recipe import options_hash
from inputs.scaling import (
    FLOW_STREAM,
    GREY_STREAM,
    OPTIONS_BEFORE,
    check_options,
    measure_again,
    write_stats,
)
from inputs.storage import check_room, stored_flow
from inputs.utils import one_writer, read_stats, save_array
from settings import FARNEBACK, FLOW_UNITS, Settings


def convert2OF(
    source: Path, target: Path, options: dict, nframes: int, *, known_sha256: str | None = None
) -> str | None:
    """Compute and save the flow of one DICOM; return the fault as text, or None.

    Args:
        known_sha256: of the file that the grey movie was made of; another file is a fault.
    """
    try:
        with hashed_file(source) as held:
            made = make_movie(source, options, options, nframes=nframes)
        if known_sha256 and held.sha256 != known_sha256:
            return f"{source}: changed since preprocess.py read it; run preprocess.py again"
        save_array(target, stored_flow(made.flow, options.get("store", "float32")))
    except InputError as error:
        return str(error)
    return None


def save_flow(root: Path, stem: str, flow: np.ndarray, options: dict) -> None:
    """Save the flow (n, r, c, 2) of a movie of a data set as it is stored."""
    save_array(root / FLOW_STREAM.made / f"{stem}.npy", stored_flow(flow, options["store"]))


def flow_options(grey: dict, settings: Settings) -> dict:
    """Return how flow is made: as the grey movies, and unit, size and method.

    Args:
        grey: options of data_mean_std.json.
        settings: see ``flow_root``.
    """
    if settings.crop is not None and settings.crop != grey["crop"]:
        raise InputError(
            f"--crop {settings.crop}: preprocess.py used --crop {grey['crop']}; both need the same"
        )
    nrows, ncols = settings.nrows, settings.ncols
    if (nrows, ncols) != (grey["nrows"], grey["ncols"]):
        raise InputError(
            f"--nrows {nrows} --ncols {ncols}: preprocess.py: {grey['nrows']} x {grey['ncols']}, "
            "give the same"
        )
    unit, size = settings.flow_unit, settings.flow_size
    if settings.per_second:
        if unit == FLOW_UNITS[2]:
            raise InputError("--per_second means --flow_unit px_per_s; give one of the two")
        unit = FLOW_UNITS[1]
    return {
        **grey,
        "flow_size": list(size) if isinstance(size, tuple) else size,
        "per_second": unit == FLOW_UNITS[1],
        "flow_unit": unit,
        "farneback": {name.lower(): getattr(settings, name.lower()) for name in FARNEBACK},
    }


def flow_is_made(root: Path, row: dict, recipe: str) -> bool:
    """Say whether the flow of a row lies there, of this file and made in this way."""
    known = (row["flow_recipe"], row["flow_of"]) == (recipe, row["source_sha256"])
    return known and (root / FLOW_STREAM.made / f"{row['name']}.npy").exists()


def end_of_change(root: Path, rows: list[dict], recipe: str) -> None:
    """End a recalculation with other options; where it made nothing, all is as before.

    Args:
        rows: of the movies, changed in place.
        recipe: ``options_hash`` of the new options.
    """
    before = root / FLOW_STREAM.made / OPTIONS_BEFORE
    if not before.exists():
        return
    if not any(flow_is_made(root, row, recipe) for row in rows):
        old = read_json(before)
        write_json(before.with_name("options.json"), old)
        for row in rows:
            if flow_is_made(root, row, options_hash(old)):
                row["flow"] = DONE
    before.unlink()


def make_flows(
    root: Path, options: dict, settings: Settings
) -> tuple[list[dict], list[str], dict[str, str]]:
    """Compute the flows that are missing.

    Returns:
        rows of all movies, the stems that were to be made, and {stem: fault} of those that failed.
    """
    manifest = read_manifest(root)
    rows = processed_rows(root, manifest)
    folder = root / FLOW_STREAM.made
    folder.mkdir(exist_ok=True)
    recalculate = settings.recalculate
    check_options(root, FLOW_STREAM.made, options, recalculate=recalculate, keep=True)
    recipe = options_hash(options)

    def is_made(row):
        return flow_is_made(root, row, recipe) and not row["flow"].startswith("failed")

    for row in rows:
        if is_made(row):
            row["flow"] = DONE
    jobs = [row for row in rows if settings.recalculate or not is_made(row)]
    check_room(folder, jobs, options, "of")
    calls = (
        delayed(convert2OF)(
            sorted_path(root, row),
            folder / f"{row['name']}.npy",
            options,
            settings.nframes,
            known_sha256=row["source_sha256"],
        )
        for row in jobs
    )
    faults = run_jobs(calls, settings.workers, cluster=settings.cluster, folder=root)
    failed, keep = {}, Keeper(root, manifest)
    bar = tqdm(jobs, desc="optical flow", disable=None, unit="file")
    for row, fault in zip(bar, faults, strict=True):
        row["flow"] = DONE if fault is None else f"failed: {fault}"
        if fault is None:
            row |= {"flow_recipe": recipe, "flow_of": row["source_sha256"]}
        else:
            failed[row["name"]] = fault
        keep.now_and_then()
    end_of_change(root, rows, recipe)
    write_manifest(root, manifest)
    return rows, [row["name"] for row in jobs], failed


@one_writer
def flow_root(root: Path, settings: Settings) -> int:
    """Compute the flow of a data set; settings as the flags of the script.

    Args:
        settings: of FLOW, and workers, recalculate, flow_size, flow_unit, per_second, crop (None
            for that of preprocess.py; another one is an error).

    Returns:
        exit code: 0, or 1 when a file failed.
    """
    grey = read_stats(
        root / GREY_STREAM.stats_file, remedy=f"run preprocess.py --root {root} first"
    )
    if "values" not in grey:
        raise InputError(
            f"{root}: movies of an older version, z-scored on disk; make them anew with "
            "preprocess.py -r, or go on with that version"
        )
    options = flow_options(grey["options"], settings)
    rows, jobs, failed = make_flows(root, options, settings)
    done = [row["name"] for row in rows if row["name"] not in failed]
    if not done:
        kept = "; earlier flows are kept" if any(row["flow"] == DONE for row in rows) else ""
        raise InputError(
            f"{root}: no flow computed; first fault: {next(iter(failed.values()))}{kept}"
        )
    changed = write_stats(root, done, FLOW_STREAM, options, settings)
    # A movie without flow is in no split: both scales are over the same movies.
    changed |= measure_again(root, done, GREY_STREAM, settings.workers, settings.cluster)
    made = len(jobs) - len(failed)
    if made or changed:
        place = root / FLOW_STREAM.made
        print(f"{made} flows made ({flow_unit(options)}), {len(done)} in {place}")
    else:
        print(f"all {len(done)} flows exist already: nothing changed (--recalculate recomputes)")
    for stem, fault in failed.items():
        print(f"failed: {stem}: {fault}", file=sys.stderr)
    return 1 if failed else 0
