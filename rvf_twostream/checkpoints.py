"""Weights on disk: the new format, Keras 2.3.1 files of the published code, hand-over by name.

New format (specification 6.6): ``<name>.weights.h5`` beside ``<name>.json`` with kind, depth,
width, input size, class rule, normalisation, training flags and metrics. Published files are HDF5
with layers ``conv3d_N``, ``batch_normalization_N``, ``preds``; N counts creations in one process.
"""

import collections
import os
import re
import warnings
from pathlib import Path

import h5py
import numpy as np

from common.files import InputError, atomic_path, read_json, sha256, write_json

CONVOLUTIONS = {18: 20, 34: 36, 50: 53, 101: 104, 152: 155}  # per stream, projections included
SUFFIX = ".weights.h5"
HDF5_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # of damaged files


def info_path(weights):
    """Return the path of the JSON beside a ``*.weights.h5`` file."""
    weights = Path(weights)
    return weights.with_name(weights.name.removesuffix(SUFFIX) + ".json")


def save_weights(model, path, info):
    """Write ``path`` (``*.weights.h5``) and its JSON ``info`` with its SHA-256, each atomically."""
    save_h5(model, path)
    write_json(info_path(path), {**info, "sha256": sha256(path)})


def save_h5(model, path, attribute=None):
    """Write weights, and the optimiser of a compiled model; ``attribute`` is a text in the file."""
    with atomic_path(path) as temporary:
        # Keras insists on the double suffix, which the temporary name need not have.
        draft = temporary.with_name(temporary.name + SUFFIX)
        try:
            model.save_weights(draft)
            if attribute is not None:
                with h5py.File(draft, "r+") as handle:
                    handle.attrs["state"] = np.bytes_(attribute.encode("utf-8"))
            os.replace(draft, temporary)
        finally:
            draft.unlink(missing_ok=True)


def require_file(path):
    """Raise an InputError unless ``path`` is a readable HDF5 file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: weights file not found; give the path of a trained model")
    try:
        with h5py.File(path, "r") as handle:
            # It opens every array; a value that is not None would end the visit at the first.
            handle.visititems(lambda *_: None)
    except HDF5_FAULTS as error:
        raise InputError(
            f"{path}: not a complete HDF5 file ({error}); copy or train it again"
        ) from error


def read_info(weights, *, kind=None):
    """Return the JSON beside ``weights`` after checking both files.

    Args:
        weights: ``*.weights.h5``.
        kind: ``two_stream``, ``grey`` or ``of`` when only that will do.
    """
    if not Path(weights).is_file():
        raise InputError(f"{weights}: weights file not found; give the path of a trained model")
    path = info_path(weights)
    if not str(weights).endswith(SUFFIX) or not path.is_file():
        raise InputError(
            f"{weights}: needs {path.name} beside it; files of the published code are turned into "
            f"this format by convert_reference.py --weights FILE --out NAME{SUFFIX}"
        )
    info = read_json(path, remedy="restore the file that was written with the weights")
    try:
        depth, width, size = int(info["depth"]), int(info["width"]), list(info["input_size"])
        found = info["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the description of a model ({error!r}); restore the file that was "
            "written with the weights"
        ) from error
    if depth not in CONVOLUTIONS or width < 1 or len(size) != 3:
        raise InputError(f"{path}: depth {depth}, width {width}, input_size {size} is no model")
    if info.get("sha256") not in (None, sha256(weights)):
        # HDF5 has no checksum of its own: without this a flipped bit is another network.
        raise InputError(
            f"{weights}: SHA-256 differs from the one in {path.name}; the file is damaged or "
            "belongs to another description, copy or train it again"
        )
    require_file(weights)
    if kind is not None and found != kind:
        raise InputError(f"{weights}: holds a {found} model, expected a {kind} model")
    return info


def _check_complete(model, path):
    """Raise ValueError unless the file holds as many arrays as the model and its optimiser."""
    wanted = {"layers": len(model.weights)}
    if getattr(model, "optimizer", None) is not None:
        wanted["optimizer"] = len(model.optimizer.variables)
    found = collections.Counter()

    def count(name, item):
        found[name.split("/")[0]] += isinstance(item, h5py.Dataset)

    with h5py.File(path, "r") as handle:
        handle.visititems(count)
    for part, n in wanted.items():
        if found[part] != n:
            raise ValueError(f"{found[part]} arrays of {part}, {n} needed")


def load_weights(model, path):
    """Load a new-format file into ``model`` of the same shape, all of it or nothing.

    A compiled model takes its optimiser from the file as well.
    """
    require_file(path)
    try:
        _check_complete(model, path)
        with warnings.catch_warnings():
            # Keras leaves layers that it does not find as they are, with a warning.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (*HDF5_FAULTS, UserWarning) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: does not fit the model described in {info_path(path).name} ({reason}); "
            "another depth, width or a damaged file"
        ) from error


def creation_key(name):
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


def published_layers(path):
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
    found = {"conv3d": {}, "batch_normalization": {}, "preds": {}}
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
            found[match[1] or "preds"][int(match[2] or 0)] = arrays
    return {kind: [group[n] for n in sorted(group)] for kind, group in found.items()}


def published_shape(path, *, depth=None):
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


def load_published(model, path):
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
                found = "nothing" if value is None else f"shape {value.shape}"
                raise InputError(
                    f"{path}: {found} for {variable.path}, expected shape {tuple(variable.shape)}"
                )
            values.append((variable, value))
    for variable, value in values:
        variable.assign(value)


def convert_reference_weights(path, out, *, depth=None, input_size=(32, 112, 112)):
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


def build_model(kind, *, depth, width, input_size, n_classes=0):
    """Return a fresh ``two_stream`` model or a ``single_stream`` model of ``kind`` grey or of."""
    # Imported here: reading a description must not cost the start of TensorFlow.
    from model_zoo import single_stream, two_stream

    if kind == "two_stream":
        return two_stream(input_size=input_size, depth=depth, width=width)
    return single_stream(kind, input_size=input_size, depth=depth, width=width, n_classes=n_classes)


def read_trunk(path, *, depth, width):
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


def load_trunk(model, stream, path, *, depth, width):
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
