"""Turn labelled videos into z-scored movies for pre-training by classification (section 7.1).

A folder of videos (Kinetics, for example) is decoded once into ``<folder>/<stem>.npy``, grey
(n, rows, columns, 1) or flow (n, rows, columns, 2), with one mean and one deviation for all.
"""

from pathlib import Path, PurePosixPath

from joblib import Parallel, delayed

from common.files import raise_faults
from common.locks import visible
from inputs.echonet import GREY, OF, prepare_video
from inputs.scaling import dataset_mean_std, movie_moments, normalize_movie
from inputs.video import VIDEO_SUFFIXES

KINDS = {"grey": (GREY, 1), "of": (OF, 2)}


def find_movies(root: Path) -> dict[str, Path]:
    """Return {path below ``root`` without suffix: path} of ``.npy`` movies and videos.

    A movie wins over the video that it may have been made of.
    """
    root, by_name = Path(root), {}
    for path in visible(root, "*", recursive=True):
        parts = path.relative_to(root)
        name = parts.with_suffix("").as_posix()
        if path.suffix.lower() == ".npy" or (
            path.suffix.lower() in VIDEO_SUFFIXES and name not in by_name
        ):
            by_name[name] = path
    return by_name


def match_labels(
    labels: Path, labelled: list[tuple[str, str, int]], by_name: dict[str, Path]
) -> list[tuple[str, str]]:
    """Return [(name in ``by_name``, class)] of a table of labels.

    A label names a file by its path below the root, or by the end of that path where only one file
    ends so: Kinetics numbers its videos anew in every class.

    Args:
        labels: the table, for messages.
        labelled: [(file, class, row of the table)].
        by_name: of ``find_movies``.

    Raises:
        InputError: all files that are missing, that several paths end with, or that have two
            classes.
    """
    table, faults = {}, []
    for file, label, row in labelled:
        path = PurePosixPath(file.replace("\\", "/"))
        name = path.as_posix()
        if path.suffix.lower() in (".npy", *VIDEO_SUFFIXES):
            name = path.with_suffix("").as_posix()
        hits = [name] if name in by_name else [n for n in by_name if n.endswith(f"/{name}")]
        if len(hits) != 1:
            shown = ", ".join(str(by_name[hit]) for hit in hits[:3])
            what = f"is any of {shown}; write the path" if hits else "is not below the root"
            faults.append(f"{labels}: row {row}: {file} {what}")
        elif table.setdefault(hits[0], label) != label:
            faults.append(f"{labels}: row {row}: {file} has two classes")
    raise_faults(faults)
    return list(table.items())


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
    """Return {name: path of its movie}; movies that exist are kept.

    Args:
        videos: {name: path}; the name is the path below ``folder``.
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
