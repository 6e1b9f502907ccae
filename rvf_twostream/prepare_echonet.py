"""Turn an EchoNet-Dynamic folder into movies and flow for pre-training (specification section 4.5).

    python prepare_echonet.py --root ../data/rvf_twostream/EchoNet-Dynamic -m
    python prepare_echonet.py --root ../data/rvf_twostream/demo/echonet --nrows 56 --ncols 56

Reads FileList.csv (FileName, EF, Split, ...) and Videos/<FileName>.avi. Writes
{train,val,test}_norm1/*.npy (n, NROWS, NCOLS, 1), {train,val,test}_norm_OF/*.npy (..., 2), both
z-scored with the training videos' mean and standard deviation, filename2class.json (name: EF in
percent), data_mean_std.json, data_mean_std_OF.json, skipped.csv.

Letters in shape comments: n frames, r rows, c columns.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from common.files import (
    InputError,
    Parser,
    atomic_path,
    one_line_faults,
    raise_faults,
    seed_number,
    write_json,
)
from optical_flow_calculator import farneback_defaults, video2OF
from options import add_globals, integer, one_of
from preprocess import check_options, dataset_mean_std, movie_from_frames, workers_of
from utils import existing_root, load_movie, read_stats, save_array

# data
NFRAMES = 32  # fewest frames of a video
NROWS = 112  # rows of a movie, pixels
NCOLS = 112  # columns of a movie, pixels
DTYPE = "float16"  # float16 or float32, of the stored movies
LIMIT = 0  # videos to take from the list; 0: all
# split
SEED = 0  # of --make_split
FRACTIONS = (0.75, 0.125, 0.125)  # train, val, test of --make_split

SPLITS = {"TRAIN": "train", "VAL": "val", "TEST": "test"}
GREY, OF = "norm1", "norm_OF"  # endings of the folders
STATS_FILES = {GREY: "data_mean_std.json", OF: "data_mean_std_OF.json"}
VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm")


def read_video(path):
    """Return grey frames (n, r, c) float32 0..255 and the frame rate (None when unknown).

    Grey is the mean of the channels when they are equal, else luma.
    """
    import cv2

    from dicom_io import LUMA

    if not Path(path).is_file():
        raise InputError(f"{path}: not found")
    _check_riff_size(path)
    video = cv2.VideoCapture(str(path))
    try:
        rate, promised = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        frames = []
        while True:
            good, frame = video.read()
            if not good:
                break
            blue, green, red = (frame[..., k].astype(np.float32) for k in range(3))
            equal = np.array_equal(red, green) and np.array_equal(red, blue)
            weights = (1 / 3, 1 / 3, 1 / 3) if equal else LUMA["luma"]
            frames.append(red * weights[0] + green * weights[1] + blue * weights[2])
    except cv2.error as error:
        raise InputError(f"{path}: not decodable ({error.err}); copy the file again") from None
    finally:
        video.release()
    if not frames:
        raise InputError(f"{path}: not decodable as video; copy the file again")
    if len(frames) < promised:
        raise InputError(
            f"{path}: {len(frames)} frames found, {promised} expected; the file is cut"
        )
    return np.stack(frames), (rate if rate and np.isfinite(rate) and rate > 0 else None)


def _check_riff_size(path):
    """Raise InputError when an AVI is shorter than its first chunk says.

    The decoder fills the rest of a cut frame with grey and counts it as read.
    """
    with open(path, "rb") as handle:
        head = handle.read(8)
    wanted, found = int.from_bytes(head[4:], "little") + 8, Path(path).stat().st_size
    unknown = wanted == 0xFFFFFFFF + 8  # written to a pipe
    if head[:4] == b"RIFF" and found < wanted and not unknown:
        raise InputError(f"{path}: {found} bytes found, {wanted} expected; the file is cut")


def read_file_list(root, *, make_split=False, seed=SEED):
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
    table, faults = {}, []
    for number_, row in enumerate(rows, start=2):
        name = (row["FileName"] or "").strip()
        for suffix in VIDEO_SUFFIXES:
            name = name.removesuffix(suffix)
        split = SPLITS.get((row["Split"] or "").strip().upper())
        try:
            ef = float(row["EF"])
        except (TypeError, ValueError):
            ef = float("nan")
        if not name:
            faults.append(f"row {number_}: FileName is empty")
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
    return table


def find_video(root, name):
    """Return the path of a video: Videos/<name> with the first known suffix that exists."""
    for suffix in VIDEO_SUFFIXES:
        path = Path(root) / "Videos" / f"{name}{suffix}"
        if path.exists():
            return path
    return Path(root) / "Videos" / f"{name}.avi"


def prepare_video(path, targets, *, nframes, nrows, ncols):
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


def prepare(
    root,
    *,
    workers=1,
    limit=LIMIT,
    dtype=DTYPE,
    kinds=(GREY, OF),
    make_split=False,
    seed=SEED,
    recalculate=False,
    nframes=NFRAMES,
    nrows=NROWS,
    ncols=NCOLS,
):
    """Prepare an EchoNet-Dynamic folder; arguments as the flags of the script.

    Unscaled movies wait in ``unscaled_<kind>`` until the mean and standard deviation are known, so
    that an interrupted run goes on where it stopped.

    Returns:
        exit code: 0; videos that cannot be used are listed in skipped.csv.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    root = existing_root(root)
    table = read_file_list(root, make_split=make_split, seed=seed)
    if limit:
        table = dict(list(table.items())[:limit])
    options = {"crop": "none", "grey": "luma", "resample_fps": 0.0, "nrows": nrows, "ncols": ncols}
    flow_options = {**options, "flow_size": None, "per_second": False}
    flow_options["farneback"] = farneback_defaults()
    final = {
        (kind, name): root / f"{split}_{kind}" / f"{name}.npy"
        for kind in kinds
        for name, (_, split) in table.items()
    }
    for kind in kinds:
        stats = root / STATS_FILES[kind]
        wanted = options if kind == GREY else flow_options
        if stats.exists() and not recalculate and read_stats(stats)["options"] != wanted:
            raise InputError(f"{stats}: made with other options; use the same, or -r")
    todo = {
        key: path
        for key, path in final.items()
        if recalculate or not (path.exists() and (root / STATS_FILES[key[0]]).exists())
    }
    fresh = {kind for kind, _ in todo}
    for kind in sorted(fresh):
        check_options(
            root, f"unscaled_{kind}", options if kind == GREY else flow_options, recalculate=True
        )
    names = sorted({name for _, name in todo})
    waiting = {key: root / f"unscaled_{key[0]}" / f"{key[1]}.npy" for key in final}
    bar = tqdm(names, desc="videos", disable=None, unit="video")
    faults = Parallel(n_jobs=workers)(
        delayed(prepare_video)(
            find_video(root, name),
            {
                k: waiting[k, name]
                for k in kinds
                if (k, name) in todo and not waiting[k, name].exists()
            },
            nframes=nframes,
            nrows=nrows,
            ncols=ncols,
        )
        for name in bar
    )
    skipped = {name: fault for name, fault in zip(names, faults, strict=True) if fault}
    usable = {name: entry for name, entry in table.items() if name not in skipped}
    if not any(split == "train" for _, split in usable.values()):
        first = next(iter(skipped.values()), "the list has none")
        raise InputError(f"{root}: no usable training video ({first})")
    for kind in sorted(fresh):
        _finish_kind(
            root,
            kind,
            usable,
            todo,
            waiting,
            dtype,
            workers,
            options if kind == GREY else flow_options,
        )
    write_json(root / "filename2class.json", {name: ef for name, (ef, _) in usable.items()})
    with (
        atomic_path(root / "skipped.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        csv.writer(handle).writerows([("file", "reason"), *sorted(skipped.items())])
    for name, fault in skipped.items():
        print(f"skipped: {name}: {fault}", file=sys.stderr)
    done = f"{len(names) - len(skipped)} videos prepared" if names else "all videos exist already"
    counts = {s: sum(split == s for _, split in usable.values()) for s in SPLITS.values()}
    print(f"{done}, {len(skipped)} skipped; {counts} in {root}")
    return 0


def _finish_kind(root, kind, usable, todo, waiting, dtype, workers, options):
    """Scale the waiting movies of one kind with the training videos' statistics."""
    from joblib import Parallel, delayed

    stats_file = root / STATS_FILES[kind]
    train = [name for name, (_, split) in usable.items() if split == "train"]
    new = [name for name in usable if (kind, name) in todo]
    if stats_file.exists() and set(train) - set(new):
        # Videos were added to a prepared set: the same two numbers hold for all of it.
        stats = read_stats(stats_file)
    else:
        moments = Parallel(n_jobs=workers)(delayed(_moments)(waiting[kind, n]) for n in train)
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
    Parallel(n_jobs=workers)(
        delayed(_scale)(waiting[kind, n], todo[kind, n], stats["mean"], stats["std"], dtype)
        for n in new
    )
    folder = root / f"unscaled_{kind}"
    (folder / "options.json").unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--root", type=Path, required=True, help="EchoNet-Dynamic folder")
    parser.add_argument("-m", "--multiprocess", action="store_true", help="use all cores")
    parser.add_argument("--workers", type=integer(1), help="processes, instead of all cores")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="recompute existing movies"
    )
    parser.add_argument(
        "--make_split", action="store_true", help="draw a split if the list has none"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--grey_only", action="store_true", help="no flow")
    only.add_argument("--of_only", action="store_true", help="only flow")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(
        parser,
        globals(),
        {
            "NFRAMES": (integer(8), "fewest frames of a video"),
            "NROWS": (integer(32), "rows of a movie"),
            "NCOLS": (integer(32), "columns of a movie"),
            "DTYPE": (one_of("float16", "float32"), "type of the stored movies"),
            "LIMIT": (integer(0), "videos to take from the list; 0: all"),
            "SEED": (seed_number, "seed of --make_split"),
        },
    )
    return parser


@one_line_faults
def main(argv=None):
    """Prepare the folder named on the command line."""
    args = build_parser().parse_args(argv)
    kinds = (GREY,) if args.grey_only else (OF,) if args.of_only else (GREY, OF)
    return prepare(
        args.root,
        workers=workers_of(args),
        limit=args.limit,
        dtype=args.dtype,
        kinds=kinds,
        make_split=args.make_split,
        seed=args.seed,
        recalculate=args.recalculate,
        nframes=args.nframes,
        nrows=args.nrows,
        ncols=args.ncols,
    )


if __name__ == "__main__":
    sys.exit(main())
