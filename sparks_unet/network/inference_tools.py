"""From chunks to the probabilities of a whole movie, in constant memory.

Letters: C classes, T frames of the movie, T' of the padded movie, D frames of a chunk, s stride.

Source: specification sections 8.1 and 6.2.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from common.files import InputError
from inputs.dataset_tools import chunk_multiplicity
from inputs.datasets import TIME_REDUCTION, MovieDataset
from inputs.lazy_movie import LazyMovie, can_be_lazy
from inputs.preprocessing import count_chunks
from network.architecture import UNetPadWrapper, predict_log_probabilities
from network.chunk_plan import Plan
from network.fast_layers import fast_weights
from network.shared_prediction import chunk_plan, predicted_parts, reason_against
from settings.config import NUM_CLASSES, Params, logger

GAUSSIAN_WIDTH = 3.0
GAUSSIAN_REACH = 10.0
SMALL_CHUNK = 2**20  # voxels; in larger chunks a batch on the CPU costs memory and gains nothing


def gaussian_weights(count: int) -> np.ndarray:
    """Return the weights (count,) of chunks that cover a frame, in order of their start."""
    u = np.linspace(-GAUSSIAN_REACH, GAUSSIAN_REACH, count)
    weights = np.exp(-(u**2) / (2 * GAUSSIAN_WIDTH**2))
    return (weights / weights.sum()).astype(np.float32)


def check_assembly(method: str, duration: int, stride: int) -> None:
    """Raise InputError where chunks of ``duration`` at ``stride`` cannot be put together."""
    if not 1 <= stride <= duration:
        raise InputError(f"stride {stride}, expected 1 to {duration} (frames of a chunk)")
    if method == "overlap" and (duration - stride) % 2:
        raise InputError(
            f"duration {duration} - stride {stride} is odd, expected an even number with overlap: "
            "change the stride by 1"
        )


class KeptFrames:
    """Which frames of each chunk a movie takes.

    Args:
        method: ``overlap`` (middle part of each chunk), ``average``, ``gaussian`` (weighted mean)
            or ``max`` (the chunk that is surest of its class; ties: the first).
        frames: T'.
        duration: D.
        stride: s.
        pads: (before, after) frames of padding, of which nothing is kept.
    """

    def __init__(self, method, frames, duration, stride, *, pads=(0, 0)):
        check_assembly(method, duration, stride)
        self.method, self.duration, self.stride = method, duration, stride
        self.count = count_chunks(frames, duration, stride)
        self.before, self.length = pads[0], frames - sum(pads)

    def kept(self, index: int) -> tuple[int, int]:
        """Return the frames (first, last) of chunk ``index`` that the movie takes from it."""
        half = (self.duration - self.stride) // 2 if self.method == "overlap" else 0
        low, high = (half if index else 0), self.duration
        if index < self.count - 1:
            high -= half
        start = index * self.stride - self.before  # in the movie without padding
        return max(low, -start), min(high, self.length - start)


class Assembly(KeptFrames):
    """Probabilities of a padded movie, filled chunk by chunk in any order of methods.

    Args:
        method, frames, duration, stride, pads: of KeptFrames.
        classes: C.
        size: (H, W).
    """

    def __init__(self, method, frames, duration, stride, classes, size, *, pads=(0, 0)):
        super().__init__(method, frames, duration, stride, pads=pads)
        self.covering = chunk_multiplicity(frames, duration, stride)  # (T',)
        self.total = np.zeros((classes, self.length, *size), np.float32)

    def add(self, index: int, chunk: np.ndarray, first: int = 0) -> None:
        """Add frames of chunk ``index``, (C, n, H, W) float32 from its frame ``first`` on.

        Chunks come in rising order.
        """
        low, high = self.kept(index)
        low, high = max(low, first), min(high, first + chunk.shape[1])
        chunk, start = chunk[:, low - first : high - first], index * self.stride - self.before
        part = self.total[:, start + low : start + high]
        if self.method == "overlap":
            part[:] = chunk
            return
        if self.method == "max":
            surer = chunk.max(axis=0) > part.max(axis=0)  # (n, H, W)
            np.copyto(part, chunk, where=surer)
            return
        weights = self._weights(index)[low:high]
        for frame, weight in enumerate(weights):  # frame by frame: no copy of the chunk
            part[:, frame] += chunk[:, frame] * weight

    def _weights(self, index):
        """Return the weight (D,) of chunk ``index`` at each of its frames."""
        frames = np.arange(self.duration) + index * self.stride
        counts = self.covering[frames]
        if self.method == "average":
            return (1.0 / counts).astype(np.float32)
        first = np.maximum(0, -(-(frames - self.duration + 1) // self.stride))
        tables = {int(count): gaussian_weights(int(count)) for count in np.unique(counts)}
        return np.array([tables[c][index - f] for c, f in zip(counts, first, strict=True)])

    def result(self, pads: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Return the probabilities (C, T, H, W) without ``pads`` (before, after) frames."""
        before, after = pads
        return self.total[:, before : self.total.shape[1] - after]


