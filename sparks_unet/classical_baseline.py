"""Detect events without a network: a threshold on dF/F0 noise units and rules of size.

Section 13.8 of the specification: a point of comparison that shows what the network adds. The movie
is turned into dF/F0 over a running resting level, smoothed, divided by its noise, thresholded, and
the connected components are named by their extent; sparks are then separated by their peaks as in
the post-processing of the network.
"""

import numpy as np
from scipy import ndimage

from config import CLASSES
from data_processing import cell_mask, connected_components
from preds_processing_tools import instances_from_classes

THRESHOLD_SD = 2.5  # noise standard deviations of the smoothed movie
SMOOTHING = (1.0, 2.0, 2.0)  # frames, pixels, pixels
RESTING_PERCENTILE = 30  # of each pixel's trace: the resting level under rare events
MIN_VOXELS = 60  # smaller components are noise
WAVE_WIDTH_UM = 10.0  # components at least this wide are waves
PUFF_WIDTH_UM = 3.2  # narrower and short ones are sparks
PUFF_MS = 75.0  # components that last this long are puffs
NOISE_FACTOR = 1.4826  # standard deviation of Gaussian noise over its median absolute deviation


def classical_events(movie, post):
    """Return the events of a movie (T, H, W) of counts as preds_processing_tools.Prediction.

    Args:
        movie: (T, H, W) counts.
        post: config.PostParams; sizes in um and ms.
    """
    movie = movie.astype(np.float32)
    if movie.min() == movie.max():
        return instances_from_classes(movie, np.zeros(movie.shape, np.uint8), post)
    resting = ndimage.gaussian_filter(np.percentile(movie, RESTING_PERCENTILE, axis=0), 1.0)
    signal = ndimage.gaussian_filter(movie - resting, SMOOTHING)
    noise = NOISE_FACTOR * np.median(np.abs(signal - np.median(signal, axis=0)), axis=0)
    mask = signal > np.median(signal, axis=0) + THRESHOLD_SD * np.maximum(noise, 1e-6)
    cell = cell_mask(movie)
    if cell.any():
        mask &= cell
    classes = classes_by_size(mask, post)
    return instances_from_classes(movie - movie.min(), classes, post)


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
