"""From chunks to the probabilities of a whole movie, in constant memory.

Letters: C classes, T frames of the movie, T' of the padded movie, D frames of a chunk, s stride.

Source: specification sections 8.1 and 6.2.
"""

import contextlib

import numpy as np
import torch
from tqdm import tqdm

from common.files import InputError
from inputs.dataset_tools import chunk_multiplicity
from inputs.datasets import TIME_REDUCTION, MovieDataset
from inputs.preprocessing import count_chunks
from network.architecture import predict_log_probabilities
from settings.config import NUM_CLASSES

GAUSSIAN_WIDTH = 3.0
GAUSSIAN_REACH = 10.0
SMALL_CHUNK = 2**20  # voxels; in larger chunks a batch on the CPU costs memory and gains nothing


def gaussian_weights(count):
    """Return the weights (count,) of chunks that cover a frame, in order of their start."""
    u = np.linspace(-GAUSSIAN_REACH, GAUSSIAN_REACH, count)
    weights = np.exp(-(u**2) / (2 * GAUSSIAN_WIDTH**2))
    return (weights / weights.sum()).astype(np.float32)


def check_assembly(method, duration, stride):
    """Raise InputError where chunks of ``duration`` at ``stride`` cannot be put together."""
    if not 1 <= stride <= duration:
        raise InputError(f"stride {stride}, expected 1 to {duration} (frames of a chunk)")
    if method == "overlap" and (duration - stride) % 2:
        raise InputError(
            f"duration {duration} - stride {stride} is odd, expected an even number with overlap: "
            "change the stride by 1"
        )


class Assembly:
    """Probabilities of a padded movie, filled chunk by chunk in any order of methods.

    Args:
        method: ``overlap`` (middle part of each chunk), ``average``, ``gaussian`` (weighted mean)
            or ``max`` (the chunk that is surest of its class; ties: the first).
        frames: T'.
        duration: D.
        stride: s.
        classes: C.
        size: (H, W).
    """

    def __init__(self, method, frames, duration, stride, classes, size):
        check_assembly(method, duration, stride)
        self.method, self.duration, self.stride = method, duration, stride
        self.count = count_chunks(frames, duration, stride)
        self.covering = chunk_multiplicity(frames, duration, stride)  # (T',)
        self.total = np.zeros((classes, frames, *size), np.float32)

    def add(self, index, chunk):
        """Add chunk ``index`` (C, D, H, W) float32; chunks come in rising order."""
        start = index * self.stride
        if self.method == "overlap":
            half = (self.duration - self.stride) // 2
            low = half if index else 0
            high = self.duration - half if index < self.count - 1 else self.duration
            self.total[:, start + low : start + high] = chunk[:, low:high]
            return
        part = self.total[:, start : start + self.duration]
        if self.method == "max":
            surer = chunk.max(axis=0) > part.max(axis=0)  # (D, H, W)
            np.copyto(part, chunk, where=surer)
            return
        weights = self._weights(index)
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

    def result(self, pads=(0, 0)):
        """Return the probabilities (C, T, H, W) without ``pads`` (before, after) frames."""
        before, after = pads
        return self.total[:, before : self.total.shape[1] - after]


def inference_context(device, amp):
    """Return a context without gradients, in bfloat16 where ``amp`` asks for it."""
    stack = contextlib.ExitStack()
    stack.enter_context(torch.inference_mode())
    if amp:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16))
    return stack


@contextlib.contextmanager
def fast_layout(model, params):
    """Give the weights the layout in which a CPU convolves a quarter faster and in less memory.

    Afterwards they lie as before: a validation must not change how the training goes on.
    """
    change = next(model.parameters()).device.type == "cpu" and not params.channels_last
    if change:
        model.to(memory_format=torch.channels_last_3d)
    try:
        yield
    finally:
        if change:
            model.to(memory_format=torch.contiguous_format)


def chunk_probabilities(model, batch, params):
    """Return probabilities (B, C, D, H, W) float32 on the CPU of a batch of network inputs.

    Args:
        model: network in eval mode.
        batch: (B, D, H, W) or (B, C_in, D, H, W) float32 array.
        params: Params; with [inference] tile the frame goes through the network in parts.
    """
    device = next(model.parameters()).device
    x = torch.from_numpy(batch)
    x = x.unsqueeze(1) if x.dim() == 4 else x  # (B, C_in, D, H, W)
    rows, columns = (n or size for n, size in zip(params.tile, x.shape[3:], strict=True))
    if rows >= x.shape[3] and columns >= x.shape[4]:
        return _forward(model, x, params, device)
    halo = 2**params.unet_steps // 2
    output = np.empty((len(x), NUM_CLASSES, *x.shape[2:]), np.float32)
    for top in range(0, x.shape[3], rows):
        for left in range(0, x.shape[4], columns):
            low = (max(0, top - halo), max(0, left - halo))
            tile = x[..., low[0] : top + rows + halo, low[1] : left + columns + halo]
            found = _forward(model, tile, params, device)
            inner = found[..., top - low[0] :, left - low[1] :][..., :rows, :columns]
            output[..., top : top + rows, left : left + columns] = inner
    return output


def _forward(model, x, params, device):
    count = len(x)
    if count == 1 and device.type == "cpu" and x.numel() <= SMALL_CHUNK:
        # PyTorch takes a nine times slower convolution for a single small chunk
        x = x.repeat(2, *[1] * (x.dim() - 1))
    if params.channels_last or device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last_3d)
    with inference_context(device, params.amp and device.type == "cuda"):
        log_p = predict_log_probabilities(model, x.to(device), params)
        p = log_p[:count].float().exp_().cpu().numpy()
    return p.repeat(TIME_REDUCTION, axis=2) if params.temporal_reduction else p


def predict_probabilities(
    model, movie, params, *, method=None, stride=None, batch_size=None, name="movie"
):
    """Return the class probabilities of a movie.

    Args:
        model: network; it is put into eval mode.
        movie: (T, H, W) counts.
        params: Params.
        method: overlap, average, gaussian or max; default [inference] inference.
        stride: frames between chunks; default [inference] data_stride.
        batch_size: chunks at a time; default [inference] batch_size, 1 for large chunks on a CPU.
        name: named in warnings and on the progress bar.

    Returns:
        (probabilities (4, T, H, W) float32, movie as post-processing wants it: preprocessed,
        (T, H, W) float32, smallest value 0).
    """
    model.eval()
    on_gpu = next(model.parameters()).device.type == "cuda"
    dataset = MovieDataset(movie, params, stride=stride, name=name)
    if batch_size is None:
        large = dataset.duration * dataset.shape[1] * dataset.shape[2] > SMALL_CHUNK
        batch_size = 1 if large and not on_gpu else params.inference_batch_size
    assembly = Assembly(
        method or params.inference,
        dataset.shape[0],
        dataset.duration,
        dataset.stride,
        NUM_CLASSES,
        dataset.shape[1:],
    )
    starts = range(0, len(dataset), batch_size)
    with fast_layout(model, params):
        for first in tqdm(starts, desc=name, leave=False, disable=None):
            indices = range(first, min(first + batch_size, len(dataset)))
            batch = np.stack([dataset[index] for index in indices])
            found = chunk_probabilities(model, batch, params)
            for index, chunk in zip(indices, found, strict=True):
                assembly.add(index, chunk)
            del batch, found, chunk  # or they would lie in memory beside the next forward pass
    before, _ = dataset.pads
    clean = dataset.data[before : before + len(movie)]
    return assembly.result(dataset.pads), clean - clean.min()
