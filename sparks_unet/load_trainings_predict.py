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
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.faults import add_cluster_flag
from common.files import InputError, one_line_faults
from settings.flags import base_parser, configured
from settings.recording import COUNT

METHODS = ("overlap", "average", "gaussian", "max")


def make_parser():
    """Return the parser of the command line."""
    parser = base_parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="network file; else run name and epoch")
    parser.add_argument("--load-epoch", type=int, help="iteration to load; default [inference]")
    parser.add_argument("--ids", nargs="+", help="movies of the data folder; default the test set")
    parser.add_argument("--movie", nargs="+", type=Path, help="TIFF files instead of --ids")
    parser.add_argument("--inference", nargs="+", choices=METHODS, help="ways of assembly")
    parser.add_argument("--stride", type=COUNT, help="frames between chunks; larger is faster")
    parser.add_argument(
        "--compare-strides",
        action="store_true",
        help="also predict with the stride of the configuration and print the mean difference",
    )
    parser.add_argument("--batch-size", type=COUNT, help="chunks at a time")
    parser.add_argument("--workers", type=int, default=1, help="movies at a time, one a process")
    add_cluster_flag(parser)
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
    from network.inference_tools import check_assembly
    from runs.prediction import Files, Wanted, find_checkpoint, predict_data, read_inputs
    from runs.training_tools import set_up_logging

    set_up_logging(params)
    duration, stride = params.chunk
    methods = tuple(args.inference or [params.inference])
    for method in methods:
        check_assembly(method, duration, args.stride or stride)
    wanted = Wanted(
        methods=methods,
        stride=args.stride,
        batch_size=args.batch_size,
        workers=args.workers,
        compare_strides=args.compare_strides,
        out=args.out,
        files=Files(args.raw_only, not args.no_instances, args.overlay, args.source),
    )
    checkpoint = find_checkpoint(params, checkpoint=args.checkpoint, load_epoch=args.load_epoch)
    if args.cluster:
        from runs.spread import predict_spread, sources_of

        sources = sources_of(params, movies=args.movie, ids=args.ids)
        predict_spread(params, sources, checkpoint, wanted, cluster=args.cluster)
        return 0
    samples = read_inputs(params, movies=args.movie, ids=args.ids)
    predict_data(params, samples, checkpoint, wanted, device=args.device, threads=args.threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
