"""Parity of kernels, layers and the calcium filter: the files of --fixtures DIR."""

import re

import numpy as np
import pytest
import torch

from from_fixture import DT, assert_close_to_max, files, layer_fixture, look_up_layer, tensor, two
from network.models import (
    STCNN,
    Photoreceptor,
    SpatioTemporalLayer,
    filtered_drive,
    scale_activity,
)
from network.temporal import IMPLEMENTATIONS, temporal_filter
from network.util_conv import exponential_kernel, gaussian_kernel, power_exponential_kernel

DENORMAL = 1e-38  # below it float32 has no digits to compare
IMPLS = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


def test_kernels(request):
    for d in files(request, "kernels"):
        for name in sorted(
            {
                key[: -len("_tau")]
                for key in d.files
                if key.startswith("exp_") and key.endswith("_tau") and "grad" not in key
            }
        ):
            tau = tensor(d[f"{name}_tau"]).requires_grad_()
            w = exponential_kernel(tau, dt=DT, n_taps=d[f"{name}_w"].shape[1])
            np.testing.assert_allclose(w.detach(), d[f"{name}_w"], rtol=2e-6, atol=DENORMAL)
            (w * tensor(d[f"{name}_cot"])).sum().backward()
            np.testing.assert_allclose(tau.grad, d[f"{name}_grad_tau"], rtol=1e-4)
        for name in sorted(k[:-2] for k in d.files if k.startswith("pow") and k.endswith("_w")):
            tau, n = (tensor(d[f"{name}_{key}"]).requires_grad_() for key in ("tau", "n"))
            w = power_exponential_kernel(tau, n, dt=DT, n_taps=d[f"{name}_w"].shape[1])
            np.testing.assert_allclose(w.detach(), d[f"{name}_w"], rtol=2e-6, atol=DENORMAL)
            (w * tensor(d[f"{name}_cot"])).sum().backward()
            for kernel, key in ((tau.grad, f"{name}_grad_tau"), (n.grad, f"{name}_grad_n")):
                assert torch.isfinite(kernel).all()
                recorded = np.isfinite(d[key])  # published: NaN for an exponent below 1
                np.testing.assert_allclose(kernel.numpy()[recorded], d[key][recorded], rtol=1e-4)
        for key in (k for k in d.files if k.startswith("gauss_") and "aniso" not in k):
            _, size, sigma, ds = key.split("_")
            size = [int(n) for n in two(size)]
            kernel = gaussian_kernel(two(sigma), two(ds), size)
            assert list(kernel.shape) == size
            np.testing.assert_allclose(kernel, d[key], rtol=2e-6, atol=1e-12, err_msg=key)
        for key in (k for k in d.files if k.startswith("gauss_aniso") and k.endswith("_args")):
            sr, sc, dr, dc, rows, cols = d[key]
            kernel = gaussian_kernel((sr, sc), (dr, dc), (int(rows), int(cols)))
            expected = d[key.replace("_args", "_correct")]
            np.testing.assert_allclose(kernel, expected, rtol=2e-6, atol=1e-12)


@IMPLS
def test_layers(request, impl):
    for d in files(request, "layers"):
        for case in sorted(k[:-2] for k in d.files if re.fullmatch(r"(exp|pow).*_K", k)):
            layer, x = layer_fixture(d, case)
            x.requires_grad_()
            layer.impl = impl
            y = layer(x)
            assert_close_to_max(y.detach(), d[f"{case}_y"], 1e-5, f"{case} y")
            (y * tensor(d[f"{case}_cot"])).sum().backward()
            assert_close_to_max(x.grad, d[f"{case}_grad_x"], 2e-4, f"{case} x")
            for name, parameter in layer.named_parameters():
                assert_close_to_max(
                    parameter.grad, d[f"{case}_grad_{name}"], 2e-4, f"{case} {name}"
                )


def test_batch_norm_and_spatial_layer(request):
    for d in files(request, "layers"):
        channels = len(d["bn_weight"])
        layer = SpatioTemporalLayer(
            torch.eye(channels)[..., None, None],
            torch.full((channels,), 0.25),
            kind="spatial",
            activation="identity",
            stride=[1, 1],
            padding=[0, 0],
            dt=DT,
        )
        model = STCNN(
            pr=Photoreceptor(
                torch.ones(1, 1), 1e-4, stride=[1, 1], padding=[0, 0], dt=DT, n_taps=1
            ),
            network=[layer],
            read_outs={},
            readout="legacy",
            calcium={
                "dt": DT,
                "activation": "elu",
                "n_taps": 1,
                "global_tau": None,
                "per_type": {},
            },
        )
        norm = model.norm_layers[0]
        norm.load_state_dict(
            {**norm.state_dict(), "weight": tensor(d["bn_weight"]), "bias": tensor(d["bn_bias"])}
        )
        y = model._normalise(tensor(d["bn_x"]) - 0.25, norm, layer.bias)
        assert_close_to_max(y.detach(), d["bn_train_y"], 1e-5)
        np.testing.assert_allclose(norm.running_mean, d["bn_running_mean"], rtol=1e-5)
        np.testing.assert_allclose(norm.running_var, d["bn_running_var"], rtol=1e-5)
        assert int(norm.num_batches_tracked) == 1
        norm.eval()
        y = norm(tensor(d["bn_x"]).flatten(0, 1)).view(d["bn_x"].shape)
        assert_close_to_max(y.detach(), d["bn_eval_y"], 1e-5)
        x, y = d["spatial_x"], d["spatial_y_correct"]
        state = {"x_weight": d["spatial_weight"], "bias": d["spatial_bias"]}
        settings, _ = look_up_layer(x[0], state, y[0], range(len(y[0])))
        layer = SpatioTemporalLayer(
            *(tensor(value) for value in state.values()), kind="spatial", dt=DT, **settings
        )
        assert_close_to_max(layer(tensor(x)).detach(), y, 1e-5)


@IMPLS
def test_calcium(request, impl):
    for d in files(request, "calcium"):
        for case in sorted(k[: -len("_ca")] for k in d.files if k.endswith("_ca")):
            activation, taps = case.rsplit("_K", 1)
            inputs = {k: tensor(d[k]).requires_grad_() for k in ("v", "gain_raw", "offset", "tau")}
            activity = filtered_drive(
                inputs["v"],
                inputs["tau"],
                activation=activation,
                dt=DT,
                n_taps=int(taps),
                impl=impl,
            )
            ca = scale_activity(activity, inputs["gain_raw"], inputs["offset"])
            assert_close_to_max(ca.detach(), d[f"{case}_ca"], 1e-5, case)
            (ca * tensor(d[f"{case}_cot"])).sum().backward()
            for name, value in inputs.items():
                assert_close_to_max(value.grad, d[f"{case}_grad_{name}"], 2e-4, f"{case} {name}")
        for key in (k for k in d.files if k.startswith("gcamp_filter_K")):
            y = temporal_filter(
                tensor(d["v"])[..., None],
                tensor(d["tau"]),
                dt=DT,
                n_taps=int(key.rsplit("K", 1)[1]),
                impl=impl,
            )[..., 0]
            assert_close_to_max(y, d[key], 1e-5, key)
