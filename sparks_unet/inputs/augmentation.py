"""Flips and noise of training chunks, drawn from (seed, pass, sample) alone.

Source: specification section 5.8.
"""

import numpy as np
import torch
from scipy import ndimage


def generators(seed: int, epoch: int, index: int) -> tuple[torch.Generator, np.random.Generator]:
    """Return (torch generator, numpy generator) of sample ``index`` in pass ``epoch``."""
    states = np.random.SeedSequence([seed, epoch, index]).generate_state(2)
    return torch.Generator().manual_seed(int(states[0])), np.random.default_rng(int(states[1]))


def draw_flips(generator: torch.Generator) -> tuple[bool, bool]:
    """Return (flip x, flip y): two draws of U(0, 1), each flips when above .5."""
    first = float(torch.rand(1, generator=generator))
    second = float(torch.rand(1, generator=generator))
    return first > 0.5, second > 0.5


def flip(array: np.ndarray, flip_x: bool, flip_y: bool) -> np.ndarray:
    """Return ``array`` (..., H, W) flipped along x (last axis) and y."""
    if flip_x:
        array = array[..., ::-1]
    if flip_y:
        array = array[..., ::-1, :]
    return array


def add_noise(
    chunk: np.ndarray,
    rng: np.random.Generator,
    *,
    sigma: float,
    gain: float,
    scale: float,
    legacy: bool = False,
) -> np.ndarray:
    """Add noise with probability .5, then denoise with probability .5.

    Args:
        chunk: (D, H, W) float32.
        rng: numpy generator.
        sigma: standard deviation of Gaussian noise as a share of the chunk's own.
        gain: counts per photon.
        scale: counts per unit of the chunk.
        legacy: the published amplitudes (Differs: a standard deviation of 1 and Poisson draws of
            the normalised values destroy data in 0..0.3).

    Returns:
        (D, H, W) float32.
    """
    if rng.random() < 0.5:
        if rng.random() < 0.5:
            deviation = 1.0 if legacy else sigma * float(chunk.std())
            chunk = chunk + rng.normal(0.0, deviation, chunk.shape)
        else:
            units = 1.0 if legacy else scale / gain
            low = min(0.0, float(chunk.min()))  # photons are not negative
            chunk = rng.poisson((chunk - low) * units) / units + low
    if rng.random() < 0.5:
        if rng.random() < 0.5:
            chunk = ndimage.gaussian_filter(chunk, 1.0)
        else:
            chunk = ndimage.median_filter(chunk, size=2)
    return chunk.astype(np.float32, copy=False)
