#!/usr/bin/env bash
# One would guess: a TIFF saved by ImageJ from a signed 16-bit stack (a difference, a ScanImage movie whose
#   dark level is below 0) comes back signed.
# What happens: ImageJ keeps it as unsigned numbers plus 32768 and states the line back in the metadata
#   (cf=0, c0=-32768, c1=1); tifffile, imageio, scikit-image, dask-image and bioio return the stored
#   numbers, all about 32768. tifffile gives c0 and c1 beside them, applies neither, says nothing.
# Where users meet it: F0 is 32768 too high, so dF/F0 is near 0 everywhere; a photon gain fitted to mean and
#   variance is nonsense. Movies that were opened in Fiji once and saved.
# Source: own trial; imagej.net, ImageJ user guide, "16-bit signed" import and Analyze > Calibrate.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 tifffile==2026.3.3 imageio==2.38.1 scikit-image==0.26.0 \
    dask-image==2026.5.0 bioio==3.6.0 bioio-tifffile==1.3.1
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import bioio_tifffile
import dask_image.imread
import imageio.v3 as iio
import numpy as np
import skimage.io
import tifffile
from bioio import BioImage

names = ("tifffile", "imageio", "scikit-image", "dask-image", "bioio-tifffile")
print(*(f"{name} {version(name)}" for name in names))
signed = np.arange(-40, 280, dtype=np.int16).reshape(5, 8, 8)
calibration = {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}
tifffile.imwrite(  # as ImageJ keeps it
    "signed.tif", (signed.astype(int) + 32768).astype(">u2"), byteorder=">", imagej=True,
    metadata={"axes": "TYX", **calibration},
)
with tifffile.TiffFile("signed.tif") as tif:
    print("metadata:", {key: tif.imagej_metadata[key] for key in calibration})
    assert tif.imagej_metadata["c0"] == -32768
read = {
    "tifffile": tifffile.imread("signed.tif"),
    "imageio": iio.imread("signed.tif"),
    "scikit-image": skimage.io.imread("signed.tif"),
    "dask-image": dask_image.imread.imread("signed.tif").compute(),
    "bioio": BioImage("signed.tif", reader=bioio_tifffile.Reader).get_image_data("TYX"),
}
for name, array in read.items():
    print(f"{name}: {array.dtype}, {array.min()} to {array.max()}; in ImageJ {signed.min()} to {signed.max()}")
    assert np.array_equal(array.astype(int) - 32768, signed)
PYTHON
