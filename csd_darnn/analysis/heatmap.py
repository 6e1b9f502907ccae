"""Maps of what the network used, as pictures and as a movie over the recording.

The published heat map is |alpha * x| at step index 1: brightness times attention. A map without
any network, |x|, follows a wave as well, so the control map belongs beside every map.

Letters: n frames shown, N driving pixels, H x W image.
Source: specification, sections 7.3 (un-permuting), 8.2 (maps) and 8.3 (movie).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import matplotlib
import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial import cKDTree

from analysis.metrics import auc, pearson
from common.files import InputError, atomic_path
from inputs.scales import NO_SCALES, Scales

MAP_LABELS = {
    "reference": "|alpha x| at step 1 (published map)",
    "attention": "N alpha (attention, 1 = uniform)",
    "control": "|x| (control, no network)",
    "signed": "alpha x at step 1 (signed)",
    "gradient": "mean |d prediction / d pixel|",
    "permutation": "rise of MSE, pixel block permuted",
}
BAR_LABELS = {  # short: they stand beside colour bars
    "reference": "share x z-score",
    "attention": "times the uniform share",
    "control": "z-score",
    "signed": "share x z-score",
    "gradient": "z per z",
    "permutation": "MSE (z²)",
}
MOST_GIF_FRAMES = 500
LONG_SIDE = 320  # pixels of the longer image side in a movie


def unpermute(slots: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Return values by pixel from values by input slot (..., N): slot s holds pixel permutation[s].

    Source: section 7.3; the gather slots[..., permutation] would be the inverse, a classic error.
    """
    slots = np.asarray(slots)
    by_pixel = np.empty_like(slots)
    by_pixel[..., np.asarray(permutation)] = slots
    return by_pixel


def compute_map(name: str, alpha: np.ndarray, x_step1: np.ndarray) -> np.ndarray:
    """Return a map (n, N) of section 8.2.

    Args:
        name: "reference", "attention", "control" or "signed".
        alpha: (n, N) attention of each window, by pixel, sum 1.
        x_step1: (n, N) standardised input at step index 1 of each window, by pixel.
    """
    if name == "reference":
        # Faithful: the movies of the published project show this product, called attention there.
        return np.abs(alpha * x_step1)
    if name == "attention":
        return np.asarray(alpha)
    if name == "control":
        return np.abs(x_step1)
    if name == "signed":
        return alpha * x_step1
    raise InputError(f"map {name}: expected one of reference, attention, control, signed")


def times_uniform(alpha: np.ndarray) -> np.ndarray:
    """Return N * alpha: 1 where the attention is uniform."""
    return np.asarray(alpha) * np.shape(alpha)[-1]


def to_image(
    values: np.ndarray, feature_pixels: np.ndarray, shape: tuple[int, int], *, fill: float = 0.0
) -> np.ndarray:
    """Place values (..., N) at their pixels: (..., H, W), ``fill`` where no driving pixel lies.

    Differs: the reference inserts the target at a fixed place (190, 199, 200 or 219).
    """
    values, feature_pixels = np.asarray(values), np.asarray(feature_pixels)
    height, width = shape
    inside = feature_pixels >= 0
    image = np.full((*values.shape[:-1], height * width), fill, values.dtype)
    image[..., feature_pixels[inside]] = values[..., inside]
    return image.reshape(*values.shape[:-1], height, width)


def map_agreement(values: np.ndarray, control: np.ndarray, *, most_frames: int = 200) -> dict:
    """Tell how far a map (n, N) only repeats the control map (n, N).

    Returns:
        {"correlation": Pearson r over pixels, "auc": chance that a pixel of the brightest tenth of
        the control ranks above another one}, each the mean over at most ``most_frames`` frames;
        None where a map is constant.
    """
    values, control = np.atleast_2d(values), np.atleast_2d(control)
    chosen = np.unique(np.linspace(0, len(values) - 1, min(most_frames, len(values))).astype(int))
    correlations, aucs = [], []
    for index in chosen:
        bright = control[index] >= np.quantile(control[index], 0.9)
        if bright.all() or np.ptp(values[index]) == 0:
            continue
        correlations.append(pearson(values[index], control[index]))
        aucs.append(auc(values[index], bright))
    if not aucs:
        return {"correlation": None, "auc": None}
    return {"correlation": float(np.mean(correlations)), "auc": float(np.mean(aucs))}


def colour_table(name: str) -> np.ndarray:
    """Return the 256 colours of a Matplotlib map, (256, 3) float64 in 0..1."""
    return matplotlib.colormaps[name].resampled(256)(np.arange(256))[:, :3]


