"""The quicker routes of the trunk give the numbers of the plain one."""

import pytest
import torch

from network.model_factory import build_model, read_out_blocks
from network.models import STCNN, still_frames
from runs.configuration import compose_settings

TYPES = ("lc11", "lc12")


def small_model(*overrides, readout="legacy"):
    given = [
        "model.network.t_kernel_size=20", "model.lobula.t_kernel_size=20",
        "model.ca.t_kernel_size=20", "model.network.out_channels=[3,4,3,2]", *overrides,
    ]  # fmt: skip
    config = compose_settings(["model=stcnn_exp_leakyrelu_bn", *given])["model"]
    lobula, _ = read_out_blocks(config, TYPES)
    ca = {**config["ca"], "cell_types": list(TYPES), "cell_count": [2, 2]}
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula}
    model = build_model({**blocks, "ca_config": ca}, rate_hz=180, init="fast", readout=readout)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for norm in model.norm_layers:
            norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator))
            norm.running_var.uniform_(0.5, 2.0, generator=generator)
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return model.double()  # float32 rounds 1e-7 of the largest drive where truncation takes it away


def batch(n_frames=40, size=(21, 21)):
    generator = torch.Generator().manual_seed(0)
    sampled = torch.randn(3, n_frames, 1, *size, generator=generator).double()
    return sampled, ["lc11", "lc12", "lc11"], torch.tensor([0, 1, 1])


def whole_map(model, sampled, types, neurons):
    """Return calcium by the plain route: the whole map, then the read-outs."""
    features = model.trunk(sampled)
    curves = [
        model.calcium(model.voltage(features[i : i + 1], kind), kind, neurons=neurons[i : i + 1])
        for i, kind in enumerate(types)
    ]
    return torch.cat(curves)


@pytest.mark.parametrize(("readout", "size"), [("legacy", (21, 21)), ("center", (9, 14))])
@pytest.mark.parametrize(
    "overrides",
    [[], ["model.network.x_stride=[1,2,1,1]"], ["model.network.x_padding=[2,3,3,5]"]],
)
def test_an_evaluating_forward_looks_only_where_it_must(readout, size, overrides):
    model = small_model(*overrides, readout=readout).eval()
    given = batch(size=size)
    with torch.no_grad():
        torch.testing.assert_close(
            model.predict_items(*given), whole_map(model, *given), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "identity", "elu"])
def test_the_settled_training_step_in_one_piece(activation, monkeypatch):
    names = f"[identity,{activation},{activation},{activation}]"
    results = []
    for fused in (True, False):
        model = small_model(f"model.network.activation={names}").train()
        model.settle(40)
        if not fused:
            monkeypatch.setattr(STCNN, "_fusible", lambda self: False)
        curves = model.predict_items(*batch(n_frames=300))  # more than one piece of work
        (curves**2).sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((curves.detach(), grads, model.norm_layers[2].running_var))
    (ours, grads, var), (theirs, expected, expected_var) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(var, expected_var, rtol=1e-8, atol=1e-8)
    assert set(grads) == set(expected)
    for name, grad in expected.items():
        scale = float(grad.abs().max()) + 1e-6
        assert float((grads[name] - grad).abs().max()) < 1e-8 * scale, name


def test_settled_norm_knows_its_gradients():
    from network.norms import NormConvolution, SettledNorm, settled_moments

    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        values = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return values.requires_grad_()

    y, weight, bias, kernel = draw(2, 6, 2, 4, 5), draw(2), draw(2), draw(3, 2, 3, 3)
    options = {"eps": 1e-5, "slope": 0.01, "stride": (1, 1), "padding": (1, 1)}

    def plain(y, weight, bias):
        """Return the norm of the movie whose first frame is repeated five times."""
        long = torch.cat([y[:, :1].expand(-1, 4, -1, -1, -1), y], dim=1)
        var, mean = torch.var_mean(long, dim=(0, 1, 3, 4), correction=0)
        scale = weight / torch.sqrt(var + 1e-5)
        return y * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    def ours(y, weight, bias):
        moments = settled_moments(y, 5)
        return SettledNorm.apply(y, weight, bias, *moments, 5, 1e-5, ((1, 3), (0, 4)))

    def ours_convolved(y, weight, bias, kernel):
        return NormConvolution.apply(y, weight, bias, kernel, settled_moments(y, 5), 5, options)

    def plain_convolved(y, weight, bias, kernel):
        x = torch.nn.functional.leaky_relu(plain(y, weight, bias), 0.01).flatten(0, 1)
        return torch.nn.functional.conv2d(x, kernel, padding=1).unflatten(0, (2, 6))

    for new, old, inputs in (
        (ours, lambda *a: plain(*a)[..., 1:3, 0:4], (y, weight, bias)),
        (ours_convolved, plain_convolved, (y, weight, bias, kernel)),
    ):
        output, expected = new(*inputs), old(*inputs)
        torch.testing.assert_close(output, expected)
        cot = torch.randn(output.shape, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(
            torch.autograd.grad(output, inputs, cot), torch.autograd.grad(expected, inputs, cot)
        )


@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])  # fused and layer by layer
@pytest.mark.parametrize("still", [1, 7, 60])
def test_one_frame_stands_for_the_grey_before_a_stimulus(activation, still, monkeypatch):
    """Settled filters answer the frames like the first one alike; 60 of 60 are grey all over."""
    sampled, types, neurons = batch(n_frames=60)
    sampled[:, :still] = 0.3
    sampled[1, :10] = 0.3  # the batch begins where its first movie does
    names = f"[identity,{activation},{activation},{activation}]"
    results = []
    for cut in (True, False):
        if not cut:
            monkeypatch.setattr("network.models.still_frames", lambda sampled: 0)
        model = small_model(f"model.network.activation={names}").train()
        model.settle(40)
        curves = model.predict_items(sampled, types, neurons)
        (curves**2).sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        with torch.no_grad():
            judged = model.eval().predict_items(sampled, types, neurons)
        results.append((curves.detach(), judged, model.norm_layers[2].running_var, grads))
    torch.testing.assert_close(results[0][:3], results[1][:3], rtol=1e-9, atol=1e-9)
    # of grey alone the gradients of the filters are what rounding leaves of differences
    scale = max(float(grad.abs().max()) for grad in results[1][3].values())
    for name, grad in results[1][3].items():
        assert float((results[0][3][name] - grad).abs().max()) < 1e-9 * scale, name


def test_still_frames_are_counted_for_the_whole_batch():
    frames = torch.zeros(2, 6, 1, 2, 2)
    frames[0, 3], frames[1, 4] = 1.0, 1.0
    assert still_frames(frames) == 2  # frame 2 stands for 0 and 1
    assert still_frames(frames[1:]) == 3
    assert still_frames(torch.zeros(1, 6, 1, 2, 2)) == 4  # two frames stay
    assert still_frames(torch.zeros(1, 1, 1, 2, 2)) == 0
    assert still_frames(torch.rand(1, 6, 1, 2, 2)) == 0


def test_numbers_that_fade_into_nothing_are_zero():
    """Sums of numbers below 1e-38 take ten times as long, and a recording is mostly grey."""
    small_model()
    assert not (torch.full((64,), 1e-30) * 1e-10).any()
    assert (torch.full((64,), 1e-27) * 1e-10).all()
