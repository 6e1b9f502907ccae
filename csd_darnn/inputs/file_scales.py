"""Clock and size of a pixel as the metadata of TIFF, video and GIF files tell them."""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from common.files import InputError
from inputs.scales import SECONDS, UM, Known, Scales, plain_unit


def imagej_scales(page: tifffile.TiffPage, metadata: dict) -> Scales:
    """Return the Scales that ImageJ's metadata tell: finterval in tunit, resolution in unit.

    ``fps`` is the rate of ImageJ's player, 7 by default, whatever the camera did.
    """
    found, note = {}, ""
    unit = plain_unit(str(metadata.get("tunit", "s")))
    interval = number_or_none(metadata.get("finterval"))
    if interval and unit in SECONDS:
        tag = "finterval" if unit in ("s", "sec") else f"finterval in {unit}"
        found["rate_hz"] = Known(1 / (interval * SECONDS[unit]), f"file: {tag}")
    elif interval:
        note = f"finterval is in {unit}, which is no unit of time"
    elif number_or_none(metadata.get("fps")):
        note = f"fps={metadata['fps']} of ImageJ is a playback rate and is not used"
    units = [plain_unit(str(metadata.get("unit", "")))]
    units.append(plain_unit(str(metadata.get("yunit", units[0]))))
    per_unit = page.get_resolution() if metadata else (0, 0)
    if all(unit in UM for unit in units) and min(per_unit) > 0:
        for name, tag, unit, per in zip(
            ("column_um", "row_um"), ("XResolution", "YResolution"), units, per_unit, strict=True
        ):
            # A resolution is a fraction of whole numbers; in um it stays as the file tells it.
            size = 1 / per if UM[unit] == 1 else UM[unit] / per
            found[name] = Known(size, f"file: {tag} in {unit}")
    return Scales(**found, note=note)


def ome_scales(path: Path, tif: tifffile.TiffFile, n_frames: int) -> Scales:
    """Return the Scales of OME-XML: PhysicalSizeX and Y, TimeIncrement, DeltaT of every plane."""
    found = {}
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: the OME-XML is damaged ({error}); export it again") from None
    pixels = next((e for e in root.iter() if e.tag.endswith("}Pixels")), None)
    if pixels is None:
        return Scales()

    def value(element, name, units, default):
        number = number_or_none(element.get(name))
        unit = plain_unit(element.get(f"{name}Unit", default))
        return number * units[unit] if number and unit in units else None

    sizes = [value(pixels, f"PhysicalSize{axis}", UM, "um") for axis in "XY"]
    if all(sizes):
        found["column_um"] = Known(sizes[0], "file: PhysicalSizeX")
        found["row_um"] = Known(sizes[1], "file: PhysicalSizeY")
    step = value(pixels, "TimeIncrement", SECONDS, "s")
    planes = [e for e in pixels if e.tag.endswith("}Plane")]
    told = {int(e.get("TheT", 0)): float(e.get("DeltaT", "nan")) for e in planes}
    units = {plain_unit(e.get("DeltaTUnit", "s")) for e in planes}
    times = np.array([told.get(frame, np.nan) for frame in range(n_frames)])
    if len(units) == 1 and units <= SECONDS.keys() and n_frames > 1:
        times *= SECONDS[units.pop()]
        if (np.diff(times) > 0).all():  # false where a time is missing
            found["frame_times_s"] = Known(times, "file: DeltaT")
            step = step or float(np.median(np.diff(times)))
    if step:
        tag = "TimeIncrement" if pixels.get("TimeIncrement") else "DeltaT"
        found["rate_hz"] = Known(1 / step, f"file: {tag}")
    return Scales(**found)


def playback(rate_hz: float) -> Scales:
    """Return the Scales of a video or GIF: its header tells how fast it is shown, no more."""
    if not rate_hz:
        return Scales()
    return Scales(note=f"{rate_hz:.6g} frames/s in the header is a playback rate and is not used")


def number_or_none(text: str | float | None) -> float | None:
    """Return a finite number above 0, or None."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < math.inf else None
