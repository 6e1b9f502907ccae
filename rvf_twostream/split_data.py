"""Link the normalised movies into the folders of a split (specification section 5.7).

    python split_data.py --root ../data/rvf_twostream/study --splitnum 0 -m
    python split_data.py --root ../data/rvf_twostream/study --make_splits 5 --stratify

Reads split_allocation_<N>.csv (id, train|val|test), normalized_dicoms/ and normalized_OF/. Writes
greyscale/split<N>_{train,val,test}/*.npy and OF/split<N>_{...}/*.npy as hard links. With
--make_splits K it writes split_allocation_0..K-1.csv by patient instead.
"""

import csv
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from common.files import InputError, Parser, atomic_path, one_line_faults, raise_faults, seed_number
from optical_flow_calculator import OF_NORMALIZED_DIR
from options import add_globals, integer, number
from preprocess import NORMALIZED_DIR, workers_of
from utils import (
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

# split
THRESHOLD = 2  # a class index above it is positive
SEED = 0  # of --make_splits
VAL_FRACTION = 0.10  # part of the patients in the validation set, --make_splits
TEST_FRACTION = 0.25  # part of the patients in the test set, --make_splits

STREAMS = {"greyscale": (NORMALIZED_DIR, 1), "OF": (OF_NORMALIZED_DIR, 2)}


def make_sortmap(path):
    """Return {id: train|val|test} of a split file."""
    return read_split(path)


def check_movies(root, stems):
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


def copy_sort(root, stems_by_set, splitnum, *, copy, recalculate, workers):
    """Fill the folders of both streams; return the number of files made.

    Raises:
        InputError: a folder holds other movies and ``recalculate`` is not set.
    """
    from joblib import Parallel, delayed

    from sorting import link_or_copy

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


def split_root(root, splitnum, *, workers=1, copy=False, recalculate=False, threshold=THRESHOLD):
    """Make the folders of one split and print what is in them.

    Returns:
        exit code 0.
    """
    root = existing_root(root)
    sets = make_sortmap(split_file(root, splitnum))
    classmap = read_classmap(root)
    stems = list_stems(root / NORMALIZED_DIR)
    if not stems:
        raise InputError(
            f"{root / NORMALIZED_DIR}: no movies; run preprocess.py --root {root} first"
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
    root,
    k,
    *,
    csv_name="REDcap_class.csv",
    seed=SEED,
    stratify=False,
    val_fraction=VAL_FRACTION,
    test_fraction=TEST_FRACTION,
    threshold=THRESHOLD,
    recalculate=False,
):
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


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("-s", "--splitnum", type=integer(0), help="number of the split file")
    parser.add_argument("-m", "--multiprocess", action="store_true", help="use all cores")
    parser.add_argument("--workers", type=integer(1), help="threads, instead of all cores")
    parser.add_argument("--copy", action="store_true", help="copy instead of linking")
    parser.add_argument("--recalculate", action="store_true", help="replace what differs")
    parser.add_argument("--make_splits", type=integer(1), metavar="K", help="write K split files")
    parser.add_argument("--stratify", action="store_true", help="spread positives over the sets")
    parser.add_argument("--csv", default="REDcap_class.csv", help="class file of --make_splits")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(
        parser,
        globals(),
        {
            "THRESHOLD": (integer(0, 2), "a class index above it is positive"),
            "SEED": (seed_number, "seed of --make_splits"),
            "VAL_FRACTION": (number(0.01, 0.5), "patients for validation, --make_splits"),
            "TEST_FRACTION": (number(0.01, 0.8), "patients for the test, --make_splits 1"),
        },
    )
    return parser


@one_line_faults
def main(argv=None):
    """Make the split named on the command line, or write split files."""
    args = build_parser().parse_args(argv)
    if args.make_splits is None and args.splitnum is None:
        raise InputError("--splitnum N is missing (or --make_splits K to write split files)")
    if args.make_splits is not None:
        paths = make_splits(
            args.root,
            args.make_splits,
            csv_name=args.csv,
            seed=args.seed,
            stratify=args.stratify,
            val_fraction=args.val_fraction,
            test_fraction=args.test_fraction,
            threshold=args.threshold,
            recalculate=args.recalculate,
        )
        print(f"{len(paths)} split files: {paths[0].name} .. {paths[-1].name} in {args.root}")
    if args.splitnum is None:
        return 0
    return split_root(
        args.root,
        args.splitnum,
        workers=workers_of(args),
        copy=args.copy,
        recalculate=args.recalculate,
        threshold=args.threshold,
    )


if __name__ == "__main__":
    sys.exit(main())
