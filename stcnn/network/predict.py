"""Predict calcium for any movie by streaming: a grey lead-in, then the movie, piece by piece.

Source: specification 8.3, 12.3 (5), D29. Letters: B movies side by side, n frames of a piece.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from network.layers import activate
from network.models import STCNN, fold_norm
from network.temporal import FilterStream

LEAD_IN_S = 4.0  # 720 frames at 180 Hz: from zero history the filters need it to settle on grey
PIECE_FRAMES = 120
BATCH = 4  # movies side by side; each needs about 70 MB of filter history on the released model


class NetworkStream:
    """The evaluating network fed piece by piece, with its filters' state carried along."""

    def __init__(self, model, tau="auto"):
        self.model, self.tau = model, tau
        self.lens = model.pr.stream()
        self.layers = [
            (layer, *fold_norm(layer, norm), layer.stream())
            for layer, norm in zip(model.network, model.norm_layers, strict=True)
        ]
        self.read_outs = {name: model.read_out_of(name).stream() for name in model.cell_types}
        self.indicators = {
            name: FilterStream(model.calcium_tau(name, tau), dt=model.dt, n_taps=model.ca_taps)
            for name in model.cell_types
        }

    @torch.no_grad()
    def push(self, sampled: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {type: indicator activity (B, n)} for the next sampled frames (B, n, 1, H, W)."""
        x = self.lens.push(sampled)
        for i, (layer, weight, shift, stream) in enumerate(self.layers):
            x = layer.spatial(x, weight, inplace=i > 0)
            x = x if stream is None else stream.push(x)
            x = x.add_(shift[:, None, None])
        activity = {}
        for name, stream in self.read_outs.items():
            layer = self.model.read_out_of(name)
            v = layer.patch_drive(x, self.model.start_of(name, x.shape[3:]))
            v = (v if stream is None else stream.push(v)) + layer.bias
            drive = activate(v, self.model.ca_activation)
            drive = drive + (1.0 if self.model.ca_activation == "elu" else 0.0)
            activity[name] = self.indicators[name].push(drive)[..., 0]
        return activity

    def push_frames(self, piece: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {type: indicator activity (1, n)} for contrast frames (n, rows, columns)."""
        lens = self.model.pr
        with torch.no_grad():
            return self.push(lens.sample(piece.to(lens.x_weight.device))[None, :, None])

    def repeat(self, batch: int) -> "NetworkStream":
        """Return a copy of this stream, settled on one movie, for ``batch`` movies."""
        twin = NetworkStream.__new__(NetworkStream)
        twin.__dict__.update(self.__dict__)
        twin.lens = self.lens.repeat(batch)
        twin.layers = [(*parts, s and s.repeat(batch)) for *parts, s in self.layers]
        twin.read_outs = {name: s and s.repeat(batch) for name, s in self.read_outs.items()}
        twin.indicators = {name: s.repeat(batch) for name, s in self.indicators.items()}
        return twin


def settled_stream(
    model: STCNN, size: tuple[int, int], *, tau: str = "auto", lead_in_s: float = LEAD_IN_S
) -> NetworkStream:
    """Return a stream that has seen ``lead_in_s`` seconds of grey on a picture of ``size``."""
    device = model.pr.x_weight.device
    grey = model.pr.sample(torch.zeros(1, *size, device=device))  # (1, H, W)
    stream = NetworkStream(model, tau)
    left = round(lead_in_s / model.dt)
    while left > 0:
        n = min(left, PIECE_FRAMES)
        stream.push(grey[None, :, None].expand(1, n, 1, *grey.shape[1:]))
        left -= n
    return stream


def predict_movies(
    model: STCNN,
    contrasts: Sequence[torch.Tensor],
    *,
    n_frames: int | None = None,
    tau: str = "auto",
    who: str | int = "mean_param",
    progress: Callable | None = None,
) -> dict[str, np.ndarray]:
    """Predict calcium for contrast movies of one size, grey before and after each.

    Args:
        model: STCNN in evaluation mode.
        contrasts: list of (frames, rows, columns) float32, movie minus background.
        n_frames: frames predicted from the movie's first one; default the longest movie.
        tau: auto (trained time constant of the indicator) or legacy (the published inference).
        who: see STCNN.respond.
        progress: called with the number of movies done, or None.

    Returns:
        {type: (movies, n_frames) float32 numpy}, (movies, neurons, n_frames) for who="all".
    """
    size = contrasts[0].shape[1:]
    n_frames = n_frames or max(len(contrast) for contrast in contrasts)
    device = model.pr.x_weight.device
    start = settled_stream(model, size, tau=tau)
    curves = {name: [] for name in model.cell_types}
    for first in range(0, len(contrasts), BATCH):
        batch = contrasts[first : first + BATCH]
        stream = start.repeat(len(batch))
        pieces = []
        for begin in range(0, n_frames, PIECE_FRAMES):
            n = min(PIECE_FRAMES, n_frames - begin)
            frames = torch.zeros(len(batch), n, *size)
            for row, contrast in zip(frames, batch, strict=True):
                part = contrast[begin : begin + n]
                row[: len(part)] = part
            with torch.no_grad():
                sampled = model.pr.sample(frames.to(device))[:, :, None]  # (B, n, 1, H, W)
            pieces.append(stream.push(sampled))
        for name, rows in curves.items():
            activity = torch.cat([piece[name] for piece in pieces], dim=1)  # (B, n_frames)
            with torch.no_grad():
                rows.append(model.respond(activity, name, who).cpu())
        if progress is not None:
            progress(len(batch))
    return {name: torch.cat(rows).numpy() for name, rows in curves.items()}


def predict_long(
    model: STCNN,
    pieces: Iterable[torch.Tensor],
    size: tuple[int, int],
    *,
    tau: str = "auto",
    who: str | int = "mean_param",
) -> Iterator[dict[str, np.ndarray]]:
    """Yield {type: calcium (n,)} for a movie that arrives as contrast pieces (n, rows, columns).

    Memory does not depend on the movie's length; a piece may be a single frame (closed loop).
    """
    stream = settled_stream(model, size, tau=tau)
    for piece in pieces:
        with torch.no_grad():
            activity = stream.push_frames(piece)
            yield {
                name: model.respond(values, name, who)[0].cpu().numpy().astype(np.float32)
                for name, values in activity.items()
            }
