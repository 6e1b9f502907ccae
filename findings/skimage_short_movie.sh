#!/usr/bin/env bash
# One would guess: reading a grey TIFF of T pages gives (T, rows, columns) for every T.
# What happens: skimage.io.imread takes a first axis of 3 or 4 for colour channels and moves it to the
#   end, so a movie of 3 or 4 frames comes back as (rows, columns, frames). With 2 or 5 frames it does
#   not; tifffile, which does the reading, gives (frames, rows, columns) for all of them.
# Where users meet it: short test recordings, a movie cut to its first frames, one averaged frame per
#   phase; the axes are swapped without a message and the "frames" are then rows.
# Source: own trial; scikit-image documentation of io.imread ("the different color bands/channels are
#   stored in the third dimension").
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 scikit-image==0.26.0 tifffile==2026.3.3
env/bin/python - <<'PYTHON'
import numpy as np
import skimage
import skimage.io
import tifffile

print("scikit-image", skimage.__version__, "tifffile", tifffile.__version__)
shapes = {}
for frames in (2, 3, 4, 5):
    movie = np.zeros((frames, 64, 48), np.uint16)
    tifffile.imwrite("movie.tif", movie, photometric="minisblack")
    shapes[frames] = skimage.io.imread("movie.tif").shape
    print(frames, "frames: tifffile", tifffile.imread("movie.tif").shape, "scikit-image", shapes[frames])
moved = {frames: shape[-1] == frames for frames, shape in shapes.items()}
assert moved == {2: False, 3: True, 4: True, 5: False}, moved
PYTHON
