"""How movies lie on disk, and how they become the network's numbers when they are read.

A movie is stored raw, once: grey as uint8 (255 is the movie's own maximum), flow as float16 in the
unit of its recipe; ``--store float32`` keeps both as float32. Mean and standard deviation are
applied when clips are read, those of the weights at prediction: a data set has no scale of its own.
Letters in shape comments: n frames, t frames of a clip, r rows, c columns, k channels.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.limits import check_free_space

STORES = ("compact", "float32")
GREY_TOP = 255  # stored value of a movie's maximum
PIXEL_BYTES = {"grey": {"compact": 1, "float32": 4}, "of": {"compact": 4, "float32": 8}}


class Scaling(NamedTuple):
    """What turns stored values x of a stream into the network's: x * factor + offset."""

    factor: float
    offset: float
    compact: bool = False  # round to what a compact file would hold, as the model was trained

    @classmethod
    def zscore(cls, mean: float, std: float, *, compact: bool = False) -> "Scaling":
        """Return the scaling (x - mean) / std of raw movies."""
        return cls(1 / std, -mean / std, compact)


def check_room(folder: Path, rows: list[dict], options: dict, stream: str) -> None:
    """Raise InputError when movies still to be made have no room on the disk.

    Args:
        folder: of the stored movies; those that are replaced count as room.
        rows: of the manifest: name, frames and fps as the headers tell them.
        options: nrows, ncols, store and resample_fps.
        stream: grey or of.
    """
    pixels = options["nrows"] * options["ncols"]
    n_bytes = 0
    for row in rows:
        n_frames, rate = float(row["frames"] or 0), float(row["fps"] or 0)
        if options["resample_fps"] and rate:
            n_frames *= options["resample_fps"] / rate
        n_bytes += n_frames * pixels * PIXEL_BYTES[stream][options["store"]]
        old = Path(folder) / f"{row['name']}.npy"
        n_bytes -= old.stat().st_size if old.exists() else 0
    check_free_space(folder, max(n_bytes, 0), f"{len(rows)} movies")


def stored_grey(movie: np.ndarray, store: str) -> np.ndarray:
    """Return a movie (n, r, c, 1), 0..1, as it is stored."""
    if store == "float32":
        return np.asarray(movie, np.float32)
    # Values below 0 exist only in signed files whose black is not their minimum.
    return np.clip(np.floor(movie * np.float32(GREY_TOP) + np.float32(0.5)), 0, 255).astype(
        np.uint8
    )


def stored_flow(flow: np.ndarray, store: str) -> np.ndarray:
    """Return a flow (n, r, c, 2) as it is stored."""
    return np.asarray(flow, np.float32 if store == "float32" else np.float16)


def values(stored: np.ndarray) -> np.ndarray:
    """Return the float32 values of a stored movie or clip: grey 0..1, flow in its unit."""
    if stored.dtype == np.uint8:
        return stored.astype(np.float32) * np.float32(1 / GREY_TOP)
    return np.asarray(stored, np.float32)


def scaled(stored: np.ndarray, scaling: Scaling | None) -> np.ndarray:
    """Return the network's input (…, k) float32 of a stored movie or clip.

    Args:
        scaling: None leaves values as they are: movies of older versions are z-scored on disk.
    """
    clip = values(stored)
    if scaling is None:
        return clip
    if scaling.compact and stored.dtype == np.float32:
        to_disk = stored_grey if stored.shape[-1] == 1 else stored_flow
        clip = values(to_disk(clip, "compact"))
    return clip * np.float32(scaling.factor) + np.float32(scaling.offset)
