"""The network: lens optics, shared hidden layers, one read-out per cell type, calcium indicator.

Source: specification 6.2 to 6.5 and 7. Letters: B movies, T frames, C channels, H and W rows and
columns of the map, N items, K taps.

``ca_param.<type>.beta`` holds the raw gain and ``ca_param.<type>.alpha`` the offset.
Faithful: the published code passes the two in swapped order wherever it uses them, so every
released number follows Ca = alpha + softplus(beta) * filter(act(v) + shift).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from network.temporal import FilterStream, KernelStream, convolve, temporal_filter
from network.util_conv import power_exponential_kernel

LEAKY_SLOPE = 0.01
ACTIVATIONS = ("identity", "relu", "tanh", "leaky_relu", "elu")
CHANNELS_LAST = torch.channels_last
NORM_MOMENTUM, NORM_EPS = 0.1, 1e-5


def activate(x: torch.Tensor, name: str, *, inplace: bool = False) -> torch.Tensor:
    """Apply the activation called ``name``; ``inplace`` allows the input to be overwritten."""
    if name == "identity":
        return x
    if name == "relu":
        return functional.relu(x, inplace=inplace)
    if name == "tanh":
        return x.tanh_() if inplace else x.tanh()
    if name == "leaky_relu":
        return functional.leaky_relu(x, LEAKY_SLOPE, inplace=inplace)
    if name == "elu":
        return functional.elu(x, inplace=inplace)
    raise ValueError(f"unknown activation {name!r}: expected one of {', '.join(ACTIVATIONS)}")


def filtered_drive(
    v: torch.Tensor,
    tau: torch.Tensor,
    *,
    activation: str,
    dt: float,
    n_taps: int,
    impl: str = "recursive",
) -> torch.Tensor:
    """Return filter(act(v) + shift) for voltages (N, T): what the indicator sees.

    The shift is 1 for elu, so that the drive is never negative, and 0 otherwise.
    """
    drive = activate(v, activation) + (1.0 if activation == "elu" else 0.0)
    return temporal_filter(drive[..., None], tau, dt=dt, n_taps=n_taps, impl=impl)[..., 0]


def scale_activity(
    activity: torch.Tensor, gain_raw: torch.Tensor, offset: torch.Tensor
) -> torch.Tensor:
    """Return calcium offset + softplus(gain_raw) * activity (N, T); gain and offset (N,) or one."""
    return offset.reshape(-1, 1) + functional.softplus(gain_raw).reshape(-1, 1) * activity


def full_precision(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float32 when mixed precision made it shorter: the filters sum many frames."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Convolution(torch.autograd.Function):
    """conv2d without bias; its gradients are taken channels last, on CPUs about twice as fast.

    Only the gradients: the temporal filter wants the output itself frame by frame, channel by
    channel.
    """

    @staticmethod
    def forward(ctx, x, weight, stride, padding):
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = (value.contiguous(memory_format=CHANNELS_LAST) for value in ctx.saved_tensors)
        grad = grad.contiguous(memory_format=CHANNELS_LAST)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(x.shape, weight, grad, ctx.stride, ctx.padding).contiguous()
        if ctx.needs_input_grad[1]:
            grad_weight = conv2d_weight(x, weight.shape, grad, ctx.stride, ctx.padding)
        return grad_x, grad_weight, None, None


class Photoreceptor(nn.Module):
    """Gaussian sampling of the movie on a coarse grid, then a short exponential filter; frozen."""

    def __init__(self, x_weight, tau, *, stride, padding, dt, n_taps):
        super().__init__()
        self.x_weight = nn.Parameter(x_weight[None, None], requires_grad=False)
        self.register_buffer("tau", torch.full((1, 1), float(tau)))
        self.stride, self.padding, self.dt, self.n_taps = tuple(stride), tuple(padding), dt, n_taps
        self.impl = "recursive"
        self._matrices = (None, None)

    def sample(self, contrast: torch.Tensor) -> torch.Tensor:
        """Sample contrast frames (..., rows, columns) on the coarse grid, (..., H, W).

        A Gaussian is a product of a row and a column profile, so two small matrix products replace
        the convolution. A loaded kernel that is no such product is convolved.
        """
        matrices = self._profile_matrices(contrast.shape[-2:])
        if matrices is not None:
            down, across = matrices
            return down @ (contrast @ across)
        flat = contrast.reshape(-1, 1, *contrast.shape[-2:])
        y = functional.conv2d(flat, self.x_weight, stride=self.stride, padding=self.padding)
        return y.reshape(*contrast.shape[:-2], *y.shape[-2:])

    def _profile_matrices(self, size):
        """Return matrices (H, rows) and (columns, W) that sample frames of ``size``, or None.

        None is a kernel that is no product. They are kept until the kernel or the size changes.
        """
        weight = self.x_weight
        key = (tuple(size), weight._version, weight.device, weight.dtype)
        if self._matrices[0] != key:
            kernel = weight.detach()[0, 0]
            rows, cols, total = kernel.sum(1), kernel.sum(0), kernel.sum()
            found = None
            if torch.allclose(torch.outer(rows, cols) / total, kernel, rtol=1e-4, atol=1e-7):
                down = self._profile_matrix(rows, size[0], 0)  # (H, rows)
                found = down, self._profile_matrix(cols / total, size[1], 1).T
            self._matrices = key, found
        return self._matrices[1]

    def _profile_matrix(self, profile, n_pixels, axis):
        unit = torch.eye(n_pixels, dtype=profile.dtype, device=profile.device)[:, None]
        stride, padding = self.stride[axis], self.padding[axis]
        return functional.conv1d(unit, profile[None, None], stride=stride, padding=padding)[:, 0].T

    def forward(self, sampled: torch.Tensor) -> torch.Tensor:
        """Filter sampled frames (B, T, 1, H, W) in time."""
        return temporal_filter(sampled, self.tau, dt=self.dt, n_taps=self.n_taps, impl=self.impl)

    def stream(self) -> FilterStream | KernelStream | None:
        """Return the temporal filter as a stream."""
        return FilterStream(self.tau, dt=self.dt, n_taps=self.n_taps)


class SpatioTemporalLayer(nn.Module):
    """Activation, spatial convolution, causal temporal filter, bias, in this order.

    ``kind`` is exp (one tau per output channel), pwrexp (tau and n_power) or spatial (no filter).
    """

    def __init__(self, x_weight, bias, *, kind, activation, stride, padding, dt, n_taps=None):
        super().__init__()
        self.x_weight, self.kind, self.activation = nn.Parameter(x_weight), kind, activation
        self.stride, self.padding, self.dt, self.n_taps = tuple(stride), tuple(padding), dt, n_taps
        if kind != "spatial":
            self.tau = nn.Parameter(torch.empty(x_weight.shape[0], 1))
        if kind == "pwrexp":
            self.n_power = nn.Parameter(torch.empty(x_weight.shape[0], 1))
        self.bias = nn.Parameter(bias)
        self.impl = "recursive"

    def spatial(
        self, x: torch.Tensor, weight: torch.Tensor, *, inplace: bool = False
    ) -> torch.Tensor:
        """Activate and convolve ``x`` (B, T, C, H, W) with ``weight``, without bias."""
        x = activate(x, self.activation, inplace=inplace)
        frames = x.flatten(0, 1)  # (B T, C, H, W)
        if x.is_cuda:
            y = functional.conv2d(frames, weight, stride=self.stride, padding=self.padding)
        else:
            y = _Convolution.apply(frames, weight, self.stride, self.padding)
        return full_precision(y).unflatten(0, x.shape[:2])

    def temporal(self, u: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Filter ``u`` (B, T, C, ...) in time and add ``bias`` (C,) or None."""
        if self.kind == "exp":
            return temporal_filter(
                u, self.tau, dt=self.dt, n_taps=self.n_taps, impl=self.impl, bias=bias
            )
        if self.kind == "pwrexp":
            return convolve(
                u, self._kernel(), impl="conv" if self.impl == "conv" else "fft", bias=bias
            )
        return u if bias is None else u + bias.reshape(-1, *[1] * (u.ndim - 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the whole output map for ``x`` (B, T, C, H, W)."""
        return self.temporal(self.spatial(x, self.x_weight), self.bias)

    def patch_drive(self, x: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
        """Return the convolution at one output position only, (B, T, 1).

        Args:
            x: (B, T, C, H, W) map before the activation.
            start: (row, column) of the kernel's first tap on the map; taps outside count as zero.
        """
        low = [max(first, 0) for first in start]
        size = self.x_weight.shape[2:]
        high = [min(s + k, n) for s, k, n in zip(start, size, x.shape[3:], strict=True)]
        patch = activate(x[..., low[0] : high[0], low[1] : high[1]], self.activation)
        taps = self.x_weight[0][
            :, low[0] - start[0] : high[0] - start[0], low[1] - start[1] : high[1] - start[1]
        ]
        return full_precision(patch.flatten(2) @ taps.flatten()[:, None].to(patch.dtype))

    def stream(self) -> FilterStream | KernelStream | None:
        """Return the temporal filter as a stream, or None for a spatial layer."""
        if self.kind == "exp":
            return FilterStream(self.tau, dt=self.dt, n_taps=self.n_taps)
        return KernelStream(self._kernel()) if self.kind == "pwrexp" else None

    def _kernel(self):
        return power_exponential_kernel(self.tau, self.n_power, dt=self.dt, n_taps=self.n_taps)


class STCNN(nn.Module):
    """The whole model. Parameter names and their order are those of the released checkpoints."""

    def __init__(self, *, pr, network, read_outs, calcium, readout):
        """Assemble the parts.

        Args:
            pr: Photoreceptor.
            network: list of SpatioTemporalLayer.
            read_outs: dict cell type -> SpatioTemporalLayer with one output channel.
            calcium: dict with activation, n_taps, dt, global_tau (float or None) and
                per_type {type: (alpha, beta, ca_tau)} initial tensors.
            readout: legacy (published position) or center (middle of the map).
        """
        super().__init__()
        self.cell_types = list(read_outs)
        self.readout, self.dt = readout, calcium["dt"]
        self.ca_activation, self.ca_taps = calcium["activation"], calcium["n_taps"]
        shared = calcium["global_tau"]
        self.global_ca_tau = None if shared is None else nn.Parameter(torch.tensor([float(shared)]))
        self.ca_param = nn.ModuleDict(
            {
                name: nn.ParameterDict({"alpha": alpha, "beta": beta, "ca_tau": tau})
                for name, (alpha, beta, tau) in calcium["per_type"].items()
            }
        )
        self.pr = pr
        self.network = nn.ModuleList(network)
        self.norm_layers = nn.ModuleList(
            nn.BatchNorm2d(layer.x_weight.shape[0], eps=NORM_EPS, momentum=NORM_MOMENTUM)
            for layer in network
        )
        self.lc_layers = nn.ModuleList(read_outs.values())
        self.impl = "recursive"
        self.norm_skip_frames = 0  # leading frames left out of the batch statistics in training
        self.trunk_frozen = False
        for layer in network:
            # Differs: a bias before batch norm has no gradient but rounding noise; it stays as
            # loaded.
            layer.bias.requires_grad_(False)

    def set_temporal_impl(self, impl: str) -> None:
        """Choose the route of every temporal filter: recursive, chunk, fft or conv."""
        self.impl = self.pr.impl = impl
        for layer in [*self.network, *self.lc_layers]:
            layer.impl = impl

    def freeze_trunk(self) -> None:
        """Keep lens, hidden layers and batch norm as they are; only read-outs and calcium train."""
        for parameter in [*self.network.parameters(), *self.norm_layers.parameters()]:
            parameter.requires_grad_(False)
        self.trunk_frozen = True
        self.norm_layers.eval()

    def train(self, mode: bool = True) -> "STCNN":
        """Switch between training and evaluation; a frozen trunk always evaluates."""
        super().train(mode)
        if self.trunk_frozen:
            self.norm_layers.eval()
        return self

    def read_out_of(self, cell_type: str) -> SpatioTemporalLayer:
        """Return the read-out layer of ``cell_type``."""
        return self.lc_layers[self.cell_types.index(cell_type)]

    def trunk(self, sampled: torch.Tensor) -> torch.Tensor:
        """Return the map that all read-outs see, before their activation.

        Args:
            sampled: (B, T, 1, H, W) contrast sampled by ``pr.sample``.

        Returns:
            (B, T, C, H, W).
        """
        x = self.pr(sampled)  # (B, T, 1, H, W)
        overwrite = False  # the first layer's input may belong to the caller
        for layer, norm in zip(self.network, self.norm_layers, strict=True):
            if norm.training:
                u = layer.spatial(x, layer.x_weight, inplace=overwrite)
                x = self._normalise(layer.temporal(u, None), norm, layer.bias)
                overwrite = True
            else:
                weight, shift = fold_norm(layer, norm)
                x = layer.temporal(layer.spatial(x, weight, inplace=overwrite), shift)
                overwrite = not torch.is_grad_enabled()
        return x

    def _normalise(self, y, norm, bias):
        """Batch norm over (B, T, H, W) of ``y`` + ``bias``, without adding the bias to ``y``."""
        skip = self.norm_skip_frames
        mean = norm.running_mean - bias
        if not skip:
            out = functional.batch_norm(
                y.flatten(0, 1),
                mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                training=True,
                momentum=norm.momentum,
                eps=norm.eps,
            ).view(y.shape)
        else:
            scored = (
                y[:, skip:].transpose(1, 2).flatten(3).transpose(0, 1).flatten(1)
            )  # (C, B T H W)
            var, centre = torch.var_mean(scored, dim=1, correction=0)
            scale = norm.weight / torch.sqrt(var + norm.eps)
            out = y * scale[:, None, None] + (norm.bias - centre * scale)[:, None, None]
            with torch.no_grad():
                n = scored.shape[1]
                mean.lerp_(centre, norm.momentum)
                norm.running_var.lerp_(var * n / (n - 1), norm.momentum)
        norm.running_mean.copy_(mean + bias)
        norm.num_batches_tracked += 1
        return out

    def start_of(self, cell_type: str, map_size: Sequence[int]) -> list[int]:
        """Return (row, column) of the first tap of the used read-out position.

        Faithful: legacy is position n_out // 2 of a strided convolution, on the released geometry
        map index 9 while the middle of the map is 10.
        """
        layer = self.read_out_of(cell_type)
        starts = []
        for n, k, stride, pad in zip(
            map_size, layer.x_weight.shape[2:], layer.stride, layer.padding, strict=True
        ):
            if self.readout == "center":
                starts.append(n // 2 - k // 2)
            else:
                n_out = (n + 2 * pad - k) // stride + 1
                starts.append((n_out // 2) * stride - pad)
        return starts

    def voltage(self, features: torch.Tensor, cell_type: str) -> torch.Tensor:
        """Return the voltage of ``cell_type`` (B, T) from the trunk's map (B, T, C, H, W)."""
        layer = self.read_out_of(cell_type)
        drive = layer.patch_drive(features, self.start_of(cell_type, features.shape[3:]))
        return layer.temporal(drive, layer.bias)[..., 0]

    def voltages(self, movie: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {type: (B, T)} for contrast movies (B, T, 1, rows, columns), from zero history."""
        features = self.trunk(self.pr.sample(movie))
        return {name: self.voltage(features, name) for name in self.cell_types}

    def calcium_tau(self, cell_type: str, tau: str = "auto") -> torch.Tensor:
        """Return the indicator's time constant: auto is the trained one, legacy the type's own.

        Differs: the published inference uses the per-type value, which a shared tau leaves
        untrained."""
        if self.global_ca_tau is not None and tau == "auto":
            return self.global_ca_tau
        return self.ca_param[cell_type]["ca_tau"]

    def activity(self, v: torch.Tensor, cell_type: str, tau: str = "auto") -> torch.Tensor:
        """Return the filtered drive of the indicator (B, T), before gain and offset."""
        return filtered_drive(
            v,
            self.calcium_tau(cell_type, tau),
            activation=self.ca_activation,
            dt=self.dt,
            n_taps=self.ca_taps,
            impl=self.impl,
        )

    def calcium(
        self, v: torch.Tensor, cell_type: str, *, neurons: torch.Tensor, tau: str = "auto"
    ) -> torch.Tensor:
        """Return calcium (N, T) of the given neurons for voltages (N, T) of the same items."""
        param = self.ca_param[cell_type]
        activity = self.activity(v, cell_type, tau)
        return scale_activity(activity, param["beta"][neurons], param["alpha"][neurons])

    def respond(
        self, activity: torch.Tensor, cell_type: str, who: str | int = "mean_param"
    ) -> torch.Tensor:
        """Return the calcium of a type for its filtered drive (B, T).

        Args:
            activity: (B, T) from ``activity``.
            cell_type: name.
            who: mean_param (one curve from the mean raw gain and offset, the published way),
                mean_response (mean over the neurons' curves), all, or a neuron's number.

        Returns:
            (B, T), or (B, neurons, T) for ``all``.
        """
        gain_raw, offset = self.ca_param[cell_type]["beta"], self.ca_param[cell_type]["alpha"]
        if who == "mean_param":
            return scale_activity(activity, gain_raw.mean(), offset.mean())
        if isinstance(who, int):
            return scale_activity(activity, gain_raw[who], offset[who])
        n = len(gain_raw)
        curves = scale_activity(
            activity.repeat_interleave(n, 0),
            gain_raw.repeat(len(activity)),
            offset.repeat(len(activity)),
        ).unflatten(0, (len(activity), n))  # (B, neurons, T)
        return curves.mean(1) if who == "mean_response" else curves

    def population(
        self, v: torch.Tensor, cell_type: str, *, who: str | int = "mean_param", tau: str = "auto"
    ) -> torch.Tensor:
        """Return calcium predicted for voltages (B, T) by type; see ``respond``."""
        return self.respond(self.activity(v, cell_type, tau), cell_type, who)

    def predict_items(
        self, sampled: torch.Tensor, types: Sequence[str], neurons: torch.Tensor
    ) -> torch.Tensor:
        """Return calcium (N, T) of each item, computing only the read-outs that the batch needs.

        Args:
            sampled: (N, T, 1, H, W) sampled contrast.
            types: list of N cell types.
            neurons: (N,) int64 neuron numbers inside the types.
        """
        features = self.trunk(sampled)
        curves, order = [], []
        for name in dict.fromkeys(types):
            rows = [i for i, kind in enumerate(types) if kind == name]
            chosen = features if len(rows) == len(types) else features[rows]
            v = self.voltage(chosen, name)
            curves.append(self.calcium(v, name, neurons=neurons[rows]))
            order += rows
        position = torch.argsort(torch.tensor(order, device=sampled.device))
        return torch.cat(curves)[position]

    def generate_feature_maps(self, movie: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return every layer's output before the next activation, for (B, T, 1, rows, columns).

        Keys: pr, hidden_layer<i>, norm_layer_<i> and every cell type (all read-out positions).
        """
        x = self.pr(self.pr.sample(movie))
        maps = {"pr": x}
        for i, (layer, norm) in enumerate(zip(self.network, self.norm_layers, strict=True)):
            x = maps[f"hidden_layer{i}"] = layer(x)
            x = maps[f"norm_layer_{i}"] = norm(x.flatten(0, 1)).view(x.shape)
        for name, layer in zip(self.cell_types, self.lc_layers, strict=True):
            maps[name] = layer(x)
        return maps


def batch_loss(
    predicted: torch.Tensor, recorded: torch.Tensor, windows: torch.Tensor, types: Sequence[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch and {type: loss} for the types in it.

    Loss of an item: mean over frames start..stop-1 of the squared difference; of a type: mean over
    its items; of the batch: sum over types.

    Args:
        predicted, recorded: (N, T) dF/F.
        windows: (N, 2) start and stop (exclusive) frames.
        types: list of N cell types.
    """
    frame = torch.arange(predicted.shape[1], device=predicted.device)
    scored = (frame >= windows[:, :1]) & (frame < windows[:, 1:])  # (N, T)
    per_item = ((predicted - recorded) ** 2 * scored).sum(1) / scored.sum(1)
    losses = {}
    for name in dict.fromkeys(types):
        losses[name] = per_item[[i for i, kind in enumerate(types) if kind == name]].mean()
    return sum(losses.values()), losses


def fold_norm(
    layer: SpatioTemporalLayer, norm: nn.BatchNorm2d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spatial weights and shift that hold the layer's bias and its evaluating batch norm.

    The temporal filter between them is linear and per channel, so a scale may pass through it.
    """
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = (layer.bias - norm.running_mean) * scale + norm.bias
    return layer.x_weight * scale[:, None, None, None], shift
