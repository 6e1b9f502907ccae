"""Training over several processes of one ``torchrun``: who writes, and what they tell each other.

Each process computes its share of every batch, rows rank, rank + world, ...; loss, gradients and
batch statistics are those of the whole batch, so the run equals that of one process but for
rounding.
"""

import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from common.files import InputError


@dataclass(frozen=True)
class Place:
    """The device, the rank and the number of processes of this run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def agreed(self, value: Any = None) -> Any:
        """Return the first process's value, on every process."""
        if self.world == 1:
            return value
        told = [value]
        distributed.broadcast_object_list(told, src=0)
        return told[0]

    def share(self, n: int) -> torch.Tensor:
        """Return the rows of a batch of ``n`` that this process computes."""
        return torch.arange(self.rank, n, self.world)

    def whole(self, own: torch.Tensor, n: int) -> torch.Tensor:
        """Return the predictions of a whole batch; only this process's rows carry a gradient.

        Args:
            own: (rows of this process, T).
            n: rows of the batch.

        Returns:
            (n, T).
        """
        padded = own.new_zeros(math.ceil(n / self.world), own.shape[1])
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        rows = torch.stack(parts, dim=1).flatten(0, 1)[:n]  # row k of rank r is row k world + r
        return rows.index_copy(0, self.share(n).to(own.device), own)

    @torch.no_grad()
    def sum_gradients(self, model: torch.nn.Module) -> None:
        """Give every process the sum of the gradients of all.

        A parameter that no process needed (a cell type that is not in the batch) keeps None, as
        the optimiser then leaves it alone.
        """
        if self.world == 1:
            return
        free = [p for p in model.parameters() if p.requires_grad]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in free]
        used = torch.tensor([float(p.grad is not None) for p in free], device=self.device)
        flat = torch.cat([used, *(grad.flatten() for grad in grads)])
        distributed.all_reduce(flat)
        used, *sums = flat.split([len(free), *(grad.numel() for grad in grads)])
        for parameter, grad, count in zip(free, sums, used.tolist(), strict=True):
            parameter.grad = grad.view_as(parameter).clone() if count else None


def join(device: torch.device) -> Place:
    """Join the other processes of torchrun, where there are any, and return the place."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Place(device, rank, world)


def check_batches(place: Place, n_items: int, batch_size: int) -> None:
    """Raise an InputError unless every batch has an item for each process."""
    least = min(batch_size, n_items % batch_size or batch_size)
    if least < place.world:
        raise InputError(
            f"batch_size={batch_size}: {n_items} items an epoch leave a batch of {least} for "
            f"{place.world} processes; expected at least one item each: choose another batch_size"
        )
