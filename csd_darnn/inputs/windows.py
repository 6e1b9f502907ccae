"""Which rows of a recording form a window, for training, testing and drawing (section 5.6).

A window starts at row s: the history of the targets is rows s .. s+T-2, the target row is
s+T-2+horizon. The driving series cover the same rows as the history, or, with ``current_x``, the
T rows that end at the target row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inputs.custom_types import TrainConfig, TrainData


@dataclass(frozen=True)
class WindowRule:
    """The window parameter T and the two options of section 5.6."""

    T: int
    horizon: int = 2  # Faithful: the published network skips the row after its last input
    current_x: bool = False

    @property
    def steps(self) -> int:
        """Return S, the number of rows of the driving series."""
        return self.T if self.current_x else self.T - 1

    @property
    def reach(self) -> int:
        """Return the distance in rows from the start of a window to its target row."""
        return self.T - 2 + self.horizon

    @property
    def x_offset(self) -> int:
        """Return the distance in rows from the start of a window to its first driving row."""
        return self.horizon - 1 if self.current_x else 0

    def train_count(self, train_size: int) -> int:
        """Return the number of windows whose target row lies in the training part."""
        return max(0, train_size - self.reach)

    def starts(self, first_target: int, stop_target: int) -> np.ndarray:
        """Return the starts (int64) of the windows whose targets are rows first .. stop-1."""
        return np.arange(first_target, stop_target) - self.reach

    def train_starts(self, train_size: int) -> np.ndarray:
        """Return the starts of all training windows: 0 .. train_count-1."""
        return np.arange(self.train_count(train_size))

    def test_starts(self, n_rows: int, train_size: int) -> np.ndarray:
        """Return the starts of the windows that predict rows train_size .. n_rows-1."""
        return self.starts(train_size, n_rows)

    def on_train_starts(self, train_size: int) -> np.ndarray:
        """Return the starts of the training predictions that are drawn.

        Faithful: one more than the training windows; the last one predicts the first test row.
        """
        return np.arange(self.train_count(train_size) + 1)

    def x_rows(self, starts: np.ndarray) -> np.ndarray:
        """Return the rows (B, S) of the driving series of windows ``starts`` (B,)."""
        return np.asarray(starts)[:, None] + self.x_offset + np.arange(self.steps)

    def history_rows(self, starts: np.ndarray) -> np.ndarray:
        """Return the rows (B, T-1) of the targets' history of windows ``starts`` (B,)."""
        return np.asarray(starts)[:, None] + np.arange(self.T - 1)

    def target_rows(self, starts: np.ndarray) -> np.ndarray:
        """Return the target rows (B,) of windows ``starts`` (B,)."""
        return np.asarray(starts) + self.reach


def gather(values: Any, rows: np.ndarray) -> Any:
    """Return ``values[rows]``, (B, S, K), of an array or tensor (n, K) in one indexing step."""
    if isinstance(values, np.ndarray):
        return values[rows]
    return values[torch.from_numpy(np.ascontiguousarray(rows))]


class SeriesWindows:
    """Driving series of windows (n, S, N), gathered from the recording when they are asked for.

    ``windows[part]`` and ``windows[:, :, series]`` give what they give on the whole tensor, which
    takes S times the room of the frames that the windows start at.

    Args:
        values: (rows, N) tensor.
        rows: (n, S) rows of every window.
    """

    def __init__(self, values: torch.Tensor, rows: np.ndarray):
        self.values = values
        self.rows = torch.from_numpy(np.ascontiguousarray(rows)).to(values.device)
        self.shape = (*self.rows.shape, values.shape[1])
        self.device = values.device

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key) -> torch.Tensor:
        key = key if isinstance(key, tuple) else (key,)
        series = self.values if len(key) < 3 else self.values[:, key[2]]
        return series[self.rows[key[:2]]]


def prep_train_data(
    batch_idx: np.ndarray, t_cfg: TrainConfig, train_data: TrainData, rule: WindowRule | None = None
) -> tuple[Any, Any, Any]:
    """Return the driving series, history and targets of the training windows ``batch_idx``.

    Args:
        batch_idx: starts (B,) of the windows.
        t_cfg: TrainConfig; its T gives the window.
        train_data: TrainData, feats (n, N), targs (n, o).
        rule: WindowRule when it is not the published one.

    Returns:
        feats (B, S, N), y_history (B, T-1, o), y_target (B, o).
    """
    rule = rule or WindowRule(t_cfg.T)
    return (
        gather(train_data.feats, rule.x_rows(batch_idx)),
        gather(train_data.targs, rule.history_rows(batch_idx)),
        gather(train_data.targs, rule.target_rows(batch_idx)),
    )
