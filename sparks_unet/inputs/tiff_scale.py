"""The scale that a TIFF says: pixel size and frame times, each with the tag it comes from."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from common.files import InputError
from inputs.calibration import TOLERANCE, UNKNOWN, Calibration, interval_of_times
from inputs.units import LENGTH_UM, TIME_MS, length_um, plain_unit, time_ms
from settings.config import logger
from settings.recording import Given

LARGEST_PIXEL_UM = 20.0  # of a microscope; coarser resolutions are those of a screen or a printer
PRINT_UNITS = ("inch", "inches", "in", '"', "cm")
FRAME_TIME_LINE = re.compile(r"^\s*(\d+)\t([-+0-9.eE]+)")
MICROMANAGER_TAG = 51123


@dataclass
class FileScale:
    """What the metadata of one program say; None: not said."""

    width: float | None = None
    height: float | None = None
    pixel_tag: str = ""
    frame_ms: float | None = None
    times_s: np.ndarray | None = None
    frame_tag: str = ""


def channel_names(tif: tifffile.TiffFile) -> tuple[str, ...]:
    """Return the names of the channels that OME metadata hold, or none."""
    if not tif.ome_metadata:
        return ()
    channels = _listed(_ome_pixels(tif).get("Channel"))
    return tuple(str(one.get("Name") or one.get("ID", "")) for one in channels)


def file_calibration(
    path: Path, tif: tifffile.TiffFile, n_frames: int, given: Given
) -> Calibration:
    """Return the Calibration that the metadata of a file hold, with the tags as origins.

    Args:
        path: named in messages.
        tif: open file.
        n_frames: of the movie that was read.
        given: its ``channel`` and ``z`` choose the planes whose times count.
    """
    page = tif.pages.first
    lines = _time_lines(path, page.description or "", n_frames)
    if tif.ome_metadata:
        scale = _ome(path, tif, n_frames, given)
    elif tif.is_lsm:
        scale = _lsm(tif, n_frames)
    elif tif.is_stk:
        scale = _stk(tif, n_frames)
    else:
        scale = _imagej_or_plain(path, tif)
        _add_micromanager(tif, n_frames, scale)
        _add_scanimage(tif, scale)
    if lines is not None:
        scale.times_s, scale.frame_ms, scale.frame_tag = lines, None, "tag 270"
    if scale.times_s is not None and scale.frame_ms is None:
        scale.frame_ms = interval_of_times(scale.times_s, path)
    if n_frames < 2:
        scale.times_s = None
    known = bool(scale.width and scale.height)
    return Calibration(
        *((scale.width, scale.height) if known else (None, None)),
        scale.frame_ms,
        frame_times_s=scale.times_s,
        pixel_origin=f"file: {scale.pixel_tag}" if known else UNKNOWN,
        frame_origin=f"file: {scale.frame_tag}" if scale.frame_ms else UNKNOWN,
    )


def _time_lines(path, description, n_frames):
    """Return the frame times in s from the lines ``index<TAB>time`` of tag 270, or None."""
    matches = [FRAME_TIME_LINE.match(line) for line in description.splitlines()]
    values = [match.group(2) for match in matches if match]
    if len(values) < 2:
        return None
    try:
        times = np.array([float(value) for value in values])
    except ValueError:
        return None
    if len(times) != n_frames or not np.all(np.diff(times) > 0) or not np.isfinite(times).all():
        raise InputError(
            f"{path}: tag 270 lists {len(times)} frame times for {n_frames} frames, "
            "expected one rising time per frame; remove or repair the tag"
        )
    return times


def _listed(value):
    """Return what XML holds once or several times as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _ome_pixels(tif):
    images = _listed(tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"])
    return images[0]["Pixels"]


def _ome(path, tif, n_frames, given):
    """Return what OME metadata say: TimeIncrement, else the times of the planes."""
    pixels = _ome_pixels(tif)
    width, height = (
        length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XY"
    )
    scale = FileScale(width, height, "OME PhysicalSize")
    if not (width and height):
        # what OME leaves out the TIFF itself may say
        scale.width, scale.height, scale.pixel_tag = _resolution(path, tif.pages.first, "")
    increment = time_ms(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    times = _plane_times(pixels, n_frames, given)
    if increment:
        scale.frame_ms, scale.frame_tag = increment, "OME TimeIncrement"
        if times is not None:
            median = interval_of_times(times, path)
            if abs(median - increment) > TOLERANCE * increment:
                logger.warning(
                    "%s: OME TimeIncrement %.4g ms is used, its planes are %.4g ms apart",
                    *(path, increment, median),
                )
    elif times is not None:
        scale.times_s, scale.frame_tag = times, "OME DeltaT"
    return scale


def _plane_times(pixels, n_frames, given):
    """Return the times in s of the planes of OME metadata, or None where some have none."""
    wanted = {"TheC": given.channel or 0, "TheZ": given.z or 0}
    planes = _listed(pixels.get("Plane"))
    if any(int(plane.get("TheT", 0)) for plane in planes):
        planes = [
            plane
            for plane in planes
            if all(int(plane.get(name, 0)) == index for name, index in wanted.items())
        ]
        planes = sorted(planes, key=lambda plane: int(plane.get("TheT", 0)))
    if len(planes) != n_frames or n_frames < 2:
        return None
    times = []
    for plane in planes:
        scale = TIME_MS.get(plain_unit(plane.get("DeltaTUnit", "s")))
        if scale is None or plane.get("DeltaT") is None:
            return None
        times.append(float(plane["DeltaT"]) * scale / 1e3)
    return _rising(times)


def _rising(times):
    """Return times as an array, None where they do not rise."""
    times = np.asarray(times, np.float64)
    good = len(times) > 1 and np.isfinite(times).all() and (np.diff(times) > 0).all()
    return times if good else None


def _lsm(tif, n_frames):
    """Return what the Zeiss LSM block says: sizes in m, times in s."""
    meta = tif.lsm_metadata
    width, height = (length_um(meta.get(f"VoxelSize{axis}"), "m") for axis in "XY")
    scale = FileScale(width, height, "LSM VoxelSize")
    stamps = meta.get("TimeStamps")
    times = None if stamps is None else _rising(np.asarray(stamps)[:n_frames])
    if times is not None and len(times) == n_frames:
        scale.times_s, scale.frame_tag = times, "LSM TimeStamps"
    else:
        scale.frame_ms = time_ms(meta.get("TimeIntervall"), "s")
        scale.frame_tag = "LSM TimeIntervall"
    return scale


def _stk(tif, n_frames):
    """Return what the UIC tags of MetaMorph say; times are ms of the day."""
    meta = tif.stk_metadata
    unit = meta.get("CalibrationUnits", "")
    scale = FileScale(pixel_tag=f"STK calibration, unit {unit}")
    if meta.get("SpatialCalibration", 1):
        scale.width, scale.height = (length_um(meta.get(f"{a}Calibration"), unit) for a in "XY")
    created = np.asarray(meta.get("TimeCreated", ()), np.float64)
    times = _rising(created / 1e3) if len(created) == n_frames else None
    if times is not None:
        scale.times_s, scale.frame_tag = times - times[0], "STK plane times"
    return scale


def _imagej_or_plain(path, tif):
    """Return what ImageJ's text and the resolution of a TIFF say."""
    ij = tif.imagej_metadata or {}
    scale = FileScale(*_resolution(path, tif.pages.first, str(ij.get("unit", "")), ij))
    # fps of ImageJ is how fast the movie was played, not how fast it was recorded
    unit = str(ij.get("tunit", "sec"))
    scale.frame_ms = time_ms(ij.get("finterval"), unit)
    scale.frame_tag = "ImageJ finterval"
    if ij.get("finterval") and plain_unit(unit) not in TIME_MS:
        logger.warning(
            "%s: ImageJ's frame interval has the unknown unit %r; give --frame-ms", path, unit
        )
    return scale


def _resolution(path, page, unit, ij=None):
    """Return (width, height, tag) of a pixel in um from the resolution of a TIFF.

    ImageJ names the unit; else that of the TIFF counts. In inch and cm the pixel must be as small
    as those of a microscope: scanners and screens write 72 or 300 pixels an inch.
    """
    units = [str((ij or {}).get(f"{axis}unit") or unit) for axis in "xy"]
    tag_name = f"ImageJ resolution, unit {unit}"
    if plain_unit(unit) not in LENGTH_UM:
        tag = page.tags.get("ResolutionUnit")
        unit = {2: "inch", 3: "cm"}.get(int(tag.value) if tag else 0, "")
        units, tag_name = [unit, unit], f"TIFF resolution per {unit}"
    sizes = [
        length_um(_pixel_size(page, f"{axis}Resolution"), one)
        for axis, one in zip("XY", units, strict=True)
    ]
    if None in sizes:
        return None, None, ""
    if plain_unit(units[0]) in PRINT_UNITS and max(sizes) > LARGEST_PIXEL_UM:
        logger.info(
            "%s: a resolution of %.4g um a pixel is that of a screen; not used", path, max(sizes)
        )
        return None, None, ""
    return *sizes, tag_name


def _pixel_size(page, tag):
    """Return the pixel edge in the unit of the file from a resolution tag (rational), or None."""
    if tag not in page.tags:
        return None
    numerator, denominator = page.tags[tag].value
    return denominator / numerator if numerator else None


def _add_micromanager(tif, n_frames, scale):
    """Take frame times and pixel size of Micro-Manager's own tag where nothing else says them."""
    if scale.frame_ms or len(tif.pages) != n_frames or MICROMANAGER_TAG not in tif.pages.first.tags:
        return
    metas = [page.aspage().tags.valueof(MICROMANAGER_TAG) or {} for page in tif.pages]
    elapsed = [meta.get("ElapsedTime-ms") for meta in metas]
    if None not in elapsed:
        scale.times_s = _rising(np.array(elapsed, np.float64) / 1e3)
        scale.frame_tag = "Micro-Manager ElapsedTime-ms"
    size = length_um(metas[0].get("PixelSizeUm"), "um")
    if size and not scale.width:
        scale.width = scale.height = size
        scale.pixel_tag = "Micro-Manager PixelSizeUm"


def _add_scanimage(tif, scale):
    """Take the frame period of ScanImage where nothing else says one."""
    data = (tif.scanimage_metadata or {}).get("FrameData", {}) if tif.is_scanimage else {}
    period = time_ms(data.get("SI.hRoiManager.scanFramePeriod"), "s")
    if period and not scale.frame_ms:
        scale.frame_ms, scale.frame_tag = period, "ScanImage scanFramePeriod"
