"""The shared way of predicting a movie gives the numbers of the published, plain way."""

import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from inputs import lazy_movie
from inputs.datasets import MovieDataset
from network import shared_prediction
from network.architecture import build_model
from network.chunk_plan import Plan, slabs
from network.fast_layers import convolve, fast_weights, is_slow, pool, upsample
from network.inference_tools import predict_probabilities
from settings.config import Params

SMALL = {"first_layer_channels": 4, "norm_video": "std_dev", "unet_steps": 3}  # reach 44 frames


def decided_model(params, *, seed=0):
    """Return a network whose output depends on all its levels and on every zero of the padding.

    With PyTorch's own weights the coarse levels change a probability by less than 0.001, so that
    a fault there would pass for rounding.
    """
    torch.manual_seed(seed)
    model = build_model(params).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            fan_in = module.in_channels * (27 if module.kernel_size[0] == 3 else 1)
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.3)
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean, 0.5, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def both_ways(shape, params, **options):
    """Return (plain probabilities, shared probabilities) of a movie of noise."""
    model = decided_model(params)
    movie = np.random.default_rng(1).integers(0, 4000, shape).astype(np.uint16)
    plain, clean = predict_probabilities(model, movie, params, plain=True, **options)
    shared, same = predict_probabilities(model, movie, params, **options)
    np.testing.assert_array_equal(clean, same)
    return plain, shared


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((150, 12, 20), {"data_duration": 64, "data_stride": 8}),
        ((150, 20, 12), {"data_duration": 64, "data_stride": 30}),
        ((150, 12, 20), {"data_duration": 64, "data_stride": 64}),  # stride = duration
        ((70, 12, 20), {"data_duration": 64, "data_stride": 2}),
        ((20, 12, 20), {"data_duration": 64, "data_stride": 8}),  # shorter than a chunk
        ((64, 12, 20), {"data_duration": 64, "data_stride": 8}),  # one chunk
        ((65, 13, 21), {"data_duration": 64, "data_stride": 8}),
        ((257, 5, 9), {"data_duration": 256, "data_stride": 32, "unet_steps": 5}),
        ((90, 1, 33), {"data_duration": 64, "data_stride": 8}),  # one row
        ((90, 33, 1), {"data_duration": 64, "data_stride": 8}),
        ((90, 12, 20), {"data_duration": 64, "data_stride": 8, "unet_steps": 1}),
        ((90, 12, 20), {"data_duration": 64, "data_stride": 16, "unet_steps": 2}),
        ((150, 12, 20), {"data_duration": 128, "data_stride": 16, "unet_steps": 4}),
        ((90, 12, 20), {"data_duration": 50, "data_stride": 8}),  # zero frames
        ((90, 12, 20), {"data_duration": 51, "data_stride": 9}),
        ((120, 12, 20), {"data_duration": 64, "data_stride": 8, "dilation": 2}),
        ((90, 12, 20), {"data_duration": 64, "data_stride": 8, "batch_normalization": "batch"}),
        ((90, 12, 20), {"data_duration": 64, "data_stride": 8, "channels_last": True}),
        ((90, 12, 20), {"data_duration": 64, "data_stride": 8, "norm_video": "chunk"}),
        ((90, 12, 20), {"data_duration": 64, "data_stride": 8, "remove_background": "moving"}),
        (
            (90, 12, 20),
            {"data_duration": 64, "data_stride": 8, "remove_background": "chunk_average"},
        ),
        (
            (90, 12, 20),
            {
                "data_duration": 64,
                "data_stride": 8,
                "sin_channels": True,
                "n_sin_channels": (1, 1, 1),
            },
        ),
    ],
)
def test_same_probabilities(shape, changes):
    plain, shared = both_ways(shape, Params(**SMALL | changes))
    assert plain.std(axis=(1, 2, 3)).max() > 0.05  # the network decides
    assert np.abs(plain - shared).max() < 1e-5


