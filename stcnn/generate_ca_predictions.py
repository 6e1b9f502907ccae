"""Show any movie to a trained model and write the calcium it predicts, without any data set.

    python generate_ca_predictions.py --checkpoint RUN --stimulus size_tuning,looming
    python generate_ca_predictions.py --checkpoint RUN1 RUN2 RUN3 --stimulus movie.mp4 --out DIR

RUN is a run folder of train.py, or a model_chkpnt_<e>.pt or .safetensors with its config.json.
Several checkpoints give mean and spread. Stimuli: size_tuning, looming, grating, flicker, speed,
direction, loom_rv, rf_map, a .npy, .npz, .tif or video file, a folder of images (placed by their
times on the model's rate and pixels), or "data" with --ca-path and --mov-path. Before every movie
the model sees grey. A folder that holds predictions of another checkpoint is refused.
Writes, per family, <chk>_<type>_<family>.png, <family>_traces.npz (series x stimuli x frames),
<family>_traces.csv, <family>_peaks.csv, <family>_indices.csv. Source: specification 8.3, 8.4.
"""

import logging
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults
from settings import TEMPORAL

DEFAULT_OUT = RESULTS_DIR / "predictions"


def add_movie_flags(add):
    """Add the flags that say what a user's movie shows, and where."""
    add("--movie-rate", type=float, default=None, help="Hz of a user's movie")
    add("--deg-per-px", type=float, default=None, help="degrees per pixel of a user's movie")
    add(
        "--levels",
        default="auto",
        help="black and white of a user's movie: 0,1 or 0,255, bits (the whole range of its "
        "integers), 12bits; auto: from the file, asked for when it cannot be known",
    )
    add(
        "--azimuth",
        type=float,
        default=0.0,
        help="degrees from the field's middle to a user's movie, positive nearer the midline "
        "(to the right)",
    )
    add("--elevation", type=float, default=0.0, help="the same, positive nearer the north pole")
    add("--eye", choices=("same", "other"), default="same", help="other: the movie is mirrored")
    add(
        "--polarity",
        choices=("normal", "inverted"),
        default="normal",
        help="inverted: black and white of a user's movie change places",
    )


def add_data_flags(add):
    """Add the flags of recordings that are shown again."""
    add("--ca-path", type=Path, default=None, help="recordings drawn behind the predictions")
    add("--mov-path", type=Path, default=None,
        help="their movies, used instead of reconstructed ones")  # fmt: skip
    add(
        "--nan",
        choices=("reject", "drop_trial"),
        default="reject",
        help="what to do with trials of --ca-path that hold NaN",
    )
    add(
        "--shift",
        choices=("none", "first", "each"),
        default="none",
        help="show the movies of --mov-path as shifted for no, the first or each neuron",
    )


def check_flags(parser, args):
    """Refuse values that the parser's types let pass; turn a neuron's number into an int."""
    if args.who not in ("mean_param", "mean_response", "all"):
        if not args.who.isdigit():
            parser.error(f"--who {args.who}: expected mean_param, mean_response, all or a number")
        args.who = int(args.who)
    for name in ("movie_rate", "deg_per_px"):
        value = getattr(args, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            parser.error(f"--{name.replace('_', '-')} must be a number above 0")
    if not (math.isfinite(args.azimuth) and math.isfinite(args.elevation)):
        parser.error("--azimuth and --elevation must be numbers of degrees")
    if (args.ca_path is None) != (args.mov_path is None):
        parser.error("--ca-path and --mov-path belong together")


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", nargs="+", required=True, help="run folders or checkpoint files")
    add("--config", nargs="+", default=None, help="config.json of each checkpoint (one for all)")
    add("--stimulus", default="size_tuning,looming", help="families, movie files, comma-separated")
    add("--out", type=Path, default=None,
        help="folder of figures and tables; default: one per checkpoint in results")  # fmt: skip
    add(
        "--tau",
        choices=("auto", "legacy"),
        default="auto",
        help="indicator: trained, or as published",
    )
    add("--who", default="mean_param", help="mean_param, mean_response, all, or a neuron's number")
    add("--readout", choices=("legacy", "center"), default=None, help="default: as in config.json")
    add("--temporal-impl", choices=TEMPORAL, default="auto",
        help="route of the temporal filters; auto: by the device")  # fmt: skip
    add("--device", choices=("auto", "cpu", "gpu", "cuda"), default="auto",
        help="where to compute: auto, cpu, gpu or cuda")  # fmt: skip
    add_movie_flags(add)
    add("--placement", default=None, help="ROW,COLUMN of the pixel that stimuli are centred on")
    add_data_flags(add)
    add("--feature-maps", default=None,
        help="animate these layers, such as norm_layer_3, for a movie")  # fmt: skip
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    check_flags(parser, args)
    return args


@one_line_faults
def main(argv=None):
    """Predict every stimulus asked for and say where the results are."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from runs.showing import show_all

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"predictions: {show_all(args, DEFAULT_OUT)}")


if __name__ == "__main__":
    main()
