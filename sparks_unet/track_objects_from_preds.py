"""Label the events of one class by a threshold and 26-connected components.

The simple version of ``separate_events.py``. Source: section 8.6 of the specification.

    python track_objects_from_preds.py run_100000_05_overlap_raw_puffs.tif

Files read: probabilities (T, H, W).
Files written: ``<name>_events.tif`` (T, H, W) uint16, ids from 1.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from settings.recording import WHOLE


@one_line_faults
def main(argv=None):
    """Parse the command line and write the labelled movie."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("prediction", type=Path, help="probabilities of one class (TIFF)")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability of an event")
    parser.add_argument(
        "--min-radius", type=WHOLE, default=4, help="objects below (2r)^3 voxels go"
    )
    parser.add_argument(
        "--ignore-frames", type=WHOLE, default=0, help="first and last frames to skip"
    )
    parser.add_argument("--out", type=Path, help="TIFF; default <prediction>_events.tif")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from analysis.tracking import write_tracks

    out, count = write_tracks(
        *(args.prediction, args.out),
        threshold=args.threshold,
        min_radius=args.min_radius,
        ignore_frames=args.ignore_frames,
    )
    print(f"{count} events in {out}")


if __name__ == "__main__":
    main()
