"""Compare this pipeline on a GPU with the processor, and time it there.

Data are drawn on the spot; nothing is downloaded. ``python3 ../run.py gpu`` calls it, as those of
the other folders.

    python gpu_check.py
    python gpu_check.py --device cpu --tiny true --only "20 steps, exact"

Writes results/csd_darnn/gpu/gpu.jsonl: one line per case; cases that hold are not run again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, one_line_faults
from settings import Flag, parse

DEVICE = "cuda"  # cuda, cuda:k, or cpu (a rehearsal: the processor is compared with itself)
TINY = False  # small networks and data
BUDGET_S = 120.0  # no case starts after that many seconds
OUT = RESULTS_DIR / "gpu" / "gpu.jsonl"

FLAGS = {
    "DEVICE": Flag(str, "device that is compared with the processor"),
    "TINY": Flag(bool, "small networks and data"),
    "BUDGET_S": Flag(float, "no case starts after that many seconds", above=0),
    "OUT": Flag(Path, "file of the results"),
}


def add_only(parser: argparse.ArgumentParser) -> None:
    """Add the choice of one case."""
    parser.add_argument("--only", metavar="CASE", help="run this case only, again")


@one_line_faults
def main(argv=None):
    """Run the cases; the exit code is 1 when one fails."""
    chosen = parse(argv, __doc__.splitlines()[0], globals(), FLAGS, extra=add_only)
    from demo.gpu_cases import check

    return check(chosen)


if __name__ == "__main__":
    raise SystemExit(main())
