"""Spark location matching and pixel counts with exclusion zones, as published in October 2022.

Section 8.9 of the specification. Points are (t, y, x); masks (T, H, W) bool.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

BETAS = (0.5, 1.0, 2.0)
FORBIDDEN = 9999999.0  # cost of a pair that is too far apart
CROSS = ndimage.generate_binary_structure(3, 1)


def match_sparks(
    true_points: np.ndarray,
    predicted_points: np.ndarray,
    *,
    distance_frames: float,
    distance_px: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Assign predicted to true spark locations.

    Args:
        true_points: (N, 3) (t, y, x).
        predicted_points: (M, 3) (t, y, x).
        distance_frames: distance 1 along t, in frames.
        distance_px: distance 1 along y and x, in pixels.

    Returns:
        (paired true (K, 3), paired predicted (K, 3), false positives, false negatives); pairs are
        at most 1 apart after scaling.
    """
    true_points = np.asarray(true_points, np.float64).reshape(-1, 3)
    predicted_points = np.asarray(predicted_points, np.float64).reshape(-1, 3)
    scale = np.array([distance_frames, distance_px, distance_px], np.float64)
    gaps = true_points[:, None] / scale - predicted_points[None] / scale  # (N, M, 3)
    distance = np.sqrt((gaps**2).sum(axis=-1))
    rows, columns = linear_sum_assignment(np.where(distance > 1, FORBIDDEN, distance))
    near = distance[rows, columns] <= 1
    rows, columns = rows[near], columns[near]
    return (
        true_points[rows],
        predicted_points[columns],
        np.delete(predicted_points, columns, axis=0),
        np.delete(true_points, rows, axis=0),
    )


def location_metrics(tp: int, n_predicted: int, n_true: int) -> dict[str, float]:
    """Return {"precision", "recall", "f0.5", "f1", "f2"}; precision and recall are 1 for 0 / 0."""
    precision = tp / n_predicted if n_predicted else 1.0
    recall = tp / n_true if n_true else 1.0
    scores = {f"f{beta:g}": f_beta(precision, recall, beta) for beta in BETAS}
    return {"precision": precision, "recall": recall, **scores}


def f_beta(precision: float, recall: float, beta: float) -> float:
    """Return (1 + b^2) P R / (b^2 P + R), 0 where P + R = 0.

    Differs: the published code of 2022 has P + R in the numerator for beta != 1.
    """
    if precision + recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def excluded_zone(
    truth: np.ndarray, ignore: np.ndarray | None, radius: int, *, sparks: bool
) -> np.ndarray:
    """Return the voxels that do not count.

    Args:
        truth: (T, H, W) bool, annotated class.
        ignore: (T, H, W) bool, label 4, or None.
        radius: of the exclusion zone in voxels (6-neighbourhood steps).
        sparks: True keeps the whole annotation and excludes only the ring around it.
    """
    zone = np.zeros(truth.shape, bool)
    if radius > 0:
        zone = ndimage.binary_dilation(truth, CROSS, iterations=radius)
        inner = truth if sparks else ndimage.binary_erosion(truth, CROSS, iterations=radius)
        zone = zone ^ inner
    if ignore is not None:
        grown = ndimage.binary_dilation(ignore, CROSS, iterations=radius) if radius else ignore
        zone = zone | grown
    return zone


def exclusion_levels(
    truth: np.ndarray, ignore: np.ndarray | None, radii: Sequence[int], *, sparks: bool
) -> np.ndarray:
    """Return for each voxel the index of the first radius that excludes it, (T, H, W) uint8.

    Zones grow with the radius, so ``level > i`` tells whether a voxel counts at ``radii[i]``;
    ``len(radii)`` marks voxels that always count. Args: see excluded_zone; ``radii`` rises.
    """
    levels = np.full(truth.shape, len(radii), np.uint8)
    for index in reversed(range(len(radii))):
        levels[excluded_zone(truth, ignore, radii[index], sparks=sparks)] = index
    return levels


def threshold_counts(
    truth: np.ndarray, levels: np.ndarray, probability: np.ndarray, thresholds: Sequence[float]
) -> list[list[dict[str, int]]]:
    """Return pixel counts of all thresholds and exclusion radii from one joint histogram.

    Args:
        truth: (T, H, W) bool.
        levels: (T, H, W) of exclusion_levels.
        probability: (T, H, W) in 0..1; predicted where above a threshold. A bool mask counts as 0
            and 1, so that one threshold of .5 counts it.
        thresholds: rising numbers.

    Returns:
        List over thresholds of lists over exclusion radii of {"tp", "tn", "fp", "fn"}.
    """
    thresholds = np.asarray(thresholds, np.float64)
    # A voxel with k has a value above the first k thresholds.
    passed = np.searchsorted(thresholds, probability.ravel().astype(np.float64), side="left")
    n, n_levels = len(thresholds) + 1, int(levels.max(initial=0)) + 1
    code = (levels.ravel().astype(np.int64) * 2 + truth.ravel()) * n + passed
    joint = np.bincount(code, minlength=n_levels * 2 * n).reshape(n_levels, 2, n)
    counted = np.cumsum(joint[::-1], axis=0)[::-1]  # (level or later, truth, passed)
    above = np.cumsum(counted[..., ::-1], axis=-1)[..., ::-1]  # passed at least k
    none = np.zeros_like(above[:1])
    above = np.concatenate([above, none])
    return [
        [_four_counts(above[radius + 1], k) for radius in range(n_levels - 1)] for k in range(1, n)
    ]


def _four_counts(passed, k):
    """Return tp, tn, fp, fn of the table (truth, number of voxels that passed k thresholds)."""
    fp, tp = (int(v) for v in passed[:, k])
    n_false, n_true = (int(v) for v in passed[:, 0])
    return {"tp": tp, "tn": n_false - fp, "fp": fp, "fn": n_true - tp}


def pixel_metrics(tp: int, tn: int, fp: int, fn: int) -> dict[str, float]:
    """Return iou, precision, recall, accuracy, dice and mcc of pixel counts; 1 for 0 / 0.

    Differs: the published Dice of 2022 lacks the factor 2 in its numerator.
    """
    return {
        "iou": _or_one(tp, tp + fp + fn),
        "precision": _or_one(tp, tp + fp),
        "recall": _or_one(tp, tp + fn),
        "accuracy": _or_one(tp + tn, tp + tn + fp + fn),
        "dice": _or_one(2 * tp, 2 * tp + fp + fn),
        "mcc": matthews(tp, tn, fp, fn),
    }


def matthews(tp: int, tn: int, fp: int, fn: int) -> float:
    """Return Matthews' correlation; 1 for only tp or only tn, -1 for only fp or only fn, else 0."""
    present = [name for name, n in (("tp", tp), ("tn", tn), ("fp", fp), ("fn", fn)) if n]
    if len(present) == 1:
        return 1.0 if present[0] in ("tp", "tn") else -1.0
    product = float(tp + fp) * float(tp + fn) * float(tn + fp) * float(tn + fn)
    if product == 0:
        return 0.0
    return (float(tp) * tn - float(fp) * fn) / math.sqrt(product)


def _or_one(part, whole):
    return part / whole if whole else 1.0
