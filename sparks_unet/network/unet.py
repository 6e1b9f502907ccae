"""The published 3D U-Net (``pablos_unet``): its parameter names are those of the released weights.

Letters: B batch, C channels, T frames, H rows, W columns, n levels.

Source: specification section 6.1; Ronneberger et al. 2015, Cicek et al. 2016.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from network.fast_layers import padded_convolution, upsample

# Least number of frames of the finest level that are computed at a time without gradients.
SLAB_FRAMES = 40


class BatchNorm(nn.BatchNorm3d):
    """Batch normalisation that trains faster once its statistics are fixed.

    Channels-last on a CPU, PyTorch's backward pass of fixed statistics takes twice as long as that
    of the same scale and shift.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, T, H, W) to the same shape."""
        if self.training or not torch.is_grad_enabled():
            return super().forward(x)
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)  # (C,)
        shift = self.bias - self.running_mean * scale  # (C,)
        return torch.addcmul(shift.view(1, -1, 1, 1, 1), x, scale.view(1, -1, 1, 1, 1))


class Block(nn.Module):
    """Two convolutions, each followed by ReLU and then the norm (or an identity in its place)."""

    def __init__(self, channels_in, channels_out, *, padding, dilation, batch_norm):
        super().__init__()

        def convolution(before):
            return nn.Conv3d(before, channels_out, 3, padding=padding, dilation=dilation)

        def norm():
            return BatchNorm(channels_out) if batch_norm else nn.Identity()

        # Faithful: the norm comes after the ReLU, and the identity keeps its index, so that the
        # convolutions are layers.0 and layers.3 with and without norm.
        self.layers = nn.Sequential(
            *(convolution(channels_in), nn.ReLU(inplace=True), norm()),
            *(convolution(channels_out), nn.ReLU(inplace=True), norm()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T', H', W')."""
        if torch.is_grad_enabled() or self.training:
            return self.layers(x)
        for layer in self.layers:
            x = padded_convolution(x, layer) if isinstance(layer, nn.Conv3d) else layer(x)
        return x


def time_slabs(frames: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first, last, low, high): frames to compute first..last need the input low..high.

    The slabs have about equal lengths of at least SLAB_FRAMES; low and high are even.
    """
    count = max(1, frames // SLAB_FRAMES)
    edges = [2 * round(frames * n / count / 2) for n in range(count)] + [frames]
    for first, last in itertools.pairwise(edges):
        yield first, last, max(0, first - halo), min(frames, last + halo)


def centre_crop(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Crop the last axes of ``x`` to ``size``, starting at floor((a - b) / 2)."""
    for axis, wanted in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - wanted) // 2, wanted)
    return x


class UNet(nn.Module):
    """U-Net of n max-poolings; the number of channels doubles with each.

    Args:
        channels_in: channels of the input.
        classes: channels of the output.
        steps: number n of poolings.
        first_channels: channels of the first level.
        dilation: dilation of the 3x3x3 convolutions.
        border_mode: ``same`` (padding = dilation) or ``valid`` (no padding).
        batch_norm: batch normalisation after each ReLU.
    """

    def __init__(
        self,
        channels_in,
        classes,
        *,
        steps,
        first_channels,
        dilation=1,
        border_mode="same",
        batch_norm=False,
    ):
        super().__init__()
        settings = {
            "padding": dilation if border_mode == "same" else 0,
            "dilation": dilation,
            "batch_norm": batch_norm,
        }
        # frames that two convolutions reach into, 0 without padding: no slabs then
        self.halo = 2 * dilation if border_mode == "same" else 0
        widths = [first_channels * 2**level for level in range(steps + 1)]
        # The order of construction fixes the random numbers each layer draws (parity file
        # unet_steps6_seeded): encoder, then transposed convolution and block of each level.
        befores = [channels_in, *widths[:-1]]
        self.down_path = nn.ModuleList(
            Block(before, after, **settings) for before, after in zip(befores, widths, strict=True)
        )
        self.up_path = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up_path.append(nn.ConvTranspose3d(2 * width, width, 2, stride=2))
            self.up_path.append(Block(2 * width, width, **settings))
        self.final_layer = nn.Conv3d(first_channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, T, H, W) to logits (B, classes, T', H', W')."""
        # Without gradients the finest level, whose maps are the largest, goes in slabs of frames
        # with the same result in less memory. Borders must be padded for that.
        lean = not (torch.is_grad_enabled() or self.training) and self.halo > 0
        maps = []
        for level, block in enumerate(self.down_path):
            if level:
                x = functional.max_pool3d(x, 2)  # (B, C, T/2, H/2, W/2)
            x = self._encode_in_slabs(x) if lean and not level else block(x)  # (B, 2C, ...)
            maps.append(x)
        maps.pop()
        for up, block in zip(self.up_path[::2], self.up_path[1::2], strict=True):
            skip = maps.pop()
            if lean and not maps and skip.shape[2] == 2 * x.shape[2]:
                return self._decode_in_slabs(x, skip)
            x = upsample(x, up) if lean else up(x)  # (B, C/2, 2T, 2H, 2W)
            x = torch.cat([centre_crop(skip, x.shape[2:]), x], dim=1)  # (B, C, 2T, 2H, 2W)
            del skip
            x = block(x)  # (B, C/2, ...)
        return self.final_layer(x)

    def _encode_in_slabs(self, x):
        """Return the finest encoder block of (B, C, T, H, W), slab by slab."""
        output = x.new_empty(len(x), self.final_layer.in_channels, *x.shape[2:])
        for first, last, low, high in time_slabs(x.shape[2], self.halo):
            part = self.down_path[0](x[:, :, low:high])
            output[:, :, first:last] = part[:, :, first - low : last - low]
        return output

    def _decode_in_slabs(self, x, skip):
        """Return the logits from (B, 2C, T/2, H/2, W/2) and the finest skip, slab by slab."""
        up_layer, block = self.up_path[-2:]
        output = x.new_empty(len(x), self.final_layer.out_channels, *skip.shape[2:])
        for first, last, low, high in time_slabs(skip.shape[2], self.halo):
            up = upsample(x[:, :, low // 2 : high // 2], up_layer)
            up = torch.cat([centre_crop(skip[:, :, low:high], up.shape[2:]), up], dim=1)
            part = self.final_layer(block(up))
            output[:, :, first:last] = part[:, :, first - low : last - low]
        return output
