"""Strict reader of the INI files: text -> Params, or all faults in one message.

Source: specification section 9; the layouts of 2022 ([testing], data_step, [unused]) and of 2025
([inference], data_stride) read to the same parameters where they mean the same.
"""

import configparser
import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path

from common.files import FOLDER, InputError, raise_faults
from common.names import file_name
from settings.config import EVENT_CLASSES, FOCAL_CRITERIA, KEYS, Params, PostParams, logger
from settings.config_kinds import BOOL, TEXT

UNSUPPORTED = ("nnunet", "openai_unet", "unet_lstm", "denoise_unet")
UNUSED_MODEL_KEYS = (("network", "num_res_blocks"), ("network", "bidirectional"))


def _aliases():
    """Return {(section, key) of an old file: (section, key)}; direct keys win over them."""
    names = {
        ("dataset", "data_step"): ("dataset", "data_stride"),
        ("dataset", "inference"): ("inference", "inference"),
        ("unused", "fixed_threshold"): ("postprocessing", "fixed_threshold"),
    }
    chunk_keys = {"data_duration": "data_duration", "data_stride": "data_stride"}
    chunk_keys |= {"data_step": "data_stride", "batch_size": "batch_size"}
    chunk_keys |= {"dataset_size": "dataset_size", "load_epoch": "load_epoch"}
    for old, new in chunk_keys.items():
        for section in ("inference", "testing"):
            names[(section, f"inference_{old}")] = ("inference", new)
            names[(section, old)] = ("inference", new)
    names[("testing", "inference")] = ("inference", "inference")
    for name in EVENT_CLASSES:
        for section in ("testing", "inference", "unused"):
            names[(section, f"{name}_min_radius")] = ("postprocessing", f"{name}_min_radius")
            names[(section, f"t_{name}")] = ("postprocessing", f"t_{name}")
        for section in ("testing", "inference", "unused"):
            names[(section, f"t_detection_{name}")] = ("postprocessing", f"t_{name}")
    return {old: new for old, new in names.items() if old != new}


ALIASES = _aliases()
# the version of 2022 writes none where its default counts
SEED_NONE = {f"t_{name}" for name in EVENT_CLASSES}
SEED_NONE |= {f"{name}_min_radius" for name in EVENT_CLASSES}
SECTIONS = {section for section, _ in (*KEYS, *ALIASES)}


def _read_text(path):
    """Return {(section, key): text} of an INI file; every fault is an InputError."""
    path = Path(path)
    parser = configparser.ConfigParser(
        interpolation=None, comment_prefixes=(";", "#"), default_section="\0"
    )
    try:
        with open(path, encoding="utf-8-sig") as handle:
            parser.read_file(handle, source=str(path))
    except FileNotFoundError:
        near = sorted(FOLDER.glob("config_files/*.ini"))
        known = ", ".join(one.name for one in near)
        raise InputError(f"{path}: no such configuration file; in config_files/: {known}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error}); save it as UTF-8") from None
    except configparser.Error as error:
        raise InputError(f"{path}: not an INI file: {error}; write 'key = value' lines") from None
    return {(name, key): text for name in parser.sections() for key, text in parser[name].items()}


def _nearest(word, known):
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"


def _canonical(texts, source):
    """Map old names to new ones; return ({(section, key): text}, faults)."""
    values, faults = {}, []
    direct = {place for place in texts if place in KEYS}
    for place, text in texts.items():
        section, key = place
        if section not in SECTIONS:
            faults.append(f"{source}: unknown section [{section}]: {_nearest(section, SECTIONS)}")
        elif place in KEYS:
            values[place] = text
        elif place in ALIASES:
            target = ALIASES[place]
            if target in direct or (section == "unused" and target in values):
                if values.get(target, texts.get(target)) != text:
                    logger.warning(
                        "%s: [%s] %s is set aside for [%s] %s", source, section, key, *target
                    )
            else:
                values[target] = text
        elif place in UNUSED_MODEL_KEYS:
            logger.warning("%s: [%s] %s belongs to a model that is not supported", source, *place)
        else:
            known = {name for part, name in (*KEYS, *ALIASES) if part == section}
            homes = [part for part, name in KEYS if name == key]
            hint = f"it belongs in [{homes[0]}]" if homes else _nearest(key, known)
            faults.append(f"{source}: unknown key [{section}] {key}: {hint}")
    return values, faults


def _convert(values, source):
    """Return (values of Params, values of PostParams, faults)."""
    post_names = {one.name for one in dataclasses.fields(PostParams)}
    params, post, faults = {}, {}, []
    for (section, key), text in values.items():
        one = KEYS[(section, key)]
        kind = one.metadata["kind"]
        unset = text.strip() == "" or (text.strip().lower() == "none" and key in SEED_NONE)
        if unset and kind is not TEXT:
            value = False if kind is BOOL else one.default
        else:
            try:
                value = kind.parse(text.strip())
            except ValueError:
                note = ""
                if key == "nn_architecture" and text.strip().lower() in UNSUPPORTED:
                    note = " (this architecture is not supported)"
                faults.append(
                    f"{source}, [{section}] {key} = {text}, allowed: {kind.allowed}{note}"
                )
                continue
        (post if section == "postprocessing" and one.name in post_names else params)[one.name] = (
            value
        )
    return params, post, faults


