"""Events of one class by a threshold and 26-connected components.

Source: section 8.6 of the specification.
"""

from pathlib import Path

import numpy as np

from analysis.disc_output_tools import sixteen_bit
from analysis.preds_processing_tools import tell_skipped, threshold_mask
from common.files import InputError
from common.locks import writing
from inputs.data_processing import connected_components
from inputs.movie_io import keep_inputs, read_probabilities, write_stack


def track_objects(
    probability: np.ndarray, threshold: float, *, min_radius: int, ignore_frames: int = 0
) -> np.ndarray:
    """Return event ids (T, H, W) of the objects at or above a threshold.

    Args:
        probability: (T, H, W) in 0..1.
        threshold: voxels at or above it are event.
        min_radius: 6-connected objects of fewer than (2 min_radius)^3 voxels are removed.
        ignore_frames: this many first and last frames are emptied.
    """
    # threshold_mask keeps what is above its threshold; here the threshold itself belongs to events.
    below = np.nextafter(probability.dtype.type(threshold), probability.dtype.type(-1))
    mask = threshold_mask(probability, below, min_radius=min_radius, ignore_frames=ignore_frames)
    return connected_components(mask)[0]


def write_tracks(
    path: Path, out: Path | None = None, *, threshold: float, min_radius: int, ignore_frames: int
) -> tuple[Path, int]:
    """Write the labelled movie of the probabilities at ``path``; return (path, events)."""
    out = out or path.with_name(f"{path.stem}_events.tif")
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: expected a number from 0 to 1")
    keep_inputs([out], [path])
    with writing(out.parent):
        movie = read_probabilities(path)
        tell_skipped(path, len(movie.data), ignore_frames)
        events = track_objects(
            movie.data.astype(np.float32),
            threshold,
            min_radius=min_radius,
            ignore_frames=ignore_frames,
        )
        write_stack(out, sixteen_bit(events), calibration=movie.calibration)
    return out, int(events.max(initial=0))
