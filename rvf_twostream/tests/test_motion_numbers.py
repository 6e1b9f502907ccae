"""The five numbers of a movie's flow that stand beside the network: their definitions."""

import numpy as np
import pytest

from analysis.motion_numbers import NAMES, logistic_scores, motion_numbers, swing


def beating_disc(scale, size):
    """Return the flow (20, size, size, 2) of a disc of radius 10 ``scale`` that swells and sinks.

    In pixels: its border moves outwards by up to 0.1 ``scale`` a frame, all of it down by as much;
    what lies around follows less and less.
    """
    rows, cols = np.mgrid[:size, :size] - (size - 1) / 2
    beat = np.sin(2 * np.pi * np.arange(20) / 20)[:, None, None]
    flow = np.stack([beat * cols / 100, beat * (rows / 100 + 0.1 * scale)], axis=-1)
    return flow * np.clip(2 - np.hypot(rows, cols) / (10 * scale), 0, 1)[..., None]


def test_a_swing_does_not_grow_with_the_drift_of_the_flow():
    times = np.arange(200)
    beat = np.cos(2 * np.pi * times / 20) * np.pi / 10  # sums to a sine of amplitude 1
    assert swing(beat) == pytest.approx(2, rel=0.1)
    assert swing(beat + 0.1) == pytest.approx(2, rel=0.1)  # alone the drift is 20
    assert swing(np.ones(1)) == 0


def test_motion_numbers_of_a_beating_disc_do_not_depend_on_the_depth():
    # The same disc in cm: seen at twice the depth it has half the pixels, each of twice the size.
    near, far = (
        dict(zip(NAMES, motion_numbers(beating_disc(scale, 161) / scale), strict=True))
        for scale in (4, 2)
    )
    for name in ("speed", "fast_part", "inward", "up_and_down", "annulus"):
        assert far[name] == pytest.approx(near[name], rel=0.05), name
    # Summed over half a beat: 0.1 * 20 / pi down, and more where the outward flow adds to it.
    assert 0.1 * 20 / np.pi < near["up_and_down"] < 1.3 * 0.1 * 20 / np.pi
    # The annulus is the tissue that goes farthest: more than the mean, never more than the border.
    assert near["up_and_down"] < near["annulus"] < 2 * 0.1 * 20 / np.pi
    # Swelling alone, everywhere: divergence 0.02 at its peak, on all but the slow middle.
    rows, cols = np.mgrid[-20:21, -20:21].astype(float)
    beat = np.sin(2 * np.pi * np.arange(20) / 20)[:, None, None]
    swelling = motion_numbers(np.stack([beat * cols / 100, beat * rows / 100], axis=-1))
    radius = np.hypot(rows, cols)
    area = (radius > 0.4 * np.percentile(radius, 99)).sum()
    inward = dict(zip(NAMES, swelling, strict=True))["inward"]
    assert inward == pytest.approx(0.02 * 20 / np.pi * np.sqrt(area), rel=0.02)
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2 == 1
    numbers = rng.normal(size=(60, 5)) + 2 * y[:, None]
    scores = logistic_scores((numbers[:40], y[:40]), {"test": numbers[40:]})["test"]
    assert scores[y[40:]].mean() > 0.8 > 0.2 > scores[~y[40:]].mean()
