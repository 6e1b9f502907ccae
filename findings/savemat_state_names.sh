#!/usr/bin/env bash
# One would guess: a Python list of names saved with scipy.io.savemat is a MATLAB cell of those names and
#   comes back as them.
# What happens: a list of strings becomes a character matrix, so shorter names are padded with blanks:
#   'REM' comes back as 'REM ' (also through pymatreader). An object array becomes a cell and is exact.
# Where users meet it: sleep scores written as names from Python: 'REM ' is no key of {'REM': ...}, and
#   those epochs are counted as unscored, while 'wake' and 'NREM' work.
# Source: own trial; scipy documentation of io.savemat.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 scipy==1.17.1 pymatreader==1.3.2
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pymatreader
import scipy.io

print("scipy", scipy.__version__, "pymatreader", version("pymatreader"))
names = ["wake", "REM", "NREM"]
scipy.io.savemat("score.mat", {"as_list": names, "as_objects": np.array(names, dtype=object)})
score = scipy.io.loadmat("score.mat", squeeze_me=True)
print("list:", score["as_list"].tolist(), "objects:", score["as_objects"].tolist())
print("list, pymatreader:", list(pymatreader.read_mat("score.mat")["as_list"]))
assert score["as_list"].tolist() == ["wake", "REM ", "NREM"]
assert list(pymatreader.read_mat("score.mat")["as_list"]) == ["wake", "REM ", "NREM"]
assert score["as_objects"].tolist() == names
PYTHON
