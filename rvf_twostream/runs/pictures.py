"""Draw what drives the trained network for some movies of a split (specification 8.3).

The body of ``visualize_GBP.py``, whose docstring lists the files.
"""

import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from analysis.gbp_pictures import save_gif, save_gradcam, save_pictures
from analysis.gradient_maps import scaled_frames, stack_streams
from common.files import InputError, write_json
from common.locks import hold
from common.tables import read_rows, write_rows
from inputs.fan import fan_of, outside_share
from inputs.movies import Movie, list_pairs, movie_clips, random_starts
from inputs.recipe import fit_to_model
from inputs.storage import Scaling
from inputs.utils import read_classmap
from network.checkpoints import read_info
from network.guided import grad_cam, guided_gradients, guided_model, innvestigate_gradients
from network.model_zoo import two_stream
from runs.picture_folder import FOLDER_NAME, settings_of
from settings import Settings

KINDS = {  # (failure, called failure at 0.5): words
    (True, True): "failure, called failure",
    (False, False): "no failure, called none",
    (True, False): "failure, missed",
    (False, True): "no failure, called failure",
}
PICTURE_SIZE = (1152, 384)  # rows, columns of the published pictures, pixels


def choose_clips(movies: list[Movie], nsamples: int, nframes: int, seed: int) -> list[tuple]:
    """Return [(movie, start)] in the order and with the starts that the seed gives."""
    if nsamples > len(movies):
        print(f"note: {len(movies)} movies in the set, all of them are shown", file=sys.stderr)
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(movies))[:nsamples]
    return [(movies[i], random_starts(movies[i].n_frames, nframes, 1, rng)[0]) for i in order]


