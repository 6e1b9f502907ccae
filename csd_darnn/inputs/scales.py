"""What the numbers of a recording mean: clock, sizes and zero level, each with its origin.

A property is known from the file (origin ``file: <tag>``), given (``flag``) or unknown. A flag wins
over the file, and a difference above 1 % is said. Nothing stands in for an unknown one: results are
then given in frames and pixels, and named so. Playback rates (ImageJ's fps, the headers of videos
and GIFs) are no acquisition rates.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from common.files import InputError
from settings import RunSettings

PLAYED = "file: played"  # origin of times at which a video or GIF shows its frames
DIFFERENT = 0.01  # relative difference of flag and file that is said
SPELLINGS = {  # factor -> how files name the unit, a plural s left out (inche: inches)
    "length in um": {
        1e-4: "angstrom \u00e5", 1e-3: "nm nanometer nanometre",
        1.0: "um micron micrometer micrometre", 1e3: "mm millimeter millimetre",
        1e4: "cm centimeter centimetre", 1e6: "m meter metre",
        1e9: "km kilometer kilometre", 25400.0: 'inch inche in "',
    },
    "time in s": {
        1e-9: "ns nsec nanosecond nanosec", 1e-6: "us usec microsecond microsec",
        1e-3: "ms msec millisecond millisec", 1.0: "s sec second", 60.0: "min minute",
        3600.0: "h hr hour", 86400.0: "d day",
    },
}  # fmt: skip

COUNTED = r"\s*(?:/|\bper\b)\s*(?:pixel|px|pix|pxl|voxel|frame|image|sample)s?$"


def spelled(kind: str) -> dict[str, float]:
    """Return the spellings of a kind of SPELLINGS, singular and plural -> factor."""
    return {
        name + plural: factor
        for factor, names in SPELLINGS[kind].items()
        for name in names.split()
        for plural in ("", "s" if len(name) > 1 else "")
    }


UM, SECONDS = spelled("length in um"), spelled("time in s")


def plain_unit(text: str) -> str:
    """Return a unit in lower case, u for every kind of micro sign, no full stop or brackets.

    What a size or step is counted for (um/pixel, ms per frame) is left out.
    """
    for micro in ("\\u00B5", "\\u03BC", "\u00b5", "\u03bc"):
        text = text.replace(micro, "u")
    text = text.strip().strip("()[].").lower()
    return re.sub(COUNTED, "", text).strip("()[]. ")


class Known(NamedTuple):
    """A value and where it is known from: ``file: <tag>``, ``flag`` or ``unknown``."""

    value: Any = None
    origin: str = "unknown"


UNKNOWN = Known()


@dataclass(frozen=True)
class Scales:
    """Clock, sizes and zero level of a recording.

    Attributes:
        rate_hz: frames per second.
        frame_times_s: (F,) time of every frame, increasing.
        row_um, column_um: height and width of a pixel.
        offset: level of darkness in units of the recording, not of light.
        mask: (H, W) bool, True where the recording has data.
        bad_frames: numbers of frames without a picture, filled from their neighbours.
        note: what the file tells that is not used.
    """

    rate_hz: Known = UNKNOWN
    frame_times_s: Known = UNKNOWN
    row_um: Known = UNKNOWN
    column_um: Known = UNKNOWN
    offset: Known = UNKNOWN
    mask: Known = UNKNOWN
    bad_frames: Known = UNKNOWN
    note: str = ""

    @property
    def time_unit(self) -> str:
        """Return s, or frame when no rate is known."""
        return "s" if self.rate_hz.value else "frame"

    @property
    def even_clock(self) -> bool:
        """Return whether the clock is a rate alone, so that lost frames cannot be seen."""
        return bool(self.rate_hz.value) and self.frame_times_s.value is None

    @property
    def length_unit(self) -> str:
        """Return mm, or pixel when no size is known."""
        return "mm" if self.column_um.value else "pixel"

    @property
    def speed_unit(self) -> str:
        """Return mm/min, or a unit of frames or pixels when a scale is unknown."""
        time = "min" if self.rate_hz.value else "frame"
        return f"{self.length_unit}/{time}"

    @property
    def row_ratio(self) -> float:
        """Return the height of a pixel over its width, 1 when the sizes are unknown."""
        return self.row_um.value / self.column_um.value if self.column_um.value else 1.0

    def known(self) -> bool:
        """Return whether clock, sizes or dark level are known at all."""
        told = self.rate_hz, self.frame_times_s, self.column_um, self.offset
        return any(value.value is not None for value in told)

    def at_rate(self, rate: Known) -> "Scales":
        """Return the Scales at a given rate; times of playback keep their proportions.

        A rate wins over a file's clock, which may count another thing than the times of frames.
        """
        times = self.frame_times_s
        if times.value is None or not times.origin.startswith(PLAYED):
            return replace(self, rate_hz=rate, frame_times_s=UNKNOWN)
        step = float(np.median(np.diff(times.value)))
        stretched = times.value / (step * rate.value)
        told = Known(stretched, f"{times.origin}, stretched to the given rate")
        return replace(self, rate_hz=rate, frame_times_s=told)

    def clock(self, frames: np.ndarray) -> np.ndarray:
        """Return frame numbers (NaN passes) on an even clock, in frames at ``rate_hz``."""
        times = self.frame_times_s.value
        if times is None:
            return np.asarray(frames, float)
        rate_hz = self.rate_hz.value or 1 / float(np.median(np.diff(times)))
        return (np.interp(frames, np.arange(len(times)), times) - times[0]) * rate_hz

    def times(self, frames: np.ndarray) -> np.ndarray:
        """Return frame numbers as time in ``time_unit``."""
        return self.clock(frames) / (self.rate_hz.value or 1.0)

    def lengths(self, pixels: np.ndarray) -> np.ndarray:
        """Return distances in widths of a pixel as ``length_unit``."""
        return pixels * (self.column_um.value / 1000 if self.column_um.value else 1.0)

    def speed(self, frames_per_pixel: float) -> float:
        """Return the speed in ``speed_unit`` of a front that needs that many frames a pixel."""
        um, rate = self.column_um.value, self.rate_hz.value
        speed = um / frames_per_pixel if um else 1 / frames_per_pixel
        speed = speed * rate * 60 if rate else speed
        return speed / 1000 if um else speed

    def missing(self) -> list[str]:
        """Return the flags that would make the unknown clock and size known."""
        return ["--frame_rate_hz"] * (not self.rate_hz.value) + ["--pixel_um"] * (
            not self.column_um.value
        )

    def words(self, *, image: bool = True) -> str:
        """Return what is known, and from where, in one line; a table has no size of pixels."""
        parts = [self._rate_words()] + [self._size_words()] * image
        if self.even_clock:
            parts.append("times of the frames unknown, taken as even: none lost (--frame_times)")
        if self.offset.value is not None:
            parts.append(f"dark level {self.offset.value:g} ({self.offset.origin})")
        if self.mask.value is not None:
            inside, all_ = int(self.mask.value.sum()), self.mask.value.size
            parts.append(f"{inside} of {all_} pixels hold data ({self.mask.origin})")
        if self.bad_frames.value is not None and len(self.bad_frames.value):
            some = ", ".join(str(frame) for frame in self.bad_frames.value[:5])
            more = ", ..." if len(self.bad_frames.value) > 5 else ""
            count = len(self.bad_frames.value)
            parts.append(
                f"{count} bad frames ({some}{more}; {self.bad_frames.origin}) filled from their"
                " neighbours"
            )
        return "; ".join(part for part in (*parts, self.note) if part)

    def _rate_words(self):
        if not self.rate_hz.value:
            uneven = self.frame_times_s.value is not None
            more = f", steps between frames differ ({self.frame_times_s.origin})" if uneven else ""
            return f"frame rate unknown (--frame_rate_hz){more}"
        text = f"frame rate {self.rate_hz.value:.6g} Hz ({self.rate_hz.origin})"
        if self.frame_times_s.value is not None:
            times = self.frame_times_s.value
            text += f", time of every frame ({self.frame_times_s.origin})"
            if abs(times[0]) >= np.median(np.diff(times)):
                text += f", the first at {times[0]:.6g} s, from which results count"
        return text

    def _size_words(self):
        if not self.column_um.value:
            return "pixel size unknown (--pixel_um)"
        high, wide = self.row_um.value, self.column_um.value
        size = f"{wide:.6g} um" if high == wide else f"{high:.6g} um high, {wide:.6g} um wide"
        origins = dict.fromkeys((self.row_um.origin, self.column_um.origin))
        return f"pixel {size} ({', '.join(origins)})"

    def record(self) -> dict:
        """Return the part of settings.json that tells every value with its origin."""

        names = ("rate_hz", "frame_times_s", "row_um", "column_um", "offset", "mask", "bad_frames")
        told = {name: getattr(self, name) for name in names}
        return {name: {"value": short(k.value), "origin": k.origin} for name, k in told.items()}


def short(value: Any) -> Any:
    """Return a value as JSON holds it: counts of a mask, ends of long series, all bad frames."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == bool:
        return {"pixels_inside": int(value.sum()), "pixels": int(value.size)}
    if value.dtype.kind == "f":
        return {"count": len(value), "first": float(value[0]), "last": float(value[-1])}
    return value.tolist()


