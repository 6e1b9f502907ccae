"""The network: lens optics, shared hidden layers, one read-out per cell type, calcium indicator.

Source: specification 6.2 to 6.5 and 7. Letters: B movies, T frames, C channels, H and W rows and
columns of the map, N items, K taps.

``ca_param.<type>.beta`` holds the raw gain and ``ca_param.<type>.alpha`` the offset.
Faithful: the published code passes the two in swapped order wherever it uses them, so every
released number follows Ca = alpha + softplus(beta) * filter(act(v) + shift).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional

from network.grey import knot_weights, knots_of, still_frames
from network.layers import (
    Photoreceptor,
    SpatioTemporalLayer,
    filtered_drive,
    full_precision,
    needed_regions,
    output_sizes,
    scale_activity,
)
from network.norms import SLOPES, NormConvolution, SettledNorm, settled_moments, take_moments
from network.shared_norm import shared_norm
from network.streamed import can_stream, stream

__all__ = (
    "STCNN",
    "Photoreceptor",
    "SpatioTemporalLayer",
    "batch_loss",
    "filtered_drive",
    "fold_norm",
    "scale_activity",
)

NORM_MOMENTUM, NORM_EPS = 0.1, 1e-5


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
        self.neuron_uids = {}
        self.positions = None  # see positions.py
        self.ca_param = nn.ModuleDict(
            {
                parameter_name(name): nn.ParameterDict(
                    {"alpha": alpha, "beta": beta, "ca_tau": tau}
                )
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
        self.settled_frames = 0  # see settle
        self.grey_at_knots = False  # prepad=thinned: see network/grey.py
        self.trunk_frozen = False
        self.shared = False  # batch statistics of all processes of torchrun
        for layer in network:
            # Differs: a bias before batch norm has no gradient but rounding noise; it stays as
            # loaded.
            layer.bias.requires_grad_(False)

    def set_temporal_impl(self, impl: str) -> None:
        """Choose the route of every temporal filter: recursive, chunk, fft or conv."""
        self.impl = self.pr.impl = impl
        for layer in [*self.network, *self.lc_layers]:
            layer.impl = impl

    def settle(self, n_frames: int) -> None:
        """Take the first frame of every movie as grey that has been there for ever.

        All filters start from their steady state, which is what padding with endless grey gives;
        in the batch statistics the frame counts as ``n_frames`` frames of padding. 0 is the
        published way: movies begin with frames of grey, and filters with zero history.
        """
        self.settled_frames = n_frames
        for layer in [self.pr, *self.network, *self.lc_layers]:
            layer.settled = n_frames > 0

    def freeze_trunk(self) -> None:
        """Keep lens, hidden layers and batch norm as they are; only read-outs and calcium train."""
        for parameter in [*self.network.parameters(), *self.norm_layers.parameters()]:
            parameter.requires_grad_(False)
        self.trunk_frozen = True
        self.norm_layers.eval()

    def freeze_read_outs(self) -> None:
        """Keep the read-outs and the indicator's time constants: gain, offset and place train."""
        kept = [*self.lc_layers.parameters(), *(e["ca_tau"] for e in self.ca_param.values())]
        for parameter in [*kept, self.global_ca_tau]:
            if parameter is not None:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "STCNN":
        """Switch between training and evaluation; a frozen trunk always evaluates."""
        super().train(mode)
        if self.trunk_frozen:
            self.norm_layers.eval()
        return self

    def read_out_of(self, cell_type: str) -> SpatioTemporalLayer:
        """Return the read-out layer of ``cell_type``."""
        return self.lc_layers[self.cell_types.index(cell_type)]

    def calcium_of(self, cell_type: str) -> nn.ParameterDict:
        """Return the indicator's alpha, beta and ca_tau of ``cell_type``."""
        return self.ca_param[parameter_name(cell_type)]

    def trunk(
        self,
        sampled: torch.Tensor,
        window: tuple | None = None,
        n_first: int | None = None,
        knots: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the map that all read-outs see, before their activation.

        Args:
            sampled: (B, T, 1, H, W) contrast sampled by ``pr.sample``.
            window: ((low, high) rows, (low, high) columns) of the map that are wanted, or None for
                all; where the batch statistics allow it, only what they need is computed.
            n_first: frames that the first one of a settled movie stands for, default those of
                ``settle``.
            knots: of ``knots_of``: the frames at which the grey before is looked at.

        Returns:
            (B, T, C, H, W), cut to ``window``; frames of the grey at its knots only.
        """
        n_first = self.settled_frames if n_first is None else n_first
        x = self.pr(sampled)  # (B, T, 1, H, W)
        training = [norm.training for norm in self.norm_layers]
        if all(training) and not self.shared:
            if can_stream(self.network, x, settled=n_first > 0):
                return stream(
                    self.network, self.norm_layers, x,
                    window=window, n_first=n_first, skip=self.norm_skip_frames, knots=knots,
                )  # fmt: skip
            if n_first and self._fusible():
                return self._settled_trunk(x, window, n_first)
        if window is not None and not any(training):
            return self._cut_trunk(x, window)
        overwrite = False  # the first layer's input may belong to the caller
        for layer, norm in zip(self.network, self.norm_layers, strict=True):
            if norm.training:
                u = layer.spatial(x, layer.x_weight, inplace=overwrite)
                x = self._normalise(layer.temporal(u, None), norm, layer.bias, n_first)
                overwrite = True
            else:
                weight, shift = fold_norm(layer, norm)
                x = layer.temporal(layer.spatial(x, weight, inplace=overwrite), shift)
                overwrite = not torch.is_grad_enabled()
        return x if window is None else x[(..., *(slice(*ends) for ends in window))]

    def _cut_trunk(self, x, window):
        """Return the evaluating trunk's ``window``; every layer only where the next one looks."""
        regions = needed_regions(self.network, x.shape[3:], window)
        x = x[(..., *(slice(*ends) for ends in regions[0]))]
        overwrite = False
        for i, (layer, norm) in enumerate(zip(self.network, self.norm_layers, strict=True)):
            weight, shift = fold_norm(layer, norm)
            pads = layer.pads_of(regions[i], regions[i + 1])
            x = layer.temporal(layer.spatial(x, weight, inplace=overwrite, pads=pads), shift)
            overwrite = not torch.is_grad_enabled()
        return x

    def _knows_knots(self, sampled):
        """Return whether this is a training step that ``stream`` does with plain statistics."""
        plain = all(norm.training for norm in self.norm_layers) and not self.norm_skip_frames
        return plain and not self.shared and can_stream(self.network, sampled, settled=False)

    def _fusible(self):
        """Return whether every activation between the layers is one that NormConvolution knows."""
        names = [layer.activation for layer in self.network]
        return names[0] == "identity" and all(name in SLOPES for name in names)

    def _settled_trunk(self, x, window, n_first):
        """Return the training trunk of settled movies, with a quarter of the memory."""
        y = None
        for i, layer in enumerate(self.network):
            if i == 0:
                u = layer.spatial(x, layer.x_weight)
            else:
                norm = self.norm_layers[i - 1]
                options = {"eps": norm.eps, "slope": SLOPES[layer.activation],
                           "stride": layer.stride, "padding": layer.padding}  # fmt: skip
                moments = self._count_moments(y, norm, self.network[i - 1].bias, n_first)
                u = NormConvolution.apply(
                    y, norm.weight, norm.bias, layer.x_weight, moments, n_first, options
                )
            y = layer.temporal(full_precision(u), None)
        norm = self.norm_layers[-1]
        mean, var = self._count_moments(y, norm, self.network[-1].bias, n_first)
        window = window or ((0, y.shape[3]), (0, y.shape[4]))
        return SettledNorm.apply(y, norm.weight, norm.bias, mean, var, n_first, norm.eps, window)

    @torch.no_grad()
    def _count_moments(self, y, norm, bias, n_first):
        """Return the moments of ``y`` and take them into the running statistics of ``norm``."""
        mean, var = settled_moments(y, n_first)
        n = y.shape[0] * (y.shape[1] - 1 + n_first) * y.shape[3] * y.shape[4]
        take_moments(norm, mean, var, bias, n)
        return mean, var

    def _normalise(self, y, norm, bias, n_first=0):
        """Batch norm over (B, T, H, W) of ``y`` + ``bias``, without adding the bias to ``y``."""
        if self.shared:
            counts = torch.ones(y.shape[1])
            counts[: self.norm_skip_frames] = 0
            counts[0] = n_first or counts[0]
            return shared_norm(y, norm, bias, counts)
        if n_first:
            moments = self._count_moments(y, norm, bias, n_first)
            window = ((0, y.shape[3]), (0, y.shape[4]))
            return SettledNorm.apply(y, norm.weight, norm.bias, *moments, n_first, norm.eps, window)
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

    def read_window(self, types: Iterable[str], map_size: Sequence[int]) -> tuple:
        """Return ((low, high) rows, (low, high) columns) of the map that these read-outs see."""
        size = output_sizes(self.network, map_size)[-1]
        ends = []
        for axis, n in enumerate(size):
            low, high = n, 0
            for name in types:
                start = self.start_of(name, size)[axis]
                low = min(low, max(start, 0))
                high = max(high, min(start + self.read_out_of(name).x_weight.shape[2 + axis], n))
            ends.append((low, high))
        return tuple(ends)

    def voltage(
        self,
        features: torch.Tensor,
        cell_type: str,
        *,
        window: tuple | None = None,
        map_size: Sequence[int] | None = None,
        knots: torch.Tensor | None = None,
        inplace: bool = False,
    ) -> torch.Tensor:
        """Return the voltage of ``cell_type`` (B, T) from the trunk's map (B, T, C, H, W).

        ``window`` and ``knots`` are what trunk was asked for; ``map_size`` is then the size of its
        input. ``inplace`` allows the map to be overwritten.
        """
        layer = self.read_out_of(cell_type)
        if window is None:
            start = self.start_of(cell_type, features.shape[3:])
        else:
            whole = self.start_of(cell_type, output_sizes(self.network, map_size)[-1])
            start = [at - low for at, (low, _) in zip(whole, window, strict=True)]
        drive = layer.patch_drive(features, start, inplace=inplace)
        if knots is not None:
            grey = knot_weights(knots).to(drive.dtype) @ drive[:, : len(knots)]
            drive = torch.cat([grey, drive[:, len(knots) :]], 1)
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
        return self.calcium_of(cell_type)["ca_tau"]

    def activity(self, v: torch.Tensor, cell_type: str, tau: str = "auto") -> torch.Tensor:
        """Return the filtered drive of the indicator (B, T), before gain and offset."""
        return filtered_drive(
            v,
            self.calcium_tau(cell_type, tau),
            activation=self.ca_activation,
            dt=self.dt,
            n_taps=self.ca_taps,
            impl=self.impl,
            settled=self.settled_frames > 0,
        )

    def calcium(
        self, v: torch.Tensor, cell_type: str, *, neurons: torch.Tensor, tau: str = "auto"
    ) -> torch.Tensor:
        """Return calcium (N, T) of the given neurons for voltages (N, T) of the same items."""
        param = self.calcium_of(cell_type)
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
        gain_raw, offset = (self.calcium_of(cell_type)[key] for key in ("beta", "alpha"))
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
        window = self.read_window(dict.fromkeys(types), sampled.shape[3:])
        lead, n_first, knots = 0, None, None
        if self.settled_frames and not sampled.is_cuda:
            lead = still_frames(sampled)
            n_first = self.settled_frames + lead if lead else None
        elif self.grey_at_knots and self._knows_knots(sampled):
            knots = knots_of(still_frames(sampled) + 1)
        features = self.trunk(sampled[:, lead:], window, n_first, knots)
        device = features.device
        neurons = neurons.cpu()
        curves, order = [], []
        for name in dict.fromkeys(types):
            rows = torch.tensor([i for i, kind in enumerate(types) if kind == name])
            chosen = features if len(rows) == len(types) else features[_on(rows, device)]
            v = self.voltage(
                chosen, name, window=window, map_size=sampled.shape[3:], knots=knots,
                # every item's map is read once; a filter's output is kept for the way back
                inplace=self.norm_layers[-1].training,
            )  # fmt: skip
            curves.append(self.calcium(v, name, neurons=_on(neurons[rows], device)))
            order.append(rows)
        whole = torch.cat(curves)[_on(torch.argsort(torch.cat(order)), device)]
        return torch.cat([whole[:, :1].expand(-1, lead), whole], 1) if lead else whole

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


def _on(index, device):
    """Return an index on the device of what it picks from; the host does not wait for it."""
    return index.to(device, non_blocking=True)


def parameter_name(cell_type: str) -> str:
    """Return the name of a type in ``ca_param``: its own, where torch allows it.

    A dot separates modules, and the names of a ModuleDict's methods (keys, train) are taken: such
    types get the percent sign of web addresses, which they cannot hold otherwise.
    """
    name = cell_type.replace("%", "%25").replace(".", "%2E")
    return f"%{name}" if hasattr(nn.ModuleDict, name) or name == "training" else name


def batch_loss(
    predicted: torch.Tensor, recorded: torch.Tensor, windows: torch.Tensor, types: Sequence[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch and {type: loss} for the types in it.

    Loss of an item: mean over frames start..stop-1 of the squared difference; of a type: mean over
    its items; of the batch: sum over types.

    Args:
        predicted, recorded: (N, T) dF/F.
        windows: (N, 2) start and stop (exclusive) frames, or the scored frames as (N, T) bool.
        types: list of N cell types.
    """
    scored = windows
    if windows.dtype != torch.bool:
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
