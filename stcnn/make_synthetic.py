"""Write a synthetic data set with planted tuning, in the very format of the recordings.

    python make_synthetic.py --out ../data/stcnn/synthetic_small --seed 0
    python make_synthetic.py --out set --teacher RUN --stimuli published --hz 180 --px 83

Writes <out>/ca_traces/<type>/synthetic.pt and <out>/movies/vstim_<n>.pt (specification 4.1),
<out>/truth.json (planted tuning, gains, shifts, noise-free peaks) and <out>/README. A teacher is a
trained run, or a checkpoint with its --config: its calcium, with gains and the noise of recordings,
stands for theirs, so that a training can be checked by those who have none. Source: 4.4.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, Parser, one_line_faults, seed_number
from settings import SETS

DEFAULT_OUT = DATA_DIR / "synthetic_small"


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the set")
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="seed of gains, shifts and noise"
    )
    parser.add_argument("--hz", type=int, default=60, choices=(30, 60, 180), help="frame rate")
    parser.add_argument(
        "--px", type=int, default=51, choices=(51, 83), help="rows and columns, degrees"
    )
    parser.add_argument("--neurons", type=int, default=3, help="per cell type")
    parser.add_argument("--stimuli", default="small", choices=SETS, help="how many stimuli")
    parser.add_argument("--teacher", default="analytic", help="analytic, or a checkpoint")
    parser.add_argument("--config", type=Path, default=None, help="config.json of the checkpoint")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser.parse_args(argv)


@one_line_faults
def main(argv=None):
    """Make the set and say where it is."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from demo.synthetic import make_synthetic

    out = make_synthetic(
        args.out, seed=args.seed, hz=args.hz, px=args.px, neurons=args.neurons,
        stimuli=args.stimuli, teacher=args.teacher, config=args.config,
    )  # fmt: skip
    print(f"synthetic set: {out}")


def __getattr__(name):
    """Give ``from make_synthetic import make_synthetic`` and its likes what they ask for."""
    from demo import synthetic

    return getattr(synthetic, name)


if __name__ == "__main__":
    main()
