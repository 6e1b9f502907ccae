"""Find the movie that excites a cell type most, by gradient ascent through the model.

    python excite_stimulus.py --checkpoint RUN --cell-type lc11 --seconds 1 --steps 60

Reads a checkpoint; writes <type>_excite.npz (movie (T, rows, columns) 0..1, rate_hz, deg_per_px,
rms_contrast), which generate_ca_predictions.py reads again, <type>_excite.csv (peak and contrast
per step) and a figure.
The movie starts from grey with faint noise, stays between black and white, and is judged by the
largest calcium after its onset; a penalty keeps neighbouring pixels and frames alike. --norm holds
the RMS of (pixel - background) / background over field and frames at one value, as the contrast of
most exciting inputs is held in Walker et al. 2019.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, InputError, Parser, one_line_faults, seed_number
from common.locks import writing

DEFAULT_OUT = RESULTS_DIR / "excite"


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder or checkpoint file")
    add("--config", type=Path, default=None, help="config.json, default beside the checkpoint")
    add("--cell-type", required=True, help="which read-out")
    add("--seconds", type=float, default=1.0, help="length of the movie")
    add("--steps", type=int, default=60, help="of gradient ascent")
    add("--norm", type=float, default=None,
        help="RMS of (pixel - background) / background, held fixed; default: free")  # fmt: skip
    add("--seed", type=seed_number, default=0, help="seed of the faint starting noise")
    add("--out", type=Path, default=None, help="folder; default: one per checkpoint")
    add(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.seconds <= 0 or args.steps < 1:
        parser.error("--seconds must be above 0 and --steps at least 1")
    return args


@one_line_faults
def main(argv=None):
    """Find the movie, write it and say how strong the response is."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from network.checkpoints import load_model
    from runs.excite import Ascent, check_norm, excite, write_excitation
    from runs.showing import run_name
    from runs.training import pick_device

    out = args.out or DEFAULT_OUT / run_name(args.checkpoint)
    model = load_model(args.checkpoint, config=args.config, device=pick_device(args.device))
    if args.cell_type not in model.cell_types:
        raise InputError(
            f"--cell-type {args.cell_type}: the model has {', '.join(model.cell_types)}"
        )
    if args.norm is not None:
        check_norm(args.norm, model.display)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    ascent = Ascent(args.seconds, args.steps, args.seed, norm=args.norm)
    movie, table = excite(model, args.cell_type, ascent)
    with writing(out):
        path = write_excitation(model, args.cell_type, movie, table, out)
    first, last = (row["peak_above_grey"] for row in (table[0], table[-1]))
    contrast = f"RMS contrast {table[-1]['rms_contrast']:.4g}"
    print(f"{args.cell_type}: {first:.3f} -> {last:.3f} dF/F, {contrast}: {path}")


if __name__ == "__main__":
    main()
