"""Turn the counts of ``save_results_to_json.py`` into metrics with the same nesting.

Follows section 8.9 of the specification.

    python save_metrics_to_json.py --results DIR
    python save_metrics_to_json.py --preds DIR --data DIR --ids 05 10 --out DIR   # counts first

Files read: ``per_pixel_results/<class>_results.json``, ``spark_peaks_results/sparks_results.json``.
Files written: ``per_pixel_metrics/<class>_metrics.json`` (iou, precision, recall, accuracy, dice,
mcc) and ``spark_peaks_metrics/sparks_metrics.json`` (precision, recall, f0.5, f1, f2).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, RESULTS_DIR, InputError, Parser, one_line_faults
from settings.recording import add_recording_flags, given_by_flags


@one_line_faults
def main(argv=None):
    """Parse the command line and write the metrics."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="folder of counts; default --out")
    parser.add_argument("--preds", type=Path, help="folder of probability movies: count first")
    parser.add_argument("--data", type=Path, default=DATA_DIR, help="folder of recordings")
    parser.add_argument("--ids", nargs="+", help="ids of the movies, with --preds")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "results", help="folder")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from analysis.voxel_counts import write_count_metrics, write_counts

    results = args.results or args.out
    if args.preds:
        if not args.ids:
            raise InputError("--preds needs --ids: the ids of the movies to count")
        given = given_by_flags(args)
        write_counts(args.preds, args.data, args.ids, results, given=given)
        print(f"counts of {len(set(args.ids))} movies in {results}")
    write_count_metrics(results, args.out)
    print(f"metrics in {args.out}")


if __name__ == "__main__":
    main()
