"""The trunk in training, piece by piece: what lies between two filters never exists as a whole.

Batch norm, activation, convolution and exponential filter of a layer are done for some frames at a
time, while these lie in the cache. Kept for the way back are the outputs of the filters, or, of the
lower layers of a long movie, one frame a piece, from which the piece is computed again. Maps lie
channels last, as the convolutions want them. Letters: B movies, T frames, n frames of a piece, C
channels, H and W rows and columns of the map.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

from network.grey import knot_counts, knot_head, steady_head
from network.layers import SpatioTemporalLayer, output_sizes
from network.norms import SLOPES, take_moments
from network.pieces import LayerPieces, Plan, Shelf, Sums, WayBack, through
from network.temporal import SMALL_FRAME

LONG_VALUES = 2_200_000  # of a map; smaller ones gain a seventh of the time at most, done in pieces
KEPT_MB = 64  # filters' outputs kept for each movie of a batch; the layers below are done again
FORGOTTEN = 3e-7  # what truncation takes away of a filter's memory is rounding below this share


class StreamedTrunk(torch.autograd.Function):
    """Every layer of the trunk with its batch statistics; the map where it is read."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, plan: Plan, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the normalised map of the last layer and the moments of all.

        Args:
            x: (B, T, 1, H, W), filtered by the photoreceptors.
            plan: Plan.
            parameters: of each layer in turn kernel, time constants, gain and bias of its norm.

        Returns:
            (B, T, C, h, w) cut to the window of the plan, then of each layer mean and variance
            (C,) float64 of the filter's output.
        """
        groups = [parameters[i : i + 4] for i in range(0, len(parameters), 4)]
        layers = [LayerPieces(i, plan, *group[:2]) for i, group in enumerate(groups)]
        x = x.movedim(2, 4).contiguous()  # (B, T, H, W, 1)
        parts = plan.pieces(x.shape[1], x.shape[0])
        kept, lasts = {}, {}
        shelves = [Shelf(x, parts, plan.most) for _ in range(plan.n_kept)]
        source = [x[:, part] for part in parts]
        alike = _Alike(source)
        for i, (layer, group) in enumerate(zip(layers, groups, strict=True)):
            made = []
            for k, part in enumerate(parts):
                z = source[k] if not alike(i, k) else source[k][:, :1]
                z = layers[i - 1].normalise(z, layer.slope) if i else z
                v = layer.convolve(z, part.stop - part.start)
                y = layer.filter(v, made[-1][:, -1] if k else None)
                made.append(shelves[i % plan.n_kept].put(k, y))
                layer.measure(made[-1], part)
            layer.measured(*group[2:])
            lasts[i] = [y[:, -1].clone() for y in made]
            if i >= len(layers) - plan.n_kept:
                kept[i] = made
            source = made
        ctx.x, ctx.parts, ctx.plan, ctx.layers = x, parts, plan, layers
        ctx.kept, ctx.lasts, ctx.alike = kept, lasts, alike
        ctx.shelves = shelves
        rows, columns = (slice(*ends) for ends in plan.window)
        last = layers[-1]
        scale, shift = last.scale_map[rows, columns], last.shift_map[rows, columns]
        out = x.new_empty(*x.shape[:2], shift.shape[2], *shift.shape[:2])
        for y, part in zip(source, parts, strict=True):
            out[:, part] = torch.addcmul(shift, y[:, :, rows, columns], scale).movedim(4, 2)
        moments = [value for layer in layers for value in (layer.mean, layer.var)]
        ctx.mark_non_differentiable(*moments)
        return out, *moments

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor, *_: torch.Tensor) -> tuple:
        """Return the gradients of the parameters; those of the movie are not taken."""
        if ctx.kept is None:
            raise RuntimeError("the trunk goes back once: it frees its maps on the way")
        grad, plan, layers, parts = grad.movedim(2, 4), ctx.plan, ctx.layers, ctx.parts
        gradients, kept, ctx.kept = {}, ctx.kept, None
        shelves, ctx.shelves = ctx.shelves, None
        # A gradient goes to the top's shelf, where one has just been used for the last time; a map
        # that is done again to that of the map above it.
        for_gradients, for_maps = shelves[(len(layers) - 1) % len(shelves)], None
        rows, columns = (slice(*ends) for ends in plan.window)
        top = kept[len(layers) - 1]
        sums = Sums()
        for y, part in zip(top, parts, strict=True):
            sums.add(grad[:, part], y[:, :, rows, columns])
        above = None
        for i in reversed(range(len(layers))):
            layer, ys = layers[i], kept.pop(i)
            above = above or [None] * len(parts)
            if i - 1 in kept:
                for_maps = shelves[(i - 1) % len(shelves)]
            below = kept.get(i - 1) or [None] * len(parts)
            way = WayBack(layer, sums)
            sums = Sums()
            for k in reversed(range(0 if i else ctx.alike.n_blank, len(parts))):
                g, y = above[k], ys[k]
                if g is None:
                    g = torch.zeros_like(y)
                    g[:, :, rows, columns] = grad[:, parts[k]]
                again = _again(ctx, i - 1, k) if i and below[k] is None else below[k]
                seen = again if i else ctx.x[:, parts[k]]
                seen = seen[:, :1] if ctx.alike(i, k) else seen
                z = layers[i - 1].normalise(seen, layer.slope) if i else seen
                n_head = plan.n_head if k == 0 else 0
                head = layer.convolve(z, n_head) if n_head else None
                g = way.piece(g, y, ys[k - 1][:, -1] if k else None, head, parts[k])
                if i:
                    if below[k] is None:
                        below[k] = for_maps.put(k, again)
                    g = through(way.convolved(g, z), z, layer.slope)
                    sums.add(g, seen)
                    above[k] = for_gradients.put(k, g)
                elif not ctx.alike(i, k):
                    way.convolved(g, z)
            kept[i - 1] = below
            gradients[i] = way.gradients()
        return None, None, *(value for i in range(len(layers)) for value in gradients[i])


class _Alike:
    """Which pieces consist of frames that are all alike where they enter a layer.

    Without contrast the first layer sees nothing, and, as long as nothing has been seen, the second
    one a map that stands still.
    """

    def __init__(self, pieces):
        self.dark = [not bool(piece.any()) for piece in pieces]
        self.n_blank = self.dark.index(False) if False in self.dark else len(pieces)

    def __call__(self, i, k):
        return self.dark[k] if i == 0 else i == 1 and k < self.n_blank


def _again(ctx, i, k):
    """Return piece ``k`` of the output of filter ``i`` from the movie."""
    part = ctx.parts[k]
    z = ctx.x[:, part]
    for j, layer in enumerate(ctx.layers[: i + 1]):
        z = z[:, :1] if ctx.alike(j, k) else z
        z = ctx.layers[j - 1].normalise(z, layer.slope) if j else z
        v = layer.convolve(z, part.stop - part.start)
        z = layer.filter(v, ctx.lasts[j][k - 1] if k else None)
    return z


def can_stream(network: Sequence[SpatioTemporalLayer], x: torch.Tensor, *, settled: bool) -> bool:
    """Return whether ``stream`` knows these layers and gives their numbers for ``x`` (B, T, ...).

    Exponential filters by recursion, in full precision, which forget all but rounding by the time
    at which truncation takes it away.
    """
    if x.is_cuda or x.requires_grad or torch.is_autocast_enabled(x.device.type):
        return False
    if any(layer.kind != "exp" or layer.impl != "recursive" for layer in network):
        return False
    if network[0].activation != "identity" or any(
        layer.activation not in SLOPES for layer in network
    ):
        return False
    sizes = output_sizes(network, x.shape[3:])[1:]
    values = [
        x.shape[0] * layer.x_weight.shape[0] * math.prod(size)
        for layer, size in zip(network, sizes, strict=True)
    ]
    if min(values) < SMALL_FRAME or max(values) * x.shape[1] < LONG_VALUES:
        return False
    return all(
        (x.shape[1] <= layer.n_taps and not settled)
        or float(torch.exp(-layer.n_taps * layer.dt / layer.tau.detach().max())) < FORGOTTEN
        for layer in network
    )


def stream(
    network: Sequence[SpatioTemporalLayer],
    norms: Sequence[nn.BatchNorm2d],
    x: torch.Tensor,
    *,
    window: tuple | None = None,
    n_first: int = 0,
    skip: int = 0,
    knots: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the training trunk's map; the running statistics take the batch's moments.

    Args:
        network: the layers; ``can_stream``.
        norms: their batch norms.
        x: (B, T, 1, H, W), filtered by the photoreceptors.
        window, n_first: see STCNN.trunk.
        skip: first frames that the statistics leave out.
        knots: frames (n,) at which the first knots[-1] + 1 ones are looked at, see grey.py.

    Returns:
        (B, T, C, h, w); of the first frames those at the knots.
    """
    heads, n_head = [None] * len(network), 0
    if network[0].settled:
        heads, n_head = [steady_head(layer.dt, layer.n_taps) for layer in network], 1
    elif knots is not None:
        x = torch.cat([x[:, knots], x[:, int(knots[-1]) + 1 :]], 1)
        heads, n_head = [knot_head(layer.dt, knots) for layer in network], len(knots)
    counts = torch.ones(x.shape[1], dtype=torch.float64)
    counts[:skip] = 0
    counts[0] = n_first or counts[0]
    if knots is not None:
        counts[: len(knots)] = knot_counts(knots)
    sizes = output_sizes(network, x.shape[3:])[1:]
    plan = Plan(
        strides=[layer.stride for layer in network],
        paddings=[layer.padding for layer in network],
        slopes=[SLOPES[layer.activation] for layer in network],
        eps=[norm.eps for norm in norms],
        dt=network[0].dt,
        n_taps=[layer.n_taps for layer in network],
        counts=counts,
        heads=heads,
        n_head=n_head,
        window=window or tuple((0, n) for n in sizes[-1]),
        n_kept=_n_kept(network, sizes, x),
        most=max(
            layer.x_weight.shape[0] * math.prod(size)
            for layer, size in zip(network, sizes, strict=True)
        ),
    )
    parameters = [
        value
        for layer, norm in zip(network, norms, strict=True)
        for value in (layer.x_weight, layer.tau, norm.weight, norm.bias)
    ]
    out, *moments = StreamedTrunk.apply(x, plan, *parameters)
    pairs = zip(moments[::2], moments[1::2], strict=True)
    for layer, norm, size, (mean, var) in zip(network, norms, sizes, pairs, strict=True):
        n = float(counts.sum()) * x.shape[0] * math.prod(size)
        take_moments(norm, mean, var, layer.bias, n)
    return out


def _n_kept(network, sizes, x):
    """Return how many outputs of filters, from the last one down, lie in KEPT_MB; at least two."""
    free, n = KEPT_MB * 2**20 / (x.element_size() * x.shape[1]), 0
    for layer, size in zip(reversed(network), reversed(sizes), strict=True):
        free -= layer.x_weight.shape[0] * math.prod(size)
        if free < 0:
            break
        n += 1
    return max(n, 2)  # on the way there a layer's map is made from the one below
