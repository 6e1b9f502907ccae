"""What a user says about a recording: its scale, its offset, which of its axes are meant, its cell.

The same values are flags of every script that reads a movie (flags.py) and keys of the INI file.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

AXES = "TZCYXS"  # time, depth, channel, row, column, colour


@dataclass(frozen=True)
class Given:
    """Values that the user gave; None: as the file says.

    Attributes:
        pixel_um: width and height of a pixel in um.
        frame_ms: time between frames in ms.
        offset_counts: counts of the detector without light.
        axes: letters of AXES, one for each axis of the file.
        channel, z: which channel or plane, counted from 0.
        linescan: ``rows`` or ``columns``: which of them are the times of a line scan.
        cell_mask: ImageJ ROI (.roi, .zip) or TIFF (H, W) that shows where the cell is.
        flagged: names of these values that a flag gave, the others come from the INI file.
    """

    pixel_um: tuple[float, float] | None = None
    frame_ms: float | None = None
    offset_counts: float | None = None
    axes: str | None = None
    channel: int | None = None
    z: int | None = None
    linescan: str | None = None
    cell_mask: Path | None = None
    flagged: tuple[str, ...] = ()

    def origin(self, name: str) -> str:
        """Return who gave the value ``name``: flag or config."""
        return "flag" if name in self.flagged else "config"


def parse_positive(text: str) -> float:
    """Return a finite number above 0; raise ValueError."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def parse_finite(text: str) -> float:
    """Return a finite number; raise ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def parse_pixel(text: str) -> tuple[float, float]:
    """Return (width, height) in um of ``0.2`` or ``0.2,0.3``; raise ValueError."""
    values = [parse_positive(part) for part in text.replace("x", ",").split(",")]
    if len(values) not in (1, 2):
        raise ValueError(text)
    return values[0], values[-1]


def parse_axes(text: str) -> str:
    """Return the letters of axes in capitals; raise ValueError."""
    letters = text.upper()
    if not set(letters) <= set(AXES) or len(set(letters)) < len(letters) or "X" not in letters:
        raise ValueError(text)
    return letters


def parse_index(text: str) -> int:
    """Return a whole number of 0 or more; raise ValueError."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def parse_count(text: str) -> int:
    """Return a whole number above 0; raise ValueError."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parse_not_negative(text: str) -> float:
    """Return a finite number of 0 or more; raise ValueError."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def flag_type(parse: Callable, expected: str) -> Callable:
    """Return the type of a flag whose text ``parse`` reads; a ValueError tells what is expected."""

    def checked(text):
        try:
            return parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: expected {expected}") from None

    return checked


PARSERS = {  # flag: (parser, what it expects, help)
    "pixel_um": (
        parse_pixel,
        "um > 0, or WIDTH,HEIGHT",
        "pixel size in um, or WIDTH,HEIGHT; default: as in the file",
    ),
    "frame_ms": (parse_positive, "ms > 0", "frame time in ms; default: as in the file"),
    "offset": (
        parse_finite,
        "a number of counts",
        "counts of the detector without light; default: estimated beside the cell",
    ),
    "axes": (
        parse_axes,
        f"different letters of {AXES} with X, e.g. TYX",
        "order of the axes in the file, e.g. TYX or TZYX; default: as in the file",
    ),
    "channel": (parse_index, "a whole number >= 0", "channel to read, counted from 0"),
    "z": (parse_index, "a whole number >= 0", "plane of depth to read, counted from 0"),
}
WHOLE = flag_type(parse_index, "a whole number >= 0")
COUNT = flag_type(parse_count, "a whole number > 0")
NOT_NEGATIVE = flag_type(parse_not_negative, "a number >= 0")
POSITIVE = flag_type(parse_positive, "a number > 0")
FIELDS = {"offset": "offset_counts"}  # flags whose value has another name in Given
LINESCAN = ("rows", "columns")


def add_recording_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what the file of a movie does not say."""
    for name, (parse, expected, text) in PARSERS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=flag_type(parse, expected), metavar=name.upper(), help=text)
    parser.add_argument(
        "--linescan",
        nargs="?",
        const="rows",
        choices=LINESCAN,
        help="the file is a line scan (t, x); columns: its columns are the times",
    )
    parser.add_argument(
        "--cell-mask", type=Path, help="ImageJ ROI or TIFF of the cell; default: found in the movie"
    )


def given_by_flags(args: argparse.Namespace) -> Given:
    """Return what the parsed flags of ``add_recording_flags`` say."""
    names = (*PARSERS, "linescan", "cell_mask")
    values = {FIELDS.get(name, name): getattr(args, name) for name in names}
    return Given(**values, flagged=tuple(n for n, value in values.items() if value is not None))
