"""Learned places: the movie moved by parts of a pixel, and neurons that find where they look."""

import math

import pytest
import torch
from torch.nn import functional

from common.files import InputError, write_json
from common.tables import read_rows
from demo.scenes import random_scenes
from inputs.ca_dataloader import shift_movie
from inputs.display import Display
from inputs.recordings import read_recordings
from network.adam import Adam
from network.checkpoints import load_model, model_state, save_checkpoint
from network.model_factory import build_model, read_out_blocks
from network.positions import LEAST_SD_DEG, REACH_DEG, Positions, sample_moved
from runs.configuration import compose_settings
from runs.training import train

RATE, N_T, FINE, PREPAD = 30.0, 75, 4, 8
PLACES = {1: (3.25, -5.5), 2: (-2.75, 1.5), 3: (0.5, 4.25)}  # azimuth and elevation, degrees
GAIN, OFFSET, NOISE = 0.7, 0.02, 0.1  # dF/F; the noise is that of a trial


def bump(n, sd):
    """A Gaussian (n, n) on the coarse grid: filters that look at one place."""
    profile = torch.exp(-((torch.arange(n) - n // 2) ** 2) / (2 * sd**2))
    return torch.outer(profile, profile)


def network_blocks():
    config = compose_settings(["model=stcnn_small"])["model"]
    lobula, _ = read_out_blocks(config, ["lc11"])
    ca = {**config["ca"], "cell_types": ["lc11"], "cell_count": [1]}
    return {"pr_config": config["pr"], "network_config": config["network"],
            "L_config": {**lobula, "lc_count": [1]}, "ca_config": ca}  # fmt: skip


@pytest.fixture(scope="module")
def teacher():
    """A network of seeded filters that look at one place each."""
    model = build_model(network_blocks(), rate_hz=RATE, init="fast", readout="center")
    with torch.no_grad():
        for layer in model.network:
            layer.x_weight.mul_(bump(5, 1.0))
        weight = model.lc_layers[0].x_weight
        weight.copy_(weight.abs() * bump(9, 1.5) * 30)
    return model.eval()


@pytest.fixture(scope="module")
def recorded(teacher, tmp_path_factory):
    """A folder with the teacher's run and its calcium: shifts unknown, places planted.

    The movies are drawn at a quarter of a degree a pixel, moved there by whole pixels and then
    averaged: what a neuron a quarter of a pixel aside sees owes nothing to an interpolation.
    """
    out = tmp_path_factory.mktemp("planted")
    (out / "run").mkdir()
    save_checkpoint(out / "run", 1, teacher, Adam(teacher.parameters()))
    write_json(out / "run" / "config.json", {
        **network_blocks(), "sampling_rate": RATE, "readout": "center", "field": [51, 51],
        "dataset_config": {"mov_res": 1.0, "mov_bg_int": 0.498, "num_t_pts_prepad": PREPAD},
    })  # fmt: skip
    scenes = random_scenes(8, Display(RATE, 1 / FINE, 0.498, (51 * FINE, 51 * FINE)), seed=1)
    curves = {}
    for uid, (azimuth, elevation) in PLACES.items():
        stack = torch.zeros(len(scenes), PREPAD + N_T, 1, 51, 51)
        for i, scene in enumerate(scenes):
            moved = shift_movie(scene.contrast, (round(-elevation * FINE), round(azimuth * FINE)))
            stack[i, PREPAD + 15 :] = functional.avg_pool2d(moved[: N_T - 15, None], FINE)
        with torch.no_grad():
            voltage = teacher.voltages(stack)["lc11"]
            curves[uid] = teacher.activity(voltage, "lc11")[:, PREPAD:]
    scale = float(torch.stack(list(curves.values())).std())
    axis, noise = (torch.arange(N_T) - 15) / RATE, torch.Generator().manual_seed(0)
    session, movies = {}, {}
    for i, scene in enumerate(scenes):
        neurons = {}
        for uid, curve in curves.items():
            traces = OFFSET + GAIN / scale * curve[i].repeat(3, 1)
            traces = traces + NOISE * torch.randn(traces.shape, generator=noise)
            neurons[uid] = {"traces": traces, "azi_shift": math.nan}  # and no ele_shift at all
        name = f"vstim_{scene.barcode}"
        session[name] = {"t_axis": axis, "neuron": neurons}
        frames = functional.avg_pool2d(scene.contrast[: N_T - 15, None], FINE)[:, 0] + 0.498
        movies[name] = {"rect_mov": frames.clamp(0, 1), "t_axis": torch.arange(len(frames)) / RATE}
    (out / "ca" / "lc11").mkdir(parents=True)
    (out / "movies").mkdir()
    torch.save(session, out / "ca" / "lc11" / "a.pt")
    torch.save(movies, out / "movies" / "vstim_all.pt")
    return out, scale


def settings_of(folder, *more):
    return compose_settings([
        "model=stcnn_small", f"dataset.ca_path={folder}/ca", f"dataset.mov_path={folder}/movies",
        "dataset.sampling_rate=30", f"dataset.num_t_pts_prepad={PREPAD}", "dataset.make=null",
        "dataset.loss_meas_t_start=-0.3", f"trunk={folder}/run", "read_outs=kept", "device=cpu",
        "position=learned", "position_lr=0.3", "position_sd=1.5", "lr=0.05", "lr_decay=cosine",
        "batch_size=4", "seed=0", "prepad=settled", *more,
    ])  # fmt: skip


def test_at_whole_pixels_it_is_the_shifted_movie(teacher):
    contrast = random_scenes(3, Display(RATE, 1.0, 0.498, (51, 51)), seed=2)
    contrast = torch.stack([scene.contrast[:40] for scene in contrast])
    shifts = [(3, -2), (0, 0), (-30, 60)]  # the last one moves everything out of the field
    whole = torch.stack([
        teacher.pr.sample(shift_movie(one, by)) for one, by in zip(contrast, shifts, strict=True)
    ])  # fmt: skip
    ours = sample_moved(teacher.pr, contrast, torch.tensor(shifts).float())
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-6)


def test_a_lens_that_is_no_product_sees_the_same(teacher):
    """And the slope by the shift is that of a difference, on both routes, between pixels and on."""
    contrast = random_scenes(1, Display(RATE, 1.0, 0.498, (51, 51)), seed=3)[0].contrast[
        None, 20:24
    ]
    other = build_model(network_blocks(), rate_hz=RATE)
    other.pr.profiles = lambda size: None
    for place in ([2.3, -1.6], [2.0, -1.0]):
        results = []
        for lens in (teacher.pr, other.pr):
            shift = torch.tensor([place], requires_grad=True)
            sampled = sample_moved(lens, contrast, shift)
            weights = torch.linspace(-1, 1, sampled.numel()).reshape(sampled.shape)
            (slope,) = torch.autograd.grad((sampled * weights).sum(), shift)
            step = torch.tensor([[1e-2, 0.0]])
            ahead, behind = (
                sample_moved(lens, contrast, shift.detach() + s) for s in (step, -step)
            )
            numeric = ((ahead - behind) * weights).sum() / 2e-2
            assert float(slope[0, 0]) == pytest.approx(float(numeric), rel=0.02, abs=1e-3)
            results.append((sampled.detach(), slope))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_what_a_read_out_can_do_itself_is_not_a_neurons():
    positions = Positions({"lc11": 3, "get": 1}, sd_deg=2.0)
    with torch.no_grad():
        positions.of("lc11")["moved"].copy_(torch.tensor([[1.0, 0], [3.0, 2.0], [40.0, 0.0]]))
        positions.of("get")["moved"].fill_(-30.0)
        positions.of("get")["log_sd"].fill_(-30.0)
    positions.keep_in_bounds({"lc11": [0, 1]})
    moved = positions.of("lc11")["moved"]
    assert moved.tolist() == [[-1.0, -1.0], [1.0, 1.0], [REACH_DEG, 0.0]]
    assert positions.of("get")["moved"].tolist() == [[-REACH_DEG, -REACH_DEG]]
    assert float(positions.of("get")["log_sd"].detach().exp()) == pytest.approx(LEAST_SD_DEG)
    jitter = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    drawn = positions.draw(["lc11", "get"], torch.tensor([0, 0]), jitter)
    torch.testing.assert_close(drawn, torch.tensor([[1.0, -3.0], [-12.0, -12.0]]))


def test_a_learned_run_goes_on_as_if_it_had_not_stopped(tiny_args, tmp_path):
    """With read-outs that train: 3 types of one neuron, whose places stay those of the file."""
    own = [*tiny_args, "position=learned", "seed=5", "val_fraction=0.25"]
    train(compose_settings([*own, "n_epochs=2"]), run_dir=tmp_path / "whole")
    train(compose_settings([*own, "n_epochs=1"]), run_dir=tmp_path / "half")
    more = compose_settings([*own, "n_epochs=2", f"resume={tmp_path / 'half'}"])
    train(more, explicit=["n_epochs", "resume"])
    states = [model_state(tmp_path / name / "model_chkpnt_2.pt") for name in ("whole", "half")]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert not states[0]["positions.lc11.moved"].any()
    assert bool((states[0]["positions.lc11.log_sd"] != math.log(2.0)).all())
    assert load_model(tmp_path / "whole").positions.of("lc11")["moved"].shape == (1, 2)
    rows = read_rows(tmp_path / "whole" / "neurons.csv")
    for row in rows:
        assert float(row["azimuth_deg"]) == pytest.approx(float(row["azimuth_recorded_deg"]))
    assert (tmp_path / "half" / "neurons.csv").read_bytes() == (
        tmp_path / "whole" / "neurons.csv").read_bytes()  # fmt: skip


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["position=recorded"], "azi_shift is nan; expected one finite number of degrees, or train "
                                "with position=learned"),
        (["position=Learned"], "position=Learned: expected one of recorded, learned"),
        (["position_sd=0"], "position_sd=0.0: expected 0 to 12"),
        (["position_lr=-1"], r"position_lr=-1.0: expected a number above 0"),
        (["trunk=null"], r"read_outs=kept: whose\? name their run with trunk=RUN"),
        (["readout=legacy"], "its read-outs were trained with readout=center; set it here"),
    ],
)  # fmt: skip
def test_faults_in_one_line(recorded, tmp_path, more, line):
    with pytest.raises(InputError, match=line):
        train(settings_of(recorded[0], *more), run_dir=tmp_path / "run")


