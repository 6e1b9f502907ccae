"""The movie that excites a cell type most, by gradient ascent through the model.

Letters: T frames.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from analysis.util_analysis import plot_movie_traces
from common.files import InputError
from common.tables import write_rows
from inputs.display import Display
from inputs.safe_load import save_arrays
from network.adam import Adam
from network.models import STCNN
from network.predict import predict_movies

LEAD_S = 1.0  # grey before the movie
TAIL_S = 0.3  # grey after it, while calcium still rises
SMOOTHNESS = 0.02  # weight of the mean squared difference between neighbours
LARGEST_SCALE, BISECTIONS = 1e12, 60  # of a movie that is brought to a norm
STILLS = 8  # frames drawn above the traces


@dataclass(frozen=True)
class Ascent:
    """A gradient ascent: how long the movie and the way are, and what is held fixed."""

    seconds: float
    steps: int
    seed: int = 0
    learning_rate: float = 0.05
    norm: float | None = None  # rms_contrast of every movie on the way; None leaves it free


def rms_contrast(contrast: torch.Tensor, display: Display) -> float:
    """Return the root mean square of (pixel - background) / background, no unit.

    Over all pixels of the field and all frames of ``contrast`` (T, rows, columns), movie minus
    background. Relative to the grey that the eye is adapted to, as Weber contrast is; NaN where
    that is black.
    """
    if not display.background:
        return math.nan
    return float(contrast.double().square().mean().sqrt()) / display.background


def at_norm(contrast: torch.Tensor, norm: float, display: Display) -> torch.Tensor:
    """Return the movie nearest to ``contrast`` that has this RMS contrast between black and white.

    The nearest point of sphere and box is the scaled movie, cut at the bounds, with the scale at
    which what is cut has the norm: it grows with the scale, so the scale is found by bisection.

    Raises:
        InputError: a norm that no scale reaches, because every pixel is at its bound.
    """

    def cut(scale):
        return (scale * contrast).clamp(display.dark, display.bright)

    low, high = 0.0, 1.0
    while rms_contrast(cut(high), display) < norm:
        low, high = high, 4.0 * high
        if high > LARGEST_SCALE:
            raise InputError(
                f"--norm {norm:g}: between black and white this movie reaches an RMS contrast of "
                f"{rms_contrast(cut(high), display):.4g}; give a smaller one"
            )
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if rms_contrast(cut(middle), display) < norm:
            low = middle
        else:
            high = middle
    return cut(high)


def check_norm(norm: float, display: Display) -> None:
    """Refuse an RMS contrast that no movie of the display has."""
    if not (norm > 0 and math.isfinite(norm)):
        raise InputError(f"--norm {norm:g}: expected an RMS contrast above 0")
    if not display.background:
        raise InputError(
            "--norm: contrast is relative to the background, and that of this network is black"
        )
    most = max(-display.dark, display.bright) / display.background
    if norm > most:
        raise InputError(
            f"--norm {norm:g}: expected an RMS contrast of at most {most:.4g}, that of a movie "
            f"without grey on the background {display.background:g}"
        )


def excite(model: STCNN, cell_type: str, ascent: Ascent) -> tuple[np.ndarray, list[dict]]:
    """Return (movie (T, rows, columns) float32 0..1, a row per step; the last is the movie's).

    Columns: step, peak_above_grey (the largest predicted dF/F after onset, minus its value on
    grey), rms_contrast. With a norm every movie on the way is projected to it. Source: Walker et
    al., Nature Neuroscience 2019 (most exciting inputs at a fixed contrast).
    """
    display = model.display
    n_lead, n_movie, n_tail = (display.frames(part) for part in (LEAD_S, ascent.seconds, TAIL_S))
    generator = torch.Generator().manual_seed(ascent.seed)
    device = model.pr.x_weight.device
    pixels = 0.02 * torch.randn(n_movie, *display.field, generator=generator)
    if ascent.norm is not None:
        check_norm(ascent.norm, display)
        pixels = at_norm(pixels, ascent.norm, display)
    pixels = pixels.to(device).requires_grad_()
    optimiser = Adam([pixels], lr=ascent.learning_rate)
    lead, tail = (torch.zeros(n, *display.field, device=device) for n in (n_lead, n_tail))
    table = []
    for step in range(ascent.steps + 1):
        movie = torch.cat([lead, pixels, tail])[None, :, None]  # (1, T, 1, rows, columns)
        features = model.trunk(model.pr.sample(movie))
        curve = model.population(model.voltage(features, cell_type), cell_type)[0]
        peak = float(curve.detach()[n_lead:].max() - curve.detach()[n_lead - 1])
        contrast = rms_contrast(pixels.detach(), display)
        table.append({"step": step, "peak_above_grey": peak, "rms_contrast": contrast})
        if step == ascent.steps:
            break
        gain = torch.logsumexp(20.0 * (curve[n_lead:] - curve[n_lead - 1].detach()), 0) / 20.0
        rough = sum((pixels.diff(dim=axis) ** 2).mean() for axis in range(3))
        optimiser.zero_grad()
        (-gain + SMOOTHNESS * rough).backward()
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(display.dark, display.bright)
            if ascent.norm is not None:
                pixels.copy_(at_norm(pixels, ascent.norm, display))
    return (pixels.detach() + display.background).clamp(0, 1).cpu().numpy(), table


def write_excitation(
    model: STCNN, cell_type: str, movie: np.ndarray, table: list[dict], out: Path
) -> Path:
    """Write <type>_excite.npz, .csv and the figure; return the path of the movie.

    The npz holds movie, rate_hz, deg_per_px and its rms_contrast.
    """
    display = model.display
    rate, grey = display.rate_hz, display.background
    stem = f"{cell_type}_excite"
    arrays = {"movie": movie, "rate_hz": rate, "deg_per_px": display.deg_per_px,
              "rms_contrast": table[-1]["rms_contrast"]}  # fmt: skip
    save_arrays(out / f"{stem}.npz", arrays)
    write_rows(out / f"{stem}.csv", table)
    shown = np.linspace(0, len(movie) - 1, STILLS).astype(int)
    n_shown = len(movie) + display.frames(1.0)
    curves = predict_movies(model, [torch.from_numpy(movie - grey)], n_frames=n_shown)
    plot_movie_traces(
        out / f"{stem}.png",
        movie[shown] - grey,
        shown / rate,
        np.arange(n_shown) / rate,
        {name: curve[0] for name, curve in curves.items()},
        f"{cell_type}: most exciting movie found, peak {table[-1]['peak_above_grey']:.2f} dF/F",
    )
    return out / f"{stem}.npz"
