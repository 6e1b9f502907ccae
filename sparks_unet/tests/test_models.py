"""Networks: parameter counts and names, sizes of outputs, slabs, attention and Grad-CAM."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.attention import attention_maps, find_layer, grad_cam
from common.files import FOLDER
from network import unet
from network.architecture import (
    build_model,
    count_parameters,
    predict_log_probabilities,
    valid_input_size,
    valid_output_size,
)
from network.custom_losses import dice_loss, dice_nll_loss, focal_loss, lovasz_softmax, nll_loss
from network.new_unet import UNet
from settings.config import Params
from settings.read_config import load_config


def published_names(steps):
    """Return the names of the released weights as the specification lists them."""
    kinds = ("weight", "bias")
    names = [
        f"down_path.{i}.layers.{j}.{k}" for i in range(steps + 1) for j in (0, 3) for k in kinds
    ]
    for j in range(steps):
        names += [f"up_path.{2 * j}.{k}" for k in kinds]
        names += [f"up_path.{2 * j + 1}.layers.{i}.{k}" for i in (0, 3) for k in kinds]
    return names + [f"final_layer.{k}" for k in kinds]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 22_631_764),
        ({"unet_steps": 5}, 5_656_148),
        ({"unet_steps": 4}, 1_411_796),
        ({"unet_steps": 5, "nn_architecture": "github_unet"}, 5_656_148),
        ({"unet_steps": 5, "nn_architecture": "github_unet", "attention": True}, 5_788_089),
    ],
)
def test_parameter_counts(changes, expected):
    with torch.device("meta"):
        model = build_model(dataclasses.replace(Params(), **changes))
    assert count_parameters(model) == expected


def test_names_of_the_published_network():
    params = load_config(FOLDER / "config_files" / "final_model.ini")
    with torch.device("meta"):
        names = list(build_model(params).state_dict())
    assert len(names) == 66
    assert names == published_names(6)


@given(
    frames=st.integers(4, 20),
    rows=st.integers(4, 20),
    columns=st.integers(4, 20),
    architecture=st.sampled_from(["pablos_unet", "github_unet"]),
)
@settings(max_examples=15, deadline=None)
def test_output_has_the_size_of_the_input(frames, rows, columns, architecture):
    params = Params(nn_architecture=architecture, unet_steps=2, first_layer_channels=1)
    output = build_model(params)(torch.rand(1, 1, frames, rows, columns))
    assert output.shape == (1, 4, frames, rows, columns)
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(1, frames, rows, columns))


@pytest.mark.parametrize("architecture", ["pablos_unet", "github_unet"])
def test_valid_borders_cover_the_movie(architecture):
    params = Params(
        nn_architecture=architecture, unet_steps=1, first_layer_channels=1, border_mode="valid"
    )
    model = build_model(params).eval()
    for size in (20, 21, 24):
        output = model(torch.rand(1, 1, size, size, size))
        assert output.shape[2] == valid_output_size(size, params)
        assert valid_output_size(valid_input_size(size, params), params) >= size
    x = torch.rand(1, 1, 9, 10, 11)
    assert predict_log_probabilities(model, x, params).shape == (1, 4, 9, 10, 11)


@pytest.mark.parametrize("dilation", [1, 2])
def test_slabs_of_frames_change_nothing(monkeypatch, dilation):
    monkeypatch.setattr(unet, "SLAB_FRAMES", 8)
    params = Params(unet_steps=2, first_layer_channels=2, dilation=dilation)
    model = build_model(params).eval()
    x = torch.rand(1, 1, 29, 10, 12)
    whole = model(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(model(x), whole, rtol=0, atol=1e-6)


def test_temporal_reduction_divides_time_by_4():
    params = Params(temporal_reduction=True, num_channels=4, unet_steps=1, first_layer_channels=2)
    assert build_model(params)(torch.rand(1, 1, 16, 6, 6)).shape == (1, 4, 4, 6, 6)


def test_attention_maps_of_every_gate():
    model = UNet(1, 4, n_blocks=3, start_filts=4, attention=True, normalization="batch").eval()
    x = torch.rand(1, 1, 8, 8, 12)
    maps = attention_maps(model, x)
    assert list(maps) == ["up_convs.0.attention", "up_convs.1.attention"]
    for one in maps.values():
        assert one.shape == (8, 8, 12)
        assert 0 <= one.min() <= one.max() <= 1


def test_grad_cam_points_at_what_the_class_sees():
    # a network whose class 1 copies the input: the map is the input where the weight is positive
    class Copy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = torch.nn.Identity()

        def forward(self, x):
            shown = self.block(x * 1.0)
            return torch.cat([-shown, shown, -shown, -shown], dim=1)

    model = Copy()
    x = torch.zeros(1, 1, 4, 4, 4)
    x[0, 0, 2, 1, 3] = 5.0
    cam = grad_cam(model, x.clone(), 1, layer=model.block)
    assert np.unravel_index(cam.argmax(), cam.shape) == (2, 1, 3)
    voxels = np.zeros((4, 4, 4), bool)
    voxels[2, 1, 3] = True
    assert grad_cam(model, x.clone(), 2, layer=model.block, voxels=voxels).max() == 0


def test_last_block_is_the_default_layer():
    model = build_model(Params(unet_steps=2, first_layer_channels=2))
    assert find_layer(model) is model.up_path[3]


LOSSES = {
    "nll": nll_loss,
    "focal": lambda p, y: focal_loss(p, y, gamma=2.0),
    "lovasz": lovasz_softmax,
    "dice": dice_loss,
    "dice_nll": dice_nll_loss,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("valid", [0, 1, 30])
def test_ignored_voxels_have_no_gradient(name, valid):
    torch.manual_seed(0)
    log_p = torch.log_softmax(torch.randn(1, 4, 3, 4, 5), dim=1).requires_grad_()
    labels = torch.full((1, 3, 4, 5), 4)
    labels.view(-1)[:valid] = torch.randint(0, 4, (valid,))
    loss = LOSSES[name](log_p, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert (log_p.grad[:, :, labels[0] == 4] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_prediction_has_no_loss(name):
    labels = torch.arange(60).reshape(1, 3, 4, 5) % 4
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    loss = LOSSES[name](torch.log(one_hot.clamp(min=1e-12)), labels)
    assert float(loss) == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_that_of_pytorch(training):
    """Same output, gradients and statistics, with statistics that move and that are fixed."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 6, generator=random).to(memory_format=torch.channels_last_3d)
    results = []
    for kind in (unet.BatchNorm, torch.nn.BatchNorm3d):
        norm, data = kind(3), x.clone().requires_grad_()
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
            norm.running_mean.copy_(torch.tensor([0.3, -0.2, 1.0]))
            norm.running_var.copy_(torch.tensor([0.5, 1.5, 2.5]))
        y = norm.train(training)(data)
        grads = torch.autograd.grad((y**3).sum(), (data, norm.weight, norm.bias))
        results.append((y, *grads, norm.running_mean, norm.running_var))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
