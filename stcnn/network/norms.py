"""Batch norm of movies whose first frame stands for many, alone and with the layer behind it.

Between two temporal filters lie batch norm, activation and convolution, each frame for itself.
``NormConvolution`` does the three at once, keeps only the filter's output and computes the rest
again on the way back, some frames at a time. Letters: B movies, T frames, C channels, H and W rows
and columns of the map.
"""

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

CHANNELS_LAST = torch.channels_last
CACHED_FRAMES = 32  # elementwise work on so many frames at a time stays in the cache
WORK_FRAMES = 256  # convolved at a time on the way back: a tenth of a long movie's map
SLOPES = {"identity": 1.0, "relu": 0.0, "leaky_relu": 0.01}  # activations that this file knows


def settled_moments(y: torch.Tensor, n_first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance (C,) of ``y`` (B, T, C, H, W), its frame 0 counted n times.

    Sums of the differences from the first frames' mean: torch's own var_mean is five times slower.
    """
    near = y[:, :CACHED_FRAMES].mean(dim=(0, 1, 3, 4))
    first, square = 0.0, 0.0
    for part in _pieces(y.shape[1], CACHED_FRAMES):
        moved = (y[:, part] - near[:, None, None]).flatten(3)  # (B, frames, C, S)
        sums = [moved.sum(3).double(), (moved * moved).sum(3).double()]  # (B, frames, C)
        if part.start == 0:
            for values in sums:
                values[:, 0] *= n_first
        first, square = first + sums[0].sum(dim=(0, 1)), square + sums[1].sum(dim=(0, 1))
    n = y.shape[0] * y.shape[3] * y.shape[4] * (y.shape[1] - 1 + n_first)
    shift = first / n
    return (near + shift).to(y.dtype), (square / n - shift**2).clamp_(min=0).to(y.dtype)


@torch.no_grad()
def take_moments(
    norm: nn.BatchNorm2d, mean: torch.Tensor, var: torch.Tensor, bias: torch.Tensor, n: float
) -> None:
    """Take mean and variance (C,) of ``n`` values, less ``bias``, into the running statistics."""
    norm.running_mean.lerp_((mean + bias).to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((var * n / (n - 1)).to(norm.running_var.dtype), norm.momentum)
    norm.num_batches_tracked += 1


def _pieces(n, length):
    return [slice(start, min(start + length, n)) for start in range(0, n, length)]


def _normalised(y, scale, shift, slope, frames):
    """Return act(y * scale + shift) for some frames."""
    out = torch.empty_like(y[:, frames])
    for part in _pieces(out.shape[1], CACHED_FRAMES):
        source = y[:, frames][:, part]
        torch.addcmul(shift[:, None, None], source, scale[:, None, None], out=out[:, part])
        if slope != 1.0:
            functional.leaky_relu(out[:, part], slope, inplace=True)
    return out


class _Affine:
    """What the gradient of a normalised map needs besides the gradient itself."""

    def __init__(self, y, weight, mean, inverse, n_first):
        self.y, self.mean, self.inverse, self.n_first = y, mean, inverse, n_first
        self.scale = weight * inverse
        self.total = y.shape[0] * y.shape[3] * y.shape[4] * (y.shape[1] - 1 + n_first)

    def finish(self, grad, sum_g, sum_gy):
        """Turn ``grad`` (of the normalised map) into that of ``y``, in place.

        Per frame: scale * (g - w / total * (sum g + xhat * sum g xhat)), w = n_first or 1.
        Returns (gradient of the weight, gradient of the bias).
        """
        grad_weight = (sum_gy - self.mean * sum_g) * self.inverse
        slope = grad_weight * self.inverse / self.total
        offset = sum_g / self.total - self.mean * slope
        c0, c1, scale = (v[:, None, None] for v in (offset, slope, self.scale))
        first = grad[:, 0] - self.n_first * torch.addcmul(c0, self.y[:, 0], c1)
        for part in _pieces(grad.shape[1], CACHED_FRAMES):
            piece = grad[:, part]
            piece.sub_(c0).addcmul_(self.y[:, part], c1, value=-1).mul_(scale)
        grad[:, 0] = first * scale
        return grad_weight, sum_g


def _sums(g, y):
    """Return the sums of g and of g * y per channel (C,) over some frames."""
    total, product = 0.0, 0.0
    for part in _pieces(g.shape[1], CACHED_FRAMES):
        total = total + g[:, part].flatten(3).sum(3).sum(dim=(0, 1))
        product = product + (g[:, part] * y[:, part]).flatten(3).sum(3).sum(dim=(0, 1))
    return total, product


class SettledNorm(torch.autograd.Function):
    """Normalise a map and return the part of it that is read.

    The statistics, and the gradients, are those of a movie that begins with n frames like its
    first one.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
        n_first: int,
        eps: float,
        window: tuple[tuple[int, int], tuple[int, int]],
    ) -> torch.Tensor:
        """Return y (B, T, C, H, W) normalised, cut to ``window`` ((low, high) rows, columns)."""
        inverse = torch.rsqrt(var + eps)
        scale = weight * inverse
        rows, columns = (slice(*ends) for ends in window)
        ctx.save_for_backward(y, weight, mean, inverse)
        ctx.n_first, ctx.place = n_first, (..., rows, columns)
        shift = (bias - mean * scale)[:, None, None]
        return torch.addcmul(shift, y[ctx.place], scale[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of y, weight and bias."""
        y, weight, mean, inverse = ctx.saved_tensors
        out = torch.zeros_like(y)
        out[ctx.place] = grad
        affine = _Affine(y, weight, mean, inverse, ctx.n_first)
        grad_weight, grad_bias = affine.finish(out, *_sums(grad, y[ctx.place]))
        return out, grad_weight, grad_bias, None, None, None, None, None


class NormConvolution(torch.autograd.Function):
    """Normalise, activate and convolve a map; only the map itself is kept for the way back."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        kernel: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor],
        n_first: int,
        options: dict,
    ) -> torch.Tensor:
        """Return the convolved map (B, T, C, H, W).

        Args:
            y: (B, T, C, H, W), the output of a temporal filter.
            weight, bias: of the norm, (C,).
            kernel: (C out, C in, rows, columns).
            moments: settled_moments of ``y``.
            n_first: how often frame 0 counts.
            options: dict with eps, slope of the activation, stride and padding.
        """
        mean, var = moments
        inverse = torch.rsqrt(var + options["eps"])
        scale = weight * inverse
        shift = bias - mean * scale
        ctx.save_for_backward(y, weight, kernel, mean, inverse, scale, shift)
        ctx.n_first, ctx.options = n_first, options
        x = _normalised(y, scale, shift, options["slope"], slice(None)).flatten(0, 1)
        u = functional.conv2d(x, kernel, stride=options["stride"], padding=options["padding"])
        return u.unflatten(0, y.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of y, weight, bias and kernel."""
        y, weight, kernel, mean, inverse, scale, shift = ctx.saved_tensors
        options = ctx.options
        fast = kernel.contiguous(memory_format=CHANNELS_LAST)
        out, grad_kernel = torch.empty_like(y), torch.zeros_like(kernel)
        sum_g, sum_gy = torch.zeros_like(weight), torch.zeros_like(weight)
        for frames in _pieces(y.shape[1], WORK_FRAMES):
            x = _normalised(y, scale, shift, options["slope"], frames)
            g = grad[:, frames].flatten(0, 1).contiguous(memory_format=CHANNELS_LAST)
            grad_x, part, _ = torch.ops.aten.convolution_backward(
                g, x.flatten(0, 1).contiguous(memory_format=CHANNELS_LAST), fast, None,
                options["stride"], options["padding"], (1, 1), False, (0, 0), 1,
                (True, True, False),
            )  # fmt: skip
            grad_kernel += part
            piece = out[:, frames]
            grad_x = grad_x.contiguous().unflatten(0, (y.shape[0], -1))
            if options["slope"] != 1.0:
                torch.ops.aten.leaky_relu_backward.grad_input(
                    grad_x, x, options["slope"], True, grad_input=piece
                )
            else:
                piece.copy_(grad_x)
            more_g, more_gy = _sums(piece, y[:, frames])
            sum_g += more_g
            sum_gy += more_gy
        affine = _Affine(y, weight, mean, inverse, ctx.n_first)
        grad_weight, grad_bias = affine.finish(out, sum_g, sum_gy)
        return out, grad_weight, grad_bias, grad_kernel, None, None, None
