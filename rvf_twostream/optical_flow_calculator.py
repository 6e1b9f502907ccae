"""Compute the optical flow of every movie and normalise it (specification section 5.6).

    python optical_flow_calculator.py --root ../data/rvf_twostream/study -m
    python optical_flow_calculator.py --root ../data/rvf_twostream/demo/cohort

Reads <root>/manifest.csv and the sorted DICOM files, with the crop, grey and frame-rate options of
preprocess.py. Writes processed_OF/*.npy (n, NROWS, NCOLS, 2) float32, x (right) and y (down) in
pixels of the full-size frame per frame interval, normalized_OF/*.npy, data_mean_std_OF.json.

Letters in shape comments: n frames, r rows, c columns.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from common.files import InputError, Parser, one_line_faults
from options import add_globals, integer, number, one_of
from preprocess import (
    PROCESSED_DIR,
    STATS_FILE,
    check_options,
    chosen_for_stats,
    normalize_movies,
    read_movie,
    workers_of,
)
from utils import existing_root, read_stats, save_array

# data
NFRAMES = 32  # fewest frames of a movie
NROWS = 112  # rows of the flow, pixels
NCOLS = 112  # columns of the flow, pixels
STATS = "all"  # movies behind mean and standard deviation: all or train
SPLITNUM = 0  # split whose training patients --stats train takes
# Farneback
PYR_SCALE = 0.5  # scale of the next level of the pyramid
LEVELS = 3  # levels of the pyramid
WINSIZE = 15  # averaging window, pixels
ITERATIONS = 3  # at each level
POLY_N = 5  # neighbourhood of the polynomial, pixels
POLY_SIGMA = 1.2  # width of its weights, pixels

OF_DIR, OF_NORMALIZED_DIR = "processed_OF", "normalized_OF"
OF_STATS_FILE = "data_mean_std_OF.json"


def video2OF(
    frames,
    *,
    nrows=NROWS,
    ncols=NCOLS,
    pyr_scale=PYR_SCALE,
    levels=LEVELS,
    winsize=WINSIZE,
    iterations=ITERATIONS,
    poly_n=POLY_N,
    poly_sigma=POLY_SIGMA,
    flow_size=None,
    frame_rate_hz=None,
):
    """Return the flow (n, nrows, ncols, 2) float32 of frames (n, r, c) with values 0..255.

    Channel 0 is x (right positive), 1 is y (down positive). The last field is repeated, so that
    fields equal frames. Vectors keep the unit of full-size pixels when they are resized.

    Args:
        flow_size: (rows, columns) at which to compute, or None for full size.
        frame_rate_hz: multiply by it, for pixels per second; None keeps pixels per frame.

    Source: section 5.6. The method is not invariant to scale: always give 0..255.
    """
    import cv2

    from resize import resize_frame, resize_img_list

    cv2.setNumThreads(1)  # one process per file
    _, r, c = frames.shape
    if len(frames) < 2:
        raise InputError(f"{len(frames)} frame has no flow, at least 2 needed")
    unit = np.ones(2, np.float32)
    if flow_size:
        frames = resize_img_list(frames, *flow_size)
        unit = np.array([c / flow_size[1], r / flow_size[0]], np.float32)
    if frame_rate_hz:
        unit = unit * np.float32(frame_rate_hz)
    fields = np.empty((len(frames), nrows, ncols, 2), np.float32)
    for k in range(len(frames) - 1):
        field = cv2.calcOpticalFlowFarneback(
            frames[k],
            frames[k + 1],
            None,
            pyr_scale=pyr_scale,
            levels=levels,
            winsize=winsize,
            iterations=iterations,
            poly_n=poly_n,
            poly_sigma=poly_sigma,
            flags=0,
        )
        fields[k] = resize_frame(field, nrows, ncols)
    fields[-1] = fields[-2]
    return fields * unit


def flow_of_frames(frames, options, info):
    """Return the flow of frames (n, r, c) under the options of data_mean_std_OF.json."""
    if options["per_second"] and not info["frame_rate_hz"]:
        raise InputError(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --per_second"
        )
    top = 2.0 ** info["bits_stored"] - 1
    if top > 255:
        frames = frames * np.float32(255 / top)
    return video2OF(
        frames,
        nrows=options["nrows"],
        ncols=options["ncols"],
        flow_size=options["flow_size"],
        frame_rate_hz=info["frame_rate_hz"] if options["per_second"] else None,
        **options["farneback"],
    )


def convert2OF(source, target, options, nframes):
    """Compute and save the flow of one DICOM; return the fault as text, or None."""
    try:
        frames, info = read_movie(source, options)
        if len(frames) < nframes:
            raise InputError(f"{source}: {len(frames)} frames, {nframes} needed")
        try:
            flow = flow_of_frames(frames, options, info)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        save_array(target, flow)
    except InputError as error:
        return str(error)
    return None


def flow_root(
    root,
    *,
    workers=1,
    recalculate=False,
    flow_size=None,
    per_second=False,
    crop=None,
    stats=STATS,
    splitnum=SPLITNUM,
    nframes=NFRAMES,
    nrows=NROWS,
    ncols=NCOLS,
    farneback=None,
):
    """Compute the flow of a data set; arguments as the flags of the script.

    Args:
        crop: None for the crop of preprocess.py; another one is an error.
        farneback: {name: value} of the method's six numbers, None for the globals.

    Returns:
        exit code: 0, or 1 when a file failed.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    from sorting import sorted_movies

    root = existing_root(root)
    movies = sorted_movies(root)
    grey = read_stats(root / STATS_FILE, remedy=f"run preprocess.py --root {root} first")["options"]
    if crop is not None and crop != grey["crop"]:
        raise InputError(
            f"--crop {crop}: preprocess.py used --crop {grey['crop']}; both need the same"
        )
    if (nrows, ncols) != (grey["nrows"], grey["ncols"]):
        raise InputError(
            f"--nrows {nrows} --ncols {ncols}: preprocess.py: {grey['nrows']} x {grey['ncols']}, "
            "give the same"
        )
    options = {
        **grey,
        "flow_size": list(flow_size) if flow_size else None,
        "per_second": per_second,
        "farneback": farneback or farneback_defaults(),
    }
    (root / OF_DIR).mkdir(exist_ok=True)
    check_options(root, OF_DIR, options, recalculate=recalculate)
    stems = sorted(movies)
    jobs = [s for s in stems if recalculate or not (root / OF_DIR / f"{s}.npy").exists()]
    bar = tqdm(jobs, desc="optical flow", disable=None, unit="file")
    faults = Parallel(n_jobs=workers)(
        delayed(convert2OF)(movies[stem], root / OF_DIR / f"{stem}.npy", options, nframes)
        for stem in bar
    )
    failed = {stem: fault for stem, fault in zip(jobs, faults, strict=True) if fault}
    done = [stem for stem in stems if stem not in failed]
    if not done:
        raise InputError(f"{root}: no flow computed; first fault: {next(iter(failed.values()))}")
    chosen, files = chosen_for_stats(root, done, stats, splitnum)
    written = normalize_movies(
        root,
        done,
        folders=(OF_DIR, OF_NORMALIZED_DIR),
        stats_file=OF_STATS_FILE,
        channels=2,
        chosen=chosen,
        files=files,
        options=options,
        workers=workers,
    )
    made = len(jobs) - len(failed)
    if made or written:
        print(f"{made} flows made, {written} normalised, {len(done)} in {root / OF_NORMALIZED_DIR}")
    else:
        print(f"all {len(done)} flows exist already: nothing changed (--recalculate recomputes)")
    for stem, fault in failed.items():
        print(f"failed: {stem}: {fault}", file=sys.stderr)
    return 1 if failed else 0


