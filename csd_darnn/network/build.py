"""Build a network with its optimisers and feed it: what training and prediction share.

Letters as in modules.py.
"""

import inspect
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from inputs.custom_types import DaRnnNet, ModelOptions, TrainConfig, TrainData
from inputs.windows import WindowRule
from network.modules import Decoder, Encoder

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
    recent: list = field(default_factory=list)  # states (see state_of) of the last epochs


def state_of(net: DaRnnNet, permutation: np.ndarray) -> dict:
    """Return a copy of what makes a network: parameters and the order of its series."""
    return {
        "permutation": torch.from_numpy(permutation.copy()),
        "encoder": {k: v.clone() for k, v in net.encoder.state_dict().items()},
        "decoder": {k: v.clone() for k, v in net.decoder.state_dict().items()},
    }


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


def build_net(
    sizes: dict,
    *,
    rule: WindowRule,
    options: ModelOptions,
    learning_rate: float,
    seed: int = 0,
    device: str = "cpu",
) -> DaRnnNet:
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
    train_data: TrainData,
    n_targs: int,
    encoder_hidden_size: int = 64,
    decoder_hidden_size: int = 64,
    T: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 128,
    *,
    train_size: int | None = None,
    rule: WindowRule | None = None,
    options: ModelOptions | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[TrainConfig, DaRnnNet]:
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


def numpy_to_tvar(x: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """Return a float32 tensor of the array ``x`` on ``device``."""
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)


def to_device(train_data: TrainData, device: str) -> TrainData:
    """Return ``train_data`` as float32 tensors on ``device``; on the CPU nothing is copied."""
    return TrainData(
        *(
            torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(device)
            for part in train_data
        )
    )


def shuffled(X: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """Return the batch ``X`` (B, S, N) in the network's order: slot s holds series slots[s]."""
    return X if slots is None else X.index_select(2, slots)


def slot_tensor(permutation: np.ndarray, device: str) -> torch.Tensor | None:
    """Return the permutation as an index tensor, or None when it changes nothing."""
    if (permutation == np.arange(len(permutation))).all():
        return None
    return torch.from_numpy(permutation).to(device)
