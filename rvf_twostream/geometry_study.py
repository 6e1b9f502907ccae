"""Show what the depth and the frame rate of the scanner cost, in pixels and in cm/s.

    python geometry_study.py [--n_patients 200] [--networks]

Films one synthetic population twice, at one depth and frame rate and at 12 to 20 cm and 25 to 80
frames/s (``demo/geometry.py``), and measures how well its motion numbers tell failure (--networks:
and the demo's network) with the flow in cm/s at a fixed rate and in pixels per frame, as published.
Makes its data in a temporary folder, writes results/rvf_twostream/geometry/geometry.csv, a row per
way to measure, and prints it. 200 patients take some 7 minutes of one core, networks 2 each.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from settings import GEOMETRY, add_globals

# population
N_PATIENTS = GEOMETRY.N_PATIENTS  # patients, one movie each
SEED = GEOMETRY.SEED  # of everything drawn
WORKERS = GEOMETRY.WORKERS  # processes


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", action="store_true", help="train the demo's network as well")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(parser, globals(), GEOMETRY)
    return parser


@one_line_faults
def main(argv=None):
    """Run the study, print its rows and write them."""
    args = build_parser().parse_args(argv)
    # Imported first: it holds back what TensorFlow writes at its first import.
    import network.start  # noqa: F401
    from demo.geometry import run_study

    out = RESULTS_DIR / "geometry"
    names = ("n_patients", "seed", "networks", "workers")
    run_study(out, **{name: getattr(args, name) for name in names})
    return 0


if __name__ == "__main__":
    sys.exit(main())
