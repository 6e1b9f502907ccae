"""Our own code on a pretended CUDA device (shadow_cuda.py): places, values, waits."""

import numpy as np
import pytest
import torch

import network.predict
import runs.excite
import runs.predictions
from inputs.display import Display
from inputs.user_movies import UserMovie
from network.adam import Adam
from network.model_factory import build_model, read_out_blocks
from network.predict import predict_long
from network.temporal import route_for
from runs.configuration import compose_settings
from runs.excite import Ascent, excite
from runs.predictions import How, family_stimuli, layer_maps, predict_family, predict_user_movie
from runs.training import train_step
from shadow_cuda import Shadow, ShadowCuda

DISPLAY = Display(60.0, 1.0, 0.498, (41, 41))


def small_model(device):
    config = compose_settings([
        "model=stcnn_small", "model.network.out_channels=[2,2]", "model.network.x_padding=[1,1]",
        "model.network.x_kernel_size=[3,3]", "model.network.x_stride=[1,1]",
        "model.network.activation=[identity,leaky_relu]",
    ])["model"]  # fmt: skip
    lobula, _ = read_out_blocks(config, ["lc11", "lc12"])
    ca = {**config["ca"], "cell_types": ["lc11", "lc12"], "cell_count": [2, 2]}
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula}
    model = build_model({**blocks, "ca_config": ca}, rate_hz=60, readout="center", init="fast")
    model.display, model.field = DISPLAY, DISPLAY.field
    model.set_temporal_impl(route_for("auto", device))
    return model.to(device).eval()


@pytest.fixture
def spot(tmp_path, monkeypatch):
    for module, name in (
        (network.predict, "LEAD_IN_S"), (runs.predictions, "BEFORE_S"), (runs.excite, "LEAD_S"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr(runs.predictions, "AFTER_S", 0.2)
    np.savez(tmp_path / "m.npz", movie=np.full((6, 21, 21), 0.3), rate_hz=60.0, deg_per_px=1.0)
    return tmp_path / "m.npz"


def one_step(device, *, settled=False):
    generator = torch.Generator().manual_seed(0)
    model = small_model(device).train()
    model.settle(20 if settled else 0)
    batch = {
        "lc_type": ["lc11", "lc12", "lc11"],
        "neuron_num": torch.tensor([[1], [0], [0]]),
        "sampled": torch.rand(3, 70, 1, 11, 11, generator=generator) - 0.5,
        "ca_trace": torch.rand(3, 70, generator=generator),
        "scored": (torch.arange(70) > 20).expand(3, 70),
        "vstim_barcode": torch.tensor([1, 2, 3]),
    }
    settings = {"mixed_precision": False, "detect_anomaly": False, "clip_max_norm": 0.05}
    losses, _ = train_step(model, batch, Adam(model.parameters(), lr=1e-3), settings)
    return [*losses.values(), *model.network[1].tau.detach().cpu().flatten().tolist()]


JOBS = {
    "movie": lambda d, path: predict_user_movie(
        [small_model(d)], UserMovie(path), How()
    ).curves["lc11"],
    "layers": lambda d, path: layer_maps(small_model(d), UserMovie(path), ["pr"])["pr"],
    "family": lambda d, path: predict_family(
        [small_model(d)], family_stimuli(small_model(d), "flicker"), How()
    ).curves["lc12"],
    "long": lambda d, path: next(
        iter(predict_long(small_model(d), [torch.zeros(2, 41, 41)], (41, 41)))
    )["lc11"],
    "excite": lambda d, path: excite(small_model(d), "lc11", Ascent(0.1, 1))[0],
    "step": lambda d, path: one_step(d),
    "settled step": lambda d, path: one_step(d, settled=True),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_a_job_on_the_card_gives_the_numbers_of_the_cpu(name, spot):
    expected = np.asarray(JOBS[name]("cpu", spot))
    with ShadowCuda(watch=("/stcnn/",)) as card:
        on_card = np.asarray(JOBS[name]("cuda", spot))
        if name == "step":
            # whether the loss is finite, and all the numbers of the step at once
            assert sum(n for (what, _), n in card.events.items() if what == "item") <= 2 + 2
    np.testing.assert_allclose(on_card, expected, rtol=1e-4, atol=1e-5)


def test_the_shadow_finds_a_tensor_on_the_wrong_side():
    with ShadowCuda(watch=("/stcnn/",)):
        x = torch.ones(2, 3).to("cuda")
        assert isinstance(x, Shadow)
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([x, torch.ones(1, 3)])
