"""Stimuli, any movie as input, predictions, conversion, figures and animations."""

import csv
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from common.files import InputError
from inputs.display import Display
from inputs.recordings import read_recordings
from inputs.stimuli import FAMILIES, disc, flicker, grating, make_family, moving_rectangle
from inputs.user_movies import UserMovie
from network.checkpoints import load_model
from network.predict import predict_long, predict_movies

DISPLAY = Display(60, 1.0, 0.498, (51, 51))


def rows_of(path):
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_families_fit_the_field():
    for name in FAMILIES:
        stimuli = make_family(name, DISPLAY)
        codes = [stimulus.barcode for stimulus in stimuli]
        assert len(set(codes)) == len(codes)
        for stimulus in stimuli:
            assert stimulus.contrast.shape[1:] == (51, 51)
            assert stimulus.movie.min() >= 0
            assert stimulus.movie.max() <= 1
            assert stimulus.contrast.any()


def test_rectangle_covers_its_area_and_travels_at_its_speed():
    screen = Display(60, 1.0, 0.498, (83, 83))
    frames = moving_rectangle(
        screen, (4.5, 9.0), speed=60, direction="right", start=-20, seconds=0.5
    )
    area = frames.sum((1, 2)) / -0.498
    np.testing.assert_allclose(area, 40.5, rtol=1e-5)
    centre = (frames.sum(1) * torch.arange(83)).sum(1) / frames.sum((1, 2))
    np.testing.assert_allclose(np.diff(centre), 1.0, atol=1e-4)
    left = moving_rectangle(screen, (4.5, 9.0), speed=60, direction="left", start=-20, seconds=0.5)
    torch.testing.assert_close(left, frames.flip(2))


def test_grating_period_direction_and_flicker_rate():
    screen = Display(180, 1.0, 0.498, (83, 83))
    frames = grating(screen, period=9.0, speed=90.0, hold=0.0, seconds=0.2)
    torch.testing.assert_close(frames[18], frames[0])  # one period in 0.1 s
    torch.testing.assert_close(
        frames[2, :, 1:], frames[0, :, :-1]
    )  # half a degree a frame, rightward
    bright = flicker(Display(60, 1.0, 0.498, (5, 5)), 2, seconds=1.0)[:, 0, 0]
    assert int((bright.diff() != 0).sum()) == 3
    assert int((disc(screen, [10.0]) != 0).sum()) == 81


def test_streaming_equals_the_whole_forward(tiny_run):
    model = load_model(tiny_run)
    contrast = torch.rand(70, 51, 51, generator=torch.Generator().manual_seed(0)) - 0.498
    whole = predict_movies(model, [contrast])
    pieces = list(predict_long(model, contrast.split([1, 9, 60]), (51, 51)))
    with torch.no_grad():
        lead = torch.cat([torch.zeros(240, 51, 51), contrast])[None, :, None]
        plain = {k: model.population(v, k)[0, 240:] for k, v in model.voltages(lead).items()}
    for kind in model.cell_types:
        joined = np.concatenate([piece[kind] for piece in pieces])
        np.testing.assert_allclose(whole[kind][0], plain[kind], atol=1e-5)
        np.testing.assert_allclose(joined, plain[kind], atol=1e-5)


def test_responses_of_neurons_and_their_means(tiny_run):
    model = load_model(tiny_run)
    contrast = torch.rand(20, 51, 51, generator=torch.Generator().manual_seed(0)) - 0.498
    every = predict_movies(model, [contrast], who="all")["lc11"]
    assert every.shape == (1, 1, 20)
    np.testing.assert_allclose(
        every[:, 0], predict_movies(model, [contrast], who=0)["lc11"], atol=1e-6
    )
    mean = predict_movies(model, [contrast], who="mean_response")["lc11"]
    np.testing.assert_allclose(every.mean(1), mean, atol=1e-6)


