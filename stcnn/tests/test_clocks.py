"""Recordings and movies keep their own clocks; all is placed by time on the model's ticks."""

import logging

import numpy as np
import pytest
import torch

from analysis.metrics import score_rows
from common.files import InputError
from demo.teacher import analytic_calcium
from inputs.ca_dataloader import CalciumDataset, Layout
from inputs.clocks import on_ticks, place_movie, sample_ticks
from inputs.csv_traces import read_long_csv
from inputs.display import Display
from inputs.recordings import Movies, read_movies, read_recordings
from inputs.stimuli import disc, growing, moving_rectangle
from network.model_factory import build_model, read_out_blocks
from network.models import batch_loss
from runs.configuration import compose_settings
from runs.convert import convert_all

RATE = 180.0


def ramp(n):
    """Return a movie whose frame i has the grey i / n."""
    return torch.arange(n, dtype=torch.float32)[:, None, None].expand(n, 3, 3) / n


def shown(frames, t_axis, rate=RATE):
    first, placed = place_movie(frames, t_axis, rate)
    return first, placed[:, 1, 1].numpy()


@pytest.mark.parametrize("hz", [24, 30, 50, 60, 72, 85, 100, 120, 144, 180])
def test_slow_frames_are_held_and_none_comes_early(hz):
    n = 2 * hz
    first, values = shown(ramp(n), torch.arange(n) / hz)
    assert first == 0
    assert len(values) == 2 * RATE
    tick = np.arange(len(values))
    np.testing.assert_allclose(values * n, np.floor(tick / RATE * hz + 1e-9), atol=1e-3)


@pytest.mark.parametrize("rate", [30.0, 60.0, 120.0, 180.0])
@pytest.mark.parametrize("hz", [24, 30, 60, 90, 120, 144, 200, 240, 300, 360, 480])
def test_a_tick_shows_what_is_on_the_screen_during_it(hz, rate):
    """Tick k lasts from k / rate to (k + 1) / rate: none too early, none too late, at any rate."""
    n = hz // 2
    # frame i is the i-th unit vector, so that what a tick shows are the weights of the frames
    first, weights = place_movie(torch.eye(n)[:, None, :], torch.arange(n) / hz, rate)
    weights = weights[:, 0].double().numpy()
    assert (first, len(weights)) == (0, rate / 2)
    begin, end = np.arange(n) / hz, (np.arange(n) + 1) / hz
    tick = np.arange(len(weights))[:, None] / rate
    overlap = np.minimum(end, tick + 1 / rate) - np.maximum(begin, tick)
    assert not weights[overlap < 1e-9].any()
    if hz > rate:
        np.testing.assert_allclose(weights, np.clip(overlap, 0, None) * rate, atol=1e-4)
        np.testing.assert_allclose(weights.sum(0), rate / hz, atol=1e-4)  # no light is lost
    else:
        assert (weights.argmax(1) == np.floor(tick[:, 0] * hz + 1e-9)).all()
        assert (weights.max(1) == 1.0).all()


def test_a_fast_dither_is_grey_and_doubled_frames_are_the_movie():
    for hz in (360, 720):
        dither = torch.arange(hz)[:, None, None].expand(hz, 3, 3).float() % 2
        _, values = shown(dither, torch.arange(hz) / hz)
        np.testing.assert_allclose(values, np.full(180, 0.5), atol=1e-5)
    _, values = shown(ramp(180).repeat_interleave(2, 0), torch.arange(360) / 360)
    np.testing.assert_allclose(values, np.arange(180) / 180, atol=1e-5)


def test_a_fast_movie_that_starts_or_ends_within_a_tick():
    """The first and the last tick count where half of them is covered."""
    times = torch.arange(8) / 720 + torch.tensor([0.25, 0.75])[:, None] / RATE
    for axis, first, values in (
        (times[0], 0, [np.mean([0, 1, 2]), np.mean([3, 4, 5, 6])]),
        (times[1], 1, [np.mean([1, 2, 3, 4]), np.mean([5, 6, 7])]),
    ):
        tick, placed = shown(ramp(8), axis)
        assert tick == first
        np.testing.assert_allclose(placed * 8, values, atol=1e-3)


def test_a_dropped_frame_keeps_the_last_one_on_the_screen():
    kept = [i for i in range(144) if i not in (10, 70)]
    _, values = shown(ramp(144)[kept], torch.tensor(kept) / 144)
    want = np.floor(np.arange(180) / RATE * 144 + 1e-9)
    want[want == 10], want[want == 70] = 9, 69
    np.testing.assert_allclose(values * 144, want, atol=1e-3)


