"""Read wide-field recordings (.mat, version 7.3 and 5) one epoch at a time, and check them
beforehand.

A recording holds `data` (rows x columns x 168 frames x E epochs), `scoringindex_file` (E codes) and
`xform_mask` (rows x columns); HDF5 stores every array with its axes reversed.
Source: specification section 4.2.
"""

import logging
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from scipy import sparse

from common.files import InputError
from common.limits import check_shape
from inputs.frames import EpochReader
from inputs.names import Name, find_recordings, parse_name, size_faults
from inputs.scores import parse_codes, read_scores
from inputs.states import (
    ARTIFACT_CODE,
    EPOCH_S,
    FRAMES_PER_EPOCH,
    RAW_TO_LABEL,
    UNKNOWN_CODE,
    UNSCORED,
)

__all__ = ["Name", "Recording", "find_recordings", "map_labels", "parse_name", "size_faults"]
log = logging.getLogger(__name__)
RATES = ("framerate", "samplingrate", "samplerate", "fs", "fps")  # names without _
RATE_TOLERANCE = 0.01  # the camera of the laboratory ran at 16.8067 Hz
SIZES = (128, 64, 32, 16)  # pixels per side; the published recordings have 128
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MASK_KEYS = ("xform_mask", "parcelisbrain", "xform_isbrain")  # in the order of preference


def plain_array(variable: h5py.Dataset | h5py.Group | np.ndarray | sparse.spmatrix) -> np.ndarray:
    """Return a MATLAB variable as a dense array, axes reversed; sparse matrices are filled up.

    Args:
        variable: HDF5 dataset, HDF5 group of a sparse matrix, or array of a version 5 file.
    """
    if sparse.issparse(variable):
        return variable.toarray()
    if isinstance(variable, h5py.Dataset):
        check_shape(variable.shape, variable.dtype.itemsize, f"variable {variable.name}")
    if isinstance(variable, h5py.Group):
        if "MATLAB_sparse" not in variable.attrs:
            raise ValueError("a MATLAB structure where numbers are expected")
        columns = variable["jc"][()].astype(int)
        rows, size = int(variable.attrs["MATLAB_sparse"]), columns.size - 1
        check_shape((rows, size), 8, f"variable {variable.name}")
        values, places = (
            variable[key][()] if key in variable else np.zeros(0) for key in ("data", "ir")
        )
        parts = values.astype(float), places.astype(int), columns
        return sparse.csc_array(parts, shape=(rows, size)).toarray().T
    return np.asarray(variable)


