"""Cases of gpu_check.py: the same numbers on a GPU as on the processor, and its speed.

Data are drawn on the spot. ``exact`` cases switch TF32 off, so that only the order of sums differs;
their ``as shipped`` twins leave PyTorch's defaults, which users get. Source: specification,
sections 4 and 8.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from analysis.importance import block_importance, gradient_importance, take_windows
from common.cases import difference, gradient_difference, median_seconds, run_cases, within
from common.device import describe_device
from inputs.custom_types import DaRnnNet, TrainConfig, TrainData
from inputs.windows import WindowRule, prep_train_data
from network.build import Progress, da_rnn, to_device
from network.checkpoints import load_checkpoint, save_checkpoint
from network.device import choose_device
from network.prediction import predict_windows
from runs.training import train, train_iteration

EXACT = {"output": 1e-5, "gradient": 1e-4, "losses": 1e-3, "importance": 1e-3}
AS_SHIPPED = {"output": 2e-3, "gradient": 2e-2, "losses": 5e-2, "importance": 2e-2}


@contextlib.contextmanager
def tf32(allowed: bool | None) -> Iterator[None]:
    """Allow or forbid TF32 in products and cuDNN for a block; None leaves PyTorch's defaults."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if allowed is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def synchronize(device: str) -> Callable[[], None]:
    """Return the function that waits for ``device``."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def draw_data(n_rows: int, n_series: int, seed: int = 0) -> TrainData:
    """Return random series (n, N) and a target (n, 1) that follows two of them, in z-units."""
    random = np.random.default_rng(seed)
    feats = random.normal(size=(n_rows, n_series))
    target = np.roll(feats[:, :1] + 0.5 * feats[:, 1:2], 1, axis=0)
    return TrainData(feats, target + 0.1 * random.normal(size=target.shape))


class Cases:
    """Methods that gpu_check.py runs by name; each returns numbers and whether they hold."""

    def __init__(self, device: str, tiny: bool):
        self.device, self.wait = device, synchronize(device)
        self.data = draw_data(120 if tiny else 2000, 12 if tiny else 400)
        self.hidden = 8 if tiny else 64
        self.speed_sizes = (
            ((24, 8),) if tiny else ((936, 128), (6552, 20), (6552, 128), (6552, 512))
        )

    def all(self) -> dict[str, Callable[[], dict]]:
        """Return {name: case} in the order in which they run."""
        return {
            "forward and gradient, exact": lambda: self.step(False, EXACT),
            "forward and gradient, as shipped": lambda: self.step(None, AS_SHIPPED),
            "20 steps, exact": lambda: self.losses(False, EXACT["losses"]),
            "20 steps, as shipped": lambda: self.losses(None, AS_SHIPPED["losses"]),
            "importance, exact": lambda: self.importance(False, EXACT["importance"]),
            "resume on the device": self.resume,
            "resume on the other device": self.move,
            "seconds a training step": self.speed,
        }

    def network(self, device: str) -> tuple[TrainConfig, DaRnnNet]:
        """Return configuration and network of seed 0 on ``device``."""
        return da_rnn(self.data, 1, self.hidden, self.hidden, T=10, batch_size=20, device=device)

    def step(self, allowed: bool | None, limits: dict) -> dict:
        """Compare output and gradient of one batch; the weights' first step is only a sign."""
        by_device = {}
        with tf32(allowed):
            for device in ("cpu", self.device):
                config, net = self.network(device)
                data = to_device(self.data, device)
                batch = prep_train_data(np.arange(20), config, data, WindowRule(10))
                predicted = net.decoder(net.encoder(batch[0])[1], batch[1])
                torch.nn.functional.mse_loss(predicted, batch[2]).backward()
                owners = [*net.encoder.named_parameters(), *net.decoder.named_parameters()]
                gradients = [value.grad for _, value in owners if value.grad is not None]
                by_device[device] = (
                    predicted.detach().cpu().numpy(),
                    [gradient.cpu().numpy() for gradient in gradients],
                )
        output = difference(by_device[self.device][0], by_device["cpu"][0])
        gradient = gradient_difference(by_device[self.device][1], by_device["cpu"][1])
        row = within("output", output, limits["output"])
        other = within("gradient", gradient, limits["gradient"])
        return row | other | {"passed": row["passed"] and other["passed"]}

    def losses(self, allowed: bool | None, limit: float) -> dict:
        """Compare the first 20 losses of a training."""
        by_device = {}
        with tf32(allowed):
            for device in ("cpu", self.device):
                by_device[device] = self.trained(device, 1)[1].iter_losses[:20]
        return within("losses", difference(by_device[self.device], by_device["cpu"]), limit)

    def trained(self, device: str, epochs: int) -> tuple[DaRnnNet, Progress]:
        """Return network and progress after ``epochs`` on ``device``."""
        config, net = self.network(device)
        return net, train(net, self.data, config, epochs)

    def importance(self, allowed: bool | None, limit: float) -> dict:
        """Compare permutation and gradient importance, the latter of a network left in eval()."""
        starts, rule, by_device = np.arange(64), WindowRule(10), {}
        blocks = np.array_split(np.arange(self.data.feats.shape[1]), 6)
        net, progress = self.trained("cpu", 1)
        state = net.encoder.state_dict(), net.decoder.state_dict()
        with tf32(allowed):
            for device in ("cpu", self.device):
                _, other = self.network(device)
                other.encoder.load_state_dict(state[0])
                other.decoder.load_state_dict(state[1])
                predict_windows(other, self.data, starts, rule)
                windows = take_windows(other, self.data, starts, rule, progress.permutation)
                by_device[device] = [
                    block_importance(windows, blocks)[1],
                    gradient_importance(windows),
                ]
        return within("importance", difference(by_device[self.device], by_device["cpu"]), limit)

    def resume(self) -> dict:
        """Compare two epochs with one, a checkpoint, and one more; both on the device."""
        whole, _ = self.trained(self.device, 2)
        net, path = self._resumed(self.device, self.device)
        path.cleanup()
        parts = [
            [value.cpu().numpy() for value in owner.encoder.state_dict().values()]
            for owner in (net, whole)
        ]
        return within("weights", difference(*parts), 1e-6)

    def move(self) -> dict:
        """Let a training go on on the other device, both ways; its loss has to stay finite."""
        ends = []
        for begin, end in ((self.device, "cpu"), ("cpu", self.device)):
            net, folder = self._resumed(begin, end)
            folder.cleanup()
            ends += [
                bool(torch.isfinite(value).all()) for value in net.encoder.state_dict().values()
            ]
        return {"finite": all(ends), "passed": all(ends)}

    def _resumed(self, begin: str, end: str) -> tuple[DaRnnNet, tempfile.TemporaryDirectory]:
        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name) / "checkpoint.pt"
        save_checkpoint(path, *self.trained(begin, 1), {})
        config, net = self.network(end)
        train(net, self.data, config, 2, progress=load_checkpoint(path, net, {}))
        return net, folder

    def speed(self) -> dict:
        """Return seconds a step and peak memory for each size, on the device and the processor."""
        row = {}
        for n_series, batch_size in self.speed_sizes:
            data = draw_data(batch_size + 40, n_series)
            for device in dict.fromkeys((self.device, "cpu")):
                config, net = da_rnn(data, 1, self.hidden, self.hidden, T=10, device=device)
                batch = prep_train_data(
                    np.arange(batch_size), config, to_device(data, device), WindowRule(10)
                )
                if device.startswith("cuda"):
                    torch.cuda.reset_peak_memory_stats()
                seconds = median_seconds(
                    lambda net=net, batch=batch: train_iteration(
                        net, torch.nn.functional.mse_loss, *batch
                    ),
                    synchronize(device),
                    repeats=5 if device != "cpu" else 2,
                )
                row[f"N {n_series}, B {batch_size}, {device}, s"] = seconds
                if device.startswith("cuda"):
                    row[f"N {n_series}, B {batch_size}, MB"] = (
                        torch.cuda.max_memory_allocated() / 1e6
                    )
        return row


def check(chosen: argparse.Namespace) -> int:
    """Run the cases on ``chosen.device``; return 1 when one fails."""
    device = choose_device(chosen.device)[0]
    print(describe_device("torch", device, asked=True))
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    about = {"folder": "csd_darnn", "device": device, "card": card, "torch": torch.__version__}
    cases = Cases(device, chosen.tiny).all()
    return run_cases(cases, chosen.out, about=about, budget_s=chosen.budget_s, only=chosen.only)