@pytest.mark.parametrize(("start", "first"), [(-0.5, -90), (0.25, 45), (1 / 360 - 1e-3, 0)])
def test_a_movie_starts_when_its_axis_says(start, first):
    tick, values = shown(ramp(60), torch.arange(60) / RATE + start)
    assert tick == first
    np.testing.assert_allclose(values * 60, np.arange(60), atol=1e-4)


def test_a_fractional_rate_does_not_drift():
    """1 % off for 10 s is 0.1 s: taken by index, the last frames would come that much too soon."""
    n = 1782
    first, values = shown(ramp(n), torch.arange(n, dtype=torch.float64) / 178.2)
    assert first == 0
    assert len(values) == 1800
    np.testing.assert_allclose(
        values * n, np.floor((np.arange(1800) / 180 + 1e-4) * 178.2), atol=0.1
    )


def test_a_long_gap_is_refused_and_a_slide_show_is_not():
    times = torch.cat([torch.arange(60) / 60, 2.0 + torch.arange(60) / 60])
    with pytest.raises(InputError, match=r"gap of 1\.02 s after frame 59 \(0\.983 s\)"):
        place_movie(ramp(120), times, RATE)
    assert len(place_movie(ramp(4), torch.arange(4) * 0.5, RATE)[1]) == 360


def test_a_frame_that_ends_inside_a_tick_counts_by_its_share():
    """At 240 Hz a frame lasts three quarters of a tick of 180 Hz."""
    frames = [(i / 240, (i + 1) / 240, float(i)) for i in range(4)]
    shown = list(on_ticks(frames, 180.0, shortest_s=1 / 240))
    assert shown == pytest.approx([0.25 * 1, 0.5 * 1 + 0.5 * 2, 0.25 * 2 + 0.75 * 3])


def test_samples_at_the_models_rate_are_its_ticks():
    """Faithful: the onset is the last sample at or before 0 s, whatever its fraction."""
    axis = (torch.arange(100) - 36.3) / RATE
    assert sample_ticks(axis, RATE).tolist() == list(range(-36, 64))
    slow = (torch.arange(20) - 5) / 7.5
    assert sample_ticks(slow, RATE).tolist() == [24 * i for i in range(-5, 15)]


def session(t_axis, curve, noise=0.0, trials=2, uid=7, seed=0):
    generator = np.random.default_rng(seed)
    clean = np.asarray(curve(t_axis.numpy()), dtype=np.float32)
    traces = clean + noise * generator.normal(size=(trials, len(clean))).astype(np.float32)
    neuron = {"traces": torch.from_numpy(traces), "azi_shift": 0.0, "ele_shift": 0.0}
    return {"t_axis": t_axis, "neuron": {uid: neuron}}


def dataset_of(entry, frames, *, first=0, rate=RATE, **layout):
    movies = Movies({5: frames}, first={5: first} if first else None)
    display = Display(rate, 1.0, 0.498, tuple(frames.shape[1:]))
    layout = {"loss_start_s": -0.5, "n_prepad": 4, **layout}
    return CalciumDataset({"lc11": {"a.pt": {5: entry}}}, movies, Layout(**layout), display=display)


def test_the_loss_of_slow_calcium_is_taken_at_its_samples():
    axis = (torch.arange(30) - 8) / 7.5
    dataset = dataset_of(session(axis, lambda t: 2.0 + t), torch.rand(90, 8, 8))
    item, data = dataset.items[0], dataset[0]
    assert dataset.n_frames == 4 + 29 * 24 + 1
    assert dataset.onset(item) == 4 + 8 * 24
    frames = dataset.scored(item)
    seconds = (frames - dataset.onset(item)) / RATE
    np.testing.assert_allclose(seconds, axis[4:], atol=1e-6)  # from the last sample before -0.5 s
    np.testing.assert_allclose(data["ca_trace"][frames], 2.0 + axis[4:], atol=1e-5)
    assert data["scored"].sum() == 26
    wrong = data["ca_trace"][None].clone()
    wrong[0, ~data["scored"]] += 100.0
    total, _ = batch_loss(wrong, data["ca_trace"][None], data["scored"][None], ["lc11"])
    assert float(total) == 0.0
    assert data["movie"][dataset.onset(item) - 1].abs().max() == 0
    assert data["movie"][dataset.onset(item)].abs().max() > 0


