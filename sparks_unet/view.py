"""Open a movie and its predicted classes and events in napari.

Needs the extra packages of ``requirements-view.txt``; everything else of this folder runs without.

    python view.py 05_video.tif --classes run_..._classes.tif --instances run_..._instances.tif

Files read: the movie and label movies (T, H, W). Files written: none.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from settings.recording import add_recording_flags, given_by_flags


@one_line_faults
def main(argv=None):
    """Parse the command line and open the viewer."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", type=Path, help="movie (TIFF)")
    parser.add_argument("--classes", type=Path, help="class movie (TIFF)")
    parser.add_argument("--instances", type=Path, help="event movie (TIFF)")
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from runs.viewer import show

    show(
        args.movie,
        {"classes": args.classes, "instances": args.instances},
        given_by_flags(args),
    )


if __name__ == "__main__":
    main()
