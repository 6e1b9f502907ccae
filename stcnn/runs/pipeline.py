"""The parts of a whole run of main.py: device, model and control side by side, its log."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from common.device import describe_device
from common.files import atomic_path, read_json
from common.hashes import check_hashes, sha256
from common.report import number_text
from common.tables import read_rows
from runs import story
from runs.data import data_digests, is_synthetic, truth_file
from runs.training import pick_device, train


def say_device(wanted: str) -> None:
    """Print where the run computes, and from now on what the training says."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    place = pick_device(wanted)
    print(describe_device("torch", str(place), asked=wanted != "auto"), flush=True)


def train_both(
    run_dir: Path, settings: dict, with_control: bool, pool: ProcessPoolExecutor | None
) -> None:
    """Train the model and its control, beside it in the process of ``pool`` or after it."""
    control = {**settings, "shuffle_labels": True}
    place = {"run_dir": run_dir / "control", "score_training": False}
    beside = pool.submit(train, control, **place) if pool and with_control else None
    train(settings, run_dir=run_dir / "model")
    if beside:
        beside.result()
    elif with_control:
        train(control, **place)


def n_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: the same numbers whatever the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def side_process(settings: dict) -> Iterator[ProcessPoolExecutor | None]:
    """Yield a pool of one process that imports the framework while the data is made, or None.

    For the control of a synthetic set on the CPU; this process then computes on one thread, too. A
    fault or Ctrl-C ends the other at once. On a single core it would only take memory.
    """
    on_cpu = pick_device(settings["device"]).type == "cpu"  # two processes would share one card
    if not (holds_out(settings) and settings["dataset"].get("make") and on_cpu):
        yield None
        return
    with one_thread(), contextlib.ExitStack() as stack:
        yield stack.enter_context(_pool()) if n_cores() > 1 else None


@contextlib.contextmanager
def _pool():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_process) as pool:
        # The process inherits it, while it starts as well: Ctrl-C is answered by the parent.
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        pool.submit(int)  # starts the process; nothing else to do yet
        signal.signal(signal.SIGINT, answer)
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _prepare_process():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)


def holds_out(settings: dict) -> bool:
    """Return whether stimuli are held out: planted tuning is scored on those only."""
    return settings["val_fraction"] > 0 or bool(settings["val_stimuli"])


def inputs_of(settings: dict, planted: bool) -> dict[str, str]:
    """Return {file: SHA-256} that settings.json records: the planted truth, or the data."""
    return {"truth.json": sha256(truth_file(settings))} if planted else data_digests(settings)


def check_data(run_dir: Path, settings: dict) -> None:
    """Refuse a complete run whose recordings or movies are no longer those that are there.

    Data that have been put away say nothing; records of older versions name files otherwise.
    """
    recorded = read_json(run_dir / "settings.json", remedy="use --fresh").get("inputs", {})
    named = {name for name in recorded if "/" in name}
    if named and Path(settings["dataset"]["ca_path"]).is_dir():
        check_hashes(run_dir, recorded, data_digests(settings))


def tell(run_dir: Path, settings: dict, planted, *, begun: float) -> None:
    """Write figures, report and summary of a trained run and print its scores.

    Args:
        run_dir: folder with model/ and, with planted tuning, control/.
        settings: of the run.
        planted: demo.planted.Planted or None; its scores and figures come first.
        begun: time.monotonic() at the start.
    """
    with atomic_path(run_dir / "log.csv") as temporary:
        shutil.copyfile(run_dir / "model" / "log.csv", temporary)
    main_score, scores = planted.scores(run_dir) if planted else (None, [])
    figures = story.draw_tuning(run_dir, run_dir / "model")
    figures += planted.draw(run_dir) if planted else []
    figures += story.draw_story(run_dir, run_dir / "model", settings)
    kind = "synthetic traces with planted tuning" if planted else settings["dataset"]["name"]
    told = story.Told(
        data=kind, seconds=time.monotonic() - begun, seed=settings["seed"],
        synthetic=is_synthetic(settings), scores=scores, main_score=main_score, figures=figures,
        quality=read_rows(run_dir / "model" / "scores.csv"),
    )  # fmt: skip
    story.write_story(run_dir, told)
    for entry in scores:
        value = "not available" if entry["value"] is None else number_text(entry["value"])
        print(f"{entry['name']}: {value} ({entry['target'] or 'no target'})")