def test_a_place_known_in_some_stimuli_only_is_refused(recorded, tmp_path):
    session = torch.load(recorded[0] / "ca" / "lc11" / "a.pt", weights_only=True)
    next(iter(session.values()))["neuron"][2] |= {"azi_shift": 1.0}
    (tmp_path / "ca" / "lc11").mkdir(parents=True)
    torch.save(session, tmp_path / "ca" / "lc11" / "a.pt")
    settings = settings_of(recorded[0], f"dataset.ca_path={tmp_path}/ca")
    with pytest.raises(InputError, match="lc11, neuron 2: azi_shift is missing in 7 of 8 stimuli"):
        train(settings, run_dir=tmp_path / "run")


@pytest.mark.parametrize("cell", ["", "nan", " NaN "])
def test_a_csv_may_leave_the_place_open(tmp_path, cell):
    (tmp_path / "lc11").mkdir()
    head = "stimulus,neuron,seconds,dff,azi_shift,ele_shift"
    rows = [f"5,7,{i / 30},0.1,{cell},2.5" for i in range(3)]
    (tmp_path / "lc11" / "a.csv").write_text("\n".join([head, *rows, ""]))
    with pytest.raises(InputError, match=r"azi_shift is nan; .*position=learned"):
        read_recordings(tmp_path)
    neuron = read_recordings(tmp_path, unplaced=True)["lc11"]["a.csv"][5]["neuron"][7]
    assert math.isnan(neuron["azi_shift"])
    assert neuron["ele_shift"] == 2.5
