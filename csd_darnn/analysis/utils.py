"""Figures with their numbers beside them: what the published utils.py drew with."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from common.figures import save_figure, show_figure


def save_or_show_plot(
    figure: Figure, path: Path, columns: Mapping, *, save: bool = True
) -> Path | None:
    """Save a figure as PNG and its numbers as CSV beside it; return the path of the PNG.

    Args:
        columns: column name -> values; shorter columns are filled with empty cells.
        save: False shows the figure in a window instead, as the published option does.
    """
    if not save:
        show_figure(figure)
        return None
    return save_figure(figure, path, columns)
