"""The jobs of generate_ca_predictions.py: predict, write, draw, and never over other results."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

from common.device import describe_device
from common.files import InputError, raise_faults, read_json, write_settings
from common.hashes import sha256
from common.locks import visible, writing
from common.names import file_name
from inputs.levels import parse_levels
from inputs.stimuli import FAMILIES
from inputs.user_movies import UserMovie, View
from network.checkpoints import resolve_checkpoint
from network.models import STCNN
from runs.prediction_output import (
    animate_layers,
    draw_family,
    draw_movie,
    write_family,
    write_movie,
)
from runs.predictions import (
    How,
    check_neurons,
    data_stimuli,
    family_stimuli,
    layer_maps,
    load_models,
    predict_family,
    predict_user_movie,
    with_display,
)
from runs.training import pick_device

# Flags that change what a family's or a data set's prediction is; those of View belong to a movie.
SAME = ("tau", "who", "readout", "ca_path", "mov_path", "shift", "nan", "placement")


@dataclass(frozen=True)
class Job:
    """What one call predicts with, and where the results go."""

    models: list[STCNN]
    how: How
    label: str  # begins the names of the figures
    view: View
    out: Path
    names: dict[str, str]  # {movie: name of its results}


def show_all(args: argparse.Namespace, default_out: Path) -> Path:
    """Predict every wish of the parsed flags; return the folder of the results."""
    # a comma may belong to a file's name; no name at all would be this folder's
    whole = bool(args.stimulus.strip()) and Path(args.stimulus).exists()
    parts = [args.stimulus] if whole else [wish.strip() for wish in args.stimulus.split(",")]
    wishes = list(dict.fromkeys(filter(None, parts)))
    movies = check_wishes(wishes, args)
    device = pick_device(args.device)
    print(describe_device("torch", str(device), asked=args.device != "auto"))
    models, label = load_models(
        args.checkpoint, configs=args.config, readout=args.readout, impl=args.temporal_impl,
        device=device,
    )  # fmt: skip
    models = [with_display(model, model.display.placed(args.placement)) for model in models]
    check_neurons(models, args.who)
    digests = {str(c): sha256(resolve_checkpoint(c)) for c in args.checkpoint}
    out = args.out or default_out / folder_name(args.checkpoint, digests)
    view = view_of(args)
    with writing(out):
        same = {name: str(getattr(args, name)) for name in SAME} | {
            "checkpoint_sha256": list(digests.values())
        }
        names = movie_names(movies, view, claim(out, same))
        print(models[0].display.describe())
        record = {k: str(v) for k, v in vars(args).items()} | {
            "display": models[0].display.record(), "same": same, "movies": names["record"],
        }  # fmt: skip
        write_settings(out, record, libraries=("torch", "numpy"))
        job = Job(models, How(args.tau, args.who), label, view, out, names["of"])
        for wish in wishes:
            show(job, wish, args)
    return out


def check_wishes(wishes: list[str], args: argparse.Namespace) -> list[str]:
    """Return the movies among the wishes; refuse what is neither a family nor a file."""
    faults = [
        f"--stimulus {wish}: no family ({', '.join(FAMILIES)}) and no such file"
        for wish in wishes
        if wish not in (*FAMILIES, "data") and not Path(wish).exists()
    ]
    if not wishes:
        faults.append(f"--stimulus is empty; expected {', '.join(FAMILIES)}, data or a movie")
    if "data" in wishes and args.ca_path is None:
        faults.append("--stimulus data needs --ca-path and --mov-path")
    raise_faults(faults)
    return [wish for wish in wishes if wish not in (*FAMILIES, "data")]


def view_of(args: argparse.Namespace) -> View:
    """Return how user movies are shown."""
    return View(
        args.movie_rate, args.deg_per_px, parse_levels(args.levels), args.azimuth, args.elevation,
        args.eye, args.polarity,
    )  # fmt: skip


def run_name(checkpoint: str) -> str:
    """Return a name that tells the results of a checkpoint from those of another."""
    return folder_name([checkpoint], {checkpoint: sha256(resolve_checkpoint(checkpoint))})


def folder_name(checkpoints: list[str], digests: dict[str, str]) -> str:
    """Return the folder of the results of these checkpoints: names of their run and epoch."""
    first = resolve_checkpoint(checkpoints[0])
    more = f"_and_{len(checkpoints) - 1}_more" if len(checkpoints) > 1 else ""
    digest = "".join(value[:4] for value in digests.values())[:12]
    return file_name(f"{first.parent.resolve().name}_{first.stem}{more}_{digest}", "--checkpoint")


def claim(out: Path, same: dict) -> dict:
    """Return what movies have results in ``out`` already; refuse a folder of other results."""
    record = out / "settings.json"
    if not record.is_file():
        if visible(out, "*"):
            raise InputError(f"{out}: holds files of something else; give another --out")
        return {}
    settings = read_json(record, remedy="give another --out").get("settings", {})
    old = settings.get("same")
    if old is None:
        raise InputError(f"{out}: holds results of another script or version; give another --out")
    changed = [name for name in same if old.get(name) != same[name]]
    if changed:
        raise InputError(
            f"{out}: holds predictions made with another {', '.join(changed)}; give another --out"
        )
    return settings.get("movies", {})


def movie_names(movies: list[str], view: View, taken: dict[str, str]) -> dict:
    """Return the name of each movie's results: its own, unless another movie has it.

    Returns:
        {"of": {movie: name}, "record": {name: content and view}} with the older entries.
    """
    of, record = {}, dict(taken)
    for movie in movies:
        path = Path(movie)
        files = visible(path, "*") if path.is_dir() else [path]
        content = "".join(sha256(file)[:16] for file in files if file.is_file())
        key = sha256_text(f"{content} {view}")
        stem = file_name(path.resolve().name if path.is_dir() else path.stem, "--stimulus")
        name = stem
        taken = {other.lower(): k for other, k in record.items()}  # one file on many disks
        if stem.lower() in (*FAMILIES, "data") or taken.get(stem.lower(), key) != key:
            name = f"{stem}_{key[:8]}"
        of[movie], record[name] = name, key
    return {"of": of, "record": record}


def sha256_text(text: str) -> str:
    """Return the digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def show(job: Job, wish: str, args: argparse.Namespace) -> None:
    """Predict a family, a data set or a movie and write its results."""
    if wish not in (*FAMILIES, "data"):
        show_movie(job, wish, args.feature_maps)
        return
    if args.ca_path is not None:
        shown = data_stimuli(
            args.ca_path, args.mov_path, job.models[0], wish, args.shift, nan=args.nan
        )
    else:
        shown = family_stimuli(job.models[0], wish)
    prediction = predict_family(job.models, shown, job.how)
    write_family(prediction, job.out)
    draw_family(prediction, job.out, job.label)


def show_movie(job: Job, wish: str, feature_maps: str | None) -> None:
    """Predict a user's movie; animate layers where they are asked for."""
    movie = UserMovie(wish, view=job.view)
    display = job.models[0].display
    print(movie.describe(display))
    prediction = predict_user_movie(job.models, movie, job.how, called=job.names[wish])
    write_movie(prediction, job.out)
    draw_movie(prediction, job.out, job.label)
    if feature_maps:
        maps = layer_maps(job.models[0], movie, feature_maps.split(","))
        animate_layers(maps, prediction.name, display.rate_hz, job.out)