def test_ensemble_of_families_as_a_user(script, tiny_run, tmp_path):
    first, second = tiny_run / "model_chkpnt_1.pt", tiny_run / "model_chkpnt_2.safetensors"
    script(
        "generate_ca_predictions.py", "--checkpoint", first, second, "--stimulus",
        "looming,direction",
        "--out", tmp_path, "--device", "cpu",
    )  # fmt: skip
    rows = rows_of(tmp_path / "looming_peaks.csv")
    assert [row["barcode"] for row in rows[:5]] == ["321", "322", "325", "327", "329"]
    assert all(float(row["peak_sd"]) >= 0 for row in rows)
    with np.load(tmp_path / "looming_traces.npz") as arrays:
        assert arrays["lc11"].shape == arrays["lc11_sd"].shape == (5, len(arrays["seconds"]))
    assert (tmp_path / "model_chkpnt_1_lc11_looming.png").is_file()
    indices = rows_of(tmp_path / "direction_indices.csv")
    assert 0 <= float(indices[0]["direction_index"]) <= 1
    assert "looming_index" in rows_of(tmp_path / "looming_indices.csv")[0]


def test_recorded_traces_lie_behind_the_predictions(tiny_set, tiny_run, tmp_path):
    from generate_ca_predictions import main

    main([
        "--checkpoint", str(tiny_run), "--stimulus", "data", "--ca-path", f"{tiny_set}/ca_traces",
        "--mov-path", f"{tiny_set}/movies", "--shift", "each", "--who", "all", "--out",
        str(tmp_path),
    ])  # fmt: skip
    assert len(rows_of(tmp_path / "data_peaks.csv")) == 3 * 9
    assert (tmp_path / "model_chkpnt_2_lc11_n0_data.png").is_file()


def test_user_movies_of_every_kind(tmp_path):
    frames = np.zeros((10, 20, 40), dtype=np.uint8)
    frames[5:, :, 20:] = 255
    np.savez(tmp_path / "m.npz", movie=frames, rate_hz=30.0)
    np.save(tmp_path / "m.npy", frames / 255.0)
    (tmp_path / "folder").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "folder" / f"image{i}.png")
    contrasts = []
    for name in ("m.npz", "m.npy", "folder"):
        movie = UserMovie(tmp_path / name, rate_hz=30.0, deg_per_px=1.0)
        contrasts.append(torch.cat(list(movie.pieces(DISPLAY))))
    for contrast in contrasts:
        assert contrast.shape == (20, 51, 51)
        torch.testing.assert_close(contrast, contrasts[0], atol=1e-5, rtol=0)
    assert contrasts[0][9, 25, 25:40].max() < -0.4  # black before frame 5 of the file
    np.testing.assert_allclose(contrasts[0][10, 25, 26:44], 0.502, atol=1e-4)
    assert contrasts[0][:, :10].abs().max() < 1e-5  # grey above the picture
    with pytest.raises(InputError, match="holds no frame rate"):
        UserMovie(tmp_path / "folder")
    np.save(tmp_path / "bad.npy", np.full((3, 4, 5), 7.0))
    with pytest.raises(InputError, match="values from 7 to 7"):
        UserMovie(tmp_path / "bad.npy", rate_hz=1)


def test_a_user_movie_is_predicted(here, tiny_run, tmp_path):
    from generate_ca_predictions import main

    movie = np.full((30, 51, 51), 0.498, dtype=np.float32)
    movie[10:20, 20:30, 20:30] = 0.0
    np.savez(tmp_path / "spot.npz", movie=movie, rate_hz=30.0, deg_per_px=1.0)
    done = here(
        main, "--checkpoint", tiny_run, "--stimulus", tmp_path / "spot.npz",
        "--feature-maps", "norm_layer_1",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert "display: 60 Hz (dataset.sampling_rate" in done.out
    assert "resampled to 60 Hz and 1 degree per pixel" in done.out
    record = json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]
    assert record["display"]["background"] == 0.498
    assert (tmp_path / "out" / "spot_norm_layer_1.mp4").stat().st_size > 1000
    with np.load(tmp_path / "out" / "spot_traces.npz") as arrays:
        assert len(arrays["seconds"]) == 60
    done = here(main, "--checkpoint", tiny_run, "--stimulus", "loming,data", check=2)
    assert "loming: no family" in done.err
    assert "--stimulus data needs --ca-path and --mov-path" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_dataset_animations(tiny_set, tmp_path):
    from visualize_dataset import main

    common = [
        "--ca-path",
        f"{tiny_set}/ca_traces",
        "--mov-path",
        f"{tiny_set}/movies",
        "--rate",
        "60",
    ]
    main(
        [
            *common,
            "--cell-type",
            "lc11",
            "--stimuli",
            "300,340,999",
            "--step",
            "40",
            "--out",
            str(tmp_path),
        ]
    )
    assert (tmp_path / "lc11_looming.mp4").stat().st_size > 1000
    main([
        *common, "--uid", "2019010101", "--stimuli", "300,340", "--grid", "1x2", "--gif",
        "--step", "60",
        "--out", str(tmp_path),
    ])  # fmt: skip
    with Image.open(tmp_path / "2019010101_rf.gif") as picture:
        assert picture.n_frames == 3
    with pytest.raises(SystemExit) as stopped:
        main([*common, "--uid", "1"])
    assert stopped.value.code == 2


