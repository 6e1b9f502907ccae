"""Array functions shared by annotation, post-processing and evaluation: peaks, ids, margins, hulls.

All arrays are ordered (t, y, x). Letters: T frames, H rows, W columns, N points.
"""

import math
from collections.abc import Sequence

import cc3d
import numpy as np
from scipy import ndimage
from scipy.spatial import Delaunay, QhullError
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import disk

from settings.config import CLASSES

TRUNCATE = 4.0  # radius of a Gaussian kernel in sigmas, the default of scipy
MAX_FILTER_PX = 10  # window of the maximum filter that finds the peak of an annotated spark
CUBE = np.ones((3, 3, 3), bool)


def kernel_radius(sigma: float) -> int:
    """Return the radius in voxels of scipy's Gaussian kernel."""
    return int(TRUNCATE * sigma + 0.5)


def padded_box(
    box: Sequence[slice], shape: Sequence[int], padding: Sequence[int]
) -> tuple[slice, ...]:
    """Return ``box`` (slices) grown by ``padding`` voxels per axis and clipped to ``shape``."""
    return tuple(
        slice(max(0, one.start - pad), min(n, one.stop + pad))
        for one, n, pad in zip(box, shape, padding, strict=True)
    )


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the 26-connected components of a mask.

    Args:
        mask: (T, H, W) bool.

    Returns:
        (labels (T, H, W) integer, number of components): ids 1..n.
    """
    # cc3d 4.1.1 reserves about one label for 4 voxels and raises RuntimeError beyond. Isolated
    # voxels need one for 2 voxels of each axis, which is more where the mask is one voxel thin or
    # tiny; padded by a voxel on each side, every mask has at least twice the labels it can need.
    thin = math.prod((n + 1) // 2 for n in mask.shape) > mask.size // 4
    if thin:
        mask = np.pad(mask, 1)
    labels, n = cc3d.connected_components(mask, connectivity=26, return_N=True)
    return (np.ascontiguousarray(labels[1:-1, 1:-1, 1:-1]) if thin else labels), n


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, ...]]]:
    """Label the 26-connected components of a mask and return their boxes.

    Args:
        mask: (T, H, W) bool.

    Returns:
        (labels (T, H, W) integer, boxes): ids 1..n and the box of id i as ``boxes[i - 1]``.
    """
    labels, _ = label_components(mask)
    return labels, ndimage.find_objects(labels)


def merged_boxes(
    boxes: list[tuple[slice, ...]], shape: Sequence[int], padding: Sequence[int]
) -> list[tuple[tuple[slice, ...], list[int]]]:
    """Group boxes whose padded versions are cheaper to process together.

    Args:
        boxes: list of (t, y, x) slices.
        shape: (T, H, W).
        padding: voxels added on both sides of each axis.

    Returns:
        List of (padded box, indices of the boxes in it). One box over everything when the padded
        boxes together are larger than the movie.
    """
    groups = []
    for index, box in enumerate(boxes):
        box, members = padded_box(box, shape, padding), [index]
        at = 0
        while at < len(groups):
            other, others = groups[at]
            joined = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop))
                for a, b in zip(box, other, strict=True)
            )
            if _volume(joined) <= _volume(box) + _volume(other):
                box, members = joined, members + others
                groups.pop(at)
                at = 0
            else:
                at += 1
        groups.append((box, members))
        if len(groups) > 64 and sum(_volume(one) for one, _ in groups) > math.prod(shape):
            break
    if sum(_volume(one) for one, _ in groups) > math.prod(shape):
        return [(tuple(slice(0, n) for n in shape), list(range(len(boxes))))]
    return groups


def peak_footprint(distance_px: float, distance_frames: int) -> np.ndarray:
    """Return the neighbourhood of a peak: ``distance_frames`` times a disk, bool (t, y, x).

    Source: section 8.2; 9 px and 3 frames give (3, 11, 11) with 81 pixels a frame.
    """
    flat = disk(math.ceil(distance_px / 2)).astype(bool)
    return np.repeat(flat[None], max(distance_frames, 1), axis=0)


def local_maxima(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return the mask of positive voxels that equal the maximum over their neighbourhood.

    The same as ``image == ndimage.maximum_filter(image, footprint=footprint)`` for positive
    voxels: a cheap filter over the nearest voxels leaves few candidates for the whole footprint.
    """
    centre = [n // 2 for n in footprint.shape]
    offsets = np.argwhere(footprint) - centre  # (N, 3)
    near = np.zeros((3, 3, 3), bool)
    near[tuple((offsets[np.abs(offsets).max(axis=1) <= 1] + 1).T)] = True
    candidates = np.argwhere((image > 0) & (image == ndimage.maximum_filter(image, footprint=near)))
    pad = [max(c, n - 1 - c) for c, n in zip(centre, footprint.shape, strict=True)]
    padded = np.pad(image, [(p, p) for p in pad])
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    at = (candidates + pad) @ strides
    largest = np.full(len(at), -np.inf)
    for offset in offsets @ strides:
        np.maximum(largest, padded.ravel()[at + offset], out=largest)
    maxima = np.zeros(image.shape, bool)
    maxima[tuple(candidates[image[tuple(candidates.T)] >= largest].T)] = True
    return maxima


def spark_peaks(
    movie: np.ndarray,
    mask: np.ndarray,
    *,
    sigma: float,
    distance_px: float,
    distance_frames: int,
    threshold: float = 0.0,
) -> np.ndarray:
    """Find the peaks of sparks inside a mask.

    Args:
        movie: (T, H, W), non-negative.
        mask: (T, H, W) bool.
        sigma: of the Gaussian filter over (t, y, x), in voxels.
        distance_px: minimum distance of two peaks in pixels.
        distance_frames: minimum distance of two peaks in frames.
        threshold: peaks have a smoothed value above it.

    Returns:
        (N, 3) int64, (t, y, x) sorted; one point for a plateau, its first voxel.

    Source: section 8.4. Works in boxes around the mask; the peaks equal those of the whole movie.
    """
    labels, boxes = connected_components(mask)
    footprint = peak_footprint(distance_px, distance_frames)
    peaks = [
        marker_points(spark_maxima(movie, labels, group, sigma, footprint, threshold), group)[0]
        for group in spark_groups(boxes, mask.shape, sigma, footprint)
    ]
    points = np.concatenate([np.empty((0, 3), np.int64), *peaks])
    return points[point_order(points)]


def spark_groups(
    boxes: list[tuple[slice, ...]], shape: Sequence[int], sigma: float, footprint: np.ndarray
) -> list[tuple[tuple[slice, ...], list[int]]]:
    """Return merged boxes in which peaks equal those of the whole movie: kernel plus footprint."""
    padding = [kernel_radius(sigma) + n // 2 + 1 for n in footprint.shape]
    return merged_boxes(boxes, shape, padding)


def own_voxels(labels: np.ndarray, group: tuple[tuple[slice, ...], list[int]]) -> np.ndarray:
    """Return where the mask components that belong to a merged box are, bool of its shape."""
    box, members = group
    inside = labels[box]
    table = np.zeros(int(inside.max(initial=0)) + 1, bool)
    table[np.array(members) + 1] = True
    return table[inside]


def spark_maxima(
    movie: np.ndarray,
    labels: np.ndarray,
    group: tuple[tuple[slice, ...], list[int]],
    sigma: float,
    footprint: np.ndarray,
    threshold: float = 0.0,
) -> np.ndarray:
    """Return the local maxima of a merged box that lie in its own components, bool of its shape."""
    box, _ = group
    inside = labels[box] > 0
    image = np.where(inside, movie[box], 0).astype(np.float64)
    smoothed = ndimage.gaussian_filter(image, sigma, truncate=TRUNCATE)
    smoothed[~inside] = 0
    return local_maxima(smoothed, footprint) & (smoothed > threshold) & own_voxels(labels, group)


def marker_points(
    maxima: np.ndarray, group: tuple[tuple[slice, ...], list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first voxel of every plateau, (N, 3) in the movie, and the numbered plateaus."""
    markers, n = ndimage.label(maxima, CUBE)
    points = np.argwhere(maxima)
    _, first = np.unique(markers[tuple(points.T)], return_index=True)
    return points[first].reshape(n, 3) + [one.start for one in group[0]], markers


def point_order(points: np.ndarray) -> np.ndarray:
    """Return the order of points (N, 3) by t, y, x."""
    return np.lexsort(points.T[::-1])


def annotated_spark_peaks(
    movie: np.ndarray, classes: np.ndarray, events: np.ndarray, *, sigma: float = 2.0
) -> np.ndarray:
    """Return the peak of every annotated spark.

    Args:
        movie: (T, H, W) counts.
        classes: (T, H, W) class labels.
        events: (T, H, W) event ids.
        sigma: of the Gaussian filter over (y, x), in pixels.

    Returns:
        (N, 3) int64 (t, y, x), one row for each spark in the order of ids.

    Source: section 5.7, as sums over the box of an event divided by T.
    """
    is_spark = classes == CLASSES["sparks"]
    at = np.flatnonzero(is_spark)
    ids = events.ravel()[at]
    at, ids = at[ids > 0], ids[ids > 0]
    if not len(ids):
        return np.empty((0, 3), np.int64)
    order = np.argsort(ids, kind="stable")
    first = np.flatnonzero(np.diff(ids[order], prepend=0))  # of every event
    axes = [axis[order] for axis in np.unravel_index(at, classes.shape)]
    low = np.transpose([np.minimum.reduceat(axis, first) for axis in axes])
    high = np.transpose([np.maximum.reduceat(axis, first) for axis in axes]) + 1
    peaks = []
    for number, start, stop in zip(ids[order][first], low, high, strict=True):
        box = tuple(slice(*ends) for ends in zip(start.tolist(), stop.tolist(), strict=True))
        peaks.append(_annotated_peak(movie, is_spark[box] & (events[box] == number), box, sigma))
    return np.array(peaks, np.int64).reshape(-1, 3)


def _annotated_peak(movie, inside, box, sigma):
    """Return (t, y, x) of the peak of the event that fills ``inside`` of ``box``."""
    n_frames = len(movie)
    radius = kernel_radius(sigma)
    wide = padded_box(box, movie.shape, (0, radius, radius))
    smoothed = ndimage.gaussian_filter(
        movie[wide].astype(np.float64), (0, sigma, sigma), truncate=TRUNCATE
    )
    inner = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, wide, strict=True)
    )
    values = np.where(inside, smoothed[inner], 0.0)  # (t, y, x)
    outside = n_frames - len(values)
    largest = values.max(axis=0)
    if outside:
        largest = np.maximum(largest, 0.0)
    mean = values.sum(axis=0) / n_frames
    spread = np.sqrt((((values - mean) ** 2).sum(axis=0) + outside * mean**2) / n_frames)
    score = largest * spread  # (y, x)
    # Zeros around the box stand for the rest of the frame.
    highest = ndimage.maximum_filter(score, size=MAX_FILTER_PX, mode="constant", cval=0.0)
    candidates = np.argwhere((score == highest) & (score != 0))
    if len(candidates) == 0:
        candidates = np.argwhere(inside.any(axis=0))
    traces = smoothed[inner][:, candidates[:, 0], candidates[:, 1]]  # (t, N)
    traces = np.where(inside[:, candidates[:, 0], candidates[:, 1]], traces, 0.0)
    best = int(np.argmax(traces.max(axis=0)))
    frame = int(np.argmax(traces[:, best]))
    return (frame + box[0].start, *(candidates[best] + [box[1].start, box[2].start]))


def _volume(box):
    return math.prod(one.stop - one.start for one in box)


def renumber(instances: np.ndarray, kept: Sequence[int] | np.ndarray, start: int = 1) -> np.ndarray:
    """Give the ids ``kept`` the numbers start, start + 1, ... in their order; others become 0.

    Args:
        instances: (...) integer ids.
        kept: sorted ids to keep.
        start: number of the first.

    Returns:
        int32 array of the same shape.
    """
    table = np.zeros(max(int(instances.max(initial=0)), int(max(kept, default=0))) + 1, np.int32)
    table[np.asarray(kept, np.int64)] = np.arange(start, start + len(kept))
    return table[instances]


def drop_marginal_points(points: np.ndarray, n_frames: int, margin: int) -> np.ndarray:
    """Return the points (N, 3) that lie outside the first and last ``margin`` frames."""
    points = np.asarray(points).reshape(-1, 3)
    return points[(points[:, 0] >= margin) & (points[:, 0] < n_frames - margin)]


def blank_margins(array: np.ndarray, margin: int) -> np.ndarray:
    """Return a copy of (T, H, W) with the first and last ``margin`` frames set to 0."""
    array = array.copy()
    array[:margin] = 0
    array[max(len(array) - margin, 0) :] = 0
    return array


def filled_hull(core: np.ndarray) -> np.ndarray:
    """Return the voxels of a box inside the convex hull of ``core``.

    Args:
        core: (t, y, x) bool.

    Returns:
        (t, y, x) bool; the core itself where it spans no volume (its hull would be flat).
    """
    points = np.argwhere(core)
    try:
        hull = Delaunay(points)
    except (QhullError, ValueError):
        return core
    grid = np.indices(core.shape).reshape(3, -1).T
    return (hull.find_simplex(grid) >= 0).reshape(core.shape)


def class_contours(classes: np.ndarray) -> np.ndarray:
    """Return the contour of every class, two pixels wide, frame by frame.

    Args:
        classes: (T, H, W) class numbers.

    Returns:
        (T, H, W) uint8: class number on its contour, 0 elsewhere.

    Source: section 8.12, dilation minus erosion with a cross.
    """
    contours = np.zeros(classes.shape, np.uint8)
    for number in range(1, max(CLASSES.values()) + 1):
        # Differs: where two contours meet the published code adds the numbers (1 + 3 shows as 4).
        contours[class_contour(classes == number)] = number
    return contours


def class_contour(mask: np.ndarray) -> np.ndarray:
    """Return dilation minus erosion of a mask (T, H, W) by a cross in every frame."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    return ndimage.binary_dilation(mask, cross) & ~ndimage.binary_erosion(mask, cross)


def cell_mask(movie: np.ndarray) -> np.ndarray:
    """Return where the cell is, (H, W) bool, from the mean frame of a movie (T, H, W).

    Source: section 8.10.
    """
    mean = movie.mean(axis=0, dtype=np.float64)
    low, high = mean.min(), mean.max()
    if low == high:
        return np.zeros(mean.shape, bool)
    mean = (mean - low) / (high - low)
    first, last = np.percentile(mean, (1, 99))
    middle = mean[(mean > first) & (mean < last)]
    otsu = threshold_otsu(middle) if middle.size else low
    mask = ndimage.binary_fill_holes(mean > otsu) | ndimage.binary_fill_holes(
        mean > np.median(mean)
    )
    labels = label(mask, connectivity=2)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    mask = labels == sizes.argmax()
    # The erosion counts what lies outside the frame as cell, or a cell at the border would shrink.
    mask = ndimage.binary_dilation(mask, disk(2))
    mask = ndimage.binary_erosion(mask, disk(2), border_value=1)
    return ndimage.binary_fill_holes(mask)


def signal_to_noise(
    movie: np.ndarray, classes: np.ndarray, *, percentile: float = 99
) -> float | None:
    """Return (percentile of event voxels - mean) / standard deviation of event-free cell voxels.

    Args:
        movie: (T, H, W) counts.
        classes: (T, H, W) class labels; 1 to 3 are events.
        percentile: of the event voxels.

    Returns:
        Ratio, or None for a movie without events or without event-free cell voxels.

    Source: section 8.10. Every pixel that ever carries a label, 4 too, counts as cell.
    """
    # Faithful: the specification omits this; an event at the edge lights up pixels that are too
    # dark in the mean frame for the mask of the cell.
    cell = cell_mask(movie) | (classes > 0).any(axis=0)
    events = (classes > 0) & (classes < CLASSES["ignore"])
    quiet = movie[(classes == 0) & cell].astype(np.float64)
    if not events.any() or quiet.size == 0 or quiet.std() == 0:
        return None
    high = np.percentile(movie[events].astype(np.float64), percentile)
    return float((high - quiet.mean()) / quiet.std())


def self_ratio(movie: np.ndarray, quiet: np.ndarray) -> np.ndarray:
    """Return (F - F0) / (F0 - b), (T, H, W) float64.

    Args:
        movie: (T, H, W) counts.
        quiet: (H, W) bool, a region without events; F0(t) is its mean.

    The background b(t) is the mean of the left-most column. Source: section 8.10.
    """
    background = movie[:, :, 0].mean(axis=1, dtype=np.float64)  # (T,)
    resting = movie[:, quiet].mean(axis=1, dtype=np.float64)  # (T,)
    scale = (resting - background)[:, None, None]
    return (movie - resting[:, None, None]) / scale


def moving_average(movie: np.ndarray, n_frames: int) -> np.ndarray:
    """Return the mean of (T, ...) over ``n_frames`` (odd) frames; windows shrink at the ends."""
    if n_frames < 1 or n_frames % 2 == 0:
        raise ValueError(f"moving average over {n_frames} frames: expected an odd number")
    return moving_mean(movie, n_frames // 2, n_frames // 2 + 1)


def moving_mean(movie: np.ndarray, before: int, after: int) -> np.ndarray:
    """Return the mean over the frames t - before .. t + after - 1 that exist, float64 (T, ...)."""
    total = np.concatenate([np.zeros((1, *movie.shape[1:])), np.cumsum(movie, 0, np.float64)])
    frames = np.arange(len(movie))
    first, last = np.maximum(frames - before, 0), np.minimum(frames + after, len(movie))
    count = (last - first).reshape(-1, *[1] * (movie.ndim - 1))
    return (total[last] - total[first]) / count
