"""Event and voxel metrics: rules of matching, empty movies, intervals."""

import dataclasses
import json

import numpy as np
import pytest

from analysis.location_metrics import f_beta, location_metrics, match_sparks, pixel_metrics
from analysis.metrics_tools import (
    event_scores,
    match_counts,
    metrics_from_counts,
    movie_counts,
    segmentation_counts,
    sweep_metrics,
)
from analysis.preds_processing_tools import Prediction, instances_from_classes
from analysis.resampling import bootstrap_intervals, compare_runs
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post

POST = scaled_post(Calibration.of(0.2, 6.8))


def made_prediction(instances, classes_of_ids):
    """Return a Prediction from ids (T, H, W) and the class number of each id."""
    class_of_id = np.array([0, *classes_of_ids], np.uint8)
    return Prediction(class_of_id[instances], instances, class_of_id, np.empty((0, 3), int))


def counts_of(classes, events, prediction):
    return movie_counts(classes, events, prediction, post=POST, ignore_frames=0)


@pytest.fixture(scope="module")
def movies():
    """Counts of four movies: the truth, shifted by two pixels."""
    counts = []
    for index in range(4):
        movie, classes, events, _ = make_movie(DemoSettings(**SMALL), index)
        shifted = np.roll(np.where(classes == 4, 0, classes), 2, axis=2).astype(np.uint8)
        prediction = instances_from_classes(movie, shifted, POST)
        counts.append(movie_counts(classes, events, prediction, post=POST, ignore_frames=6))
    return counts


def test_an_empty_prediction_counts_as_undetected(movies):
    _, classes, events, _ = make_movie(DemoSettings(**SMALL), 0)
    nothing = made_prediction(np.zeros(classes.shape, np.int32), [])
    empty = movie_counts(classes, events, nothing, post=POST, ignore_frames=6)
    metrics = metrics_from_counts([empty])
    assert empty["events"]["undetected"] == empty["events"]["annotated"]
    assert metrics["total/detected"] == metrics["total/precision"] == 0
    assert "total/precision" in metrics["not_available"]
    assert "total/recall" not in metrics["not_available"]
    # A movie without predictions leaves the counts of the next one alone.
    both = metrics_from_counts([empty, movies[1]])["total/recall"]
    alone = metrics_from_counts([movies[1]])["total/recall"]
    assert 0 < both < alone


def test_movie_without_events_is_finite():
    zeros = np.zeros((8, 9, 10), np.uint8)
    metrics = metrics_from_counts(
        [counts_of(zeros, zeros.astype(np.int32), made_prediction(zeros.astype(np.int32), []))]
    )
    assert metrics["segmentation/sparks_IoU"] == 1.0
    assert metrics["average/detected"] == 0.0
    assert metrics["average_present/detected"] is None


def test_a_score_below_one_half_is_no_match():
    classes, events = np.zeros((1, 1, 4000), np.uint8), np.zeros((1, 1, 4000), np.int32)
    classes[..., :2001], events[..., :2001] = 1, 5
    instances = np.zeros_like(events)
    instances[..., 1001 : 1001 + 2001] = 1  # 1000 of 2001 voxels: .49975, .5 in float16
    scores = event_scores(classes, events, made_prediction(instances, [1]))
    assert scores.iomin[0, 0] == 1000 / 2001
    assert match_counts(scores, 0.5)["undetected"]["sparks"] == 1


def test_one_prediction_may_match_two_annotations_but_once_one_to_one():
    classes, events = np.zeros((1, 4, 40), np.uint8), np.zeros((1, 4, 40), np.int32)
    classes[..., 2:12], classes[..., 20:30] = 1, 1
    events[..., 2:12], events[..., 20:30] = 5, 6
    instances = np.zeros_like(events)
    instances[..., 2:32] = 1
    metrics = metrics_from_counts([counts_of(classes, events, made_prediction(instances, [1]))])
    assert metrics["sparks/recall"] == metrics["sparks/precision"] == 1.0
    assert metrics["one_to_one/sparks/recall"] == 0.5
    assert metrics["one_to_one/total/detected"] == 0.5


