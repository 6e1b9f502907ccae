"""Train the second stage on cached vectors of the first, and give states with it.

Called by main.py --mode train --context n and by the test modes and predict of such a run.
"""

import io
import logging
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from common.files import InputError, read_json, write_bytes, write_json
from inputs.dataloader_sleep import Epochs
from inputs.shards import in_time_order
from network.context import ContextNet, keys_of, output_keys, vectors_of, windows
from network.forward import run_over
from network.model_attention_bilstm import AttentionBiLSTM
from settings import Settings

log = logging.getLogger(__name__)
WEIGHTS_FILE, RECORD_FILE = "context.weights.h5", "context.json"
PASSES, BATCH, RATE, PATIENCE = 60, 32, 3e-3, 12


def cached(network: AttentionBiLSTM, epochs: Epochs, settings: Settings) -> dict[str, np.ndarray]:
    """Return the outputs of the first stage that vectors_of needs, one row per epoch."""
    return run_over(network, epochs, settings, output_keys(network))


def loss_of(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the cross-entropy of probabilities (N, K) for labels (N,)."""
    return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-7)).mean())


def fit_context(
    vectors: tuple[np.ndarray, np.ndarray],
    keys: tuple[list, list],
    labels: tuple[np.ndarray, np.ndarray],
    context: int,
    num_classes: int,
    *,
    seed: int,
) -> tuple[ContextNet, list[float]]:
    """Train a ContextNet; keep the weights with the least loss on the validation epochs.

    Args:
        vectors, keys, labels: of training and validation: (N, V), N keys, (N,).
        context: epochs on each side.
        num_classes: K.
        seed: of weights and order.

    Returns:
        the network and its validation loss per pass.
    """
    net = ContextNet(context, vectors[0].shape[1], num_classes, seed=seed)
    net.set_scale(vectors[0])
    held, known = windows(vectors[0], keys[0], context)
    held, best, losses = net.scaled(held, known), None, []
    step = _training_step(net, keras.optimizers.Adam(RATE))
    for number in range(PASSES):
        order = np.random.default_rng([seed, number]).permutation(len(held))
        for start in range(0, len(order), BATCH):
            own = order[start : start + BATCH]
            step(*(tf.constant(values[own]) for values in (held, known, labels[0])))
        losses.append(loss_of(net.probabilities(vectors[1], keys[1]), labels[1]))
        if losses[-1] == min(losses):
            best = net.model.get_weights()
        if number - int(np.argmin(losses)) >= PATIENCE:
            break
    net.model.set_weights(best)
    return net, losses


def _training_step(net: ContextNet, optimizer: keras.optimizers.Optimizer):
    """Return a compiled function that takes one step on windows, known places and labels."""
    optimizer.build(net.model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(held, known, labels):
        with tf.GradientTape() as tape:
            probs = net.model([held, known], training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, probs))
        slopes = tape.gradient(loss, net.model.trainable_variables)
        optimizer.apply(slopes, net.model.trainable_variables)

    return step


def train_context(
    network: AttentionBiLSTM, train: Epochs, val: Epochs, settings: Settings, run_dir: Path
) -> ContextNet:
    """Cache the vectors of training and validation epochs, train the second stage and store it."""
    sets = [ordered(train), ordered(val)]
    vectors = tuple(vectors_of(cached(network, one, settings)) for one in sets)
    net, losses = fit_context(
        vectors,
        tuple(keys_of(one.records) for one in sets),
        tuple(one.labels for one in sets),
        settings.context,
        train.view.num_classes,
        seed=settings.seed,
    )
    save_context(net, run_dir)
    log.info(
        "context of %d epochs on each side: validation loss %.4f after %d passes",
        settings.context,
        min(losses),
        len(losses),
    )
    return net


def second_stage(settings: Settings, run_dir: Path) -> ContextNet | None:
    """Return the second stage of a run, or None: it has none, --context 0 asks for single epochs,
    or other weights than those it is trained on are named.
    """
    off = "context" in settings.given and not settings.context
    if off or settings.weights != "best":
        return None
    net = load_context(run_dir)
    if net is not None:
        log.info("states come from the second stage: %d epochs on each side", net.context)
    elif settings.context:
        raise InputError(
            f"{run_dir}: was trained without a second stage; train with --context "
            f"{settings.context}, --model_continue keeps the first stage as it is"
        )
    return net


def states_with(
    network: AttentionBiLSTM, epochs: Epochs, settings: Settings, net: ContextNet | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (N, K) of the last stage and those of single epochs."""
    if net is None:
        probs = run_over(network, epochs, settings)["probs"]
        return probs, probs
    outputs = cached(network, epochs, settings)
    found = net.probabilities(vectors_of(outputs), keys_of(epochs.records))
    return (found if net.num_classes > 2 else found[:, 1:]), outputs["probs"]


def ordered(epochs: Epochs) -> Epochs:
    """Return the same epochs in time order."""
    return Epochs(in_time_order(epochs.records), epochs.view)


def save_context(net: ContextNet, run_dir: Path) -> None:
    """Write weights and scale, and what rebuilds the network."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for number, value in enumerate([net.mean, net.deviation, *net.model.get_weights()]):
            file.create_dataset(f"{number:03d}", data=value)
    write_bytes(run_dir / WEIGHTS_FILE, buffer.getbuffer())
    held = {"context": net.context, "size": net.size, "num_classes": net.num_classes}
    write_json(run_dir / RECORD_FILE, held)


def load_context(run_dir: Path) -> ContextNet | None:
    """Return the second stage of a run, or None when it has none.

    Raises:
        InputError: its files are damaged or do not belong together.
    """
    if not (run_dir / RECORD_FILE).is_file():
        return None
    held = read_json(run_dir / RECORD_FILE, remedy="train anew")
    try:
        net = ContextNet(held["context"], held["size"], held["num_classes"])
        with h5py.File(run_dir / WEIGHTS_FILE) as file:
            values = [file[name][()] for name in sorted(file)]
        net.mean, net.deviation = values[:2]
        net.model.set_weights(values[2:])
    except Exception as error:  # damaged bytes make h5py and Keras raise almost any kind
        raise InputError(
            f"{run_dir / WEIGHTS_FILE}: is no second stage of this run ({error}); train anew"
        ) from error
    return net
