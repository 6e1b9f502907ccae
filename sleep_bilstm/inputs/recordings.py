"""Read wide-field recordings (.mat, version 7.3 and 5) one epoch at a time, and check them
beforehand.

A recording holds `data` (rows x columns x 168 frames x E epochs), `scoringindex_file` (E codes) and
`xform_mask` (rows x columns); HDF5 stores every array with its axes reversed.
Source: specification section 4.2.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from common.files import InputError
from inputs.states import ARTIFACT_CODE, FRAMES_PER_EPOCH, RAW_TO_LABEL

log = logging.getLogger(__name__)
NAME = re.compile(r"(?P<date>\d+)-(?P<mouse>[A-Za-z]+\d+)-fc(?P<run>\d+)")
SIZES = (128, 64, 32, 16)  # pixels per side; the published recordings have 128
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, order=True)
class Name:
    """Date code, mouse tag and run number in the name of a recording; sorts by date, mouse, run."""

    date: str
    mouse: str
    run: int


def parse_name(path: Path | str) -> Name | None:
    """Return the parts of `200128-L2-fc7-GSR_Ben.mat`, or None when the name has another form."""
    found = NAME.match(Path(path).name)
    return Name(found["date"], found["mouse"], int(found["run"])) if found else None


def find_recordings(
    folder: Path, *, mice: Sequence[str] = (), pattern: str = "*.mat"
) -> list[Path]:
    """List the recordings below ``folder``, ordered by date, mouse and run number.

    Args:
        folder: searched recursively.
        mice: date codes to keep (exact match); all when empty.
        pattern: file name pattern that narrows the search.

    Raises:
        InputError: no such folder, or no file in it with a usable name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder with recordings (.mat)")
    named = []
    for path in sorted(folder.rglob(pattern)):
        name = parse_name(path)
        if name is None:
            log.warning("%s: skipped, its name is not <date>-<mouse>-fc<n>...", path)
        elif not mice or name.date in mice:
            named.append((name, path))
    if not named:
        wanted = f" of the mice {', '.join(mice)}" if mice else ""
        raise InputError(
            f"{folder}: no recording{wanted} matches {pattern} with a name like "
            "200128-L2-fc7-GSR_Ben.mat"
        )
    return [path for _, path in sorted(named)]


def size_faults(sizes: dict[Path, tuple[int, int]]) -> list[str]:
    """Return one fault per recording whose frame differs from that of most recordings.

    Args:
        sizes: recording -> (rows, columns).
    """
    if not sizes:
        return []
    usual = Counter(sizes.values()).most_common(1)[0][0]
    return [
        f"{path}: frames are {size[0]} x {size[1]} pixels, those of most recordings here "
        f"{usual[0]} x {usual[1]}: keep one folder per frame size"
        for path, size in sizes.items()
        if size != usual
    ]


