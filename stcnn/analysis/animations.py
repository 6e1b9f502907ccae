"""Moving pictures: stimulus movies above growing traces, feature maps. mp4, or GIF by its suffix.

The movie plays and the traces grow; artists are updated in place and everything is loaded once.
Source: specification 8.1, 9.4.
"""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from matplotlib import rc_context
from matplotlib.animation import FFMpegWriter, PillowWriter
from matplotlib.figure import Figure

from analysis.util_analysis import RECORDED_COLOUR
from common.files import atomic_path

STEP = 6  # every sixth frame is drawn: 180 Hz plays at 30 frames per second
FPS = 30
GREY = (-0.5, 0.5)
PANEL_IN, DPI = 2.5, 72
TRACE_Y = (-0.5, 2.0)


def animate_row(
    path: Path,
    panels: list[dict],
    *,
    step: int = STEP,
    y: tuple[float, float] = TRACE_Y,
    fps: float = FPS,
) -> Path:
    """Draw one movie per column above the traces of all its neurons.

    Args:
        path: .mp4 or .gif.
        panels: list of dicts with title, movie (T, rows, columns) contrast, seconds (T,), traces
            (neurons, T) dF/F, and colours and labels of the traces or neither (recorded neurons);
            no movie leaves an empty panel. Labels of the first stand for all.
        step: every how many frames is drawn.
        fps: drawn frames shown per second.
        y: trace limits.
    """
    figure = Figure(figsize=(PANEL_IN * max(len(panels), 2), 2 * PANEL_IN))
    axes = figure.subplots(2, len(panels), squeeze=False)
    return _animate(path, figure, list(zip(axes[0], axes[1], strict=True)), panels, step, y, fps)


def animate_grid(
    path: Path,
    panels: list[dict],
    *,
    shape: tuple[int, int],
    step: int = STEP,
    y: tuple[float, float] = TRACE_Y,
) -> Path:
    """Draw a grid of movies above a grid of traces, first stimulus bottom left."""
    rows, columns = shape
    figure = Figure(figsize=(PANEL_IN * columns, PANEL_IN * 2 * rows))
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    pairs = zip(axes[:rows][::-1].ravel(), axes[rows:][::-1].ravel(), strict=True)
    return _animate(path, figure, list(pairs)[: len(panels)], panels, step, y, FPS)


def animate_maps(
    path: Path, maps: np.ndarray, name: str, *, rate_hz: float, step: int = STEP
) -> Path:
    """Draw the channels of one layer (T, C, rows, columns), each with its own grey range."""
    n = maps.shape[1]
    figure = Figure(figsize=(PANEL_IN * max(n, 2), PANEL_IN * 1.3))
    images = []
    for channel, axis in enumerate(figure.subplots(1, n, squeeze=False)[0]):
        low, high = maps[:, channel].min(), maps[:, channel].max()
        images.append(
            axis.imshow(maps[0, channel], cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
        )
        axis.set_title(f"{name}_{channel}", fontsize=9)
        axis.set_axis_off()
    clock = figure.text(0.01, 0.02, "", fontsize=9)

    def draw(frame):
        for channel, image in enumerate(images):
            image.set_data(maps[frame, channel])
        clock.set_text(f"{frame / rate_hz:.2f} s")

    return _write(path, figure, draw, range(0, len(maps), step), FPS)


def _animate(path, figure, pairs, panels, step, y, fps):
    parts, n_frames = [], 0
    for (top, bottom), panel in zip(pairs, panels, strict=True):
        top.set_axis_off()
        top.set_title(panel["title"], fontsize=10)
        if not len(panel["movie"]):
            bottom.set_axis_off()
            continue
        image = top.imshow(panel["movie"][0], cmap="gray", vmin=GREY[0], vmax=GREY[1])
        colours = panel.get("colours", [RECORDED_COLOUR] * len(panel["traces"]))
        lines = [bottom.plot([], [], lw=0.8, color=colour)[0] for colour in colours]
        bottom.set(xlim=(panel["seconds"][0], panel["seconds"][-1]), ylim=y, xlabel="time (s)")
        bottom.spines[["top", "right"]].set_visible(False)
        parts.append((panel, image, lines))
        n_frames = max(n_frames, len(panel["movie"]))
    pairs[0][1].set_ylabel("dF/F")
    below = 0.0
    if parts and "labels" in panels[0]:  # below the axes: within them a trace grows into it
        below = 0.06
        figure.legend(
            parts[0][2], panels[0]["labels"], frameon=False, fontsize=9, ncols=2, loc="lower center"
        )
    figure.tight_layout(rect=(0, below, 1, 1))
    figure.set_layout_engine(None)  # the engine that tight_layout leaves draws every frame twice

    def draw(frame):
        for panel, image, lines in parts:
            now = min(frame, len(panel["movie"]) - 1)
            image.set_data(panel["movie"][now])
            for line, trace in zip(lines, panel["traces"], strict=True):
                line.set_data(panel["seconds"][: now + 1], trace[: now + 1])

    return _write(path, figure, draw, range(0, n_frames, step), fps)


def _write(path, figure, draw, frames, fps):
    """Write the frames to .mp4 (H.264 of imageio-ffmpeg) or .gif, padded to even size."""
    width, height = (2 * int(np.ceil(inches * DPI / 2)) for inches in figure.get_size_inches())
    figure.set_size_inches(width / DPI, height / DPI)
    with rc_context({"animation.ffmpeg_path": imageio_ffmpeg.get_ffmpeg_exe()}):
        gif = str(path).endswith(".gif")
        writer = (
            PillowWriter(fps=fps)
            if gif
            else FFMpegWriter(fps=fps, codec="libx264", extra_args=["-pix_fmt", "yuv420p"])
        )
        with atomic_path(path) as temporary, writer.saving(figure, str(temporary), DPI):
            for frame in frames:
                draw(frame)
                writer.grab_frame()
    return path
