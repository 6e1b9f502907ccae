"""From configuration to model: checks every block, draws the initial values, names the culprit.

Source: specification 6.4, 9.3.
"""

import math
from collections.abc import Sequence

import torch

from common.files import InputError
from common.limits import check_shape
from network.layers import ACTIVATIONS, LEAKY_SLOPE, Photoreceptor, SpatioTemporalLayer
from network.models import STCNN
from network.temporal import IMPLEMENTATIONS, flush_tiny
from network.util_conv import gaussian_kernel

KINDS = {"spatiotemporal_exp": "exp", "spatiotemporal_pwrexp": "pwrexp", "spatial": "spatial"}
FAST_HIDDEN_SCALE, FAST_READ_OUT_SCALE = 1.0, 0.03
FAST_GAIN_RAW, FAST_READ_OUT_BIAS = -3.5, -1.5
RUN_TIME_KEYS = ("pr", "network", "lobula", "ca", "readout", "readout_default")


def read_out_blocks(model_config: dict, cell_types: Sequence[str]) -> tuple[dict, list[str]]:
    """Return (lobula block with its lists filled for ``cell_types``, types that used the default).

    Args:
        model_config: dict of the model's YAML file.
        cell_types: names in data order.
    """
    lobula = dict(model_config["lobula"])
    defaulted = []
    columns = {"x_kernel_size": [], "x_stride": [], "x_padding": []}
    for name in cell_types:
        block = model_config.get(name) if name not in RUN_TIME_KEYS else None
        if block is None:
            block = model_config.get("readout_default")
            if block is None:
                known = sorted(set(model_config) - set(RUN_TIME_KEYS))
                raise InputError(
                    f"cell type {name}: no read-out block in the model configuration (it has "
                    f"{', '.join(known) or 'none'}); add {name} or readout_default"
                )
            defaulted.append(name)
        for key, column in columns.items():
            short = {"x_kernel_size": "kernel", "x_stride": "stride", "x_padding": "padding"}[key]
            value = block.get(key, block.get(short))
            if value is None:
                raise InputError(f"read-out block of {name}: key {key} is missing")
            column.append(list(value))
    lobula.update(columns, lc_types=list(cell_types))
    lobula["in_channels"] = [list(model_config["network"]["out_channels"])[-1]]
    return lobula, defaulted


def build_model(
    configs: dict,
    *,
    rate_hz: float,
    readout: str = "legacy",
    init: str = "reference",
    seed: int = 0,
    impl: str = "recursive",
) -> STCNN:
    """Build the model with initial values drawn from ``seed``.

    Args:
        configs: dict with pr_config, network_config, L_config, ca_config as config.json holds them.
        rate_hz: frames per second.
        readout: legacy or center.
        init: reference (published ranges) or fast (values with which small sets train at once).
        seed: of the generator.
        impl: route of the temporal filters.
    """
    for name, word, words in (
        ("readout", readout, ("legacy", "center")),
        ("init", init, ("reference", "fast")),
        ("temporal_impl", impl, IMPLEMENTATIONS),
    ):
        if word not in words:
            raise InputError(f"{name}={word}: expected one of {', '.join(words)}")
    flush_tiny()
    generator = torch.Generator().manual_seed(seed)
    dt = 1.0 / rate_hz
    pr = _photoreceptor(configs["pr_config"], dt)
    network = _hidden_layers(configs["network_config"], dt, init, generator)
    read_outs = _read_outs(configs["L_config"], dt, init, generator)
    calcium = _calcium(configs["ca_config"], list(read_outs), dt, init, generator)
    model = STCNN(pr=pr, network=network, read_outs=read_outs, calcium=calcium, readout=readout)
    model.set_temporal_impl(impl)
    return model


def _photoreceptor(config, dt):
    if config["config_type"] != "photoreceptor":
        raise InputError(f"pr.config_type={config['config_type']}: expected photoreceptor")
    if list(config["in_channels"]) != [1] or list(config["out_channels"]) != [1]:
        raise InputError("pr: in_channels and out_channels must both be [1]")
    check_shape(config["x_kernel_size"], 8, "model configuration: pr.x_kernel_size")
    kernel = gaussian_kernel(config["pr_sigma"], config["ds_input"], config["x_kernel_size"])
    return Photoreceptor(
        kernel,
        config["tau"],
        stride=config["x_stride"],
        padding=config["x_padding"],
        dt=dt,
        n_taps=config["t_kernel_size"],
    )


