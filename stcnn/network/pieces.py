"""What a layer of the trunk does with a piece of a movie, on the way there and back.

A piece is some frames, few enough to lie in the cache; maps lie channels last, as the convolutions
want them. Letters: B movies, T frames, n frames of a piece, C channels, H and W rows and columns
of the map.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from network.temporal import coefficients

PIECE_FRAMES = 64  # a piece of a map of the published network is 1.1 MB


@dataclass(frozen=True)
class Plan:
    """What the trunk is besides its parameters.

    ``counts`` (T,) says how often a frame counts in the statistics. ``heads`` gives for each layer
    None, or a function from the time constants (C,) float64 to what the filter does in the first n
    frames, which are not one frame apart: see grey.py.
    ``n_kept`` outputs of filters are kept, the last ones. ``most`` is the most values of a frame.
    """

    strides: Sequence[tuple]
    paddings: Sequence[tuple]
    slopes: Sequence[float]
    eps: Sequence[float]
    dt: float
    n_taps: Sequence[int]
    counts: torch.Tensor
    heads: Sequence[Callable | None]
    n_head: int
    window: tuple
    n_kept: int
    most: int

    def pieces(self, n_frames: int, batch: int) -> list[slice]:
        """Return the pieces of a movie: the head, then as many frames as the cache holds."""
        length = max(PIECE_FRAMES // batch, 16)
        starts = [*([0] if self.n_head else []), *range(self.n_head, n_frames, length), n_frames]
        return [slice(*ends) for ends in itertools.pairwise(starts)]


class Shelf:
    """Room for the pieces of one map after the other, got once: small rooms tear memory to shreds.

    (What is freed between two pieces that stay is lost: half as much again as they are large.)
    """

    def __init__(self, x, parts, most):
        self.starts = [part.start * x.shape[0] * most for part in parts]
        self.room = x.new_empty(x.shape[0] * x.shape[1] * most)

    def put(self, k, piece):
        """Return a copy of piece ``k``, where the one before lay."""
        start = self.starts[k]
        return self.room[start : start + piece.numel()].view(piece.shape).copy_(piece)


class LayerPieces:
    """One layer's numbers in the shapes that its pieces want; ``measured`` completes them."""

    def __init__(self, i, plan, weight, tau):
        self.i, self.weight = i, weight
        self.r, self.g, _, self.kbar = coefficients(tau, plan.dt, plan.n_taps[i])
        self.tau = tau.detach().double().reshape(-1)
        self.gained = self._kernel(self.g)  # the filter's gain goes through the convolution
        self.stride, self.padding = plan.strides[i], plan.paddings[i]
        self.slope, self.counts, self.eps = plan.slopes[i], plan.counts, plan.eps[i]
        self.head_of, self.dt = plan.heads[i], plan.dt
        self.head = self.head_of(self.tau) if plan.n_head else None  # three (C, n)
        self.decay = None
        self.total, self.first, self.square, self.near = 0.0, 0.0, 0.0, None

    def _kernel(self, gain):
        scaled = self.weight * gain.to(self.weight.dtype)[:, None, None, None]
        return scaled.contiguous(memory_format=torch.channels_last)

    def convolve(self, z, n_alike=1):
        """Return the convolution (B, n, H, W, C) of ``z``, times the filter's gain.

        ``n_alike`` frames of one result are made where ``z`` is a single frame.
        """
        u = functional.conv2d(_frames(z), self.gained, stride=self.stride, padding=self.padding)
        u = u.permute(0, 2, 3, 1).unflatten(0, z.shape[:2])
        return u.expand(-1, max(n_alike, z.shape[1]), -1, -1, -1).contiguous()

    def filter(self, v, before):
        """Filter a piece in place; ``before`` is the frame before it, None is the head or zero."""
        if self.decay is None:
            self.decay = self.r.to(v.dtype).expand(v.shape[2:]).contiguous()
        if before is None and self.head is not None:
            return self._start(v)
        frames = v.unbind(1)
        if before is not None:
            frames[0].addcmul_(self.decay, before)
        for last, now in itertools.pairwise(frames):
            now.addcmul_(self.decay, last)
        return v

    def frames_of_head(self, like):
        """Return fade, end and start (n, 1, 1, C) of the head, see grey.py."""
        return [values.T[:, None, None].to(like.dtype) for values in self.head]

    def _start(self, v):
        fade, end, start = self.frames_of_head(v)
        y = v * end
        y[:, 1:].addcmul_(v[:, :-1], start[1:])
        fades = fade.expand(v.shape[1:]).contiguous().unbind(0)
        frames = y.unbind(1)
        for k in range(1, len(frames)):
            frames[k].addcmul_(fades[k], frames[k - 1])
        return y

    def measure(self, y, part):
        """Take a piece into the moments: sums of its difference from a mean of some frames."""
        if self.near is None:
            mean = y.mean((0, 1), dtype=torch.float64).mean((0, 1)).to(y.dtype)  # (C,)
            self.near = mean.expand(y.shape[2:]).contiguous()
        moved = y - self.near
        self.first = self.first + _weighted(moved, self.counts[part])
        self.square = self.square + _weighted(moved.mul_(moved), self.counts[part])
        self.total += float(self.counts[part].sum()) * y.shape[0] * y.shape[2] * y.shape[3]

    def measured(self, gain, bias):
        """Complete mean, variance and what normalises the layer; ``gain`` and ``bias`` (C,)."""
        shift = self.first / self.total
        self.mean = self.near[0, 0].double() + shift
        self.var = (self.square / self.total - shift**2).clamp_(min=0)
        self.gain = gain.double()
        self.inverse = (self.var + self.eps).rsqrt()
        self.scale = self.gain * self.inverse
        self.scale_map, self.shift_map = self.maps(
            self.scale, bias.double() - self.mean * self.scale
        )

    def maps(self, *channels):
        """Return values (C,) as maps (H, W, C): torch is slow at rows of ten numbers."""
        like = self.near
        return [values.to(like.dtype).expand(like.shape).contiguous() for values in channels]

    def normalise(self, y, slope):
        """Return the normalised and activated piece."""
        z = torch.addcmul(self.shift_map, y, self.scale_map)
        return z if slope == 1.0 else functional.leaky_relu_(z, slope)


