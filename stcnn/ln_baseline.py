"""Compare a trained network with linear-nonlinear (LN) models of the same neurons.

    python ln_baseline.py --run ../results/stcnn/RUN

RUN is a finished run of train.py or the model/ of main.py with stimuli held out. One LN model per
neuron is fitted on the stimuli that the network was trained on; both are scored on the held-out
ones. Writes RUN/baseline.csv: a row per model and cell type with the columns of scores.csv; the
normalised correlation is that with recordings free of noise.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder with held-out stimuli")
    parser.add_argument("--ca-path", type=Path, help="where the run's recordings lie now")
    parser.add_argument("--mov-path", type=Path, help="where the run's movies lie now")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser.parse_args(argv)


@one_line_faults
def main(argv=None):
    """Score both and print the normalised correlations."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from runs.ln_baseline import score_baseline

    for row in score_baseline(args.run, ca_path=args.ca_path, mov_path=args.mov_path):
        value = float(row["normalised_correlation"] or "nan")
        print(f"{row['model']}, {row['cell_type']}: normalised correlation {value:.3f}")
    print(f"table: {args.run / 'baseline.csv'}")


if __name__ == "__main__":
    main()
