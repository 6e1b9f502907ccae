"""A few numbers of the flow that a cardiologist could name, and how well they tell failure alone.

A network that does no better than these has learnt no more than "how much moves".
Letters in shape comments: n frames, r rows, c columns, p patients.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = ("speed", "fast_part", "inward", "up_and_down", "annulus")
MOVING = 0.4  # of the speed of the fastest tissue, from which a pixel counts as moving tissue
FASTEST = 99  # percentile of the pixels' mean speeds that stands for it
FARTHEST = 95  # percentile of the ways of moving pixels that stands for the annulus


def motion_numbers(flow: np.ndarray) -> np.ndarray:
    """Return the numbers NAMES of a flow (n, r, c, 2) in one unit, (5,).

    All are of the tissue that moves, so that they hardly depend on how much of the picture it
    fills: with flow in cm/s at one frame rate they mean the same at every depth.
    speed: mean length of the vectors; fast_part: their 95th percentile; inward: range over time of
    the summed divergence times the root of the area, the way that the border goes inwards;
    up_and_down: range of the summed mean displacement; annulus: range of the summed displacement
    up and down of the tissue that goes farthest.
    """
    flow = np.asarray(flow, np.float64)
    length = np.hypot(flow[..., 0], flow[..., 1])  # (n, r, c)
    mean = length.mean(axis=0)  # (r, c)
    moving = mean > MOVING * np.percentile(mean, FASTEST)
    if not moving.any():
        moving[:] = True
    spread = np.gradient(flow[..., 0], axis=2) + np.gradient(flow[..., 1], axis=1)
    ways = np.ptp(np.cumsum(flow[:, moving, 1], axis=0), axis=0)  # of each pixel
    return np.array(
        [
            length[:, moving].mean(),
            np.percentile(length[:, moving], 95),
            swing(spread[:, moving].mean(axis=1)) * np.sqrt(moving.sum()),
            swing(flow[:, moving, 1].mean(axis=1)),
            np.percentile(ways, FARTHEST),
        ]
    )


def swing(steps: np.ndarray) -> float:
    """Return the range of the sum of ``steps`` (n,) about its line.

    A heart comes back; what a long movie gains or loses on the way is the flow's own error.
    """
    path = np.cumsum(steps)
    times = np.arange(len(path)) - (len(path) - 1) / 2
    slope = (times @ path) / max(times @ times, 1.0)
    return float(np.ptp(path - slope * times))


def logistic_scores(
    train: tuple[np.ndarray, Sequence[bool]], others: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return {set: probability (p,)} of a logistic regression on standardised numbers.

    Args:
        train: numbers (p, k) and labels (p,) of the training patients, both classes among them.
        others: {set: numbers (p, k)}.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    model.fit(train[0], np.asarray(train[1], bool))
    return {name: model.predict_proba(numbers)[:, 1] for name, numbers in others.items()}
