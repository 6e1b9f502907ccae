"""Weights on disk (specification 6.6): ``<name>.weights.h5`` beside ``<name>.json``.

The JSON holds kind, depth, width, input size, class rule, normalisation, training flags, metrics.
"""

import collections
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from common.files import InputError, read_json, sha256, write_bytes, write_json

if TYPE_CHECKING:  # a description is read without the start of TensorFlow
    import keras

CONVOLUTIONS = {18: 20, 34: 36, 50: 53, 101: 104, 152: 155}  # per stream, projections included
SUFFIX = ".weights.h5"
HDF5_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # of damaged files


def info_path(weights: str | Path) -> Path:
    """Return the path of the JSON beside a ``*.weights.h5`` file."""
    weights = Path(weights)
    return weights.with_name(weights.name.removesuffix(SUFFIX) + ".json")


def save_weights(model: "keras.Model", path: Path, info: dict) -> None:
    """Write ``path`` (``*.weights.h5``) and its JSON ``info`` with its SHA-256, each atomically."""
    save_h5(model, path)
    write_json(info_path(path), {**info, "sha256": sha256(path)})


def save_h5(model: "keras.Model", path: Path, attribute: str | None = None) -> None:
    """Write weights, and the optimiser of a compiled model; ``attribute`` is a text in the file."""
    buffer = WeightsBuffer()
    model.save_weights(buffer)
    if attribute is not None:
        with h5py.File(buffer, "r+") as handle:
            handle.attrs["state"] = np.bytes_(attribute.encode("utf-8"))
    write_bytes(path, buffer.getbuffer())


class WeightsBuffer(io.BytesIO):
    """Weights in memory: HDF5 that runs out of disk space ends the process in its close.

    Keras asks for the ending of the name and takes buffers.
    """

    def __str__(self):
        return f"buffer{SUFFIX}"


def require_file(path: str | Path) -> None:
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


def read_info(weights: str | Path, *, kind: str | None = None) -> dict:
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
        stored_kind = info["kind"]
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
    if kind is not None and stored_kind != kind:
        raise InputError(f"{weights}: holds a {stored_kind} model, expected a {kind} model")
    return info


def _check_complete(model, path):
    """Raise ValueError unless the file holds as many arrays as the model and its optimiser."""
    wanted = {"layers": len(model.weights)}
    if getattr(model, "optimizer", None) is not None:
        wanted["optimizer"] = len(model.optimizer.variables)
    counts = collections.Counter()

    def count(name, item):
        counts[name.split("/")[0]] += isinstance(item, h5py.Dataset)

    with h5py.File(path, "r") as handle:
        handle.visititems(count)
    for part, n in wanted.items():
        if counts[part] != n:
            raise ValueError(f"{counts[part]} arrays of {part}, {n} needed")


def load_weights(model: "keras.Model", path: str | Path) -> None:
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
