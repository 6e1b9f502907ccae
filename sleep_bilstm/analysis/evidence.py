"""Whether an epoch holds evidence of a state at all: missing signal, and signals that training
never saw (movement bursts, dropped frames, saturation, power out of range).

F frames, H x W pixels, D features. Frames are normalised inputs of the network. The features of
training epochs, which hold no artifacts, say what is usual; nothing here looks at scores.
"""

from dataclasses import asdict, dataclass

import numpy as np

from analysis.band_power import band_features
from inputs.dataloader_sleep import Epochs
from inputs.states import FRAMES_PER_EPOCH

MISSING = 0.5  # share of values inside the brain that are missing: no state above
MOST_EPOCHS = 200  # of training, evenly spread, that say what is usual
USUAL = 0.995  # quantile of the scores of training epochs
MARGIN = 1.25  # above that quantile an epoch is no longer usual
LEAST = 3.0  # robust deviations that are usual whatever the training epochs say
CALM = 0.05  # a frame that changes by less, in units of the median change, is a repeated one
NAMES = ("burst", "repeated frames", "saturation", "slow drift")
BANDS = "power in frequency bands"


def centre(frames: np.ndarray) -> np.ndarray:
    """Return the own 10 s of an input (F, H, W) that holds parts of its neighbours."""
    side = max(0, len(frames) - FRAMES_PER_EPOCH) // 2
    return frames[side : len(frames) - side]


def missing_share(frames: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of values of frames (F, H, W) inside the mask (H, W) that are missing.

    Missing values (NaN, infinite, pixels that never change) are 0 after normalisation.
    """
    own = centre(frames)[:, mask]
    return 1.0 if own.size == 0 else float((own == 0).mean())


def quality_features(frames: np.ndarray) -> np.ndarray:
    """Return what artifacts change in frames (F, H, W): (D,), NaN where nothing can be said.

    burst: largest root mean square of a frame over the median one, as logarithm. repeated frames:
    share of frames that hardly differ from the one before. saturation: share of values that equal
    the highest or lowest value of their pixel. slow drift: share of the variance of the mean signal
    in its straight line. Then the band power of band_features.
    """
    own = centre(frames)
    inside = (own != 0).any(axis=0)
    if not inside.any() or len(own) < 3:
        return np.full(len(NAMES) + 12, np.nan)
    signals = own[:, inside]  # (F, P)
    size = np.sqrt(np.einsum("fp,fp->f", signals, signals) / signals.shape[1])
    change = np.diff(signals, axis=0)
    steps = np.sqrt(np.einsum("fp,fp->f", change, change) / signals.shape[1])
    calm = steps <= CALM * np.median(steps)
    span = np.ptp(signals, axis=0)
    near = 1e-4 * span
    ends = (signals >= signals.max(axis=0) - near) | (signals <= signals.min(axis=0) + near)
    mean = signals.mean(axis=1)
    time = np.linspace(-1, 1, mean.size)
    line = (mean @ time) ** 2 / max(
        (time @ time) * (mean - mean.mean()) @ (mean - mean.mean()), 1e-12
    )
    own_features = [
        np.log(max(size.max(), 1e-12) / max(np.median(size), 1e-12)),
        calm.mean(),
        ends.mean(),
        line,
    ]
    return np.concatenate([own_features, band_features(own)])


@dataclass(frozen=True)
class Usual:
    """What training epochs look like.

    Attributes:
        middle, spread: (D,) median and robust deviation of every feature.
        factor: (D - 4, D - 4) that turns deviations of the band power into uncorrelated ones.
        limits: deviation of every part (NAMES, then the band power) above which it is not usual.
        n: number of epochs behind it.
    """

    middle: list
    spread: list
    factor: list
    limits: list
    n: int

    def to_json(self) -> dict:
        """Return it as plain values."""
        return asdict(self)

    def scores(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the score (N,) of features (N, D), above 1 for an artifact, and (N,) the part
        that decides: a place in NAMES, or its length for the band power.
        """
        parts = self.deviations(features) / np.array(self.limits)
        return parts.max(axis=1), parts.argmax(axis=1)

    def deviations(self, features: np.ndarray) -> np.ndarray:
        """Return how far every part of features (N, D) is from the usual: (N, len(NAMES) + 1)."""
        n = len(NAMES)
        deviation = (features - np.array(self.middle)) / np.array(self.spread)
        power = deviation[:, n:] @ np.array(self.factor)
        distance = np.sqrt((power**2).mean(axis=1))
        parts = np.column_stack([deviation[:, :n], distance])
        return np.where(np.isfinite(parts), parts, np.inf)


def usual_of(features: np.ndarray) -> Usual:
    """Return what is usual among features (N, D) of training epochs, in the order of their mice.

    The limits come from epochs that did not take part: each half is judged by the other.
    """
    features = features[np.isfinite(features).all(axis=1)]
    half = len(features) // 2
    parts = features[:half], features[half:]
    apart = np.concatenate([_middle_of(a).deviations(b) for a, b in (parts, parts[::-1])])
    limits = MARGIN * np.maximum(np.quantile(apart, USUAL, axis=0), LEAST)
    whole = _middle_of(features)
    return Usual(whole.middle, whole.spread, whole.factor, limits.tolist(), whole.n)


def _middle_of(features: np.ndarray) -> Usual:
    """Return middle and spread of features (N, D); all limits are 1."""
    n = len(NAMES)
    middle = np.median(features, axis=0)
    spread = 1.4826 * np.median(np.abs(features - middle), axis=0)
    # A feature that hardly ever differs (no repeated frame at all) still has a scale.
    floor = np.r_[[0.05, 0.003, 0.005, 0.1], np.full(features.shape[1] - n, 0.02)]
    spread = np.maximum(spread, floor)
    deviation = (features - middle) / spread
    # Pulled towards independent features: there are not many more epochs than features.
    size = features.shape[1] - n
    covariance = 0.8 * np.cov(deviation[:, n:].T) + 0.2 * np.eye(size)
    values, vectors = np.linalg.eigh(covariance)
    factor = vectors / np.sqrt(values)
    return Usual(middle.tolist(), spread.tolist(), factor.tolist(), [1.0] * (n + 1), len(features))


def learn_usual(train: Epochs) -> Usual | None:
    """Return what is usual among the training epochs, or None when there are too few to say."""
    count = min(MOST_EPOCHS, len(train))
    places = np.unique(np.linspace(0, len(train) - 1, count).round().astype(int))
    features = np.stack([quality_features(train.read(int(i))) for i in places])
    features = features[np.isfinite(features).all(axis=1)]
    return usual_of(features) if len(features) >= 2 * features.shape[1] else None


def flags_of(
    missing: np.ndarray, features: np.ndarray, usual: Usual | None
) -> tuple[list[str], np.ndarray]:
    """Return why each epoch has no evidence of a state ("" where it has), and its artifact score.

    Args:
        missing: (N,) of missing_share.
        features: (N, D) of quality_features.
        usual: of the training epochs; None: only missing values count, scores are NaN.
    """
    texts = [f"{100 * m:.0f} % of the signal is missing" if m > MISSING else "" for m in missing]
    if usual is None:
        return texts, np.full(len(texts), np.nan)
    scores, parts = usual.scores(features)
    names = (*NAMES, BANDS)
    for i, (score, part) in enumerate(zip(scores, parts, strict=True)):
        if not texts[i] and score > 1:
            texts[i] = f"artifact: {names[part]}"
    return texts, scores
