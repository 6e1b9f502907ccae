"""The command line of train.py: key=value, ~key and Hydra's flags; anything else is one line."""

import difflib

from common.files import InputError
from runs.configuration import CONFIG_FLAGS, is_override

SWITCHES = (
    "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m",
    "--debug",
)  # fmt: skip
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", *CONFIG_FLAGS)
OTHER_CONF = ("--config-path", "-cp", "--config-name", "-cn")


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return (key=value and ~key entries, flags with their values) of ``arguments``.

    Raises:
        InputError: an argument is neither, or a flag lacks its value.
    """
    overrides, flags, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, given, value = argument.partition("=")
        if name in OTHER_CONF:
            raise InputError(
                f"{name}: conf/ of this folder is always read; name the folder of your own YAML "
                "files with --config-dir DIR"
            )
        if is_override(argument) or (argument.startswith("~") and len(argument) > 1):
            overrides.append(argument)
        elif argument in SWITCHES:
            flags.append(argument)
        elif name in WITH_VALUE:
            if not given and rest and not rest[0].startswith("-") and not is_override(rest[0]):
                flags += [argument, rest.pop(0)]
            elif value:
                flags.append(argument)
            else:
                raise InputError(f"{name}: expected a value behind it")
        else:
            near = difflib.get_close_matches(name, (*SWITCHES, *WITH_VALUE), n=1, cutoff=0.7)
            hint = f"did you mean {near[0]}?" if near else "see --help"
            raise InputError(f"{argument}: expected key=value or a known flag; {hint}")
    return overrides, flags
