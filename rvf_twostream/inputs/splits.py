"""Link the normalised movies into the folders of a split, or draw splits by patient (section 5.7).

The body of ``split_data.py``, whose docstring lists the files.
"""

import csv
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from common.files import InputError, atomic_path, raise_faults
from inputs.recipe import note_split
from inputs.scaling import FLOW_STREAM, GREY_STREAM
from inputs.sorting import link_or_copy
from inputs.utils import (
    SETS,
    existing_root,
    list_stems,
    load_movie,
    make_redcapmap,
    movie_id,
    read_classmap,
    read_split,
    split_file,
)
from settings import SPLIT

STREAMS = {
    "greyscale": (GREY_STREAM.scaled, GREY_STREAM.channels),
    "OF": (FLOW_STREAM.scaled, FLOW_STREAM.channels),
}


def make_sortmap(path: Path) -> dict[str, str]:
    """Return {id: train|val|test} of a split file."""
    return read_split(path)


def check_movies(root: Path, stems: list[str]) -> None:
    """Raise InputError for grey movies without flow, flow without grey and different lengths."""
    faults = []
    names = {stream: set(list_stems(root / folder)) for stream, (folder, _) in STREAMS.items()}
    for stem in sorted(names["greyscale"] ^ names["OF"]):
        lacking, remedy = (
            ("flow", "optical_flow_calculator.py")
            if stem in names["greyscale"]
            else ("grey movie", "preprocess.py")
        )
        faults.append(f"{root}: movie {stem} has no {lacking}; run {remedy}")
    for stem in sorted(names["greyscale"] & names["OF"] & set(stems)):
        try:
            lengths = [
                len(load_movie(root / folder / f"{stem}.npy", channels=channels))
                for folder, channels in STREAMS.values()
            ]
        except InputError as error:
            faults.append(str(error))
            continue
        if lengths[0] != lengths[1]:
            faults.append(
                f"{root}: movie {stem} has {lengths[0]} frames but {lengths[1]} flow fields"
            )
    raise_faults(faults)


def copy_sort(
    root: Path,
    stems_by_set: dict[str, list[str]],
    splitnum: int,
    *,
    copy: bool,
    recalculate: bool,
    workers: int,
) -> int:
    """Fill the folders of both streams; return the number of files made.

    Raises:
        InputError: a folder holds other movies and ``recalculate`` is not set.
    """
    jobs, stale, faults = [], [], []
    for stream, (source, _) in STREAMS.items():
        for name, stems in stems_by_set.items():
            folder = root / stream / f"split{splitnum}_{name}"
            wanted = {f"{stem}.npy" for stem in stems}
            present = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
            extra = sorted(present - wanted)
            if extra and not recalculate:
                faults.append(
                    f"{folder}: holds {len(extra)} other files (first: {extra[0]}); "
                    "--recalculate replaces them"
                )
            stale += [folder / name for name in extra]
            for file in sorted(wanted):
                if recalculate or not _same(root / source / file, folder / file):
                    jobs.append((root / source / file, folder / file))
    raise_faults(faults)
    for path in stale:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for stream in STREAMS:
        for name in stems_by_set:
            (root / stream / f"split{splitnum}_{name}").mkdir(parents=True, exist_ok=True)
    Parallel(n_jobs=workers, prefer="threads")(
        delayed(link_or_copy)(source, target, copy=copy) for source, target in jobs
    )
    return len(jobs)


def _same(source, target):
    """Say whether a target is the source's link or an up-to-date copy of it."""
    if not target.exists():
        return False
    if os.path.samefile(source, target):
        return True
    a, b = source.stat(), target.stat()
    return a.st_size == b.st_size and a.st_mtime_ns == b.st_mtime_ns


