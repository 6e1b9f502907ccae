"""Animations of recordings: the stimulus movies above the growing traces. Source: 8.1."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.animations import animate_grid, animate_row
from common.files import InputError
from common.tables import write_rows
from inputs.ca_dataloader import CalciumDataset, Layout
from inputs.display import Display
from inputs.recordings import commonest_grey, read_movies, read_recordings, say_clocks


def load_dataset(
    ca_path: Path, mov_path: Path, rate_hz: float | None = None, *, nan: str = "reject"
) -> CalciumDataset:
    """Return the data set as it was recorded, without padding, and its ``display``.

    Args:
        ca_path, mov_path: folders in the published format.
        rate_hz: from a flag; None takes the rate of the movies' time axes.
        nan: reject or drop_trial.
    """
    recordings = read_recordings(ca_path, nan=nan)
    movies = read_movies(mov_path, rate_hz=rate_hz)
    say_clocks(recordings, movies.rate_hz)
    display = Display(
        movies.rate_hz,
        1.0,
        commonest_grey(movies),
        tuple(next(iter(movies.values())).shape[1:]),
        origin={
            "rate_hz": "flag --rate" if rate_hz else "file: t_axis of the movies",
            "deg_per_px": "not in the files, as published",
            "background": "file: most corner pixels",
            "field": "file: movies",
        },
    )
    return CalciumDataset(recordings, movies, Layout.of_display(display), display=display)


def panels_of(dataset: CalciumDataset, barcodes: Sequence[int], who: str | int) -> list[dict]:
    """Return one panel per barcode: title, movie, seconds from movie start, traces of its items.

    Args:
        dataset: CalciumDataset without pre-pad, with its display.
        barcodes: stimuli; one that is missing leaves an empty panel.
        who: cell type or UID.
    """
    panels = []
    for barcode in barcodes:
        rows = dataset.rows_of(who, barcode)
        panel = {"title": str(barcode), "movie": [], "seconds": [], "traces": [], "uids": []}
        if rows:
            items = [dataset.items[row] for row in rows]
            start = dataset.onset(items[0])
            panel["movie"] = dataset.movie(items[0])[start:, 0].numpy()
            panel["traces"] = [dataset.trace(item)[start:].numpy() for item in items]
            panel["seconds"] = np.arange(len(panel["movie"])) / dataset.display.rate_hz
            panel["uids"] = [item.uid for item in items]
        panels.append(panel)
    if not any(len(panel["movie"]) for panel in panels):
        raise InputError(f"{who}: none of the stimuli {', '.join(map(str, barcodes))} was recorded")
    return panels


def write_panel_table(path: Path, panels: list[dict]) -> None:
    """Write the drawn traces: seconds, stimulus, neuron, dF/F."""
    write_rows(
        path,
        [
            {
                "stimulus": panel["title"],
                "uid": uid,
                "seconds": f"{second:.5f}",
                "dff": f"{value:.5f}",
            }
            for panel in panels
            for uid, trace in zip(panel["uids"], panel["traces"], strict=True)
            for second, value in zip(panel["seconds"], trace, strict=True)
        ],
    )


def draw_neuron(
    dataset: CalciumDataset,
    uid: int,
    barcodes: Sequence[int],
    out: Path,
    *,
    shape: tuple[int, int],
    step: int,
    suffix: str,
) -> Path:
    """Animate a grid of stimuli of one neuron and write its traces; return the animation."""
    known = {item.uid for item in dataset.items}
    if uid not in known:
        raise InputError(f"--uid {uid}: not recorded; known are {', '.join(map(str, known))}")
    panels = panels_of(dataset, barcodes[: shape[0] * shape[1]], uid)
    write_panel_table(out / f"{uid}_rf.csv", panels)
    return animate_grid(out / f"{uid}_rf{suffix}", panels, shape=shape, step=step)


def draw_types(
    dataset: CalciumDataset,
    kinds: Sequence[str],
    barcodes: Sequence[int],
    out: Path,
    *,
    step: int,
    suffix: str,
) -> list[Path]:
    """Animate a row of stimuli of each cell type and write the traces; return the animations."""
    unknown = [kind for kind in kinds if kind not in dataset.cell_types]
    if unknown:
        raise InputError(
            f"--cell-type {unknown[0]}: not recorded; known are {', '.join(dataset.cell_types)}"
        )
    paths = []
    for kind in kinds:
        panels = panels_of(dataset, barcodes, kind)
        write_panel_table(out / f"{kind}_looming.csv", panels)
        paths.append(animate_row(out / f"{kind}_looming{suffix}", panels, step=step))
    return paths
