"""Puffs that touch are separated at the saddle of their probability.

A network marks neighbouring puffs as one region of voxels, within which their probability falls
between them: each place where it is high is a puff of its own.

Letters: T frames, H rows, W columns.
"""

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from inputs.data_processing import CUBE

SIGMA = (1.0, 0.5, 0.5)  # frames and pixels: single voxels are no place of their own
LEAST = 8  # voxels of a place where the probability is high


def split_puffs(labels: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Return ids (T, H, W) in which each part of high probability of an event is an event.

    Args:
        labels: (T, H, W) ids 1..n of puffs. Not modified.
        probability: (T, H, W) of puffs.
        threshold: probability, lightly smoothed, above which a part is an event of its own; events
            with fewer than two such parts stay as they are.
    """
    mask = labels > 0
    smooth = ndimage.gaussian_filter(np.asarray(probability, np.float32), SIGMA)
    seeds, n = ndimage.label((smooth > threshold) & mask, CUBE)
    sizes = np.bincount(seeds.ravel(), minlength=n + 1)
    seeds[sizes[seeds] < LEAST] = 0
    kept = seeds > 0
    with_seeds = np.zeros(int(labels.max(initial=0)) + 1, bool)
    with_seeds[labels[kept]] = True
    # an event without a seed is its own
    seeds = np.where(mask & ~with_seeds[labels], labels + n, seeds)
    parts = watershed(-smooth, seeds, CUBE, mask=mask)
    kept = np.flatnonzero(np.bincount(parts.ravel()))
    return np.searchsorted(kept[kept > 0], parts, side="right").astype(labels.dtype) * mask