def scale_to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return ``values`` mapped to 0..1; a constant image becomes 0.5 instead of a division by 0."""
    if not high > low:
        return np.full(np.shape(values), 0.5)
    return np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)


def blend(
    frame: np.ndarray,
    heat: np.ndarray,
    frame_limits: tuple[float, float],
    heat_limits: tuple[float, float],
    *,
    alpha: float = 0.5,
    tables: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return 0.5 gray frame + 0.5 coloured heat as (H, W, 3) float64 in 0..1.

    Args:
        frame, heat: (H, W).
        frame_limits, heat_limits: (low, high) that become the ends of the colour tables.
        alpha: weight of the heat.
        tables: (gray table, heat table), each (256, 3); default gray and coolwarm.
    """
    gray, warm = tables or (colour_table("gray"), colour_table("coolwarm"))
    below = np.minimum((scale_to_unit(frame, *frame_limits) * 256).astype(np.intp), 255)
    above = np.minimum((scale_to_unit(heat, *heat_limits) * 256).astype(np.intp), 255)
    return (1 - alpha) * gray[below] + alpha * warm[above]


def limits(image: np.ndarray) -> tuple[float, float]:
    """Return (min, max) of an array."""
    return float(image.min()), float(image.max())


def movie_limits(maps: np.ndarray, clim: str) -> tuple[float, float] | None:
    """Return the colour limits for all frames, or None when every frame has its own.

    ``clim``: "frame" (published), "global" min to max, or "p99" min to 99th percentile.
    """
    if clim == "frame":
        return None
    if maps.strides[0] == 0:
        maps = maps[:1]  # one map stands behind all frames
    if clim == "global":
        return limits(maps)
    if clim == "p99":
        return float(maps.min()), float(np.percentile(maps, 99))
    raise InputError(f"clim {clim}: expected one of frame, global, p99")


@dataclass(frozen=True)
class Look:
    """How a heat-map movie looks.

    Attributes:
        clim: limits of the map's colours: "frame", "global" or "p99".
        title: text below the image, one line each.
        target_pixels: 0-based pixels drawn hatched: the map has no value there.
        diverging: limits symmetric around 0.
        scales: clock and sizes; those that are known add the time and a scale bar.
        first_frame: frame of the recording that index 0 belongs to.
        steady: one range of gray for all frames instead of one for each (published).
        outline: (H, W) bool, pixels framed in black and white.
    """

    clim: str = "frame"
    title: str = ""
    target_pixels: Sequence[int] = ()
    diverging: bool = False
    scales: Scales = NO_SCALES
    first_frame: int = 0
    steady: bool = False
    outline: np.ndarray | None = None


