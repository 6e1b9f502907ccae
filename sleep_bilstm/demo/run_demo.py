"""The demo: synthetic mice, training, a held-out mouse, maps, and a check of everything planted.

Called by main.py --demo. Data goes to data/sleep_bilstm/demo/, results to
results/sleep_bilstm/<run>/.
Source: specification sections 4.8 and 14 (A10 to A12).
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.metrics import cohen_kappa_score

from analysis.band_power import baseline_predictions
from analysis.evaluation import prediction_table, write_results
from analysis.maps import export_maps
from analysis.utils import class_metrics
from analysis.visualize_lstm_attention_weights import export_attention
from common.device import quiet_start
from common.files import (
    DATA_DIR,
    RESULTS_DIR,
    InputError,
    open_run,
    seed_number,
    write_json,
    write_settings,
)
from common.locks import clear_folder, hold
from common.report import close_run
from demo.demo_report import write_demo_report
from demo.planted_truth import attention_against_waves, planted_envelopes, quadrant_hits
from demo.presets import DOWNSAMPLE, FULL, NETWORK, OCCLUSION_EVERY, SMALL, TOY, Preset
from demo.synthetic import Plan, is_synthetic, make_data_set, same_plan
from demo.toy_quadrant import MICE, make_toy, planted_quadrant
from inputs.dataloader_sleep import Epochs, Split
from inputs.hypnogram import hypnograms_of
from inputs.shards import in_time_order
from inputs.states import seconds_of
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create
from network.checkpoints import load_own
from network.forward import run_over, states_of
from network.model_attention_bilstm import AttentionBiLSTM, build
from runs.setup import (
    LIBRARIES,
    architecture_of,
    choose_device,
    fit_split,
    load_split,
    say_device,
    training_of,
    view_of,
)
from runs.train import fit
from settings import Settings

log = logging.getLogger(__name__)
# Settings that may differ between two calls of the same run.
FREE = ("fresh", "debug", "mode", "device", "workers")
SIDE_NETWORKS = 2  # the control and the network of the toy set, trained beside the main one


def demo_settings(settings: Settings) -> tuple[Settings, Preset]:
    """Return the settings of the demo: the preset, overridden by what the user gave."""
    seed_number(settings.seed)
    if settings.num_classes != 3:
        raise InputError(f"num_classes is {settings.num_classes}: the demo plants 3 states")
    if settings.temporal_attention == "none":
        raise InputError("temporal_attention is none: the demo shows its weights, choose another")
    preset = FULL if settings.full else SMALL
    values = {
        **settings.values,
        "run": settings.run or "demo",
        "split": "mouse",
        "loss": "focal",
        "frame_chunk": 168,
        **NETWORK,
        **preset.training,
        **{key: settings.values[key] for key in settings.given},
    }
    return Settings(values, settings.given), preset


def remove_older_data(base: Path, plan: Plan) -> None:
    """Remove the demo's data below ``base`` when their truth.json is not of ``plan``."""
    recordings = base / "recordings"
    marker = recordings / "truth.json"
    if marker.is_file() and not same_plan(marker, plan) and is_synthetic(recordings):
        clear_folder(base)


def make_data(settings: Settings, preset: Preset) -> dict[str, Path]:
    """Make recordings, shards and the toy set, or reuse them; return their folders."""
    size = "full" if settings.full else "small"
    base = DATA_DIR / "demo" / f"{size}_seed{settings.seed}"
    folders = {name: base / name for name in ("recordings", "tfrecords", "toy", "toy_tfrecords")}
    plan = Plan(seed=settings.seed, **preset.plan)
    hold(base)
    if settings.fresh:
        remove_older_data(base, plan)
    make_data_set(folders["recordings"], plan)
    make_toy(folders["toy"], settings.seed)
    for source, target, down in (
        ("recordings", "tfrecords", DOWNSAMPLE),
        ("toy", "toy_tfrecords", 1),
    ):
        create(folders[source], folders[target], Storage(downsample=down), Conversion(resume=True))
    dates = sorted(path.name for path in folders["tfrecords"].iterdir() if path.is_dir())
    split = {"train": dates[:-2], "val": dates[-2:-1], "test": dates[-1:]}
    write_json(base / "mouse_split.json", split)
    first, second, third = MICE
    write_json(base / "toy_split.json", {"train": [first], "val": [second], "test": third})
    return {**folders, "split": base / "mouse_split.json", "toy_split": base / "toy_split.json"}


