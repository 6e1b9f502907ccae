"""Parity checks of preprocessing, chunks, augmentation, class weights and assembly."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import torch

from inputs.augmentation import draw_flips, flip
from inputs.calibration import Calibration
from inputs.dataset_tools import Sample, instance_weights
from inputs.datasets import SparkDataset
from inputs.movie_io import Movie
from inputs.preprocessing import (
    count_chunks,
    normalise,
    padding,
    preprocess_chunk,
    reduce_labels,
    remove_background,
    sin_channels,
    smooth,
)
from network.inference_tools import Assembly, gaussian_weights
from parity_networks import close
from settings.config import Params


def check_preprocessing(arrays, _name):
    """Check normalisation, background, smoothing, chunks, weights and sinusoids."""
    movie, labels = arrays["movie"], arrays["labels"]
    duration, stride = int(arrays["data_duration"]), int(arrays["data_stride"])
    methods = [m for m in ("movie", "abs_max", "std_dev") if f"norm_{m}" in arrays]
    assert methods
    for method in methods:
        close(normalise(movie, method)[0], arrays[f"norm_{method}"], rtol=1e-5, atol=1e-6)
    average = remove_background(movie, "average", duration=duration)
    close(average, arrays["bg_average"], rtol=1e-5, atol=2e-3)  # differences of ~5000 in float32
    moving = remove_background(movie, "moving", duration=duration)
    close(moving, arrays["bg_moving"], rtol=1e-5, atol=2e-2)
    for method, name in {
        "gaussian2d": "blur_gauss2d",
        "2d": "smooth_2d_2022",
        "3d": "smooth_3d_2022",
    }.items():
        close(smooth(movie, method), arrays[name], rtol=1e-5)

    params = Params(data_duration=duration, data_stride=stride, unet_steps=1, ignore_frames_loss=0)
    chunk = movie[:duration].astype(np.float32)
    chunk_norm = dataclasses.replace(params, norm_video="chunk")
    close(preprocess_chunk(chunk, chunk_norm), arrays["norm_chunk_first"], rtol=1e-5, atol=1e-7)
    chunk_mean = dataclasses.replace(params, remove_background="chunk_average")
    close(
        preprocess_chunk(chunk, chunk_mean),
        arrays["bg_moving_2022_first_chunk"],
        rtol=1e-5,
        atol=2e-3,
    )

    for frames, padded, first, real in arrays["pad_table_T_Tpad_start_n"]:
        before, after = padding(int(frames), duration, stride)
        assert (frames + before + after, before, frames) == (padded, first, real)
    # the movie, its first frames, and the movie backwards
    shorter = int(arrays["original_durations"][1])
    movies = [(movie, labels), (movie[:shorter], labels[:shorter]), (movie[::-1], labels[::-1])]
    samples = [
        Sample(str(n), Movie(data, Calibration(), Path("memory")), classes)
        for n, (data, classes) in enumerate(movies)
    ]
    dataset = SparkDataset(samples, params)
    assert len(dataset) == int(arrays["n_chunks"])
    starts = dataset.table.copy()
    starts[:, 1] //= stride
    np.testing.assert_array_equal(starts, arrays["chunk_table_movie_start"])
    item = dataset[int(arrays["item_index"])]
    close(item["data"], arrays["item_data"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(item["labels"].numpy(), arrays["item_labels"])
    np.testing.assert_array_equal(dataset.durations, arrays["original_durations"])
    close(dataset.class_weights(), arrays["class_weights_over_chunks"], rtol=1e-5)
    close(
        instance_weights([(labels, arrays["cwi_events"])]),
        arrays["class_weights_instances"],
        rtol=1e-5,
    )
    names = [name for name in arrays if name.startswith("sin_channels_")]
    assert names
    for name in names:
        counts = re.fullmatch(r"sin_channels_t(\d+)_y(\d+)_x(\d+)", name).groups()
        # the first channel is the movie itself, scaled by the recorder
        channels = sin_channels(arrays[name][0], tuple(map(int, counts)))
        close(channels, arrays[name], rtol=1e-5, atol=1e-6)
        shown = movie[: arrays[name].shape[1]].astype(np.float32)
        scale = shown.max() / arrays[name][0].max()
        close(arrays[name][0] * scale, shown, rtol=1e-4)


def check_flip(arrays, _name):
    """Check that the seeds give the recorded flips."""
    image = np.arange(6).reshape(2, 3)
    for seed, expected in zip(arrays["seeds"], arrays["identity_flipx_flipy_both"], strict=True):
        flips = draw_flips(torch.Generator().manual_seed(int(seed)))
        flipped = flip(image, *flips)
        candidates = (image, image[:, ::-1], image[::-1], image[::-1, ::-1])
        equal = [int(np.array_equal(flipped, candidate)) for candidate in candidates]
        np.testing.assert_array_equal(equal, expected)


def check_label_reduction(arrays, _name):
    """Check the labels of the temporal reduction."""
    labels, expected = arrays["labels"], arrays["reduced_CORRECT"]
    reduced = reduce_labels(labels, len(labels) // len(expected))
    np.testing.assert_array_equal(reduced, expected)


def check_assembly(arrays, _name):
    """Check the four ways of assembly, the Gaussian weights and the cropping."""
    chunks = arrays["chunks"]
    duration, stride = int(arrays["data_duration"]), int(arrays["data_stride"])
    assert (duration - stride) // 2 == int(arrays["half_overlap"])
    frames = (len(chunks) - 1) * stride + duration
    assert count_chunks(frames, duration, stride) == len(chunks)
    for method in [m for m in ("overlap", "average", "gaussian", "max") if m in arrays]:
        assembly = Assembly(method, frames, duration, stride, chunks.shape[1], chunks.shape[3:])
        for index, chunk in enumerate(chunks):
            assembly.add(index, chunk)
        close(assembly.result(), arrays[method], atol=1e-6)
        if method == "overlap":
            original = int(arrays["original_duration"])
            cropped = assembly.result(padding(original, duration, stride))
            close(cropped, arrays["overlap_cropped"], atol=1e-6)
    for key, value in arrays.items():
        if key.startswith("gaussian_weights_"):
            close(gaussian_weights(int(key.rsplit("_", 1)[1])), value, atol=1e-6)


CHECKS = {
    "preprocessing": check_preprocessing,
    "random_flip": check_flip,
    "temporal_label_reduction": check_label_reduction,
    "inference_assembly": check_assembly,
}
