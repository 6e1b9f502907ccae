"""Train the two-stream network on one split (specification 7.2 to 7.7).

The body of ``train_twostream.py``, whose docstring lists the files.
"""

import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from analysis.figures import training_curves
from analysis.metrics import cross_entropy, epoch_metrics
from common.files import InputError, write_settings
from common.locks import writing
from inputs.clips import DataGeneratorMerged, DataGeneratorMerged_aug
from inputs.movies import Movie, check_heads, fixed_starts, list_pairs, movie_clips
from inputs.recipe import check_training_scale, recipe_of_split
from inputs.storage import Scaling
from inputs.utils import load_movie, read_classmap, read_stats
from network.checkpoints import load_weights
from network.CLR_callback import CosineAnnealing, CyclicLR
from network.model_zoo import make_optimizer, two_stream
from network.published_weights import load_trunk
from network.start import is_chief
from runs.run_folder import Run, clear_left, state_folder, written_by
from runs.training import check_shares, l2_penalty, make_forward, make_train_step, train_epoch
from settings import MONITORS, PREDICTION, Settings


def balanced_weights(labels: Sequence[bool]) -> dict[int, float]:
    """Return {0: w0, 1: w1} with both labels of equal total weight and mean weight 1."""
    labels = np.asarray(labels, bool)
    share = labels.mean()
    if share in (0, 1):
        raise InputError("--class_weight balanced: the training set has one class only")
    return {0: float(0.5 / (1 - share)), 1: float(0.5 / share)}


def movie_scores(
    forward: Callable,
    movies: list[Movie],
    scaling: dict[str, Scaling] | None,
    *,
    nframes: int,
    n_clips: int,
) -> np.ndarray:
    """Return the mean probability of ``n_clips`` evenly spaced clips of each movie, (n,)."""
    scores = []
    for movie in movies:
        starts = fixed_starts(movie.n_frames, nframes, n_clips)
        clips = movie_clips(movie, starts, nframes, scaling)
        scores.append(float(forward(clips).mean(dtype=np.float64)))
    return np.array(scores)


def evaluate(
    networks: tuple, movies: list[Movie], args: Settings, prefix: str, scaling: dict | None
) -> dict:
    """Return the columns ``<prefix>_loss`` etc. of a set; the loss is unweighted, with penalty.

    The AUC is over movies, each the mean of its even clips; a test movie has as many as
    ``predict.py`` takes, so that both give one number.

    Args:
        networks: (forward, model).
        scaling: of ``Recipe.scaling``.
    """
    forward, model = networks
    y = np.array([movie.label_class > args.threshold for movie in movies])
    n_clips = PREDICTION.N_SAMPLE if prefix == "test" else args.val_clips
    scores = movie_scores(forward, movies, scaling, nframes=args.nframes, n_clips=n_clips)
    columns = {"loss": cross_entropy(y, scores) + l2_penalty(model), **epoch_metrics(y, scores)}
    return {f"{prefix}_{name}": value for name, value in columns.items()}


def learning_rate(
    args: Settings, n_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the rate of this run: a number or a schedule over all ``n_steps * EPOCH`` updates."""
    if args.use_clr:
        return CyclicLR(args.min_lr, args.max_lr, 4 * n_steps, args.clr_mode, gamma=0.99994)
    return CosineAnnealing(args.lr, n_steps * args.epoch) if args.cosine_anneal else args.lr


def plateau_callback(args: Settings, trained: keras.Model, extra: dict) -> keras.callbacks.Callback:
    """Return Keras' ReduceLROnPlateau at the point where the last epoch left it."""
    mode = "min" if args.monitor_param == "val_loss" else "max"
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor=args.monitor_param, factor=0.1, patience=args.patience, mode=mode
    )
    callback.set_model(trained)
    callback.on_train_begin()
    if extra:
        callback.best, callback.wait = extra["best"], extra["wait"]
    return callback


def is_better(row: dict, best: dict | None, args: Settings) -> bool:
    """Say whether the epoch ``row`` beats ``best``; ties go to the lower validation loss."""
    if best is None:
        return True
    sign = 1 if args.ckpt_mode == "max" else -1
    new, old = row[args.ckpt_monitor], best[args.ckpt_monitor]
    if new == old:
        return row["val_loss"] < best["val_loss"]
    return sign * new > sign * old


def describe(args: Settings, weights: dict[int, float]) -> dict:
    """Return what ``P.json`` says about the model besides its metrics."""
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


def movie_sets(args: Settings) -> Callable[[str], list[Movie]]:
    """Return ``movies(set name) -> list of Movie``; train and val are checked here.

    Of the test set only heads are read: it stays closed until somebody asks for it.
    """
    classmap = read_classmap(args.root)
    size = {"nframes": args.nframes, "nrows": args.nrows, "ncols": args.ncols}

    @functools.cache
    def movies(name):
        return list_pairs(args.root, args.splitnum, name, classmap, **size)

    # A test movie that does not fit would be found after days of training.
    check_heads(args.root, args.splitnum, "test", classmap, size)
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


def label_weights(args: Settings, movies: list[Movie]) -> dict[int, float]:
    """Return {0: w0, 1: w1} of --class_weight."""
    if args.class_weight == "balanced":
        return balanced_weights([movie.label_class > args.threshold for movie in movies])
    return {int(label): weight for label, weight in args.class_weight.items()}


