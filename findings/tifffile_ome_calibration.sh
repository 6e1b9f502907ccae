#!/usr/bin/env bash
# One would guess: calibration handed to tifffile.imwrite as resolution= and in ImageJ's words
#   (finterval, unit) is kept in whatever flavour the file name asks for, or refused.
# What happens: for a name ending in .ome.tif the OME-XML holds neither PhysicalSizeX nor
#   TimeIncrement; resolution= goes to the TIFF tags only, finterval and unit vanish without a message.
#   The same call with another name and imagej=True keeps all of them.
# Where users meet it: a script that saved ImageJ files is switched to OME-TIFF by renaming the output;
#   OME readers then find an uncalibrated movie.
# Source: own trial; tifffile documentation of TiffWriter.write (metadata) and of OmeXml.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 tifffile==2026.3.3
env/bin/python -W error - <<'PYTHON'
import numpy as np
import tifffile

print("tifffile", tifffile.__version__)
movie = np.zeros((5, 8, 8), np.uint16)
words = {"axes": "TYX", "finterval": 0.1, "unit": "um"}
tifffile.imwrite("movie.ome.tif", movie, resolution=(5.0, 5.0), metadata=words)
tifffile.imwrite("movie.tif", movie, imagej=True, resolution=(5.0, 5.0), metadata=words)
with tifffile.TiffFile("movie.ome.tif") as ome, tifffile.TiffFile("movie.tif") as imagej:
    kept = {key: key in ome.ome_metadata for key in ("PhysicalSizeX", "TimeIncrement", "finterval")}
    print("OME-XML:", kept, "tag XResolution:", ome.pages[0].tags["XResolution"].value)
    print("ImageJ:", {key: imagej.imagej_metadata.get(key) for key in ("finterval", "unit")})
    assert not any(kept.values())
    assert imagej.imagej_metadata["finterval"] == 0.1
    assert imagej.imagej_metadata["unit"] == "um"
PYTHON
