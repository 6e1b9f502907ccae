"""Context: a small second network that reads the vectors of an epoch and of its neighbours.

N epochs, T = 2 context + 1 places of a window, V values of an epoch's vector, K states. The vector
is what the first network ends with: its logits and the attention-weighted summary of the epoch.
The first network stays as it is; a window costs less than a thousandth of an epoch's encoder.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from inputs.shards import Record
from network.model_attention_bilstm import AttentionBiLSTM

WIDTH = 32  # of the projected vectors
UNITS = 16  # of the LSTM over epochs, per direction


def keys_of(records: list[Record]) -> list[tuple]:
    """Return (date, mouse, run, epoch) of every record."""
    return [(r.date, r.mouse, r.run, r.epoch) for r in records]


def vectors_of(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Return the vectors (N, V) of epochs from the outputs of the first network's head."""
    summary = outputs.get("context")
    summary = outputs["sequence"].mean(axis=1) if summary is None else summary[:, 0]
    return np.concatenate([outputs["logits"], summary], axis=1).astype(np.float32)


def output_keys(network: AttentionBiLSTM) -> tuple[str, ...]:
    """Return the outputs of the head that vectors_of needs."""
    last = "sequence" if network.architecture.temporal_attention == "none" else "context"
    return "probs", "logits", last


def windows(vectors: np.ndarray, keys: list[tuple], context: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows (N, T, V) around every epoch and which places (N, T) are known.

    Args:
        vectors: (N, V).
        keys: (date, mouse, run, epoch) of every epoch. A neighbour is the epoch whose number in the
            same run is one higher or lower: artifacts and the ends of runs are empty places.
        context: epochs on each side.
    """
    place = {key: i for i, key in enumerate(keys)}
    shifts = range(-context, context + 1)
    index = np.array(
        [[place.get((*key[:3], key[3] + shift), -1) for shift in shifts] for key in keys], int
    ).reshape(len(keys), 2 * context + 1)
    known = index >= 0
    held = vectors[np.maximum(index, 0)] * known[..., None]
    return held.astype(np.float32), known.astype(np.float32)


class ContextNet:
    """Windows of epoch vectors -> probabilities of the epoch in the middle.

    Args:
        context: epochs on each side.
        size: V.
        num_classes: K.
        seed: of the initial weights.
    """

    def __init__(self, context: int, size: int, num_classes: int, *, seed: int = 0):
        self.context, self.size, self.num_classes = context, size, num_classes
        seeds = iter(np.random.SeedSequence(seed).generate_state(8) % (2**31 - 1))

        def glorot():
            return keras.initializers.GlorotUniform(int(next(seeds)))

        vectors = keras.Input((2 * context + 1, size), name="vectors")
        known = keras.Input((2 * context + 1,), name="known")
        self.mean, self.deviation = np.zeros(size, np.float32), np.ones(size, np.float32)
        x = keras.layers.Dense(WIDTH, "tanh", kernel_initializer=glorot(), name="project")(vectors)
        x = x * known[..., None]
        lstm = keras.layers.LSTM(
            UNITS,
            return_sequences=True,
            unroll=True,
            kernel_initializer=glorot(),
            recurrent_initializer=keras.initializers.Orthogonal(seed=int(next(seeds))),
        )
        x = keras.layers.Bidirectional(lstm, name="epochs")(x, mask=ops.cast(known, "bool"))
        middle = keras.layers.Concatenate(name="middle")([x[:, context], vectors[:, context]])
        middle = keras.layers.Dropout(0.2, seed=int(next(seeds)), name="dropout")(middle)
        probs = keras.layers.Dense(
            num_classes, "softmax", kernel_initializer=glorot(), name="states"
        )(middle)
        self.model = keras.Model([vectors, known], probs, name="context")
        self._run = tf.function(self._forward, reduce_retracing=True)

    def _forward(self, held, known):
        return self.model([held, known], training=False)

    def set_scale(self, vectors: np.ndarray) -> None:
        """Take mean and deviation of training vectors (N, V): inputs are brought to that scale."""
        self.mean, self.deviation = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6

    def scaled(self, held: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return windows (N, T, V) in the scale of training, empty places 0."""
        return ((held - self.mean) / self.deviation * known[..., None]).astype(np.float32)

    def probabilities(self, vectors: np.ndarray, keys: list[tuple]) -> np.ndarray:
        """Return the probabilities (N, K) of epochs by their vectors (N, V) and keys."""
        held, known = windows(vectors, keys, self.context)
        return self._run(self.scaled(held, known), known).numpy()
