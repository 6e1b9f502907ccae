"""The door that locates new neurons: planted places are found, noise has none, faults in a line."""

import argparse
import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import locate_neurons
from analysis.place_figures import plot_places
from common.files import InputError, read_json, write_json
from demo.scenes import random_scenes
from demo.synthetic import save_tree
from inputs.display import Display
from network.adam import Adam
from network.checkpoints import load_model, save_checkpoint
from network.model_factory import build_model, read_out_blocks
from runs.configuration import compose_settings
from runs.locating import calibration_of, evenly, new_recordings
from runs.new_neurons import Found, Neuron, chance_of
from runs.place_calibration import Calibration, calibrate

RATE, N_T, N_SCENES = 30.0, 45, 12
DISPLAY = Display(RATE, 1.0, 0.498, (41, 41))
PLACES = {1: (3.4, -4.3), 2: (2.0, 3.0)}  # azimuth and elevation of neurons, degrees
NOISY, SILENT = 3, 4  # uids of neurons that no stimulus moves
GAIN, OFFSET = 0.7, 0.02


def write_run(folder):
    """A run folder of random filters with one cell type; return its network."""
    torch.manual_seed(0)
    config = compose_settings(["model=stcnn_small"])["model"]
    lobula, _ = read_out_blocks(config, ["lc11"])
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula,
              "ca_config": {**config["ca"], "cell_types": ["lc11"], "cell_count": [1]}}  # fmt: skip
    model = build_model(blocks, rate_hz=RATE, init="fast", readout="center")
    with torch.no_grad():
        model.lc_layers[0].x_weight.mul_(30)
    folder.mkdir()
    save_checkpoint(folder, 1, model, Adam(model.parameters(), lr=0.1))
    display = {"sampling_rate": RATE, "display": DISPLAY.record(), "readout": "center"}
    write_json(folder / "config.json", {**blocks, **display, "init": "fast"})
    return load_model(folder)


def write_set(folder, model, shifts):
    """Recordings of the network's own answers from PLACES, of noise and of nothing.

    ``shifts`` is what the file says of places: {uid: (azimuth, elevation)}, or NaN.
    """
    scenes = random_scenes(N_SCENES, DISPLAY, seed=1)
    axis = (torch.arange(N_T) - 6) / RATE
    (folder / "movies").mkdir(parents=True)
    (folder / "ca_traces" / "lc11").mkdir(parents=True)
    session = {}
    for scene in scenes:
        movie = {"rect_mov": scene.movie[:36], "t_axis": torch.arange(36) / RATE}
        name = f"vstim_{scene.barcode}"
        save_tree(folder / "movies" / f"{name}.pt", {name: movie})
        blank = {uid: {"traces": torch.zeros(2, N_T), "azi_shift": shift[0], "ele_shift": shift[1]}
                 for uid, shift in shifts.items()}  # fmt: skip
        session[name] = {"t_axis": axis, "Hz": RATE, "neuron": blank}
    traces = folder / "ca_traces" / "lc11" / "a.pt"
    save_tree(traces, session)
    model.settle(1)
    dataset = new_recordings(model, folder / "ca_traces", folder / "movies", nan="reject")
    neuron = Neuron(model, dataset, [i for i, item in enumerate(dataset.items) if item.uid == 1])
    scale = np.concatenate(neuron.activity(PLACES[1])).std()
    generator = np.random.default_rng(0)
    for uid in shifts:
        curves = neuron.activity(PLACES[uid]) if uid in PLACES else neuron.recorded
        for item, frames, curve in zip(neuron.items, neuron.frames, curves, strict=True):
            own = session[f"vstim_{item.barcode}"]["neuron"][uid]["traces"]
            if uid in PLACES:
                own[:, frames - 1] = torch.from_numpy(OFFSET + GAIN * curve / scale).float()
            if uid != SILENT:
                noise = 0.1 if uid in PLACES else 1.0
                own += torch.from_numpy(noise * generator.normal(size=own.shape)).float()
    save_tree(traces, session)
    return scale


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folder with run/ and set/, and the size of the type's activity."""
    home = tmp_path_factory.mktemp("planted")
    model = write_run(home / "run")
    nowhere = (float("nan"), float("nan"))
    shifts = {1: nowhere, 2: PLACES[2], NOISY: nowhere, SILENT: nowhere}
    return home, write_set(home / "set", model, shifts)