def _nearest_multiples(value, step):
    low = max(step, value // step * step)
    return f"{low} or {low + step}" if low < value else f"{low}"


def _check(params, source):
    """Return the faults that lie in the combination of values."""
    faults = []
    steps = 2**params.unet_steps * (4 if params.temporal_reduction else 1)
    for where, (duration, stride) in {
        "[dataset]": (params.data_duration, params.data_stride),
        "[inference]": params.chunk,
    }.items():
        if params.border_mode == "same" and duration % steps:
            faults.append(
                f"{source}, {where} data_duration = {duration}, expected a multiple of {steps} "
                f"(unet_steps = {params.unet_steps}): use {_nearest_multiples(duration, steps)}"
            )
        if params.temporal_reduction and stride % 4:
            faults.append(f"{source}, {where} data_stride = {stride}, expected a multiple of 4")
        if stride > duration:
            faults.append(
                f"{source}, {where} data_stride = {stride}, expected at most data_duration "
                f"= {duration}"
            )
    duration, stride = params.chunk
    if params.inference == "overlap" and (duration - stride) % 2:
        faults.append(
            f"{source}, [inference] data_duration - data_stride = {duration - stride}, expected an "
            f"even number with overlap: use data_stride = {max(1, stride - 1)} or {stride + 1}"
        )
    if 2 * params.ignore_frames_loss >= params.data_duration:
        faults.append(
            f"{source}, [training] ignore_frames_loss = {params.ignore_frames_loss}, expected less "
            f"than half of data_duration = {params.data_duration}: no frame is left for the loss"
        )
    if params.criterion == "nll_then_lovasz" and params.switch_iteration < 1:
        faults.append(
            f"{source}, [training] switch_iteration = 0, expected >= 1: criterion needs it"
        )
    if params.scheduler != "none" and params.step_size < 1:
        faults.append(
            f"{source}, [training] step_size = 0, expected >= 1: scheduler = {params.scheduler} "
            "needs it"
        )
    if params.scheduler == "cosine" and params.warmup_iterations >= params.step_size:
        faults.append(
            f"{source}, [training] warmup_iterations = {params.warmup_iterations}, expected less "
            f"than step_size = {params.step_size}"
        )
    if params.nn_architecture == "pablos_unet" and params.batch_normalization not in (
        "none",
        "batch",
    ):
        faults.append(
            f"{source}, [network] batch_normalization = {params.batch_normalization}, allowed with "
            "pablos_unet: none, batch"
        )
    if params.attention and params.nn_architecture != "github_unet":
        faults.append(f"{source}, [network] attention = yes, expected no: only github_unet has it")
    if params.temporal_reduction and (
        params.nn_architecture != "pablos_unet" or params.border_mode != "same"
    ):
        faults.append(
            f"{source}, [network] temporal_reduction = yes, expected nn_architecture = pablos_unet "
            "and border_mode = same"
        )
    if params.temporal_reduction and params.num_channels != 4:
        faults.append(
            f"{source}, [network] num_channels = {params.num_channels}, expected 4 with "
            "temporal_reduction"
        )
    if not params.temporal_reduction and params.num_channels != 1:
        faults.append(
            f"{source}, [network] num_channels = {params.num_channels}, expected 1: movies "
            "have one channel"
        )
    if params.temporal_reduction and params.sin_channels:
        faults.append(
            f"{source}, [dataset] sin_channels = yes, expected no with temporal_reduction"
        )
    try:
        file_name(params.run_name, f"{source}, [training] run_name =")
    except InputError as error:
        faults.append(str(error))
    return faults


def make_params(
    texts: dict[tuple[str, str], str], source: str = "settings", config_path: Path | None = None
) -> Params:
    """Turn {(section, key): text} into Params; all faults are raised together."""
    values, faults = _canonical(texts, source)
    params, post, bad_values = _convert(values, source)
    faults += bad_values
    if ("dataset", "relative_path") not in values:
        sections = {section for section, _ in texts}
        missing = "key relative_path in [dataset]" if "dataset" in sections else "section [dataset]"
        faults.append(f"{source}: missing {missing}: it names the folder of the movies")
    raise_faults(faults)
    if params.get("scheduler") == "step" and "gamma" in params and "scheduler_gamma" not in params:
        params["scheduler_gamma"] = params["gamma"]
        if params.get("criterion") in FOCAL_CRITERIA:
            logger.warning("%s: gamma is used by loss and scheduler; set scheduler_gamma", source)
    post["ignore_frames"] = params.get("ignore_frames_loss", Params.ignore_frames_loss)
    made = Params(**params, postprocessing=PostParams(**post), config_path=config_path)
    raise_faults(_check(made, source))
    return made


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Params:
    """Read an INI file strictly.

    Args:
        path: the file; UTF-8 with or without a byte order mark; ``%`` is an ordinary character.
        overrides: texts ``section.key=value`` that replace what the file says.

    Returns:
        Params.

    Raises:
        InputError: missing file, unknown section or key (with the nearest known one), a value that
            is not allowed, or values that exclude each other; all faults in one message.
    """
    path = Path(path)
    texts = _read_text(path)
    for text in overrides:
        place, equals, value = text.partition("=")
        section, dot, key = place.partition(".")
        if not equals or not dot:
            raise InputError(f"--set {text}: expected section.key=value")
        place = (section.strip().lower(), key.strip().lower())
        target = ALIASES.get(place, place)
        for old in [old for old in texts if ALIASES.get(old, old) == target]:
            del texts[old]
        texts[place] = value
    return make_params(texts, str(path), path.resolve())
