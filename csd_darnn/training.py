"""Build the network and train it (section 7). Letters as in modules.py."""

import inspect
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common.files import InputError
from custom_types import DaRnnNet, ModelOptions, TrainConfig, TrainData
from modules import Decoder, Encoder
from windows import WindowRule, prep_train_data

DECAY_EVERY = 10_000  # iterations, counted over all epochs
DECAY = 0.9
DIVERGED = 1e6  # mean squared error in z-units; a prediction of 0 has about 1
PREDICT_BATCH = 256  # windows


@dataclass
class Progress:
    """What a training has reached; together with the network it is all that resuming needs."""

    permutation: np.ndarray  # (N,) slot s of the network's input holds series permutation[s]
    seed: int = 0
    epoch: int = 0  # finished epochs
    iteration: int = 0
    iter_losses: list = field(default_factory=list)
    epoch_losses: list = field(default_factory=list)
    best: dict | None = None  # state of the epoch with the least validation error


class Adam(torch.optim.Adam):
    """Adam of torch that does not import torch's compiler.

    torch wraps these methods so that its compiler leaves them alone, and the wrappers import the
    compiler, which nothing here uses: as much processor time as importing torch itself, in every
    process that makes an optimiser. The numbers are those of torch.optim.Adam.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def build_net(sizes, *, rule, options, learning_rate, seed=0, device="cpu"):
    """Return a DaRnnNet with fresh parameters.

    Args:
        sizes: dict with N, m, p, o.
        rule: WindowRule.
        options: ModelOptions.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays untouched
        torch.manual_seed(seed)
        encoder = Encoder(
            sizes["N"],
            sizes["m"],
            rule.T,
            attention=options.attention,
            layers=options.layers,
            attention_scale=options.attention_scale,
            steps=rule.steps,
        )
        decoder = Decoder(
            sizes["m"],
            sizes["p"],
            rule.T,
            sizes["o"],
            layers=options.layers,
            readout=options.readout,
            predict=options.predict,
        )
    encoder, decoder = encoder.to(device), decoder.to(device)
    optimisers = [
        Adam(part.parameters(), lr=learning_rate, fused=True) for part in (encoder, decoder)
    ]
    return DaRnnNet(encoder, decoder, *optimisers)


def da_rnn(
    train_data,
    n_targs,
    encoder_hidden_size=64,
    decoder_hidden_size=64,
    T=10,
    learning_rate=0.01,
    batch_size=128,
    *,
    train_size=None,
    rule=None,
    options=None,
    seed=0,
    device="cpu",
):
    """Return (TrainConfig, DaRnnNet) for ``train_data``, as the published function does.

    Args:
        train_data: TrainData with feats (n, N), targs (n, o).
        n_targs: o.
        train_size: training rows; by default int(n * 0.7), truncated as in old runs.
        rule: WindowRule when it is not the published one.
        options: ModelOptions when they are not the published ones.
    """
    n_rows, n_feats = train_data.feats.shape
    train_size = int(n_rows * 0.7) if train_size is None else train_size
    net = build_net(
        {"N": n_feats, "m": encoder_hidden_size, "p": decoder_hidden_size, "o": n_targs},
        rule=rule or WindowRule(T),
        options=options or ModelOptions(),
        learning_rate=learning_rate,
        seed=seed,
        device=device,
    )
    return TrainConfig(T, train_size, batch_size, nn.functional.mse_loss), net


def adjust_learning_rate(net, n_iter):
    """Multiply both rates by 0.9 after every 10,000 iterations."""
    if n_iter > 0 and n_iter % DECAY_EVERY == 0:
        for optimiser in (net.enc_opt, net.dec_opt):
            for group in optimiser.param_groups:
                group["lr"] = group["lr"] * DECAY


def train_iteration(t_net, loss_func, X, y_history, y_target):
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


def pixel_permutation(seed, epoch, count):
    """Return the order (N,) of the driving series in ``epoch``, a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch, 1]).permutation(count)


def batch_order(seed, epoch, count):
    """Return the order (count,) of the windows in ``epoch``, a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch, 0]).permutation(count)


def to_device(train_data, device):
    """Return ``train_data`` as float32 tensors on ``device``; on the CPU nothing is copied."""
    return TrainData(
        *(
            torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(device)
            for part in train_data
        )
    )


def shuffled(X, slots):
    """Return the batch ``X`` (B, S, N) in the network's order: slot s holds series slots[s]."""
    return X if slots is None else X.index_select(2, slots)


def slot_tensor(permutation, device):
    """Return the permutation as an index tensor, or None when it changes nothing."""
    if (permutation == np.arange(len(permutation))).all():
        return None
    return torch.from_numpy(permutation).to(device)


