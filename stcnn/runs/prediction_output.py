"""Tables, figures and animations of predictions (predictions.py).

Writes, per family, <label>_<series>_<family>.png, <family>_traces.npz (series x stimuli x frames),
<family>_traces.csv, <family>_peaks.csv, <family>_indices.csv. Source: specification 8.3, 8.4.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from analysis.animations import animate_maps
from analysis.tuning import tuning_indices
from analysis.util_analysis import (
    Traces,
    plot_movie_traces,
    plot_peaks,
    plot_size_tuning,
    plot_trace_grid,
)
from common.files import atomic_path
from common.tables import safe_cell, write_rows
from inputs.safe_load import save_arrays
from runs.predictions import FamilyPrediction, MoviePrediction

AXIS_ONSET_S = 4.0  # the figures' axis has the onset at 4 s, as published
GRIDS = {"size_tuning": (7, 7), "rf_map": (7, 9)}
MOST_NAMED = 12  # stimuli of a family that one figure of peaks can name


def write_family(prediction: FamilyPrediction, out: Path) -> None:
    """Write the peaks, the tuning indices and the traces of a family."""
    shown = prediction.shown
    rows, table = [], []
    for series, peaks in prediction.peaks.items():
        sd, at = prediction.peak_sd(series), prediction.peak_frames[series]
        rows += [
            {
                "series": series,
                "barcode": stimulus.barcode,
                "stimulus": stimulus.label,
                "peak": float(peaks[i]),
                "peak_sd": "" if sd is None else float(sd[i]),
                "peak_time_s": float(prediction.seconds[at[i]]),
            }
            for i, stimulus in enumerate(shown.stimuli)
        ]
        table.append({"series": series, **tuning_indices(shown.family, shown.stimuli, peaks)})
    write_rows(out / f"{shown.family}_peaks.csv", rows)
    write_rows(out / f"{shown.family}_indices.csv", table)
    arrays = {
        "seconds": prediction.seconds,
        "barcode": np.array([s.barcode for s in shown.stimuli]),
    }
    columns = {"seconds": prediction.seconds}
    for series, mean in prediction.curves.items():
        arrays[series] = mean
        if series in prediction.spreads:
            arrays[f"{series}_sd"] = prediction.spreads[series]
        columns |= {
            f"{series}_vstim_{s.barcode}": row for s, row in zip(shown.stimuli, mean, strict=True)
        }
    save_arrays(out / f"{shown.family}_traces.npz", arrays)
    write_numbers(out / f"{shown.family}_traces.csv", columns)


def draw_family(prediction: FamilyPrediction, out: Path, label: str) -> None:
    """Draw the traces of every series, size maps, and the peaks of a short family."""
    shown, seconds = prediction.shown, prediction.seconds + AXIS_ONSET_S
    family, stimuli = shown.family, shown.stimuli
    for series, mean in prediction.curves.items():
        behind = None
        if shown.recorded is not None:
            kind = series.rpartition("_n")[0] or series
            behind = [_behind(shown.recorded.get(s.barcode, {}), series, kind) for s in stimuli]
        plot_trace_grid(
            out / f"{label}_{series}_{family}.png",
            Traces(seconds, mean, prediction.spreads.get(series), behind),
            [stimulus.label for stimulus in stimuli],
            shape=GRIDS.get(family) or _grid(len(stimuli)),
            onset_s=AXIS_ONSET_S,
        )
        if family == "size_tuning":
            plot_size_tuning(
                out / f"{label}_{series}_size_peaks.png",
                prediction.peaks[series].reshape(7, 7),
                [s.parameters["width_deg"] for s in stimuli[:7]],
                f"{series}: peak response to a dark rectangle",
            )
    if len(stimuli) <= MOST_NAMED:
        spread = {series: prediction.peak_sd(series) for series in prediction.peaks}
        plot_peaks(
            out / f"{label}_{family}_peaks.png",
            [stimulus.label for stimulus in stimuli],
            prediction.peaks,
            spread=spread if prediction.spreads else None,
            title=family,
        )


def write_movie(prediction: MoviePrediction, out: Path) -> None:
    """Write traces and peaks of a user's movie."""
    spreads = {f"{key}_sd": value for key, value in prediction.spreads.items()}
    columns = {"seconds": prediction.seconds, **prediction.curves, **spreads}
    save_arrays(out / f"{prediction.name}_traces.npz", columns)
    write_numbers(out / f"{prediction.name}_traces.csv", columns)
    write_rows(
        out / f"{prediction.name}_peaks.csv",
        [
            {
                "series": series,
                "peak": float(curve.max()),
                "peak_time_s": float(prediction.seconds[curve.argmax()]),
            }
            for series, curve in prediction.curves.items()
        ],
    )


def draw_movie(prediction: MoviePrediction, out: Path, label: str) -> None:
    """Draw stills of a user's movie above the predicted traces."""
    plot_movie_traces(
        out / f"{label}_{prediction.name}.png",
        [frame for _, frame in prediction.stills],
        [second for second, _ in prediction.stills],
        prediction.seconds,
        prediction.curves,
        prediction.title,
    )


def animate_layers(maps: Mapping[str, np.ndarray], name: str, rate_hz: float, out: Path) -> None:
    """Animate the channels of every layer in ``maps``, shown for the movie ``name``."""
    for layer, shown in maps.items():
        animate_maps(out / f"{name}_{layer}.mp4", shown, layer, rate_hz=rate_hz)


def write_numbers(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of numbers as CSV, six digits."""
    with atomic_path(path) as temporary:
        np.savetxt(
            temporary, np.column_stack(list(columns.values())), delimiter=",", fmt="%.6g",
            header=",".join(safe_cell(name) for name in columns), comments="",
        )  # fmt: skip


def _behind(recorded, series, kind):
    """Return (seconds on the figure's axis, (neurons, T)) recorded for a series."""
    seconds, traces = recorded.get(series, recorded.get(kind, (np.zeros(0), np.zeros((0, 0)))))
    return seconds + AXIS_ONSET_S, traces


def _grid(n):
    return (1, n) if n <= 9 else (-(-n // 8), 8)
