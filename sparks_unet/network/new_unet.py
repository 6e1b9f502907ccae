"""The U-Net with more options (``github_unet``): norms, ways of upsampling, grid attention gates.

Letters: B batch, C channels, T frames, H rows, W columns.

Source: specification section 6.3; layout of ELEKTRONN3's 3D U-Net; attention gates of Oktay et al.
2018.
"""

import torch
from torch import nn
from torch.nn import functional

DEFAULT_GROUPS = 8


def make_norm(name: str, channels: int) -> nn.Module:
    """Return the layer of ``name``: none, batch, instance, group (8 groups) or group<N>."""
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm3d(channels)
    if name == "instance":
        return nn.InstanceNorm3d(channels)
    groups = name.removeprefix("group")
    return nn.GroupNorm(int(groups) if groups else DEFAULT_GROUPS, channels)


class DownBlock(nn.Module):
    """Two convolutions with norm before the activation, then a pooling that rounds sizes up."""

    def __init__(self, channels_in, channels_out, *, pooling, padding, normalization):
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, padding=padding)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=padding)
        self.norm0 = make_norm(normalization, channels_out)
        self.norm1 = make_norm(normalization, channels_out)
        self.pooling = pooling

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, C_in, T, H, W) to (pooled map, map before pooling)."""
        x = functional.relu(self.norm0(self.conv1(x)))
        skip = functional.relu(self.norm1(self.conv2(x)))
        return (functional.max_pool3d(skip, 2, ceil_mode=True) if self.pooling else skip), skip


class ResizeConv(nn.Module):
    """Upsampling by 2 (nearest or trilinear) followed by a convolution."""

    def __init__(self, channels_in, channels_out, up_mode):
        super().__init__()
        size = 1 if up_mode.endswith("1") else 3
        self.mode = "nearest" if "nearest" in up_mode else "trilinear"
        self.conv = nn.Conv3d(channels_in, channels_out, size, padding=size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, T, H, W) to (B, C_out, 2T, 2H, 2W)."""
        return self.conv(functional.interpolate(x, scale_factor=2, mode=self.mode))


class AttentionGate(nn.Module):
    """Grid attention: weigh the skip by a map computed from it and from the coarser level.

    ``attention_map`` holds the last map (B, 1, T, H, W) in 0..1, detached, for display.
    """

    def __init__(self, channels):
        super().__init__()
        inner = max(1, channels // 2)
        self.w = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels))
        self.theta = nn.Conv3d(channels, inner, 2, stride=2, bias=False)
        self.phi = nn.Conv3d(2 * channels, inner, 1)
        self.psi = nn.Conv3d(inner, 1, 1)
        self.attention_map = None

    def forward(self, skip: torch.Tensor, gating: torch.Tensor) -> torch.Tensor:
        """Weigh ``skip`` (B, C, T, H, W) by the map that ``gating`` (B, 2C, T/2, ...) asks for."""
        theta = self.theta(skip)  # (B, C/2, T/2, H/2, W/2)
        phi = functional.interpolate(self.phi(gating), size=theta.shape[2:], mode="trilinear")
        weights = torch.sigmoid(self.psi(functional.relu(theta + phi)))  # (B, 1, T/2, H/2, W/2)
        weights = functional.interpolate(weights, size=skip.shape[2:], mode="trilinear")
        self.attention_map = weights.detach()
        return self.w(weights * skip)


def crop_pair(upsampled: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring both maps to one size: drop the odd last element, centre-crop the skip."""
    for axis in range(2, upsampled.dim()):
        up, down = upsampled.shape[axis], skip.shape[axis]
        if (up - down) % 2:
            up -= 1
            upsampled = upsampled.narrow(axis, 0, up)
        skip = skip.narrow(axis, (down - up) // 2, up)
    return upsampled, skip


class UpBlock(nn.Module):
    """Upsampling, concatenation with the (gated) skip, two convolutions."""

    def __init__(self, channels_in, channels_out, *, padding, normalization, up_mode, attention):
        super().__init__()
        if up_mode == "transpose":
            self.upconv = nn.ConvTranspose3d(channels_in, channels_out, 2, stride=2)
        else:
            self.upconv = ResizeConv(channels_in, channels_out, up_mode)
        self.conv1 = nn.Conv3d(2 * channels_out, channels_out, 3, padding=padding)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=padding)
        self.norm0 = make_norm(normalization, channels_out)
        self.norm1 = make_norm(normalization, channels_out)
        self.norm2 = make_norm(normalization, channels_out)
        self.attention = AttentionGate(channels_out) if attention else None

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Join ``x`` (B, C_in, T, H, W), upsampled, with ``skip``; returns (B, C_out, ...)."""
        upsampled, skip = crop_pair(self.upconv(x), skip)
        if self.attention is not None:
            skip = self.attention(skip, x)
        x = functional.relu(self.norm0(upsampled))
        x = torch.cat([x, skip], dim=1)  # (B, 2 C_out, ...)
        x = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(x)))


class UNet(nn.Module):
    """U-Net of ``n_blocks`` levels that returns log-probabilities.

    Args:
        channels_in: channels of the input.
        classes: channels of the output.
        n_blocks: number of levels (unet_steps + 1).
        start_filts: channels of the first level.
        up_mode: transpose, resizeconv_nearest, resizeconv_linear, or these two with a 1 at the end
            (1x1x1 convolution).
        normalization: none, batch, instance, group, group<N>.
        conv_mode: same or valid.
        attention: a gate on every skip.
    """

    def __init__(
        self,
        channels_in,
        classes,
        *,
        n_blocks,
        start_filts,
        up_mode="transpose",
        normalization="none",
        conv_mode="same",
        attention=False,
    ):
        super().__init__()
        common = {"padding": 1 if conv_mode == "same" else 0, "normalization": normalization}
        widths = [start_filts * 2**level for level in range(n_blocks)]
        befores = [channels_in, *widths[:-1]]
        self.down_convs = nn.ModuleList(
            DownBlock(before, after, pooling=after != widths[-1], **common)
            for before, after in zip(befores, widths, strict=True)
        )
        self.up_convs = nn.ModuleList(
            UpBlock(2 * width, width, up_mode=up_mode, attention=attention, **common)
            for width in reversed(widths[:-1])
        )
        self.conv_final = nn.Conv3d(start_filts, classes, 1)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, T, H, W) to log-probabilities (B, classes, T', H', W')."""
        skips = []
        for block in self.down_convs:
            x, skip = block(x)
            skips.append(skip)
        skips.pop()
        for block in self.up_convs:
            x = block(skips.pop(), x)
        return functional.log_softmax(self.conv_final(x), dim=1)


def _initialise(module):
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, AttentionGate):
        nn.init.normal_(module.w[1].weight, 1.0, 0.02)
        nn.init.zeros_(module.w[1].bias)
