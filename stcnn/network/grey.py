"""The grey before a stimulus: how few frames stand for all of it.

Settled filters answer a frame that does not change alike, and one frame stands for all. Filters
that start from zero relax, each from fast to slow: the grey is looked at ever more rarely, at
knots, with straight lines between them. Letters: B movies, T frames, n knots, C channels.
"""

from collections.abc import Callable

import torch

KNOTS_PER_E = 32  # knots while the grey grows e times as old


def still_frames(sampled: torch.Tensor) -> int:
    """Return how many of the first frames of ``sampled`` (B, T, ...) the next one repeats.

    Settled filters answer them all alike, so that one frame may stand for them: exact, and a
    recording begins with a second or two of grey. On a GPU the host would have to wait for it.
    """
    moved = (sampled != sampled[:, :1]).flatten(2).any(2).any(0)  # (T,)
    first = int(moved.int().argmax()) if bool(moved.any()) else len(moved)
    return max(min(first - 1, len(moved) - 2), 0)


def knots_of(n_still: int) -> torch.Tensor:
    """Return the frames at which ``n_still`` frames of grey are looked at, the last included.

    Each of the first 64, then ever fewer: what still moves there is slow.
    """
    frames = [0]
    while frames[-1] < n_still - 1:
        frames.append(min(frames[-1] + max(1, frames[-1] // KNOTS_PER_E), n_still - 1))
    return torch.tensor(frames)


def knot_counts(knots: torch.Tensor) -> torch.Tensor:
    """Return for how many frames each knot stands (n,) float64, straight lines between them."""
    gaps = torch.diff(knots).double()
    counts = torch.ones(len(knots), dtype=torch.float64)
    counts[1:] += (gaps - 1) / 2
    counts[:-1] += (gaps - 1) / 2
    return counts


def knot_weights(knots: torch.Tensor) -> torch.Tensor:
    """Return the matrix (frames, n) that draws straight lines between the knots."""
    frames = torch.arange(int(knots[-1]) + 1)
    high = torch.searchsorted(knots, frames)
    low = (high - 1).clamp(min=0)
    share = (frames - knots[low]).double() / (knots[high] - knots[low]).clamp(min=1)
    weights = torch.zeros(len(frames), len(knots), dtype=torch.float64)
    weights[frames, low] = 1 - share
    weights[frames, high] += share
    return weights


def steady_head(dt: float, n_taps: int) -> Callable:
    """Return the head of a movie whose first frame has been there for ever: its steady gain."""

    def parts(tau: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gain = (torch.expm1(-n_taps * dt / tau) / torch.expm1(-dt / tau))[:, None]
        return torch.zeros_like(gain), gain, torch.zeros_like(gain)

    return parts


def knot_head(dt: float, knots: torch.Tensor) -> Callable:
    """Return the head of a movie known at ``knots`` (n,), from zero: straight lines between them.

    A head is a function from time constants (C,) float64 to fade, end and start, each (C, n): the
    filter's output at knot k is fade times the one before, plus end times the input there and start
    times the input at the knot before. Of a gap of m frames the filter sees the sum of r^j u_(t-j),
    j < m, with u straight: S0 - S1 / m times its end and S1 / m times its start, S0 the sum of r^j
    and S1 that of j r^j.
    """
    gaps = torch.diff(knots, prepend=knots[:1] - 1).double()  # (n,)

    def parts(tau: torch.Tensor) -> tuple[torch.Tensor, ...]:
        r = torch.exp(-dt / tau)[:, None]  # (C, 1)
        fade = r**gaps
        whole = (1 - fade) / (1 - r)
        sloped = r * (1 - gaps * r ** (gaps - 1) + (gaps - 1) * fade) / (1 - r) ** 2
        return fade, whole - sloped / gaps, sloped / gaps

    return parts
