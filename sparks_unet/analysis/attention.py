"""Where a network looks: attention maps of its gates, and Grad-CAM of one class.

Source: section 8.12 of the specification; attention gates: Oktay et al. 2018; Grad-CAM: Selvaraju
et al. 2017.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from common.figures import save_figure
from common.files import InputError


def attention_maps(model: torch.nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the maps of all attention gates, coarsest first, resized to the chunk.

    Args:
        model: network in eval mode.
        x: (1, C, D, H, W).

    Returns:
        {gate name: (D, H, W) float32 in 0..1}; empty for a network without gates.
    """
    with torch.inference_mode():
        model(x)
    maps = {}
    for name, module in model.named_modules():
        if getattr(module, "attention_map", None) is not None:
            map_ = torch.nn.functional.interpolate(
                module.attention_map, size=x.shape[2:], mode="trilinear"
            )
            maps[name] = map_[0, 0].cpu().numpy()
    return maps


def grad_cam(
    model: torch.nn.Module,
    x: torch.Tensor,
    class_index: int,
    *,
    layer: torch.nn.Module,
    voxels: np.ndarray | None = None,
) -> np.ndarray:
    """Return the Grad-CAM map (D, H, W) >= 0 of one class.

    Args:
        model: network in eval mode.
        x: (1, C, D, H, W).
        class_index: channel of the output.
        layer: module whose output (1, K, d, h, w) is weighted.
        voxels: (D, H, W) bool, voxels whose log-probability is explained; default: those where the
            class has the largest probability, or all where there are none.

    The weight of a channel is its mean gradient of the summed log-probability.
    """
    kept = {}

    def keep(_module, _inputs, output):
        output.retain_grad()
        kept["output"] = output

    handle = layer.register_forward_hook(keep)
    try:
        log_p = model(x.requires_grad_())
    finally:
        handle.remove()
    if voxels is None:
        voxels = log_p[0].argmax(dim=0) == class_index
    else:
        voxels = torch.from_numpy(voxels).to(x.device)
    chosen = log_p[0, class_index][voxels] if voxels.any() else log_p[0, class_index]
    chosen.sum().backward()
    output = kept["output"]
    weights = output.grad.mean(dim=(2, 3, 4), keepdim=True)  # (1, K, 1, 1, 1)
    cam = torch.nn.functional.relu((weights * output).sum(dim=1, keepdim=True))
    cam = torch.nn.functional.interpolate(cam, size=x.shape[2:], mode="trilinear")
    return cam[0, 0].detach().cpu().numpy()


def find_layer(model: torch.nn.Module, name: str | None = None) -> torch.nn.Module:
    """Return the module ``name``; default: the last block before the output."""
    modules = dict(model.named_modules())
    if name is None:
        blocks = [key for key in modules if key.rsplit(".", 1)[0].endswith(("up_path", "up_convs"))]
        name = blocks[-1]
    if name not in modules:
        raise InputError(f"--layer {name}: no such layer; blocks: {', '.join(list(modules)[1:12])}")
    return modules[name]


def draw_maps(path: Path, chunk: np.ndarray, maps: dict[str, np.ndarray]) -> Path:
    """Draw the frame of each map that is brightest in the last one; write the CSV behind it.

    Args:
        path: PNG to write.
        chunk: (D, H, W) network input.
        maps: {name: (D, H, W)}.
    """
    frame = int(list(maps.values())[-1].mean(axis=(1, 2)).argmax())
    images = {"movie": chunk[frame]} | {name: one[frame] for name, one in maps.items()}
    height = 0.9 + 6.5 * chunk.shape[1] / chunk.shape[2]
    figure = Figure(figsize=(7, height * len(images)), dpi=120, layout="constrained")
    panels = figure.subplots(len(images), squeeze=False)[:, 0]
    for axes, (name, image) in zip(panels, images.items(), strict=True):
        shown = axes.imshow(image, cmap="gray" if name == "movie" else "viridis")
        axes.set_title(f"{name}, frame {frame} of the chunk")
        axes.set_ylabel("y (px)")
        figure.colorbar(shown, ax=axes, label="network input" if name == "movie" else "weight")
    panels[-1].set_xlabel("x (px)")
    y, x = (places.ravel() for places in np.indices(chunk[frame].shape))
    values = {name: image.ravel() for name, image in images.items()}
    return save_figure(figure, path, {"y": y, "x": x, **values})
