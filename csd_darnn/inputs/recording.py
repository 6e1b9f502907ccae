"""A recording: a matrix (frames, series) with names and places of its columns (section 5.2)."""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import InputError
from inputs.scales import NO_SCALES, Scales

OUTSIDE = -1  # `pixels` of a target column that lies outside the split it was appended to


@dataclass(frozen=True)
class Recording:
    """A recording in memory.

    Attributes:
        values: (F, K) float32, or float64 for CSV and types that float32 does not hold exactly.
        columns: K labels as the user names them.
        shape: (H, W) of the image, None for a table or a bare CSV without known shape.
        pixels: (K,) int64, 0-based pixel (row * W + column) of each column, OUTSIDE for a target
            appended to a split; None for a table.
        kind: "movie", "pixels", "split" or "table".
        source: file.
        legacy: True for a CSV of the published project (section 4.3).
        target_label: the label that "target" stands for.
        split: entry of splits.json with the keys of the whole movie added, or None.
        scales: clock, sizes, mask and bad frames, each with its origin.
        sha256: digest of the file, or of all files it was read from, "" where it was not taken.
    """

    values: np.ndarray
    columns: list[str]
    shape: tuple[int, int] | None
    pixels: np.ndarray | None
    kind: str
    source: Path
    legacy: bool = False
    target_label: str = ""
    split: dict | None = None
    scales: Scales = NO_SCALES
    sha256: str = ""

    def words(self) -> str:
        """Return in one line what the recording holds and what its numbers mean."""
        n_frames, count = self.values.shape
        size = f"{self.shape[0]} x {self.shape[1]} pixels" if self.shape else f"{count} series"
        known = self.scales.words(image=self.shape is not None)
        return f"{self.source.name}: {n_frames} frames of {size}; {known}"

    def movie(self) -> np.ndarray:
        """Return the image pixels as (F, H, W); an appended target column is left out."""
        if self.shape is None:
            raise InputError(f"{self.source}: no image shape is known; give --shape H,W")
        height, width = self.shape
        return self.values[:, : height * width].reshape(-1, height, width)


def resolve_targets(
    recording: Recording,
    targ_cols: Sequence = ("target",),
    target_rc: tuple[int, int] | list[tuple[int, int]] | None = None,
) -> list[int]:
    """Return the column positions of the targets in FILE order.

    Args:
        recording: the loaded recording.
        targ_cols: labels, text or integers; "target" and "last" are aliases.
        target_rc: (row, column), 0-based, or a list of such pairs; used instead of ``targ_cols``.

    Source: section 5.2; an unknown label names the nearest ones and the range.
    """
    if target_rc is not None:
        pairs = [target_rc] if np.ndim(target_rc) == 1 else list(target_rc)
        targets = {pixel_column(recording, int(row), int(col)) for row, col in pairs}
    else:
        targets = {label_column(recording, str(label).strip()) for label in targ_cols}
    if not targets:
        raise InputError(f"{recording.source}: no target is given, expected at least one label")
    if len(targets) == len(recording.columns):
        raise InputError(
            f"{recording.source}: all {len(targets)} columns are targets, expected at least one "
            "driving series; name fewer targets"
        )
    return sorted(targets)


def pixel_column(recording: Recording, row: int, col: int) -> int:
    """Return the column that holds image pixel (row, col)."""
    if recording.shape is None:
        raise InputError(
            f"{recording.source}: a target by row,col needs the image shape; give --shape H,W or "
            "a column label"
        )
    height, width = recording.shape
    if not (0 <= row < height and 0 <= col < width):
        raise InputError(
            f"{recording.source}: target row {row}, column {col} lies outside the image, expected "
            f"rows 0..{height - 1} and columns 0..{width - 1}"
        )
    return row * width + col


def label_column(recording: Recording, label: str) -> int:
    """Return the position of a label; "target" and "last" are aliases."""
    columns = recording.columns
    if label == "last" and label not in columns:
        return len(columns) - 1
    if label == "target" and label not in columns:
        label = recording.target_label
    if label not in columns:
        near = difflib.get_close_matches(label, columns, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}; " if near else ""
        raise InputError(
            f"{recording.source}: no column {label}, {hint}labels run from {columns[0]} to "
            f"{columns[-1]} ({len(columns)} columns); choose one of them"
        )
    position = columns.index(label)
    if recording.legacy:
        place = f"0-based pixel {position}"
        if recording.shape is not None:
            row, col = divmod(position, recording.shape[1])
            place += f" = row {row}, column {col}"
        print(
            f"warning: {recording.source}: file of the published project, label {label} means "
            f"{place}; --legacy_labels chooses the other reading",
            file=sys.stderr,
        )
    return position


def find_duplicate_series(values: np.ndarray, target_columns: list[int]) -> list[tuple[int, int]]:
    """Return pairs (driving column, target column) whose series are identical."""
    targets = set(target_columns)
    pairs = []
    for target in target_columns:
        same = np.flatnonzero((values == values[:, [target]]).all(axis=0))
        pairs += [(int(column), target) for column in same if column not in targets]
    return pairs
