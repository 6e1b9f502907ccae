"""Predict movies with a trained network: classes, event instances, tables, overlay and metrics.

Source: section 8 of the specification.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from analysis.disc_output_tools import own_name, rounding_words, write_prediction, write_table
from analysis.event_traces import write_traces
from analysis.kinetics import event_frequency, event_table
from analysis.metrics_tools import metrics_from_counts, sample_counts, sweep_metrics
from analysis.overlays import write_overlay
from analysis.preds_processing_tools import Prediction, calibrated_post, process_predictions
from analysis.resampling import bootstrap_intervals
from common.files import InputError, atomic_path, write_json
from common.hashes import sha256
from common.locks import hold
from common.names import file_name
from inputs.calibration import Calibration, scaled_post
from inputs.cell import cell_of
from inputs.dataset_tools import Sample, adapted, read_samples
from inputs.movie_io import read_movie
from network.checkpoints import available_iterations, checkpoint_path, load_network
from network.inference_tools import predict_probabilities
from runs.streamed_prediction import can_be_streamed, write_probabilities
from runs.train import own_split
from runs.training_tools import Place, pick_place, seeded_model
from settings.config import Params, logger

SHOWN = (
    *("average/detected", "average/correctly_classified", "total/detected"),
    "total/correctly_classified",
)


def find_checkpoint(
    params: Params, *, checkpoint: Path | None = None, load_epoch: int | None = None
) -> tuple[Path, str]:
    """Return (path of the network file, iteration as text for the file names).

    Args:
        params: Params.
        checkpoint: network file that the user named, or None.
        load_epoch: iteration that the user named, or None: [inference] load_epoch or the newest.
    """
    if checkpoint:
        stem = checkpoint.stem
        return checkpoint, stem.rsplit("_", 1)[-1].lstrip("0") or stem
    iteration = load_epoch
    if iteration is None:
        iterations = available_iterations(params.output_dir)
        iteration = params.inference_load_epoch
        if iteration not in iterations and iterations:
            logger.warning(
                "no network_%06d.pth in %s: the newest, %d, is loaded",
                *(iteration, params.output_dir, iterations[-1]),
            )
            iteration = iterations[-1]
    return checkpoint_path(params.output_dir, "network", iteration), str(iteration)


def read_inputs(
    params: Params, *, movies: Sequence[Path] | None = None, ids: Sequence[str] | None = None
) -> list[Sample]:
    """Return the recordings to predict (list of Sample); labels where there are any.

    Args:
        params: Params.
        movies: TIFF files, or None.
        ids: movies of the data folder in their place; None: the test set.
    """
    if movies:
        samples = [Sample(movie_id(path), read_movie(path, params.given)) for path in movies]
        names = [sample.id for sample in samples]
        if len(set(names)) < len(names):
            raise InputError(f"--movie: two files give the same name: {', '.join(names)}")
    else:
        ids = list(dict.fromkeys(ids or own_split(params).ids("test")))
        options = {"labels": None, "events": None, "sparks_type": params.sparks_type}
        options["given"] = params.given
        samples = read_samples(params.data_dir, ids, **options)
    return adapted(samples, params)


def movie_id(path: Path) -> str:
    """Return the id of a movie file, the start of the names of its results."""
    name = path.stem.removesuffix("_video").replace("_", "-")
    return file_name(name, f"{path}: id")


@dataclass(frozen=True)
class Files:
    """Which files of a prediction are written.

    Attributes:
        raw_only: the probabilities only.
        instances: the event instances.
        overlay: kind of the coloured movie: gif, mp4, tif or None.
        source: the movie as <stem>_xs.tif and its class labels as <stem>_ys.tif.
    """

    raw_only: bool = False
    instances: bool = True
    overlay: str | None = None
    source: bool = False


def predict_and_write(
    model: torch.nn.Module,
    sample: Sample,
    params: Params,
    target: Path,
    files: Files | None = None,
    **options: Any,
) -> tuple[Prediction | None, pd.DataFrame | None, dict | None]:
    """Predict one recording and write its files.

    Args:
        model: network.
        sample: Sample; with class labels and event ids the prediction is measured.
        params: Params.
        target: folder and first part of the file names.
        files: which files are written; None: all but the coloured movie.
        options: method, stride, batch_size of ``predict_probabilities``.

    Returns:
        (Prediction, event table, counts); counts is None without labels, all are with raw_only.
    """
    files = files or Files()
    out_dir, stem = target.parent, target.name
    movie = sample.movie.data
    post = calibrated_post(sample.movie, post=params.postprocessing)
    physical = {"calibration": post.calibration}
    method = options.get("method") or params.inference
    if files.raw_only and not files.source and can_be_streamed(params, method):
        chunks = {name: options.get(name) for name in ("stride", "batch_size")}
        write_probabilities(model, movie, params, target, name=sample.id, **chunks, **physical)
        return None, None, None
    probabilities, clean = predict_probabilities(model, movie, params, name=sample.id, **options)
    inputs = {"source": True, "truth": sample.classes} if files.source else {}
    inputs["raw_bits"] = params.raw_bits
    if files.raw_only:
        write_prediction(out_dir, stem, movie, None, probabilities, **inputs, **physical)
        return None, None, None
    prediction = process_predictions(clean, probabilities, post)
    seen = {"state": sample.movie.state, "cell": cell_of(sample.movie)}
    traces = {}
    seen_too = {"probabilities": probabilities, "traces": traces}
    table = event_table(movie, prediction, **seen_too, **physical, **seen)
    write_traces(out_dir / f"{stem}_traces.csv", traces, post.calibration)
    frequency = event_frequency(table, movie, **physical, **seen)
    write_table(out_dir / f"{stem}_frequency.csv", frequency)
    kinds = {"table": table, "instances": files.instances, **inputs}
    write_prediction(out_dir, stem, movie, prediction, probabilities, **kinds, **physical)
    if files.overlay:
        path = out_dir / f"{stem}_overlay.{files.overlay}"
        write_overlay(path, movie, prediction.classes, truth_classes=sample.classes, **physical)
    counts = None
    if sample.classes is not None and sample.events is not None:
        counts = sample_counts(sample, prediction, params, post)
    return prediction, table, counts


def target_of(begin: Path, sample: Sample, method: str) -> Path:
    """Return the folder and first part of the names of a recording's results."""
    return begin.with_name(f"{begin.name}_{sample.id}_{method}")


