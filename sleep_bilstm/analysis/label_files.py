"""State numbers of result files, with the clock, the epoch length and the states that these know.

N rows of a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io

from common.files import InputError
from inputs.hypnogram import stretches
from inputs.scores import WORDS, texts_of
from inputs.states import ARTIFACT_CODE, EPOCH_S, NO_LABEL, NREM, RAW_TO_LABEL, REM, WAKE

ALIASES = {"pred": "y_preds", "true": "y_trues", "y_preds": "pred", "y_trues": "true"}
WORD_KINDS = "OUS"
TOLERANCE = 0.02  # of an epoch, by which a start may lie beside its place
MEANINGS = {  # variables whose numbers have a meaning of their own
    "scoringindex_file": ({**RAW_TO_LABEL, ARTIFACT_CODE: NO_LABEL}, "2 artifact, 3 REM"),
    "brain_state": ({1: REM, 2: WAKE, 3: NREM}, "1 REM, 2 wake, 3 NREM"),
}


@dataclass(frozen=True)
class LabelFile:
    """States read from one file.

    Attributes:
        path: the file.
        states: per key (N,) 0 wake, 1 NREM, 2 REM (or 0 wake, 1 sleep), -1 none.
        run, epoch: (N,) numbers; None where the file has none.
        time_s: (N,) start of every epoch in s; None where the file has none.
        epoch_s: length of an epoch in s; None where the file does not say.
        num_classes: 2 or 3; None where the file does not say.
        notes: how its numbers were read, where that is not plain.
    """

    path: Path
    states: tuple[np.ndarray, ...]
    run: np.ndarray | None = None
    epoch: np.ndarray | None = None
    time_s: np.ndarray | None = None
    epoch_s: float | None = None
    num_classes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return N."""
        return len(self.states[0])

    def places(self) -> np.ndarray:
        """Return (N,) the place of every row on an axis of epochs from 0 s on.

        Runs whose times are not known follow each other; rows without run and time as well.
        """
        if self.time_s is not None:
            step = self.epoch_s or EPOCH_S
            first = round(self.time_s[0] / step) if self.count else 0
            return first + np.round((self.time_s - self.time_s[:1]) / step).astype(int)
        if self.run is None or self.epoch is None:
            return np.arange(self.count)
        places, offset = np.zeros(self.count, int), 0
        for run in dict.fromkeys(self.run.tolist()):
            own = self.run == run
            places[own] = offset + self.epoch[own]
            offset = int(places[own].max()) + 1
        return places

    def stretches(self, kept: np.ndarray) -> list[slice]:
        """Return the slices of the rows ``kept`` (N,) bool that follow each other in one run."""
        run = np.zeros(self.count, int) if self.run is None else self.run
        number = self.places() if self.epoch is None else self.epoch
        return stretches(run[kept], number[kept])

    def on_axis(self, number: int) -> np.ndarray:
        """Return series ``number`` on the axis of places (T,), NaN where no row is."""
        places, states = self.places(), self.states[number]
        axis = np.full(int(places.max()) + 1 if places.size else 0, np.nan)
        axis[places] = np.where(states >= 0, states, np.nan)
        return axis


def held_in(path: Path) -> dict[str, np.ndarray]:
    """Return the variables of a .mat file or the columns of a CSV.

    Raises:
        InputError: no such file, or it can't be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a result, .mat or CSV")
    try:
        if path.suffix.lower() == ".mat":
            return {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        return {column: values.to_numpy() for column, values in pd.read_csv(path).items()}
    except Exception as error:  # damaged bytes make scipy and pandas raise almost any kind
        raise InputError(f"{path}: cannot be read as .mat (version 5) or CSV ({error})") from error


def whole_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Return ``values`` as int; NaN becomes -1.

    Raises:
        InputError: text, complex or broken numbers, infinity.
    """
    values = np.ravel(values)
    if values.dtype.kind not in "iufb":
        found = "complex numbers" if values.dtype.kind == "c" else "text"
        raise InputError(f"{what} holds {found}; expected whole numbers")
    numbers = np.where(np.isnan(values.astype(float)), NO_LABEL, values.astype(float))
    if not np.isfinite(numbers).all() or (numbers % 1).any():
        raise InputError(f"{what} holds numbers that are not whole")
    return numbers.astype(int)


