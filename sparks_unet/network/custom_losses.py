"""Losses on log-probabilities with an ignore label, and the loss of a configuration.

Every loss takes log-probabilities (B, C, T, H, W) (the network's output) and labels (B, T, H, W),
int64, 0..C-1 or IGNORE_INDEX, and returns a scalar.

Source: specification section 7.1; Lovasz-Softmax: Berman, Triki, Blaschko 2018; focal loss: Lin et
al. 2017; Dice: Milletari et al. 2016.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from settings.config import IGNORE_INDEX, Params

FOCAL_EPSILON = 1e-8
ONE_HOT_EPSILON = 1e-6
DICE_SMOOTH = 1.0
DICE_EPSILON = 1e-8


def nll_loss(
    log_p: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the weighted mean of -log p of the labels; 0 (with a gradient) where none is valid.

    ``weights`` (C,) float or None for equal weights.
    """
    total = functional.nll_loss(
        log_p, labels, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    valid = labels != IGNORE_INDEX
    if log_p.device.type != "cpu":
        # The same without a question that the processor would wait for.
        share = valid if weights is None else weights[torch.where(valid, labels, 0)] * valid
        norm = share.sum().to(total.dtype)
        return total / torch.where(norm > 0, norm, torch.ones_like(norm))
    if not valid.any():
        return log_p.sum() * 0.0
    norm = valid.sum() if weights is None else weights[labels[valid]].sum()
    # a batch in which every class has weight 0 has no loss
    return total / norm if norm > 0 else total


def focal_loss(
    log_p: torch.Tensor,
    labels: torch.Tensor,
    *,
    gamma: float,
    weights: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Return the focal loss; ``weights`` (C,) is alpha, ``reduction`` mean over valid, or sum.

    Faithful: 1e-6 is added to the one-hot labels and 1e-8 to the probabilities. softmax(log p) is
    p, so the network's output may be fed as it is.
    """
    valid = labels != IGNORE_INDEX
    classes = log_p.shape[1]
    known = torch.where(valid, labels, 0)
    one_hot = functional.one_hot(known, classes).movedim(-1, 1).to(log_p.dtype) + ONE_HOT_EPSILON
    p = functional.softmax(log_p, dim=1) + FOCAL_EPSILON
    loss = (one_hot * (1.0 - p) ** gamma * -torch.log(p)).sum(dim=1)  # (B, T, H, W)
    if weights is not None:
        loss = loss * weights[known]
    total = (loss * valid).sum()
    return total if reduction == "sum" else total / valid.sum().clamp(min=1)


def _descending_order(values):
    """Return the indices (N,) that sort ``values`` (N,), the largest first."""
    if values.device.type != "cpu":
        return values.argsort(descending=True)
    # NumPy sorts with vector instructions, in less than half of PyTorch's time on a CPU.
    return torch.from_numpy(np.argsort(-values.numpy()))


def _jaccard_gradient(foreground):
    """Return the discrete gradient of the Jaccard loss for sorted 0/1 ``foreground`` (N,)."""
    total = foreground.sum()
    intersection = total - foreground.cumsum(0)
    union = total + (1.0 - foreground).cumsum(0)
    jaccard = 1.0 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def lovasz_softmax(
    log_p: torch.Tensor, labels: torch.Tensor, *, classes: str = "present"
) -> torch.Tensor:
    """Return the Lovasz-Softmax loss over the whole batch flattened.

    ``classes``: ``present`` (mean over classes that occur among valid voxels) or ``all``.
    Differs: no valid voxel gives 0 with a gradient, one valid voxel works.
    """
    valid = labels.flatten() != IGNORE_INDEX
    if log_p.device.type != "cpu":
        return _lovasz_in_one_go(log_p, labels.flatten(), valid, classes)
    if not valid.any():
        return log_p.sum() * 0.0
    p = log_p.movedim(1, -1).reshape(-1, log_p.shape[1])[valid].exp()  # (N, C)
    labels = labels.flatten()[valid]  # (N,)
    losses = []
    for index in range(p.shape[1]):
        foreground = (labels == index).to(p.dtype)
        if classes == "present" and not foreground.any():
            continue
        errors = (foreground - p[:, index]).abs()
        order = _descending_order(errors.detach())
        losses.append(torch.dot(errors[order], _jaccard_gradient(foreground[order])))
    return torch.stack(losses).mean()


def _lovasz_in_one_go(log_p, labels, valid, classes):
    """Return lovasz_softmax without a question that the processor would wait for.

    Ignored voxels stay in the arrays: sorted to the end by an error of -1 they change no rank of a
    valid one, and count with an error of 0.
    """
    p = log_p.movedim(1, -1).reshape(-1, log_p.shape[1]).exp()  # (N, C)
    losses, counts = [], []
    for index in range(p.shape[1]):
        foreground = ((labels == index) & valid).to(p.dtype)
        errors = (foreground - p[:, index]).abs()
        order = torch.where(valid, errors.detach(), -1.0).argsort(descending=True)
        errors = torch.where(valid, errors, 0.0)
        losses.append(torch.dot(errors[order], _jaccard_gradient(foreground[order])))
        counts.append((foreground.sum() > 0) if classes == "present" else valid.any())
    counts = torch.stack(counts).to(p.dtype)
    return (torch.stack(losses) * counts).sum() / counts.sum().clamp(min=1)


def dice_loss(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return 1 - the mean soft Dice of classes 1.. over the batch; ignored voxels count nowhere.

    Differs: the masking step of the published loss raises IndexError.
    """
    valid, known = _valid_and_known(labels)
    # Faithful: softmax(log p) is p; written so, the gradient for log p is the published one
    p = (functional.softmax(log_p, dim=1) * valid).flatten(2)  # (B, C, N)
    one_hot = (_one_hot(known, log_p) * valid).flatten(2)
    axes = (0, 2)
    true_positive = (p * one_hot).sum(axes)
    false_positive = (p * (1 - one_hot)).sum(axes)
    false_negative = ((valid.flatten(2) - p) * one_hot).sum(axes)
    dice = (2 * true_positive + DICE_SMOOTH) / (
        2 * true_positive + false_positive + false_negative + DICE_SMOOTH + DICE_EPSILON
    )
    return 1 - dice[1:].mean()


def dice_nll_loss(
    log_p: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return .8 weighted NLL - .2 log(mean Dice of classes 1.. over samples)."""
    valid, known = _valid_and_known(labels)
    p = (log_p.exp() * valid).flatten(2)
    one_hot = (_one_hot(known, log_p) * valid).flatten(2)  # (B, C, N)
    dice = (2 * (one_hot * p).sum(2) + 1) / ((one_hot + p).sum(2) + 1)  # (B, C)
    return 0.8 * nll_loss(log_p, labels, weights) - 0.2 * torch.log(dice[:, 1:].mean())


def _valid_and_known(labels):
    valid = (labels != IGNORE_INDEX).unsqueeze(1).float()  # (B, 1, T, H, W)
    return valid, torch.where(labels == IGNORE_INDEX, 0, labels)


def _one_hot(known, log_p):
    return functional.one_hot(known, log_p.shape[1]).movedim(-1, 1).to(log_p.dtype)


def make_loss(
    params: Params, weights: torch.Tensor | None = None
) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
    """Return ``loss(log_p, labels, iteration)`` of the configuration.

    Args:
        params: Params.
        weights: (C,) float tensor of class weights, or None.
    """
    w, gamma = params.w, params.gamma
    functions = {
        "nll_loss": lambda p, y: nll_loss(p, y, weights),
        "focal_loss": lambda p, y: focal_loss(p, y, gamma=gamma, weights=weights),
        "lovasz_softmax": lovasz_softmax,
        "sum_losses": lambda p, y: sum_losses(p, y, w=w, gamma=gamma, weights=weights),
        "dice_loss": dice_loss,
        "dice_nll_loss": lambda p, y: dice_nll_loss(p, y, weights),
    }

    def loss(log_p, labels, iteration):
        name = params.criterion
        if name == "nll_then_lovasz":
            name = "nll_loss" if iteration < params.switch_iteration else "lovasz_softmax"
        return functions[name](log_p, labels)

    return loss


def sum_losses(
    log_p: torch.Tensor,
    labels: torch.Tensor,
    *,
    w: float,
    gamma: float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return w focal + (1 - w) Lovasz."""
    focal = focal_loss(log_p, labels, gamma=gamma, weights=weights)
    return w * focal + (1 - w) * lovasz_softmax(log_p, labels)


def drop_margins(
    log_p: torch.Tensor, labels: torch.Tensor, frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drop the first and last ``frames`` frames of (B, C, T, H, W) and (B, T, H, W).

    Differs: the version of 2022 cut columns in place of frames.
    """
    if not frames:
        return log_p, labels
    return log_p[:, :, frames:-frames], labels[:, frames:-frames]