def claim(target: Path, sample: Sample, params: Params, checkpoint: Path, **how: Any) -> None:
    """Record what the results at ``target`` belong to; refuse those of another movie."""
    settings = {"checkpoint": str(checkpoint), "postprocessing": vars(params.postprocessing)} | how
    known = sample.movie, sample.movie.calibration, params.given
    own_name(target.parent, target.name, *known, network=sha256(checkpoint), **settings)


def predict_one(
    model: torch.nn.Module,
    sample: Sample,
    params: Params,
    *,
    compare: bool,
    threads: int,
    **options: Any,
) -> tuple[dict | None, float | None]:
    """Predict one recording, in a process of its own when there are several workers.

    Args:
        model, sample, params: of predict_and_write, as are ``options``.
        compare: also predict with the stride of the configuration.
        threads: CPU threads of this process.

    Returns:
        (counts or None, mean absolute difference of the two strides or None).
    """
    torch.set_num_threads(threads)
    counts = predict_and_write(model, sample, params, **options)[2]
    if not compare:
        return counts, None
    assembly = {name: options[name] for name in ("method", "batch_size")}
    return counts, stride_difference(model, sample, params, options["stride"], **assembly)


def stride_difference(
    model: torch.nn.Module, sample: Sample, params: Params, stride: int | None, **options: Any
) -> float:
    """Return the mean absolute difference of the probabilities at two strides."""

    first, second = (
        predict_probabilities(model, sample.movie.data, params, stride=one, **options)[0]
        for one in (stride, None)
    )
    return float(np.abs(first - second).mean())


def write_metrics(out_dir: Path, counts: dict[str, dict]) -> tuple[dict, dict[str, tuple]]:
    """Write metrics.json and summary.csv of labelled movies {id: counts}.

    metrics.json also holds the counts of each movie, so that two runs can be compared.

    Returns:
        (metrics, intervals) of metrics_tools.
    """
    metrics = metrics_from_counts(list(counts.values()))
    numbers = [
        name for name, value in metrics.items() if value is None or not hasattr(value, "__len__")
    ]
    intervals = bootstrap_intervals(list(counts.values()), numbers)
    record = {
        "movies": list(counts),
        "metrics": metrics,
        "intervals_95": intervals,
        "iomin_sweep": sweep_metrics(list(counts.values())),
        "counts": counts,
    }
    write_json(out_dir / "metrics.json", record)
    with atomic_path(out_dir / "summary.csv") as temporary:
        rows = ["metric,value,low_95,high_95"]
        for name in numbers:
            low, high = intervals[name]
            cells = ("" if v is None else f"{v:.6g}" for v in (metrics[name], low, high))
            rows.append(",".join((name, *cells)))
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return metrics, intervals


