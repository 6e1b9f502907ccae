"""Compare two runs on the same movies: differences of metrics with intervals over movies.

Follows section 13.5 of the specification.

    python compare_runs.py runs/a/metrics.json runs/b/metrics.json

Reads: two metrics.json with the counts of each movie. Prints a table, and writes it with --out.
"""

from pathlib import Path

from common.files import InputError, Parser, atomic_path, one_line_faults, read_json, seed_number


def read_counts(path):
    """Return {movie id: counts} of a metrics.json."""
    remedy = "expected the metrics.json of a run; predict again"
    counts = read_json(path, remedy=remedy).get("counts")
    if counts is None:
        raise InputError(f"{path}: no counts of movies in it; predict again")
    from metrics_tools import are_counts

    if not isinstance(counts, dict) or not counts or not all(map(are_counts, counts.values())):
        raise InputError(f"{path}: the counts of its movies are damaged; predict again")
    return counts


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="metrics.json of the first run")
    parser.add_argument("second", type=Path, help="metrics.json of the other run")
    parser.add_argument("--draws", type=int, default=1000, help="resamplings of the movies")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the resampling")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from metrics_tools import compare_runs, metrics_from_counts

    first, second = read_counts(args.first), read_counts(args.second)
    if first.keys() != second.keys():
        raise InputError(
            f"{args.second}: movies {' '.join(second)}, expected those of the first run: "
            f"{' '.join(first)}"
        )
    metrics = metrics_from_counts(list(first.values()))
    names = [name for name, value in metrics.items() if isinstance(value, float)]
    counts = list(first.values()), [second[name] for name in first]
    found = compare_runs(*counts, names, draws=args.draws, seed=args.seed)
    lines = ["metric,difference,low_95,high_95"]
    lines += [f"{name}," + ",".join(f"{v:.4f}" for v in found[name]) for name in names]
    print("\n".join(lines))
    if args.out:
        with atomic_path(args.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