def changed(settings: Settings, **values: Any) -> Settings:
    """Return settings with other values."""
    return Settings({**settings.values, **values}, settings.given)


def train_once(
    settings: Settings, data: Path, split_file: Path, run_dir: Path
) -> tuple[AttentionBiLSTM, Split]:
    """Train on a mouse split, or go on where an interrupted training stopped.

    Returns:
        network with the best weights, split.
    """
    resume = (run_dir / "training_state.h5").is_file()
    own = changed(settings, split_file=str(split_file), model_continue=resume)
    split, mice = load_split(own, data)
    fit_split(own, split, mice, data, run_dir)
    return load_own(run_dir / "best.weights.h5")[0], split


def control_passes(settings: Settings) -> int:
    """Return the passes of the negative control: a third of those of the network."""
    return max(1, settings.num_epochs // 3)


def control_kappa(settings: Settings, folders: dict[str, Path], run_dir: Path) -> float:
    """Train on shuffled labels (negative control); return kappa on the test mouse."""
    view = view_of(settings)
    own = changed(settings, split_file=str(folders["split"]))
    split, _ = load_split(own, folders["tfrecords"])
    rng = np.random.default_rng([settings.seed, 9])
    train, val = (Epochs(part, view).shuffled_labels(rng) for part in (split.train, split.val))
    test = Epochs(split.test, view)
    network = build(architecture_of(settings, train.shape), seed=settings.seed)
    resume = (run_dir / "training_state.h5").is_file()
    run_dir.mkdir(parents=True, exist_ok=True)
    short = training_of(changed(settings, num_epochs=control_passes(settings)))
    fit(network, train, val, short, run_dir, resume=resume)
    return float(
        cohen_kappa_score(
            test.labels,
            states_of(run_over(network, test, changed(settings, batch_size=16))["probs"]),
        )
    )


def test_mouse(
    settings: Settings, network: AttentionBiLSTM, split: Split, folders: dict[str, Path], out: Path
) -> dict:
    """Test on the held-out mouse and return what the report needs."""
    view = view_of(settings)
    test, train = Epochs(in_time_order(split.test), view), Epochs(split.train, view)
    inference = changed(settings, batch_size=16)
    table = prediction_table(test, run_over(network, test, inference)["probs"])
    axes = hypnograms_of(test.records, test.labels, test.view.num_classes)
    (mouse,) = axes
    text = f"{split.text}; test mouse {mouse}"
    seconds = seconds_of(view.num_frames)
    metrics = write_results(table, axes, out, text, seconds=seconds)
    baseline = class_metrics(test.labels, baseline_predictions(train, test))
    weights = export_attention(network, test, out, inference)[mouse]
    waves = attention_against_waves(
        weights, planted_envelopes(folders["recordings"], test), table, seed=settings.seed
    )
    return {
        "mouse": mouse,
        "metrics": metrics,
        "baseline": baseline,
        "waves": waves,
        "num_frames": view.num_frames,
        "cam_shape": network.frame_encoder.output_shape[1:3],
        "control_passes": control_passes(settings),
        "row_sums": float(np.abs(weights.sum(axis=1) - 1).max()),
        "seconds": seconds,
        "text": text,
    }


def draw_maps(
    settings: Settings,
    folders: dict[str, Path],
    run_dir: Path,
    *,
    mode: str,
    network: AttentionBiLSTM = None,
) -> None:
    """Draw the maps of ``mode`` for the held-out mouse; without ``network`` the best is loaded."""
    own = changed(settings, split_file=str(folders["split"]), mode=mode, batch_size=16)
    split, _ = load_split(own, folders["tfrecords"])
    every = OCCLUSION_EVERY if mode == "occlusion" else 1
    epochs = Epochs(in_time_order(split.test)[::every], view_of(own))
    patch = settings.occlusion_patch or epochs.shape[1] // 4
    network = network or load_own(run_dir / "training" / "best.weights.h5")[0]
    export_maps(network, epochs, run_dir / mode, changed(own, occlusion_patch=patch))


def toy_hits(settings: Settings, folders: dict[str, Path], run_dir: Path) -> pd.DataFrame:
    """Train on the toy set and count how often each kind of map finds the planted quadrant."""
    toy = changed(settings, **TOY)
    network, split = train_once(toy, folders["toy_tfrecords"], folders["toy_split"], run_dir)
    test = Epochs(split.test, view_of(toy))
    place = planted_quadrant(settings.seed)
    return quadrant_hits(network, test, place, frame_chunk=settings.frame_chunk)


def begin_side_process() -> None:
    """Prepare a side process: it ends with its parent, says nothing and takes one thread."""

    def end_with_parent():
        # A killed demo must not leave a process behind that writes into the next one's folder.
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)
    choose_device("cpu")
    set_threads(1)


