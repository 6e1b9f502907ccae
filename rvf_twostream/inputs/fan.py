"""The fan of a stored movie: what lies outside shows no heart (text, scales, black).

Letters in shape comments: b clips, n frames, t frames of a clip, r rows, c columns, k channels.
"""

import numpy as np

from inputs.crop import sector_mask
from inputs.movies import Movie, movie_clips
from inputs.storage import Scaling, values
from inputs.utils import load_movie


def fan_of(movie: Movie) -> np.ndarray | None:
    """Return the (r, c) bool mask of the moving fan, or None where it can't be told.

    Movies that an older version z-scored on disk have no grey level of their own.
    """
    grey = values(np.asarray(load_movie(movie.grey_path)))[..., 0]  # (n, r, c), 0..1
    if float(grey.min()) < 0 or float(grey.max()) > 1:
        return None
    return sector_mask(grey * 255)


def fan_clips(
    movie: Movie,
    starts: list[int],
    nframes: int,
    scaling: dict[str, Scaling] | None = None,
) -> dict[str, np.ndarray]:
    """Return ``movie_clips`` with all outside the fan as in a black picture that stands still.

    A movie whose fan can't be told stays as it is.
    """
    clips, fan = movie_clips(movie, starts, nframes, scaling), fan_of(movie)
    if fan is None or scaling is None:
        return clips
    for stream, clip in clips.items():  # (b, t, r, c, k)
        clip[:, :, ~fan] = np.float32(scaling[stream].offset)
    return clips


def outside_share(gradient: np.ndarray, fan: np.ndarray) -> float | None:
    """Return the part of a gradient's absolute values (t, r, c, k) that lies outside the fan.

    None for a gradient that is zero everywhere.
    """
    size = np.abs(np.asarray(gradient, np.float64)).sum(axis=(0, 3))  # (r, c)
    return float(size[~fan].sum() / size.sum()) if size.sum() > 0 else None
