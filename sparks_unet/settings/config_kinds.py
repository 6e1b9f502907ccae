"""Kinds of values in an INI file: how each is read from text, and how its rule is told to the user.

Source: specification section 9. The published reader took every text that is not empty, also
``no``, for a true boolean; here each kind refuses what it does not know.
"""

import math
from dataclasses import dataclass

from settings.recording import LINESCAN, PARSERS


@dataclass(frozen=True)
class Kind:
    """How a value is read: ``parse`` raises ValueError; ``allowed`` says what is right."""

    parse: object
    allowed: str


def parse_bool(text: str) -> bool:
    known = {"yes": True, "true": True, "on": True, "1": True}
    known |= {"no": False, "false": False, "off": False, "0": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def integer(low: int, high: int = 2**31) -> Kind:
    def parse(text):
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(parse, f"an integer >= {low}" if high == 2**31 else f"an integer {low}..{high}")


def number(low: float, high: float = math.inf, *, above: bool = False) -> Kind:
    def parse(text):
        value = float(text)
        if not (low < value if above else low <= value) or not value <= high or math.isinf(value):
            raise ValueError(text)
        return value

    bound = f"a number {'>' if above else '>='} {low}"
    return Kind(parse, bound if math.isinf(high) else f"{bound} and <= {high}")


def choice(*names: str, **aliases: str) -> Kind:
    def parse(text):
        value = aliases.get(text.lower(), text.lower())
        if value not in names:
            raise ValueError(text)
        return value

    return Kind(parse, ", ".join(names))


def integers(count: int) -> Kind:
    def parse(text):
        values = tuple(int(part) for part in text.split(","))
        if len(values) != count or min(values) < 0:
            raise ValueError(text)
        return values

    return Kind(parse, f"{count} integers >= 0 separated by commas")


def parse_architecture(text: str) -> str:
    if text.lower() not in ("pablos_unet", "github_unet"):
        raise ValueError(text)
    return text.lower()


def parse_dilation(text: str) -> int:
    # the version of 2022 reads a boolean here and uses dilation 1 for both values
    return integer(1).parse("1" if text.lower() in ("yes", "no", "true", "false") else text)


def parse_normalization(text: str) -> str:
    value = {"no": "none", "false": "none", "yes": "batch", "true": "batch"}.get(text.lower(), text)
    size = value.removeprefix("group")
    if value not in ("none", "batch", "instance", "group") and not (
        value.startswith("group") and size.isdecimal() and int(size) > 0
    ):
        raise ValueError(text)
    return value


def parse_unscored(text: str) -> tuple[str, ...]:
    pairs = tuple(text.replace(",", " ").split())
    for pair in pairs:
        movie_id, colon, name = pair.partition(":")
        if not (movie_id and colon and name in ("sparks", "waves", "puffs")):
            raise ValueError(text)
    return pairs


ARCHITECTURE = Kind(parse_architecture, "pablos_unet, github_unet")
DILATION = Kind(parse_dilation, "yes, no (both 1) or an integer >= 1")
NORMALIZATION = Kind(parse_normalization, "none, batch, instance, group, group<N>")
BOOL = Kind(parse_bool, "yes, no, true, false, on, off, 1, 0")
TEXT = Kind(str, "text")
UNSCORED = Kind(parse_unscored, "pairs id:class, e.g. 45:sparks 45:puffs")
IDS = Kind(lambda text: tuple(text.replace(",", " ").split()), "movie ids")
COUNT = integer(0)
POSITIVE = integer(1)
FRACTION = number(0, 1)
RECORDING = {name: Kind(parse, expected) for name, (parse, expected, _) in PARSERS.items()}
SCAN = choice(*LINESCAN)