def split_root(
    root: Path,
    splitnum: int,
    *,
    workers: int = 1,
    copy: bool = False,
    recalculate: bool = False,
    threshold: int = SPLIT.THRESHOLD,
) -> int:
    """Make the folders of one split and print what is in them.

    Returns:
        exit code 0.
    """
    root = existing_root(root)
    sets = make_sortmap(split_file(root, splitnum))
    classmap = read_classmap(root)
    stems = list_stems(root / GREY_STREAM.scaled)
    if not stems:
        raise InputError(
            f"{root / GREY_STREAM.scaled}: no movies; run preprocess.py --root {root} first"
        )
    check_movies(root, stems)
    left_out = sorted({movie_id(s) for s in stems if movie_id(s) not in sets})
    without = sorted(set(sets) - {movie_id(stem) for stem in stems})
    for text, ids in (("without allocation", left_out), ("allocated but without movie", without)):
        if ids:
            more = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
            print(f"warning: {len(ids)} ids {text}: {', '.join(ids[:20])}{more}", file=sys.stderr)
    by_set = {name: [s for s in stems if sets.get(movie_id(s)) == name] for name in SETS}
    made = copy_sort(root, by_set, splitnum, copy=copy, recalculate=recalculate, workers=workers)
    note_split(root, splitnum)
    print(f"{'set':<6} {'patients':>8} {'movies':>8} {'positive':>8}")
    for name, members in by_set.items():
        positive = sum(classmap.get(stem, 0) > threshold for stem in members)
        patients = len({movie_id(stem) for stem in members})
        print(f"{name:<6} {patients:>8} {len(members):>8} {positive:>8}")
        if positive in (0, len(members)):
            print(f"warning: the {name} set does not hold both classes", file=sys.stderr)
    print(f"{made} files made" if made else "all files exist already: nothing changed")
    return 0


def make_splits(
    root: Path,
    k: int,
    *,
    csv_name: str = "REDcap_class.csv",
    seed: int = SPLIT.SEED,
    stratify: bool = False,
    val_fraction: float = SPLIT.VAL_FRACTION,
    test_fraction: float = SPLIT.TEST_FRACTION,
    threshold: int = SPLIT.THRESHOLD,
    recalculate: bool = False,
) -> list[Path]:
    """Write ``split_allocation_0..k-1.csv`` by patient and return their paths.

    Args:
        k: with 2 or more, every patient is in the test set of exactly one split; with 1 the test
            set is ``test_fraction`` of the patients.
        stratify: give every set its share of positive patients.
        val_fraction: part of all patients in the validation set.
        recalculate: replace existing files that differ.
    """
    root = existing_root(root)
    classes = make_redcapmap(root / csv_name)
    if (root / "classmap.json").exists():
        with_movies = {movie_id(stem) for stem in read_classmap(root)}
        classes = {patient: c for patient, c in classes.items() if patient in with_movies}
    if len(classes) < max(k, 3):
        raise InputError(f"{root / csv_name}: {len(classes)} patients, at least {max(k, 3)} needed")
    rng = np.random.default_rng([seed, k])
    groups = {}
    for patient in sorted(classes):
        groups.setdefault(classes[patient] > threshold if stratify else 0, []).append(patient)
    # Positions in 0..1 interleave the groups; every set then takes a run of that order.
    place = {}
    for members in groups.values():
        positions = (rng.permutation(len(members)) + 0.5) / len(members)
        place.update(zip(members, positions.tolist(), strict=True))
    order = sorted(place, key=lambda patient: (place[patient], patient))
    n = len(order)
    n_val = max(1, round(val_fraction * n))
    tables = {}
    for fold in range(k):
        first = fold * n // k
        n_test = (fold + 1) * n // k - first if k > 1 else max(1, round(test_fraction * n))
        sets = ["test"] * n_test + ["val"] * n_val + ["train"] * (n - n_test - n_val)
        if "train" not in sets:
            raise InputError(f"{n} patients are too few for --make_splits {k}; take fewer")
        turned = order[first:] + order[:first]
        tables[split_file(root, fold)] = dict(sorted(zip(turned, sets[:n], strict=True)))
    for path, table in tables.items():
        if path.exists() and not recalculate and read_split(path) != table:
            raise InputError(f"{path}: exists with another allocation; --recalculate replaces it")
    for path, table in tables.items():
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as out,
        ):
            csv.writer(out).writerows([("id", "set"), *table.items()])
    return list(tables)
