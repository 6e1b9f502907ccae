"""Read AVI, MP4, MOV, MKV and GIF; their rates are playback rates, their uneven times a clock.

Source: specification, sections 4.2 and 5.1.
"""

import contextlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageSequence

from common.files import InputError
from inputs.file_scales import playback, uneven_times
from inputs.movie import Movie, frames_per_block, native, to_gray
from inputs.scales import Scales
from inputs.video_sizes import check_whole

CHECKSUMS = ("ffv1",)  # codecs whose pictures carry one
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
    if meta["codec"].rstrip(",") in CHECKSUMS:
        check_pictures(path)
    decoded = decoded_as(meta["pix_fmt"], path)
    depth, channels = decoded.dtype, decoded.channels
    width, height = meta["size"]
    if abs(int(meta.get("rotate") or 0)) % 180 == 90 and meta["size"] == meta["source_size"]:
        width, height = height, width  # ffmpeg turns the pictures as the file asks
    # The container tells the length of a file whose end is missing: compare after decoding.
    told = meta["duration"] * meta["fps"]
    times = presentation_times(path)

    def blocks():
        frames = start(decoded.pixel_format, 8 * depth.itemsize * channels)
        next(frames)
        step, seen, held = frames_per_block(height, width, 6), 0, []
        shape = (height, width, channels)

        def block():
            stack = np.stack(held)
            return to_gray(decoded.counts(native(stack)), path, gray)  # (b, H, W)

        with contextlib.closing(frames):
            for raw in frames:
                held.append(np.frombuffer(raw, depth).reshape(shape))
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

    dtype = np.dtype(np.float32) if gray and channels == 3 else depth.newbyteorder("=")
    scales = video_scales(times, meta["fps"], "presentation times")
    return Movie(path, None, height, width, dtype, blocks, scales)


@dataclass(frozen=True)
class Decoded:
    """How a video is decoded so that none of its bits is lost.

    Attributes:
        pixel_format: what ffmpeg is asked for.
        dtype: of one value in it.
        channels: 1 (gray) or 3 (red, green, blue).
        bits: of a value in the file; what ffmpeg spreads over 16 bits is brought back to them.
    """

    pixel_format: str
    dtype: np.dtype
    channels: int
    bits: int

    def counts(self, stack: np.ndarray) -> np.ndarray:
        """Return the decoded values in the counts of the file, 0 to 2^bits - 1."""
        if self.channels == 1 or self.bits == 8 * self.dtype.itemsize:
            return stack
        return np.round(stack * ((2**self.bits - 1) / 65535)).astype(stack.dtype)


def decoded_as(told: str, path: Path) -> Decoded:
    """Return how to decode pixels that ffmpeg calls ``told``, such as `gray10le(pc, progressive)`.

    Names that end with a byte order hold more than 8 bits a channel.

    Raises:
        InputError: the pixels are floating-point numbers, which no integer type holds.
    """
    name = told.partition("(")[0].strip()
    if "f32" in name or "f16" in name:
        raise InputError(
            f"{path}: found floating-point pixels ({name}), expected whole numbers; export a TIFF"
        )
    two = np.dtype("<u2")
    bits = int((re.search(r"(9|10|12|14|16)[lb]e$", name) or [0, 16])[1])
    if re.fullmatch(r"gray\d+[lb]e", name):
        return Decoded(f"gray{bits}le", two, 1, bits)
    packed = re.match(r"(rgb|bgr)[45]\d\d[lb]e", name)  # 12 to 16 bits a pixel, not a channel
    if name.endswith(("le", "be")) and not packed:
        return Decoded("rgb48le", two, 3, bits)
    return Decoded("rgb24", np.dtype(np.uint8), 3, 8)


def check_pictures(path: Path) -> None:
    """Raise InputError when the decoder complains about a picture.

    It guesses a picture whose checksum is wrong, ends well, and tells so only in words.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", "0:v:0",
               "-f", "null", "-"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if complaints := done.stderr.splitlines():
        words = complaints[0].rpartition("] ")[2]
        raise InputError(f"{path}: a picture is damaged ({words}); copy or export the file again")


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