def set_threads(count: int) -> None:
    """Let TensorFlow take ``count`` threads, unless it computes already in this process."""
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(count)


def cores() -> int:
    """Return how many cores this process may take: those it may run on, or OMP_NUM_THREADS when
    fewer, by which whoever starts several demos at once deals the cores out.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(joblib.cpu_count(), int(given) if given.isdecimal() and int(given) else 1 << 30)


class Here:
    """The pool of a single core: what is submitted runs at once, in this process.

    A side process would take the only core from the parent and load TensorFlow once more.
    """

    def submit(self, function: Callable, *arguments: Any) -> Future:
        """Call ``function``, which says nothing meanwhile; return its result as a future."""
        done, before = Future(), logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            done.set_result(function(*arguments))
        finally:
            logging.disable(before)
        return done


@contextlib.contextmanager
def side_pool(count: int) -> Iterator[ProcessPoolExecutor | Here]:
    """Yield an executor of ``count`` side processes; a fault or Ctrl-C ends them at once."""
    if count == 0:
        yield Here()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, begin_side_process) as pool:
        # The processes inherit it, while they start as well: Ctrl-C is answered by the parent.
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Inherited as well: what TensorFlow and progress bars write. Faults come as results.
        with quiet_start():
            for _ in range(count):
                pool.submit(int)  # starts a process; nothing else to do yet
        signal.signal(signal.SIGINT, answer)
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def run_beside(part: Callable, values: dict, folders: dict[str, Path], run_dir: Path) -> Any:
    """Call ``part(settings, folders, run_dir)`` in a side process."""
    return part(Settings(values, frozenset()), folders, run_dir)


def run_demo(settings: Settings) -> int:
    """Run the demo, or reuse a complete one; return 1 when any score missed its target, else 0."""
    start = time.perf_counter()
    settings, preset = demo_settings(settings)
    run_dir = RESULTS_DIR / settings.run
    if not settings.fresh and open_run(run_dir, settings.values, free=FREE):
        print(f"{run_dir} is complete; --fresh starts anew")
        return close_run(run_dir)
    device = say_device(settings.device)  # before --fresh removes a run: it may be refused
    open_run(run_dir, settings.values, fresh=settings.fresh, free=FREE)
    write_settings(run_dir, settings.values, libraries=LIBRARIES)
    # The networks are small: each fills one core, two threads make none of them faster.
    beside = min(SIDE_NETWORKS, cores() - 1)
    if device == "cpu":
        set_threads(cores() - beside)
    folders = make_data(settings, preset)
    truth = folders["recordings"] / "truth.json"
    write_settings(run_dir, settings.values, inputs=[truth], libraries=LIBRARIES)
    log.info("data ready after %.0f s", time.perf_counter() - start)
    parts = {"control": control_kappa, "quadrant": toy_hits}
    with side_pool(beside) as pool:
        waiting = {
            name: pool.submit(run_beside, part, settings.values, folders, run_dir / name)
            for name, part in parts.items()
        }
        network, split = train_once(
            settings, folders["tfrecords"], folders["split"], run_dir / "training"
        )
        log.info("trained after %.0f s", time.perf_counter() - start)
        cams = functools.partial(draw_maps, mode="gradcam")
        drawn = pool.submit(run_beside, cams, settings.values, folders, run_dir)
        results = test_mouse(settings, network, split, folders, run_dir)
        draw_maps(settings, folders, run_dir, mode="occlusion", network=network)
        drawn.result()
        log.info("tested after %.0f s", time.perf_counter() - start)
        results |= {name: part.result() for name, part in waiting.items()}
    log.info("control: kappa %.3f after %.0f s", results["control"], time.perf_counter() - start)
    log.info("quadrants:\n%s", results["quadrant"].to_string(index=False))
    write_demo_report(run_dir, settings, results, time.perf_counter() - start)
    return close_run(run_dir)
