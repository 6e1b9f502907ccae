"""The Hydra configuration from outside @hydra.main: compose, check keys, one line for a fault."""

import argparse
import difflib
import importlib.util
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import get_origin

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.files import FOLDER, InputError
from settings import CHOICES, MODEL_BLOCKS, RANGES, DatasetSettings, TrainingSettings

CONFIG_FLAGS = ("--config-dir", "-cd")
GROUPS = ("dataset", "model", "preset")
OPEN_BLOCKS = ("clip_param.", "oversample.")  # whose keys are the user's own
EXTENDABLE = ("model.", *OPEN_BLOCKS)  # where +key=value may add a block


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
    _check_plain(TrainingSettings, settings)
    _check_plain(DatasetSettings, settings.get("dataset"), "dataset.")
    settings = _typed(TrainingSettings, settings)
    for name, schema in MODEL_BLOCKS.items():
        if name not in settings["model"]:
            raise InputError(f"configuration: model.{name} is missing; see conf/model/")
        settings["model"][name] = _typed(schema, settings["model"][name], f"model.{name}.")
    check_ranges(settings)
    if settings["dataset"].get("make") and not (FOLDER / "demo").is_dir():
        raise InputError(
            "dataset.make: the folder demo/, which makes synthetic sets, is not here; give your "
            "recordings, dataset=lc_small"
        )
    return settings


def _check_plain(schema, values, prefix=""):
    """Refuse other numbers than 0 and 1 for booleans (OmegaConf takes 2 for true), lone entries."""
    for entry in fields(schema):
        value = values.get(entry.name) if isinstance(values, dict) else None
        name = f"{prefix}{entry.name}"
        if entry.type is bool and isinstance(value, (int, float)) and value not in (0, 1):
            raise InputError(f"configuration: {name}={value}: expected true or false")
        if get_origin(entry.type) is list and isinstance(value, (int, float, str)):
            raise InputError(f"configuration: {name}={value}: expected a list, {name}=[{value}]")


def _typed(schema, values, prefix=""):
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        return OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"configuration: {prefix}{error.full_key}: {reason}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration: {prefix.rstrip('.')}: {error}") from None


def check_ranges(settings: dict) -> None:
    """Refuse values out of range, all faults in one line."""
    faults = []
    for key, (low, high, closed) in RANGES.items():
        value = _value(settings, key)
        if value is None:
            continue
        below = low is not None and (value < low or (not closed and value == low))
        above = high is not None and (value > high or (key == "val_fraction" and value == high))
        if below or above or not math.isfinite(value):
            faults.append(f"{key}={value}: expected {_range_words(low, high, closed)}")
    for key, words in CHOICES.items():
        if _value(settings, key) not in (None, *words):
            faults.append(f"{key}={_value(settings, key)}: expected one of {', '.join(words)}")
    if settings.get("prepad", "frames") != "frames" and settings.get("norm_skip_frames"):
        faults.append(
            f"prepad={settings['prepad']} has no single frames to skip: set norm_skip_frames=0"
        )
    if settings.get("read_outs") == "kept" and not settings.get("trunk"):
        faults.append("read_outs=kept: whose? name their run with trunk=RUN")
    faults += _block_faults(settings)
    if faults:
        raise InputError("; ".join(faults))


def _value(settings, key):
    node = settings
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _range_words(low, high, closed):
    if low is None:
        return "a finite number"
    if high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if closed else f"a number above {low}"


def _block_faults(settings):
    """Return the faults of the blocks whose keys are the user's own."""
    faults = []
    for entry, times in (settings.get("oversample") or {}).items():
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            faults.append(f"oversample.{entry}={times}: expected a whole number of at least 1")
    for name, rule in (settings.get("clip_param") or {}).items():
        if not isinstance(rule, dict) or set(rule) != {"name", "min", "max"}:
            faults.append(f"clip_param.{name}: expected the keys name, min and max")
            continue
        numbers = [rule[key] for key in ("min", "max") if rule[key] is not None]
        plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)
        if not plain or not isinstance(rule["name"], str) or numbers != sorted(numbers):
            faults.append(
                f"clip_param.{name}: name {rule['name']}, min {rule['min']}, max {rule['max']}; "
                "expected a text and two rising numbers or null"
            )
    return faults