@pytest.mark.parametrize(
    ("steps", "duration", "stride", "frames"), [(5, 128, 32, 190), (6, 256, 32, 330)]
)
def test_same_probabilities_of_deep_networks(steps, duration, stride, frames):
    sizes = {"data_duration": duration, "data_stride": stride, "unet_steps": steps}
    params = Params(**SMALL | sizes | {"first_layer_channels": 2})
    plain, shared = both_ways((frames, 5, 70), params)
    assert np.abs(plain - shared).max() < 1e-5


@pytest.mark.parametrize("method", ["overlap", "average", "gaussian", "max"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_ways_of_assembly_and_groups_of_chunks(method, batch_size):
    params = Params(**SMALL, data_duration=32, data_stride=8)
    options = {"method": method, "batch_size": batch_size}
    plain, shared = both_ways((90, 12, 20), params, **options)
    assert np.abs(plain - shared).max() < 1e-5


@pytest.mark.parametrize("slab", [2, 8])
def test_slabs_change_nothing(monkeypatch, slab):
    monkeypatch.setattr(shared_prediction, "SLAB_VALUES", 1)
    monkeypatch.setattr(shared_prediction, "MIN_SLAB", slab)
    plain, shared = both_ways((100, 12, 20), Params(**SMALL, data_duration=64, data_stride=16))
    assert np.abs(plain - shared).max() < 1e-5


def test_large_maps_are_computed_twice(monkeypatch):
    monkeypatch.setattr(shared_prediction, "KEPT_VALUES", 0)
    plain, shared = both_ways((100, 12, 20), Params(**SMALL, data_duration=64, data_stride=16))
    assert np.abs(plain - shared).max() < 1e-5
    params = Params(**SMALL, data_duration=50, data_stride=8)  # with zero frames
    plain, shared = both_ways((90, 12, 20), params, method="average")
    assert np.abs(plain - shared).max() < 1e-5


def test_a_chunk_without_its_own_first_frames_is_seen(monkeypatch):
    def careless(self, movie, start, size, front=None, back=None):
        right(self, movie, start, size, None, back)

    right = shared_prediction.ChunkFrames.__init__
    monkeypatch.setattr(shared_prediction.ChunkFrames, "__init__", careless)
    plain, shared = both_ways((90, 12, 20), Params(**SMALL, data_duration=64, data_stride=8))
    assert np.abs(plain - shared).max() > 1e-3


def test_levels_that_the_published_setting_shares():
    assert Plan.of(256, 32, steps=6).edges == (2, 4, 4, 4, 4)
    assert Plan.of(256, 128, steps=6).edges == (2, 4, 4, 4, 4)
    assert Plan.of(256, 32, steps=6, share=False).shared == 0
    assert Plan.of(256, 31, steps=6).shared == 0
    middle = Plan.of(256, 32, steps=6).needed(112, 144)
    assert middle == [(112, 144), (55, 73), (26, 38), (12, 20), (5, 11), (1, 7), (0, 4)]


@pytest.mark.parametrize(("first", "last", "size"), [(0, 1, 8), (3, 40, 8), (4, 4, 8), (0, 9, 1)])
def test_slabs_cover_all_frames(first, last, size):
    frames = [frame for low, high in slabs(first, last, size) for frame in range(low, high)]
    assert frames == list(range(first, last))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "11 chunks share levels 0 to 2 of the encoder, decoder for the kept frames"),
        ({"data_stride": 9, "data_duration": 63}, "encoder whole, decoder for the kept frames"),
        ({"border_mode": "valid", "unet_steps": 1}, "each computed whole (border_mode = valid)"),
        ({"tile": (8, 8)}, "each computed whole (tile)"),
        ({"nn_architecture": "github_unet"}, "each computed whole (network UNet)"),
        (
            {"temporal_reduction": True, "num_channels": 4},
            "each computed whole (network TempRedUNet)",
        ),
    ],
)
def test_the_log_says_which_way_is_taken(caplog, changes, line):
    params = Params(**SMALL | {"data_duration": 64, "data_stride": 8} | changes)
    movie = np.random.default_rng(0).integers(0, 4000, (144, 12, 20)).astype(np.uint16)
    with caplog.at_level(logging.INFO):
        predict_probabilities(decided_model(params), movie, params)
    assert line in caplog.text


