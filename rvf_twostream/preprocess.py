"""Sort, read, resize and normalise the DICOM movies of a data set (specification section 5).

    python preprocess.py --root ../data/rvf_twostream/study -m
    python preprocess.py --root ../data/rvf_twostream/demo/cohort

Reads <root>/*.dcm and the class file (id, class). Writes <class>/<id><letter>.dcm,
processed_dicoms/*.npy (n, NROWS, NCOLS, 1) float32 0..1, normalized_dicoms/*.npy (z-scored),
data_mean_std.json, classmap.json, manifest.csv, deid_report.csv, deid_contact_sheet.png.

Letters in shape comments: n frames, r rows, c columns.
"""

import sys
from pathlib import Path

import numpy as np

from common.files import InputError, Parser, one_line_faults, read_json, write_json
from options import add_globals, integer, number, one_of
from utils import (
    CLASSES,
    check_finite,
    existing_root,
    load_movie,
    read_classes,
    read_split,
    save_array,
    split_file,
)

# data
NFRAMES = 32  # fewest frames of a movie
NROWS = 112  # rows of a preprocessed movie, pixels
NCOLS = 112  # columns of a preprocessed movie, pixels
CROP = "none"  # none, region (of the header) or sector (found in the picture)
GREY = "luma"  # luma, or reference for the swapped weights of the published script
RESAMPLE_FPS = 0.0  # frames per second after interpolation in time; 0 keeps the recording's
# checks
DEID = "refuse"  # refuse, warn or ignore headers with identity
STATS = "all"  # movies behind mean and standard deviation: all or train
SPLITNUM = 0  # split whose training patients --stats train takes

PROCESSED_DIR, NORMALIZED_DIR = "processed_dicoms", "normalized_dicoms"
STATS_FILE = "data_mean_std.json"


def movie_from_frames(frames, nrows=NROWS, ncols=NCOLS):
    """Return the movie (n, nrows, ncols, 1) float32 of grey frames (n, r, c): resized, maximum 1.

    Source: sections 5.4, 5.5. Differs: the published resize blurs 8-bit frames in 8 bit.
    """
    from resize import resize_img_list

    movie = resize_img_list(frames, nrows, ncols)[..., None]
    top = float(movie.max())
    if not np.isfinite(top) or top <= 0:
        raise InputError(f"the movie's maximum is {top}, expected a positive number; it is empty")
    return movie / np.float32(top)


def resample_time(frames, rate_hz, new_rate_hz):
    """Return frames (n, r, c) interpolated linearly in time to another frame rate."""
    if not new_rate_hz or rate_hz == new_rate_hz:
        return frames
    if not rate_hz:
        raise InputError(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --resample_fps"
        )
    last = len(frames) - 1
    position = np.arange(int(last * new_rate_hz / rate_hz + 1e-9) + 1) * (rate_hz / new_rate_hz)
    low = np.minimum(position.astype(int), last)
    part = (position - low).astype(np.float32)[:, None, None]
    return frames[low] * (1 - part) + frames[np.minimum(low + 1, last)] * part


