"""Folders of the house, and the rule that turns the globals of a script into checked flags."""

import argparse
import math
from dataclasses import dataclass

from common.files import InputError, Parser


@dataclass(frozen=True)
class Flag:
    """What a flag may hold.

    ``kind`` is int, float, str, Path, bool, or ``tuple`` for a comma-separated list of text.
    ``low`` and ``high`` are inclusive, ``above`` and ``below`` exclusive bounds.
    """

    kind: type
    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def read(self, name, text):
        """Turn ``text`` (or a value) into the flag's kind, or raise an InputError."""
        if text is None:
            return None
        try:
            value = self._convert(text)
        except (ValueError, TypeError, KeyError):
            expected = f"found {text!r}, expected {self.kind.__name__}"
            raise InputError(f"--{name}: {expected}; see --help") from None
        if self.choices and value not in self.choices:
            allowed = ", ".join(str(choice) for choice in self.choices)
            raise InputError(f"--{name}: found {value!r}, expected one of {allowed}")
        if self.kind in (int, float):
            self._check_range(name, value)
        return value

    def _convert(self, text):
        if self.kind is tuple:
            parts = text.split(",") if isinstance(text, str) else text
            return tuple(str(part).strip() for part in parts if str(part).strip())
        if self.kind is bool:
            if isinstance(text, bool):
                return text
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                str(text).lower()
            ]
        return self.kind(text)

    def _check_range(self, name, value):
        bounds = [
            (self.low is not None and value < self.low, f">= {self.low}"),
            (self.high is not None and value > self.high, f"<= {self.high}"),
            (self.above is not None and value <= self.above, f"> {self.above}"),
            (self.below is not None and value >= self.below, f"< {self.below}"),
            (self.kind is float and not math.isfinite(value), "a finite number"),
        ]
        for broken, wanted in bounds:
            if broken:
                raise InputError(f"--{name}: found {value}, expected {wanted}")


def flag_name(name):
    """Return the flag of a global: lower case, except for the published one-letter name T."""
    return name if len(name) == 1 else name.lower()


def parse(argv, description, defaults, flags, *, extra=None):
    """Read the command line of a script whose globals are its settings.

    Args:
        argv: arguments without the program's name, or None for ``sys.argv[1:]``.
        description: first sentence of the help text.
        defaults: ``globals()`` of the script.
        flags: dict of global name (UPPER_CASE) -> Flag.
        extra: function that adds further arguments to the parser (``--demo`` for example).

    Returns:
        argparse.Namespace with lower-case names; ``given`` is the set of names set by the user.
    """
    # The help texts name the globals' values themselves.
    parser = Parser(description=description, formatter_class=argparse.HelpFormatter)
    for name, flag in flags.items():
        shown = defaults[name]
        note = f"{flag.help} (default: {','.join(shown) if isinstance(shown, tuple) else shown})"
        choices = f" [{', '.join(map(str, flag.choices))}]" if flag.choices else ""
        optional = {"nargs": "?", "const": "true"} if flag.kind is bool else {}
        parser.add_argument(
            *dict.fromkeys((f"--{flag_name(name)}", f"--{name.lower()}")),
            default=None,
            dest=flag_name(name),
            metavar=flag.kind.__name__ if flag.kind is not tuple else "A,B",
            help=(note + choices).replace("%", "%%"),
            **optional,
        )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    if extra:
        extra(parser)
    arguments = parser.parse_args(argv)
    names = [flag_name(name) for name in flags]
    arguments.given = {name for name in names if getattr(arguments, name) is not None}
    for (name, flag), key in zip(flags.items(), names, strict=True):
        text = getattr(arguments, key)
        setattr(arguments, key, flag.read(key, defaults[name] if text is None else text))
    return arguments