def _of_words(values: np.ndarray, what: str) -> np.ndarray:
    """Return the states (N,) of words such as hypnogram.py writes; artifacts have none."""
    texts = texts_of(values.T, None, values.size) if values.ndim > 1 else None
    states = []
    for text in values if texts is None else texts:
        word = "" if isinstance(text, float) else str(text)
        code = WORDS.get("".join(c for c in word.strip().lower() if c not in " -_"))
        if code is None:
            raise InputError(
                f"{what} holds the text {word!r}; expected state numbers 0, 1, 2 or the words "
                "wake, NREM, REM, artifact; hypnogram.py convert --codes translates others"
            )
        states.append(RAW_TO_LABEL.get(code, NO_LABEL))
    return np.array(states, int)


def states_of(values: np.ndarray, key: str, path: Path) -> tuple[np.ndarray, str]:
    """Return the states (N,) of one variable and how they were read, "" where that is plain.

    Raises:
        InputError: values that are no states.
    """
    what = f"{path}: {key}"
    if values.dtype.kind in WORD_KINDS:
        return _of_words(values, what), ""
    numbers = whole_numbers(values, what)
    meaning = MEANINGS.get(key)
    if key == "labels" and numbers.size and numbers.min() >= 1:
        meaning = MEANINGS["brain_state"]
    if meaning is None:
        if numbers.min(initial=0) < NO_LABEL or numbers.max(initial=0) > REM:
            raise InputError(f"{what} holds values other than 0, 1, 2 (-1 or NaN for none)")
        return numbers, ""
    known, words = meaning
    known = {NO_LABEL: NO_LABEL, **({4: NO_LABEL} if key != "scoringindex_file" else {}), **known}
    strange = sorted(set(numbers.tolist()) - set(known))
    if strange:
        raise InputError(f"{what} holds {strange[0]}; its codes are {words}")
    return np.array([known[n] for n in numbers.tolist()], int), f"{what} read as {words}"


def read_labels(path: Path, keys: Sequence[str]) -> LabelFile:
    """Read series of states and what the file says of their clock.

    Args:
        path: .mat or CSV.
        keys: variables or columns; pred and y_preds, true and y_trues stand for each other.

    Raises:
        InputError: unreadable file, missing key, values that are no states, several mice, rows out
            of order or epochs of unequal length.
    """
    held = held_in(path)
    names = [key if key in held else ALIASES.get(key, key) for key in keys]
    absent = [key for key, name in zip(keys, names, strict=True) if name not in held]
    if absent:
        raise InputError(f"{path}: has no {', '.join(absent)}; found {', '.join(held)}")
    mice = sorted({str(v) for v in np.ravel(held.get("mouse", []))})
    if len(mice) > 1:
        raise InputError(
            f"{path}: holds several mice ({', '.join(mice[:3])}); give the file of one mouse"
        )
    read = [states_of(held[name], name, path) for name in names]
    lengths = [len(states) for states, _ in read]
    if len(set(lengths)) > 1:
        raise InputError(
            f"{path}: {', '.join(keys)} have lengths {lengths}; expected equal lengths"
        )
    file = LabelFile(
        path=path,
        states=tuple(states for states, _ in read),
        num_classes=_classes_said(held),
        notes=tuple(note for _, note in read if note),
    )
    return _with_clock(file, held)


