"""Open a movie and its predicted classes and events in napari; --edit saves what is corrected.

Needs the extra packages of ``requirements-view.txt``; everything else of this folder runs without.

    python view.py 05_video.tif --classes run_..._classes.tif --instances run_..._instances.tif
    python view.py 05_video.tif --classes C.tif --instances I.tif --edit --out corrected

Files read: the movie and label movies (T, H, W). Files written: none; with --edit, when the window
is closed, into --out: the labels as drawn (``<movie>_edited_*.tif``), masks, event tables.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from common.locks import hold
from settings.recording import add_recording_flags, given_by_flags


@one_line_faults
def main(argv=None):
    """Parse the command line and open the viewer."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", type=Path, help="movie (TIFF)")
    parser.add_argument("--classes", type=Path, help="class movie (TIFF)")
    parser.add_argument("--instances", type=Path, help="event movie (TIFF)")
    parser.add_argument("--edit", action="store_true", help="write corrected labels on closing")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "corrected", help="folder")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from runs.correction import events_of_labels
    from runs.viewer import show

    given = given_by_flags(args)
    if args.edit:  # another writer must not be found out about after the drawing
        hold(args.out)
    paths = {"classes": args.classes, "instances": args.instances}
    labels = show(args.movie, paths, given, edit=args.edit)
    if args.edit:
        counts = events_of_labels(labels, args.movie, args.out, given)
        print(f"{', '.join(f'{n} {name}' for name, n in counts.items())} in {args.out}")


if __name__ == "__main__":
    main()
