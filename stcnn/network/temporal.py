"""Causal exponential filters, exact with truncation, by four routes and as a stream.

The filter of K taps is y_t = sum_{k < K} g r^k x_{t-k}, which equals the recursion
y_t = r y_{t-1} + g (x_t - r^K x_{t-K}): one pass over the frames instead of K products a frame.

Source: specification 12.1. Letters: B batch, T frames, C channels, S values per channel and frame,
K taps, L frames of a block.
"""

import itertools
import math

import torch
from torch.autograd.function import once_differentiable

from network.util_conv import exponential_kernel

IMPLEMENTATIONS = ("recursive", "chunk", "fft", "conv")
BLOCK_FRAMES = 64  # L of the chunk route
SMALL_FRAME = 512  # below this many values a frame, the interpreter costs more than the arithmetic
SUM_FRAMES = 64  # frames summed at a time for the gradient of tau: the product stays in the cache


def flush_tiny() -> None:
    """Let this process take numbers below 1e-38 as zero.

    On grey a filter's output fades into them, and processors add them up to ten times more slowly:
    most frames of a recording are grey. No result that a float32 can show depends on them.
    """
    torch.set_flush_denormal(True)


def route_for(wanted: str, device: str | torch.device) -> str:
    """Return the route of the filters: ``wanted``, or for auto the faster one of the device.

    The recursion is one small operation a frame (10,842 a step): a GPU waits for its launches.
    """
    if wanted != "auto":
        return wanted
    return "recursive" if torch.device(device).type == "cpu" else "chunk"


def temporal_filter(
    x: torch.Tensor,
    tau: torch.Tensor,
    *,
    dt: float,
    n_taps: int,
    impl: str = "recursive",
    bias: torch.Tensor | None = None,
    settled: bool = False,
) -> torch.Tensor:
    """Filter every channel of ``x`` with its own truncated exponential, from zero history.

    Args:
        x: (B, T, C, ...) float.
        tau: (C, 1) or (C,), seconds.
        dt: seconds per frame.
        n_taps: K.
        impl: recursive (CPU), chunk (few large products, for GPUs), fft or conv (for comparison).
        bias: (C,) added to the result, or None.
        settled: the first frame has been there for ever instead: a filter starts from its steady
            state, which is exact (see Settled in network/models.py).

    Returns:
        (B, T, C, ...), same dtype; differentiable in x, tau and bias on every route.
    """
    if impl in ("recursive", "chunk"):
        values = x.shape[0] * math.prod(x.shape[2:])
        by_block = impl == "chunk" or values < SMALL_FRAME
        return _ExponentialFilter.apply(x, tau, bias, dt, n_taps, by_block, settled)
    kernel = exponential_kernel(tau, dt=dt, n_taps=n_taps)
    return convolve(x, kernel, impl=impl, bias=bias, settled=settled)


def convolve(
    x: torch.Tensor,
    kernel: torch.Tensor,
    *,
    impl: str = "fft",
    bias: torch.Tensor | None = None,
    settled: bool = False,
) -> torch.Tensor:
    """Convolve every channel of ``x`` (B, T, C, ...) causally with ``kernel`` (C, K).

    In full precision: mixed precision would round the sums over many frames.
    """
    with torch.autocast(x.device.type, enabled=False):
        kernel = kernel.to(x.dtype)
        if not settled:
            return _convolve(x, kernel, impl, bias)
        first = x[:, :1]
        return _convolve(x - first, kernel, impl, bias) + first * _per_channel(kernel.sum(1), x)


