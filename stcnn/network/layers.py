"""The layers: lens optics, spatiotemporal layers, what the indicator sees.

Source: specification 6.2 to 6.5. Letters: B movies, T frames, C channels, H and W rows and columns
of the map, N items, K taps.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from network.temporal import FilterStream, KernelStream, convolve, temporal_filter
from network.util_conv import power_exponential_kernel

LEAKY_SLOPE = 0.01
ACTIVATIONS = ("identity", "relu", "tanh", "leaky_relu", "elu")
CHANNELS_LAST = torch.channels_last


def activate(x: torch.Tensor, name: str, *, inplace: bool = False) -> torch.Tensor:
    """Apply the activation called ``name``; ``inplace`` allows the input to be overwritten."""
    if name == "identity":
        return x
    if name == "relu":
        return functional.relu(x, inplace=inplace)
    if name == "tanh":
        return x.tanh_() if inplace else x.tanh()
    if name == "leaky_relu":
        return functional.leaky_relu(x, LEAKY_SLOPE, inplace=inplace)
    if name == "elu":
        return functional.elu(x, inplace=inplace)
    raise ValueError(f"unknown activation {name!r}: expected one of {', '.join(ACTIVATIONS)}")


def filtered_drive(
    v: torch.Tensor,
    tau: torch.Tensor,
    *,
    activation: str,
    dt: float,
    n_taps: int,
    impl: str = "recursive",
    settled: bool = False,
) -> torch.Tensor:
    """Return filter(act(v) + shift) for voltages (N, T): what the indicator sees.

    The shift is 1 for elu, so that the drive is never negative, and 0 otherwise.
    """
    drive = activate(v, activation) + (1.0 if activation == "elu" else 0.0)
    options = {"dt": dt, "n_taps": n_taps, "impl": impl, "settled": settled}
    return temporal_filter(drive[..., None], tau, **options)[..., 0]


def scale_activity(
    activity: torch.Tensor, gain_raw: torch.Tensor, offset: torch.Tensor
) -> torch.Tensor:
    """Return calcium offset + softplus(gain_raw) * activity (N, T); gain and offset (N,) or one."""
    return offset.reshape(-1, 1) + functional.softplus(gain_raw).reshape(-1, 1) * activity


def full_precision(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float32 when mixed precision made it shorter: the filters sum many frames."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Convolution(torch.autograd.Function):
    """conv2d without bias; its gradients are taken channels last, on CPUs about twice as fast.

    Only the gradients: the temporal filter wants the output itself frame by frame, channel by
    channel.
    """

    @staticmethod
    def forward(ctx, x, weight, stride, padding):
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = (value.contiguous(memory_format=CHANNELS_LAST) for value in ctx.saved_tensors)
        grad = grad.to(x.dtype).contiguous(memory_format=CHANNELS_LAST)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(x.shape, weight, grad, ctx.stride, ctx.padding).contiguous()
        if ctx.needs_input_grad[1]:
            grad_weight = conv2d_weight(x, weight.shape, grad, ctx.stride, ctx.padding)
        return grad_x, grad_weight, None, None


class Photoreceptor(nn.Module):
    """Gaussian sampling of the movie on a coarse grid, then a short exponential filter; frozen."""

    def __init__(self, x_weight, tau, *, stride, padding, dt, n_taps):
        super().__init__()
        self.x_weight = nn.Parameter(x_weight[None, None], requires_grad=False)
        self.register_buffer("tau", torch.full((1, 1), float(tau)))
        self.stride, self.padding, self.dt, self.n_taps = tuple(stride), tuple(padding), dt, n_taps
        self.impl, self.settled = "recursive", False
        self._matrices = (None, None)

    def sample(self, contrast: torch.Tensor) -> torch.Tensor:
        """Sample contrast frames (..., rows, columns) on the coarse grid, (..., H, W).

        A Gaussian is a product of a row and a column profile, so two small matrix products replace
        the convolution. A loaded kernel that is no such product is convolved.
        """
        matrices = self.profiles(contrast.shape[-2:])
        if matrices is not None:
            down, across = matrices
            return down @ (contrast @ across)
        flat = contrast.reshape(-1, 1, *contrast.shape[-2:])
        y = functional.conv2d(flat, self.x_weight, stride=self.stride, padding=self.padding)
        return y.reshape(*contrast.shape[:-2], *y.shape[-2:])

    def profiles(self, size):
        """Return matrices (H, rows) and (columns, W) that sample frames of ``size``, or None.

        None is a kernel that is no product. They are kept until the kernel or the size changes.
        """
        weight = self.x_weight
        key = (tuple(size), weight._version, weight.device, weight.dtype)
        if self._matrices[0] != key:
            kernel = weight.detach()[0, 0]
            rows, cols, total = kernel.sum(1), kernel.sum(0), kernel.sum()
            pair = None
            if torch.allclose(torch.outer(rows, cols) / total, kernel, rtol=1e-4, atol=1e-7):
                down = self._profile_matrix(rows, size[0], 0)  # (H, rows)
                pair = down, self._profile_matrix(cols / total, size[1], 1).T
            self._matrices = key, pair
        return self._matrices[1]

    def _profile_matrix(self, profile, n_pixels, axis):
        unit = torch.eye(n_pixels, dtype=profile.dtype, device=profile.device)[:, None]
        stride, padding = self.stride[axis], self.padding[axis]
        return functional.conv1d(unit, profile[None, None], stride=stride, padding=padding)[:, 0].T

    def forward(self, sampled: torch.Tensor) -> torch.Tensor:
        """Filter sampled frames (B, T, 1, H, W) in time."""
        return temporal_filter(
            sampled, self.tau, dt=self.dt, n_taps=self.n_taps, impl=self.impl, settled=self.settled
        )

    def stream(self) -> FilterStream | KernelStream | None:
        """Return the temporal filter as a stream."""
        return FilterStream(self.tau, dt=self.dt, n_taps=self.n_taps)


class SpatioTemporalLayer(nn.Module):
    """Activation, spatial convolution, causal temporal filter, bias, in this order.

    ``kind`` is exp (one tau per output channel), pwrexp (tau and n_power) or spatial (no filter).
    """

    def __init__(self, x_weight, bias, *, kind, activation, stride, padding, dt, n_taps=None):
        super().__init__()
        self.x_weight, self.kind, self.activation = nn.Parameter(x_weight), kind, activation
        self.stride, self.padding, self.dt, self.n_taps = tuple(stride), tuple(padding), dt, n_taps
        if kind != "spatial":
            self.tau = nn.Parameter(torch.empty(x_weight.shape[0], 1))
        if kind == "pwrexp":
            self.n_power = nn.Parameter(torch.empty(x_weight.shape[0], 1))
        self.bias = nn.Parameter(bias)
        self.impl, self.settled = "recursive", False

    def spatial(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        *,
        inplace: bool = False,
        pads: tuple | None = None,
    ) -> torch.Tensor:
        """Activate and convolve ``x`` (B, T, C, H, W) with ``weight``, without bias.

        ``pads`` of ``pads_of`` replaces the layer's padding for a part of the map.
        """
        x = activate(x, self.activation, inplace=inplace)
        frames, padding = x.flatten(0, 1), self.padding  # (B T, C, H, W)
        if pads is not None:
            (top, bottom), (left, right) = pads
            padding = (top, left)
            if (top, left) != (bottom, right):
                frames, padding = functional.pad(frames, (left, right, top, bottom)), (0, 0)
        if x.is_cuda:
            y = functional.conv2d(frames, weight, stride=self.stride, padding=padding)
        else:
            y = _Convolution.apply(frames, weight, self.stride, padding)
        return full_precision(y).unflatten(0, x.shape[:2])

    def looks_at(self, axis: int, low: int, high: int) -> tuple[int, int]:
        """Return the (first, end) rows or columns that outputs low..high see, padding included."""
        step, size = self.stride[axis], self.x_weight.shape[2 + axis]
        return low * step - self.padding[axis], (high - 1) * step - self.padding[axis] + size

    def pads_of(self, seen: tuple, wanted: tuple) -> tuple:
        """Return the padding ((top, bottom), (left, right)) that turns ``seen`` into ``wanted``.

        Both are ((low, high) rows, (low, high) columns), of the input and of the output.
        """
        pads = []
        for axis in range(2):
            low, high = self.looks_at(axis, *wanted[axis])
            pads.append((seen[axis][0] - low, high - seen[axis][1]))
        return tuple(pads)

    def temporal(self, u: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Filter ``u`` (B, T, C, ...) in time and add ``bias`` (C,) or None."""
        if self.kind == "exp":
            return temporal_filter(
                u, self.tau, dt=self.dt, n_taps=self.n_taps, impl=self.impl, bias=bias,
                settled=self.settled,
            )  # fmt: skip
        if self.kind == "pwrexp":
            impl = "conv" if self.impl == "conv" else "fft"
            return convolve(u, self._kernel(), impl=impl, bias=bias, settled=self.settled)
        return u if bias is None else u + bias.reshape(-1, *[1] * (u.ndim - 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the whole output map for ``x`` (B, T, C, H, W)."""
        return self.temporal(self.spatial(x, self.x_weight), self.bias)

    def patch_drive(
        self, x: torch.Tensor, start: Sequence[int], *, inplace: bool = False
    ) -> torch.Tensor:
        """Return the convolution at one output position only, (B, T, 1).

        Args:
            x: (B, T, C, H, W) map before the activation.
            start: (row, column) of the kernel's first tap on the map; taps outside count as zero.
            inplace: ``x`` may be overwritten.
        """
        low = [max(first, 0) for first in start]
        size = self.x_weight.shape[2:]
        high = [min(s + k, n) for s, k, n in zip(start, size, x.shape[3:], strict=True)]
        if (*low, *high) != (0, 0, *x.shape[3:]):  # a slice's gradient is a map of its own
            x, inplace = x[..., low[0] : high[0], low[1] : high[1]], False
        patch = activate(x, self.activation, inplace=inplace)
        taps = self.x_weight[0][
            :, low[0] - start[0] : high[0] - start[0], low[1] - start[1] : high[1] - start[1]
        ]
        return full_precision(patch.flatten(2) @ taps.flatten()[:, None].to(patch.dtype))

    def stream(self) -> FilterStream | KernelStream | None:
        """Return the temporal filter as a stream, or None for a spatial layer."""
        if self.kind == "exp":
            return FilterStream(self.tau, dt=self.dt, n_taps=self.n_taps)
        return KernelStream(self._kernel()) if self.kind == "pwrexp" else None

    def _kernel(self):
        return power_exponential_kernel(self.tau, self.n_power, dt=self.dt, n_taps=self.n_taps)


def output_sizes(
    network: Sequence[SpatioTemporalLayer], size: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the (rows, columns) of the maps between the layers, the input's first."""
    sizes = [tuple(size)]
    for layer in network:
        sizes.append(
            tuple(
                (n + 2 * pad - kernel) // step + 1
                for n, pad, kernel, step in zip(
                    sizes[-1], layer.padding, layer.x_weight.shape[2:], layer.stride, strict=True
                )
            )
        )
    return sizes


def needed_regions(
    network: Sequence[SpatioTemporalLayer], size: Sequence[int], window: tuple
) -> list[tuple]:
    """Return what each layer must see so that the last one gives ``window``; the input's first.

    Regions are ((low, high) rows, (low, high) columns) of the maps between the layers.
    """
    sizes, regions = output_sizes(network, size), [window]
    for layer, n in zip(reversed(network), reversed(sizes[:-1]), strict=True):
        ends = []
        for axis in range(2):
            low, high = layer.looks_at(axis, *regions[0][axis])
            ends.append((max(low, 0), min(high, n[axis])))
        regions.insert(0, tuple(ends))
    return regions
