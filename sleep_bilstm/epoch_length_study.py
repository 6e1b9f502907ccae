"""Train and test at several input lengths: a table and a figure as plot_scoring_length.py draws.

    python epoch_length_study.py --data_path ../data/sleep_bilstm/raw --lengths 1 2 5 10 15 20
    python epoch_length_study.py --data_path RAW --lengths 5 10 -- --num_epochs 20 --split mouse
Reads recordings (.mat). Writes tfrecords per length to ../data/sleep_bilstm/lengths/<S>s and to
../results/sleep_bilstm/<run>/: `<S>s/` per length, lengths.csv, lengths.png. What follows `--` goes
to main.py.
"""

import logging
import sys
from pathlib import Path

import pandas as pd

import main as pipeline
from common.files import (
    DATA_DIR,
    RESULTS_DIR,
    InputError,
    Parser,
    atomic_path,
    one_line_faults,
    plain_name,
    read_json,
)
from create_tfrecords import Storage, create
from plot_scoring_length import COLUMNS, save_scoring_length
from preprocess import frames_of

RUN = "lengths"
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)  # s
log = logging.getLogger(__name__)


def study_length(seconds: int, data_path: Path, run_dir: Path, extra: list[str]) -> tuple:
    """Create tfrecords of one length, train, test, and return (seconds, weighted F1, kappa).

    A length whose metrics are there is not repeated.
    """
    metrics = run_dir / f"{seconds}s" / "test" / "metrics.json"
    if not metrics.is_file():
        folder = DATA_DIR / run_dir.name / f"{seconds}s"
        create(data_path, folder, Storage(seconds=seconds), resume=True)
        save = ["--data_path", str(folder), "--model_savedir", str(run_dir / f"{seconds}s")]
        frames = ["--num_frames", str(frames_of(seconds))]
        resume = (run_dir / f"{seconds}s" / "training_state.h5").is_file()
        more = ["--model_continue"] if resume else []
        pipeline.main(["--mode", "train", *save, *frames, *extra, *more])
        pipeline.main(["--mode", "test", *save])
    held = read_json(metrics, remedy="remove it to test again")
    return seconds, held["f1_weighted"], held["kappa"]


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder with recordings")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=list(LENGTHS), help="input lengths in s"
    )
    parser.add_argument("--run", default=RUN, help="name of the run, its folder in the results")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Run the study and draw its figure."""
    argv = list(sys.argv[1:] if argv is None else argv)
    cut = argv.index("--") if "--" in argv else len(argv)
    args, extra = build_parser().parse_args(argv[:cut]), argv[cut + 1 :]
    for seconds in args.lengths:
        frames_of(seconds)
    if len(set(args.lengths)) != len(args.lengths):
        raise InputError(f"lengths are {args.lengths}: expected each length once")
    run_dir = RESULTS_DIR / plain_name(args.run)
    rows = [study_length(s, args.data_path, run_dir, extra) for s in sorted(args.lengths)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    with atomic_path(run_dir / "lengths.csv") as temporary:
        table.to_csv(temporary, index=False)
    print(table.to_string(index=False))
    print(save_scoring_length(table, run_dir / "lengths.png"))


if __name__ == "__main__":
    main()
