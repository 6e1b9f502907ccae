"""The most exciting movie of a given contrast: norm, bounds, and what it excites more than."""

import math

import numpy as np
import pytest
import torch

import excite_stimulus
import runs.excite
from common.files import InputError
from inputs.display import Display
from inputs.stimuli import FAMILIES, make_family
from network.model_factory import build_model, read_out_blocks
from network.predict import predict_movies
from runs.configuration import compose_settings
from runs.excite import Ascent, at_norm, check_norm, excite, rms_contrast

RATE, NORM, SECONDS = 30.0, 0.2, 0.7
DISPLAY = Display(RATE, 1.0, 0.498, (35, 35))


@pytest.fixture(scope="module")
def network():
    """A network of random filters with one cell type."""
    torch.manual_seed(0)
    config = compose_settings(["model=stcnn_small"])["model"]
    lobula, _ = read_out_blocks(config, ["lc11"])
    ca = {**config["ca"], "cell_types": ["lc11"], "cell_count": [1]}
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula}
    model = build_model({**blocks, "ca_config": ca}, rate_hz=RATE, init="fast", readout="center")
    model.display, model.field = DISPLAY, DISPLAY.field
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def peaks(network, contrasts):
    """Peaks above grey (movies,), judged as the ascent judges them."""
    lead = torch.zeros(DISPLAY.frames(runs.excite.LEAD_S), *DISPLAY.field)
    n_frames = len(lead) + DISPLAY.frames(SECONDS) + DISPLAY.frames(runs.excite.TAIL_S)
    shown = [torch.cat([lead, contrast]) for contrast in contrasts]
    curves = predict_movies(network, shown, n_frames=n_frames)["lc11"]
    return curves[:, len(lead) :].max(1) - curves[:, len(lead) - 1]


def built_in(n):
    """The strongest ``n`` frames of every stimulus of four families, at the norm."""
    movies = []
    for family in ("size_tuning", "looming", "grating", "flicker"):
        assert family in FAMILIES
        for stimulus in make_family(family, DISPLAY):
            power = stimulus.contrast.square().mean((1, 2))
            first = int(power.unfold(0, min(n, len(power)), 1).sum(1).argmax())
            movie = torch.zeros(n, *DISPLAY.field)
            part = stimulus.contrast[first : first + n]
            movie[: len(part)] = part
            # small dark rectangles can't be made dark enough
            most = rms_contrast(torch.where(movie < 0, DISPLAY.dark, DISPLAY.bright)
                                * (movie != 0), DISPLAY)  # fmt: skip
            if most > NORM:
                movies.append(at_norm(movie, NORM, DISPLAY))
    return movies


def test_a_movie_of_that_norm_excites_more_than_any_other(network):
    """Than 20 random movies and than the built-in families; it keeps norm and bounds."""
    movie, table = excite(network, "lc11", Ascent(SECONDS, 30, norm=NORM))
    contrast = movie.astype(np.float64) - DISPLAY.background
    rms = math.sqrt((contrast**2).mean()) / DISPLAY.background
    assert rms == pytest.approx(NORM, abs=1e-4)
    assert all(row["rms_contrast"] == pytest.approx(NORM, abs=1e-4) for row in table)
    assert movie.min() >= 0
    assert movie.max() <= 1
    n = len(movie)
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(n, *DISPLAY.field, generator=generator) for _ in range(20)]
    found = peaks(network, [torch.from_numpy(contrast).float()])[0]
    assert found == pytest.approx(table[-1]["peak_above_grey"], rel=0.02)
    assert found > peaks(network, [at_norm(one, NORM, DISPLAY) for one in drawn]).max()
    families = built_in(n)
    assert len(families) > 20
    assert found > peaks(network, families).max()


def test_without_a_norm_nothing_holds_the_contrast(network):
    """The movie starts from faint noise and its contrast grows."""
    movie, table = excite(network, "lc11", Ascent(0.2, 5))
    assert [row["step"] for row in table] == [0, 1, 2, 3, 4, 5]
    assert table[0]["rms_contrast"] == pytest.approx(0.02 / DISPLAY.background, rel=0.02)
    assert table[-1]["rms_contrast"] > 2 * table[0]["rms_contrast"]
    assert rms_contrast(torch.from_numpy(movie) - DISPLAY.background, DISPLAY) == pytest.approx(
        table[-1]["rms_contrast"], rel=1e-5
    )


@pytest.mark.parametrize("norm", [0.01, 0.5, 0.95])
@pytest.mark.parametrize("background", [0.2, 0.498, 0.8])
def test_the_projection_is_the_nearest_movie(norm, background):
    """Of many movies of that norm and within the bounds none lies nearer."""
    display = Display(RATE, 1.0, background, (5, 5))
    norm *= min(background, 1 - background) / background
    generator = torch.Generator().manual_seed(1)
    start = 0.3 * torch.randn(4, 5, 5, generator=generator)
    found = at_norm(start, norm, display)
    assert rms_contrast(found, display) == pytest.approx(norm, rel=1e-5)
    assert found.min() >= np.float32(display.dark)
    assert found.max() <= np.float32(display.bright)
    for _ in range(40):
        other = found + 0.05 * norm * torch.randn(4, 5, 5, generator=generator)
        other = at_norm(other, norm, display)
        assert float((other - start).norm()) > float((found - start).norm()) - 1e-5


def test_a_norm_that_no_movie_has_is_refused():
    with pytest.raises(InputError, match=r"--norm 1\.2: expected .* at most 1\.008, that of a"):
        check_norm(1.2, DISPLAY)
    for norm in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"expected an RMS contrast above 0"):
            check_norm(norm, DISPLAY)
    with pytest.raises(InputError, match="of this network is black"):
        check_norm(0.2, Display(RATE, 1.0, 0.0, (5, 5)))
    dark = -torch.ones(2, 5, 5)
    bright = Display(RATE, 1.0, 0.25, (5, 5))
    with pytest.raises(InputError, match=r"--norm 2: .* this movie reaches an RMS contrast of 1;"):
        at_norm(dark, 2.0, bright)


def test_the_command_holds_the_norm(here, tiny_run, tmp_path):
    said = here(
        excite_stimulus.main, "--checkpoint", tiny_run, "--cell-type", "lc11", "--steps", 1,
        "--seconds", 0.1, "--norm", 0.3, "--out", tmp_path,
    )  # fmt: skip
    assert ", RMS contrast 0.3: " in said.out
    stored = np.load(tmp_path / "lc11_excite.npz")
    assert stored["rms_contrast"] == pytest.approx(0.3, abs=1e-4)
