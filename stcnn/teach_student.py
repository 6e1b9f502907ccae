"""Train a student network on a teacher network's calcium, and check what it has learnt.

    python teach_student.py --seed 0                   # a teacher of our own: the demo's network
    python teach_student.py --seed 1 --teacher RUN     # another run: a minute less

A test of the training that needs no recordings. The student sees random scenes and is asked about
families of stimuli that it has never seen, beside LN models and a control on dealt labels; then
three new neurons get their gain from twenty scenes and their place from all. Three quarters of an
hour of CPU time. Writes OUT/scores.csv, families.csv, new_neurons.csv and the runs student/ and
control/; exit code 1 when a target is missed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults, seed_number

EPOCHS = 8  # of the student and of its control


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seed", type=seed_number, default=0, help="seed of gains, places, noise and student")
    add("--teacher", type=Path, help="trained run at 30 Hz; default: the demo's network")
    add("--out", type=Path, help="folder; default results/stcnn/student_seed_<n>")
    add("--epochs", type=int, default=EPOCHS, help="passes over the scenes")
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    args.out = args.out or RESULTS_DIR / f"student_seed_{args.seed}"
    return args


@one_line_faults
def main(argv=None):
    """Run the check; what is complete in the folder is used again."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from common.locks import writing
    from demo.students import check_student

    with writing(args.out):
        scores = check_student(args.out, args.seed, teacher=args.teacher, epochs=args.epochs)
    for entry in scores:
        verdict = {True: "reached", False: "missed", None: "no target"}[entry["passed"]]
        print(f"{entry['name']}: {entry['value']} {entry['unit']} ({entry['target']} {verdict})")
    print(f"tables: {args.out}")
    return 1 if any(entry["passed"] is False for entry in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
