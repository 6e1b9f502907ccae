"""Read foreign files without running what they may hold: tensors, nested dicts, old histories.

The only module that imports pickle: torch.load raises its error, and the published loss histories
are pickles, read here by a reader that admits no global at all.
"""

import io
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.files import InputError, atomic_path
from common.hashes import hashed_file
from common.limits import check_shape

# What damaged bytes make torch, numpy (its headers are Python), zipfile and pickle raise.
DAMAGE = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, MemoryError, SafetensorError, pickle.UnpicklingError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError,
)  # fmt: skip


def load_hashed(
    path: Path, name: str, digests: dict[str, str] | None, reader: Callable | None = None
) -> dict:
    """Return what ``reader`` (default load_tree) makes of a file; keep its SHA-256 under ``name``.

    ``digests`` None keeps none.
    """
    reader = reader or load_tree
    if digests is None:
        return reader(path)
    with hashed_file(path) as file:
        digests[name] = file.sha256
        return reader(path)


def load_tree(path: Path) -> dict:
    """Return the nested dict held by a .pt, .npz or .safetensors file; tensors only, never code."""
    path = Path(path)
    try:
        suffix = path.suffix.lower()
        if suffix == ".pt":
            return _load_torch(path)
        if suffix == ".npz":
            return _nest({key: torch.from_numpy(a) for key, a in load_arrays(path).items()})
        return _nest(load_file(path))
    except DAMAGE as error:
        reason = f"it is truncated or no {path.suffix} file ({type(error).__name__})"
        if suffix not in (".pt", ".npz", ".safetensors"):
            reason = "its name ends in none of .pt, .npz, .safetensors"
        if isinstance(error, pickle.UnpicklingError) and "nsupported" in str(error):
            reason = "it holds more than tensors, dicts and numbers (refused by the safe loader)"
    raise InputError(f"{path}: cannot be read, {reason}; copy or export it again")


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz; their headers are compared with the memory first."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as handle:
                reader = readers.get(np.lib.format.read_magic(handle))
                if reader is not None:
                    shape, _, kind = reader(handle)
                    check_shape(shape, kind.itemsize, f"{path}: {name.removesuffix('.npy')}")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _load_torch(path):
    if zipfile.is_zipfile(path):  # torch itself skips the checksums of its archive
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"checksum of {damaged}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _nest(flat):
    tree = {}
    for key, value in flat.items():
        *folders, leaf = key.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise ValueError(f"{folder} is both a folder and an array")
        node[leaf] = value
    return tree


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as .npz under whatever names, one file at a time (numpy keeps ``file``)."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same arrays, the same bytes
            with archive.open(entry, "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(values), allow_pickle=False)


def flatten_tree(tree: dict, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return {path/with/slashes: tensor} of a nested dict, the layout of the .npz twins."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten_tree(value, f"{name}/"))
        else:
            flat[name] = torch.as_tensor(value).contiguous()
    return flat


class _PlainUnpickler(pickle._Unpickler):
    """Unpickler that knows dict, list, str and float (built into the format) and nothing else.

    The one written in Python: the other's memo is an array, and a damaged number in the file makes
    it gigabytes long.
    """

    def find_class(self, module, name):
        raise InputError(f"it asks for {module}.{name}, which is refused")


def read_pickled_history(path: Path) -> dict[str, list[float]]:
    """Return {type: [float, ...]} from a published ``avg_loss_hist.pkl``."""
    try:
        history = _PlainUnpickler(io.BytesIO(Path(path).read_bytes())).load()
    except InputError as error:
        raise InputError(f"{path}: no plain loss history, {error}") from None
    except DAMAGE as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); copy it again"
        ) from None
    plain = isinstance(history, dict) and all(
        isinstance(name, str)
        and isinstance(values, list)
        and all(isinstance(v, float) for v in values)
        for name, values in history.items()
    )
    if not plain:
        raise InputError(f"{path}: expected a dict of cell type -> list of losses")
    return history
