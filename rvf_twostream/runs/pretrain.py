"""Pre-train one stream: ejection fraction from EchoNet-Dynamic, or any classes (specification 7.1).

The shared part of ``pretrain_greyscale.py`` and ``pretrain_OF.py``; not a script of its own.

Regression reads <root>/<set>_norm1 (grey) or <set>_norm_OF (flow) with movies (n, rows, columns, C)
and <root>/filename2class.json (name -> EF in percent), for the sets train and val; the test set is
never read. Classification reads the ``.npy`` movies or videos below <root> that the table --labels
(file, class) names; every eighth of a class, drawn by seed, becomes validation.

Writes into --ckptdir: <MODEL_PREFIX>.weights.h5 and .json (best epoch),
model_csv/<MODEL_PREFIX>.csv (epoch, loss, val_loss, val_mae, val_r2 or val_accuracy, lr, seconds),
<MODEL_PREFIX>_curves.png, <MODEL_PREFIX>_state/ (resume).
"""

import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from analysis.figures import training_curves
from common.files import InputError, raise_faults, read_json, write_settings
from common.locks import writing
from inputs.clips import DataGeneratorEchonet
from inputs.labelled_videos import find_movies, match_labels, movies_of_videos
from inputs.utils import list_stems, load_movie
from network.CLR_callback import CosineAnnealing
from network.model_zoo import make_optimizer, single_stream
from network.published_weights import load_trunk
from network.start import is_chief
from runs.run_folder import Run, clear_left, state_folder, written_by
from runs.training import check_shares, l2_penalty, make_forward, make_train_step, train_epoch
from settings import Settings

FOLDERS = {"grey": "norm1", "of": "norm_OF"}
CHANNELS = {"grey": 1, "of": 2}
VAL_EVERY = 8  # of the movies of a class, one for validation (classification)


def checked(paths_targets: list[tuple], args: Settings, channels: int | None) -> list[tuple]:
    """Return the pairs (path, target) after checking that every movie holds a clip of the size."""
    faults = []
    for path, _ in paths_targets:
        try:
            movie = load_movie(path, channels=channels, nrows=args.nrows, ncols=args.ncols)
            if len(movie) < args.nframes:
                faults.append(f"{path}: {len(movie)} frames, {args.nframes} needed")
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults)
    return paths_targets


def regression_sets(args: Settings, stream: str) -> dict[str, list[tuple]]:
    """Return {"train": [(path, EF)], "val": [...]}; movies without an EF are an error."""
    table = args.root / "filename2class.json"
    ef = read_json(table, remedy="run prepare_echonet.py")
    sets = {}
    for name in ("train", "val"):
        folder = args.root / f"{name}_{FOLDERS[stream]}"
        stems = list_stems(folder)
        if not stems:
            raise InputError(f"{folder}: no movies; run prepare_echonet.py --root {args.root}")
        missing = [stem for stem in stems if not isinstance(ef.get(stem), int | float)]
        if missing:
            raise InputError(f"{table}: no ejection fraction of {', '.join(missing[:20])}")
        outside = [stem for stem in stems if not 0 <= ef[stem] <= 100]
        if outside:
            raise InputError(
                f"{table}: {outside[0]} is {ef[outside[0]]:g}; expected percent, 0 to 100"
            )
        sets[name] = [(folder / f"{stem}.npy", float(ef[stem])) for stem in stems]
    if all(target <= 1 for pairs in sets.values() for _, target in pairs):
        raise InputError(
            f"{table}: no ejection fraction is above 1: these are fractions; write percent, 55 for "
            "0.55"
        )
    return sets


