"""Numbers from peaks: preferred size, speed and direction, looming selectivity."""

import math
from collections.abc import Sequence

import numpy as np

from inputs.stimuli import Stimulus


def tuning_indices(family: str, stimuli: Sequence[Stimulus], peaks: np.ndarray) -> dict:
    """Return {index: value} for the peaks (stimuli,) of one cell type in a stimulus family.

    size_tuning: preferred width and height, and small_object_index = (s - l) / (s + l), s the mean
    peak of squares up to 9 degrees, l of squares from 30. looming: looming_index = (e - c) / (e +
    c), e
    the mean of the expanding discs, c the contracting one. speed, loom_rv, flicker: the preferred
    value. direction: index |sum p exp(i angle)| / sum p and the preferred angle.
    """
    peaks = np.maximum(np.asarray(peaks, dtype=np.float64), 0.0)
    best = stimuli[int(peaks.argmax())]
    indices = {"preferred": best.label, "peak": float(peaks.max())}
    if family == "size_tuning":
        square = {
            s.parameters["width_deg"]: p
            for s, p in zip(stimuli, peaks, strict=True)
            if s.parameters["width_deg"] == s.parameters["height_deg"]
        }
        small = np.mean([p for size, p in square.items() if size <= 9])
        large = np.mean([p for size, p in square.items() if size >= 30])
        indices |= {
            "preferred_width_deg": best.parameters["width_deg"],
            "preferred_height_deg": best.parameters["height_deg"],
            "small_object_index": _contrast(small, large),
        }
    elif family == "looming":
        by_code = {s.barcode: p for s, p in zip(stimuli, peaks, strict=True)}
        expanding = np.mean([by_code[code] for code in (321, 322, 329) if code in by_code])
        indices["looming_index"] = _contrast(expanding, by_code.get(327, math.nan))
    elif family == "direction":
        angles = np.radians([s.parameters["angle_deg"] for s in stimuli])
        vector = (peaks * np.exp(1j * angles)).sum()
        indices["direction_index"] = (
            float(abs(vector) / peaks.sum()) if peaks.sum() > 0 else math.nan
        )
        indices["preferred_angle_deg"] = float(np.degrees(np.angle(vector)) % 360)
    else:
        key = {"speed": "speed_deg_s", "grating": "speed_deg_s", "loom_rv": "r_over_v_ms",
               "flicker": "hertz"}.get(family)  # fmt: skip
        if key:
            indices[f"preferred_{key}"] = best.parameters[key]
    return indices


def _contrast(a, b):
    return float((a - b) / (a + b)) if a + b > 0 else math.nan