def farneback_defaults():
    """Return the method's six numbers as set by the globals."""
    return {
        "pyr_scale": PYR_SCALE,
        "levels": LEVELS,
        "winsize": WINSIZE,
        "iterations": ITERATIONS,
        "poly_n": POLY_N,
        "poly_sigma": POLY_SIGMA,
    }


def size_of_text(text):
    """Parse ROWSxCOLS."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLS, both at least 32")
    return size


def build_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("-m", "--multiprocess", action="store_true", help="use all cores")
    parser.add_argument("--workers", type=integer(1), help="processes, instead of all cores")
    parser.add_argument("--recalculate", action="store_true", help="recompute existing flows")
    parser.add_argument("--flow_size", type=size_of_text, help="ROWSxCOLS at which to compute")
    parser.add_argument("--per_second", action="store_true", help="pixels per second")
    parser.add_argument(
        "--crop", type=one_of("none", "region", "sector"), help="must equal that of preprocess.py"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(
        parser,
        globals(),
        {
            "NFRAMES": (integer(8), "fewest frames of a movie"),
            "NROWS": (integer(32), "rows of the flow"),
            "NCOLS": (integer(32), "columns of the flow"),
            "STATS": (one_of("all", "train"), "movies behind mean and standard deviation"),
            "SPLITNUM": (integer(0), "split of --stats train"),
            "PYR_SCALE": (number(0.1, 0.95), "scale of the next level of the pyramid"),
            "LEVELS": (integer(1), "levels of the pyramid"),
            "WINSIZE": (integer(3), "averaging window, pixels"),
            "ITERATIONS": (integer(1), "iterations at each level"),
            "POLY_N": (integer(3), "neighbourhood of the polynomial, pixels"),
            "POLY_SIGMA": (number(0.1), "width of the polynomial's weights, pixels"),
        },
    )
    return parser


@one_line_faults
def main(argv=None):
    """Compute the flow of the data set named on the command line."""
    args = build_parser().parse_args(argv)
    if not (existing_root(args.root) / PROCESSED_DIR).is_dir():
        raise InputError(
            f"{args.root}: no {PROCESSED_DIR}; run preprocess.py --root {args.root} first"
        )
    return flow_root(
        args.root,
        workers=workers_of(args),
        recalculate=args.recalculate,
        flow_size=args.flow_size,
        per_second=args.per_second,
        crop=args.crop,
        stats=args.stats,
        splitnum=args.splitnum,
        nframes=args.nframes,
        nrows=args.nrows,
        ncols=args.ncols,
        farneback={name: getattr(args, name) for name in farneback_defaults()},
    )


if __name__ == "__main__":
    sys.exit(main())
