"""Turn raw annotations into the class masks that a network is trained on.

Follows section 5.6 of the specification. One script for what were two in the published project.

    python generate_unet_annotations.py --sparks-type dilated --data DIR
    python generate_unet_annotations.py --sparks-type peaks --data DIR --ids 01 02

Files read: ``NN_<movies-suffix>.tif``, ``NN_class_label.tif``, ``NN_event_label.tif`` (T, H, W).
Files written beside them or into --out: ``NN_class_label_peaks.tif``,
``NN_class_label_small_peaks.tif`` or ``NN_class_label_dilated.tif`` (T, H, W) uint8, with values
0 background, 1 spark, 2 wave, 3 puff, 4 ignore.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, Parser, one_line_faults
from settings.recording import add_recording_flags, given_by_flags

RING_RADII = {"sparks": 1, "puffs": 2, "waves": 3}  # voxels; default of --<class>-radius


def make_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    kinds = ("raw", "peaks", "small", "dilated")
    parser.add_argument("--sparks-type", choices=kinds, required=True, help="kind of spark label")
    parser.add_argument("--data", type=Path, default=DATA_DIR, help="folder of the recordings")
    parser.add_argument("--ids", nargs="+", help="ids NN; default all in the folder")
    parser.add_argument("--movies-suffix", default="video", help="NN_<suffix>.tif is the movie")
    parser.add_argument("--out", type=Path, help="folder for the masks; default --data")
    parser.add_argument("--peak-radius", type=int, default=3, help="peaks: ball of class 1")
    parser.add_argument("--ignore-radius", type=int, default=1, help="peaks: shell of class 4")
    parser.add_argument("--ignore-frames", type=int, default=0, help="peaks: end frames without")
    for name, radius in RING_RADII.items():
        parser.add_argument(f"--{name}-radius", type=int, default=radius, help="dilated: ring")
    parser.add_argument("--mode", choices=("rings", "3d-2022"), default="rings", help="dilated")
    parser.add_argument(
        "--mark-margins", type=int, default=0, help="events touching n end frames become label 4"
    )
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Parse the command line and write the masks."""
    args = make_parser().parse_args(argv)
    from inputs.annotations import LabelRules, write_annotations

    rules = LabelRules(
        args.sparks_type,
        args.peak_radius,
        args.ignore_radius,
        args.ignore_frames,
        radii={name: getattr(args, f"{name}_radius") for name in RING_RADII},
        mode=args.mode,
        mark_margins=args.mark_margins,
    )
    places = {"ids": args.ids, "suffix": args.movies_suffix, "out": args.out}
    write_annotations(args.data, rules, **places, given=given_by_flags(args))


if __name__ == "__main__":
    main()