def _with_clock(file: LabelFile, held: dict[str, np.ndarray]) -> LabelFile:
    """Return ``file`` with run, epoch, times and the length of an epoch of ``held``."""
    found = {}
    for name in ("run", "epoch", "time_s"):
        if name not in held:
            continue
        values = np.ravel(held[name])
        what = f"{file.path}: {name}"
        if len(values) != file.count:
            raise InputError(f"{what} has {len(values)} values, there are {file.count} states")
        if name == "time_s":
            if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
                raise InputError(f"{what} holds values that are no times in s")
            found[name] = values.astype(float)
        else:
            found[name] = whole_numbers(values, what)
    if "run" not in found or "epoch" not in found:
        found.pop("run", None), found.pop("epoch", None)
    file = replace(file, **found)
    epoch_s, steps = None, np.diff(file.time_s) if file.time_s is not None else np.empty(0)
    if (steps <= 0).any():
        raise InputError(f"{file.path}: rows are not in time order; expected rising time_s")
    if file.epoch is not None:
        near = (np.diff(file.run) == 0) & (np.diff(file.epoch) == 1)
        if ((np.diff(file.run) == 0) & (np.diff(file.epoch) <= 0)).any():
            raise InputError(f"{file.path}: rows are not in time order; expected rising epochs")
        if steps.size and near.any():
            steps = steps[near]
            if steps.max() > (1 + TOLERANCE) * steps.min():
                raise InputError(
                    f"{file.path}: epochs are {steps.min():g} to {steps.max():g} s apart; expected "
                    "epochs of equal length"
                )
    if steps.size:
        epoch_s = float(np.min(steps))
    if "epoch_s" in held:
        epoch_s = float(np.ravel(held["epoch_s"])[0])
        if not 0 < epoch_s < np.inf:
            raise InputError(f"{file.path}: epoch_s is {epoch_s:g}; expected a length in s")
    if epoch_s is not None and file.time_s is not None:
        apart = (file.time_s - file.time_s[:1]) / epoch_s
        if np.abs(apart - np.round(apart)).max(initial=0) > TOLERANCE:
            raise InputError(
                f"{file.path}: epochs do not lie {epoch_s:g} s apart; expected epochs of equal "
                "length"
            )
        first = file.time_s[0] / epoch_s
        if abs(first - round(first)) > TOLERANCE:
            note = (
                f"{file.path}: its first epoch begins at {file.time_s[0]:g} s, and stands at "
                f"{round(first) * epoch_s:g} s here"
            )
            file = replace(file, notes=(*file.notes, note))
    return replace(file, epoch_s=epoch_s)


def _classes_said(held: dict[str, np.ndarray]) -> int | None:
    """Return the number of states that ``held`` says; None where it says nothing."""
    if "num_classes" in held:
        return int(np.ravel(held["num_classes"])[0])
    scores = held.get("y_scores")
    if scores is not None and scores.ndim == 2 and scores.size > 1:
        return 2 if scores.shape[1] == 1 else 3
    if "p_sleep" in held:
        return 2
    return 3 if "p_rem" in {name.lower() for name in held} else None


def classes_in(path: Path) -> int:
    """Return the number of states of a result file: 2 where its probabilities say so, else 3."""
    return _classes_said(held_in(path)) or 3


def read_label_vectors(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Read series of states (N,) from a .mat file or the columns of a CSV; see read_labels."""
    return list(read_labels(path, keys).states)


def epoch_length(files: Sequence[LabelFile], given: float | None) -> tuple[float, list[str]]:
    """Return the length of an epoch in s and where it comes from, in words.

    Args:
        files: what is drawn or counted together.
        given: of the user, or None.

    Raises:
        InputError: the files have epochs of unequal lengths.
    """
    known = {file.path: file.epoch_s for file in files if file.epoch_s is not None}
    first = next(iter(known.values()), None)
    if first is not None and any(abs(one / first - 1) > 0.01 for one in known.values()):
        lengths = ", ".join(f"{path} {one:g} s" for path, one in known.items())
        raise InputError(f"epochs of unequal length ({lengths}); give such files apart")
    if given is None and first is None:
        return EPOCH_S, [f"epochs of {EPOCH_S:g} s taken, as published: no file says their length"]
    if given is None:
        return first, [f"epochs of {first:g} s: file"]
    if first is not None and abs(first / given - 1) > 0.01:
        return given, [f"warning: the file has epochs of {first:g} s, {given:g} s are used"]
    return given, [f"epochs of {given:g} s: flag"]


def with_classes(files: Sequence[LabelFile], given: int | None) -> tuple[list[LabelFile], int]:
    """Return the files with one number of states, and that number; 2 joins NREM and REM.

    Raises:
        InputError: files of 2 and of 3 states, or 3 asked for where only 2 are known.
    """
    said = {file.num_classes for file in files} - {None}
    two = next((file.path for file in files if file.num_classes == 2), None)
    if given == 3 and two:
        raise InputError(f"{two}: holds 2 states; NREM and REM cannot be told apart again")
    if given is None and two and any(file.num_classes != 2 for file in files):
        raise InputError(f"{two}: holds 2 states, another file 3: give --num_classes 2 to join")
    if not said <= {2, 3}:
        raise InputError(f"{files[0].path}: num_classes is {min(said)}; expected 2 or 3")
    classes = given or (2 if two else 3)
    if classes == 2:
        for file in files:
            if file.num_classes == 2 and max(s.max(initial=0) for s in file.states) > 1:
                raise InputError(f"{file.path}: holds state 2, and says that it knows 2 states")
        files = [replace(f, states=tuple(np.minimum(s, 1) for s in f.states)) for f in files]
    return list(files), classes
