"""What is wrong with the values of a recording: black, repeated and saturated parts, odd scales.

Nothing is repaired in the data; measurements leave such parts out and name them.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from common.files import InputError
from inputs.pages import extremes, frames_of
from settings.config import logger

DARK_SHARE = 0.5  # of the usual brightness and of the usual contrast: darker frames are black
PILE = 5  # values at the ceiling, at least, and
PILE_RATIO = 3.0  # so many times as many as at the values below it: clipped
PILE_LEVELS = 8  # values below the ceiling that are compared
FEW_BITS = 4095  # a larger value needs more than 12 bits
EMPTY = 0.05  # of the usual brightness: a frame of one value is black in a movie without noise
GRAIN = 0.02  # of the contrast of a frame: less from frame to frame is no noise
CENTRED = 0.05  # of the contrast of a frame: less is no brightness, the resting light is taken off
COARSE = 0.05  # dF/F0 of one step of the values from which on it is told
SAMPLE_FRAMES, SAMPLE_VALUES = 16, 2**20  # looked at for steps and noise
MOST_LEVELS = 4096  # a sample of more different floats has no steps
BLACK, REPEATED = 1, 2


@dataclass(frozen=True)
class MovieState:
    """Parts of a recording that say nothing about the cell.

    Attributes:
        frames: (T,) uint8: 0 good, 1 black, 2 equal to the frame before.
        ceiling: value at which the movie is clipped, or None.
        step: smallest difference between two values of the movie, or None.
        level: usual brightness above the offset, as far as one is known; None where values lie
            around it.
    """

    frames: np.ndarray
    ceiling: float | None = None
    step: float | None = None
    level: float | None = None

    @property
    def good(self) -> np.ndarray:
        """(T,) bool, frames that are neither black nor repeated."""
        return self.frames == 0

    @property
    def coarse(self) -> float | None:
        """DF/F0 of one step of the values at the usual brightness, where it is large, or None."""
        if not self.step or not self.level or self.level <= 0:
            return None
        return self.step / self.level if self.step > COARSE * self.level else None

    def part(self, frames: slice) -> "MovieState":
        """Return the state of some of the frames."""
        return dataclasses.replace(self, frames=self.frames[frames])


def look_at(movie: np.ndarray, offset: float | None = None) -> MovieState:
    """Return the state of a movie (T, H, W), looked at frame by frame.

    Args:
        movie: counts.
        offset: counts without light, or None.
    """
    n_frames = len(movie)
    mean, spread = np.empty(n_frames), np.empty(n_frames)
    frames = np.zeros(n_frames, np.uint8)
    before = None
    for t, frame in enumerate(frames_of(movie)):
        mean[t] = frame.mean(dtype=np.float64)
        spread[t] = frame.std(dtype=np.float64)
        if t and mean[t] == mean[t - 1] and np.array_equal(frame, before):
            frames[t] = REPEATED
        before = frame
    step = _step(movie)
    level = mean - min(offset or 0.0, float(np.median(mean)))
    usual, contrast = np.median(level), np.median(spread)
    dark = (level < DARK_SHARE * usual) & (spread < DARK_SHARE * contrast)
    if usual > 0 and contrast > 0:
        flat = (spread == 0) & (level < usual)
        odd = flat | (frames == REPEATED)
        if odd.any() and not _has_noise(movie, ~odd, step or 0.0):
            # without noise a cell at rest is the same in every frame, and may have one value
            frames[:] = 0
            flat &= level <= EMPTY * usual
            dark &= spread > 0
        frames[dark | flat] = BLACK
    if (frames > 0).sum() > n_frames // 2:
        frames[frames == REPEATED] = 0  # a made-up movie whose frames are all equal
    usual = float(usual) if n_frames and usual > CENTRED * contrast else None
    return MovieState(frames, _ceiling(movie), step, usual)


def _has_noise(movie, usual, step):
    """Return whether values jump from frame to frame where three usual frames follow each other.

    Values without noise that are cut to whole steps jump by up to two of them.
    """
    frames = 1 + np.flatnonzero(usual[:-2] & usual[1:-1] & usual[2:])
    grains = []
    for t in frames[:: max(1, len(frames) // SAMPLE_FRAMES)]:
        before, frame, after = np.asarray(movie[t - 1 : t + 2], np.float64)
        jumps = np.abs(before - 2 * frame + after)
        grains.append(np.median(jumps) > max(GRAIN * frame.std(), 2 * step))
    return not grains or float(np.mean(grains)) >= 0.5


def _step(movie):
    """Return the smallest difference between two values of a sample of a movie, or None."""
    if not movie.size:
        return None
    part = movie[:: max(1, len(movie) // SAMPLE_FRAMES)]
    levels = np.unique(part[:, :: max(1, part.size // SAMPLE_VALUES)])
    if len(levels) < 2 or (movie.dtype.kind == "f" and len(levels) > MOST_LEVELS):
        return None
    gaps = np.diff(levels.astype(np.float64))
    gaps = gaps[gaps > 1e-6 * np.abs(levels).max()]
    return float(gaps.min()) if gaps.size else None


def _ceiling(movie):
    """Return the value at which a movie is clipped, or None.

    Clipped values pile up at the largest one: more often than at each of those just below it.
    """
    if not movie.size:
        return None
    lowest, highest = extremes(movie)
    if highest <= lowest:
        return None
    at_top = sum(int(np.count_nonzero(frame == highest)) for frame in frames_of(movie))
    if at_top < PILE:
        return None
    below = []
    for frame in frames_of(movie):
        below.append(np.unique(frame[frame < highest])[-PILE_LEVELS:])
    levels = np.unique(np.concatenate(below))[-PILE_LEVELS:]
    counts = [
        sum(int(np.count_nonzero(frame == one)) for frame in frames_of(movie)) for one in levels
    ]
    return float(highest) if len(levels) > 3 and at_top > PILE_RATIO * max(counts) else None


def tell_state(
    source: object, movie: np.ndarray, state: MovieState, offset: float | None = None
) -> None:
    """Warn about what the state of a movie means; refuse an offset above its values.

    Args:
        source: named in the messages.
        movie: (T, H, W) counts.
        state: of ``look_at``.
        offset: counts without light that the user gave, or None.
    """
    for kind, word in ((BLACK, "black"), (REPEATED, "equal to the frame before")):
        at = np.flatnonzero(state.frames == kind)
        if len(at):
            logger.warning(
                "%s: %d frames are %s (%s); they are left out of F0 and of every measurement",
                *(source, len(at), word, frame_list(at)),
            )
    if state.ceiling is not None:
        logger.warning(
            "%s: values are clipped at %g: amplitudes of events that reach it are lower bounds",
            *(source, state.ceiling),
        )
    if state.coarse:
        logger.warning(
            "%s: few grey levels: one step of %g at a brightness of %.3g is %.2g dF/F0; amplitudes "
            "may be off by as much where values were cut to whole steps (an 8-bit export): export "
            "the movie with all its bits",
            *(source, state.step, state.level, state.coarse),
        )
    real = movie.dtype.kind == "f" and movie.size
    lowest, highest = extremes(movie) if real else (None, None)
    if real and lowest < 0 and state.level is None:
        logger.warning(
            "%s: values from %.4g to %.4g lie around 0: the resting light was subtracted or values "
            "were normalised, and dF/F0 has no meaning; give the movie in counts",
            *(source, float(lowest), float(highest)),
        )
    elif real and highest <= 1.0:
        logger.warning(
            "%s: float values up to %.4g are no camera counts; dF/F0 is right only where 0 is no "
            "light (give --offset otherwise)",
            *(source, float(highest)),
        )
    mean = np.nan
    if offset is not None and movie.size:
        mean = float(np.mean([frame.mean(dtype=np.float64) for frame in frames_of(movie)]))
    if offset is not None and offset >= mean:
        raise InputError(
            f"{source}: --offset {offset:g}: the movie's mean is {mean:.6g} counts; "
            "expected the counts of the detector without light, which lie below"
        )


def state_words(state: MovieState) -> str:
    """Return what is wrong with the values of a recording in a few words, or an empty text."""
    words = []
    for kind, word in ((BLACK, "black"), (REPEATED, "repeated")):
        at = np.flatnonzero(state.frames == kind)
        if len(at):
            words.append(f"{len(at)} {word} frames ({frame_list(at)})")
    if state.ceiling is not None:
        words.append(f"clipped at {state.ceiling:g}")
    if state.coarse:
        words.append(f"few grey levels: one step is {state.coarse:.2g} dF/F0")
    return "; ".join(words)


def filled(movie: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return a movie (T, H, W) in which bad frames show the nearest good one, for detection."""
    if good.all() or not good.any():
        return movie
    at, frames = np.flatnonzero(good), np.arange(len(movie))
    nearest = at[np.abs(frames[:, None] - at).argmin(axis=1)]
    return movie[nearest]


