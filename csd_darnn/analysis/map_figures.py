"""Still pictures of maps: images side by side for pixels, bar charts for named series.

Source: specification, section 8.2; the control map is drawn beside the others.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.heatmap import BAR_LABELS, MAP_LABELS, scale_bar
from analysis.utils import save_or_show_plot
from common.figures import BLUE
from inputs.scales import NO_SCALES, Scales


def draw_stills(
    path: Path,
    images: dict[str, np.ndarray],
    *,
    target_pixels: Sequence[int] = (),
    notes: dict[str, str] | None = None,
    outline: np.ndarray | None = None,
    outline_label: str = "",
    scales: Scales = NO_SCALES,
) -> Path:
    """Draw maps (H, W) side by side, each with its own colour bar, and write their numbers as CSV.

    Args:
        path: PNG; the CSV lies beside it: pixel, row, column and one column a map.
        images: dict of name -> (H, W); names of MAP_LABELS get their label as title.
        target_pixels: 0-based pixels, drawn hatched: a target has no value of its own.
        notes: dict of name -> text under the title (agreement with the control, for example).
        outline: (H, W) bool drawn as a contour with ``outline_label`` (planted driver).
        scales: sizes of a pixel; those that are known add a bar in mm and the size of the field.
    """
    notes = notes or {}
    shape = next(iter(images.values())).shape
    height, width = shape
    n_columns = min(3, len(images))
    n_rows = -(-len(images) // n_columns)
    panel_h = 2.45 * min(1.4, max(0.6, height / width)) + 1.1
    figure = Figure(figsize=(4.1 * n_columns, panel_h * n_rows + 0.3))
    # Fixed margins: an automatic layout of twelve axes takes longer than the drawing.
    figure.subplots_adjust(
        left=0.55 / (4.1 * n_columns), right=1 - 0.35 / (4.1 * n_columns),
        bottom=0.75 / (panel_h * n_rows + 0.3), top=1 - 0.45 / (panel_h * n_rows + 0.3),
        wspace=0.2, hspace=0.7 / (panel_h - 0.7),
    )  # fmt: skip
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    hidden = np.zeros(height * width, bool)
    hidden[[pixel for pixel in target_pixels if pixel >= 0]] = True
    for position, (name, image) in enumerate(images.items()):
        axis = axes[position]
        shown = np.ma.masked_array(image, hidden.reshape(shape))
        diverging = name == "signed"
        bound = float(np.abs(shown).max()) if diverging else None
        drawn = axis.imshow(
            shown, cmap="coolwarm" if diverging else "viridis", interpolation="nearest",
            vmin=-bound if diverging else None, vmax=bound,
        )  # fmt: skip
        for row, column in np.argwhere(hidden.reshape(shape)):
            corner = (column - 0.5, row - 0.5)
            patch = Rectangle(corner, 1, 1, hatch="//////", facecolor="w", edgecolor="k", lw=0.5)
            axis.add_patch(patch)
        if outline is not None:
            for colour, thick in (("w", 3), ("k", 1)):
                axis.add_collection(LineCollection(edges(outline), colors=colour, lw=thick))
        title = MAP_LABELS.get(name, name)
        axis.set_title("\n".join(part for part in (title, notes.get(name)) if part), fontsize=9)
        if position >= len(images) - n_columns:
            axis.set_xlabel("column (pixel)")
        if position % n_columns == 0:
            axis.set_ylabel("row (pixel)")
        values = np.unique(shown.compressed()[~np.isnan(shown.compressed())])
        ticks = values if values.size == 1 else None  # one value: no made-up range around it
        bar = figure.colorbar(drawn, ax=axis, shrink=0.9, ticks=ticks)
        bar.outline.set_visible(False)
        bar.formatter.set_powerlimits((-2, 4))  # long numbers would reach into the next map
        if name in BAR_LABELS:
            bar.set_label(BAR_LABELS[name], fontsize=8)
    words = draw_size(axes[0], shape, scales)
    for axis in axes[len(images) :]:
        axis.axis("off")
    marks = ["hatched: target"] * bool(hidden.any()) + [f"outline: {outline_label}"] * bool(
        outline is not None
    )
    marks += [words] * bool(words)
    if marks:
        figure.supxlabel("; ".join(marks), fontsize=9)
    rows, columns = np.divmod(np.arange(height * width), width)
    table = {"pixel": np.arange(height * width), "row": rows, "column": columns}
    table |= {name: np.asarray(image).ravel() for name, image in images.items()}
    return save_or_show_plot(figure, Path(path), table)


def edges(mask: np.ndarray) -> np.ndarray:
    """Return the lines (n, 2, 2: ends, x and y) between pixels inside and outside ``mask`` (H, W).

    They run along the pixels: a contour would cut the corners of a small patch off.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    row, column = np.nonzero(
        padded[1:] ^ padded[:-1]
    )  # inside above, outside below, or the reverse
    level = np.stack([[column - 1.5, row - 0.5], [column - 0.5, row - 0.5]])
    row, column = np.nonzero(padded[:, 1:] ^ padded[:, :-1])
    upright = np.stack([[column - 0.5, row - 1.5], [column - 0.5, row - 0.5]])
    return np.concatenate([level, upright], -1).transpose(2, 0, 1)


def draw_size(axis: Axes, shape: tuple[int, int], scales: Scales) -> str:
    """Draw a scale bar into an image and return the size of the field in words, "" if unknown."""
    row_um, column_um = scales.row_um.value, scales.column_um.value
    if not column_um:
        return ""
    height, width = shape
    bar_um, bar_pixels = scale_bar(width, column_um)
    left, row = 0.03 * width, 0.93 * height - 0.5
    for colour, thick in (("w", 4), ("k", 2)):
        axis.plot([left, left + bar_pixels], [row, row], color=colour, linewidth=thick)
    high, wide = height * (row_um or column_um) / 1000, width * column_um / 1000
    return f"field {high:.3g} x {wide:.3g} mm, bar {bar_um / 1000:.3g} mm"


def draw_bars(
    path: Path,
    values: dict[str, np.ndarray],
    names: list[str],
    *,
    most: int = 40,
    order: np.ndarray | None = None,
) -> Path:
    """Draw bar charts of named driving series, and write all numbers as CSV.

    Args:
        path: PNG; the CSV lies beside it.
        values: dict of map name -> (N,).
        names: N names of the series; the ``most`` largest of each map are drawn.
        order: (N,) numbers of the series; the ``most`` first of it are drawn in every map instead.
    """
    shown = min(most, len(names))
    size = (4.6 * len(values), max(2.4, 0.22 * shown + 1.0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(values), squeeze=False).ravel()
    for axis, (name, heights) in zip(axes, values.items(), strict=True):
        ranked = np.argsort(-np.abs(heights), kind="stable") if order is None else order
        drawn = ranked[:shown][::-1]
        axis.barh(np.arange(shown), np.asarray(heights)[drawn], color=BLUE)
        axis.set_yticks(np.arange(shown), [str(names[k]) for k in drawn], fontsize=7)
        axis.set_xlabel(MAP_LABELS.get(name, name))
        axis.set_title(f"{shown} of {len(names)} series", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    columns = {name: np.asarray(heights) for name, heights in values.items()}
    return save_or_show_plot(figure, Path(path), {"series": list(names), **columns})
