"""Detect events without a network: a threshold in units of the noise, and rules of size.

Section 13.8 of the specification: a point of comparison that shows what the network adds. Each
pixel's resting level is subtracted, the movie is smoothed and divided by its noise, thresholded,
and the connected components are named by their extent; sparks are then separated by their peaks as
in the post-processing of the network.

    python classical_baseline.py MOVIE.tif --out DIR
    python classical_baseline.py MOVIE.tif --threshold-sd 5 --detrend --whole-frame

Files read: a movie (T, H, W).
Files written into --out: ``<movie>_classes.tif``, ``<movie>_instances.tif`` and those of each
class, ``<movie>_events.csv``, ``<movie>_spark_locations.csv``.
"""

from pathlib import Path

import numpy as np
from scipy import ndimage

from common.files import RESULTS_DIR, Parser, one_line_faults
from config import CLASSES
from data_processing import cell_mask, connected_components
from disc_output_tools import write_prediction
from kinetics import event_table
from movie_io import read_movie
from preds_processing_tools import calibrated_post, instances_from_classes

THRESHOLD_SD = 2.5  # noise standard deviations of the smoothed movie
SMOOTHING = (1.0, 2.0, 2.0)  # frames, pixels, pixels
RESTING_PERCENTILE = 30  # of each pixel's trace: the resting level under rare events
MIN_VOXELS = 60  # smaller components are noise
WAVE_WIDTH_UM = 10.0  # components at least this wide are waves
PUFF_WIDTH_UM = 3.2  # narrower and short ones are sparks
PUFF_MS = 75.0  # components that last this long are puffs
NOISE_FACTOR = 1.4826  # standard deviation of Gaussian noise over its median absolute deviation


def classical_events(movie, post, *, threshold_sd=THRESHOLD_SD, detrend=False, whole_frame=False):
    """Return the events of a movie (T, H, W) of counts as preds_processing_tools.Prediction.

    Args:
        movie: (T, H, W) counts.
        post: config.PostParams; sizes in um and ms.
        threshold_sd: threshold in standard deviations of the noise of the smoothed movie.
        detrend: divide by a parabola through the median of every frame (slow bleaching).
        whole_frame: search outside the cell too.
    """
    movie = movie.astype(np.float32)
    if movie.min() == movie.max():
        return instances_from_classes(movie, np.zeros(movie.shape, np.uint8), post)
    flat = movie
    if detrend:
        frames = np.arange(len(movie))
        level = np.median(movie, axis=(1, 2))
        flat = movie / np.polyval(np.polyfit(frames, level, 2), frames)[:, None, None]
    resting = ndimage.gaussian_filter(np.percentile(flat, RESTING_PERCENTILE, axis=0), 1.0)
    signal = ndimage.gaussian_filter(flat - resting, SMOOTHING)
    centred = signal - np.median(signal, axis=0)
    noise = NOISE_FACTOR * np.median(np.abs(centred), axis=0)
    mask = centred > threshold_sd * np.maximum(noise, np.finfo(np.float32).tiny)
    cell = cell_mask(movie)
    if cell.any() and not whole_frame:
        mask &= cell
    return instances_from_classes(movie - movie.min(), classes_by_size(mask, post), post)


def classes_by_size(mask, post):
    """Name the components of a mask by width and duration, (T, H, W) uint8."""
    labels, boxes = connected_components(mask)
    volume = np.bincount(labels.ravel(), minlength=len(boxes) + 1)
    names = np.zeros(len(boxes) + 1, np.uint8)
    for number, box in enumerate(boxes, start=1):
        if volume[number] < MIN_VOXELS:
            continue
        duration = (box[0].stop - box[0].start) * post.frame_ms
        width = max(one.stop - one.start for one in box[1:]) * post.pixel_size_um
        if width >= WAVE_WIDTH_UM:
            kind = "waves"
        elif width >= PUFF_WIDTH_UM and duration >= PUFF_MS:
            kind = "puffs"
        else:
            kind = "sparks"
        names[number] = CLASSES[kind]
    return names[labels]


@one_line_faults
def main(argv=None):
    """Parse the command line and write masks and the event table."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("movie", type=Path, help="movie (TIFF)")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "classical", help="folder")
    parser.add_argument("--threshold-sd", type=float, default=THRESHOLD_SD, help="in noise SD")
    parser.add_argument("--detrend", action="store_true", help="remove slow bleaching first")
    parser.add_argument("--whole-frame", action="store_true", help="search outside the cell too")
    parser.add_argument("--pixel-um", type=float, help="pixel size; default from the file, else .2")
    parser.add_argument(
        "--frame-ms", type=float, help="frame time; default from the file, else 6.8"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    movie = read_movie(args.movie)
    post = calibrated_post(movie, pixel_um=args.pixel_um, frame_ms=args.frame_ms)
    found = classical_events(
        movie.data,
        post,
        threshold_sd=args.threshold_sd,
        detrend=args.detrend,
        whole_frame=args.whole_frame,
    )
    physical = {"pixel_um": post.pixel_size_um, "frame_ms": post.frame_ms}
    table = event_table(movie.data, found, **physical)
    write_prediction(args.out, args.movie.stem, movie.data, found, None, table=table, **physical)
    counts = ", ".join(f"{n} {name}" for name, n in found.counts().items())
    print(f"{counts} in {args.out}")


if __name__ == "__main__":
    main()
