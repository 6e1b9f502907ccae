"""Turn an EchoNet-Dynamic folder into movies and flow for pre-training (specification section 4.5).

The body of ``prepare_echonet.py``, whose docstring lists the files.
"""

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from joblib import delayed
from tqdm import tqdm

from common.cluster import run_jobs
from common.files import InputError, raise_faults, write_json
from common.locks import visible
from common.names import file_name
from common.tables import write_table
from inputs.flow import farneback_defaults, video2OF
from inputs.frames import movie_from_frames
from inputs.scaling import check_options, dataset_mean_std
from inputs.utils import load_movie, one_writer, read_stats, save_array
from inputs.video import VIDEO_SUFFIXES, read_video
from settings import ECHONET, Settings

FRACTIONS = (0.75, 0.125, 0.125)  # train, val, test of --make_split
SPLITS = {"TRAIN": "train", "VAL": "val", "TEST": "test"}
GREY, OF = "norm1", "norm_OF"  # endings of the folders
STATS_FILES = {GREY: "data_mean_std.json", OF: "data_mean_std_OF.json"}


def read_file_list(
    root: Path, *, make_split: bool = False, seed: int = ECHONET.SEED
) -> dict[str, tuple[float, str]]:
    """Return {name: (EF in percent, train|val|test)} of FileList.csv, in its order.

    Raises:
        InputError: no list, missing columns, an EF that is no number from 0 to 100, an unknown
            split, a name twice.
    """
    path = Path(root) / "FileList.csv"
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            rows = list(reader)
            columns = set(reader.fieldnames or ())
    except FileNotFoundError:
        raise InputError(f"{path}: not found; --root names the EchoNet-Dynamic folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as a UTF-8 CSV file ({error})") from None
    missing = [c for c in ("FileName", "EF", "Split") if c not in columns]
    if missing == ["Split"] and make_split:
        rng = np.random.default_rng(seed)
        bounds = np.cumsum(FRACTIONS[:2])
        for k, position in enumerate(rng.permutation(len(rows))):
            part = np.searchsorted(bounds, (position + 0.5) / len(rows))
            rows[k]["Split"] = list(SPLITS)[part]
        missing = []
    if missing:
        hint = "; --make_split draws one" if missing == ["Split"] else ""
        raise InputError(f"{path}: columns missing: {', '.join(missing)}{hint}")
    folds = {str(row["Split"] or "").strip() for row in rows}
    if folds and all(fold.isdigit() for fold in folds):
        raise InputError(
            f"{path}: Split holds the numbers {', '.join(sorted(folds)[:12])} (folds, as in "
            "EchoNet-Pediatric), not TRAIN, VAL, TEST; write these words, for example fold 8 as "
            "VAL, fold 9 as TEST, the others as TRAIN"
        )
    table, faults = {}, []
    for number_, row in enumerate(rows, start=2):
        name = (row["FileName"] or "").strip()
        if Path(name).suffix.lower() in VIDEO_SUFFIXES:
            name = name[: -len(Path(name).suffix)]
        split = SPLITS.get((row["Split"] or "").strip().upper())
        try:
            ef = float(row["EF"])
        except (TypeError, ValueError):
            ef = float("nan")
        try:
            file_name(name, f"row {number_}: FileName")
        except InputError as error:
            faults.append(str(error))
            continue
        if row["EF"] is None:
            faults.append(f"row {number_}: is shorter than the header")
        elif not 0 <= ef <= 100:
            faults.append(f"row {number_}: EF '{row['EF']}' is no number from 0 to 100")
        elif split is None:
            faults.append(f"row {number_}: Split '{row['Split']}', allowed are {', '.join(SPLITS)}")
        elif name in table:
            faults.append(f"row {number_}: {name} occurs twice")
        else:
            table[name] = (ef, split)
    raise_faults([f"{path}: {fault}" for fault in faults])
    if not table:
        raise InputError(f"{path}: no rows")
    if all(ef <= 1 for ef, _ in table.values()):
        highest = max(ef for ef, _ in table.values())
        raise InputError(
            f"{path}: EF is at most {highest:g}: these are fractions; write percent, 55 for 0.55"
        )
    return table


