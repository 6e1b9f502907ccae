"""Several networks from one call: one for each target pixel or for each crop of a movie."""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import joblib
import torch

from common.cluster import run_jobs
from common.files import RESULTS_DIR, InputError
from common.locks import visible
from common.names import file_name
from inputs.prepare import parse_targets, read_recording
from network.device import choose_device
from runs.pipeline import run
from settings import RunSettings


def run_all(
    data: str | Path = RunSettings.data,
    targ_cols: Sequence[str] = RunSettings.targ_cols,
    weight_tensor_dir: str | Path = "",
    iter_loss_dir: str | Path = "",
    epoch_loss_dir: str | Path = "",
    final_y_pred_dir: str | Path = "",
    *,
    defaults: dict | None = None,
    **settings,
) -> Path:
    """Train, predict and show one recording, or show a finished run; return its folder.

    Args:
        data: recording.
        targ_cols: labels of the targets.
        weight_tensor_dir, iter_loss_dir, epoch_loss_dir, final_y_pred_dir: files; "" puts them
            into the run's folder.
        defaults: dict of settings that stand where none is given.
        settings: any other setting; ``resume`` goes on with an unfinished run, ``overwrite`` trains
            again, ``run_dir`` names the folder itself.
    """
    known = {field.name for field in fields(RunSettings)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise InputError(f"run_all: found unknown settings {unknown}; see FLAGS in main.py")
    values = (defaults or {}) | settings
    values |= {"data": Path(data), "targ_cols": tuple(targ_cols)}
    values |= {"weight_tensor_dir": weight_tensor_dir, "iter_loss_dir": iter_loss_dir}
    values |= {"epoch_loss_dir": epoch_loss_dir, "final_y_pred_dir": final_y_pred_dir}
    if values.get("run_dir") is None:
        values["run_dir"] = RESULTS_DIR / values.get("run", RunSettings.run)
    return run_each(RunSettings(**values))


def run_each(settings: RunSettings) -> Path:
    """Run once, or once for each target or crop, and return the folder of the results.

    Crops go to ``results_<i>``, targets to ``target_<label>`` below the run's folder.
    """
    jobs = list_jobs(settings)
    if jobs is None:
        return run(settings)
    choose_device(settings.device)  # said once, not by every run
    # Each worker of a cluster has one thread and sees the GPUs of its own machine.
    devices = [settings.device] if settings.cluster else device_list(settings.device)
    n_jobs = min(settings.jobs, len(jobs))
    threads = 1 if settings.cluster else max(1, joblib.cpu_count() // n_jobs)
    calls = (
        joblib.delayed(run_one)(
            replace(job, device=devices[index % len(devices)]),
            threads,
            n_jobs > 1 or bool(settings.cluster),
        )
        for index, job in enumerate(jobs)
    )
    faults = list(run_jobs(calls, n_jobs, cluster=settings.cluster, folder=settings.run_dir))
    named = [
        f"{job.run_dir.name}: {fault}" for job, fault in zip(jobs, faults, strict=True) if fault
    ]
    if named:
        raise InputError(f"{len(named)} of {len(jobs)} runs failed: " + "; ".join(named))
    return Path(settings.run_dir)


def run_one(settings: RunSettings, threads: int, own_process: bool) -> str | None:
    """Run in a worker and return the text of a fault, or None.

    A fault of one run must not end the others.
    """
    if own_process:
        torch.set_num_threads(threads)
    try:
        run(settings)
    except InputError as error:
        return str(error)
    return None


def device_list(wanted: str) -> list[str]:
    """Return the devices to hand out in turn: every CUDA device when the choice is free."""
    if wanted in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [wanted]


def list_jobs(settings: RunSettings) -> list[RunSettings] | None:
    """Return the settings of every run, or None when it is a single one."""
    data, run_dir = Path(settings.data), Path(settings.run_dir)
    if data.is_dir():
        crops = sorted(visible(data, "crop_*.csv"), key=crop_number)
        if crops:
            return [
                replace(settings, data=crop, run_dir=run_dir / f"results_{crop_number(crop)}")
                for crop in crops
            ]
    if not (settings.each_target or settings.target_grid):
        return None
    if settings.target_grid:
        pairs = grid_targets(settings.target_grid, read_recording(settings).shape, data)
    else:
        pairs = parse_targets(settings.target)
    if pairs is None:
        return [
            replace(
                settings,
                targ_cols=(label,),
                run_dir=run_dir / f"target_{file_name(label, f'{data}: column')}",
            )
            for label in settings.targ_cols
        ]
    return [
        replace(settings, target=f"{row},{col}", run_dir=run_dir / f"target_{row}_{col}")
        for row, col in pairs
    ]


def crop_number(path: Path) -> int:
    """Return i of crop_<i>.csv."""
    digits = re.search(r"(\d+)$", path.stem)
    return int(digits.group(1)) if digits else -1


def grid_targets(text: str, shape: tuple[int, int] | None, data: Path) -> list[tuple[int, int]]:
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
