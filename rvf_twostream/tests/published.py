"""Weights and inputs of the parity fixtures: generated from names and seeds, not stored."""

import zlib

import numpy as np


def generated(name, shape, seed):
    """Return the array of weight ``name`` (``<layer>/<variable>``), float32."""
    rng = np.random.RandomState((zlib.crc32(name.encode("ascii")) ^ seed) & 0xFFFFFFFF)
    z = rng.standard_normal(shape)
    kind = name.rsplit("/", 1)[1]
    if kind == "kernel":
        z = z * (np.sqrt(1 / np.prod(shape[:-1])) if len(shape) == 5 else 0.02)
    elif kind == "bias":
        z = 0.01 * z
    elif kind == "gamma":
        z = 1 + 0.1 * z
    elif kind == "moving_variance":
        z = 1 + 0.2 * np.abs(z)
    else:
        z = 0.1 * z
    return z.astype(np.float32)


def fill(model, seed):
    """Give every weight of ``model`` its generated value; return the model."""
    for variable in model.weights:
        variable.assign(generated(variable.path, tuple(variable.shape), seed))
    return model


def generated_clips(batch, size, seed):
    """Return {"grey": (batch, t, r, c, 1), "of": (batch, t, r, c, 2)}, float32."""
    rng = np.random.RandomState(seed)
    shapes = {"grey": (batch, *size, 1), "of": (batch, *size, 2)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


# A script's part: the published network with frozen batch norm (replicas normalise each by its own
# clips), and ``step`` on four clips; ``strategy`` stands before it.
STEP_OF_FOUR = """
import keras
import numpy as np
from network.model_zoo import make_optimizer, two_stream
from runs.training import make_train_step
from published import fill, generated_clips
with strategy.scope():
    model = fill(two_stream(input_size=(8, 32, 32), depth=18, width=2), 1)
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            layer.trainable = False
    optimizer = make_optimizer(model, 1e-3)
step = make_train_step(
    model, optimizer, lambda y, p: keras.losses.binary_crossentropy(y[:, None], p), strategy
)
clips = generated_clips(4, (8, 32, 32), 5)
y, weight = np.array([0, 1, 1, 0], "f4"), np.array([0.2, 1.8, 1.8, 0.2], "f4")
"""
