"""The four routes of the temporal filter and its stream, against conv1d and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from network import temporal
from network.temporal import IMPLEMENTATIONS, FilterStream, KernelStream, convolve, temporal_filter
from network.util_conv import exponential_kernel, power_exponential_kernel

DT = 1 / 180


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("n_taps", [5, 11, 12, 40])
def test_a_settled_filter_is_one_with_an_endless_past(impl, n_taps, monkeypatch):
    monkeypatch.setattr(temporal, "SMALL_FRAME", 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    tau = torch.tensor([[0.005], [0.05], [2.0]], dtype=torch.float64, requires_grad=True)
    cot = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    options = {"dt": DT, "n_taps": n_taps, "impl": impl}
    settled = temporal_filter(x, tau, settled=True, **options)
    past = x[:, :1].expand(-1, 60, -1, -1)
    whole = temporal_filter(torch.cat([past, x], dim=1), tau, **options)[:, 60:]
    torch.testing.assert_close(settled, whole, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad(settled, (x, tau), cot)
    theirs = torch.autograd.grad(whole, (x, tau), cot)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("n_taps", [5, 12, 40])
def test_gradients_in_float64(impl, n_taps, monkeypatch):
    """Check 8: T = 12, truncation inside, at the edge and beyond; both scans of the recursion."""
    monkeypatch.setattr(temporal, "SMALL_FRAME", 0)  # the frame loop, however small the frame
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    tau = torch.tensor([[0.005], [0.05], [2.0]], dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)

    def run(x, tau, bias):
        return temporal_filter(x, tau, dt=DT, n_taps=n_taps, impl=impl, bias=bias)

    assert torch.autograd.gradcheck(run, (x, tau, bias))


@pytest.mark.parametrize("impl", ["recursive", "chunk", "fft"])
def test_truncation_is_present(impl):
    """Check 9: a slow filter cut at 64 taps equals conv1d, not the endless exponential."""
    x = torch.randn(1, 130, 2, 20, 20, generator=torch.Generator().manual_seed(1))
    tau = torch.tensor([3.0, 0.5])
    plain = temporal_filter(x, tau, dt=DT, n_taps=64, impl="conv")
    cut = temporal_filter(x, tau, dt=DT, n_taps=64, impl=impl)
    assert (cut - plain).abs().max() <= 1e-5 * plain.abs().max()
    endless = temporal_filter(x, tau, dt=DT, n_taps=2000, impl="conv")
    assert (cut - endless).abs().max() > 0.1 * plain.abs().max()


def test_scipy_agrees_without_truncation():
    x = np.random.default_rng(0).normal(size=(1, 300, 1, 900)).astype(np.float32)
    tau = 0.1
    first = float(exponential_kernel(torch.tensor([tau]), dt=DT, n_taps=900)[0, 0])
    expected = lfilter([first], [1.0, -np.exp(-DT / tau)], x.astype(np.float64), axis=1)
    ours = temporal_filter(torch.from_numpy(x), torch.tensor([tau]), dt=DT, n_taps=900)
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


def test_tau_gradient_at_float32_is_close_to_float64():
    """Check 10: the difference of two large sums keeps its digits."""
    generator = torch.Generator().manual_seed(2)
    x, cot = (torch.randn(1, 2000, 2, 21, 21, generator=generator) for _ in range(2))
    tau = torch.tensor([[0.02], [0.3]], requires_grad=True)
    gradient = torch.autograd.grad(temporal_filter(x, tau, dt=DT, n_taps=900), tau, cot)[0]
    tau64 = tau.detach().double().requires_grad_()
    exact = torch.autograd.grad(
        temporal_filter(x.double(), tau64, dt=DT, n_taps=900), tau64, cot.double()
    )[0]
    assert ((gradient - exact).abs() / exact.abs()).max() < 5e-4


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    n_taps=st.integers(2, 90),
    tau=st.floats(0.005, 3.0),
)
def test_a_stream_in_pieces_equals_the_whole(cuts, n_taps, tau):
    x = torch.randn(
        2, sum(cuts), 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    taus = torch.tensor([tau], dtype=torch.float64)
    stream = FilterStream(taus, dt=DT, n_taps=n_taps)
    pieces = torch.cat([stream.push(piece) for piece in x.split(cuts, dim=1)], dim=1)
    whole = temporal_filter(x, taus, dt=DT, n_taps=n_taps, impl="conv")
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-9)


def test_kernel_stream_equals_the_whole():
    tau, power = torch.tensor([0.05, 0.1]), torch.tensor([1.0, 3.0])
    kernel = power_exponential_kernel(tau, power, dt=DT, n_taps=40)
    x = torch.randn(1, 90, 2, 4, generator=torch.Generator().manual_seed(4))
    stream = KernelStream(kernel)
    pieces = torch.cat([stream.push(piece) for piece in x.split([1, 30, 59], dim=1)], dim=1)
    torch.testing.assert_close(pieces, convolve(x, kernel, impl="conv"), rtol=1e-4, atol=1e-4)


def test_unit_energy_and_peak():
    tau = torch.tensor([0.005, 0.05, 0.45], dtype=torch.float64)
    w = exponential_kernel(tau, dt=DT, n_taps=900)
    np.testing.assert_allclose((w**2).sum(1) * DT, 1.0)
    np.testing.assert_allclose(w.sum(1), [18.9, 57.0, 170.8], rtol=2e-3)
    w = power_exponential_kernel(torch.tensor([0.05]), torch.tensor([2.0]), dt=DT, n_taps=100)
    assert w[0, 0] == 0
    assert int(w.argmax()) == round(0.05 / DT)


@pytest.mark.parametrize("impl", ["chunk", "conv", "fft"])
def test_mixed_precision_leaves_the_filters_alone(impl):
    """Under autocast the filter and its gradients are those in full precision, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, 3, 6, 6, generator=generator, requires_grad=True)
    tau = torch.tensor([0.02, 0.1, 0.4], requires_grad=True)

    def run(half):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            y = temporal_filter(x, tau, dt=DT, n_taps=900, impl=impl)
            grads = torch.autograd.grad((y**2).sum(), (x, tau))
        return y, *grads

    for plain, mixed in zip(run(False), run(True), strict=True):
        assert mixed.dtype == torch.float32
        if impl == "conv":
            torch.testing.assert_close(mixed, plain, rtol=1e-4, atol=1e-3)
        else:
            assert torch.equal(mixed, plain)