def _convolve(x, kernel, impl, bias):
    n_frames, n_taps = x.shape[1], kernel.shape[1]
    series = x.movedim(1, -1)  # (B, C, ..., T)
    if impl == "conv":
        shape = series.shape
        flat = series.reshape(shape[0], shape[1], -1, n_frames).transpose(1, 2)  # (B, S, C, T)
        flat = flat.reshape(-1, shape[1], n_frames)  # (B S, C, T)
        padded = torch.nn.functional.pad(flat, (n_taps - 1, 0))
        flat = torch.nn.functional.conv1d(padded, kernel.flip(1).unsqueeze(1), groups=shape[1])
        y = flat.reshape(shape[0], -1, shape[1], n_frames).transpose(1, 2).reshape(shape)
    elif impl == "fft":
        n = _even(n_frames + n_taps - 1)
        gain = torch.fft.rfft(kernel, n=n)  # (C, F)
        gain = gain.reshape(gain.shape[0], *[1] * (series.ndim - 3), gain.shape[1])
        y = torch.fft.irfft(torch.fft.rfft(series, n=n) * gain, n=n)[..., :n_frames]
    else:
        raise ValueError(f"temporal_impl {impl!r}: expected one of {', '.join(IMPLEMENTATIONS)}")
    y = y.movedim(-1, 1)
    return y if bias is None else y + _per_channel(bias, y)


def coefficients(tau: torch.Tensor, dt: float, n_taps: int) -> tuple[torch.Tensor, ...]:
    """Return r, g, r^K and the normaliser's slope kbar per channel, (C,) float64.

    Float64 because 1 - q loses its digits in float32 for slow filters.
    """
    tau = tau.detach().double().reshape(-1)
    q_log = -2.0 * dt / tau
    one_minus_q, one_minus_qk = -torch.expm1(q_log), -torch.expm1(n_taps * q_log)
    r = torch.exp(-dt / tau)
    g = torch.sqrt(one_minus_q / one_minus_qk / dt)
    r_k = torch.exp(-n_taps * dt / tau)
    kbar = torch.exp(q_log) / one_minus_q - n_taps * torch.exp(n_taps * q_log) / one_minus_qk
    return r, g, r_k, kbar


class _ExponentialFilter(torch.autograd.Function):
    """The recursion with its exact gradients: one scan forward, one scan backward.

    Saved for backward: the output, and the input only when truncation acts (T > K). A settled
    filter saves the first frame besides: y_0 = D x_0 with the gain D = g (1 - r^K) / (1 - r), and
    x_0 stands for every frame before it.
    """

    @staticmethod
    def forward(ctx, x, tau, bias, dt, n_taps, by_block, settled):
        r, g, r_k, kbar = coefficients(tau, dt, n_taps)
        flat = x.reshape(*x.shape[:3], -1)  # (B, T, C, S)
        y = flat * g.to(x.dtype)[:, None]
        late = (g * r_k).to(x.dtype)[:, None]
        if x.shape[1] > n_taps:
            y[:, n_taps:].addcmul_(flat[:, :-n_taps], late, value=-1)
        if settled:
            torch.mul(flat[:, 0], _steady_gain(r, g, n_taps, tau, dt).to(x.dtype)[:, None],
                      out=y[:, 0])  # fmt: skip
            y[:, 1:n_taps].addcmul_(flat[:, :1], late, value=-1)
        _scan(y, r, by_block=by_block)
        ctx.dt, ctx.n_taps, ctx.by_block, ctx.tau_shape = dt, n_taps, by_block, tau.shape
        first = flat[:, 0].clone() if settled else None
        # only what truncation takes away again, not the movie's end: a long movie's map is large
        early = flat[:, :-n_taps].clone() if x.shape[1] > n_taps else None
        ctx.save_for_backward(y, early, first, r, g, r_k, kbar, tau)
        if bias is None:
            # A view of a saved tensor would let a later in-place step change what backward needs;
            # the caller keeps its hands off (leaky_relu works on the batch norm's output).
            return y.view(x.shape)
        return (y + bias.to(x.dtype)[:, None]).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, early, first, r, g, r_k, kbar, tau = ctx.saved_tensors
        n_taps = ctx.n_taps
        n_frames = y.shape[1]
        d = grad.reshape(y.shape)
        needs_x, needs_tau, needs_bias = ctx.needs_input_grad[:3]
        a = d.clone(memory_format=torch.contiguous_format)
        _scan(a, r, by_block=ctx.by_block, reverse=True)
        grad_tau = grad_bias = grad_x = None
        if needs_tau:
            # dL/dtau is a small difference of large sums: the sums run in float64.
            total = r * _channel_sum(a[:, 1:], y[:, :-1]) - kbar * _channel_sum(d, y)
            if n_frames > n_taps:
                total = total - n_taps * g * r_k * _channel_sum(a[:, n_taps:], early)
            if first is not None:
                total = total + _settled_slope(a, first, r, g, r_k, n_taps)
            seconds = tau.double().reshape(-1)
            grad_tau = (ctx.dt / seconds**2 * total).to(tau.dtype).reshape(ctx.tau_shape)
        if needs_bias:
            grad_bias = d.sum(dim=(1, 3), dtype=torch.float64).sum(0).to(d.dtype)
        if needs_x:
            from_first = None
            if first is not None:
                gain = _steady_gain(r, g, n_taps, tau, ctx.dt).to(a.dtype)[:, None]
                past = a[:, 1 : n_taps + 1].sum(1) * (g * r_k).to(a.dtype)[:, None]
                from_first = a[:, 0] * gain - past
            for start in range(
                0, n_frames - n_taps, n_taps
            ):  # front to back: sources are untouched
                stop = min(start + n_taps, n_frames - n_taps)
                later = a[:, start + n_taps : stop + n_taps]
                a[:, start:stop].addcmul_(later, r_k.to(a.dtype)[:, None], value=-1)
            a.mul_(g.to(a.dtype)[:, None])
            if from_first is not None:
                a[:, 0] = from_first
            grad_x = a.view(grad.shape)
        return grad_x, grad_tau, grad_bias, None, None, None, None


