"""The published prediction at a quarter of its cost: chunks share what they have in common.

The published way computes every chunk whole, and keeps the middle of it: of 256 frames every 32.
Here the encoder runs once over the movie as far as its values do not depend on the chunk, and the
decoder of each chunk computes the kept frames only (``network.chunk_plan`` says which those are).
The probabilities are the same but for the rounding of float32.

Letters: C channels, T frames, H rows, W columns, l level (0 the finest), G chunks at a time.

Source: specification sections 6.1 and 8.1; the way of computing is this project's own.
"""

import math
import mmap
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from inputs.datasets import MovieDataset
from inputs.lazy_movie import LazyMovie
from network.architecture import UNetPadWrapper
from network.chunk_plan import Plan, slabs
from network.fast_layers import (
    channels_strided,
    class_probabilities,
    halves,
    memory_format,
    pool,
    run_block,
    upsample,
)
from settings.config import Params

SLAB_VALUES = 2**21  # of one map at a time: more costs memory and saves no time
KEPT_VALUES = 2**27  # of a chunk at level 0: above, a tenth of the time saves half of the memory
LONG_STRIDE = 4  # from D / 4 on half of that: more frames are kept for one chunk
MIN_SLAB = 8  # frames: each slab computes 2d frames more on both sides


def _apart(piece):
    """Return a copy of a map (1, C, T, H, W) on a CPU in memory of its own.

    What is kept between maps that come and go would leave holes in the memory of the process, up to
    a fifth of it; this memory goes back to the system when the map is dropped.
    """
    place = torch.frombuffer(mmap.mmap(-1, max(1, piece.nbytes)), dtype=piece.dtype)
    _, channels, frames, rows, columns = piece.shape
    place = place[: piece.numel()].view(1, frames, rows, columns, channels)
    return place.permute(0, 4, 1, 2, 3).copy_(piece)


