"""Draw weighted F1 and Cohen's kappa against the length of an input.

Python port of the published plot_scoring_length.m; specification section 8.5.
    python plot_scoring_length.py
    python plot_scoring_length.py --metrics 5=run5/test/metrics.json 10=run10/test/metrics.json
Reads a CSV with columns seconds, f1_weighted, kappa (the published numbers by default).
Writes PNG, PDF, CSV.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import FOLDER, RESULTS_DIR, Parser, one_line_faults

TABLE = FOLDER / "scoring_length_published.csv"


def __getattr__(name):
    """Return what users import from this script; it lives in analysis/scoring_length.py."""
    return getattr(importlib.import_module("analysis.scoring_length"), name)


def build_parser() -> Parser:
    """Return the command line."""
    from analysis.figure_scripts import add_figure_flags

    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--table", type=Path, default=TABLE, help="CSV with seconds, f1_weighted, kappa"
    )
    parser.add_argument(
        "--metrics", nargs="+", default=[], help="<seconds>=<metrics.json> of own runs"
    )
    out = RESULTS_DIR / "scoring_length" / "scoring_length.png"
    parser.add_argument("--out", type=Path, default=out, help="PNG to write")
    return add_figure_flags(parser)


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Draw the table that the flags name."""
    args = build_parser().parse_args(argv)
    from analysis.figure_scripts import present
    from analysis.scoring_length import read_lengths, save_scoring_length

    path = save_scoring_length(read_lengths(args.table, args.metrics), args.out)
    present([path], args.show)


if __name__ == "__main__":
    main()
