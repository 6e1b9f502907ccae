"""Read AVI, MP4, MOV, MKV and GIF; their rates are playback rates, their uneven times a clock.

Source: specification, sections 4.2 and 5.1.
"""

import contextlib
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageSequence

from common.files import InputError
from inputs.file_scales import playback, uneven_times
from inputs.movie import Movie, frames_per_block, native, to_gray
from inputs.scales import Scales
from inputs.video_sizes import check_whole

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".wmv", ".webm")


def open_video(path: Path, gray: bool) -> Movie:
    """Open a video with the ffmpeg that imageio-ffmpeg brings along."""
    check_whole(path)

    def start(pixel_format, bits):
        # passthrough: a variable frame rate must not make ffmpeg repeat or drop frames.
        return imageio_ffmpeg.read_frames(
            str(path),
            pix_fmt=pixel_format,
            bits_per_pixel=bits,
            output_params=["-fps_mode", "passthrough"],
        )

    probe = start("rgb24", 24)
    meta = next(probe)
    probe.close()
    deep = any(f"gray{bits}" in meta["pix_fmt"] for bits in (9, 10, 12, 14, 16))
    width, height = meta["size"]
    if abs(int(meta.get("rotate") or 0)) % 180 == 90 and meta["size"] == meta["source_size"]:
        width, height = height, width  # ffmpeg turns the pictures as the file asks
    # The container tells the length of a file whose end is missing: compare after decoding.
    told = meta["duration"] * meta["fps"]
    times = presentation_times(path)

    def blocks():
        frames = start("gray16le", 16) if deep else start("rgb24", 24)
        next(frames)
        step, seen, held = frames_per_block(height, width, 6), 0, []
        shape = (height, width) if deep else (height, width, 3)

        def block():
            stack = np.stack(held)
            return native(stack) if deep else to_gray(stack, path, gray)  # (b, H, W)

        with contextlib.closing(frames):
            for raw in frames:
                held.append(np.frombuffer(raw, "<u2" if deep else np.uint8).reshape(shape))
                seen += 1
                if len(held) == step:
                    yield block()
                    held = []
        if held:
            yield block()
        if seen < told - 1.5 and (times is None or seen < len(times)):
            raise InputError(
                f"{path}: found {seen} frames, expected about {told:.0f} (duration in its header): "
                "the file is cut; copy or export it again"
            )

    dtype = np.uint16 if deep else (np.float32 if gray else np.uint8)
    scales = video_scales(times, meta["fps"], "presentation times")
    return Movie(path, None, height, width, np.dtype(dtype), blocks, scales)


def presentation_times(path: Path) -> np.ndarray | None:
    """Return the time in s at which each frame of a video is shown, or None.

    Packets are only listed, not decoded.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", "0:v:0",
               "-c", "copy", "-f", "framecrc", "-"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ticks, unit = [], None
    for line in done.stdout.splitlines():
        if line.startswith("#tb 0:"):
            top, _, bottom = line.removeprefix("#tb 0:").strip().partition("/")
            unit = int(top) / int(bottom)
        elif not line.startswith("#"):
            cells = line.split(",")
            if len(cells) > 2 and cells[2].strip().lstrip("-").isdigit():
                ticks.append(int(cells[2]))
    if unit is None or len(ticks) < 2:
        return None
    times = np.sort(np.array(ticks, float)) * unit
    return times - times[0]


def video_scales(times: np.ndarray | None, rate_hz: float, tag: str) -> Scales:
    """Return the Scales of a video: uneven times are a clock, an even rate is one of playback."""
    uneven = None if times is None else uneven_times(times, tag)
    return playback(rate_hz) if uneven is None else uneven


def open_gif(path: Path, gray: bool) -> Movie:
    """Open a GIF of gray frames."""
    if path.read_bytes()[-1:] != b";":
        # A GIF ends with one semicolon; Pillow reads a cut file as a shorter movie.
        raise InputError(f"{path}: the GIF has no end mark: the file is cut; copy it again")
    with Image.open(path) as image:
        width, height = image.size
        n_frames = image.n_frames
        delays = np.array(
            [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(image)]
        )

    def blocks():
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield to_gray(np.asarray(frame.convert("RGB"))[None], path, gray)  # (1, H, W)

    dtype = np.dtype(np.float32 if gray else np.uint8)
    times = np.concatenate(([0.0], np.cumsum(delays[:-1]))) / 1000
    rate_hz = 1000 / delays[0] if delays[0] else 0.0
    scales = video_scales(times if (delays[:-1] > 0).all() else None, rate_hz, "frame durations")
    return Movie(path, n_frames, height, width, dtype, blocks, scales)
