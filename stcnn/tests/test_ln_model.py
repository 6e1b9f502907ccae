"""The LN baseline: an LN neuron is found, another one is not; the door beside a trained run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.ln_model import LNModel, features, low_pass
from analysis.metrics import normalised_correlation, power_error, score_rows, signal_power, told
from common.files import read_json, write_json
from common.tables import read_rows
from inputs.ca_dataloader import CalciumDataset, Layout
from inputs.display import Display
from ln_baseline import main

RATE = 30.0


def planted(respond, n=15, noise=0.05):
    """A data set of one neuron and ``n`` random stimuli whose trials are ``respond(window)``."""
    generator = torch.Generator().manual_seed(0)
    axis = (torch.arange(90) - 15) / RATE
    movies, session = {}, {}
    for code in range(1, n + 1):
        frames = torch.rand(60, 1, 1, generator=generator).expand(60, 4, 4).clone()
        frames += 0.3 * torch.rand(60, 4, 4, generator=generator)
        movies[code] = frames.clamp(0, 1)
        shown = torch.zeros(90, 4, 4)
        shown[15:75] = movies[code] - 0.5
        clean = torch.from_numpy(respond(shown.numpy())).float()
        trials = clean + noise * torch.randn(3, 90, generator=generator)
        neuron = {"traces": trials, "azi_shift": 0.0, "ele_shift": 0.0}
        session[code] = {"t_axis": axis, "neuron": {7: neuron}}
    return CalciumDataset(
        {"lc11": {"a.pt": session}}, movies, Layout(background=0.5, n_prepad=0),
        display=Display(RATE, 1.0, 0.5, (4, 4)), sample=lambda frames: frames,
    )  # fmt: skip


def calcium(drive):
    return low_pass(drive.reshape(len(drive), -1), 0.4, 1 / RATE)[:, 0]


def test_an_ln_neuron_is_found_and_a_multiplying_one_is_not():
    def ln(shown):
        z = calcium(low_pass(shown[:, 1:3, 2].mean(1)[:, None], 0.08, 1 / RATE))
        return 2.0 * z + 3.0 * z**2

    def product(shown):  # of two edges: no filter sees it
        edges = shown[:, 0, 0] - shown[:, 0, 1], shown[:, 3, 3] - shown[:, 3, 2]
        return 20.0 * calcium((edges[0] * edges[1])[:, None])

    reached = {}
    for name, respond in (("ln", ln), ("product", product)):
        dataset = planted(respond, noise=0.002)
        model = LNModel(1 / RATE).fit(dataset, range(10))
        scores, _ = score_rows(model, dataset, range(10, 15))
        reached[name] = scores["lc11"]["normalised_correlation"]
    assert reached["ln"] > 0.97
    assert abs(reached["product"]) < 0.5


def test_the_normalised_correlation_stays_a_correlation():
    """Two trials that share half the power of their mean: the quotient would be 1.41."""
    signal, noise = np.sin(np.arange(40)), np.cos(np.arange(40)) / np.sqrt(2)
    trials = np.stack([signal + noise, signal - noise])
    reached = [
        normalised_correlation([signal], [sign * signal], [trials]) for sign in (1.0, -1.0, 0.0)
    ]
    assert reached[:2] == [1.0, -1.0]
    assert np.isnan(reached[2])


def slow_noise(generator, share, *shape):
    """Return noise of which each sample keeps ``share`` of the one before it."""
    noise = generator.normal(size=(*shape[:-1], shape[-1] + 60))
    for t in range(1, noise.shape[-1]):
        noise[..., t] = share * noise[..., t - 1] + (1 - share) * noise[..., t]
    return noise[..., 60:]  # settled


@pytest.mark.parametrize("n_trials", [2, 4])
@pytest.mark.parametrize(("share", "most"), [(0.0, 1.15), (0.9, 1.6)])
def test_the_sampling_error_of_shared_power_is_that_of_repeats(share, most, n_trials):
    """Measured over 300 draws of noise alone, white and as slow as calcium: never too small."""
    generator = np.random.default_rng(0)
    draws = [slow_noise(generator, share, n_trials, 120) for _ in range(300)]
    spread = np.std([signal_power(trials, 0.0) for trials in draws])
    told_error = np.sqrt(np.mean([power_error(trials) ** 2 for trials in draws]))
    assert 0.9 < told_error / spread < most


def test_a_family_that_nothing_answers_has_no_normalised_correlation():
    """Before, noise alone gave any number from -1 to 1, or NaN, whichever its chance was."""
    generator = np.random.default_rng(1)
    signal, reached = np.exp(-np.arange(120) / 30), {0.0: [], 0.3: []}
    for amplitude, values in reached.items():
        for _ in range(100):
            trials = [amplitude * signal + 0.1 * slow_noise(generator, 0.9, 3, 120)
                      for _ in range(5)]  # fmt: skip
            recorded = [own.mean(0) for own in trials]
            values.append(normalised_correlation(recorded, [signal] * 5, trials))
    assert np.isnan(reached[0.0]).mean() > 0.9
    assert np.isfinite(reached[0.3]).all()
    assert np.median(reached[0.3]) > 0.95
    assert told({"a": float("nan"), "b": 0.5, "c": "x"}) == {"a": "", "b": 0.5, "c": "x"}


def test_features_know_time_and_place():
    stimulus = torch.zeros(50, 1, 13, 11)
    stimulus[10, 0, 6, 5] = 1.0  # the middle
    made = features(stimulus, 1 / RATE)
    assert made.shape == (50, 9 * 9 * 3)
    assert not made[:10].any()
    live = np.flatnonzero(made.any(0))
    assert live.tolist() == [40, 40 + 81, 40 + 162]  # one point, three time constants
    stimulus = torch.zeros(50, 1, 13, 11)
    stimulus[10, 0, 0, 5] = 1.0  # beyond the reach
    assert not features(stimulus, 1 / RATE).any()


def test_the_door_beside_a_trained_run(tiny_run, here):
    out = here(main, "--run", tiny_run).out
    rows = read_rows(tiny_run / "baseline.csv")
    assert [row["model"] for row in rows] == ["network"] * 3 + ["LN"] * 3
    assert {row["part"] for row in rows} == {"held_out"}
    assert "LN, lc11: normalised correlation" in out
    assert list(rows[0])[:3] == ["model", "part", "cell_type"]
    assert float(rows[3]["mse"]) > 0


def test_a_run_that_holds_nothing_out_is_refused(tmp_path, here):
    err = here(main, "--run", tmp_path, check=2).err
    assert "no scores.csv inside; give a finished run of train.py" in err


def test_other_data_than_the_run_was_trained_on_are_refused(tiny_run, tmp_path, here):
    """The network's scores are those of the former traces; an LN model of others is no match."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("baseline.csv"))
    record = read_json(run / "settings.json", remedy="")
    former = Path(record["settings"]["dataset"]["ca_path"])
    shutil.copytree(former, tmp_path / "ca")
    here(main, "--run", run, "--ca-path", tmp_path / "ca")  # the same data elsewhere
    (run / "baseline.csv").unlink()
    record["settings"]["dataset"]["ca_path"] = str(tmp_path / "ca")
    write_json(run / "settings.json", record)
    path = tmp_path / "ca" / "lc11" / "synthetic.pt"
    session = torch.load(path)
    next(iter(session.values()))["neuron"][2019010101]["traces"] *= 2
    torch.save(session, path)
    err = here(main, "--run", run, check=2).err
    assert "lc11/synthetic.pt" in err
    assert "train anew" in err
    assert not (run / "baseline.csv").exists()