NO_SCALES = Scales()


def scales_of_sidecar(told: dict, name: str) -> Scales:
    """Return the Scales that resize.py has written beside an array or into splits.json."""
    known, scales = {}, told.get("scales") or {}
    for key in ("rate_hz", "row_um", "column_um", "offset"):
        value = scales.get(key)
        if isinstance(value, int | float) and (value > 0 or key == "offset"):
            known[key] = Known(float(value), f"file: {name}")
    times = scales.get("frame_times_s")
    if isinstance(times, list):
        # Times of playback stay such: they tell proportions only.
        played = str(scales.get("frame_times_origin")).startswith(PLAYED)
        origin = f"{PLAYED}, {name}" if played else f"file: {name}"
        known["frame_times_s"] = Known(check_times(np.asarray(times, float), name), origin)
    if ("row_um" in known) != ("column_um" in known):
        known.pop("row_um", None)
        known.pop("column_um", None)
    return Scales(**known)


def sidecar_of_scales(scales: Scales) -> dict:
    """Return what ``scales_of_sidecar`` reads."""
    names = ("rate_hz", "row_um", "column_um", "offset")
    told = {name: getattr(scales, name).value for name in names}
    times, origin = scales.frame_times_s
    told["frame_times_s"] = None if times is None else np.asarray(times).tolist()
    return told | ({} if times is None else {"frame_times_origin": origin})


