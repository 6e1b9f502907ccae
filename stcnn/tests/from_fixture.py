"""Models and recordings built from the arrays of a parity fixture; every setting comes from them.

A fixture stores weights and results, and some settings (``expB_K``, ``lr``). The others
(activation, stride, padding, number of taps) are whole numbers and words that its results leave no
choice about: they are looked up, by a plain convolution in float64 and not by the code under test,
as the combination that reproduces the recorded feature maps. The tests then compare every number.
"""

import functools
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from inputs.ca_dataloader import Layout
from network.models import STCNN, Photoreceptor, SpatioTemporalLayer

DT = 1 / 180
FMAP_STEP = 13  # feature maps are recorded every 13th frame
MOST_TAPS = 1000  # numbers of taps that are tried
LIKELY_TAPS = {"pr": (30, 90), "hidden": (64,)}  # the README's
SERIES = 24  # series of a feature map that the look-up compares
LEVELS = np.array([0.498, 0.0, 1.0], dtype=np.float32)  # of the data loader's movie codes
ACTIVATIONS = {
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0.0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "tanh": np.tanh,
}


def assert_close_to_max(actual, expected, rtol, name=""):
    expected = np.asarray(expected)
    scale = max(np.abs(expected).max(), 1e-30)
    worst = np.abs(np.asarray(actual) - expected).max() / scale
    assert worst <= rtol, f"{name}: off by {worst:.2e} of the largest value (allowed {rtol:.0e})"


def paths(request, prefix):
    folder = Path(request.config.getoption("--fixtures"))
    fixtures = sorted(folder.glob(f"{prefix}*.npz"))
    if not fixtures:
        pytest.skip(f"no {prefix}*.npz in {folder}")
    return fixtures


def files(request, prefix):
    return [np.load(path, allow_pickle=False) for path in paths(request, prefix)]


def two(text):
    """Return (rows, columns) of a part of a key such as "s5", "ds0.5" or "8x5"."""
    values = [float(v) for v in re.sub("^[a-z]+", "", text).split("x")]
    return (values * 2)[:2]


def tensor(array):
    return torch.from_numpy(np.array(array))


def pair(value):
    """Return [rows, columns] of a number or of two."""
    return [int(v) for v in np.broadcast_to(np.atleast_1d(value), 2)]