class Recording:
    """One recording, opened for epoch-wise reading; use it in a ``with`` block.

    Attributes:
        path, name: the file and the parts of its name (None for a name of another form).
        shape: (E, H, W) epochs, rows (0 is anterior), columns.
        mask: (H, W) bool brain mask.
        raw_labels: (E,) int raw codes, or None when the file holds no scores.
    """

    def __init__(self, path: Path | str, *, mask_file: Path | str | None = None):
        self.path = Path(path)
        self.name = parse_name(self.path)
        self._file = None
        try:
            if self._is_hdf5():
                self._file = h5py.File(self.path, "r")
                self._variables = self._file
            else:
                loaded = scipy.io.loadmat(self.path)
                # loadmat keeps MATLAB's axis order: reversed here, so that both readers agree.
                self._variables = {k: v.T for k, v in loaded.items() if not k.startswith("__")}
            self._read_header(mask_file)
        except InputError:
            self.close()
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except Exception as error:  # damaged bytes make h5py and scipy raise almost any kind
            self.close()
            raise InputError(
                f"{self.path}: cannot be read as a MATLAB file ({error}); it may be truncated: "
                "copy it again"
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _is_hdf5(self) -> bool:
        with open(self.path, "rb") as handle:
            start = handle.read(1024)
        return start[:8] == HDF5_SIGNATURE or start[512:520] == HDF5_SIGNATURE

    def _variable(self, key: str):
        if key not in self._variables:
            held = ", ".join(k for k in self._variables if not k.startswith("#")) or "nothing"
            raise InputError(f"{self.path}: variable {key} is missing; the file holds {held}")
        return self._variables[key]

    def _read_header(self, mask_file) -> None:
        self._data = self._variable("data")
        shape = tuple(self._data.shape)
        if len(shape) == 3:
            shape = (1, *shape)  # MATLAB drops the last axis of a single epoch
        good = len(shape) == 4 and shape[1] == FRAMES_PER_EPOCH and shape[2] == shape[3] in SIZES
        if not good or shape[0] < 1:
            found = " x ".join(str(n) for n in reversed(self._data.shape))
            raise InputError(
                f"{self.path}: data is {found}; expected 128 x 128 x {FRAMES_PER_EPOCH} x epochs "
                f"(or a square frame of {', '.join(map(str, SIZES[1:]))} pixels)"
            )
        if self._data.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: data has type {self._data.dtype}; expected numbers")
        self.shape = (shape[0], shape[3], shape[2])
        self.mask = self._read_mask(mask_file)
        self.raw_labels = None
        if "scoringindex_file" in self._variables:
            codes = np.asarray(self._variables["scoringindex_file"]).ravel()
            if codes.size != self.shape[0]:
                raise InputError(
                    f"{self.path}: scoringindex_file has {codes.size} labels, data has "
                    f"{self.shape[0]} epochs; expected one label per epoch"
                )
            if codes.dtype.kind not in "fiub" or not np.isfinite(codes).all() or (codes % 1).any():
                raise InputError(
                    f"{self.path}: scoringindex_file holds values that are no whole numbers"
                )
            self.raw_labels = codes.astype(int)
        # Positions of the masked pixels, in row-major order, within a stored frame (column, row).
        rows, columns = np.nonzero(self.mask)
        self._stored = columns * self.shape[1] + rows

    def _read_mask(self, mask_file) -> np.ndarray:
        if "xform_mask" in self._variables:
            mask, source = np.asarray(self._variables["xform_mask"]).T, self.path
        elif mask_file is not None:
            mask, source = read_mask(mask_file), mask_file
        else:
            raise InputError(
                f"{self.path}: variable xform_mask is missing; give a mask with --mask FILE"
            )
        if mask.shape != self.shape[1:]:
            raise InputError(f"{source}: the mask is {mask.shape}, the frames are {self.shape[1:]}")
        with np.errstate(invalid="ignore"):
            mask = mask > 0
        if not mask.any():
            raise InputError(
                f"{source}: the brain mask is empty; expected values above 0 inside the brain"
            )
        return mask

    @property
    def is_artifact(self) -> np.ndarray:
        """(E,) bool: epochs scored as artifact; none when the file holds no scores."""
        if self.raw_labels is None:
            return np.zeros(self.shape[0], bool)
        return self.raw_labels == ARTIFACT_CODE

    def read(self, epoch: int) -> np.ndarray:
        """Read the masked pixels of one epoch: (168, P) float32, pixels in row-major order."""
        try:
            frames = self._data[epoch] if len(self._data.shape) == 4 else self._data[()]
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.path}: epoch {epoch} cannot be read ({error}); copy the file again"
            ) from error
        flat = np.asarray(frames, np.float32).reshape(FRAMES_PER_EPOCH, -1)
        return np.take(flat, self._stored, axis=1)


def read_mask(path: Path | str) -> np.ndarray:
    """Read a brain mask (H, W) from a .mat file that holds `xform_mask` or `parcelisbrain`."""
    try:
        try:
            with h5py.File(path, "r") as file:
                held = {
                    key: file[key][()].T for key in ("xform_mask", "parcelisbrain") if key in file
                }
        except OSError:
            held = scipy.io.loadmat(path)
    except Exception as error:  # see Recording
        raise InputError(f"{path}: cannot be read as a mask file ({error})") from error
    for key in ("xform_mask", "parcelisbrain"):
        if key in held:
            return np.asarray(held[key])
    raise InputError(f"{path}: holds neither xform_mask nor parcelisbrain")


def map_labels(recording: Recording, *, unknown: str = "error") -> np.ndarray:
    """Map raw codes to labels.

    Args:
        recording: an open recording with scores.
        unknown: what to do with a code other than 0, 1, 2, 3: error, or drop the epoch.

    Returns:
        (E,) int: 0 wake, 1 NREM, 2 REM, -1 for an epoch that is left out.
    """
    codes = recording.raw_labels
    if codes is None:
        raise InputError(
            f"{recording.path}: variable scoringindex_file is missing; use --mode predict without "
            "labels"
        )
    strange = ~np.isin(codes, [*RAW_TO_LABEL, ARTIFACT_CODE])
    if strange.any() and unknown == "error":
        epoch = int(np.flatnonzero(strange)[0])
        raise InputError(
            f"{recording.path}: epoch {epoch} has the unknown code {codes[epoch]}; expected 0, 1, "
            "2 or 3 (--unknown drop leaves such epochs out)"
        )
    labels = np.full(codes.size, -1)
    for code, label in RAW_TO_LABEL.items():
        labels[codes == code] = label
    return labels