def give(
    scales: Scales, chosen: RunSettings, source: Path, shape: tuple[int, int] | None
) -> Scales:
    """Return ``scales`` with what the user gave; a difference from the file is said.

    Args:
        chosen: object with frame_rate_hz, frame_times, pixel_um, row_um, offset, mask and
            bad_frames, as the flags of main.py and onset.py.
        source: file, for the words.
        shape: (H, W) that a mask must have.
    """
    given = {}
    if chosen.pixel_um:
        given["column_um"] = Known(chosen.pixel_um, "flag")
        given["row_um"] = Known(chosen.row_um or chosen.pixel_um, "flag")
    elif chosen.row_um:
        raise InputError("--row_um: found without --pixel_um, expected both; give the width, too")
    if chosen.frame_times:
        times = read_times(chosen.frame_times)
        given["frame_times_s"] = Known(times, "flag")
        given["rate_hz"] = Known(1 / float(np.median(np.diff(times))), "flag: frame_times")
    if chosen.frame_rate_hz:
        given["rate_hz"] = Known(chosen.frame_rate_hz, "flag")
        if not chosen.frame_times:
            given["frame_times_s"] = scales.at_rate(given["rate_hz"]).frame_times_s
    if chosen.offset:
        given["offset"] = Known(chosen.offset, "flag")
    if chosen.mask:
        given["mask"] = Known(read_mask(chosen.mask, shape), "flag")
    if chosen.bad_frames and chosen.bad_frames != "auto":
        given["bad_frames"] = Known(frame_numbers(chosen.bad_frames), "flag")
    for name, flag in (("rate_hz", "--frame_rate_hz"), ("column_um", "--pixel_um"),
                       ("row_um", "--row_um or --pixel_um")):  # fmt: skip
        told, new = getattr(scales, name), given.get(name)
        if new and told.value and abs(new.value / told.value - 1) > DIFFERENT:
            print(
                f"warning: {source}: {flag} {new.value:g} differs from {told.value:g}"
                f" ({told.origin}); the flag is used",
                file=sys.stderr,
            )
    if chosen.frame_times and chosen.frame_rate_hz:
        rate_hz = 1 / float(np.median(np.diff(given["frame_times_s"].value)))
        if abs(chosen.frame_rate_hz / rate_hz - 1) > DIFFERENT:
            print(
                f"warning: {source}: --frame_rate_hz {chosen.frame_rate_hz:g} differs from"
                f" {rate_hz:g}, the middle rate of {chosen.frame_times}; times are those of the"
                " file, lengths in s become frames by the flag",
                file=sys.stderr,
            )
    return replace(scales, **given)


