"""Train and test at several input lengths: a table and a figure as plot_scoring_length.py draws.

    python epoch_length_study.py --data_path ../data/sleep_bilstm/raw --lengths 1 2 5 10 15 20
    python epoch_length_study.py --data_path RAW --lengths 5 10 -- --num_epochs 20 --split mouse
The split is by blocks unless --split says otherwise: in the published epoch split, inputs longer
than 10 s share frames with those of the test, which favours long inputs.
Reads recordings (.mat). Writes tfrecords per length to ../data/sleep_bilstm/lengths/<S>s and to
../results/sleep_bilstm/<run>/: `<S>s/` per length, lengths.csv, lengths.png. What follows `--` goes
to main.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults, plain_name

RUN = "lengths"
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)  # s


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, help="folder with recordings")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=list(LENGTHS), help="input lengths in s"
    )
    parser.add_argument("--run", default=RUN, help="name of the run, its folder in the results")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Run the study and draw its figure."""
    argv = list(sys.argv[1:] if argv is None else argv)
    cut = argv.index("--") if "--" in argv else len(argv)
    args, extra = build_parser().parse_args(argv[:cut]), argv[cut + 1 :]
    run_dir = RESULTS_DIR / plain_name(args.run)
    from runs.epoch_length import study_lengths

    table, picture = study_lengths(args.lengths, args.data_path, run_dir, extra)
    print(table.to_string(index=False))
    print(picture)


if __name__ == "__main__":
    main()
