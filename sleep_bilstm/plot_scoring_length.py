"""Draw weighted F1 and Cohen's kappa against the length of an input.

Python port of the published plot_scoring_length.m; specification section 8.5.
    python plot_scoring_length.py
    python plot_scoring_length.py --metrics 5=run5/test/metrics.json 10=run10/test/metrics.json
Reads a CSV with columns seconds, f1_weighted, kappa (the published numbers by default).
Writes PNG, PDF, CSV.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import FOLDER, RESULTS_DIR, InputError, Parser, one_line_faults

TABLE = FOLDER / "scoring_length_published.csv"
COLUMNS = ("seconds", "f1_weighted", "kappa")


def plot_scoring_length(table: pd.DataFrame):
    """Return the figure of a table with columns seconds, f1_weighted and kappa."""
    from common.figures import BLUE, ORANGE, new_figure

    figure, left = new_figure(6.5, 4)
    right = left.twinx()
    right.spines["right"].set_visible(True)
    lines = left.plot(
        table["seconds"], table["f1_weighted"], color=BLUE, linewidth=2, label="weighted F1"
    )
    lines += right.plot(
        table["seconds"],
        table["kappa"],
        color=ORANGE,
        linewidth=2,
        linestyle="--",
        label="Cohen's kappa",
    )
    for axes, label in ((left, "Weighted F1"), (right, "Cohen's kappa")):
        axes.set_ylim(0, 1)
        axes.set_yticks(np.arange(0, 1.01, 0.1))
        axes.set_ylabel(label)
    left.set_xticks([*range(1, 11), 15, 20])
    left.set_xlim(0.5, 20.5)
    left.set_xlabel("Epoch length (s)")
    left.grid(alpha=0.4)
    left.legend(lines, [line.get_label() for line in lines], frameon=False, loc="lower right")
    return figure


def read_lengths(path: Path, own: list[str]) -> pd.DataFrame:
    """Read the table, or build it from `<seconds>=<metrics.json>` pairs when there are any."""
    if own:
        rows = []
        for pair in own:
            seconds, _, file = pair.partition("=")
            try:
                held = json.loads(Path(file).read_text(encoding="utf-8"))
                rows.append((float(seconds), held["f1_weighted"], held["kappa"]))
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{pair}: expected <seconds>=<metrics.json> ({error})") from error
        return pd.DataFrame(rows, columns=COLUMNS).sort_values("seconds")
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    absent = [column for column in COLUMNS if column not in table]
    if absent or table.empty:
        raise InputError(
            f"{path}: lacks {', '.join(absent) or 'rows'}; expected columns {', '.join(COLUMNS)}"
        )
    return table.sort_values("seconds")


def save_scoring_length(table: pd.DataFrame, path: Path) -> Path:
    """Draw the table and write PNG, PDF and CSV."""
    from common.figures import PRINT_DPI, save_figure

    return save_figure(plot_scoring_length(table), path, table, dpi=PRINT_DPI, pdf=True)


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--table", type=Path, default=TABLE, help="CSV with seconds, f1_weighted, kappa"
    )
    parser.add_argument(
        "--metrics", nargs="+", default=[], help="<seconds>=<metrics.json> of own runs"
    )
    out = RESULTS_DIR / "scoring_length" / "scoring_length.png"
    parser.add_argument("--out", type=Path, default=out, help="PNG to write")
    parser.add_argument("--show", action="store_true", help="open the picture")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Draw the table that the flags name."""
    from common.figures import show_picture

    args = build_parser().parse_args(argv)
    path = save_scoring_length(read_lengths(args.table, args.metrics), args.out)
    print(path)
    if args.show:
        show_picture(path)


if __name__ == "__main__":
    main()