def test_a_gap_in_the_calcium_is_not_scored():
    axis = (torch.arange(360) - 90) / RATE
    kept = torch.cat([axis[:200], axis[260:]])
    dataset = dataset_of(session(kept, lambda t: t), torch.rand(90, 8, 8))
    item = dataset.items[0]
    scored = set(dataset.scored(item) - 4)
    assert not scored & set(range(200, 260))
    np.testing.assert_allclose(dataset.trace(item)[4 + 230], (230 - 90) / RATE, atol=1e-4)


@pytest.mark.parametrize("first", [30, -30])
def test_a_movie_that_starts_late_or_early_lies_there_in_its_item(first):
    axis = (torch.arange(360) - 90) / RATE
    dataset = dataset_of(session(axis, lambda t: t), torch.zeros(60, 8, 8), first=first)
    dark = dataset[0]["movie"][:, 0, 4, 4] < -0.4
    assert dark.nonzero()[:, 0].tolist() == list(range(94 + first, 154 + first))


@pytest.mark.parametrize(
    ("start_s", "said"), [(50.0, "from 50 to 52 s"), (-9.0, "from -9 to -7 s")]
)
def test_a_movie_that_nobody_was_recorded_on_is_refused(start_s, said):
    """Its frames were all cut, and grey was learnt."""
    entry = session((torch.arange(45) - 15) / 7.5, lambda t: 0 * t)
    movies = Movies({5: torch.zeros(360, 9, 9)}, first={5: round(start_s * 180)}, rate_hz=180.0)
    display = Display(180.0, 1.0, 0.498, (9, 9))
    recordings = {"lc11": {"a.pt": {5: entry}}}
    line = rf"vstim_5: its movie runs {said}, the traces .* from -4 to 3.87 s"
    with pytest.raises(InputError, match=line):
        CalciumDataset(recordings, movies, Layout(), display=display)


def test_files_of_other_clocks_are_read_and_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "ca" / "lc11").mkdir(parents=True)
    (tmp_path / "mov").mkdir()
    entry = session((torch.arange(30) - 8) / 7.5, lambda t: t)
    torch.save({"vstim_5": entry}, tmp_path / "ca" / "lc11" / "a.pt")
    film = {"rect_mov": torch.rand(72, 9, 9), "t_axis": torch.arange(72) / 144}
    torch.save({"vstim_5": film}, tmp_path / "mov" / "vstim_5.pt")
    recordings = read_recordings(tmp_path / "ca")
    assert len(recordings["lc11"]["a.pt"][5]["t_axis"]) == 30
    assert len(read_movies(tmp_path / "mov", rate_hz=RATE)[5]) == 90
    assert "movies of 144 Hz are placed by their times on 180 Hz" in caplog.text
    torch.save({"vstim_5": {**film, "rect_mov": film["rect_mov"] / 2}}, tmp_path / "mov/vstim_6.pt")
    with pytest.raises(InputError, match=r"vstim_5\.pt holds another movie of this number"):
        read_movies(tmp_path / "mov", rate_hz=RATE)


class Perfect:
    """Stands for a model: it answers with the noise-free curve."""

    def __init__(self, curve, onset, n):
        self.values = torch.from_numpy(curve((np.arange(n) - onset) / RATE).astype(np.float32))

    def eval(self):
        """Do nothing; a network would switch here."""

    def predict_items(self, sampled, types, neurons):
        """Return the curve for each item."""
        return self.values.expand(len(types), -1)


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_a_perfect_model_reaches_the_ceiling(noise):
    """With planted noise: r2 and correlation of the truth itself equal what the ceiling expects."""

    def curve(t):
        return np.where(t > 0, np.exp(-np.maximum(t, 0) / 0.4), 0.0)

    axis = (torch.arange(900) - 180) / RATE
    recordings = {
        "lc11": {
            f"{uid}.pt": {5: session(axis, curve, noise, trials=3, uid=uid, seed=uid)}
            for uid in range(12)
        }
    }
    display = Display(RATE, 1.0, 0.498, (8, 8))
    dataset = CalciumDataset(
        recordings, {5: torch.zeros(9, 8, 8)}, Layout(n_prepad=0), display=display,
        sample=lambda frames: frames[:, :2, :2],
    )  # fmt: skip
    scores, _ = score_rows(Perfect(curve, 180, 900), dataset, range(12))
    lc11 = scores["lc11"]
    assert lc11["r2"] == pytest.approx(lc11["ceiling_r2"], abs=0.02)
    assert lc11["trace_correlation"] == pytest.approx(lc11["ceiling_correlation"], abs=0.02)
    assert lc11["ceiling_r2"] < 0.99
    assert lc11["normalised_correlation"] == pytest.approx(1.0, abs=0.02)
    assert lc11["normalised_r2"] == pytest.approx(1.0, abs=0.03)
    other, _ = score_rows(Perfect(lambda t: curve(t) * (t < 0.2), 180, 900), dataset, range(12))
    frames = (torch.arange(900)[dataset.scored(dataset.items[0])] - 180) / RATE
    clean = curve(frames.numpy()), curve(frames.numpy()) * (frames.numpy() < 0.2)
    expected = np.corrcoef(*clean)[0, 1]
    assert expected < 0.9
    assert other["lc11"]["normalised_correlation"] == pytest.approx(expected, abs=0.02)
    explained = 1 - ((clean[0] - clean[1]) ** 2).mean() / clean[0].var()
    assert other["lc11"]["normalised_r2"] == pytest.approx(explained, abs=0.03)


