"""Convert hypnograms between programs: CSV, AccuSleep, LabChart cells, EDF+, SleepSign, NWB.

    python hypnogram.py convert ../results/sleep_bilstm/run/predict/200128_10s.csv 200128.edf
    python hypnogram.py convert D1798_short.txt scores.mat --to accusleep
Reads a table with a column state, pred or true (our results, AccuSleep's brain_state), `labels` or
a cell array of words (.mat), annotations of EDF+, the text of SleepSign, intervals of NWB. Writes
the format that the ending or --to names. Prints how every code was read.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from inputs.scoring import positive_seconds

FORMATS = ("csv", "accusleep", "accusleep-csv", "labchart", "edf", "sleepsign", "nwb")


def build_parser() -> Parser:
    """Return the command line with the command convert."""
    parser = Parser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="read a hypnogram and write it in another format")
    convert.add_argument("file", type=Path, help="hypnogram to read")
    convert.add_argument("out", type=Path, help="hypnogram to write")
    convert.add_argument("--to", choices=FORMATS, default="", help="format to write; by its ending")
    convert.add_argument("--key", default="", help="column or variable with the states")
    convert.add_argument("--codes", default="", help="meaning of the states, such as 1=REM,2=wake")
    convert.add_argument(
        "--epoch_seconds", type=positive_seconds, default=None, help="length of an epoch in s"
    )
    convert.add_argument(
        "--start", default="", help="clock of the first epoch, 2018-10-18T11:05:10"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Convert one file."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    from inputs.scoring_files import convert_scoring, read_scoring, with_clock

    scoring = read_scoring(args.file, key=args.key, codes=args.codes)
    scoring = with_clock(scoring, args.epoch_seconds, args.start)
    convert_scoring(scoring, args.out, args.to)
    seconds = len(scoring.states) * scoring.epoch_s
    print(
        f"{args.out}: {len(scoring.states)} epochs of {scoring.epoch_s:g} s, {seconds:g} s in all"
    )


if __name__ == "__main__":
    main()
