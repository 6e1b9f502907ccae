"""Separate the events in the probabilities of one movie and write masks, tables and overlays."""

import dataclasses
from pathlib import Path

import numpy as np

from analysis.disc_output_tools import own_name, saved_steps, write_event_lists, write_prediction
from analysis.kinetics import event_table
from analysis.overlays import instance_frames, overlay_frames, write_overlay, write_view
from analysis.preds_processing_tools import calibrated_post, process_predictions
from common.locks import hold
from inputs.cell import cell_of
from inputs.movie_io import read_movie, read_probabilities, same_shape, write_stack
from settings.config import EVENT_CLASSES
from settings.recording import Given


def separate(
    movie_path: Path,
    stacks: dict[str, Path],
    out: Path,
    *,
    fill_holes: bool = False,
    overlay: bool = False,
    given: Given | None = None,
) -> dict[str, int]:
    """Write what was found in a movie into ``out``; return {class: events}.

    Args:
        movie_path: recording (TIFF).
        stacks: {"sparks", "waves", "puffs"}: probabilities (TIFF).
        out: folder.
        fill_holes: fill the holes of events.
        overlay: write coloured movies.
        given: settings.recording.Given, what the user says about the movie.
    """
    hold(out)
    movie = read_movie(movie_path, given)
    probabilities = {}
    for name in EVENT_CLASSES:
        stack = read_probabilities(stacks[name])
        same_shape(stack, movie)
        probabilities[name] = stack.data
        if bits := saved_steps(stack.data):
            print(f"{stack.source}: probabilities rounded to steps of 2^-{bits}")
    post = calibrated_post(movie)
    print(post.calibration.line())
    post = dataclasses.replace(post, fill_holes=fill_holes)
    physical = {"calibration": post.calibration}
    prediction = process_predictions(movie.data - movie.data.min(), probabilities, post)
    channels = [probabilities[name].astype(np.float32) for name in EVENT_CLASSES]
    channels = np.stack([1 - sum(channels), *channels])
    seen = {"state": movie.state, "cell": cell_of(movie)}
    table = event_table(movie.data, prediction, probabilities=channels, **physical, **seen)
    stem = movie_path.stem
    how = {f"probabilities_{name}": str(path) for name, path in stacks.items()}
    own_name(out, stem, movie, post.calibration, given, fill_holes=fill_holes, **how)
    write_prediction(out, stem, movie.data, prediction, None, table=table, raw=False, **physical)
    write_event_lists(out, stem, prediction.classes, prediction.instances)
    if overlay:
        write_overlay(out / f"{stem}_overlay.gif", movie.data, prediction.classes, **physical)
        coloured = instance_frames(movie.data, prediction.instances)
        write_view(out / f"{stem}_instances.gif", coloured, legend=False, **physical)
        white = overlay_frames(movie.data, prediction.classes, white=True)
        write_stack(out / f"{stem}_white.tif", white, **physical)
    return prediction.counts()
