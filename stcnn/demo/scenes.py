"""Random scenes: objects of many kinds that appear, move, grow and shrink all over the field.

A network that has seen enough of them is asked about families of stimuli that it has never seen.
Letters: T frames.
"""

import numpy as np
import torch

from inputs.display import Display
from inputs.stimuli import DIRECTIONS, Stimulus, coverage, grating

FIRST_CODE = 2000  # scenes are numbered from here on
SECONDS = 2.4
OBJECTS = (1, 6)  # fewest and most, per scene
EXTENT_DEG = (2.0, 45.0)  # widths and heights, drawn evenly by their logarithm
SPEED_DEG_S = (20.0, 200.0)
LASTS_S = (0.3, 1.2)
SPREAD_DEG = 10.0  # sd of where objects are centred, in both directions,
GROWS_SPREAD_DEG = 4.0  # and of those that grow: looming cells answer none far from their middle
KINDS = ("rectangle", "grows", "shrinks", "flashes", "grating")
SHARES = (0.3, 0.3, 0.1, 0.1, 0.2)
DARK_SHARE = 0.85


def random_scenes(n: int, display: Display, seed: int) -> list[Stimulus]:
    """Return ``n`` scenes; scene i is a function of (seed, i) and of the display."""
    return [
        Stimulus(
            FIRST_CODE + i, f"random scene {i}", "scene",
            _scene(display, np.random.default_rng([seed, i])), background=display.background,
        )
        for i in range(n)
    ]  # fmt: skip


def _scene(display, generator):
    """Return the contrast of a scene (T, rows, columns); later objects cover the earlier ones."""
    frames = torch.zeros(display.frames(SECONDS), *display.field)
    for _ in range(generator.integers(OBJECTS[0], OBJECTS[1] + 1)):
        lasts = generator.uniform(*LASTS_S)
        first = display.frames(generator.uniform(0.0, SECONDS - lasts))
        shown = frames[first : first + display.frames(lasts)]
        cover = _object(display, generator, len(shown))
        level = display.dark if generator.random() < DARK_SHARE else display.bright
        shown.lerp_(torch.full_like(shown, level), cover)
    return frames


def _object(display, generator, n):
    """Return how much of every pixel an object covers, (n, rows, columns) float32 0..1."""
    px, rate = display.deg_per_px, display.rate_hz
    kind = generator.choice(KINDS, p=SHARES)
    extents = np.exp(generator.uniform(*np.log(EXTENT_DEG), 2)) / px
    speed = np.exp(generator.uniform(*np.log(SPEED_DEG_S))) / px / rate  # pixels a frame
    spread = GROWS_SPREAD_DEG if kind == "grows" else SPREAD_DEG
    middle = np.array(display.centre) + generator.normal(0.0, spread / px, 2)
    time = np.arange(n)
    if kind in ("grows", "shrinks"):
        diameter = np.minimum(speed * time, extents.max())
        diameter = diameter[::-1] if kind == "shrinks" else diameter
        rows, columns = (np.arange(size) - m for size, m in zip(display.field, middle, strict=True))
        squared = rows[:, None] ** 2 + columns[None, :] ** 2
        return torch.from_numpy(squared <= (diameter[:, None, None] / 2) ** 2).float()
    travelled = np.zeros((n, 2))
    if kind == "rectangle":
        way = np.array(DIRECTIONS[generator.choice(sorted(DIRECTIONS))])
        travelled = (time - n / 2)[:, None] * speed * way
    sides = [
        coverage(m + at - extent / 2, m + at + extent / 2, size)  # (n, pixels)
        for m, at, extent, size in zip(middle, travelled.T, extents, display.field, strict=True)
    ]
    cover = torch.from_numpy(sides[0][:, :, None] * sides[1][:, None, :]).float()
    if kind == "grating":
        period, angle = generator.uniform(8.0, 40.0), generator.uniform(0.0, 360.0)
        bars = grating(
            display, period=period, speed=speed * px * rate, angle_deg=angle,
            seconds=n / rate, hold=0.0,
        )[:n]  # fmt: skip
        cover[: len(bars)] *= (bars != 0).float()
    return cover