def flags(home, out):
    """The flags of the door for what lies in ``home``."""
    return ["--checkpoint", home / "run", "--ca-path", home / "set" / "ca_traces",
            "--mov-path", home / "set" / "movies", "--out", out]  # fmt: skip


@pytest.mark.slow
def test_planted_places_are_found_and_noise_has_none(planted, here, tmp_path):
    home, scale = planted
    said = here(locate_neurons.main, *flags(home, tmp_path), "--stimuli", 11)
    last = said.out.strip().splitlines()[-1]
    assert last == (
        "new neurons: 2 of 4 located, not located: lc11/3, lc11/4 (column why); table: "
        f"{tmp_path / 'neurons.csv'}"
    )
    assert "without calibration (the run's training set is not at hand)" in said.out
    with open(tmp_path / "neurons.csv", newline="") as file:
        rows = {int(row["uid"]): row for row in csv.DictReader(file)}
    for uid, place in PLACES.items():
        row = rows[uid]
        found = np.array([float(row["azimuth_deg"]), float(row["elevation_deg"])])
        sds = np.array([float(row["azimuth_sd_deg"]), float(row["elevation_sd_deg"])])
        assert np.hypot(*(found - place)) < 0.5
        assert (abs(found - place) < 4 * sds + 0.02).all()
        assert float(row["gain"]) * scale == pytest.approx(GAIN, rel=0.1)
        assert float(row["offset"]) == pytest.approx(OFFSET, abs=0.05)
        assert row["stimuli"] == "11"
        assert float(row["correlation_after"]) > 0.9
        assert float(row["p_of_chance"]) <= 0.005
    # neuron 1 is unknown to the file and far from the middle, neuron 2 lies where the file says
    assert float(rows[1]["correlation_before"]) < float(rows[1]["correlation_after"]) - 0.1
    assert float(rows[2]["correlation_before"]) > float(rows[2]["correlation_after"]) - 0.02
    assert [rows[1]["azimuth_recorded_deg"], rows[2]["azimuth_recorded_deg"]] == ["", "2.0"]
    for uid in (NOISY, SILENT):
        assert rows[uid]["located"] == "no"
        assert rows[uid]["why"].startswith("recordings of other stimuli fit as well (p = ")
        assert rows[uid]["azimuth_deg"] == rows[uid]["gain"] == ""
    assert (tmp_path / "neurons.png").is_file()
    here(locate_neurons.main, *flags(home, tmp_path), "--stimuli", 9, check=2)


def test_faults_in_one_line(planted, here, tmp_path):
    home, _ = planted
    told = here(locate_neurons.main, *flags(home, tmp_path), "--stimuli", 2, check=2)
    assert "--stimuli 2: expected at least 3" in told.err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").write_text("kept")
    told = here(locate_neurons.main, *flags(home, tmp_path / "out"), check=2)
    assert "holds files of something else; give another --out" in told.err
    write_json(tmp_path / "out" / "settings.json", {"settings": {"same": {"stimuli": 3}}})
    told = here(locate_neurons.main, *flags(home, tmp_path / "out"), check=2)
    assert "holds results of another script or version; give another --out" in told.err
    assert (tmp_path / "out" / "other.txt").read_text() == "kept"


