"""Read files that may hold code: tensors saved with torch.save and a published ``scaler.pkl``.

Nothing in such a file is ever called. Tensors go through the weights-only reader of torch; the
scaler goes through an unpickler that knows NumPy arrays and one class with numbers in it.
"""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

from common.files import InputError
from inputs.preprocessing import Scaler

SKLEARN_SCALER = ("sklearn.preprocessing._data", "sklearn.preprocessing.data")
NUMPY_NAMES = ("dtype", "ndarray", "_reconstruct", "scalar")
NUMPY_MODULES = {
    "numpy": "numpy",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy._core.multiarray": "numpy._core.multiarray",
}


def load_tensors(path: Path) -> Any:
    """Read a file of tensors and plain values; code in it is refused.

    Raises:
        InputError: when the file is missing, cut, or holds other objects.
    """
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the archive's checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise InputError(
                    f"{path}: the checksum of {damaged} does not fit, expected undamaged tensors;"
                    " restore the file or train the run again"
                )
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: found no file, expected saved tensors; train the run") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: found objects other than tensors and plain values (code is refused),"
            " expected a file of tensors; save the state dict again"
        ) from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged bytes reach torch as index, type, key and other errors
        raise InputError(
            f"{path}: found an unreadable file ({type(error).__name__}), expected saved tensors;"
            " it may be cut: restore it or train the run again"
        ) from None


class PublishedScaler:
    """Take the place of scikit-learn's StandardScaler: it only holds the numbers."""


class ScalerUnpickler(NumpyUnpickler):
    """Unpickler for a joblib or plain pickle of a StandardScaler; every other class is refused."""

    def find_class(self, module, name: str) -> Any:
        if name == "StandardScaler" and module in SKLEARN_SCALER:
            return PublishedScaler
        if name == "NumpyArrayWrapper" and module == "joblib.numpy_pickle":
            return NumpyArrayWrapper
        if name in NUMPY_NAMES and module in NUMPY_MODULES:
            return super().find_class(NUMPY_MODULES[module], name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def read_published_scaler(path: Path, columns: Sequence[str]) -> Scaler:
    """Read the ``scaler.pkl`` of the published project and return a Scaler.

    Args:
        path: file written with joblib or pickle.
        columns: labels of the recording's columns, which the file does not hold.
    """
    try:
        with open(path, "rb") as handle:
            pickled = ScalerUnpickler(str(path), handle, ensure_native_byte_order=True).load()
        mean, scale = (np.asarray(getattr(pickled, key), np.float64) for key in ("mean_", "scale_"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a scaler.pkl") from None
    except (
        pickle.UnpicklingError, AttributeError, EOFError, ValueError, KeyError, IndexError,
        TypeError, ImportError,
    ) as error:  # fmt: skip
        raise InputError(
            f"{path}: found no plain StandardScaler ({error}), expected mean_ and scale_ only (code"
            " is refused); write a scaler.json instead"
        ) from None
    if mean.shape != (len(columns),) or scale.shape != mean.shape:
        raise InputError(
            f"{path}: found a scaler of {mean.size} columns, expected {len(columns)}; use the"
            " recording it was fitted on"
        )
    return Scaler(mean, scale, tuple(columns), "all rows (published scaler.pkl)")
