#!/usr/bin/env bash
# One would guess: dask and dask-image, two halves of one ecosystem, read a folder of frames f0.tif to
#   f11.tif in the same order, the order of recording.
# What happens: dask.array.image.imread sorts names as text (0, 1, 10, 11, 2, ...); dask_image.imread
#   and tifffile sort by the number in the name (0, 1, 2, ...). Both return a movie of the right shape.
# Where users meet it: recordings kept as one TIFF a frame with unpadded numbers; time runs in jumps,
#   every rate and every speed is wrong, and no message says so.
# Source: own trial; dask documentation of array.image.imread.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 dask==2026.8.0 dask-image==2026.5.0 scikit-image==0.26.0 tifffile==2026.3.3
env/bin/python -W ignore - <<'PYTHON' 2>/dev/null
from importlib.metadata import version

import dask.array.image
import dask_image.imread
import numpy as np
import tifffile

print("dask", version("dask"), "dask-image", version("dask-image"), "tifffile", tifffile.__version__)
for frame in range(12):
    tifffile.imwrite(f"f{frame}.tif", np.full((4, 4), frame, np.uint8))
orders = {
    "dask.array.image": dask.array.image.imread("f*.tif")[:, 0, 0].compute().tolist(),
    "dask_image": dask_image.imread.imread("f*.tif")[:, 0, 0].compute().tolist(),
    "tifffile": tifffile.imread("f*.tif")[:, 0, 0].tolist(),
}
for name, order in orders.items():
    print(name, order)
assert orders["dask.array.image"] == sorted(range(12), key=str)
assert orders["dask_image"] == orders["tifffile"] == list(range(12))
PYTHON
