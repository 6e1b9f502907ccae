"""Measure CPU time and memory beside straightforward baselines written as the published code works.

    python benchmark.py
    python benchmark.py --only create reading
Reads nothing; makes its data in a temporary folder. Prints a table and writes
../results/sleep_bilstm/benchmark/benchmark.json. Every pair must give the same numbers, which is
asserted. Each measurement runs in a process of its own, so that its peak memory is its own. The
published project ran on TensorFlow 2.7, which computes without oneDNN unless asked; row "published"
switches it off for the baseline, all other rows use the same kernels on both sides.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from demo.benchmark_rows import WHAT


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", choices=list(WHAT), default=list(WHAT), help="measure these only"
    )
    parser.add_argument("--child", default=None, help="used by the benchmark itself")
    parser.add_argument("--work", type=Path, default=None, help="used by the benchmark itself")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> int | None:
    """Measure the rows, print the table and write benchmark.json."""
    args = build_parser().parse_args(argv)
    from demo.benchmarks import run_child, run_rows

    if args.child:
        return run_child(args.child, args.work)
    out = RESULTS_DIR / "benchmark" / "benchmark.json"
    run_rows(args.only, out)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
