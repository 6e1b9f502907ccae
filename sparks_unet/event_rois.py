"""Turn predicted events into ImageJ ROIs, and corrected ROIs into events again.

    python event_rois.py RUN_instances.tif --classes RUN_classes.tif
    python event_rois.py RUN_events.zip --movie 05_video.tif --out corrected

Files read: event ids and classes (T, H, W), or a ZIP of ImageJ ROIs and its movie.
Files written: ``<name>_events.zip``; or, into --out, ``<movie>_classes.tif``,
``<movie>_events.csv``, ``<movie>_frequency.csv``, ``<movie>_instances.tif`` and one for each class.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, InputError, Parser, one_line_faults
from settings.recording import add_recording_flags, given_by_flags


@one_line_faults
def main(argv=None):
    """Parse the command line and write ROIs or events."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path, help="event ids (TIFF), or ROIs (ZIP)")
    parser.add_argument("--classes", type=Path, help="with event ids: their classes (TIFF)")
    parser.add_argument("--movie", type=Path, help="with ROIs: the movie they belong to (TIFF)")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "corrected", help="folder")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from runs.correction import events_of_rois, rois_of_events

    if args.events.suffix.lower() in (".zip", ".roi"):
        if args.movie is None:
            raise InputError(f"{args.events}: ROIs need --movie: the movie they belong to")
        counts = events_of_rois(args.events, args.movie, args.out, given_by_flags(args))
        print(f"{', '.join(f'{n} {name}' for name, n in counts.items())} in {args.out}")
        return
    if args.classes is None:
        raise InputError(f"{args.events}: event ids need --classes: the classes of the voxels")
    path, number = rois_of_events(args.events, args.classes)
    print(f"{number} ROIs in {path}")


if __name__ == "__main__":
    main()