class Stage:
    """Everything of a movie's picture that never changes: margins, colour bar, texts, hatching.

    Drawn once; a frame then costs one table look-up and three short texts.
    """

    def __init__(self, shape: tuple[int, int], look: Look, ends: tuple[str, str] | None):
        """Prepare for images (H, W) = ``shape``; ``ends`` are texts of the bar when it is fixed."""
        title, pixel_um = look.title, look.scales.column_um.value
        font_file = findfont("DejaVu Sans")
        self.font = ImageFont.truetype(font_file, 14)
        self.small = ImageFont.truetype(font_file, 12)
        height, width = shape
        self.zoom = max(1, LONG_SIDE // max(shape))
        self.left, self.top = 12, 30
        self.image_h, self.image_w = height * self.zoom, width * self.zoom
        self.bar_x = self.left + self.image_w + 14
        notes = [part for part in title.split("\n") if part]
        probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        text_w = max([probe.textlength(note, self.small) for note in notes], default=0)
        full_w = max(self.bar_x + 16 + 74, int(text_w) + 2 * self.left)
        bar_um, bar_pixels = scale_bar(width, pixel_um)
        rows_below = len(notes) + (bar_um is not None)
        full_h = self.top + self.image_h + 8 + 17 * rows_below + 6
        # Even size: H.264 refuses odd ones. Padded, never rescaled.
        canvas = Image.new("RGB", (full_w + full_w % 2, full_h + full_h % 2), "white")
        draw = ImageDraw.Draw(canvas)
        ramp = (255 * colour_table("coolwarm")[::-1]).round().astype(np.uint8)
        rows = np.linspace(0, 255, self.image_h).astype(int)
        ramp = np.repeat(ramp[rows][:, None], 16, axis=1)  # (image_h, 16, 3)
        canvas.paste(Image.fromarray(ramp), (self.bar_x, self.top))
        y = self.top + self.image_h + 8
        if bar_um is not None:
            x_end = self.left + bar_pixels * self.zoom
            draw.rectangle((self.left, y + 5, x_end, y + 9), fill="black")
            label = f"{bar_um / 1000:g} mm" if bar_um >= 1000 else f"{bar_um:g} um"
            draw.text((x_end + 8, y), label, "black", self.small)
            y += 17
        for note in notes:
            draw.text((self.left, y), note, "black", self.small)
            y += 17
        self.fixed_ends = ends
        self.canvas = canvas
        self.hatch = hatch_mask(shape, look.target_pixels, self.zoom)
        self.frame = None if look.outline is None else frame_mask(look.outline, self.zoom)

    def draw(self, rgb: np.ndarray, heading: str, ends: tuple[str, str]) -> np.ndarray:
        """Return the full picture (height, width, 3) uint8 of one blended image (H, W, 3)."""
        image = (255 * rgb).round().astype(np.uint8).repeat(self.zoom, 0).repeat(self.zoom, 1)
        if self.hatch is not None:
            inside, stripe = self.hatch
            image[inside] = 255
            image[stripe] = 0
        if self.frame is not None:
            outer, inner = self.frame
            image[outer] = 255
            image[inner] = 0
        picture = self.canvas.copy()
        picture.paste(Image.fromarray(image), (self.left, self.top))
        pen = ImageDraw.Draw(picture)
        pen.text((self.left, 7), heading, "black", self.font)
        high, low = self.fixed_ends or ends
        x = self.bar_x + 20
        pen.text((x, self.top - 2), high, "black", self.small)
        pen.text((x, self.top + self.image_h - 13), low, "black", self.small)
        return np.asarray(picture)


def scale_bar(width: int, pixel_um: float | None) -> tuple[float | None, float]:
    """Return (length in um, length in pixels) of a round scale bar, (None, 0) without a scale."""
    if not pixel_um:
        return None, 0
    wanted = width * pixel_um / 4
    power = 10 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    return float(length), length / pixel_um


def hatch_mask(
    shape: tuple[int, int], target_pixels: Sequence[int], zoom: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (target area, black stripes in it) as masks of the enlarged image, or None."""
    if len(target_pixels) == 0:
        return None
    targets = np.zeros(shape, bool)
    targets.flat[list(target_pixels)] = True
    inside = targets.repeat(zoom, 0).repeat(zoom, 1)
    rows, columns = np.indices(inside.shape)
    period = max(2, zoom // 3)
    return inside, inside & ((rows + columns) % period < max(1, period // 3))


def frame_mask(outline: np.ndarray, zoom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (white line around, black line within) the pixels ``outline`` of the enlarged image.

    Both have a width of 2 pixels, where the enlargement has room for them.
    """
    inside = np.asarray(outline, bool).repeat(zoom, 0).repeat(zoom, 1)
    width = min(2, max(1, zoom // 3))
    return (
        binary_dilation(inside, iterations=width) & ~inside,
        inside & ~binary_erosion(inside, iterations=width, border_value=1),
    )


def movie_frames(
    frames: np.ndarray, maps: np.ndarray, *, every: int = 1, **look
) -> Iterator[np.ndarray]:
    """Yield the pictures (height, width, 3) uint8, even sizes, of a heat-map movie.

    Args:
        frames: (n, H, W) background, min-max gray per frame.
        maps: (n, H, W) colour, coolwarm.
        every: show every k-th frame.
        look: the attributes of a Look.
    """
    check_same_frames(frames, maps)
    look = Look(**look)
    fixed = movie_limits(maps, look.clim)
    grays = limits(frames) if look.steady else None
    first_frame, scales = look.first_frame, look.scales
    tables = colour_table("gray"), colour_table("coolwarm")

    def ends_of(heat):
        low, high = fixed or limits(heat)
        if look.diverging:
            high = max(abs(low), abs(high))
            low = -high
        return low, high

    ends = None if fixed is None else tuple(f"{v:.3g}" for v in ends_of(maps)[::-1])
    stage = Stage(maps.shape[1:], look, ends)
    for index in range(0, len(maps), every):
        frame, heat = frames[index], maps[index]
        low, high = ends_of(heat)
        rgb = blend(frame, heat, grays or limits(frame), (low, high), tables=tables)
        heading = f"Frame {index}"
        if first_frame:
            heading += f"   (recording {first_frame + index})"
        if scales.rate_hz.value:
            heading += f"   {scales.times(first_frame + index):.1f} s"
        yield stage.draw(rgb, heading, (f"{high:.3g}", f"{low:.3g}"))


def check_same_frames(frames: np.ndarray, maps: np.ndarray) -> None:
    """Refuse a background and maps that differ in frames or pixels.

    Differs: the reference goes on with the wrong frames without a word.
    """
    if frames.ndim != 3 or frames.shape != maps.shape:
        raise InputError(
            f"heat-map movie: the video has {len(frames)} frames of {frames.shape[1:]}, the maps "
            f"{len(maps)} of {maps.shape[1:]}, expected the same; cut the video to the test part"
        )


def write_movie(
    stem: Path,
    frames: np.ndarray,
    maps: np.ndarray,
    *,
    fps: float = 5,
    kinds: Sequence[str] = ("mp4", "gif"),
    bitrate: str = "1000k",
    most_gif_frames: int = MOST_GIF_FRAMES,
    **options,
) -> list[Path]:
    """Write ``stem``.mp4 with every frame and ``stem``.gif, and return their paths.

    A GIF of more than ``most_gif_frames`` shows every k-th frame and is named
    ``stem``_every<k>.gif. ``options`` go to movie_frames.
    """
    check_same_frames(frames, maps)
    stem, paths = Path(stem), []
    note = f"played at {fps:g} frames/s"
    options["title"] = "\n".join(part for part in (options.get("title", ""), note) if part)
    if "mp4" in kinds:
        pictures = movie_frames(frames, maps, **options)
        paths.append(write_mp4(stem.with_name(f"{stem.name}.mp4"), pictures, fps, bitrate))
    if "gif" in kinds:
        every = -(-len(maps) // most_gif_frames)
        name = f"{stem.name}_every{every}.gif" if every > 1 else f"{stem.name}.gif"
        pictures = movie_frames(frames, maps, every=every, **options)
        paths.append(write_gif(stem.with_name(name), pictures, fps))
    return paths


def write_mp4(path: Path, pictures: Iterable[np.ndarray], fps: float, bitrate: str) -> Path:
    """Write pictures (h, w, 3) uint8 as H.264 with imageio-ffmpeg's own ffmpeg; return path."""
    writer = None
    with atomic_path(path) as temporary:
        try:
            for picture in pictures:
                if writer is None:
                    size = picture.shape[1], picture.shape[0]
                    # The slow presets take longer than all the drawing for a picture no better.
                    writer = imageio_ffmpeg.write_frames(
                        str(temporary),
                        size,
                        fps=fps,
                        bitrate=bitrate,
                        macro_block_size=2,
                        output_params=["-preset", "superfast"],
                    )
                    writer.send(None)
                writer.send(np.ascontiguousarray(picture))
        finally:
            if writer is not None:
                writer.close()
    return path


def write_gif(path: Path, pictures: Iterable[np.ndarray], fps: float) -> Path:
    """Write pictures (h, w, 3) uint8 as a looping GIF with one palette; return ``path``."""
    palette, nearest = gif_palette()

    def indexed(picture):
        coarse = picture >> 3  # 5 bits a channel address the table of nearest colours
        image = Image.fromarray(nearest[coarse[..., 0], coarse[..., 1], coarse[..., 2]], "P")
        image.putpalette(palette)
        return image

    pictures = (indexed(picture) for picture in pictures)
    with atomic_path(path) as temporary:
        next(pictures).save(
            temporary, save_all=True, append_images=pictures, duration=round(1000 / fps), loop=0,
            optimize=False,
        )  # fmt: skip
    return path


def gif_palette() -> tuple[bytes, np.ndarray]:
    """Return (palette bytes, (32, 32, 32) uint8 table: nearest palette entry of a 5-bit colour).

    Entries: 13 grays x 18 heat colours as they blend, and 22 plain grays.
    """
    gray, warm = colour_table("gray"), colour_table("coolwarm")
    levels = gray[np.linspace(0, 255, 13).astype(int)], warm[np.linspace(0, 255, 18).astype(int)]
    blends = (0.5 * levels[0][:, None] + 0.5 * levels[1][None]).reshape(-1, 3)  # (234, 3)
    plain = gray[np.linspace(0, 255, 22).astype(int)]
    colours = (255 * np.concatenate((blends, plain))).round()  # (256, 3)
    grid = np.stack(np.meshgrid(*[np.arange(32) * 255 / 31] * 3, indexing="ij"), axis=-1)
    nearest = cKDTree(colours).query(grid)[1].astype(np.uint8)  # (32, 32, 32)
    return colours.astype(np.uint8).tobytes(), nearest
