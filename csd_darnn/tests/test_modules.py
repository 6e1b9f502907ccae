"""Encoder and decoder: parameter counts, names, attention, options."""

import numpy as np
import pytest
import torch

from inputs.custom_types import ModelOptions, TrainConfig, TrainData
from inputs.windows import WindowRule
from network.build import build_net
from network.modules import Decoder, Encoder
from runs.training import train_iteration

ENCODER_NAMES = {
    f"lstm_layer.{kind}_l{layer}"
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for layer in (0, 1)
} | {"attn_linear.weight", "attn_linear.bias"}
DECODER_NAMES = (ENCODER_NAMES - {"attn_linear.weight", "attn_linear.bias"}) | {
    f"{layer}.{kind}"
    for layer in ("attn_layer.0", "attn_layer.2", "fc", "fc_final")
    for kind in ("weight", "bias")
}


def count(part):
    return sum(value.numel() for value in part.parameters())


def make_net(n_feats=7, *, T=6, m=5, p=4, o=1, rule=None, seed=0, **options):
    torch.manual_seed(seed)
    return build_net(
        {"N": n_feats, "m": m, "p": p, "o": o},
        rule=rule or WindowRule(T),
        options=ModelOptions(**options),
        learning_rate=0.01,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("n_feats", "m", "layers", "parameters"),
    [
        (399, 64, 2, 152_458),
        (935, 64, 2, 289_674),
        (936, 64, 2, 289_930),
        (6551, 64, 2, 1_727_370),
        (81, 64, 1, 37_770),
        (81, 128, 1, 108_298),
    ],
)
def test_encoder_parameters(n_feats, m, layers, parameters):
    assert count(Encoder(n_feats, m, 10, layers=layers)) == parameters


@pytest.mark.parametrize(
    ("o", "layers", "parameters"), [(1, 2, 63_044), (2, 2, 63_497), (1, 1, 29_764)]
)
def test_decoder_parameters(o, layers, parameters):
    assert count(Decoder(64, 64, 10, o, layers=layers)) == parameters


def test_state_dict_names_are_the_published_ones():
    net = make_net()
    assert set(net.encoder.state_dict()) == ENCODER_NAMES
    assert set(net.decoder.state_dict()) == DECODER_NAMES


def test_linear_attention_ignores_state_and_steps():
    net, X = make_net(), torch.randn(3, 5, 7)
    before = net.encoder.encode(X)
    with torch.no_grad():
        net.encoder.attn_linear.weight[:, : 2 * net.encoder.hidden_size].normal_()
        net.encoder.attn_linear.bias.normal_()
    after = net.encoder.encode(X)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
    steps = before[0] / X
    assert (steps - steps[:, :1]).abs().max() < 1e-6
    assert torch.allclose(before[2].sum(-1), torch.ones(3, 1))


def test_tanh_attention_changes_over_steps():
    net, X = make_net(attention="tanh"), torch.randn(3, 5, 7)
    with torch.no_grad():
        net.encoder.attn_hidden.weight.normal_()
        net.encoder.attn_v.weight.normal_()
    alpha = net.encoder.encode(X)[2]
    assert (alpha[:, 1:] - alpha[:, :1]).abs().max() > 1e-3
    assert torch.allclose(alpha.sum(-1), torch.ones(3, 5))


def test_attention_scale_feeds_n_alpha_x_and_saves_alpha_x():
    plain, scaled = make_net(), make_net(attention_scale="n")
    X = torch.randn(2, 5, 7)
    assert torch.equal(plain.encoder(X)[0], scaled.encoder(X)[0])
    with torch.no_grad():
        scaled.encoder.lstm_layer.weight_ih_l0 /= 7
    assert torch.allclose(plain.encoder(X)[1], scaled.encoder(X)[1], atol=1e-6)


def test_change_adds_the_last_history_value():
    level, change = make_net(), make_net(predict="change")
    X, y_history = torch.randn(2, 5, 7), torch.randn(2, 5, 1)
    states = level.encoder(X)[1]
    difference = change.decoder(states, y_history) - level.decoder(states, y_history)
    assert torch.allclose(difference, y_history[:, -1], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "tanh", "readout": "top"},
        {"predict": "change", "layers": 1, "attention_scale": "n"},
    ],
)
def test_overfits_one_batch(options):
    net = make_net(m=16, p=16, **options)
    X, y_history, y_target = torch.randn(8, 5, 7), torch.randn(8, 5, 1), torch.randn(8, 1)
    mse = torch.nn.functional.mse_loss
    first = train_iteration(net, mse, X, y_history, y_target)
    losses = (train_iteration(net, mse, X, y_history, y_target) for _ in range(300))
    assert any(loss < 0.01 * first for loss in losses)  # stops at the first


def test_same_seed_gives_the_same_network_and_leaves_the_global_generator():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    rule, options = WindowRule(6), ModelOptions()
    sizes = {"N": 7, "m": 5, "p": 4, "o": 1}
    nets = [build_net(sizes, rule=rule, options=options, learning_rate=0.01) for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(nets[0].encoder.parameters(), nets[1].encoder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_current_x_windows_end_at_the_target_row():
    rule = WindowRule(6, horizon=3, current_x=True)
    starts = rule.test_starts(40, 30)
    assert (rule.target_rows(starts) == np.arange(30, 40)).all()
    assert (rule.x_rows(starts)[:, -1] == rule.target_rows(starts)).all()
    assert rule.x_rows(starts).shape == (10, 6)
    assert (rule.history_rows(starts)[:, -1] == rule.target_rows(starts) - 3).all()
    assert rule.train_count(30) == 23
    assert (rule.target_rows(rule.train_starts(30)).max()) == 29


def test_train_config_keeps_the_published_fields():
    assert TrainConfig._fields == ("T", "train_size", "batch_size", "loss_func")
    assert TrainData._fields == ("feats", "targs")
