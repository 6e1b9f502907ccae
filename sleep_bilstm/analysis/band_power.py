"""Band-power baseline: four frequency bands of three mean signals and logistic regression.

A sanity bar that the network must beat or match. The bands are those of specification section 13,
item 7.
"""

from collections.abc import Sequence

import numpy as np
from scipy import signal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inputs.dataloader_sleep import Epochs
from inputs.states import FRAME_RATE_HZ
from network.context import keys_of, windows

BANDS_HZ = ((0.1, 0.5), (0.5, 1.5), (1.5, 4.0), (4.0, 8.4))


def band_features(frames: np.ndarray) -> np.ndarray:
    """Return log relative power of 4 bands in the global, front and back mean signal: (12,) of
    frames (F, H, W).
    """
    inside = (frames != 0).any(axis=0)
    half = frames.shape[1] // 2
    front, back = inside.copy(), inside.copy()
    front[half:], back[:half] = False, False
    means = np.stack(
        [
            frames[:, part].mean(axis=1) if part.any() else np.zeros(len(frames))
            for part in (inside, front, back)
        ]
    )
    frequency, power = signal.periodogram(means, FRAME_RATE_HZ, window="hann", axis=1)
    total = np.maximum(power.sum(axis=1), 1e-20)
    rows = [
        power[:, (frequency >= low) & (frequency < high)].sum(axis=1) / total
        for low, high in BANDS_HZ
    ]
    return np.log10(np.maximum(np.concatenate(rows), 1e-8))


def baseline_predictions(train: Epochs, test: Epochs) -> np.ndarray:
    """Fit the baseline on ``train``; return the predicted state (N,) of each epoch of ``test``."""
    return baselines(train, test, (0,))[0]


def baselines(train: Epochs, test: Epochs, contexts: Sequence[int]) -> list[np.ndarray]:
    """Return the states (N,) of ``test`` for every number of neighbours on each side.

    Neighbours that are artifacts or beyond the end of a run have features 0.
    """
    features = [np.stack([band_features(e.read(i)) for i in range(len(e))]) for e in (train, test)]
    labels = np.array([train.label_of(i) for i in range(len(train))])
    keys = [keys_of(np.repeat(e.records, e.view.inputs_per_epoch)) for e in (train, test)]
    result = []
    for context in contexts:
        own = features
        if context:
            own = [
                windows(f, k, context)[0].reshape(len(f), -1)
                for f, k in zip(own, keys, strict=True)
            ]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        states = model.fit(own[0], labels).predict(own[1])
        result.append(states[:: test.view.inputs_per_epoch])
    return result
