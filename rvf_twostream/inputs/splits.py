"""Link the normalised movies into the folders of a split, or draw splits by patient (section 5.7).

The body of ``split_data.py``, whose docstring lists the files.
"""

import hashlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from common.files import InputError, raise_faults, read_json, sha256, write_json
from common.locks import visible
from common.tables import write_table
from inputs.manifest import DONE, manifest_path, processed_rows, read_manifest
from inputs.recipe import note_split, split_recipe_file
from inputs.scaling import FLOW_STREAM, GREY_STREAM, OPTIONS_BEFORE, is_raw
from inputs.sorting import link_or_copy
from inputs.utils import (
    SETS,
    list_stems,
    load_movie,
    make_redcapmap,
    movie_id,
    one_writer,
    read_classmap,
    read_split,
    same_file,
    split_file,
)
from settings import SPLIT

STREAMS = {"greyscale": GREY_STREAM, "OF": FLOW_STREAM}
DRAWN_FILE = "drawn_splits.json"  # SHA-256 of the split files that --make_splits wrote


@dataclass(frozen=True)
class Draw:
    """How split files are drawn.

    With more than one split every patient is in the test set of exactly one; of a single split
    the test set is ``test_fraction`` of the patients.
    """

    csv_name: str = "REDcap_class.csv"
    seed: int = SPLIT.SEED
    stratify: bool = False  # give every set its share of positive patients
    val_fraction: float = SPLIT.VAL_FRACTION  # part of all patients in the validation set
    test_fraction: float = SPLIT.TEST_FRACTION
    threshold: int = SPLIT.THRESHOLD  # a class index above it is positive
    first: int = 0  # number of the first file; another number is another draw
    all_patients: bool = False  # of the class file, not only those whose movies were made already
    alone: bool = False  # split files of an earlier, larger draw do not stay beside the new ones


def make_sortmap(path: Path) -> dict[str, str]:
    """Return {id: train|val|test} of a split file."""
    return read_split(path)


def stream_folders(root: Path) -> dict[str, Path]:
    """Return {stream: folder of its movies}: raw ones, or z-scored ones of an older data set."""
    raw = is_raw(root)
    return {
        name: Path(root) / (stream.made if raw else stream.scaled)
        for name, stream in STREAMS.items()
    }


def movies_of(root: Path, folders: dict[str, Path]) -> list[str]:
    """Return the stems of the movies that a split may hold: those of the manifest.

    Movies whose flow failed are left out with a line; data sets without a manifest are those of
    ``convert_reference.py``, whose folder is the list.

    Raises:
        InputError: a movie of the manifest has no flow yet.
    """
    if not manifest_path(root).is_file() or folders["greyscale"].name != GREY_STREAM.made:
        return list_stems(folders["greyscale"])
    stems, without, faults = [], [], []
    if is_raw(root) and not (Path(root) / FLOW_STREAM.stats_file).exists():
        raise InputError(
            f"{Path(root) / FLOW_STREAM.stats_file}: not found: the flow is not complete; run "
            "optical_flow_calculator.py"
        )
    if (folders["OF"] / OPTIONS_BEFORE).exists():
        raise InputError(
            f"{folders['OF']}: flows are made anew with other options, which was interrupted; run "
            "optical_flow_calculator.py --recalculate with the options wanted"
        )
    for row in processed_rows(root):
        if row["flow"] == DONE:
            stems.append(row["name"])
        elif row["flow"]:
            without.append(f"{row['name']} ({row['flow']})")
        else:
            faults.append(
                f"{root}: movie {row['name']} has no flow; run optical_flow_calculator.py"
            )
    raise_faults(faults)
    if without:
        more = f" and {len(without) - 20} more" if len(without) > 20 else ""
        shown = "; ".join(without[:20]) + more
        print(f"warning: {len(without)} movies without flow left out: {shown}", file=sys.stderr)
    return stems


