"""Subject maps over a frame of the recording.

Python port of the published plot_gradcam.m and overlay_heatmap_gradcam.m; specification section
8.5.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from common.figures import PRINT_DPI, new_figure, save_figure
from common.files import InputError
from common.locks import visible
from inputs.states import STATE_NAMES

FRAME = 64  # 1-based number of the background frame
OPACITY = 0.5
SIGNED_LOOK = {"signed": True, "colour_map": "coolwarm"}  # of occlusion maps
COLOUR_MAP = "viridis"  # safe for colour-blind readers; Differs: the published figure has jet
PANEL_INCHES = 2.4


def check_colour_map(name: str) -> None:
    """Raise an InputError unless matplotlib knows the colour map ``name``."""
    if name not in colormaps:
        near = difflib.get_close_matches(name, list(colormaps), n=1)
        hint = f"; did you mean {near[0]}?" if near else ", such as viridis or jet"
        raise InputError(f"colour_map is {name}: expected a colour map of matplotlib{hint}")


def rescale(heatmap: np.ndarray) -> np.ndarray | None:
    """Return the map rescaled to 0..1; None for a constant or NaN map."""
    if not np.isfinite(heatmap).all() or np.ptp(heatmap) == 0:
        return None
    return (heatmap - heatmap.min()) / np.ptp(heatmap)


def overlay_heatmap_gradcam(
    axes: Axes,
    image: np.ndarray | None,
    heatmap: np.ndarray,
    alpha: float = OPACITY,
    colour_map: str = COLOUR_MAP,
    limit: float | None = None,
) -> AxesImage | None:
    """Draw ``heatmap`` (H, W) over ``image`` (H, W) or None; return what carries the colours.

    The map is rescaled to 0..1, or with ``limit`` drawn as it is from -limit to limit.
    """
    axes.set_axis_off()
    if image is not None and np.isfinite(image).all():
        axes.imshow(image, cmap="gray")
    if limit is not None and np.isfinite(heatmap).all():
        return axes.imshow(heatmap, cmap=colour_map, vmin=-limit, vmax=limit, alpha=alpha)
    scaled = rescale(heatmap)
    if scaled is None:
        axes.imshow(np.zeros(heatmap.shape), cmap="gray", vmin=0, vmax=1, alpha=0.1)
        text = "constant map" if np.isfinite(heatmap).all() else "no epochs"
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
        return None
    return axes.imshow(scaled, cmap=colour_map, vmin=0, vmax=1, alpha=alpha)


def plot_signed(
    axes: Axes, heatmap: np.ndarray, example: np.ndarray | None, colour_map: str, limit: float
) -> AxesImage | None:
    """Draw ``heatmap`` (H, W) as it is inside the brain, from -limit to limit.

    Pixels that are 0 in all frames of ``example`` (F, H, W) lie outside.
    """
    if example is not None and np.isfinite(heatmap).all() and np.isfinite(example).all():
        heatmap = np.where((example != 0).any(axis=0), heatmap, np.nan)
        axes.set_axis_off()
        return axes.imshow(heatmap, cmap=colour_map, vmin=-limit, vmax=limit)
    return overlay_heatmap_gradcam(axes, None, heatmap, 1.0, colour_map, limit)


def mark_sides(axes: Axes, shape: tuple[int, int]) -> None:
    """Write where front and, on whole frames, left are: row 0 is anterior, column 0 left."""
    look = {"ha": "center", "va": "center", "fontsize": 7, "color": "0.3"}
    axes.text(0.5, -0.04, "back", transform=axes.transAxes, **look)
    axes.text(0.5, 1.03, "front", transform=axes.transAxes, **look)
    if shape[0] == shape[1]:  # half a frame may be mirrored
        axes.text(-0.03, 0.5, "left", transform=axes.transAxes, rotation=90, **look)


def plot_gradcam(
    maps: dict[str, dict[str, np.ndarray]],
    backgrounds: dict[str, dict],
    *,
    frame: int = FRAME,
    opacity: float = OPACITY,
    colour_map: str = COLOUR_MAP,
    colour_bar: bool = False,
    outlines: np.ndarray | None = None,
    signed: bool = False,
) -> Figure:
    """Return a figure with one row per mouse and one column per state.

    Args:
        maps: mouse -> state name -> map (H, W).
        backgrounds: mouse -> state name -> example epoch (F, H, W) or None.
        frame: 1-based number of the background frame; the last frame when the epoch is shorter.
        opacity, colour_map, colour_bar: look of the map.
        outlines: (H, W) parcels whose borders are drawn.
        signed: draw the values themselves, on one scale around 0 (occlusion: a drop below 0 says
            that hiding the place makes the state more probable), inside the brain only and without
            a frame below, which would change the colours.
    """
    states = list(next(iter(maps.values())))
    peaks = [np.nanmax(np.abs(m), initial=0) for own in maps.values() for m in own.values()]
    limit = (max(peaks) or 1.0) if signed else None
    figure, grid = new_figure(
        PANEL_INCHES * len(states) + 0.9 * colour_bar,
        PANEL_INCHES * len(maps) + 0.3,
        len(maps),
        len(states),
        squeeze=False,
    )
    drawn = None
    for row, (mouse, own) in zip(grid, maps.items(), strict=True):
        for axes, state in zip(row, states, strict=True):
            example = backgrounds.get(mouse, {}).get(state)
            if signed:
                layer = plot_signed(axes, own[state], example, colour_map, limit)
            else:
                image = None if example is None else example[min(frame, len(example)) - 1]
                layer = overlay_heatmap_gradcam(axes, image, own[state], opacity, colour_map)
            drawn = layer or drawn
            mark_sides(axes, own[state].shape)
            if outlines is not None:
                for parcel in np.unique(outlines[outlines > 0]):
                    axes.contour(outlines == parcel, levels=[0.5], colors="white", linewidths=0.4)
            axes.set_title(f"{mouse}  {state}", fontsize=9, pad=12)
    if colour_bar and drawn is not None:
        label = "drop of the probability" if signed else "map, rescaled to 0-1 per panel"
        figure.colorbar(drawn, ax=grid.ravel().tolist(), label=label)
    return figure


def save_maps_figure(
    maps: dict[str, dict[str, np.ndarray]],
    backgrounds: dict[str, dict],
    path: Path,
    table: pd.DataFrame | None = None,
    **look: Any,
) -> Path:
    """Draw the maps and write PNG, PDF and the CSV behind them."""
    figure = plot_gradcam(maps, backgrounds, **{"colour_bar": True, **look})
    return save_figure(figure, path, table, dpi=PRINT_DPI, pdf=True)


def read_maps(folder: Path, mice: list[str], *, hemisphere: bool | None = None) -> tuple:
    """Read the maps and example epochs of ``mice`` from ``folder``.

    Args:
        folder: with `<mouse>_avg[_hemis]_label<c>.mat`.
        mice: date codes.
        hemisphere: maps of whole frames (False) or of half of them (True); what is there when None.

    Returns:
        mouse -> state -> map (H, W), and mouse -> state -> example (F, H, W), with the same states.

    Raises:
        InputError: no maps, no such states, other shapes, or both kinds of maps.
    """
    maps, examples, classes = {}, {}, {}
    for mouse in mice:
        kinds = {half: _paths_of(folder, mouse, half) for half in (False, True)}
        if hemisphere is None and all(kinds.values()):
            raise InputError(
                f"{folder}: holds maps of {mouse} of whole frames and of halves "
                f"({mouse}_avg_hemis_label<state>.mat): give --hemisphere yes or no"
            )
        paths = kinds[bool(kinds[True]) if hemisphere is None else hemisphere]
        if not paths:
            raise InputError(
                f"{folder}: holds no {mouse}_avg_label<state>.mat; run main.py --mode gradcam first"
            )
        for state, path in paths.items():
            found, example, classes[path] = _read_map(path)
            if len(set(classes.values())) > 1:
                raise InputError(f"{path}: holds {classes[path]} states, another map others")
            names = STATE_NAMES[classes[path]]
            if state >= len(names):
                raise InputError(f"{path}: label {state}; expected one of 0 to {len(names) - 1}")
            maps.setdefault(mouse, {})[names[state]] = found
            examples.setdefault(mouse, {})[names[state]] = example
    states = [
        s for s in STATE_NAMES[max(classes.values())] if any(s in own for own in maps.values())
    ]
    for mouse, own in maps.items():
        shape = next(iter(own.values())).shape
        if any(one.shape != shape for one in own.values()):
            raise InputError(f"{folder}: maps of {mouse} have unequal shapes")
        # A state without a file is drawn as a state without epochs.
        maps[mouse] = {state: own.get(state, np.full(shape, np.nan)) for state in states}
    return maps, examples


def _paths_of(folder, mouse, half):
    """Return state -> path of the maps of one mouse, of whole frames or of halves."""
    name = re.compile(re.escape(mouse) + ("_avg_hemis" if half else "_avg") + r"_label(\d+)\.mat")
    places = {path: name.fullmatch(path.name) for path in visible(folder, "*.mat")}
    return {int(match[1]): path for path, match in sorted(places.items()) if match}


def _read_map(path):
    """Return the map (H, W), the example (F, H, W) or None, and the number of states of a file."""
    try:
        held = scipy.io.loadmat(path)
        found, example = held["subject_avg_gradcam"], held["example_data"]
        classes = int(np.ravel(held.get("num_classes", 3))[0])
    except Exception as error:  # damaged bytes make scipy raise almost any kind
        raise InputError(f"{path}: holds no subject map ({error})") from error
    if found.ndim != 2 or found.dtype.kind not in "iuf" or classes not in STATE_NAMES:
        raise InputError(
            f"{path}: subject_avg_gradcam is {found.shape} of {classes} states; expected numbers "
            "H x W of 2 or 3"
        )
    if example.ndim != 3 or example.shape[1:] != found.shape:
        if example.size > 1:
            raise InputError(
                f"{path}: example_data is {example.shape}; expected F x {found.shape[0]} x "
                f"{found.shape[1]}"
            )
        example = None
    return found.astype(float), example, classes
