"""One checkout's side of ``benchmark.py --beside``: steps and evaluating forwards on demand.

A process of its own runs ``main`` with the arguments FOLDER PREPAD N_FRAMES. It imports the modules
of FOLDER, of this or an older layout, and nothing else of ours. It reads lines (step, eval, or
statistics before the first eval) and answers each with one JSON object: ``cpu_s``, ``loss``,
``weights`` (sum of the sizes of all, to see that they are the same) and ``mb`` (highest resident
memory so far, above that before the first step).
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable

import torch

SHOWN_OF = (360, 90, 162)  # frames: padding, grey before the movie, movie
WARM, WARM_FRAMES = (10, 5, 10), 40
FIELD = 83  # rows and columns


def modules_of(folder: str) -> tuple:
    """Return the modules with ``published_model`` and ``batch_loss`` of a checkout."""
    sys.path.insert(0, folder)
    try:
        pair = ("demo.benchmark_cases", "network.models")
        return tuple(importlib.import_module(name) for name in pair)
    except ModuleNotFoundError:
        return tuple(importlib.import_module(name) for name in ("benchmark", "models"))


def case(
    modules: tuple, prepad: str, n_frames: int, parts: tuple = SHOWN_OF
) -> dict[str, Callable]:
    """Return the functions ``step`` and ``eval``; each gives the loss."""
    benchmark, models = modules
    pad, lead, n_shown = parts
    model = benchmark.published_model()
    generator = torch.Generator().manual_seed(0)
    shown = (torch.rand(1, n_shown, 1, FIELD, FIELD, generator=generator) < 0.2).float() * -0.498
    truth = torch.rand(1, n_frames, generator=generator)
    with torch.no_grad():
        shown = model.pr.sample(shown)
    sampled = torch.zeros(1, n_frames, *shown.shape[2:])
    sampled[:, pad + lead : pad + lead + n_shown] = shown
    first = 0
    if prepad == "settled":
        model.settle(pad)
        first = pad - 1  # one frame stands for all
    elif prepad == "thinned":
        model.grey_at_knots = True
    sampled, truth = sampled[:, first:].clone(), truth[:, first:]
    windows, neurons = torch.tensor([[pad - first, n_frames - first]]), torch.tensor([3])

    def loss():
        curves = model.predict_items(sampled, ["lc11"], neurons)
        return models.batch_loss(curves, truth, windows, ["lc11"])[0]

    def step():
        model.train()
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return float(value.detach())

    def judge():
        model.eval()
        with torch.no_grad():
            return float(loss())

    def statistics():
        for norm in model.norm_layers:
            norm.momentum = 1.0  # those of this movie
        model.train()
        with torch.no_grad():
            loss()

    weights = sum(float(value.detach().double().abs().sum()) for value in model.parameters())
    return {"step": step, "eval": judge, "statistics": statistics, "weights": weights}


def main() -> None:
    """Answer lines until there are no more."""
    folder, prepad, n_frames = sys.argv[1:]
    torch.set_num_threads(1)
    modules = modules_of(folder)
    warm = case(modules, prepad, WARM_FRAMES, WARM)
    given = case(modules, prepad, int(n_frames))
    warm["step"]()  # what the libraries take once is no memory of a step
    warm["eval"]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in sys.stdin:
        kind = line.strip()
        if kind == "statistics":
            given["statistics"]()
            print("{}", flush=True)
            continue
        begun = time.process_time()
        loss = given[kind]()
        answer = {"cpu_s": time.process_time() - begun, "loss": loss, "weights": given["weights"]}
        answer["mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps(answer), flush=True)
