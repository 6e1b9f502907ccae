"""Split epochs into training, validation and test sets, and feed them to the network as tf.data.

Three kinds of split, named in every report: ``epoch`` (published: epochs of all mice shuffled
together, so that neighbours of one recording sit in training and test), ``block`` (contiguous parts
of each recording) and ``mouse`` (whole mice).
Source: specification section 7.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from common.files import InputError
from inputs.names import of_animals
from inputs.shards import Record, find_records, in_time_order, read_epoch
from inputs.states import FRAMES_PER_EPOCH

log = logging.getLogger(__name__)
RARE = 20  # a class with fewer training epochs raises a warning
SPLIT_TEXT = {
    "epoch": "epoch split: epochs of the same mice, also neighbours, are in training and test",
    "block": "block split: contiguous parts of the same recordings, {guard} between them",
    "mouse": "mouse split: no mouse of the test set is in training or validation",
}


@dataclass(frozen=True)
class MouseSplit:
    """Date codes, tags or `<date>-<tag>` of the mice, from mouse_split.json."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    allow_leak: bool = False


@dataclass(frozen=True)
class Split:
    """Epochs of the three sets and the kind of split."""

    kind: str
    train: list[Record]
    val: list[Record]
    test: list[Record]

    @property
    def text(self) -> str:
        """One sentence that names the split."""
        if self.kind == "mouse":
            return mouse_text([*self.train, *self.val], self.test)
        records = [*self.train, *self.val, *self.test]
        guard = guard_epochs(records[0].frames) if records else 1
        text = SPLIT_TEXT[self.kind].format(
            guard="one guard epoch" if guard == 1 else f"{guard} guard epochs"
        )
        if self.kind == "epoch" and records and neighbour_frames(records[0].frames):
            text += ", and inputs of neighbours share frames"
        return text


def _ids(value, key: str, path: Path) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, (int, str)) and not isinstance(v, bool) for v in values):
        raise InputError(
            f"{path}: {key} is {value}; expected a mouse id or a list of ids (numbers or strings)"
        )
    return tuple(str(v) for v in values)


def read_mouse_split(
    path: Path, *, test_mouse: Sequence[str] = (), allow_leak: bool = False, leave_out: bool = False
) -> MouseSplit:
    """Read `mouse_split.json`: {"train": [ids], "test": id or [ids], "val": [ids]}, val optional.

    Args:
        path: the file.
        test_mouse: overrides the test mice.
        allow_leak: permit a test mouse that is trained on.
        leave_out: take the test mice out of training and put the file's test mice into it.

    Raises:
        InputError: the file is unreadable, or a test mouse is also in training.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        train, test = _ids(held["train"], "train", path), _ids(held["test"], "test", path)
        val = _ids(held.get("val", []), "val", path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; expected a mouse split, see mouse_split.json"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path}: no valid mouse split ({error}); "
            'expected {"train": [ids], "test": id or [ids]}'
        ) from error
    if test_mouse and leave_out:
        everyone = dict.fromkeys((*train, *test))
        train = tuple(mouse for mouse in everyone if mouse not in test_mouse and mouse not in val)
        val = tuple(mouse for mouse in val if mouse not in test_mouse)
    test = tuple(test_mouse) or test
    both = sorted(set(test) & {*train, *val})
    if both and not allow_leak:
        raise InputError(
            f"{path}: test mouse {', '.join(both)} is also used for training; take it out of one "
            "list, or give --leave_out, or --allow_leak"
        )
    if set(train) & set(val):
        raise InputError(
            f"{path}: mouse {', '.join(sorted(set(train) & set(val)))} is in train and in val"
        )
    return MouseSplit(train, val, test, allow_leak)


def of_mice(records: Sequence[Record], mice: Sequence[str], where: Path) -> list[Record]:
    """Return the records of ``mice``: date codes, tags, or `<date>-<tag>`.

    Raises:
        InputError: a mouse without records.
    """
    return of_animals(records, mice, where, " of the split")


def check_apart(first: Sequence[Record], second: Sequence[Record], where: Path) -> None:
    """Refuse an animal (date and tag) that is in two sets of a split, under any of its names."""
    both = {(r.date, r.mouse) for r in first} & {(r.date, r.mouse) for r in second}
    if both:
        raise InputError(
            f"{where}: mouse {', '.join(sorted('-'.join(a) for a in both))} is in two of train, "
            "val and test, under different names (date code, tag); take it out of one list, or for "
            "the test give --allow_leak"
        )


def tags_on_both_sides(trained: Sequence[Record], tested: Sequence[Record]) -> list[str]:
    """Return the mouse tags that are in training on one date and in the test on another.

    A split names animals by their date; one animal may have been recorded on several.
    """
    first, second = ({(r.mouse, r.date) for r in part} for part in (trained, tested))
    return sorted(
        {tag for tag, _ in first} & {tag for tag, date in second if (tag, date) not in first}
    )


def mouse_text(trained: Sequence[Record], tested: Sequence[Record]) -> str:
    """Return the sentence about a split by mice, which says when an animal is on both sides."""
    both = {(r.date, r.mouse) for r in trained} & {(r.date, r.mouse) for r in tested}
    if both:
        names = ", ".join(sorted("-".join(animal) for animal in both))
        return f"leak allowed: mouse {names} is in training and in the test"
    if tags := tags_on_both_sides(trained, tested):
        return (
            f"split by date: tag {', '.join(tags)} is in training and, on another date, in the "
            "test; if it is the same animal, the score is not that of a new one"
        )
    return SPLIT_TEXT["mouse"]


def split_names(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions of train, validation and test among ``count`` sorted names, 80/10/10.

    Faithful: two calls of scikit-learn, first 20 % off, then that half and half.
    """
    train, rest = train_test_split(np.arange(count), test_size=0.2, random_state=seed, shuffle=True)
    val, test = train_test_split(rest, test_size=0.5, random_state=seed, shuffle=True)
    return train, val, test


