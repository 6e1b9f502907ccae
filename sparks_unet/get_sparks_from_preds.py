"""Turn the spark probabilities of one movie into a table of spark locations.

Follows section 8.6 of the specification: threshold, removal of small objects, peaks of section 8.4.

    python get_sparks_from_preds.py run_100000_05_overlap_raw_sparks.tif --movie 05_video.tif
    python get_sparks_from_preds.py PRED.tif --movie 05_video.tif --bandstop
    python get_sparks_from_preds.py PRED.tif --movie 05_video.tif --classes C.tif --events E.tif

Files read: probabilities or a mask (T, H, W), the movie (T, H, W), with --classes and --events the
annotation (T, H, W).
Files written: ``<name>_locations.csv`` with the columns frame,x,y; with an annotation
``<name>_check.gif`` (matched, extra and missed sparks as balls) and ``<name>_pairs.txt``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from settings.recording import NOT_NEGATIVE, WHOLE, add_recording_flags, given_by_flags


def make_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("prediction", type=Path, help="spark probabilities or mask (TIFF)")
    parser.add_argument("--movie", type=Path, required=True, help="movie of the prediction (TIFF)")
    parser.add_argument("--out", type=Path, help="CSV; default <prediction>_locations.csv")
    parser.add_argument("--threshold", type=float, default=0.9, help="probability above it: spark")
    parser.add_argument(
        "--min-radius", type=WHOLE, default=3, help="objects below (2r)^3 voxels go"
    )
    parser.add_argument(
        "--ignore-frames", type=WHOLE, default=6, help="first and last frames to skip"
    )
    parser.add_argument(
        "--sigma", type=NOT_NEGATIVE, default=3.0, help="smoothing before the peak search"
    )
    parser.add_argument("--classes", type=Path, help="annotated class mask to compare with")
    parser.add_argument("--events", type=Path, help="annotated event mask to compare with")
    parser.add_argument("--bandstop", action="store_true", help="remove oscillations first")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Parse the command line and write the table."""
    args = make_parser().parse_args(argv)
    from analysis.spark_locations import SparkSearch, write_spark_locations

    lines = write_spark_locations(
        *(args.prediction, args.movie),
        out=args.out,
        search=SparkSearch(
            threshold=args.threshold,
            min_radius=args.min_radius,
            ignore_frames=args.ignore_frames,
            sigma=args.sigma,
            bandstop=args.bandstop,
        ),
        annotation=(args.classes, args.events),
        given=given_by_flags(args),
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
