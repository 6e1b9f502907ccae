"""The figure of the onset map: arrivals, arrival over distance, local speed."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from common.figures import BLUE, ORANGE, new_figure, save_figure
from inputs.scales import Scales


def as_text(speed: float) -> str:
    """Return a speed with two decimals, or three digits when it is small."""
    return f"{speed:.2f}" if speed >= 0.1 else f"{speed:.3g}"


def draw_onset(path: Path, result: dict, scales: Scales, title: str) -> Path:
    """Draw the arrival map, arrival over distance and local speed; the CSV holds every pixel."""
    arrival, time, length = result["arrival"], scales.time_unit, scales.length_unit
    shown = scales.times(arrival)  # (H, W) in time_unit
    height, width = arrival.shape
    rows, columns = np.mgrid[:height, :width]
    unit = result["speed_unit"]
    table = {
        "pixel": np.arange(arrival.size), "row": rows.ravel(), "column": columns.ravel(),
        f"arrival_{time}": shown.ravel(), f"peak_{result['peak_unit']}": result["peak"].ravel(),
    }  # fmt: skip
    reached = np.isfinite(arrival)
    n_panels = 2 if result["speed"] is None else 3
    figure, axes = new_figure(4.1 * n_panels, 3.6, 1, n_panels)
    left, right = axes[0], axes[1]
    aspect = scales.row_ratio
    drawn = left.imshow(shown, cmap="viridis", interpolation="nearest", aspect=aspect)
    figure.colorbar(drawn, ax=left, label=f"arrival ({time})").outline.set_visible(False)
    left.set(xlabel="column (pixel)", ylabel="row (pixel)", title="arrival (white: none)")
    if result["speed"] is None:
        left.set_title("time of the highest rise: no wave")
        right.set_axis_off()
        right.text(0.5, 0.5, title, ha="center", va="center", wrap=True)
        return save_figure(figure, path, table)
    origin = result["origin"]
    if origin is not None:
        row, column = origin
        far = np.hypot((rows - row) * scales.row_ratio, columns - column)
        label = f"distance from the origin ({length})"
        if 0 <= row < height and 0 <= column < width:
            left.plot(column, row, "o", color="w", markeredgecolor="k", markersize=7)
    else:
        angle = np.radians(result["waves"][0]["direction_deg"] or 0.0)
        far = rows * scales.row_ratio * np.sin(angle) + columns * np.cos(angle)
        label = f"distance along the front's path ({length})"
    far = scales.lengths(far)
    table[f"distance_{length}"] = far.ravel()
    right.plot(far[reached], shown[reached], ".", color=BLUE, markersize=4, label="pixel")
    per_length = (60 if scales.rate_hz.value else 1) / result["speed"]
    middle = np.median(shown[reached] - per_length * far[reached])
    ends = np.array([far[reached].min(), far[reached].max()])
    right.plot(ends, middle + per_length * ends, color=ORANGE, label="fitted front")
    right.legend(loc="lower right", frameon=False)
    right.set(xlabel=label, ylabel=f"arrival ({time})")
    local = result["local_speed"]
    table[f"local_speed_{unit.replace('/', '_per_')}"] = local.ravel()
    known = local[np.isfinite(local)]
    limits = np.quantile(known, (0.02, 0.98)) if len(known) else (0, 1)
    drawn = axes[2].imshow(
        local, cmap="cividis", interpolation="nearest", aspect=aspect, vmin=limits[0],
        vmax=limits[1],
    )  # fmt: skip
    figure.colorbar(drawn, ax=axes[2], label=f"speed ({unit})").outline.set_visible(False)
    side = result["local_window_pixels"]
    axes[2].set(
        xlabel="column (pixel)", ylabel="row (pixel)",
        title=f"local speed, planes over {side} pixels",
    )  # fmt: skip
    for axis in (left, axes[2]):
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))  # there is no row 2.5
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path, table)
