"""Pictures of guided back-propagation: the published PNGs, a GIF beside the input, Grad-CAM.

Letters: t frames, r rows, c columns. The numbers behind them lie in the ``.npz`` of each movie.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave
from PIL import Image, ImageDraw

from analysis.gradient_maps import projection
from common.figures import save_figure
from common.files import atomic_path

GAP, HEAD = 4, 44  # pixels between the tiles of a GIF; above them
SIDE = 224  # columns of a tile at least, reached by whole-number zoom


def save_pictures(folder: Path, name: str, frames: np.ndarray) -> None:
    """Write one PNG per frame and the projection, in seismic from -1 to 1 as published.

    Args:
        folder: gets proj/<name>.png and movies/<name>/GBP_frame<i>.png.
        name: ``<label>_<k>``.
        frames: (t, rows, columns) from ``gradient_maps.scaled_frames``.
    """
    (folder / "proj").mkdir(exist_ok=True)
    (folder / "movies" / name).mkdir(parents=True)
    colours = {"cmap": "seismic", "vmin": -1, "vmax": 1}
    imsave(folder / "proj" / f"{name}.png", projection(frames), **colours)
    for i, frame in enumerate(frames):
        imsave(folder / "movies" / name / f"GBP_frame{i}.png", frame, **colours)


def coloured_tiles(
    clip: dict[str, np.ndarray], gradient: dict[str, np.ndarray]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return input above gradient as pictures, and the gradient that has full colour.

    Each stream has a scale of its own: the gradients of one are often far below the other's.

    Args:
        clip, gradient: {"grey": (t,r,c,1), "of": (t,r,c,2)}.

    Returns:
        tiles: (t, 2, 3, r, c, 3) uint8; the three are grey, flow x, flow y.
        tops: largest absolute gradient of these three.
    """

    def centred(values, top):
        return 0.5 + values / max(float(top), 1e-12) / 2

    grey = clip["grey"][..., 0]
    shown = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-12)
    flow = centred(clip["of"], np.abs(clip["of"]).max())
    tops = {stream: float(np.abs(values).max()) for stream, values in gradient.items()}
    below = [centred(gradient[stream], tops[stream]) for stream in ("grey", "of")]
    below = np.concatenate(below, axis=-1)  # (t, r, c, 3)
    rows = (
        [colormaps["gray"](shown), *(colormaps["coolwarm"](flow[..., k]) for k in (0, 1))],
        [colormaps["seismic"](below[..., k]) for k in (0, 1, 2)],
    )
    tiles = np.stack([np.stack(row, axis=1) for row in rows], axis=1)  # (t, 2, 3, r, c, 4)
    return (tiles[..., :3] * 255).astype(np.uint8), (tops["grey"], tops["of"], tops["of"])


def save_gif(
    path: Path,
    clip: dict[str, np.ndarray],
    gradient: dict[str, np.ndarray],
    *,
    frame_rate_hz: float | None,
    title: str,
) -> None:
    """Write a GIF of the clip above its guided gradient, at the movie's frame rate.

    Args:
        path: ``.gif``.
        clip, gradient: as in ``coloured_tiles``.
        frame_rate_hz: None when unknown; 30 is then used and said.
        title: one line.
    """
    tiles, tops = coloured_tiles(clip, gradient)
    n, r, c = len(tiles), *tiles.shape[3:5]
    zoom = -(-SIDE // c)
    r, c = r * zoom, c * zoom
    rate = frame_rate_hz or 30.0
    rate_text = f"{rate:.0f} frames/s" + ("" if frame_rate_hz else " assumed")
    width, height = 3 * c + 4 * GAP, 2 * r + 3 * GAP + HEAD
    pictures = []
    for i in range(n):
        picture = Image.new("RGB", (width + width % 2, height + height % 2), "white")
        draw = ImageDraw.Draw(picture)
        draw.text((GAP, 4), f"{title}, {rate_text}, frame {i + 1}/{n}", fill="black")
        for x, (text, top) in enumerate(zip(("grey", "flow x", "flow y"), tops, strict=True)):
            left = GAP + x * (c + GAP)
            draw.text(
                (left, 24), f"{text}; below its gradient, -{top:.1g} to {top:.1g}", fill="black"
            )
            for y in (0, 1):
                tile = Image.fromarray(tiles[i, y, x]).resize((c, r), Image.Resampling.NEAREST)
                picture.paste(tile, (left, HEAD + GAP + y * (r + GAP)))
        pictures.append(picture)
    # GIF counts in 10 ms: the ends of the frames are rounded, so that the rate is right on average.
    durations = np.diff((np.arange(n + 1) * 100 / rate).round()).astype(int) * 10
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            save_all=True,
            append_images=pictures[1:],
            duration=durations.tolist(),
            loop=0,
        )


def save_gradcam(
    path: Path, clip: dict[str, np.ndarray], cams: Sequence[np.ndarray], *, title: str
) -> None:
    """Draw Grad-CAM of both streams, each (r, c), over the mean frame of the clip."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
    figure.suptitle(title, fontsize=9)
    backs = (clip["grey"][..., 0].mean(axis=0), np.linalg.norm(clip["of"], axis=-1).mean(axis=0))
    names = ("grey stream over mean frame", "flow stream over mean |flow|")
    for k, (cam, back, name) in enumerate(zip(cams, backs, names, strict=True), start=1):
        axis = figure.add_subplot(1, 2, k)
        axis.imshow(back, cmap="gray")
        axis.set(xlabel="column (pixel)", ylabel="row (pixel)")
        if np.ptp(cam) <= 1e-6 * np.abs(cam).max():
            # A small clip leaves one place in the last stage, or no place speaks for the target.
            axis.set_title(f"{name}\nGrad-CAM is {cam.mean():.2g} everywhere", fontsize=9)
            continue
        shown = axis.imshow(cam, cmap="viridis", alpha=0.45)
        axis.set_title(name, fontsize=9)
        figure.colorbar(shown, ax=axis, shrink=0.8, label="Grad-CAM (logit per place)")
    save_figure(figure, path)
