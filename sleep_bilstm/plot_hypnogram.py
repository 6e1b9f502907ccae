"""Draw colour-coded hypnograms, one row per series of states.

Python port of the published plot_hypnogram.m; specification section 8.5.
    python plot_hypnogram.py ../results/sleep_bilstm/run/200128_10s.mat --keys y_preds y_trues
    python plot_hypnogram.py 200128_10s.csv --keys pred --titles "Network" --show
Reads label vectors (N,) from .mat or CSV, 0 wake, 1 NREM, 2 REM, -1 or NaN a gap. Writes PNG, PDF
and CSV.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from inputs.states import EPOCH_S


def __getattr__(name):
    """Return what users import from this script; it lives in analysis/hypnogram_figures.py."""
    return getattr(importlib.import_module("analysis.hypnogram_figures"), name)


def build_parser() -> Parser:
    """Return the command line."""
    from analysis.figure_scripts import add_figure_flags

    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "file", type=Path, nargs="+", help="results, .mat or CSV; rows come in this order"
    )
    parser.add_argument(
        "--keys",
        nargs="+",
        default=["y_preds", "y_trues"],
        help="variables or columns of each file",
    )
    parser.add_argument("--titles", nargs="+", default=None, help="one title per row")
    parser.add_argument(
        "--epoch_seconds", type=float, default=EPOCH_S, help="length of an epoch in s"
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        choices=(2, 3),
        default=None,
        help="2 joins NREM and REM; as the first file says when absent",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="PNG to write; `<file>_hypnogram.png` when absent"
    )
    return add_figure_flags(parser)


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Draw the label vectors of the given files."""
    args = build_parser().parse_args(argv)
    from analysis.figure_scripts import present
    from analysis.hypnogram_figures import TITLES, save_hypnogram
    from analysis.utils import classes_in, read_label_vectors

    series = [vector for path in args.file for vector in read_label_vectors(path, args.keys)]
    titles = args.titles or [TITLES.get(key, key) for _ in args.file for key in args.keys]
    out = args.out or args.file[0].with_name(f"{args.file[0].stem}_hypnogram.png")
    classes = args.num_classes or classes_in(args.file[0])
    path = save_hypnogram(series, titles, out, args.epoch_seconds, num_classes=classes)
    present([path], args.show)


if __name__ == "__main__":
    main()
