"""Pairs of preprocessed movies on disk, checked, and the clips that are cut from them.

Follows specification sections 7.2 and 8.1. Movies are ``.npy`` files opened as memory maps, so that
only the frames of a clip are read. ``clips.py`` makes training batches of them.

Letters in shape comments: b batch, t frames of a clip, r rows, c columns, k channels.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import InputError, raise_faults
from inputs.utils import check_finite, list_stems, load_movie
from settings import NCOLS, NFRAMES, NROWS


class Movie(NamedTuple):
    """A pair of movies of the same recording, grey (n, r, c, 1) and flow (n, r, c, 2)."""

    stem: str
    grey_path: Path
    of_path: Path
    label_class: int  # 0 normal, 1 mild, 2 moderate, 3 severe
    n_frames: int


def list_pairs(
    root: Path,
    splitnum: int,
    set_name: str,
    classmap: dict[str, int],
    *,
    nframes: int = NFRAMES,
    nrows: int = NROWS,
    ncols: int = NCOLS,
    short: list[str] | None = None,
) -> list[Movie]:
    """Return the movies of one set of a split, sorted by name, after checking every one of them.

    Args:
        root: folder of the data set.
        splitnum, set_name: the split and ``train``, ``val`` or ``test``.
        classmap: {stem: class index}; movies without an entry are left out.
        nframes, nrows, ncols: smallest number of frames; size of the pictures.
        short: list that collects the stems of movies with fewer frames; without it they are faults.

    Raises:
        InputError: all faults together: no folder, no flow, other size, NaN, too few frames.
    """
    grey_dir = Path(root) / "greyscale" / f"split{splitnum}_{set_name}"
    of_dir = Path(root) / "OF" / f"split{splitnum}_{set_name}"
    for folder in (grey_dir, of_dir):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; run split_data.py --root {root} --splitnum {splitnum}"
            )
    movies, faults = [], []
    for stem in list_stems(grey_dir):
        if stem not in classmap:
            continue
        paths = grey_dir / f"{stem}.npy", of_dir / f"{stem}.npy"
        try:
            n_frames = _checked_length(*paths, nrows=nrows, ncols=ncols)
        except InputError as error:
            faults.append(str(error))
            continue
        if n_frames >= nframes:
            movies.append(Movie(stem, *paths, classmap[stem], n_frames))
        elif short is None:
            faults.append(f"{paths[0]}: {n_frames} frames, {nframes} needed")
        else:
            short.append(stem)
    raise_faults(faults)
    if not movies:
        raise InputError(f"{grey_dir}: no movie with an entry in classmap.json; run split_data.py")
    return movies


def _checked_length(grey_path, of_path, *, nrows, ncols):
    """Return the number of frames of a pair whose sizes agree and whose values are finite."""
    if not of_path.exists():
        raise InputError(
            f"{of_path}: flow missing; run optical_flow_calculator.py and split_data.py"
        )
    grey = load_movie(grey_path, channels=1, nrows=nrows, ncols=ncols)
    flow = load_movie(of_path, channels=2, nrows=nrows, ncols=ncols)
    if len(grey) != len(flow):
        raise InputError(f"{of_path}: {len(flow)} fields for {len(grey)} frames of the grey movie")
    for path, movie in ((grey_path, grey), (of_path, flow)):
        check_finite(path, movie)
    return len(grey)


def fixed_starts(n_frames: int, nframes: int, n: int) -> list[int]:
    """Return ``n`` evenly spaced first frames of clips of ``nframes`` frames."""
    return [int(s) for s in np.linspace(0, n_frames - nframes, n).round()]


def random_starts(n_frames: int, nframes: int, n: int, rng: np.random.Generator) -> list[int]:
    """Return ``n`` first frames, uniform in [0, n_frames - nframes]."""
    return [int(s) for s in rng.integers(0, n_frames - nframes, size=n, endpoint=True)]


def read_clip(path: Path, start: int, nframes: int) -> np.ndarray:
    """Return frames ``start`` to ``start + nframes - 1`` of a movie, (t, r, c, k) float32."""
    movie = load_movie(path)
    if not 0 <= start <= len(movie) - nframes:
        raise InputError(
            f"{path}: {len(movie)} frames, a clip of {nframes} from frame {start} does not fit"
        )
    clip = np.asarray(movie[start : start + nframes], dtype=np.float32)
    check_finite(path, clip)
    return clip


def movie_clips(
    movie: Movie,
    starts: list[int],
    nframes: int,
    rescaling: dict[str, tuple[float, float]] | None = None,
) -> dict[str, np.ndarray]:
    """Return the clips that begin at ``starts``: {"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}.

    Args:
        rescaling: {stream: (factor, offset)} from the data set's z-scores to a model's, or None.
    """
    clips = {}
    for stream, path in (("grey", movie.grey_path), ("of", movie.of_path)):
        clip = np.stack([read_clip(path, start, nframes) for start in starts])
        if rescaling is not None:
            factor, offset = rescaling[stream]
            clip = clip * np.float32(factor) + np.float32(offset)
        clips[stream] = clip
    return clips


def clip_starts(
    n_frames: int, nframes: int, *, n_sample: int, sampling: str, rng: np.random.Generator
) -> list[int]:
    """Return the first frames of the clips of one movie."""
    if sampling == "even":
        return fixed_starts(n_frames, nframes, n_sample)
    return random_starts(n_frames, nframes, n_sample, rng)
