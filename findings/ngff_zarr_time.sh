#!/usr/bin/env bash
# One would guess: an array of frames x rows x columns that is written as OME-NGFF keeps its frames in every
#   resolution, or the writer asks what the first axis is.
# What happens: ngff-zarr takes three axes without names for depth, rows, columns: the movie becomes a
#   stack of 40 planes 1.0 apart without a unit, and each lower resolution averages pairs of frames, so a
#   transient of one frame has half its height at scale 1 and a quarter at scale 2. Nothing says so. With dims
#   ("t", "y", "x") frames stay whole. ome-zarr, the other writer, keeps them in both cases or asks.
# Where users meet it: long movies are made OME-NGFF for a viewer that shows a lower resolution first;
#   traces read from it have half the frame rate and smaller events.
# Source: own trial; ngff-zarr documentation of to_ngff_image (dims) and of to_multiscales.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 ngff-zarr==0.50.0 zarr==3.1.6
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import ngff_zarr
import numpy as np

print("ngff-zarr", version("ngff-zarr"))
movie = np.zeros((40, 256, 256), np.float32)
movie[20] = 100.0
found = {}
for dims in (None, ("t", "y", "x")):
    image = ngff_zarr.to_ngff_image(movie, **({"dims": dims} if dims else {}))
    scales = ngff_zarr.to_multiscales(image, scale_factors=[2, 4]).images
    found[dims] = [(len(s.data), round(float(s.data.max().compute()), 1)) for s in scales]
    print(f"dims {dims}: taken as {image.dims}; frames and largest value by resolution {found[dims]}")
assert [frames for frames, _ in found[None]] == [40, 20, 10]
assert found[None][2][1] < 60 <= 100 == found[None][0][1]
assert [frames for frames, _ in found["t", "y", "x"]] == [40] * 3
PYTHON
