"""Smooth a sequence of predicted states: median over 3 epochs, minimum bout length, or a hidden
Markov pass.

Epochs are smoothed within stretches without a gap; a stretch never crosses the border of two
recordings.
Source: specification section 13, item 3.
"""

import numpy as np

from inputs.hypnogram import stretches
from inputs.states import REM, WAKE

SMOOTHING = ("none", "median", "bout", "hmm")
MIN_BOUT = 2  # epochs
FORBIDDEN = 1e-6  # probability of wake -> REM, which does not occur in a healthy mouse


def median_of_three(states: np.ndarray) -> np.ndarray:
    """Replace each epoch that differs from two equal neighbours; the first and last epoch stay.

    States have no order, so the median is the majority of three; without a majority the epoch
    stays.
    """
    if states.size < 3:
        return states.copy()
    result = states.copy()
    same = states[:-2] == states[2:]
    result[1:-1][same] = states[:-2][same]
    return result


def minimum_bout(states: np.ndarray, shortest: int = MIN_BOUT) -> np.ndarray:
    """Join each bout shorter than ``shortest`` epochs to the bout before it.

    A first bout that is still too short afterwards is joined to the next one.
    """
    result = states.copy()
    starts = np.flatnonzero(np.diff(states) != 0) + 1
    stops = np.append(starts, states.size)[1:]
    for start, stop in zip(starts, stops, strict=True):
        if stop - start < shortest:
            result[start:stop] = result[start - 1]
    changes = np.flatnonzero(np.diff(result) != 0) + 1
    if changes.size and changes[0] < shortest:
        result[: changes[0]] = result[changes[0]]
    return result


def transition_matrix(labels: np.ndarray, keys: list[np.ndarray], num_classes: int) -> np.ndarray:
    """Return transition probabilities (K, K) of training labels, one pseudo-count each, wake -> REM
    forbidden.

    Args:
        labels: (N,) in time order.
        keys: arrays (N,) recording number and epoch; pairs count only between consecutive epochs.
        num_classes: K.
    """
    counts = np.ones((num_classes, num_classes))
    for part in stretches(*keys):
        np.add.at(counts, (labels[part][:-1], labels[part][1:]), 1)
    matrix = counts / counts.sum(axis=1, keepdims=True)
    if num_classes == 3:
        matrix[WAKE, REM] = FORBIDDEN
        matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def class_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share (K,) of every state among training labels (N,), one pseudo-count each."""
    counts = np.bincount(labels[labels >= 0], minlength=num_classes) + 1.0
    return counts / counts.sum()


def most_probable_path(
    probs: np.ndarray, transitions: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Return the Viterbi path (N,) of state probabilities (N, K), the outputs of a classifier.

    Each is divided by the share (K,) of its state in training, which the classifier has learnt as
    well; the first epoch starts from these shares. Means of the stretch itself would call any
    stretch of one sure state undecided.
    """
    with np.errstate(divide="ignore"):
        emission = np.log(np.maximum(probs, 1e-9)) - np.log(shares)
        step = np.log(transitions)
    score, back = np.log(shares) + emission[0], np.zeros(probs.shape, int)
    for t in range(1, len(probs)):
        candidates = score[:, None] + step
        back[t] = candidates.argmax(axis=0)
        score = candidates.max(axis=0) + emission[t]
    path = [int(score.argmax())]
    for t in range(len(probs) - 1, 0, -1):
        path.append(int(back[t, path[-1]]))
    return np.array(path[::-1])


def shares_of(transitions: np.ndarray) -> np.ndarray:
    """Return the shares (K,) that states have in the long run under transitions (K, K)."""
    values, vectors = np.linalg.eig(transitions.T)
    lasting = np.abs(np.real(vectors[:, np.argmin(np.abs(values - 1))]))
    return lasting / lasting.sum()


def smooth(
    kind: str,
    probs: np.ndarray,
    recording: np.ndarray,
    epoch: np.ndarray,
    learnt: tuple[np.ndarray, np.ndarray] | np.ndarray | None = None,
) -> np.ndarray:
    """Return the smoothed states (N,) of probabilities (N, K) in time order.

    Args:
        kind: one of SMOOTHING.
        recording, epoch: (N,) number of the recording and of the epoch in it.
        learnt: transition_matrix (K, K) and class_shares (K,) of the training labels, for "hmm";
            of a matrix alone the shares are those that it leads to.
    """
    if isinstance(learnt, np.ndarray):
        learnt = learnt, shares_of(learnt)
    states = probs.argmax(axis=1)
    result = states.copy()
    for part in stretches(recording, epoch):
        if kind == "median":
            result[part] = median_of_three(states[part])
        elif kind == "bout":
            result[part] = minimum_bout(states[part])
        elif kind == "hmm":
            result[part] = most_probable_path(probs[part], *learnt)
    return result
