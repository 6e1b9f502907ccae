#!/usr/bin/env bash
# One would guess: a MATLAB char matrix with one name a row, ['wake'; 'nrem'; 'rem '], saved with -v7.3
#   comes back as three names, as it does from a file of version 7.
# What happens: mat73 returns one text, the letters in MATLAB's order of memory: 'wnrarekemem '.
#   pymatreader and hdf5storage return the three names from the same file, scipy those of a version 7 file.
# Where users meet it: lists of sleep states, animals or stimuli beside a movie that is too large for
#   version 7; the text is no known name, or is split at the wrong places into names that are.
# Source: own trial (mat73's documentation shows texts of one row only).
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 scipy==1.17.1 h5py==3.16.0 mat73==0.65 pymatreader==1.3.2 hdf5storage==0.2.2
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import h5py
import hdf5storage
import mat73
import numpy as np
import pymatreader
import scipy.io

print(*(f"{name} {version(name)}" for name in ("mat73", "pymatreader", "hdf5storage", "scipy")))
names = ["wake", "nrem", "rem "]
letters = np.array([[ord(letter) for letter in name] for name in names], np.uint16)  # (3, 4)
with h5py.File("states.mat", "w", userblock_size=512) as file:
    held = file.create_dataset("states", data=letters.T)  # MATLAB's first axis is HDF5's last
    held.attrs["MATLAB_class"] = np.bytes_("char")
    held.attrs["MATLAB_int_decode"] = np.int32(2)
with open("states.mat", "r+b") as file:
    file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")
scipy.io.savemat("states7.mat", {"states": np.array(names)})
read = {
    "scipy, version 7": scipy.io.loadmat("states7.mat")["states"],
    "hdf5storage": hdf5storage.loadmat("states.mat")["states"],
    "pymatreader": pymatreader.read_mat("states.mat")["states"],
    "mat73": mat73.loadmat("states.mat")["states"],
}
for name, found in read.items():
    print(f"{name}:", found if isinstance(found, str) else np.ravel(found).tolist())
assert read["mat73"] == "wnrarekemem "
assert all([n.strip() for n in np.ravel(read[k])] == ["wake", "nrem", "rem"] for k in list(read)[:3])
PYTHON
