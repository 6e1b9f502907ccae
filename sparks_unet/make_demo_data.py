"""Write synthetic confocal movies with planted sparks, puffs and waves, and the truth beside them.

Follows section 4.5 of the specification: a super-ellipse cell with mottled, striated resting
fluorescence F0, events multiplied onto F0, shot noise and read noise, 16-bit counts.

    python make_demo_data.py --out DIR --movies 6
    python make_demo_data.py --out DIR --preset small --movies 6

Files read: none.
Files written into --out: ``NN_video.tif`` (T, H, W) uint16, ``NN_class_label.tif`` (T, H, W) uint8,
``NN_event_label.tif`` (T, H, W) uint16, ``NN_truth.csv`` (one row per event), ``truth.json`` (all
settings and counts, written last).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, Parser, one_line_faults
from common.locks import writing


def make_parser(defaults):
    """Return the parser of the command line; ``defaults`` is a DemoSettings."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(DATA_DIR / "synthetic"), help="folder to write into")
    parser.add_argument(
        "--preset", choices=("full", "small"), default="full", help="small: 32x96x160"
    )
    for name in ("movies", "frames", "height", "width", "seed", "first_id", "empty"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=None, help=f"default {getattr(defaults, name)}")
    for name in ("jump", "pixel_um", "frame_ms", "gain", "read_noise", "offset"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(
            flag, type=float, default=None, help=f"default {getattr(defaults, name)}"
        )
    parser.add_argument("--rates", type=float, nargs=3, metavar=("SPARKS", "PUFFS", "WAVES"))
    parser.add_argument("--waves", type=int, nargs="+", help="number of waves of each movie")
    for name in ("exact", "touching", "short"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Parse the command line and write the data set."""
    from demo.synthetic import SMALL, DemoSettings, make_demo_data

    args = vars(make_parser(DemoSettings()).parse_args(argv))
    out, preset = args.pop("out"), args.pop("preset")
    args.pop("debug")
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in args.items()
        if value is not None and value is not False
    }
    with writing(out):
        ids = make_demo_data(out, **(SMALL if preset == "small" else {}) | given)
    print(f"{len(ids)} movies in {out}: ids {ids[0]} to {ids[-1]}, truth in truth.json")


if __name__ == "__main__":
    main()
