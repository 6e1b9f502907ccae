"""Time axes on the ticks of the model: what a movie shows at each tick, where samples fall.

Tick k begins k / rate seconds after the stimulus onset and lasts 1 / rate. Recordings and movies
keep time axes of their own; here they are placed by time. Letters: T ticks or frames.
"""

import math
from collections.abc import Iterable, Iterator

import torch

from common.files import InputError

TOLERANCE_S = 1e-4  # a time written as float32, or rounded, is still the tick it means
SLOWEST_S = 2.0  # a longer median step is no time axis in seconds
LONGEST_HOLD_S = 0.25  # a longer gap in a movie's axis is no dropped frame
LONGEST_HOLD_STEPS = 4.0
WHOLE = 0.999  # a frame of this share of a tick counts as a whole one


def axis_fault(t_axis: torch.Tensor) -> str | None:
    """Return what is wrong with a time axis (T,), or None: finite seconds that rise."""
    if t_axis.ndim != 1 or not len(t_axis) or not torch.isfinite(t_axis).all():
        return "t_axis must be a list of finite seconds"
    steps = torch.diff(t_axis.double())
    if len(steps) and float(steps.min()) <= 0:
        i = int((steps <= 0).nonzero()[0])
        return (
            f"t_axis does not rise: {float(t_axis[i]):g} s, then {float(t_axis[i + 1]):g} s "
            f"(entries {i} and {i + 1}); sort it, or repair the clock"
        )
    if len(steps) and float(steps.median()) > SLOWEST_S:
        return (
            f"t_axis runs in steps of {float(steps.median()):g}; expected seconds "
            "(divide milliseconds by 1000)"
        )
    return None


def rate_of(t_axis: torch.Tensor) -> float | None:
    """Return the samples per second of a rising axis (median step), or None for one sample.

    Float32 seconds differ in their last digits: four are kept.
    """
    if len(t_axis) < 2:
        return None
    return float(f"{1.0 / float(torch.diff(t_axis.double()).median()):.4g}")


def on_grid(t_axis: torch.Tensor, rate_hz: float, start_s: float | None = None) -> bool:
    """Return whether every sample lies within half a tick of its place on a regular grid.

    Args:
        t_axis: (T,) seconds.
        rate_hz: of the grid.
        start_s: time of its first place; None is the axis's own first time.
    """
    seconds = t_axis.double()
    first = float(seconds[0]) if start_s is None else start_s
    places = first + torch.arange(len(seconds), dtype=torch.float64) / rate_hz
    return bool(((seconds - places).abs() * rate_hz < 0.5).all())


def sample_ticks(t_axis: torch.Tensor, rate_hz: float | None) -> torch.Tensor:
    """Return the tick of each sample (T,) int64, 0 at stimulus onset, negative before it.

    Faithful: on an axis at the model's own rate each sample is a tick, and the onset is the last
    sample at or before 0 s. Other axes fall on the nearest ticks.
    """
    if rate_hz is None or on_grid(t_axis, rate_hz):
        before = int((t_axis <= TOLERANCE_S).sum()) - 1
        if before >= 0:
            return torch.arange(len(t_axis)) - before
        rate_hz = rate_hz or rate_of(t_axis) or 1.0
    return torch.round(t_axis.double() * rate_hz).long()


def hold_fault(t_axis: torch.Tensor) -> str | None:
    """Return what is wrong with the gaps of a movie's axis (T,), or None.

    A screen goes on showing its last frame when one is dropped; what it shows during a long gap
    nobody knows.
    """
    steps = torch.diff(t_axis.double())
    if not len(steps):
        return None
    limit = max(LONGEST_HOLD_S, LONGEST_HOLD_STEPS * float(steps.median()))
    i = int(steps.argmax())
    if float(steps[i]) <= limit:
        return None
    return (
        f"t_axis has a gap of {float(steps[i]):.3g} s after frame {i} ({float(t_axis[i]):.3f} s), "
        "and what the screen showed meanwhile is unknown; add the frames that were shown"
    )


def check_overlap(movie: range, item: range, onset: int, rate_hz: float) -> None:
    """Refuse a movie that nobody was recorded on: its ticks all lie before or after the item's.

    Args:
        movie, item: ticks from first to last, on one clock.
        onset: tick of the stimulus onset on that clock.
        rate_hz: ticks per second.
    """
    if movie.start < item.stop and item.start < movie.stop:
        return
    shown, recorded = (
        f"{(ticks.start - onset) / rate_hz:.3g} to {(ticks.stop - onset) / rate_hz:.3g} s"
        for ticks in (movie, item)
    )
    raise InputError(
        f"its movie runs from {shown}, the traces (and the grey before them) from {recorded}, both "
        "from stimulus onset; look at both t_axis"
    )