def check_movies(root: Path, stems: list[str], folders: dict[str, Path]) -> None:
    """Raise InputError for grey movies without flow, flow without grey and different lengths."""
    faults = []
    names = {stream: set(list_stems(folder)) & set(stems) for stream, folder in folders.items()}
    for stem in sorted(names["greyscale"] ^ names["OF"]):
        lacking, remedy = (
            ("flow", "optical_flow_calculator.py")
            if stem in names["greyscale"]
            else ("grey movie", "preprocess.py")
        )
        faults.append(f"{root}: movie {stem} has no {lacking}; run {remedy}")
    for stem in sorted(names["greyscale"] & names["OF"]):
        try:
            lengths = [
                len(load_movie(folder / f"{stem}.npy", channels=STREAMS[stream].channels))
                for stream, folder in folders.items()
            ]
        except InputError as error:
            faults.append(str(error))
            continue
        if lengths[0] != lengths[1]:
            faults.append(
                f"{root}: movie {stem} has {lengths[0]} frames but {lengths[1]} flow fields"
            )
    raise_faults(faults)


def check_same_pixels(root: Path, by_set: dict[str, list[str]], folder: Path) -> None:
    """Raise InputError for movies of the same pixels in two sets; say so of two patients' in one.

    A recording that was exported twice under two ids would be known from the training.
    """
    if folder.name != GREY_STREAM.made:
        return  # converted and older data sets: nothing tells where their movies come from
    known = {row["name"]: row["movie_sha256"] for row in read_manifest(root)}
    groups = {}
    for name, stems in by_set.items():
        for stem in stems:
            digest = known.get(stem) or _content(folder / f"{stem}.npy")
            groups.setdefault(digest, []).append((name, stem))
    faults = []
    for members in groups.values():
        shown = ", ".join(f"{stem} ({name})" for name, stem in members[:5])
        if len({name for name, _ in members}) > 1:
            faults.append(
                f"{root}: the same pixels in two sets: {shown}; take one out of the class file, or "
                "put both ids into one set"
            )
        elif len({movie_id(stem) for _, stem in members}) > 1:
            print(f"warning: the same pixels under two ids: {shown}", file=sys.stderr)
    raise_faults(faults)


