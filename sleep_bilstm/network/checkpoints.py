"""Save and load weights: own `.weights.h5` with config.json, and the TensorFlow-2 checkpoints of
the published project.

Source: specification section 6.5.
"""

import glob
import io
import json
import logging
import re
from dataclasses import fields
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from common.files import InputError, write_bytes, write_json
from network.model_attention_bilstm import Architecture, AttentionBiLSTM, build

log = logging.getLogger(__name__)
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
CBAM_LAYERS = {"channel": ("channel",), "spatial": ("spatial",), "cbam": ("channel", "spatial")}


def save_weights(network: AttentionBiLSTM, path: Path) -> None:
    """Write the weights to a `.weights.h5` file, atomically."""
    buffer = WeightsBuffer()
    network.model.save_weights(buffer)
    write_bytes(path, buffer.getbuffer())


class WeightsBuffer(io.BytesIO):
    """Weights in memory: HDF5 that runs out of disk space ends the process in its close.

    Keras asks for the ending of the name and takes buffers.
    """

    def __str__(self):
        return "buffer.weights.h5"


def save_config(run_dir: Path, architecture: Architecture, data: dict) -> None:
    """Write `config.json`: architecture and data settings, enough to rebuild the network."""
    write_json(
        run_dir / "config.json", {"format": 1, "architecture": architecture.to_json(), "data": data}
    )


def read_config(path: Path) -> tuple[dict, dict]:
    """Read a config.json of this project or of the published one.

    Returns:
        architecture settings and data settings; the published file gives those it holds.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        if "architecture" in held:
            unknown = set(held["architecture"]) - {field.name for field in fields(Architecture)}
            if unknown:
                raise ValueError(f"unknown setting {sorted(unknown)[0]}")
            for field in fields(Architecture):
                value = held["architecture"].get(field.name, field.default)
                kinds = (int, float) if isinstance(field.default, float) else type(field.default)
                if not isinstance(value, kinds):
                    raise ValueError(f"{field.name} is {value!r}")
            return held["architecture"], dict(held.get("data", {}))
        frames, height, width = held["image_shape"][:3]
        architecture = {
            "num_frames": int(held["num_frames"]),
            "height": int(height),
            "width": int(width),
        }
        architecture |= {key: int(held[key]) for key in ("num_classes", "num_rnn_units")}
        if frames != architecture["num_frames"]:
            raise ValueError(
                f"image_shape has {frames} frames, num_frames is {architecture['num_frames']}"
            )
        return architecture, {"hemisphere": "left" if width * 2 == height else None}
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; expected the config.json of a trained network"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path}: no readable config.json ({error})") from error


def load_own(path: Path, *, expected: dict | None = None) -> tuple[AttentionBiLSTM, dict]:
    """Rebuild a network from `config.json` beside a `.weights.h5` file.

    Args:
        path: the weights.
        expected: settings given by the user that must agree with config.json.

    Returns:
        the network and its data settings.
    """
    if not path.is_file():
        there = (
            sorted(p.name for p in path.parent.glob("*.weights.h5")) if path.parent.is_dir() else []
        )
        raise InputError(
            f"{path}: no such weights; found {', '.join(there) or 'none'} there; train first "
            "(--mode train)"
        )
    settings, data = read_config(path.parent / "config.json")
    for key, value in (expected or {}).items():
        if settings.get(key) != value:
            raise InputError(
                f"{path.parent / 'config.json'}: {key} is {settings.get(key)}, {value} is asked for"
            )
    network = build(Architecture(**settings), seed=0)
    load_weights(network, path)
    return network, data


def weight_shapes(path: Path | io.BytesIO) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a `.weights.h5` file, those of an optimiser left out."""
    shapes = {}

    def note(name, held):
        if isinstance(held, h5py.Dataset) and not name.startswith("optimizer/"):
            shapes[name] = held.shape

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return shapes


def own_weight_shapes(network: AttentionBiLSTM) -> dict[str, tuple[int, ...]]:
    """Return what weight_shapes finds in a file of ``network``."""
    buffer = WeightsBuffer()
    network.model.save_weights(buffer)
    return weight_shapes(buffer)


def _difference(held: dict, own: dict) -> str:
    """Return the first difference between the arrays of a file and of a network."""
    name = min(
        name for name in {*held, *own} if held.get(name, "missing") != own.get(name, "missing")
    )
    return (
        f"{len(held)} arrays, the network has {len(own)}; {name} is "
        f"{held.get(name, 'not there')}, expected {own.get(name, 'nothing of that name')}"
    )


def load_weights(network: AttentionBiLSTM, path: Path) -> None:
    """Put the weights of a `.weights.h5` file into ``network``.

    Keras fills layers by their position and drops what is left over: the arrays of the file are
    compared with those of the network first.

    Raises:
        InputError: the file is damaged, or it belongs to another network.
    """
    try:
        held, own = weight_shapes(path), own_weight_shapes(network)
        if held != own:
            raise ValueError(_difference(held, own))
        network.model.load_weights(path)
    except Exception as error:  # damaged bytes make h5py and Keras raise almost any kind
        reason = (str(error) or repr(error)).splitlines()[0]
        raise InputError(
            f"{path}: does not hold the weights of the network in config.json ({reason})"
        ) from error


