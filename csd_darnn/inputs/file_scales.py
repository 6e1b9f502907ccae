"""Clock and size of a pixel as the metadata of TIFF, video and GIF files tell them."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from common.files import InputError
from inputs.scales import PLAYED, SECONDS, UM, Known, Scales, plain_unit

INCHES = {"inch", "inches", "in"}
SCREENS = {72.0, 96.0, 100.0, 150.0, 200.0, 300.0, 600.0}  # dots per inch that programs fill in
EVEN = 0.02  # share of the median step by which steps of an even clock may differ


def imagej_scales(page: tifffile.TiffPage, metadata: dict) -> Scales:
    """Return the Scales that ImageJ's metadata tell: finterval in tunit, resolution in unit.

    ``fps`` is the rate of ImageJ's player, 7 by default, whatever the camera did.
    """
    known, note = {}, ""
    unit = plain_unit(str(metadata.get("tunit", "s")))
    interval = number_or_none(metadata.get("finterval"))
    if interval and unit in SECONDS:
        tag = "finterval" if unit in ("s", "sec") else f"finterval in {unit}"
        known["rate_hz"] = Known(1 / (interval * SECONDS[unit]), f"file: {tag}")
    elif interval:
        note = f"finterval is in {unit}, which is no unit of time"
    elif number_or_none(metadata.get("fps")):
        note = f"fps={metadata['fps']} of ImageJ is a playback rate and is not used"
    units = [plain_unit(str(metadata.get("unit", "")))]
    units.append(plain_unit(str(metadata.get("yunit", units[0]))))
    per_unit = page.get_resolution() if metadata else (0, 0)
    if not metadata and page.resolutionunit == tifffile.RESUNIT.CENTIMETER:
        units, per_unit = ["cm", "cm"], page.get_resolution()
    if set(units) <= INCHES and set(per_unit) <= SCREENS:
        note = note or f"{per_unit[0]:g} dots per inch are those of a screen or printer, no scale"
        units = ["", ""]
    if all(unit in UM for unit in units) and min(per_unit) > 0:
        for name, tag, unit, per in zip(
            ("column_um", "row_um"), ("XResolution", "YResolution"), units, per_unit, strict=True
        ):
            # A resolution is a fraction of whole numbers; in um it stays as the file tells it.
            size = 1 / per if UM[unit] == 1 else UM[unit] / per
            known[name] = Known(size, f"file: {tag} in {unit}")
    return Scales(**known, note=note)


def ome_scales(path: Path, tif: tifffile.TiffFile, n_frames: int) -> Scales:
    """Return the Scales of OME-XML: PhysicalSizeX and Y, TimeIncrement, DeltaT of every plane."""
    known = {}
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
        known["column_um"] = Known(sizes[0], "file: PhysicalSizeX")
        known["row_um"] = Known(sizes[1], "file: PhysicalSizeY")
    step = value(pixels, "TimeIncrement", SECONDS, "s")
    planes = [e for e in pixels if e.tag.endswith("}Plane")]
    told = {int(e.get("TheT", 0)): float(e.get("DeltaT", "nan")) for e in planes}
    units = {plain_unit(e.get("DeltaTUnit", "s")) for e in planes}
    times = np.array([told.get(frame, np.nan) for frame in range(n_frames)])
    if len(units) == 1 and units <= SECONDS.keys() and n_frames > 1:
        times *= SECONDS[units.pop()]
        if (np.diff(times) > 0).all():  # false where a time is missing
            known["frame_times_s"] = Known(times, "file: DeltaT")
            step = step or float(np.median(np.diff(times)))
    if step:
        tag = "TimeIncrement" if pixels.get("TimeIncrement") else "DeltaT"
        known["rate_hz"] = Known(1 / step, f"file: {tag}")
    return Scales(**known)


def scanimage_text(tif: tifffile.TiffFile) -> str:
    """Return what ScanImage writes into the first page of a file: lines of name = value."""
    tags = tif.pages[0].tags
    return "\n".join(str(tags[name].value) for name in ("Software", "ImageDescription")
                     if name in tags)  # fmt: skip


def scanimage_channels(tif: tifffile.TiffFile) -> int:
    """Return how many channels follow each other in a file of ScanImage."""
    told = re.search(r"SI\.hChannels\.channelSave\s*=\s*(\S.*)", scanimage_text(tif))
    return max(1, len(re.findall(r"\d+", told[1]))) if told else 1


def scanimage_scales(tif: tifffile.TiffFile) -> Scales:
    """Return the Scales of ScanImage: time stamps of the frames, or the rate of its scanner."""
    stamp = re.compile(r"frameTimestamps_sec\s*=\s*([\d.eE+-]+)")
    stamps = [stamp.search(page.description or "") for page in tif.pages]
    if len(stamps) > 1 and all(stamps):
        times = np.array([float(match[1]) for match in stamps])
        each = times[:: scanimage_channels(tif)]
        if len(each) > 1 and (np.diff(each) > 0).all():
            rate = Known(1 / float(np.median(np.diff(each))), "file: frameTimestamps_sec")
            return Scales(rate, frame_times_s=Known(times, "file: frameTimestamps_sec"))
    text = scanimage_text(tif)
    rate = re.search(r"SI\.hRoiManager\.scanFrameRate\s*=\s*([\d.eE+-]+)", text)
    factor = re.search(r"SI\.hScan2D\.logAverageFactor\s*=\s*([\d.]+)", text)
    number = number_or_none(rate[1]) if rate else None
    if number is None:
        return Scales()
    return Scales(Known(number / (float(factor[1]) if factor else 1.0), "file: scanFrameRate"))


def uneven_times(times: np.ndarray, tag: str) -> Scales | None:
    """Return the Scales of a video whose frames are shown at uneven ``times`` (F,) in s, or None.

    A player's even rate is no clock; uneven steps are, up to a factor: the rate stays unknown.
    """
    steps = np.diff(times)
    if len(steps) < 1 or not (steps > 0).all():
        return None
    middle = float(np.median(steps))
    if np.abs(steps - middle).max() <= max(EVEN * middle, 0.0011):  # MKV counts whole ms
        return None
    origin = f"{PLAYED}, {tag}"
    note = f"{1 / middle:.6g} frames/s in the header is a playback rate and is not used"
    return Scales(frame_times_s=Known(times, origin), note=note)


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
