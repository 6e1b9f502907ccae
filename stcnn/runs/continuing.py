"""The folder of a training: a new one, or one to go on in, with its settings, data and labels."""

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from common.files import InputError, read_json
from common.hashes import check_hashes
from common.locks import LOCK_NAME, visible, writing
from common.names import file_name

log = logging.getLogger(__name__)
DEALT = "dealt anew each epoch"  # in config.json; older controls were dealt once
FREE_ON_RESUME = (
    "n_epochs", "device", "num_workers", "print_freq", "dataset.ca_path", "dataset.mov_path",
    "resume",
)  # fmt: skip
ADDED_KEYS = {
    "temporal_impl": "recursive",
    "prepad": "frames",
    "position": "recorded",
    "position_lr": 0.05,
    "position_sd": 2.0,
    "read_outs": "trained",
}  # what runs of older versions did without naming it


def new_run_dir(settings: dict) -> Path:
    """Make <expt_path>/<date_time>_<expt_name>; a number is added when it exists.

    Folders beside it in which a killed training wrote nothing whole are removed.
    """
    remove_begun(Path(settings["expt_path"]))
    stamp = time.strftime("%Y%m%d_%H%M%S")
    name = file_name(settings["expt_name"], "expt_name")
    base = Path(settings["expt_path"]) / f"{stamp}_{name}"
    for i in range(1000):
        run_dir = base if i == 0 else base.with_name(f"{base.name}_{i}")
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        return run_dir
    raise InputError(f"{base}: exists a thousand times; choose another expt_name")


def remove_begun(folder: Path) -> None:
    """Remove the dated folders of ``folder`` that a process which runs no more left bare."""
    for run in visible(folder, "[0-9]*_[0-9]*_*"):
        if not run.is_dir() or visible(run):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, InputError):
            holder = json.loads((run / LOCK_NAME).read_text(encoding="utf-8"))
            if holder["host"] != socket.gethostname() or is_running(int(holder["process"])):
                continue
            with writing(run):  # takes away what the dead process had begun to write
                pass
            run.rmdir()


def is_running(process: int) -> bool:
    """Tell whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def resume_settings(run_dir: Path, given: dict, explicit: Iterable[str]) -> dict:
    """Return the settings a run was started with; only n_epochs and the machine may be changed."""
    path = Path(run_dir) / "settings.json"
    if not path.is_file():
        raise InputError(
            f"{run_dir}: no settings.json inside; resume needs a run folder of train.py"
        )
    settings = read_json(path, remedy="train anew")["settings"]
    refused = [key for key in explicit if key not in FREE_ON_RESUME]
    if refused:
        raise InputError(
            f"resume={run_dir}: {', '.join(refused)} cannot change in a resumed run; allowed are "
            f"{', '.join(FREE_ON_RESUME[:-1])}"
        )
    changed = {key: given[key] for key in explicit if key in FREE_ON_RESUME and "." not in key}
    moved = {
        key: given["dataset"][key]
        for key in ("ca_path", "mov_path")
        if f"dataset.{key}" in explicit
    }  # the data may lie elsewhere now; that they are the same is checked by their content
    dataset = {**settings["dataset"], **moved}
    return {**ADDED_KEYS, **settings, **changed, "dataset": dataset}


def check_same_data(run_dir: Path, digests: dict[str, str]) -> None:
    """Refuse to resume on other recordings or movies than the run was begun with."""
    record = read_json(Path(run_dir) / "settings.json", remedy="train anew")
    recorded = record.get("inputs", {})
    if not any("/" in name for name in recorded):
        log.warning(
            "%s is of an older version: whether its data are the same is not known", run_dir
        )
        return
    check_hashes(
        run_dir, recorded, digests,
        remedy="bring the former files back (dataset.ca_path, dataset.mov_path) or train anew",
    )  # fmt: skip


def check_same_labels(run_dir: Path, settings: dict, config: dict) -> None:
    """Refuse to resume a control whose labels an older version dealt once for all epochs."""
    if settings["shuffle_labels"] and config.get("labels") != DEALT:
        raise InputError(
            f"{run_dir}: a control of an older version, whose labels were dealt once for all "
            "epochs; train it anew"
        )
