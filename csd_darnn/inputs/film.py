"""A movie made fit for use block by block: pixels without data, frames without a picture, axes.

The same rules hold for a recording in memory (reading.py); here nothing but single blocks, and one
number a frame or pixel, lies in memory.

Letters: F frames, K pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.files import InputError
from inputs.movie import Movie
from inputs.scales import UNKNOWN, Known, Scales, check_times_fit, give
from settings import RunSettings

LEAST_PIXELS = 9  # with fewer pixels equal ones are no sign of a missing picture
RARE = 0.01  # share of the pixels of other frames that may reach the level of a bad one
LEAST_FRAMES = 20  # with fewer frames alternating brightness tells nothing
REPEATS = "frames repeat the one before"
IN_TURN = 5.0  # times that neighbouring frames differ more than next but one neighbours
Passes = Callable[[], Iterable[np.ndarray]]  # starts a new pass over blocks (b, K)


@dataclass(frozen=True)
class Film:
    """A movie with complete scales, and its frames as floats.

    Attributes:
        movie: as opened; its ``scales`` are those of the file.
        n_frames: number of frames.
        scales: with what was given, the mask and the bad frames.
    """

    movie: Movie
    n_frames: int
    scales: Scales

    @property
    def size(self) -> tuple[int, int, int]:
        """Return (F, H, W)."""
        return self.n_frames, self.movie.height, self.movie.width

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield frames (b, H, W) as floats: 0 outside the mask, bad frames filled."""
        mask, bad = self.scales.mask.value, self.scales.bad_frames.value
        blocks = (as_float(block) for block in self.movie.blocks())
        if mask is not None:
            blocks = (np.where(mask, block, block.dtype.type(0)) for block in blocks)
        return filled(blocks, bad) if bad is not None and len(bad) else blocks

    def words(self) -> str:
        """Return in one line what the movie holds and what its numbers mean."""
        n_frames, height, width = self.size
        return (
            f"{self.movie.path.name}: {n_frames} frames of {height} x {width} pixels;"
            f" {self.scales.words()}"
        )


