"""Cases of gpu_check.py: the same numbers on a GPU as on the processor, and its speed.

Movies are drawn on the spot. ``exact`` cases switch TF32 off, so that only the order of sums
differs; their ``as shipped`` twins leave PyTorch's defaults, which users get. Source:
specification, sections 5 to 8.
"""

import argparse
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from common.cases import difference, gradient_difference, median_seconds, run_cases, within
from common.device import describe_device
from network.architecture import predict_log_probabilities
from network.custom_losses import make_loss
from network.inference_tools import predict_probabilities
from runs.training_tools import Place, TrainingRun, choose_device, seeded_model
from settings.config import Params

CRITERIA = (
    "nll_loss", "focal_loss", "lovasz_softmax", "sum_losses", "dice_loss", "dice_nll_loss",
)  # fmt: skip
METHODS = ("overlap", "average", "gaussian", "max")
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

    def __init__(self, device: str, tiny: bool):
        self.device = torch.device(device)
        on_card = self.device.type == "cuda"
        self.wait = torch.cuda.synchronize if on_card else lambda: None
        steps, channels, duration = (1, 2, 8) if tiny else (6, 8, 64)
        self.params = dataclasses.replace(
            Params(), unet_steps=steps, first_layer_channels=channels, data_duration=duration,
            data_stride=duration // 2, ignore_frames_loss=0, batch_size=2,
        )  # fmt: skip
        self.size = (duration, 9, 10) if tiny else (duration, 64, 128)
        self.chunk = (8, 16, 16) if tiny else (256, 64, 512)
        self.movie_size = (21, 9, 10) if tiny else (200, 64, 128)

    def all(self) -> dict[str, Callable[[], dict]]:
        """Return {name: case} in the order in which they run."""
        cases = {}
        for label, allowed, limits in (
            ("exact", False, (1e-4, 1e-3)), ("as shipped", None, (5e-3, 5e-2)),
        ):  # fmt: skip
            for name in ("pablos_unet", "github_unet"):
                cases[f"{name}, {label}"] = lambda name=name, allowed=allowed, limits=limits: (
                    self.network(name, allowed, limits)
                )
        for criterion in CRITERIA:
            cases[f"loss {criterion}"] = lambda criterion=criterion: self.loss(criterion)
        for method in METHODS:
            cases[f"prediction, {method}"] = lambda method=method: self.prediction(method)
        cases["bfloat16 against float32"] = self.low_precision
        cases["resume on the device"] = self.resume
        cases["optimiser step after resume"] = self.optimiser_step
        cases["chunk size against memory"] = self.chunk_memory
        cases["seconds a training step"] = self.step_speed
        cases["seconds a prediction"] = self.prediction_speed
        return cases

    def draw(self, seed: int = 0) -> dict[str, torch.Tensor]:
        """Return a random batch {data (2, T, H, W), labels (2, T, H, W)}."""
        random = np.random.default_rng(seed)
        data = random.normal(size=(2, *self.size)).astype(np.float32)
        labels = random.integers(0, 5, (2, *self.size))
        return {"data": torch.from_numpy(data), "labels": torch.from_numpy(labels)}

    def model(self, name: str, device: torch.device) -> torch.nn.Module:
        """Return the network of seed 0 in training mode."""
        attention = name == "github_unet"
        params = dataclasses.replace(self.params, nn_architecture=name, attention=attention)
        return seeded_model(params, device).train()

    def network(self, name: str, allowed: bool | None, limits: tuple[float, float]) -> dict:
        """Compare log-probabilities and the gradient of the NLL of one batch."""
        batch, outputs, gradients = self.draw(), [], []
        with tf32(allowed):
            for device in (self.device, CPU):
                model = self.model(name, device)
                log_p = model(batch["data"].unsqueeze(1).to(device))
                labels = batch["labels"].to(device)
                make_loss(self.with_criterion("nll_loss"))(log_p, labels, 0).backward()
                outputs.append(log_p.detach().cpu().numpy())
                gradients.append([value.grad.cpu().numpy() for value in model.parameters()])
        output = within("output", difference(*outputs), limits[0])
        gradient = within("gradient", gradient_difference(*gradients), limits[1])
        return output | gradient | {"passed": output["passed"] and gradient["passed"]}

    def with_criterion(self, criterion: str) -> Params:
        """Return the settings with another loss."""
        return dataclasses.replace(self.params, criterion=criterion)

    def loss(self, criterion: str) -> dict:
        """Compare value and gradient of one loss."""
        batch, both = self.draw(), []
        raw = torch.from_numpy(
            np.random.default_rng(1).normal(size=(2, 4, *self.size)).astype(np.float32)
        )
        for device in (self.device, CPU):
            log_p = raw.log_softmax(dim=1).to(device).requires_grad_()
            value = make_loss(self.with_criterion(criterion))(log_p, batch["labels"].to(device), 0)
            value.backward()
            both.append((value.detach().cpu().numpy(), log_p.grad.cpu().numpy()))
        return within("loss and gradient", difference(*both), 1e-3)

    def movie(self) -> np.ndarray:
        """Return a random movie (T, H, W) of counts."""
        return np.random.default_rng(2).integers(0, 5000, self.movie_size).astype(np.uint16)

    def prediction(self, method: str) -> dict:
        """Compare the probabilities of a movie, and how often the most likely class differs."""
        both = []
        with tf32(False):
            for device in (self.device, CPU):
                model = self.model("pablos_unet", device)
                both.append(
                    predict_probabilities(model, self.movie(), self.params, method=method)[0]
                )
        row = within("probability", float(np.abs(both[0] - both[1]).max()), 1e-4)
        same = float((both[0].argmax(axis=0) == both[1].argmax(axis=0)).mean())
        return row | {"same class": same, "passed": row["passed"] and same > 0.9999}

    def low_precision(self) -> dict:
        """Compare a prediction in bfloat16 with one in float32, both on the device."""
        both = []
        for amp in (True, False):
            params = dataclasses.replace(self.params, amp=amp)
            model = self.model("pablos_unet", self.device)
            both.append(predict_probabilities(model, self.movie(), params)[0])
        return within("probability", float(np.abs(both[0] - both[1]).max()), 5e-2)

    def training(self, folder: str, steps: int, resume_from: int | None = None) -> TrainingRun:
        """Return a run after ``steps`` more steps on the device."""
        params = dataclasses.replace(self.params, output_relative_path=folder, run_name="check")
        params.output_dir.mkdir(exist_ok=True)
        run = TrainingRun(params, None, [], Place(self.device))
        if resume_from is not None:
            run.load(params.output_dir, resume_from)
        for _ in range(steps):
            run._step(run.model, self.draw(run.iteration), self.device)
            run.iteration += 1
        return run

    def resume(self) -> dict:
        """Compare four steps with two, a checkpoint, and two more."""
        with tempfile.TemporaryDirectory() as folder:
            whole = self.training(folder, 4)
            self.training(folder, 2).save()
            again = self.training(folder, 2, resume_from=2)
        states = [
            [value.float().cpu().numpy() for value in run.model.state_dict().values()]
            for run in (again, whole)
        ]
        return within("weights", difference(*states), 1e-5)

    def optimiser_step(self) -> dict:
        """Return seconds of the optimiser's step before and after resume; their ratio is near 1."""
        with tempfile.TemporaryDirectory() as folder:
            first = self.training(folder, 1)
            first.save()
            again = self.training(folder, 1, resume_from=1)
        before, after = (
            median_seconds(run.optimizer.step, self.wait, repeats=9) for run in (first, again)
        )
        return {"before, s": before, "after, s": after, "passed": after < 1.5 * before + 1e-3}

    def chunk_memory(self) -> dict:
        """Return the peak memory of a forward pass for chunks of 1/4, 1/2 and the whole length."""
        row = {}
        model = self.model("pablos_unet", self.device).eval()
        for share in (4, 2, 1):
            frames = self.chunk[0] // share
            x = torch.zeros(1, 1, frames, *self.chunk[1:], device=self.device)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            with torch.no_grad():
                predict_log_probabilities(model, x, self.params)
            self.wait()
            row[f"{frames} frames, s"] = time.perf_counter() - began
            if self.device.type == "cuda":
                row[f"{frames} frames, MB"] = torch.cuda.max_memory_allocated() / 1e6
        return row

    def step_speed(self) -> dict:
        """Return seconds of a training step on the device: float32, TF32, bfloat16, and the CPU."""
        row = {}
        kinds = {"float32": (False, False), "TF32": (True, False), "bfloat16": (False, True)}
        for name, (allowed, amp) in kinds.items():
            params = dataclasses.replace(self.params, amp=amp)
            with tf32(allowed):
                run = TrainingRun(params, None, [], Place(self.device))
                batch = self.draw()
                row[f"{name}, s"] = median_seconds(
                    lambda run=run, batch=batch: run._step(run.model, batch, self.device),
                    self.wait,
                )
        run = TrainingRun(self.params, None, [], Place(CPU))
        began = time.perf_counter()
        run._step(run.model, self.draw(), CPU)
        return row | {"cpu, s": time.perf_counter() - began}

    def prediction_speed(self) -> dict:
        """Return seconds of the prediction of one movie on the device and on the processor."""
        row = {"frames": self.movie_size[0]}
        for device in dict.fromkeys((self.device, CPU)):
            model, began = self.model("pablos_unet", device), time.perf_counter()
            predict_probabilities(model, self.movie(), self.params)
            row[f"{device.type}, s"] = time.perf_counter() - began
        return row


def check(chosen: argparse.Namespace) -> int:
    """Run the cases on ``chosen.device``; return 1 when one fails."""
    device = choose_device(Params(), chosen.device)[0]
    print(describe_device("torch", device, asked=True))
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    about = {"folder": "sparks_unet", "device": device, "card": card, "torch": torch.__version__}
    cases = Cases(device, chosen.tiny).all()
    return run_cases(cases, chosen.out, about=about, budget_s=chosen.budget_s, only=chosen.only)
