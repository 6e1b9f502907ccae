"""Metrics, confusion figure, state counts and rater comparison (no TensorFlow).

    python utils.py compare raters.mat --keys y_trues_eric y_trues_nick --out
    ../results/sleep_bilstm/raters python utils.py count ../data/sleep_bilstm/10s
Source: specification section 8.2.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults


def __getattr__(name):
    """Return what users import from this script; it lives in analysis/utils.py."""
    return getattr(importlib.import_module("analysis.utils"), name)


def build_parser() -> Parser:
    """Return the command line with the commands compare and count."""
    parser = Parser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="metrics between two raters")
    compare.add_argument("file", type=Path, help=".mat or CSV with two label vectors")
    compare.add_argument(
        "--keys", nargs=2, default=["y_trues_eric", "y_trues_nick"], help="their names"
    )
    compare.add_argument("--out", type=Path, required=True, help="folder to write")
    count = commands.add_parser("count", help="epochs per mouse and state")
    count.add_argument("data_path", type=Path, help="folder with tfrecords")
    count.add_argument("--table", type=Path, default=None, help="CSV file to write")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Run one of the commands."""
    args = build_parser().parse_args(argv)
    from analysis.label_files import read_labels, with_classes
    from analysis.tables import write_table
    from analysis.utils import compare_two_raters, count_folder, text_of

    if args.command == "compare":
        (file,), classes = with_classes([read_labels(args.file, args.keys)], None)
        result = compare_two_raters(*file.states, args.out, num_classes=classes)
        print(text_of(result))
        if result["left_out"]:
            print(f"{result['left_out']} epochs without a state of both are left out")
        for note in file.notes:
            print(note)
        return
    table = count_folder(args.data_path)
    print(table.to_string(index=False))
    if args.table:
        write_table(table, args.table)


if __name__ == "__main__":
    main()
