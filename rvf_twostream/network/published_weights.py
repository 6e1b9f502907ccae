"""Keras 2.3.1 files of the published code, and trunks handed over to another model.

Published files are HDF5 with layers ``conv3d_N``, ``batch_normalization_N``, ``preds``; N counts
creations in one process (specification 6.6).
"""

import re
from pathlib import Path

import h5py
import keras
import numpy as np

from common.files import InputError
from network.checkpoints import (
    CONVOLUTIONS,
    HDF5_FAULTS,
    SUFFIX,
    load_weights,
    read_info,
    require_file,
    save_weights,
)
from network.model_zoo import single_stream, two_stream


def creation_key(name: str) -> tuple:
    """Return the sort key of a layer name in the published order of creation.

    Grey before flow; stem, blocks, final norm; in a block convolutions in order, projection last.
    """
    stream, rest = name.split("_", 1)
    block = re.fullmatch(r"s(\d)b(\d+)_(?:conv(\d)|pre(\d)_bn|short)", rest)
    if block is None:
        place = (0 if rest.startswith("stem") else 9, 0, 0)
    else:
        place = (int(block[1]), int(block[2]), int(block[3] or block[4] or 9))
    return (stream != "grey", *place)


def published_layers(path: Path) -> dict[str, list]:
    """Return {"conv3d": [...], "batch_normalization": [...], "preds": [...]} of a Keras 2 file.

    Each entry is a dict of arrays by variable name, in order of creation.
    """
    require_file(path)
    try:
        layers = _published_groups(path)
    except HDF5_FAULTS as error:
        raise InputError(
            f"{path}: not a complete HDF5 file ({error}); copy or train it again"
        ) from error
    if not layers["conv3d"] or any("kernel" not in arrays for arrays in layers["conv3d"]):
        raise InputError(f"{path}: holds no conv3d_N layers; expected weights saved by Keras 2")
    return layers


def _published_groups(path):
    """Return the layers of ``published_layers`` unchecked."""
    groups = {"conv3d": {}, "batch_normalization": {}, "preds": {}}
    with h5py.File(path, "r") as handle:
        root = handle.get("model_weights", handle)  # save() nests what save_weights() does not
        for name in root:
            match = re.fullmatch(r"(conv3d|batch_normalization)(?:_(\d+))?|(?:\w+_)?preds", name)
            if match is None:
                continue
            arrays = {}

            def collect(key, item, arrays=arrays):
                if isinstance(item, h5py.Dataset):
                    arrays[key.rsplit("/", 1)[-1].split(":")[0]] = np.asarray(item)

            root[name].visititems(collect)
            groups[match[1] or "preds"][int(match[2] or 0)] = arrays
    return {kind: [group[n] for n in sorted(group)] for kind, group in groups.items()}


def published_shape(path: Path, *, depth: int | None = None) -> tuple[str, int, int]:
    """Return (kind, depth, width) of a published file; ``depth`` given is demanded.

    ``kind`` is ``two_stream``, or for one stream ``grey`` or ``of`` by its input channels.
    """
    kernels = [arrays["kernel"] for arrays in published_layers(path)["conv3d"]]
    stems = [kernel for kernel in kernels if kernel.shape[:3] == (7, 7, 7)]
    n_streams, n_conv = len(stems), len(kernels)
    known = {n: d for d, n in CONVOLUTIONS.items()}
    per_stream = n_conv // max(1, n_streams)
    if depth is not None and CONVOLUTIONS[depth] != per_stream:
        each = " per stream" if n_streams == 2 else ""
        raise InputError(
            f"{path}: file has {per_stream} convolutions{each}, depth {depth} needs "
            f"{CONVOLUTIONS[depth]}"
        )
    if n_streams not in (1, 2) or per_stream not in known or n_conv % n_streams:
        raise InputError(
            f"{path}: file has {n_conv} convolutions, {n_streams} of them 7x7x7; expected one or "
            f"two streams of {', '.join(str(n) for n in CONVOLUTIONS.values())}"
        )
    channels = [stem.shape[3] for stem in stems]
    kind = {(1,): "grey", (2,): "of", (1, 2): "two_stream"}.get(tuple(channels))
    if kind is None:
        raise InputError(
            f"{path}: first convolutions take {channels} channels; expected grey 1, flow 2"
        )
    return kind, known[per_stream], stems[0].shape[4]


