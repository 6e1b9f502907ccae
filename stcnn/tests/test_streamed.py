"""The trunk in training, piece by piece, gives the numbers of the plain one."""

import copy

import pytest
import torch

from network import grey, models, streamed
from test_fused import batch, small_model

TAPS = "model.network.t_kernel_size=400"  # what truncation takes away is below rounding
FAST = "model.network.tau_init=[-2.6,-2.2]"


SIZE = (11, 12)


@pytest.fixture
def long_enough(monkeypatch):
    """Let frames and maps of any size go piece by piece."""
    monkeypatch.setattr(streamed, "LONG_VALUES", 0)
    monkeypatch.setattr(streamed, "SMALL_FRAME", 0)


def movies(n_frames=80, blank=30):
    """Return a batch whose movies begin and end without contrast."""
    sampled, types, neurons = batch(n_frames=n_frames, size=SIZE)
    sampled[:, :blank] = 0
    sampled[1, : blank + 5] = 0
    sampled[:, -20:] = 0
    return sampled, types, neurons


def trained_step(model, given):
    """Return curves, gradients and running statistics of a training step."""
    model = copy.deepcopy(model)
    curves = model.predict_items(*given)
    (curves**2).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    moments = [value for norm in model.norm_layers for value in norm.buffers()]
    return curves.detach(), grads, moments


def both_ways(monkeypatch, model, given):
    """Return the step in pieces and the plain one."""
    done = []
    with monkeypatch.context() as patch:
        patch.setattr(models, "stream", lambda *a, **k: done.append(1) or streamed.stream(*a, **k))
        ours = trained_step(model, given)
        assert done == [1]
        patch.setattr(models, "can_stream", lambda *_, **__: False)
        theirs = trained_step(model, given)
        assert done == [1]
    return ours, theirs


def assert_equal(ours, theirs, tolerance):
    (curves, grads, moments), (expected, expected_grads, expected_moments) = ours, theirs
    torch.testing.assert_close(curves, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(moments, expected_moments, rtol=tolerance, atol=tolerance)
    assert set(grads) == set(expected_grads)
    for name, grad in expected_grads.items():
        assert float((grads[name] - grad).abs().max()) <= tolerance * float(grad.abs().max()), name


@pytest.mark.parametrize(
    ("settle", "kept_mb"),
    [(0, 0), (40, 64)],  # only the last map kept, the others done again; all kept
)
def test_a_step_in_pieces_equals_the_plain_one(settle, kept_mb, monkeypatch, long_enough):
    monkeypatch.setattr(streamed, "KEPT_MB", kept_mb)
    model = small_model(FAST, TAPS).train()
    model.settle(settle)
    model.norm_skip_frames = 0 if settle else 7
    assert_equal(*both_ways(monkeypatch, model, movies()), 1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.network.x_stride=[1,2,1,1]"],
        ["model.network.x_padding=[2,3,3,5]"],
        ["model.network.activation=[identity,relu,identity,leaky_relu]"],
    ],
)
def test_other_networks_in_pieces(overrides, monkeypatch, long_enough):
    monkeypatch.setattr(streamed, "KEPT_MB", 0)
    model = small_model(FAST, TAPS, *overrides).train()
    given = batch(n_frames=60, size=SIZE)  # contrast from the first frame on
    assert_equal(*both_ways(monkeypatch, model, given), 1e-9)


def test_only_what_the_pieces_know_goes_piece_by_piece(monkeypatch, long_enough):
    model = small_model(FAST, TAPS)
    x = torch.zeros(1, 401, 1, 21, 21)

    def can(x=x, settled=False):
        return streamed.can_stream(model.network, x, settled=settled)

    assert can()
    assert not can(x.clone().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not can()
    with torch.no_grad():
        model.network[2].tau[1] = 1.0  # after 400 frames a tenth of it is left
    assert not can()
    assert can(x[:, :400])  # ... which nothing takes away
    assert not can(x[:, :400], settled=True)
    model.set_temporal_impl("chunk")
    assert not can(x[:, :400])
    model.set_temporal_impl("recursive")
    monkeypatch.setattr(streamed, "LONG_VALUES", 400 * 4 * 21 * 21 + 1)
    assert not can(x[:, :400])


def test_a_frozen_trunk_leaves_its_map_alone():
    """A filter's output may not be overwritten: the read-outs behind it are trained."""
    model = small_model(FAST)
    model.freeze_trunk()
    model.train()
    curves = model.predict_items(*movies())
    curves.sum().backward()
    plain = small_model(FAST)
    plain.eval()
    given = movies()
    features = plain.trunk(given[0])
    drive = plain.voltage(features[1:2], "lc12")
    plain.calcium(drive, "lc12", neurons=given[2][1:2]).sum().backward()
    torch.testing.assert_close(
        model.read_out_of("lc12").x_weight.grad, plain.read_out_of("lc12").x_weight.grad
    )


def test_a_step_goes_back_once(long_enough):
    given = movies()
    curves = small_model(FAST, TAPS).train().predict_items(*given)
    curves.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="goes back once"):
        curves.sum().backward()


@pytest.mark.parametrize(("per_e", "tolerance"), [(1000, 1e-9), (32, 2e-6)])
def test_grey_at_knots_is_grey_frame_by_frame(per_e, tolerance, monkeypatch, long_enough):
    """At every frame it is the same; the fewer knots, the further off."""
    monkeypatch.setattr(grey, "KNOTS_PER_E", per_e)
    assert len(grey.knots_of(200)) == {1000: 200, 32: 108}[per_e]
    model = small_model("model.network.tau_init=[-1.6,-1.2]", TAPS).train()
    model.grey_at_knots = True
    ours, theirs = both_ways(monkeypatch, model, movies(n_frames=250, blank=200))
    assert_equal(ours, theirs, tolerance)


def test_knots_stand_for_all_frames():
    knots = grey.knots_of(450)
    assert knots[0] == 0
    assert knots[-1] == 449
    assert (torch.diff(knots)[:63] == 1).all()
    assert torch.diff(knots).max() <= 449 / grey.KNOTS_PER_E
    assert float(grey.knot_counts(knots).sum()) == pytest.approx(450)
    weights = grey.knot_weights(knots)
    torch.testing.assert_close(weights.sum(1), torch.ones(450, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(0), grey.knot_counts(knots))
    straight = weights @ (3.0 - 0.5 * knots.double())
    torch.testing.assert_close(straight, 3.0 - 0.5 * torch.arange(450).double())
    assert grey.knots_of(1).tolist() == [0]
