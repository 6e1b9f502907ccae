"""How far the light of one pixel reaches into its neighbours, from the movie itself.

A blurred movie (scattered light, defocus, smoothing) has the noise of one pixel in its neighbours,
too. Differences of following frames, the field's taken off, are mostly that noise, so that their
correlation over the distance tells the reach of the blur.
"""

import numpy as np

ALIKE = 0.1  # correlation of frame differences below which pixels count as apart
PAIRS = 300  # pairs of pixels looked at for every distance
MOST_ROWS = 4000  # frames looked at


def light_radius(
    feats: np.ndarray, pixels: np.ndarray, shape: tuple[int, int], *, seed: int = 0
) -> int:
    """Return the distance in pixels from which on pixels share no light, 1 in a sharp movie.

    Args:
        feats: (n, N) series of pixels.
        pixels: (N,) 0-based pixel of every series, -1 outside the image.
        shape: (H, W).
    """
    height, width = shape
    place = np.full(height * width, -1)
    inside = np.flatnonzero(np.asarray(pixels) >= 0)
    place[np.asarray(pixels)[inside]] = inside
    place = place.reshape(shape)
    steps = np.diff(feats[:MOST_ROWS], axis=0)
    steps -= np.median(steps, axis=1, keepdims=True)
    steps -= steps.mean(axis=0)
    steps /= np.maximum(np.sqrt((steps**2).mean(axis=0)), 1e-12)
    random, farthest = np.random.default_rng([seed, 17]), max(2, min(shape) // 2)
    for distance in range(1, farthest):
        first, second = neighbours(place, distance)
        if not len(first):
            continue
        some = random.permutation(len(first))[:PAIRS]
        if (steps[:, first[some]] * steps[:, second[some]]).mean() < ALIKE:
            return distance
    return farthest


def neighbours(place: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the series (k,), (k,) of all pairs ``distance`` pixels apart, to the nearest pixel.

    ``place`` (H, W) int is the series of every pixel, -1 without one.
    """
    height, width = place.shape
    firsts, seconds = [], []
    for down in range(min(distance, height - 1) + 1):
        for across in range(-min(distance, width - 1), min(distance, width - 1) + 1):
            if round(np.hypot(down, across)) != distance or (down == 0 and across < 0):
                continue
            left, right = max(0, -across), min(width, width - across)
            one = place[: height - down, left:right].ravel()
            other = place[down:, left + across : right + across].ravel()
            both = (one >= 0) & (other >= 0)
            firsts.append(one[both])
            seconds.append(other[both])
    empty = np.empty(0, int)
    return np.concatenate([empty, *firsts]), np.concatenate([empty, *seconds])
