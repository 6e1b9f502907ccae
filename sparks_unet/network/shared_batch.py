"""One batch over several processes: its loss and its batch statistics are those of the whole batch.

DistributedDataParallel averages the gradients of losses that each process takes of its own share.
A Lovasz loss orders all voxels of the batch, class weights are normed over it, and batch norm takes
its moments from it: shares give other numbers. Here the outputs are gathered before the loss, and
the moments are summed over processes.

Letters: B chunks of the whole batch, b of this process.
"""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce


def gathered_batch(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, C, ...) and labels (B, ...) of all processes.

    Only the part of this process carries a gradient. The loss of the whole batch times the number
    of processes has, averaged over processes, the gradient of one process with that batch.

    Args:
        log_p: (b, C, T, H, W) output of the network; b may differ between processes.
        labels: (b, T, H, W) int64.
    """
    world, rank = distributed.get_world_size(), distributed.get_rank()
    sizes = [torch.zeros(1, dtype=torch.int64, device=log_p.device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([len(log_p)], device=log_p.device))
    sizes = [int(size) for size in sizes]
    whole = []
    for own in (log_p.detach(), labels):
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(world)]
        distributed.all_gather(parts, padded)
        whole.append([part[:size] for part, size in zip(parts, sizes, strict=True)])
    whole[0][rank] = log_p
    return torch.cat(whole[0]), torch.cat(whole[1])


class SharedBatchNorm3d(torch.nn.BatchNorm3d):
    """Batch norm whose moments are those of the chunks of all processes; works on a CPU too."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (b, C, T, H, W)."""
        if not self.training:
            return super().forward(x)
        axes = (0, *range(2, x.dim()))
        count = torch.tensor([x.numel() / x.shape[1]], dtype=x.dtype, device=x.device)
        distributed.all_reduce(count)
        mean = all_reduce(x.sum(axes)) / count
        shape = (1, -1, *[1] * (x.dim() - 2))
        centred = x - mean.view(shape)
        variance = all_reduce((centred**2).sum(axes)) / count
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if not self.affine:
            return scaled
        return torch.addcmul(self.bias.view(shape), scaled, self.weight.view(shape))

    def _remember(self, mean, variance):
        """Move the running moments as torch's batch norm does; variance is the unbiased one."""
        with torch.no_grad():
            self.num_batches_tracked += 1
            rate = self.momentum
            if rate is None:
                rate = 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance, rate)


def share_norms(model: torch.nn.Module) -> torch.nn.Module:
    """Give every batch norm of a network the moments of all processes; weights and names stay."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            # the same parameters, buffers and settings under another forward
            module.__class__ = SharedBatchNorm3d
    return model
