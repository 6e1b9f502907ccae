"""The look that all figures of the folder share, and saving them with their numbers."""

from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from files import atomic_path

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#777777"  # Okabe-Ito
SCREEN_DPI = 120
PRINT_DPI = 200


def new_figure(width: float = 7.0, height: float = 4.0, rows: int = 1, columns: int = 1, **grid):
    """Return (figure, axes), sizes in inches, without top and right spines and without a window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, **grid)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(
    figure,
    path: Path,
    table: pd.DataFrame | None = None,
    *,
    dpi: int = SCREEN_DPI,
    pdf: bool = False,
):
    """Write the figure as PNG (and PDF) and its numbers as CSV; return the path of the PNG."""
    path = Path(path)
    for suffix in (".png", *((".pdf",) if pdf else ())):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=dpi)
        figure.set_layout_engine("none")  # the second file keeps the places found for the first
    if table is not None:
        with atomic_path(path.with_suffix(".csv")) as temporary:
            table.to_csv(temporary, index=False)
    figure.clear()
    return path.with_suffix(".png")


def show(path: Path) -> None:
    """Open a saved picture with the viewer of the system."""
    import matplotlib.image
    import matplotlib.pyplot as plt

    plt.imshow(matplotlib.image.imread(path))
    plt.axis("off")
    plt.show()
