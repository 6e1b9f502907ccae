"""Fit the network, and run it over epochs: training loop with exact resume, validation, prediction.

Source: specification sections 7 and 8.1.
"""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorboard.summary.v2 as summary
import tensorflow as tf
from sklearn.metrics import cohen_kappa_score

from common.files import InputError, atomic_path
from inputs.dataloader_sleep import Epochs, shuffle_order
from inputs.feed import make_dataset
from network.checkpoints import load_training_state, save_training_state, save_weights
from network.forward import run_over, states_of
from network.losses_metrics import CohenKappa, make_loss
from network.model_attention_bilstm import AttentionBiLSTM

log = logging.getLogger(__name__)
STUCK_EPOCHS = 5
STATE_FILE = "training_state.h5"


@dataclass(frozen=True)
class Training:
    """Settings of a training run."""

    seed: int = 42
    num_epochs: int = 200
    batch_size: int = 4  # global, over all replicas
    lr_init: float = 1e-4
    loss: str = "focal"
    gamma: float = 2.0
    average: float = 0.0  # decay per step of averaged weights; 0 is off
    patience: int = 0  # epochs without a better validation loss before training stops; 0 is off
    frame_chunk: int = 42
    workers: int = 1
    tensorboard: bool = False


class LossNotFinite(InputError):
    """The training loss became NaN or infinite."""


def compile_network(network: AttentionBiLSTM, training: Training) -> keras.Optimizer:
    """Compile the network with Adam, loss, accuracy and kappa; return the optimiser."""
    classes = network.architecture.num_classes
    optimizer = keras.optimizers.Adam(
        training.lr_init, use_ema=training.average > 0, ema_momentum=training.average or 0.99
    )
    if network.architecture.mixed_precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    accuracy = (
        keras.metrics.BinaryAccuracy if classes == 2 else keras.metrics.SparseCategoricalAccuracy
    )
    network.model.compile(
        optimizer,
        make_loss(training.loss, classes, training.gamma),
        metrics=[accuracy(name="accuracy"), CohenKappa(classes)],
    )
    optimizer.build(network.model.trainable_variables)
    return optimizer


def validate(network: AttentionBiLSTM, epochs: Epochs, training: Training) -> dict[str, float]:
    """Return loss, accuracy and kappa of the network on ``epochs``."""
    probs = run_over(network, epochs, training)["probs"]
    states = states_of(probs)
    labels = epochs.labels
    target = labels[:, None] if probs.shape[1] == 1 else labels
    same = (labels == labels[0]).all() and (states == labels[0]).all()
    return {
        "val_loss": float(network.model.loss(target, probs)),
        "val_accuracy": float((states == labels).mean()),
        "val_kappa": float("nan") if same else float(cohen_kappa_score(labels, states)),
    }


def _keep_weights(kept: list):

    class KeepWeights(keras.callbacks.Callback):
        """Put the weights of the last step into ``kept`` before Keras replaces them by averages."""

        def on_epoch_end(self, epoch, logs=None):
            kept[:] = [np.array(v) for v in self.model.trainable_variables]

    return KeepWeights()


def _finite_check():

    class StopAtNaN(keras.callbacks.Callback):
        """Stop at the first batch whose loss is not finite."""

        def on_train_batch_end(self, batch, logs=None):
            if not math.isfinite(logs["loss"]):
                raise LossNotFinite(
                    f"the training loss is {logs['loss']} in batch {batch}; training stopped, the "
                    "weights saved after the epoch before are kept: lower --lr_init or look for "
                    "extreme values in the data"
                )

    return StopAtNaN()


def write_log(run_dir: Path, history: list[dict]) -> None:
    """Write the history so far as `log.csv`."""
    with atomic_path(run_dir / "log.csv") as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False)


def _write_tensorboard(folder: Path, row: dict) -> None:

    with tf.summary.create_file_writer(str(folder)).as_default():
        for key, value in row.items():
            if key not in ("epoch", "seconds"):
                summary.scalar(key, value, step=row["epoch"])


