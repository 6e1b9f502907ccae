"""Compute the flow of every movie of a data set and normalise it (specification section 5.6).

The body of ``optical_flow_calculator.py``, whose docstring lists the files.
"""

import sys
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from common.files import InputError
from inputs.flow import flow_of_frames
from inputs.frames import read_movie
from inputs.scaling import FLOW_STREAM, GREY_STREAM, check_options, normalize_movies
from inputs.sorting import sorted_movies
from inputs.utils import existing_root, read_stats, save_array
from settings import FARNEBACK, Settings


def convert2OF(source: Path, target: Path, options: dict, nframes: int) -> str | None:
    """Compute and save the flow of one DICOM; return the fault as text, or None."""
    try:
        frames, info = read_movie(source, options)
        if len(frames) < nframes:
            raise InputError(f"{source}: {len(frames)} frames, {nframes} needed")
        try:
            flow = flow_of_frames(frames, options, info)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        save_array(target, flow)
    except InputError as error:
        return str(error)
    return None


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
    return {
        **grey,
        "flow_size": list(settings.flow_size) if settings.flow_size else None,
        "per_second": settings.per_second,
        "farneback": {name.lower(): getattr(settings, name.lower()) for name in FARNEBACK},
    }


def make_flows(
    root: Path, options: dict, settings: Settings
) -> tuple[list[str], list[str], dict[str, str]]:
    """Compute the flows that are missing.

    Returns:
        all stems, those that were to be made, and {stem: fault} of those that failed.
    """
    movies = sorted_movies(root)
    folder = root / FLOW_STREAM.made
    folder.mkdir(exist_ok=True)
    check_options(root, FLOW_STREAM.made, options, recalculate=settings.recalculate)
    stems = sorted(movies)
    jobs = [s for s in stems if settings.recalculate or not (folder / f"{s}.npy").exists()]
    bar = tqdm(jobs, desc="optical flow", disable=None, unit="file")
    faults = Parallel(n_jobs=settings.workers)(
        delayed(convert2OF)(movies[stem], folder / f"{stem}.npy", options, settings.nframes)
        for stem in bar
    )
    return stems, jobs, {stem: fault for stem, fault in zip(jobs, faults, strict=True) if fault}


def flow_root(root: Path, settings: Settings) -> int:
    """Compute the flow of a data set; settings as the flags of the script.

    Args:
        settings: of FLOW, and workers, recalculate, flow_size, per_second, crop (None for that of
            preprocess.py; another one is an error).

    Returns:
        exit code: 0, or 1 when a file failed.
    """
    root = existing_root(root)
    sorted_movies(root)
    remedy = f"run preprocess.py --root {root} first"
    options = flow_options(
        read_stats(root / GREY_STREAM.stats_file, remedy=remedy)["options"], settings
    )
    stems, jobs, failed = make_flows(root, options, settings)
    done = [stem for stem in stems if stem not in failed]
    if not done:
        raise InputError(f"{root}: no flow computed; first fault: {next(iter(failed.values()))}")
    written = normalize_movies(root, done, FLOW_STREAM, options, settings)
    made = len(jobs) - len(failed)
    if made or written:
        place = root / FLOW_STREAM.scaled
        print(f"{made} flows made, {written} normalised, {len(done)} in {place}")
    else:
        print(f"all {len(done)} flows exist already: nothing changed (--recalculate recomputes)")
    for stem, fault in failed.items():
        print(f"failed: {stem}: {fault}", file=sys.stderr)
    return 1 if failed else 0
