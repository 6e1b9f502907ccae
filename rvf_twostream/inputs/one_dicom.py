"""One DICOM file as the network's input, processed as the training set was (specification 8.1)."""

import sys
from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.cine import why_no_cine
from inputs.deid import check_header, identity_lines
from inputs.dicom_io import read_header
from inputs.frames import FLAG_ORIGIN, make_movie
from inputs.movies import clip_starts, start_seed
from inputs.recipe import Recipe
from inputs.storage import scaled, stored_flow, stored_grey
from settings import PREPROCESS, Settings


def dicom_to_stored(
    path: Path,
    grey_stats: dict,
    of_stats: dict,
    *,
    deid: str = PREPROCESS.DEID,
    frame_rate: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return movie and flow of one DICOM file as a data set of this recipe stores them, and info.

    Args:
        path: DICOM file.
        grey_stats, of_stats: contents of data_mean_std.json and data_mean_std_OF.json.
        deid: refuse, warn or ignore.
        frame_rate: frames/s of a file that holds none; 0: that given for the training data, with a
            warning, where one was.
    """
    path = Path(path)
    header = read_header(path)
    reason = why_no_cine(header)
    if reason:
        raise InputError(f"{path}: {reason}; give a 2-D echo movie")
    identity = identity_lines({path.name: check_header(header)})
    if identity and deid == "refuse":
        raise InputError(f"identity found: {identity[0]}. Anonymise the file or give --deid warn")
    options = of_stats["options"]
    training = {**grey_stats["options"], **options}
    made = make_movie(path, training | ({"frame_rate": frame_rate} if frame_rate else {}), options)
    info = dict(made.info)
    if made.info["frame_rate_origin"] == FLAG_ORIGIN and not frame_rate:
        rate = training["frame_rate"]
        info["frame_rate_origin"] = "--frame_rate of the training data"
        info["warnings"] = [
            *info["warnings"],
            f"{path}: its frame rate is unknown: {rate:g}/s, given for the training data, is "
            "taken; give --frame_rate",
        ]
    if training["resample_fps"]:
        info["frame_rate_origin"] = f"resampled; {info['frame_rate_origin']}"
    if identity and deid == "warn":
        info["warnings"] = [*info["warnings"], f"identity: {identity[0]}"]
    store = options.get("store", "float32")
    return stored_grey(made.grey, store), stored_flow(made.flow, store), info


def dicom_to_input(
    path: Path, grey_stats: dict, of_stats: dict, *, deid: str = PREPROCESS.DEID
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the network's input of one DICOM file, processed as the training set was.

    Args:
        path, grey_stats, of_stats, deid: see ``dicom_to_stored``.

    Returns:
        grey (n, nrows, ncols, 1), flow (n, nrows, ncols, 2), both float32 z-scored; info.
    """
    grey, flow, info = dicom_to_stored(path, grey_stats, of_stats, deid=deid)
    scaling = raw_scaling(grey_stats, of_stats)
    return scaled(grey, scaling["grey"]), scaled(flow, scaling["of"]), info


def raw_scaling(grey_stats: dict, of_stats: dict) -> dict:
    """Return {stream: Scaling} of raw movies by the weights' own statistics."""
    raw = {"values": "raw"}
    return Recipe.of_stats(grey_stats | raw, of_stats | raw, "weights").scaling()


def dicom_clips(args: Settings, info: dict) -> tuple[dict[str, np.ndarray], list[int], dict]:
    """Return the network's clips of one DICOM movie, their starts and facts about the movie."""
    if Recipe.of_weights(info, args.weights) is None:
        raise InputError(f"{args.weights}: its JSON holds no normalisation; train it again")
    stats = info["grey_stats"], info["of_stats"]
    nframes, nrows, ncols = info["input_size"]
    grey, flow, facts = dicom_to_stored(
        args.dicom, *stats, deid=args.deid, frame_rate=args.frame_rate
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
        rng=np.random.default_rng([args.seed, start_seed(grey)]),
    )
    scaling = raw_scaling(*stats)
    clips = {
        stream: np.stack([scaled(movie[s : s + nframes], scaling[stream]) for s in starts])
        for stream, movie in (("grey", grey), ("of", flow))
    }
    rate = {name: facts.get(name) for name in ("frame_rate_hz", "frame_rate_origin")}
    return clips, starts, {"n_frames": len(grey), **rate}