def train(
    net,
    train_data,
    t_cfg,
    n_epochs=10,
    *,
    rule=None,
    seed=0,
    shuffle_pixels="epoch",
    fit_size=None,
    order=batch_order,
    progress=None,
    on_epoch=None,
):
    """Train ``net`` in place and return its Progress.

    Args:
        net: DaRnnNet.
        train_data: TrainData with feats (n, N), targs (n, o) in z-units.
        t_cfg: TrainConfig.
        shuffle_pixels: "epoch" draws a new order of the driving series in every epoch.
        fit_size: rows used for fitting; the rest of the training rows is for validation, and the
            epoch with the least validation error is the one that stays.
        order: function (seed, epoch, count) -> order of the windows.
        progress: Progress of an interrupted training that goes on.
        on_epoch: function (progress, row) called after every epoch; row holds epoch, loss, rate,
            validation (mean squared error or None).
    """
    rule = rule or WindowRule(t_cfg.T)
    device = next(net.encoder.parameters()).device
    data = to_device(train_data, device)
    n_feats = data.feats.shape[1]
    fit_size = t_cfg.train_size if fit_size is None else fit_size
    count = rule.train_count(fit_size)
    # Differs: the published loop also takes a step on an empty last batch, whose loss is NaN.
    per_epoch = math.ceil(count / t_cfg.batch_size)
    progress = progress or Progress(np.arange(n_feats), seed)
    bar = tqdm(total=(n_epochs - progress.epoch) * per_epoch, desc="train", disable=None)
    for epoch in range(progress.epoch, n_epochs):
        if shuffle_pixels == "epoch":
            progress.permutation = pixel_permutation(seed, epoch, n_feats)
        slots = slot_tensor(progress.permutation, device)
        starts, losses = order(seed, epoch, count), []
        net.encoder.train()
        net.decoder.train()
        for low in range(0, count, t_cfg.batch_size):
            X, y_history, y_target = prep_train_data(
                starts[low : low + t_cfg.batch_size], t_cfg, data, rule
            )
            X = shuffled(X, slots)
            loss = train_iteration(net, t_cfg.loss_func, X, y_history, y_target)
            if not loss < DIVERGED:
                raise diverged(progress.iteration, epoch, f"loss {loss:.3g}")
            losses.append(loss)
            progress.iteration += 1
            adjust_learning_rate(net, progress.iteration)
            bar.update()
        check_parameters(net, progress.iteration, epoch)
        progress.iter_losses += losses
        progress.epoch_losses.append(float(np.mean(losses)))
        progress.epoch = epoch + 1
        row = {"epoch": epoch, "loss": progress.epoch_losses[-1]}
        row |= {"rate": net.enc_opt.param_groups[0]["lr"], "validation": None}
        if fit_size < t_cfg.train_size:
            held_out = rule.starts(fit_size, t_cfg.train_size)
            row["validation"] = window_error(net, data, held_out, rule, slots)
            keep_best(net, progress, row["validation"])
        if on_epoch:
            on_epoch(progress, row)
    bar.close()
    if progress.best and progress.epoch == n_epochs:
        net.encoder.load_state_dict(progress.best["encoder"])
        net.decoder.load_state_dict(progress.best["decoder"])
        progress.permutation = progress.best["permutation"].numpy()
    return progress


def diverged(iteration, epoch, what):
    """Return the InputError of a training that ran away."""
    return InputError(
        f"training: found {what} at iteration {iteration} (epoch {epoch}), expected a finite loss"
        f" below {DIVERGED:g} in z-units; the state before this epoch is kept; lower"
        " --learning_rate or look for artefacts in the recording"
    )


def check_parameters(net, iteration, epoch):
    """Raise an InputError when a parameter is NaN or infinite."""
    for part in (net.encoder, net.decoder):
        for name, value in part.named_parameters():
            if not torch.isfinite(value).all():
                raise diverged(iteration, epoch, f"a non-finite parameter {name}")


def window_error(net, data, starts, rule, slots):
    """Return the mean squared error in z-units over the windows ``starts``, without gradients."""
    config = TrainConfig(rule.T, 0, 0, None)
    total = 0.0
    with torch.no_grad():
        for low in range(0, len(starts), PREDICT_BATCH):
            batch = starts[low : low + PREDICT_BATCH]
            X, y_history, y_target = prep_train_data(batch, config, data, rule)
            y_pred = net.decoder(net.encoder(shuffled(X, slots))[1], y_history)
            total += ((y_pred - y_target) ** 2).mean(dim=1).sum().item()
    return total / len(starts)


def keep_best(net, progress, error):
    """Remember the parameters of the epoch with the least validation error."""
    if progress.best is None or error < progress.best["error"]:
        progress.best = {
            "error": error,
            "epoch": progress.epoch - 1,
            "permutation": torch.from_numpy(progress.permutation.copy()),
            "encoder": {k: v.clone() for k, v in net.encoder.state_dict().items()},
            "decoder": {k: v.clone() for k, v in net.decoder.state_dict().items()},
        }
