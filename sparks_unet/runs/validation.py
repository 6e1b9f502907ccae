"""Validation: predict labelled movies one after the other and measure loss and events.

Source: specification sections 7.4 and 8.7 to 8.8.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from analysis.metrics_tools import metrics_from_counts, sample_counts
from analysis.preds_processing_tools import calibrated_post, process_predictions
from inputs.dataset_tools import Sample
from inputs.movie_io import write_stack
from network.custom_losses import drop_margins
from network.inference_tools import predict_probabilities
from settings.config import Params


def movie_loss(
    probabilities: np.ndarray,
    labels: np.ndarray,
    loss_function: Callable,
    *,
    ignore_frames: int,
    iteration: int,
) -> float:
    """Return the loss of one movie without its first and last frames.

    Args:
        probabilities: (4, T, H, W) float32.
        labels: (T, H, W) class labels.
        loss_function: ``make_loss`` of custom_losses.
        ignore_frames: frames left out at each end.
        iteration: decides the loss of a schedule.
    """
    tiny = float(np.finfo(np.float32).tiny)
    log_p = torch.from_numpy(np.ascontiguousarray(probabilities)).clamp(min=tiny).log()[None]
    y = torch.from_numpy(labels.astype(np.int64))[None]
    with torch.inference_mode():
        return float(loss_function(*drop_margins(log_p, y, ignore_frames), iteration))


def _gathered(losses, counts, world, n_samples):
    """Return the losses and counts of all processes in the order of the movies."""
    parts = [None] * world
    torch.distributed.all_gather_object(parts, (losses, counts))
    places = [(i % world, i // world) for i in range(n_samples)]
    return tuple([parts[rank][kind][at] for rank, at in places] for kind in (0, 1))


def validate(
    model: torch.nn.Module,
    samples: Sequence[Sample],
    params: Params,
    loss_function: Callable,
    *,
    iteration: int = 0,
    movies_dir: Path | None = None,
    share: tuple[int, int] = (0, 1),
) -> tuple[dict, list[dict]]:
    """Return (metrics {name: float or None}, list of per-movie counts).

    Args:
        model: network; it is left in train mode when it came in train mode.
        samples: list of Sample with class labels and event ids.
        params: Params.
        loss_function: ``make_loss`` of custom_losses.
        iteration: iteration of the training.
        movies_dir: folder for the probabilities as TIFF, or None.
        share: (number of this process, number of processes); each predicts its share of the movies,
            all of them return the numbers of all.

    The movies go through one at a time: only their counts are kept.
    """
    was_training = model.training
    rank, world = share
    losses, counts = [], []
    for sample in samples[rank::world]:
        post = calibrated_post(sample.movie, post=params.postprocessing)
        probabilities, clean = predict_probabilities(
            model, sample.movie.data, params, name=sample.id
        )
        losses.append(
            movie_loss(
                probabilities,
                sample.classes,
                loss_function,
                ignore_frames=params.ignore_frames_loss,
                iteration=iteration,
            )
        )
        prediction = process_predictions(clean, probabilities, post, training_mode=True)
        counts.append(sample_counts(sample, prediction, params, post))
        if movies_dir is not None:
            for name, index in (("sparks", 1), ("waves", 2), ("puffs", 3)):
                path = movies_dir / f"{params.run_name}_{iteration}_{sample.id}_{name}.tif"
                write_stack(
                    path,
                    probabilities[index],
                    calibration=post.calibration,
                )
    model.train(was_training)
    if world > 1:
        losses, counts = _gathered(losses, counts, world, len(samples))
    return {"loss": float(np.mean(losses)), **metrics_from_counts(counts)}, counts