def geometries(n_in, n_out, kernel):
    """Return each (stride, padding) by which ``kernel`` taps make n_out of n_in, likely first.

    Half a kernel of padding and a stride of 1 come first.
    """
    fitting = [
        (stride, padding)
        for stride, padding in itertools.product(range(1, n_in + kernel), range(kernel))
        if n_in + 2 * padding >= kernel and (n_in + 2 * padding - kernel) // stride + 1 == n_out
    ]
    return sorted(fitting, key=lambda item: (abs(item[1] - kernel // 2), item[0]))


def raw_kernel(tau, n_power):
    """Return the unscaled kernel (C, MOST_TAPS) in float64."""
    t = np.arange(MOST_TAPS) * DT
    ratio = t / tau.astype(np.float64).reshape(-1, 1)
    if n_power is None:
        return np.exp(-ratio)
    power = n_power.astype(np.float64).reshape(-1, 1)
    return np.where(t > 0, ratio**power * np.exp(-power * (ratio - 1.0)), 0.0)


def tap_errors(series, recorded, kernel, frames):
    """Return the largest error (MOST_TAPS,) of each number of taps.

    Args:
        series: (T, S) input of the filter. recorded: (n, S) its output at ``frames`` (n,).
        kernel: (S, MOST_TAPS) unscaled.
    """
    energy = np.sqrt(np.cumsum(kernel**2, axis=1) * DT)  # (S, K)
    worst = np.zeros(MOST_TAPS)
    for frame, row in zip(frames, recorded, strict=True):
        past = np.zeros((MOST_TAPS, series.shape[1]))
        n = min(frame + 1, MOST_TAPS)
        past[:n] = series[frame - n + 1 : frame + 1][::-1]
        sums = np.cumsum(past.T * kernel, axis=1)  # (S, K)
        scaled = np.divide(sums, energy, out=np.zeros_like(sums), where=energy > 0)
        worst = np.maximum(worst, np.abs(scaled - row[:, None]).max(0))
    return worst


def look_up_layer(x, state, recorded, frames, *, given=None, activations=tuple(ACTIVATIONS)):
    """Return settings of the layer that made ``recorded`` from ``x``, and the error of each n_taps.

    Settings are activation, stride, padding and n_taps; errors are shares of the largest value.

    Args:
        x: (T, C, H, W) input. recorded: (n, C', H', W') output at ``frames``.
        state: x_weight, bias and, of a filtering layer, tau and n_power.
        given: settings that the fixture stores.
    """
    given = given or {}
    weight = torch.from_numpy(np.asarray(state["x_weight"], dtype=np.float64))
    recorded = recorded - np.asarray(state.get("bias", 0.0), np.float64).reshape(-1, 1, 1)
    flat = recorded.reshape(len(recorded), -1)
    chosen = np.argsort(-flat.std(0))[:SERIES]  # the liveliest
    kernel = None
    if "tau" in state:
        channel = chosen // (recorded.shape[2] * recorded.shape[3])
        power = state.get("n_power")
        kernel = raw_kernel(
            np.asarray(state["tau"]).reshape(-1)[channel],
            None if power is None else np.asarray(power).reshape(-1)[channel],
        )
    ways = [geometries(x.shape[a], recorded.shape[a], weight.shape[a]) for a in (2, 3)]
    if ways[0] == ways[1]:  # the same along rows and columns, as in every configuration
        ways = [[(s, p), (s, p)] for s, p in ways[0]]
    else:
        ways = [list(way) for way in itertools.product(*ways)]
    best, scale = (np.inf, None, None), max(np.abs(flat).max(), 1e-30)
    for name in [given["activation"]] if "activation" in given else activations:
        active = torch.from_numpy(ACTIVATIONS[name](x.astype(np.float64)))
        for way in ways:
            stride, padding = ([axis[i] for axis in way] for i in (0, 1))
            settings = {"activation": name, "stride": stride, "padding": padding}
            if any(settings[key] != given[key] for key in ("stride", "padding") if key in given):
                continue
            u = functional.conv2d(active, weight, stride=stride, padding=padding)
            u = u.numpy().reshape(len(x), -1)[:, chosen]
            if kernel is None:
                errors, settings["n_taps"] = np.abs(u[frames] - flat[:, chosen]).max()[None], None
            else:
                errors = tap_errors(u, flat[:, chosen], kernel, frames)
                settings["n_taps"] = given.get("n_taps", int(errors.argmin()) + 1)
                if "n_taps" in given:
                    errors = errors[[given["n_taps"] - 1]]
            if errors.min() < 0.5 * best[0]:  # a later way must be clearly better
                best = (errors.min(), settings, errors / scale)
    assert best[0] <= 1e-3 * scale, f"no known layer makes the recorded map ({best[0] / scale:.1e})"
    return best[1:]


def shared_taps(layers, likely):
    """Give (settings, errors) of layers with one number of taps the one that fits all of them.

    Of numbers that the maps can't tell apart, fast filters, the first of ``likely`` is taken.
    """
    worst = np.max([errors for _, errors in layers], axis=0)
    fitting = worst <= max(2.0 * worst.min(), 1e-6)
    n_taps = next((n for n in likely if fitting[n - 1]), int(worst.argmin()) + 1)
    return [{**settings, "n_taps": n_taps} for settings, _ in layers]


def look_up_indicator(v, calcium, tau, gain_raw, offset, activations=("elu", "relu", "identity")):
    """Return activation and n_taps of the indicator that made ``calcium`` (T,) from ``v`` (T,)."""
    gain = np.logaddexp(0.0, float(gain_raw))
    activity = (calcium.astype(np.float64) - float(offset))[:, None] / gain
    best = (np.inf, None)
    for name in (*activations, *set(ACTIVATIONS) - set(activations)):
        drive = ACTIVATIONS[name](v.astype(np.float64))[:, None] + (1.0 if name == "elu" else 0.0)
        errors = tap_errors(drive, activity, raw_kernel(np.asarray(tau), None), range(len(v)))
        if errors.min() < 0.5 * best[0]:
            best = (errors.min(), {"activation": name, "n_taps": int(errors.argmin()) + 1})
    return best[1]


def layer_of(state, settings):
    """Return the layer with the weights ``state`` and the looked-up ``settings``."""
    kind = "pwrexp" if "n_power" in state else "exp" if "tau" in state else "spatial"
    layer = SpatioTemporalLayer(
        state["x_weight"].clone(), state["bias"].clone(), kind=kind, dt=DT, **settings
    )
    layer.load_state_dict(state)
    return layer


def layer_fixture(d, case):
    """Return (layer, input) of a case of layers.npz; what the file does not store is looked up."""
    start = f"{case}_p_"
    state = {k[len(start) :]: d[k] for k in d.files if k.startswith(start)}
    stored = {"stride": "stride", "padding": "padding", "n_taps": "K", "activation": "activation"}
    given = {
        key: d[f"{case}_{word}"] for key, word in stored.items() if f"{case}_{word}" in d.files
    }
    for key, value in given.items():
        given[key] = (
            str(value) if key == "activation" else int(value) if key == "n_taps" else pair(value)
        )
    x, y = d[f"{case}_x"], d[f"{case}_y"]
    settings, _ = look_up_layer(x[0], state, y[0], range(len(y[0])), given=given)
    return layer_of({key: tensor(value) for key, value in state.items()}, settings), tensor(x)


def sub(state, name):
    """Return the entries of ``state`` below ``name`` under their own names."""
    return {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(f"{name}.")}


def numbers(tree):
    """Return a dict of tensors as arrays."""
    return {key: value.numpy() for key, value in tree.items()}


def cell_types_of(state):
    """Return the cell types in the order of the state dict."""
    return list(dict.fromkeys(k.split(".")[1] for k in state if k.startswith("ca_param.")))


def recorded_frames(n_frames, n_recorded):
    """Return the frames of recorded maps: every 13th, or the step that gives their number."""
    steps = (FMAP_STEP, *range(1, n_frames + 1))
    step = next(s for s in steps if -(-n_frames // s) == n_recorded)
    return range(0, n_frames, step)


def look_up_settings(d):
    """Return the settings of every layer of small_model.npz from its recorded feature maps."""
    state = {**state_of(d, "sd0"), **state_of(d, "sd1")}
    x = contrast_of(d, d["bg"])[0].numpy()  # (T, 1, rows, columns)
    frames = recorded_frames(len(x), len(d["fmap0/pr"]))

    def full_map(x, layer_state, settings):
        if "bias" not in layer_state:
            zero = np.zeros(layer_state["x_weight"].shape[0], np.float32)
            layer_state = {**layer_state, "bias": zero}
        layer = layer_of({k: tensor(v) for k, v in layer_state.items()}, settings)
        layer.impl = "conv"
        with torch.no_grad():
            return layer(tensor(x)[None])[0].numpy()

    lens = numbers(sub(state, "pr"))
    look_up = look_up_layer(x, lens, d["fmap0/pr"], frames, activations=("identity",))
    settings_of = {"pr": shared_taps([look_up], LIKELY_TAPS["pr"])[0]}
    x = full_map(x, lens, settings_of["pr"])
    hidden, read_outs = [], []
    n_hidden = len({k.split(".")[1] for k in state if k.startswith("network.")})
    for i in range(n_hidden):
        own, norm = (numbers(sub(state, f"{group}.{i}")) for group in ("network", "norm_layers"))
        hidden.append(look_up_layer(x, own, d[f"fmap0/hidden_layer{i}"], frames))
        y = torch.from_numpy(full_map(x, own, hidden[-1][0]))
        x = functional.batch_norm(
            y,
            *(torch.from_numpy(norm[k]) for k in ("running_mean", "running_var", "weight", "bias")),
        ).numpy()
    for i, settings in enumerate(shared_taps(hidden, LIKELY_TAPS["hidden"])):
        settings_of[f"network.{i}"] = settings
    for j, name in enumerate(cell_types_of(state)):
        own = numbers(sub(state, f"lc_layers.{j}"))
        read_outs.append(look_up_layer(x, own, d[f"fmap0/{name}"], frames))
        ca = numbers(sub(state, f"ca_param.{name}"))
        tau = state["global_ca_tau"].numpy() if "global_ca_tau" in state else ca["ca_tau"]
        settings_of["calcium"] = look_up_indicator(
            d[f"v_eval/{name}"][0], d[f"infer_correct_tau/{name}"][0], tau,
            ca["beta"].mean(), ca["alpha"].mean(),
        )  # fmt: skip
    for j, settings in enumerate(shared_taps(read_outs, (settings_of["network.0"]["n_taps"],))):
        settings_of[f"lc_layers.{j}"] = settings
    return settings_of


@functools.lru_cache(maxsize=16)
def settings_of_file(path):
    """Return look_up_settings of a small_model file, once per session."""
    return look_up_settings(np.load(path, allow_pickle=False))


def settings_for_training(path, d):
    """Return the settings of train_steps.npz: those of a small_model file beside it that fit.

    The format gives both the same architecture; of several, the one whose voltages after training
    are the recorded ones.
    """
    shapes = {k[4:]: d[k].shape for k in d.files if k.startswith("sd0/")}
    last = max(k.split("/")[0] for k in d.files if k.startswith("sd_epoch"))
    errors = []
    for candidate in sorted(Path(path).parent.glob("small_model*.npz")):
        other = np.load(candidate, allow_pickle=False)
        if {k.split(".")[0] for k in shapes} - {k[4:].split(".")[0] for k in other.files}:
            continue
        settings = settings_of_file(candidate)
        try:
            model = small_model(state_of(d, last), "recursive", settings)
        except (KeyError, RuntimeError):
            continue  # another number of layers or types
        model.eval()
        with torch.no_grad():
            voltages = model.voltages(contrast_of(d, d["levels"][0])[:2])
        worst = max(
            np.abs(v.numpy() - d[f"v_eval_after/{name}"]).max() for name, v in voltages.items()
        )
        errors.append((worst, str(candidate), settings))
    assert errors, f"{path}: no small_model*.npz beside it has these layers"
    return min(errors, key=lambda entry: entry[:2])[2]


def small_model(state, impl, settings):
    """Build the model of the weights ``state`` with looked-up ``settings``."""
    types = cell_types_of(state)
    lens = settings["pr"]
    model = STCNN(
        pr=Photoreceptor(
            state["pr.x_weight"][0, 0],
            float(state["pr.tau"]),
            stride=lens["stride"],
            padding=lens["padding"],
            dt=DT,
            n_taps=lens["n_taps"],
        ),
        network=[
            layer_of(sub(state, key), value)
            for key, value in settings.items()
            if key.startswith("network.")
        ],
        read_outs={
            name: layer_of(sub(state, f"lc_layers.{j}"), settings[f"lc_layers.{j}"])
            for j, name in enumerate(types)
        },
        calcium={
            "dt": DT,
            "activation": settings["calcium"]["activation"],
            "n_taps": settings["calcium"]["n_taps"],
            "global_tau": 0.4 if "global_ca_tau" in state else None,
            "per_type": {
                t: [state[f"ca_param.{t}.{k}"].clone() for k in ("alpha", "beta", "ca_tau")]
                for t in types
            },
        },
        readout="legacy",
    )
    model.load_state_dict(state, strict=True)
    model.set_temporal_impl(impl)
    return model


def state_of(d, prefix):
    return {k[len(prefix) + 1 :]: tensor(d[k]) for k in d.files if k.startswith(f"{prefix}/")}


def contrast_of(d, bg):
    return tensor(d["levels"][d["movie_code"]] - np.float32(bg))[
        :, :, None
    ]  # (N, T, 1, rows, columns)


def recordings_of(d):
    """Return recordings in the insertion order of the fixture, and the movies."""
    recordings = {str(name): {} for name in d["cell_types"]}
    for key in (k for k in d.files if k.startswith("in/")):
        _, name, file, stimulus, *rest = key.split("/")
        session = recordings[name].setdefault(file, {})
        entry = session.setdefault(int(stimulus.split("_")[1]), {"neuron": {}})
        if rest == ["t_axis"]:
            entry["t_axis"] = tensor(d[key])
            continue
        neuron = entry["neuron"].setdefault(int(rest[0]), {})
        if rest[1] == "traces":
            neuron["traces"] = tensor(d[key])
        else:
            neuron["azi_shift"], neuron["ele_shift"] = d[key].tolist()
    movies = {
        int(k.rsplit("_", 1)[1]): tensor(levels_of(d)[d[k]])
        for k in d.files
        if k.startswith("movie_code/")
    }
    return recordings, movies


def levels_of(d):
    """Return the grey levels of a data loader's movie codes; the first is the background."""
    return d["levels"].astype(np.float32) if "levels" in d.files else LEVELS


def layouts_of(d, recordings):
    """Return {configuration: Layout} of dataloader.npz.

    Averaging, padding and the start of the loss stand in its index; degrees per pixel are those
    that place the movie of the first shifted item as recorded.
    """
    columns = [str(name).split("(")[0] for name in d["columns"]]
    layouts = {}
    for config in sorted({k.split("/")[0] for k in d.files if k.endswith("/index")}):
        rows = [dict(zip(columns, row.tolist(), strict=True)) for row in d[f"{config}/index"]]
        kinds = list(recordings)
        files = list(dict.fromkeys(k.split("/")[2] for k in d.files if k.startswith("in/")))
        first = rows[0]
        t_axis = recordings[kinds[first["lc_type"]]][files[first["file"]]][first["vstim"]]["t_axis"]
        n_prepad = first["rec_stop"] - len(t_axis) + 1
        shared = Layout(
            len({(r["uid"], r["vstim"], r["file"]) for r in rows}) == len(rows)
            and any(r["n_trials_used"] > 1 for r in rows),
            1.0,
            float(levels_of(d)[0]),
            float(t_axis[first["rec_start"] - n_prepad]),
            n_prepad,
        )
        layouts[config] = shared, rows
    return layouts


def run_files(folder):
    """Return [(run, weights, config)] of every released run in ``folder``."""
    triples = []
    for config in sorted(Path(folder).glob("*_config.json")):
        run = config.name.removesuffix("_config.json")
        weights = sorted(Path(folder).glob(f"{run}_model_chkpnt_*.safetensors"))
        triples += [(run, path, config) for path in weights]
    return triples


def expected_counts(config):
    """Return (tensors of the state dict, parameters without the lens, parameter tensors)."""
    config = json.loads(Path(config).read_text(encoding="utf-8"))
    network, lobula, calcium = (config[key] for key in ("network_config", "L_config", "ca_config"))
    widths = network["out_channels"]
    shared = int(calcium["use_global_ca_tau"]) if "use_global_ca_tau" in calcium else 1
    extra = [1 + (c["config_type"] == "spatiotemporal_pwrexp") for c in (network, lobula)]
    n = shared
    for before, width, size in zip([1, *widths], widths, network["x_kernel_size"], strict=False):
        n += width * before * np.prod(pair(size)) + width * (extra[0] + 1 + 2)
    for size in lobula["x_kernel_size"]:
        n += widths[-1] * np.prod(pair(size)) + extra[1] + 1
    n += sum(2 * count + 1 for count in calcium["cell_count"])
    n_hidden, n_types = len(widths), len(lobula["lc_types"])
    parameters = shared + 3 * n_types + 1 + n_hidden * (4 + extra[0]) + n_types * (2 + extra[1])
    return parameters + 1 + 3 * n_hidden, int(n), parameters
