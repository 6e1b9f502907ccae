"""When the frames of a DICOM movie were taken: its frame rate with its origin (specification 5.1).

FrameIncrementPointer names the element that counts. A rate that no echo has is not used: a wrong
unit or a trigger interval would make every speed wrong in silence.
"""

from typing import NamedTuple

import numpy as np
from pydicom import Dataset

PLAUSIBLE_HZ = (5.0, 300.0)  # of an echocardiogram; 13 on old machines, 250 in small sectors
SAME = 0.01  # two rates that differ by less are one
ROUNDED_HZ = 0.5  # CineRate is a whole number
UNEVEN = 0.1  # of the median, from which steps count as different
TAGS = {
    "FrameTime": "(0018,1063)",
    "FrameTimeVector": "(0018,1065)",
    "ActualFrameDuration": "(0018,1242)",
    "CineRate": "(0018,0040)",
    "RecommendedDisplayFrameRate": "(0008,2144)",
}


class Timing(NamedTuple):
    """Frame rate of a movie; ``steps_s`` are the n - 1 intervals where they are uneven."""

    rate_hz: float | None
    origin: str  # "file: FrameTime (0018,1063)", "flag --frame_rate" or "unknown"
    steps_s: tuple[float, ...] | None
    notes: tuple[str, ...]


def timing(data: Dataset, n_frames: int | None = None) -> Timing:
    """Return the frame rate that the header tells, how, and what is odd about it.

    Args:
        data: header.
        n_frames: frames of the movie, to compare FrameTimeVector with; None leaves that out.
    """
    steps = _vector_ms(data)
    rates = {
        "FrameTime": _per_second(data.get("FrameTime")),
        "FrameTimeVector": 1000 / float(np.median(steps)) if steps else None,
        "ActualFrameDuration": _per_second(data.get("ActualFrameDuration")),
        "CineRate": _positive(data.get("CineRate")),
        "RecommendedDisplayFrameRate": _positive(data.get("RecommendedDisplayFrameRate")),
    }
    names = list(rates)
    if 0x00181065 in _pointers(data):
        names[:2] = ["FrameTimeVector", "FrameTime"]
    told = {name: rates[name] for name in names if rates[name]}
    good = {n: r for n, r in told.items() if PLAUSIBLE_HZ[0] <= r <= PLAUSIBLE_HZ[1]}
    notes = [
        f"{name} {TAGS[name]} gives {rate:.6g} frames/s, outside {PLAUSIBLE_HZ[0]:g} to "
        f"{PLAUSIBLE_HZ[1]:g}: not used"
        for name, rate in told.items()
        if name not in good
    ]
    if not good:
        if notes:
            notes.append("no plausible frame rate: give --frame_rate where one is needed")
        return Timing(None, "unknown", None, tuple(notes))
    name, rate = next(iter(good.items()))
    for other, value in good.items():
        limit = max(SAME * rate, ROUNDED_HZ if other == "CineRate" else 0)
        if other != "RecommendedDisplayFrameRate" and abs(value - rate) > limit:
            notes.append(
                f"{other} {TAGS[other]} says {value:.4g} frames/s, {name} {TAGS[name]} "
                f"{rate:.4g}: {name} is used"
            )
    uneven = None
    if name == "FrameTimeVector":
        if n_frames is not None and len(steps) != n_frames - 1:
            notes.append(
                f"FrameTimeVector {TAGS[name]} has {len(steps)} steps for {n_frames} frames"
            )
        elif max(steps) - min(steps) > UNEVEN * float(np.median(steps)):
            uneven = tuple(step / 1000 for step in steps)
            notes.append(
                f"FrameTimeVector {TAGS[name]} has steps of {min(steps):g} to {max(steps):g} ms: "
                "the frame rate is that of their median"
            )
    return Timing(rate, f"file: {name} {TAGS[name]}", uneven, tuple(notes))


def frame_rate_hz(data: Dataset) -> float | None:
    """Return frames per second, or None when the header does not tell."""
    return timing(data).rate_hz


def _pointers(data):
    """Return the tags that FrameIncrementPointer names."""
    value = data.get("FrameIncrementPointer")
    if value is None:
        return ()
    try:
        return (int(value),)
    except (TypeError, ValueError):
        pass
    try:
        return tuple(int(tag) for tag in value)
    except (TypeError, ValueError):
        return ()


def _vector_ms(data):
    """Return the intervals between frames in ms; the first number belongs to no interval."""
    vector = data.get("FrameTimeVector")
    if vector is None or isinstance(vector, str):
        return []
    try:
        steps = [float(step) for step in list(vector)[1:]]
    except (TypeError, ValueError):
        return []
    return steps if steps and all(np.isfinite(step) and step > 0 for step in steps) else []


def _per_second(value):
    time_ms = _positive(value)
    return 1000 / time_ms if time_ms else None


def _positive(value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None