def _steady_gain(r, g, n_taps, tau, dt):
    """Return the gain of the filter for an input that never changes, per channel (C,) float64."""
    seconds = tau.detach().double().reshape(-1)
    return g * torch.expm1(-n_taps * dt / seconds) / torch.expm1(-dt / seconds)


def _settled_slope(a, first, r, g, r_k, n_taps):
    """Return what the first frame, there for ever, adds to the gradient of tau (C,) float64.

    y_0 = D x_0 changes with r through D, y_1 to y_(K-1) through the late term of x_0.
    """
    one_minus_r = 1.0 - r
    slope = (1.0 - r_k) / one_minus_r**2 - n_taps * r_k / r / one_minus_r
    now = (a[:, 0] * first).double().sum(dim=(0, 2))
    late = (a[:, 1:n_taps].sum(1) * first).double().sum(dim=(0, 2))
    return r * g * slope * now - n_taps * g * r_k * late


class FilterStream:
    """The same filter fed piece by piece: memory does not grow with the length of the movie.

    The state is the last output and a ring of the last K inputs, which the truncation needs.
    """

    def __init__(self, tau, *, dt, n_taps):
        self.n_taps = n_taps
        self.tau, self.dt = tau.detach(), dt
        self.last = None  # (B, C, S)
        self.ring = None  # (B, K, C, S)
        self.position = 0

    def push(self, x: torch.Tensor) -> torch.Tensor:
        """Return the filtered piece for ``x`` (B, n, C, ...), n of any size."""
        flat = x.reshape(*x.shape[:3], -1)  # (B, n, C, S)
        if self.ring is None:
            r, g, r_k, _ = coefficients(self.tau, self.dt, self.n_taps)
            self.r, self.g, self.late = r, g.to(x.dtype)[:, None], (g * r_k).to(x.dtype)[:, None]
            self.decay = r.to(x.dtype)[:, None]
            self.ring = flat.new_zeros(flat.shape[0], self.n_taps, *flat.shape[2:])
            self.last = torch.zeros_like(flat[:, 0])
        y = flat * self.g
        done = 0
        while done < y.shape[1]:
            n = min(self.n_taps - self.position, y.shape[1] - done)
            old = self.ring[:, self.position : self.position + n]
            y[:, done : done + n].addcmul_(old, self.late, value=-1)
            old.copy_(flat[:, done : done + n])
            self.position = (self.position + n) % self.n_taps
            done += n
        y[:, 0].addcmul_(self.decay, self.last)
        _scan(y, self.r, by_block=y[:, 0].numel() < SMALL_FRAME or y.is_cuda)
        self.last = y[:, -1].clone()
        return y.view(x.shape)

    def repeat(self, batch: int) -> "FilterStream":
        """Return a copy whose state is repeated for ``batch`` movies (made from a batch of one)."""
        twin = FilterStream(self.tau, dt=self.dt, n_taps=self.n_taps)
        twin.__dict__.update(self.__dict__)
        twin.last = self.last.repeat(batch, 1, 1)
        twin.ring = self.ring.repeat(batch, 1, 1, 1)
        return twin


