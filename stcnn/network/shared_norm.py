"""Batch norm whose statistics are those of the batches of all processes of a run.

torch's SyncBatchNorm wants CUDA, and knows no frame that counts more than once. Here the sums of
each channel go through an all_reduce that gradients pass as well: mean, variance and gradients are
those of one process with the whole batch, also where the processes have unequal shares of it.
"""

import torch
from torch import distributed, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class _Sum(torch.autograd.Function):
    """The sum over all processes; what any of them does with it goes back to each."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: torch.Tensor) -> torch.Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone()
        distributed.all_reduce(grad)
        return grad


def shared_norm(
    y: torch.Tensor, norm: nn.BatchNorm2d, bias: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Normalise a map by the moments of all processes and take them into the running statistics.

    Args:
        y: (B, T, C, H, W), this process's share of the batch.
        norm: weight, bias and running statistics, (C,).
        bias: (C,) of the layer before, part of the running mean, which ``y`` lacks.
        counts: (T,) how often each frame counts in the statistics.

    Returns:
        (B, T, C, H, W).
    """
    counts = counts.to(y.device, torch.float64)[:, None]  # (T, 1)
    n = counts.sum() * (y.shape[0] * y.shape[3] * y.shape[4])
    with torch.no_grad():
        total = torch.cat([(y.sum((3, 4)).double() * counts).sum((0, 1)), n[None]])  # (C + 1,)
        distributed.all_reduce(total)
        n, near = total[-1], (total[:-1] / total[-1]).to(y.dtype)
    # Sums around the mean: squares of the raw values would lose their last digits.
    moved = y - near[:, None, None]
    sums = torch.stack([moved.sum((3, 4)), (moved * moved).sum((3, 4))])  # (2, B, T, C)
    first, square = _Sum.apply((sums.double() * counts).sum((1, 2)))
    shift = first / n
    var = (square / n - shift**2).clamp(min=0).to(y.dtype)
    mean = near + shift.to(y.dtype)
    with torch.no_grad():
        norm.running_mean.lerp_(mean + bias, norm.momentum)
        norm.running_var.lerp_((var * (n / (n - 1))).to(var.dtype), norm.momentum)
        norm.num_batches_tracked += 1
    scale = norm.weight * torch.rsqrt(var + norm.eps)
    return y * scale[:, None, None] + (norm.bias - mean * scale)[:, None, None]