def _tf2_weight_paths(architecture: Architecture) -> list[str]:
    """Return the keys of all weights in the order of the published checkpoint."""
    attention = CBAM_LAYERS.get(architecture.spatial_attention, ())
    names, layer = [], 0
    for _ in range(architecture.num_blocks):
        for _ in range(2):
            names += [f"layer_with_weights-{layer}/layer/{part}" for part in ("kernel", "bias")]
            layer += 1
        if "channel" in attention:
            for shared in ("shared_layer_one", "shared_layer_two"):
                names += [
                    f"layer_with_weights-{layer}/layer/{shared}/{part}"
                    for part in ("kernel", "bias")
                ]
            layer += 1
        if "spatial" in attention:
            names.append(f"layer_with_weights-{layer}/layer/conv2d/kernel")
            layer += 1
    for side in ("forward", "backward"):
        cell = f"layer_with_weights-{layer}/{side}_layer/cell"
        names += [f"{cell}/{part}" for part in ("kernel", "recurrent_kernel", "bias")]
    layer += 1
    names += [
        f"layer_with_weights-{layer}/{part}"
        for part in ("W1/kernel", "W2/kernel", "attention/scale")
    ]
    return names + [f"layer_with_weights-{layer + 1}/{part}" for part in ("kernel", "bias")]


def published_variables(network: AttentionBiLSTM) -> dict:
    """Map every weight of the published checkpoint to the variable of ``network`` that holds it."""
    a = network.architecture
    encoder, head = network.frame_encoder, network.head
    variables = []
    for block in range(1, a.num_blocks + 1):
        for number in (1, 2):
            conv = encoder.get_layer(f"block{block}_conv{number}")
            variables += [conv.kernel, conv.bias]
        if a.spatial_attention in ("channel", "cbam"):
            layer = encoder.get_layer(f"block{block}_channel")
            for dense in (layer.shared_layer_one, layer.shared_layer_two):
                variables += [dense.kernel, dense.bias]
        if a.spatial_attention in ("spatial", "cbam"):
            variables.append(encoder.get_layer(f"block{block}_spatial").conv2d.kernel)
    bilstm = head.get_layer("bilstm")
    for layer in (bilstm.forward_layer, bilstm.backward_layer):
        variables += [layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias]
    attention, classes = head.get_layer("attention"), head.get_layer("classes")
    variables += [
        attention.W1.kernel,
        attention.W2.kernel,
        attention.scale,
        classes.kernel,
        classes.bias,
    ]
    return dict(zip(_tf2_weight_paths(a), variables, strict=True))


def find_tf2_prefix(path: Path) -> Path | None:
    """Return the prefix `.../ckpt_24` when ``path`` names a TensorFlow-2 checkpoint, its index or
    its folder.

    Raises:
        InputError: the index is there and a data file is not.
    """
    path = Path(path)
    if path.is_dir() and (path / "checkpoint").is_file():
        text = (path / "checkpoint").read_text(encoding="utf-8", errors="replace")
        match = re.search(r'^model_checkpoint_path: "(.+)"', text, re.M)
        if not match:
            raise InputError(f"{path / 'checkpoint'}: names no model_checkpoint_path")
        path = path / Path(match[1]).name
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        return None
    parts = [
        (match, path)
        for path in index.parent.glob(f"{glob.escape(prefix.name)}.data-*")
        if (match := re.fullmatch(r".*\.data-(\d{5})-of-(\d{5})", path.name))
    ]
    count = max((int(match[2]) for match, _ in parts), default=1)
    there = {int(match[1]) for match, _ in parts if int(match[2]) == count}
    missing = [n for n in range(count) if n not in there]
    if missing:
        data = prefix.with_name(f"{prefix.name}.data-{missing[0]:05d}-of-{count:05d}")
        raise InputError(
            f"{data}: this file of the checkpoint is missing; {index.name} alone holds no "
            f"weights: copy all {count + 1} files into one folder"
        )
    return prefix


