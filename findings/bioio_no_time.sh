#!/usr/bin/env bash
# One would guess: a reader library for microscope files returns the frame interval and the pixel size
#   that the file states, with or in one unit.
# What happens: for an OME-TIFF with TimeIncrement (in s or ms) and PhysicalSizeX of 500 nm,
#   bioio-ome-tiff returns no time interval and the bare number 500.0, no unit beside it; for an ImageJ
#   TIFF with finterval, bioio-tifffile returns no time interval either. The tags are in the files.
# Where users meet it: "no interval" is read as "the file does not know" and a default takes its place;
#   500 is taken for micrometres.
# Source: own trial; bioio documentation of BioImage.time_interval and physical_pixel_sizes.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q bioio==3.6.0 bioio-ome-tiff==1.4.0 bioio-tifffile==1.3.1 tifffile==2026.3.3
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import bioio_ome_tiff
import bioio_tifffile
import numpy as np
import tifffile
from bioio import BioImage

print(*(f"{name} {version(name)}" for name in ("bioio", "bioio-ome-tiff", "bioio-tifffile")))
movie = np.zeros((5, 8, 8), np.uint16)
for unit, increment in (("s", 0.1), ("ms", 100.0)):
    metadata = {
        "axes": "TYX", "TimeIncrement": increment, "TimeIncrementUnit": unit,
        "PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm",
    }
    tifffile.imwrite("movie.ome.tif", movie, metadata=metadata)
    assert "TimeIncrement" in tifffile.TiffFile("movie.ome.tif").ome_metadata
    image = BioImage("movie.ome.tif", reader=bioio_ome_tiff.Reader)
    column = image.dimension_properties.X
    print(f"OME, {increment} {unit}, 500 nm: interval {image.time_interval},",
          f"column {image.physical_pixel_sizes.X} in unit {column.unit}")
    assert image.time_interval is None
    assert (image.physical_pixel_sizes.X, column.unit) == (500.0, None)
tifffile.imwrite("movie.tif", movie, imagej=True,
                 metadata={"axes": "TYX", "finterval": 0.1, "tunit": "sec"})
image = BioImage("movie.tif", reader=bioio_tifffile.Reader)
print("ImageJ, finterval 0.1 sec: interval", image.time_interval)
assert image.time_interval is None
PYTHON
