"""Separate touching sparks by a watershed from their peaks.

Source: section 8.4 of the specification.

Letters: T frames, H rows, W columns, N points. Arrays are ordered (t, y, x).
"""

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from inputs.calibration import ScaledPost
from inputs.data_processing import (
    CUBE,
    TRUNCATE,
    connected_components,
    marker_points,
    own_voxels,
    peak_footprint,
    point_order,
    spark_groups,
    spark_maxima,
)
from inputs.preprocessing import FULL_SCALE
from settings.config import CLASSES

COMPACTNESS = 1.0
LARGEST_NORMALISED = 200.0  # of any normalisation, std_dev too; larger values are counts


def separate_sparks(
    movie: np.ndarray,
    classes: np.ndarray,
    post: ScaledPost,
    limit: int | None = None,
    grey_scale: float | None = None,
) -> tuple[np.ndarray | None, np.ndarray, int]:
    """Separate touching sparks by a watershed from their peaks.

    Args:
        movie: (T, H, W).
        classes: (T, H, W) class mask.
        post: config.PostParams.
        limit: None labels voxels without a peak too; a number leaves them unlabelled (training
            mode) and stops the work when there are more sparks.
        grey_scale: factor of the grey values; None: that of ``watershed_scale``.

    Returns:
        (ids (T, H, W) int32 or None beyond the limit, peaks (N, 3), number of sparks).
        Source: section 8.4.
    """
    labels, boxes = connected_components(classes == CLASSES["sparks"])
    footprint = peak_footprint(post.spark_distance_px, post.spark_distance_frames)
    groups = spark_groups(boxes, classes.shape, post.sigma_peaks, footprint)
    marked = [
        marker_points(spark_maxima(movie, labels, group, post.sigma_peaks, footprint), group)
        for group in groups
    ]
    peaks = np.concatenate([points for points, _ in marked])
    if limit is not None and len(peaks) > limit:
        return None, peaks, len(peaks)
    order = point_order(peaks)
    number = np.argsort(order) + 1  # final number of every peak
    sparks = np.zeros(classes.shape, np.int32)
    scale = watershed_scale(movie) if grey_scale is None else grey_scale
    start, leftovers = 0, []
    for group, (points, markers) in zip(groups, marked, strict=True):
        table = np.concatenate([[0], number[start : start + len(points)]]).astype(np.int32)
        start += len(points)
        own = own_voxels(labels, group)
        smoothed = ndimage.gaussian_filter(
            movie[group[0]].astype(np.float64), post.sigma_peaks, truncate=TRUNCATE
        )
        height = -smoothed * scale
        parts = table[watershed(height, markers, CUBE, mask=own, compactness=COMPACTNESS)]
        if limit is None:
            rest = own & (parts == 0)
            leftovers += _number_leftovers(parts, rest, smoothed, group, len(peaks), leftovers)
        sparks[group[0]][own] = parts[own]
    peaks = np.concatenate([peaks[order], np.array(leftovers, np.int64).reshape(-1, 3)])
    return sparks, peaks, len(peaks)


def watershed_scale(movie: np.ndarray) -> float:
    """Return the factor that gives a movie (T, H, W) the scale the watershed is made for.

    Its compactness is added to grey values: the published code normalises movies by abs_max first,
    and counts would outweigh it. Integers and values far above a normalised movie's are counts.
    """
    low, high = float(movie.min()), float(movie.max())
    counts = movie.dtype.kind in "iu" or high > LARGEST_NORMALISED
    return 1 / max(FULL_SCALE - low, 1.0) if counts else 1.0


def _number_leftovers(labelled, rest, smoothed, group, n_peaks, earlier):
    """Number the components of ``rest`` in ``found`` (in place); return their peaks."""
    labels, boxes = connected_components(rest)
    start = n_peaks + len(earlier)
    labelled[rest] = labels[rest].astype(np.int32) + start
    points = []
    for number, box in enumerate(boxes, start=1):
        inside = np.where(labels[box] == number, smoothed[box], -np.inf)
        at = np.unravel_index(np.argmax(inside), inside.shape)
        offsets = zip(at, box, group[0], strict=True)
        points.append([int(i) + near.start + far.start for i, near, far in offsets])
    return points
