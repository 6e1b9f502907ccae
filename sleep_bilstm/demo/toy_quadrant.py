"""Recordings whose only evidence of the state lies in one quadrant, to test where maps point.

Every pixel carries independent noise; in the planted quadrant a texture that names the state
(vertical stripes, horizontal stripes, chessboard) flickers with a random strength per frame. The
mice for training and validation also have epochs without any texture under arbitrary labels:
without them one state would become the network's answer to "nothing seen", and hiding its evidence
would change nothing. Source: specification section 4.7 and check A12.
"""

from pathlib import Path

import numpy as np

from common.files import write_json
from inputs.mat_writer import write_recording
from inputs.states import FRAMES_PER_EPOCH, LABEL_TO_RAW

SIZE = 16  # pixels per side
AMPLITUDE = 1.5  # deviation of the texture's strength over time, in deviations of the noise
MICE = {"980101": 30, "980102": 10, "980103": 20}  # epochs per state: training, validation, test
BLANK = {"980101": 10, "980102": 3, "980103": 0}  # per state, without a texture, in addition


def planted_quadrant(seed: int) -> int:
    """Return the quadrant of a seed: 0 front left, 1 front right, 2 back left, 3 back right."""
    return int(np.random.default_rng([seed, 4]).integers(4))


def quadrant_masks(height: int, width: int) -> np.ndarray:
    """Return (4, H, W) bool masks of the quadrants, in the order of planted_quadrant."""
    front = np.arange(height)[:, None] < height // 2
    left = np.arange(width)[None] < width // 2
    return np.stack([front & left, front & ~left, ~front & left, ~front & ~left])


def textures(height: int, width: int) -> np.ndarray:
    """Return (3, H, W) textures of +1 and -1, one per state, one pixel fine."""
    rows, columns = np.mgrid[:height, :width]
    return 1.0 - 2 * (np.stack([columns, rows, rows + columns]) % 2)


def make_toy(out: Path, seed: int) -> int:
    """Write one recording per mouse below ``out``, or reuse a complete set; return the quadrant."""
    quadrant = planted_quadrant(seed)
    if (out / "truth.json").is_file():
        return quadrant
    planted = AMPLITUDE * textures(SIZE, SIZE) * quadrant_masks(SIZE, SIZE)[quadrant]  # (3, H, W)
    for number, (date, per_state) in enumerate(MICE.items()):
        rng = np.random.default_rng([seed, 5, number])
        labels = np.repeat(np.arange(3), per_state + BLANK[date])
        shown = np.tile(np.arange(per_state + BLANK[date]) < per_state, 3)
        order = rng.permutation(labels.size)
        labels, shown = labels[order], shown[order]
        movie = rng.standard_normal((labels.size, FRAMES_PER_EPOCH, SIZE, SIZE), dtype=np.float32)
        strength = rng.standard_normal((labels.size, FRAMES_PER_EPOCH)) * shown[:, None]
        for frames, flicker, label in zip(movie, strength, labels, strict=True):
            frames += np.multiply.outer(flicker, planted[label]).astype(np.float32)
        codes = [LABEL_TO_RAW[int(label)] for label in labels]
        path = out / date / f"{date}-Q{number + 1}-fc1-quadrant.mat"
        write_recording(path, movie, np.ones((SIZE, SIZE), bool), codes)
    write_json(out / "truth.json", {"format": 1, "seed": seed, "quadrant": quadrant})
    return quadrant
