"""Training step, prediction memory and movie against the published way of working.

The baselines are straightforward loops that work as the published code; every one must give the
same numbers before it is timed. Source: specification, sections 6.1, 6.2 and 8.3.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.nn.functional import mse_loss

from analysis.heatmap import blend, limits, movie_frames
from common.files import FOLDER, InputError, write_json
from demo.driver_cases import driver_table
from demo.onset_cases import onset_table
from inputs.custom_types import DaRnnNet, ModelOptions, TrainData
from inputs.windows import WindowRule
from network.build import build_net
from network.modules import Decoder, Encoder
from network.prediction import predict
from runs.training import train_iteration

T, HIDDEN = 10, 64
TARGETS = {(936, 20): ">= 5x", (936, 128): ">= 12x", (6552, 20): ">= 18x", (6552, 128): ">= 35x"}
MOVIE_TARGET, MEMORY_TARGET = ">= 20x", "< 200 MB"


def baseline_encode(encoder: Encoder, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode as the published loop: at every step a (B*N, 2m+S) matrix goes through attn_linear."""
    batch, steps, n_feats = X.shape
    m, layers = encoder.hidden_size, encoder.lstm_layer.num_layers
    hidden = torch.zeros(layers, batch, m)
    cell = torch.zeros(layers, batch, m)
    weighted, encoded = [], []
    for step in range(steps):
        parts = (
            hidden[-1].repeat(n_feats, 1, 1).permute(1, 0, 2),
            cell[-1].repeat(n_feats, 1, 1).permute(1, 0, 2),
            X.permute(0, 2, 1),
        )
        energy = encoder.attn_linear(torch.cat(parts, dim=2).reshape(-1, 2 * m + steps))
        alpha = torch.softmax(energy.view(batch, n_feats), dim=1)
        now = alpha * X[:, step]
        _, (hidden, cell) = encoder.lstm_layer(now.unsqueeze(0), (hidden, cell))
        weighted.append(now)
        encoded.append(hidden[-1])
    return torch.stack(weighted, dim=1), torch.stack(encoded, dim=1)


def baseline_decode(
    decoder: Decoder, encoded: torch.Tensor, y_history: torch.Tensor
) -> torch.Tensor:
    """Decode as the published loop: the whole attention layer at every step."""
    batch, steps, m = encoded.shape
    p, layers = decoder.decoder_hidden_size, decoder.lstm_layer.num_layers
    hidden = torch.zeros(layers, batch, p)
    cell = torch.zeros(layers, batch, p)
    for step in range(y_history.shape[1]):
        parts = (
            hidden[-1].repeat(steps, 1, 1).permute(1, 0, 2),
            cell[-1].repeat(steps, 1, 1).permute(1, 0, 2),
            encoded,
        )
        energy = decoder.attn_layer(torch.cat(parts, dim=2).reshape(-1, 2 * p + m))
        beta = torch.softmax(energy.view(batch, steps), dim=1)
        context = torch.bmm(beta.unsqueeze(1), encoded)[:, 0]
        y_tilde = decoder.fc(torch.cat((context, y_history[:, step]), dim=1))
        _, (hidden, cell) = decoder.lstm_layer(y_tilde.unsqueeze(0), (hidden, cell))
    return decoder.fc_final(torch.cat((hidden[0], context), dim=1))


def baseline_step(
    net: DaRnnNet,
    loss_func: Callable,
    X: torch.Tensor,
    y_history: torch.Tensor,
    y_target: torch.Tensor,
) -> float:
    """Take one published training step and return its loss."""
    y_pred = baseline_decode(net.decoder, baseline_encode(net.encoder, X)[1], y_history)
    loss = loss_func(y_pred, y_target)
    net.enc_opt.zero_grad()
    net.dec_opt.zero_grad()
    loss.backward()
    net.enc_opt.step()
    net.dec_opt.step()
    return loss.item()


def make_net(n_feats: int) -> DaRnnNet:
    """Return a network and random windows of the benchmark's sizes."""
    sizes = {"N": n_feats, "m": HIDDEN, "p": HIDDEN, "o": 1}
    return build_net(sizes, rule=WindowRule(T), options=ModelOptions(), learning_rate=0.01)


def step_row(n_feats: int, batch: int, steps: int) -> dict:
    """Return the row of one training step; CPU seconds, median, one thread."""
    random = torch.Generator().manual_seed(0)
    X = torch.randn(batch, T - 1, n_feats, generator=random)
    y_history = torch.randn(batch, T - 1, 1, generator=random)
    y_target = torch.randn(batch, 1, generator=random)
    seconds = {}
    # The baseline keeps the plain Adam loop of the published code.
    for name, step in (("ours", train_iteration), ("baseline", baseline_step)):
        net, taken, losses = make_net(n_feats), [], []
        if name == "baseline":
            for optimiser in (net.enc_opt, net.dec_opt):
                for group in optimiser.param_groups:
                    group["fused"] = False
        for _ in range(steps + 1):
            began = time.process_time()
            losses.append(step(net, mse_loss, X, y_history, y_target))
            taken.append(time.process_time() - began)
        seconds[name] = statistics.median(taken[1:])
        seconds[f"{name}_losses"] = losses[:3]
    if not np.allclose(seconds["ours_losses"], seconds["baseline_losses"], rtol=0, atol=1e-4):
        raise InputError(f"training step N {n_feats}: the baseline gives other losses")
    return row(
        f"training step, N {n_feats}, batch {batch}",
        seconds["ours"],
        seconds["baseline"],
        target=TARGETS.get((n_feats, batch)),
    )