def _open_tf2(prefix: Path) -> tuple:
    """Return the reader of a checkpoint and the shape of every weight in it by its key."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"{prefix}: no readable TensorFlow-2 checkpoint ({str(error).splitlines()[0]})"
        ) from error
    return reader, {
        key[: -len(VALUE)]: shape
        for key, shape in shapes.items()
        if key.endswith(VALUE) and "OPTIMIZER_SLOT" not in key
    }


def _attention_kind(prefix: Path, weights: dict, asked: str) -> str:
    """Return the spatial attention of a checkpoint, as its weights or the user (simam) say."""
    channel = any("shared_layer_one" in key for key in weights)
    spatial = any("/conv2d/" in key for key in weights)
    held = {(True, True): "cbam", (True, False): "channel", (False, True): "spatial"}.get(
        (channel, spatial), "none"
    )
    fits = ("none", "simam") if held == "none" else ("none", held)
    if asked not in fits:
        raise InputError(f"{prefix}: holds spatial attention {held}, {asked} is asked for")
    kind = asked if held == "none" else held
    if kind == "none" and "_sim_" in str(prefix.absolute()):
        log.warning(
            "note: %s: the folder name says _sim_; give --spatial_attention simam if it was "
            "trained so",
            prefix,
        )
    return kind


def _tf2_architecture(
    prefix: Path, weights: dict, kind: str, frames: tuple[int, int, int]
) -> Architecture:
    """Return the architecture that the shapes of a checkpoint belong to."""
    recurrent = [s for k, s in weights.items() if k.endswith("forward_layer/cell/recurrent_kernel")]
    heads = [s for k, s in weights.items() if re.fullmatch(r"layer_with_weights-\d+/kernel", k)]
    convolutions = [
        s for k, s in weights.items() if re.fullmatch(r"layer_with_weights-\d+/layer/kernel", k)
    ]
    if not recurrent or not heads or not convolutions or len(convolutions) % 2:
        raise InputError(
            f"{prefix}: is no checkpoint of the published network (its layers are not there)"
        )
    classes = heads[0][1]
    return Architecture(
        num_frames=frames[0],
        height=frames[1],
        width=frames[2],
        num_classes=2 if classes == 1 else classes,
        num_rnn_units=recurrent[0][0],
        num_filters=convolutions[0][-1],
        num_blocks=len(convolutions) // 2,
        spatial_attention=kind,
    )


def load_tf2(
    prefix: Path,
    *,
    spatial_attention: str = "none",
    config: Path | None = None,
    frames: tuple[int, int, int],
) -> AttentionBiLSTM:
    """Load a TensorFlow-2 object checkpoint by the shapes and names in it.

    Args:
        prefix: `.../ckpt_24`.
        spatial_attention: "simam" cannot be told from the file; the CBAM variants are found in it.
        config: published config.json; its units and classes must agree with the file.
        frames: (F, H, W) of the input.

    Raises:
        InputError: unreadable, of another layout, or in disagreement with config.json.
    """
    reader, weights = _open_tf2(prefix)
    kind = _attention_kind(prefix, weights, spatial_attention)
    architecture = _tf2_architecture(prefix, weights, kind, frames)
    if config is not None:
        held, _ = read_config(config)
        for key in ("num_rnn_units", "num_classes"):
            if held[key] != getattr(architecture, key):
                raise InputError(
                    f"{config}: {key} is {held[key]}, the checkpoint {prefix.name} has "
                    f"{getattr(architecture, key)}"
                )
    network = build(architecture, seed=0)
    for name, variable in published_variables(network).items():
        if tuple(weights.get(name, ())) != tuple(variable.shape):
            raise InputError(
                f"{prefix}: {name} is {weights.get(name, 'missing')}; expected "
                f"{tuple(variable.shape)}"
            )
        try:
            variable.assign(reader.get_tensor(name + VALUE))
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{prefix}: {name} cannot be read ({reason}); copy it again"
            ) from error
    return network


def save_training_state(
    path: Path, network: AttentionBiLSTM, optimizer: keras.Optimizer, record: dict
) -> None:
    """Write everything an exact resume needs: weights, dropout seeds, optimiser, epoch and history.

    Keras' own callback leaves the seeds out; the arrays lie in HDF5 under their position and the
    record as JSON.
    """
    groups = {"model": network.model.variables, "optimizer": optimizer.variables}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["record"] = json.dumps(record)
        for group, variables in groups.items():
            for number, variable in enumerate(variables):
                file.create_dataset(f"{group}/{number:04d}", data=np.asarray(variable))
    write_bytes(path, buffer.getbuffer())


def load_training_state(path: Path, network: AttentionBiLSTM, optimizer: keras.Optimizer) -> dict:
    """Put a saved state back into network and optimiser; return its record.

    Raises:
        InputError: the file is damaged, or it belongs to another network.
    """
    try:
        with h5py.File(path, "r") as file:
            record = json.loads(file.attrs["record"])
            for group, variables in {
                "model": network.model.variables,
                "optimizer": optimizer.variables,
            }.items():
                if len(file[group]) != len(variables):
                    raise ValueError(
                        f"{group} has {len(file[group])} arrays, the network has {len(variables)}"
                    )
                for number, variable in enumerate(variables):
                    held = file[f"{group}/{number:04d}"]
                    if held.shape != tuple(variable.shape):
                        raise ValueError(
                            f"{variable.path} is {held.shape}, expected {tuple(variable.shape)}"
                        )
                    variable.assign(held[()])
    except Exception as error:  # damaged bytes make h5py raise almost any kind
        raise InputError(
            f"{path}: cannot be resumed from ({error}); start anew without --model_continue"
        ) from error
    return record
