"""Train the two-stream network on one split (specification 7.2 to 7.7).

    python train_twostream.py --root R --grey_weights G --OF_weights O --ckptdir C --splitnum 0 \
        --model_prefix rvf_
    python train_twostream.py --root ../data/rvf_twostream/demo/cohort --grey_weights none \
        --OF_weights none --splitnum 0 --model_prefix demo_ --depth 18 --width 8 --epoch 2

Reads <root>/greyscale/split<N>_* (n, rows, columns, 1), <root>/OF/split<N>_* (n, rows, columns, 2),
classmap.json, data_mean_std*.json. Writes into --ckptdir, with P = <model_prefix><N>:
P.weights.h5 and P.json (best epoch), two_stream_csv/P.csv (a row per epoch), P_curves.png,
P_state/ (resume). An interrupted run goes on when the same command is given again.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, InputError, Parser, one_line_faults
from settings import (
    TRAINING,
    Settings,
    add_device_flags,
    add_globals,
    add_model_flags,
    check_prefix,
    integer,
)

# data
NFRAMES = TRAINING.NFRAMES  # frames of a clip
NROWS = TRAINING.NROWS  # rows of a movie, pixels
NCOLS = TRAINING.NCOLS  # columns of a movie, pixels
THRESHOLD = TRAINING.THRESHOLD  # failure when the class index is larger: 2 severe, 1 moderate too
USE_AUG = TRAINING.USE_AUG  # rotate, translate and zoom training clips

# training
BATCH_SIZE = TRAINING.BATCH_SIZE  # clips per update
EPOCH = TRAINING.EPOCH  # passes over the training set
LR = TRAINING.LR  # learning rate of the first update
COSINE_ANNEAL = TRAINING.COSINE_ANNEAL  # cosine from LR to 0 over all updates
LR_WEIGHT = TRAINING.LR_WEIGHT  # factors of LR by part of a name; conv3d: all convolutions
CLASS_WEIGHT = TRAINING.CLASS_WEIGHT  # weight of a sample by label, or "balanced"
USE_CLR = TRAINING.USE_CLR  # cyclic rate between MIN_LR and MAX_LR instead of cosine
MIN_LR = TRAINING.MIN_LR  # lowest cyclic rate
MAX_LR = TRAINING.MAX_LR  # highest cyclic rate
CLR_MODE = TRAINING.CLR_MODE  # triangular, triangular2 or exp_range
REDUCE_LR = TRAINING.REDUCE_LR  # LR times 0.1 after PATIENCE epochs without a better value
MONITOR_PARAM = TRAINING.MONITOR_PARAM  # column watched by REDUCE_LR
PATIENCE = TRAINING.PATIENCE  # epochs
EARLY_STOP = TRAINING.EARLY_STOP  # stop after so many epochs without a better one; 0: never

# selection
CKPT_MONITOR = TRAINING.CKPT_MONITOR  # column that chooses the best epoch
CKPT_MODE = TRAINING.CKPT_MODE  # max or min
VAL_CLIPS = TRAINING.VAL_CLIPS  # evenly spaced clips of a validation movie

# published functions, found where they stand now
PUBLISHED = {
    "balanced_weights": "runs.twostream",
    "learning_rate": "runs.twostream",
    "train": "runs.twostream",
}


def __getattr__(name):
    if name in PUBLISHED:
        return getattr(importlib.import_module(PUBLISHED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_parser():
    """Return the parser; the published short flags stay."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "-g", "--grey_weights", required=True, help="pre-trained grey stream, or none"
    )
    parser.add_argument(
        "-o", "--OF_weights", required=True, help="pre-trained flow stream, or none"
    )
    parser.add_argument(
        "-c", "--ckptdir", type=Path, help=f"folder to write to (default {RESULTS_DIR}/P)"
    )
    parser.add_argument(
        "-s", "--splitnum", type=integer(0), required=True, help="number of the split"
    )
    parser.add_argument("-n", "--model_prefix", required=True, help="name of the model, before N")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="start afresh, keeping the old run"
    )
    parser.add_argument("--no_aug", action="store_true", help="the same as --use_aug false")
    parser.add_argument(
        "--rotate_flow", action="store_true", help="rotate flow vectors with the picture"
    )
    parser.add_argument(
        "--eval_test_each_epoch",
        action="store_true",
        help="evaluate the test set each epoch, as published, instead of once at the end",
    )
    add_globals(parser, globals(), TRAINING)
    add_model_flags(parser)
    add_device_flags(parser)
    return parser


def check_settings(args):
    """Raise an InputError for settings that exclude each other."""
    schedules = {
        "--cosine_anneal": args.cosine_anneal,
        "--use_clr": args.use_clr,
        "--reduce_lr": args.reduce_lr,
    }
    chosen = [flag for flag, on in schedules.items() if on]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} exclude each other; set all but one to false")
    if args.use_clr and args.min_lr >= args.max_lr:
        raise InputError(f"--min_lr {args.min_lr} must be below --max_lr {args.max_lr}")
    check_prefix(args.model_prefix)


@one_line_faults
def main(argv=None):
    """Train or resume the network of one split; return the exit code."""
    args = build_parser().parse_args(argv)
    check_settings(args)
    if args.no_aug:
        args.use_aug = False
    if args.ckptdir is None:
        args.ckptdir = RESULTS_DIR / f"{args.model_prefix}{args.splitnum}"
    from network.start import device_note, start_tensorflow

    strategy = start_tensorflow(
        seed=args.seed,
        device=args.device,
        gpus=args.gpus,
        precision=args.precision,
        cluster=True,
    )
    print(device_note(strategy, args.device))
    from runs.twostream import train

    train(Settings(**vars(args)), strategy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
