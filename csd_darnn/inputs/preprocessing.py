"""Standardise a recording and separate its targets from its driving series (section 5.5)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import InputError, write_json
from inputs.custom_types import TrainData

BLOCK_ROWS = 1024  # rows that are turned into float64 at a time


@dataclass(frozen=True)
class Scaler:
    """Mean and population standard deviation of every column, float64 (K,)."""

    mean: np.ndarray
    scale: np.ndarray
    columns: tuple
    fitted_on: str

    def transform(
        self, values: np.ndarray, columns: np.ndarray | None = None, dtype: type = np.float32
    ) -> np.ndarray:
        """Return (values - mean) / scale of ``columns`` of ``values`` (n, K), in blocks of rows."""
        columns = np.arange(values.shape[1]) if columns is None else np.asarray(columns)
        out = np.empty((len(values), len(columns)), dtype)
        for low in range(0, len(values), BLOCK_ROWS):
            block = values[low : low + BLOCK_ROWS, columns].astype(np.float64)
            out[low : low + BLOCK_ROWS] = (block - self.mean[columns]) / self.scale[columns]
        return out

    def invert(self, z: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        """Return ``z`` (n, o) of the columns at positions ``columns`` in data units, float64."""
        columns = np.asarray(columns)
        return np.asarray(z, np.float64) * self.scale[columns] + self.mean[columns]

    def save(self, path: Path) -> None:
        """Write ``scaler.json``."""
        record = {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "columns": list(self.columns),
            "fitted_on": self.fitted_on,
        }
        write_json(path, record)


def load_scaler(path: Path) -> Scaler:
    """Read ``scaler.json``; an unusable file is an InputError."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        mean, scale = (np.asarray(record[key], np.float64) for key in ("mean", "scale"))
        if mean.shape != scale.shape or len(record["columns"]) != mean.size or mean.ndim != 1:
            raise ValueError("mean, scale and columns differ in length")
        if not (np.isfinite(mean).all() and (scale > 0).all() and np.isfinite(scale).all()):
            raise ValueError("a mean or scale is not a finite number above 0")
        return Scaler(mean, scale, tuple(record["columns"]), str(record["fitted_on"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: found no scaler ({type(error).__name__}: {error}), expected JSON with"
            " mean, scale, columns, fitted_on; train the run again"
        ) from None


def fit_scaler(values: np.ndarray, columns: Sequence[str], *, fit_rows: int, note: str) -> Scaler:
    """Return the Scaler of the first ``fit_rows`` rows of ``values`` (n, K).

    A column without variance gets scale 1, so that its z-scores are 0.
    """
    total = np.zeros(values.shape[1])
    for low in range(0, fit_rows, BLOCK_ROWS):
        total += values[low : min(low + BLOCK_ROWS, fit_rows)].sum(axis=0, dtype=np.float64)
    mean = total / fit_rows
    square = np.zeros(values.shape[1])
    constant = np.ones(values.shape[1], bool)
    for low in range(0, fit_rows, BLOCK_ROWS):
        block = values[low : min(low + BLOCK_ROWS, fit_rows)]
        square += ((block.astype(np.float64) - mean) ** 2).sum(axis=0)
        constant &= (block == values[0]).all(axis=0)
    # The mean of equal numbers may be off in the last digit: equality decides, not the variance.
    scale = np.where(constant, 1.0, np.sqrt(square / fit_rows))
    mean = np.where(constant, values[0].astype(np.float64), mean)
    return Scaler(mean, np.where(scale > 0, scale, 1.0), tuple(map(str, columns)), note)


def preprocess_data(
    dat: np.ndarray,
    col_names: Sequence[str],
    *,
    scaler: str = "train",
    train_size: int | None = None,
    columns: Sequence[str] | None = None,
    dtype: type = np.float32,
    name: str | Path = "data",
) -> tuple[TrainData, Scaler]:
    """Standardise ``dat`` and split it into driving series and targets.

    Args:
        dat: DataFrame, or array (n, K) together with ``columns``.
        col_names: labels of the targets; their order in the result is the order in the file.
        scaler: "train" fits on the first ``train_size`` rows. "all" fits on all rows.
            Differs: the published code fits on all rows, which lets the test part leak.
        train_size: number of training rows; by default int(n * 0.7).
        dtype: type of the result; the statistics are float64.

    Returns:
        TrainData with feats (n, N), targs (n, o), and the Scaler.
    """
    values = np.asarray(dat)
    columns = [str(label).strip() for label in (columns if columns is not None else dat.columns)]
    wanted = {str(label).strip() for label in col_names}
    is_target = np.array([label in wanted for label in columns])
    if not is_target.any() or is_target.all():
        raise InputError(
            f"{name}: found {is_target.sum()} targets among {len(columns)} columns, expected at"
            " least one target and one driving series; see --targ_cols"
        )
    train_size = int(len(values) * 0.7) if train_size is None else train_size
    fit_rows = len(values) if scaler == "all" else train_size
    fitted = fit_scaler(values, columns, fit_rows=fit_rows, note=f"rows 0..{fit_rows - 1}")
    for position in np.flatnonzero(is_target):
        if (values[:train_size, position] == values[0, position]).all():
            raise InputError(
                f"{name}: found the constant target column {columns[position]}, expected a series"
                " that varies in the training part; choose another target"
            )
    parts = [
        fitted.transform(values, np.flatnonzero(chosen), dtype)
        for chosen in (~is_target, is_target)
    ]
    if not all(np.isfinite(part).all() for part in parts):
        raise InputError(
            f"{name}: found NaN or infinite values, expected finite numbers; repair it"
        )
    return TrainData(*parts), fitted
