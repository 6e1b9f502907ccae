"""Calcium traces as a CSV in long form: one row per sample, as spreadsheets and R have it.

Columns: stimulus (5 or vstim_5), neuron (whole number), seconds (stimulus onset at 0), dff; trial
where there are several; azi_shift and ele_shift (degrees; without them a neuron's place is not
known). Empty cells, NA and NaN are values that are not known; other columns are left alone. Cells
are separated by commas, or by semicolons or tabs, then with decimal points or commas
(spreadsheets.py).
"""

import math
from pathlib import Path

import numpy as np
import torch

from common.files import InputError
from common.tables import write_rows
from inputs.clocks import TOLERANCE_S
from inputs.spreadsheets import read_cells

NEEDED = ("stimulus", "neuron", "seconds", "dff")
PLACE = ("azi_shift", "ele_shift")
UNKNOWN = ("", "na", "n/a", "#n/a", "nan", "null", "none")  # as spreadsheets, R and pandas write it


def read_long_csv(path: Path) -> dict:
    """Return the nested dict of a session, as the .pt files hold it, from a CSV in long form."""
    samples, shifts = {}, {}
    named = (*NEEDED, *PLACE)
    rows = read_cells(path, NEEDED, numbers=named[2:], known=(*PLACE, "trial"))
    for i, row in enumerate(rows, start=2):
        cut = [name for name in named if row.get(name, "") is None]
        if cut:
            raise InputError(f"{path}: row {i}: ends before {cut[0]}; export the file again")
        second, value = (_number(path, i, name, row[name]) for name in NEEDED[2:])
        if not math.isfinite(second):
            raise InputError(f"{path}: row {i}: seconds is {row['seconds']!r}; expected a number")
        place = [_number(path, i, name, row.get(name, "")) for name in PLACE]
        stimulus = f"vstim_{_plain(row['stimulus'].strip().removeprefix('vstim_'))}"
        neuron = _plain(row["neuron"].strip())
        before = shifts.setdefault((stimulus, neuron), place)
        if str(before) != str(place):  # NaN equals no number, not even itself
            raise InputError(
                f"{path}: row {i}: neuron {neuron} of {stimulus} has shifts {place}, before "
                f"{before}; expected the same in all its rows"
            )
        trial = _plain((row.get("trial") or "1").strip())
        trials = samples.setdefault(stimulus, {}).setdefault(neuron, {})
        trials.setdefault(trial, []).append((second, value, i))
    if not samples:
        raise InputError(
            f"{path}: holds a header and no row; expected a row per sample ({', '.join(named)})"
        )
    return {
        stimulus: _stimulus(path, stimulus, neurons, shifts)
        for stimulus, neurons in samples.items()
    }


def write_long_csv(path: Path, session: dict) -> Path:
    """Write a session (nested dict of the .pt files) as a CSV in long form; return its path.

    Numbers keep all digits of float32; seconds are those of ``t_axis``, stimulus onset at 0.
    """
    rows = [
        {
            "stimulus": stimulus,
            "neuron": neuron,
            "trial": trial,
            "seconds": _digits(second),
            "dff": _digits(value),
            "azi_shift": _digits(record["azi_shift"]),
            "ele_shift": _digits(record["ele_shift"]),
        }
        for stimulus, entry in session.items()
        for neuron, record in entry["neuron"].items()
        for trial, trace in enumerate(torch.as_tensor(record["traces"]), start=1)
        for second, value in zip(torch.as_tensor(entry["t_axis"]), trace, strict=True)
    ]
    write_rows(path, rows)
    return path


def _digits(value):
    """Return the shortest decimal that is this float32 again."""
    return str(np.float32(value))


def _plain(text):
    """Return 5 of 5.0, as a table of floats has it, or of 05; other texts as they are."""
    text = text.removesuffix(".0")
    return str(int(text)) if text.isdecimal() else text


def _number(path, row, column, text):
    if text.strip().lower() in UNKNOWN:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: row {row}: {column} is {text!r}; expected a number") from None


def _stimulus(path, stimulus, neurons, shifts):
    """Return the entry of one stimulus: its time axis, and the trials of each neuron."""
    axis, entries = None, {}
    for neuron, trials in neurons.items():
        for trial, rows in trials.items():
            where = f"{path}: {stimulus}, neuron {neuron}, trial {trial}"
            rows.sort(key=lambda row: row[0])
            seconds = np.array([second for second, _, _ in rows])
            again = np.flatnonzero(np.diff(seconds) == 0)
            if len(again):
                one, other = rows[again[0]], rows[again[0] + 1]
                raise InputError(
                    f"{where}: two samples at {one[0]:g} s (rows {one[2]} and {other[2]}); keep "
                    "one, or tell trials apart in a column trial"
                )
            axis = seconds if axis is None else axis
            if len(seconds) != len(axis) or np.abs(seconds - axis).max() > TOLERANCE_S:
                raise InputError(
                    f"{where}: other times than the trials before it ({len(seconds)} samples from "
                    f"{seconds[0]:g} to {seconds[-1]:g} s, not {len(axis)} from {axis[0]:g} to "
                    f"{axis[-1]:g}); expected one time axis per stimulus, put others into files of "
                    "their own"
                )
        azimuth, elevation = shifts[stimulus, neuron]
        entries[neuron] = {
            "traces": torch.tensor([[value for _, value, _ in rows] for rows in trials.values()]),
            "azi_shift": torch.tensor(azimuth),
            "ele_shift": torch.tensor(elevation),
        }
    return {"t_axis": torch.from_numpy(axis).float(), "neuron": entries}
