"""Label the events of one class by a threshold and 26-connected components.

The simple version of ``separate_events.py``. Source: section 8.6 of the specification.

    python track_objects_from_preds.py run_100000_05_overlap_raw_puffs.tif

Files read: probabilities (T, H, W).
Files written: ``<name>_events.tif`` (T, H, W) uint16, ids from 1.
"""

from pathlib import Path

from common.files import Parser, one_line_faults


def track_objects(probability, threshold, *, min_radius, ignore_frames=0):
    """Return event ids (T, H, W) of the objects at or above a threshold.

    Args:
        probability: (T, H, W) in 0..1.
        threshold: voxels at or above it are event.
        min_radius: 6-connected objects of fewer than (2 min_radius)^3 voxels are removed.
        ignore_frames: this many first and last frames are emptied.
    """
    import numpy as np

    from data_processing import connected_components
    from preds_processing_tools import threshold_mask

    # threshold_mask keeps what is above its threshold; here the threshold itself belongs to events.
    below = np.nextafter(probability.dtype.type(threshold), probability.dtype.type(-1))
    mask = threshold_mask(probability, below, min_radius=min_radius, ignore_frames=ignore_frames)
    return connected_components(mask)[0]


@one_line_faults
def main(argv=None):
    """Parse the command line and write the labelled movie."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("prediction", type=Path, help="probabilities of one class (TIFF)")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability of an event")
    parser.add_argument("--min-radius", type=int, default=4, help="objects below (2r)^3 voxels go")
    parser.add_argument(
        "--ignore-frames", type=int, default=0, help="first and last frames to skip"
    )
    parser.add_argument("--out", type=Path, help="TIFF; default <prediction>_events.tif")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)

    import numpy as np

    from disc_output_tools import sixteen_bit
    from movie_io import read_movie, write_stack

    movie = read_movie(args.prediction)
    events = track_objects(
        movie.data.astype(np.float32),
        args.threshold,
        min_radius=args.min_radius,
        ignore_frames=args.ignore_frames,
    )
    out = args.out or args.prediction.with_name(f"{args.prediction.stem}_events.tif")
    write_stack(out, sixteen_bit(events), pixel_um=movie.pixel_um, frame_ms=movie.frame_ms)
    print(f"{int(events.max(initial=0))} events in {out}")


if __name__ == "__main__":
    main()
