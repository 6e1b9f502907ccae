"""Where each neuron looks: its place in degrees, learned with the rest of the network.

The published network takes the place of a neuron from its file, rounds it to whole pixels and
shifts the movie by it. A learned place is the recorded one and an offset that is trained: drawn
from a Gaussian around the offset in training, with a spread that is trained as well, the offset
itself at evaluation. Source: Lurz et al., ICLR 2021, section 3 (Gaussian read-out); they read a map
at that place, here the lens looks there, so that a place between the points of the coarse map is as
exact as one on them.

Letters: B items, T frames, R and C rows and columns of a movie, H and W the coarse grid, N neurons.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from inputs.ca_dataloader import shift_movie
from network.layers import Photoreceptor
from network.models import parameter_name

REACH_DEG = 12.0  # of an offset, to each side
LEAST_SD_DEG = 0.05
TAPS = (-1, 0, 1, 2)  # whole shifts that a shift between them is made of


class Positions(nn.ModuleDict):
    """Offsets and spreads of all neurons: ``<type>.moved`` (N, 2) and ``<type>.log_sd`` (N,).

    ``moved`` is (azimuth, elevation), degrees, beyond what the file says; ``log_sd`` the natural
    logarithm of degrees.
    """

    def __init__(self, counts: Mapping[str, int], *, sd_deg: float):
        """Start at the recorded places, with a spread of ``sd_deg``; counts is {type: N}."""
        super().__init__({
            parameter_name(name): nn.ParameterDict({
                "moved": torch.zeros(n, 2), "log_sd": torch.full((n,), math.log(sd_deg))
            })
            for name, n in counts.items()
        })  # fmt: skip

    def of(self, cell_type: str) -> nn.ParameterDict:
        """Return ``moved`` and ``log_sd`` of a type."""
        return self[parameter_name(cell_type)]

    def draw(
        self, types: Sequence[str], neurons: torch.Tensor, jitter: torch.Tensor
    ) -> torch.Tensor:
        """Return offsets (B, 2), degrees, of items: mean and spread times ``jitter`` (B, 2)."""
        means, spreads = [], []
        for kind, neuron in zip(types, neurons.tolist(), strict=True):
            means.append(self.of(kind)["moved"][neuron])
            spreads.append(self.of(kind)["log_sd"][neuron])
        return torch.stack(means) + torch.exp(torch.stack(spreads))[:, None] * jitter

    @torch.no_grad()
    def keep_in_bounds(self, anchors: Mapping[str, Sequence[int]]) -> None:
        """Bound offsets and spreads; take the mean offset of the neurons in ``anchors`` away.

        A read-out that is trained can look aside itself: what all neurons of a type share is
        neither theirs nor its, and goes to the read-out.

        Args:
            anchors: {type: numbers of its neurons with training data}; types that are not in it
                have a read-out that does not train.
        """
        for kind, neurons in anchors.items():
            moved = self.of(kind)["moved"]
            moved[neurons] -= moved[neurons].mean(0)
        for entry in self.values():
            entry["moved"].clamp_(-REACH_DEG, REACH_DEG)
            entry["log_sd"].clamp_(math.log(LEAST_SD_DEG), math.log(REACH_DEG))


def pixels_of(place_deg: torch.Tensor, deg_per_px: float) -> torch.Tensor:
    """Return shifts (..., 2), pixels up and left, of places (azimuth, elevation), degrees."""
    return torch.stack([-place_deg[..., 1], place_deg[..., 0]], -1) / deg_per_px


def sample_moved(lens: Photoreceptor, contrast: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Sample contrast (B, T, R, C) moved up and left by ``shift`` (B, 2) pixels, (B, T, H, W).

    At whole pixels it is the sample of the shifted movie; between them a cubic through four of them
    per direction, whose slope has no steps. It is differentiable in ``shift``.

    Source: Keys, IEEE Transactions on Acoustics, Speech, and Signal Processing 1981.
    """
    profiles = lens.profiles(contrast.shape[-2:])
    if profiles is None:
        return torch.stack([
            _sample_each(lens, one, by) for one, by in zip(contrast, shift, strict=True)
        ])  # fmt: skip
    down = moved_profile(profiles[0], shift[:, 0])  # (B, H, R)
    across = moved_profile(profiles[1].T, shift[:, 1])  # (B, W, C)
    return torch.stack([
        rows @ (one @ columns.T) for one, rows, columns in zip(contrast, down, across, strict=True)
    ])  # fmt: skip


def moved_profile(profile: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return the weights (B, H, R) of a movie moved by ``shift`` (B,), from those (H, R) of it.

    What a shift moves out of the field is cut, as in the shifted movie.
    """
    taps, weights = _taps(shift)  # (B, 4) each
    source = torch.arange(profile.shape[1], device=shift.device) - taps[..., None]  # (B, 4, R)
    inside = (source >= 0) & (source < profile.shape[1])
    picked = profile[:, source.clamp(0, profile.shape[1] - 1)] * inside  # (H, B, 4, R)
    return torch.einsum("hbkr,bk->bhr", picked, weights.to(profile.dtype))


def _taps(shift):
    """Return the four whole shifts (B, 4) around each of ``shift`` (B,), and their weights."""
    whole = torch.floor(shift.detach())
    f = shift - whole
    weights = torch.stack([
        f * (-0.5 + f * (1.0 - 0.5 * f)),
        1.0 + f * f * (-2.5 + 1.5 * f),
        f * (0.5 + f * (2.0 - 1.5 * f)),
        f * f * (-0.5 + 0.5 * f),
    ], -1)  # fmt: skip
    return whole.long()[:, None] + torch.tensor(TAPS, device=shift.device), weights


def _sample_each(lens, contrast, shift):
    """Return the sample (T, H, W) of contrast (T, R, C) through a lens that is no product."""
    taps, weights = _taps(shift)  # (2, 4) each
    return sum(
        weights[0, i] * weights[1, j]
        * lens.sample(shift_movie(contrast, (int(taps[0, i]), int(taps[1, j]))))
        for i, j in itertools.product(range(len(TAPS)), repeat=2)
        if weights.requires_grad or (weights[0, i] and weights[1, j])
    )  # fmt: skip