def row(
    what: str,
    ours_s: float,
    baseline_s: float | None,
    *,
    ours_mb: float | None = None,
    baseline_mb: float | None = None,
    target: str | None = None,
) -> dict:
    """Return one row of benchmark.json."""
    ratio = baseline_s / ours_s if baseline_s and ours_s else None
    return {
        "what": what, "ours_s": ours_s, "baseline_s": baseline_s, "ratio": ratio,
        "ours_mb": ours_mb, "baseline_mb": baseline_mb, "target": target,
    }  # fmt: skip


def predict_memory(frames: int) -> None:
    """Print the growth of memory in MB while ``frames`` frames are predicted at 936 pixels."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    train_size, n_feats = 100, 936
    values = random.normal(size=(train_size + frames, n_feats + 1)).astype(np.float32)
    data, net = TrainData(values[:, :-1].copy(), values[:, -1:].copy()), make_net(n_feats)
    few = TrainData(data.feats[: train_size + 20], data.targs[: train_size + 20])
    predict(net, few, train_size, 128, T, rule=WindowRule(T))  # the libraries' own memory
    before = peak_mb()
    began = time.process_time()
    predict(net, data, train_size, 128, T, rule=WindowRule(T))
    seconds = time.process_time() - began
    print(peak_mb() - before, seconds)


def peak_mb() -> float:
    """Return the highest memory of this process so far, in MB (Linux).

    The kernel's ru_maxrss would start at the size of the process that made this one.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise InputError("/proc/self/status: found no VmHWM, expected Linux; leave out the memory row")


def memory_row(frames: int) -> dict:
    """Return the row of the prediction's memory, measured in a process of its own."""
    code = f"from demo.timing import predict_memory; predict_memory({frames})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    growth, seconds = map(float, done.stdout.split())
    return row(
        f"predict {frames} frames at 936 pixels",
        seconds,
        None,
        ours_mb=growth,
        target=MEMORY_TARGET,
    )


def movie_row(frames: int) -> dict:
    """Return the row of one heat-map movie frame, 72 x 91 pixels."""
    random = np.random.default_rng(0)
    video, maps = random.normal(size=(2, frames, 72, 91)).astype(np.float32)
    began = time.process_time()
    made = sum(1 for _ in movie_frames(video, maps, title="benchmark"))
    ours = (time.process_time() - began) / made
    figure = Figure(figsize=(6.4, 4.8))
    canvas = FigureCanvasAgg(figure)
    fewer = min(frames, 10)
    began = time.process_time()
    for index in range(fewer):
        figure.clear()
        axes = figure.subplots()
        axes.imshow(video[index], cmap="gray")
        shown = axes.imshow(maps[index], cmap="coolwarm", alpha=0.5)
        figure.colorbar(shown)
        axes.set_title(f"Frame {index}")
        canvas.draw()
    baseline = (time.process_time() - began) / fewer
    check_blend(axes, video[fewer - 1], maps[fewer - 1], blend, limits)
    return row("movie frame, 72 x 91", ours, baseline, target=MOVIE_TARGET)


def check_blend(
    axes: Axes, frame: np.ndarray, heat: np.ndarray, blend: Callable, limits: Callable
) -> None:
    """Raise unless the blended array holds the colours that the two drawn images give."""
    gray, warm = (image.to_rgba(image.get_array())[..., :3] for image in axes.get_images())
    drawn = 0.5 * gray + 0.5 * warm
    if np.abs(drawn - blend(frame, heat, limits(frame), limits(heat))).max() > 1 / 255:
        raise InputError("movie frame: the baseline gives other colours")


def measure(chosen: argparse.Namespace) -> None:
    """Measure, print the table and write it; ``chosen`` holds the flags of benchmark.py."""
    torch.set_num_threads(1)
    try:
        sizes = [tuple(map(int, pair.split(","))) for pair in chosen.rows.split(";")]
        if any(len(pair) != 2 for pair in sizes):
            raise ValueError
    except ValueError:
        raise InputError(f"--rows: found {chosen.rows!r}, expected N,B;N,B") from None
    rows = []
    if "step" in chosen.only:
        rows += [step_row(n_feats, batch, chosen.steps) for n_feats, batch in sizes]
    if "movie" in chosen.only:
        rows.append(movie_row(chosen.movie_frames))
    if "memory" in chosen.only:
        rows.append(memory_row(chosen.predict_frames))
    searches = driver_table(chosen.driver_movies) if "drivers" in chosen.only else []
    waves = onset_table(chosen.onset_seeds) if "onset" in chosen.only else []
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}"
    write_json(chosen.out, {"machine": machine, "rows": rows, "onset": waves, "drivers": searches})
    print(machine)
    for line in waves + searches:
        print(f"{line['kind']:18s} {line['movies']:3d} movies  {line['text']}")
    for line in rows:
        speed = "" if line["ratio"] is None else f"ratio {line['ratio']:.1f}"
        wanted = "" if line["target"] is None else f"target {line['target']}"
        memory = "" if line["ours_mb"] is None else f"{line['ours_mb']:.0f} MB"
        baseline = "-" if line["baseline_s"] is None else f"{line['baseline_s'] * 1e3:.1f}"
        print(
            f"{line['what'][:60]:60s} ours {line['ours_s'] * 1e3:8.1f} ms  baseline {baseline:>9s}"
            f" ms  {speed} {wanted} {memory}"
        )
