#!/usr/bin/env bash
# One would guess: the start of a recording that is written to EDF+ with microseconds comes back the same
#   in every reader, or at least whole seconds do.
# What happens: pyedflib 0.1.42 counts the fraction of the start time in the wrong unit, both ways. It
#   writes a start of .050 s as .500 s, drops .750 s altogether, and reads back its own files unchanged,
#   so that a round trip within pyedflib shows nothing. It reads a right file's .750 s as .075 s. edfio
#   reads and writes what the standard says; mne gives whole seconds. All say nothing.
# Where users meet it: EEG and imaging joined by their start times: up to 0.9 s, thirteen frames at 15 Hz.
#   A later pyedflib does not help files that are on disk.
# Source: own trial; github.com/holgern/pyedflib/pull/315 (merged in July 2026, after this release).
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 pyEDFlib==0.1.42 edfio==0.4.18 mne==1.13.2
env/bin/python -W ignore - <<'PYTHON'
from datetime import date, datetime, time
from importlib.metadata import version

import edfio
import mne
import numpy as np
import pyedflib

print(*(f"{name} {version(name)}" for name in ("pyEDFlib", "edfio", "mne")))


def seconds(path):
    with pyedflib.EdfReader(path) as reader:
        own = reader.getStartdatetime()
    meas = mne.io.read_raw_edf(path, verbose="ERROR").info["meas_date"]
    starts = own, edfio.read_edf(path).starttime, meas
    return [start.second + start.microsecond / 1e6 for start in starts]


def by_pyedflib(path, start):
    with pyedflib.EdfWriter(path, 1) as writer:
        writer.setSignalHeaders([pyedflib.highlevel.make_signal_header("EEG", sample_frequency=100)])
        writer.setStartdatetime(start)
        writer.writeSamples([np.zeros(200)])


for fraction in (50_000, 750_000):
    by_pyedflib("a.edf", datetime(2026, 1, 1, 22, 0, 7, fraction))
    found = seconds("a.edf")
    print(f"pyedflib wrote 7.{fraction:06d} s: pyedflib, edfio, mne read", found)
    assert found == ([7.05, 7.5, 7] if fraction == 50_000 else [7, 7, 7])
edfio.Edf(
    [edfio.EdfSignal(np.zeros(200), 100, physical_range=(-1, 1))],
    recording=edfio.Recording(startdate=date(2026, 1, 1)),
    starttime=time(22, 0, 7, 750_000), annotations=[],
).write("b.edf")
found = seconds("b.edf")
print("edfio wrote 7.750000 s: pyedflib, edfio, mne read", found)
assert found == [7.075, 7.75, 7]
PYTHON
