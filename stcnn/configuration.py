"""The Hydra configuration from outside @hydra.main: compose, check keys, one line for a fault."""

import difflib
import importlib.util
import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.files import InputError

HERE = Path(__file__).resolve().parent
GROUPS = ("dataset", "model", "preset")
EXTENDABLE = ("model.", "clip_param.", "oversample.")  # where +key=value may add a block


def root_override():
    """Return the override that tells the configuration where the repository is."""
    quoted = str(HERE.parent).replace("\\", "\\\\").replace("'", "\\'")
    return f"repo_root='{quoted}'"


def compose_settings(overrides):
    """Return the resolved configuration for ``overrides`` (list of key=value) as a plain dict."""
    try:
        check_keys(overrides)
        return OmegaConf.to_container(_compose(overrides), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from None


def _compose(overrides):
    try:
        with initialize_config_dir(str(HERE / "conf"), version_base=None):
            return compose("config", overrides=[*overrides, root_override()])
    except (HydraException, OmegaConfBaseException):
        raise
    except (YAMLError, ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{HERE / 'conf'}: a file is no valid YAML ({reason})") from None


def check_keys(overrides):
    """Refuse overrides whose key is unknown, naming the nearest known key."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise InputError(f"{text}: not key=value ({str(error).splitlines()[0]})") from None
    chosen = [
        o.input_line for o in parsed if o.key_or_group in GROUPS and not o.is_sweep_override()
    ]
    known = _known_keys(chosen)
    for override in parsed:
        key = override.key_or_group
        adding = override.is_add() or override.is_force_add()
        if key in known or key.startswith("hydra") or (adding and key.startswith(EXTENDABLE)):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "see conf/config.yaml"
        raise InputError(f"unknown key {key}: {hint}")
    for override in parsed:
        if override.key_or_group == "hydra/launcher":
            _check_launcher(str(override.value()))
        if override.key_or_group in GROUPS and not override.is_sweep_override():
            folder = HERE / "conf" / override.key_or_group
            names = sorted(path.stem for path in folder.glob("*.yaml"))
            if override.value() not in names:
                raise InputError(
                    f"{override.input_line}: no such file in {folder.name}/; "
                    f"expected one of {', '.join(names)}"
                )


def _check_launcher(name):
    plugin = f"hydra_{name.partition('_')[0]}_launcher"
    try:
        found = name == "basic" or importlib.util.find_spec(f"hydra_plugins.{plugin}")
    except ModuleNotFoundError:
        found = False
    if not found:
        raise InputError(
            f"hydra/launcher={name}: {plugin} is not installed; "
            "pip install -r requirements-launchers.txt"
        )


def _known_keys(chosen):
    try:
        config = _compose(chosen)
    except HydraException:
        return {*GROUPS}  # a group's file does not exist; the caller names it
    keys, queue = set(GROUPS), [("", config)]
    while queue:
        prefix, node = queue.pop()
        for key in node:
            name = f"{prefix}{key}"
            keys.add(name)
            if OmegaConf.is_dict(node) and OmegaConf.is_dict(node._get_node(key)):
                queue.append((f"{name}.", node._get_node(key)))
    return keys


def is_override(argument):
    """Return True when a command-line argument looks like key=value."""
    return re.match(r"[+~]{0,2}[\w./@-]+=", argument) is not None and not argument.startswith("-")
