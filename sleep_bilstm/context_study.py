"""What neighbouring epochs are worth: `--context` on held-out synthetic mice with weak signals.

    python context_study.py
    python context_study.py --seeds 7 --train 4 --minutes 15
Reads nothing: makes mice in ../data/sleep_bilstm/context/, trains on clear, then on weak signals
(snr 0.15, as make_synthetic.py has them) and tests on mice of their own. Writes to
../results/sleep_bilstm/<run>/: context.csv (seed, source of states, kappa, recalls), mean.csv,
cost.csv (CPU time of the second stage beside the first). What is complete is not repeated.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.device import quiet_start
from common.files import RESULTS_DIR, Parser, one_line_faults, plain_name

RUN = "context"
SEEDS = (0, 1, 2)
# mice of each seed
TRAIN = 8
VAL = 2
TEST = 6
MINUTES = 30.0  # of each


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="0 to 999")
    parser.add_argument("--train", type=int, default=TRAIN, help="mice for training")
    parser.add_argument("--val", type=int, default=VAL, help="mice for validation")
    parser.add_argument("--test", type=int, default=TEST, help="mice held out")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="length of each recording")
    parser.add_argument(
        "--cost", action=argparse.BooleanOptionalAction, default=True, help="measure CPU time, too"
    )
    parser.add_argument("--run", default=RUN, help="name of the run, its folder in the results")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Run the study and print the mean over the seeds and the cost."""
    args = build_parser().parse_args(argv)
    run_dir = RESULTS_DIR / plain_name(args.run)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_start():
        from demo.context_study import Herd, measure_cost, run_study
    herd = Herd(args.train, args.val, args.test, args.minutes)
    print(run_study(args.seeds, run_dir, herd).round(3).to_string(index=False))
    if args.cost:
        print(measure_cost(run_dir).round(3).to_string(index=False))
    print(run_dir / "context.csv")


if __name__ == "__main__":
    main()
