"""Parameter counts, initial values, read-out positions, refusals of a wrong configuration."""

import copy

import pytest
import torch

from common.files import InputError
from network.adam import Adam
from network.model_factory import build_model, read_out_blocks
from network.models import batch_loss
from runs.configuration import compose_settings
from runs.training import clip_parameters

RELEASED = {"lc11": 10, "lc18": 19, "lc17": 20, "lc12": 10, "lc21": 7}


def configs(counts, model="stcnn_exp_leakyrelu_bn"):
    config = compose_settings([f"model={model}"])["model"]
    lobula, _ = read_out_blocks(config, list(counts))
    ca = {**config["ca"], "cell_types": list(counts), "cell_count": list(counts.values())}
    return {
        "pr_config": config["pr"],
        "network_config": config["network"],
        "L_config": lobula,
        "ca_config": ca,
    }


def test_released_size():
    """65 entries, 52 parameters, 19,948 trained numbers beside the 1,225 of the lens."""
    model = build_model(configs(RELEASED), rate_hz=180)
    assert len(model.state_dict()) == 65
    assert len(list(model.parameters())) == 52
    assert sum(p.numel() for p in model.parameters()) == 19948 + 1225
    per_layer = [sum(p.numel() for p in layer.parameters()) for layer in model.network]
    assert per_layer == [510, 4920, 4920, 4920]
    assert [sum(p.numel() for p in layer.parameters()) for layer in model.lc_layers] == [
        1212,
        812,
        812,
        812,
        812,
    ]
    assert list(model.state_dict())[:4] == [
        "global_ca_tau", "ca_param.lc11.alpha", "ca_param.lc11.beta", "ca_param.lc11.ca_tau"
    ]  # fmt: skip
    assert [model.start_of(kind, (21, 21)) for kind in RELEASED] == [
        [4, 4],
        [5, 5],
        [5, 5],
        [5, 5],
        [5, 5],
    ]


def test_center_readout_and_initial_ranges():
    model = build_model(configs(RELEASED), rate_hz=180, readout="center")
    assert model.start_of("lc11", (21, 21)) == [5, 5]
    assert model.start_of("lc12", (21, 21)) == [6, 6]
    bound = 0.01 * (6 / (1.0001 * 49)) ** 0.5
    assert model.network[0].x_weight.abs().max() <= bound
    assert model.network[0].x_weight.abs().max() > 0.9 * bound
    assert (model.network[2].tau >= 0.01).all()
    assert (model.network[2].tau <= 10**-0.8).all()
    fast = build_model(configs(RELEASED), rate_hz=180, init="fast")
    assert fast.network[0].x_weight.abs().max() > 50 * bound
    assert fast.lc_layers[0].bias.item() == -1.5


def test_same_seed_same_values():
    a, b = (build_model(configs(RELEASED), rate_hz=180, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("kind", ["spatiotemporal_pwrexp", "spatial"])
def test_other_layer_kinds_train(kind):
    chosen = configs({"lc11": 1}, "stcnn_small")
    chosen["network_config"] |= {"config_type": kind, "n_power_init": [1.0, 3.0]}
    model = build_model(chosen, rate_hz=60, init="fast", readout="center").train()
    movie = torch.randn(1, 20, 1, 51, 51, generator=torch.Generator().manual_seed(0))
    predicted = model.predict_items(model.pr.sample(movie), ["lc11"], torch.tensor([0]))
    assert predicted.shape == (1, 20)
    batch_loss(predicted, torch.ones(1, 20), torch.tensor([[2, 19]]), ["lc11"])[0].backward()
    for name, parameter in model.network.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name


def test_absent_type_has_no_gradient():
    """Check 22."""
    model = build_model(
        configs({"lc11": 2, "lc12": 2}, "stcnn_small"), rate_hz=60, readout="center"
    )
    movie = torch.randn(2, 20, 1, 51, 51, generator=torch.Generator().manual_seed(0))
    predicted = model.predict_items(model.pr.sample(movie), ["lc12", "lc12"], torch.tensor([0, 1]))
    total, losses = batch_loss(
        predicted, torch.ones(2, 20), torch.tensor([[0, 19], [3, 10]]), ["lc12", "lc12"]
    )
    total.backward()
    assert list(losses) == ["lc12"]
    absent = [*model.lc_layers[0].parameters(), *model.ca_param["lc11"].parameters()]
    assert all(parameter.grad is None for parameter in absent)
    assert model.lc_layers[1].x_weight.grad is not None


def test_one_batch_can_be_overfitted():
    model = build_model(
        configs({"lc11": 1}, "stcnn_small"), rate_hz=60, init="fast", readout="center"
    )
    movie = torch.zeros(1, 60, 1, 51, 51)
    movie[0, 15:35, 0, 15:36, 15:36] = -0.498
    truth = torch.zeros(1, 60)
    truth[0, 15:] = torch.exp(-torch.arange(45) / 20.0) * torch.arange(45) / 10
    sampled, optimiser = model.pr.sample(movie), Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        predicted = model.predict_items(sampled, ["lc11"], torch.tensor([0]))
        loss = batch_loss(predicted, truth, torch.tensor([[0, 60]]), ["lc11"])[0]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimiser.step()
        clip_parameters(model, [(".tau", 0.005, None), ("global_ca_tau", 0.35, 0.45)])
        losses.append(loss.item())
    assert min(losses) < 0.05 * losses[0]


@pytest.mark.parametrize(
    ("block", "key", "value", "message"),
    [
        ("network_config", "config_type", "wavelet", "config_type=wavelet: expected one of"),
        ("network_config", "activation", "swish", "activation=swish: expected one of"),
        (
            "network_config",
            "x_kernel_size",
            [7, 7],
            "x_kernel_size has 2 entries but out_channels has 4",
        ),
        ("pr_config", "config_type", "camera", "expected photoreceptor"),
        ("ca_config", "config_type", "dye", "expected gcamp"),
    ],
)
def test_wrong_configuration_is_named(block, key, value, message):
    chosen = copy.deepcopy(configs(RELEASED))
    chosen[block][key] = value
    with pytest.raises(InputError, match=message):
        build_model(chosen, rate_hz=180)


def test_unknown_type_uses_the_default_or_is_refused():
    config = compose_settings([])["model"]
    assert read_out_blocks(config, ["lc99"])[1] == ["lc99"]
    del config["readout_default"]
    with pytest.raises(InputError, match="lc99: no read-out block"):
        read_out_blocks(config, ["lc99"])