class KernelStream:
    """Stream of a kernel without a recursion (power-exponential); keeps the last K - 1 inputs."""

    def __init__(self, kernel):
        self.kernel, self.past = kernel.detach(), None

    def push(self, x: torch.Tensor) -> torch.Tensor:
        """Return the filtered piece for ``x`` (B, n, C, ...)."""
        n_taps = self.kernel.shape[1]
        if self.past is None:
            self.past = x.new_zeros(x.shape[0], n_taps - 1, *x.shape[2:])
        joined = torch.cat([self.past, x], dim=1)
        self.past = joined[:, joined.shape[1] - (n_taps - 1) :]
        return convolve(joined, self.kernel)[:, n_taps - 1 :]

    def repeat(self, batch: int) -> "KernelStream":
        """Return a copy whose state is repeated for ``batch`` movies."""
        twin = KernelStream(self.kernel)
        twin.past = self.past.repeat(batch, *[1] * (self.past.ndim - 1))
        return twin


def _scan(u, r, *, by_block, reverse=False):
    """Replace ``u`` (B, T, C, S) in place by s_t = u_t + r s_{t-1}, or s_{t+1} in reverse."""
    if by_block:
        _scan_blocks(u, r, reverse)
        return
    decay = r.to(u.dtype)[:, None].expand(u.shape[2:]).contiguous()  # (C, S)
    frames = u.unbind(1)
    if reverse:
        frames = frames[::-1]
    for before, now in itertools.pairwise(frames):
        now.addcmul_(decay, before)


def _scan_blocks(u, r, reverse):
    """Scan by blocks of L frames: a triangular product inside, the carry between them.

    In full precision, forward and backward: mixed precision would shorten the products.
    """
    with torch.autocast(u.device.type, enabled=False):
        _block_products(u, r, reverse)


def _block_products(u, r, reverse):
    n_frames = u.shape[1]
    length = min(BLOCK_FRAMES, n_frames)
    lag = torch.arange(length, device=u.device)
    lags = lag[:, None] - lag[None, :]  # (L, L): row is the output, column the input
    powers = r[:, None, None] ** lags.clamp(min=0)
    triangle = torch.where(lags >= 0, powers, 0.0).to(u.dtype)  # (C, L, L)
    fade = (r[:, None] ** (lag + 1)).to(u.dtype)[..., None]  # (C, L, 1)
    if reverse:
        triangle, fade = triangle.transpose(1, 2), fade.flip(1)
    starts = range(0, n_frames, length)
    carry = None
    for start in reversed(starts) if reverse else starts:
        stop = min(start + length, n_frames)
        n = stop - start
        block = u[:, start:stop].transpose(1, 2)  # (B, C, n, S)
        out = triangle[:, :n, :n] @ block
        if carry is not None:
            out = torch.addcmul(out, fade[:, length - n :] if reverse else fade[:, :n], carry)
        carry = out[:, :, :1] if reverse else out[:, :, -1:]  # (B, C, 1, S)
        u[:, start:stop] = out.transpose(1, 2)


def _channel_sum(a, b):
    """Return sum over batch, frames and space of a * b per channel, (C,) float64."""
    total = torch.zeros(a.shape[2], dtype=torch.float64, device=a.device)
    for start in range(0, a.shape[1], SUM_FRAMES):
        product = a[:, start : start + SUM_FRAMES] * b[:, start : start + SUM_FRAMES]
        total += product.sum(3).sum(dim=(0, 1), dtype=torch.float64)
    return total


def _per_channel(values, like):
    return values.reshape(-1, *[1] * (like.ndim - 3))


def _even(n):
    return n + n % 2
