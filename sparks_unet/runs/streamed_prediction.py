"""Probabilities of a movie of any length, written while it is read: neither lies in memory whole.

The frames kept of each chunk come in order (``overlap``), so that every frame is final at once.

Source: specification sections 8.1 and 8.11.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch

from analysis.disc_output_tools import rounded, rounding
from inputs.calibration import Calibration
from inputs.lazy_movie import LazyMovie, can_be_lazy
from inputs.stack_writer import StackWriter
from network.inference_tools import KeptFrames, probability_parts
from settings.config import CLASSES, EVENT_CLASSES, Params


def can_be_streamed(params: Params, method: str) -> bool:
    """Return whether a movie can be predicted frame by frame."""
    return method == "overlap" and can_be_lazy(params)


def write_probabilities(
    model: torch.nn.Module,
    movie: np.ndarray,
    params: Params,
    target: Path,
    *,
    calibration: Calibration | None = None,
    name: str = "movie",
    **chunks: int | None,
) -> dict[str, Path]:
    """Write <stem>_raw_<class>.tif of a movie as its frames are predicted.

    Args:
        model: network; it is put into eval mode.
        movie: (T, H, W) counts, in memory or mapped from a file.
        params: Params for which ``can_be_streamed`` holds; raw_bits as of ``write_prediction``.
        target: folder and beginning of the names.
        calibration: Calibration of the movie.
        name: of the movie, for messages.
        chunks: stride, batch_size of ``predict_probabilities``.

    Returns:
        {kind: path}.
    """
    model.eval()
    dataset = LazyMovie(movie, params, stride=chunks.get("stride"), name=name)
    batch_size = chunks.get("batch_size")
    frames = KeptFrames(
        "overlap", dataset.shape[0], dataset.duration, dataset.stride, pads=dataset.pads
    )
    bits, written = rounding(params.raw_bits), {}
    with contextlib.ExitStack() as stack:
        writers = {}
        for kind in EVENT_CLASSES:
            path = target.with_name(f"{target.name}_raw_{kind}.tif")
            writer = StackWriter(
                path, movie.shape, np.float32, calibration=calibration, compress=bits > 0
            )
            writers[CLASSES[kind]] = stack.enter_context(writer)
            written[f"raw_{kind}"] = path
        for index, first, part in probability_parts(
            model, dataset, params, frames.kept, batch_size=batch_size, name=name
        ):
            low, high = frames.kept(index)
            own = part[:, max(0, low - first) : max(0, high - first)]
            for number, writer in writers.items():
                writer.write(rounded(own[number], bits) if bits else own[number])
    return written
