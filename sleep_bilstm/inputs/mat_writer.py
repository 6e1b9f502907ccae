"""Write MATLAB files: recordings as version 7.3 (HDF5) and results as version 5."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io

from common.files import atomic_path

USER_BLOCK = 512  # bytes before the HDF5 part, where MATLAB looks for its own header
MATLAB_CLASS = {"f4": b"single", "f8": b"double", "u1": b"uint8", "i4": b"int32"}


def _matlab_header() -> bytes:
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, written by sleep_bilstm HDF5 schema 1.00 ."
    return text.ljust(116) + bytes(8) + b"\x00\x02IM"


def write_recording(
    path: Path | str, data: np.ndarray, mask: np.ndarray, raw_labels: np.ndarray | None
) -> None:
    """Write one recording in the published form (MATLAB v7.3).

    Args:
        path: file to write, atomically.
        data: (E, 168, H, W) float32 frames.
        mask: (H, W) bool brain mask.
        raw_labels: (E,) codes 0 wake, 1 NREM, 2 artifact, 3 REM; None leaves the scores out.
    """
    # HDF5 stores MATLAB arrays with the axes reversed: rows x columns x frames x epochs.
    variables = {"data": np.swapaxes(data, 2, 3), "xform_mask": mask.T.astype(np.float64)}
    if raw_labels is not None:
        variables["scoringindex_file"] = np.asarray(raw_labels, np.float64)[None]
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=USER_BLOCK) as file:
            for key, value in variables.items():
                dataset = file.create_dataset(key, data=value)
                dataset.attrs["MATLAB_class"] = np.bytes_(MATLAB_CLASS[value.dtype.str[1:]])
        with open(temporary, "r+b") as handle:
            handle.write(_matlab_header())


def save_mat(path: Path | str, variables: dict[str, np.ndarray]) -> None:
    """Write ``variables`` to a MATLAB version 5 file, atomically."""
    with atomic_path(path) as temporary:
        scipy.io.savemat(temporary, variables, do_compression=True)