def load_published(model: keras.Model, path: Path) -> None:
    """Load a Keras 2.3.1 file into ``model``, checking every shape.

    Args:
        model: ``two_stream`` or ``single_stream`` model.
        path: HDF5 file of ``save_weights``.
    """
    source = published_layers(path)
    layers = {"conv3d": [], "batch_normalization": []}
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            layers["batch_normalization"].append(layer)
        elif re.search(r"_conv\d?$|_short$", layer.name):
            layers["conv3d"].append(layer)
    for kind, group in layers.items():
        group.sort(key=lambda layer: creation_key(layer.name))
        if len(group) != len(source[kind]):
            what = "convolutions" if kind == "conv3d" else "batch norms"
            raise InputError(
                f"{path}: file has {len(source[kind])} {what}, the model needs {len(group)}"
            )
    pairs = [pair for kind in layers for pair in zip(layers[kind], source[kind], strict=True)]
    if len(source["preds"]) != 1:
        raise InputError(f"{path}: holds {len(source['preds'])} layers 'preds', expected 1")
    pairs.append((model.get_layer("preds"), source["preds"][0]))
    values = []
    for layer, arrays in pairs:
        for variable in layer.weights:
            name = variable.path.rsplit("/", 1)[1]
            value = arrays.get(name)
            if value is None or value.shape != tuple(variable.shape):
                stored = "nothing" if value is None else f"shape {value.shape}"
                raise InputError(
                    f"{path}: {stored} for {variable.path}, expected shape {tuple(variable.shape)}"
                )
            values.append((variable, value))
    for variable, value in values:
        variable.assign(value)


def convert_reference_weights(
    path: Path,
    out: Path,
    *,
    depth: int | None = None,
    input_size: tuple[int, int, int] = (32, 112, 112),
) -> dict:
    """Turn a Keras 2.3.1 weights file into the new format and return its description.

    Args:
        path: HDF5 file of the published code.
        out: ``*.weights.h5`` to write, with a JSON beside it.
        depth: demanded depth; None takes the file's.
        input_size: (frames, rows, columns) of the clips; the file does not hold it.
    """
    if not str(out).endswith(SUFFIX):
        raise InputError(f"{out}: the name of new weights ends in {SUFFIX}")
    kind, depth, width = published_shape(path, depth=depth)
    model = build_model(kind, depth=depth, width=width, input_size=input_size)
    load_published(model, path)
    info = {
        "kind": kind,
        "depth": depth,
        "width": width,
        "input_size": list(input_size),
        "n_classes": 0,
        "threshold": 2,
        "converted_from": Path(path).name,
    }
    save_weights(model, out, info)
    return info


def build_model(
    kind: str | None,
    *,
    depth: int,
    width: int,
    input_size: tuple[int, int, int],
    n_classes: int = 0,
) -> keras.Model:
    """Return a fresh ``two_stream`` model or a ``single_stream`` model of ``kind`` grey or of."""
    if kind == "two_stream":
        return two_stream(input_size=input_size, depth=depth, width=width)
    return single_stream(kind, input_size=input_size, depth=depth, width=width, n_classes=n_classes)


def read_trunk(path: str | Path, *, depth: int, width: int) -> dict[str, dict[str, np.ndarray]]:
    """Return {layer name without stream: {variable: array}} of one stream's weights.

    Args:
        path: pre-training weights, new format or a published ``.hdf5``.
        depth, width: demanded shape of the trunk.
    """
    require_file(path)
    if str(path).endswith(SUFFIX):
        info = read_info(path)
        kind, found_depth, found_width = info["kind"], int(info["depth"]), int(info["width"])
    else:
        kind, found_depth, found_width = published_shape(path, depth=depth)
        info = {"input_size": (32, 64, 64)}
    if kind == "two_stream":
        raise InputError(f"{path}: holds a two-stream model, expected one pre-trained stream")
    if (found_depth, found_width) != (depth, width):
        raise InputError(
            f"{path}: file has {CONVOLUTIONS[found_depth]} convolutions (depth {found_depth}, "
            f"width {found_width}), depth {depth} needs {CONVOLUTIONS[depth]} (width {width})"
        )
    source = build_model(
        kind,
        depth=depth,
        width=width,
        input_size=info["input_size"],
        n_classes=info.get("n_classes", 0),
    )
    if str(path).endswith(SUFFIX):
        load_weights(source, path)
    else:
        load_published(source, path)
    trunk = {}
    for variable in source.weights:
        layer, name = variable.path.split("/")
        if layer != "preds":
            trunk.setdefault(layer.split("_", 1)[1], {})[name] = np.asarray(variable)
    return trunk


def load_trunk(
    model: keras.Model, stream: str, path: str | Path, *, depth: int, width: int
) -> str | None:
    """Start the layers ``<stream>_*`` of ``model`` from pre-training weights.

    Returns a note when the first convolution was fitted to another number of channels, else None:
    the kernel is averaged over its channels and repeated, so that the response to equal channels
    stays the same.
    """
    note = None
    trunk = read_trunk(path, depth=depth, width=width)
    for variable in model.weights:
        layer, name = variable.path.split("/")
        if not layer.startswith(f"{stream}_"):
            continue
        value = trunk[layer.split("_", 1)[1]][name]
        wanted = variable.shape[3] if len(variable.shape) == 5 else None
        if wanted is not None and value.shape[3] != wanted and layer == f"{stream}_stem_conv":
            note = (
                f"{path}: first convolution has {value.shape[3]} channels, {stream} has {wanted}: "
                "its kernel is averaged over channels and repeated"
            )
            mean = value.mean(axis=3, keepdims=True) * (value.shape[3] / wanted)
            value = np.repeat(mean, wanted, axis=3)
        variable.assign(value)
    return note
