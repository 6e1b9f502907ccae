"""Stimuli of the fly-vision laboratory: rectangles, discs, rings, gratings, flicker, on any grid.

A stimulus is contrast (frames, rows, columns): movie minus the background, so 0 is grey and, with
the published background 0.498, -0.498 black and +0.502 white. Row 0 is the top, column 0 the left;
pixel g covers [g - 0.5, g + 0.5]. The centre pixel is (rows // 2, columns // 2). Lengths are
degrees; a pixel covers ``deg_per_px`` of them.

Source: specification 4.2, 8.4.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from inputs.display import Display

BACKGROUND = 0.498
DARK, BRIGHT = -BACKGROUND, 1.0 - BACKGROUND
SIZES_DEG = (2.25, 4.5, 9.0, 15.0, 30.0, 45.0, 90.0)
HOLD_S = 0.5  # static phases before and after the motion
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}


@dataclass(frozen=True)
class Stimulus:
    """One stimulus: number, label, family, its parameters and its contrast frames."""

    barcode: int
    label: str
    family: str
    contrast: torch.Tensor = field(repr=False)
    parameters: dict = field(default_factory=dict)
    background: float = BACKGROUND

    @property
    def movie(self) -> torch.Tensor:
        """Return the frames as stored on disk, 0 black to 1 white."""
        return (self.contrast + self.background).clamp(0.0, 1.0)


def coverage(low: np.ndarray | float, high: np.ndarray | float, n: int) -> np.ndarray:
    """Return how much of each of ``n`` pixels the interval [low, high] covers, 0 to 1.

    Args:
        low, high: (frames,) arrays or scalars, pixels.
        n: number of pixels.

    Returns:
        (frames, n) float64.
    """
    low, high = np.atleast_1d(low)[:, None], np.atleast_1d(high)[:, None]
    pixel = np.arange(n)
    return np.clip(np.minimum(high, pixel + 0.5) - np.maximum(low, pixel - 0.5), 0.0, None)


def _degrees(display):
    """Return the distances of all rows and of all columns from the centre, degrees."""
    pairs = zip(display.field, display.centre, strict=True)
    return [(np.arange(n) - middle) * display.deg_per_px for n, middle in pairs]


def moving_rectangle(
    display: Display,
    extent: tuple[float, float],
    *,
    speed: float,
    direction: str,
    start: float = -37.0,
    seconds: float = 0.9,
    row_offset: float = 0.0,
    level: float | None = None,
) -> torch.Tensor:
    """Return a rectangle that moves through the pixel that the display's stimuli are centred on.

    Args:
        display: rate, degrees per pixel, background and field.
        extent: degrees along and across the motion.
        speed: degrees per second.
        direction: right, left, up or down.
        start: leading edge at the first frame relative to the centre, degrees along the motion.
        seconds: duration.
        row_offset: shift of the path across the motion, degrees.
        level: contrast, default black.
    """
    centre, size = display.centre, display.field
    along, across, speed, start, row_offset = (
        degrees / display.deg_per_px for degrees in (*extent, speed, start, row_offset)
    )
    frame = np.arange(display.frames(seconds))
    axis_row, axis_col = DIRECTIONS[direction]
    lead = start + speed * frame / display.rate_hz
    axis = 0 if axis_row else 1
    sign = axis_row + axis_col
    edges = (centre[axis] + sign * lead, centre[axis] + sign * (lead - along))
    moving = coverage(np.minimum(*edges), np.maximum(*edges), size[axis])  # (frames, n)
    middle = centre[1 - axis] + row_offset
    still = coverage(middle - across / 2, middle + across / 2, size[1 - axis])  # (1, m)
    if axis == 1:
        contrast = still[:, :, None] * moving[:, None, :]
    else:
        contrast = moving[:, :, None] * still[:, None, :]
    return _contrast(contrast * _level(display, level))


def disc(
    display: Display,
    diameter: np.ndarray,
    *,
    wall: float | None = None,
    level: float | None = None,
) -> torch.Tensor:
    """Return a centred disc whose diameter (frames,) changes, or a ring with a ``wall``, degrees.

    A pixel belongs to the disc when the squared distance of its middle is at most (d/2)^2.
    ``level`` is its contrast, default black.
    """
    rows, cols = _degrees(display)
    squared = rows[:, None] ** 2 + cols[None, :] ** 2  # (rows, columns)
    radius = np.asarray(diameter, dtype=np.float64)[:, None, None] / 2
    inside = squared <= radius**2
    if wall is not None:
        inside &= squared > np.maximum(radius - wall, 0.0) ** 2
    return _contrast(np.where(inside, _level(display, level), 0.0))


def grating(
    display: Display,
    *,
    period: float,
    speed: float,
    angle_deg: float = 0.0,
    seconds: float = 1.0,
    hold: float = HOLD_S,
) -> torch.Tensor:
    """Return a square grating: half a period black, half grey; static, drifting, static.

    Args:
        display: rate, degrees per pixel, background and field.
        period: degrees. speed: degrees per second. angle_deg: direction, 0 right, 90 up.
        seconds, hold: duration of the drift, and of each static part.
    """
    n_hold, n_move = display.frames(hold), display.frames(seconds)
    frame = np.arange(2 * n_hold + n_move)
    travelled = speed / display.rate_hz * np.clip(frame - n_hold, 0, n_move)
    rows, cols = _degrees(display)
    angle = math.radians(angle_deg)
    along = math.cos(angle) * cols[None, :] - math.sin(angle) * rows[:, None]  # (rows, columns)
    # 1e-9 keeps a pixel on an edge from flipping with the rounding of cos and sin.
    phase = np.mod(along[None] - travelled[:, None, None] + 1e-9, period)
    return _contrast(np.where(phase < period / 2, display.dark, 0.0))


def windowed_grating(display: Display, row: int, col: int) -> torch.Tensor:
    """Return the receptive-field mapping stimulus 48rrcc090: a 15-degree window of a grating.

    Window centres are 7.5 degrees apart, (3, 4) in the middle; the grating of period 30 drifts up
    at 200 degrees per second for 1 s.
    """
    frames = grating(display, period=30.0, speed=200.0, angle_deg=90.0, hold=0.0)
    step, centre = 7.5 / display.deg_per_px, display.centre
    middle = (centre[0] + step * (row - 3), centre[1] + step * (col - 4))
    edges = zip(middle, display.field, strict=True)
    window = [coverage(m - step, m + step, n)[0] for m, n in edges]
    return frames * torch.from_numpy(np.outer(*window)).float()


def flicker(
    display: Display, hertz: float, *, seconds: float = 2.0, level: float | None = None
) -> torch.Tensor:
    """Return full-field square-wave flicker between ``level``, default black, and grey."""
    frame = np.arange(display.frames(seconds))
    on = np.mod(frame * hertz / display.rate_hz, 1.0) < 0.5
    values = np.where(on, _level(display, level), 0.0)[:, None, None]
    return _contrast(np.broadcast_to(values, (len(frame), *display.field)))


def growing(speed: float, *, rate_hz: float, end: float = 60.0, hold: float = HOLD_S) -> np.ndarray:
    """Return diameters that grow from 0 at ``speed`` degrees per second to ``end``, then hold."""
    n = _frames(end / speed, rate_hz)
    return np.minimum(speed * np.arange(n + _frames(hold, rate_hz)) / rate_hz, end)


def shrinking(
    speed: float, *, rate_hz: float, start: float = 60.0, hold: float = HOLD_S
) -> np.ndarray:
    """Return diameters that hold at ``start``, then shrink at ``speed`` degrees per second to 0."""
    n_hold = _frames(hold, rate_hz)
    frame = np.arange(n_hold + _frames(start / speed, rate_hz))
    return start - speed * np.clip(frame - n_hold, 0, None) / rate_hz


def approaching(
    r_over_v: float, *, rate_hz: float, start: float = 4.5, end: float = 60.0, hold: float = HOLD_S
) -> np.ndarray:
    """Return the diameters of an object on collision course: d = 2 atan(r/v / (tc - t)).

    It holds at ``start`` degrees, approaches, and holds at ``end``. ``r_over_v`` in seconds.
    """
    contact = hold + r_over_v / math.tan(math.radians(start / 2))
    arrival = contact - r_over_v / math.tan(math.radians(end / 2))
    t = np.arange(_frames(arrival + hold, rate_hz)) / rate_hz
    remaining = np.maximum(contact - t, contact - arrival)
    return np.maximum(2 * np.degrees(np.arctan(r_over_v / remaining)), start)


def size_tuning_family(display: Display) -> list[Stimulus]:
    """Return the 49 rectangles 5619..5667: height index r, width index c, number 5619 + 7 r + c.

    Source: 8.4. The path lies one degree below the centre pixel, as fitted to the published
    figures."""
    return [
        Stimulus(
            5619 + 7 * r + c,
            f"{width:g} x {height:g} deg",
            "size_tuning",
            moving_rectangle(
                display, (width, height), speed=100.0, direction="right", row_offset=1.0
            ),
            {"width_deg": width, "height_deg": height, "speed_deg_s": 100.0},
            display.background,
        )
        for r, height in enumerate(SIZES_DEG)
        for c, width in enumerate(SIZES_DEG)
    ]  # fmt: skip


def looming_family(display: Display) -> list[Stimulus]:
    """Return the five known stimuli of the looming family: 321, 322, 325, 327, 329."""
    rate = display.rate_hz
    diameters = {
        321: ("disc grows 50 deg/s", growing(50.0, rate_hz=rate), None),
        322: ("disc grows 200 deg/s", growing(200.0, rate_hz=rate), None),
        325: ("ring grows 200 deg/s", growing(200.0, rate_hz=rate), 2.5),
        327: ("disc shrinks 200 deg/s", shrinking(200.0, rate_hz=rate), None),
        329: ("disc looms r/v 40 ms", approaching(0.04, rate_hz=rate), None),
    }
    return [
        Stimulus(barcode, label, "looming", disc(display, d, wall=wall), {"wall_deg": wall},
                 display.background)
        for barcode, (label, d, wall) in diameters.items()
    ]  # fmt: skip


def grating_family(display: Display) -> list[Stimulus]:
    """Return the gratings 5688 (25 deg/s) and 5689 (100 deg/s), period 9 degrees."""
    return [
        Stimulus(
            barcode, f"grating {speed:g} deg/s", "grating",
            grating(display, period=9.0, speed=speed), {"speed_deg_s": speed},
            display.background,
        )
        for barcode, speed in ((5688, 25.0), (5689, 100.0))
    ]  # fmt: skip


def flicker_family(display: Display) -> list[Stimulus]:
    """Return full-field flicker at 1, 2, 4 and 8 Hz."""
    return [
        Stimulus(
            700 + hz, f"flicker {hz} Hz", "flicker",
            flicker(display, hz),
            {"hertz": hz}, display.background,
        )
        for hz in (1, 2, 4, 8)
    ]  # fmt: skip


def speed_family(display: Display) -> list[Stimulus]:
    """Return a 9 x 9 degree dark square moving right at 12.5 to 200 degrees per second."""
    return [
        Stimulus(
            800 + i, f"{speed:g} deg/s", "speed",
            moving_rectangle(display, (9.0, 9.0), speed=speed, direction="right", start=-31.5,
                             seconds=74.0 / speed),
            {"speed_deg_s": speed}, display.background,
        )
        for i, speed in enumerate((12.5, 25.0, 50.0, 100.0, 200.0))
    ]  # fmt: skip


def direction_family(display: Display) -> list[Stimulus]:
    """Return a 4.5 x 30 degree dark bar moving right, up, left, down at 100 degrees a second."""
    return [
        Stimulus(
            820 + i, direction, "direction",
            moving_rectangle(display, (4.5, 30.0), speed=100.0, direction=direction),
            {"angle_deg": 90.0 * i}, display.background,
        )
        for i, direction in enumerate(("right", "up", "left", "down"))
    ]  # fmt: skip


def loom_rv_family(display: Display) -> list[Stimulus]:
    """Return looming discs of r/v 10, 20, 40 and 80 ms."""
    return [
        Stimulus(
            840 + i, f"r/v {ms} ms", "loom_rv",
            disc(display, approaching(ms / 1000, rate_hz=display.rate_hz)), {"r_over_v_ms": ms},
            display.background,
        )
        for i, ms in enumerate((10, 20, 40, 80))
    ]  # fmt: skip


def rf_map_family(display: Display) -> list[Stimulus]:
    """Return the receptive-field mapping windows 48rrcc090, 7 rows by 9 columns."""
    return [
        Stimulus(
            48_000_090 + 100_000 * r + 1000 * c, f"row {r} column {c}", "rf_map",
            windowed_grating(display, r, c), {"row": r, "column": c},
            display.background,
        )
        for r in range(7)
        for c in range(9)
    ]  # fmt: skip


FAMILIES = {
    "size_tuning": size_tuning_family,
    "looming": looming_family,
    "grating": grating_family,
    "flicker": flicker_family,
    "speed": speed_family,
    "direction": direction_family,
    "loom_rv": loom_rv_family,
    "rf_map": rf_map_family,
}


def make_family(name: str, display: Display) -> list[Stimulus]:
    """Return the stimuli of the family called ``name`` (one of FAMILIES) for a display."""
    return FAMILIES[name](display)


def _level(display, level):
    return display.dark if level is None else level


def _frames(seconds, rate_hz):
    return round(seconds * rate_hz)


def _contrast(values):
    return torch.from_numpy(np.array(values, dtype=np.float32))
