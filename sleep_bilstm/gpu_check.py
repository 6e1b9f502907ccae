"""Compare this pipeline on a GPU with the processor, and time it there.

Epochs are drawn on the spot; nothing is downloaded. ``python3 ../run.py gpu`` calls it, as those of
the other folders.

    python gpu_check.py
    python gpu_check.py --device cpu --tiny --only "20 steps, exact"

Writes results/sleep_bilstm/gpu/gpu.jsonl: one line per case; cases that hold are not run again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults

BUDGET_S = 120.0  # no case starts after that many seconds
OUT = RESULTS_DIR / "gpu" / "gpu.jsonl"


@one_line_faults
def main(argv: list[str] | None = None) -> int:
    """Run the cases; the exit code is 1 when one fails."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--tiny", action="store_true", help="small networks and epochs")
    parser.add_argument("--budget_s", type=float, default=BUDGET_S, help="last start of a case")
    parser.add_argument("--only", metavar="CASE", help="run this case only, again")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the results")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    chosen = parser.parse_args(argv)
    from demo.gpu_cases import check

    return check(chosen)


if __name__ == "__main__":
    raise SystemExit(main())
