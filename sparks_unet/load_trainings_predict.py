"""Predict movies with a trained network: classes, event instances, tables, overlay and metrics.

Follows section 8 of the specification.

    python load_trainings_predict.py config_files/final_model.ini --movie cell.tif --checkpoint F.pth
    python load_trainings_predict.py config_files/demo.ini --ids 07 08 --run-name demo

Reads: the INI file, ``network_<iteration>.pth``, movies (T, H, W); labels when they are there.
Writes to <run>/inference_<type>/ per movie: ``<run>_<iteration>_<id>_<type>_<kind>.tif``,
``..._events.csv``, ``..._spark_locations.csv``, overlay on request; ``metrics.json`` with labels.
With torchrun every process takes its share of the movies.
"""

import dataclasses
import json
from pathlib import Path

from config import logger
from files import InputError, Parser, atomic_path, one_line_faults, write_json
from training import configured

METHODS = ("overlap", "average", "gaussian", "max")


def make_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="INI file of the training")
    parser.add_argument("--checkpoint", type=Path, help="network file; else run name and epoch")
    parser.add_argument("--run-name", help="run to load, instead of [training] run_name")
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
    parser.add_argument("--out", type=Path, help="folder for the results; default the run's own")
    parser.add_argument("--raw-only", action="store_true", help="write probabilities only")
    parser.add_argument("--no-instances", action="store_true", help="write classes only")
    parser.add_argument("--fill-holes", action="store_true", help="fill holes of events")
    parser.add_argument("--overlay", action="store_true", help="write a coloured GIF")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--seed", type=int, help="instead of [training] seed")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="section.key=value",
        help="replace one setting; repeatable",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
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
    from dataset_tools import Sample, read_samples, resampled
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
    if params.new_fps:
        frame_ms = params.postprocessing.frame_ms
        samples = [resampled(one, params.new_fps, frame_ms=frame_ms) for one in samples]
    return samples


def _movie_id(path):
    return path.stem.removesuffix("_video").replace("_", "-")


def predict_and_write(model, sample, params, *, method, out_dir, stem, args):
    """Predict one recording, write its files and return its counts, or None without labels."""
    import numpy as np
    from disc_output_tools import write_overlay, write_prediction

    from dataset_tools import calibrated
    from inference_tools import predict_probabilities
    from kinetics import event_table
    from metrics_tools import movie_counts
    from preds_processing_tools import process_predictions

    options = {"method": method, "batch_size": args.batch_size, "name": sample.id}
    movie = sample.movie.data
    probabilities, clean = predict_probabilities(
        model, movie, params, stride=args.stride, **options
    )
    post = calibrated(sample, params.postprocessing)
    if args.fill_holes:
        post = dataclasses.replace(post, fill_holes=True)
    if args.compare_strides:
        other, _ = predict_probabilities(model, movie, params, **options)
        difference = float(np.abs(probabilities - other).mean())
        default = params.chunk[1]
        print(f"{sample.id}: stride {args.stride or default} against {default}: {difference:.3g}")
    physical = {"pixel_um": post.pixel_size_um, "frame_ms": post.frame_ms}
    found = None if args.raw_only else process_predictions(clean, probabilities, post)
    table = None
    if found is not None:
        table = event_table(movie, found, probabilities=probabilities, **physical)
    write_prediction(
        out_dir,
        stem,
        movie,
        found,
        probabilities,
        table=table,
        instances=not args.no_instances,
        **physical,
    )
    if found is None:
        return None
    if args.overlay:
        write_overlay(
            out_dir / f"{stem}_overlay.gif",
            movie,
            found.classes,
            truth_classes=sample.classes,
            **physical,
        )
    if sample.classes is None or sample.events is None:
        return None
    margins = params.ignore_frames_loss
    return movie_counts(sample.classes, sample.events, found, post=post, ignore_frames=margins)


def write_metrics(out_dir, counts):
    """Write metrics.json and summary.csv from the counts of labelled movies {id: counts}."""
    from metrics_tools import bootstrap_intervals, metrics_from_counts

    metrics = metrics_from_counts(list(counts.values()))
    numbers = [
        name for name, value in metrics.items() if value is None or not hasattr(value, "__len__")
    ]
    intervals = bootstrap_intervals(list(counts.values()), numbers)
    record = {"movies": list(counts), "metrics": metrics, "intervals_95": intervals}
    write_json(out_dir / "metrics.json", record)
    with atomic_path(out_dir / "summary.csv") as temporary:
        rows = ["metric,value,low_95,high_95"]
        for name in numbers:
            low, high = intervals[name]
            cells = ("" if v is None else f"{v:.6g}" for v in (metrics[name], low, high))
            rows.append(",".join((name, *cells)))
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return metrics


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params = configured(args)
    if args.movie and args.ids:
        raise InputError("--movie and --ids: give one of them")
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
    model = seeded_model(params, place.device)
    path, iteration = find_checkpoint(args, params)
    load_network(model, path)
    for method in methods:
        out_dir = (args.out or params.output_dir) / f"inference_{method}"
        counts = {}
        for sample in samples[place.rank :: place.world]:
            stem = f"{params.run_name}_{iteration}_{sample.id}_{method}"
            counts[sample.id] = predict_and_write(
                model, sample, params, method=method, out_dir=out_dir, stem=stem, args=args
            )
        counts = {key: value for key, value in gathered(counts, place).items() if value}
        if place.first and counts:
            metrics = write_metrics(out_dir, counts)
            print(
                json.dumps({k: v for k, v in metrics.items() if k.startswith(("average", "total"))})
            )
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
