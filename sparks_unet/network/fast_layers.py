"""Layers of the published U-Net as a processor computes them fastest, with the same numbers.

Letters: B batch, C channels, T frames, H rows, W columns, d dilation.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

# A CPU leaves its fast convolution (oneDNN) for one sample with channels x frames x rows of at
# most this; the route it takes then is 7 to 16 times slower.
FAST_ABOVE = 20480
# Maps of at most this many voxels and at least so many channels are convolved as one matrix
# product: oneDNN takes 1.5 to 2.5 times as long where the weights are larger than the map.
FEW_VOXELS = 512
MANY_CHANNELS = 64


def is_slow(x: torch.Tensor) -> bool:
    """Return whether PyTorch convolves ``x`` (B, C, T, H, W) by its slow route."""
    return x.device.type == "cpu" and len(x) == 1 and x[0, :, :, :, 0].numel() <= FAST_ABOVE


def is_small(x: torch.Tensor) -> bool:
    """Return whether ``x`` (B, C, T, H, W) is convolved fastest as a matrix product."""
    few = x.numel() <= FEW_VOXELS * x.shape[1]
    return few and x.shape[1] >= MANY_CHANNELS and x.device.type == "cpu"


def memory_format(device: torch.device, channels_last: bool = False) -> torch.memory_format:
    """Return the layout of maps in memory: a CPU wants the channels last."""
    last = channels_last or device.type == "cpu"
    return torch.channels_last_3d if last else torch.contiguous_format


def channels_strided(x: torch.Tensor) -> torch.Tensor:
    """Return a map or weight of one channel (B, 1, T, H, W) whose strides say channels-last.

    Of a single channel both layouts are the same values; the strides decide which route is taken.
    """
    size = x.shape
    inner = size[2] * size[3] * size[4]
    return x.contiguous().as_strided(size, (inner, 1, size[3] * size[4], size[4], 1))


def _divisor(number):
    return next((n for n in range(2, number + 1) if number % n == 0), 1)


def convolve(x: torch.Tensor, layer: nn.Conv3d) -> torch.Tensor:
    """Convolve (B, C, T, H, W) without padding of the frames: (B, C', T - 2d, H', W').

    Where one sample would take the slow route, its frames become several samples: windows that
    overlap by what the kernel reaches. Channels-last, their outputs lie in memory one after the
    other, so that they are one sample again without a copy.
    """
    dilation = layer.dilation[0]
    if is_small(x):
        return _as_product(x, layer)
    frames = x.shape[2] - 2 * dilation
    parts = _divisor(frames) if is_slow(x) else 0
    if parts == 1:  # a single frame
        x = x.repeat(2, 1, 1, 1, 1)
    elif parts:
        size = frames // parts
        starts = range(0, frames, size)
        x = torch.cat([x[:, :, start : start + size + 2 * dilation] for start in starts])
    padding = (0, *layer.padding[1:])
    y = functional.conv3d(x, layer.weight, layer.bias, padding=padding, dilation=layer.dilation)
    if parts == 1:
        return y[:1]
    if not parts:
        return y
    y = y.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C), as in memory
    return y.reshape(1, frames, *y.shape[2:]).permute(0, 4, 1, 2, 3)


def padded_convolution(x: torch.Tensor, layer: nn.Conv3d) -> torch.Tensor:
    """Return ``layer(x)``, with the padding of the layer, by the fast route."""
    if not (is_slow(x) or is_small(x)):
        return layer(x)
    frames = layer.padding[0]
    return convolve(functional.pad(x, (0, 0, 0, 0, frames, frames)) if frames else x, layer)


def _as_product(x, layer):
    """Return ``convolve`` as a product of the matrix of all neighbourhoods with the weights."""
    dilation, (rows, columns) = layer.dilation[0], layer.padding[1:]
    x = functional.pad(x.permute(0, 2, 3, 4, 1), (0, 0, columns, columns, rows, rows))
    for axis in (1, 2, 3):
        x = x.unfold(axis, 2 * dilation + 1, 1)[..., ::dilation]
    # (B, T', H', W', C, 3, 3, 3) to rows of kernel positions with the channels last
    size = x.shape[:4]
    x = x.permute(0, 1, 2, 3, 5, 6, 7, 4).reshape(size.numel(), -1)
    weight = layer.weight.permute(0, 2, 3, 4, 1).reshape(layer.out_channels, -1)
    x = x @ weight.t() if layer.bias is None else torch.addmm(layer.bias, x, weight.t())
    return x.view(*size, -1).permute(0, 4, 1, 2, 3)


def run_block(
    layers: nn.Sequential, inputs: list, *, first: int = 0, last: int, frames: int
) -> torch.Tensor:
    """Return frames ``first`` to ``last`` of a block of a map that has ``frames`` frames.

    Args:
        layers: convolution, ReLU, norm, convolution, ReLU, norm; its frames are zero padded.
        inputs: list, emptied, of (convolution, map) whose results are added: one, or the ``halves``
            of the first convolution. Maps (B, C, T, H, W): frames max(0, first - 2d) to
            min(frames, last + 2d).
        first, last: wanted frames.
        frames: frames of the whole map, beyond which it is padded with zeros.

    Returns:
        (B, C', last - first, H, W).
    """
    dilation = layers[0].dilation[0]
    total, ends = None, (first, frames - last)  # from the wanted frames to the borders of the map
    for start in (0, 3):
        reach = dilation if start else 2 * dilation
        pads = [min(dilation, max(0, reach - distance)) for distance in ends]
        while inputs:  # taken out, so that a map is freed once it is used
            convolution, x = inputs.pop(0)
            if any(pads):
                x = functional.pad(x, (0, 0, 0, 0, *pads))
            x = convolve(x, convolution)
            total = x if total is None else total.add_(x)
            del x
        inputs, total = [(layers[3], layers[start + 2](total.relu_()))], None
    return inputs[0][1]


def halves(layer: nn.Conv3d) -> tuple[nn.Conv3d, nn.Conv3d]:
    """Return two convolutions, of the first and the second half of the channels, that add up.

    Two maps need not be copied into one, which costs more than the addition.
    """
    parts = []
    half = layer.in_channels // 2
    for part, bias in ((slice(0, half), layer.bias), (slice(half, None), None)):
        one = nn.Conv3d(
            *(half, layer.out_channels, layer.kernel_size),
            padding=layer.padding,
            dilation=layer.dilation,
            bias=False,
            device="meta",
        )
        weight = layer.weight[:, part]
        layout = memory_format(weight.device)
        one.weight = nn.Parameter(weight.contiguous(memory_format=layout), requires_grad=False)
        one.bias = bias
        parts.append(one)
    return tuple(parts)


def pool(x: torch.Tensor) -> torch.Tensor:
    """Halve frames, rows and columns of (B, C, T, H, W), even in all of them, by the maximum.

    Three maxima along one axis each: a quarter of the time of ``max_pool3d``, which also notes
    where each maximum lies.
    """
    for axis in (2, 3, 4):
        x = torch.maximum(*x.unflatten(axis, (-1, 2)).unbind(axis + 1))
    return x


def upsample(x: torch.Tensor, layer: nn.ConvTranspose3d) -> torch.Tensor:
    """Double frames, rows and columns: (B, 2C, T, H, W) to (B, C, 2T, 2H, 2W)."""
    if not is_slow(x):
        return layer(x)
    if x.shape[2] == 1:
        return layer(x.repeat(2, 1, 1, 1, 1))[:1]
    y = layer(x.transpose(0, 2))  # (T, C, 2, 2H, 2W): every frame is a sample
    y = y.permute(0, 2, 3, 4, 1)
    return y.reshape(1, -1, *y.shape[2:]).permute(0, 4, 1, 2, 3)


def class_probabilities(x: torch.Tensor, layer: nn.Conv3d) -> torch.Tensor:
    """Return the probabilities (classes, B, T, H, W) float32 of a map (B, C, T, H, W).

    The last layer as a matrix product whose result has the classes first, as files want them.
    """
    rows = x.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C)
    weight = layer.weight.flatten(1)  # (classes, C)
    logits = torch.addmm(layer.bias[:, None], weight, rows.flatten(0, 3).t())
    return torch.softmax(logits.float(), dim=0).view(-1, *rows.shape[:4])


@contextlib.contextmanager
def fast_weights(
    model: nn.Module, *, channels_last: bool = False, turned: bool = False
) -> Iterator[None]:
    """Give the weights the layout in which a CPU convolves fastest; afterwards they lie as before.

    Args:
        model: network.
        channels_last: the weights are channels-last already and stay so.
        turned: rows and columns of each kernel change places, for maps (B, C, T, W, H).
    """
    device = next(model.parameters()).device
    before = []
    try:
        for layer in model.modules():
            if not isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                continue
            strides, weight = layer.weight.stride(), layer.weight.data
            if turned:
                weight = weight.transpose(3, 4)
            weight = weight.contiguous(memory_format=memory_format(device, channels_last))
            if weight.shape[1] == 1 and device.type == "cpu":
                weight = channels_strided(weight)
            layer.weight.data = weight
            before.append((layer, strides))
        yield
    finally:
        for layer, strides in before:
            weight = layer.weight.data
            if turned:
                weight = weight.transpose(3, 4)
            layer.weight.data = torch.empty_strided(
                weight.shape, strides, dtype=weight.dtype, device=weight.device
            ).copy_(weight)
