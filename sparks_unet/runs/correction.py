"""Predicted events as ImageJ ROIs, and corrected ROIs or labels as events with their tables."""

from pathlib import Path

import numpy as np

from analysis.disc_output_tools import own_name, write_prediction, write_table
from analysis.event_rois import read_event_rois, write_event_rois
from analysis.kinetics import event_frequency, event_table
from analysis.preds_processing_tools import Prediction, calibrated_post
from common.files import InputError
from common.locks import writing
from inputs.cell import cell_of
from inputs.data_processing import connected_components
from inputs.movie_io import read_class_labels, read_event_labels, read_movie, read_stack
from inputs.stack_writer import write_deflated
from settings.config import CLASSES, EVENT_CLASSES, logger
from settings.recording import Given


def rois_of_events(instances_path: Path, classes_path: Path) -> tuple[Path, int]:
    """Write the ROIs of predicted events beside them; return (path, number of ROIs)."""
    with writing(instances_path.parent):
        return _rois_beside(instances_path, classes_path)


def _rois_beside(instances_path, classes_path):
    """Write the ROIs while the folder is held."""
    instances = read_event_labels(instances_path, read_stack(instances_path).data.shape)
    classes = read_class_labels(classes_path, instances.shape)
    votes = _votes(instances, classes)
    present = np.unique(instances[instances > 0])
    unnamed = [str(number) for number in present if not votes[number].any()]
    if unnamed:
        logger.warning(
            "%s: %d events have no spark, wave or puff in %s (ids %s): they get no ROI",
            *(instances_path, len(unnamed), classes_path, ", ".join(unnamed[:5])),
        )
    highest = int(present.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        raise InputError(
            f"{instances_path}: event id {highest}; expected at most 65535, the highest id that "
            "ROIs are read back with; renumber them"
        )
    class_of_id = votes.argmax(axis=1).astype(np.uint8)
    stem = instances_path.stem.removesuffix("_instances")
    path = instances_path.with_name(f"{stem}_events.zip")
    return path, write_event_rois(path, instances, class_of_id)


def _votes(ids, classes):
    """Return the number of voxels (ids, classes) of each event class in each id (T, H, W).

    An id has the class of most of its voxels; of two with as many the lower number.
    """
    events = np.isin(classes, [CLASSES[name] for name in EVENT_CLASSES]) & (ids > 0)
    votes = np.zeros((int(ids.max(initial=0)) + 1, max(CLASSES.values()) + 1), np.int64)
    np.add.at(votes, (ids[events], classes[events]), 1)
    return votes


def events_of_labels(
    labels: dict[str, np.ndarray], movie_path: Path, out: Path, given: Given | None = None
) -> dict[str, int]:
    """Write labels that a person has corrected, with masks and tables; return {class: events}.

    Args:
        labels: {"instances", "classes"}: ids and class numbers, (T, H, W) integers. An id has the
            class of most of its voxels in "classes"; voxels of a class without an id are no event.
            Where there are no ids at all each connected piece of a class is an event.
        movie_path: the movie they belong to.
        out: folder. The labels are written first, as <movie>_edited_<kind>.tif: nothing drawn is
            lost when they turn out not to fit.
        given: settings.recording.Given, what the user says about the movie.

    Raises:
        InputError: an id none of whose voxels has a class.
    """
    with writing(out):
        edited = {}
        for kind, highest in (("instances", np.uint16), ("classes", np.uint8)):
            edited[kind] = np.asarray(labels[kind])
            largest = int(edited[kind].max(initial=0))
            if largest > np.iinfo(highest).max:
                raise InputError(
                    f"edited {kind}: a label of {largest}, expected at most "
                    f"{np.iinfo(highest).max}; renumber it"
                )
            path = out / f"{movie_path.stem}_edited_{kind}.tif"
            write_deflated(path, edited[kind].astype(highest))
        movie = read_movie(movie_path, given)
        instances, class_of_id = _named(edited["instances"], edited["classes"], movie_path)
        found = instances, class_of_id
        return _write_events(movie, movie_path.stem, found, out, given, labels="edited")


def _named(instances, classes, movie_path):
    """Return (ids 1..n (T, H, W) int32, class of every id) of edited labels."""
    events = np.isin(classes, [CLASSES[name] for name in EVENT_CLASSES])
    drawn = instances.astype(np.int32)
    start = int(drawn.max(initial=0))
    if start:
        left_out = int(np.count_nonzero(events & (drawn == 0)))
        if left_out:
            print(f"{left_out} voxels of a class have no id in the layer instances: left out")
    for name in () if start else EVENT_CLASSES:
        pieces, boxes = connected_components(classes == CLASSES[name])
        drawn = np.where(pieces > 0, pieces + start, drawn)
        start += len(boxes)
    votes = _votes(drawn, classes)
    present = np.flatnonzero(np.bincount(drawn.ravel(), minlength=start + 1))
    present = present[present > 0]
    unnamed = [str(number) for number in present if not votes[number].any()]
    if unnamed:
        raise InputError(
            f"{movie_path}: {len(unnamed)} edited events have no class (ids "
            f"{', '.join(unnamed[:5])}); paint one of their voxels in the layer classes: 1 spark, "
            "2 wave, 3 puff"
        )
    table = np.zeros(start + 1, np.int32)
    table[present] = np.arange(1, len(present) + 1)
    class_of_id = np.concatenate([[0], votes[present].argmax(axis=1)]).astype(np.uint8)
    return table[drawn], class_of_id


def events_of_rois(
    rois_path: Path, movie_path: Path, out: Path, given: Given | None = None
) -> dict[str, int]:
    """Write masks and tables of the events that ROIs show; return {class: events}."""
    with writing(out):
        return _measured_again(rois_path, movie_path, out, given)


def _measured_again(rois_path, movie_path, out, given):
    """Measure and write while the folder is held; return {class: events}."""
    movie = read_movie(movie_path, given)
    events = read_event_rois(rois_path, movie.data.shape)
    return _write_events(movie, movie_path.stem, events, out, given, rois=str(rois_path))


def _write_events(movie, stem, events, out, given, **how):
    """Measure and write (ids, class of every id) of a movie; return {class: events}."""
    instances, class_of_id = events
    post = calibrated_post(movie)
    print(post.calibration.line())
    own_name(out, stem, movie, post.calibration, given, **how)
    prediction = Prediction(
        class_of_id[instances], instances, class_of_id, np.empty((0, 3), np.int64)
    )
    physical = {"calibration": post.calibration}
    seen = {"state": movie.state, "cell": cell_of(movie)}
    table = event_table(movie.data, prediction, **physical, **seen)
    sparks = table[table["class"] == "sparks"]
    peaks = sparks[["t_peak", "y_peak", "x_peak"]].to_numpy(np.int64)
    prediction = Prediction(prediction.classes, instances, class_of_id, peaks)
    write_prediction(out, stem, movie.data, prediction, None, table=table, **physical)
    frequency = event_frequency(table, movie.data, **physical, **seen)
    write_table(out / f"{stem}_frequency.csv", frequency)
    names = {number: name for name, number in CLASSES.items()}
    present = [names[int(class_of_id[i])] for i in np.unique(instances) if i]
    return {name: present.count(name) for name in prediction.counts()}
