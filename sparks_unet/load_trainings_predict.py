"""Predict movies with a trained network: classes, event instances, tables, overlay and metrics.

Follows section 8 of the specification.

    python load_trainings_predict.py config_files/final_model.ini --movie a.tif --checkpoint F.pth
    python load_trainings_predict.py config_files/demo.ini --ids 07 08 --run-name demo

Reads: the INI file, ``network_<iteration>.pth``, movies (T, H, W); labels when they are there.
Writes to <run>/inference_<type>/ per movie: ``<run>_<iteration>_<id>_<type>_<kind>.tif``,
``..._events.csv``, ``..._spark_locations.csv``, overlay on request; ``metrics.json`` with labels.
With torchrun every process takes its share of the movies.
"""

import dataclasses
from pathlib import Path

from common.files import InputError, atomic_path, one_line_faults, write_json
from config import logger
from training import base_parser, configured

SHOWN = (
    *("average/detected", "average/correctly_classified", "total/detected"),
    "total/correctly_classified",
)
METHODS = ("overlap", "average", "gaussian", "max")


def make_parser():
    """Return the parser of the command line."""
    parser = base_parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="network file; else run name and epoch")
    parser.add_argument("--load-epoch", type=int, help="iteration to load; default [inference]")
    parser.add_argument("--ids", nargs="+", help="movies of the data folder; default the test set")
    parser.add_argument("--movie", nargs="+", type=Path, help="TIFF files instead of --ids")
    parser.add_argument("--inference", nargs="+", choices=METHODS, help="ways of assembly")
    parser.add_argument("--stride", type=int, help="frames between chunks; larger is faster")
    parser.add_argument(
        "--compare-strides",
        action="store_true",
        help="also predict with the stride of the configuration and print the mean difference",
    )
    parser.add_argument("--batch-size", type=int, help="chunks at a time")
    parser.add_argument("--workers", type=int, default=1, help="movies at a time, one a process")
    parser.add_argument("--out", type=Path, help="folder for the results; default the run's own")
    parser.add_argument("--raw-only", action="store_true", help="write probabilities only")
    parser.add_argument("--no-instances", action="store_true", help="write classes only")
    parser.add_argument("--fill-holes", action="store_true", help="fill holes of events")
    parser.add_argument(
        "--overlay", nargs="?", const="gif", choices=("gif", "mp4", "tif"), help="coloured movie"
    )
    parser.add_argument(
        "--source", action="store_true", help="write the movie (xs) and its annotation (ys) too"
    )
    return parser


def find_checkpoint(args, params):
    """Return (path of the network file, iteration as text for the file names)."""
    from checkpoints import available_iterations, checkpoint_path

    if args.checkpoint:
        stem = args.checkpoint.stem
        return args.checkpoint, stem.rsplit("_", 1)[-1].lstrip("0") or stem
    iteration = args.load_epoch
    if iteration is None:
        found = available_iterations(params.output_dir)
        iteration = params.inference_load_epoch
        if iteration not in found and found:
            logger.warning(
                "no network_%06d.pth in %s: the newest, %d, is loaded",
                *(iteration, params.output_dir, found[-1]),
            )
            iteration = found[-1]
    return checkpoint_path(params.output_dir, "network", iteration), str(iteration)


def read_inputs(args, params):
    """Return the recordings to predict (list of Sample); labels where there are any."""
    from dataset_tools import Sample, adapted, read_samples
    from movie_io import read_movie

    if args.movie:
        samples = [Sample(_movie_id(path), read_movie(path)) for path in args.movie]
        names = [sample.id for sample in samples]
        if len(set(names)) < len(names):
            raise InputError(f"--movie: two files give the same name: {', '.join(names)}")
    else:
        ids = args.ids or list(params.ids("test"))
        options = {"labels": None, "events": None, "sparks_type": params.sparks_type}
        samples = read_samples(params.data_dir, ids, **options)
    return adapted(samples, params)


def _movie_id(path):
    return path.stem.removesuffix("_video").replace("_", "-")


def predict_and_write(
    model,
    sample,
    params,
    *,
    out_dir,
    stem,
    raw_only=False,
    instances=True,
    overlay=None,
    source=False,
    **options,
):
    """Predict one recording and write its files.

    Args:
        model: network.
        sample: Sample; with class labels and event ids the prediction is measured.
        params: Params.
        out_dir: folder to write into.
        stem: first part of the file names.
        raw_only: write the probabilities only.
        instances: write the event instances.
        overlay: kind of the coloured movie: gif, mp4, tif or None.
        source: write the movie as <stem>_xs.tif and its class labels as <stem>_ys.tif.
        options: method, stride, batch_size of ``predict_probabilities``.

    Returns:
        (Prediction, event table, counts); counts is None without labels, all are with raw_only.
    """
    from disc_output_tools import write_overlay, write_prediction
    from inference_tools import predict_probabilities
    from kinetics import event_table
    from metrics_tools import sample_counts
    from preds_processing_tools import calibrated_post, process_predictions

    movie = sample.movie.data
    probabilities, clean = predict_probabilities(model, movie, params, name=sample.id, **options)
    post = calibrated_post(sample.movie, post=params.postprocessing)
    physical = {"pixel_um": post.pixel_size_um, "frame_ms": post.frame_ms}
    inputs = {"source": True, "truth": sample.classes} if source else {}
    if raw_only:
        write_prediction(out_dir, stem, movie, None, probabilities, **inputs, **physical)
        return None, None, None
    found = process_predictions(clean, probabilities, post)
    table = event_table(movie, found, probabilities=probabilities, **physical)
    kinds = {"table": table, "instances": instances, **inputs}
    write_prediction(out_dir, stem, movie, found, probabilities, **kinds, **physical)
    if overlay:
        path = out_dir / f"{stem}_overlay.{overlay}"
        write_overlay(path, movie, found.classes, truth_classes=sample.classes, **physical)
    counts = None
    if sample.classes is not None and sample.events is not None:
        counts = sample_counts(sample, found, params, post)
    return found, table, counts


