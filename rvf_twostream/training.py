"""What the training scripts share: devices, one update, one epoch, forward passes.

Follows specification 7.4, 7.5 and 7.7. Shapes: b clips of a batch, k outputs, n clips of an epoch.
"""

import collections
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from common.device import describe_device, gpu_names, quiet_start, why_no_gpu
from common.files import InputError

FEW_CALLS = 8  # a trace of the update costs as much as about ten updates without one


def choose_device(device, cards):
    """Return "cpu" or "gpu" for ``auto``, ``cpu`` or ``gpu`` and the GPUs that TensorFlow sees."""
    if device == "gpu" and not cards:
        raise InputError(
            f"--device gpu: TensorFlow sees no GPU ({why_no_gpu('tensorflow')}); use --device cpu"
        )
    return "cpu" if device == "cpu" or not cards else "gpu"


def start_tensorflow(*, seed=0, device="auto", gpus=1, precision="float32"):
    """Import TensorFlow, choose the device, seed everything and return the strategy.

    Args:
        seed: of the initial weights; data have generators of their own.
        device: ``auto``, ``cpu`` or ``gpu``.
        gpus: replicas; with ``cpu`` as many logical processors.
        precision: ``float32``, ``mixed_float16`` or ``mixed_bfloat16``.
    """
    # TensorFlow reads it once, at its first import; errors stay visible.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_start():
        import keras
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
    on_cpu = choose_device(device, cards) == "cpu"
    if precision != "float32" and on_cpu:
        raise InputError(
            f"--precision {precision}: TensorFlow has no half-precision 3D max pool on CPU and "
            "bfloat16 gives NaN there; use --precision float32"
        )
    if not on_cpu and gpus > len(cards):
        raise InputError(f"--gpus {gpus}: TensorFlow sees {len(cards)}")
    if on_cpu and gpus > 1 and device != "cpu":
        raise InputError(
            f"--gpus {gpus}: TensorFlow sees no GPU; --device cpu splits the processor"
        )
    if on_cpu:
        # Rewriting the graph takes 5 s per start and makes the step of a processor no faster.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        if cards:
            tf.config.set_visible_devices([], "GPU")
        if gpus > 1:
            processor = tf.config.list_physical_devices("CPU")[0]
            part = tf.config.LogicalDeviceConfiguration()
            tf.config.set_logical_device_configuration(processor, [part] * gpus)
    keras.mixed_precision.set_global_policy(precision)
    keras.utils.set_random_seed(seed)
    if gpus > 1:
        kind = "CPU" if on_cpu else "GPU"
        return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(gpus)])
    return tf.distribute.get_strategy()


def device_note(strategy, device):
    """Return one line that says where the work runs and why."""
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync
    names = gpu_names("tensorflow")[:replicas]
    chosen = "gpu" if tf.config.get_visible_devices("GPU") else "cpu"
    line = describe_device("tensorflow", chosen, asked=device != "auto", names=names)
    return line + (f", {replicas} replicas" if replicas > 1 else "")


def total_loss(model, x, y, weight, n_real, sample_loss, *, n_replicas=1):
    """Return (loss, outputs) of a batch in training mode.

    The loss is sum(weight * sample_loss) / n_real plus the model's penalties: with class weights it
    is divided by the number of samples, not by the sum of weights (specification 7.4).

    Args:
        sample_loss: ``(y (b,), outputs (b, k)) -> (b,)``.
        n_real: samples of the whole batch, without filled-in ones.
        n_replicas: gradients of replicas are summed, so each carries its share of the penalty.
    """
    import tensorflow as tf

    outputs = model(x, training=True)
    loss = tf.reduce_sum(weight * sample_loss(y, outputs)) / n_real
    return loss + tf.add_n(model.losses) / n_replicas, outputs


def one_trace(function, n_calls=None):
    """Compile ``function`` of arrays for batches of any size.

    Tracing a network takes seconds; by itself TensorFlow traces again for a smaller last batch.
    Replicas of a strategy hand their own kind of values over, which are traced as they come.

    Args:
        n_calls: how often it is called in the whole run, when that is known: up to FEW_CALLS it
            runs untraced, with the same kernels in the same order.
    """
    import tensorflow as tf

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


def make_train_step(model, optimizer, sample_loss, strategy, *, n_steps=None):
    """Return ``step(x, y, weight, n_real) -> (total loss, outputs)``, one update of the weights.

    Args:
        sample_loss, n_real: as in ``total_loss``.
        strategy: the batch is split over its replicas.
        n_steps: updates of the whole run, resumed or not; few of them are not worth a trace.
    """
    import tensorflow as tf

    n_replicas = strategy.num_replicas_in_sync

    def replica_step(x, y, weight, n_real):
        with tf.GradientTape() as tape:
            loss, outputs = total_loss(
                model, x, y, weight, n_real, sample_loss, n_replicas=n_replicas
            )
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss, outputs

    def update(x, y, weight, n_real):
        losses, outputs = strategy.run(replica_step, args=(x, y, weight, n_real))
        losses = strategy.experimental_local_results(losses)
        outputs = strategy.experimental_local_results(outputs)
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


def prefetched(dataset, workers):
    """Yield the batches of ``dataset`` in order, read ahead by ``workers`` threads."""
    with ThreadPoolExecutor(workers) as pool:
        ahead = collections.deque()
        for index in range(len(dataset)):
            ahead.append(pool.submit(dataset.__getitem__, index))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def train_epoch(step, dataset, *, workers=1, progress=None):
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


def make_forward(model):
    """Return ``forward(x) -> outputs`` (NumPy) in inference mode, compiled once."""
    compiled = one_trace(lambda x: model(x, training=False))
    return lambda x: np.asarray(compiled(x))


def l2_penalty(model):
    """Return the sum of the model's weight penalties."""
    return float(sum(float(loss) for loss in model.losses))
