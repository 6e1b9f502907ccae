"""The outline of a mouse cortex and its parcels, drawn without the published atlas."""

import numpy as np

PARCELS_PER_SIDE = 24


def brain_mask(size: int) -> np.ndarray:
    """Draw a brain-shaped mask (size, size) bool, mirror symmetric, row 0 anterior.

    Differs: the specification takes mask and parcels from the published atlas; drawn ones need no
    file that is not part of this repository.
    """
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    width = 0.30 + 0.16 * np.clip((y - 0.05) / 0.55, 0, 1)
    return (np.abs((x - 0.5) / width) ** 2.4 + np.abs((y - 0.5) / 0.49) ** 2.4) <= 1


def parcels(mask: np.ndarray) -> np.ndarray:
    """Cut the mask into 24 mirrored parcels per side: (H, W) int, 0 outside, 1..24 left, 25..48
    right.
    """
    size = mask.shape[0]
    half = mask[:, : size // 2]
    pixels = (np.argwhere(half) + 0.5) / size
    # Spread seeds: each next one is the pixel farthest from the seeds before it.
    seeds = [pixels[len(pixels) // 2]]
    distance = np.full(len(pixels), np.inf)
    for _ in range(PARCELS_PER_SIDE - 1):
        distance = np.minimum(distance, ((pixels - seeds[-1]) ** 2).sum(1))
        seeds.append(pixels[distance.argmax()])
    nearest = ((pixels[:, None] - np.array(seeds)[None]) ** 2).sum(2).argmin(1)
    left = np.zeros(half.shape, int)
    left[half] = nearest + 1
    right = np.where(left > 0, left + PARCELS_PER_SIDE, 0)[:, ::-1]
    return np.concatenate([left, right], axis=1)
