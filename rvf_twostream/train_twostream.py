"""Train the two-stream network on one split (specification 7.2 to 7.7).

    python train_twostream.py --root R --grey_weights G --OF_weights O --ckptdir C --splitnum 0 \\
        --model_prefix rvf_
    python train_twostream.py --root ../data/rvf_twostream/demo/cohort --grey_weights none \\
        --OF_weights none --splitnum 0 --model_prefix demo_ --depth 18 --width 8 --epoch 2

Reads <root>/greyscale/split<N>_* (n, rows, columns, 1), <root>/OF/split<N>_* (n, rows, columns, 2),
classmap.json, data_mean_std*.json. Writes into --ckptdir, with P = <model_prefix><N>:
P.weights.h5 and P.json (best epoch), two_stream_csv/P.csv (a row per epoch), P_curves.png,
P_state/ (resume). An interrupted run goes on when the same command is given again.
"""

import argparse
import functools
import json
import sys
import time
from pathlib import Path

import numpy as np

from common.files import RESULTS_DIR as RESULTS
from common.files import InputError, Parser, one_line_faults, write_settings
from options import (
    add_device_flags,
    add_globals,
    add_model_flags,
    integer,
    json_factors,
    number,
    one_of,
    switch,
)

# data
NFRAMES = 32  # frames of a clip
NROWS = 112  # rows of a movie, pixels
NCOLS = 112  # columns of a movie, pixels
THRESHOLD = 2  # failure when the class index is larger: 2 severe only, 1 moderate too
USE_AUG = True  # rotate, translate and zoom training clips

# training
BATCH_SIZE = 4  # clips per update
EPOCH = 75  # passes over the training set
LR = 1e-4  # learning rate of the first update
COSINE_ANNEAL = True  # cosine from LR to 0 over all updates
LR_WEIGHT = {"conv3d": 1}  # factors of LR by part of a variable's name; conv3d: all convolutions
CLASS_WEIGHT = {"0": 0.2, "1": 1.8}  # weight of a sample by label, or "balanced"
USE_CLR = False  # cyclic rate between MIN_LR and MAX_LR instead of cosine
MIN_LR = 1e-5  # lowest cyclic rate
MAX_LR = 1e-3  # highest cyclic rate
CLR_MODE = "triangular"  # triangular, triangular2 or exp_range
REDUCE_LR = False  # LR times 0.1 after PATIENCE epochs without a better MONITOR_PARAM
MONITOR_PARAM = (
    "val_auc"  # column watched by REDUCE_LR; Differs: the published val_auc_1 never exists
)
PATIENCE = 2  # epochs
EARLY_STOP = 0  # stop after so many epochs without a better CKPT_MONITOR; 0: never

# selection
CKPT_MONITOR = "val_auc"  # column that chooses the best epoch
CKPT_MODE = "max"  # max or min
VAL_CLIPS = 5  # evenly spaced clips of a validation or test movie

COLUMNS = ("loss", "accuracy", "auc", "average_precision")
MONITORS = tuple(f"val_{name}" for name in COLUMNS)


def class_weight(text):
    """Parse --class_weight: ``balanced`` or a JSON object with keys 0 and 1."""
    if text == "balanced":
        return text
    value = json_factors(text)
    if set(value) != {"0", "1"}:
        raise argparse.ArgumentTypeError(f'{text!r} needs the keys "0" and "1"')
    return value


