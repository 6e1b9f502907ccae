"""What a recording holds and what is wrong with it (check_data.py)."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError
from inputs.recordings import Recording, find_recordings, map_labels, size_faults
from inputs.states import ARTIFACT_CODE, STATE_NAMES


def check_recording(path: Path, *, mask_file: Path | None, signals: bool) -> dict:
    """Return one row: epochs, frame, pixels in the mask, counts per state, NaN and infinite values.

    Args:
        path: recording.
        mask_file: mask for recordings without one.
        signals: read every epoch and count missing values; otherwise only the header is read.
    """
    with Recording(path, mask_file=mask_file) as recording:
        n, height, width = recording.shape
        row = {
            "file": path.name,
            "mouse": recording.name.date,
            "tag": recording.name.mouse,
            "run": recording.name.run,
            "epochs": n,
        }
        row.update(rows=height, columns=width, mask_pixels=int(recording.mask.sum()))
        if recording.raw_labels is not None:
            labels = map_labels(recording)
            row.update(
                {name: int((labels == state).sum()) for state, name in enumerate(STATE_NAMES[3])}
            )
            row["artifacts"] = int((recording.raw_labels == ARTIFACT_CODE).sum())
        if signals:
            values = [recording.read(epoch) for epoch in range(n)]
            missing = np.array([np.isnan(value).mean() for value in values])
            row["nan_percent"] = round(100 * missing.mean(), 3)
            row["epochs_mostly_nan"] = int((missing > 0.5).sum())
            row["infinite_values"] = int(sum(np.isinf(value).sum() for value in values))
    return row


def check_folder(
    data_path: Path, *, mice=(), pattern: str = "*.mat", mask_file: Path | None = None, signals=True
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per usable recording below ``data_path``, and the faults of all others."""
    rows, faults, sizes = [], [], {}
    for path in find_recordings(data_path, mice=mice, pattern=pattern):
        try:
            rows.append(check_recording(path, mask_file=mask_file, signals=signals))
            sizes[path] = rows[-1]["rows"], rows[-1]["columns"]
        except InputError as error:
            faults.append(str(error))
    return pd.DataFrame(rows), faults + size_faults(sizes)
