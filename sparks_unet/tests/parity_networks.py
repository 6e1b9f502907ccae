"""Parity checks of networks, losses and training.

Every size comes from the arrays, the border mode too; what the arrays cannot tell (dilation, groups
of a norm, way of resizing) comes from the name of the file, as in the README of the fixtures.
"""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from network import custom_losses, new_unet
from network.architecture import TempRedUNet, UNetPadWrapper
from settings.config import IGNORE_INDEX

README_WEIGHTS = (0.3, 5.0, 1.25, 2.5)


def tensors(arrays, prefix):
    """Return {name: tensor} of the arrays whose name starts with ``prefix``."""
    values = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {name: torch.from_numpy(np.array(value)) for name, value in values.items()}


def close(actual, expected, *, rtol=0.0, atol=0.0):
    """Assert that two arrays agree within ``atol + rtol |expected|``."""
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def is_valid(x, output):
    """Return whether a network without padding made ``output`` of ``x``: rows are missing."""
    return output is not None and output.shape[3] < x.shape[-2]


def published_unet(name, weights, x, output=None):
    """Build the U-Net that fits ``weights``, made ``output`` of ``x``; dilation from the name."""
    valid = is_valid(x, output)
    steps = max(int(key.split(".")[1]) for key in weights if key.startswith("down_path"))
    first = weights["down_path.0.layers.0.weight"]
    dilation = re.search(r"dilation(\d+)", name)
    model = UNetPadWrapper(
        first.shape[1],
        len(weights["final_layer.bias"]),
        steps=steps,
        first_channels=first.shape[0],
        dilation=int(dilation[1]) if dilation else 1,
        border_mode="valid" if valid else "same",
        batch_norm=any("running_mean" in key for key in weights),
        # the recorded network drops frames where it did not pad
        pad_time=valid or output is None or output.shape[2] == x.shape[2],
    )
    model.load_state_dict(weights)
    return model


def github_unet(name, weights, x, output=None):
    """Build the ELEKTRONN3-style network that fits ``weights``; norm and resizing: the name."""
    first = weights["down_convs.0.conv1.weight"]
    up_mode = re.search(r"resizeconv_(?:nearest|linear)1?", name)
    norm = re.search(r"(?:^|_)(batch|instance|group\d*)(?:_|$)", name)
    if "down_convs.0.norm0.running_mean" in weights:
        norm = ("", "batch")
    model = new_unet.UNet(
        first.shape[1],
        len(weights["conv_final.bias"]),
        n_blocks=1 + max(int(key.split(".")[1]) for key in weights if key.startswith("down_")),
        start_filts=first.shape[0],
        up_mode=up_mode[0] if up_mode else "transpose",
        normalization=norm[1] if norm else "none",
        conv_mode="valid" if is_valid(x, output) else "same",
        attention=any("attention" in key for key in weights),
    )
    model.load_state_dict(weights)
    return model


def check_network(arrays, name, build):
    """Compare eval output, train output, loss and gradients of one network file."""
    weights = tensors(arrays, "sd__")
    model = build(name, weights, arrays["x"], arrays["out_eval"])
    assert list(model.state_dict()) == list(weights), "names or their order differ"
    loose = "resizeconv" in name
    atol = 2e-5 if loose else 1e-5
    x = torch.from_numpy(arrays["x"])
    model.eval()
    output = model(x)
    close(output, arrays["out_eval"], atol=atol)  # the shapes too
    if "nll_loss" in arrays:
        y = torch.from_numpy(arrays["y"]).long()
        # the recorded losses and gradients belong to the evaluation mode
        loss = custom_losses.nll_loss(output, y)
        close(loss, arrays["nll_loss"], rtol=1e-4)
        loss.backward()
        for key, value in arrays.items():
            if key.startswith("grad__"):
                gradient = model.get_parameter(key.removeprefix("grad__")).grad
                close(gradient, value, rtol=1e-4, atol=1e-6)
        # a parameter without use has no gradient, recorded as 0
        gradients = [p.grad for _, p in model.named_parameters()]
        norms = [0.0 if one is None else float(one.norm()) for one in gradients]
        instance = "instance" in name
        close(norms, arrays["grad_norms"], rtol=1e-3 if instance else 1e-4, atol=1e-5)
    if "out_train" in arrays:
        model.load_state_dict(weights)
        model.train()
        close(model(x), arrays["out_train"], atol=atol)


def check_unet(arrays, name):
    """Check one file of the published U-Net."""
    check_network(arrays, name, published_unet)


def check_github(arrays, name):
    """Check one file of the ELEKTRONN3-style network."""
    check_network(arrays, name, github_unet)


def check_seeded(arrays, name):
    """Check the order in which layers draw their first weights."""
    steps = int(re.search(r"steps(\d+)", name)[1])
    corner = arrays["out_corner"]
    size = 2**steps  # the smallest cube the network takes, as recorded
    expected = arrays["param_sum_std"]
    channels = next(
        n for n in range(1, 65) if _first_sum(arrays, n) == pytest.approx(expected[0, 0])
    )
    torch.manual_seed(int(arrays["init_seed"]))
    model = UNetPadWrapper(1, len(corner), steps=steps, first_channels=channels).eval()
    moments = [(float(v.sum()), float(v.std())) for v in model.state_dict().values()]
    close(moments, expected, rtol=1e-4, atol=1e-4)
    generator = torch.Generator().manual_seed(int(arrays["x_seed"]))
    with torch.no_grad():
        output = model(torch.rand(1, 1, size, size, size, generator=generator))
    close(output.mean(dim=(2, 3, 4)), arrays["out_mean"], atol=1e-4)
    t, h, w = corner.shape[1:]
    close(output[0, :, :t, :h, :w], corner, atol=1e-4)


