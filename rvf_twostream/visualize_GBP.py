"""Show what drives the trained network: guided back-propagation of its logit (specification 8.3).

    python visualize_GBP.py --root R --weights P.weights.h5 --splitnum 0 --nsamples 4
    python visualize_GBP.py ... --engine innvestigate      (in the environment rvf_innvestigate)

Reads one random clip of each of the first NSAMPLES movies (in an order drawn from the seed) of a
split. Writes into <out>/guidedbackprop_visualization/, by default <out> = results/rvf_twostream/P:
proj/<label>_<k>.png, movies/<label>_<k>/GBP_frame<i>.png, <label>_<k>.gif (input above gradient),
<label>_<k>_gradcam.png, index.csv, settings.json and <label>_<k>.npz: gradients grey (t,r,c,1) and
of (t,r,c,2), the clip clip_grey and clip_of, Grad-CAM cam_grey and cam_of (r,c). An existing folder
is kept unless -r.
"""

import csv
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from common.files import RESULTS_DIR as RESULTS
from common.files import InputError, Parser, one_line_faults, read_json, write_json
from gbp_pictures import save_gif, save_gradcam, save_pictures
from guided import (
    ENGINE_PYTHON,
    grad_cam,
    guided_gradients,
    guided_model,
    innvestigate_gradients,
    scaled_frames,
    stack_streams,
)
from options import add_device_flags, add_globals, integer, one_of

# data
THRESHOLD = 2  # failure when the class index is larger

# figures
TARGET = "rvf"  # rvf: the logit; normal: minus the logit
ENGINE = "tensorflow"  # tensorflow, or innvestigate in an environment of its own
PICTURE_SIZE = (1152, 384)  # rows, columns of the published pictures, pixels

TABLE = {
    "THRESHOLD": (integer(0, 2), "failure when the class index is larger"),
    "TARGET": (one_of("rvf", "normal"), "rvf: the logit; normal: minus the logit"),
    "ENGINE": (one_of("tensorflow", "innvestigate"), "what computes the gradients"),
}