def at_144_hz(make, *, dropped=0.01, seed=0):
    """Return the stimulus of ``make(rate)``, shown at 144 Hz with 1 % of its frames lost."""
    frames = make(144.0)
    generator = np.random.default_rng(seed)
    kept = generator.random(len(frames)) >= dropped
    kept[0] = True
    times = (torch.arange(len(frames)) / 144)[torch.from_numpy(kept)]
    first, placed = place_movie(frames[torch.from_numpy(kept)], times, RATE)
    assert first == 0
    return placed


def planted_stimuli():
    def screen(rate):
        return Display(rate, 1.0, 0.498, (51, 51))

    def rectangle(w, h, speed):
        return lambda rate: moving_rectangle(
            screen(rate), (w, h), speed=speed, direction="right", start=-30.0,
            seconds=(60.0 + w) / speed,
        )  # fmt: skip

    def looming(speed):
        return lambda rate: disc(screen(rate), growing(speed, rate_hz=rate, end=45.0))

    return {
        "lc11": [
            rectangle(9.0, 9.0, 60.0),
            rectangle(4.5, 15.0, 100.0),
            rectangle(15.0, 9.0, 60.0),
        ],
        "lplc2": [looming(50.0), looming(100.0), looming(200.0)],
        "lc12": [rectangle(15.0, 15.0, 60.0), looming(100.0)],
    }


@pytest.mark.parametrize("kind", ["lc11", "lplc2", "lc12"])
def test_planted_peaks_at_144_hz_are_those_at_180(kind):
    """Target: within 2 %, with 1 % of the frames dropped."""

    def peak(frames):
        padded = torch.cat([frames, torch.zeros(180, *frames.shape[1:])])
        return float(analytic_calcium(padded, kind, 1 / RATE).max())

    for seed, make in enumerate(planted_stimuli()[kind]):
        exact = peak(make(RATE))
        assert peak(at_144_hz(make, seed=seed)) == pytest.approx(exact, rel=0.02)


def test_the_loss_at_slow_samples_knows_the_true_model():
    """A model that made the calcium at 180 Hz finds next to no loss at 7.5 Hz and 144 Hz."""
    config = compose_settings(["model=stcnn_small", "model.readout=center"])["model"]
    lobula, _ = read_out_blocks(config, ["lc11"])
    ca = {**config["ca"], "cell_types": ["lc11"], "cell_count": [1]}
    blocks = {"pr_config": config["pr"], "network_config": config["network"], "L_config": lobula}
    model = build_model({**blocks, "ca_config": ca}, rate_hz=RATE, readout="center", init="fast")
    model.eval()
    make = planted_stimuli()["lc12"][0]
    axis = (torch.arange(540) - 180) / RATE
    exact = dataset_of(session(axis, lambda t: 0 * t), make(RATE) + 0.498)

    def curve(dataset):
        with torch.no_grad():
            sampled = model.pr.sample(dataset[0]["movie"])[None]
            return model.predict_items(sampled, ["lc11"], torch.tensor([0]))

    made = curve(exact)[0, 4:].numpy()
    slow = (torch.arange(22) - 7) / 7.5
    entry = session(slow, lambda t: np.interp(t, axis.numpy(), made))
    dataset = dataset_of(entry, at_144_hz(make) + 0.498)
    data = dataset[0]
    total, _ = batch_loss(curve(dataset), data["ca_trace"][None], data["scored"][None], ["lc11"])
    assert float(total) ** 0.5 < 0.02 * float(np.ptp(made))