def find_videos(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return {name: path below Videos}, with a known suffix in small or capital letters; .avi where
    there is none.

    Raises:
        InputError: several files have one of the names.
    """
    folder, found = Path(root) / "Videos", {}
    for path in visible(folder) if folder.is_dir() else []:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    names = list(names)
    raise_faults(
        [
            f"{folder}: {' and '.join(p.name for p in found[name])} have one name; FileList.csv "
            "means one of them: take the other away"
            for name in names
            if len(found.get(name, ())) > 1
        ]
    )
    return {name: found.get(name, [folder / f"{name}.avi"])[0] for name in names}


def stale_movies(root: Path, table: dict, kinds: Sequence[str]) -> list[Path]:
    """Return the movies in the folders of the sets that ``table`` puts elsewhere or nowhere."""
    wanted = {f"{split}_{kind}/{name}.npy" for kind in kinds for name, (_, split) in table.items()}
    folders = [root / f"{split}_{kind}" for kind in kinds for split in SPLITS.values()]
    present = [path for one in folders if one.is_dir() for path in visible(one, "*.npy")]
    return [path for path in present if f"{path.parent.name}/{path.name}" not in wanted]


def prepare_video(
    path: Path, targets: dict[str, Path], *, nframes: int, nrows: int, ncols: int
) -> str | None:
    """Save the unscaled movie and flow of one video.

    Args:
        targets: {GREY: path, OF: path}, one or both; float32 movies are written there.

    Returns:
        fault as text, or None.
    """
    try:
        frames, _ = read_video(path)
        if len(frames) < nframes:
            raise InputError(f"{path}: {len(frames)} frames, {nframes} needed")
        if GREY in targets:
            save_array(targets[GREY], movie_from_frames(frames, nrows, ncols))
        if OF in targets:
            save_array(targets[OF], video2OF(frames, nrows=nrows, ncols=ncols))
    except InputError as error:
        text = str(error)
        return text if text.startswith(str(path)) else f"{path}: {text}"
    return None


def _moments(path):
    movie = np.asarray(load_movie(path), np.float64)
    return float(movie.mean()), float(movie.var())


def _scale(path, target, mean, std, dtype):
    """Write the z-scored movie under its final name, then remove the unscaled one."""
    movie = np.asarray(load_movie(path), np.float64)
    save_array(target, ((movie - mean) / std).astype(dtype))
    path.unlink()


def recipes(kinds: Sequence[str], nrows: int, ncols: int) -> dict[str, dict]:
    """Return {kind: options} as stored in the kind's data_mean_std*.json."""
    grey = {"crop": "none", "grey": "luma", "resample_fps": 0.0, "nrows": nrows, "ncols": ncols}
    flow = {"flow_size": None, "per_second": False, "farneback": farneback_defaults()}
    return {kind: grey if kind == GREY else {**grey, **flow} for kind in kinds}


def missing_movies(
    root: Path, table: dict, options: dict[str, dict], *, recalculate: bool
) -> dict[tuple[str, str], Path]:
    """Return {(kind, name): path} of the movies that are to be made.

    Raises:
        InputError: movies of other options are there and ``recalculate`` is not set.
    """
    for kind, wanted in options.items():
        stats = root / STATS_FILES[kind]
        if stats.exists() and not recalculate and read_stats(stats)["options"] != wanted:
            raise InputError(f"{stats}: made with other options; use the same, or -r")
    final = {
        (kind, name): root / f"{split}_{kind}" / f"{name}.npy"
        for kind in options
        for name, (_, split) in table.items()
    }
    return {
        key: path
        for key, path in final.items()
        if recalculate or not (path.exists() and (root / STATS_FILES[key[0]]).exists())
    }


def make_unscaled(root: Path, todo: dict, settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Decode the videos of ``todo`` into ``unscaled_<kind>``.

    Returns:
        names of the videos that were looked at, and {name: fault} of those that cannot be used.
    """
    names = sorted({name for _, name in todo})
    jobs = []
    for name in names:
        kinds = [kind for kind in settings.kinds if (kind, name) in todo]
        targets = {kind: _waiting(root, kind, name) for kind in kinds}
        jobs.append({kind: path for kind, path in targets.items() if not path.exists()})
    videos = find_videos(root, names)
    calls = (
        delayed(prepare_video)(
            videos[name],
            targets,
            nframes=settings.nframes,
            nrows=settings.nrows,
            ncols=settings.ncols,
        )
        for name, targets in zip(names, jobs, strict=True)
    )
    faults = run_jobs(calls, settings.workers, cluster=settings.cluster, folder=root)
    bar = tqdm(names, desc="videos", disable=None, unit="video")
    return names, {name: fault for name, fault in zip(bar, faults, strict=True) if fault}


def _waiting(root, kind, name):
    return root / f"unscaled_{kind}" / f"{name}.npy"


@one_writer
def prepare(root: Path, settings: Settings) -> int:
    """Prepare an EchoNet-Dynamic folder; settings as the flags of the script.

    Unscaled movies wait in ``unscaled_<kind>`` until the mean and standard deviation are known, so
    that an interrupted run goes on where it stopped.

    Args:
        settings: of ECHONET, and workers, recalculate, make_split, kinds.

    Returns:
        exit code: 0; videos that cannot be used are listed in skipped.csv.
    """
    table = read_file_list(root, make_split=settings.make_split, seed=settings.seed)
    if settings.limit:
        table = dict(list(table.items())[: settings.limit])
    stale = stale_movies(root, table, settings.kinds)
    if stale and not settings.recalculate:
        raise InputError(
            f"{stale[0]}: FileList.csv has this movie in another set, or not at all ({len(stale)} "
            "such movies): a training would see it twice; --recalculate makes all anew"
        )
    options = recipes(settings.kinds, settings.nrows, settings.ncols)
    todo = missing_movies(root, table, options, recalculate=settings.recalculate)
    fresh = sorted({kind for kind, _ in todo})
    for kind in fresh:
        check_options(root, f"unscaled_{kind}", options[kind], recalculate=True)
    names, skipped = make_unscaled(root, todo, settings)
    for path in stale:
        path.unlink()
    usable = {name: entry for name, entry in table.items() if name not in skipped}
    if not any(split == "train" for _, split in usable.values()):
        first = next(iter(skipped.values()), "the list has none")
        raise InputError(f"{root}: no usable training video ({first})")
    for kind in fresh:
        new = {name: todo[kind, name] for name in usable if (kind, name) in todo}
        _finish_kind(root, kind, usable, new, options[kind], settings)
    write_json(root / "filename2class.json", {name: ef for name, (ef, _) in usable.items()})
    write_table(root / "skipped.csv", ("file", "reason"), sorted(skipped.items()))
    for name, fault in skipped.items():
        print(f"skipped: {name}: {fault}", file=sys.stderr)
    done = f"{len(names) - len(skipped)} videos prepared" if names else "all videos exist already"
    counts = {s: sum(split == s for _, split in usable.values()) for s in SPLITS.values()}
    print(f"{done}, {len(skipped)} skipped; {counts} in {root}")
    return 0


def _finish_kind(root, kind, usable, new, options, settings):
    """Scale the waiting movies of one kind with the training videos' statistics.

    Args:
        usable: {name: (EF, split)} of all videos; new: {name: path} of those to be scaled.
    """
    stats_file = root / STATS_FILES[kind]
    train = [name for name, (_, split) in usable.items() if split == "train"]
    if stats_file.exists() and set(train) - set(new):
        # Videos were added to a prepared set: the same two numbers hold for all of it.
        stats = read_stats(stats_file)
    else:
        jobs = (delayed(_moments)(_waiting(root, kind, name)) for name in train)
        moments = list(run_jobs(jobs, settings.workers, cluster=settings.cluster, folder=root))
        mean, std = dataset_mean_std(moments)
        if not std > 0:
            raise InputError(f"{root}: standard deviation of the {kind} movies is {std}")
        stats = {
            "mean": mean,
            "std": std,
            "n_movies": len(train),
            "files": "train",
            "options": options,
        }
        write_json(stats_file, stats)
    for split in SPLITS.values():
        (root / f"{split}_{kind}").mkdir(exist_ok=True)
    jobs = (
        delayed(_scale)(
            _waiting(root, kind, name), path, stats["mean"], stats["std"], settings.dtype
        )
        for name, path in new.items()
    )
    list(run_jobs(jobs, settings.workers, cluster=settings.cluster, folder=root))
    folder = root / f"unscaled_{kind}"
    (folder / "options.json").unlink(missing_ok=True)
    if folder.is_dir() and not visible(folder):
        folder.rmdir()
