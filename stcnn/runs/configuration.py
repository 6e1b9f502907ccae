"""The Hydra configuration from outside @hydra.main: compose, check keys, one line for a fault."""

import argparse
import difflib
import importlib.util
import re

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.files import FOLDER, InputError
from settings import TrainingSettings

GROUPS = ("dataset", "model", "preset")
EXTENDABLE = ("model.", "clip_param.", "oversample.")  # where +key=value may add a block


def root_override() -> str:
    """Return the override that tells the configuration where the repository is."""
    quoted = str(FOLDER.parent).replace("\\", "\\\\").replace("'", "\\'")
    return f"repo_root='{quoted}'"


def compose_settings(overrides: list[str]) -> dict:
    """Return the resolved configuration for ``overrides`` (list of key=value) as a plain dict."""
    try:
        check_keys(overrides)
        settings = OmegaConf.to_container(_compose(overrides), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from None
    return checked(settings)


def checked(settings: dict) -> dict:
    """Return ``settings``, each value of its type in settings.py, or refuse them in one line."""
    try:
        schema = OmegaConf.structured(TrainingSettings)
        settings = OmegaConf.to_container(OmegaConf.merge(schema, settings), resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"configuration: {error.full_key}: {reason}") from None
    if settings["dataset"].get("make") and not (FOLDER / "demo").is_dir():
        raise InputError(
            "dataset.make: the folder demo/, which makes synthetic sets, is not here; give your "
            "recordings, dataset=lc_small"
        )
    return settings


def plain_settings(overrides: list[str]) -> dict:
    """Check all overrides of train.py; return the settings without what a sweep varies."""
    check_keys(overrides)
    parser = OverridesParser.create()
    parsed = {text: parser.parse_override(text) for text in overrides}
    own = [
        text
        for text, override in parsed.items()
        if not override.is_sweep_override() and not override.key_or_group.startswith("hydra")
    ]
    return compose_settings(own)


def run_settings(args: argparse.Namespace) -> dict:
    """Return the resolved settings of a run of main.py: its preset, its overrides, seed, device."""
    preset = ["preset=demo_full" if args.full else "preset=demo"] if args.demo else []
    fixed = [f"seed={args.seed}", f"device={args.device}"]
    return compose_settings([*preset, *args.overrides, *fixed])


def _compose(overrides):
    try:
        with initialize_config_dir(str(FOLDER / "conf"), version_base=None):
            return compose("config", overrides=[*overrides, root_override()])
    except (HydraException, OmegaConfBaseException):
        raise
    except (YAMLError, ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{FOLDER / 'conf'}: a file is no valid YAML ({reason})") from None


def check_keys(overrides: list[str]) -> None:
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
            folder = FOLDER / "conf" / override.key_or_group
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


def is_override(argument: str) -> bool:
    """Return True when a command-line argument looks like key=value."""
    return re.match(r"[+~]{0,2}[\w./@-]+=", argument) is not None and not argument.startswith("-")