def choose_kinds(movies: list[Movie], nsamples: int, rows: list[dict]) -> list[tuple]:
    """Return [(movie, start)]: in turn a movie of each kind, the most typical of it first.

    A kind is a label and what the cut at 0.5 calls it; typical is a probability near the kind's
    median. The clip is the middle one of those behind the probability.

    Args:
        rows: of predictions.csv.
    """
    known = {row["file"]: row for row in rows}
    groups = {kind: [] for kind in KINDS}
    for movie in movies:
        if movie.stem in known:
            row = known[movie.stem]
            groups[kind_of(row)].append((float(row["probability"]), movie))
    for kind, group in groups.items():
        middle = np.median([p for p, _ in group]) if group else 0
        groups[kind] = sorted(group, key=lambda one: (abs(one[0] - middle), one[1].stem))
    turns = itertools.zip_longest(*groups.values())
    chosen = [one[1] for turn in turns for one in turn if one is not None][:nsamples]
    starts = {movie.stem: known[movie.stem]["starts"].split() for movie in chosen}
    return [(movie, int(starts[movie.stem][len(starts[movie.stem]) // 2])) for movie in chosen]


def kind_of(row: dict) -> tuple[bool, bool]:
    """Return (failure, called failure) of a row of predictions.csv."""
    return row["y"] == "1", float(row["probability"]) > 0.5


def frame_rates(root: Path, info: dict) -> dict[str, float]:
    """Return {movie stem: frames per second}, from the manifest of preprocess.py or resampled."""
    path = Path(root) / "manifest.csv"
    resampled = info.get("grey_stats", {}).get("options", {}).get("resample_fps")
    if not path.is_file():
        return {}
    rows = [row for row in read_rows(path) if row.get("name") and row.get("fps")]
    return {Path(row["name"]).stem: resampled or float(row["fps"]) for row in rows}


def gradients(model: keras.Model, info: dict, clips: list[dict], args: Settings) -> Iterator[tuple]:
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


def explain(
    model: keras.Model,
    info: dict,
    chosen: list[tuple],
    args: Settings,
    scaling: dict[str, Scaling] | None,
) -> Iterator[tuple]:
    """Yield (movie, start, clip, gradients, cams, logit) of each chosen clip."""
    nframes = info["input_size"][0]
    clips = [movie_clips(movie, [start], nframes, scaling) for movie, start in chosen]
    results = gradients(model, info, clips, args)
    for (movie, start), clip, (grey, flow, logit) in zip(chosen, clips, results, strict=True):
        cams = {name: maps[0] for name, maps in grad_cam(model, clip, target=args.target).items()}
        clip = {stream: values[0] for stream, values in clip.items()}
        yield movie, start, clip, {"grey": grey, "of": flow}, cams, float(logit)


def draw(folder: Path, model: keras.Model, info: dict, chosen: list[tuple], args: Settings) -> None:
    """Write all pictures of the chosen clips and index.csv into ``folder``."""
    recipe, scaling = fit_to_model(args.root, args.splitnum, info, args.weights)
    rates = frame_rates(args.root, info)
    predicted = {} if args.predictions is None else known_rows(args.predictions)
    rows, count = [], {"RVF": 0, "normal": 0}
    for movie, start, clip, gradient, cams, logit in explain(model, info, chosen, args, scaling):
        failed = movie.label_class > args.threshold
        label = "RVF" if failed else "normal"
        name = f"{label}_{count[label]}"
        count[label] += 1
        stack = stack_streams(gradient["grey"], gradient["of"])
        frames = scaled_frames(stack, size=PICTURE_SIZE, center=not args.no_center)
        save_pictures(folder, name, frames)
        probability = float(1 / (1 + np.exp(-logit)))
        beside = beside_gradient(movie, gradient, predicted.get(movie.stem))
        told = f"{movie.stem}: {beside['kind']}" if beside["kind"] else f"{name} ({movie.stem})"
        title = f"{told}, probability {probability:.2f}, target {args.target}"
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
                "recipe": recipe.hash if recipe else "",
                **beside,
            }
        )
    write_rows(folder / "index.csv", rows)


def known_rows(path: Path) -> dict[str, dict]:
    """Return {movie: row} of predictions.csv."""
    rows = read_rows(path)
    lacking = {"file", "y", "probability", "starts"} - set(rows[0] if rows else ())
    if lacking:
        raise InputError(
            f"{path}: no column {sorted(lacking)[0]}; give predictions.csv of predict.py"
        )
    for row in rows:
        try:
            good = row["y"] in ("0", "1") and 0 <= float(row["probability"]) <= 1
            good = good and all(int(start) >= 0 for start in (row["starts"] or "x").split())
        except (TypeError, ValueError):
            good = False
        if not good:
            raise InputError(
                f"{path}: {row['file']}: y {row['y']}, probability {row['probability']}, starts "
                f"{row['starts']}; expected 0 or 1, 0 to 1, frames; give predictions.csv as "
                "predict.py writes it"
            )
    return {row["file"]: row for row in rows}


def beside_gradient(movie: Movie, gradient: dict[str, np.ndarray], row: dict | None) -> dict:
    """Return what index.csv says of a movie's kind and of its gradient outside the fan.

    Args:
        gradient: {"grey": (t,r,c,1), "of": (t,r,c,2)}.
        row: of predictions.csv, or None.
    """
    fan = fan_of(movie)
    shares = {f"outside_{name}": None for name in (*gradient, "area")}
    if fan is not None:
        shares |= {f"outside_{name}": outside_share(g, fan) for name, g in gradient.items()}
        shares["outside_area"] = float(np.mean(~fan))
    kind = "" if row is None else KINDS[kind_of(row)]
    return {"kind": kind, "movie_probability": row and float(row["probability"]), **shares}


def draw_set(args: Settings) -> None:
    """Draw some movies of a set with the weights that ``args`` names, unless they are drawn.

    TensorFlow is started (``network.start``).
    """
    info = read_info(args.weights, kind="two_stream")
    folder = args.out / FOLDER_NAME
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
    if args.predictions is None:
        chosen = choose_clips(movies, args.nsamples, nframes, args.seed)
    else:
        chosen = choose_kinds(movies, args.nsamples, list(known_rows(args.predictions).values()))
        if not chosen:
            raise InputError(f"{args.predictions}: holds no movie of the {args.set} set")
    hold(args.out)
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
