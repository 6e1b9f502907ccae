"""Which numbers of a picture are black and white: known from the file, given, or asked for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from common.files import InputError

FULL_RANGE = {1: 255.0, 2: 65535.0}  # of unsigned integers by their bytes
# A larger value than this shows that the whole range of the type is used.
SHALLOW = {1: 1, 2: 16383}


@dataclass(frozen=True)
class Levels:
    """The numbers of black and white, and where they come from."""

    black: float
    white: float
    origin: str

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Return ``values`` as float32, 0 black to 1 white."""
        if (self.black, self.white) == (0.0, 1.0):
            return values.astype(np.float32)
        # one division: bytes become exactly what value / 255 is
        return (values.astype(np.float32) - np.float32(self.black)) / np.float32(
            self.white - self.black
        )

    def describe(self) -> str:
        """Return the levels in words."""
        return f"black {self.black:g}, white {self.white:g} ({self.origin})"


def parse_levels(text: str) -> str | tuple[float, float]:
    """Return "auto", "bits" or (black, white) of ``--levels``.

    Known: auto; two numbers such as 0,1 or 0,255; bits (the whole range of the file's integers);
    a number of bits such as 12bits.
    """
    word = text.strip().lower().replace(" ", "")
    if word in ("auto", "bits"):
        return word
    bits = re.fullmatch(r"(\d+)-?bits?|bits?(\d+)", word)
    if bits and 1 <= int(bits[1] or bits[2]) <= 32:
        return 0.0, float(2 ** int(bits[1] or bits[2]) - 1)
    try:
        black, white = (float(part) for part in word.split(","))
    except ValueError:
        black = white = float("nan")
    if not (np.isfinite([black, white]).all() and black != white):
        raise InputError(
            f"--levels {text}: expected the numbers of black and white such as 0,1 or 0,255, "
            "bits for the whole range of the file's integers, or a depth such as 12bits"
        )
    return black, white


def find_levels(
    frames: Iterable[np.ndarray], path, wanted: str | tuple[float, float] = "auto"
) -> Levels:
    """Return the levels of the frames of one kind; refuse what cannot be known.

    Args:
        frames: arrays as stored, of one dtype; read only as far as needed.
        path: named in errors.
        wanted: of parse_levels.
    """
    low, high, kind = _extent(frames, path, stop=wanted == "auto")
    if wanted == "bits":
        if kind.kind != "u" or kind.itemsize not in FULL_RANGE:
            raise InputError(
                f"{path}: holds {kind.name}, which has no whole range of bits; give black and "
                "white, --levels BLACK,WHITE"
            )
        return Levels(0.0, FULL_RANGE[kind.itemsize], "flag --levels")
    if wanted != "auto":
        black, white = wanted
        if low < min(wanted) or high > max(wanted):
            raise InputError(
                f"{path}: values from {low:g} to {high:g} lie outside --levels "
                f"{black:g},{white:g}; give levels that hold them"
            )
        return Levels(black, white, "flag --levels")
    if kind.kind == "b":
        return Levels(0.0, 1.0, "file: 1 bit")
    if kind.kind == "u" and kind.itemsize in FULL_RANGE:
        full = FULL_RANGE[kind.itemsize]
        if not 0 < high <= SHALLOW[kind.itemsize]:
            return Levels(0.0, full, f"file: {8 * kind.itemsize} bits")
        depth = max(1, int(high).bit_length())
        depth = next((d for d in (1, 10, 12, 14) if d >= depth), depth)
        raise InputError(
            f"{path}: the largest value of its {8 * kind.itemsize}-bit numbers is {high:g}, so "
            f"white may be {2**depth - 1} or {full:g}; give --levels 0,{2**depth - 1} or "
            f"--levels 0,{full:g}"
        )
    if low >= 0.0 and high <= 1.0:
        return Levels(0.0, 1.0, f"file: {kind.name} from {low:g} to {high:g}")
    raise InputError(
        f"{path}: values from {low:.4g} to {high:.4g} ({kind.name}); expected 0 (black) to 1 "
        "(white), or uint8; say which are black and white with --levels BLACK,WHITE"
    )


def _extent(frames, path, *, stop):
    """Return (lowest, highest, dtype); with ``stop`` no further than the type needs."""
    low, high, kind = np.inf, -np.inf, None
    for frame in frames:
        kind = frame.dtype if kind is None else kind
        if kind.kind not in "buif":
            raise InputError(
                f"{path}: holds {kind.name}; expected one grey or three colours a pixel"
            )
        if not np.isfinite(frame).all():  # comparisons would pass a NaN by
            raise InputError(f"{path}: holds NaN or infinity; give every pixel a number")
        low, high = min(low, float(frame.min())), max(high, float(frame.max()))
        if stop and kind.kind == "u" and high > SHALLOW.get(kind.itemsize, np.inf):
            break
    return low, high, kind
