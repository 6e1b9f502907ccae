"""Post-processing: planted truth comes back, and boxes give what whole movies give."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_otsu

from analysis.metrics_tools import metrics_from_counts, movie_counts
from analysis.preds_processing_tools import (
    foreground_threshold,
    instances_from_classes,
    merge_over_time,
    process_predictions,
)
from common.files import InputError
from demo.plain_postprocessing import plain_annotated_peaks, plain_processing
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post
from inputs.data_processing import (
    annotated_spark_peaks,
    connected_components,
    local_maxima,
    peak_footprint,
    spark_peaks,
)
from inputs.movie_io import read_movie, write_stack
from settings.config import CLASSES, EVENT_CLASSES

POST = scaled_post(Calibration.of(0.2, 6.8))


def spots(shape, centres, *, radius=6.0, frames=3, fwhm=10.0):
    """Return (movie, spark mask) with Gaussian sparks at (t, y, x) and balls around them."""
    t, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    movie, mask = np.zeros(shape), np.zeros(shape, bool)
    for at in centres:
        distance = (y - at[1]) ** 2 + (x - at[2]) ** 2
        course = np.exp(-0.5 * ((t - at[0]) / 2) ** 2)
        movie += 0.2 * course * np.exp(-distance * 4 * np.log(2) / fwhm**2)
        mask |= (distance <= radius**2) & (np.abs(t - at[0]) <= frames)
    return movie.astype(np.float32), mask


def one_hot(classes):
    """Return probabilities (4, T, H, W) that are certain; ignored voxels are background."""
    return np.stack([classes == n for n in range(4)]).astype(np.float32)


def test_truth_of_noisy_movies_comes_back():
    counts = []
    for index in range(4):
        movie, classes, events, _ = make_movie(DemoSettings(**SMALL), index)
        prediction = process_predictions(movie - movie.min(), one_hot(classes), POST)
        counts.append(movie_counts(classes, events, prediction, post=POST, ignore_frames=6))
    metrics = metrics_from_counts(counts)
    for name in ("puffs", "waves"):
        assert metrics[f"{name}/precision"] == metrics[f"{name}/recall"] == 1.0
    assert metrics["sparks/precision"] == 1.0
    assert metrics["sparks/recall"] >= 0.95


@pytest.mark.parametrize(("distance", "expected"), [(16, 2), (8, 1)])
def test_touching_sparks(distance, expected):
    centres = [(10, 16, 30), (10, 16, 30 + distance)]
    movie, mask = spots((21, 33, 80), centres)
    prediction = instances_from_classes(movie, mask.astype(np.uint8), POST)
    assert prediction.counts()["sparks"] == expected
    if expected == 2:
        np.testing.assert_allclose(prediction.spark_peaks, centres, atol=1)


@pytest.mark.parametrize(("gap", "expected"), [(2, 1), (3, 2)])
def test_gap_of_a_puff(gap, expected):
    classes = np.zeros((30, 20, 20), np.uint8)
    classes[4:12, 5:12, 5:12] = CLASSES["puffs"]
    classes[12 + gap : 22 + gap, 5:12, 5:12] = CLASSES["puffs"]
    prediction = instances_from_classes(np.ones(classes.shape), classes, POST)
    assert prediction.counts()["puffs"] == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), gap=st.integers(1, 7), frames=st.integers(1, 12))
def test_merging_over_time_equals_a_dilation(seed, gap, frames):
    mask = np.random.default_rng(seed).random((frames, 4, 5)) < 0.2
    labels, n = ndimage.label(mask, np.ones((3, 3, 3)))
    reach = gap - gap // 2
    padded = np.pad(mask, [(reach, reach), (0, 0), (0, 0)])
    grown = ndimage.binary_dilation(padded, np.ones((gap + 1, 1, 1), bool))
    expected, n_expected = ndimage.label(grown[reach : reach + frames], np.ones((3, 3, 3)))
    merged = merge_over_time(labels, gap)
    assert len(np.unique(merged[mask])) == min(n, n_expected)
    pairs = np.unique(np.stack([merged[mask], expected[mask]]), axis=1)
    assert pairs.shape[1] == min(n, n_expected)
    assert not merged[~mask].any()


def test_300_events_survive_in_the_file(tmp_path):
    classes = np.zeros((20, 120, 400), np.uint8)
    for n in range(300):
        row, column = divmod(n, 30)
        classes[5:12, 4 + 11 * row : 10 + 11 * row, 4 + 13 * column : 10 + 13 * column] = 3
    prediction = instances_from_classes(np.ones(classes.shape), classes, POST)
    path = write_stack(tmp_path / "instances.tif", prediction.instances.astype(np.uint16))
    np.testing.assert_array_equal(np.unique(read_movie(path).data), np.arange(301))


THIN = ((1, 1, 1), (1, 1, 1000), (500, 1, 1), (1, 7, 1), (5, 1, 999), (1, 301, 301), (3, 3, 3))


def random_masks():
    """Yield masks of tiny, thin and thick shapes, with isolated voxels and at random."""
    rng = np.random.default_rng(0)
    shapes = THIN + tuple(tuple(rng.integers(1, 12, 3)) for _ in range(400))
    for shape in shapes:
        yield np.pad(np.ones(1, bool), (0, np.prod(shape) - 1)).reshape(shape)
        yield rng.random(shape) < rng.random()
        # as many components as a mask can have
        lattice = np.zeros(shape, bool)
        lattice[::2, ::2, ::2] = True
        yield lattice
        yield np.asfortranarray(lattice)


def test_components_of_thin_and_tiny_masks_equal_those_of_scipy():
    for mask in random_masks():
        labels, boxes = connected_components(mask)
        expected, n = ndimage.label(mask, np.ones((3, 3, 3)))
        assert labels.shape == mask.shape
        assert len(boxes) == n
        # one id here for one id there, and the background for the background
        pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(expected))
        assert ((labels > 0) == mask).all()
        if n:
            assert boxes == ndimage.find_objects(labels.astype(np.int32))


@pytest.mark.parametrize("training_mode", [False, True])
def test_boxes_equal_the_plain_computation(training_mode):
    rng = np.random.default_rng(4)
    movie, classes, events, _ = make_movie(DemoSettings(**SMALL | {"rates": (20, 4, 1)}), 1)
    movie = ((movie - movie.min()) / 65535).astype(np.float32)
    probabilities = ndimage.gaussian_filter(one_hot(classes), (0, 1, 2, 2))
    probabilities += 0.3 * rng.random(probabilities.shape, dtype=np.float32)
    probabilities /= probabilities.sum(axis=0)
    prediction = process_predictions(movie, probabilities, POST, training_mode=training_mode)
    plain_classes, plain_instances = plain_processing(movie, probabilities, POST)
    assert prediction.counts()["sparks"] > 5
    if not training_mode:
        np.testing.assert_array_equal(prediction.classes, plain_classes)
        pairs = np.unique(np.stack([prediction.instances.ravel(), plain_instances.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    expected = plain_annotated_peaks(movie, classes, events)
    np.testing.assert_array_equal(annotated_spark_peaks(movie, classes, events), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.0005, 0.3), sigma=st.sampled_from((1, 2)))
def test_peaks_in_boxes_equal_peaks_of_the_movie(seed, density, sigma):
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_dilation(rng.random((24, 30, 60)) < density / 20, np.ones((3, 5, 5)))
    movie = rng.random(mask.shape).astype(np.float32)
    image = ndimage.gaussian_filter(np.where(mask, movie, 0).astype(np.float64), sigma)
    image[~mask] = 0
    footprint = peak_footprint(9, 3)
    maxima = (image == ndimage.maximum_filter(image, footprint=footprint)) & (image > 0)
    peaks = spark_peaks(movie, mask, sigma=sigma, distance_px=9, distance_frames=3)
    np.testing.assert_array_equal(peaks, np.argwhere(maxima))
    np.testing.assert_array_equal(local_maxima(image, footprint), maxima)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    power=st.integers(1, 12),
    levels=st.one_of(st.none(), st.integers(1, 600)),
)
def test_histogram_threshold_equals_otsu(seed, power, levels):
    values = np.random.default_rng(seed).random((3, 20, 30), dtype=np.float32) ** power
    if levels:
        values = np.round(values * levels) / np.float32(levels)
    assert foreground_threshold(values) == threshold_otsu(values)


def test_threshold_of_nearly_equal_values_lies_between_them():
    values = np.float32(0.8443) + np.arange(500, dtype=np.float32) % 9 * np.float32(1e-6)
    assert values.min() <= foreground_threshold(values) < values.max()
    assert foreground_threshold(values[:1]) == values[0]


def test_a_plateau_is_one_peak():
    movie, mask = np.zeros((9, 21, 21)), np.zeros((9, 21, 21), bool)
    movie[3:6, 8:12, 8:12], mask[2:7, 5:15, 5:15] = 1.0, True
    peaks = spark_peaks(movie, mask, sigma=0, distance_px=9, distance_frames=3)
    np.testing.assert_array_equal(peaks, [[3, 8, 8]])


def test_voxels_without_a_peak_are_events_only_in_inference():
    movie, mask = spots((21, 33, 80), [(10, 16, 20), (10, 16, 60)])
    movie[:, :, 40:] = 0
    inferred, trained = (
        instances_from_classes(movie, mask.astype(np.uint8), POST, training_mode=mode)
        for mode in (False, True)
    )
    assert (inferred.counts()["sparks"], trained.counts()["sparks"]) == (2, 1)


def test_too_many_events_in_training_give_none():
    movie, mask = spots((21, 33, 80), [(10, 16, 20), (10, 16, 60)])
    post = dataclasses.replace(POST, max_events_training=1)
    with pytest.warns(UserWarning, match="max_events_training"):
        prediction = instances_from_classes(movie, mask.astype(np.uint8), post, training_mode=True)
    assert prediction.counts() == {"sparks": 0, "waves": 0, "puffs": 0}


def test_caller_keeps_his_dict():
    movie, classes, _, _ = make_movie(DemoSettings(**SMALL), 0)
    channels = dict(zip(EVENT_CLASSES, one_hot(classes)[1:], strict=True))
    before = {name: array.copy() for name, array in channels.items()}
    first, second = (process_predictions(movie, channels, POST) for _ in range(2))
    assert channels.keys() == before.keys()
    np.testing.assert_array_equal(first.instances, second.instances)


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"\(4, 5, 6\), the movie \(4, 5, 7\)"):
        process_predictions(np.ones((4, 5, 7)), np.ones((4, 4, 5, 6)), POST)


def test_pixel_size_decides_distances():
    post = scaled_post(Calibration.of(0.267, 6.8))
    assert (post.spark_distance_px, post.wave_width_px) == (7, 56)
    classes = np.zeros((20, 20, 90), np.uint8)
    classes[5:15, 2:18, 10:70] = CLASSES["waves"]
    counts = [instances_from_classes(classes, classes, p).counts()["waves"] for p in (POST, post)]
    assert counts == [0, 1]


def test_wave_along_y_survives_on_request():
    classes = np.zeros((20, 90, 80), np.uint8)
    classes[5:15, 2:88, 30:40] = CLASSES["waves"]
    both = dataclasses.replace(POST, min_wave_extent="max")
    counts = [instances_from_classes(classes, classes, p).counts()["waves"] for p in (POST, both)]
    assert counts == [0, 1]


def test_narrow_movie_is_warned_about():
    with pytest.warns(UserWarning, match="no wave can survive"):
        process_predictions(np.ones((8, 9, 40)), np.zeros((4, 8, 9, 40), np.float32), POST)


def test_constant_probabilities_give_no_event():
    prediction = process_predictions(
        np.ones((8, 9, 90)), np.full((4, 8, 9, 90), 0.25, np.float32), POST
    )
    assert prediction.instances.max() == 0


def test_threshold_segmentation():
    channels = np.zeros((4, 20, 30, 90), np.float32)
    channels[3, 5:15, 5:20, 5:20] = 0.7
    channels[1, 8:12, 10:14, 10:14] = 0.8  # more probable than the puff around it
    channels[3, 5:15, 22:25, 60:63] = 0.7  # 90 voxels: below (2 r)^3
    post = dataclasses.replace(POST, segmentation="threshold", puffs_min_radius=3, ignore_frames=6)
    classes = process_predictions(np.ones(channels.shape[1:]), channels, post).classes
    assert classes[10, 11, 11] == CLASSES["sparks"]
    assert classes[10, 6, 6] == CLASSES["puffs"]
    assert not classes[:6].any()
    assert not classes[:, :, 40:].any()
    high = dataclasses.replace(post, fixed_threshold=0.75)
    assert set(np.unique(process_predictions(channels[0], channels, high).classes)) <= {0, 1}


def test_marginal_events_can_be_ignored():
    classes = np.zeros((30, 20, 20), np.uint8)
    classes[0:9, 2:9, 2:9] = classes[12:20, 10:18, 10:18] = CLASSES["puffs"]
    post = dataclasses.replace(POST, mark_margins=6)
    prediction = instances_from_classes(np.ones(classes.shape), classes, post)
    assert prediction.counts()["puffs"] == 1
    assert (prediction.classes[:9, 2:9, 2:9] == CLASSES["ignore"]).all()


def test_holes_are_filled_on_request():
    classes = np.zeros((12, 20, 20), np.uint8)
    classes[2:10, 4:14, 4:14] = CLASSES["puffs"]
    classes[4:6, 8:10, 8:10] = 0
    filled = instances_from_classes(classes, classes, dataclasses.replace(POST, fill_holes=True))
    assert filled.classes[2:10, 4:14, 4:14].all()
    assert not instances_from_classes(classes, classes, POST).classes[4, 8, 8]


def test_rims_of_a_wave_join_it_and_single_puffs_do_not():
    classes = np.zeros((30, 20, 120), np.uint8)
    classes[8:20, :, 10:100] = CLASSES["waves"]
    classes[20:27, 4:16, 40:70] = CLASSES["puffs"]  # the tail of the wave: one side touches it
    classes[10:17, 6:14, 104:112] = CLASSES["puffs"]  # beside it
    classes[12:18, 4:16, 20:30] = CLASSES["puffs"]  # inside it
    movie = np.ones(classes.shape)
    plain = instances_from_classes(movie, classes, POST)
    assert plain.counts() == {"sparks": 0, "waves": 1, "puffs": 3}
    for share, puffs in ((0.5, 2), (0.2, 1)):
        post = dataclasses.replace(POST, wave_rims=share)
        joined = instances_from_classes(movie, classes, post)
        assert joined.counts() == {"sparks": 0, "waves": 1, "puffs": puffs}
        np.testing.assert_array_equal(joined.instances > 0, plain.instances > 0)
        np.testing.assert_array_equal(joined.class_of_id[joined.instances], joined.classes)
        assert joined.classes[14, 10, 25] == CLASSES["waves"]
        assert joined.classes[13, 10, 108] == CLASSES["puffs"]
        assert sorted(np.unique(joined.instances)) == list(range(puffs + 2))


def test_touching_puffs_are_split_where_their_probability_falls():
    t, y, x = np.mgrid[:30, :24, :60].astype(float)
    middles = ((12, 12, 14), (16, 12, 30), (14, 12, 50))
    heights = (1.0, 0.97, 0.8)  # the third is not sure enough to be a part, and stays as it is
    shape = [
        h * np.exp(-(((t - a) / 7) ** 2 + ((y - b) / 9) ** 2 + ((x - c) / 9) ** 2))
        for h, (a, b, c) in zip(heights, middles, strict=True)
    ]
    probability = np.maximum.reduce(shape).astype(np.float32)
    classes = np.where(probability > 0.4, CLASSES["puffs"], 0).astype(np.uint8)
    movie = np.ones(classes.shape)
    plain = instances_from_classes(movie, classes, POST)
    post = dataclasses.replace(POST, split_puffs=0.9)
    same = instances_from_classes(movie, classes, post)  # without probabilities nothing is known
    np.testing.assert_array_equal(same.instances, plain.instances)
    split = instances_from_classes(movie, classes, post, puffs=probability)
    assert plain.counts()["puffs"] == 2
    assert split.counts()["puffs"] == 3
    np.testing.assert_array_equal(split.classes, plain.classes)
    assert sorted(np.unique(split.instances)) == [0, 1, 2, 3]
    assert len({split.instances[middle] for middle in middles}) == 3
    truth = 1 + np.argmax(shape[:2], axis=0)
    own = split.instances[middles[0]], split.instances[middles[1]]
    inside = np.isin(split.instances, own)
    wrong = np.where(truth == 1, *own)[inside] != split.instances[inside]
    assert wrong.mean() < 0.02