@dataclass
class Overview:
    """One number a frame.

    Attributes:
        low, high, mean: (F,) least, highest and mean value of the pixels with data.
        same: (F,) bool, equal to the frame before in every pixel.
        first_bad: (frame, pixel, value) of the first value that is not finite, or None.
        n_bad: how many such values there are.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    same: np.ndarray
    first_bad: tuple[int, int, float] | None
    n_bad: int


def with_bar(blocks: Iterable[np.ndarray], n_frames: int | None, what: str) -> Iterator[np.ndarray]:
    """Yield blocks behind a bar that counts frames; quiet where the output is no terminal."""
    with tqdm(total=n_frames, desc=what, unit="frame", disable=None) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))


def as_float(array: np.ndarray) -> np.ndarray:
    """Return ``array`` as float32 when that holds its values exactly, else as float64."""
    return np.asarray(array, dtype=np.result_type(array.dtype, np.float32))


def open_film(movie: Movie, given: RunSettings | None = None) -> Film:
    """Look through a movie and return its Film: scales, pixels and frames without data.

    Raises:
        InputError: values that are not finite, frames of channels in turn, times that do not fit.
    """

    def passes():
        return (block.reshape(len(block), -1) for block in movie.blocks())

    shape, scales = (movie.height, movie.width), movie.scales
    if given is not None:
        scales = give(scales, given, movie.path, shape)
    if scales.mask.value is None:
        scales = replace(scales, mask=find_mask(passes, shape))
    seen = look_over(passes, scales.mask.value)
    if seen.n_bad:
        raise not_finite(movie.path, seen, shape)
    wanted = given.bad_frames if given is not None else ""
    if scales.bad_frames.value is None:
        scales = replace(
            scales, bad_frames=find_bad_frames(passes, scales.mask.value, seen, wanted)
        )
    scales = with_repeats(scales, seen)
    check_bad_frames(scales.bad_frames.value, len(seen.mean), movie.path)
    check_times_fit(scales, len(seen.mean), movie.path)
    if given is None or not given.channel:
        check_in_turn(seen.mean, scales.bad_frames.value, movie.path)
    return Film(movie, len(seen.mean), scales)


def find_mask(passes: Passes, shape: tuple[int, int]) -> Known:
    """Return the mask (H, W) of pixels that hold data: not NaN, or not 0, in every frame."""
    n_pixels, empty = shape[0] * shape[1], None
    for block in passes():
        block = block[:, :n_pixels]
        if empty is None:
            empty = np.flatnonzero(np.isnan(block[0]) | (block[0] == 0))
        some = block[:, empty]
        empty = empty[(np.isnan(some) | (some == 0)).all(axis=0)]
        if not len(empty):
            return UNKNOWN
    if empty is None or len(empty) == n_pixels:
        return UNKNOWN
    mask = np.ones(shape, bool)
    mask.flat[empty] = False
    return Known(mask, "file: the others are 0 or NaN throughout")


def look_over(passes: Passes, mask: np.ndarray | None = None) -> Overview:
    """Return the Overview of the pixels of ``mask`` (all without one)."""
    inside = None if mask is None else np.flatnonzero(mask.ravel())
    rows, before, n_bad, first_bad, seen = [], None, 0, None, 0
    for block in passes():
        shown = block if inside is None else block[:, inside]
        faulty = None if shown.dtype.kind != "f" else ~np.isfinite(shown)
        if faulty is not None and faulty.any():
            if first_bad is None:
                row, place = np.argwhere(faulty)[0]
                pixel = int(place) if inside is None else int(inside[place])
                first_bad = seen + int(row), pixel, float(shown[row, place])
            n_bad += int(faulty.sum())
        earlier = np.concatenate((shown[:1] if before is None else before, shown[:-1]))
        same = (shown == earlier).all(axis=1)
        if before is None:
            same[0] = False
        rows.append((shown.min(axis=1), shown.max(axis=1), shown.mean(axis=1, dtype=float), same))
        before, seen = shown[-1:].copy(), seen + len(block)
    return Overview(*(np.concatenate(parts) for parts in zip(*rows, strict=True)), first_bad, n_bad)


def find_bad_frames(
    passes: Passes, mask: np.ndarray | None, seen: Overview, wanted: str = ""
) -> Known:
    """Return the frames of one colour that hardly any pixel of the other frames reaches.

    So a frame of 0 in a movie of photon counts, where 0 is common, is a frame like any other. With
    ``wanted`` "auto" frames that repeat the one before count, too.
    """
    inside = None if mask is None else np.flatnonzero(mask.ravel())
    flat = np.flatnonzero(seen.low == seen.high)
    flat = flat[np.isfinite(seen.low[flat])]  # what is no number is refused, not filled
    bad, why = np.array([], int), []
    n_frames = len(seen.mean)
    if len(flat) and 2 * len(flat) <= n_frames:
        levels = dict.fromkeys(np.unique(seen.low[flat]), (0, 0))
        count, start = 0, 0
        for block in passes():
            shown = block if inside is None else block[:, inside]
            if shown.shape[1] < LEAST_PIXELS:
                return UNKNOWN
            others = np.delete(
                shown, flat[(flat >= start) & (flat < start + len(block))] - start, 0
            )
            levels = {
                level: (below + (others <= level).sum(), above + (others >= level).sum())
                for level, (below, above) in levels.items()
            }
            count, start = count + others.size, start + len(block)
        rare = [level for level, sums in levels.items() if min(sums) < RARE * count]
        bad = flat[np.isin(seen.low[flat], rare)]
        if len(bad):
            why.append("all pixels are equal")
    if wanted == "auto":
        again = np.setdiff1d(np.flatnonzero(seen.same), bad)
        if len(again):
            bad, why = np.union1d(bad, again), [*why, "equal to the frame before"]
        return Known(bad, f"auto: {' or '.join(why) or 'none found'}")
    return Known(bad, f"file: {why[0]}") if len(bad) else UNKNOWN


def with_repeats(scales: Scales, seen: Overview) -> Scales:
    """Return ``scales`` with a note on frames that repeat the one before and are not filled.

    A camera or a grabber that is late hands out the same frame again.
    """
    bad = scales.bad_frames.value
    again = np.setdiff1d(np.flatnonzero(seen.same), [] if bad is None else bad)
    if not 0 < len(again) <= len(seen.same) // 2 or REPEATS in scales.note:
        return scales
    some = ", ".join(str(frame) for frame in again[:5]) + (", ..." if len(again) > 5 else "")
    told = f"{len(again)} {REPEATS} ({some}; --bad_frames auto fills them)"
    return replace(scales, note="; ".join(part for part in (scales.note, told) if part))


def check_bad_frames(frames: np.ndarray | None, n_frames: int, source: str | Path) -> None:
    """Refuse frame numbers that the recording does not have, or that leave none."""
    if frames is None or not len(frames):
        return
    if not (frames.min() >= 0 and frames.max() < n_frames):
        raise InputError(f"{source}: found bad frame {frames.max()}, expected 0 to {n_frames - 1}")
    if len(frames) == n_frames:
        raise InputError(f"{source}: all {n_frames} frames are bad, expected some that are not")


def check_in_turn(mean: np.ndarray, bad: np.ndarray | None, source: str | Path) -> None:
    """Ask which channel is meant when bright and dark frames follow each other in turn."""
    mean = np.delete(mean, [] if bad is None else bad)
    if len(mean) < LEAST_FRAMES:
        return
    step, skip = np.diff(mean), np.abs(mean[2:] - mean[:-2])
    turns = (np.sign(step[1:]) == -np.sign(step[:-1])).mean()
    if turns > 0.98 and np.median(np.abs(step)) > IN_TURN * np.median(skip):
        raise InputError(
            f"{source}: found frames that are brighter and darker in turn"
            f" ({np.median(mean[0::2]):.4g} and {np.median(mean[1::2]):.4g}), expected one channel:"
            " are there two? --channel 1/2 or 2/2 takes one, --haemodynamic ratio or regress"
            " corrects the first by the second, --channel 1/1 takes all frames as they are"
        )


def not_finite(source: str | Path, seen: Overview, shape: tuple[int, int]) -> InputError:
    """Return the error that names the first value that is NaN or infinite."""
    frame, pixel, value = seen.first_bad
    row, column = divmod(pixel, shape[1])
    return InputError(
        f"{source}: found {seen.n_bad} values that are NaN or infinite, first in frame {frame},"
        f" pixel row {row}, column {column} ({value}), expected finite numbers; replace them, leave"
        " the pixels out with --mask or --crop, or the frames with --bad_frames"
    )


def filled(blocks: Iterable[np.ndarray], bad: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks with the frames ``bad`` filled linearly from the nearest other frames."""
    wanted, start = set(bad.tolist()), 0
    before, waiting = None, 0  # the last good frame, and how many bad ones have followed it
    for block in blocks:
        out = []
        for number, frame in enumerate(block, start=start):
            if number in wanted:
                waiting += 1
                continue
            first = frame if before is None else before
            for step in range(1, waiting + 1):
                out.append(first + step / (waiting + 1) * (frame - first))
            out.append(frame)
            before, waiting = frame, 0
        start += len(block)
        if out:
            before = before.copy()
            yield np.stack(out).astype(block.dtype)
    if waiting:
        yield np.stack([before] * waiting)
