"""Reading of recordings, chunks, augmentation, class weights and resampling."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.preds_processing_tools import calibrated_post
from common.files import InputError
from demo.synthetic import DemoSettings, make_movie
from helpers import make_tiny_data
from inputs.augmentation import add_noise
from inputs.calibration import Calibration
from inputs.dataset_tools import (
    Sample,
    adapted,
    chunk_multiplicity,
    class_weights,
    frame_counts,
    instance_weights,
    intensity_jumps,
    read_samples,
    resampled,
    resized,
    split_at_jumps,
)
from inputs.datasets import SparkDataset
from inputs.movie_io import Movie, write_stack
from inputs.preprocessing import (
    count_chunks,
    normalise,
    pad_frames,
    padding,
    remove_background,
    smooth,
)
from settings.config import Params

SMALL = Params(data_duration=8, data_stride=4, unet_steps=1, norm_video="movie")


def sample_of(movie, classes, **scale):
    return Sample("01", Movie(movie, Calibration(**scale), Path("memory")), classes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_tiny_data(tmp_path_factory.mktemp("data"))


def test_recordings_are_read_with_their_calibration(data):
    samples = read_samples(data, ["01", "03"], events=True)
    assert [sample.id for sample in samples] == ["01", "03"]
    assert samples[0].movie.data.shape == samples[0].classes.shape == samples[0].events.shape
    scale = calibrated_post(samples[0].movie, post=SMALL.postprocessing).calibration
    assert (scale.pixel_um, scale.frame_ms) == (pytest.approx(0.2), pytest.approx(6.8))
    assert scale.pixel_origin == "file: ImageJ resolution, unit um"
    assert scale.frame_origin == "file: ImageJ finterval"


def test_all_faults_are_reported_together(data, tmp_path):
    with pytest.raises(InputError, match=r"unknown movie id 98 99.*available ids: 01 02 03"):
        read_samples(data, ["01", "98", "99"])
    movie = np.zeros((6, 8, 9), np.uint16)
    for name in ("01", "02"):
        write_stack(tmp_path / f"{name}_video.tif", movie)
    write_stack(tmp_path / "01_class_label.tif", movie[:5].astype(np.uint8))
    write_stack(tmp_path / "02_class_label.tif", np.full(movie.shape, 7, np.uint8))
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path, ["01", "02"])
    text = str(caught.value)
    assert "(5, 8, 9)" in text
    assert "(6, 8, 9)" in text
    assert "02_class_label.tif" in text
    assert "7" in text
    with pytest.raises(InputError, match=r"generate_unet_annotations\.py --sparks-type peaks"):
        read_samples(tmp_path, ["01"], sparks_type="peaks")


@given(frames=st.integers(1, 40), duration=st.integers(1, 12), stride=st.integers(1, 12))
@settings(deadline=None)
def test_every_real_frame_lies_in_a_chunk(frames, duration, stride):
    stride = min(stride, duration)
    before, after = padding(frames, duration, stride)
    total = before + frames + after
    assert (total - duration) % stride == 0
    assert 0 <= after - before <= 1
    multiplicity = chunk_multiplicity(total, duration, stride)
    assert multiplicity.min() >= 1
    assert multiplicity.sum() == duration * count_chunks(total, duration, stride)


def test_class_weights_equal_the_loop_over_chunks():
    rng = np.random.default_rng(0)
    movies = [rng.integers(0, 5, (n, 4, 5)) for n in (20, 24)]
    counts = np.zeros(4)
    for labels in movies:
        for start in range(0, len(labels) - 8 + 1, 4):
            counts += np.bincount(labels[start : start + 8].ravel(), minlength=5)[:4]
    expected = counts.sum() / (4 * counts)
    np.testing.assert_allclose(class_weights(movies, 8, 4), expected, rtol=1e-6)
    assert class_weights([np.zeros((8, 2, 2), np.int8)], 8, 4).tolist() == [0.25, 0, 0, 0]
    assert frame_counts(movies[0]).sum() == (movies[0] < 4).sum()


def test_instance_weights():
    classes = np.array([[[1, 1, 0, 2, 3, 1]]])
    events = np.array([[[5, 5, 0, 6, 7, 8]]])
    np.testing.assert_allclose(instance_weights([(classes, events)]), [4 / 6, 4 / 3, 4 / 3])


def test_items_are_chunks_of_the_padded_movie():
    rng = np.random.default_rng(0)
    movie = rng.integers(0, 5000, (13, 4, 6)).astype(np.uint16)
    labels = rng.integers(0, 5, movie.shape).astype(np.uint8)
    dataset = SparkDataset([sample_of(movie, labels)], SMALL)
    assert len(dataset) == 3
    before, _ = padding(13, 8, 4)
    padded = pad_frames(normalise(movie, "movie")[0], *padding(13, 8, 4), 0.0)
    for index in range(3):
        item = dataset[index]
        np.testing.assert_array_equal(item["data"], padded[4 * index : 4 * index + 8])
        assert item["original_duration"] == 13
    assert (dataset[0]["labels"][:before] == 4).all()
    np.testing.assert_array_equal(dataset[-1]["data"], dataset[2]["data"])
    for index in (3, -4):
        with pytest.raises(IndexError):
            dataset[index]


def test_only_sparks_and_small_movies():
    labels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1)
    movie = labels.astype(np.uint16)
    params = dataclasses.replace(SMALL, only_sparks=True)
    item = SparkDataset([sample_of(movie, labels)], params)[0]
    assert item["labels"].flatten().tolist() == [4, 0, 1, 0, 0, 4, 4, 4]


def test_augmentation_depends_on_seed_pass_and_index():
    rng = np.random.default_rng(0)
    movie = rng.integers(0, 5000, (16, 4, 6)).astype(np.uint16)
    params = dataclasses.replace(SMALL, noise_data_augmentation=True)
    dataset = SparkDataset(
        [sample_of(movie, np.zeros(movie.shape, np.uint8))], params, augment=True
    )
    first, again = dataset[(3, 1)]["data"], dataset[(3, 1)]["data"]
    np.testing.assert_array_equal(first, again)
    others = [dataset[(epoch, 1)]["data"] for epoch in range(8)]
    assert any(not np.array_equal(first, other) for other in others)


def test_flips_act_on_movie_and_labels_alike():
    labels = np.random.default_rng(0).integers(0, 4, (8, 4, 6)).astype(np.uint8)
    dataset = SparkDataset([sample_of(labels.astype(np.uint16), labels)], SMALL, augment=True)
    for epoch in range(12):
        item = dataset[(epoch, 0)]
        np.testing.assert_allclose(item["data"] * 3, item["labels"].numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_noise_keeps_the_signal(seed):
    rng = np.random.default_rng(seed)
    chunk = np.linspace(0.1, 0.3, 8 * 8 * 8, dtype=np.float32).reshape(8, 8, 8)
    noisy = add_noise(chunk, rng, sigma=0.1, gain=60.0, scale=60000.0)
    assert noisy.dtype == np.float32
    assert np.corrcoef(noisy.ravel(), chunk.ravel())[0, 1] > 0.9


@given(t=st.integers(1, 12), n=st.integers(2, 20), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_moving_background_equals_the_loop(t, n, seed):
    movie = np.random.default_rng(seed).integers(0, 9000, (t, 2, 3)).astype(np.uint16)
    half = n // 2
    expected = [
        movie[i] - movie[max(0, i - half) : min(t, i + half)].mean(axis=0) for i in range(t)
    ]
    cleaned = remove_background(movie, "moving", duration=n)
    np.testing.assert_allclose(cleaned, expected, atol=2e-3)


def test_smoothing_kernels_keep_a_constant():
    movie = np.full((4, 5, 6), 7.0, np.float32)
    for method in ("2d", "3d", "gaussian2d", "none"):
        np.testing.assert_allclose(smooth(movie, method), movie, rtol=1e-6)


def test_resampling_follows_real_frame_times():
    times = np.array([0.0, 0.01, 0.02, 0.04, 0.05, 0.06])
    ramp = (1000 + 5e4 * times)[:, None, None] * np.ones((1, 2, 2))
    labels = np.zeros((6, 2, 2), np.uint8)
    labels[3] = 1
    sample = sample_of(ramp.astype(np.float32), labels, frame_times_s=times)
    new = resampled(sample, 50)
    np.testing.assert_allclose(new.movie.data[:, 0, 0], [1000, 2000, 3000, 4000], rtol=1e-5)
    assert new.classes[:, 0, 0].tolist() == [0, 0, 1, 0]
    assert new.movie.calibration.frame_ms == 20.0
    assert new.movie.calibration.frame_origin.endswith("new_fps of the config")


def test_pixels_of_another_size():
    movie = np.zeros((3, 8, 12), np.float32)
    movie[:, 2:6, 4:8] = 900.0
    classes = (movie > 0).astype(np.uint8)
    sample = sample_of(movie, classes, pixel_x_um=0.2, pixel_y_um=0.2)
    sample = dataclasses.replace(sample, events=classes.astype(np.int32) * 7)
    for new, size in ((0.1, (16, 24)), (0.4, (4, 6))):
        scaled = resized(sample, new)
        assert scaled.movie.data.shape == scaled.classes.shape == scaled.events.shape == (3, *size)
        assert scaled.movie.calibration.pixel_um == new
        assert scaled.movie.calibration.pixel_origin.endswith("new_pixel_um of the config from 0.2")
        # the area in um2 stays
        area = np.count_nonzero(scaled.classes) * new**2
        assert area == pytest.approx(np.count_nonzero(classes) * 0.2**2)
        np.testing.assert_array_equal(scaled.events, scaled.classes.astype(int) * 7)
        assert scaled.movie.data.mean() == pytest.approx(movie.mean(), rel=1e-3)
    # a size that the configuration gives wins over that of the file
    params = dataclasses.replace(SMALL, pixel_size_um=(0.4, 0.4), new_pixel_um=0.4)
    calibration = sample.movie.calibration.given(params.given)  # as the reader applies it
    assert calibration.pixel_origin == "config"
    movie_given = dataclasses.replace(sample.movie, calibration=calibration)
    sample = dataclasses.replace(sample, movie=movie_given)
    assert adapted([sample], params)[0].movie.data.shape == movie.shape
    with pytest.raises(InputError, match=r"memory: the file does not say its pixel size: give"):
        resized(sample_of(movie, classes), 0.4)


def test_a_movie_is_split_where_its_brightness_jumps():
    settings = {"frames": 60, "height": 16, "width": 90, "exact": True, "waves": (1,)}
    options = DemoSettings(movies=1, rates=(2, 1, 0), **settings)
    smooth_movie = make_movie(options, 0)[0]
    assert intensity_jumps(smooth_movie, 0.2) == []
    options = dataclasses.replace(options, jump=0.5)
    movie, classes, events, _ = make_movie(options, 0)
    assert intensity_jumps(movie, 0.2) == [30]
    sample = dataclasses.replace(sample_of(movie, classes), events=events)
    parts = split_at_jumps(sample, 0.2)
    assert [part.id for part in parts] == ["01-1", "01-2"]
    np.testing.assert_array_equal(np.concatenate([one.movie.data for one in parts]), movie)
    np.testing.assert_array_equal(np.concatenate([one.events for one in parts]), events)
    params = dataclasses.replace(SMALL, split_jumps=0.2, new_fps=50, unscored=("01:waves",))
    sample = dataclasses.replace(
        sample, movie=dataclasses.replace(sample.movie, calibration=Calibration.of(0.2, 6.8))
    )
    assert [len(part.movie.data) for part in adapted([sample], params)] == [10, 10]
    assert params.unscored_classes("01-2") == ("waves",)
    assert params.unscored_classes("02") == ()
