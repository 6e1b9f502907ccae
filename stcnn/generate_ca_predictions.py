"""Show any movie to a trained model and write the calcium it predicts, without any data set.

    python generate_ca_predictions.py --checkpoint RUN --stimulus size_tuning,looming
    python generate_ca_predictions.py --checkpoint RUN1 RUN2 RUN3 --stimulus movie.mp4 --out DIR

RUN is a run folder of train.py, or a model_chkpnt_<e>.pt or .safetensors with its config.json.
Several checkpoints give mean and spread. Stimuli: size_tuning, looming, grating, flicker, speed,
direction, loom_rv, rf_map, a .npy, .npz or video file, a folder of images (resampled to the model's
rate and pixels), or "data" with --ca-path and --mov-path. Before every movie the model sees grey.
Writes, per family, <chk>_<type>_<family>.png, <family>_traces.npz (series x stimuli x frames),
<family>_traces.csv, <family>_peaks.csv, <family>_indices.csv. Source: specification 8.3, 8.4.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults, raise_faults, write_settings

DEFAULT_OUT = RESULTS_DIR / "predictions"


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", nargs="+", required=True, help="run folders or checkpoint files")
    add("--config", nargs="+", default=None, help="config.json of each checkpoint (one for all)")
    add("--stimulus", default="size_tuning,looming", help="families, movie files, comma-separated")
    add("--out", type=Path, default=DEFAULT_OUT, help="folder of figures and tables")
    add(
        "--tau", choices=("auto", "legacy"), default="auto", help="indicator: trained, or published"
    )
    add("--who", default="mean_param", help="mean_param, mean_response, all, or a neuron's number")
    add("--readout", choices=("legacy", "center"), default=None, help="default: as in config.json")
    add("--temporal-impl", choices=("recursive", "chunk", "fft", "conv"), default="recursive")
    add(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    add("--movie-rate", type=float, default=None, help="Hz of a user's movie")
    add("--deg-per-px", type=float, default=None, help="degrees per pixel of a user's movie")
    add("--ca-path", type=Path, default=None, help="recordings drawn behind the predictions")
    add(
        "--mov-path",
        type=Path,
        default=None,
        help="their movies, used instead of reconstructed ones",
    )
    add(
        "--shift",
        choices=("none", "first", "each"),
        default="none",
        help="show the movies of --mov-path as shifted for no, the first or each neuron",
    )
    add(
        "--feature-maps",
        default=None,
        help="animate these layers, such as norm_layer_3, for a movie",
    )
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.who not in ("mean_param", "mean_response", "all"):
        if not args.who.isdigit():
            parser.error(f"--who {args.who}: expected mean_param, mean_response, all or a number")
        args.who = int(args.who)
    for name in ("movie_rate", "deg_per_px"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if (args.ca_path is None) != (args.mov_path is None):
        parser.error("--ca-path and --mov-path belong together")
    return args


@one_line_faults
def main(argv=None):
    """Predict every stimulus asked for and say where the results are."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from inputs.stimuli import FAMILIES
    from runs.predictions import How, check_neuron, load_models
    from runs.showing import show
    from runs.training import pick_device

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wishes = args.stimulus.split(",")
    faults = [
        f"--stimulus {wish}: no family ({', '.join(FAMILIES)}) and no such file"
        for wish in wishes
        if wish not in (*FAMILIES, "data") and not Path(wish).exists()
    ]
    if "data" in wishes and args.ca_path is None:
        faults.append("--stimulus data needs --ca-path and --mov-path")
    raise_faults(faults)
    models, label = load_models(
        args.checkpoint, configs=args.config, readout=args.readout, impl=args.temporal_impl,
        device=pick_device(args.device),
    )  # fmt: skip
    check_neuron(models[0], args.who)
    args.out.mkdir(parents=True, exist_ok=True)
    print(models[0].display.describe())
    record = {k: str(v) for k, v in vars(args).items()} | {"display": models[0].display.record()}
    write_settings(args.out, record, libraries=("torch", "numpy"))
    for wish in wishes:
        show(models, wish, How(args.tau, args.who), args, label)
    print(f"predictions: {args.out}")


if __name__ == "__main__":
    main()
