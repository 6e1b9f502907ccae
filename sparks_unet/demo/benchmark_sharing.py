"""The shared way of predicting a movie beside the published way, another build and MONAI.

Seconds are those of the processor (user and system): on a machine that others use too, the time on
the wall says little. All ways predict the same movie with the same network.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from common.files import InputError
from demo.benchmark_cases import MOVIE, row
from network.architecture import build_model
from network.inference_tools import predict_probabilities
from settings.config import Params

STRIDES = (32, 64, 128)
TOLERANCE = 1e-5  # of a probability
# Runs in a process of its own, so that modules of the same names do not meet.
OTHER_BUILD = """
import json, sys, time
import numpy as np, torch
folder, stride, threads, movie, target = sys.argv[1:]
sys.path.insert(0, folder)
try:
    from network.architecture import build_model
    from network.inference_tools import predict_probabilities
    from settings.config import Params
except ImportError:  # before the wings
    from architecture import build_model
    from config import Params
    from inference_tools import predict_probabilities
torch.set_num_threads(int(threads))
torch.manual_seed(0)
model = build_model(Params())
start = time.process_time()
found, _ = predict_probabilities(model, np.load(movie), Params(), stride=int(stride))
seconds = time.process_time() - start
np.save(target, found)
status = open("/proc/self/status", encoding="ascii").read()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
print(json.dumps({"s": seconds, "mb": peak}))
"""


def cpu_timed(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return (processor seconds, result) of a call."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def monai_way(model: torch.nn.Module, movie: np.ndarray, stride: int) -> np.ndarray:
    """Return the probabilities (C, T, H, W) of MONAI's sliding window with the same overlap.

    Raises:
        InputError: MONAI is not installed.
    """
    try:
        from monai.inferers import sliding_window_inference
    except ImportError as error:
        raise InputError("MONAI: pip install -r requirements-peers.txt") from error
    duration, _ = Params().chunk
    scaled = (movie - np.float32(movie.min())) / np.float32(Params().full_scale - movie.min())
    with torch.inference_mode():
        output = sliding_window_inference(
            torch.from_numpy(scaled)[None, None],
            (duration, *movie.shape[1:]),
            1,
            lambda x: model(x).exp(),
            overlap=(1 - stride / duration, 0, 0),
        )
    return output[0].numpy()


def sharing_rows(
    frames: int,
    *,
    threads: int = 1,
    strides: Sequence[int] = STRIDES,
    against: Path | None = None,
    peers: Sequence[str] = (),
) -> list[dict]:
    """Return rows of the benchmark: the shared way, and what it is measured against.

    Args:
        frames: of the movie of noise, of MOVIE's rows and columns.
        threads: of the processor.
        strides: in frames.
        against: folder of another build of sparks_unet, or None.
        peers: names among plain, monai.
    """
    shape = (frames, *MOVIE[1:])
    movie = np.random.default_rng(0).integers(1500, 6000, shape, np.uint16)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model(Params()).eval()
    size, rows = "x".join(map(str, shape)), []
    for stride in strides:
        way = {"stride": stride}
        ours_s, ours = cpu_timed(lambda way=way: predict(model, movie, way))
        what = f"prediction of {size}, stride {stride}, CPU seconds"
        if "plain" in peers:
            plain_s, plain = cpu_timed(lambda way=way: predict(model, movie, way | {"plain": True}))
            rows.append(row(f"{what}, each chunk whole{_difference(ours, plain)}", ours_s, plain_s))
        if against:
            other, theirs = other_build(Path(against), movie, stride, threads)
            name = f"{what}, the other build{_difference(ours, theirs)}"
            rows.append(row(name, ours_s, other["s"], baseline_mb=other["mb"]))
        if "monai" in peers:
            monai_s, theirs = cpu_timed(lambda s=stride: monai_way(model, movie, s))
            off = np.abs(theirs - ours).max()
            rows.append(row(f"{what}, MONAI, off by {off:.2g} at the most", ours_s, monai_s))
    return rows


def predict(model: torch.nn.Module, movie: np.ndarray, way: dict) -> np.ndarray:
    """Return the probabilities of the published setting."""
    return predict_probabilities(model, movie, Params(), **way)[0]


def _difference(ours, other):
    """Return the largest difference as text; stop where it is one of numbers, not of rounding."""
    off = float(np.abs(ours - other).max())
    if off > TOLERANCE:
        raise AssertionError(f"probabilities differ by {off:.3g}, more than {TOLERANCE:g}")
    return f", equal within {off:.1g}"


def other_build(
    folder: Path, movie: np.ndarray, stride: int, threads: int
) -> tuple[dict[str, float], np.ndarray]:
    """Return ({"s", "mb"}, probabilities) of another build of this folder.

    Raises:
        InputError: the folder holds no build that runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "movie.npy", Path(scratch) / "found.npy"
        np.save(source, movie)
        texts = [str(one) for one in (folder, stride, threads, source, target)]
        command = [sys.executable, "-c", OTHER_BUILD, *texts]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"--against {folder}: no build that predicts ({last})")
        return json.loads(done.stdout.splitlines()[-1]), np.load(target)
