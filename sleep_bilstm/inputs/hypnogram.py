"""The hypnogram of one animal in one session: states on a time axis that has no holes.

Recordings come in runs; a run holds epochs of 10 s. The files hold no time stamps, so the runs of a
session are laid end to end, each with all its epochs, artifacts included. T epochs on that axis, N
of them scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.files import InputError
from inputs.shards import Record, recording_codes
from inputs.states import ARTIFACT, ARTIFACT_CODE, EPOCH_S, STATE_NAMES, UNSCORED

CLOCK = "runs laid end to end: the files hold no time stamps"
CLOCK_SHORT = f"{CLOCK}, and not the lengths of the runs, which end with their last known epoch"


def mouse_names(records: Sequence[Record]) -> list[str]:
    """Return the animal of every record: its date code, or `<date>-<tag>` where animals share one.

    Published splits name an animal by its date code alone.
    """
    tags = {}
    for record in records:
        tags.setdefault(record.date, set()).add(record.mouse)
    return [r.date if len(tags[r.date]) == 1 else f"{r.date}-{r.mouse}" for r in records]


def places_of_mice(records: Sequence[Record]) -> dict[str, list[int]]:
    """Map every animal to the positions of its records, in the order of the records."""
    places = {}
    for place, name in enumerate(mouse_names(records)):
        places.setdefault(name, []).append(place)
    return places


def stretches(recording: np.ndarray, epoch: np.ndarray) -> list[slice]:
    """Return the slices of consecutive epochs (N,) of one recording (N,)."""
    if len(epoch) == 0:
        return []
    breaks = np.flatnonzero((np.diff(recording) != 0) | (np.diff(epoch) != 1)) + 1
    edges = [0, *breaks.tolist(), len(epoch)]
    return [slice(a, b) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class Hypnogram:
    """States of one animal in one session.

    Attributes:
        mouse: name of the animal, see mouse_names.
        session: date code.
        tag: mouse tag of the file names.
        states: (T,) 0 wake, 1 NREM, 2 REM (or 0 wake, 1 sleep), -1 not scored, -2 artifact.
        run: (T,) number of the recording.
        epoch: (T,) number of the epoch in its recording.
        clock: where the time axis comes from.
        epoch_s: length of an epoch in s.
        num_classes: 3, or 2 with NREM and REM joined.
    """

    mouse: str
    session: str
    tag: str
    states: np.ndarray
    run: np.ndarray
    epoch: np.ndarray
    clock: str = CLOCK
    epoch_s: float = EPOCH_S
    num_classes: int = 3

    @classmethod
    def of_records(
        cls,
        mouse: str,
        records: Sequence[Record],
        labels: Sequence[int],
        *,
        codes: dict[int, np.ndarray] | None = None,
        num_classes: int = 3,
    ) -> "Hypnogram":
        """Lay the records of one animal on the axis of their session.

        Args:
            mouse: its name.
            records: its epochs.
            labels: (N,) their states, -1 where unknown.
            codes: run -> raw codes (E,) of the whole recording; read from the index when absent.
            num_classes: number of states of the labels.

        Raises:
            InputError: one epoch comes twice.
        """
        by_run, clock = {}, CLOCK
        for record, label in zip(records, labels, strict=True):
            own = by_run.setdefault(record.run, {})
            if record.epoch in own:
                raise InputError(
                    f"{record.path}: epoch {record.epoch} of run {record.run} of mouse {mouse} "
                    "comes twice; keep one file of each run"
                )
            own[record.epoch] = int(label)
        paths = {record.run: record.path for record in records}
        parts = []
        for run in sorted(by_run):
            known = codes[run] if codes and run in codes else recording_codes(paths[run])
            length = max(by_run[run]) + 1
            states = np.full(max(length, 0 if known is None else len(known)), UNSCORED)
            if known is None:
                clock = CLOCK_SHORT
            else:
                states[: len(known)][np.asarray(known) == ARTIFACT_CODE] = ARTIFACT
            for epoch, label in by_run[run].items():
                if label >= 0:
                    states[epoch] = label
            parts.append((np.full(states.size, run), np.arange(states.size), states))
        run, epoch, states = (np.concatenate(part) for part in zip(*parts, strict=True))
        first = records[0]
        return cls(
            mouse, first.date, first.mouse, states, run, epoch, clock, num_classes=num_classes
        )

    @property
    def time_s(self) -> np.ndarray:
        """(T,) start of every epoch in s from the start of the session."""
        return np.arange(self.states.size) * self.epoch_s

    def places(self, run: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Return the place (N,) on the axis of epochs that are given by run and number."""
        lookup = {key: k for k, key in enumerate(zip(self.run, self.epoch, strict=True))}
        return np.array([lookup[key] for key in zip(run, epoch, strict=True)], int)

    def on_axis(self, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return (T,) float: ``values`` (N,) at ``places`` (N,), NaN in the gaps."""
        axis = np.full(self.states.size, np.nan)
        axis[places] = np.where(np.asarray(values) >= 0, values, np.nan)
        return axis

    def stretches(self, places: np.ndarray) -> list[slice]:
        """Return the slices of epochs at ``places`` (N,), in order, that follow each other."""
        return stretches(self.run[places], self.epoch[places])

    @property
    def columns(self) -> dict[str, np.ndarray | str]:
        """Date, tag, run, number in the run and time in s of every epoch on the axis."""
        return {
            "date": self.session,
            "tag": self.tag,
            "run": self.run,
            "epoch": self.epoch,
            "time_s": self.time_s,
        }

    def describe(self) -> str:
        """Return one line: the animal, the length of its session and what is known of it."""
        counts = [
            f"{int((self.states == state).sum())} {name}"
            for state, name in [*enumerate(STATE_NAMES[self.num_classes]), (ARTIFACT, "artifacts")]
        ]
        counts.append(f"{int((self.states == UNSCORED).sum())} not scored")
        n = self.states.size
        return (
            f"mouse {self.mouse} (tag {self.tag}, session {self.session}): "
            f"{len(np.unique(self.run))} runs, {n} epochs of {self.epoch_s:g} s "
            f"({n * self.epoch_s / 60:.0f} min; {', '.join(counts)}); time: {self.clock}"
        )

    def record(self) -> dict:
        """Return what settings.json keeps of it."""
        return {
            "session": self.session,
            "tag": self.tag,
            "runs": sorted({int(run) for run in self.run}),
            "epochs": int(self.states.size),
            "epoch_s": self.epoch_s,
            "artifacts": int((self.states == ARTIFACT).sum()),
            "not_scored": int((self.states == UNSCORED).sum()),
            "clock": self.clock,
        }


def hypnograms_of(
    records: Sequence[Record], labels: Sequence[int], num_classes: int = 3
) -> dict[str, Hypnogram]:
    """Return the hypnogram of every animal in ``records`` with their labels (N,), by its name."""
    labels = np.asarray(labels)
    return {
        mouse: Hypnogram.of_records(
            mouse, [records[i] for i in places], labels[places], num_classes=num_classes
        )
        for mouse, places in places_of_mice(records).items()
    }
