#!/usr/bin/env bash
# One would guess: a stage channel of an EDF file (one code an epoch beside the EEG) read by mne holds the
#   codes of the file, each repeated to the rate of the EEG.
# What happens: mne brings every channel to the highest rate by Fourier resampling. Codes 0 (wake) and 2
#   (REM) alone come back as -0.28 to 2.35, and rounded to whole numbers as 0, 1 and 2: about one sample
#   in eighteen is NREM, which was never scored. pyedflib and edfio return the eight-rate codes as they are.
# Where users meet it: devices and labs that keep the hypnogram, a trigger or a lamp's state as a slow EDF
#   channel; np.round(...).astype(int) of it looks like a hypnogram with short NREM bouts at each change.
# Source: own trial; docs of mne.io.read_raw_edf (channels are upsampled to the highest rate).
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 scipy==1.17.1 edfio==0.4.18 mne==1.13.2
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import edfio
import mne
import numpy as np

print("edfio", version("edfio"), "mne", version("mne"))
EPOCH, RATE = 30, 100
codes = np.repeat([0.0, 0, 2, 2, 0, 0, 2, 0], 4)
eeg = np.sin(np.arange(codes.size * EPOCH * RATE) / 10)
edfio.Edf(
    [
        edfio.EdfSignal(eeg, RATE, label="EEG", physical_dimension="uV", physical_range=(-1, 1)),
        edfio.EdfSignal(codes, 1 / EPOCH, label="stage", physical_range=(0, 5)),
    ],
    data_record_duration=EPOCH,
).write("night.edf")
kept = edfio.read_edf("night.edf").signals[1].data
values = mne.io.read_raw_edf("night.edf", verbose="ERROR").get_data("stage")[0]
rounded, counts = np.unique(np.abs(np.round(values)), return_counts=True)
print("edfio:", dict(zip(*np.unique(np.round(kept, 3), return_counts=True), strict=True)))
print(f"mne: {values.min():.3f} to {values.max():.3f}; rounded:",
      {int(code): f"{count / values.size:.1%}" for code, count in zip(rounded, counts, strict=True)})
assert np.allclose(kept, codes, atol=1e-3)
assert values.min() < -0.1 and values.max() > 2.1
assert counts[rounded == 1].sum() > 0.04 * values.size
PYTHON
