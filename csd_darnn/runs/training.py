"""Train the network (section 7). Letters as in network/modules.py."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from common.files import InputError
from inputs.custom_types import DaRnnNet, TrainConfig, TrainData
from inputs.windows import WindowRule, gather, prep_train_data
from network.build import Progress, shuffled, slot_tensor, state_of, to_device
from network.prediction import window_batches

DECAY_EVERY = 10_000  # iterations, counted over all epochs
DECAY = 0.9
DIVERGED = 1e6  # mean squared error in z-units; a prediction of 0 has about 1


def adjust_learning_rate(net: DaRnnNet, n_iter: int) -> None:
    """Multiply both rates by 0.9 after every 10,000 iterations."""
    if n_iter > 0 and n_iter % DECAY_EVERY == 0:
        for optimiser in (net.enc_opt, net.dec_opt):
            for group in optimiser.param_groups:
                group["lr"] = group["lr"] * DECAY


def train_iteration(
    t_net: DaRnnNet,
    loss_func: Callable,
    X: torch.Tensor,
    y_history: torch.Tensor,
    y_target: torch.Tensor,
) -> float:
    """Take one step on a batch and return its loss; a loss that diverged takes no step."""
    y_pred = t_net.decoder(t_net.encoder(X)[1], y_history)
    loss = loss_func(y_pred, y_target)
    value = loss.item()
    if not value < DIVERGED:  # also true for NaN
        return value
    t_net.enc_opt.zero_grad()
    t_net.dec_opt.zero_grad()
    loss.backward()
    t_net.enc_opt.step()
    t_net.dec_opt.step()
    return value


def pixel_permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order (N,) of the driving series in ``epoch``, a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch, 1]).permutation(count)


def batch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order (count,) of the windows in ``epoch``, a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch, 0]).permutation(count)


@dataclass(frozen=True)
class Course:
    """How a training goes.

    Attributes:
        rule: windows; None: the published ones of the TrainConfig's T.
        seed: of the orders of windows and series.
        shuffle_pixels: "epoch" draws a new order of the driving series in every epoch.
        fit_size: rows used for fitting; the rest of the training rows is for validation, and the
            epoch with the least validation error is the one that stays. None: all of them.
        order: function (seed, epoch, count) -> order of the windows.
        keep: last epochs whose states the Progress keeps.
    """

    rule: WindowRule | None = None
    seed: int = 0
    shuffle_pixels: str = "epoch"
    fit_size: int | None = None
    order: Callable = batch_order
    keep: int = 0

    def resolved(self, t_cfg: TrainConfig) -> "Course":
        """Return the course with rule and fit_size of ``t_cfg`` where they are None."""
        fit_size = t_cfg.train_size if self.fit_size is None else self.fit_size
        return replace(self, rule=self.rule or WindowRule(t_cfg.T), fit_size=fit_size)


def train(
    net: DaRnnNet,
    train_data: TrainData,
    t_cfg: TrainConfig,
    n_epochs: int = 10,
    *,
    course: Course | None = None,
    progress: Progress | None = None,
    on_epoch: Callable | None = None,
) -> Progress:
    """Train ``net`` in place and return its Progress.

    Args:
        train_data: feats (n, N), targs (n, o) in z-units.
        progress: of an interrupted training that goes on.
        on_epoch: function (progress, row) called after every epoch; row holds epoch, loss, rate,
            validation (mean squared error or None).
    """
    course = (course or Course()).resolved(t_cfg)
    data = to_device(train_data, next(net.encoder.parameters()).device)
    progress = progress or Progress(np.arange(data.feats.shape[1]), course.seed)
    # Differs: the published loop also takes a step on an empty last batch, whose loss is NaN.
    per_epoch = math.ceil(course.rule.train_count(course.fit_size) / t_cfg.batch_size)
    total = (n_epochs - progress.epoch) * per_epoch
    with tqdm(total=total, desc="train", disable=None) as bar:
        for epoch in range(progress.epoch, n_epochs):
            losses = train_epoch(net, data, t_cfg, course, progress, bar)
            check_parameters(net, progress.iteration, epoch)
            progress.iter_losses += losses
            progress.epoch_losses.append(float(np.mean(losses)))
            progress.epoch = epoch + 1
            if course.keep:
                states = [*progress.recent, state_of(net, progress.permutation)]
                progress.recent = states[-course.keep :]
            row = {"epoch": epoch, "loss": progress.epoch_losses[-1]}
            row |= {"rate": net.enc_opt.param_groups[0]["lr"]}
            row["validation"] = validate(net, data, t_cfg, course, progress)
            if on_epoch:
                on_epoch(progress, row)
    if progress.best and progress.epoch == n_epochs:
        net.encoder.load_state_dict(progress.best["encoder"])
        net.decoder.load_state_dict(progress.best["decoder"])
        progress.permutation = progress.best["permutation"].numpy()
    return progress


def train_epoch(
    net: DaRnnNet,
    data: TrainData,
    t_cfg: TrainConfig,
    course: Course,
    progress: Progress,
    bar: tqdm,
) -> list[float]:
    """Take the steps of one epoch and return their losses; ``progress`` counts them."""
    epoch, count = progress.epoch, course.rule.train_count(course.fit_size)
    if course.shuffle_pixels == "epoch":
        progress.permutation = pixel_permutation(course.seed, epoch, data.feats.shape[1])
    slots = slot_tensor(progress.permutation, data.feats.device)
    starts, losses = course.order(course.seed, epoch, count), []
    net.encoder.train()
    net.decoder.train()
    for low in range(0, count, t_cfg.batch_size):
        batch = starts[low : low + t_cfg.batch_size]
        X, y_history, y_target = prep_train_data(batch, t_cfg, data, course.rule)
        loss = train_iteration(net, t_cfg.loss_func, shuffled(X, slots), y_history, y_target)
        if not loss < DIVERGED:
            raise diverged(progress.iteration, epoch, f"loss {loss:.3g}")
        losses.append(loss)
        progress.iteration += 1
        adjust_learning_rate(net, progress.iteration)
        bar.update()
    return losses


def validate(
    net: DaRnnNet, data: TrainData, t_cfg: TrainConfig, course: Course, progress: Progress
) -> float | None:
    """Return the validation error of the last epoch and keep the best; None without such rows."""
    if course.fit_size >= t_cfg.train_size:
        return None
    held_out = course.rule.starts(course.fit_size, t_cfg.train_size)
    slots = slot_tensor(progress.permutation, data.feats.device)
    error = window_error(net, data, held_out, course.rule, slots)
    keep_best(net, progress, error)
    return error


def diverged(iteration: int, epoch: int, what: str) -> InputError:
    """Return the InputError of a training that ran away."""
    return InputError(
        f"training: found {what} at iteration {iteration} (epoch {epoch}), expected a finite loss"
        f" below {DIVERGED:g} in z-units; the state before this epoch is kept; lower"
        " --learning_rate or look for artefacts in the recording"
    )


def check_parameters(net: DaRnnNet, iteration: int, epoch: int) -> None:
    """Raise an InputError when a parameter is NaN or infinite."""
    named = [*net.encoder.named_parameters(), *net.decoder.named_parameters()]
    # One answer for all of them: on a GPU each question is a wait.
    finite = torch.stack([torch.isfinite(value).all() for _, value in named]).tolist()
    for (name, _), is_finite in zip(named, finite, strict=True):
        if not is_finite:
            raise diverged(iteration, epoch, f"a non-finite parameter {name}")


@torch.no_grad()
def window_error(
    net: DaRnnNet, data: TrainData, starts: np.ndarray, rule: WindowRule, slots: torch.Tensor | None
) -> float:
    """Return the mean squared error in z-units over the windows ``starts``, without gradients."""
    total = 0.0
    for part, X, y_history in window_batches(data, starts, rule, slots):
        y_pred = net.decoder(net.encoder(X)[1], y_history)
        y_target = gather(data.targs, rule.target_rows(starts[part]))
        total += ((y_pred - y_target) ** 2).mean(dim=1).sum().item()
    return total / len(starts)


def keep_best(net: DaRnnNet, progress: Progress, error: float) -> None:
    """Remember the parameters of the epoch with the least validation error."""
    if progress.best is None or error < progress.best["error"]:
        chosen = {"error": error, "epoch": progress.epoch - 1}
        progress.best = chosen | state_of(net, progress.permutation)