def neighbour_frames(frames: int) -> int:
    """Return the frames that an input of ``frames`` frames takes from each neighbour."""
    return max(0, frames - FRAMES_PER_EPOCH) // 2


def guard_epochs(frames: int) -> int:
    """Return how many epochs must lie between two inputs of ``frames`` frames that share none.

    Each takes frames of both neighbours: from 20 s on two inputs meet in the epoch between them.
    """
    return 2 if 2 * neighbour_frames(frames) > FRAMES_PER_EPOCH else 1


def blocks(records: Sequence[Record]) -> tuple[list[Record], list[Record], list[Record]]:
    """Cut each recording into contiguous blocks of 80, 10 and 10 %, guard epochs between them left
    out, as many as the length of the inputs asks for.
    """
    parts = ([], [], [])
    runs = {}
    for record in in_time_order(list(records)):
        runs.setdefault((record.date, record.mouse, record.run), []).append(record)
    for run in runs.values():
        tenth, guard = max(1, round(len(run) / 10)), guard_epochs(run[0].frames)
        test_start, val_start = len(run) - tenth, len(run) - 2 * tenth - guard
        parts[0].extend(run[: max(0, val_start - guard)])
        parts[1].extend(run[max(0, val_start) : max(0, test_start - guard)])
        parts[2].extend(run[test_start:])
    return parts


def split_records(
    records: Sequence[Record], mice: MouseSplit, kind: str, *, seed: int, where: Path
) -> Split:
    """Split ``records`` (sorted by name) by ``kind``; the mice come from the split file."""
    if kind == "mouse":
        train, val = mice.train, mice.val
        if not val:
            if len(train) < 2:
                raise InputError(
                    f"{where}: --split mouse needs two training mice or a val list; found "
                    f"{len(train)}"
                )
            train, val = train[:-1], train[-1:]
            log.info("no val list in the split: mouse %s validates", val[0])
        split = Split(kind, *(of_mice(records, m, where) for m in (train, val, mice.test)))
        if not mice.allow_leak:
            check_apart([*split.train, *split.val], split.test, where)
        check_apart(split.train, split.val, where)
        if split.text != SPLIT_TEXT["mouse"]:
            log.warning("warning: %s", split.text)
        return split
    pooled = of_mice(records, (*mice.train, *mice.val), where)
    if len(pooled) < 10:
        raise InputError(
            f"{where}: holds {len(pooled)} epochs of the training mice; a split needs at least 10"
        )
    if kind == "epoch":
        if seed < 0:
            raise InputError(
                f"{where}: the seed of the epoch split is {seed}, so it cannot be repeated and "
                "training epochs would be tested: train again"
            )
        parts = [[pooled[i] for i in part] for part in split_names(len(pooled), seed)]
    else:
        parts = blocks(pooled)
    split = Split(kind, *parts)
    if kind == "epoch":
        log.warning("warning: %s", split.text)
    return split