def _frames(z):
    return z.flatten(0, 1).permute(0, 3, 1, 2)


def _weighted(values, counts):
    """Return the sums (C,) float64 of (B, n, H, W, C), each frame counted ``counts`` times."""
    if bool((counts == 1).all()):
        return values.sum((0, 1)).double().sum((0, 1))
    sums = values.sum((2, 3)).double()  # (B, n, C)
    return (sums * counts[:, None]).sum((0, 1))


def through(g, z, slope):
    """Return the gradient before the activation, in the place of ``g``; ``z`` is its result."""
    if slope == 1.0:
        return g
    return torch.ops.aten.leaky_relu_backward.grad_input(g, z, slope, True, grad_input=g)


class Sums:
    """Sums of a gradient, and of it times the map, per channel (C,) float64."""

    def __init__(self):
        self.g, self.gy = 0.0, 0.0

    def add(self, g, y):
        self.g = self.g + g.sum((0, 1)).double().sum((0, 1))
        self.gy = self.gy + (g * y).sum((0, 1)).double().sum((0, 1))


class WayBack:
    """The way back through one layer, from the last piece to the first."""

    def __init__(self, layer, sums):
        self.layer, self.sums = layer, sums
        self.grad_gain = (sums.gy - layer.mean * sums.g) * layer.inverse
        slope = self.grad_gain * layer.inverse / layer.total
        self.c0, self.c1 = layer.maps(sums.g / layer.total - layer.mean * slope, slope)
        self.factor = layer.g * layer.scale  # goes through the convolution, as the filter's gain
        self.kernel = layer._kernel(self.factor)
        self.grad_kernel, self.slow, self.head_tau, self.carry = 0.0, 0.0, 0.0, None

    def piece(self, g, y, before, head, part):
        """Return the gradient of the convolution's piece; ``g`` is overwritten.

        Args:
            g: gradient of the normalised map of the layer, (B, n, H, W, C).
            y: output of its filter.
            before: the frame before ``y``, None for the first.
            head: convolved head, None elsewhere.
            part: the frames of the piece.
        """
        layer, counts = self.layer, self.layer.counts[part]
        taken = torch.addcmul(self.c0, y, self.c1)
        if not bool((counts == 1).all()):
            taken *= counts.to(y.dtype)[:, None, None, None]
        g.sub_(taken)
        if self.carry is not None:
            g[:, -1].addcmul_(layer.decay, self.carry)
        if head is None:
            for later, now in itertools.pairwise(reversed(g.unbind(1))):
                now.addcmul_(layer.decay, later)
            self.carry = g[:, 0].clone()
            torch.mul(g[:, 1:], y[:, :-1], out=taken[:, 1:])
            if before is None:
                taken[:, 0] = 0
            else:
                torch.mul(g[:, 0], before, out=taken[:, 0])
            self.slow = self.slow + taken.sum((0, 1)).double().sum((0, 1))
        else:
            g = self._head(g, y, head)
        return g

    def convolved(self, g, z):
        """Return the gradient of ``z``, which a piece or a frame like all of it was made from."""
        layer = self.layer
        g = g if z.shape[1] == g.shape[1] else g.sum(1, keepdim=True)
        grad_z, part_of_kernel, _ = torch.ops.aten.convolution_backward(
            _frames(g), _frames(z), self.kernel, None, layer.stride, layer.padding,
            (1, 1), False, (0, 0), 1, (layer.i > 0, True, False),
        )  # fmt: skip
        self.grad_kernel = self.grad_kernel + part_of_kernel
        if layer.i == 0:
            return None
        return grad_z.permute(0, 2, 3, 1).contiguous().unflatten(0, z.shape[:2])

    def _head(self, g, y, v):
        """Return the gradient of the convolved head ``v``; take up what it says of time."""
        fade, end, start = self.layer.frames_of_head(v)
        fades, frames = fade.expand(v.shape[1:]).contiguous().unbind(0), g.unbind(1)
        for k in reversed(range(1, len(frames))):
            frames[k - 1].addcmul_(fades[k], frames[k])
        later = g[:, 1:]
        pairs = ((later, y[:, :-1]), (g, v), (later, v[:, :-1]))
        sums = [(a * b).sum((2, 3)).double().sum(0).T for a, b in pairs]  # (C, n or n - 1)
        with torch.enable_grad():
            tau = self.layer.tau.clone().requires_grad_()
            parts = self.layer.head_of(tau)
            total = (parts[0][:, 1:] * sums[0]).sum() + (parts[1] * sums[1]).sum()
            total = total + (parts[2][:, 1:] * sums[2]).sum()
            (self.head_tau,) = torch.autograd.grad(total, tau)
        grad = g * end
        grad[:, :-1].addcmul_(later, start[1:])
        return grad

    def gradients(self):
        """Return the gradients of kernel, time constants, gain and bias.

        The sum of gradient times output, which the filter's normaliser needs, is known: the norm
        leaves nothing of it but what its epsilon does.
        """
        layer, like = self.layer, self.layer.weight
        factor = self.factor.to(like.dtype)[:, None, None, None]
        whole = layer.gain * self.grad_gain * layer.eps * layer.inverse**2
        total = layer.scale * layer.r * self.slow - layer.kbar * whole
        grad_tau = layer.dt / layer.tau**2 * total + layer.scale * self.head_tau
        return (
            self.grad_kernel * factor,
            grad_tau.to(like.dtype)[:, None],
            self.grad_gain.to(like.dtype),
            self.sums.g.to(like.dtype),
        )
