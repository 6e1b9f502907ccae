"""3D pre-activation residual networks of depth 18, 34, 50, 101 and 152 (specification 6.1).

``trunk`` turns one stream of clips into a feature vector; ``Resnet3DBuilder`` puts the published
classification head on it. Layers are named ``<stream>_<layer>`` (specification 6.5), so that
weights can be handed over by name.

Shapes: B clips, T frames, H rows, W columns, C channels, F features.

This module also runs under Keras 2.14, in the environment of ``innvestigate_worker.py``.
Source: K. He et al., Identity mappings in deep residual networks (2016), in three dimensions.
"""

# Keras 2.14 has no keras.KerasTensor: the hints must stay text.
from __future__ import annotations

import functools
import math

import keras
from keras import layers

BLOCKS = {  # depth: blocks of the four stages
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_DEPTHS = (50, 101, 152)


def bn_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Normalise over the batch, then rectify; ``name`` is the prefix of both layers."""
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def conv3d(
    x: keras.KerasTensor,
    filters: int,
    size: int | tuple[int, int, int],
    name: str,
    *,
    stride: int | tuple[int, int, int] = 1,
    reg_factor: float = 1e-4,
    padding: str = "same",
) -> keras.KerasTensor:
    """Convolve with bias, he_normal kernel and L2 penalty ``reg_factor * sum(kernel ** 2)``.

    ``same`` is TensorFlow's rule: of an odd total padding the smaller half lies in front.
    """
    return layers.Conv3D(
        filters,
        size,
        strides=stride,
        padding=padding,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(reg_factor),
        name=name,
    )(x)


def shortcut(
    x: keras.KerasTensor, residual: keras.KerasTensor, name: str, reg_factor: float
) -> keras.KerasTensor:
    """Return ``x`` itself, or its 1x1x1 projection where shape or channels of ``residual`` differ.

    Faithful: the projection sees the block's raw input and has no batch norm.
    """
    strides = [math.ceil(a / b) for a, b in zip(x.shape[1:4], residual.shape[1:4], strict=True)]
    if max(strides) == 1 and x.shape[-1] == residual.shape[-1]:
        return x
    return conv3d(
        x,
        residual.shape[-1],
        1,
        f"{name}_short",
        stride=tuple(strides),
        reg_factor=reg_factor,
        padding="valid",
    )


def residual_block(
    x: keras.KerasTensor,
    filters: int,
    name: str,
    *,
    stride: int | tuple[int, int, int],
    bottleneck: bool,
    bare_start: bool,
    reg_factor: float,
) -> keras.KerasTensor:
    """Add to ``x`` two 3x3x3 convolutions, or 1x1x1, 3x3x3, 1x1x1 (``bottleneck``).

    Args:
        x: (B, T, H, W, C).
        filters: filters of the block; a bottleneck ends in four times as many.
        name: ``<stream>_s<stage>b<block>``.
        stride: stride of the first convolution, on all three axes.
        bottleneck: True for depths 50 and more.
        bare_start: leave out the first batch norm and ReLU (very first block of a network).
        reg_factor: L2 penalty.
    """
    if bottleneck:
        plan = ((filters, 1, stride), (filters, 3, 1), (4 * filters, 1, 1))
    else:
        plan = ((filters, 3, stride), (filters, 3, 1))
    y = x
    for index, (n_filters, size, step) in enumerate(plan, start=1):
        if not (bare_start and index == 1):
            y = bn_relu(y, f"{name}_pre{index}")
        y = conv3d(y, n_filters, size, f"{name}_conv{index}", stride=step, reg_factor=reg_factor)
    return layers.Add(name=f"{name}_add")([shortcut(x, y, name, reg_factor), y])


def trunk(
    x: keras.KerasTensor, stream: str, depth: int, *, width: int = 64, reg_factor: float = 1e-4
) -> keras.KerasTensor:
    """Turn clips (B, T, H, W, C) into features (B, F), F = 8 width (32 width for bottlenecks).

    Args:
        x: input tensor of the stream.
        stream: ``grey`` or ``of``, the prefix of all layer names.
        depth: 18, 34, 50, 101 or 152.
        width: filters of the stem; the stages have width times 1, 2, 4, 8.
        reg_factor: L2 penalty on every convolution kernel.
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth {depth} does not exist, choose one of {sorted(BLOCKS)}")
    x = conv3d(x, width, 7, f"{stream}_stem_conv", stride=2, reg_factor=reg_factor)
    x = bn_relu(x, f"{stream}_stem")
    x = layers.MaxPooling3D(3, strides=2, padding="same", name=f"{stream}_stem_pool")(x)
    for stage, n_blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(1, n_blocks + 1):
            x = residual_block(
                x,
                width * 2 ** (stage - 1),
                f"{stream}_s{stage}b{block}",
                stride=2 if stage > 1 and block == 1 else 1,
                bottleneck=depth in BOTTLENECK_DEPTHS,
                bare_start=stage == 1 and block == 1,
                reg_factor=reg_factor,
            )
    x = bn_relu(x, f"{stream}_final")
    x = layers.GlobalAveragePooling3D(keepdims=True, name=f"{stream}_pool")(x)  # (B, 1, 1, 1, F)
    return layers.Flatten(name=f"{stream}_flat")(x)  # (B, F)


def build(
    depth: int,
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    width: int = 64,
    reg_factor: float = 1e-4,
    stream: str = "grey",
) -> keras.Model:
    """Return a model with the published head: softmax, or sigmoid when ``num_outputs`` is 1.

    Args:
        depth: 18, 34, 50, 101 or 152.
        input_shape: (T, H, W, C).
        num_outputs: number of classes.
        width, reg_factor, stream: as in ``trunk``.
    """
    clips = keras.Input(input_shape, name=stream)
    features = trunk(clips, stream, depth, width=width, reg_factor=reg_factor)
    activation = "softmax" if num_outputs > 1 else "sigmoid"
    head = layers.Dense(
        num_outputs,
        activation=activation,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(reg_factor),
        dtype="float32",
        name="preds",
    )
    return keras.Model(clips, head(features))


class Resnet3DBuilder:
    """The published names: ``build_resnet_<depth>(input_shape, num_outputs, ...)``."""

    build = staticmethod(build)
    build_resnet_18 = staticmethod(functools.partial(build, 18))
    build_resnet_34 = staticmethod(functools.partial(build, 34))
    build_resnet_50 = staticmethod(functools.partial(build, 50))
    build_resnet_101 = staticmethod(functools.partial(build, 101))
    build_resnet_152 = staticmethod(functools.partial(build, 152))
