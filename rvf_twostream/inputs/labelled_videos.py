"""Turn labelled videos into z-scored movies for pre-training by classification (section 7.1).

A folder of videos (Kinetics, for example) is decoded once into ``<folder>/<stem>.npy``, grey
(n, rows, columns, 1) or flow (n, rows, columns, 2), with one mean and one deviation for all.
"""

from pathlib import Path

from joblib import Parallel, delayed

from common.files import raise_faults
from inputs.echonet import GREY, OF, prepare_video
from inputs.scaling import dataset_mean_std, movie_moments, normalize_movie
from inputs.video import VIDEO_SUFFIXES

KINDS = {"grey": (GREY, 1), "of": (OF, 2)}


def find_videos(root: Path) -> dict[str, Path]:
    """Return {stem: path} of the videos below ``root``."""
    found = (p for p in sorted(Path(root).rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES)
    return {path.stem: path for path in found}


def movies_of_videos(
    videos: dict[str, Path],
    folder: Path,
    stream: str,
    *,
    nframes: int,
    nrows: int,
    ncols: int,
    workers: int = 1,
) -> dict[str, Path]:
    """Return {stem: path of its movie}; movies that exist are kept.

    Args:
        videos: {stem: path}.
        folder: where the movies go.
        stream: ``grey`` or ``of``.
        nframes, nrows, ncols: fewest frames of a video; size of the movies.
        workers: processes.

    Raises:
        InputError: all videos that cannot be used.
    """
    kind, channels = KINDS[stream]
    movies = {stem: Path(folder) / f"{stem}.npy" for stem in videos}
    if all(path.exists() for path in movies.values()):
        return movies
    raw = {stem: Path(folder) / "unscaled" / f"{stem}.npy" for stem in videos}
    faults = Parallel(n_jobs=workers)(
        delayed(prepare_video)(
            videos[stem], {kind: raw[stem]}, nframes=nframes, nrows=nrows, ncols=ncols
        )
        for stem in videos
    )
    raise_faults([fault for fault in faults if fault])
    mean, std = dataset_mean_std([movie_moments(path, channels) for path in raw.values()])
    for stem, path in raw.items():
        normalize_movie(path, movies[stem], mean, std, channels)
    for path in raw.values():
        path.unlink()
    return movies
