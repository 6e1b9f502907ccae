"""Networks by configuration: the padding wrapper, the temporal reduction, ``build_model``.

Letters: B batch, C channels, T frames, H rows, W columns.

Source: specification sections 6.1, 6.2, 6.4, 6.5.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from network import new_unet
from network.unet import UNet
from settings.config import NUM_CLASSES, Params


def _split_padding(size, step):
    """Return (before, after) zeros that bring ``size`` to a multiple of ``step``."""
    total = -size % step
    return total // 2, total - total // 2


class UNetPadWrapper(UNet):
    """The U-Net of the published model for any size: zeros around the input, the output cropped.

    Args:
        pad_time: pad the frames too. Differs: the published wrapper pads rows and columns only and
            returns fewer frames when T is no multiple of 2^steps; ``False`` gives that back.
    """

    def __init__(self, channels_in, classes=NUM_CLASSES, *, pad_time=True, **settings):
        super().__init__(channels_in, classes, **settings)
        self.pad_time = pad_time

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, T, H, W) to log-probabilities (B, classes, T, H, W) (smaller when valid)."""
        step = 2 ** (len(self.down_path) - 1)
        pads = [_split_padding(size, step) for size in x.shape[2:]]
        if not self.pad_time:
            pads[0] = (0, 0)
        # torch wants the last axis first
        x = functional.pad(x, [n for pair in reversed(pads) for n in pair])
        x = super().forward(x)
        for axis, (before, after) in enumerate(pads, start=2):
            x = x.narrow(axis, before, x.shape[axis] - before - after)
        return functional.log_softmax(x, dim=1)


class TempRedUNet(nn.Module):
    """Three leading convolutions divide the number of frames by 4, then the published U-Net."""

    def __init__(self, classes=NUM_CLASSES, *, channels=4, **settings):
        super().__init__()
        self.conv1 = nn.Conv3d(1, 1, 3, padding=1)
        reduce = {"kernel_size": (3, 1, 1), "stride": (2, 1, 1), "padding": (1, 0, 0)}
        self.conv2 = nn.Conv3d(1, 1, **reduce)
        self.conv3 = nn.Conv3d(1, channels, **reduce)
        self.unet = UNetPadWrapper(channels, classes, **settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, T, H, W) to log-probabilities (B, classes, T/4, H, W)."""
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))  # (B, 1, T/2, H, W)
        return self.unet(self.conv3(x))


def build_model(params: Params) -> nn.Module:
    """Return the network of the configuration, drawn from torch's global generator."""
    if params.nn_architecture == "github_unet":
        model = new_unet.UNet(
            params.input_channels,
            NUM_CLASSES,
            n_blocks=params.unet_steps + 1,
            start_filts=params.first_layer_channels,
            up_mode=params.up_mode,
            normalization=params.batch_normalization,
            conv_mode=params.border_mode,
            attention=params.attention,
        )
    else:
        settings = {
            "steps": params.unet_steps,
            "first_channels": params.first_layer_channels,
            "dilation": params.dilation,
            "batch_norm": params.batch_normalization == "batch",
        }
        if params.temporal_reduction:
            model = TempRedUNet(channels=params.num_channels, **settings)
        else:
            model = UNetPadWrapper(
                params.input_channels, border_mode=params.border_mode, **settings
            )
    if params.initialize_weights:
        draw_weights(model)
    return model


def draw_weights(model: nn.Module) -> None:
    """Draw convolution weights from N(0, sqrt(2 / fan_in)); biases stay.

    Differs: the published function of this name touches 2D convolutions only, so that it changes
    nothing in these networks. Published results use the defaults of PyTorch.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            channels = module.weight.shape[1 if isinstance(module, nn.Conv3d) else 0]
            fan_in = channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_in))


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _levels(params):
    convolution = 4 * params.dilation if params.nn_architecture == "pablos_unet" else 4
    return convolution, params.unet_steps


def valid_output_size(size: int, params: Params) -> int:
    """Return the output size along one axis for input ``size``, border_mode = valid; <= 0: none."""
    shrink, steps = _levels(params)
    ceil = params.nn_architecture == "github_unet"
    before, after = (0, 0) if ceil else _split_padding(size, 2**steps)
    size += before + after
    skips = []
    for level in range(steps + 1):
        if level:
            size = -(-size // 2) if ceil else size // 2
        size -= shrink
        if size <= 0:
            return 0
        skips.append(size)
    skips.pop()
    for skip in reversed(skips):
        size *= 2
        if ceil and (size - skip) % 2:
            size -= 1
        size -= shrink
    return size - before - after


def valid_input_size(size: int, params: Params) -> int:
    """Return the smallest input size whose output covers ``size``; border_mode = valid."""
    shrink, steps = _levels(params)
    limit = size + 8 * shrink * 2**steps + 2 ** (steps + 1)
    return next(n for n in range(size, limit) if valid_output_size(n, params) >= size)


def predict_log_probabilities(model: nn.Module, x: torch.Tensor, params: Params) -> torch.Tensor:
    """Run ``model`` on ``x`` (B, C, T, H, W) so that the output has the size of the input.

    With border_mode = valid the input is mirrored outwards (edge not repeated) by half of what the
    network takes away, and the output is centre-cropped.
    """
    if params.border_mode == "same":
        return model(x)
    wanted = x.shape[2:]
    for axis, size in enumerate(wanted, start=2):
        extra = valid_input_size(size, params) - size
        index = np.pad(np.arange(size), (extra // 2, extra - extra // 2), mode="reflect")
        x = x.index_select(axis, torch.from_numpy(index).to(x.device))
    output = model(x)
    for axis, size in enumerate(wanted, start=2):
        output = output.narrow(axis, (output.shape[axis] - size) // 2, size)
    return output