def begin_and_end(t_axis: torch.Tensor, rate_hz: float) -> list[tuple[float, float]]:
    """Return when each frame of a movie appears and vanishes; the last stays for a median step."""
    begins = t_axis.double().tolist()
    step = 1.0 / (rate_of(t_axis) or rate_hz)
    return list(zip(begins, [*begins[1:], begins[-1] + step], strict=True))


def place_movie(
    frames: torch.Tensor, t_axis: torch.Tensor, rate_hz: float
) -> tuple[int, torch.Tensor]:
    """Return (tick of the first frame, frames (T, rows, columns) on the ticks) of a stored movie.

    A movie at the model's rate that starts at 0 s is returned as it is. Frames that last a tick or
    longer are held, shorter ones averaged over each tick (see on_ticks).
    """
    if on_grid(t_axis, rate_hz, 0.0):
        return 0, frames
    fault = hold_fault(t_axis)
    if fault:
        raise InputError(fault)
    spans = begin_and_end(t_axis, rate_hz)
    timed = ((*span, frame) for span, frame in zip(spans, frames, strict=True))
    placed = list(on_ticks(timed, rate_hz, shortest_s=shortest(spans)))
    if not placed:
        raise InputError(f"the movie lasts {spans[-1][1] - spans[0][0]:.3g} s, less than a tick")
    mean = shortest(spans) * rate_hz < WHOLE
    return first_tick(spans[0][0], rate_hz, mean=mean), torch.stack(placed)


def shortest(spans: list[tuple[float, float]]) -> float:
    """Return the seconds of the shortest frame; the last one's length is a guess, so it is out."""
    return min(end - begin for begin, end in (spans[:-1] or spans))


def first_tick(begin_s: float, rate_hz: float, *, mean: bool) -> int:
    """Return the first tick that shows a frame which appears at ``begin_s``."""
    if mean:
        return round(begin_s * rate_hz)
    return math.ceil((begin_s - TOLERANCE_S) * rate_hz)


def on_ticks(frames: Iterable[tuple], rate_hz: float, *, shortest_s: float) -> Iterator:
    """Yield what each tick shows, from the first one on.

    Tick k is the time from k / rate to (k + 1) / rate, as frame k of a published movie is. It
    shows only what is on the screen during it: frames that last a tick or longer are held, so that
    a tick shows the frame that is there when it begins; of shorter frames it shows the mean over
    its own time, so that a fast dither does not alias, light is neither lost nor counted twice,
    and a movie of doubled frames is the movie itself.

    Args:
        frames: (begin, end, picture) in seconds, one after the other without gaps.
        rate_hz: ticks per second.
        shortest_s: how long the shortest frame stays.
    """
    if shortest_s * rate_hz < WHOLE:
        yield from _means(frames, rate_hz)
        return
    tick = None
    for begin, end, picture in frames:
        if tick is None:
            tick = first_tick(begin, rate_hz, mean=False)
        while tick / rate_hz < end - TOLERANCE_S:
            yield picture
            tick += 1


def _means(frames, rate_hz):
    """Yield the mean of what is on the screen during each tick.

    The first and the last tick count where the movie covers half of them; theirs is the mean over
    the part that it covers.
    """
    tick, total, covered, high = None, None, 0.0, 0.0
    for begin, end, picture in frames:
        low, high = _in_ticks(begin, rate_hz), _in_ticks(end, rate_hz)
        if tick is None:
            tick = first_tick(begin, rate_hz, mean=True)
        while high > tick:
            share = min(high, tick + 1) - max(low, tick)
            total = picture * share if total is None else total + picture * share
            covered += share
            if high < tick + 1:
                break  # the tick goes on in the next frame
            yield total / covered
            tick, total, covered = tick + 1, None, 0.0
    if covered > 0 and tick < round(high):
        yield total / covered


def _in_ticks(seconds, rate_hz):
    """Return a time in ticks; what is meant to be the beginning of one is it exactly."""
    ticks, whole = seconds * rate_hz, round(seconds * rate_hz)
    return float(whole) if abs(ticks - whole) < TOLERANCE_S * rate_hz else ticks
