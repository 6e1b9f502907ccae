"""Turn the counts of ``save_results_to_json.py`` into metrics with the same nesting.

Follows section 8.9 of the specification.

    python save_metrics_to_json.py --results DIR
    python save_metrics_to_json.py --preds DIR --data DIR --ids 05 10 --out DIR   # counts first

Files read: ``per_pixel_results/<class>_results.json``, ``spark_peaks_results/sparks_results.json``.
Files written: ``per_pixel_metrics/<class>_metrics.json`` (iou, precision, recall, accuracy, dice,
mcc) and ``spark_peaks_metrics/sparks_metrics.json`` (precision, recall, f0.5, f1, f2).
"""

from pathlib import Path

import save_results_to_json
from common.files import (
    DATA_DIR,
    RESULTS_DIR,
    InputError,
    Parser,
    one_line_faults,
    read_json,
    write_json,
)
from location_metrics import location_metrics, pixel_metrics

PIXEL_KEYS = {"tp", "tn", "fp", "fn"}
PEAK_KEYS = {"tp", "tp_fp", "tp_fn"}


def metrics_tree(counts):
    """Return nested dicts in which every leaf of counts is replaced by its metrics."""
    if set(counts) == PIXEL_KEYS:
        return pixel_metrics(**counts)
    if set(counts) == PEAK_KEYS:
        return location_metrics(counts["tp"], counts["tp_fp"], counts["tp_fn"])
    return {key: metrics_tree(value) for key, value in counts.items()}


def holds_counts(tree):
    """Return whether nested dicts hold nothing but the two kinds of counts."""
    if not isinstance(tree, dict) or not tree:
        return False
    if set(tree) not in (PIXEL_KEYS, PEAK_KEYS):
        return all(holds_counts(branch) for branch in tree.values())
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in tree.values()):
        return False
    return set(tree) == PIXEL_KEYS or tree["tp"] <= min(tree["tp_fp"], tree["tp_fn"])


def read_counts(path):
    """Read one file of counts."""
    tree = read_json(path, remedy="expected counts of save_results_to_json.py")
    if not holds_counts(tree):
        raise InputError(f"{path}: not the counts of save_results_to_json.py; run it again")
    return tree


@one_line_faults
def main(argv=None):
    """Parse the command line and write the metrics."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="folder of counts; default --out")
    parser.add_argument("--preds", type=Path, help="folder of probability movies: count first")
    parser.add_argument("--data", type=Path, default=DATA_DIR, help="folder of recordings")
    parser.add_argument("--ids", nargs="+", help="ids of the movies, with --preds")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "results", help="folder")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    results = args.results or args.out
    if args.preds:
        if not args.ids:
            raise InputError("--preds needs --ids: the ids of the movies to count")
        paths = ("--preds", args.preds, "--data", args.data, "--out", results)
        save_results_to_json.main([*map(str, paths), "--ids", *args.ids])
    pairs = [("per_pixel", group) for group in save_results_to_json.GROUPS]
    pairs.append(("spark_peaks", "sparks"))
    trees = {
        (kind, group): metrics_tree(
            read_counts(results / f"{kind}_results" / f"{group}_results.json")
        )
        for kind, group in pairs
    }
    for (kind, group), tree in trees.items():
        write_json(args.out / f"{kind}_metrics" / f"{group}_metrics.json", tree)
    print(f"metrics in {args.out}")


if __name__ == "__main__":
    main()
