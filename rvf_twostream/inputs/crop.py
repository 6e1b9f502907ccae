"""Cut frames to the ultrasound region of the header or to the moving fan (specification 5.1).

Letters in shape comments: n frames, r rows, c columns.
"""

import cv2
import numpy as np
from pydicom import Dataset

SECTOR_LEVEL = 12  # grey level that a pixel of the sector exceeds at some time
OVERSHOOT = 0.02  # part of a region that may lie outside the frame


def ultrasound_regions(data: Dataset) -> list[Dataset]:
    """Return the items of SequenceOfUltrasoundRegions (0018,6011)."""
    return list(data.get("SequenceOfUltrasoundRegions") or [])


def tissue_region(data: Dataset) -> tuple[int, int, int, int] | None:
    """Return row0, row1, col0, col1 (inclusive) of the largest 2-D tissue region, or None."""
    boxes = []
    for item in ultrasound_regions(data):
        corners = [
            item.get(f"RegionLocation{name}") for name in ("MinY0", "MaxY1", "MinX0", "MaxX1")
        ]
        kind = item.get("RegionSpatialFormat"), item.get("RegionDataType")
        if kind == (1, 1) and all(isinstance(x, int) for x in corners):
            row0, row1, col0, col1 = corners
            if row1 > row0 and col1 > col0:
                boxes.append((row0, row1, col0, col1))
    return max(boxes, key=lambda b: (b[1] - b[0]) * (b[3] - b[2]), default=None)


def pixel_cm(data: Dataset) -> tuple[float, float] | None:
    """Return (width, height) of a pixel of the largest 2-D tissue region in cm, or None.

    PhysicalDeltaX and Y (0018,602C) and (0018,602E) count where their unit is cm, code 3.
    """
    region = tissue_region(data)
    for item in ultrasound_regions(data):
        units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
        corners = tuple(
            item.get(f"RegionLocation{name}") for name in ("MinY0", "MaxY1", "MinX0", "MaxX1")
        )
        if region is None or corners != region or units != (3, 3):
            continue
        try:
            size = tuple(abs(float(item.get(f"PhysicalDelta{axis}"))) for axis in "XY")
        except (TypeError, ValueError):
            return None
        return size if all(np.isfinite(x) and 0 < x < 1 for x in size) else None
    return None


def region_box(size: tuple[int, int], data: Dataset) -> tuple[list[int] | None, list[str]]:
    """Return row0, row1, col0, col1 (inclusive) of --crop region in frames of ``size``, or None.

    Returns:
        box, and a list of warnings.
    """
    r, c = size
    region = tissue_region(data)
    if region is None:
        return None, ["no 2-D tissue region (0018,6011): not cropped"]
    # One pixel of overshoot is common: scanners write the size instead of the last index.
    row0, row1, col0, col1 = region
    region = row0, row1 - (row1 == r), col0, col1 - (col1 == c)
    box = [max(region[0], 0), min(region[1], r - 1), max(region[2], 0), min(region[3], c - 1)]
    area = (region[1] - region[0] + 1) * (region[3] - region[2] + 1)
    inside = max(box[1] - box[0] + 1, 0) * max(box[3] - box[2] + 1, 0)
    if inside < (1 - OVERSHOOT) * area:
        return None, [
            f"ultrasound region (0018,6011) rows {region[0]}..{region[1]}, columns "
            f"{region[2]}..{region[3]} lies outside the frame of {r} x {c}: not cropped"
        ]
    return box, []


def mask_box(mask: np.ndarray) -> list[int]:
    """Return row0, row1, col0, col1 (inclusive) of what a mask (r, c) holds."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1])]


def sector_mask(frames: np.ndarray) -> np.ndarray | None:
    """Return the (r, c) bool mask of the moving fan of frames (n, r, c), or None."""
    return sector_of_extremes(frames.min(axis=0), frames.max(axis=0))


def sector_of_extremes(low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """Return the (r, c) bool mask of the moving fan, or None when nothing moves.

    Args:
        low, high: (r, c) minimum and maximum over all frames.

    Pixels that exceed 12 at some time and change over time; the largest connected component of
    them, closed and filled. Text, scales and menus do not change.
    """
    bright = high > SECTOR_LEVEL
    moving = high - low > 2
    seed = (bright & moving).astype(np.uint8)
    size = max(3, round(min(seed.shape) / 40)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    # Opening first: a thin ECG line or digits that touch the fan would join it.
    solid = cv2.morphologyEx(seed, cv2.MORPH_CLOSE, kernel)
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    component = (labels == largest).astype(np.uint8)
    contours, _ = cv2.findContours(component, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(component)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled.astype(bool)