TABLE = {
    "NFRAMES": (integer(8), "frames of a clip"),
    "NROWS": (integer(32), "rows of a movie, pixels"),
    "NCOLS": (integer(32), "columns of a movie, pixels"),
    "THRESHOLD": (integer(0, 2), "failure when the class index is larger"),
    "USE_AUG": (switch, "augment training clips"),
    "BATCH_SIZE": (integer(1), "clips per update"),
    "EPOCH": (integer(1), "passes over the training set"),
    "LR": (number(0), "learning rate of the first update"),
    "COSINE_ANNEAL": (switch, "cosine from LR to 0 over all updates"),
    "LR_WEIGHT": (json_factors, "factors of LR by part of a variable's name, JSON"),
    "CLASS_WEIGHT": (class_weight, "weights of the two labels, JSON, or balanced"),
    "USE_CLR": (switch, "cyclic rate; excludes COSINE_ANNEAL and REDUCE_LR"),
    "MIN_LR": (number(0), "lowest cyclic rate"),
    "MAX_LR": (number(0), "highest cyclic rate"),
    "CLR_MODE": (one_of("triangular", "triangular2", "exp_range"), "shape of the cycles"),
    "REDUCE_LR": (switch, "LR times 0.1 on a plateau; excludes COSINE_ANNEAL and USE_CLR"),
    "MONITOR_PARAM": (one_of(*MONITORS), f"watched by REDUCE_LR: {', '.join(MONITORS)}"),
    "PATIENCE": (integer(0), "epochs without improvement before REDUCE_LR acts"),
    "EARLY_STOP": (integer(0), "epochs without a better CKPT_MONITOR before stopping; 0 never"),
    "CKPT_MONITOR": (one_of(*MONITORS), f"chooses the best epoch: {', '.join(MONITORS)}"),
    "CKPT_MODE": (one_of("max", "min"), "max or min"),
    "VAL_CLIPS": (integer(1), "evenly spaced clips of a validation or test movie"),
}


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
        "-c", "--ckptdir", type=Path, help=f"folder to write to (default {RESULTS}/P)"
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
    add_globals(parser, globals(), TABLE)
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
    if Path(args.model_prefix).name != args.model_prefix:
        raise InputError(f"--model_prefix {args.model_prefix!r} is part of a file name: no slashes")


def balanced_weights(labels):
    """Return {0: w0, 1: w1} with both labels of equal total weight and mean weight 1."""
    labels = np.asarray(labels, bool)
    share = labels.mean()
    if share in (0, 1):
        raise InputError("--class_weight balanced: the training set has one class only")
    return {0: float(0.5 / (1 - share)), 1: float(0.5 / share)}


def movie_scores(forward, movies, *, nframes, n_clips):
    """Return the mean probability of ``n_clips`` evenly spaced clips of each movie, (n,)."""
    from movies import fixed_starts, movie_clips

    scores = []
    for movie in movies:
        starts = fixed_starts(movie.n_frames, nframes, n_clips)
        scores.append(float(forward(movie_clips(movie, starts, nframes)).mean()))
    return np.array(scores)


def evaluate(forward, model, movies, args, prefix):
    """Return the columns ``<prefix>_loss`` etc. of a set; the loss is unweighted, with penalty."""
    from metrics import cross_entropy, epoch_metrics
    from training import l2_penalty

    y = np.array([movie.label_class > args.threshold for movie in movies])
    scores = movie_scores(forward, movies, nframes=args.nframes, n_clips=args.val_clips)
    columns = {"loss": cross_entropy(y, scores) + l2_penalty(model), **epoch_metrics(y, scores)}
    return {f"{prefix}_{name}": value for name, value in columns.items()}


def learning_rate(args, n_steps):
    """Return the rate of this run: a number or a schedule over all ``n_steps * EPOCH`` updates."""
    from CLR_callback import CosineAnnealing, CyclicLR

    if args.use_clr:
        return CyclicLR(args.min_lr, args.max_lr, 4 * n_steps, args.clr_mode, gamma=0.99994)
    return CosineAnnealing(args.lr, n_steps * args.epoch) if args.cosine_anneal else args.lr


def plateau_callback(args, trained, extra):
    """Return Keras' ReduceLROnPlateau at the point where the last epoch left it."""
    import keras

    mode = "min" if args.monitor_param == "val_loss" else "max"
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor=args.monitor_param, factor=0.1, patience=args.patience, mode=mode
    )
    callback.set_model(trained)
    callback.on_train_begin()
    if extra:
        callback.best, callback.wait = extra["best"], extra["wait"]
    return callback


def is_better(row, best, args):
    """Say whether the epoch ``row`` beats ``best``; ties go to the lower validation loss."""
    if best is None:
        return True
    sign = 1 if args.ckpt_mode == "max" else -1
    new, old = row[args.ckpt_monitor], best[args.ckpt_monitor]
    if new == old:
        return row["val_loss"] < best["val_loss"]
    return sign * new > sign * old