def read_times(path: str | Path) -> np.ndarray:
    """Return the time in s of every frame from a text file, one number a line, or an NPY file."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            times = np.load(path, allow_pickle=False)
        else:
            times = np.loadtxt(path, ndmin=1)
        if times.dtype.kind not in "iuf":  # dates and spans would become counts of their unit
            raise ValueError(f"values of type {times.dtype}")
        times = np.asarray(times, float)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: found no times ({error}), expected one time in s a line, or an NPY file"
        ) from None
    return check_times(times, path)


def check_times(times: np.ndarray, source: str | Path) -> np.ndarray:
    """Return ``times`` when they are a growing series of finite numbers."""
    if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all():
        raise InputError(f"{source}: found times of shape {times.shape}, expected one a frame")
    if not (np.diff(times) > 0).all():
        frame = int(np.argmin(np.diff(times) > 0)) + 1
        raise InputError(
            f"{source}: found time {times[frame]:g} s of frame {frame} after {times[frame - 1]:g}"
            " s, expected growing times"
        )
    return times


def read_mask(path: str | Path, shape: tuple[int, int] | None) -> np.ndarray:
    """Return the mask (H, W) bool of a picture or NPY file: True where it is not 0."""
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            mask = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                mask = np.asarray(picture.convert("L") if picture.mode == "P" else picture)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: found no mask ({error}), expected a picture or NPY") from None
    if mask.ndim == 3 and suffix != ".npy":
        mask = mask[..., : {2: 1, 4: 3}.get(mask.shape[-1], 3)]  # how opaque a pixel is counts not
    mask = (mask != 0) & ~np.isnan(mask) if mask.dtype.kind in "fc" else mask != 0
    mask = mask.any(axis=-1) if mask.ndim == 3 else mask
    if shape is None or mask.shape != tuple(shape):
        wanted = "an image" if shape is None else f"{shape[0]} x {shape[1]} pixels"
        raise InputError(f"{path}: found a mask of shape {mask.shape}, expected {wanted}")
    if not mask.any():
        raise InputError(f"{path}: found a mask without any pixel, expected some that are not 0")
    return mask


def frame_numbers(text: str) -> np.ndarray:
    """Return the 0-based frame numbers of "3,17-20", or of a file of them; "none" is no frame."""
    if text == "none":
        return np.array([], int)
    if not re.fullmatch(r"[-\d,\s]+", text) and Path(text).is_file():
        try:
            source = text
            text = ",".join(Path(source).read_text(encoding="utf-8-sig").replace(",", " ").split())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--bad_frames: {text} cannot be read ({error})") from None
        parts = text.split(",")
        if len(set(parts)) < len(parts):
            raise InputError(
                f"--bad_frames: {source}: found the same number twice, expected the 0-based numbers"
                " of the bad frames, each once (no 0 or 1 for every frame)"
            )
    numbers: set[int] = set()
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            between = range(int(low), int(high or low) + 1)
            if not between:
                raise ValueError(f"{part} runs backwards")
            numbers |= set(between)
    except ValueError:
        raise InputError(
            f"--bad_frames: found {text[:60]!r}, expected frame numbers such as 3,17-20, a file of"
            " them, auto, or none"
        ) from None
    return np.array(sorted(numbers), int)


def fill_frames(values: np.ndarray, frames: Iterable[int], source: str | Path) -> np.ndarray:
    """Return ``values`` (F, K) with ``frames`` filled linearly from the nearest other frames."""
    bad = np.zeros(len(values), bool)
    frames = np.asarray(frames, int)
    if len(frames) and not (frames.min() >= 0 and frames.max() < len(values)):
        raise InputError(
            f"{source}: found bad frame {frames.max()}, expected 0 to {len(values) - 1}"
        )
    bad[frames] = True
    if not bad.any():
        return values
    good = np.flatnonzero(~bad)
    if not len(good):
        raise InputError(f"{source}: all {len(values)} frames are bad, expected some that are not")
    values = np.array(values)
    for frame in np.flatnonzero(bad):
        place = np.searchsorted(good, frame)
        before, after = good[max(0, place - 1)], good[min(place, len(good) - 1)]
        share = (frame - before) / (after - before) if before < frame < after else 0.0
        first = values[after] if before > frame else values[before]
        values[frame] = first + share * (values[after] - first)
    return values


def check_times_fit(scales: Scales, n_frames: int, source: str | Path) -> None:
    """Refuse times of frames that are not as many as the frames."""
    times = scales.frame_times_s.value
    if times is not None and len(times) != n_frames:
        raise InputError(
            f"{source}: found {len(times)} times ({scales.frame_times_s.origin}) for {n_frames}"
            " frames, expected as many; give the time of every frame"
        )
