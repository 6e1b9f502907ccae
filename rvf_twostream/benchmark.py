"""Print our time and memory beside those of a plain loop, written as the published code works.

    python benchmark.py [--only preprocess flow augment predict guided step]

Makes its data in a temporary folder, writes results/rvf_twostream/benchmark/benchmark.json and
prints a table. Each measurement has a process of its own; the fastest of some calls counts, in CPU
seconds of all threads (flow: wall time, which needs idle cores). A baseline must give the same
numbers, which is asserted. Source: specification 12; data rows in ``demo/benchmark_data.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from settings import BENCHMARK, MEASUREMENTS, add_globals, check_depth

# model of the rows predict and step
DEPTH = BENCHMARK.DEPTH  # 18, 34, 50, 101 or 152
WIDTH = BENCHMARK.WIDTH  # filters of the stem
NFRAMES = BENCHMARK.NFRAMES  # frames of a clip
NROWS = BENCHMARK.NROWS  # rows of a clip, pixels
NCOLS = BENCHMARK.NCOLS  # columns of a clip, pixels


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", default=MEASUREMENTS, choices=MEASUREMENTS, help="measure these only"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(parser, globals(), BENCHMARK)
    return parser


@one_line_faults
def main(argv=None):
    """Measure, print the table and write it."""
    args = build_parser().parse_args(argv)
    check_depth(args.depth)
    size = (args.nframes, args.nrows, args.ncols)
    shape = {"depth": args.depth, "width": args.width, "size": size}
    # Imported first: it holds back what TensorFlow writes at its first import.
    import network.start  # noqa: F401
    from demo.benchmark_network import measure, print_table

    path = RESULTS_DIR / "benchmark" / "benchmark.json"
    print_table(measure(args.only, shape, path))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
