"""Recordings whose only evidence of the state lies in one quadrant, to test where maps point.

Every pixel carries independent noise; the pixels of the planted quadrant share a wave of 5 s whose
shape names the state: rising, falling, or a sine. Source: specification section 4.7 and check A12.
"""

from pathlib import Path

import numpy as np

from files import write_json
from mat_writer import write_recording
from states import FRAMES_PER_EPOCH, LABEL_TO_RAW

SIZE = 16  # pixels per side
PERIOD = 84  # frames of a wave
AMPLITUDE = 1.5  # of the shared wave, in deviations of the noise
MICE = {"980101": 30, "980102": 10, "980103": 30}  # epochs per state: training, validation, test


def planted_quadrant(seed: int) -> int:
    """Return the quadrant of a seed: 0 front left, 1 front right, 2 back left, 3 back right."""
    return int(np.random.default_rng([seed, 4]).integers(4))


def quadrant_masks(height: int, width: int) -> np.ndarray:
    """Return (4, H, W) bool masks of the quadrants, in the order of planted_quadrant."""
    front = np.arange(height)[:, None] < height // 2
    left = np.arange(width)[None] < width // 2
    return np.stack([front & left, front & ~left, ~front & left, ~front & ~left])


def wave_of(label: int) -> np.ndarray:
    """Return the wave (168,) of a state: 0 a rising, 1 a falling sawtooth, 2 a sine."""
    phase = np.arange(FRAMES_PER_EPOCH) % PERIOD / PERIOD
    return (2 * phase - 1, 1 - 2 * phase, np.sin(2 * np.pi * phase))[label]


def make_toy(out: Path, seed: int) -> int:
    """Write one recording per mouse below ``out``, or reuse a complete set; return the quadrant."""
    quadrant = planted_quadrant(seed)
    if (out / "truth.json").is_file():
        return quadrant
    inside = quadrant_masks(SIZE, SIZE)[quadrant]
    for number, (date, per_state) in enumerate(MICE.items()):
        rng = np.random.default_rng([seed, 5, number])
        labels = rng.permutation(np.repeat(np.arange(3), per_state))
        movie = rng.standard_normal((labels.size, FRAMES_PER_EPOCH, SIZE, SIZE), dtype=np.float32)
        for frames, label in zip(movie, labels, strict=True):
            frames[:, inside] += (AMPLITUDE * wave_of(int(label))).astype(np.float32)[:, None]
        codes = [LABEL_TO_RAW[int(label)] for label in labels]
        path = out / date / f"{date}-Q{number + 1}-fc1-quadrant.mat"
        write_recording(path, movie, np.ones((SIZE, SIZE), bool), codes)
    write_json(out / "truth.json", {"format": 1, "seed": seed, "quadrant": quadrant})
    return quadrant
