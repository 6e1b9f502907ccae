"""One epoch under MirroredStrategy on two logical CPUs; prints kappa and labels (test_train.py)."""

import json
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

from model_attention_bilstm import Architecture, build
from train import Training, compile_network


def main():
    """Run with PYTHONPATH set to the folder of the scripts."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(16, 6, 16, 16, 1)).astype(np.float32)
    labels = rng.integers(0, 3, 16).astype(np.int32)
    with strategy.scope():
        shape = {"num_frames": 6, "height": 16, "width": 16, "num_filters": 2, "num_blocks": 2}
        network = build(Architecture(**shape, num_rnn_units=3), seed=0)
        optimizer = compile_network(network, Training())
    data = tf.data.Dataset.from_tensor_slices((frames, labels)).batch(4)
    network.model.fit(data, epochs=1, verbose=0)
    result = network.model.evaluate(data, verbose=0, return_dict=True)
    probs = network.infer(frames[..., 0])["probs"]
    print(
        json.dumps(
            {
                "replicas": strategy.num_replicas_in_sync,
                "steps": int(optimizer.iterations.numpy()),
                "kappa": float(result["kappa"]),
                "labels": labels.tolist(),
                "predicted": probs.argmax(axis=1).tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
