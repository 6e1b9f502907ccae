"""Separate the events of all classes in the probability movies of one recording.

Follows sections 8.3 to 8.5 of the specification: Otsu and arg-max, watershed for sparks, connected
components for waves and puffs, merging and removal of small events.

    python separate_events.py --sparks S.tif --waves W.tif --puffs P.tif --movie 05_video.tif

Files read: three probability movies and the recording, all (T, H, W).
Files written into --out: ``<movie>_instances_<class>.tif`` uint16, ``<movie>_instances.tif``,
``<movie>_classes.tif``, ``<movie>_events.csv``, ``<movie>_events_simple.csv`` and
``<movie>_events_full.csv``, ``<movie>_spark_locations.csv``; with --overlay
``<movie>_overlay.gif`` (classes), ``<movie>_instances.gif`` and ``<movie>_white.tif`` (n, H, W, 3).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from settings.config import EVENT_CLASSES
from settings.recording import add_recording_flags, given_by_flags


def make_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    for name in EVENT_CLASSES:
        parser.add_argument(f"--{name}", type=Path, required=True, help="probabilities (TIFF)")
    parser.add_argument("--movie", type=Path, required=True, help="recording (TIFF)")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "events", help="folder")
    parser.add_argument("--fill-holes", action="store_true", help="fill holes of events")
    parser.add_argument("--overlay", action="store_true", help="write coloured movies")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Parse the command line and write masks and tables."""
    args = make_parser().parse_args(argv)
    from runs.separation import separate

    counts = separate(
        args.movie,
        {name: getattr(args, name) for name in EVENT_CLASSES},
        args.out,
        fill_holes=args.fill_holes,
        overlay=args.overlay,
        given=given_by_flags(args),
    )
    print(f"{', '.join(f'{n} {name}' for name, n in counts.items())} in {args.out}")


if __name__ == "__main__":
    main()
