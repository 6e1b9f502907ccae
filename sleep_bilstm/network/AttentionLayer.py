"""Attention layers of the published network: over time (LSTM attention) and over space (SimAM,
CBAM).

B batch, F frames, D = 2u features of the bidirectional LSTM, H x W pixels, C channels.
Sub-layers are made in ``build``, so that a reloaded layer owns its weights before the first call.
Source: specification sections 6.2 and 6.3.
"""

from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class LSTMAttentionLayer(keras.layers.Layer):
    """Additive attention of the final state on all steps.

    Args:
        scoring: "scale": e_t = scale . tanh(W1 h + W2 v_t), no bias (published network);
            "dense": e_t = V tanh(W1 v_t + W2 h) + b (a variant in its history).
        seed: seed of the initial weights.
    """

    def __init__(self, scoring="scale", seed=None, **kwargs):
        super().__init__(**kwargs)
        self.scoring = scoring
        self.seed = seed

    def build(self, input_shape: tuple[tuple[int | None, ...], ...]) -> None:
        """Make the weights for query (B, D) and values (B, F, D)."""
        query_shape, value_shape = input_shape
        units = value_shape[-1]

        def dense(name, n, use_bias, offset):
            seed = None if self.seed is None else self.seed + offset
            return keras.layers.Dense(
                n,
                use_bias=use_bias,
                kernel_initializer=keras.initializers.GlorotUniform(seed),
                name=name,
                dtype=self.dtype_policy,
            )

        self.W1 = dense("W1", units, False, 1)
        self.W2 = dense("W2", units, False, 2)
        first, second = (
            (query_shape, value_shape) if self.scoring == "scale" else (value_shape, query_shape)
        )
        self.W1.build(first)
        self.W2.build(second)
        if self.scoring == "scale":
            self.scale = self.add_weight(
                shape=(units,),
                initializer=keras.initializers.GlorotUniform(self.seed),
                name="scale",
            )
        else:
            self.V = dense("V", 1, True, 3)
            self.V.build(value_shape)

    def call(
        self, inputs: Sequence[keras.KerasTensor]
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return context (B, 1, D) and weights (B, 1, F), which sum to 1, of query (B, D) and
        values (B, F, D).
        """
        query, values = inputs
        if self.scoring == "scale":
            hidden = ops.tanh(self.W1(query)[:, None] + self.W2(values))  # (B, F, D)
            scores = ops.sum(self.scale * hidden, axis=-1)  # (B, F)
        else:
            scores = self.V(ops.tanh(self.W1(values) + self.W2(query)[:, None]))[..., 0]  # (B, F)
        weights = ops.softmax(scores, axis=-1)[:, None]  # (B, 1, F)
        return ops.matmul(weights, values), weights

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "scoring": self.scoring, "seed": self.seed}


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class SimAM(keras.layers.Layer):
    """Parameter-free attention: each value is weighted by how far it stands out in its channel."""

    def __init__(self, e_lambda=1e-4, **kwargs):
        super().__init__(**kwargs)
        self.e_lambda = e_lambda

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Weigh x (B, H, W, C); same shape."""
        squares = ops.square(x - ops.mean(x, axis=(1, 2), keepdims=True))
        n = x.shape[1] * x.shape[2] - 1
        variance = ops.sum(squares, axis=(1, 2), keepdims=True) / n
        return x * ops.sigmoid(squares / (4 * (variance + self.e_lambda)) + 0.5)

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "e_lambda": self.e_lambda}


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class ChannelAttention(keras.layers.Layer):
    """Channel half of CBAM: one shared two-layer network scores spatial mean and maximum."""

    def __init__(self, ratio=8, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio
        self.seed = seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the shared network for x (B, H, W, C)."""
        channels = input_shape[-1]

        def dense(name, units, activation, offset):
            seed = None if self.seed is None else self.seed + offset
            return keras.layers.Dense(
                units,
                activation=activation,
                kernel_initializer=keras.initializers.HeNormal(seed),
                name=name,
                dtype=self.dtype_policy,
            )

        hidden = max(1, channels // self.ratio)
        self.shared_layer_one = dense("shared_layer_one", hidden, "relu", 0)
        self.shared_layer_two = dense("shared_layer_two", channels, None, 1)
        self.shared_layer_one.build((None, channels))
        self.shared_layer_two.build((None, hidden))

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Weigh the channels of x (B, H, W, C); same shape."""
        mean, highest = ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2))  # (B, C)
        scores = sum(self.shared_layer_two(self.shared_layer_one(z)) for z in (mean, highest))
        return x * ops.sigmoid(scores)[:, None, None]

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "ratio": self.ratio, "seed": self.seed}


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class SpatialAttention(keras.layers.Layer):
    """Spatial half of CBAM: a convolution over channel mean and maximum scores every pixel."""

    def __init__(self, kernel_size=7, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.seed = seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the convolution for x (B, H, W, C)."""
        self.conv2d = keras.layers.Conv2D(
            1,
            self.kernel_size,
            padding="same",
            use_bias=False,
            activation="sigmoid",
            kernel_initializer=keras.initializers.HeNormal(self.seed),
            name="conv2d",
            dtype=self.dtype_policy,
        )
        self.conv2d.build((*input_shape[:-1], 2))

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Weigh the pixels of x (B, H, W, C); same shape."""
        pair = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
        return x * self.conv2d(ops.concatenate(pair, axis=-1))

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "kernel_size": self.kernel_size, "seed": self.seed}