def read_movie(path, options):
    """Return frames (n, r, c) float32 and info of a DICOM, cropped and resampled by ``options``.

    Args:
        options: dict with crop, grey and resample_fps, as stored in ``data_mean_std.json``.
    """
    from dicom_io import read_frames

    frames, info = read_frames(path, crop=options["crop"], grey=options["grey"])
    rate = info["frame_rate_hz"]
    try:
        frames = resample_time(frames, rate, options["resample_fps"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return frames, {**info, "frame_rate_hz": options["resample_fps"] or rate}


def preprocess_dicom(source, target, options, nframes):
    """Process one DICOM into ``processed_dicoms``.

    Returns:
        dict with first (r, c) uint8 frame for the contact sheet, warnings, and fault (or None),
        without the file's name.
    """
    try:
        frames, info = read_movie(source, options)
        if len(frames) < nframes:
            raise InputError(f"{len(frames)} frames, {nframes} needed")
        first = np.clip(frames[0] * (255 / max(float(frames.max()), 255.0)), 0, 255).astype(
            np.uint8
        )
        save_array(target, movie_from_frames(frames, options["nrows"], options["ncols"]))
    except InputError as error:
        return {"first": None, "warnings": [], "fault": str(error).removeprefix(f"{source}: ")}
    return {"first": first, "warnings": info["warnings"], "fault": None}


def movie_moments(path, channels):
    """Return mean and population variance of one movie, float64."""
    movie = np.asarray(load_movie(path, channels=channels), np.float64)
    check_finite(path, movie)
    return float(movie.mean()), float(movie.var())


def dataset_mean_std(moments):
    """Return mean and standard deviation of a data set from its movies' (mean, variance) pairs.

    Mean of the means; root of the mean variance. Source: section 5.5.
    """
    means, variances = np.array(moments, np.float64).T
    return float(means.mean()), float(np.sqrt(variances.mean()))


def normalize_movie(source, target, mean, std, channels):
    """Write (movie - mean) / std; return whether the file had to be written."""
    movie = load_movie(source, channels=channels)
    if target.exists() and _same_scaling(movie, target, mean, std, channels):
        return False
    save_array(target, zscore(movie, mean, std))
    return True


def zscore(movie, mean, std):
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


def normalize_movies(
    root, stems, *, folders, stats_file, channels, chosen, files, options, workers
):
    """Z-score movies by one mean and one standard deviation of the data set.

    Args:
        stems: all movies to normalise.
        folders: names of the folders with the movies and with the results.
        stats_file: JSON to write: mean, std, n_movies, files, options.
        channels: of the movies.
        chosen: stems behind the two numbers; files: what to call them in the JSON.

    Returns:
        number of files written.

    Source: section 5.5. Differs: once, where the published code does it twice.
    """
    from joblib import Parallel, delayed

    source, target = (Path(root) / folder for folder in folders)
    target.mkdir(exist_ok=True)
    moments = Parallel(n_jobs=workers)(
        delayed(movie_moments)(source / f"{stem}.npy", channels) for stem in chosen
    )
    mean, std = dataset_mean_std(moments)
    if not np.isfinite(mean) or not std > 0:
        raise InputError(
            f"{source}: standard deviation of the data set is {std}; movies are constant"
        )
    written = Parallel(n_jobs=workers)(
        delayed(normalize_movie)(
            source / f"{stem}.npy", target / f"{stem}.npy", mean, std, channels
        )
        for stem in stems
    )
    stats = {"mean": mean, "std": std, "n_movies": len(chosen), "files": files, "options": options}
    path = Path(root) / stats_file
    if not path.exists() or read_json(path) != stats:
        write_json(path, stats)
    return sum(written)


def chosen_for_stats(root, stems, stats, splitnum):
    """Return the stems behind mean and standard deviation, and what to call them."""
    if stats == "all":
        return stems, "all"
    sets = read_split(split_file(root, splitnum))
    chosen = [stem for stem in stems if sets.get(stem[:-1]) == "train"]
    if not chosen:
        raise InputError(f"{split_file(root, splitnum)}: no training patient among the movies")
    return chosen, f"train split {splitnum}"


def check_options(root, folder, options, *, recalculate):
    """Compare ``options`` with those that made the movies of ``folder``; record them there.

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
    if changed:
        # An interrupted recalculation must not leave movies of both kinds side by side.
        for movie in path.parent.glob("*.npy"):
            movie.unlink()
    if changed or not path.exists():
        write_json(path, options)


def preprocess_root(
    root,
    *,
    csv_name="REDcap_class.csv",
    workers=1,
    recalculate=False,
    move=False,
    deid=DEID,
    crop=CROP,
    grey=GREY,
    stats=STATS,
    splitnum=SPLITNUM,
    resample_fps=RESAMPLE_FPS,
    nframes=NFRAMES,
    nrows=NROWS,
    ncols=NCOLS,
    debug=False,
):
    """Preprocess a data set; arguments as the flags of the script.

    Returns:
        exit code: 0, or 1 when a file failed.
    """
    from joblib import Parallel, delayed

    from deid import report
    from sorting import FAILED, PROCESSED, SORTED, scan, sort_dicoms, write_manifest

    root = existing_root(root)
    classes = read_classes(root / csv_name)
    if stats == "train":
        read_split(split_file(root, splitnum))
    options = {
        "crop": crop,
        "grey": grey,
        "resample_fps": resample_fps,
        "nrows": nrows,
        "ncols": ncols,
    }
    rows = scan(root, classes, workers=workers)
    if not rows and not (root / "manifest.csv").exists():
        raise InputError(f"{root}: no DICOM files; put *.dcm files and {csv_name} there")
    for line in report(root / "deid_report.csv", {r["source"]: r["findings"] for r in rows}, deid):
        print(f"deid: {line}")
    if debug:
        for row in rows:
            if any(f.keyword == "PatientID" for f in row["findings"]):
                print(f"deid: {row['source']}: PatientID {row['order'][0]} is not a study id")
    if not any(r["status"] == SORTED for r in rows) and not (root / "manifest.csv").exists():
        _print_table(rows, stream=sys.stderr)
        raise InputError(f"{root}: no usable movie among {len(rows)} files; see the list above")
    (root / PROCESSED_DIR).mkdir(exist_ok=True)
    check_options(root, PROCESSED_DIR, options, recalculate=recalculate)
    rows = sort_dicoms(root, classes, rows, nframes=nframes, move=move)
    write_manifest(root, rows)
    todo = [row for row in rows if row["status"] == SORTED]
    jobs = [
        r for r in todo if recalculate or not (root / PROCESSED_DIR / f"{r['name']}.npy").exists()
    ]
    results = Parallel(n_jobs=workers)(
        delayed(preprocess_dicom)(
            root / row["class"] / f"{row['name']}.dcm",
            root / PROCESSED_DIR / f"{row['name']}.npy",
            options,
            nframes,
        )
        for row in _bar(jobs, "preprocess")
    )
    for row, result in zip(jobs, results, strict=True):
        for note in result["warnings"]:
            print(f"warning: {note}", file=sys.stderr)
        if result["fault"]:
            row.update(status=FAILED, reason=result["fault"])
    for row in todo:
        if row["status"] == SORTED:
            row["status"] = PROCESSED
    write_manifest(root, rows)
    done = sorted(row["name"] for row in rows if row["status"] == PROCESSED)
    failed = [row for row in rows if row["status"] == FAILED]
    _print_table(rows)
    if not done:
        raise InputError(f"{root}: no usable movie among {len(rows)} files; see manifest.csv")
    chosen, files = chosen_for_stats(root, done, stats, splitnum)
    written = normalize_movies(
        root,
        done,
        folders=(PROCESSED_DIR, NORMALIZED_DIR),
        stats_file=STATS_FILE,
        channels=1,
        chosen=chosen,
        files=files,
        options=options,
        workers=workers,
    )
    classmap = {r["name"]: CLASSES.index(r["class"]) for r in rows if r["status"] == PROCESSED}
    classmap = dict(sorted(classmap.items()))
    path = root / "classmap.json"
    if not path.exists() or read_json(path) != classmap:
        write_json(path, classmap)
    _contact_sheet(root, jobs, results)
    made = len(jobs) - sum(1 for r in results if r["fault"])
    if made or written:
        print(
            f"{made} movies processed, {written} normalised, {len(done)} in {root / NORMALIZED_DIR}"
        )
    else:
        print(f"all {len(done)} movies exist already: nothing changed (-r recalculates)")
    for row in failed:
        print(f"failed: {row['source'] or row['name']}: {row['reason']}", file=sys.stderr)
    return 1 if failed else 0


def _bar(items, text):
    from tqdm import tqdm

    return tqdm(items, desc=text, disable=None, unit="file")


def _print_table(rows, stream=None):
    """Print what was skipped or failed, one line a file."""
    left_out = [row for row in rows if row["status"] in ("skipped", "failed")]
    if left_out:
        print(f"{len(left_out)} of {len(rows)} files left out:", file=stream)
    for row in left_out:
        print(
            f"  {row['source'] or row['name']:<40} {row['status']:<8} {row['reason']}", file=stream
        )


def _contact_sheet(root, jobs, results):
    """Write the contact sheet of the movies read in this run, and remind of burnt-in text."""
    from deid import write_contact_sheet

    read = [
        (row["name"], r["first"]) for row, r in zip(jobs, results, strict=True) if not r["fault"]
    ]
    if not read:
        return
    names, pictures = zip(*read, strict=True)
    sheet = write_contact_sheet(root / "deid_contact_sheet.png", pictures, names)
    print(f"text burnt into the picture is not found by tags: look at {sheet}")


def dicom_to_input(path, grey_stats, of_stats, *, deid=DEID):
    """Return the network's input of one DICOM file, processed as the training set was.

    Args:
        path: DICOM file.
        grey_stats, of_stats: contents of data_mean_std.json and data_mean_std_OF.json.
        deid: refuse, warn or ignore.

    Returns:
        grey (n, nrows, ncols, 1), flow (n, nrows, ncols, 2), both float32 z-scored; info.
    """
    from deid import check_header, identity_lines
    from dicom_io import read_header
    from optical_flow_calculator import flow_of_frames

    path = Path(path)
    identity = identity_lines({path.name: check_header(read_header(path))})
    if identity and deid == "refuse":
        raise InputError(f"identity found: {identity[0]}. Anonymise the file or give --deid warn")
    frames, info = read_movie(path, grey_stats["options"])
    if identity and deid == "warn":
        info["warnings"].append(f"identity: {identity[0]}")
    options = of_stats["options"]
    try:
        movie = movie_from_frames(frames, options["nrows"], options["ncols"])
        flow = flow_of_frames(frames, options, info)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return (
        zscore(movie, grey_stats["mean"], grey_stats["std"]),
        zscore(flow, of_stats["mean"], of_stats["std"]),
        info,
    )


def workers_of(args):
    """Return the number of processes that --multiprocess and --workers ask for."""
    from joblib import cpu_count

    return args.workers or (cpu_count() if args.multiprocess else 1)


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-d", "--root", type=Path, required=True, help="folder with the DICOM files"
    )
    parser.add_argument("-c", "--csv", default="REDcap_class.csv", help="class file inside root")
    parser.add_argument("-m", "--multiprocess", action="store_true", help="use all cores")
    parser.add_argument("--workers", type=integer(1), help="processes, instead of all cores")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="recompute existing movies"
    )
    parser.add_argument(
        "--move", action="store_true", help="move the DICOM files instead of linking"
    )
    parser.add_argument("--debug", action="store_true", help="tracebacks, unknown PatientIDs")
    add_globals(
        parser,
        globals(),
        {
            "NFRAMES": (integer(8), "fewest frames of a movie"),
            "NROWS": (integer(32), "rows of a preprocessed movie"),
            "NCOLS": (integer(32), "columns of a preprocessed movie"),
            "CROP": (one_of("none", "region", "sector"), "part of the picture to keep"),
            "GREY": (one_of("luma", "reference"), "weights of the colours"),
            "RESAMPLE_FPS": (number(0, 1000), "frame rate to interpolate to; 0: none"),
            "DEID": (one_of("refuse", "warn", "ignore"), "what to do about identity in headers"),
            "STATS": (one_of("all", "train"), "movies behind mean and standard deviation"),
            "SPLITNUM": (integer(0), "split of --stats train"),
        },
    )
    return parser


@one_line_faults
def main(argv=None):
    """Preprocess the data set named on the command line."""
    args = build_parser().parse_args(argv)
    return preprocess_root(
        args.root,
        csv_name=args.csv,
        workers=workers_of(args),
        recalculate=args.recalculate,
        move=args.move,
        deid=args.deid,
        crop=args.crop,
        grey=args.grey,
        stats=args.stats,
        splitnum=args.splitnum,
        resample_fps=args.resample_fps,
        nframes=args.nframes,
        nrows=args.nrows,
        ncols=args.ncols,
        debug=args.debug,
    )


if __name__ == "__main__":
    sys.exit(main())
