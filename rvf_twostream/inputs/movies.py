"""Pairs of preprocessed movies on disk, checked, and the clips that are cut from them.

Follows specification sections 7.2 and 8.1. Movies are ``.npy`` files opened as memory maps, so that
only the frames of a clip are read. ``clips.py`` makes training batches of them.

Letters in shape comments: b batch, t frames of a clip, r rows, c columns, k channels.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import InputError, raise_faults
from inputs.scaling import FLOW_STREAM, GREY_STREAM, is_raw
from inputs.storage import Scaling, scaled, stored_grey
from inputs.utils import check_finite, list_stems, load_movie, same_file
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
    movies, faults, raw = [], [], is_raw(root)
    for stem in list_stems(grey_dir):
        if stem not in classmap:
            continue
        paths = grey_dir / f"{stem}.npy", of_dir / f"{stem}.npy"
        try:
            n_frames = _checked_length(*paths, nrows=nrows, ncols=ncols)
            if raw:
                check_linked(root, stem, *paths)
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


def check_heads(
    root: Path, splitnum: int, set_name: str, classmap: dict[str, int], size: dict[str, int]
) -> None:
    """Raise InputError for movies of a set that will not fit, without opening the set.

    The heads of the files that the set links are read in the data set's own folders; older data
    sets, z-scored on disk, are looked at when the set is opened.

    Args:
        size: nframes, nrows and ncols.
    """
    if not is_raw(root):
        return
    faults = []
    for stem in list_stems(Path(root) / "greyscale" / f"split{splitnum}_{set_name}"):
        if stem not in classmap:
            continue
        made = [Path(root) / s.made / f"{stem}.npy" for s in (GREY_STREAM, FLOW_STREAM)]
        try:
            n_frames = _lengths(*made, nrows=size["nrows"], ncols=size["ncols"])[0]
        except InputError as error:
            faults.append(str(error))
            continue
        if n_frames < size["nframes"]:
            faults.append(f"{made[0]}: {n_frames} frames, {size['nframes']} needed")
    raise_faults(faults)


def check_linked(root: Path, stem: str, grey_path: Path, of_path: Path) -> None:
    """Raise InputError when a movie was made anew after the split was linked."""
    for stream, path in ((GREY_STREAM, grey_path), (FLOW_STREAM, of_path)):
        made = Path(root) / stream.made / f"{stem}.npy"
        if made.exists() and not same_file(made, path):
            raise InputError(
                f"{path}: {made} was made anew after this split was linked; run split_data.py"
            )


def _lengths(grey_path, of_path, *, nrows, ncols):
    """Return frames and memory maps of a pair whose sizes agree; heads only."""
    if not of_path.exists():
        raise InputError(
            f"{of_path}: flow missing; run optical_flow_calculator.py and split_data.py"
        )
    grey = load_movie(grey_path, channels=1, nrows=nrows, ncols=ncols)
    flow = load_movie(of_path, channels=2, nrows=nrows, ncols=ncols)
    if len(grey) != len(flow):
        raise InputError(f"{of_path}: {len(flow)} fields for {len(grey)} frames of the grey movie")
    return len(grey), grey, flow


def _checked_length(grey_path, of_path, *, nrows, ncols):
    """Return the number of frames of a pair whose sizes agree and whose values are finite."""
    n_frames, grey, flow = _lengths(grey_path, of_path, nrows=nrows, ncols=ncols)
    for path, movie in ((grey_path, grey), (of_path, flow)):
        check_finite(path, movie)
    return n_frames


def fixed_starts(n_frames: int, nframes: int, n: int) -> list[int]:
    """Return ``n`` evenly spaced first frames of clips of ``nframes`` frames."""
    return [int(s) for s in np.linspace(0, n_frames - nframes, n).round()]


def random_starts(n_frames: int, nframes: int, n: int, rng: np.random.Generator) -> list[int]:
    """Return ``n`` first frames, uniform in [0, n_frames - nframes]."""
    return [int(s) for s in rng.integers(0, n_frames - nframes, size=n, endpoint=True)]


def read_clip(path: Path, start: int, nframes: int, scaling: Scaling | None = None) -> np.ndarray:
    """Return frames ``start`` to ``start + nframes - 1`` of a movie, (t, r, c, k) float32.

    Args:
        scaling: from stored values to those of the network; None leaves them as they are.
    """
    movie = load_movie(path)
    if not 0 <= start <= len(movie) - nframes:
        raise InputError(
            f"{path}: {len(movie)} frames, a clip of {nframes} from frame {start} does not fit"
        )
    clip = np.asarray(movie[start : start + nframes])
    check_finite(path, clip)
    return scaled(clip, scaling)


def movie_clips(
    movie: Movie,
    starts: list[int],
    nframes: int,
    scaling: dict[str, Scaling] | None = None,
) -> dict[str, np.ndarray]:
    """Return the clips that begin at ``starts``: {"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}.

    Args:
        scaling: {stream: Scaling} of ``Recipe.scaling``, or None for stored values.
    """
    return {
        stream: np.stack(
            [read_clip(path, start, nframes, scaling and scaling[stream]) for start in starts]
        )
        for stream, path in (("grey", movie.grey_path), ("of", movie.of_path))
    }


def start_seed(grey: np.ndarray, stem: str = "") -> int:
    """Return a number that the stored grey movie decides: its random clips lie alike everywhere.

    Args:
        grey: (n, r, c, 1) as stored.
        stem: name of the movie, which decides for one that an older version z-scored on disk.
    """
    if grey.dtype != np.uint8 and float(grey.min()) < 0:
        return zlib.crc32(stem.encode())
    if grey.dtype != np.uint8:
        grey = stored_grey(np.asarray(grey, np.float32), "compact")
    return zlib.crc32(np.ascontiguousarray(grey).tobytes())


def clip_starts(
    n_frames: int, nframes: int, *, n_sample: int, sampling: str, rng: np.random.Generator
) -> list[int]:
    """Return the first frames of the clips of one movie."""
    if sampling == "even":
        return fixed_starts(n_frames, nframes, n_sample)
    return random_starts(n_frames, nframes, n_sample, rng)