class Recording:
    """One recording, opened for epoch-wise reading; use it in a ``with`` block.

    Attributes:
        path, name: the file and the parts of its name (None for a name of another form).
        shape: (E, H, W) epochs, rows (0 is anterior), columns.
        mask: (H, W) bool brain mask.
        raw_labels: (E,) int codes of the laboratory (0 wake, 1 NREM, 2 artifact, 3 REM, -1 not
            scored, -9 unknown), or None when the file holds no scores or nobody asks for them.
        score_texts: the scores as the file holds them.

    Args:
        path: the file.
        mask_file: brain mask for a file that holds none.
        codes: what the scores mean, "1=REM,2=wake,3=NREM"; the laboratory's codes when empty.
        scores: read the scores at all.
        spool_dir: folder of temporary files, for files whose chunks hold many epochs.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        mask_file: Path | str | None = None,
        codes: str = "",
        scores: bool = True,
        spool_dir: Path | None = None,
    ):
        self.path = Path(path)
        self.name = parse_name(self.path)
        self._file = self._reader = None
        try:
            if begins_as_hdf5(self.path):
                self._file = h5py.File(self.path, "r")
                self._variables = self._file
            else:
                loaded = scipy.io.loadmat(self.path)
                # loadmat keeps MATLAB's axis order: reversed here, so that both readers agree.
                self._variables = {k: v.T for k, v in loaded.items() if not k.startswith("__")}
            self._read_header(mask_file)
            self.raw_labels, self.score_texts = None, []
            if scores and "scoringindex_file" in self._variables:
                self._read_scores(parse_codes(codes))
            self._reader = EpochReader(self._data, self.mask, spool_dir=spool_dir)
        except InputError:
            self.close()
            raise
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            self.close()
            why = {
                FileNotFoundError: "no such file",
                IsADirectoryError: "is a folder; expected one file (.mat)",
            }.get(type(error), "may not be read; change its permissions")
            raise InputError(f"{error.filename or self.path}: {why}") from None
        except Exception as error:  # damaged bytes make h5py and scipy raise almost any kind
            self.close()
            raise InputError(
                f"{self.path}: cannot be read as a MATLAB file ({error}): it is "
                "truncated, copy it again, or a file of another kind"
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
        if self._file is not None:
            self._file.close()

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
            shown = " x ".join(str(n) for n in reversed(self._data.shape))
            raise InputError(
                f"{self.path}: data is {shown}; expected 128 x 128 x {FRAMES_PER_EPOCH} x epochs "
                f"(or a square frame of {', '.join(map(str, SIZES[1:]))} pixels)"
            )
        if self._data.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: data has type {self._data.dtype}; expected numbers")
        self.shape = (shape[0], shape[3], shape[2])
        self._compare_rate()
        check_shape(shape[:1], 8, f"{self.path}: epochs")
        self.mask = self._read_mask(mask_file)

    def _compare_rate(self) -> None:
        """Warn of a rate in the file by which 168 frames are no epoch of 10 s."""
        for key in self._variables:
            held = self._variables[key]
            if key.lower().replace("_", "") not in RATES or not hasattr(held, "dtype"):
                continue
            if held.size != 1 or held.dtype.kind not in "iuf":
                continue
            rate = float(np.ravel(plain_array(held))[0])
            length_s = FRAMES_PER_EPOCH / rate if rate > 0 else np.nan
            if not abs(length_s / EPOCH_S - 1) <= RATE_TOLERANCE:
                log.warning(
                    "warning: %s: its %s is %g/s, by which %d frames are %.4g s: they are taken as "
                    "epochs of %g s, as everywhere here",
                    self.path,
                    key,
                    rate,
                    FRAMES_PER_EPOCH,
                    length_s,
                    EPOCH_S,
                )

    def _read_scores(self, codes: dict[str, int]) -> None:
        held = self._variables["scoringindex_file"]
        try:
            held = held if isinstance(held, h5py.Dataset) else plain_array(held)
            labels, texts = read_scores(held, self._file, codes, self.shape[0])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.path}: scoringindex_file holds neither numbers nor words ({error}); "
                "expected one code or word per epoch"
            ) from error
        if labels.size != self.shape[0]:
            raise InputError(
                f"{self.path}: scoringindex_file has {labels.size} labels, data has "
                f"{self.shape[0]} epochs; expected one label per epoch"
            )
        self.raw_labels, self.score_texts = labels, texts

    def _read_mask(self, mask_file) -> np.ndarray:
        if "xform_mask" in self._variables:
            mask, source = plain_array(self._variables["xform_mask"]).T, self.path
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
            return self._reader.read(epoch)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.path}: epoch {epoch} cannot be read ({error}); copy the file again"
            ) from error


def begins_as_hdf5(path: Path | str) -> bool:
    """Say whether a file begins as HDF5, with MATLAB 7.3's block of 512 bytes or without."""
    with open(path, "rb") as handle:
        start = handle.read(1024)
    return start[:8] == HDF5_SIGNATURE or start[512:520] == HDF5_SIGNATURE


def read_mask(path: Path | str) -> np.ndarray:
    """Read a brain mask (H, W) from a .mat file with a variable of MASK_KEYS."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected a mask file (.mat)")
    try:
        try:
            with h5py.File(path, "r") as file:
                names = list(file)
                held = {key: plain_array(file[key]).T for key in MASK_KEYS if key in file}
        except OSError:
            if begins_as_hdf5(path):
                raise
            loaded = scipy.io.loadmat(path)
            names = [key for key in loaded if not key.startswith("__")]
            held = {key: plain_array(loaded[key]) for key in MASK_KEYS if key in loaded}
    except Exception as error:  # see Recording
        raise InputError(
            f"{path}: cannot be read as a mask file ({error}): it is truncated, copy it again, or "
            "a file of another kind"
        ) from error
    if not held:
        found = ", ".join(name for name in names if not name.startswith("#")) or "nothing"
        raise InputError(f"{path}: holds {found}; expected one of {', '.join(MASK_KEYS)}")
    return next(iter(held.values()))


def map_labels(recording: Recording, *, unknown: str = "error") -> np.ndarray:
    """Map raw codes to labels.

    Args:
        recording: an open recording with scores.
        unknown: what to do with a code that nobody has explained: error, or drop the epoch. An
            epoch that is not scored (NaN, empty) is always left out.

    Returns:
        (E,) int: 0 wake, 1 NREM, 2 REM, -1 for an epoch that is left out.
    """
    codes = recording.raw_labels
    if codes is None:
        raise InputError(
            f"{recording.path}: variable scoringindex_file is missing; use --mode predict without "
            "labels"
        )
    strange = codes == UNKNOWN_CODE
    if strange.any() and unknown == "error":
        epoch = int(np.flatnonzero(strange)[0])
        raise InputError(
            f"{recording.path}: epoch {epoch} has the unknown code {recording.score_texts[epoch]}; "
            "expected 0, 1, 2 or 3, or words such as wake, NREM, REM and artifact; say what the "
            "codes mean with --codes (create_tfrecords.py --unknown drop leaves such epochs out)"
        )
    labels = np.full(codes.size, UNSCORED)
    for code, label in RAW_TO_LABEL.items():
        labels[codes == code] = label
    return labels
