"""Draw colour-coded hypnograms, one row per series of states.

Python port of the published plot_hypnogram.m; specification section 8.5.
    python plot_hypnogram.py ../results/sleep_bilstm/run/200128_10s.mat --keys y_preds y_trues
    python plot_hypnogram.py 200128_10s.csv --keys pred --titles "Network" --show
Reads label vectors (N,) from .mat or CSV, 0 wake, 1 NREM, 2 REM, -1 or NaN a gap. Rows stand where
time_s, or run and epoch, of their file put them (--ignore_gaps: one after another, as published).
Writes PNG, PDF and CSV.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from inputs.scoring import positive_seconds


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
        "--epoch_seconds",
        type=positive_seconds,
        default=None,
        help="length of an epoch in s; as the files say when absent",
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        choices=(2, 3),
        default=None,
        help="2 joins NREM and REM; as the files say when absent",
    )
    parser.add_argument(
        "--ignore_gaps", action="store_true", help="rows follow each other, as published"
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
    from analysis.label_files import epoch_length, read_labels, with_classes

    files, classes = with_classes([read_labels(p, args.keys) for p in args.file], args.num_classes)
    epoch_s, notes = epoch_length(files, args.epoch_seconds)
    series = [
        file.states[i] if args.ignore_gaps else file.on_axis(i)
        for file in files
        for i in range(len(args.keys))
    ]
    several = len(files) > 1
    titles = args.titles or [
        TITLES.get(key, key) + (f", {path.stem}" if several else "")
        for path in args.file
        for key in args.keys
    ]
    out = args.out or args.file[0].with_name(f"{args.file[0].stem}_hypnogram.png")
    path = save_hypnogram(series, titles, out, epoch_s, num_classes=classes)
    for note in [*(note for file in files for note in file.notes), *notes]:
        print(note)
    present([path], args.show)


if __name__ == "__main__":
    main()