def test_what_the_network_does_not_know_is_refused(planted, tmp_path):
    home, _ = planted
    model = load_model(home / "run")
    movies = home / "set" / "movies"
    session = torch.load(home / "set" / "ca_traces" / "lc11" / "a.pt", weights_only=True)
    (tmp_path / "ca" / "lc99").mkdir(parents=True)
    save_tree(tmp_path / "ca" / "lc99" / "a.pt", session)
    with pytest.raises(InputError, match="lc99 not among the cell types of the network, which has"):
        new_recordings(model, tmp_path / "ca", movies, nan="reject")
    model.display = replace(model.display, field=(51, 51))
    with pytest.raises(InputError, match=r"movies of 41 x 41 px, the model was trained on 51 x 51"):
        new_recordings(model, home / "set" / "ca_traces", movies, nan="reject")


def test_another_job_of_the_same_folder_is_refused(planted, here, tmp_path):
    """The place of a neuron is that of its stimuli and its network."""
    home, _ = planted
    names = ("checkpoint_sha256", "recordings_sha256", "stimuli", "nan", "calibration")
    write_json(tmp_path / "settings.json", {"settings": {"same": dict.fromkeys(names, "1")}})
    told = here(locate_neurons.main, *flags(home, tmp_path), check=2)
    assert "holds neurons located with another checkpoint_sha256, recordings_sha256" in told.err
    assert read_json(tmp_path / "settings.json")["settings"]["same"]["nan"] == "1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"chance": 0.01}, r"recordings of other stimuli fit as well (p = 0.010)"),
        ({"chance": float("nan")}, r"recordings of other stimuli fit as well (p = nan)"),
        ({"elevation_deg": -12.5}, "beyond the 12 degrees that were searched"),
        ({"position_sd_deg": 3.2}, "sd of the place 3.2 degrees, above 3"),
    ],
)
def test_when_there_is_no_place(change, why):
    found = Found(1.0, 2.0, 0.5, 0.5, 0.7, 1.0, 0.1, 0.0, 0.8, 10, chance=0.001)
    assert replace(found, **change).doubt() == why


def test_chance_is_that_of_other_pairings():
    """A fit of own stimuli is rare among deals; one that all stimuli share is not."""
    generator = np.random.default_rng(0)
    answers = [[generator.normal(size=30) for _ in range(8)] for _ in range(5)]
    own = [curve + generator.normal(size=30) for curve in answers[3]]
    assert chance_of(own, answers) < 0.005
    shared = np.linspace(0, 1, 30)  # all traces rise alike
    alike = [[shared + 0.05 * generator.normal(size=30) for _ in range(8)] for _ in range(5)]
    rising = [shared + 0.05 * generator.normal(size=30) for _ in range(8)]
    assert chance_of(rising, alike) > 0.05
    assert chance_of([np.zeros(30)] * 8, answers) == 1.0
    assert chance_of(own, [[np.ones(30)] * 8]) == 1.0
    few = chance_of(own[:3], [curves[:3] for curves in answers])
    assert few > 0.1  # of three stimuli there are six deals


def test_noise_is_chance_in_99_of_100():
    generator = np.random.default_rng(1)
    answers = [[generator.normal(size=20) for _ in range(6)] for _ in range(4)]
    low = [chance_of([generator.normal(size=20) for _ in range(6)], answers) < 0.01
           for _ in range(40)]  # fmt: skip
    assert sum(low) <= 2


def test_a_network_that_looks_aside_is_calibrated():
    """What known neurons are off by is taken away near them, in part between, hardly afar."""
    known = np.array([[0.0, 0.0], [3.0, 0.0]])
    off = np.array([[0.4, 0.0], [0.0, 0.4]])
    calibration = Calibration({"lc11": known}, {"lc11": off}, {"lc11": np.array([0.01, 0.01])})
    at = [calibration.off_at("lc11", place) for place in ((0, 0), (1.5, 0), (3, 0), (60, 0))]
    assert at[0][0] > 0.3
    assert at[2][1] > 0.3
    assert at[1] == pytest.approx([at[1][0]] * 2)
    assert np.hypot(*at[3]) < 0.3
    assert list(calibration.off_at("lc12", (0, 0))) == [0, 0]


