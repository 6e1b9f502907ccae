"""Planted responses: three analytic neuron types, or a checkpoint, and the noise of a recording.

Source: specification 4.4. Letters: T frames, P rows and columns of the sampling grid, 4 degrees
apart."""

import functools
import itertools

import numpy as np
import torch
from scipy.signal import lfilter

from inputs.stimuli import BACKGROUND
from network.layers import Photoreceptor
from network.util_conv import gaussian_kernel

GRID_DEG = 4.0  # between sampling points
TYPES = ("lc11", "lc12", "lplc2")  # small objects, unselective control, looming
RINGS_DEG = (0.0, 7.0, 13.0, 19.0, 25.0)
TAU_TRANSIENT_S, TAU_DELAY_S, TAU_SMOOTH_S, TAU_CALCIUM_S = 0.15, 0.08, 0.03, 0.4


def low_pass(x: np.ndarray, tau_s: float, dt: float) -> np.ndarray:
    """Return y_t = rho y_{t-1} + (1 - rho) x_t along axis 0, rho = exp(-dt / tau)."""
    rho = np.exp(-dt / tau_s)
    return lfilter([1.0 - rho], [1.0, -rho], x, axis=0)


@functools.lru_cache(maxsize=4)
def lens_for(size: tuple[int, int]) -> Photoreceptor:
    """Return the lens of frames of ``size`` (rows, columns); a point lies on the centre pixel."""
    return Photoreceptor(
        gaussian_kernel((5, 5), (1, 1), (35, 35)),
        0.006,  # its temporal filter is not used here, and so neither are dt and n_taps
        stride=(4, 4),
        padding=[17 - (n // 2) % 4 for n in size],
        dt=1.0,
        n_taps=1,
    )


def off_transient(contrast: torch.Tensor, dt: float) -> np.ndarray:
    """Return the OFF transient (T, P, P) of contrast frames (T, rows, columns)."""
    lens = lens_for(tuple(contrast.shape[1:]))
    with torch.no_grad():
        sampled = lens.sample(torch.as_tensor(contrast)).numpy()
    darkness = np.maximum(-sampled.astype(np.float64), 0.0) / BACKGROUND
    return np.maximum(darkness - low_pass(darkness, TAU_TRANSIENT_S, dt), 0.0)


def grid_degrees(size: tuple[int, int]) -> list[np.ndarray]:
    """Return (row, column) of the sampling points relative to the centre pixel, degrees."""
    axes = []
    for n in size:
        first = (n // 2) % 4
        n_points = (n + 2 * (17 - first) - 35) // 4 + 1
        axes.append(GRID_DEG * np.arange(n_points) + first - n // 2)
    return np.meshgrid(*axes, indexing="ij")


def small_object_drive(o: np.ndarray, y: np.ndarray, x: np.ndarray, dt: float) -> np.ndarray:
    """Return the drive (T,) of the type that prefers small objects: centre minus broad surround."""
    del dt
    near = np.maximum(np.abs(y), np.abs(x)) <= 2 * GRID_DEG
    squared = (y[near][:, None] - y.ravel()) ** 2 + (x[near][:, None] - x.ravel()) ** 2
    surround = o.reshape(len(o), -1) @ np.exp(-squared / (2 * 12.0**2)).T  # (T, columns)
    weight = np.exp(-(y[near] ** 2 + x[near] ** 2) / (2 * 8.0**2))
    return np.maximum(o[:, near] - 0.06 * surround, 0.0) @ weight


def looming_drive(o: np.ndarray, y: np.ndarray, x: np.ndarray, dt: float) -> np.ndarray:
    """Return the drive (T,) of the looming type: outward motion in all four quadrants at once."""
    radius = np.hypot(y, x)
    quadrant = np.floor(np.degrees(np.arctan2(y, x)) % 360 / 90).astype(int)
    outward = np.ones(len(o))
    for q in range(4):
        rings = []
        for inner, outer in itertools.pairwise(RINGS_DEG):
            inside = (quadrant == q) & (radius >= inner) & (radius < outer)
            rings.append(o[:, inside].mean(1))
        late = [low_pass(ring, TAU_DELAY_S, dt) for ring in rings]
        motion = sum(late[j] * rings[j + 1] - rings[j] * late[j + 1] for j in range(3))
        outward *= low_pass(np.maximum(motion, 0.0), TAU_SMOOTH_S, dt) + 1e-9
    return outward**0.25


def broad_drive(o: np.ndarray, y: np.ndarray, x: np.ndarray, dt: float) -> np.ndarray:
    """Return the drive (T,) of the unselective control: everything that darkens in a wide field."""
    del dt
    return np.tensordot(o, np.exp(-(y**2 + x**2) / (2 * 14.0**2)), axes=2)


DRIVES = {"lc11": small_object_drive, "lplc2": looming_drive, "lc12": broad_drive}


def analytic_calcium(contrast: torch.Tensor, cell_type: str, dt: float) -> np.ndarray:
    """Return the noise-free calcium (T,) for contrast (T, rows, columns), before any gain."""
    o = off_transient(contrast, dt)
    y, x = grid_degrees(contrast.shape[1:])
    return low_pass(DRIVES[cell_type](o, y, x, dt), TAU_CALCIUM_S, dt)


def noisy_trials(
    clean: np.ndarray,
    n_trials: int,
    generator: np.random.Generator,
    *,
    rate_hz: float,
    imaging_hz: float = 7.5,
) -> np.ndarray:
    """Return (trials, T) recordings of a noise-free trace (T,).

    Each trial: gain N(1, 0.1), white noise sd 0.02, slow noise (0.1 s) sd 0.02, then sample and
    hold at the imaging rate.
    """
    n = len(clean)
    trials = clean * generator.normal(1.0, 0.1, (n_trials, 1))
    trials = trials + generator.normal(0.0, 0.02, (n_trials, n))
    slow = low_pass(generator.normal(0.0, 1.0, (n, n_trials)), 0.1, 1.0 / rate_hz)
    rho = np.exp(-1.0 / rate_hz / 0.1)
    trials = trials + 0.02 * (slow / np.sqrt((1 - rho) / (1 + rho))).T
    held = np.floor(np.arange(n) * imaging_hz / rate_hz) * rate_hz / imaging_hz
    return trials[:, np.ceil(held - 1e-9).astype(int)]
