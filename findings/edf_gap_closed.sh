#!/usr/bin/env bash
# One would guess: a reader of EDF+D (recordings with gaps, each data record tells its own time) leaves the
#   gap open, or refuses.
# What happens: mne and edfio join the pieces: six minutes recorded over one hour are six minutes long,
#   every sample after the gap has a wrong time, and annotations keep the true one. A stage that is
#   scored after the gap then lies beside another sample, or outside (mne warns of these only).
#   pyedflib refuses such a file.
# Where users meet it: sleep recorders that pause (amplifier unplugged, battery changed); EDFbrowser and
#   clinical systems export them as EDF+D.
# Source: own trial; github.com/mne-tools/mne-python/issues/13429 (open).
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 pyEDFlib==0.1.42 edfio==0.4.18 mne==1.13.2
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import edfio
import mne
import numpy as np
import pyedflib

print(*(f"{name} {version(name)}" for name in ("pyEDFlib", "edfio", "mne")))
RATE, STARTS = 10, (0, 60, 120, 3420, 3480, 3540)  # three minutes, a gap of 54, three minutes
MARK = (3450.0, 30.0, "REM")  # half a minute after the gap


def field(text, width):
    return str(text).ljust(width).encode("ascii")


head = field(0, 8) + field("X X X X", 80) + field("Startdate 01-JAN-2026 X X X", 80)
head += field("01.01.26", 8) + field("22.00.00", 8) + field(768, 8) + field("EDF+D", 44)
head += field(len(STARTS), 8) + field(60, 8) + field(2, 4)
columns = (("EEG", "EDF Annotations"), 16), (("", ""), 80), (("uV", ""), 8), ((-100, -1), 8), ((100, 1), 8)
columns += ((-32768,) * 2, 8), ((32767,) * 2, 8), (("", ""), 80), ((60 * RATE, 40), 8), (("", ""), 32)
head += b"".join(field(text, width) for texts, width in columns for text in texts)
body = b""
for record, start in enumerate(STARTS):
    body += np.full(60 * RATE, record * 1000, "<i2").tobytes()
    notes = f"+{start}\x14\x14\0"
    if record == 3:
        notes += f"+{MARK[0]:g}\x15{MARK[1]:g}\x14{MARK[2]}\x14\0"
    body += notes.encode().ljust(80, b"\0")
with open("gap.edf", "wb") as file:
    file.write(head + body)

edf = edfio.read_edf("gap.edf")
note = edf.annotations[0]
print(f"edfio: {edf.duration} s, {edf.signals[0].data.size} samples, {note.text} at {note.onset} s")
raw = mne.io.read_raw_edf("gap.edf", verbose="ERROR")
print(f"mne: {raw.n_times / RATE} s, last time {raw.times[-1]}, annotations {list(raw.annotations.onset)}")
try:
    pyedflib.EdfReader("gap.edf")
    refused = False
except OSError as error:
    refused = True
    print("pyedflib:", error)
last = raw.get_data(start=5 * 600, stop=6 * 600)[0]
print(f"the minute recorded at 3540 s lies at {raw.times[5 * 600]:g} s in mne")
assert refused and edf.duration == 360 and raw.n_times == 3600 and note.onset == MARK[0]
assert np.ptp(last) == 0 and len(raw.annotations) == 0
PYTHON
