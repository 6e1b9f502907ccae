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

import numpy as np

from common.files import InputError, Parser, one_line_faults

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "results" / "stcnn" / "dataset"
PUBLISHED_LIST = (321, 322, 325, 327, 329, 5688, 5689)
SYNTHETIC_LIST = (302, 304, 320, 340, 1021, 1066, 500)
MAPPING_LIST = tuple(48_000_090 + 100_000 * r + 1000 * c for r in range(7) for c in range(9))


def panels_of(dataset, barcodes, who, rate_hz):
    """Return one panel per barcode: title, movie, seconds from movie start, traces of its items.

    Args:
        dataset: CalciumDataset without pre-pad.
        barcodes: stimuli; one that is missing leaves an empty panel.
        who: cell type or UID.
        rate_hz: frames per second.
    """
    panels = []
    for barcode in barcodes:
        rows = dataset.rows_of(who, barcode)
        panel = {"title": str(barcode), "movie": [], "seconds": [], "traces": [], "uids": []}
        if rows:
            items = [dataset.items[row] for row in rows]
            start = dataset.onset(items[0])
            panel["movie"] = dataset.movie(items[0])[start:, 0].numpy()
            panel["traces"] = [dataset.trace(item)[start:].numpy() for item in items]
            panel["seconds"] = np.arange(len(panel["movie"])) / rate_hz
            panel["uids"] = [item.uid for item in items]
        panels.append(panel)
    if not any(len(panel["movie"]) for panel in panels):
        raise InputError(f"{who}: none of the stimuli {', '.join(map(str, barcodes))} was recorded")
    return panels


def write_panel_table(path, panels):
    """Write the drawn traces: seconds, stimulus, neuron, dF/F."""
    from training import write_csv

    write_csv(
        path,
        [
            {
                "stimulus": panel["title"],
                "uid": uid,
                "seconds": f"{second:.5f}",
                "dff": f"{value:.5f}",
            }
            for panel in panels
            for uid, trace in zip(panel["uids"], panel["traces"], strict=True)
            for second, value in zip(panel["seconds"], trace, strict=True)
        ],
    )


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ca-path", type=Path, default=None, help="recordings; default: the synthetic set")
    add("--mov-path", type=Path, default=None, help="their movies")
    add("--rate", type=float, default=None, help="Hz; default 180, 60 for the synthetic set")
    add("--cell-type", default=None, help="default: all")
    add("--uid", type=int, default=None, help="one neuron, drawn as a grid")
    add("--stimuli", default=None, help="comma-separated numbers")
    add("--grid", default="7x9", help="rows x columns for --uid")
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


def load(args):
    """Return (dataset, rate, default stimuli) for the flags."""
    from ca_dataloader import CalciumDataset, Layout
    from make_synthetic import DEFAULT_OUT as SYNTHETIC
    from make_synthetic import make_synthetic
    from recordings import read_movies, read_recordings

    ca_path, mov_path, rate, shown = args.ca_path, args.mov_path, args.rate or 180, PUBLISHED_LIST
    if ca_path is None:
        if not SYNTHETIC.is_dir():
            make_synthetic(SYNTHETIC)
        ca_path, mov_path = SYNTHETIC / "ca_traces", SYNTHETIC / "movies"
        rate, shown = args.rate or 60, SYNTHETIC_LIST
    recordings = read_recordings(ca_path, rate_hz=rate)
    movies = read_movies(mov_path, rate_hz=rate)
    return CalciumDataset(recordings, movies, Layout(n_prepad=0, loss_start_s=0.0)), rate, shown


def draw(dataset, rate, shown, args):
    """Write the animations that the flags ask for; return their paths."""
    from animations import animate_grid, animate_row

    args.out.mkdir(parents=True, exist_ok=True)
    suffix = ".gif" if args.gif else ".mp4"
    if args.stimuli:
        shown = [int(number) for number in args.stimuli.split(",")]
    if args.uid is not None:
        known = {item.uid for item in dataset.items}
        if args.uid not in known:
            raise InputError(
                f"--uid {args.uid}: not recorded; known are {', '.join(map(str, known))}"
            )
        shape = tuple(int(n) for n in args.grid.split("x"))
        codes = (shown if args.stimuli else MAPPING_LIST)[: shape[0] * shape[1]]
        panels = panels_of(dataset, codes, args.uid, rate)
        write_panel_table(args.out / f"{args.uid}_rf.csv", panels)
        path = args.out / f"{args.uid}_rf{suffix}"
        return [animate_grid(path, panels, shape=shape, step=args.step)]
    kinds = [args.cell_type] if args.cell_type else dataset.cell_types
    if args.cell_type and args.cell_type not in dataset.cell_types:
        raise InputError(
            f"--cell-type {args.cell_type}: not recorded; known are {', '.join(dataset.cell_types)}"
        )
    paths = []
    for kind in kinds:
        panels = panels_of(dataset, shown, kind, rate)
        write_panel_table(args.out / f"{kind}_looming.csv", panels)
        path = args.out / f"{kind}_looming{suffix}"
        paths.append(animate_row(path, panels, step=args.step))
    return paths


@one_line_faults
def main(argv=None):
    """Draw the data set and say where the animations are."""
    args = parse(sys.argv[1:] if argv is None else argv)
    paths = draw(*load(args), args)
    print(f"{len(paths)} animations: {args.out}")


if __name__ == "__main__":
    main()
