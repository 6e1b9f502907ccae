"""Measure training step, prediction memory and movie against the published way of working.

The baselines are straightforward loops that work as the published code; every one must give the
same numbers before it is timed. Source: specification, sections 6.1, 6.2 and 8.3.

    python benchmark.py
    python benchmark.py --only step --steps 3 --rows 936,20
    python benchmark.py --only onset    # false waves and speeds of the onset map
    python benchmark.py --only drivers  # false and planted drivers of the search

Writes results/csd_darnn/benchmark/benchmark.json: machine, and one row per measurement.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, one_line_faults
from settings import Flag, parse

# Sizes
ROWS = "936,20;936,128;6552,20;6552,128"  # N,B of the training steps
STEPS = 5  # timed steps; the first one more is not counted
PREDICT_FRAMES = 2000  # frames of the memory measurement, at 936 pixels
MOVIE_FRAMES = 30  # frames of the movie measurement, at 72 x 91
ONSET_SEEDS = 34  # wave-free movies of each kind, and waves of each kind up to 5
DRIVER_MOVIES = 20  # of each kind: without and with a driver, sharp and blurred

# Result
OUT = RESULTS_DIR / "benchmark" / "benchmark.json"

FLAGS = {
    "ROWS": Flag(str, "N,B of the training steps, separated by semicolons"),
    "STEPS": Flag(int, "timed steps", low=1),
    "PREDICT_FRAMES": Flag(int, "predicted frames, at 936 pixels", low=300),
    "MOVIE_FRAMES": Flag(int, "movie frames, at 72 x 91", low=2),
    "ONSET_SEEDS": Flag(int, "wave-free movies of each kind that the onset map is tried on", low=1),
    "DRIVER_MOVIES": Flag(
        int, "movies of each kind that the search for drivers is tried on", low=1
    ),
    "OUT": Flag(Path, "file of the result"),
}
MEASUREMENTS = ("step", "movie", "memory", "onset", "drivers")


def add_only(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the measurements."""
    parser.add_argument(
        "--only",
        nargs="+",
        choices=MEASUREMENTS,
        default=MEASUREMENTS[:3],
        help="measure these only",
    )


@one_line_faults
def main(argv=None):
    """Measure, print the table and write it."""
    chosen = parse(argv, __doc__.splitlines()[0], globals(), FLAGS, extra=add_only)
    from demo.timing import measure

    measure(chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
