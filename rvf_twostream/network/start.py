"""Start TensorFlow: device, replicas, precision and seed (specification 7.4, 7.7).

A script imports this module before any other one that needs TensorFlow: what its native code writes
at its first import is held back here.
"""

import json
import os

from common.device import describe_device, gpu_names, quiet_start
from common.files import InputError
from settings import choose_device

# TensorFlow reads it once, at its first import; errors stay visible.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with quiet_start():
    import keras
    import tensorflow as tf


def start_tensorflow(
    *,
    seed: int = 0,
    device: str = "auto",
    gpus: int = 1,
    precision: str = "float32",
    cluster: bool = False,
) -> tf.distribute.Strategy:
    """Choose the device, seed everything and return the strategy.

    Args:
        seed: of the initial weights; data have generators of their own.
        device: ``auto``, ``cpu`` or ``gpu``.
        gpus: replicas; with ``cpu`` as many logical processors.
        precision: ``float32``, ``mixed_float16`` or ``mixed_bfloat16``.
        cluster: TF_CONFIG in the environment, as TensorFlow defines it, makes this process one of
            several that train one network, each with all GPUs that it sees.
    """
    workers = cluster_workers(os.environ.get("TF_CONFIG", "")) if cluster else 0
    if workers and gpus > 1:
        raise InputError(f"--gpus {gpus}: TF_CONFIG names the workers; leave --gpus out")
    with quiet_start():
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
    else:
        for card in cards:  # takes memory as it needs it, so that two pipelines fit on one card
            tf.config.experimental.set_memory_growth(card, True)
    # Before anything else asks TensorFlow for a device: the workers find each other here.
    joined = tf.distribute.MultiWorkerMirroredStrategy() if workers else None
    keras.mixed_precision.set_global_policy(precision)
    keras.utils.set_random_seed(seed)
    if joined is not None:
        return joined
    if gpus > 1:
        kind = "CPU" if on_cpu else "GPU"
        return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(gpus)])
    return tf.distribute.get_strategy()


def cluster_workers(text: str) -> int:
    """Return how many workers a TF_CONFIG names, 0 without one or with this process alone.

    Raises:
        InputError: it is no JSON of ``cluster`` and ``task``, or names tasks that do not train.
    """
    if not text:
        return 0
    try:
        given = json.loads(text)
        jobs = {name: len(members) for name, members in given["cluster"].items()}
        texts = [name for name, members in given["cluster"].items() if isinstance(members, str)]
        if texts:  # its letters would count as workers
            raise TypeError(f"{texts[0]} is a text, not a list")
        kind, index = given["task"]["type"], int(given["task"]["index"])
        known = index in range(jobs[kind])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"TF_CONFIG in the environment: {error!r}; expected JSON as "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if set(jobs) - {"chief", "worker"} or not known:
        raise InputError(
            f"TF_CONFIG in the environment: cluster {jobs}, this task {kind} {index}; all are to "
            "be of the types worker and chief, and this one among them"
        )
    return sum(jobs.values()) if sum(jobs.values()) > 1 else 0


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Say whether this process writes the files of a training; of one process it does."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    kind, index = resolver.task_type, resolver.task_id
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return kind == first and index == 0


def device_note(strategy: tf.distribute.Strategy, device: str) -> str:
    """Return one line that says where the work runs and why."""
    replicas = strategy.num_replicas_in_sync
    names = gpu_names("tensorflow")[:replicas]
    chosen = "gpu" if tf.config.get_visible_devices("GPU") else "cpu"
    line = describe_device("tensorflow", chosen, asked=device != "auto", names=names)
    return line + (f", {replicas} replicas" if replicas > 1 else "")
