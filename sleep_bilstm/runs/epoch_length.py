"""Train and test at one input length (epoch_length_study.py)."""

import logging
import sys
from pathlib import Path

import pandas as pd

from analysis.scoring_length import COLUMNS, save_scoring_length
from analysis.tables import write_table
from common.files import DATA_DIR, InputError, read_json
from common.locks import hold
from inputs.preprocess import frames_of
from inputs.states import EPOCH_S
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create
from runs.modes import run_mode
from settings import resolve


def study_length(seconds: int, data_path: Path, run_dir: Path, extra: list[str]) -> tuple:
    """Create tfrecords of one length, train, test, and return (seconds, weighted F1, kappa).

    A length whose metrics are there is not repeated.
    """
    metrics = run_dir / f"{seconds}s" / "test" / "metrics.json"
    if not metrics.is_file():
        folder = DATA_DIR / run_dir.name / f"{seconds}s"
        create(data_path, folder, Storage(seconds=seconds), Conversion(resume=True))
        save = ["--data_path", str(folder), "--model_savedir", str(run_dir / f"{seconds}s")]
        frames = ["--num_frames", str(frames_of(seconds))]
        resume = (run_dir / f"{seconds}s" / "training_state.h5").is_file()
        more = ["--model_continue"] if resume else []
        run_mode(resolve(["--mode", "train", *save, *frames, *extra, *more]))
        run_mode(resolve(["--mode", "test", *save]))
    held = read_json(metrics, remedy="remove it to test again")
    return seconds, held["f1_weighted"], held["kappa"]


def study_lengths(
    lengths: list[int], data_path: Path, run_dir: Path, extra: list[str]
) -> tuple[pd.DataFrame, Path]:
    """Study every length once and draw the figure; return the table and the picture.

    Raises:
        InputError: a length that cannot be, or one that is given twice.
    """
    for seconds in lengths:
        frames_of(seconds)
    split = resolve(["--mode", "train", *extra])
    if split.split == "epoch":
        if "split" in split.given and max(lengths) > EPOCH_S:
            raise InputError(
                f"split is epoch: inputs of {max(lengths)} s share frames with those of the test; "
                "leave --split out (block), or choose mouse"
            )
        if "split" not in split.given:
            extra = [*extra, "--split", "block"]
    if len(set(lengths)) != len(lengths):
        raise InputError(f"lengths are {lengths}: expected each length once")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    hold(run_dir)
    rows = [study_length(seconds, data_path, run_dir, extra) for seconds in sorted(lengths)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_table(table, run_dir / "lengths.csv")
    return table, save_scoring_length(table, run_dir / "lengths.png")
