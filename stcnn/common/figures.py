"""The look that all figures share, and saving them with the numbers behind them.

Figures are made without pyplot: no window system is touched and no figure stays open in a list.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common.files import atomic_path
from common.tables import safe_frame, write_columns, write_table

BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"  # Okabe-Ito
PURPLE, RED, GREY = "#CC79A7", "#D55E00", "#777777"  # the last one is ours
SCREEN_DPI = 120
PRINT_DPI = 200


def new_figure(
    width: float = 7.0, height: float = 4.0, rows: int = 1, columns: int = 1, **grid: Any
) -> tuple[Figure, Any]:
    """Return (figure, axes), sizes in inches, without top and right spines."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **grid)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(
    figure: Figure,
    path: str | os.PathLike,
    table: Any = None,
    *,
    dpi: int = SCREEN_DPI,
    pdf: bool = False,
    tight: bool = False,
) -> Path:
    """Write the figure as PNG (and PDF) and its numbers as CSV beside it; return the PNG's path.

    Args:
        figure: cleared afterwards, so that its arrays are freed.
        path: its suffix is replaced.
        table: the numbers behind the figure: {column: values}, (header, rows), anything with the
            ``to_csv`` of pandas, or None when the CSV is written elsewhere.
        dpi: dots per inch of the PNG.
        pdf: write a PDF too.
        tight: cut the margins.
    """
    path = Path(path)
    box = {"bbox_inches": "tight"} if tight else {}
    for suffix in (".png", *((".pdf",) if pdf else ())):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=dpi, **box)
        figure.set_layout_engine("none")  # the second file keeps the places found for the first
    figure.clear()
    numbers = path.with_suffix(".csv")
    if hasattr(table, "to_csv"):
        with atomic_path(numbers) as temporary:
            safe_frame(table).to_csv(temporary, index=False)
    elif isinstance(table, Mapping):
        write_columns(numbers, table)
    elif table is not None:
        write_table(numbers, *table)
    return path.with_suffix(".png")


def show_picture(path: str | os.PathLike) -> None:
    """Show a saved picture in a window and wait until it is closed."""
    # pyplot opens the window system, which a run that only saves must not touch.
    import matplotlib.image
    import matplotlib.pyplot as plt

    plt.imshow(matplotlib.image.imread(path))
    plt.axis("off")
    plt.show()


def show_figure(figure: Figure) -> None:
    """Show a figure in a window and wait until it is closed."""
    # see show_picture
    import matplotlib.pyplot as plt

    manager = plt.figure().canvas.manager
    manager.canvas.figure = figure
    figure.set_canvas(manager.canvas)
    plt.show()
