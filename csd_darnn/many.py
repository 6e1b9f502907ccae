"""Several networks from one call: one for each target pixel or for each crop of a movie."""

import re
from pathlib import Path

from common.files import InputError


def run_each(settings):
    """Run once, or once for each target or crop, and return the folder of the results.

    Crops go to ``results_<i>``, targets to ``target_<label>`` below the run's folder.
    """
    jobs = list_jobs(settings)
    if jobs is None:
        from pipeline import run

        return run(settings)
    import joblib

    from utils import choose_device

    choose_device(settings["device"])  # said once, not by every run
    devices = device_list(settings["device"])
    n_jobs = min(settings["jobs"], len(jobs))
    threads = max(1, joblib.cpu_count() // n_jobs)  # the cores that this process may use
    faults = joblib.Parallel(n_jobs=n_jobs)(
        joblib.delayed(run_one)(
            job | {"device": devices[index % len(devices)]}, threads, n_jobs > 1
        )
        for index, job in enumerate(jobs)
    )
    named = [
        f"{job['run_dir'].name}: {fault}" for job, fault in zip(jobs, faults, strict=True) if fault
    ]
    if named:
        raise InputError(f"{len(named)} of {len(jobs)} runs failed: " + "; ".join(named))
    return Path(settings["run_dir"])


def run_one(settings, threads, own_process):
    """Run in a worker and return the text of a fault, or None.

    A fault of one run must not end the others.
    """
    import torch

    from pipeline import run

    if own_process:
        torch.set_num_threads(threads)
    try:
        run(settings)
    except InputError as error:
        return str(error)
    return None


def device_list(wanted):
    """Return the devices to hand out in turn: every CUDA device when the choice is free."""
    import torch

    if wanted in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [wanted]


def list_jobs(settings):
    """Return the settings of every run, or None when it is a single one."""
    data, run_dir = Path(settings["data"]), Path(settings["run_dir"])
    if data.is_dir():
        crops = sorted(data.glob("crop_*.csv"), key=crop_number)
        if not crops:
            raise InputError(f"{data}: found a folder without crop_<i>.csv, expected a recording")
        return [
            settings | {"data": crop, "run_dir": run_dir / f"results_{crop_number(crop)}"}
            for crop in crops
        ]
    if not (settings["each_target"] or settings["target_grid"]):
        return None
    from prepare import parse_targets, read_recording

    if settings["target_grid"]:
        pairs = grid_targets(settings["target_grid"], read_recording(settings).shape, data)
    else:
        pairs = parse_targets(settings["target"])
    if pairs is None:
        return [
            settings | {"targ_cols": (label,), "run_dir": run_dir / f"target_{label}"}
            for label in settings["targ_cols"]
        ]
    return [
        settings | {"target": f"{row},{col}", "run_dir": run_dir / f"target_{row}_{col}"}
        for row, col in pairs
    ]


def crop_number(path):
    """Return i of crop_<i>.csv."""
    found = re.search(r"(\d+)$", path.stem)
    return int(found.group(1)) if found else -1


def grid_targets(text, shape, data):
    """Return R x C (row, column) pairs spread evenly over an image (H, W)."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--target_grid: found {text!r}, expected R,C, for example 3,4")
    if shape is None:
        raise InputError(f"{data}: --target_grid needs an image; give a movie or --shape H,W")
    counts = [int(part) for part in parts]
    if counts[0] > shape[0] or counts[1] > shape[1]:
        raise InputError(f"--target_grid: found {text}, expected at most {shape[0]},{shape[1]}")
    rows, cols = (
        [(2 * index + 1) * size // (2 * count) for index in range(count)]
        for size, count in zip(shape, counts, strict=True)
    )
    return [(row, col) for row in rows for col in cols]
