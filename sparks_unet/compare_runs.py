"""Compare two runs on the same movies: differences of metrics with intervals over movies.

Follows section 13.5 of the specification.

    python compare_runs.py runs/a/metrics.json runs/b/metrics.json

Reads: two metrics.json with the counts of each movie. Prints a table, and writes it with --out.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, atomic_path, one_line_faults, seed_number
from settings.recording import COUNT


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="metrics.json of the first run")
    parser.add_argument("second", type=Path, help="metrics.json of the other run")
    parser.add_argument("--draws", type=COUNT, default=1000, help="resamplings of the movies")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the resampling")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from analysis.run_comparison import comparison_lines
    from inputs.movie_io import keep_inputs

    if args.out:
        keep_inputs([args.out], [args.first, args.second])
    lines = comparison_lines(args.first, args.second, draws=args.draws, seed=args.seed)
    print("\n".join(lines))
    if args.out:
        with atomic_path(args.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
