"""The two-stream network, the single-stream pre-training network and their optimiser.

``two_stream`` joins a grey and a flow trunk (specification 6.3), ``single_stream`` puts a linear or
softmax head on one trunk (6.4), ``make_optimizer`` is Adam with learning-rate factors (7.4).

Shapes: B clips, T frames, H rows, W columns, F features.
Source: R. Shad et al., Nature Communications 12, 5192 (2021), figure 1.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import keras
from keras import layers

from network.checkpoints import load_weights, read_info
from network.resnet_builder_keras import trunk

if TYPE_CHECKING:  # nothing here needs more of it than Keras loads
    import tensorflow as tf

CHANNELS = {"grey": 1, "of": 2}


def two_stream(
    saved_weights: Path | None = None,
    *,
    input_size: tuple[int, int, int] = (32, 112, 112),
    depth: int = 152,
    width: int = 64,
    reg_factor: float = 1e-4,
) -> keras.Model:
    """Return the late-fusion model: grey (B,T,H,W,1), of (B,T,H,W,2) -> probability (B, 1).

    Args:
        saved_weights: ``*.weights.h5`` with its ``.json``, from which the other arguments are then
            taken; None builds a model with fresh weights.
        input_size: (frames, rows, columns) of a clip.
        depth: 18, 34, 50, 101 or 152 (published: 152).
        width: filters of the stem (published: 64).
        reg_factor: L2 penalty on every convolution kernel.
    """
    if saved_weights is not None:
        info = read_info(saved_weights, kind="two_stream")
        model = two_stream(
            input_size=info["input_size"],
            depth=info["depth"],
            width=info["width"],
            reg_factor=info.get("reg_factor", reg_factor),
        )
        load_weights(model, saved_weights)
        return model
    inputs = {
        stream: keras.Input((*input_size, n_channels), name=stream)
        for stream, n_channels in CHANNELS.items()
    }
    features = [
        trunk(clips, stream, depth, width=width, reg_factor=reg_factor)
        for stream, clips in inputs.items()
    ]
    joined = layers.Concatenate(name="concat")(features)  # (B, 2 F)
    # The head stays float32 in mixed precision: a half-precision sigmoid saturates.
    head = layers.Dense(1, activation="sigmoid", dtype="float32", name="preds")
    return keras.Model(list(inputs.values()), head(joined), name="two_stream")


def single_stream(
    stream: str,
    *,
    input_size: tuple[int, int, int] = (32, 112, 112),
    depth: int = 152,
    width: int = 64,
    reg_factor: float = 1e-4,
    n_classes: int = 0,
) -> keras.Model:
    """Return the pre-training model of one stream: clips (B,T,H,W,C) -> (B, max(1, n_classes)).

    Args:
        stream: ``grey`` (C = 1) or ``of`` (C = 2).
        n_classes: 0 for regression (linear head), else the softmax's number of classes.
    """
    clips = keras.Input((*input_size, CHANNELS[stream]), name=stream)
    features = trunk(clips, stream, depth, width=width, reg_factor=reg_factor)
    head = layers.Dense(
        max(1, n_classes),
        activation="softmax" if n_classes else "linear",
        dtype="float32",
        name="preds",
    )
    return keras.Model(clips, head(features), name=f"{stream}_stream")


def lr_factors(variables: list, lr_weight: dict[str, float]) -> dict[str, float]:
    """Return {path: factor} for the variables that a key of ``lr_weight`` matches.

    A key matches a variable whose path contains it; the published key ``conv3d`` stands for all
    convolution kernels and their biases. When several keys match, the last one counts.
    """
    convolutions = {v.path.rsplit("/", 1)[0] for v in variables if len(v.shape) == 5}
    factors = {}
    for key, factor in lr_weight.items():
        for variable in variables:
            layer = variable.path.rsplit("/", 1)[0]
            if key in variable.path or (key == "conv3d" and layer in convolutions):
                factors[variable.path] = float(factor)
    return factors


class FactorAdam(keras.optimizers.Adam):
    """Adam whose learning rate is multiplied per variable.

    Differs: the published optimiser multiplies the factors cumulatively over the parameter list
    and lets its step counter race with the update; here each factor stands alone.
    """

    def __init__(self, *args, factors=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.factors = factors or {}

    def update_step(
        self, gradient: "tf.Tensor", variable: "tf.Variable", learning_rate: "tf.Tensor"
    ) -> None:
        # A plain TensorFlow variable has no path: the Keras variable is found by its index.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        super().update_step(gradient, variable, learning_rate * self.factors.get(path, 1.0))


def make_optimizer(
    model: keras.Model,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    lr_weight: dict[str, float] | None = None,
    weight_decay: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Return Adam (0.9, 0.999, 1e-7), built for ``model``, in a loss scaler under float16.

    Args:
        learning_rate: number or ``LearningRateSchedule``.
        lr_weight: see ``lr_factors``; factors of 1 change nothing.
        weight_decay: decoupled decay per step; 0 as in the published runs (specification 7.4).
    """
    variables = model.trainable_variables
    factors = lr_factors(variables, lr_weight or {})
    optimizer = FactorAdam(
        learning_rate,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        weight_decay=weight_decay or None,
        factors={path: factor for path, factor in factors.items() if factor != 1.0},
    )
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