def frame_list(frames: np.ndarray, limit: int = 4) -> str:
    """Return frame numbers as text, runs as first to last: ``8 to 11, 40``."""
    breaks = np.flatnonzero(np.diff(frames) > 1) + 1
    runs = np.split(np.asarray(frames), breaks)
    shown = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:limit]]
    return ", ".join(shown) + (f" and {len(runs) - limit} more" if len(runs) > limit else "")


def level_floor(movie: np.ndarray) -> float:
    """Return the smallest F0 above background that dF/F0 is divided by.

    One count for integers; in a movie of floats a thousandth of its range where that is less.
    """
    if movie.dtype.kind != "f":
        return 1.0
    low, high = extremes(movie)
    return min(1.0, 1e-3 * float(high - low)) or 1.0


def told_bits(source: object, movie: np.ndarray, full_scale: float) -> None:
    """Warn where ``abs_max`` makes the network's input small: the movie has few bits.

    Args:
        source: named in the message.
        movie: (T, H, W) counts.
        full_scale: value that becomes 1.
    """
    highest = float(extremes(movie)[1])
    bits = FEW_BITS if movie.dtype != np.uint8 else 255
    if 1.0 < highest <= bits < full_scale:
        logger.warning(
            "%s: largest value %g; norm_video = abs_max divides by %g, so the network sees at most "
            "%.2g instead of about 1: export 16 bits, or give --set dataset.full_scale=%d",
            *(source, highest, full_scale, highest / full_scale, bits),
        )
