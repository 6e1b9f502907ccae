"""One DICOM file as the network's input, processed as the training set was (specification 8.1)."""

import sys
from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.deid import check_header, identity_lines
from inputs.dicom_io import read_header
from inputs.flow import flow_of_frames
from inputs.frames import movie_from_frames, read_movie
from inputs.movies import clip_starts
from inputs.scaling import zscore
from inputs.utils import checked_stats
from settings import PREPROCESS, Settings


def dicom_to_input(
    path: Path, grey_stats: dict, of_stats: dict, *, deid: str = PREPROCESS.DEID
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the network's input of one DICOM file, processed as the training set was.

    Args:
        path: DICOM file.
        grey_stats, of_stats: contents of data_mean_std.json and data_mean_std_OF.json.
        deid: refuse, warn or ignore.

    Returns:
        grey (n, nrows, ncols, 1), flow (n, nrows, ncols, 2), both float32 z-scored; info.
    """
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


def dicom_clips(args: Settings, info: dict) -> tuple[dict[str, np.ndarray], list[int], dict]:
    """Return the network's clips of one DICOM movie, their starts and facts about the movie."""
    if "grey_stats" not in info or "of_stats" not in info:
        raise InputError(f"{args.weights}: its JSON holds no normalisation; train it again")
    for key in ("grey_stats", "of_stats"):
        checked_stats(f"{args.weights}: {key} of its JSON", info[key], "train it again")
    nframes, nrows, ncols = info["input_size"]
    grey, flow, facts = dicom_to_input(
        args.dicom, info["grey_stats"], info["of_stats"], deid=args.deid
    )
    for warning in facts.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    if grey.shape[1:3] != (nrows, ncols):
        raise InputError(
            f"{args.weights}: made for {nrows}x{ncols}, its statistics for "
            f"{grey.shape[1]}x{grey.shape[2]}; train it again"
        )
    if len(grey) < nframes:
        rate = facts["frame_rate_hz"]
        at = f" at {rate:.4g} frames/s" if rate else ""
        raise InputError(f"{args.dicom}: {len(grey)} frames{at}, {nframes} needed")
    starts = clip_starts(
        len(grey),
        nframes,
        n_sample=args.n_sample,
        sampling=args.sampling,
        rng=np.random.default_rng([args.seed, 0]),
    )
    clips = {
        "grey": np.stack([grey[s : s + nframes] for s in starts]),
        "of": np.stack([flow[s : s + nframes] for s in starts]),
    }
    return clips, starts, {"n_frames": len(grey), "frame_rate_hz": facts.get("frame_rate_hz")}
