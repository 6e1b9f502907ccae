"""The scale of a recording: pixel size, frame interval and offset, each with its origin."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from common.files import InputError
from settings.config import PostParams, logger
from settings.recording import Given

UNKNOWN = "unknown"
TOLERANCE = 0.01  # a given value that differs by more from the file's is told
UNEVEN = 0.5  # a frame interval that differs by this share from the median is a pause or a jump


@dataclass(frozen=True)
class Calibration:
    """Scale of a recording; made where a file is read and passed whole.

    Attributes:
        pixel_x_um, pixel_y_um: edges of a pixel in um, None where nobody said them.
        frame_ms: time between frames in ms (the median where frames have times), or None.
        offset_counts: counts without light, or None.
        frame_times_s: (T,) float64 times of the frames in s, or None.
        pixel_origin, frame_origin, offset_origin: ``file: <tag>``, ``flag``, ``config`` or
            ``unknown``.
    """

    pixel_x_um: float | None = None
    pixel_y_um: float | None = None
    frame_ms: float | None = None
    offset_counts: float | None = None
    frame_times_s: np.ndarray | None = None
    pixel_origin: str = UNKNOWN
    frame_origin: str = UNKNOWN
    offset_origin: str = UNKNOWN

    @classmethod
    def of(cls, pixel_um: float, frame_ms: float, origin: str = "flag") -> "Calibration":
        """Return the calibration of square pixels of ``pixel_um`` and frames of ``frame_ms``."""
        return cls(pixel_um, pixel_um, frame_ms, pixel_origin=origin, frame_origin=origin)

    @property
    def pixel_um(self) -> float | None:
        """Width of a pixel in um; where pixels are oblong, along x."""
        return self.pixel_x_um

    @property
    def aspect(self) -> float:
        """Height over width of a pixel; 1 where the size is unknown."""
        return self.pixel_y_um / self.pixel_x_um if self.pixel_x_um and self.pixel_y_um else 1.0

    @property
    def pixel_um2(self) -> float:
        """Area of a pixel in um2; its size must be known."""
        return self.pixel_x_um * self.pixel_y_um

    def given(self, values: Given, *, source: object = "movie") -> "Calibration":
        """Return the calibration in which values that the user gave win over those of the file.

        Args:
            values: what the user gave.
            source: named where a given value differs from the file's by more than 1 %.
        """
        changes = {}
        if values.pixel_um:
            origin = values.origin("pixel_um")
            for new, old in zip(values.pixel_um, (self.pixel_x_um, self.pixel_y_um), strict=True):
                self._tell(source, "pixel size", new, old, self.pixel_origin, "um")
            width, height = values.pixel_um
            changes |= {"pixel_x_um": width, "pixel_y_um": height, "pixel_origin": origin}
        if values.frame_ms:
            new = values.frame_ms
            self._tell(source, "frame interval", new, self.frame_ms, self.frame_origin, "ms")
            origin = values.origin("frame_ms")
            changes |= {"frame_ms": new, "frame_origin": origin, "frame_times_s": None}
        if values.offset_counts is not None:
            origin = values.origin("offset_counts")
            changes |= {"offset_counts": values.offset_counts, "offset_origin": origin}
        return dataclasses.replace(self, **changes)

    @staticmethod
    def _tell(source, what, new, old, origin, unit):
        if old and abs(new - old) > TOLERANCE * old:
            logger.warning(
                *("%s: %s %.4g %s is used, the file says %.4g %s (%s)", source, what, new, unit),
                *(old, unit, origin),
            )

    def needed(self, source: object, *, pixel: bool = True, frame: bool = True) -> "Calibration":
        """Return this calibration; raise InputError that names the flag of what is unknown."""
        missing = []
        if pixel and not self.pixel_um:
            missing.append("pixel size: give --pixel-um UM (an INI file: pixel_size_um)")
        if frame and not self.frame_ms:
            missing.append("frame interval: give --frame-ms MS (an INI file: frame_ms)")
        if missing:
            raise InputError(f"{source}: the file does not say its {'; nor its '.join(missing)}")
        return self

    def line(self) -> str:
        """Return one line that says every value and its origin."""

        def part(what, value, unit, origin):
            known = value is not None
            return f"{what} {value:.4g} {unit} ({origin})" if known else f"{what} unknown"

        pixel = part("pixel", self.pixel_um, "um", self.pixel_origin)
        if abs(self.aspect - 1) > TOLERANCE:
            pixel = f"pixel {self.pixel_x_um:.4g} x {self.pixel_y_um:.4g} um ({self.pixel_origin})"

        return ", ".join(
            (
                pixel,
                part("frame", self.frame_ms, "ms", self.frame_origin),
                part("offset", self.offset_counts, "counts", self.offset_origin),
            )
        )

    def record(self) -> dict:
        """Return the values and origins for settings.json."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "frame_times_s"
        }


def interval_of_times(times: np.ndarray, source: object) -> float:
    """Return the median interval in ms of frame times (T,) in s; tell pauses and jumps."""
    steps = np.diff(times)
    median = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - median) > UNEVEN * median)
    if len(uneven):
        logger.warning(
            "%s: %d of %d intervals between frames differ from their median %.4g ms, the first "
            "after frame %d (%.4g ms); events there have wrong times",
            *(source, len(uneven), len(steps), 1e3 * median, uneven[0], 1e3 * steps[uneven[0]]),
        )
    return 1e3 * median


@dataclass(frozen=True)
class ScaledPost(PostParams):
    """Settings of post-processing with the calibration of the recording that they meet."""

    calibration: Calibration = Calibration()

    @property
    def spark_distance_px(self) -> int:
        """Minimum distance of two spark peaks in pixels; along x where pixels are oblong."""
        return round(self.min_spark_distance_um / self.calibration.pixel_um)

    @property
    def aspect(self) -> float:
        """Height over width of a pixel."""
        return self.calibration.aspect

    @property
    def spark_distance_frames(self) -> int:
        """Minimum distance of two spark peaks in frames."""
        return round(self.min_spark_distance_ms / self.calibration.frame_ms)

    @property
    def wave_width_px(self) -> int:
        """Minimum extent of a wave in pixels."""
        return round(self.min_wave_width_um / self.calibration.pixel_um)


def scaled_post(
    calibration: Calibration, post: PostParams | None = None, *, source: object = "movie"
) -> ScaledPost:
    """Return settings of post-processing for a recording; its scale must be known.

    Args:
        calibration: of the recording.
        post: None takes the defaults.
        source: named in the error about a scale that nobody gave.
    """
    values = {} if post is None else dict(vars(post))
    return ScaledPost(**values | {"calibration": calibration.needed(source)})