def inference_context(device: torch.device, amp: bool) -> contextlib.ExitStack:
    """Return a context without gradients, in bfloat16 where ``amp`` asks for it."""
    stack = contextlib.ExitStack()
    stack.enter_context(torch.inference_mode())
    if amp:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16))
    return stack


def chunk_probabilities(model: nn.Module, batch: np.ndarray, params: Params) -> np.ndarray:
    """Return probabilities (B, C, D, H, W) float32 on the CPU of a batch of network inputs.

    Args:
        model: network in eval mode.
        batch: (B, D, H, W) or (B, C_in, D, H, W) float32 array.
        params: Params; with [inference] tile the frame goes through the network in parts.
    """
    device = next(model.parameters()).device
    x = torch.from_numpy(batch)
    x = x.unsqueeze(1) if x.dim() == 4 else x  # (B, C_in, D, H, W)
    size = x.shape[3:]
    if all(not n or n >= all_of for n, all_of in zip(params.tile, size, strict=True)):
        return _forward(model, x, params, device)
    step = 2**params.unet_steps
    check_tiles(params, size)
    pads = [(0, 0), (0, 0)]
    if isinstance(model, UNetPadWrapper):  # it pads what it gets: the whole frame, not the tiles
        pads = [((-n % step) // 2, -n % step - (-n % step) // 2) for n in size]
        x = functional.pad(x, (*pads[1], *pads[0]))
    halo = -(-receptive_reach(params) // step) * step
    parts = [-(-(n or all_of) // step) * step for n, all_of in zip(params.tile, size, strict=True)]
    output = np.empty((len(x), NUM_CLASSES, *x.shape[2:]), np.float32)
    for top in range(0, x.shape[3], parts[0]):
        for left in range(0, x.shape[4], parts[1]):
            low = (max(0, top - halo), max(0, left - halo))
            tile = x[..., low[0] : top + parts[0] + halo, low[1] : left + parts[1] + halo]
            wide = _forward(model, tile, params, device)
            inner = wide[..., top - low[0] :, left - low[1] :][..., : parts[0], : parts[1]]
            output[..., top : top + parts[0], left : left + parts[1]] = inner
    (above, _), (before, _) = pads
    return output[..., above : above + size[0], before : before + size[1]]


def receptive_reach(params: Params) -> int:
    """Return how many pixels away a pixel of the input can change the output."""
    reach, coarse, largest = 2 * params.dilation, 0, 0
    if params.nn_architecture == "github_unet":
        reach, coarse = 3, 1  # its ways of upsampling look at neighbours on both levels
    for pixel in range(2**params.unet_steps):
        low = high = pixel
        for _ in range(params.unet_steps):  # down the decoder
            low, high = (low - reach) // 2 - coarse, (high + reach) // 2 + coarse
        low, high = low - reach, high + reach
        for _ in range(params.unet_steps):  # up the encoder
            low, high = 2 * low - reach, 2 * high + 1 + reach
        largest = max(largest, pixel - low, high - pixel)
    return largest + int(params.temporal_reduction)


def check_tiles(params: Params, size: Sequence[int]) -> None:
    """Raise InputError where tiles of a frame would not give the values of the whole frame."""
    reason = None
    norm = params.batch_normalization
    if params.border_mode == "valid":
        reason = "border_mode = valid mirrors the edge of every tile"
    elif norm == "instance" or norm.startswith("group"):
        reason = f"batch_normalization = {norm} takes its statistics from the whole frame"
    elif any(n % 2**params.unet_steps for n in size):
        what = "temporal_reduction" if params.temporal_reduction else "attention"
        if params.temporal_reduction or params.attention:
            reason = f"{what} stretches frames that are no multiple of {2**params.unet_steps}"
    if reason:
        raise InputError(f"[inference] tile: {reason}; expected tile = 0, 0")


def _forward(model, x, params, device):
    if params.channels_last or device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last_3d)
    with inference_context(device, params.amp and device.type == "cuda"):
        log_p = predict_log_probabilities(model, x.to(device), params)
        p = log_p.float().exp_().cpu().numpy()
    return p.repeat(TIME_REDUCTION, axis=2) if params.temporal_reduction else p


def predict_probabilities(
    model: nn.Module,
    movie: np.ndarray,
    params: Params,
    *,
    method: str | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
    name: str = "movie",
    plain: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the class probabilities of a movie.

    Args:
        model: network; it is put into eval mode.
        movie: (T, H, W) counts.
        params: Params.
        method: overlap, average, gaussian or max; default [inference] inference.
        stride: frames between chunks; default [inference] data_stride.
        batch_size: chunks at a time; default [inference] batch_size, 1 for large chunks on a CPU.
        name: named in warnings and on the progress bar.
        plain: compute every chunk whole, as the published code does: the same numbers, dearer.

    Returns:
        (probabilities (4, T, H, W) float32, movie as post-processing wants it: preprocessed,
        (T, H, W) float32, smallest value 0).
    """
    model.eval()
    kind = LazyMovie if can_be_lazy(params) else MovieDataset
    dataset = kind(movie, params, stride=stride, name=name)
    assembly = Assembly(
        method or params.inference,
        dataset.shape[0],
        dataset.duration,
        dataset.stride,
        NUM_CLASSES,
        dataset.shape[1:],
        pads=dataset.pads,
    )
    for index, first, part in probability_parts(
        model, dataset, params, assembly.kept, batch_size=batch_size, name=name, plain=plain
    ):
        assembly.add(index, part, first)
    lazy = kind is LazyMovie
    clean = dataset.prepared() if lazy else dataset.data[dataset.pads[0] :][: len(movie)]
    lowest = clean.min()
    if np.may_share_memory(clean, movie):
        return assembly.result(), clean - lowest
    clean -= lowest  # in place: a copy of the movie is a tenth of all the memory
    return assembly.result(), clean


def probability_parts(
    model: nn.Module,
    dataset: MovieDataset | LazyMovie,
    params: Params,
    kept: Callable[[int], tuple[int, int]],
    *,
    batch_size: int | None = None,
    name: str = "movie",
    plain: bool = False,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the probabilities of the frames of each chunk that are wanted, in rising order.

    Args:
        model: network in eval mode.
        dataset: MovieDataset, or what has its attributes and its frames.
        params: Params.
        kept: index of a chunk -> (first, last) frame of it that is wanted.
        batch_size, name, plain: of ``predict_probabilities``.

    Yields:
        (index of the chunk, first frame in it, probabilities (C, n, H, W) float32).
    """
    device = next(model.parameters()).device
    if batch_size is None:
        large = dataset.duration * dataset.shape[1] * dataset.shape[2] > SMALL_CHUNK
        batch_size = 1 if large and device.type == "cpu" else params.inference_batch_size
    reason = "asked for" if plain else reason_against(model, params)
    plan = None if reason else chunk_plan(model, dataset, params)
    logger.info("%s: %s", name, way(plan, len(dataset), reason))
    # the rows of a map count when PyTorch chooses the route of a convolution: the long axis is best
    turned = plan is not None and device.type == "cpu" and dataset.shape[2] > dataset.shape[1]
    settings = {"channels_last": params.channels_last, "turned": turned}
    amp = params.amp and device.type == "cuda"
    bar = tqdm(total=len(dataset), desc=name, leave=False, disable=None)
    with bar, fast_weights(model, **settings), inference_context(device, amp):
        if plan:
            parts = predicted_parts(model, dataset, plan, kept, group=batch_size, turned=turned)
        else:
            parts = _plain_parts(model, dataset, params, batch_size)
        for index, first, part in parts:
            bar.update(index - bar.n)
            yield index, first, part


def way(plan: Plan | None, count: int, reason: str | None = None) -> str:
    """Return the line that says how the chunks of a movie go through the network.

    Args:
        plan: Plan, or None where every chunk is computed whole.
        count: number of chunks.
        reason: why, then.
    """
    if plan is None:
        return f"{count} chunks, each computed whole ({reason})"
    if not plan.shared:
        return f"{count} chunks, encoder whole, decoder for the kept frames"
    levels = "level 0" if plan.shared == 1 else f"levels 0 to {plan.shared - 1}"
    return f"{count} chunks share {levels} of the encoder, decoder for the kept frames"


def _plain_parts(model, dataset, params, batch_size):
    """Yield (index, 0, probabilities (C, D, H, W)) of chunks that are computed whole."""
    for first in range(0, len(dataset), batch_size):
        indices = range(first, min(first + batch_size, len(dataset)))
        chunks = chunk_probabilities(model, np.stack([dataset[one] for one in indices]), params)
        for row, index in enumerate(indices):
            yield index, 0, chunks[row]
        del chunks  # or it would lie in memory beside the next forward pass
