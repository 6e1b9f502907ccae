"""Predict RV failure for every movie of a split, or for one DICOM file (specification 8.1, 8.2).

    python predict.py --root R --weights P.weights.h5 --splitnum 0
    python predict.py --weights P.weights.h5 --dicom FILE [--json]

Reads split folders as train_twostream.py does; P.json holds size, classes and normalisation.
Writes into <out>/predictions/output_split<N>/, by default <out> = results/rvf_twostream/P:
X_<set>.csv, y_<set>.csv, <set>_filenames.csv, <set>_redcaps.csv (published format, one value a
line), predictions.csv, patients.csv, skipped.csv, calibration.csv, metrics.json, roc.png,
calibration.png, report.html; baselines.csv and .json with --baseline. A second run replaces them.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, InputError, Parser, one_line_faults
from settings import (
    DEID,
    PREDICTION,
    PREPROCESS,
    Settings,
    add_device_flags,
    add_globals,
    chosen_sets,
    integer,
)

# inference
THRESHOLD = PREDICTION.THRESHOLD  # failure when the class index is larger
N_SAMPLE = PREDICTION.N_SAMPLE  # clips per movie
SAMPLING = PREDICTION.SAMPLING  # random starts, or even: evenly spaced

# published functions, found where they stand now
PUBLISHED = {
    "predict_RVF": "runs.prediction",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser; the published short flags stay."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--root", type=Path, help="folder of the data set")
    parser.add_argument("-w", "--weights", type=Path, required=True, help="P.weights.h5")
    parser.add_argument("-s", "--splitnum", type=integer(0), help="number of the split")
    parser.add_argument("--sets", default="val,test", help="comma-separated: train, val, test")
    parser.add_argument("--out", type=Path, help=f"folder to write to (default {RESULTS_DIR}/P)")
    parser.add_argument(
        "--baseline", action="store_true", help="logistic regression on motion numbers beside it"
    )
    parser.add_argument(
        "--baseline_weights",
        type=Path,
        help="with --baseline: on features of these too",
    )
    parser.add_argument(
        "--fan_only",
        action="store_true",
        help="predict again with everything outside the moving fan blanked, for comparison",
    )
    parser.add_argument("--dicom", type=Path, help="one DICOM file instead of a split")
    parser.add_argument("--json", action="store_true", help="with --dicom: print JSON")
    parser.add_argument(
        "--deid",
        type=DEID.kind,
        default=DEID.default,
        help="with --dicom: what to do with a file that names a person",
    )
    parser.add_argument(
        "--frame_rate",
        type=PREPROCESS["FRAME_RATE"].kind,
        default=0.0,
        help="with --dicom: frames/s of a file that holds none",
    )
    add_globals(parser, globals(), PREDICTION)
    add_device_flags(parser)
    return parser


def check_settings(args):
    """Raise an InputError unless the flags name a split or a file."""
    if args.dicom is None and (args.root is None or args.splitnum is None):
        raise InputError("give --root and --splitnum, or --dicom FILE")
    if args.dicom is not None and not args.dicom.is_file():
        raise InputError(f"{args.dicom}: no such file")
    if args.dicom is not None and (args.fan_only or args.baseline):
        raise InputError("--fan_only and --baseline compare the movies of a split, not of --dicom")
    if args.dicom is None and not args.root.is_dir():
        raise InputError(f"{args.root}: no such folder; --root names the data set")
    if args.dicom is not None and (args.root is not None or args.splitnum is not None):
        raise InputError("--dicom FILE stands alone: leave out --root and --splitnum")
    if args.dicom is None and (args.json or args.frame_rate):
        name = "json" if args.json else "frame_rate"
        raise InputError(f"--{name} is of --dicom FILE only; leave it out")
    if args.baseline_weights is not None and not args.baseline:
        raise InputError("--baseline_weights W is of --baseline only; give both")
    chosen_sets(args.sets)


@one_line_faults
def main(argv=None):
    """Predict a split or one DICOM file; return the exit code."""
    args = build_parser().parse_args(argv)
    check_settings(args)
    from network.checkpoints import SUFFIX, read_info

    info = read_info(args.weights, kind="two_stream")
    if args.out is None:
        args.out = RESULTS_DIR / args.weights.name.removesuffix(SUFFIX)
    # A file that is refused is refused at once, before TensorFlow starts.
    clips = None
    if args.dicom is not None:
        from inputs.one_dicom import dicom_clips

        clips = dicom_clips(args, info)
    from network.start import start_tensorflow

    start_tensorflow(seed=args.seed, device=args.device)
    from runs.prediction import predict_dicom, predict_weights

    if clips is None:
        predict_weights(Settings(**vars(args)))
    else:
        predict_dicom(Settings(**vars(args)), info, clips)
    return 0


if __name__ == "__main__":
    sys.exit(main())