def plain_booleans(overrides: list[str]) -> list[str]:
    """Return ``overrides`` with no, off, yes and on written as YAML files mean them.

    Hydra's command line knows true and false only and would show the others as text.
    """
    names = {entry.name for entry in fields(TrainingSettings) if entry.type is bool}
    names |= {f"dataset.{e.name}" for e in fields(DatasetSettings) if e.type is bool}
    names.add("model.ca.use_global_ca_tau")
    words = {"no": "false", "off": "false", "yes": "true", "on": "true"}
    plain = []
    for text in overrides:
        key, _, value = text.partition("=")
        word = words.get(value.strip().lower()) if key.lstrip("+") in names else None
        plain.append(f"{key}={word}" if word else text)
    return plain


def config_folder_overrides(flags: list[str]) -> list[str]:
    """Return the override that looks for YAML files in the folders of --config-dir as well."""
    folders = []
    for i, flag in enumerate(flags):
        name, given, value = flag.partition("=")
        if name in CONFIG_FLAGS:
            value = value if given else flags[i + 1] if i + 1 < len(flags) else ""
            if not Path(value).is_dir():
                raise InputError(f"--config-dir {value}: no such folder")
            folders.append(Path(value).resolve())
    return search_path(folders)


def search_path(folders: list[Path]) -> list[str]:
    """Return the override that makes Hydra look into ``folders``, or none."""
    quoted = ", ".join(f"'file://{folder}'" for folder in folders)
    return [f"hydra.searchpath=[{quoted}]"] if folders else []


def _search_folders(overrides):
    """Return the folders of YAML files: ours, and those of hydra.searchpath."""
    parser, folders = OverridesParser.create(), [FOLDER / "conf"]
    for text in overrides:
        if text.lstrip("+").startswith("hydra.searchpath="):
            entries = parser.parse_override(text).value()
            for entry in entries if isinstance(entries, list) else [entries]:
                plain = str(entry).strip("'\"").removeprefix("file://")
                if "://" not in plain:
                    if not Path(plain).is_dir():
                        raise InputError(f"hydra.searchpath: {plain}: no such folder")
                    folders.append(Path(plain))
    return folders


def plain_settings(overrides: list[str]) -> dict:
    """Check all overrides of train.py; return the settings without what a sweep varies."""
    check_keys(overrides)
    parser = OverridesParser.create()
    parsed = {text: parser.parse_override(text) for text in overrides}
    own = [
        text
        for text, override in parsed.items()
        if not override.is_sweep_override()
        and (
            not override.key_or_group.startswith("hydra")
            or override.key_or_group == "hydra.searchpath"
        )
    ]
    return compose_settings(own)


def run_settings(args: argparse.Namespace) -> dict:
    """Return the resolved settings of a run of main.py: its preset, its overrides, seed, device."""
    preset = ["preset=demo_full" if args.full else "preset=demo"] if args.demo else []
    fixed = [f"seed={args.seed}", f"device={args.device}"]
    flags = [f"--config-dir={folder}" for folder in args.config_dir]
    own = config_folder_overrides(flags)
    return compose_settings([*own, *preset, *args.overrides, *fixed])


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
    folders = _search_folders(overrides)
    chosen = [
        o.input_line
        for o in parsed
        if o.key_or_group in (*GROUPS, "hydra.searchpath") and not o.is_sweep_override()
    ]
    for override in parsed:
        if override.key_or_group == "hydra/launcher":
            _check_launcher(str(override.value()))
        _check_group(override, folders)
    known = _known_keys(chosen)
    for override in parsed:
        key = override.key_or_group
        adding = override.is_add() or override.is_force_add()
        if key in known or key.startswith("hydra") or (adding and key.startswith(EXTENDABLE)):
            continue
        if key.startswith(OPEN_BLOCKS):
            raise InputError(f"unknown key {key}: a new entry is added with +{override.input_line}")
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "see conf/config.yaml"
        raise InputError(f"unknown key {key}: {hint}")


def _check_group(override, folders):
    """Refuse the name of a group's file that is in none of the ``folders``."""
    group = override.key_or_group
    if group not in GROUPS or override.is_sweep_override():
        return
    names = sorted({p.stem for folder in folders for p in (folder / group).glob("*.yaml")})
    if override.value() not in names:
        raise InputError(
            f"{override.input_line}: no such file in {group}/; expected one of {', '.join(names)}"
        )


def _check_launcher(name):
    plugin = f"hydra_{name.partition('_')[0]}_launcher"
    try:
        installed = name == "basic" or importlib.util.find_spec(f"hydra_plugins.{plugin}")
    except ModuleNotFoundError:
        installed = False
    if not installed:
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
