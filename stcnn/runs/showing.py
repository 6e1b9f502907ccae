"""One wish of generate_ca_predictions.py: predict, write, draw."""

import argparse

from inputs.stimuli import FAMILIES
from inputs.user_movies import UserMovie
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
    data_stimuli,
    family_stimuli,
    layer_maps,
    predict_family,
    predict_user_movie,
)


def show(models: list[STCNN], wish: str, how: How, args: argparse.Namespace, label: str) -> None:
    """Predict a family, a data set or a movie and write its results into ``args.out``."""
    if wish not in (*FAMILIES, "data"):
        show_movie(models, wish, how, args, label)
        return
    if args.ca_path is not None:
        shown = data_stimuli(args.ca_path, args.mov_path, models[0], wish, args.shift)
    else:
        shown = family_stimuli(models[0], wish)
    found = predict_family(models, shown, how)
    write_family(found, args.out)
    draw_family(found, args.out, label)


def show_movie(
    models: list[STCNN], wish: str, how: How, args: argparse.Namespace, label: str
) -> None:
    """Predict a user's movie; animate layers where they are asked for."""
    movie = UserMovie(wish, rate_hz=args.movie_rate, deg_per_px=args.deg_per_px)
    display = models[0].display
    print(movie.describe(display))
    found = predict_user_movie(models, movie, how)
    write_movie(found, args.out)
    draw_movie(found, args.out, label)
    if args.feature_maps:
        maps = layer_maps(models[0], movie, args.feature_maps.split(","))
        animate_layers(maps, found.name, display.rate_hz, args.out)
