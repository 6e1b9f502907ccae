"""Take one of several channels, correct by a second one, or cut a part out, block by block.

Letters: F frames, H x W pixels.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from common.files import InputError
from inputs.movie import Movie
from inputs.scales import Known, Scales
from settings import RunSettings


def changed(movie: Movie, given: RunSettings) -> Movie:
    """Return ``movie`` with the channel, haemodynamic and crop of the settings applied."""
    channel = parse_channel(given.channel, movie)
    if given.haemodynamic:
        movie = corrected(movie, channel or (1, 2), given.haemodynamic)
    elif channel is not None:
        movie = one_channel(movie, *channel)
    elif movie.channels > 1:
        raise InputError(
            f"{movie.path}: found {movie.channels} channels whose frames follow each other,"
            f" expected one; take one with --channel 1/{movie.channels}"
            + (", or --haemodynamic ratio or regress" if movie.channels == 2 else "")
        )
    return cropped(movie, given.crop) if given.crop else movie


def parse_channel(text: str, movie: Movie) -> tuple[int, int] | None:
    """Return (k, n) of "k/n", the k-th (from 1) of n channels, or None without a text."""
    if not text:
        return None
    parts = text.split("/")
    numbers = [int(part) for part in parts if part.strip().isdigit()]
    if len(parts) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise InputError(f"--channel: found {text!r}, expected k/n, such as 1/2")
    if movie.channels > 1 and numbers[1] != movie.channels:
        raise InputError(
            f"{movie.path}: --channel {text}: found {movie.channels} channels, expected"
            f" k/{movie.channels}"
        )
    return numbers[0], numbers[1]


def every(blocks: Iterator[np.ndarray], first: int, step: int) -> Iterator[np.ndarray]:
    """Yield frames first, first + step, ... of the blocks."""
    seen = 0
    for block in blocks:
        chosen = block[(first - seen) % step :: step]
        seen += len(block)
        if len(chosen):
            yield chosen


def channel_scales(movie: Movie, first: int, step: int) -> Scales:
    """Return the Scales of every ``step``-th frame.

    A file that tells of its channels tells the rate of one; the camera of another counts all.
    """
    scales = movie.scales
    if movie.channels == 1 and scales.rate_hz.value:
        rate = scales.rate_hz
        origin = f"{rate.origin}, {step} channels in turn"
        scales = replace(scales, rate_hz=Known(rate.value / step, origin))
    times = scales.frame_times_s
    if times.value is not None and len(times.value) == movie.n_frames:
        scales = replace(scales, frame_times_s=Known(times.value[first::step], times.origin))
    return scales


def one_channel(movie: Movie, number: int, count: int) -> Movie:
    """Return the movie of channel ``number`` (from 1) of ``count`` that follow each other."""
    first = number - 1
    frames = None if movie.n_frames is None else len(range(first, movie.n_frames, count))
    if frames == 0:
        raise InputError(
            f"{movie.path}: --channel {number}/{count}: found {movie.n_frames} frames, expected at"
            f" least {number}"
        )
    return replace(
        movie, n_frames=frames, channels=1, scales=channel_scales(movie, first, count), mapped=None,
        read_blocks=lambda: every(movie.blocks(), first, count),
    )  # fmt: skip


def pairs(movie: Movie, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (signal, reference), each (b, H, W) float64, of frames in pairs; an odd last one drops.

    ``number`` (1 or 2) is the place of the signal in a pair.
    """
    waiting = np.empty((0, movie.height, movie.width))
    for block in movie.blocks():
        frames = np.concatenate((waiting, block))
        count = len(frames) // 2 * 2
        waiting = frames[count:]
        if count:
            yield frames[number - 1 : count : 2], frames[2 - number : count : 2]


def corrected(movie: Movie, channel: tuple[int, int], kind: str) -> Movie:
    """Return the signal channel of a pair (470 and 405 nm) without what the blood adds to it.

    Args:
        channel: (place of the signal, 2).
        kind: "ratio" divides by the reference over its mean; "regress" fits dF/F of the reference
            to dF/F of the signal in every pixel, over the record, and subtracts it. The result
            stays fluorescence: its mean is that of the signal.
    """
    number, count = channel
    if count != 2:
        raise InputError(
            f"--haemodynamic: found --channel {number}/{count}, expected 1/2 or 2/2: signal and"
            " reference in turn"
        )
    frames = None if movie.n_frames is None else movie.n_frames // 2
    if frames == 0:
        raise InputError(f"{movie.path}: --haemodynamic: found one frame, expected pairs")

    def blocks():
        mean, other, slope = pair_statistics(movie, number)
        with np.errstate(divide="ignore", invalid="ignore"):
            for signal, reference in pairs(movie, number):
                if kind == "ratio":
                    yield (signal / (reference / other)).astype(np.float32)
                else:
                    change = signal / mean - slope * (reference / other - 1)
                    yield np.where(mean == 0, 0, mean * change).astype(np.float32)

    return replace(
        movie, n_frames=frames, channels=1, dtype=np.dtype(np.float32), read_blocks=blocks,
        scales=channel_scales(movie, number - 1, 2), mapped=None,
    )  # fmt: skip


def pair_statistics(movie: Movie, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean of signal and reference, and slope of dF/F on dF/F, each (H, W)."""
    count, sums, start = 0, np.zeros((4, movie.height, movie.width)), None
    for signal, reference in pairs(movie, number):
        if start is None:
            start = signal[0].copy(), reference[0].copy()  # sums of squares stay small
        near, far = signal - start[0], reference - start[1]
        sums += [near.sum(0), far.sum(0), (near * far).sum(0), (far * far).sum(0)]
        count += len(signal)
    first, second, product, square = sums / count
    mean, other = start[0] + first, start[1] + second
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (product - first * second) / (square - second**2) * other / mean
    return mean, other, np.where(np.isfinite(slope), slope, 0)


def cropped(movie: Movie, text: str) -> Movie:
    """Return the part "top,left,height,width" of the field."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise InputError(f"--crop: found {text!r}, expected top,left,height,width in pixels")
    top, left, height, width = (int(part) for part in parts)
    if not (height and width and top + height <= movie.height and left + width <= movie.width):
        raise InputError(
            f"{movie.path}: --crop {text}: expected a part of the {movie.height} x {movie.width}"
            " image"
        )

    def blocks():
        for block in movie.blocks():
            yield block[:, top : top + height, left : left + width]

    return replace(movie, height=height, width=width, read_blocks=blocks, mapped=None)