def predict_one(model, sample, params, *, compare, threads, **options):
    """Predict one recording, in a process of its own when there are several workers.

    Args:
        model, sample, params: of predict_and_write, as are ``options``.
        compare: also predict with the stride of the configuration.
        threads: CPU threads of this process.

    Returns:
        (counts or None, mean absolute difference of the two strides or None).
    """
    import torch

    torch.set_num_threads(threads)
    counts = predict_and_write(model, sample, params, **options)[2]
    if not compare:
        return counts, None
    assembly = {name: options[name] for name in ("method", "batch_size")}
    return counts, stride_difference(model, sample, params, options["stride"], **assembly)


def stride_difference(model, sample, params, stride, **options):
    """Return the mean absolute difference of the probabilities at two strides."""
    import numpy as np

    from inference_tools import predict_probabilities

    first, second = (
        predict_probabilities(model, sample.movie.data, params, stride=one, **options)[0]
        for one in (stride, None)
    )
    return float(np.abs(first - second).mean())


def write_metrics(out_dir, counts):
    """Write metrics.json and summary.csv of labelled movies {id: counts}.

    metrics.json also holds the counts of each movie, so that two runs can be compared.

    Returns:
        (metrics, intervals) of metrics_tools.
    """
    from metrics_tools import bootstrap_intervals, metrics_from_counts, sweep_metrics

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


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params = configured(args)
    if args.fill_holes:
        post = dataclasses.replace(params.postprocessing, fill_holes=True)
        params = dataclasses.replace(params, postprocessing=post)
    if args.movie and args.ids:
        raise InputError("--movie and --ids: give one of them")
    if args.workers < 1:
        raise InputError(f"--workers {args.workers}: expected at least 1")
    import torch
    from joblib import Parallel, delayed

    from checkpoints import load_network
    from inference_tools import check_assembly
    from training_tools import pick_place, seeded_model, set_up_logging

    set_up_logging(params)
    methods = args.inference or [params.inference]
    duration, stride = params.chunk
    for method in methods:
        check_assembly(method, duration, args.stride or stride)
    samples = read_inputs(args, params)
    place = pick_place(params, args.device, args.threads)
    if args.workers > 1 and place.device.type == "cuda":
        raise InputError(
            f"--workers {args.workers}: a GPU takes one process, expected --device cpu; several "
            "GPUs: torchrun --nproc_per_node N load_trainings_predict.py ..."
        )
    model = seeded_model(params, place.device)
    path, iteration = find_checkpoint(args, params)
    load_network(model, path)
    for method in methods:
        out_dir = (args.out or params.output_dir) / f"inference_{method}"
        own = samples[place.rank :: place.world]
        work = [
            delayed(predict_one)(
                *(model, sample, params),
                compare=args.compare_strides,
                threads=max(1, torch.get_num_threads() // args.workers),
                out_dir=out_dir,
                stem=f"{params.run_name}_{iteration}_{sample.id}_{method}",
                raw_only=args.raw_only,
                instances=not args.no_instances,
                overlay=args.overlay,
                source=args.source,
                method=method,
                stride=args.stride,
                batch_size=args.batch_size,
            )
            for sample in own
        ]
        counts = {}
        found = Parallel(n_jobs=args.workers)(work)
        for sample, (counts[sample.id], change) in zip(own, found, strict=True):
            if change is not None:
                print(
                    f"{sample.id}: mean absolute difference of stride {args.stride or stride} "
                    f"and {stride}: {change:.3g}"
                )
        counts = {key: value for key, value in gathered(counts, place).items() if value}
        if place.first and counts:
            metrics, _ = write_metrics(out_dir, counts)
            for name in SHOWN:
                value = "n/a" if name in metrics["not_available"] else f"{metrics[name]:.3f}"
                print(f"{name}: {value}")
        if place.first:
            print(f"{method}: {len(samples)} movies in {out_dir}")
    return 0


def gathered(counts, place):
    """Return the counts of all processes in one dict, on every process."""
    if place.world == 1:
        return counts
    import torch

    parts = [None] * place.world
    torch.distributed.all_gather_object(parts, counts)
    return {key: value for part in parts for key, value in part.items()}


if __name__ == "__main__":
    raise SystemExit(main())
