"""Time and memory of this project beside plain loops written as the specification describes them.

Where a baseline is given, both sides give the same numbers, or the benchmark stops.

Source: specification section 12.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from common.files import FOLDER
from demo.plain_postprocessing import rows as postprocessing_rows
from network.architecture import build_model
from network.custom_losses import lovasz_softmax
from network.inference_tools import Assembly, gaussian_weights, predict_probabilities
from settings.config import Params

CHUNK = (256, 64, 512)  # frames, rows, columns of a published chunk
MOVIE = (904, 64, 512)


def row(
    what: str,
    ours_s: float | None = None,
    baseline_s: float | None = None,
    *,
    ours_mb: float | None = None,
    baseline_mb: float | None = None,
    target: str | None = None,
) -> dict:
    """Return one row of the table; a quantity that is not measured is None."""
    return {
        "what": what,
        "ours_s": ours_s,
        "baseline_s": baseline_s,
        "ratio": baseline_s / ours_s if ours_s and baseline_s else None,
        "ours_mb": ours_mb,
        "baseline_mb": baseline_mb,
        "target": target,
    }


def counted(threads: int) -> str:
    """Return "1 thread" or "2 threads"."""
    return f"{threads} thread" + ("s" if threads > 1 else "")


def timed(function: Callable, *args: object) -> tuple[float, object]:
    """Return (seconds, result) of one call."""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def assembly_rows() -> list[dict]:
    """Gaussian assembly of 3 chunks in place, against per-frame lists."""
    duration, stride = CHUNK[0], 32
    rng = np.random.default_rng(0)
    chunks = rng.random((3, 4, *CHUNK), dtype=np.float32)
    frames = duration + 2 * stride

    def ours():
        assembly = Assembly("gaussian", frames, duration, stride, 4, CHUNK[1:])
        for index, chunk in enumerate(chunks):
            assembly.add(index, chunk)
        return assembly.result()

    def plain():
        lists = [[] for _ in range(frames)]
        for index, chunk in enumerate(chunks):
            for frame in range(duration):
                lists[index * stride + frame].append(chunk[:, frame])
        merged = []
        for covering in lists:
            weights = gaussian_weights(len(covering))
            merged.append(
                np.sum([w * one for w, one in zip(weights, covering, strict=True)], axis=0)
            )
        return np.stack(merged, axis=1)

    seconds, assembled = timed(ours)
    plain_seconds, expected = timed(plain)
    np.testing.assert_allclose(assembled, expected, atol=1e-6)
    return [row("Gaussian assembly of 3 chunks", seconds, plain_seconds)]


def forward_rows(threads: int) -> list[dict]:
    """One forward pass of a published chunk: in slabs of frames, against all at once."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model(Params()).eval()
    x = torch.rand(1, 1, *CHUNK)

    def forward():
        with torch.inference_mode():
            return model(x)

    seconds, output = timed(forward)
    model.halo = 0  # switches the slabs off
    plain_seconds, expected = timed(forward)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
    return [row(f"forward 256x64x512, {counted(threads)}", seconds, plain_seconds, target=">= 1x")]


def training_rows(threads: int) -> list[dict]:
    """Forward, Lovasz loss and backward of one published chunk."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model(Params())
    x, y = torch.rand(1, 1, *CHUNK), torch.randint(0, 4, (1, *CHUNK))
    seconds, _ = timed(lambda: lovasz_softmax(model(x), y).backward())
    return [row(f"training step 256x64x512, {counted(threads)}", seconds)]


def gpu_rows() -> list[dict]:
    """Forward and training step of one chunk on the GPU, with and without bfloat16."""
    if not torch.cuda.is_available():
        return []
    torch.manual_seed(0)
    model = build_model(Params()).cuda()
    x = torch.rand(1, 1, *CHUNK, device="cuda")
    y = torch.randint(0, 4, (1, *CHUNK), device="cuda")
    rows = []
    for amp in (False, True):

        def step(amp=amp):
            with torch.autocast("cuda", torch.bfloat16, enabled=amp):
                log_p = model(x)
            lovasz_softmax(log_p.float(), y).backward()
            torch.cuda.synchronize()

        step()  # the first call chooses algorithms
        torch.cuda.reset_peak_memory_stats()
        seconds, _ = timed(step)
        peak = torch.cuda.max_memory_allocated() / 1e6
        rows.append(row(f"training step on the GPU, amp {amp}", seconds, ours_mb=peak))
    return rows


def predict_standard_movie(stride: int) -> dict[str, float]:
    """Predict a 904-frame movie with the published network; return seconds and peak MB."""
    torch.manual_seed(0)
    model = build_model(Params())
    movie = np.random.default_rng(0).integers(1500, 6000, MOVIE, np.uint16)
    seconds, _ = timed(lambda: predict_probabilities(model, movie, Params(), stride=stride))
    return {"s": seconds, "mb": peak_mb()}


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB.

    ``ru_maxrss`` would not do: a new process starts with the value of the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def inference_rows(stride: int) -> list[dict]:
    """Peak memory of the whole process that predicts a 904-frame movie."""
    # a fresh process: the peak of this one holds the other benchmarks
    code = (
        f"import sys, json; sys.path.insert(0, {str(FOLDER)!r})\n"
        f"from demo.benchmark_cases import predict_standard_movie\n"
        f"print(json.dumps(predict_standard_movie({stride})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    what = f"prediction of 904x64x512, stride {stride}, whole process"
    return [row(what, told["s"], ours_mb=told["mb"], target="< 2000 MB")]


def own_cores() -> int:
    """Return the number of cores that this process may use: run.py gives each folder its share."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def all_rows(
    parts: Sequence[str], *, threads: Sequence[int] | None = None, stride: int
) -> list[dict]:
    """Return the rows of ``parts`` of the benchmark.

    Args:
        parts: names among postprocessing, assembly, forward, training, inference.
        threads: numbers of CPU threads; None: 1 and all.
        stride: of the prediction.
    """
    rows = []
    if "postprocessing" in parts:
        rows += postprocessing_rows()
    if "assembly" in parts:
        rows += assembly_rows()
    for count in threads or sorted({1, own_cores()}):
        if "forward" in parts:
            rows += forward_rows(count)
        if "training" in parts:
            rows += training_rows(count)
    if "training" in parts:
        rows += gpu_rows()
    if "inference" in parts:
        rows += inference_rows(stride)
    return rows


def print_table(rows: Sequence[dict]) -> None:
    """Print the rows as a table."""
    keys = ("what", "ours_s", "baseline_s", "ratio", "ours_mb", "baseline_mb", "target")
    cells = [keys]
    for one in rows:
        cells.append(
            ["-" if v is None else v if isinstance(v, str) else f"{v:.4g}" for v in one.values()]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    for line in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
