"""Draw where the network of a run looks in one chunk of a movie."""

from pathlib import Path

import numpy as np
import torch

from analysis.attention import attention_maps, draw_maps, find_layer, grad_cam
from analysis.preds_processing_tools import calibrated_post
from common.files import InputError
from common.locks import writing
from inputs.dataset_tools import read_samples
from inputs.datasets import MovieDataset
from inputs.movie_io import write_stack
from network.checkpoints import load_network
from runs.training_tools import pick_place, seeded_model
from settings.config import CLASSES, Params


def explain(
    params: Params,
    checkpoint: Path,
    movie_id: str,
    *,
    start: int,
    class_name: str,
    layer: str | None,
    device: str,
    threads: int | None,
) -> Path:
    """Write the maps of one chunk to <run>/attention/; return the path of the picture.

    Args:
        params: Params.
        checkpoint: path of the network file.
        movie_id: movie of the data folder.
        start: first frame of the chunk.
        class_name: class that Grad-CAM explains.
        layer: name of its layer, None: the last block.
        device, threads: of ``pick_place``.
    """
    with writing(params.output_dir / "attention"):
        return _drawn(params, checkpoint, movie_id, (start, class_name, layer), (device, threads))


def _drawn(params, checkpoint, movie_id, what, where):
    """Compute and write the maps while the folder is held; return the path of the picture."""
    start, class_name, layer = what
    sample = read_samples(params.data_dir, [movie_id], labels=False, given=params.given)[0]
    place = pick_place(params, *where)
    model = seeded_model(params, place.device).eval()
    load_network(model, checkpoint)
    dataset = MovieDataset(sample.movie.data, params, stride=1, name=sample.id)
    if not 0 <= start < len(dataset):
        raise InputError(f"--start {start}: expected 0 to {len(dataset) - 1}")
    chunk = np.ascontiguousarray(dataset[start])
    x = torch.from_numpy(chunk)[None].to(place.device)
    x = x.unsqueeze(0) if x.dim() == 4 else x  # (1, C, D, H, W)
    maps = attention_maps(model, x)
    layer = find_layer(model, layer)
    maps[f"Grad-CAM {class_name}"] = grad_cam(model, x, CLASSES[class_name], layer=layer)
    folder = params.output_dir / "attention"
    post = calibrated_post(sample.movie, post=params.postprocessing)
    stem = f"{sample.id}_{start}"
    for name, one in maps.items():
        path = folder / f"{stem}_{name.replace(' ', '_')}.tif"
        write_stack(path, one, calibration=post.calibration)
    movie = chunk[0] if chunk.ndim == 4 else chunk
    return draw_maps(folder / f"{stem}_maps.png", movie, maps)