def test_parameter_figures_and_tables(tiny_run, tmp_path):
    from visualize_model_param import main

    main(["--run", str(tiny_run), "--out", str(tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        "training_loss_hist.png", "model_chkpnt_0_hidden_layer0.png",
        "model_chkpnt_2_hidden_layer1.png",
        "model_chkpnt_2_lc11.png", "model_chkpnt_2_parameter_hist.png",
    } <= names  # fmt: skip
    table = {
        row["name"]: row["shape"] for row in rows_of(tmp_path / "model_chkpnt_2_parameters.csv")
    }
    assert table["network.1.x_weight"] == "2 x 2 x 3 x 3"


def test_twins_read_back_the_same(script, here, tiny_set, tiny_run, tmp_path):
    from convert_checkpoint import main

    here(main, tiny_set / "ca_traces", "--out", tmp_path / "npz", "--npz")
    script("convert_checkpoint.py", tiny_set / "ca_traces", tiny_run, "--out", tmp_path / "st")
    plain = read_recordings(tiny_set / "ca_traces")
    (tmp_path / "clean").mkdir()
    for kind in plain:
        (tmp_path / "st" / kind).rename(tmp_path / "clean" / kind)
    for folder in (tmp_path / "npz", tmp_path / "clean"):
        twin = read_recordings(folder)
        for kind, sessions in plain.items():
            session, other = (next(iter(part.values())) for part in (sessions, twin[kind]))
            assert list(session) == list(other)
            for code, entry in session.items():
                for uid, neuron in entry["neuron"].items():
                    its = other[code]["neuron"][uid]
                    torch.testing.assert_close(its["traces"], neuron["traces"])
                    assert its["azi_shift"] == neuron["azi_shift"]
    again = load_model(tmp_path / "st" / "model_chkpnt_2.safetensors").state_dict()
    assert all(
        torch.equal(value, again[key]) for key, value in load_model(tiny_run).state_dict().items()
    )


@pytest.mark.slow
def test_the_most_exciting_movie_excites_more(script, tiny_run, tmp_path):
    script(
        "excite_stimulus.py", "--checkpoint", tiny_run, "--cell-type", "lc11", "--steps", 15,
        "--seconds", 0.5, "--out", tmp_path,
    )  # fmt: skip
    steps = [float(row["peak_above_grey"]) for row in rows_of(tmp_path / "lc11_excite.csv")]
    assert steps[-1] > steps[0]
    assert UserMovie(tmp_path / "lc11_excite.npz").rate_hz == 60


@pytest.mark.data
def test_real_clips_run_end_to_end(script, real_dir, tiny_run, tmp_path):
    """The clips of the real-data folder: two videos and an image sequence, ordered by number."""
    with zipfile.ZipFile(real_dir / "one2one_varysize.zip") as archive:
        archive.extractall(tmp_path / "seq")
    folder = next(path.parent for path in (tmp_path / "seq").rglob("image0.png"))
    clips = [real_dir / "bikes.mp4", real_dir / "lc4_looming.mp4", folder]
    script(
        "generate_ca_predictions.py", "--checkpoint", tiny_run, "--stimulus", ",".join(map(str,
        clips)),
        "--movie-rate", 30, "--out", tmp_path / "out",
    )  # fmt: skip
    for clip, n_frames in zip(clips, (250, 271, 320), strict=True):
        with np.load(tmp_path / "out" / f"{clip.stem}_traces.npz") as arrays:
            assert len(arrays["seconds"]) == 2 * n_frames
            assert np.isfinite(arrays["lc11"]).all()
