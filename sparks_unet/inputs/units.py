"""Spellings of units of length and time, as microscopes and ImageJ write them."""

import math
import re

LENGTH_UM = {
    **dict.fromkeys(("a", "å", "angstrom", "angstroms"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers", "nanometres"), 1e-3),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers"), 1.0),
    **dict.fromkeys(("micrometre", "micrometres", "mu", "u"), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters", "centimetres"), 1e4),
    **dict.fromkeys(("dm", "decimeter", "decimetre"), 1e5),
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1e6),
    **dict.fromkeys(("inch", "inches", "in", '"'), 25400.0),
    **dict.fromkeys(("thou", "mil"), 25.4),
}
TIME_MS = {
    **dict.fromkeys(("ps", "picosecond", "picoseconds"), 1e-9),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds", "nsec"), 1e-6),
    **dict.fromkeys(("us", "usec", "usecs", "microsecond", "microseconds", "microsec"), 1e-3),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds", "millisec"), 1.0),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1e3),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 6e4),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3.6e6),
}
MICRO = re.compile(r"\\u00b5|\\u03bc|&#181;|&micro;|[\u00b5\u03bc\u03fb]")  # signs and their codes


def plain_unit(unit: object) -> str:
    """Return a unit in small letters, the micro sign as u, without blanks, dots and brackets."""
    return MICRO.sub("u", str(unit).lower()).strip(" .[]()\t\r\n\0")


def length_um(value: object, unit: object) -> float | None:
    """Return a length in um; None where it is no positive finite number or its unit unknown."""
    return _scaled(value, LENGTH_UM.get(plain_unit(unit)))


def time_ms(value: object, unit: object) -> float | None:
    """Return a positive time in ms; None where it is no such number or its unit unknown."""
    return _scaled(value, TIME_MS.get(plain_unit(unit)))


def _scaled(value, scale):
    if value is None or scale is None:
        return None
    try:
        number = float(value) * scale
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
