"""Kernels of the network: exponential and power-exponential in time, Gaussian in space.

Source: specification 6.1. Letters: C channels, K taps.
"""

import math
from collections.abc import Sequence

import torch


def exponential_kernel(tau: torch.Tensor, *, dt: float, n_taps: int) -> torch.Tensor:
    """Return exp(-k dt/tau), k = 0..K-1, scaled to unit energy: sum(w^2) * dt = 1.

    Args:
        tau: time constants in seconds, (C, 1) or (C,).
        dt: seconds per frame.
        n_taps: K.

    Returns:
        (C, K) in the dtype of ``tau``; tap 0 acts on the current frame. Differentiable in ``tau``.
    """
    t = torch.arange(n_taps, dtype=tau.dtype, device=tau.device) * dt  # (K,)
    return _unit_energy(torch.exp(-t / tau.reshape(-1, 1)), dt)


def power_exponential_kernel(
    tau: torch.Tensor, n_power: torch.Tensor, *, dt: float, n_taps: int
) -> torch.Tensor:
    """Return (t/tau)^n exp(-n (t/tau - 1)), scaled to unit energy; 0 at t = 0, peak at t = tau.

    Args:
        tau: seconds, (C, 1) or (C,).
        n_power: exponents, same shape.
        dt: seconds per frame.
        n_taps: K.

    Returns:
        (C, K), differentiable in ``tau`` and ``n_power``.
    """
    t = torch.arange(1, n_taps, dtype=tau.dtype, device=tau.device) * dt  # (K - 1,)
    ratio, power = t / tau.reshape(-1, 1), n_power.reshape(-1, 1)  # (C, K - 1), (C, 1)
    body = ratio**power * torch.exp(-power * (ratio - 1.0))
    # Differs: t = 0 is a constant, so its gradient is 0; t**n at t = 0 gave NaN for n < 1.
    return _unit_energy(torch.nn.functional.pad(body, (1, 0)), dt)  # (C, K)


def gaussian_kernel(
    sigma: Sequence[float], ds: Sequence[float], size: Sequence[int]
) -> torch.Tensor:
    """Return the acceptance function of a photoreceptor, peak in the middle, sum 1.

    Args:
        sigma: full width at half maximum per axis (row, column), degrees.
        ds: degrees per pixel per axis.
        size: taps per axis.

    Returns:
        (rows, columns) float32.
    """
    # Differs: every axis is divided by its own width; the published code divided both by the
    # product of the two widths. Equal widths give the same kernel.
    rows, cols = (
        torch.exp(
            -4.0
            * math.log(2.0)
            * ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * d / s) ** 2
        )
        for s, d, n in zip(sigma, ds, size, strict=True)
    )
    kernel = torch.outer(rows, cols)
    return (kernel / kernel.sum()).float()


def _unit_energy(kernel, dt):
    return kernel / (kernel.norm(dim=1, keepdim=True) * math.sqrt(dt))
