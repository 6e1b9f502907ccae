"""The folder's own code on a pretended CUDA device: same numbers, no mixed devices, few waits."""

import dataclasses

import numpy as np
import pytest
import torch

from common.cases import read_results, run_cases
from demo.gpu_cases import Cases
from helpers import make_tiny_data, write_ini
from inputs.datasets import SparkDataset
from network.custom_losses import lovasz_softmax, make_loss, nll_loss
from network.inference_tools import predict_probabilities
from runs.train import read_data
from runs.training_tools import Place, TrainingRun, seeded_model
from settings.config import Params
from settings.read_config import load_config
from shadow_cuda import ShadowCuda

WATCHED = ("/sparks_unet/",)
CRITERIA = ("nll_loss", "focal_loss", "lovasz_softmax", "sum_losses", "dice_loss", "dice_nll_loss")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def params(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path, noise_data_augmentation="no")
    params = dataclasses.replace(load_config(path), first_layer_channels=4)
    params.output_dir.mkdir(parents=True, exist_ok=True)
    return params


def test_the_device_finds_a_planted_fault():
    with ShadowCuda(watch=WATCHED) as card:
        x = torch.ones(2, 3).to("cuda")
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(2, 3)
        with pytest.raises(TypeError, match="cuda:0"):
            x.numpy()
        float(x.sum())
        assert card.waits() == 1


def loss_and_gradient(criterion, log_p, labels, weights, device):
    log_p = log_p.clone().to(device).requires_grad_()
    params = dataclasses.replace(Params(), criterion=criterion)
    loss = make_loss(params, weights.to(device))(log_p, labels.to(device), 0)
    loss.backward()
    return float(loss.detach()), log_p.grad.cpu()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", ["mixed", "one class", "nothing valid"])
def test_losses_and_gradients_equal_the_cpu(criterion, kind):
    torch.manual_seed(0)
    log_p = torch.randn(2, 4, 3, 5, 6).log_softmax(dim=1)
    labels = torch.randint(0, 5, (2, 3, 5, 6))
    if kind == "one class":
        labels = labels.clamp(max=0)
    labels[labels == 4] = 4  # the ignored class
    if kind == "nothing valid":
        labels = torch.full_like(labels, 4)
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3])
    expected = loss_and_gradient(criterion, log_p, labels, weights, "cpu")
    with ShadowCuda(watch=WATCHED):
        actual = loss_and_gradient(criterion, log_p, labels, weights, "cuda")
    assert actual[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-7)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", [lovasz_softmax, nll_loss])
def test_the_published_losses_do_not_wait(loss):
    torch.manual_seed(0)
    log_p, labels = torch.randn(1, 4, 3, 5, 6).log_softmax(dim=1), torch.randint(0, 5, (1, 3, 5, 6))
    with ShadowCuda(watch=WATCHED) as card:
        loss(log_p.to("cuda").requires_grad_(), labels.to("cuda")).backward()
        assert card.waits() == 0, card.table()


def steps(params, samples, device, count, *, resume_from=None):
    """Return (training run, losses of ``count`` steps on one batch) on ``device``."""
    run = TrainingRun(params, SparkDataset(samples, params), [], Place(torch.device(device)))
    if resume_from is not None:
        run.load(params.output_dir, resume_from)
    batch = {key: torch.stack([run.dataset[i][key] for i in (1, 2)]) for key in ("data", "labels")}
    losses = []
    for _ in range(count):
        losses.append(run._step(run.model, batch, run.place.device))
        run.iteration += 1
    return run, losses


def test_a_training_step_equals_the_cpu_and_waits_for_its_loss_alone(params):
    samples, _ = read_data(params)
    _, expected = steps(params, samples, "cpu", 3)
    with ShadowCuda(watch=WATCHED) as card:
        run, losses = steps(params, samples, "cuda", 3)
        run.save()
        waits = {line: n for (what, line), n in card.events.items() if what in ("item", "mask")}
        assert sorted(waits.values()) == [3], card.table()
        # Adam's step counters come back onto the CPU: on the card each is a wait a step.
        card.events.clear()
        steps(params, samples, "cuda", 1, resume_from=3)
        waits = {line: n for (what, line), n in card.events.items() if what == "item"}
        assert sorted(waits.values()) == [1], card.table()
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["overlap", "average"])
def test_prediction_equals_the_cpu(method):
    params = Params(unet_steps=1, first_layer_channels=2, data_duration=8, data_stride=4)
    movie = np.random.default_rng(0).integers(0, 5000, (21, 9, 10)).astype(np.uint16)
    model = seeded_model(params, torch.device("cpu")).eval()
    expected, _ = predict_probabilities(model, movie, params, method=method)
    with ShadowCuda(watch=WATCHED):
        probabilities, _ = predict_probabilities(model.to("cuda"), movie, params, method=method)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.slow
def test_the_cases_of_gpu_check_hold_on_the_device(tmp_path):
    with ShadowCuda(watch=WATCHED):
        cases = Cases("cuda", tiny=True).all()
        for timing in ("optimiser step after resume", "seconds a training step"):
            cases.pop(timing)
        assert run_cases(cases, tmp_path / "g", about={}, budget_s=60) == 0
    assert all(row.get("passed", True) for row in read_results(tmp_path / "g"))
