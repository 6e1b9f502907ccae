"""Calcium traces as a CSV in long form: one row per sample, as spreadsheets and R have it.

Columns: stimulus (5 or vstim_5), neuron (whole number), seconds (stimulus onset at 0), dff,
azi_shift and ele_shift (degrees, empty or NaN where a neuron's place is not known); trial where
there are several. Others are left alone. Cells are separated by commas, or by semicolons or tabs,
then with decimal points or commas (spreadsheets.py).
"""

from pathlib import Path

import numpy as np
import torch

from common.files import InputError
from common.tables import write_rows
from inputs.spreadsheets import read_cells

NEEDED = ("stimulus", "neuron", "seconds", "dff", "azi_shift", "ele_shift")


def read_long_csv(path: Path) -> dict:
    """Return the nested dict of a session, as the .pt files hold it, from a CSV in long form."""
    samples, shifts = {}, {}
    for i, row in enumerate(read_cells(path, NEEDED, numbers=NEEDED[2:]), start=2):
        cut = [name for name in NEEDED if row[name] is None]
        if cut:
            raise InputError(f"{path}: row {i}: ends before {cut[0]}; export the file again")
        numbers = [_number(path, i, name, row[name]) for name in NEEDED[2:4]]
        place = [_number(path, i, name, row[name].strip() or "nan") for name in NEEDED[4:]]
        stimulus = row["stimulus"].strip().removesuffix(".0")  # as a table of floats has it
        stimulus = stimulus if stimulus.startswith("vstim_") else f"vstim_{stimulus}"
        neuron = row["neuron"].strip().removesuffix(".0")
        before = shifts.setdefault((stimulus, neuron), place)
        if str(before) != str(place):  # NaN equals no number, not even itself
            raise InputError(
                f"{path}: row {i}: neuron {neuron} of {stimulus} has shifts {place}, before "
                f"{before}; expected the same in all its rows"
            )
        trial = (row.get("trial") or "1").strip()
        trials = samples.setdefault(stimulus, {}).setdefault(neuron, {})
        trials.setdefault(trial, []).append((numbers[0], numbers[1]))
    if not samples:
        raise InputError(
            f"{path}: holds a header and no row; expected a row per sample ({', '.join(NEEDED)})"
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


def _number(path, row, column, text):
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: row {row}: {column} is {text!r}; expected a number") from None


def _stimulus(path, stimulus, neurons, shifts):
    """Return the entry of one stimulus: its time axis, and the trials of each neuron."""
    axis, entries = None, {}
    for neuron, trials in neurons.items():
        for trial, rows in trials.items():
            rows.sort()
            seconds = [second for second, _ in rows]
            axis = axis or seconds
            if seconds != axis:
                raise InputError(
                    f"{path}: {stimulus}, neuron {neuron}, trial {trial}: other times than the "
                    "trials before it; expected one time axis per stimulus, put others into files "
                    "of their own"
                )
        azimuth, elevation = shifts[stimulus, neuron]
        entries[neuron] = {
            "traces": torch.tensor([[value for _, value in rows] for rows in trials.values()]),
            "azi_shift": torch.tensor(azimuth),
            "ele_shift": torch.tensor(elevation),
        }
    return {"t_axis": torch.tensor(axis), "neuron": entries}
