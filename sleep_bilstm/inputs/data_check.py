"""What a recording holds and what is wrong with it (check_data.py)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError
from inputs.preprocess import still_text, unchanged
from inputs.recordings import Recording, find_recordings, map_labels, size_faults
from inputs.scores import doubt_lines
from inputs.states import ARTIFACT_CODE, STATE_NAMES, UNSCORED


def check_recording(
    path: Path, *, mask_file: Path | None, signals: bool, codes: str = "", unknown: str = "error"
) -> tuple[dict, np.ndarray | None]:
    """Return one row: epochs, frame, pixels in the mask, counts per state, NaN and infinite values;
    and the codes (E,) of the laboratory, None without scores.

    Args:
        path: recording.
        mask_file: mask for recordings without one.
        signals: read every epoch and count missing values; otherwise only the header is read.
        codes: meaning of the scores, see Recording.
        unknown: what to do with an unknown code, see map_labels.
    """
    with Recording(path, mask_file=mask_file, codes=codes) as recording:
        n, height, width = recording.shape
        row = {
            "file": path.name,
            "date": recording.name.date,
            "tag": recording.name.mouse,
            "run": recording.name.run,
            "epochs": n,
        }
        row.update(rows=height, columns=width, mask_pixels=int(recording.mask.sum()))
        if recording.raw_labels is not None:
            labels = map_labels(recording, unknown=unknown)
            row.update(
                {name: int((labels == state).sum()) for state, name in enumerate(STATE_NAMES[3])}
            )
            row["artifacts"] = int((recording.raw_labels == ARTIFACT_CODE).sum())
            row["not_scored"] = int((recording.raw_labels == UNSCORED).sum())
        if signals:
            missing, infinite, still = np.zeros(n), 0, np.arange(int(recording.mask.sum()))
            for epoch in range(n):
                values = recording.read(epoch)
                missing[epoch] = np.isnan(values).mean()
                infinite += int(np.isinf(values).sum())
                still = unchanged(values, still)
            row["nan_percent"] = round(100 * missing.mean(), 3)
            row["epochs_mostly_nan"] = int((missing > 0.5).sum())
            row["infinite_values"] = infinite
            row["pixels_never_changing"] = still.size
    return row, recording.raw_labels


def check_folder(
    data_path: Path,
    *,
    mice: Sequence[str] = (),
    pattern: str = "*.mat",
    mask_file: Path | None = None,
    signals: bool = True,
    codes: str = "",
    unknown: str = "error",
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return one row per usable recording below ``data_path``, the faults of all others, and one
    warning per animal whose scores, and per recording whose mask, raise doubts.
    """
    rows, faults, sizes, scores, masks = [], [], {}, {}, []
    for path in find_recordings(data_path, mice=mice, pattern=pattern):
        try:
            row, own = check_recording(
                path, mask_file=mask_file, signals=signals, codes=codes, unknown=unknown
            )
        except InputError as error:
            faults.append(str(error))
            continue
        rows.append(row)
        sizes[path] = row["rows"], row["columns"]
        if text := still_text(row.get("pixels_never_changing", 0), row["mask_pixels"]):
            masks.append(f"warning: {path}: {text}")
        if own is not None:
            scores.setdefault(f"{row['date']}-{row['tag']}", []).append(own)
    return pd.DataFrame(rows), faults + size_faults(sizes), doubt_lines(scores, codes) + masks
