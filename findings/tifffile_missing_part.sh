#!/usr/bin/env bash
# One would guess: reading one file of an OME-TIFF set whose other file is not there raises an error, or
#   gives the frames that are there.
# What happens: tifffile.imread returns the whole movie with zeros for the missing frames and writes a
#   line to its logger; bioio's OME reader passes the same array on.
# Where users meet it: Micro-Manager and other programs split a recording at 4 GB; the first file is
#   copied alone, and half of the recording is black: F0, onset and rates are computed on zeros.
# Source: own trial; tifffile documentation of multi-file OME series.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q tifffile==2026.3.3 bioio==3.6.0 bioio-ome-tiff==1.4.0
env/bin/python -W ignore - <<'PYTHON' 2>/dev/null
import shutil
from importlib.metadata import version
from pathlib import Path

import bioio_ome_tiff
import numpy as np
import tifffile
from bioio import BioImage

print("tifffile", tifffile.__version__, "bioio-ome-tiff", version("bioio-ome-tiff"))
names = ("part1.ome.tif", "part2.ome.tif")
ids = [f"urn:uuid:{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}" for digit in "12"]
blocks = "".join(
    f'<TiffData IFD="{frame % 3}" FirstT="{frame}" FirstC="0" FirstZ="0" PlaneCount="1">'
    f'<UUID FileName="{names[frame // 3]}">{ids[frame // 3]}</UUID></TiffData>'
    for frame in range(6)
)
for part in (0, 1):
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[part]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="8" '
        'SizeY="8" SizeC="1" SizeZ="1" SizeT="6"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        f"{blocks}</Pixels></Image></OME>"
    )
    frames = np.ones((3, 8, 8), np.uint16) * np.arange(3 * part + 1, 3 * part + 4)[:, None, None]
    tifffile.imwrite(names[part], frames.astype(np.uint16), photometric="minisblack",
                     description=text.encode(), metadata=None)
print("both files:", tifffile.imread(names[0])[:, 0, 0].tolist())
Path("alone").mkdir()
shutil.copy(names[0], "alone")
alone = tifffile.imread(f"alone/{names[0]}")[:, 0, 0].tolist()
image = BioImage(f"alone/{names[0]}", reader=bioio_ome_tiff.Reader)
read = image.get_image_data("TYX", C=0, Z=0)[:, 0, 0].tolist()
print("first file alone, tifffile:", alone, "bioio:", read)
assert alone == read == [1, 2, 3, 0, 0, 0]
PYTHON
