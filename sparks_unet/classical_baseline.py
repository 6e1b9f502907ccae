"""Detect events without a network: a threshold in units of the noise, and rules of size.

Section 13.8 of the specification: a point of comparison that shows what the network adds. Each
pixel's resting level is subtracted, the movie is smoothed and divided by its noise, thresholded,
and the connected components are named by their extent; sparks are then separated by their peaks as
in the post-processing of the network.

    python classical_baseline.py MOVIE.tif --out DIR
    python classical_baseline.py MOVIE.tif --threshold-sd 5 --detrend --whole-frame

Files read: a movie (T, H, W).
Files written into --out: ``<movie>_classes.tif``, ``<movie>_instances.tif`` and those of each
class, ``<movie>_events.csv``, ``<movie>_frequency.csv``, ``<movie>_spark_locations.csv``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from settings.recording import POSITIVE, add_recording_flags, given_by_flags

THRESHOLD_SD = 2.5  # noise standard deviations of the smoothed movie


@one_line_faults
def main(argv=None):
    """Parse the command line and write masks and the event table."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", type=Path, help="movie (TIFF)")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "classical", help="folder")
    parser.add_argument("--threshold-sd", type=POSITIVE, default=THRESHOLD_SD, help="in noise SD")
    parser.add_argument("--detrend", action="store_true", help="remove slow bleaching first")
    parser.add_argument("--whole-frame", action="store_true", help="search outside the cell too")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from analysis.classical import write_classical

    counts = write_classical(
        *(args.movie, args.out),
        given=given_by_flags(args),
        threshold_sd=args.threshold_sd,
        detrend=args.detrend,
        whole_frame=args.whole_frame,
    )
    print(f"{', '.join(f'{n} {name}' for name, n in counts.items())} in {args.out}")


if __name__ == "__main__":
    main()