def test_wrong_class_is_detected_but_not_correct():
    classes, events = np.zeros((1, 4, 40), np.uint8), np.zeros((1, 4, 40), np.int32)
    classes[..., 2:12], events[..., 2:12] = 3, 5
    metrics = metrics_from_counts([counts_of(classes, events, made_prediction(events // 5, [1]))])
    assert metrics["puffs/detected"] == 1.0
    assert metrics["puffs/recall"] == metrics["sparks/correctly_classified"] == 0.0
    assert metrics["sparks/labeled"] == 1.0


def test_predictions_on_the_ignore_label_do_not_count():
    classes, events = np.zeros((1, 4, 40), np.uint8), np.zeros((1, 4, 40), np.int32)
    classes[..., 2:7], events[..., 2:7] = 4, 5
    instances = np.zeros_like(events)
    instances[..., 2:12], instances[..., 20:30] = 1, 2
    counts = counts_of(classes, events, made_prediction(instances, [1, 1]))["events"]
    assert (counts["ignored"]["sparks"], counts["unlabeled"]["sparks"]) == (1, 1)


def test_margins_of_voxel_metrics():
    truth = np.zeros((10, 2, 2), np.uint8)
    truth[0] = truth[5] = 1
    whole = segmentation_counts(truth, truth, ignore_frames=0)
    cut = segmentation_counts(truth, truth, ignore_frames=2)
    assert (whole["intersection"]["sparks"], cut["intersection"]["sparks"]) == (8, 4)


def test_intervals_hold_the_value_and_repeat(movies):
    names = ["total/recall", "average/detected", "segmentation/sparks_IoU"]
    metrics = metrics_from_counts(movies)
    intervals = bootstrap_intervals(movies, names, draws=200, seed=1)
    assert intervals == bootstrap_intervals(movies, names, draws=200, seed=1)
    for name in names:
        low, high = intervals[name]
        assert low <= metrics[name] <= high


def test_comparison_of_a_run_with_itself_is_zero(movies):
    differences = compare_runs(movies, movies, ["total/recall"], draws=20)
    assert differences["total/recall"] == (0.0, 0.0, 0.0)


def test_sweep_falls_with_the_threshold(movies):
    sweep = sweep_metrics(movies)
    recalls = [sweep[level]["total/recall"] for level in sorted(sweep)]
    assert len(recalls) == 9
    assert recalls == sorted(recalls, reverse=True)
    assert sweep[0.5]["total/recall"] == metrics_from_counts(movies)["total/recall"]


def test_counts_go_through_json(movies):
    again = json.loads(json.dumps(movies))
    assert metrics_from_counts(again) == metrics_from_counts(movies)


def test_marginal_predictions_do_not_count():
    classes, events = np.zeros((30, 9, 9), np.uint8), np.zeros((30, 9, 9), np.int32)
    classes[:8, 2:8, 2:8] = 3
    post = dataclasses.replace(POST, mark_margins=6)
    prediction = instances_from_classes(np.ones(classes.shape), classes, post)
    assert sum(counts_of(classes * 0, events, prediction)["events"]["predicted"].values()) == 0


def test_location_matching_is_one_to_one():
    true = [(10, 10, 10), (10, 10, 16)]
    predicted = [(11, 10, 13), (30, 10, 13)]
    paired, _, extra, missed = match_sparks(true, predicted, distance_frames=3, distance_px=9)
    assert (len(paired), len(extra), len(missed)) == (1, 1, 1)
    assert location_metrics(1, 2, 2)["f2"] == pytest.approx(0.5)
    assert f_beta(0.0, 0.0, 2) == 0.0


def test_dice_has_its_factor_two():
    assert pixel_metrics(2, 5, 1, 1)["dice"] == pytest.approx(4 / 6)
    assert pixel_metrics(0, 9, 0, 0)["iou"] == 1.0


def test_unscored_classes_are_neither_right_nor_wrong():
    movie, classes, events, _ = make_movie(DemoSettings(**SMALL), 1)
    prediction = instances_from_classes(movie, np.where(classes == 4, 0, classes), POST)
    without = np.where((classes == 1) | (classes == 3), 0, classes).astype(np.uint8)
    ids = np.where(without > 0, events, 0)
    plain = metrics_from_counts([counts_of(without, ids, prediction)])
    assert plain["total/precision"] < 0.5
    options = {"post": POST, "ignore_frames": 0, "unscored": ("sparks", "puffs")}
    scored = movie_counts(without, ids, prediction, **options)
    metrics = metrics_from_counts([scored])
    assert scored["events"]["predicted"] == {"sparks": 0, "waves": 1, "puffs": 0}
    assert metrics["waves/precision"] == metrics["total/precision"] == 1.0
    assert metrics["segmentation/binary_IoU"] > 0.95
    # an annotation of such a class is not counted either
    assert (
        movie_counts(classes, events, prediction, **options)["events"]["annotated"]["sparks"] == 0
    )