def fold_mice(mice: Sequence[str], folds: int) -> list[tuple[str, ...]]:
    """Deal ``mice`` out to ``folds`` test groups of nearly equal size."""
    if not 2 <= folds <= len(mice):
        raise InputError(f"folds is {folds}: expected 2 to {len(mice)}, the number of mice")
    return [tuple(group) for group in np.array_split(np.array(mice), folds)]


@dataclass(frozen=True)
class View:
    """What the network sees of an epoch.

    Attributes:
        num_frames: the first n stored frames.
        num_classes: 3, or 2 with NREM and REM joined.
        hemisphere: None for the whole frame, or left, right or both-mirrored.
    """

    num_frames: int
    num_classes: int = 3
    hemisphere: str | None = None

    def frames(self, stored: np.ndarray) -> list[np.ndarray]:
        """Return one or two inputs (F, H, W) of a stored epoch; the right half is mirrored only
        with both.
        """
        movie, half = stored[: self.num_frames], stored.shape[2] // 2
        if self.hemisphere is None:
            return [movie]
        left, right = movie[:, :, :half], movie[:, :, half:]
        return {"left": [left], "right": [right], "both-mirrored": [left, right[:, :, ::-1]]}[
            self.hemisphere
        ]

    @property
    def inputs_per_epoch(self) -> int:
        """Two with both hemispheres, else one."""
        return 2 if self.hemisphere == "both-mirrored" else 1

    def label(self, label: int) -> int:
        """Return the label the network is trained on."""
        return min(label, 1) if self.num_classes == 2 else label


class Epochs:
    """Epochs in a fixed order, read on demand.

    Item i is input i % n of epoch i // n, where n is ``view.inputs_per_epoch``.
    """

    def __init__(self, records: Sequence[Record], view: View, labels: Sequence[int] | None = None):
        short = next((r for r in records if r.frames < view.num_frames), None)
        if short:
            raise InputError(
                f"{short.path}: holds {short.frames} frames; num_frames is {view.num_frames}: "
                "lower it"
            )
        self.records = list(records)
        self.view = view
        own = [view.label(record.label) for record in records] if labels is None else labels
        self.labels = np.asarray(own, np.int32)

    def __len__(self) -> int:
        return len(self.records) * self.view.inputs_per_epoch

    @property
    def shape(self) -> tuple[int, int, int]:
        """(F, H, W) of one input."""
        first = self.records[0]
        width = first.width if self.view.hemisphere is None else first.width // 2
        return self.view.num_frames, first.height, width

    def read(self, item: int) -> np.ndarray:
        """Return the frames of an item, (F, H, W) float32."""
        n = self.view.inputs_per_epoch
        return self.view.frames(read_epoch(self.records[item // n]))[item % n]

    def label_of(self, item: int) -> int:
        """Return the label of an item."""
        return int(self.labels[item // self.view.inputs_per_epoch])

    def counts(self) -> np.ndarray:
        """Return the number of epochs per class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.view.num_classes)

    def shuffled_labels(self, rng: np.random.Generator) -> "Epochs":
        """Return the same epochs with permuted labels: the negative control."""
        return Epochs(self.records, self.view, rng.permutation(self.labels))


def shuffle_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of ``count`` items in a training epoch, a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def load_epochs(folder: Path, view: View, mice: Sequence[str] = ()) -> Epochs:
    """Return the epochs of ``mice`` (all when empty) below ``folder``, in time order."""
    records = find_records(folder)
    if mice:
        records = of_mice(records, mice, folder)
    return Epochs(in_time_order(records), view)


def report_counts(name: str, epochs: Epochs, state_names: Sequence[str]) -> None:
    """Log the epochs per state of a set and warn about a rare one."""
    counts = epochs.counts()
    log.info(
        "%s: %s", name, ", ".join(f"{n} {s}" for s, n in zip(state_names, counts, strict=True))
    )
    for state, count in zip(state_names, counts, strict=True):
        if count < RARE:
            log.warning("warning: only %d %s epochs of %s", count, name, state)