def opened(planted):
    """Return the network, settled, and its recordings."""
    home, _ = planted
    model = load_model(home / "run")
    model.settle(1)
    parts = home / "set" / "ca_traces", home / "set" / "movies"
    return model, new_recordings(model, *parts, nan="reject")


@pytest.mark.slow
def test_neurons_that_the_network_knows_are_off_by_nothing(planted):
    """A network that answers as the neuron itself looks nowhere aside."""
    model, dataset = opened(planted)
    rows = [i for i, item in enumerate(dataset.items) if item.uid == 2]
    calibration = calibrate(model, dataset, {("lc11", 2): rows})
    assert list(calibration.known["lc11"][0]) == list(PLACES[2])
    assert np.hypot(*calibration.off["lc11"][0]) < 0.3


def test_grey_before_the_movies_is_computed_once(planted):
    """The answers are those of a network that sees a second of it frame by frame."""
    model, dataset = opened(planted)
    short = Neuron(model, dataset, [0, 1])
    answers = short.activity((1.0, 0.5))
    dataset.layout = replace(dataset.layout, n_prepad=30)
    long = Neuron(model, dataset, [0, 1])
    long.shown[0] = (1, torch.cat([torch.zeros(long.shown[0][0] - 1, 41, 41), long.shown[0][1]]))
    for answer, other in zip(answers, long.activity((1.0, 0.5)), strict=True):
        assert np.ptp(answer) > 0
        np.testing.assert_allclose(other, answer, rtol=1e-4, atol=1e-5 * np.ptp(answer))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": {"ca_path": "gone", "mov_path": "gone"}}, "training set is not at hand"),
        ({"position": "learned"}, "the run learned the places of its neurons"),
        ({"shuffle_labels": True}, "the run is a control on dealt labels"),
    ],
)
def test_why_places_are_not_calibrated(planted, tmp_path, capsys, changes, reason):
    home, _ = planted
    shutil.copytree(home / "run", tmp_path / "run")
    paths = {"ca_path": str(home / "set" / "ca_traces"), "mov_path": str(home / "set" / "movies")}
    settings = {"dataset": paths, "position": "recorded", **changes}
    write_json(tmp_path / "run" / "settings.json", {"settings": settings, "inputs": {}})
    args = argparse.Namespace(checkpoint=str(tmp_path / "run"), calibration="auto")
    assert calibration_of(args, load_model(tmp_path / "run"), {"lc11"}).known == {}
    assert reason in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_beside_its_training_set_is_calibrated(tiny_run, tiny_set, here, tmp_path):
    """By the neurons it was trained on; not where other files lie at their place."""
    data = ["--ca-path", tiny_set / "ca_traces", "--mov-path", tiny_set / "movies"]
    said = here(locate_neurons.main, "--checkpoint", tiny_run, *data, "--stimuli", 3,
                "--out", tmp_path / "out")  # fmt: skip
    assert "places: calibrated by 3 neurons of the run's training set" in said.out
    assert "new neurons: 0 of 3 located" in said.out  # of three stimuli there are six deals
    shutil.copytree(tiny_run, tmp_path / "run")
    record = read_json(tmp_path / "run" / "settings.json")
    record["inputs"]["lc11/synthetic.pt"] = "0" * 64
    write_json(tmp_path / "run" / "settings.json", record)
    args = argparse.Namespace(checkpoint=str(tmp_path / "run"), calibration="auto")
    assert calibration_of(args, load_model(tiny_run), {"lc11"}).known == {}


def test_stimuli_are_taken_evenly():
    assert evenly(list(range(10, 110)), 4) == [10, 43, 76, 109]
    assert evenly([5, 6], 20) == [5, 6]


def test_nothing_located_is_drawn_as_well(tmp_path):
    row = {"cell_type": "lc11", "located": "no", "azimuth_recorded_deg": "",
           "elevation_recorded_deg": "", "correlation_before": ""}  # fmt: skip
    assert plot_places(tmp_path / "neurons.png", [row]).is_file()
