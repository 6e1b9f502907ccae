"""Draw colour-coded hypnograms, one row per series of states.

Python port of the published plot_hypnogram.m; specification section 8.5.
    python plot_hypnogram.py ../results/sleep_bilstm/run/200128_10s.mat --keys y_preds y_trues
    python plot_hypnogram.py 200128_10s.csv --keys pred --titles "Network" --show
Reads label vectors (N,) from .mat or CSV, 0 wake, 1 NREM, 2 REM, -1 or NaN a gap. Writes PNG, PDF
and CSV.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, Parser, one_line_faults
from states import EPOCH_S, STATE_NAMES, STATE_RGB

TITLES = {
    "y_preds": "Attention CNN-BiLSTM",
    "pred": "Attention CNN-BiLSTM",
    "y_trues": "Human scoring",
    "true": "Human scoring",
}
HALF_HOUR_S = 1800
ROW_INCHES = 1.7
AXES_POINTS = 640  # width of the axes in points (1/72 inch)


def plot_hypnogram(
    series: Sequence[np.ndarray], titles: Sequence[str], epoch_seconds: float = EPOCH_S
):
    """Return a figure with one row per label series (N,).

    Epoch l = 1..N is a vertical stroke at x = l from y = s to s + 1 in the colour of state s.

    Raises:
        InputError: an empty series, or as many titles as series are not given.
    """
    from matplotlib.collections import LineCollection

    from common.figures import new_figure

    series = [np.asarray(labels, float) for labels in series]
    if not series or any(labels.size == 0 for labels in series):
        raise InputError("a hypnogram without epochs cannot be drawn")
    if len(titles) != len(series):
        raise InputError(
            f"{len(series)} series and {len(titles)} titles; expected one title per series"
        )
    figure, grid = new_figure(
        10, 0.6 + ROW_INCHES * len(series), rows=len(series), squeeze=False, sharex=True
    )
    for axes, labels, title in zip(grid[:, 0], series, titles, strict=True):
        scored = np.isfinite(labels) & (labels >= 0)
        x, y = np.flatnonzero(scored) + 1, labels[scored]
        # Strokes of short recordings are widened until neighbours touch.
        width_pt = max(1, AXES_POINTS / (labels.size + 20))
        strokes = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], axis=1)
        axes.add_collection(
            LineCollection(strokes, colors=[STATE_RGB[int(s)] for s in y], linewidths=width_pt)
        )
        axes.set_ylim(0, 3)
        axes.set_yticks([0.5, 1.5, 2.5], STATE_NAMES[3], fontweight="bold")
        axes.set_xlim(0, labels.size + 20)
        axes.set_title(title, fontsize=10)
    # Differs: the published script puts the tick of 3.0 h at epoch 1060 instead of 1080.
    step = HALF_HOUR_S / epoch_seconds
    ticks = np.arange(1, max(labels.size for labels in series) // step + 1)
    if ticks.size:
        grid[-1, 0].set_xticks(ticks * step, [f"{0.5 * tick:.1f}" for tick in ticks])
        grid[-1, 0].set_xlabel("Time (hr)")
    else:
        grid[-1, 0].set_xlabel(f"Epoch ({epoch_seconds:g} s each)")
    return figure


def save_hypnogram(series, titles, path: Path, epoch_seconds: float = EPOCH_S) -> Path:
    """Draw the series and write PNG, PDF and the CSV with one column per series."""
    from common.figures import PRINT_DPI, save_figure

    figure = plot_hypnogram(series, titles, epoch_seconds)
    length = max(len(labels) for labels in series)
    columns = {
        title: pd.Series(np.asarray(labels, float))
        for title, labels in zip(titles, series, strict=True)
    }
    table = pd.DataFrame({"epoch": np.arange(length), **columns})
    return save_figure(figure, path, table, dpi=PRINT_DPI, pdf=True)


def build_parser() -> Parser:
    """Return the command line."""
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
        "--out", type=Path, default=None, help="PNG to write; `<file>_hypnogram.png` when absent"
    )
    parser.add_argument("--show", action="store_true", help="open the picture")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Draw the label vectors of the given files."""
    from common.figures import show_picture
    from utils import read_label_vectors

    args = build_parser().parse_args(argv)
    series = [vector for path in args.file for vector in read_label_vectors(path, args.keys)]
    titles = args.titles or [TITLES.get(key, key) for _ in args.file for key in args.keys]
    out = args.out or args.file[0].with_name(f"{args.file[0].stem}_hypnogram.png")
    path = save_hypnogram(series, titles, out, args.epoch_seconds)
    print(path)
    if args.show:
        show_picture(path)


if __name__ == "__main__":
    main()
