"""The cases of benchmark.py: our route and a plain loop of what the published code does.

The baseline is written from the specification (section 10, D5): a 900-tap depthwise conv1d over
frames padded on both sides, every read-out of every type at all nine positions, padding by
concatenation.
"""

import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from common.files import FOLDER, InputError, read_json, write_json
from inputs.ca_dataloader import CalciumDataset, Layout
from network.layers import activate, scale_activity
from network.model_factory import build_model, read_out_blocks
from network.models import STCNN, batch_loss
from network.predict import predict_long
from network.temporal import temporal_filter
from network.util_conv import exponential_kernel
from runs.configuration import compose_settings

DT, TAPS = 1 / 180, 900
SAME, TAU_ERROR = 2e-3, 5e-4  # largest difference of the two sides, of the largest value
TYPES = ("lc11", "lc12", "lc17", "lc18", "lc21")


def conv1d_filter(
    x: torch.Tensor, tau: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Filter (B, T, C, rows, columns) as the published code does: pad both sides, convolve, cut."""
    batch, n_frames, channels, rows, columns = x.shape
    series = x.permute(0, 3, 4, 2, 1).reshape(-1, channels, n_frames)
    kernel = exponential_kernel(tau, dt=DT, n_taps=TAPS).flip(1).unsqueeze(1)
    y = torch.nn.functional.conv1d(series, kernel, padding=TAPS - 1, groups=channels)
    y = y[..., :n_frames].reshape(batch, rows, columns, channels, n_frames).permute(0, 4, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def published_model() -> STCNN:
    """Return the published network with five types and ten neurons each, random weights."""
    config = compose_settings(["model=stcnn_exp_leakyrelu_bn"])["model"]
    lobula, _ = read_out_blocks(config, TYPES)
    ca = {**config["ca"], "cell_types": list(TYPES), "cell_count": [10] * len(TYPES)}
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula}
    return build_model({**blocks, "ca_config": ca}, rate_hz=180, init="fast", seed=0)


def baseline_calcium(
    model: STCNN, movie: torch.Tensor, kind: str, neurons: torch.Tensor
) -> torch.Tensor:
    """Return calcium (B, T) by the plain route: whole convolutions, all types, all positions."""
    pr = model.pr
    x = functional.conv2d(movie.flatten(0, 1), pr.x_weight, stride=pr.stride, padding=pr.padding)
    x = conv1d_filter(x.unflatten(0, movie.shape[:2]), pr.tau)
    for layer, norm in zip(model.network, model.norm_layers, strict=True):
        x = layer.spatial(x, layer.x_weight)
        x = conv1d_filter(x, layer.tau, layer.bias)
        x = norm(x.flatten(0, 1)).view(x.shape)
    voltages = {}
    for name, layer in zip(model.cell_types, model.lc_layers, strict=True):
        y = conv1d_filter(layer.spatial(x, layer.x_weight), layer.tau, layer.bias)
        voltages[name] = y[:, :, 0, y.shape[3] // 2, y.shape[4] // 2]
    drive = activate(voltages[kind], model.ca_activation) + 1.0
    filtered = conv1d_filter(drive[:, :, None, None, None], model.global_ca_tau)[:, :, 0, 0, 0]
    param = model.calcium_of(kind)
    assert torch.isfinite(filtered).all()
    return scale_activity(filtered, param["beta"][neurons], param["alpha"][neurons])


def layer_inputs(n_frames: int, device: str) -> tuple[torch.Tensor, ...]:
    """Return input, cotangent (1, T, 10, 21, 21) and tau (10, 1) of one temporal layer."""
    generator = torch.Generator().manual_seed(0)
    x, cot = (torch.randn(1, n_frames, 10, 21, 21, generator=generator) for _ in range(2))
    return x.to(device), cot.to(device), torch.logspace(-2, -0.5, 10, device=device)[:, None]


def layer_case(side: str, n_frames: int, device: str) -> tuple[float, dict]:
    """Return (seconds, numbers to compare) of one temporal layer, forward and backward."""
    x, cot, tau = layer_inputs(n_frames, device)
    x.requires_grad_()
    tau.requires_grad_()

    def run():
        if side == "baseline":
            y = conv1d_filter(x, tau)
        else:
            impl = "chunk" if device == "cuda" else "recursive"
            y = temporal_filter(x, tau, dt=DT, n_taps=TAPS, impl=impl)
        return y, *torch.autograd.grad(y, (x, tau), cot)

    seconds, (y, grad_x, grad_tau) = best_of(run, 1 if side == "baseline" else 5, device)
    numbers = {
        "y": y[0, ::97, :, 10, 10],
        "grad_x": grad_x[0, ::97, :, 10, 10],
        "grad_tau": grad_tau,
    }
    return seconds, numbers


def tau_case(side: str, n_frames: int, device: str) -> tuple[float, dict]:
    """Return (seconds, gradient of tau) of our layer: in float32, and as baseline in float64."""
    dtype = torch.float32 if side == "ours" else torch.float64
    x, cot, tau = (value.to(dtype) for value in layer_inputs(n_frames, device))
    tau.requires_grad_()

    def run():
        y = temporal_filter(x, tau, dt=DT, n_taps=TAPS)
        return torch.autograd.grad(y, tau, cot)[0]

    seconds, grad_tau = best_of(run, 2, device)
    return seconds, {"grad_tau": grad_tau}


def step_case(side: str, n_frames: int, device: str, training: bool) -> tuple[float, dict]:
    """Return (seconds, numbers) of a whole forward, with backward when ``training``."""
    model = published_model().to(device).train(training)
    if device == "cuda":
        model.set_temporal_impl("chunk")
    generator = torch.Generator().manual_seed(0)
    movie = ((torch.rand(1, n_frames, 1, 83, 83, generator=generator) < 0.2).float() * -0.498).to(
        device
    )
    truth = torch.rand(1, n_frames, generator=generator).to(device)
    neurons, windows = (
        torch.tensor([3], device=device),
        torch.tensor([[50, n_frames]], device=device),
    )

    def run():
        with torch.set_grad_enabled(training):
            if side == "baseline":
                curve = baseline_calcium(model, movie, "lc11", neurons)
            else:
                with torch.no_grad():
                    sampled = model.pr.sample(movie)
                curve = model.predict_items(sampled, ["lc11"], neurons)
            if not training:
                return curve, curve
            loss = batch_loss(curve, truth, windows, ["lc11"])[0]
            parameters = [model.network[0].x_weight, model.network[3].tau]
            return curve, *torch.autograd.grad(loss, parameters)

    seconds, (curve, *grads) = best_of(run, 1 if side == "baseline" else 4, device)
    return seconds, {"curve": curve, **{f"grad{i}": g for i, g in enumerate(grads)}}


def item_case(side: str, device: str) -> tuple[float, dict]:
    """Return (seconds, numbers) of building one item."""
    del device
    generator = torch.Generator().manual_seed(0)
    movie = torch.rand(162, 83, 83, generator=generator)
    t_axis = (torch.arange(1625) - 360) / 180
    neuron = {
        "traces": torch.randn(3, 1625, generator=generator),
        "azi_shift": 4.0,
        "ele_shift": -3.0,
    }
    recordings = {"lc11": {"a.pt": {5: {"t_axis": t_axis, "neuron": {1: neuron}}}}}
    dataset = CalciumDataset(recordings, {5: movie}, Layout())
    item = dataset.items[0]

    def run():
        if side == "ours":
            return dataset.trace(item), dataset.movie(item)
        onset, total = dataset.onset(item), dataset.n_frames
        grey = torch.full((1, 83, 83), 0.498)
        parts = [grey.repeat(onset, 1, 1), movie, grey.repeat(total - onset - len(movie), 1, 1)]
        frames = torch.cat(parts)
        rows, columns = dataset.pixel_shift(item)
        frames = torch.cat([frames[:, rows:], torch.full((total, rows, 83), 0.498)], dim=1)
        frames = torch.cat([frames[:, :, columns:], torch.full((total, 83, columns), 0.498)], dim=2)
        return dataset.trace(item), (frames - 0.498)[:, None]

    seconds, (trace, built) = best_of(run, 10, "cpu")
    return seconds, {"trace": trace, "movie": built[400:420]}


def stream_case(side: str, device: str) -> tuple[float, dict]:
    """Return (seconds per frame, numbers) of predicting a movie of 3,600 frames (20 s), streamed.

    The baseline is the plain evaluating forward of 1,000 frames (it cannot run in pieces).
    """
    if side == "baseline":
        seconds, _ = step_case("baseline", 1000, device, False)
        return seconds / 1000, {}
    model = published_model().eval()
    generator = torch.Generator().manual_seed(0)
    pieces = [torch.rand(60, 83, 83, generator=generator) - 0.498 for _ in range(60)]
    begun = time.perf_counter()
    n_frames = sum(len(curves["lc11"]) for curves in predict_long(model, pieces, (83, 83)))
    return (time.perf_counter() - begun) / n_frames, {}


def best_of(run: Callable, repeats: int, device: str) -> tuple[float, Any]:
    """Return (smallest seconds, last result); one warm-up where a run is cheap."""
    seconds = []
    if repeats > 1:
        run()
    for _ in range(repeats):
        result = None  # the arrays of the run before would count as memory of this one
        begun = time.perf_counter()
        result = run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), result


def run_case(name: str, side: str, device: str, path: Path) -> None:
    """Run one side of a case here; write seconds, peak memory and numbers to ``path``."""
    kind, _, size = name.partition("_")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "layer":
        seconds, numbers = layer_case(side, int(size), device)
    elif kind == "tau":
        seconds, numbers = tau_case(side, int(size), device)
    elif kind in ("step", "eval"):
        seconds, numbers = step_case(side, int(size), device, kind == "step")
    else:
        seconds, numbers = (item_case if kind == "item" else stream_case)(side, device)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if device == "cuda":
        megabytes = torch.cuda.max_memory_allocated() / 2**20
    arrays = {key: value.detach().cpu().numpy() for key, value in numbers.items()}
    np.savez(path, seconds=seconds, megabytes=megabytes, **{f"n_{k}": v for k, v in arrays.items()})


def compare(name: str, device: str, *, what: str, target: str) -> dict:
    """Run both sides of a case, assert equal numbers, return the row of the table."""
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in ("ours", "baseline"):
            path = Path(folder) / f"{side}.npz"
            command = [
                sys.executable,
                str(FOLDER / "benchmark.py"),
                "--case",
                name,
                "--side",
                side,
                "--device",
                device,
            ]
            done = subprocess.run([*command, "--file", str(path)], check=False)
            if done.returncode:
                raise InputError(f"{name}: the {side} side failed with exit code {done.returncode}")
            with np.load(path, allow_pickle=False) as arrays:
                sides[side] = dict(arrays)
    error = 0.0
    for key in (k for k in sides["ours"] if k.startswith("n_")):
        a, b = sides["ours"][key], sides["baseline"][key]
        error = max(error, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)))
    limit = TAU_ERROR if name.startswith("tau") else SAME
    assert error <= limit, f"{name}: the two sides differ by {error:.1e} of the largest value"
    ours, baseline = float(sides["ours"]["seconds"]), float(sides["baseline"]["seconds"])
    return {
        "what": what,
        "ours_s": ours,
        "baseline_s": baseline,
        "ratio": baseline / ours,
        "ours_mb": float(sides["ours"]["megabytes"]),
        "baseline_mb": float(sides["baseline"]["megabytes"]),
        "target": target,
        "error": error,
    }


def record(path: Path, machine: str, row: dict, order: Iterable[str]) -> None:
    """Put a row into benchmark.json in ``order``; rows of another machine are dropped."""
    old = read_json(path, remedy="remove it") if path.is_file() else {}
    rows = old["rows"] if old.get("machine") == machine else []
    by_name = {entry["what"]: entry for entry in [*rows, row]}
    rows = [by_name[what] for what in order if what in by_name]
    write_json(path, {"machine": machine, "rows": rows})


def machine_line(device: str) -> str:
    """Return the machine in words."""
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return machine + (f", {torch.cuda.get_device_name()}" if device == "cuda" else "")
