"""The attention CNN-BiLSTM: one convolutional encoder per frame, a bidirectional LSTM and attention
over time.

B batch, F frames, H x W pixels, h x w pixels of the last activation, C filters, D = 2u features, K
states.
Time is folded into the batch before the encoder: Keras 3 unrolls ``TimeDistributed`` into one graph
per frame. The mathematics and the weights are those of the published model.
Source: specification section 6.
"""

from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from common.files import InputError
from common.limits import check_size
from network.AttentionLayer import ChannelAttention, LSTMAttentionLayer, SimAM, SpatialAttention

LEAKY_SLOPE = 0.3
SPATIAL_ATTENTION = ("none", "simam", "channel", "spatial", "cbam")
TEMPORAL_ATTENTION = ("lstm", "dense", "none")
MIXED_PRECISION = {"off": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


@dataclass(frozen=True)
class Architecture:
    """Everything that defines the network; stored in config.json under the same names."""

    num_frames: int = 168
    height: int = 128
    width: int = 128
    num_classes: int = 3
    num_rnn_units: int = 64  # per direction
    num_filters: int = 64
    num_blocks: int = 5
    kernel_init: str = "glorot_uniform"
    spatial_attention: str = "none"
    temporal_attention: str = "lstm"
    dropout: float = 0.2
    mixed_precision: str = "off"
    grad_checkpoint: bool = False

    def to_json(self) -> dict:
        """Return the settings as plain values."""
        return asdict(self)


class AttentionBiLSTM:
    """The network and its parts, which share their weights.

    Attributes:
        architecture: the settings it is built from.
        model: frames (B, F, H, W, 1) -> probabilities (B, K), or (B, 1) for two states.
        frame_encoder: one frame (B, H, W, 1) -> last activation (B, h, w, C), the Grad-CAM layer.
        head: features (B, F, C) -> dict of probs (B, K), logits (B, K), weights (B, 1, F),
            context (B, 1, D) and sequence (B, F, D). Without temporal attention there are no
            weights.
    """

    def __init__(self, architecture: Architecture, *, seed: int | None = None):
        self.architecture = architecture
        self._seeds = np.random.SeedSequence(seed if seed is not None else None)
        policy = keras.DTypePolicy(MIXED_PRECISION[architecture.mixed_precision])
        a = architecture
        self.frame_encoder = self._build_encoder(policy)
        filters = self.frame_encoder.output_shape[-1]
        self.head = self._build_head(filters, policy)
        movie = keras.Input((a.num_frames, a.height, a.width, 1), name="frames")
        folded = ops.reshape(movie, (-1, a.height, a.width, 1))  # (B F, H, W, 1)
        activation = self.frame_encoder(folded)  # (B F, h, w, C)
        pooled = keras.layers.GlobalAveragePooling2D(name="gap", dtype=policy)(
            activation
        )  # (B F, C)
        features = ops.reshape(pooled, (-1, a.num_frames, filters))  # (B, F, C)
        self.model = keras.Model(movie, self.head(features)["probs"], name="attention_bilstm")
        self._features = tf.function(self._pooled, reduce_retracing=True)
        self._encoder = tf.function(self._activation, reduce_retracing=True)
        self._outputs = tf.function(self._head_outputs, reduce_retracing=True)
        self._slopes = tf.function(self._head_gradients, reduce_retracing=True)

    def _seed(self) -> int:
        """Return the next seed of an explicit sequence, so that nothing draws from global state."""
        return int(self._seeds.spawn(1)[0].generate_state(1)[0] % (2**31 - 1))

    def _build_encoder(self, policy) -> keras.Model:
        a = self.architecture
        frame = x = keras.Input((a.height, a.width, 1), name="frame")
        initializer = {
            "glorot_uniform": keras.initializers.GlorotUniform,
            "he_normal": keras.initializers.HeNormal,
        }
        make = initializer[a.kernel_init]
        for block in range(1, a.num_blocks + 1):
            scope = keras.RematScope(mode="full" if a.grad_checkpoint else None)
            with scope:
                for number in (1, 2):
                    x = keras.layers.Conv2D(
                        a.num_filters,
                        3,
                        padding="same",
                        kernel_initializer=make(self._seed()),
                        name=f"block{block}_conv{number}",
                        dtype=policy,
                    )(x)
                    x = keras.layers.LeakyReLU(
                        LEAKY_SLOPE, name=f"block{block}_relu{number}", dtype=policy
                    )(x)
            if a.spatial_attention == "simam":
                x = SimAM(name=f"block{block}_simam", dtype=policy)(x)
            if a.spatial_attention in ("channel", "cbam"):
                x = ChannelAttention(seed=self._seed(), name=f"block{block}_channel", dtype=policy)(
                    x
                )
            if a.spatial_attention in ("spatial", "cbam"):
                x = SpatialAttention(seed=self._seed(), name=f"block{block}_spatial", dtype=policy)(
                    x
                )
            if block < a.num_blocks:
                x = keras.layers.MaxPooling2D(
                    2, padding="same", name=f"block{block}_pool", dtype=policy
                )(x)
        return keras.Model(frame, x, name="frame_encoder")

    def _build_head(self, filters: int, policy) -> keras.Model:
        a = self.architecture
        features = keras.Input((a.num_frames, filters), name="features")

        def direction(name, backwards):
            return keras.layers.LSTM(
                a.num_rnn_units,
                return_sequences=True,
                return_state=True,
                go_backwards=backwards,
                dropout=a.dropout,
                seed=self._seed(),
                kernel_initializer=keras.initializers.GlorotUniform(self._seed()),
                recurrent_initializer=keras.initializers.Orthogonal(seed=self._seed()),
                name=name,
                dtype=policy,
            )

        sequence, forward_h, _, backward_h, _ = keras.layers.Bidirectional(
            direction("forward", False),
            backward_layer=direction("backward", True),
            name="bilstm",
            dtype=policy,
        )(features)  # (B, F, D), four states (B, u)
        query = keras.layers.Concatenate(name="final_state", dtype=policy)(
            [forward_h, backward_h]
        )  # (B, D)
        outputs = {"sequence": sequence}
        if a.temporal_attention == "none":
            summary = query
        else:
            scoring = "scale" if a.temporal_attention == "lstm" else "dense"
            attention = LSTMAttentionLayer(scoring, self._seed(), name="attention", dtype="float32")
            outputs["context"], outputs["weights"] = attention(
                [query, sequence]
            )  # (B, 1, D), (B, 1, F)
            summary = keras.layers.Flatten(name="flatten")(outputs["context"])  # (B, D)
        summary = keras.layers.Dropout(a.dropout, seed=self._seed(), name="dropout")(summary)
        outputs["logits"] = keras.layers.Dense(
            1 if a.num_classes == 2 else a.num_classes,
            kernel_initializer=keras.initializers.GlorotUniform(self._seed()),
            name="classes",
            dtype="float32",
        )(summary)  # (B, K)
        activation = "sigmoid" if a.num_classes == 2 else "softmax"
        outputs["probs"] = keras.layers.Activation(activation, name="probs", dtype="float32")(
            outputs["logits"]
        )
        return keras.Model(features, outputs, name="head")

    def _activation(self, frames):
        return self.frame_encoder(frames, training=False)

    def _pooled(self, frames):
        # In float32: tf.reduce_mean of float16 sums in half precision, which ends at 65504.
        activation = tf.cast(self.frame_encoder(frames, training=False), tf.float32)
        return tf.reduce_mean(activation, axis=(1, 2))

    def _head_outputs(self, features):
        return self.head(features, training=False)

    def _head_gradients(self, activation, picked, sign, from_probs):
        with tf.GradientTape() as tape:
            tape.watch(activation)
            outputs = self.head(tf.reduce_mean(activation, axis=(2, 3)), training=False)
            value = tf.where(from_probs, outputs["probs"], outputs["logits"])
            # Epochs do not interact, so the gradient of the sum holds every epoch's own gradient.
            total = tf.reduce_sum(sign * tf.reduce_sum(value * picked, axis=1))
        return tape.gradient(total, activation)

    def _in_chunks(self, function, frames: np.ndarray, frame_chunk: int) -> np.ndarray:
        """Apply ``function`` to frames (B, F, H, W), ``frame_chunk`` at a time: (B, F, ...)
        float32.
        """
        folded = np.ascontiguousarray(frames).reshape(-1, *frames.shape[2:], 1)
        starts = range(0, len(folded), frame_chunk)
        parts = [function(tf.constant(folded[i : i + frame_chunk])).numpy() for i in starts]
        whole = np.concatenate(parts).astype(np.float32, copy=False)
        return whole.reshape(*frames.shape[:2], *whole.shape[1:])

    def features(self, frames: np.ndarray, frame_chunk: int) -> np.ndarray:
        """Encode frames (B, F, H, W), ``frame_chunk`` at a time, to features (B, F, C)."""
        return self._in_chunks(self._features, frames, frame_chunk)

    def activations(self, frames: np.ndarray, frame_chunk: int) -> np.ndarray:
        """Return the last activation of every frame of frames (B, F, H, W): (B, F, h, w, C)
        float32.
        """
        return self._in_chunks(self._encoder, frames, frame_chunk)

    def infer(self, frames: np.ndarray, frame_chunk: int = 42) -> dict[str, np.ndarray]:
        """Run the network without dropout on frames (B, F, H, W); return the outputs of ``head``.

        The memory needed grows with ``frame_chunk``, not with the length of the input.
        """
        return self.from_features(self.features(frames, frame_chunk))

    def from_features(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Run the head without dropout on features (B, F, C); return its outputs as arrays."""
        outputs = self._outputs(tf.constant(features))
        return {key: value.numpy() for key, value in outputs.items()}

    def gradients(self, activation: np.ndarray, chosen: np.ndarray, target: str) -> np.ndarray:
        """Differentiate one output per epoch with respect to the last activation.

        Args:
            activation: (B, F, h, w, C).
            chosen: (B,) int state whose output is differentiated. For two states 0 stands for the
                complement (1 - p, or minus the logit).
            target: "prob" or "logit".

        Returns:
            gradients (B, F, h, w, C).
        """
        if self.architecture.num_classes == 2:
            picked = np.ones((len(chosen), 1), np.float32)
            sign = np.where(chosen == 1, 1, -1).astype(np.float32)
        else:
            picked = np.eye(self.architecture.num_classes, dtype=np.float32)[chosen]
            sign = np.ones(len(chosen), np.float32)
        return self._slopes(
            tf.constant(activation), picked, sign, tf.constant(target == "prob")
        ).numpy()


def build(architecture: Architecture, *, seed: int | None = None) -> AttentionBiLSTM:
    """Build the network with initial weights drawn from ``seed``.

    Raises:
        InputError: a frame is too small for the number of blocks, or the network for no memory.
    """
    a = architecture
    weights = 18 * a.num_blocks * a.num_filters**2 + 10 * a.num_rnn_units * (
        a.num_filters + a.num_rnn_units
    )
    frames = a.num_frames * a.height * a.width
    check_size(4 * (weights + frames), "the network of these settings", "give smaller numbers")
    if min(architecture.height, architecture.width) < 2 ** (architecture.num_blocks - 1):
        raise InputError(
            f"frames of {architecture.height} x {architecture.width} pixels are too small for "
            f"{architecture.num_blocks} blocks: lower --num_blocks"
        )
    return AttentionBiLSTM(architecture, seed=seed)