def _content(path):
    """Return the SHA-256 of a movie's values."""
    return hashlib.sha256(np.ascontiguousarray(load_movie(path)).tobytes()).hexdigest()


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

    Links to movies that were made anew since are replaced.

    Raises:
        InputError: a folder holds other movies and ``recalculate`` is not set.
    """
    jobs, stale, faults = [], [], []
    for stream, source in stream_folders(root).items():
        for name, stems in stems_by_set.items():
            folder = root / stream / f"split{splitnum}_{name}"
            wanted = {f"{stem}.npy" for stem in stems}
            present = {p.name for p in visible(folder)} if folder.is_dir() else set()
            extra = sorted(present - wanted)
            if extra and not recalculate:
                faults.append(
                    f"{folder}: holds {len(extra)} other files (first: {extra[0]}); "
                    "--recalculate replaces them"
                )
            stale += [folder / name for name in extra]
            for file in sorted(wanted):
                made = same_file(source / file, folder / file)
                # A link is no copy: what is copied may be changed or moved to another disk.
                linked = copy and made and (source / file).samefile(folder / file)
                if recalculate or linked or not made:
                    jobs.append((source / file, folder / file))
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


@one_writer
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
    sets = make_sortmap(split_file(root, splitnum))
    classmap = read_classmap(root)
    folders = stream_folders(root)
    stems = movies_of(root, folders)
    if not stems:
        raise InputError(
            f"{folders['greyscale']}: no movies; run preprocess.py --root {root} first"
        )
    check_movies(root, stems, folders)
    left_out = sorted({movie_id(s) for s in stems if movie_id(s) not in sets})
    without = sorted(set(sets) - {movie_id(stem) for stem in stems})
    for text, ids in (("without allocation", left_out), ("allocated but without movie", without)):
        if ids:
            more = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
            print(f"warning: {len(ids)} ids {text}: {', '.join(ids[:20])}{more}", file=sys.stderr)
    by_set = {name: [s for s in stems if sets.get(movie_id(s)) == name] for name in SETS}
    check_same_pixels(root, by_set, folders["greyscale"])
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


@one_writer
def make_splits(
    root: Path, k: int, draw: Draw | None = None, *, recalculate: bool = False, **given
) -> list[Path]:
    """Write ``split_allocation_0..k-1.csv`` by patient and return their paths.

    Args:
        draw: how; without it ``given`` are fields of a ``Draw``.
        recalculate: replace existing files that differ, remove those of an earlier, larger draw.
    """
    draw = Draw(**given) if draw is None else replace(draw, **given)
    tables = draw_tables(root, k, draw)
    for path, table in tables.items():
        if path.exists() and not recalculate and read_split(path) != table:
            raise InputError(f"{path}: exists with another allocation; --recalculate replaces it")
    older = older_splits(root, k) if draw.alone else []
    if older and not recalculate:
        raise InputError(
            f"{older[0]}: {len(older)} split files of an earlier draw of more splits; "
            "--recalculate removes them"
        )
    for path, table in tables.items():
        write_table(path, ("id", "set"), table.items())
    for path in older:
        remove_split(root, path)
    if draw.alone:
        write_json(root / DRAWN_FILE, {path.name: sha256(path) for path in tables})
    return list(tables)


def older_splits(root: Path, k: int) -> list[Path]:
    """Return the split files beyond the first ``k`` that an earlier draw wrote, unchanged since."""
    record = root / DRAWN_FILE
    drawn = read_json(record, remedy="remove it") if record.is_file() else {}
    new = {split_file(root, number) for number in range(k)}
    others = [path for path in visible(root, split_file(root, "*").name) if path not in new]
    return [path for path in others if path.name in drawn and sha256(path) == drawn[path.name]]


def remove_split(root: Path, path: Path) -> None:
    """Remove a split file with the links and the recipe that were made from it."""
    number = path.stem.removeprefix(split_file(root, "").stem)
    for stream in STREAMS:
        for name in SETS:
            folder = root / stream / f"split{number}_{name}"
            if folder.is_dir():
                shutil.rmtree(folder)
    split_recipe_file(root, number).unlink(missing_ok=True)
    path.unlink()
    print(f"{path.name}: of an earlier draw of more splits, removed with its links")


def draw_tables(root: Path, k: int, draw: Draw) -> dict[Path, dict[str, str]]:
    """Return {split file: {patient: set}} of ``k`` splits."""
    classes = make_redcapmap(root / draw.csv_name)
    if (root / "classmap.json").exists() and not draw.all_patients:
        with_movies = {movie_id(stem) for stem in read_classmap(root)}
        classes = {patient: c for patient, c in classes.items() if patient in with_movies}
    if len(classes) < max(k, 3):
        raise InputError(
            f"{root / draw.csv_name}: {len(classes)} patients, at least {max(k, 3)} needed"
        )
    rng = np.random.default_rng([draw.seed, k] + [draw.first] * bool(draw.first))
    groups = {}
    for patient in sorted(classes):
        positive = classes[patient] > draw.threshold
        groups.setdefault(positive if draw.stratify else 0, []).append(patient)
    # Positions in 0..1 interleave the groups; every set then takes a run of that order.
    place = {}
    for members in groups.values():
        positions = (rng.permutation(len(members)) + 0.5) / len(members)
        place.update(zip(members, positions.tolist(), strict=True))
    order = sorted(place, key=lambda patient: (place[patient], patient))
    n = len(order)
    n_val = max(1, round(draw.val_fraction * n))
    tables = {}
    for fold in range(k):
        start = fold * n // k
        n_test = (fold + 1) * n // k - start if k > 1 else max(1, round(draw.test_fraction * n))
        sets = ["test"] * n_test + ["val"] * n_val + ["train"] * (n - n_test - n_val)
        if "train" not in sets:
            raise InputError(f"{n} patients are too few for --make_splits {k}; take fewer")
        turned = order[start:] + order[:start]
        path = split_file(root, draw.first + fold)
        tables[path] = dict(sorted(zip(turned, sets[:n], strict=True)))
    return tables