def test_traces_in_long_form_are_those_of_the_torch_file(tmp_path):
    axis = (torch.arange(30) - 8) / 7.5
    entry = session(axis, lambda t: 2.0 + t, noise=0.1, trials=3)
    entry["neuron"][7] |= {"azi_shift": torch.tensor(1.5), "ele_shift": torch.tensor(-2.0)}
    for kind in ("lc11", "lc12"):
        (tmp_path / kind).mkdir()
    torch.save({"vstim_5": entry}, tmp_path / "lc11" / "a.pt")
    rows = [
        f"5,7,{trial},{float(second):.9g},{float(value):.9g},1.5,-2,note"
        for trial, trace in enumerate(entry["neuron"][7]["traces"])
        for second, value in zip(axis, trace, strict=True)
    ]
    head = "stimulus,neuron,trial,seconds,dff,azi_shift,ele_shift,comment"
    path = tmp_path / "lc12" / "a.csv"
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")  # rows in any order
    digests = {}
    sessions = read_recordings(tmp_path, digests=digests)
    assert set(digests) == {"lc11/a.pt", "lc12/a.csv"}
    ours, theirs = sessions["lc12"]["a.csv"][5], sessions["lc11"]["a.pt"][5]
    torch.testing.assert_close(ours["t_axis"], theirs["t_axis"])
    traces = ours["neuron"][7]["traces"]
    torch.testing.assert_close(traces.flip(0), theirs["neuron"][7]["traces"])
    assert (ours["neuron"][7]["azi_shift"], ours["neuron"][7]["ele_shift"]) == (1.5, -2.0)
    path.write_text("\n".join([head, *rows[:40]]) + "\n")
    with pytest.raises(InputError, match=r"a\.csv: vstim_5, neuron 7, trial 1: other times"):
        read_recordings(tmp_path)
    path.write_text(f"{head}\n5,7,1,early,0,0,0,\n")
    with pytest.raises(InputError, match=r"a\.csv: row 2: seconds is 'early'"):
        read_recordings(tmp_path)
    for columns, last in (("neuron,stimulus", "stimulus"), ("stimulus,neuron", "neuron")):
        path.write_text(f"seconds,dff,azi_shift,ele_shift,{columns}\n0,0,0,0,5\n")
        with pytest.raises(InputError, match=rf"a\.csv: row 2: ends before {last}; export"):
            read_recordings(tmp_path)  # a file cut off: the last column's None has no text


def test_traces_written_in_long_form_read_back_to_the_last_bit(tmp_path):
    entry = session((torch.arange(9) - 3) / 7.5, lambda t: 0.1 * t, noise=0.1, trials=2)
    entry["neuron"][7] |= {"azi_shift": torch.tensor(0.1), "ele_shift": torch.tensor(-1 / 3)}
    entry["neuron"][7]["traces"][1, 2] = float("nan")  # kept: what to do with it is asked later
    (tmp_path / "ca" / "lc11").mkdir(parents=True)
    torch.save({"vstim_5": entry, "vstim_12": entry}, tmp_path / "ca" / "lc11" / "a.pt")
    written, faults = convert_all([tmp_path / "ca"], tmp_path / "out", form="csv")
    assert (written, faults) == (1, [])
    again = read_long_csv(tmp_path / "out" / "lc11" / "a.csv")
    assert list(again) == ["vstim_5", "vstim_12"]
    for stimulus in again.values():
        assert torch.equal(stimulus["t_axis"], entry["t_axis"].float())
        ours, theirs = stimulus["neuron"]["7"], entry["neuron"][7]
        torch.testing.assert_close(
            ours["traces"], theirs["traces"].float(), rtol=0, atol=0, equal_nan=True
        )
        assert float(ours["azi_shift"]) == float(theirs["azi_shift"])
        assert float(ours["ele_shift"]) == float(theirs["ele_shift"])
    written, faults = convert_all([tmp_path / "out"], tmp_path / "more", form="csv")
    assert (written, len(faults)) == (0, 1)
    assert "no file to convert; expected .pt, .npz, .safetensors" in faults[0]
