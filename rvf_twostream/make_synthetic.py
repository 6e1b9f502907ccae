"""Make a synthetic cohort of four-chamber DICOM movies with planted right-ventricular function.

Follows specification section 4.7; ``demo/synthetic.py`` draws population, DICOM files (or an
EchoNet-Dynamic look-alike) and the truth behind them, ``demo/phantom.py`` the heart.

    python make_synthetic.py --out ../data/rvf_twostream/synthetic
    python make_synthetic.py --out ../data/rvf_twostream/echonet_like --echonet --n_videos 40

Writes: <out>/*.dcm (frames, ROWS, COLS) uint8, REDcap_class.csv (id, class), truth.json.
With --echonet: Videos/*.avi (frames, 112, 112), FileList.csv, VolumeTracings.csv.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import InputError, Parser, one_line_faults
from settings import SYNTHETIC, add_globals

# population
N_PATIENTS = SYNTHETIC.N_PATIENTS  # patients
N_VIDEOS = SYNTHETIC.N_VIDEOS  # videos of the EchoNet look-alike
EFFECT = SYNTHETIC.EFFECT  # strong, realistic or none
SEED = SYNTHETIC.SEED  # of everything drawn
# picture
ROWS = SYNTHETIC.ROWS  # rows of a frame, pixels
COLS = SYNTHETIC.COLS  # columns of a frame, pixels
MIN_FRAMES = SYNTHETIC.MIN_FRAMES  # shortest movie
MAX_FRAMES = SYNTHETIC.MAX_FRAMES  # longest movie
WORKERS = SYNTHETIC.WORKERS  # processes

# published functions, found where they stand now
PUBLISHED = {
    "write_cohort": "demo.synthetic",
    "write_echonet": "demo.synthetic",
    "dicom_dataset": "demo.synthetic",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--echonet", action="store_true", help="write an EchoNet look-alike")
    parser.add_argument("--two_class", action="store_true", help="only normal and severe")
    parser.add_argument("--jpeg", action="store_true", help="JPEG baseline in YBR_FULL_422")
    parser.add_argument("--rgb", action="store_true", help="three equal channels")
    parser.add_argument("--hard", action="store_true", help="add defective files")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(parser, globals(), SYNTHETIC)
    return parser


def check_kind(args):
    """Raise an InputError for flags of the cohort with --echonet, and the other way round."""
    if args.echonet:
        names = ("two_class", "jpeg", "rgb", "hard")
        given = [name for name in names if getattr(args, name)]
        tables = ("n_patients", "effect", "rows", "cols")
    else:
        given, tables = [], ("n_videos",)
    given += [name for name in tables if getattr(args, name) != globals()[name.upper()]]
    if given:
        kind = "does not describe videos of --echonet" if args.echonet else "is of --echonet only"
        raise InputError(f"--{given[0]} {kind}; leave it out")


@one_line_faults
def main(argv=None):
    """Write the cohort or the EchoNet look-alike asked for."""
    args = build_parser().parse_args(argv)
    if args.max_frames < args.min_frames:
        raise InputError(f"--max_frames {args.max_frames} is below --min_frames {args.min_frames}")
    check_kind(args)
    from demo.synthetic import write_cohort, write_echonet

    if args.echonet:
        lengths = (args.min_frames, args.max_frames)
        given = {} if lengths == (MIN_FRAMES, MAX_FRAMES) else {"frames": lengths}
        write_echonet(
            args.out, n_videos=args.n_videos, seed=args.seed, workers=args.workers, **given
        )
        print(f"{args.n_videos} videos in {args.out}")
        return 0
    truth = write_cohort(
        args.out,
        n_patients=args.n_patients,
        seed=args.seed,
        effect=args.effect,
        rows=args.rows,
        cols=args.cols,
        frames=(args.min_frames, args.max_frames),
        two_class=args.two_class,
        jpeg=args.jpeg,
        rgb=args.rgb,
        hard=args.hard,
        workers=args.workers,
    )
    severe = {t["id"] for t in truth["movies"].values() if t["class"] == "severe"}
    print(
        f"{len(truth['movies'])} movies of {args.n_patients} patients, "
        f"{len(severe)} severe, in {args.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
