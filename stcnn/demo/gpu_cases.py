"""Cases of gpu_check.py: the same numbers on a GPU as on the processor, and its speed.

Movies are drawn on the spot. ``exact`` cases switch TF32 off, so that only the order of sums
differs; their ``as shipped`` twins leave PyTorch's defaults, which users get. Source:
specification, sections 4 to 6 and 10.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from common.cases import difference, gradient_difference, median_seconds, run_cases, within
from common.device import describe_device
from network.adam import Adam
from network.model_factory import build_model, read_out_blocks
from network.models import STCNN
from network.predict import predict_long
from network.temporal import temporal_filter
from runs.configuration import compose_settings
from runs.training import pick_device, train_step

ROUTES = ("recursive", "chunk", "fft", "conv")
TYPES = ("lc11", "lc12")
CPU = torch.device("cpu")


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


class Cases:
    """Methods that gpu_check.py runs by name; each returns numbers and whether they hold."""

    def __init__(self, device: torch.device, tiny: bool):
        self.device, self.on_card = device, device.type == "cuda"
        self.wait = torch.cuda.synchronize if self.on_card else lambda: None
        self.frames, self.side = (70, 11) if tiny else (1625, 83)
        self.taps = 50 if tiny else 900
        self.preset = "stcnn_small" if tiny else "stcnn_exp_leakyrelu_bn"
        self.routes = ROUTES[:2] if tiny else ROUTES
        self.batches = (1,) if tiny else (1, 4, 20)

    def all(self) -> dict[str, Callable[[], dict]]:
        """Return {name: case} in the order in which they run."""
        cases = {}
        for half in (False, True):
            for route in ROUTES:
                name = f"filter {route}{', autocast' if half else ''}"
                cases[name] = lambda route=route, half=half: self.filter(route, half)
        cases["training step, exact"] = lambda: self.step(False, (1e-4, 1e-3))
        cases["training step, as shipped"] = lambda: self.step(None, (5e-3, 5e-2))
        cases["bfloat16 against float32"] = self.low_precision
        cases["movie as a stream"] = self.stream
        for route in self.routes:
            cases[f"seconds a step, {route}"] = lambda route=route: self.speed(route)
        return cases

    def filter(self, route: str, half: bool) -> dict:
        """Compare output and gradients of one filter with float64 on the processor.

        Autocast must not reach into it: the limits are the same.
        """
        random = np.random.default_rng(0)
        x = random.normal(size=(1, 4 * self.taps, 3, 2, 2))
        tau = np.array([0.01, 0.05, 0.2])
        rows = []
        for device, dtype in ((self.device, torch.float32), (CPU, torch.float64)):
            movie = torch.tensor(x, dtype=dtype, device=device, requires_grad=True)
            seconds = torch.tensor(tau, dtype=dtype, device=device, requires_grad=True)
            low = torch.autocast(
                device.type, torch.bfloat16, enabled=half and dtype.is_floating_point
            )
            with low if dtype == torch.float32 else contextlib.nullcontext():
                kind = route if dtype == torch.float32 else "conv"
                y = temporal_filter(movie, seconds, dt=1 / 180, n_taps=self.taps, impl=kind)
            (y.double() ** 2).sum().backward()
            rows.append([value.detach().cpu().numpy() for value in (y, movie.grad, seconds.grad)])
        output = within("output", difference(rows[0][0], rows[1][0]), 1e-5)
        gradient = within("gradient", difference(rows[0][1:], rows[1][1:]), 5e-4)
        return output | gradient | {"passed": output["passed"] and gradient["passed"]}

    def model(self, device: torch.device, route: str = "chunk") -> STCNN:
        """Return a network of two types of two neurons each, seed 0, in training mode."""
        config = compose_settings([f"model={self.preset}"])["model"]
        lobula, _ = read_out_blocks(config, list(TYPES))
        ca = {**config["ca"], "cell_types": list(TYPES), "cell_count": [2, 2]}
        blocks = {"pr_config": config["pr"], "network_config": config["network"]}
        model = build_model(
            {**blocks, "L_config": lobula, "ca_config": ca}, rate_hz=180, init="fast", seed=0
        )
        model.set_temporal_impl(route)
        return model.to(device).train()

    def batch(self, count: int = 3) -> dict:
        """Return a batch of random movies with random calcium."""
        generator = torch.Generator().manual_seed(0)
        size = (count, self.frames, 1, self.side, self.side)
        return {
            "lc_type": [TYPES[i % 2] for i in range(count)],
            "neuron_num": torch.tensor([[i % 2] for i in range(count)]),
            "sampled": torch.rand(size, generator=generator) - 0.5,
            "ca_trace": torch.rand(count, self.frames, generator=generator),
            "scored": (torch.arange(self.frames) > self.frames // 4).expand(count, self.frames),
            "vstim_barcode": torch.arange(count),
        }

    def step(self, allowed: bool | None, limits: tuple[float, float]) -> dict:
        """Compare prediction and gradients of one batch."""
        batch, outputs, gradients = self.batch(2), [], []
        with tf32(allowed):
            for device in (self.device, CPU):
                model = self.model(device)
                predicted = model.predict_items(
                    batch["sampled"].to(device), batch["lc_type"], batch["neuron_num"][:, 0]
                )
                ((predicted - batch["ca_trace"].to(device)) ** 2).mean().backward()
                outputs.append(predicted.detach().cpu().numpy())
                grads = [value.grad for value in model.parameters() if value.grad is not None]
                gradients.append([value.cpu().numpy() for value in grads])
        output = within("output", difference(*outputs), limits[0])
        gradient = within("gradient", gradient_difference(*gradients), limits[1])
        return output | gradient | {"passed": output["passed"] and gradient["passed"]}

    def low_precision(self) -> dict:
        """Compare the prediction of a batch under autocast with float32, both on the device."""
        batch, predictions = self.batch(2), []
        for half in (True, False):
            model = self.model(self.device).eval()
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                predicted = model.predict_items(
                    batch["sampled"].to(self.device), batch["lc_type"], batch["neuron_num"][:, 0]
                )
            predictions.append(predicted.float().cpu().numpy())
        return within("calcium", difference(*predictions), 5e-2)

    def stream(self) -> dict:
        """Compare a movie that arrives in pieces; return frames per second of the device."""
        pieces = [torch.zeros(5, self.side, self.side), torch.ones(9, self.side, self.side)]
        traces, row = [], {}
        for device in (self.device, CPU):
            model, size = self.model(device).eval(), (self.side, self.side)
            curves = list(predict_long(model, pieces, size))
            traces.append([np.concatenate([curve[kind] for curve in curves]) for kind in TYPES])
        return row | within("calcium", difference(*traces), 1e-4)

    def speed(self, route: str) -> dict:
        """Return seconds and peak memory of a training step of each batch size."""
        row = {}
        settings = {"mixed_precision": False, "detect_anomaly": False, "clip_max_norm": 0.05}
        for count in self.batches:
            model, batch = self.model(self.device, route), self.batch(count)
            optimiser = Adam(model.parameters(), lr=1e-3)
            if self.on_card:
                torch.cuda.reset_peak_memory_stats()
            row[f"B {count}, s"] = median_seconds(
                lambda model=model, batch=batch, optimiser=optimiser: train_step(
                    model, batch, optimiser, settings
                ),
                self.wait,
                repeats=3,
            )
            if self.on_card:
                row[f"B {count}, MB"] = torch.cuda.max_memory_allocated() / 1e6
        return row


def check(chosen: argparse.Namespace) -> int:
    """Run the cases on ``chosen.device``; return 1 when one fails."""
    device = pick_device(chosen.device)
    print(describe_device("torch", device.type, asked=True))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    about = {"folder": "stcnn", "device": device.type, "card": card, "torch": torch.__version__}
    cases = Cases(device, chosen.tiny).all()
    return run_cases(cases, chosen.out, about=about, budget_s=chosen.budget_s, only=chosen.only)