def fit(
    network: AttentionBiLSTM,
    train: Epochs,
    val: Epochs,
    training: Training,
    run_dir: Path,
    *,
    resume: bool = False,
    logs_dir: Path | None = None,
) -> list[dict]:
    """Train, validate after every epoch and keep the best weights by validation loss.

    Args:
        network: AttentionBiLSTM, built under the distribution strategy that it is trained with.
        train, val: epochs with labels.
        training: settings; the order of the data in epoch e is a function of (seed, e).
        run_dir: gets `ckpt_<epoch>.weights.h5` for every improvement, `best.weights.h5`,
            `last.weights.h5`, `training_state.h5` and `log.csv`.
        resume: go on after the last complete epoch in ``run_dir``.

    With ``training.average`` the weights averaged over the last steps are validated, saved and, at
    the end, left in the network; training itself goes on with those of the last step.

    Returns:
        list of one dict per epoch: epoch, loss, accuracy, kappa, val_*, learning_rate, steps,
            seconds.

    Raises:
        LossNotFinite: the loss is not finite; the files of the epoch before stay.
    """
    optimizer = compile_network(network, training)
    state_path, history, best = run_dir / STATE_FILE, [], {"epoch": 0, "val_loss": math.inf}
    if resume:
        record = load_training_state(state_path, network, optimizer)
        history, best = record["history"], record["best"]
        if len(history) < training.num_epochs:
            log.info("resuming after epoch %d of %d", len(history), training.num_epochs)
    for number in range(len(history) + 1, training.num_epochs + 1):
        if training.patience and number - 1 - best["epoch"] >= training.patience and history:
            log.info("no better validation loss for %d epochs: stopped", training.patience)
            break
        start = time.perf_counter()
        order = shuffle_order(len(train), training.seed, number)
        # Faithful: an incomplete last batch is not trained on; each pass leaves out other epochs.
        whole = len(order) >= training.batch_size
        data = make_dataset(
            train, order, training.batch_size, workers=training.workers, drop_remainder=whole
        )
        last_step = []
        fitted = _fit_one(network, data, last_step)
        row = {"epoch": number, **fitted, **validate(network, val, training)}
        row["learning_rate"] = float(np.asarray(optimizer.learning_rate))
        row["steps"] = int(np.asarray(optimizer.iterations))
        row["seconds"] = round(time.perf_counter() - start, 2)
        history.append(row)
        if row["val_loss"] < best["val_loss"]:
            best = {"epoch": number, "val_loss": row["val_loss"]}
            save_weights(network, run_dir / f"ckpt_{number}.weights.h5")
            save_weights(network, run_dir / "best.weights.h5")
        save_weights(network, run_dir / "last.weights.h5")
        write_log(run_dir, history)
        _assign(network, last_step)
        save_training_state(state_path, network, optimizer, {"history": history, "best": best})
        if training.tensorboard:
            _write_tensorboard(logs_dir or run_dir / "logs", row)
        log.info(
            "epoch %(epoch)d  loss %(loss).4f  kappa %(kappa).3f  val_loss %(val_loss).4f  "
            "val_kappa %(val_kappa).3f  %(seconds).1f s",
            row,
        )
        _hint_when_stuck(history, training, network.architecture.num_classes)
    if history:
        optimizer.finalize_variable_values(network.model.trainable_variables)
    return history


def _assign(network: AttentionBiLSTM, values: list) -> None:
    for variable, value in zip(network.model.trainable_variables, values, strict=True):
        variable.assign(value)


def _fit_one(network: AttentionBiLSTM, data, last_step: list) -> dict[str, float]:
    """Train one pass; the network then holds the averages, if any, and ``last_step`` the weights of
    the last step.
    """
    try:
        result = network.model.fit(
            data,
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[_finite_check(), _keep_weights(last_step)],
        )
    except tf.errors.OpError:
        if data.faults:
            raise data.faults[0] from None
        raise
    return {key: float(values[0]) for key, values in result.history.items()}


def chance_loss(loss: str, classes: int, gamma: float) -> float:
    """Return the loss of a network that gives every class the same probability."""
    wrong, entropy = 1 - 1 / classes, math.log(classes)
    return {
        "focal": wrong**gamma * entropy,
        "cross_entropy": entropy,
        "poly": entropy + wrong,
        "polyfocal": wrong**2 * entropy + wrong**3,
    }[loss]


def _hint_when_stuck(history: list[dict], training: Training, classes: int) -> None:
    """Say so when the loss has stayed at its chance value since the start."""
    chance = chance_loss(training.loss, classes, training.gamma)
    stuck = all(abs(row["loss"] - chance) < 0.02 * chance for row in history)
    if len(history) == STUCK_EPOCHS and stuck:
        log.warning(
            "hint: the loss has stayed at its chance value %.3f for %d epochs; try --kernel_init "
            "he_normal or a higher --lr_init",
            chance,
            STUCK_EPOCHS,
        )
