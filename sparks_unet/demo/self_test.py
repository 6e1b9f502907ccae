"""Test a network on a synthetic movie with planted truth.

Source: section 13.9 of the specification.
"""

import numpy as np
import torch

from analysis.metrics_tools import metrics_from_counts, movie_counts
from analysis.preds_processing_tools import process_predictions
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post
from network.inference_tools import predict_probabilities
from settings.config import EVENT_CLASSES, Params

MIN_FRAMES = 160  # events in the first and last frames of a movie count as ignored
SUM_TOLERANCE = 1e-4  # of the probabilities of a voxel
TARGET = 0.5  # share of planted events that usable weights detect; our choice, none is published


def planted_movie(
    frames: int, size: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (movie, classes, event ids), each (T, H, W), with as dense events as in the demo."""
    share = frames * size[0] * size[1] / (SMALL["frames"] * SMALL["height"] * SMALL["width"])
    n_sparks, n_puffs = (max(2, round(n * share)) for n in SMALL["rates"][:2])
    settings = DemoSettings(
        movies=1,
        frames=frames,
        height=size[0],
        width=size[1],
        seed=seed,
        rates=(n_sparks, n_puffs, 1),
        exact=True,
    )
    return make_movie(settings, 0)[:3]


def self_test(model: torch.nn.Module, params: Params, *, seed: int, size: tuple[int, int]) -> dict:
    """Predict a synthetic movie twice; return the record of self_test.json.

    Args:
        model: network.
        params: Params.
        seed: of the movie.
        size: (rows, columns).
    """
    frames = max(params.chunk[0], MIN_FRAMES)
    movie, classes, events = planted_movie(frames, size, seed)
    probabilities, clean = predict_probabilities(model, movie, params, name="self-test")
    again, _ = predict_probabilities(model, movie, params, name="self-test")
    settings = DemoSettings()
    scale = Calibration.of(settings.pixel_um, settings.frame_ms, "synthetic")
    post = scaled_post(scale, params.postprocessing)
    prediction = process_predictions(clean, probabilities, post)
    counts = movie_counts(
        classes, events, prediction, post=post, ignore_frames=params.ignore_frames_loss
    )
    metrics = metrics_from_counts([counts])
    error = float(np.abs(probabilities.sum(axis=0) - 1).max())
    checks = {
        "probabilities are finite": bool(np.isfinite(probabilities).all()),
        f"probabilities of a voxel add up to 1 within {SUM_TOLERANCE}": error <= SUM_TOLERANCE,
        "a second prediction is the same": bool(np.array_equal(probabilities, again)),
        f"at least {TARGET:.0%} of the planted events are detected": metrics["total/detected"]
        >= TARGET,
    }
    return {
        "movie": {"shape": list(movie.shape), "seed": seed},
        "planted": {name: counts["events"]["annotated"][name] for name in EVENT_CLASSES},
        "found": prediction.counts(),
        "detected": metrics["total/detected"],
        "correctly_classified": metrics["total/correctly_classified"],
        "checks": checks,
    }
