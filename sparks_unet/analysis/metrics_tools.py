"""Event and voxel metrics of predictions against annotations, with intervals over movies.

Sections 8.7 and 8.8 of the specification. Every movie gives one dict of counts; counts are added
over movies first and divided afterwards.

Letters: T frames, H rows, W columns, A annotated events, P predicted events.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from analysis.preds_processing_tools import Prediction
from inputs.data_processing import renumber
from inputs.dataset_tools import Sample
from settings.config import CLASSES, EVENT_CLASSES, IGNORE_INDEX, NUM_CLASSES, Params, PostParams

EVENT_METRICS = ("precision", "recall", "correctly_classified", "detected", "f1-score", "labeled")
IGNORED_SHARE = 0.5  # a prediction without match is ignored from this share of label 4 on
SWEEP = tuple(round(0.1 * i, 1) for i in range(1, 10))  # IoMin thresholds


@dataclass(frozen=True)
class Scores:
    """How annotated and predicted events of one movie overlap.

    Attributes:
        iomin: (A, P) float64, intersection over the smaller of the two volumes.
        annotated_class: (A,) class numbers, classes consecutive.
        predicted_class: (P,) class numbers, classes consecutive.
        ignored_share: (P,) share of the voxels of a prediction that have label 4.
    """

    iomin: np.ndarray
    annotated_class: np.ndarray
    predicted_class: np.ndarray
    ignored_share: np.ndarray


def annotated_instances(classes: np.ndarray, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the annotated events of all classes consecutively: sparks, waves, puffs.

    Args:
        classes: (T, H, W) class labels 0..4.
        events: (T, H, W) event ids.

    Returns:
        (instances (T, H, W) int32, class_of_id (A + 1,) uint8).
    """
    n_ids = int(events.max(initial=0)) + 1
    numbers = np.zeros((NUM_CLASSES + 1, n_ids), np.int32)
    at = np.flatnonzero((classes > 0) & (classes < IGNORE_INDEX) & (events > 0))
    event_class, event_id = classes.ravel()[at], events.ravel()[at]
    present = np.bincount(event_class.astype(np.int64) * n_ids + event_id, minlength=numbers.size)
    keys = np.flatnonzero(present)
    numbers.ravel()[keys] = np.arange(1, len(keys) + 1)
    instances = np.zeros(classes.shape, np.int32)
    instances.ravel()[at] = numbers[event_class, event_id]
    return instances, np.concatenate([[0], keys // n_ids]).astype(np.uint8)


def score_matrix(
    annotated: np.ndarray, predicted: np.ndarray, n_annotated: int, n_predicted: int
) -> np.ndarray:
    """Return intersection over minimum of all pairs, (A, P) float64, from one joint histogram.

    Args:
        annotated: (T, H, W) ids 0..A.
        predicted: (T, H, W) ids 0..P.
        n_annotated: A.
        n_predicted: P.

    Differs: the published code keeps the matrix in float16, so .49988 counts as a match.
    """
    at = np.flatnonzero(predicted)
    pairs = annotated.ravel()[at].astype(np.int64) * (n_predicted + 1) + predicted.ravel()[at]
    joint = np.bincount(pairs, minlength=(n_annotated + 1) * (n_predicted + 1))
    joint = joint.reshape(n_annotated + 1, n_predicted + 1)
    volume_a = np.bincount(annotated[annotated > 0], minlength=n_annotated + 1)[1:]
    volume_p = joint.sum(axis=0)[1:]
    smaller = np.minimum(volume_a[:, None], volume_p[None, :])
    return joint[1:, 1:] / np.maximum(smaller, 1)


def event_scores(classes: np.ndarray, events: np.ndarray, prediction: Prediction) -> Scores:
    """Return the Scores of one movie.

    Args:
        classes: (T, H, W) class labels 0..4.
        events: (T, H, W) event ids.
        prediction: preds_processing_tools.Prediction.
    """
    annotated, annotated_class = annotated_instances(classes, events)
    kept = np.flatnonzero(np.isin(prediction.class_of_id, [CLASSES[n] for n in EVENT_CLASSES]))
    predicted = prediction.instances
    if len(kept) < len(prediction.class_of_id) - 1:  # some are marginal: number the others anew
        predicted = renumber(predicted, kept)
    inside = np.flatnonzero(predicted)
    number = predicted.ravel()[inside]
    volume = np.bincount(number, minlength=len(kept) + 1)[1:]
    ignored = classes.ravel()[inside] == IGNORE_INDEX
    in_ignored = np.bincount(number[ignored], minlength=len(kept) + 1)[1:]
    return Scores(
        score_matrix(annotated, predicted, len(annotated_class) - 1, len(kept)),
        annotated_class[1:],
        prediction.class_of_id[kept],
        in_ignored / np.maximum(volume, 1),
    )


def match_counts(scores: Scores, iomin: float) -> dict[str, dict]:
    """Count matches between annotated and predicted events.

    Args:
        scores: Scores.
        iomin: a pair matches when its score reaches it.

    Returns:
        Dict by class: annotated, predicted, ignored, unlabeled, undetected (each {class: n});
        ``annotated_matched[d][c]``: annotations of class d matched by predictions of class c;
        ``predicted_matched[c][d]``: predictions of class c that match annotations of class d.

    Source: section 8.7. Faithful: a prediction may match several annotations and the reverse.
    """
    match = scores.iomin >= iomin
    is_annotated = {n: scores.annotated_class == CLASSES[n] for n in EVENT_CLASSES}
    is_predicted = {n: scores.predicted_class == CLASSES[n] for n in EVENT_CLASSES}
    lonely = ~match.any(axis=0)  # (P,)
    ignored = lonely & (scores.ignored_share >= IGNORED_SHARE)
    undetected = ~match.any(axis=1)  # (A,)

    def count(mask, groups):
        return {name: int(np.count_nonzero(mask & group)) for name, group in groups.items()}

    every = np.ones_like
    return {
        "annotated": count(every(undetected), is_annotated),
        "predicted": count(every(lonely), is_predicted),
        "ignored": count(ignored, is_predicted),
        "unlabeled": count(lonely & ~ignored, is_predicted),
        "undetected": count(undetected, is_annotated),
        "annotated_matched": {
            d: {c: int(match[rows][:, is_predicted[c]].any(axis=1).sum()) for c in EVENT_CLASSES}
            for d, rows in is_annotated.items()
        },
        "predicted_matched": {
            c: {d: int(match[is_annotated[d]][:, cols].any(axis=0).sum()) for d in EVENT_CLASSES}
            for c, cols in is_predicted.items()
        },
    }


def one_to_one_counts(scores: Scores, iomin: float) -> dict[str, int]:
    """Count pairs when every event may be used once (assignment with the highest total score).

    Returns:
        {"sparks": pairs of equal class, ..., "any_class": pairs whatever their classes}.
    """
    allowed = np.where(scores.iomin >= iomin, scores.iomin, 0.0)
    counts = {"any_class": _assigned(allowed)}
    for name in EVENT_CLASSES:
        rows = scores.annotated_class == CLASSES[name]
        columns = scores.predicted_class == CLASSES[name]
        counts[name] = _assigned(allowed[rows][:, columns])
    return counts


def _assigned(allowed):
    """Return the number of pairs with a positive score in the best assignment."""
    # The constant makes a further pair worth more than a better overlap of the others.
    value = np.where(allowed > 0, allowed + min(allowed.shape), 0.0)
    rows, columns = linear_sum_assignment(value, maximize=True)
    return int(np.count_nonzero(allowed[rows, columns]))


def segmentation_counts(classes: np.ndarray, predicted: np.ndarray, *, ignore_frames: int) -> dict:
    """Count voxels for IoU and confusion.

    Args:
        classes: (T, H, W) class labels 0..4.
        predicted: (T, H, W) predicted classes.
        ignore_frames: first and last frames left out; 0 leaves none out.

    Returns:
        Dict of intersections and unions by class, of any event, and the 4 x 4 confusion matrix
        (rows truth, columns prediction, without label 4).

    Source: section 8.8.
    """
    inside = slice(ignore_frames, max(len(classes) - ignore_frames, ignore_frames))
    truth, named = classes[inside].ravel(), predicted[inside].ravel()
    # Predicted label 4 (marginal events) is no event class.
    named = np.where(named == IGNORE_INDEX, 0, named) if (named == IGNORE_INDEX).any() else named
    joint = np.bincount(truth.astype(np.int64) * NUM_CLASSES + named, minlength=20).reshape(5, 4)
    confusion = joint[:IGNORE_INDEX]
    diagonal = confusion.diagonal()
    union = joint.sum(axis=1)[:IGNORE_INDEX] + confusion.sum(axis=0) - diagonal
    both = int(confusion[1:, 1:].sum())
    either = int(confusion.sum() - confusion[0, 0])
    return {
        "intersection": {n: int(diagonal[CLASSES[n]]) for n in EVENT_CLASSES},
        "union": {n: int(union[CLASSES[n]]) for n in EVENT_CLASSES},
        "binary": {"intersection": both, "union": either},
        # Faithful: the published truth of any event holds label 4, which no prediction can cover.
        "binary_legacy": {"intersection": both, "union": either + int(joint[IGNORE_INDEX].sum())},
        "confusion": confusion.tolist(),
    }


def without_classes(
    classes: np.ndarray, prediction: Prediction, names: Sequence[str]
) -> tuple[np.ndarray, Prediction]:
    """Make classes whose annotation is missing neither right nor wrong.

    Args:
        classes: (T, H, W) class labels 0..4.
        prediction: preds_processing_tools.Prediction.
        names: classes that are not scored.

    Returns:
        (classes, prediction) in which these classes are label 4.
    """
    numbers = [CLASSES[name] for name in names]
    labels = np.arange(NUM_CLASSES + 1, dtype=np.uint8)
    labels[numbers] = IGNORE_INDEX
    class_of_id = labels[prediction.class_of_id]
    prediction = dataclasses.replace(
        prediction, classes=labels[prediction.classes], class_of_id=class_of_id
    )
    return labels[classes], prediction


def movie_counts(
    classes: np.ndarray,
    events: np.ndarray,
    prediction: Prediction,
    *,
    post: PostParams,
    ignore_frames: int,
    unscored: Sequence[str] = (),
) -> dict:
    """Return all counts of one movie as a dict that JSON can hold.

    Args:
        classes: (T, H, W) class labels 0..4.
        events: (T, H, W) event ids.
        prediction: preds_processing_tools.Prediction.
        post: config.PostParams.
        ignore_frames: first and last frames left out of the voxel metrics.
        unscored: classes whose annotation is missing in this movie.
    """
    if unscored:
        classes, prediction = without_classes(classes, prediction, unscored)
    scores = event_scores(classes, events, prediction)
    return {
        "events": match_counts(scores, post.iomin),
        "one_to_one": one_to_one_counts(scores, post.iomin),
        "sweep": {str(level): match_counts(scores, level) for level in SWEEP},
        "segmentation": segmentation_counts(
            classes, prediction.classes, ignore_frames=ignore_frames
        ),
    }


def sample_counts(sample: Sample, prediction: Prediction, params: Params, post: PostParams) -> dict:
    """Return movie_counts of a labelled recording by the settings of a run.

    Args:
        sample: dataset_tools.Sample with class labels and event ids.
        prediction: preds_processing_tools.Prediction.
        params: Params.
        post: config.PostParams with the calibration of the recording.
    """
    return movie_counts(
        sample.classes,
        sample.events,
        prediction,
        post=post,
        ignore_frames=params.ignore_frames_loss,
        unscored=params.unscored_classes(sample.id),
    )


def are_counts(value: object) -> bool:
    """Return whether a value read from JSON has the form of movie_counts: its keys, integers."""
    nothing = np.zeros((1, 1, 1), np.uint8)
    no_events = Prediction(nothing, nothing, np.zeros(1, np.uint8), np.empty((0, 3), np.int64))
    pattern = movie_counts(nothing, nothing, no_events, post=PostParams(), ignore_frames=0)
    return _same_form(value, pattern)


def _same_form(value, pattern):
    if isinstance(pattern, dict):
        return (
            isinstance(value, dict)
            and value.keys() == pattern.keys()
            and all(_same_form(value[key], branch) for key, branch in pattern.items())
        )
    if isinstance(pattern, list):
        return (
            isinstance(value, list)
            and len(value) == len(pattern)
            and all(_same_form(one, branch) for one, branch in zip(value, pattern, strict=True))
        )
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def metrics_from_counts(counts: list[dict]) -> dict:
    """Return all metrics of a list of movie counts.

    Args:
        counts: list of dicts of movie_counts; added first, divided afterwards.

    Returns:
        Dict: ``<class>/<metric>`` for sparks, waves, puffs, ``total/<metric>`` from pooled events,
        ``average/<metric>`` the unweighted mean of the three classes with 0 for an undefined one
        (published rule), ``average_present/<metric>`` the mean of the defined ones (None without
        any), ``one_to_one/...``, ``segmentation/...``, ``confusion`` (4 x 4 list) and
        ``not_available``, the names whose denominator is 0.
    """
    total = add_counts(counts)
    metrics, missing = event_metrics(total["events"])
    metrics |= _one_to_one_metrics(total)
    metrics |= _segmentation_metrics(total["segmentation"])
    return metrics | {"confusion": total["segmentation"]["confusion"], "not_available": missing}


def event_metrics(events: dict) -> tuple[dict[str, float | None], list[str]]:
    """Return ({name: value}, [names with a denominator of 0]) from the sums of match_counts."""
    metrics, missing, defined = {}, [], {key: [] for key in EVENT_METRICS}
    groups = {name: (name,) for name in EVENT_CLASSES} | {"total": EVENT_CLASSES}
    for group, names in groups.items():
        values = _group_metrics(events, names)
        for key in EVENT_METRICS:
            if values[key] is None:
                missing.append(f"{group}/{key}")
            elif group != "total":
                defined[key].append(values[key])
            metrics[f"{group}/{key}"] = values[key] or 0.0
    for key in EVENT_METRICS:
        metrics[f"average/{key}"] = float(np.mean([metrics[f"{n}/{key}"] for n in EVENT_CLASSES]))
        metrics[f"average_present/{key}"] = float(np.mean(defined[key])) if defined[key] else None
    return metrics, missing


def _group_metrics(events, names):
    """Return the six metrics of one class or of several pooled; None for a denominator of 0."""
    annotated, undetected, unlabeled = (
        sum(events[key][n] for n in names) for key in ("annotated", "undetected", "unlabeled")
    )
    predicted = sum(events["predicted"][n] - events["ignored"][n] for n in names)
    right = sum(events["predicted_matched"][n][n] for n in names)
    matched = sum(events["annotated_matched"][n][n] for n in names)
    precision, recall = _ratio(right, predicted), _ratio(matched, annotated)
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {
        "precision": precision,
        "recall": recall,
        "correctly_classified": _ratio(right, predicted - unlabeled),
        "detected": None if annotated == 0 else 1 - undetected / annotated,
        "f1-score": f1,
        "labeled": None if predicted == 0 else 1 - unlabeled / predicted,
    }


def _one_to_one_metrics(total):
    """Return precision and recall when every event is used once."""
    pairs, events = total["one_to_one"], total["events"]
    metrics = {}
    for name in EVENT_CLASSES:
        predicted = events["predicted"][name] - events["ignored"][name]
        metrics[f"one_to_one/{name}/precision"] = _ratio(pairs[name], predicted) or 0.0
        metrics[f"one_to_one/{name}/recall"] = _ratio(pairs[name], events["annotated"][name]) or 0.0
    detected = _ratio(pairs["any_class"], sum(events["annotated"].values()))
    return metrics | {"one_to_one/total/detected": detected or 0.0}


def _segmentation_metrics(counts):
    """Return IoU by class (1 when truth and prediction are both empty) and of any event."""
    metrics = {}
    for name in EVENT_CLASSES:
        metrics[f"segmentation/{name}_IoU"] = _iou(
            counts["intersection"][name], counts["union"][name]
        )
    metrics["segmentation/average_IoU"] = float(np.mean(list(metrics.values())))
    for key in ("binary", "binary_legacy"):
        name = key.replace("binary", "binary_IoU")
        metrics[f"segmentation/{name}"] = _iou(counts[key]["intersection"], counts[key]["union"])
    return metrics


def sweep_metrics(counts: list[dict]) -> dict[float, dict]:
    """Return {IoMin threshold: event metrics} of a list of movie counts."""
    total = add_counts(counts)
    return {float(level): event_metrics(events)[0] for level, events in total["sweep"].items()}


def add_counts(counts: list[dict]) -> dict:
    """Add a list of nested dicts (or lists) of integers of the same layout."""
    table = np.array([leaves(one) for one in counts], np.int64)
    return with_leaves(counts[0], iter(table.sum(axis=0).tolist()))


def leaves(tree):
    """Return all integers of nested dicts and lists in their order."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list):
        return [tree]
    return [leaf for branch in tree for leaf in leaves(branch)]


def with_leaves(tree, leaves):
    """Return a copy of nested dicts and lists whose integers come from ``leaves``."""
    if isinstance(tree, dict):
        return {key: with_leaves(branch, leaves) for key, branch in tree.items()}
    if isinstance(tree, list):
        return [with_leaves(branch, leaves) for branch in tree]
    return next(leaves)


def _ratio(part, whole):
    return part / whole if whole else None


def _iou(intersection, union):
    # Faithful: an empty class that is not predicted either counts as 1.
    return intersection / union if union else 1.0
