"""What motion numbers, or another training's features, tell alone (``predict.py --baseline``).

Both are logistic regressions on the training patients of the same split, beside the network.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from analysis.metrics import summarise
from analysis.motion_numbers import logistic_scores, motion_numbers
from common.files import write_json
from inputs.movies import Movie, fixed_starts, list_pairs, movie_clips
from inputs.recipe import fit_to_model
from inputs.storage import values
from inputs.utils import load_movie, movie_id, read_classmap, write_table
from network.checkpoints import read_info
from network.model_zoo import two_stream
from runs.training import make_forward
from settings import Settings

COLUMNS = ("baseline", "set", "id", "y", "probability")


def patient_numbers(movies: list[Movie], numbers: Callable[[Movie], np.ndarray]) -> tuple:
    """Return ids (p), classes (p,) and the means over each patient's movies of numbers (p, k)."""
    groups = {}
    for movie in movies:
        groups.setdefault(movie_id(movie.stem), []).append(movie)
    table = np.stack([np.mean([numbers(m) for m in group], axis=0) for group in groups.values()])
    return list(groups), np.array([g[0].label_class for g in groups.values()]), table


def flow_numbers(movie: Movie) -> np.ndarray:
    """Return the motion numbers of a movie's stored flow."""
    return motion_numbers(values(np.asarray(load_movie(movie.of_path))))


def embedding(weights: Path, args: Settings) -> Callable[[Movie], np.ndarray]:
    """Return what gives a movie's features before the last layer of another training."""
    info = read_info(weights, kind="two_stream")
    model = two_stream(weights)
    forward = make_forward(keras.Model(model.inputs, model.get_layer("concat").output))
    _, scaling = fit_to_model(args.root, args.splitnum, info, weights)
    nframes = info["input_size"][0]

    def features(movie):
        starts = fixed_starts(movie.n_frames, nframes, args.n_sample)
        return forward(movie_clips(movie, starts, nframes, scaling)).mean(axis=0)

    return features


def baselines(args: Settings, info: dict, sets: list[str], folder: Path) -> dict:
    """Fit and write the baselines of a split; return {baseline: {set: summary over patients}}.

    A training set of one class has none, which is said.
    """
    nframes, nrows, ncols = info["input_size"]
    size = {"nframes": nframes, "nrows": nrows, "ncols": ncols}
    classmap = read_classmap(args.root)
    movies = {
        name: list_pairs(args.root, args.splitnum, name, classmap, short=[], **size)
        for name in dict.fromkeys(["train", *sets])
    }
    kinds = {"motion numbers": flow_numbers}
    if args.baseline_weights is not None:
        kinds[f"features of {args.baseline_weights.name}"] = embedding(args.baseline_weights, args)
    result, rows = {}, []
    for kind, numbers in kinds.items():
        of_set = {name: patient_numbers(members, numbers) for name, members in movies.items()}
        _, classes, table = of_set["train"]
        labels = classes > args.threshold
        if len(set(labels.tolist())) < 2:
            print(
                f"warning: the training set of split {args.splitnum} has one class: no baseline",
                file=sys.stderr,
            )
            return {}
        scores = logistic_scores((table, labels), {name: of_set[name][2] for name in sets})
        result[kind] = {}
        for name in sets:
            ids, classes, _ = of_set[name]
            y = classes > args.threshold
            result[kind][name] = summarise(y, scores[name], ids, seed=args.seed)
            rows += [
                dict(zip(COLUMNS, (kind, name, *row), strict=True))
                for row in zip(ids, y.astype(int).tolist(), scores[name].tolist(), strict=True)
            ]
    write_table(folder / "baselines.csv", rows, COLUMNS)
    write_json(folder / "baselines.json", result)
    return result
