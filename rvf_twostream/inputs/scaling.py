"""Mean and standard deviation of a data set, and the options that made its movies.

Source: specification section 5.5.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joblib import delayed

from common.cluster import run_jobs
from common.files import InputError, read_json, write_json
from common.locks import visible
from inputs.storage import values
from inputs.utils import check_finite, load_movie, read_split, save_array, split_file
from settings import Settings

OPTIONS_BEFORE = "options_before.json"  # beside options.json while movies are made anew
RAW = "raw"  # of "values" in data_mean_std*.json; older data sets hold z-scored movies


class Stream(NamedTuple):
    """Where the movies of a stream lie below the root: as made; z-scored by older versions."""

    made: str
    scaled: str
    stats_file: str
    channels: int


GREY_STREAM = Stream("processed_dicoms", "normalized_dicoms", "data_mean_std.json", 1)
FLOW_STREAM = Stream("processed_OF", "normalized_OF", "data_mean_std_OF.json", 2)


def is_raw(root: Path) -> bool:
    """Say whether a data set holds raw movies; older ones hold z-scored ones."""
    path = Path(root) / GREY_STREAM.stats_file
    return path.exists() and read_json(path).get("values") == RAW


def movie_moments(path: Path, channels: int) -> tuple[float, float]:
    """Return mean and population variance of one movie, float64."""
    movie = np.asarray(values(np.asarray(load_movie(path, channels=channels))), np.float64)
    check_finite(path, movie)
    return float(movie.mean()), float(movie.var())


def dataset_mean_std(moments: list[tuple[float, float]]) -> tuple[float, float]:
    """Return mean and standard deviation of a data set from its movies' (mean, variance) pairs.

    Mean of the means; root of the mean variance. Source: section 5.5.
    """
    means, variances = np.array(moments, np.float64).T
    return float(means.mean()), float(np.sqrt(variances.mean()))


def normalize_movie(
    source: Path, target: Path, mean: float, std: float, channels: int | None
) -> bool:
    """Write (movie - mean) / std; return whether the file had to be written."""
    movie = load_movie(source, channels=channels)
    if target.exists() and _same_scaling(movie, target, mean, std, channels):
        return False
    save_array(target, zscore(movie, mean, std))
    return True


def zscore(movie: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Return (movie - mean) / std as float32."""
    return ((np.asarray(movie, np.float64) - mean) / std).astype(np.float32)


def _same_scaling(movie, target, mean, std, channels):
    """Say whether a normalised movie was made from ``movie`` with these two numbers."""
    try:
        old = load_movie(target, channels=channels)
    except InputError:
        return False
    if old.shape != movie.shape:
        return False
    ends = [0, len(movie) - 1]
    return bool(np.array_equal(old[ends], zscore(movie[ends], mean, std)))


def write_stats(
    root: Path, stems: list[str], stream: Stream, options: dict, settings: Settings
) -> bool:
    """Write the stream's JSON: mean, std, n_movies, files, hashes, values, options.

    Movies stay as they are: the two numbers are applied when clips are read.

    Args:
        stems: movies of the data set.
        options: how the movies were made, stored in the JSON.
        settings: stats and splitnum (movies behind the two numbers), workers.

    Returns:
        whether the two numbers, or what is behind them, changed.

    Source: section 5.5. Differs: applied once, where the published code does it twice.
    """
    source = root / stream.made
    chosen, files = chosen_for_stats(root, stems, settings.stats, settings.splitnum)
    jobs = (delayed(movie_moments)(source / f"{stem}.npy", stream.channels) for stem in chosen)
    moments = list(run_jobs(jobs, settings.workers, cluster=settings.cluster, folder=root))
    mean, std = dataset_mean_std(moments)
    if not np.isfinite(mean) or not std > 0:
        raise InputError(
            f"{source}: standard deviation of the data set is {std}; movies are constant"
        )
    stats = {
        "mean": mean,
        "std": std,
        "n_movies": len(chosen),
        "files": files,
        "movies_sha256": _digest(sorted(zip(chosen, moments, strict=True))),
        "names_sha256": names_sha256(chosen),
        "values": RAW,
        "options": options,
    }
    path = root / stream.stats_file
    if path.exists() and read_json(path) == stats:
        return False
    write_json(path, stats)
    return True


def measure_again(
    root: Path, stems: list[str], stream: Stream, workers: int, cluster: str = ""
) -> bool:
    """Measure a stream anew over the movies ``stems``, chosen as its JSON says."""
    stats = read_json(root / stream.stats_file)
    train = stats["files"].startswith("train")
    splitnum = int(stats["files"].split()[-1]) if train else 0
    settings = Settings(
        stats="train" if train else "all", splitnum=splitnum, workers=workers, cluster=cluster
    )
    return write_stats(root, stems, stream, stats["options"], settings)


def names_sha256(stems: Iterable[str]) -> str:
    """Return the SHA-256 of a set of movies' names: who is behind two numbers, without names."""
    return _digest(sorted(stems))


def _digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def chosen_for_stats(
    root: Path, stems: list[str], stats: str, splitnum: int
) -> tuple[list[str], str]:
    """Return the stems behind mean and standard deviation, and what to call them."""
    if stats == "all":
        return stems, "all"
    sets = read_split(split_file(root, splitnum))
    chosen = [stem for stem in stems if sets.get(stem[:-1]) == "train"]
    if not chosen:
        raise InputError(f"{split_file(root, splitnum)}: no training patient among the movies")
    return chosen, f"train split {splitnum}"


def check_options(
    root: Path, folder: str, options: dict, *, recalculate: bool, keep: bool = False
) -> None:
    """Compare ``options`` with those that made the movies of ``folder``; record them there.

    Args:
        keep: movies made with other options stay until each is replaced, and these options in
            OPTIONS_BEFORE: something else tells how a movie was made. Without it they go.

    Raises:
        InputError: other options were used and ``recalculate`` is not set: movies would be mixed.
    """
    path = Path(root) / folder / "options.json"
    old = read_json(path) if path.exists() else options
    changed = [f"{k} {old.get(k)} -> {v}" for k, v in options.items() if old.get(k) != v]
    if changed and not recalculate:
        raise InputError(
            f"{path.parent}: made with other options ({', '.join(changed)}); use the same, or "
            "recalculate all"
        )
    if changed and not keep:
        # An interrupted recalculation must not leave movies of both kinds side by side.
        for movie in visible(path.parent, "*.npy"):
            movie.unlink()
    before = path.with_name(OPTIONS_BEFORE)
    if changed and keep and not before.exists():
        write_json(before, old)
    if changed or not path.exists():
        write_json(path, options)
