"""A neuron that nobody has seen gets the place and the gain that it has."""

import numpy as np
import pytest
import torch

from common.files import InputError
from demo.scenes import random_scenes
from inputs.ca_dataloader import CalciumDataset, Layout, shift_movie
from inputs.display import Display
from network.model_factory import build_model, read_out_blocks
from runs.configuration import compose_settings
from runs.new_neurons import Neuron, locate, refine, sample_at

RATE, N_T = 30.0, 90
DISPLAY = Display(RATE, 1.0, 0.498, (51, 51))
PLACE, GAIN, OFFSET = (3.4, -5.3), 0.7, 0.02  # azimuth and elevation, degrees


@pytest.fixture(scope="module")
def network():
    """A network of random filters with one cell type."""
    config = compose_settings(["model=stcnn_small"])["model"]
    lobula, _ = read_out_blocks(config, ["lc11"])
    ca = {**config["ca"], "cell_types": ["lc11"], "cell_count": [1]}
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula}
    model = build_model({**blocks, "ca_config": ca}, rate_hz=RATE, init="fast", readout="center")
    with torch.no_grad():
        model.lc_layers[0].x_weight.mul_(30)
    return model.eval()


def recorded(network, noise, n=8):
    """A data set of the neuron at PLACE, whose shifts in the file are 0, and its Neuron."""
    scenes = random_scenes(n, DISPLAY, seed=1)
    axis = (torch.arange(N_T) - 15) / RATE
    session = {
        scene.barcode: {"t_axis": axis, "neuron": {7: {"traces": torch.zeros(3, N_T),
                                                       "azi_shift": 0.0, "ele_shift": 0.0}}}
        for scene in scenes
    }  # fmt: skip
    movies = {scene.barcode: scene.movie for scene in scenes}
    layout = Layout(n_prepad=8, loss_start_s=-0.3)
    dataset = CalciumDataset({"lc11": {"a.pt": session}}, movies, layout, display=DISPLAY)
    neuron = Neuron(network, dataset, range(len(dataset)))
    scale = np.concatenate(neuron.activity(PLACE)).std()
    generator = np.random.default_rng(0)
    for item, frames, curve in zip(
        neuron.items, neuron.frames, neuron.activity(PLACE), strict=True
    ):
        traces = session[item.barcode]["neuron"][7]["traces"]
        traces[:, frames - 8] = torch.from_numpy(OFFSET + GAIN * curve / scale).float()
        traces += torch.from_numpy(noise * generator.normal(size=traces.shape)).float()
    return dataset, scale


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.03), (0.2, 0.5)])
def test_place_and_gain_are_found(network, noise, least):
    dataset, scale = recorded(network, noise)
    found = locate(network, dataset, range(len(dataset)))
    error = np.hypot(found.azimuth_deg - PLACE[0], found.elevation_deg - PLACE[1])
    assert error < least
    assert error < 4 * found.position_sd_deg + 0.02
    assert found.gain * scale == pytest.approx(GAIN, rel=0.02 + 0.3 * noise)
    assert abs(found.gain * scale - GAIN) < 4 * found.gain_sd * scale + 1e-3
    assert found.offset == pytest.approx(OFFSET, abs=0.02 + 0.2 * noise)
    assert found.stimuli == 8


def test_between_pixels_a_movie_is_sampled_straight(network):
    contrast = random_scenes(1, DISPLAY, seed=2)[0].contrast[:3]
    whole = [network.pr.sample(shift_movie(contrast, (row, -2))) for row in (3, 4)]
    torch.testing.assert_close(sample_at(network.pr, contrast, (3.0, -2.0)), whole[0])
    between = 0.75 * whole[0] + 0.25 * whole[1]
    torch.testing.assert_close(sample_at(network.pr, contrast, (3.25, -2.0)), between)


def test_what_cannot_be_placed_is_refused(network):
    dataset, _ = recorded(network, 0.0, n=3)
    with pytest.raises(InputError, match=r"lc11/a\.pt, neuron 7: 2 stimuli; expected at least 3"):
        locate(network, dataset, range(2))


def test_more_stimuli_refine_a_place(network):
    """From two degrees beside it, and never to a place that leaves more."""
    dataset, _ = recorded(network, 0.2, n=16)
    rows = range(len(dataset))
    beside = (PLACE[0] - 1.5, PLACE[1] + 1.3)
    found = refine(network, dataset, rows, beside)
    assert np.hypot(found.azimuth_deg - PLACE[0], found.elevation_deg - PLACE[1]) < 0.5
    neuron = Neuron(network, dataset, rows)
    errors = [neuron.error(neuron.activity(place)) for place in (beside, found.place)]
    assert errors[1] < errors[0]