def describe(args, weights):
    """Return what ``P.json`` says about the model besides its metrics."""
    import keras
    import tensorflow as tf

    from utils import read_stats

    return {
        "kind": "two_stream",
        "depth": args.depth,
        "width": args.width,
        "input_size": [args.nframes, args.nrows, args.ncols],
        "channels": {"grey": 1, "of": 2},
        "threshold": args.threshold,
        "class_rule": f"failure when the class index is above {args.threshold}",
        "class_weight": {str(label): weight for label, weight in weights.items()},
        "grey_stats": read_stats(args.root / "data_mean_std.json", remedy="run preprocess.py"),
        "of_stats": read_stats(
            args.root / "data_mean_std_OF.json", remedy="run optical_flow_calculator.py"
        ),
        "settings": json.loads(json.dumps(vars(args), default=str)),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def movie_sets(args):
    """Return ``movies(set name) -> list of Movie``; train and val are checked here, test is not.

    The test set stays closed until somebody asks for it.
    """
    from movies import list_pairs
    from utils import read_classmap

    classmap = read_classmap(args.root)
    size = {"nframes": args.nframes, "nrows": args.nrows, "ncols": args.ncols}

    @functools.cache
    def movies(name):
        return list_pairs(args.root, args.splitnum, name, classmap, **size)

    labels = {
        name: {movie.label_class > args.threshold for movie in movies(name)}
        for name in ("train", "val")
    }
    if args.ckpt_monitor in ("val_auc", "val_average_precision") and len(labels["val"]) < 2:
        raise InputError(
            f"{args.root}: validation set of split {args.splitnum} has one class only, so "
            f"{args.ckpt_monitor} is undefined; use --ckpt_monitor val_loss --ckpt_mode min"
        )
    if len(labels["train"]) < 2:
        print("warning: the training set has one class only", file=sys.stderr)
    return movies


def label_weights(args, movies):
    """Return {0: w0, 1: w1} of --class_weight."""
    if args.class_weight == "balanced":
        return balanced_weights([movie.label_class > args.threshold for movie in movies])
    return {int(label): weight for label, weight in args.class_weight.items()}


def training_data(args, movies, weights, n_replicas):
    """Return the data set of training clips, augmented unless USE_AUG is off."""
    from clips import DataGeneratorMerged, DataGeneratorMerged_aug

    settings = {
        "batch_size": args.batch_size,
        "nframes": args.nframes,
        "threshold": args.threshold,
        "seed": args.seed,
        "class_weight": weights,
        "replicas": n_replicas,
        "workers": args.workers,
    }
    if args.use_aug:
        return DataGeneratorMerged_aug(movies, rotate_flow=args.rotate_flow, **settings)
    return DataGeneratorMerged(movies, **settings)


def build(args, run, strategy, n_steps):
    """Return (model, optimizer, compiled twin saved with its optimiser), as ``run`` left them.

    Args:
        run: ``runs.Run``.
        n_steps: updates per epoch.
    """
    import keras

    from checkpoints import load_trunk
    from model_zoo import make_optimizer, two_stream

    size = (args.nframes, args.nrows, args.ncols)
    with strategy.scope():
        model = two_stream(input_size=size, depth=args.depth, width=args.width)
        for stream, path in (("grey", args.grey_weights), ("of", args.OF_weights)):
            if path == "none":
                print(f"warning: {stream} stream starts from random weights", file=sys.stderr)
            elif run.state["epoch"] == 0:
                note = load_trunk(model, stream, path, depth=args.depth, width=args.width)
                print(note or f"{stream} stream starts from {path}")
        optimizer = make_optimizer(
            model,
            learning_rate(args, n_steps),
            lr_weight=args.lr_weight,
            weight_decay=args.weight_decay,
        )
        trained = keras.Model(model.inputs, model.outputs)
        trained.compile(optimizer=optimizer)
    if run.state["epoch"]:
        run.load_last(trained)
        print(f"resuming after epoch {run.state['epoch']} of {args.epoch}")
    return model, optimizer, trained


def run_epochs(args, run, parts, data, movies, info, strategy):
    """Train the epochs that are left, saving each; ``parts`` come from ``build``."""
    import keras
    from tqdm import tqdm

    from metrics import epoch_metrics
    from training import make_forward, make_train_step, train_epoch

    def sample_loss(y, outputs):
        return keras.losses.binary_crossentropy(y[:, None], outputs)

    model, optimizer, trained = parts
    plateau = plateau_callback(args, trained, run.state["extra"]) if args.reduce_lr else None
    n_steps = len(data) * args.epoch
    step = make_train_step(model, optimizer, sample_loss, strategy, n_steps=n_steps)
    forward = make_forward(model)
    val_movies = movies("val")
    n_batches = len(data)
    bar = tqdm(total=args.epoch * n_batches, initial=run.state["epoch"] * n_batches, disable=None)
    while run.state["epoch"] < args.epoch and not stale(run.state, args):
        start = time.perf_counter()
        data.epoch = run.state["epoch"]
        rate = float(optimizer.learning_rate)
        loss, y, outputs = train_epoch(step, data, workers=args.workers, progress=bar)
        row = {"epoch": data.epoch + 1, "loss": loss, **epoch_metrics(y > 0.5, outputs[:, 0])}
        row |= evaluate(forward, model, val_movies, args, "val")
        if args.eval_test_each_epoch:
            row |= evaluate(forward, model, movies("test"), args, "test")
        row |= {"lr": rate, "seconds": round(time.perf_counter() - start, 3)}
        best = None
        if is_better(row, run.state["best"], args):
            best = {"best_epoch": row["epoch"]} | {name: row[name] for name in MONITORS}
        extra = {}
        if plateau is not None:
            plateau.on_epoch_end(data.epoch, row)
            extra = {"best": float(plateau.best), "wait": int(plateau.wait)}
        run.save_epoch(trained, row, best=best, bare=model, info=info, extra=extra)
    bar.close()
    return forward


def train(args, strategy):
    """Train, select the best epoch on validation, evaluate the test set once at the end."""
    from checkpoints import load_weights
    from runs import Run

    begun = time.perf_counter()
    movies = movie_sets(args)
    name = f"{args.model_prefix}{args.splitnum}"
    run = Run(
        args.ckptdir,
        name,
        vars(args),
        csv_folder="two_stream_csv",
        recalculate=args.recalculate,
    )
    if run.state["complete"]:
        print(f"already trained: {run.weights} (start afresh with -r)")
        return
    train_movies = movies("train")
    weights = label_weights(args, train_movies)
    info = describe(args, weights)
    data = training_data(args, train_movies, weights, strategy.num_replicas_in_sync)
    parts = build(args, run, strategy, len(data))
    if run.state["epoch"] == 0:
        inputs = (
            args.root / "classmap.json",
            args.root / f"split_allocation_{args.splitnum}.csv",
        )
        write_settings(
            run.folder,
            vars(args),
            inputs=[path for path in inputs if path.exists()],
            libraries=("tensorflow", "keras", "numpy"),
        )
    forward = run_epochs(args, run, parts, data, movies, info, strategy)
    model = parts[0]
    best = run.state["best"]
    load_weights(model, run.weights)
    test = evaluate(forward, model, movies("test"), args, "test")
    run.finish({"test": test})
    figure = draw_curves(run, args)
    print(
        f"best epoch {best['best_epoch']}: val_auc {show(best['val_auc'])}, test_auc "
        f"{show(test['test_auc'])}, {time.perf_counter() - begun:.0f} s, {run.weights}, {figure}"
    )


def stale(state, args):
    """Say whether EARLY_STOP epochs have passed since the best one."""
    return bool(args.early_stop and state["best"]) and (
        state["epoch"] - state["best"]["best_epoch"] >= args.early_stop
    )


def draw_curves(run, args):
    """Draw loss and AUC over the epochs beside the weights; return the path."""
    from figures import training_curves

    path = run.weights.with_name(f"{args.model_prefix}{args.splitnum}_curves.png")
    return training_curves(
        run.state["history"],
        path,
        best_epoch=run.state["best"]["best_epoch"],
        panels=(("loss", "cross-entropy + penalty"), ("auc", "AUC")),
    )


def show(value):
    """Return a number with three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


@one_line_faults
def main(argv=None):
    """Train or resume the network of one split; return the exit code."""
    args = build_parser().parse_args(argv)
    check_settings(args)
    if args.no_aug:
        args.use_aug = False
    if args.ckptdir is None:
        args.ckptdir = RESULTS / f"{args.model_prefix}{args.splitnum}"
    from training import device_note, start_tensorflow

    strategy = start_tensorflow(
        seed=args.seed, device=args.device, gpus=args.gpus, precision=args.precision
    )
    print(device_note(strategy, args.device))
    train(args, strategy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
