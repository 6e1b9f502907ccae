"""Coloured movies of what was found: classes, events, spark checks, as TIFF, GIF or MP4.

Section 8.12 of the specification. T frames, H rows, W columns; n frames of a picture.
"""

import functools
import math
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from common.files import InputError, atomic_path
from inputs.calibration import Calibration
from inputs.data_processing import class_contours
from inputs.movie_io import write_stack
from settings.config import CLASSES, EVENT_CLASSES

COLOURS = {  # on the movie; numbers of section 8.12
    "sparks": (178, 255, 102),
    "puffs": (255, 102, 102),
    "waves": (178, 102, 255),
    "ignore": (224, 224, 224),
}
WHITE_COLOURS = {  # opaque, on white
    "sparks": (0, 255, 0),
    "puffs": (220, 20, 60),
    "waves": (138, 43, 226),
    "ignore": (80, 80, 80),
}
ALPHA = 50 / 255
BALL_ALPHA = 45 / 255
MATCHED_ALPHA = 0.8 * BALL_ALPHA
BALL_RADIUS = 4  # voxels
BRIGHT_PERCENTILES = (0.1, 99.9)  # grey values that become black and white
SAMPLE = 2_000_000  # voxels from which the percentiles are taken
VIEW_WIDTH = 384  # GIF and MP4 repeat pixels until they are this wide
FOOTER = 50  # rows under a picture for time, scale bar, colours and speed
SCALE_BARS_UM = (1, 2, 5, 10, 20, 50, 100)
PLAY_FPS = 25
GREY_LEVELS = 32  # of a GIF; fewer levels compress noise better
# what each value of red, green and blue adds to the number of a colour, looked up for every pixel
CHANNEL_CODES = [
    (np.arange(256) // (256 // GREY_LEVELS) * GREY_LEVELS**power).astype(np.uint16)
    for power in (2, 1, 0)
]
PALETTE = 128  # colours of a GIF


def grey_movie(movie: ndarray) -> ndarray:
    """Scale a movie (T, H, W) to 0..255 uint8 between its 0.1 and 99.9 percentile."""
    sample = movie.ravel()[:: max(1, movie.size // SAMPLE)]
    low, high = np.percentile(sample, BRIGHT_PERCENTILES)
    few = movie.dtype in (np.uint8, np.uint16)
    counts = np.arange(np.iinfo(movie.dtype).max + 1) if few else movie
    scaled = (counts.astype(np.float32) - low) * (255.0 / max(high - low, 1e-9))
    grey = np.clip(scaled, 0, 255).astype(np.uint8)
    return grey[movie] if few else grey  # a table of all counts is far smaller than the movie


def overlay_frames(
    movie: ndarray, classes: ndarray, *, truth_classes: ndarray | None = None, white: bool = False
) -> ndarray:
    """Colour a movie by class.

    Args:
        movie: (T, H, W) counts.
        classes: (T, H, W) class numbers, drawn as transparent colours.
        truth_classes: (T, H, W) annotation, drawn as opaque contours.
        white: True draws opaque colours on a white ground instead of the movie.

    Returns:
        (T, H, W, 3) uint8. Source: section 8.12.
    """
    colours = WHITE_COLOURS if white else COLOURS
    ground = np.full(movie.shape, 255, np.uint8) if white else grey_movie(movie)
    frames = np.repeat(ground[..., None], 3, axis=-1)  # (T, H, W, 3)
    alpha = 1.0 if white else ALPHA
    for name, colour in colours.items():
        blend(frames, classes == CLASSES[name], colour, alpha)
    if truth_classes is not None:
        contours = class_contours(truth_classes)
        for name, colour in colours.items():
            frames[contours == CLASSES[name]] = colour
    return frames


def instance_frames(movie: ndarray, instances: ndarray, *, seed: int = 0) -> ndarray:
    """Colour every event by a random but seeded colour, (T, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    table = rng.integers(60, 256, (int(instances.max(initial=0)) + 1, 3)).astype(np.uint8)
    frames = np.repeat(grey_movie(movie)[..., None], 3, axis=-1)
    inside = instances > 0
    frames[inside] = (0.5 * frames[inside] + 0.5 * table[instances[inside]]).astype(np.uint8)
    return frames


def spark_check_frames(
    movie: ndarray,
    matched_true: ndarray,
    matched_pred: ndarray,
    false_positive: ndarray,
    false_negative: ndarray,
) -> ndarray:
    """Mark spark locations by balls, (T, H, W, 3) uint8.

    Args:
        movie: (T, H, W) counts.
        matched_true, matched_pred, false_positive, false_negative: (N, 3) points (t, y, x).
    """
    frames = np.repeat(grey_movie(movie)[..., None], 3, axis=-1)
    marks = (
        (matched_true, (0, 255, 0), MATCHED_ALPHA),
        (matched_pred, (0, 255, 200), MATCHED_ALPHA),
        (false_positive, (255, 255, 0), BALL_ALPHA),
        (false_negative, (255, 0, 0), BALL_ALPHA),
    )
    for points, colour, alpha in marks:
        blend(frames, balls(movie.shape, points), colour, alpha)
    return frames


def balls(shape: tuple[int, int, int], points: ndarray) -> ndarray:
    """Return a mask (T, H, W) of balls of BALL_RADIUS voxels around points (N, 3)."""
    mask = np.zeros(shape, bool)
    for point in np.asarray(points).reshape(-1, 3):
        box = tuple(
            slice(max(0, math.ceil(p - BALL_RADIUS)), min(n, math.floor(p + BALL_RADIUS) + 1))
            for p, n in zip(point, shape, strict=True)
        )
        distance = sum((axis - p) ** 2 for axis, p in zip(np.ogrid[box], point, strict=True))
        mask[box] |= distance <= BALL_RADIUS**2
    return mask


def blend(frames: ndarray, mask: ndarray, colour: tuple[int, int, int], alpha: float) -> None:
    """Mix a colour into the voxels of a mask; changes ``frames`` (T, H, W, 3)."""
    if not mask.any():
        return
    mixed = (1 - alpha) * np.arange(256)[:, None] + alpha * np.array(colour)
    table = np.round(mixed).astype(np.uint8)  # (256, 3)
    for channel in range(3):
        values = frames[..., channel]
        values[mask] = table[:, channel][values[mask]]


def write_overlay(
    path: str | Path,
    movie: ndarray,
    classes: ndarray,
    *,
    calibration: Calibration,
    truth_classes: ndarray | None = None,
    **options: Any,
) -> Path:
    """Write a coloured overlay movie as .tif, .gif or .mp4.

    Args:
        path: file; its suffix decides.
        movie: (T, H, W) counts.
        classes: (T, H, W) class numbers.
        calibration: Calibration of the movie.
        truth_classes: (T, H, W) annotation, drawn as contours.
        options: every (1): keep every k-th frame; max_mb (None): skip more frames until a GIF fits.

    Returns:
        Path written; ``_every<k>`` is part of its name when frames are left out.
    """
    path = Path(path)
    frames = overlay_frames(movie, classes, truth_classes=truth_classes)
    scale = {"calibration": calibration}
    if path.suffix == ".tif":
        return write_stack(path, frames, **scale)
    return write_view(path, frames, note=truth_classes is not None, **scale, **options)


def write_view(
    path: Path,
    frames: ndarray,
    *,
    calibration: Calibration,
    every: int = 1,
    max_mb: float | None = None,
    **footer: bool,
) -> Path:
    """Write colour frames (T, H, W, 3) as GIF or MP4 with time, frame rate, scale bar and colours.

    ``footer``: legend (default True) names the class colours, note (False) contours and label 4.

    Pixels are repeated a whole number of times where the movie is narrow: a GIF of 96 columns shows
    nothing on a screen, and repeating changes no value.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"{path}: unknown kind of movie; expected .gif, .mp4 or .tif")
    zoom = max(1, math.ceil(VIEW_WIDTH / frames.shape[2]))
    while True:
        pace = pace_words(calibration.frame_ms, every)
        target = path if every == 1 else path.with_stem(f"{path.stem}_every{every}")
        pictures = (
            decorated(frames[t], t, zoom, calibration=calibration, pace=pace, **footer)
            for t in range(0, len(frames), every)
        )
        if path.suffix == ".mp4":
            return _write_mp4(target, pictures)
        _write_gif(target, pictures)
        if max_mb is None or target.stat().st_size <= max_mb * 1e6 or every >= len(frames):
            return target
        target.unlink()
        every += 1


def pace_words(frame_ms: float, every: int = 1) -> str:
    """Return how fast a film of every ``every``-th frame is played, beside the recording."""
    factor = PLAY_FPS * every * frame_ms / 1e3  # seconds of the recording in a second of the film
    if 0.95 < factor < 1.05:
        return f"played at {PLAY_FPS} pictures/s, as fast as recorded"
    times, word = (factor, "faster") if factor > 1 else (1 / factor, "slower")
    return f"played at {PLAY_FPS} pictures/s, {times:.3g} times {word} than recorded"


def decorated(
    frame: ndarray,
    t: int,
    zoom: int,
    *,
    calibration: Calibration,
    legend: bool = True,
    note: bool = False,
    pace: str = "",
) -> ndarray:
    """Return one picture with a footer, even in width and height, (h, w, 3) uint8."""
    pixel_um, frame_ms = calibration.pixel_um, calibration.frame_ms
    picture = frame if zoom == 1 else np.repeat(np.repeat(frame, zoom, axis=0), zoom, axis=1)
    height, width = picture.shape[:2]
    footer, clock_x = _footer(width, zoom, pixel_um, (legend, note), pace)
    canvas = np.zeros((height + FOOTER + height % 2, width + width % 2, 3), np.uint8)
    canvas[:height, :width] = picture
    canvas[height : height + FOOTER] = footer
    clock = f"frame {t}  {t * frame_ms:7.1f} ms  {1e3 / frame_ms:.1f} frames/s"
    line = np.zeros((FOOTER, canvas.shape[1] - clock_x), np.uint8)
    at = 0.0
    for letter in clock:
        glyph, advance = _glyph(letter)
        part = line[:, round(at) : round(at) + glyph.shape[1]]
        np.maximum(part, glyph[:, : part.shape[1]], out=part)
        at += advance
    place = canvas[height : height + FOOTER, clock_x:]
    np.maximum(place, line[..., None], out=place)
    return canvas


@functools.cache
def _glyph(letter):
    """Return (letter in white on black (FOOTER, w), its width in the line)."""
    image = Image.new("L", (FOOTER, FOOTER))
    draw = ImageDraw.Draw(image)
    draw.text((0, 3), letter, fill=255)
    advance = draw.textlength(letter)
    return np.asarray(image)[:, : math.ceil(advance) + 2], advance


@functools.lru_cache(maxsize=4)
def _footer(width, zoom, pixel_um, shown, pace):
    """Return what the footers of all frames share, (FOOTER, w, 3) uint8, and x of the clock.

    Kept for the next frame: drawing the same words again takes half of the time of a GIF.
    """
    legend, note = shown
    image = Image.new("RGB", (width + width % 2, FOOTER))
    draw = ImageDraw.Draw(image)
    fitting = [um for um in SCALE_BARS_UM if um / pixel_um * zoom <= width / 4]
    bar_um = fitting[-1] if fitting else SCALE_BARS_UM[0]
    bar = round(bar_um / pixel_um * zoom)
    draw.rectangle((4, 8, 4 + bar, 10), fill=(255, 255, 255))
    draw.text((10 + bar, 3), f"{bar_um} um", fill=(255, 255, 255))
    at = 4
    names = (*EVENT_CLASSES, *(("ignore",) if note else ())) if legend else ()
    for name in names:
        draw.rectangle((at, 21, at + 8, 29), fill=COLOURS[name])
        draw.text((at + 12, 19), name, fill=(255, 255, 255))
        at += 64
    if note:
        draw.text((at, 19), "lines: annotation", fill=(255, 255, 255))
    draw.text((4, 33), pace, fill=(255, 255, 255), font=ImageFont.load_default(11))
    return np.asarray(image), 70 + bar


def _write_gif(path, pictures):
    """Write a GIF with grey levels and class colours in one palette."""
    codes = [_colour_codes(picture) for picture in pictures]  # of a few bytes a pixel each
    used = np.zeros(GREY_LEVELS**3, bool)
    for code in codes:
        used[code] = True
    colours = np.flatnonzero(used)
    if len(colours) > 256:
        images = _quantised([_code_colours(code) for code in codes])
    else:  # exact, and without the search for the nearest colour
        place = np.zeros(len(used), np.uint8)
        place[colours] = np.arange(len(colours))
        table = _code_colours(colours).tobytes()
        images = []
        for code in codes:
            images.append(Image.fromarray(place[code]))
            images[-1].putpalette(table)
    with atomic_path(path) as temporary:
        images[0].save(
            temporary,
            save_all=True,
            append_images=images[1:],
            duration=1000 // PLAY_FPS,
            loop=0,
            disposal=1,
            optimize=False,  # the palette is exact; a second look at it doubles the time
        )
    return path


def _colour_codes(picture):
    """Return (h, w) uint16 numbers of the colours of (h, w, 3), GREY_LEVELS to each channel."""
    codes = CHANNEL_CODES[0][picture[..., 0]]
    codes += CHANNEL_CODES[1][picture[..., 1]]
    codes += CHANNEL_CODES[2][picture[..., 2]]
    return codes


def _code_colours(codes):
    """Return the colours (..., 3) uint8 of ``_colour_codes``."""
    parts = np.unravel_index(codes, (GREY_LEVELS,) * 3)
    return np.stack(parts, axis=-1).astype(np.uint8) * (256 // GREY_LEVELS)


def _quantised(pictures):
    """Return palette images of (h, w, 3) pictures that have more than 256 colours in all."""
    # Every third picture shows nearly every event; a palette for each picture takes far longer.
    palette = Image.fromarray(np.concatenate(pictures[::3])).quantize(PALETTE)
    return [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]


def _write_mp4(path, pictures):
    """Write an H.264 movie that browsers and QuickTime play."""
    first = next(pictures)
    with atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            first.shape[1::-1],
            fps=PLAY_FPS,
            codec="libx264",
            quality=7,
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        writer.send(np.ascontiguousarray(first))
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
        writer.close()
    return path