def training_data(
    args: Settings,
    movies: list[Movie],
    weights: dict[int, float],
    n_replicas: int,
    scaling: dict[str, Scaling] | None,
) -> keras.utils.PyDataset:
    """Return the data set of training clips, augmented unless USE_AUG is off."""
    settings = {
        "scaling": scaling,
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


def build(args: Settings, run: Run, strategy: tf.distribute.Strategy, n_steps: int) -> tuple:
    """Return (model, optimizer, compiled twin saved with its optimiser), as ``run`` left them.

    Args:
        run: ``run_folder.Run``.
        n_steps: updates per epoch.
    """
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
    run.check_room(model)
    if run.state["epoch"]:
        run.load_last(trained)
        print(f"resuming after epoch {run.state['epoch']} of {args.epoch}")
    return model, optimizer, trained


def run_epochs(
    args: Settings,
    run: Run,
    parts: tuple,
    data: keras.utils.PyDataset,
    movies: Callable,
    info: dict,
    strategy: tf.distribute.Strategy,
) -> Callable:
    """Train the epochs that are left, saving each; ``parts`` come from ``build``."""
    scaling = data.scaling

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
        row |= evaluate((forward, model), val_movies, args, "val", scaling)
        if args.eval_test_each_epoch:
            row |= evaluate((forward, model), movies("test"), args, "test", scaling)
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


def train(args: Settings, strategy: tf.distribute.Strategy) -> None:
    """Train, select the best epoch on validation, evaluate the test set once at the end."""
    check_shares(args.batch_size, strategy)
    name = f"{args.model_prefix}{args.splitnum}"
    with written_by(is_chief(strategy), args.ckptdir, name) as folder:
        args = Settings(**{**vars(args), "ckptdir": folder})
        with writing(state_folder(folder, name)):  # two trainings would mix their weights
            clear_left(folder, name)
            _train(args, name, strategy)


def _train(args, name, strategy):
    begun = time.perf_counter()
    movies = movie_sets(args)
    recipe = recipe_of_split(args.root, args.splitnum)
    train_movies = movies("train")
    check_training_scale(recipe, args.root, args.splitnum, [m.stem for m in train_movies])
    scaling = recipe.scaling()
    identity = {"recipe": recipe.hash, "movies": content_hash(train_movies + movies("val"))}
    run = Run(
        args.ckptdir,
        name,
        {**vars(args), **identity},
        csv_folder="two_stream_csv",
        recalculate=args.recalculate,
    )
    if run.state["complete"]:
        print(f"already trained: {run.weights} (start afresh with -r)")
        return
    weights = label_weights(args, train_movies)
    print(recipe.line())
    info = describe(args, weights) | {"recipe": recipe.hash}
    data = training_data(args, train_movies, weights, strategy.num_replicas_in_sync, scaling)
    parts = build(args, run, strategy, len(data))
    if run.state["epoch"] == 0:
        inputs = (
            args.root / "classmap.json",
            args.root / f"split_allocation_{args.splitnum}.csv",
        )
        write_settings(
            run.folder,
            {**vars(args), "recipe": asdict(recipe)},
            inputs=[path for path in inputs if path.exists()],
            libraries=("tensorflow", "keras", "numpy"),
        )
    forward = run_epochs(args, run, parts, data, movies, info, strategy)
    if not is_chief(strategy):
        return
    model = parts[0]
    best = run.state["best"]
    load_weights(model, run.weights)
    test = evaluate((forward, model), movies("test"), args, "test", scaling)
    figure = draw_curves(run, args)
    run.finish({"test": test})  # last: a run killed before it is taken up again, and draws
    print(
        f"best epoch {best['best_epoch']}, AUC over movies: val_auc {show(best['val_auc'])} "
        f"({args.val_clips} even clips each), test_auc {show(test['test_auc'])} "
        f"({PREDICTION.N_SAMPLE} even clips each), "
        f"{time.perf_counter() - begun:.0f} s, {run.weights}, {figure}"
    )


def content_hash(movies: list[Movie]) -> str:
    """Return the SHA-256 of what is trained on: names, classes and values of the movies."""
    digest = hashlib.sha256()
    for movie in movies:
        digest.update(f"{movie.stem} {movie.label_class} ".encode())
        for path in (movie.grey_path, movie.of_path):
            digest.update(np.ascontiguousarray(load_movie(path)).data)
    return digest.hexdigest()


def stale(state: dict, args: Settings) -> bool:
    """Say whether EARLY_STOP epochs have passed since the best one."""
    return bool(args.early_stop and state["best"]) and (
        state["epoch"] - state["best"]["best_epoch"] >= args.early_stop
    )


def draw_curves(run: Run, args: Settings) -> Path:
    """Draw loss and AUC over the epochs beside the weights; return the path."""
    path = run.weights.with_name(f"{args.model_prefix}{args.splitnum}_curves.png")
    return training_curves(
        run.state["history"],
        path,
        best_epoch=run.state["best"]["best_epoch"],
        panels=(("loss", "cross-entropy + penalty"), ("auc", "AUC")),
    )


def show(value: float | None) -> str:
    """Return a number with three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"
