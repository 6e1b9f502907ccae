"""List the recordings of a folder and what is wrong with them, before any hour is spent.

    python check_data.py --data_path ../data/sleep_bilstm/raw
    python check_data.py --data_path ../data/sleep_bilstm/raw --table check.csv
Reads `<date>-<mouse>-fc<n>*.mat`. Prints one line per recording and writes the table as CSV when
asked; exit code 2 when a recording cannot be used.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from analysis.tables import write_table
from common.files import Parser, one_line_faults, raise_faults
from inputs.data_check import check_folder

PATTERN = "*.mat"


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data_path", type=Path, required=True, help="folder with recordings, searched recursively"
    )
    parser.add_argument(
        "--mice", nargs="+", default=[], help="date codes, tags or <date>-<tag>; all when absent"
    )
    parser.add_argument("--pattern", default=PATTERN, help="file name pattern of the recordings")
    parser.add_argument(
        "--mask", type=Path, default=None, help="mask file for recordings without a mask"
    )
    parser.add_argument(
        "--codes", default="", help="meaning of the scores, such as 1=REM,2=wake,3=NREM"
    )
    parser.add_argument(
        "--unknown", choices=("error", "drop"), default="error", help="epochs with an unknown code"
    )
    parser.add_argument(
        "--headers_only", action="store_true", help="do not read the frames to look for NaN"
    )
    parser.add_argument("--table", type=Path, default=None, help="CSV file to write")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Print the table of all recordings, then fail with all faults in one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = build_parser().parse_args(argv)
    table, faults, doubts = check_folder(
        args.data_path,
        mice=args.mice,
        pattern=args.pattern,
        mask_file=args.mask,
        signals=not args.headers_only,
        codes=args.codes,
        unknown=args.unknown,
    )
    if not table.empty:
        print(table.to_string(index=False))
    for line in doubts:
        logging.warning("%s", line)
    if args.table and not table.empty:
        write_table(table, args.table)
    raise_faults(faults)


if __name__ == "__main__":
    main()
