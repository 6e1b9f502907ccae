"""A hypnogram without holes, and how words and letters of other programs become its states.

T epochs, N rows.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.scores import WORDS, parse_codes
from inputs.states import ARTIFACT, ARTIFACT_CODE, NREM, RAW_TO_LABEL, REM, UNSCORED, WAKE

log = logging.getLogger(__name__)
WRITTEN = {WAKE: "wake", NREM: "NREM", REM: "REM", ARTIFACT: "artifact", UNSCORED: "unscored"}
SCORES_MORE = {  # beside the words of inputs/scores.py
    "sleepsign": {"rw": WAKE, "s": NREM, "m": ARTIFACT},
    "edf": {**dict.fromkeys(("n1", "n2", "n3", "n4", "1", "2", "3", "4"), NREM), "mt": ARTIFACT},
}


@dataclass(frozen=True)
class Scoring:
    """A hypnogram without holes.

    Attributes:
        states: (T,) 0 wake, 1 NREM, 2 REM, -1 not scored, -2 artifact.
        epoch_s: length of an epoch in s; None when the file does not say.
        start: clock time of the first epoch; None when the file does not say.
    """

    states: np.ndarray
    epoch_s: float | None = None
    start: datetime | None = None


def _state(text: str, known: dict[str, int], where: str) -> int:
    key = "".join(c for c in text.strip().lower() if c not in " -_")
    if key not in known:
        raise InputError(
            f"{where}: state {text!r} is not known; say what it means with --codes {text}=wake"
        )
    return known[key]


def as_states(texts: Iterable[str], codes: str, path: Path, kind: str) -> np.ndarray:
    """Return the states (T,) of words and letters, and say how each was read."""
    raw = {
        word: {**RAW_TO_LABEL, ARTIFACT_CODE: ARTIFACT}.get(v, UNSCORED)
        for word, v in WORDS.items()
    }
    own = {
        word: {**RAW_TO_LABEL, ARTIFACT_CODE: ARTIFACT}.get(v, UNSCORED)
        for word, v in parse_codes(codes).items()
    }
    known = {**raw, **SCORES_MORE.get(kind, {}), **own}
    texts = list(texts)
    states = {text: _state(text, known, str(path)) for text in dict.fromkeys(texts)}
    counts = Counter(texts)
    read = ", ".join(
        f"{text or 'nothing'} ({counts[text]}) as {WRITTEN[s]}" for text, s in states.items()
    )
    log.info("%s: read %s", path, read)
    return np.array([states[text] for text in texts], int)


def positive_seconds(text: str) -> float:
    """Return a length in s given on a command line; argparse tells what is wrong with others."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no length in s; expected a number above 0")
    return seconds


def regular(times: np.ndarray, path: Path) -> tuple[np.ndarray, float | None]:
    """Return the place (N,) of every time (N,) in s on a regular axis, and its step."""
    if len(times) < 2:
        return np.zeros(len(times), int), None
    steps = np.diff(times)
    if (steps <= 0).any():
        raise InputError(f"{path}: times do not rise from row to row; expected time order")
    step = float(np.min(steps))
    places = (times - times[0]) / step
    if np.abs(places - np.round(places)).max() > 0.02:
        raise InputError(
            f"{path}: epochs do not lie {step:g} s apart; expected epochs of equal length"
        )
    return np.round(places).astype(int), step


def on_axis(places: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return states (T,) of an axis that begins with place 0, -1 where no row is."""
    axis = np.full(int(places.max()) + 1 if len(places) else 0, UNSCORED)
    axis[places] = states
    return axis