def _first_sum(arrays, channels):
    torch.manual_seed(int(arrays["init_seed"]))
    return float(torch.nn.Conv3d(1, channels, 3).weight.detach().sum())


def check_temporal(arrays, _name):
    """Check the network with temporal reduction."""
    weights = tensors(arrays, "sd__")
    inner = {k.removeprefix("unet."): v for k, v in weights.items() if k.startswith("unet.")}
    model = TempRedUNet(
        len(inner["final_layer.bias"]),
        channels=len(weights["conv3.bias"]),
        steps=max(int(key.split(".")[1]) for key in inner if key.startswith("down_path")),
        first_channels=len(inner["down_path.0.layers.0.bias"]),
    )
    model.load_state_dict(weights)
    close(model.eval()(torch.from_numpy(arrays["x"])), arrays["out_eval"], atol=1e-5)


def loss_function(key, weights):
    """Return the function of (log p, labels) of a recorded loss, e.g. ``focal_gamma2_mean``."""
    if match := re.fullmatch(r"focal_gamma([\d.]+)_(mean|sum)", key):
        options = {"gamma": float(match[1]), "reduction": match[2], "weights": weights}
        return lambda p, y: custom_losses.focal_loss(p, y, **options)
    if match := re.fullmatch(r"sum_losses_w(\d+)_gamma([\d.]+)", key):
        # w05 is 0.5, w025 is 0.25
        options = {"w": float(f"{match[1][0]}.{match[1][1:] or 0}"), "gamma": float(match[2])}
        return lambda p, y: custom_losses.sum_losses(p, y, weights=weights, **options)
    if match := re.fullmatch(r"lovasz_(present|all)(?:_class\d_absent)?", key):
        return lambda p, y: custom_losses.lovasz_softmax(p, y, classes=match[1])
    return {
        "nll_weighted": lambda p, y: custom_losses.nll_loss(p, y, weights),
        "nll_unweighted": custom_losses.nll_loss,
        "soft_dice_batch_nobg_noignore": lambda p, y: custom_losses.dice_loss(
            p, torch.where(y == IGNORE_INDEX, 0, y)
        ),
        "soft_dice_batch_nobg_ignore4_CORRECT": custom_losses.dice_loss,
        "dice_nll": lambda p, y: custom_losses.dice_nll_loss(p, y, weights),
    }[key]


def check_losses(arrays, _name):
    """Check the value and the gradient of every recorded loss."""
    close(
        functional.log_softmax(torch.from_numpy(arrays["logits"]), dim=1),
        arrays["logp"],
        atol=1e-6,
    )
    weights = torch.from_numpy(arrays["class_weights"])
    recorded = {k.removeprefix("grad_") for k in arrays if k.startswith("grad_")}
    assert recorded
    for key in recorded:
        log_p = torch.from_numpy(arrays["logp"]).clone().requires_grad_()
        absent = re.search(r"_class\d_absent$", key)
        y = torch.from_numpy(arrays[f"y{absent[0]}" if absent else "y"]).long()
        loss = loss_function(key, weights)(log_p, y)
        close(loss, arrays[key], rtol=1e-5)
        loss.backward()
        # a sum over voxels has gradients of the size of its weights: 1e-6 relative to the largest
        scale = max(1.0, float(np.abs(arrays[f"grad_{key}"]).max()))
        close(log_p.grad, arrays[f"grad_{key}"], atol=1e-6 * scale)


def check_train10(arrays, name):
    """Repeat the recorded Adam steps on one fixed batch."""
    weights = tensors(arrays, "sd__")
    model = published_unet(name, weights, arrays["x"]).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=float(arrays["lr"]))
    x = torch.from_numpy(arrays["x"])[:, None]
    y = torch.from_numpy(arrays["y"]).long()
    lovasz = "lovasz" in name
    # the first files hold no weights, but name these in their README
    alpha = torch.from_numpy(np.float32(arrays.get("class_weights", README_WEIGHTS)))
    losses = []
    for _ in arrays["losses"]:
        optimizer.zero_grad()
        log_p, labels = custom_losses.drop_margins(model(x), y, int(arrays["ignore_frames_loss"]))
        loss = (
            custom_losses.lovasz_softmax(log_p, labels)
            if lovasz
            else custom_losses.nll_loss(log_p, labels, alpha)
        )
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    close(losses, arrays["losses"], rtol=1e-4)
    state = model.state_dict()
    for key, value in tensors(arrays, "final__").items():
        close(state[key], value.numpy(), atol=5e-3 if lovasz else 1e-4)


CHECKS = {
    "unet": check_unet,
    "unet_steps": check_seeded,
    "github": check_github,
    "tempred_unet": check_temporal,
    "losses": check_losses,
    "train10": check_train10,
}