def _hidden_layers(config, dt, init, generator):
    kind = _kind(config, "network")
    widths = list(config["out_channels"])
    for width in widths:
        check_shape((width,), 4, "model configuration: network.out_channels")
    n = len(widths)
    columns = {}
    for key in ("x_kernel_size", "x_stride", "x_padding"):
        if len(config[key]) != n:
            raise InputError(
                f"network.{key} has {len(config[key])} entries but out_channels has {n}; "
                "give one per layer"
            )
        columns[key] = [_pair(value) for value in config[key]]
    activations = config["activation"]
    activations = [activations] * n if isinstance(activations, str) else list(activations)
    if len(activations) != n:
        raise InputError(
            f"network.activation has {len(activations)} entries but out_channels has {n}; "
            "give one per layer"
        )
    layers, n_in = [], next(iter(config["in_channels"]))
    for i, n_out in enumerate(widths):
        amplitude = FAST_HIDDEN_SCALE if init == "fast" else config["init_amplitude_scale"]
        layer = SpatioTemporalLayer(
            _kaiming(n_out, n_in, columns["x_kernel_size"][i], amplitude, generator),
            _bias(config, n_out, generator),
            kind=kind,
            activation=_activation(activations[i], "network"),
            stride=columns["x_stride"][i],
            padding=columns["x_padding"][i],
            dt=dt,
            n_taps=config["t_kernel_size"],
        )
        _draw_times(layer, config, generator)
        layers.append(layer)
        n_in = n_out
    return layers


def _read_outs(config, dt, init, generator):
    kind = _kind(config, "lobula")
    if list(config["out_channels"]) != [1]:
        raise InputError(f"lobula.out_channels={list(config['out_channels'])}: expected [1]")
    types = list(config["lc_types"])
    for key in ("x_kernel_size", "x_stride", "x_padding"):
        if len(config[key]) != len(types):
            raise InputError(
                f"lobula.{key} has {len(config[key])} entries for {len(types)} cell types; "
                "give one each"
            )
    layers = {}
    for i, name in enumerate(types):
        amplitude = FAST_READ_OUT_SCALE if init == "fast" else config["init_amplitude_scale"]
        bias = _bias(config, 1, generator)
        layers[name] = SpatioTemporalLayer(
            _kaiming(
                1, config["in_channels"][0], _pair(config["x_kernel_size"][i]), amplitude, generator
            ),
            torch.full_like(bias, FAST_READ_OUT_BIAS) if init == "fast" else bias,
            kind=kind,
            activation=_activation(config["activation"], "lobula"),
            stride=_pair(config["x_stride"][i]),
            padding=_pair(config["x_padding"][i]),
            dt=dt,
            n_taps=config["t_kernel_size"],
        )
        _draw_times(layers[name], config, generator)
    return layers


def _calcium(config, types, dt, init, generator):
    if config["config_type"] != "gcamp":
        raise InputError(f"ca.config_type={config['config_type']}: expected gcamp")
    if list(config["cell_types"]) != types:
        raise InputError(
            f"ca.cell_types {list(config['cell_types'])} and lobula.lc_types {types} differ"
        )
    per_type = {}
    for name, count in zip(types, config["cell_count"], strict=True):
        alpha = _uniform(config["alpha_init"], (count,), generator)
        beta = _uniform(config["beta_init"], (count,), generator)
        if init == "fast":
            beta = beta + FAST_GAIN_RAW
        per_type[name] = (alpha, beta, _uniform(config["gcamp_tau"], (1,), generator))
    shared = _uniform(config["gcamp_tau"], (1,), generator).item()
    return {
        "dt": dt,
        "activation": _activation(config["activation"], "ca"),
        "n_taps": config["t_kernel_size"],
        "global_tau": shared if config["use_global_ca_tau"] else None,
        "per_type": per_type,
    }


def _kind(config, block):
    if config["config_type"] not in KINDS:
        raise InputError(
            f"{block}.config_type={config['config_type']}: expected one of {', '.join(KINDS)}"
        )
    kind = KINDS[config["config_type"]]
    if kind == "pwrexp" and config.get("n_power_init") is None:
        raise InputError(f"{block}.config_type=spatiotemporal_pwrexp needs {block}.n_power_init")
    return kind


def _activation(name, block):
    if name not in ACTIVATIONS:
        raise InputError(f"{block}.activation={name}: expected one of {', '.join(ACTIVATIONS)}")
    return name


def _pair(value):
    return [value, value] if isinstance(value, int) else list(value)


def _uniform(bounds, shape, generator):
    low, high = bounds
    check_shape(shape, 4, "model configuration: values")
    return low + (high - low) * torch.rand(shape, generator=generator)


def _kaiming(n_out, n_in, size, amplitude, generator):
    check_shape((n_out, n_in, *size), 4, "model configuration: kernels")
    bound = math.sqrt(6.0 / ((1.0 + LEAKY_SLOPE**2) * n_in * size[0] * size[1]))
    return _uniform((-bound, bound), (n_out, n_in, *size), generator) * amplitude


def _bias(config, n, generator):
    if config.get("bias_init") is None:
        return torch.zeros(n)
    return _uniform(config["bias_init"], (n,), generator)


def _draw_times(layer, config, generator):
    with torch.no_grad():
        if layer.kind != "spatial":
            layer.tau.copy_(10.0 ** _uniform(config["tau_init"], layer.tau.shape, generator))
        if layer.kind == "pwrexp":
            layer.n_power.copy_(_uniform(config["n_power_init"], layer.n_power.shape, generator))
