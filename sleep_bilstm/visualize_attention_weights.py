"""Draw exported attention weights: mean per state, in time, histograms, around transitions.

Python port of the published visualize_attention_weights.m; specification section 8.5.
    python visualize_attention_weights.py 200128_attention_weights.mat
    python visualize_attention_weights.py WEIGHTS.mat --states 200128_10s.mat --gap 30
Reads att_weights (N x F), y_preds and, for the transitions, y_trues (1 x N). Writes four PNG and
PDF with their CSV.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import InputError, Parser, one_line_faults


def __getattr__(name):
    """Return what users import from this script; it lives in analysis/attention_figures.py."""
    return getattr(importlib.import_module("analysis.attention_figures"), name)


def build_parser() -> Parser:
    """Return the command line."""
    from analysis.attention_figures import GAP
    from analysis.figure_scripts import add_figure_flags

    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="<mouse>_attention_weights.mat")
    parser.add_argument(
        "--states",
        type=Path,
        default=None,
        help="result with y_preds and y_trues, if not in the file",
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        choices=(2, 3),
        default=None,
        help="2 joins NREM and REM; as the file says when absent",
    )
    parser.add_argument(
        "--rescaled",
        action="store_true",
        help="rescale the weights of every epoch to 0..1, as published; else weight x steps",
    )
    parser.add_argument("--gap", type=int, default=GAP, help="samples on each side of a transition")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder to write; beside the file when absent"
    )
    return add_figure_flags(parser)


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Draw the weights of one mouse and print the sum of each mean curve."""
    args = build_parser().parse_args(argv)
    from analysis.attention_figures import (
        attention_statistics,
        read_weights,
        save_attention_figures,
    )
    from analysis.figure_scripts import present

    if args.gap < 0:
        raise InputError(f"gap is {args.gap}: expected 0 samples or more")
    held = read_weights(args.file, args.states, args.num_classes)
    statistics = attention_statistics(
        held.weights,
        held.y_pred,
        held.y_true,
        args.gap,
        num_classes=held.num_classes,
        parts=held.parts,
        time_s=held.time_s,
    )
    columns = (statistics.names, statistics.means, statistics.counts, statistics.effective)
    for name, mean, count, steps in zip(*columns, strict=True):
        print(
            f"{name}: {count} epochs, sum of the mean curve {mean.sum():.3f}, spread over "
            f"{steps:.0f} of {mean.size} steps"
            if count
            else f"{name}: no epochs"
        )
    mouse = args.file.stem.removesuffix("_attention_weights")
    out = args.out or args.file.parent
    look = {"rescaled": args.rescaled, "epoch_s": held.epoch_s}
    paths = save_attention_figures(statistics, held.y_pred, out, mouse, **look)
    print("\n".join(held.notes))
    present(paths, args.show)


if __name__ == "__main__":
    main()
