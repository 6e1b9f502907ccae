"""Read the published atlas (AtlasandIsbrain.mat, HDF5) and reduce maps to its 40 parcels.

Axis order: HDF5 stores MATLAB arrays transposed; here every map is (row, column), row 0 anterior.
Source: specification section 4.6 and the README of the real data.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from common.files import InputError

PARCELS = 40  # 1 to 20 left, 21 to 40 right


@dataclass(frozen=True)
class Atlas:
    """Parcels and brain mask.

    Attributes:
        parcels: (H, W) int, 0 none, 1 to 20 left, 21 to 40 right.
        mask: (H, W) bool.
        names: 40 names, with side.
    """

    parcels: np.ndarray
    mask: np.ndarray
    names: tuple[str, ...]


def read_atlas(path: Path) -> Atlas:
    """Read parcels, mask and names.

    Raises:
        InputError: the file cannot be read or is another one.
    """
    try:
        with h5py.File(path, "r") as file:
            parcels = file["AtlasSeeds"][()].T.astype(int)
            mask = file["parcelisbrain"][()].T > 0
            names = [
                "".join(map(chr, file[ref][()].ravel())) for ref in file["parcelnames"][()].ravel()
            ]
    except Exception as error:  # damaged bytes make h5py raise almost any kind
        raise InputError(f"{path}: is no AtlasandIsbrain.mat ({error})") from error
    if (
        len(names) != PARCELS
        or parcels.ndim != 2
        or not parcels.size
        or parcels.min() != 0
        or parcels.max() != PARCELS
        or parcels.shape != mask.shape
    ):
        raise InputError(
            f"{path}: holds {len(names)} names and parcels of shape {parcels.shape}; "
            f"expected {PARCELS} names and parcels 1 to {PARCELS}"
        )
    # Differs: the side comes from the number; three left parcels carry a wrong letter in the file.
    clean = [
        f"{_without_side(name)} {'L' if i < PARCELS // 2 else 'R'}" for i, name in enumerate(names)
    ]
    return Atlas(parcels, mask, tuple(clean))


def _without_side(name: str) -> str:
    """Return a parcel name without the side letter at its end."""
    name = name.strip()
    return name[:-1].strip() if name[-1:] in "LR" else name


def fit_to(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Reduce a label map (H, W) to (height, width): the most frequent label of every block.

    Raises:
        InputError: the sizes do not divide.
    """
    if labels.shape[0] % height or labels.shape[1] % width:
        raise InputError(
            f"the atlas has {labels.shape} pixels; it cannot be reduced to {height} x {width}"
        )
    rows, columns = labels.shape[0] // height, labels.shape[1] // width
    blocks = labels.reshape(height, rows, width, columns).swapaxes(1, 2).reshape(height, width, -1)
    counts = np.stack([(blocks == value).sum(axis=2) for value in range(labels.max() + 1)])
    return counts.argmax(axis=0)


def region_table(
    maps: dict[str, np.ndarray],
    parcels: np.ndarray,
    names: tuple[str, ...],
    mask: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return the mean of each map (H, W) in each of the 40 parcels, one row per parcel.

    A parcel that the brain mask does not reach has no pixels and no mean.

    Args:
        maps: map by name of its state.
        parcels: (H, W) int, 0 none; the part of the atlas that the maps show.
        names: 40 names.
        mask: (H, W) bool brain mask of the recordings: nothing is known outside; all when None.
    """
    rows = []
    for number, name in enumerate(names, start=1):
        here = parcels == number if mask is None else (parcels == number) & mask
        means = {
            key: float(value[here].mean()) if here.any() else np.nan for key, value in maps.items()
        }
        rows.append({"parcel": number, "name": name, "pixels": int(here.sum()), **means})
    return pd.DataFrame(rows)


def front_back_means(maps: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means (N,) of maps (N, H, W) in the front and the back half of the mask."""
    half = mask.shape[0] // 2
    front, back = mask.copy(), mask.copy()
    front[half:], back[:half] = False, False
    return maps[:, front].mean(axis=1), maps[:, back].mean(axis=1)


def front_back_index(maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return (front - back) / (|front| + |back|) of maps (N, H, W), -1 to 1."""
    front, back = front_back_means(maps, mask)
    return (front - back) / np.maximum(np.abs(front) + np.abs(back), 1e-12)


def front_back_table(maps: dict[str, np.ndarray], mask: np.ndarray) -> pd.DataFrame:
    """Return front mean, back mean and front / back of each subject map (H, W), one row per state;
    NaN where a map is.
    """
    front, back = front_back_means(np.stack(list(maps.values())), mask)
    ratio = np.divide(front, back, out=np.full(len(maps), np.nan), where=back != 0)
    return pd.DataFrame({"state": list(maps), "front": front, "back": back, "ratio": ratio})


def permutation_test(
    first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = 2000
) -> dict:
    """Compare the means of two samples by permuting their labels.

    Returns:
        dict with difference (first - second), two-sided p (at least 1 / (resamples + 1)), n_first,
        n_second.
    """
    result = {"difference": None, "p": None, "n_first": len(first), "n_second": len(second)}
    if not len(first) or not len(second):
        return result
    rng, pooled = np.random.default_rng(seed), np.concatenate([first, second])
    observed = first.mean() - second.mean()
    larger = 0
    for _ in range(resamples):
        mixed = rng.permutation(pooled)
        larger += (
            abs(mixed[: len(first)].mean() - mixed[len(first) :].mean()) >= abs(observed) - 1e-12
        )
    return {**result, "difference": float(observed), "p": (larger + 1) / (resamples + 1)}
