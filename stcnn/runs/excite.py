"""The movie that excites a cell type most, by gradient ascent through the model.

Letters: T frames.
"""

from pathlib import Path

import numpy as np
import torch

from analysis.util_analysis import plot_movie_traces
from common.tables import write_rows
from inputs.safe_load import save_arrays
from network.adam import Adam
from network.models import STCNN
from network.predict import predict_movies

LEAD_S = 1.0  # grey before the movie
TAIL_S = 0.3  # grey after it, while calcium still rises
SMOOTHNESS = 0.02  # weight of the mean squared difference between neighbours
STILLS = 8  # frames drawn above the traces


def excite(
    model: STCNN,
    cell_type: str,
    *,
    seconds: float,
    steps: int,
    seed: int = 0,
    learning_rate: float = 0.05,
) -> tuple[np.ndarray, list[float]]:
    """Return (movie (T, rows, columns) float32 0..1, objective per step).

    The objective is the largest predicted dF/F after onset, minus its value on grey.
    """
    display = model.display
    n_lead, n_movie, n_tail = (display.frames(part) for part in (LEAD_S, seconds, TAIL_S))
    generator = torch.Generator().manual_seed(seed)
    device = model.pr.x_weight.device
    pixels = 0.02 * torch.randn(n_movie, *display.field, generator=generator)
    pixels = pixels.to(device).requires_grad_()
    optimiser = Adam([pixels], lr=learning_rate)
    lead, tail = (torch.zeros(n, *display.field, device=device) for n in (n_lead, n_tail))
    objective = []
    for _ in range(steps):
        movie = torch.cat([lead, pixels, tail])[None, :, None]  # (1, T, 1, rows, columns)
        features = model.trunk(model.pr.sample(movie))
        curve = model.population(model.voltage(features, cell_type), cell_type)[0]
        gain = torch.logsumexp(20.0 * (curve[n_lead:] - curve[n_lead - 1].detach()), 0) / 20.0
        rough = sum((pixels.diff(dim=axis) ** 2).mean() for axis in range(3))
        optimiser.zero_grad()
        (-gain + SMOOTHNESS * rough).backward()
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(display.dark, display.bright)
        objective.append(float(curve.detach()[n_lead:].max() - curve.detach()[n_lead - 1]))
    return (pixels.detach() + display.background).clamp(0, 1).cpu().numpy(), objective


def write_excitation(
    model: STCNN, cell_type: str, movie: np.ndarray, objective: list[float], out: Path
) -> Path:
    """Write <type>_excite.npz, .csv and the figure; return the path of the movie."""
    display = model.display
    rate, grey = display.rate_hz, display.background
    stem = f"{cell_type}_excite"
    arrays = {"movie": movie, "rate_hz": rate, "deg_per_px": display.deg_per_px}
    save_arrays(out / f"{stem}.npz", arrays)
    rows = [{"step": i, "peak_above_grey": value} for i, value in enumerate(objective)]
    write_rows(out / f"{stem}.csv", rows)
    shown = np.linspace(0, len(movie) - 1, STILLS).astype(int)
    n_shown = len(movie) + display.frames(1.0)
    curves = predict_movies(model, [torch.from_numpy(movie - grey)], n_frames=n_shown)
    plot_movie_traces(
        out / f"{stem}.png",
        movie[shown] - grey,
        shown / rate,
        np.arange(n_shown) / rate,
        {name: curve[0] for name, curve in curves.items()},
        f"{cell_type}: most exciting movie found, peak {objective[-1]:.2f} dF/F",
    )
    return out / f"{stem}.npz"
