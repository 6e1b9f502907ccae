"""Animate recordings: the stimulus movies above the growing calcium traces.

    python visualize_dataset.py                        # every type of the synthetic set, looming
    python visualize_dataset.py --ca-path DIR --mov-path DIR --uid 2019072716 --grid 7x9

Reads recordings and movies in the published format (default: the synthetic set, made on first use);
writes <type>_looming.mp4 (a column per stimulus, all neurons of the type) or <uid>_rf.mp4 (a grid,
one neuron) and the traces as CSV. --gif writes GIF. Source: specification 8.1.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, RESULTS_DIR, Parser, one_line_faults
from common.locks import hold

DEFAULT_OUT = RESULTS_DIR / "dataset"
SYNTHETIC = DATA_DIR / "synthetic_small"
PUBLISHED_LIST = (321, 322, 325, 327, 329, 5688, 5689)
SYNTHETIC_LIST = (302, 304, 320, 340, 1021, 1066, 500)
MAPPING_LIST = tuple(48_000_090 + 100_000 * r + 1000 * c for r in range(7) for c in range(9))


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ca-path", type=Path, default=None, help="recordings; default: the synthetic set")
    add("--mov-path", type=Path, default=None, help="their movies")
    add("--rate", type=float, default=None, help="Hz; default: as in the files")
    add("--cell-type", default=None, help="default: all")
    add("--uid", type=int, default=None, help="one neuron, drawn as a grid")
    add("--stimuli", default=None, help="comma-separated numbers")
    add("--grid", default="7x9", help="rows x columns for --uid")
    add(
        "--nan",
        choices=("reject", "drop_trial"),
        default="reject",
        help="what to do with trials that hold NaN",
    )
    add("--gif", action="store_true", help="write GIF instead of mp4")
    add("--step", type=int, default=6, help="draw every how many frames")
    add("--out", type=Path, default=DEFAULT_OUT, help="folder of the animations")
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if (args.ca_path is None) != (args.mov_path is None):
        parser.error("--ca-path and --mov-path belong together")
    if args.step < 1 or not re.fullmatch(r"\d+x\d+", args.grid):
        parser.error("--step must be at least 1 and --grid look like 7x9")
    if args.stimuli is not None and not re.fullmatch(r"\d+(,\d+)*", args.stimuli):
        parser.error(f"--stimuli {args.stimuli}: expected numbers separated by commas")
    return args


@one_line_faults
def main(argv=None):
    """Draw the data set and say where the animations are."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from runs.dataset_figures import draw_neuron, draw_types, load_dataset

    ca_path, mov_path, shown = args.ca_path, args.mov_path, PUBLISHED_LIST
    if ca_path is None:
        if not SYNTHETIC.is_dir():
            from demo.synthetic import make_synthetic

            make_synthetic(SYNTHETIC)
        ca_path, mov_path, shown = SYNTHETIC / "ca_traces", SYNTHETIC / "movies", SYNTHETIC_LIST
    dataset = load_dataset(ca_path, mov_path, args.rate, nan=args.nan)
    print(dataset.display.describe())
    hold(args.out)
    chosen = [int(number) for number in args.stimuli.split(",")] if args.stimuli else None
    how = {"step": args.step, "suffix": ".gif" if args.gif else ".mp4"}
    if args.uid is not None:
        shape = tuple(int(n) for n in args.grid.split("x"))
        codes = chosen or MAPPING_LIST
        paths = [draw_neuron(dataset, args.uid, codes, args.out, shape=shape, **how)]
    else:
        kinds = [args.cell_type] if args.cell_type else dataset.cell_types
        paths = draw_types(dataset, kinds, chosen or shown, args.out, **how)
    print(f"{len(paths)} animations: {args.out}")


if __name__ == "__main__":
    main()
