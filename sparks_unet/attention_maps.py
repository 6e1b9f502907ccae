"""Show where a network looks: attention maps of its gates, and Grad-CAM of one class.

Follows section 8.12 of the specification; attention gates: Oktay et al. 2018; Grad-CAM: Selvaraju
et al. 2017.

    python attention_maps.py config_files/github_unet_attention.ini --ids 05 --start 100
    python attention_maps.py config_files/demo.ini --run-name demo --ids 13 --class-name puffs

Reads: INI file, ``network_<iteration>.pth``, one movie (T, H, W).
Writes to <run>/attention/: ``<id>_<start>_<map>.tif`` float32 (D, H, W) for every map of the chunk
and ``<id>_<start>_maps.png`` with its CSV: the frame where the class is likeliest.
"""

from pathlib import Path

import numpy as np

from common.files import InputError, atomic_path, one_line_faults
from config import CLASSES, EVENT_CLASSES
from load_trainings_predict import find_checkpoint
from training import base_parser, configured


def make_parser():
    """Return the parser of the command line."""
    parser = base_parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="network file; else run name and epoch")
    parser.add_argument("--load-epoch", type=int, help="iteration to load")
    parser.add_argument("--ids", nargs=1, required=True, help="movie of the data folder")
    parser.add_argument("--start", type=int, default=0, help="first frame of the chunk")
    parser.add_argument("--class-name", choices=EVENT_CLASSES, default="sparks")
    parser.add_argument("--layer", help="layer of Grad-CAM; default: the last block")
    return parser


def attention_maps(model, x):
    """Return the maps of all attention gates, coarsest first, resized to the chunk.

    Args:
        model: network in eval mode.
        x: (1, C, D, H, W).

    Returns:
        {gate name: (D, H, W) float32 in 0..1}; empty for a network without gates.
    """
    import torch  # here, so that --help answers at once

    with torch.inference_mode():
        model(x)
    found = {}
    for name, module in model.named_modules():
        if getattr(module, "attention_map", None) is not None:
            map_ = torch.nn.functional.interpolate(
                module.attention_map, size=x.shape[2:], mode="trilinear"
            )
            found[name] = map_[0, 0].cpu().numpy()
    return found


def grad_cam(model, x, class_index, *, layer, voxels=None):
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
    import torch

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


def find_layer(model, name=None):
    """Return the module ``name``; default: the last block before the output."""
    modules = dict(model.named_modules())
    if name is None:
        blocks = [key for key in modules if key.rsplit(".", 1)[0].endswith(("up_path", "up_convs"))]
        name = blocks[-1]
    if name not in modules:
        raise InputError(f"--layer {name}: no such layer; blocks: {', '.join(list(modules)[1:12])}")
    return modules[name]


def draw_maps(path, chunk, maps):
    """Draw the frame of each map that is brightest in the last one; write the CSV behind it.

    Args:
        path: PNG to write.
        chunk: (D, H, W) network input.
        maps: {name: (D, H, W)}.
    """
    from matplotlib.figure import Figure

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
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    rows = np.column_stack([np.indices(chunk[frame].shape).reshape(2, -1).T, *_flat(images)])
    with atomic_path(path.with_suffix(".csv")) as temporary:
        header = ",".join(["y", "x", *images])
        np.savetxt(temporary, rows, fmt="%.6g", delimiter=",", header=header, comments="")
    return path


def _flat(images):
    return [image.ravel() for image in images.values()]


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params = configured(args)
    import torch

    from checkpoints import load_network
    from dataset_tools import read_samples
    from datasets import MovieDataset
    from movie_io import write_stack
    from preds_processing_tools import calibrated_post
    from training_tools import pick_place, seeded_model, set_up_logging

    set_up_logging(params)
    sample = read_samples(params.data_dir, args.ids, labels=False)[0]
    place = pick_place(params, args.device, args.threads)
    model = seeded_model(params, place.device).eval()
    path, _ = find_checkpoint(args, params)
    load_network(model, path)
    dataset = MovieDataset(sample.movie.data, params, stride=1, name=sample.id)
    if not 0 <= args.start < len(dataset):
        raise InputError(f"--start {args.start}: expected 0 to {len(dataset) - 1}")
    chunk = np.ascontiguousarray(dataset[args.start])
    x = torch.from_numpy(chunk)[None].to(place.device)
    x = x.unsqueeze(0) if x.dim() == 4 else x  # (1, C, D, H, W)
    maps = attention_maps(model, x)
    layer = find_layer(model, args.layer)
    maps[f"Grad-CAM {args.class_name}"] = grad_cam(model, x, CLASSES[args.class_name], layer=layer)
    folder = params.output_dir / "attention"
    post = calibrated_post(sample.movie, post=params.postprocessing)
    stem = f"{sample.id}_{args.start}"
    for name, one in maps.items():
        write_stack(
            folder / f"{stem}_{name.replace(' ', '_')}.tif",
            one,
            pixel_um=post.pixel_size_um,
            frame_ms=post.frame_ms,
        )
    movie = chunk[0] if chunk.ndim == 4 else chunk
    print(draw_maps(folder / f"{stem}_maps.png", movie, maps))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
