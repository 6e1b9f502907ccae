"""What the training scripts share: devices, one update, one epoch, forward passes.

Follows specification 7.4, 7.5 and 7.7. Shapes: b clips of a batch, k outputs, n clips of an epoch.
"""

import collections
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common.files import InputError

FEW_CALLS = 8  # a trace of the update costs as much as about ten updates without one


def total_loss(
    model: keras.Model,
    x: dict | tf.Tensor,
    y: tf.Tensor,
    weight: tf.Tensor,
    n_real: float,
    sample_loss: Callable,
    *,
    n_replicas: int = 1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return (loss, outputs) of a batch in training mode.

    The loss is sum(weight * sample_loss) / n_real plus the model's penalties: with class weights it
    is divided by the number of samples, not by the sum of weights (specification 7.4).

    Args:
        sample_loss: ``(y (b,), outputs (b, k)) -> (b,)``.
        n_real: samples of the whole batch, without filled-in ones.
        n_replicas: gradients of replicas are summed, so each carries its share of the penalty.
    """
    outputs = model(x, training=True)
    loss = tf.reduce_sum(weight * sample_loss(y, outputs)) / n_real
    return loss + tf.add_n(model.losses) / n_replicas, outputs


def one_trace(function: Callable, n_calls: int | None = None) -> Callable:
    """Compile ``function`` of arrays for batches of any size.

    Tracing a network takes seconds; by itself TensorFlow traces again for a smaller last batch.
    Replicas of a strategy hand their own kind of values over, which are traced as they come.

    Args:
        n_calls: how often it is called in the whole run, when that is known: up to FEW_CALLS it
            runs untraced, with the same kernels in the same order.
    """

    def open_batch(value):
        return tf.TensorSpec((None, *value.shape[1:]) if value.shape else (), value.dtype)

    if n_calls is not None and n_calls <= FEW_CALLS:
        return function
    traced = tf.function(function, reduce_retracing=True, autograph=False)
    concrete = []

    def call(*values):
        if not all(isinstance(v, np.ndarray | np.float32) for v in tf.nest.flatten(values)):
            return traced(*values)
        if not concrete:
            concrete.append(
                traced.get_concrete_function(*tf.nest.map_structure(open_batch, values))
            )
        return concrete[0](*tf.nest.map_structure(tf.convert_to_tensor, values))

    return call


def check_shares(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raise InputError when several workers cannot share a batch evenly."""
    n_replicas = strategy.num_replicas_in_sync
    if strategy.cluster_resolver is not None and batch_size % n_replicas:
        raise InputError(
            f"--batch_size {batch_size}: {n_replicas} replicas of TF_CONFIG's workers cannot share "
            "it evenly; give a multiple"
        )


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    sample_loss: Callable,
    strategy: tf.distribute.Strategy,
    *,
    n_steps: int | None = None,
) -> Callable:
    """Return ``step(x, y, weight, n_real) -> (total loss, outputs)``, one update of the weights.

    Args:
        sample_loss, n_real: as in ``total_loss``.
        strategy: the batch is split over its replicas, of this process and of other workers;
            each reads the whole batch and takes its part.
        n_steps: updates of the whole run, resumed or not; few of them are not worth a trace.
    """
    n_replicas = strategy.num_replicas_in_sync
    n_local = len(strategy.extended.worker_devices) if n_replicas > 1 else 1

    def replica_step(x, y, weight, n_real):
        with tf.GradientTape() as tape:
            loss, outputs = total_loss(
                model, x, y, weight, n_real, sample_loss, n_replicas=n_replicas
            )
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)
        if n_replicas > n_local:  # other workers hold the rest of the batch
            context = tf.distribute.get_replica_context()
            loss = context.all_reduce(tf.distribute.ReduceOp.SUM, loss)
            outputs = context.all_gather(outputs, axis=0)
        return loss, outputs

    def update(x, y, weight, n_real):
        losses, outputs = strategy.run(replica_step, args=(x, y, weight, n_real))
        losses = strategy.experimental_local_results(losses)
        outputs = strategy.experimental_local_results(outputs)
        if n_replicas > n_local:
            return losses[0], outputs[0]
        return tf.add_n(losses), tf.concat(outputs, axis=0)

    step = one_trace(update, n_steps if n_replicas == 1 else None)

    def shared(value):
        if n_replicas == 1:
            return value

        def share(context):
            k = context.replica_id_in_sync_group
            return tf.nest.map_structure(lambda v: tf.constant(np.split(v, n_replicas)[k]), value)

        return strategy.experimental_distribute_values_from_function(share)

    def run(x, y, weight, n_real):
        return step(shared(x), shared(y), shared(weight), np.float32(n_real))

    return run


def prefetched(dataset: keras.utils.PyDataset, workers: int) -> Iterator[tuple]:
    """Yield the batches of ``dataset`` in order, read ahead by ``workers`` threads."""
    with ThreadPoolExecutor(workers) as pool:
        ahead = collections.deque()
        for index in range(len(dataset)):
            ahead.append(pool.submit(dataset.__getitem__, index))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def train_epoch(
    step: Callable,
    dataset: keras.utils.PyDataset,
    *,
    workers: int = 1,
    progress: tqdm | None = None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Run one epoch and return (mean loss, labels (n,), outputs (n, k)).

    Args:
        step: from ``make_train_step``.
        dataset: data set of ``clips.py``; its ``names`` say what a batch holds.
        progress: ``tqdm`` bar or None.

    Raises:
        InputError: the loss is not finite; names epoch, batch and movies.
    """
    total, count, labels, outputs = 0.0, 0, [], []
    for index, (x, y, weight) in enumerate(prefetched(dataset, workers)):
        names = dataset.names(index)
        loss, output = step(x, y, weight, len(names))
        loss = float(loss)
        if not math.isfinite(loss):
            raise InputError(
                f"loss is {loss} in epoch {dataset.epoch}, batch {index} "
                f"({', '.join(names)}); lower --lr or check these movies"
            )
        total, count = total + loss * len(names), count + len(names)
        labels.append(y[: len(names)])
        outputs.append(np.asarray(output)[: len(names)])
        if progress is not None:
            progress.update()
            progress.set_postfix(loss=f"{total / count:.4f}")
    return total / count, np.concatenate(labels), np.concatenate(outputs)


def make_forward(model: keras.Model) -> Callable[[dict], np.ndarray]:
    """Return ``forward(x) -> outputs`` (NumPy) in inference mode, compiled once."""
    compiled = one_trace(lambda x: model(x, training=False))
    return lambda x: np.asarray(compiled(x))


def l2_penalty(model: keras.Model) -> float:
    """Return the sum of the model's weight penalties."""
    return float(sum(float(loss) for loss in model.losses))
