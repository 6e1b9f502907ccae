"""Show what drives the trained network: guided back-propagation of its logit (specification 8.3).

    python visualize_GBP.py --root R --weights P.weights.h5 --splitnum 0 --nsamples 4
    python visualize_GBP.py ... --engine innvestigate      (in the environment rvf_innvestigate)

Reads one random clip of each of the first NSAMPLES movies (in an order drawn from the seed) of a
split; with --predictions the middle clip of a typical movie of each kind, called right and wrong,
in turn. Writes into <out>/guidedbackprop_visualization/, by default <out> =
results/rvf_twostream/P: proj/<label>_<k>.png, movies/<label>_<k>/GBP_frame<i>.png, <label>_<k>.gif
(input above gradient), <label>_<k>_gradcam.png, index.csv (with the part of the gradient outside
the fan), settings.json and <label>_<k>.npz: gradients grey (t,r,c,1) and of (t,r,c,2), the clip
clip_grey and clip_of, Grad-CAM cam_grey and cam_of (r,c). An existing folder is kept unless -r.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, InputError, Parser, one_line_faults
from settings import (
    ENGINE_PYTHON,
    PICTURES,
    Settings,
    add_device_flags,
    add_globals,
    integer,
    one_of,
)

# data
THRESHOLD = PICTURES.THRESHOLD  # failure when the class index is larger

# figures
TARGET = PICTURES.TARGET  # rvf: the logit; normal: minus the logit
ENGINE = PICTURES.ENGINE  # tensorflow, or innvestigate in an environment of its own


def build_parser():
    """Return the parser; the published short flags stay."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("-w", "--weights", type=Path, required=True, help="P.weights.h5")
    parser.add_argument(
        "-s", "--splitnum", type=integer(0), required=True, help="number of the split"
    )
    parser.add_argument("-n", "--nsamples", type=integer(1), required=True, help="movies to show")
    parser.add_argument(
        "--set", type=one_of("train", "val", "test"), default="test", help="of the split"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        help="predictions.csv of predict.py: show movies of each kind, called right and wrong",
    )
    parser.add_argument("--out", type=Path, help=f"folder to write to (default {RESULTS_DIR}/P)")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="replace an existing folder"
    )
    parser.add_argument("--no_center", action="store_true", help="do not subtract the mean")
    parser.add_argument(
        "--engine_python",
        type=Path,
        default=ENGINE_PYTHON,
        help="interpreter of --engine innvestigate",
    )
    add_globals(parser, globals(), PICTURES)
    add_device_flags(parser)
    return parser


@one_line_faults
def main(argv=None):
    """Draw the pictures of some movies; return the exit code."""
    args = build_parser().parse_args(argv)
    if not args.root.is_dir():
        raise InputError(f"{args.root}: no such folder; --root names the data set")
    from network.checkpoints import SUFFIX, read_info
    from runs.picture_folder import FOLDER_NAME, is_done

    read_info(args.weights, kind="two_stream")
    # The folder is no setting of the pictures: a given --out is stored, a default one is not.
    out = args.out or RESULTS_DIR / args.weights.name.removesuffix(SUFFIX)
    if is_done(out / FOLDER_NAME, args):
        print(f"already drawn: {out / FOLDER_NAME} (replace it with -r)")
        return 0
    from network.start import start_tensorflow

    start_tensorflow(seed=args.seed, device=args.device)
    from runs.pictures import draw_set

    draw_set(Settings(**{**vars(args), "out": out}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