def build_parser():
    """Return the parser; the published short flags stay."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("-w", "--weights", type=Path, required=True, help="P.weights.h5")
    parser.add_argument(
        "-s", "--splitnum", type=integer(0), required=True, help="number of the split"
    )
    parser.add_argument("-n", "--nsamples", type=integer(1), required=True, help="movies to show")
    parser.add_argument(
        "--set", type=one_of("train", "val", "test"), default="test", help="of the split"
    )
    parser.add_argument("--out", type=Path, help=f"folder to write to (default {RESULTS}/P)")
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="replace an existing folder"
    )
    parser.add_argument("--no_center", action="store_true", help="do not subtract the mean")
    parser.add_argument(
        "--engine_python",
        type=Path,
        default=ENGINE_PYTHON,
        help="interpreter of --engine innvestigate",
    )
    add_globals(parser, globals(), TABLE)
    add_device_flags(parser)
    return parser


def choose_clips(movies, nsamples, nframes, seed):
    """Return [(movie, start)] in the order and with the starts that the seed gives."""
    from movies import random_starts

    if nsamples > len(movies):
        print(f"note: {len(movies)} movies in the set, all of them are shown", file=sys.stderr)
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(movies))[:nsamples]
    return [(movies[i], random_starts(movies[i].n_frames, nframes, 1, rng)[0]) for i in order]


def frame_rates(root, info):
    """Return {movie stem: frames per second}, from the manifest of preprocess.py or resampled."""
    path = Path(root) / "manifest.csv"
    resampled = info.get("grey_stats", {}).get("options", {}).get("resample_fps")
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row.get("name") and row.get("fps")]
    return {Path(row["name"]).stem: resampled or float(row["fps"]) for row in rows}


def gradients(model, info, clips, args):
    """Yield (grey gradient (t,r,c,1), flow gradient (t,r,c,2), logit) of each clip of a list.

    innvestigate takes minutes to build its graph and little after that: it gets all clips at once.
    """
    if args.engine == "innvestigate":
        together = {stream: np.concatenate([c[stream] for c in clips]) for stream in clips[0]}
        results = innvestigate_gradients(
            model, info, together, target=args.target, python=args.engine_python
        )
        yield from zip(*results, strict=True)
        return
    guided = guided_model(model)
    for clip in clips:
        grey, flow, logits = guided_gradients(guided, clip, target=args.target)
        yield grey[0], flow[0], logits[0]


def explain(model, info, chosen, args):
    """Yield (movie, start, clip, gradients, cams, logit) of each chosen clip."""
    from movies import movie_clips

    nframes = info["input_size"][0]
    clips = [movie_clips(movie, [start], nframes) for movie, start in chosen]
    found = gradients(model, info, clips, args)
    for (movie, start), clip, (grey, flow, logit) in zip(chosen, clips, found, strict=True):
        cams = {name: maps[0] for name, maps in grad_cam(model, clip, target=args.target).items()}
        clip = {stream: values[0] for stream, values in clip.items()}
        yield movie, start, clip, {"grey": grey, "of": flow}, cams, float(logit)


def draw(folder, model, info, chosen, args):
    """Write all pictures of the chosen clips and index.csv into ``folder``."""
    rates = frame_rates(args.root, info)
    rows, count = [], {"RVF": 0, "normal": 0}
    for movie, start, clip, gradient, cams, logit in explain(model, info, chosen, args):
        failed = movie.label_class > args.threshold
        label = "RVF" if failed else "normal"
        name = f"{label}_{count[label]}"
        count[label] += 1
        stack = stack_streams(gradient["grey"], gradient["of"])
        frames = scaled_frames(stack, size=PICTURE_SIZE, center=not args.no_center)
        save_pictures(folder, name, frames)
        probability = float(1 / (1 + np.exp(-logit)))
        title = f"{name} ({movie.stem}), probability {probability:.2f}, target {args.target}"
        rate = rates.get(movie.stem)
        save_gif(folder / f"{name}.gif", clip, gradient, frame_rate_hz=rate, title=title)
        save_gradcam(folder / f"{name}_gradcam.png", clip, [cams["grey"], cams["of"]], title=title)
        np.savez_compressed(
            folder / f"{name}.npz",
            **gradient,
            **{f"clip_{stream}": values for stream, values in clip.items()},
            **{f"cam_{stream}": values for stream, values in cams.items()},
        )
        rows.append(
            {
                "name": name,
                "file": movie.stem,
                "id": movie.stem[:-1],
                "y": int(failed),
                "probability": probability,
                "logit": logit,
                "start": start,
                "target": args.target,
                "engine": args.engine,
                "frame_rate_hz": rate,
            }
        )
    with open(folder / "index.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def settings_of(args):
    """Return the settings that decide the pictures, as JSON gives them back."""
    free = ("debug", "device", "workers", "recalculate", "engine_python", "out")
    settings = {key: value for key, value in vars(args).items() if key not in free}
    return json.loads(json.dumps(settings, default=str))


def is_done(folder, args):
    """Say whether ``folder`` holds these very pictures; other pictures are an error unless -r."""
    if not folder.exists() or args.recalculate:
        return False
    path = folder / "settings.json"
    if path.is_file() and read_json(path, remedy="or replace the folder with -r") == settings_of(
        args
    ):
        return True
    raise InputError(
        f"{folder}: exists with other settings; replace it with -r or give another --out"
    )


@one_line_faults
def main(argv=None):
    """Draw the pictures of some movies; return the exit code."""
    args = build_parser().parse_args(argv)
    if not args.root.is_dir():
        raise InputError(f"{args.root}: no such folder; --root names the data set")
    from checkpoints import SUFFIX, read_info

    info = read_info(args.weights, kind="two_stream")
    out = args.out or RESULTS / args.weights.name.removesuffix(SUFFIX)
    folder = out / "guidedbackprop_visualization"
    if is_done(folder, args):
        print(f"already drawn: {folder} (replace it with -r)")
        return 0
    from training import start_tensorflow

    start_tensorflow(seed=args.seed, device=args.device)
    from model_zoo import two_stream
    from movies import list_pairs
    from utils import read_classmap

    begun = time.perf_counter()
    nframes, nrows, ncols = info["input_size"]
    movies = list_pairs(
        args.root,
        args.splitnum,
        args.set,
        read_classmap(args.root),
        nframes=nframes,
        nrows=nrows,
        ncols=ncols,
        short=[],
    )
    chosen = choose_clips(movies, args.nsamples, nframes, args.seed)
    # Drawn beside its final place: a killed run leaves no half-filled folder under the final name.
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    draw(draft, two_stream(args.weights), info, chosen, args)
    write_json(draft / "settings.json", settings_of(args))
    if folder.exists():
        shutil.rmtree(folder)
    draft.rename(folder)
    print(f"{len(chosen)} movies, {time.perf_counter() - begun:.0f} s, {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
