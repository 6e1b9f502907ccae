"""Files of a training run: saved each epoch, resumed exactly (specification 7.6).

A run ``<name>`` in ``--ckptdir`` has

    <name>.weights.h5, <name>.json       best weights and their description
    <csv folder>/<name>.csv              one row per epoch
    <name>_state/last.weights.h5         weights and optimiser after the last complete epoch
    <name>_state/state.json              epoch, best, history, settings
    <name>_state/settings.json           settings, versions, commit and inputs at the start

The state lies inside ``last.weights.h5`` too: both then change in one atomic move, and a kill
between the two files loses nothing. Only "complete" is read from ``state.json``.
"""

import contextlib
import datetime
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras

from common.files import InputError, read_json, write_json
from common.limits import check_free_space
from common.locks import remove_left, visible
from common.tables import write_rows
from network.checkpoints import HDF5_FAULTS, SUFFIX, info_path, load_weights, save_h5, save_weights
from settings import FREE_TRAINING

STATE_KEYS = {"epoch", "best", "history", "settings", "extra", "complete"}
REMEDY = "restore it, or start afresh with -r"


def state_folder(ckptdir: str | Path, name: str) -> Path:
    """Return the folder of a run's state, which its one writer holds (``locks.writing``)."""
    return Path(ckptdir) / f"{name}_state"


def clear_left(ckptdir: str | Path, name: str) -> None:
    """Remove what killed trainings of this name left in ``ckptdir``; for its one writer."""
    remove_left(ckptdir, starts=(f"{name}_", f"{name}."))


@contextlib.contextmanager
def written_by(chief: bool, ckptdir: str | Path, name: str) -> Iterator[Path]:
    """Yield the folder in which this process of a training keeps its run.

    Only the chief of several workers writes into ``ckptdir``. The others begin with a copy of the
    run, which changes only when all of them have ended an epoch, and throw their own away.
    """
    ckptdir = Path(ckptdir)
    if chief:
        yield ckptdir
        return
    with tempfile.TemporaryDirectory() as own:
        best, state = ckptdir / f"{name}{SUFFIX}", state_folder(ckptdir, name)
        for path in (best, info_path(best), state / f"last{SUFFIX}", state / "state.json"):
            if path.exists():
                copy = Path(own) / path.relative_to(ckptdir)
                copy.parent.mkdir(exist_ok=True)
                shutil.copy(path, copy)
        yield Path(own)


class Run:
    """One training run, opened new or at its last complete epoch.

    Attributes:
        state: {"epoch": epochs done, "best": dict or None, "history": [row per epoch],
            "settings": dict, "extra": what the schedule must remember, "complete": bool}.
        weights: path of the best weights.
        csv: path of the table.
        folder: folder of the state.
    """

    def __init__(self, ckptdir, name, settings, *, csv_folder, recalculate=False):
        ckptdir = Path(ckptdir)
        self.folder = state_folder(ckptdir, name)
        self.weights = ckptdir / f"{name}{SUFFIX}"
        self.csv = ckptdir / csv_folder / f"{name}.csv"
        self._last = self.folder / f"last{SUFFIX}"
        self._state_json = self.folder / "state.json"
        settings = json.loads(json.dumps(settings, default=str))
        if recalculate:
            self._archive(ckptdir / f"{name}_{datetime.datetime.now():%Y%m%d-%H%M%S}")
        self.state = self._read()
        if self.state is None:
            self.state = dict.fromkeys(STATE_KEYS) | {
                "epoch": 0,
                "history": [],
                "settings": settings,
                "extra": {},
                "complete": False,
            }
        self._compare(settings)

    def _archive(self, kept):
        """Move the files of an earlier run into the dated folder ``kept``."""
        old = (self.weights, info_path(self.weights), self.csv)
        old = [path for path in old if path.exists()]
        inside = visible(self.folder)  # the folder itself stays: it holds this run's lock
        if old or inside:
            kept_state = kept / self.folder.name
            kept_state.mkdir(parents=True)
            for path in old:
                path.rename(kept / path.name)
            for path in inside:
                path.rename(kept_state / path.name)
            print(f"earlier run kept as {kept}")

    def _read(self):
        """Return the state on disk, checked, or None when there is none yet."""
        if not self._state_json.exists() and not self._last.exists():
            return None
        complete = False
        if self._state_json.exists():
            shown = read_json(self._state_json, remedy=REMEDY)
            complete = isinstance(shown, dict) and shown.get("complete") is True
        try:
            with h5py.File(self._last, "r") as handle:
                state = json.loads(bytes(handle.attrs["state"]))
        except HDF5_FAULTS as error:
            raise InputError(f"{self._last}: no state of a run ({error}); {REMEDY}") from error
        if set(state) != STATE_KEYS or len(state["history"]) != state["epoch"]:
            raise InputError(f"{self._last}: not the state of a run; {REMEDY}")
        state["complete"] = complete
        return state

    def _compare(self, settings):
        """Raise an InputError that lists the settings that differ from the saved ones."""
        old = self.state["settings"]
        changed = [
            f"{key} {old.get(key)!r} -> {settings.get(key)!r}"
            for key in sorted({*old, *settings})
            if key not in FREE_TRAINING
            and old.get(key) != settings.get(key)
            and not (key in ("recipe", "movies") and key not in old)  # older runs do not tell
        ]
        if changed:
            raise InputError(
                f"{self.folder}: settings differ from the run to be resumed: {', '.join(changed)}; "
                "use the old settings, another --ckptdir, or -r to start afresh"
            )

    def check_room(self, model: keras.Model) -> None:
        """Raise InputError when the disk has no room for the weights of a run.

        Best weights, and last ones with two moments of the optimiser, twice while they are
        replaced.
        """
        check_free_space(self.folder, (1 + 3 + 3) * 4 * model.count_params(), "weights and state")

    def load_last(self, trained: keras.Model) -> None:
        """Load the last weights and optimiser into the compiled model ``trained``."""
        load_weights(trained, self._last)

    def save_epoch(
        self,
        trained: keras.Model,
        row: dict,
        *,
        best: dict | None = None,
        bare: keras.Model | None = None,
        info: dict | None = None,
        extra: dict | None = None,
    ) -> None:
        """Save a complete epoch: best weights, then last weights with the state, then the CSV.

        Args:
            trained: compiled model, whose optimiser is saved with it.
            row: dict of the epoch's numbers.
            best: what to remember when this epoch is the best so far, else None.
            bare: the same model without optimiser, saved as best weights.
            info: description of the best weights, completed with ``best``.
            extra: what the learning-rate schedule must remember.
        """
        state = self.state
        state["epoch"] += 1
        state["history"].append(row)
        state["extra"] = extra or {}
        if best is not None:
            state["best"] = best
            save_weights(bare, self.weights, {**info, **best})
        save_h5(trained, self._last, attribute=json.dumps(state))
        self._write_tables()

    def finish(self, results: dict) -> None:
        """Mark the run complete and add ``results`` to the description of its best weights."""
        path = info_path(self.weights)
        write_json(path, {**read_json(path, remedy=REMEDY), **results})
        self.state["complete"] = True
        self._write_tables()

    def _write_tables(self):
        write_json(self._state_json, self.state)
        rows = self.state["history"]
        write_rows(self.csv, rows)
