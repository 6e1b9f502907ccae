"""The folder's own code on a pretended CUDA device: same numbers, no mixed devices, few waits."""

import numpy as np
import pytest
import torch

from analysis.importance import block_importance, gradient_importance, take_windows
from common.cases import difference, gradient_difference, read_results, run_cases, within
from common.files import InputError
from demo.gpu_cases import Cases
from inputs.custom_types import TrainData
from inputs.windows import WindowRule
from network.build import da_rnn
from network.prediction import predict_windows
from runs.training import train
from shadow_cuda import Shadow, ShadowCuda

WATCHED = ("/csd_darnn/",)


class Scaled(torch.nn.Module):
    """A layer with a table that is a buffer, or, the classical fault, a plain attribute."""

    def __init__(self, is_buffer):
        super().__init__()
        self.line = torch.nn.Linear(3, 3)
        if is_buffer:
            self.register_buffer("table", torch.arange(3.0))
        else:
            self.table = torch.arange(3.0)

    def forward(self, x):
        return self.line(x) * self.table


def test_the_device_finds_planted_faults():
    torch.manual_seed(0)
    net, x = Scaled(is_buffer=True), torch.randn(2, 3)
    expected = net(x).detach()
    with ShadowCuda(watch=WATCHED) as card:
        on_card = x.to("cuda")
        assert isinstance(on_card, Shadow)
        np.testing.assert_array_equal(net.to("cuda")(on_card).detach().cpu(), expected)
        with pytest.raises(RuntimeError, match="same device"):
            Scaled(is_buffer=False).to("cuda")(on_card)
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([on_card, torch.ones(1, 3)])
        with pytest.raises(TypeError, match="cuda:0"):
            on_card.numpy()
        assert (on_card * torch.tensor(2.0)).is_cuda  # a scalar may stay on the CPU
        before = card.waits()
        float(on_card.sum())
        assert card.waits() == before + 1
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "shadow"


@pytest.fixture
def recording():
    random = np.random.default_rng(0)
    return TrainData(random.normal(size=(60, 6)), random.normal(size=(60, 1)))


def whole_story(recording, device):
    """Return losses, prediction and importances of a tiny network on ``device``."""
    config, net = da_rnn(recording, 1, 4, 4, T=5, device=device)
    done = train(net, recording, config, 1)
    starts, rule = np.arange(20), WindowRule(5)
    windows = take_windows(net, recording, starts, rule, done.permutation)
    prediction = predict_windows(net, recording, starts, rule, attention=True)
    growth = block_importance(windows, [np.arange(3), np.arange(3, 6)])[1]
    return (
        done.iter_losses,
        prediction.y_pred,
        prediction.attention,
        growth,
        gradient_importance(windows),
    )


def test_training_prediction_and_importance_equal_the_cpu(recording):
    expected = whole_story(recording, "cpu")
    with ShadowCuda(watch=WATCHED):
        story = whole_story(recording, "cuda")
    for one, other in zip(story, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_training_step_waits_for_its_loss_alone(recording):
    with ShadowCuda(watch=WATCHED) as card:
        config, net = da_rnn(recording, 1, 4, 4, T=5, device="cuda", batch_size=8)
        steps = len(train(net, recording, config, 1).iter_losses)
    items = {line: n for (what, line), n in card.events.items() if what == "item"}
    assert steps >= 4
    # Each loss, and once an epoch whether every parameter is finite; nothing else waits.
    assert sorted(items.values()) == [1, steps], card.table()


def test_the_gradient_is_taken_in_training_mode(recording):
    # cuDNN has no backward pass for an LSTM in evaluation mode.
    config, net = da_rnn(recording, 1, 4, 4, T=5)
    train(net, recording, config, 1)
    windows = take_windows(net, recording, np.arange(20), WindowRule(5), np.arange(6))
    expected = gradient_importance(windows)
    predict_windows(net, recording, np.arange(20), WindowRule(5))
    assert not net.encoder.training
    modes = []
    hook = net.encoder.register_forward_pre_hook(lambda layer, _: modes.append(layer.training))
    np.testing.assert_array_equal(gradient_importance(windows), expected)
    hook.remove()
    assert modes
    assert all(modes)
    assert not net.encoder.training


@pytest.mark.slow
def test_the_cases_of_gpu_check_hold_on_the_device(tmp_path):
    with ShadowCuda(watch=WATCHED):
        assert run_cases(Cases("cuda", tiny=True).all(), tmp_path / "g", about={}, budget_s=60) == 0
    assert all(row.get("passed", True) for row in read_results(tmp_path / "g"))


def test_a_case_that_raises_loses_itself_alone(tmp_path):
    def broken():
        raise RuntimeError("no kernel")

    calls = []
    cases = {"broken": broken, "fine": lambda: calls.append(1) or within("x", 1e-6, 1e-5)}
    path = tmp_path / "g"
    assert run_cases(cases, path, about={}, budget_s=9) == 1
    assert [row["passed"] for row in read_results(path)] == [False, True]
    with open(path, "a", encoding="utf-8") as out:
        out.write('{"case": "cut')  # a kill in the middle of a line
    assert run_cases(cases, path, about={}, budget_s=9) == 1
    assert [row["case"] for row in read_results(path)] == ["broken", "fine", "broken"]
    assert len(calls) == 1  # what holds is not run again, what failed is
    assert run_cases({"late": broken}, path, about={}, budget_s=-1) == 1
    with pytest.raises(InputError, match="expected one of broken, fine"):
        run_cases(cases, path, about={}, budget_s=9, only="other")


def test_differences_are_relative_and_finite():
    assert difference([1.0, 4.0], [1.0, 2.0]) == 1.0
    assert difference((np.ones(2), np.ones(3)), (np.ones(2), 2 * np.ones(3))) == 0.5
    noise = [np.array([1e-9]), np.ones(2)]
    assert gradient_difference([np.array([-1e-9]), 1.5 * np.ones(2)], noise) == 0.5
    with pytest.raises(ValueError, match="finite"):
        difference([np.nan], [1.0])
    with pytest.raises(ValueError, match="shape"):
        difference(np.ones(2), np.ones(3))
