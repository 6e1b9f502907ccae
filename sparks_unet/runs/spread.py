"""Prediction of many movies on a cluster: each worker reads its movie and the network by itself.

The command that spreads the work reads no movie, so as many as the disk holds can be predicted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import delayed
from tqdm import tqdm

from common.cluster import run_jobs
from common.files import InputError
from common.locks import hold
from network.checkpoints import load_network
from runs.prediction import (
    Wanted,
    change_text,
    claim,
    movie_id,
    predict_one,
    read_inputs,
    target_of,
    write_scores,
)
from runs.train import own_split
from runs.training_tools import seeded_model
from settings.config import Params


def sources_of(
    params: Params, *, movies: Sequence[Path] | None = None, ids: Sequence[str] | None = None
) -> list[dict[str, list]]:
    """Return what read_inputs is told for each movie alone; none of them is opened.

    Raises:
        InputError: two files give the same id.
    """
    if not movies:
        return [{"ids": [one]} for one in dict.fromkeys(ids or own_split(params).ids("test"))]
    names = [movie_id(path) for path in movies]
    if len(set(names)) < len(names):
        raise InputError(f"--movie: two files give the same name: {', '.join(names)}")
    return [{"movies": [path]} for path in movies]


def predict_source(
    params: Params, source: dict[str, list], checkpoint: Path, target: Path, options: dict[str, Any]
) -> list[tuple[str, dict | None, float | None]]:
    """Predict one movie, or its parts, on a worker with one thread.

    Args:
        params: Params.
        source: of sources_of.
        checkpoint: file of the network.
        target: folder and start of the names of the results.
        options: of predict_one.

    Returns:
        (id, counts or None, difference of two strides or None) of each part.
    """
    model = seeded_model(params, torch.device("cpu"))
    load_network(model, checkpoint)
    found = []
    for sample in read_inputs(params, **source):
        stem = target_of(target, sample, options["method"])
        how = {"method": options["method"], "stride": options["stride"] or params.chunk[1]}
        claim(stem, sample, params, checkpoint, **how)
        result = predict_one(model, sample, params, threads=1, target=stem, **options)
        found.append((sample.id, *result))
    return found


def predict_spread(
    params: Params,
    sources: list[dict[str, list]],
    checkpoint: tuple[Path, str],
    wanted: Wanted,
    *,
    cluster: str,
) -> None:
    """Predict movies on a cluster by every method asked for, as predict_data does here."""
    path, iteration = checkpoint
    for method in wanted.methods or (params.inference,):
        out_dir = (wanted.out or params.output_dir) / f"inference_{method}"
        hold(out_dir)
        options = {"compare": wanted.compare_strides, "method": method, "stride": wanted.stride}
        options |= {"batch_size": wanted.batch_size, "files": wanted.files}
        target = out_dir / f"{params.run_name}_{iteration}"
        calls = (
            delayed(predict_source)(params, source, path, target, options) for source in sources
        )
        done = run_jobs(calls, 1, cluster=cluster, folder=out_dir)
        counts, own = {}, params.chunk[1]
        for parts in tqdm(done, desc=method, total=len(sources), disable=None):
            for name, counts[name], change in parts:
                if change is not None:
                    print(change_text(name, wanted.stride or own, own, change))
        write_scores(out_dir, counts)
        print(f"{method}: {len(counts)} movies in {out_dir}")
