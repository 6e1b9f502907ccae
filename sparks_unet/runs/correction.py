"""Predicted events as ImageJ ROIs, and corrected ROIs as events with their tables."""

from pathlib import Path

import numpy as np

from analysis.disc_output_tools import write_prediction, write_table
from analysis.event_rois import read_event_rois, write_event_rois
from analysis.kinetics import event_frequency, event_table
from analysis.preds_processing_tools import Prediction, calibrated_post
from common.locks import writing
from inputs.cell import cell_of
from inputs.movie_io import read_class_labels, read_event_labels, read_movie, read_stack
from settings.config import CLASSES
from settings.recording import Given


def rois_of_events(instances_path: Path, classes_path: Path) -> tuple[Path, int]:
    """Write the ROIs of predicted events beside them; return (path, number of ROIs)."""
    with writing(instances_path.parent):
        return _rois_beside(instances_path, classes_path)


def _rois_beside(instances_path, classes_path):
    """Write the ROIs while the folder is held."""
    instances = read_event_labels(instances_path, read_stack(instances_path).data.shape)
    classes = read_class_labels(classes_path, instances.shape)
    class_of_id = np.zeros(int(instances.max(initial=0)) + 1, np.uint8)
    inside = instances > 0
    np.maximum.at(class_of_id, instances[inside], classes[inside])
    stem = instances_path.stem.removesuffix("_instances")
    path = instances_path.with_name(f"{stem}_events.zip")
    return path, write_event_rois(path, instances, class_of_id)


def events_of_rois(
    rois_path: Path, movie_path: Path, out: Path, given: Given | None = None
) -> dict[str, int]:
    """Write masks and tables of the events that ROIs show; return {class: events}."""
    with writing(out):
        return _measured_again(rois_path, movie_path, out, given)


def _measured_again(rois_path, movie_path, out, given):
    """Measure and write while the folder is held; return {class: events}."""
    movie = read_movie(movie_path, given)
    post = calibrated_post(movie)
    print(post.calibration.line())
    instances, class_of_id = read_event_rois(rois_path, movie.data.shape)
    prediction = Prediction(
        class_of_id[instances], instances, class_of_id, np.empty((0, 3), np.int64)
    )
    physical = {"calibration": post.calibration}
    seen = {"state": movie.state, "cell": cell_of(movie)}
    table = event_table(movie.data, prediction, **physical, **seen)
    sparks = table[table["class"] == "sparks"]
    peaks = sparks[["t_peak", "y_peak", "x_peak"]].to_numpy(np.int64)
    prediction = Prediction(prediction.classes, instances, class_of_id, peaks)
    write_prediction(out, movie_path.stem, movie.data, prediction, None, table=table, **physical)
    frequency = event_frequency(table, movie.data, **physical, **seen)
    write_table(out / f"{movie_path.stem}_frequency.csv", frequency)
    names = {number: name for name, number in CLASSES.items()}
    present = [names[int(class_of_id[i])] for i in np.unique(instances) if i]
    return {name: present.count(name) for name in prediction.counts()}