class Frames:
    """Consecutive frames of one level, in the pieces (1, C, T, H, W) in which they were found."""

    def __init__(self):
        self.pieces, self.end = [], 0

    def append(self, piece: torch.Tensor) -> None:
        """Add the next frames."""
        kept = _apart(piece) if piece.device.type == "cpu" and piece.numel() else piece
        self.pieces.append((self.end, kept))
        self.end += piece.shape[2]

    def drop(self, before: float) -> None:
        """Forget the pieces whose frames all lie before ``before``."""
        self.pieces = [(at, one) for at, one in self.pieces if at + one.shape[2] > before]

    def parts(self, first: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (frame, piece) that cover ``first`` to ``last``, in order."""
        at = first
        for start, piece in self.pieces:
            stop = min(last, start + piece.shape[2])
            if start <= at < stop:
                yield at, piece[:, :, at - start : stop - start]
                at = stop
        if at < last:  # a fault of this file, and of no input
            raise AssertionError(f"frames {at} to {last} are not there")


class Source:
    """The frames of the movie, which are loaded when they are asked for.

    Args:
        load: (first, last) -> these frames as (1, C, T, H, W) input of the network.
    """

    def __init__(self, load: Callable):
        self.load = load

    def parts(self, first: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (``first``, the frames ``first`` to ``last``)."""
        yield first, self.load(first, last)

    def drop(self, before: float) -> None:
        """Do nothing: there is nothing to forget."""


class Recomputed:
    """The frames of level 0 of a movie that are too large to be kept: computed when asked for."""

    def __init__(self, layers, source: Source, reach: int):
        self.layers, self.source, self.reach, self.end = layers, source, reach, 0

    def append(self, piece: torch.Tensor) -> None:
        """Count the next frames."""
        self.end += piece.shape[2]

    def drop(self, before: float) -> None:
        """Do nothing: nothing is kept."""

    def parts(self, first: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (``first``, the frames ``first`` to ``last``)."""
        x = joined([self.source], max(0, first - self.reach), last + self.reach)
        sizes = {"first": first, "last": last, "frames": last + self.reach}
        yield first, run_block(self.layers, [(self.layers[0], x)], **sizes)


class ChunkFrames:
    """Frames of one chunk at one level: the movie's, but for the ends that are the chunk's own.

    Args:
        movie: Frames of the movie at this level.
        start: frame of the movie that is the first of the chunk.
        size: frames of the chunk.
        front, back: (1, C, T, H, W), the first and the last frames in place of the movie's.
    """

    def __init__(self, movie: Frames, start: int, size: int, front=None, back=None):
        self.movie, self.start, self.size, self.front, self.back = movie, start, size, front, back

    def parts(self, first: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (frame of the chunk, piece) that cover ``first`` to ``last``, in order."""
        low = 0 if self.front is None else self.front.shape[2]
        high = self.size - (0 if self.back is None else self.back.shape[2])
        if first < low:
            yield first, self.front[:, :, first : min(last, low)]
        begin, end = max(first, low), min(last, high)
        if begin < end:
            for at, piece in self.movie.parts(begin + self.start, end + self.start):
                yield at - self.start, piece
        if last > high:
            begin = max(first, high)
            yield begin, self.back[:, :, begin - high : last - high]


def joined(maps: list, first: int, last: int) -> torch.Tensor:
    """Return the frames ``first`` to ``last`` of G maps as one tensor (G, C, T, H, W)."""
    rows = []
    for one in maps:
        pieces = [piece for _, piece in one.parts(first, last)]
        rows.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def slab_frames(frame_values: int) -> int:
    """Return how many frames of ``frame_values`` numbers each are computed at a time."""
    return max(MIN_SLAB, SLAB_VALUES // frame_values)


class Encoder:
    """The encoder of a whole movie, as far as chunks share it, computed as chunks ask for it.

    Args:
        blocks: encoder blocks of the network, finest first.
        plan: Plan.
        load: of Source.
    """

    def __init__(self, blocks, plan: Plan, load: Callable):
        self.blocks, self.plan, self.load = blocks, plan, load
        self.frame_values = blocks[0].layers[0].out_channels * load(0, 1).numel()
        self.inputs = [Source(load), *(Frames() for _ in range(min(plan.shared, plan.steps)))]
        self.maps = [Frames() for _ in plan.edges]  # output of each shared level
        most = KEPT_VALUES // 2 - 1 if plan.stride * LONG_STRIDE > plan.frames else KEPT_VALUES
        if plan.shared and self.frame_values * plan.frames > most:
            self.maps[0] = Recomputed(blocks[0].layers, self.inputs[0], plan.reach)

    def advance(self, end: int) -> None:
        """Compute what chunks that end at frame ``end`` share."""
        plan = self.plan
        for level, edge in enumerate(plan.edges):
            source, target = self.inputs[level], self.maps[level]
            frames = end >> level
            values = self.frame_values >> level  # a quarter of the pixels, twice the channels
            for low, high in slabs(target.end, frames - edge, slab_frames(values)):
                x = joined([source], max(0, low - plan.reach), high + plan.reach)
                features = self._block(level, x, first=low, last=high, frames=frames)
                target.append(features)
                if level < plan.steps:
                    self.inputs[level + 1].append(pool(features))

    def chunks(self, starts: list[int]) -> tuple[list[list[ChunkFrames]], list[ChunkFrames]]:
        """Return the outputs of the shared levels of G chunks and the input of the next level.

        Args:
            starts: first frame of each chunk.

        Returns:
            ([level][chunk], [chunk]); the second is empty when all levels are shared.
        """
        plan, maps = self.plan, []
        zeros = self.load(-max(plan.before, plan.after), 0)
        front, back = zeros[:, :, : plan.before], zeros[:, :, : plan.after]
        ends = [(front, back)] * len(starts)
        for level in range(plan.shared + 1):
            if level > plan.steps:
                return maps, []
            size = plan.size(level)
            sources = [
                ChunkFrames(self.inputs[level], start >> level, size, *pair)
                for start, pair in zip(starts, ends, strict=True)
            ]
            if level == plan.shared:
                return maps, sources
            edge = plan.edges[level]
            x = joined(sources, 0, edge + plan.reach)
            front = self._block(level, x, first=0, last=edge, frames=size)
            x = joined(sources, size - edge - plan.reach, size)
            back = self._block(level, x, first=size - edge, last=size, frames=size)
            maps.append(
                [
                    ChunkFrames(self.maps[level], start >> level, size, *pair)
                    for start, pair in zip(starts, _pairs(front, back), strict=True)
                ]
            )
            if level < plan.steps:
                ends = _pairs(pool(front), pool(back))
        raise AssertionError("a plan shares at most all levels")

    def _block(self, level, x, **frames):
        layers = self.blocks[level].layers
        return run_block(layers, [(layers[0], x)], **frames)

    def drop(self, done: int, start: int, needed: list[tuple[int, int]] | None) -> None:
        """Forget frames that neither the chunk at hand nor a later one reads any more.

        Args:
            done: frame of the movie up to which level 0 of the chunk at hand is decoded.
            start: first frame of the next chunk.
            needed: of ``Plan.needed``, of the next chunk; None: there is none.
        """
        plan = self.plan
        for level, one in enumerate(self.maps):
            keep = math.inf
            if needed:
                first = needed[level][0]
                if level < plan.steps:  # what the block of the decoder reads
                    first = plan.around(level, *needed[level])[0]
                keep = (start >> level) + first
            one.drop(keep if level else min(keep, done - plan.reach))
        for level, one in enumerate(self.inputs):
            keep = start >> level if needed else math.inf
            if needed and level < plan.shared:
                keep = min(keep, self.maps[level].end - plan.reach)
            one.drop(keep)


def _pairs(front, back):
    return [(front[g : g + 1], back[g : g + 1]) for g in range(len(front))]


class Decoder:
    """Levels of single chunks: the encoder below the shared ones, and the decoder where kept."""

    def __init__(self, model: UNetPadWrapper, plan: Plan):
        self.model, self.plan = model, plan
        self.halves = [halves(block.layers[0]) for block in model.up_path[1::2]]

    def bottom(self, maps: list, sources: list) -> torch.Tensor:
        """Return the coarsest map (G, C, T, H, W), and put the maps above it into ``maps``."""
        x = None
        for level in range(self.plan.shared, self.plan.steps + 1):
            x = joined(sources, 0, self.plan.size(level)) if x is None else pool(x)
            x = self._whole(level, x)
            rows = []
            for one in x.split(1):
                rows.append(Frames())
                rows[-1].append(one)
            maps.append(rows)
        return x

    def _whole(self, level, x):
        """Return the encoder block of ``level`` of a whole chunk (G, C, T, H, W)."""
        layers, size = self.model.down_path[level].layers, self.plan.size(level)
        values = len(x) * layers[0].out_channels * x[0, 0, 0].numel()
        parts = list(slabs(0, size, slab_frames(values)))
        if len(parts) == 1:
            return run_block(layers, [(layers[0], x)], last=size, frames=size)
        output = None
        for low, high in parts:
            first, last = self.plan.around(level, low, high)
            part = [(layers[0], x[:, :, first:last])]
            part = run_block(layers, part, first=low, last=high, frames=size)
            output = _filled(output, part, low, size)
        return output

    def parts(
        self, maps: list[list], x: torch.Tensor, x_first: int, needed: list[tuple[int, int]]
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield (first, last, probabilities (classes, G, T, H, W)) of the kept frames.

        Args:
            maps: outputs of the encoder, [level][chunk].
            x: (G, C, T, H, W) coarsest map from its frame ``x_first`` on.
            needed: of ``Plan.needed``.
        """
        for level in range(self.plan.steps - 1, -1, -1):
            first, last = needed[level]
            block = self.model.up_path[2 * (self.plan.steps - 1 - level) + 1]
            values = len(x) * block.layers[0].out_channels * 4 * x[0, 0, 0].numel()
            output = None
            for low, high in slabs(first, last, slab_frames(values)):
                part = self._slab(level, maps[level], x, x_first, low, high)
                if not level:
                    yield low, high, class_probabilities(part, self.model.final_layer)
                elif (low, high) == (first, last):
                    output = part
                else:
                    output = _filled(output, part, low - first, last - first)
            x, x_first = output, first

    def _slab(self, level, skips, x, x_first, low, high):
        """Return the frames ``low`` to ``high`` of the decoder block of ``level``."""
        place = self.plan.steps - 1 - level
        first, last = self.plan.around(level, low, high)
        even = first // 2
        part = x[:, :, even - x_first : -(-last // 2) - x_first]
        up = upsample(part, self.model.up_path[2 * place])  # (G, C, T, H, W)
        up = up.narrow(2, first - 2 * even, last - first)
        inputs = list(zip(self.halves[place], (joined(skips, first, last), up), strict=True))
        del up
        layers = self.model.up_path[2 * place + 1].layers
        return run_block(layers, inputs, first=low, last=high, frames=self.plan.size(level))


def _filled(output, part, first, frames):
    """Put ``part`` at frame ``first`` into ``output``, made for ``frames`` frames when None."""
    if output is None:
        shape, layout = (*part.shape[:2], frames, *part.shape[3:]), memory_format(part.device)
        output = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)
    output[:, :, first : first + part.shape[2]] = part
    return output


class Canvas:
    """Frames of a movie as the network sees them: turned and padded, and back again.

    Args:
        dataset: MovieDataset.
        plan: Plan.
        device: of the network.
        turned: rows and columns change places.
    """

    def __init__(self, dataset, plan: Plan, device: torch.device, *, turned: bool):
        self.dataset, self.plan, self.device, self.turned = dataset, plan, device, turned
        self.frames = dataset.shape[0]
        step = 2**plan.steps
        self.size = tuple(reversed(dataset.shape[1:])) if turned else tuple(dataset.shape[1:])
        self.pads = [((-n % step) // 2, -n % step - (-n % step) // 2) for n in self.size]

    def load(self, first: int, last: int) -> torch.Tensor:
        """Return frames of the movie with its zeros, (1, 1, last - first, H, W)."""
        low, high = first - self.plan.before, last - self.plan.before
        inside = (min(max(low, 0), self.frames), max(min(high, self.frames), 0))
        values = np.zeros((last - first, *self.dataset.shape[1:]), np.float32)
        if inside[0] < inside[1]:
            values[inside[0] - low : inside[1] - low] = self.dataset.frames(*inside)
        return self._padded(torch.from_numpy(values)[None, None])

    def chunk(self, index: int) -> torch.Tensor:
        """Return chunk ``index`` with its zero frames, (1, C, D, H, W)."""
        x = torch.from_numpy(np.ascontiguousarray(self.dataset[index]))
        x = x[None, None] if x.dim() == 3 else x[None]
        return self._padded(functional.pad(x, (0, 0, 0, 0, self.plan.before, self.plan.after)))

    def _padded(self, x):
        if self.turned:
            x = x.transpose(3, 4)
        x = functional.pad(x, [n for pair in reversed(self.pads) for n in pair]).to(self.device)
        if x.shape[1] == 1 and x.device.type == "cpu":
            return channels_strided(x)
        return x.contiguous(memory_format=memory_format(self.device))

    def values(self, x: torch.Tensor) -> np.ndarray:
        """Return (classes, T, H, W) as the movie lies, without the padding."""
        for axis, ((before, _), size) in enumerate(zip(self.pads, self.size, strict=True), 2):
            x = x.narrow(axis, before, size)
        return (x.transpose(2, 3) if self.turned else x).cpu().numpy()


def reason_against(model: nn.Module, params: Params) -> str | None:
    """Return why chunks of this network can share nothing, or None when they can."""
    if not isinstance(model, UNetPadWrapper):
        return f"network {type(model).__name__}"
    if not model.halo:
        return "border_mode = valid"
    if any(params.tile):
        return "tile"
    if not model.pad_time and params.chunk[0] % 2 ** (len(model.down_path) - 1):
        return "frames are not padded"
    return None


def chunk_plan(model: UNetPadWrapper, dataset: MovieDataset | LazyMovie, params: Params) -> Plan:
    """Return how the chunks of a MovieDataset go through the network."""
    own = params.sin_channels or params.norm_video == "chunk"
    own = own or params.remove_background == "chunk_average"
    return Plan.of(
        dataset.duration,
        dataset.stride,
        steps=len(model.down_path) - 1,
        dilation=model.halo // 2,
        share=len(dataset) > 1 and not own,
    )


def predicted_parts(
    model: UNetPadWrapper,
    dataset: MovieDataset | LazyMovie,
    plan: Plan,
    kept: Callable,
    *,
    group: int = 1,
    turned: bool = False,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the probabilities of the kept frames of all chunks of a movie.

    Without gradients, the network in eval mode and its weights ``turned`` like the frames.

    Args:
        model: network.
        dataset: MovieDataset.
        plan: of ``chunk_plan``.
        kept: index of a chunk -> (first, last) frame of it that is wanted.
        group: chunks at a time; they are in memory together.
        turned: rows and columns change places.

    Yields:
        (index of the chunk, first frame in it, probabilities (classes, T, H, W) float32).
    """
    canvas = Canvas(dataset, plan, next(model.parameters()).device, turned=turned)
    encoder, decoder = Encoder(model.down_path, plan, canvas.load), Decoder(model, plan)
    index = 0
    while index < len(dataset):
        range_kept = kept(index)
        indices = [index]
        while len(indices) < group and index + len(indices) < len(dataset):
            if kept(index + len(indices)) != range_kept:
                break
            indices.append(index + len(indices))
        starts, needed = [one * plan.stride for one in indices], plan.needed(*range_kept)
        if plan.shared:
            encoder.advance(starts[-1] + plan.frames)
            maps, sources = encoder.chunks(starts)
        else:
            maps, sources = [], [_frames_of(canvas.chunk(one)) for one in indices]
        x, x_first = decoder.bottom(maps, sources), 0
        if x is None:  # all levels are shared
            x, x_first = joined(maps[-1], *needed[-1]), needed[-1][0]
        index = indices[-1] + 1
        following = plan.needed(*kept(index)) if index < len(dataset) else None
        for low, high, output in decoder.parts(maps, x, x_first, needed):
            for row, one in enumerate(indices):
                yield one, low - plan.before, canvas.values(output[:, row])
            if plan.shared:  # the maps go while the probabilities grow
                encoder.drop(starts[0] + high, index * plan.stride, following)


def _frames_of(x):
    frames = Frames()
    frames.append(x)
    return frames
