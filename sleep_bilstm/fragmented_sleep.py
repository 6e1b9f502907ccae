"""Bouts and transitions of a hypnogram: how fragmented the sleep is.

Python port of the published fragmented_sleep.m; specification section 8.5.
    python fragmented_sleep.py ../results/sleep_bilstm/run/200128_10s.csv
    python fragmented_sleep.py 200128_10s.mat --key y_trues --ignore_gaps
Reads a CSV (columns epoch, run, and pred or true) or .mat (y_preds, y_trues 1 x N; run, epoch). The
length of an epoch is that of time_s or epoch_s of the file, or else 10 s, which is said. Prints the
table and writes `<file>_bouts.csv` and `<file>_bouts.json` into --out.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, atomic_path, one_line_faults, write_json
from common.tables import safe_frame
from inputs.scoring import positive_seconds

KEY = "pred"  # column or variable with the states
IGNORE_GAPS = (
    False  # join what dropped artifacts and run borders separate, as the published script does
)


def __getattr__(name):
    """Return what users import from this script; it lives in analysis/bouts.py."""
    return getattr(importlib.import_module("analysis.bouts"), name)


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "file", type=Path, help="result of --mode test_subjectwise or predict, CSV or .mat"
    )
    parser.add_argument(
        "--key", default=KEY, help="pred, true, or the name of a column or variable"
    )
    parser.add_argument(
        "--epoch_seconds",
        type=positive_seconds,
        default=None,
        help="length of an epoch in s; as the file says when absent",
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        choices=(2, 3),
        default=None,
        help="2 joins NREM and REM; as the file says when absent",
    )
    parser.add_argument(
        "--ignore_gaps", action="store_true", default=IGNORE_GAPS, help="as the published script"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="folder to write; beside the file when absent"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Print and write the statistics of one hypnogram."""
    args = build_parser().parse_args(argv)
    from analysis.bouts import as_json, first_line, sleep_statistics, statistics_table
    from analysis.label_files import epoch_length, read_labels, with_classes

    (file,), classes = with_classes([read_labels(args.file, [args.key])], args.num_classes)
    epoch_s, notes = epoch_length([file], args.epoch_seconds)
    labels = file.states[0]
    scored = labels >= 0
    parts = None if args.ignore_gaps else file.stretches(scored)
    statistics = sleep_statistics(labels[scored], parts, epoch_s=epoch_s, num_classes=classes)
    table = statistics_table(statistics)
    print(first_line(statistics))
    print(table.to_string(index=False, na_rep="-", float_format="%.1f"))
    notes = [*file.notes, *notes]
    print("\n".join(notes))
    origin = {"file": args.file.name, "key": args.key, "epoch_s": epoch_s, "notes": notes}
    out = args.out or args.file.parent
    with atomic_path(out / f"{args.file.stem}_bouts.csv") as temporary:
        safe_frame(table).to_csv(temporary, index=False)
    write_json(out / f"{args.file.stem}_bouts.json", {**origin, **as_json(statistics)})


if __name__ == "__main__":
    main()
