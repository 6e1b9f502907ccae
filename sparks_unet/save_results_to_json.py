"""Count voxels and spark peaks of many predictions for grids of thresholds and radii.

Follows section 8.9 of the specification.

    python save_results_to_json.py --preds DIR --data DIR --ids 05 10 --out DIR

Files read: ``*_<id>_*raw_<class>.tif`` or ``*_<id>_<class>.tif`` for sparks, waves, puffs in
--preds; ``NN_video.tif``, ``NN_class_label.tif``, ``NN_event_label.tif`` in --data, all (T, H, W).
Files written into --out: ``per_pixel_results/<class>_results.json`` (movie -> threshold or
"argmax" -> min radius -> exclusion radius -> tp, tn, fp, fn) for sparks, puffs, waves,
sparks_puffs, puffs_waves, all; ``spark_peaks_results/sparks_results.json`` (movie -> threshold or
"argmax" -> min radius -> tp, tp_fp, tp_fn). The movie "sum", also written under the published name
"average", holds the counts added over movies.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, RESULTS_DIR, Parser, one_line_faults
from settings.recording import add_recording_flags, given_by_flags

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(21))


@one_line_faults
def main(argv=None):
    """Parse the command line and write the counts."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--preds", type=Path, required=True, help="folder of probability movies")
    parser.add_argument("--data", type=Path, default=DATA_DIR, help="folder of recordings")
    parser.add_argument("--ids", nargs="+", required=True, help="ids of the movies")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "results", help="folder")
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=list(THRESHOLDS), help="rising numbers"
    )
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from analysis.voxel_counts import write_counts

    given = given_by_flags(args)
    write_counts(
        *(args.preds, args.data, args.ids, args.out), thresholds=args.thresholds, given=given
    )
    print(f"counts of {len(set(args.ids))} movies in {args.out}")


if __name__ == "__main__":
    main()
