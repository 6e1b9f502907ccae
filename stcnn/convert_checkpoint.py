"""Turn published torch files into data-only twins: checkpoints, histories, recordings, movies.

    python convert_checkpoint.py path/to/stcnn/experiments/lc_small_3 --out ../data/stcnn/lc_small_3
    python convert_checkpoint.py traces.pt movies/ --out DIR --npz
    python convert_checkpoint.py ca_traces --out DIR --csv     # traces in long form
    python convert_checkpoint.py ca_traces movies --out DIR --nwb    # needs requirements-nwb.txt

Reads .pt files with the safe loader (no code is ever run) and avg_loss_hist.pkl with a reader that
admits dict, list, str and float only. Writes .safetensors (or .npz with --npz) of the same names,
optimiser states as <name>_optim, loss_hist.npz and .csv, and copies config.json. The published
repository (https://github.com/TuragaLab/stcnn) has no licence: its weights are not shipped here;
clone it and name your clone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults, raise_faults


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+", help="files, or folders (searched whole)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the twins")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--npz", action="store_true", help="write .npz instead of .safetensors")
    form.add_argument(
        "--csv", action="store_true", help="write the traces of sessions as .csv in long form"
    )
    form.add_argument(
        "--nwb", action="store_true", help="write sessions, with the movies named, as .nwb (pynwb)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser.parse_args(argv)


@one_line_faults
def main(argv=None):
    """Convert everything that is named; all faults are reported, the good files are written."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from runs.convert import convert_all

    form = next((name for name in ("csv", "nwb", "npz") if getattr(args, name)), "safetensors")
    written, faults = convert_all(args.paths, args.out, form=form)
    raise_faults(faults)
    print(f"{written} files: {args.out}")


if __name__ == "__main__":
    main()
