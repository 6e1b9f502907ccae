#!/usr/bin/env bash
# One would guess: every annotation that writeAnnotation accepts (it returns 0) is in the file.
# What happens: the writer has room for as many annotations as the file has data records (times the
#   number of annotation signals). The rest is dropped when the file is closed; each call returned 0.
# Where users meet it: a hypnogram of 10 s epochs written beside a signal stored in records of 60 s:
#   360 scored epochs go in, 60 come out, all from the first ten minutes.
# Source: own trial; pyedflib documentation of set_number_of_annotation_signals names the limit.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 pyedflib==0.1.42
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pyedflib

print("pyedflib", version("pyedflib"))
writer = pyedflib.EdfWriter("night.edf", 1, file_type=pyedflib.FILETYPE_EDFPLUS)
header = {
    "label": "EEG", "dimension": "uV", "sample_frequency": 1, "physical_max": 1.0,
    "physical_min": -1.0, "digital_max": 100, "digital_min": -100, "prefilter": "", "transducer": "",
}
writer.setSignalHeader(0, header)
writer.setDatarecordDuration(60)
codes = {writer.writeAnnotation(10.0 * epoch, 10.0, "NREM") for epoch in range(360)}
writer.writeSamples([np.zeros(3600)])
writer.close()
onsets, _, _ = pyedflib.EdfReader("night.edf").readAnnotations()
print("360 written, return codes", codes, "-", len(onsets), "read, the last at", onsets[-1], "s")
assert codes == {0}
assert len(onsets) == 60
PYTHON
