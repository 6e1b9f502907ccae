#!/usr/bin/env bash
# One would guess: the corners of an ImageJ ROI (roifile's coordinates()) drawn with scikit-image or OpenCV
#   give the pixels that ImageJ measures.
# What happens: ImageJ's corners lie between pixels, those of scikit-image and OpenCV in the middle of
#   pixels, and both count the border in: a rectangle of 3 x 3 pixels becomes 4 x 4 (16 instead of 9
#   pixels), one row and one column too far down and right; a 10 x 10 cell 121. OpenCV and
#   scikit-image agree, which looks like a check.
# Where users meet it: traces of cells or sparks from Fiji ROIs: 78 % (21 %) more pixels, all of them
#   background or neighbour, so dF/F0 is too small; the mask's area is no longer that of Fiji's table.
# Source: own trial; ImageJ user guide on coordinates, docs of skimage.draw.polygon2mask.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q numpy==2.4.6 roifile==2026.2.10 scikit-image==0.26.0 opencv-python-headless==5.0.0.93
env/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import cv2
import numpy as np
from roifile import ROI_TYPE, ImagejRoi
from skimage.draw import polygon2mask

print("roifile", version("roifile"), "scikit-image", version("scikit-image"), "OpenCV", cv2.__version__)
for size in (3, 10):
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, left=2, top=2, right=2 + size, bottom=2 + size)
    roi.tofile("cell.roi")
    corners = ImagejRoi.fromfile("cell.roi").coordinates()  # (x, y)
    cell = np.zeros((20, 20))
    cell[roi.top : roi.bottom, roi.left : roi.right] = 100.0  # the pixels that ImageJ measures
    drawn = polygon2mask(cell.shape, corners[:, ::-1])
    filled = cv2.fillPoly(np.zeros(cell.shape, np.uint8), [corners.astype(np.int32)], 1) > 0
    middles = polygon2mask(cell.shape, corners[:, ::-1] - 0.5)
    print(f"{size} x {size}: {int((cell > 0).sum())} pixels; polygon2mask {drawn.sum()}, fillPoly {filled.sum()},",
          f"corners less 0.5 {middles.sum()}; mean of the cell 100, under the mask {cell[drawn].mean():.1f}")
    assert drawn.sum() == filled.sum() == (size + 1) ** 2
    assert np.array_equal(middles, cell > 0)
PYTHON
