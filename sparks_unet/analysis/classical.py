"""Detect events without a network: a threshold in units of the noise, and rules of size.

Source: section 13.8 of the specification.
"""

import numpy as np
from scipy import ndimage

from analysis.disc_output_tools import write_prediction
from analysis.kinetics import event_table
from analysis.preds_processing_tools import calibrated_post, instances_from_classes
from inputs.data_processing import cell_mask, connected_components
from inputs.movie_io import read_movie
from settings.config import CLASSES

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
        duration = (box[0].stop - box[0].start) * post.calibration.frame_ms
        width = max(one.stop - one.start for one in box[1:]) * post.calibration.pixel_um
        if width >= WAVE_WIDTH_UM:
            kind = "waves"
        elif width >= PUFF_WIDTH_UM and duration >= PUFF_MS:
            kind = "puffs"
        else:
            kind = "sparks"
        names[number] = CLASSES[kind]
    return names[labels]


def write_classical(path, out, *, pixel_um=None, frame_ms=None, **options):
    """Write masks and the event table of the movie at ``path``; return {class: events}.

    Args:
        path: movie (TIFF).
        out: folder.
        pixel_um, frame_ms: given by the user, else None.
        options: threshold_sd, detrend, whole_frame of ``classical_events``.
    """
    movie = read_movie(path)
    post = calibrated_post(movie, pixel_um=pixel_um, frame_ms=frame_ms)
    found = classical_events(movie.data, post, **options)
    physical = {"calibration": post.calibration}
    table = event_table(movie.data, found, **physical)
    write_prediction(out, path.stem, movie.data, found, None, table=table, **physical)
    return found.counts()
