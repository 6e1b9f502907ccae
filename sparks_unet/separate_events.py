"""Separate the events of all classes in the probability movies of one recording.

Follows sections 8.3 to 8.5 of the specification: Otsu and arg-max, watershed for sparks, connected
components for waves and puffs, merging and removal of small events.

    python separate_events.py --sparks S.tif --waves W.tif --puffs P.tif --movie 05_video.tif

Files read: three probability movies and the recording, all (T, H, W).
Files written into --out: ``<movie>_instances_<class>.tif`` uint16, ``<movie>_instances.tif``,
``<movie>_classes.tif``, ``<movie>_events.csv``, ``<movie>_events_simple.csv`` and
``<movie>_events_full.csv``, ``<movie>_spark_locations.csv``; with --overlay
``<movie>_overlay.gif`` (classes), ``<movie>_instances.gif`` and ``<movie>_white.tif`` (n, H, W, 3).
"""

from pathlib import Path

from common.files import RESULTS_DIR, Parser, one_line_faults
from config import EVENT_CLASSES


@one_line_faults
def main(argv=None):
    """Parse the command line and write masks and tables."""
    parser = Parser(description=__doc__.splitlines()[0])
    for name in EVENT_CLASSES:
        parser.add_argument(f"--{name}", type=Path, required=True, help="probabilities (TIFF)")
    parser.add_argument("--movie", type=Path, required=True, help="recording (TIFF)")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "events", help="folder")
    parser.add_argument("--fill-holes", action="store_true", help="fill holes of events")
    parser.add_argument("--overlay", action="store_true", help="write coloured movies")
    parser.add_argument("--pixel-um", type=float, help="pixel size; default from the file, else .2")
    parser.add_argument(
        "--frame-ms", type=float, help="frame time; default from the file, else 6.8"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)

    import dataclasses

    import numpy as np

    from disc_output_tools import (
        instance_frames,
        overlay_frames,
        write_event_lists,
        write_overlay,
        write_prediction,
        write_view,
    )
    from kinetics import event_table
    from movie_io import read_movie, same_shape, write_stack
    from preds_processing_tools import calibrated_post, process_predictions

    movie = read_movie(args.movie)
    probabilities = {}
    for name in EVENT_CLASSES:
        stack = read_movie(getattr(args, name))
        same_shape(stack, movie)
        probabilities[name] = stack.data
    post = calibrated_post(movie, pixel_um=args.pixel_um, frame_ms=args.frame_ms)
    post = dataclasses.replace(post, fill_holes=args.fill_holes)
    physical = {"pixel_um": post.pixel_size_um, "frame_ms": post.frame_ms}
    found = process_predictions(movie.data - movie.data.min(), probabilities, post)
    channels = [probabilities[name].astype(np.float32) for name in EVENT_CLASSES]
    channels = np.stack([1 - sum(channels), *channels])
    table = event_table(movie.data, found, probabilities=channels, **physical)
    stem = args.movie.stem
    write_prediction(args.out, stem, movie.data, found, None, table=table, raw=False, **physical)
    write_event_lists(args.out, stem, found.classes, found.instances)
    if args.overlay:
        write_overlay(args.out / f"{stem}_overlay.gif", movie.data, found.classes, **physical)
        coloured = instance_frames(movie.data, found.instances)
        write_view(args.out / f"{stem}_instances.gif", coloured, legend=False, **physical)
        white = overlay_frames(movie.data, found.classes, white=True)
        write_stack(args.out / f"{stem}_white.tif", white, **physical)
    counts = ", ".join(f"{n} {name}" for name, n in found.counts().items())
    print(f"{counts} in {args.out}")


if __name__ == "__main__":
    main()
