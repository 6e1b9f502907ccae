"""Models and recordings built from the arrays of a parity fixture; every size comes from them."""

import numpy as np
import torch

from models import STCNN, Photoreceptor, SpatioTemporalLayer

DT = 1 / 180


def tensor(array):
    return torch.from_numpy(np.array(array))


def small_model(state, impl, *, pr_stride=2, pr_taps=30, hidden_taps=64, ca_taps=120, ro_stride=5):
    """Build the architecture of the parity README with the sizes of ``state``."""
    types = list(dict.fromkeys(k.split(".")[1] for k in state if k.startswith("ca_param.")))

    def layer(name, activation, stride):
        weight = state[f"{name}.x_weight"]
        return SpatioTemporalLayer(
            weight.clone(),
            state[f"{name}.bias"].clone(),
            kind="exp",
            activation=activation,
            stride=[stride] * 2,
            padding=[n // 2 for n in weight.shape[2:]],
            dt=DT,
            n_taps=hidden_taps,
        )

    n_hidden = len({k.split(".")[1] for k in state if k.startswith("network.")})
    lens = state["pr.x_weight"][0, 0]
    model = STCNN(
        pr=Photoreceptor(
            lens,
            0.006,
            stride=[pr_stride] * 2,
            padding=[n // 2 for n in lens.shape],
            dt=DT,
            n_taps=pr_taps,
        ),
        network=[
            layer(f"network.{i}", "leaky_relu" if i else "identity", 1) for i in range(n_hidden)
        ],
        read_outs={
            t: layer(f"lc_layers.{j}", "leaky_relu", ro_stride) for j, t in enumerate(types)
        },
        calcium={
            "dt": DT,
            "activation": "elu",
            "n_taps": ca_taps,
            "global_tau": 0.4,
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
    levels = np.array([0.498, 0.0, 1.0], dtype=np.float32)
    movies = {
        int(k.rsplit("_", 1)[1]): tensor(levels[d[k]])
        for k in d.files
        if k.startswith("movie_code/")
    }
    return recordings, movies
