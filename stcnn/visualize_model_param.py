"""Draw the training loss and the weights of a run: kernels, read-outs, histograms, a table.

    python visualize_model_param.py --run ../results/stcnn/<run>
    python visualize_model_param.py --run path/to/stcnn/experiments/lc_small_3 --out DIR

Reads config.json, model_chkpnt_<e>.pt or .safetensors and loss_hist.npz (or the published
avg_loss_hist.pkl) of a run; writes into <run>/analysis, for a published experiment into
results/stcnn/analysis/<run> (or --out): training_loss_hist.png,
<chk>_hidden_layer<i>.png, <chk>_<type>.png, <chk>_parameter_hist.png, <chk>_parameters.csv,
<chk>_time_constants.csv, training_loss.csv. Source: specification 8.2.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from common.locks import writing

DEFAULT_OUT = RESULTS_DIR / "analysis"  # a clone of the published project is not written into
OUT_HELP = "default: <run>/analysis; of a published experiment, results/stcnn/analysis/<run>"


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder with its checkpoints")
    parser.add_argument("--out", type=Path, default=None, help=OUT_HELP)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser.parse_args(argv)


@one_line_faults
def main(argv=None):
    """Draw a run and say where the figures are."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from runs.model_figures import draw_run

    own = (args.run / "settings.json").is_file()
    out = args.out or (args.run / "analysis" if own else DEFAULT_OUT / args.run.resolve().name)
    with writing(out):
        figures = draw_run(args.run, out)
    print(f"{len(figures)} figures: {out}")


if __name__ == "__main__":
    main()
