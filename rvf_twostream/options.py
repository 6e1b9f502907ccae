"""Flags made from the globals of a script, checked for type and range.

``add_globals(parser, globals(), {"BATCH_SIZE": (integer(1), "clips per update")})`` adds
``--batch_size`` whose default is the global's value.
"""

import argparse
import json

from common.files import seed_number


def integer(low, high=None):
    """Return an argparse type: whole number from ``low`` to ``high`` (None: no limit)."""
    return _ranged(int, "a whole number", low, high)


def number(low, high=None):
    """Return an argparse type: finite number from ``low`` to ``high`` (None: no limit)."""
    return _ranged(float, "a number", low, high)


def _ranged(convert, noun, low, high):
    span = f"{noun} >= {low}" if high is None else f"{noun} from {low} to {high}"

    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        # The comparison also turns NaN and infinity away.
        top = float("inf") if high is None else high
        if value is None or not low <= value <= top or value in (float("inf"), -float("inf")):
            raise argparse.ArgumentTypeError(f"{text!r} is not {span}")
        return value

    return parse


def one_of(*names):
    """Return an argparse type: one of ``names``."""

    def parse(text):
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def switch(text):
    """Parse true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def json_factors(text):
    """Parse a JSON object of numbers >= 0, for example {"conv3d": 0.1, "preds": 1}."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from None
    numbers = isinstance(value, dict) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in value.values()
    )
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object of numbers >= 0")
    return value


def add_globals(parser, values, table):
    """Add one flag per global of a script.

    Args:
        parser: the script's parser.
        values: ``globals()`` of the script, the source of the defaults.
        table: {NAME: (argparse type, help text)}.
    """
    for name, (kind, text) in table.items():
        default = values[name]
        # argparse passes a text default through the type, so a wrong global is reported too.
        shown = json.dumps(default) if isinstance(default, dict | bool) else str(default)
        parser.add_argument(f"--{name.lower()}", type=kind, default=shown, help=text)


def add_place_flags(parser):
    """Add --seed and --device."""
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of every random choice")
    parser.add_argument(
        "--device",
        type=one_of("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute: auto, cpu, gpu",
    )


def add_device_flags(parser):
    """Add the flags about the machine that training and inference share."""
    add_place_flags(parser)
    parser.add_argument("--workers", type=integer(1), default=2, help="threads that read clips")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")


def add_model_flags(parser):
    """Add the flags about the network and its training that the training scripts share."""
    parser.add_argument(
        "--depth", type=int, choices=(18, 34, 50, 101, 152), default=152, help="layers"
    )
    parser.add_argument("--width", type=integer(1), default=64, help="filters of the stem")
    parser.add_argument(
        "--gpus", type=integer(1), default=1, help="replicas; BATCH_SIZE is shared among them"
    )
    parser.add_argument(
        "--precision",
        type=one_of("float32", "mixed_float16", "mixed_bfloat16"),
        default="float32",
        help="float32, mixed_float16 or mixed_bfloat16 (the last two on a GPU only)",
    )
    parser.add_argument(
        "--weight_decay", type=number(0), default=0.0, help="decoupled decay per update"
    )