def read_labels(path: Path) -> list[tuple[str, str, int]]:
    """Return [(file, class, row)] of a CSV with file and class; the header is optional.

    Raises:
        InputError: a row without file or class.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = [[cell.strip() for cell in row] for row in csv.reader(handle)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable ({error}); expected file and class") from None
    rows = [(i, row) for i, row in enumerate(rows, start=1) if any(row)]
    if rows and [cell.lower() for cell in rows[0][1][:2]] == ["file", "class"]:
        rows = rows[1:]
    raise_faults(
        [
            f"{path}: row {i}: expected file and class, found {row}"
            for i, row in rows
            if len(row) < 2 or not all(row[:2])
        ]
    )
    return [(row[0], row[1], i) for i, row in rows]


def classification_sets(args: Settings, stream: str) -> tuple[dict[str, list[tuple]], list[str]]:
    """Return the sets as in ``regression_sets`` with class indices, and the class names.

    Labels name ``.npy`` movies below the root, or videos, which are decoded into the run's folder.
    """
    by_name = find_movies(args.root)
    labelled = match_labels(args.labels, read_labels(args.labels), by_name)
    chosen = {name: by_name[name] for name, _ in labelled if by_name[name].suffix.lower() != ".npy"}
    if chosen:
        by_name |= movies_of_videos(
            chosen,
            args.ckptdir / f"{args.model_prefix}_movies",
            stream,
            nframes=args.nframes,
            nrows=args.nrows,
            ncols=args.ncols,
            workers=args.workers,
        )
    names = sorted({name for _, name in labelled})
    if len(names) < 2:
        raise InputError(f"{args.labels}: classes {names}; at least two needed")
    sets = {"train": [], "val": []}
    rng = np.random.default_rng([args.seed, len(labelled)])
    for index, name in enumerate(names):
        stems = [stem for stem, label in labelled if label == name]
        for k, chosen in enumerate(rng.permutation(len(stems))):
            group = "val" if k % VAL_EVERY == 1 else "train"
            sets[group].append((by_name[stems[chosen]], index))
    if not sets["val"]:
        raise InputError(f"{args.labels}: every class has one movie; at least one needs two")
    return sets, names


def scores(task: str, y: np.ndarray, outputs: np.ndarray, scale: float) -> dict:
    """Return the validation columns besides the loss, in percent of ejection fraction.

    Args:
        y: (n,) targets, as trained on.
        outputs: (n, k).
        scale: standard deviation of the z-scores, 1 without --standardize_ef.
    """
    if task == "classification":
        return {"val_accuracy": float(np.mean(outputs.argmax(axis=1) == y))}
    error = outputs[:, 0] - y
    spread = np.sum((y - y.mean()) ** 2)
    r2 = float(1 - np.sum(error**2) / spread) if spread > 0 else None
    return {"val_mae": float(np.abs(error).mean() * scale), "val_r2": r2}


def start_model(args: Settings, stream: str, n_classes: int) -> keras.Model:
    """Return the model with its starting weights."""
    size = (args.nframes, args.nrows, args.ncols)
    model = single_stream(
        stream, input_size=size, depth=args.depth, width=args.width, n_classes=n_classes
    )
    if args.init_weights != "none":
        note = load_trunk(model, stream, args.init_weights, depth=args.depth, width=args.width)
        print(note or f"{stream} trunk starts from {args.init_weights}")
    if args.ef_bias:
        model.get_layer("preds").bias.assign([args.ef_bias])
    return model


def sample_losses(task: str) -> Callable:
    """Return ``(y (b,), outputs (b, k)) -> (b,)``: squared error or cross-entropy."""
    if task == "classification":
        return keras.losses.sparse_categorical_crossentropy
    return lambda y, outputs: keras.ops.square(outputs[:, 0] - y)


def validate(
    forward: Callable, model: keras.Model, data: keras.utils.PyDataset, task: str, scale: float
) -> dict:
    """Return the validation columns: loss with penalty, and the scores of the task."""
    outputs, labels = [], []
    for index in range(len(data)):
        x, y, weight = data[index]
        outputs.append(forward(x)[weight > 0])
        labels.append(y[weight > 0])
    y, outputs = np.concatenate(labels), np.concatenate(outputs)
    loss = float(np.mean(sample_losses(task)(y, outputs)))
    return {"val_loss": loss + l2_penalty(model), **scores(task, y, outputs, scale)}


def is_better(row: dict, best: dict | None, args: Settings) -> bool:
    """Say whether the epoch ``row`` beats ``best``."""
    if best is None:
        return True
    sign = 1 if args.ckpt_mode == "max" else -1
    return sign * row[args.ckpt_monitor] > sign * best[args.ckpt_monitor]


def load_sets(args: Settings, stream: str) -> tuple[dict, dict]:
    """Return ({"train": [(path, target)], "val": [...]}, facts about the targets)."""
    facts = {"n_classes": 0, "classes": None, "ef_mean": 0.0, "ef_scale": 1.0}
    if args.task == "classification":
        sets, names = classification_sets(args, stream)
        facts |= {"n_classes": len(names), "classes": names}
    else:
        sets = regression_sets(args, stream)
    sets = {name: checked(group, args, CHANNELS[stream]) for name, group in sets.items()}
    if args.standardize_ef:
        targets = [target for _, target in sets["train"]]
        mean, scale = float(np.mean(targets)), float(np.std(targets))
        if not scale > 0:
            raise InputError("--standardize_ef: all ejection fractions are equal")
        facts |= {"ef_mean": mean, "ef_scale": scale}
        sets = {n: [(p, (t - mean) / scale) for p, t in group] for n, group in sets.items()}
    return sets, facts


def data_sets(args: Settings, sets: dict, n_replicas: int) -> dict[str, keras.utils.PyDataset]:
    """Return the clips of each set; both draw starts of their own."""
    return {
        name: DataGeneratorEchonet(
            group,
            batch_size=args.batch_size,
            nframes=args.nframes,
            seed=2 * args.seed + (name == "val"),
            replicas=n_replicas,
            shuffle=name == "train",
            workers=args.workers,
        )
        for name, group in sets.items()
    }


def build(
    args: Settings,
    stream: str,
    run: Run,
    n_classes: int,
    n_steps: int,
    strategy: tf.distribute.Strategy,
) -> tuple:
    """Return (model, optimizer, compiled twin saved with its optimiser), as ``run`` left them."""
    rate = CosineAnnealing(args.lr, n_steps * args.epoch) if args.cosine_anneal else args.lr
    with strategy.scope():
        model = start_model(args, stream, n_classes)
        optimizer = make_optimizer(
            model, rate, lr_weight=args.lr_weight, weight_decay=args.weight_decay
        )
        trained = keras.Model(model.inputs, model.outputs)
        trained.compile(optimizer=optimizer)
    run.check_room(model)
    if run.state["epoch"]:
        run.load_last(trained)
        print(f"resuming after epoch {run.state['epoch']} of {args.epoch}")
    return model, optimizer, trained


def run_epochs(
    args: Settings, run: Run, parts: tuple, data: dict, info: dict, strategy: tf.distribute.Strategy
) -> None:
    """Train the epochs that are left, saving each; ``parts`` come from ``build``."""
    model, optimizer, trained = parts
    n_steps = len(data["train"])
    step = make_train_step(
        model, optimizer, sample_losses(args.task), strategy, n_steps=n_steps * args.epoch
    )
    forward = make_forward(model)
    bar = tqdm(total=args.epoch * n_steps, initial=run.state["epoch"] * n_steps, disable=None)
    while run.state["epoch"] < args.epoch:
        start = time.perf_counter()
        for dataset in data.values():
            dataset.epoch = run.state["epoch"]
        lr = float(optimizer.learning_rate)
        loss, _, _ = train_epoch(step, data["train"], workers=args.workers, progress=bar)
        row = {"epoch": run.state["epoch"] + 1, "loss": loss}
        row |= validate(forward, model, data["val"], args.task, info["ef_scale"])
        if row[args.ckpt_monitor] is None or not math.isfinite(row["val_loss"]):
            raise InputError(
                f"epoch {row['epoch']}: {args.ckpt_monitor} is {row[args.ckpt_monitor]}, "
                f"val_loss {row['val_loss']}; lower --lr or choose --ckpt_monitor val_loss"
            )
        row |= {"lr": lr, "seconds": round(time.perf_counter() - start, 3)}
        best = None
        if is_better(row, run.state["best"], args):
            best = {
                "best_epoch": row["epoch"],
                "val_loss": row["val_loss"],
                args.ckpt_monitor: row[args.ckpt_monitor],
            }
        run.save_epoch(trained, row, best=best, bare=model, info=info)
    bar.close()


def train_stream(args: Settings, stream: str, strategy: tf.distribute.Strategy) -> None:
    """Train one stream, keeping the epoch that is best on validation."""
    check_shares(args.batch_size, strategy)
    name = args.model_prefix
    with written_by(is_chief(strategy), args.ckptdir, name) as folder:
        args = Settings(**{**vars(args), "ckptdir": folder})
        with writing(state_folder(folder, name)):
            clear_left(folder, name)
            _train_stream(args, stream, strategy)


def _train_stream(args, stream, strategy):
    begun = time.perf_counter()
    sets, facts = load_sets(args, stream)
    run = Run(
        args.ckptdir,
        args.model_prefix,
        {**vars(args), "stream": stream},
        csv_folder="model_csv",
        recalculate=args.recalculate,
    )
    if run.state["complete"]:
        print(f"already trained: {run.weights} (start afresh with -r)")
        return
    data = data_sets(args, sets, strategy.num_replicas_in_sync)
    parts = build(args, stream, run, facts["n_classes"], len(data["train"]), strategy)
    if run.state["epoch"] == 0:
        write_settings(run.folder, vars(args), libraries=("tensorflow", "keras", "numpy"))
    info = {
        "kind": stream,
        "depth": args.depth,
        "width": args.width,
        "input_size": [args.nframes, args.nrows, args.ncols],
        **facts,
        "settings": json.loads(json.dumps(vars(args), default=str)),
        "versions": {"keras": keras.__version__},
    }
    run_epochs(args, run, parts, data, info, strategy)
    if not is_chief(strategy):
        return
    figure = draw_curves(run, args)
    run.finish({})  # last: a run killed before it is taken up again, and draws
    best = run.state["best"]
    print(
        f"best epoch {best['best_epoch']}: {args.ckpt_monitor} {best[args.ckpt_monitor]:.4g}, "
        f"{time.perf_counter() - begun:.0f} s, {run.weights}, {figure}"
    )


def draw_curves(run: Run, args: Settings) -> Path:
    """Draw loss and score over the epochs; return the path."""
    second = (
        ("accuracy", "accuracy")
        if args.task == "classification"
        else ("mae", "mean absolute error, % of EF")
    )
    return training_curves(
        run.state["history"],
        run.weights.with_name(f"{args.model_prefix}_curves.png"),
        panels=(("loss", "loss + penalty"), second),
        best_epoch=run.state["best"]["best_epoch"],
    )