@pytest.mark.parametrize("frames", [1, 2, 5, 7, 8])
@pytest.mark.parametrize(("channels", "dilation"), [(1, 1), (3, 2), (64, 1)])
def test_every_route_of_a_convolution(frames, channels, dilation):
    layer = nn.Conv3d(channels, 5, 3, padding=dilation, dilation=dilation)
    x = torch.rand(1, channels, frames + 2 * dilation, 6, 7)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    assert is_slow(x)
    padding = (0, dilation, dilation)
    wanted = nn.functional.conv3d(x, layer.weight, layer.bias, padding=padding, dilation=dilation)
    with torch.inference_mode():
        torch.testing.assert_close(convolve(x, layer), wanted, atol=1e-5, rtol=0)


def test_blocks_without_gradients_give_what_they_train_with():
    for border in ("same", "valid"):
        model = decided_model(Params(**SMALL | {"unet_steps": 2}, border_mode=border))
        for x in (torch.rand(1, 1, 48, 48, 48), torch.rand(2, 1, 48, 48, 48)):
            with torch.inference_mode():
                output = model(x)
            torch.testing.assert_close(output, model(x), atol=1e-4, rtol=0)


def test_pooling_and_upsampling():
    x = torch.randn(1, 6, 4, 8, 10).contiguous(memory_format=torch.channels_last_3d)
    layer = nn.ConvTranspose3d(6, 3, 2, stride=2)
    with torch.inference_mode():
        torch.testing.assert_close(pool(x), nn.functional.max_pool3d(x, 2), atol=0, rtol=0)
        for part in (x, x[:, :, :1]):
            torch.testing.assert_close(upsample(part, layer), layer(part), atol=1e-6, rtol=0)


@pytest.mark.parametrize("turned", [False, True])
def test_weights_lie_as_before(turned):
    model = decided_model(Params(**SMALL))
    before = {name: (p.clone(), p.stride()) for name, p in model.named_parameters()}
    layouts = []

    def fail():
        with fast_weights(model, turned=turned):
            layouts.append(model.down_path[1].layers[0].weight.stride()[1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert layouts == [1]  # channels-last meanwhile
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.stride() == before[name][1]


@pytest.mark.parametrize("norm", ["abs_max", "movie", "none"])
@pytest.mark.parametrize("smoothing", ["none", "2d", "3d"])
def test_frames_prepared_when_asked_for(monkeypatch, norm, smoothing):
    monkeypatch.setattr(lazy_movie, "SLAB_VOXELS", 100)
    params = Params(norm_video=norm, data_smoothing=smoothing, data_duration=8, data_stride=5)
    movie = np.random.default_rng(0).integers(100, 4000, (20, 6, 7)).astype(np.uint16)
    whole, lazy = MovieDataset(movie, params), lazy_movie.LazyMovie(movie, params)
    assert lazy_movie.can_be_lazy(params)
    assert (lazy.shape, lazy.pads, len(lazy)) == (whole.shape, whole.pads, len(whole))
    for index in range(len(whole)):
        np.testing.assert_array_equal(lazy[index], whole[index])
    before = whole.pads[0]
    np.testing.assert_array_equal(lazy.prepared(), whole.data[before : before + 20])


def test_constant_movie_is_all_zeros_frame_by_frame():
    movie = np.full((9, 4, 5), 700, np.uint16)
    lazy = lazy_movie.LazyMovie(movie, Params(data_duration=8, data_stride=8))
    assert not lazy.prepared().any()