def gathered(counts: dict, place: Place) -> dict:
    """Return the counts of all processes in one dict, on every process."""
    if place.world == 1:
        return counts

    parts = [None] * place.world
    torch.distributed.all_gather_object(parts, counts)
    return {key: value for part in parts for key, value in part.items()}


def change_text(name: str, stride: int, own: int, change: float) -> str:
    """Return the line of --compare-strides."""
    return f"{name}: mean absolute difference of stride {stride} and {own}: {change:.3g}"


def write_scores(out_dir: Path, counts: dict[str, dict | None]) -> None:
    """Write and print the metrics of the movies {id: counts} that have labels, where any has."""
    counts = {key: value for key, value in counts.items() if value}
    if not counts:
        return
    metrics, _ = write_metrics(out_dir, counts)
    for name in SHOWN:
        value = "n/a" if name in metrics["not_available"] else f"{metrics[name]:.3f}"
        print(f"{name}: {value}")


def predict_movie(
    model: torch.nn.Module,
    movie: np.ndarray,
    params: Params,
    *,
    calibration: Calibration,
    training_mode: bool = False,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predict one movie from arrays alone.

    Args:
        model: network.
        movie: (T, H, W) counts.
        params: Params.
        calibration: Calibration of the movie.
        training_mode: post-processing as during validation (sections 8.4).
        options: method, stride, batch_size, name of ``predict_probabilities``.

    Returns:
        (class_mask uint8 (T, H, W), instance_mask int32 (T, H, W), probabilities float32
        (4, T, H, W), spark_peaks (n, 3) t, y, x).
    """
    probabilities, clean = predict_probabilities(model, movie, params, **options)
    post = scaled_post(calibration, params.postprocessing)
    prediction = process_predictions(clean, probabilities, post, training_mode=training_mode)
    return prediction.classes, prediction.instances, probabilities, prediction.spark_peaks


@dataclass(frozen=True)
class Wanted:
    """What a call of load_trainings_predict.py asks for, beside the settings of the run.

    Attributes:
        methods: ways of assembly; empty: [inference] inference.
        stride: frames between chunks; None: [inference] data_stride.
        batch_size: chunks at a time; None: [inference] batch_size.
        workers: movies at a time, one a process.
        compare_strides: also predict with the stride of the configuration.
        out: folder for the results; None: the run's own.
        files: which files are written.
    """

    methods: tuple = ()
    stride: int | None = None
    batch_size: int | None = None
    workers: int = 1
    compare_strides: bool = False
    out: Path | None = None
    files: Files = Files()


def predict_data(
    params: Params,
    samples: Sequence[Sample],
    checkpoint: tuple[Path, str],
    wanted: Wanted,
    *,
    device: str,
    threads: int | None,
) -> None:
    """Predict recordings with a network by every method asked for, measure what has labels.

    Args:
        params: Params.
        samples: list of Sample.
        checkpoint: (path of the network file, iteration as text).
        wanted: Wanted.
        device, threads: of ``pick_place``.
    """
    methods = wanted.methods or (params.inference,)
    stride = params.chunk[1]
    place = pick_place(params, device, threads)
    if wanted.workers > 1 and place.device.type == "cuda":
        raise InputError(
            f"--workers {wanted.workers}: a GPU takes one process, expected --device cpu; several "
            "GPUs: torchrun --nproc_per_node N load_trainings_predict.py ..."
        )
    model = seeded_model(params, place.device)
    path, iteration = checkpoint
    load_network(model, path)
    if place.first:
        logger.info("%s", rounding_words(params.raw_bits))
    for method in methods:
        out_dir = (wanted.out or params.output_dir) / f"inference_{method}"
        hold(out_dir)
        own = samples[place.rank :: place.world]
        begin = out_dir / f"{params.run_name}_{iteration}"
        targets = [target_of(begin, one, method) for one in own]
        for one, target in zip(own, targets, strict=True):
            claim(target, one, params, path, method=method, stride=wanted.stride or stride)
        work = [
            delayed(predict_one)(
                *(model, sample, params),
                compare=wanted.compare_strides,
                threads=max(1, torch.get_num_threads() // wanted.workers),
                target=target,
                files=wanted.files,
                method=method,
                stride=wanted.stride,
                batch_size=wanted.batch_size,
            )
            for sample, target in zip(own, targets, strict=True)
        ]
        counts = {}
        results = Parallel(n_jobs=wanted.workers)(work)
        for sample, (counts[sample.id], change) in zip(own, results, strict=True):
            if change is not None:
                print(change_text(sample.id, wanted.stride or stride, stride, change))
        counts = gathered(counts, place)
        if place.first:
            write_scores(out_dir, counts)
            print(f"{method}: {len(samples)} movies in {out_dir}")
