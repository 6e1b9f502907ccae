"""Leave-mouse-out folds: train and test once per group of mice, then report them together.

Called by main.py --mode train --folds k. Source: specification section 13, item 4.
"""

import logging
from pathlib import Path

import pandas as pd
from joblib import delayed

from analysis.evaluation import prediction_table, write_results
from common.cluster import run_jobs
from common.files import write_settings
from inputs.dataloader_sleep import (
    Epochs,
    MouseSplit,
    Split,
    fold_mice,
    read_mouse_split,
    split_records,
    tags_on_both_sides,
)
from inputs.hypnogram import Hypnogram, hypnograms_of
from inputs.shards import find_records, in_time_order
from inputs.states import seconds_of
from network.checkpoints import load_own
from runs.context import load_context, states_with
from runs.setup import LIBRARIES, choose_device, claim_run, fit_split, prepare, view_of
from runs.train import STATE_FILE
from settings import Settings

log = logging.getLogger(__name__)


def folds_text(splits: list[Split]) -> str:
    """Return what is true of all folds: whether an animal is tested by a network that saw it."""
    tags = {tag for one in splits for tag in tags_on_both_sides([*one.train, *one.val], one.test)}
    if tags:
        return (
            f"tag {', '.join(sorted(tags))} is tested by a network that was trained on another "
            "date of that tag; if it is the same animal, the score is not that of a new one"
        )
    return "no mouse is tested by a network that saw it"


def run_fold(
    given: tuple[dict, frozenset], split: Split, fold: MouseSplit, folder: Path, fold_dir: Path
) -> tuple[pd.DataFrame, dict[str, Hypnogram]]:
    """Train and test one fold, on a worker of its own where there is a cluster.

    Args:
        given: values and given names of the fold's Settings.
        split, fold, folder, fold_dir: of fit_split.

    Returns:
        (prediction table of the fold's test mice, their time axes).
    """
    settings = Settings(*given)
    choose_device(settings.device)
    log.info("%s: test mouse %s", fold_dir.name, ", ".join(fold.test))
    fit_split(settings, split, fold, folder, fold_dir)
    network, _ = load_own(fold_dir / "best.weights.h5")
    epochs = Epochs(in_time_order(split.test), view_of(settings))
    net = load_context(fold_dir) if settings.context else None
    probs, _ = states_with(network, epochs, settings, net)
    axes = hypnograms_of(epochs.records, epochs.labels, epochs.view.num_classes)
    return prediction_table(epochs, probs), axes


def run_folds(settings: Settings, folder: Path, run_dir: Path) -> int:
    """Train one network per fold in `<run>/fold<i>` and write the pooled results to `<run>/folds`.

    The last training mouse of each fold validates. Each fold tests on mice that its network never
    saw.
    """
    listed = read_mouse_split(Path(settings.split_file), allow_leak=True)
    mice = tuple(dict.fromkeys((*listed.train, *listed.val, *listed.test)))
    groups = fold_mice(mice, settings.folds)
    records = find_records(folder)
    choose_device(settings.device)
    jobs = []
    for number, test in enumerate(groups, start=1):
        rest = tuple(mouse for mouse in mice if mouse not in test)
        fold = MouseSplit(rest, (), test)
        split = split_records(records, fold, "mouse", seed=settings.seed, where=folder)
        fold_dir = run_dir / f"fold{number}"
        resume = settings.model_continue and (fold_dir / STATE_FILE).is_file()
        changes = {"split": "mouse", "fresh": False, "model_continue": resume}
        one = Settings({**settings.values, **changes}, settings.given)
        prepare(one, split, fold, folder, fold_dir)
        jobs.append((one, split, fold, fold_dir))
    claim_run(run_dir, settings)
    write_settings(run_dir, settings.values, libraries=LIBRARIES)
    calls = (
        delayed(run_fold)((one.values, one.given), split, fold, folder, fold_dir)
        for one, split, fold, fold_dir in jobs
    )
    done = run_jobs(calls, 1, cluster=settings.cluster, folder=run_dir)
    tables, axes = [], {}
    for number, (table, own_axes) in enumerate(done, start=1):
        log.info("fold %d of %d is done", number, len(jobs))
        axes |= own_axes
        tables.append(table.assign(fold=number))
    text = f"{settings.folds} leave-mouse-out folds: " + folds_text([job[1] for job in jobs])
    write_results(
        pd.concat(tables, ignore_index=True),
        axes,
        run_dir / "folds",
        text,
        seconds=seconds_of(settings.num_frames),
    )
    return 0
