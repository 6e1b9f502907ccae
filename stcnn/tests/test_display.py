"""The display: from config.json and files into stimuli, movies, predictions and tables."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.files import InputError
from inputs.display import Display
from inputs.recordings import commonest_grey
from inputs.stimuli import make_family
from inputs.user_movies import UserMovie
from network.checkpoints import model_from_config, read_config
from runs.data import check_lens, display_of
from runs.predictions import family_stimuli
from runs.training import train

OLD = {"sampling_rate": 180, "dataset_config": {"mov_res": 1, "mov_bg_int": 0.498}}


def test_a_published_config_gives_the_published_display():
    display = Display.of_config(OLD)
    assert (display.rate_hz, display.deg_per_px, display.background) == (180, 1, 0.498)
    assert display.field == (83, 83)
    assert display.origin["field"] == "not in the file, as published"
    assert "180 Hz (file: config.json)" in display.describe()


def test_the_record_reads_back():
    display = Display(12.5, 0.5, 1.0, (40, 60), origin={"rate_hz": "file: t_axis"})
    again = Display.of_config({"display": json.loads(json.dumps(display.record()))})
    assert again.record() == display.record()
    assert again.frames(10.0) == 125


@pytest.mark.parametrize("wrong", [{"rate_hz": 0.0}, {"deg_per_px": -1.0}, {"background": 1.2}])
def test_impossible_values_are_refused(wrong):
    values = {"rate_hz": 60.0, "deg_per_px": 1.0, "background": 0.5, "field": (20, 20)} | wrong
    with pytest.raises(InputError, match="expected"):
        Display(**values)


def test_one_percent_is_the_same_display():
    first = Display(180, 1.0, 0.498, (83, 83))
    assert not first.differences(Display(181, 1.0, 0.5, (51, 51)))
    other = Display(60, 0.5, 1.0, (83, 83))
    assert len(first.differences(other)) == 3
    assert first.differences(other)[0] == "Hz: 180 and 60"


def test_stimuli_follow_degrees_and_background():
    """Half the degrees per pixel: twice the pixels; a white background: black is contrast -1."""
    coarse = Display(60, 1.0, 0.498, (61, 61))
    fine = Display(60, 0.5, 1.0, (122, 122))
    for name in ("looming", "size_tuning", "grating", "speed", "direction", "loom_rv", "rf_map"):
        for a, b in zip(make_family(name, coarse)[:4], make_family(name, fine)[:4], strict=True):
            assert len(a.contrast) == len(b.contrast)
            assert b.contrast.min() == pytest.approx(-1.0)
            assert (b.movie >= 0).all()
            assert (b.movie <= 1).all()
            dark_deg2 = [
                float(s.contrast.sum()) * d.deg_per_px**2 / d.dark / len(s.contrast)
                for s, d in ((a, coarse), (b, fine))
            ]
            assert dark_deg2[1] == pytest.approx(dark_deg2[0], rel=0.15, abs=3.0)


def test_a_movie_keeps_its_length_at_an_odd_rate(tmp_path):
    np.savez(tmp_path / "m.npz", movie=np.full((300, 9, 9), 0.4), rate_hz=30.0, deg_per_px=1.0)
    for rate, n in ((12.5, 125), (7.5, 75)):
        display = Display(rate, 1.0, 0.498, (21, 21))
        pieces = torch.cat(list(UserMovie(tmp_path / "m.npz").pieces(display)))
        assert len(pieces) == n


def test_a_movie_lies_on_the_background_of_the_display(tmp_path):
    np.savez(tmp_path / "m.npz", movie=np.zeros((2, 4, 4)), rate_hz=60.0, deg_per_px=1.0)
    display = Display(60, 0.5, 1.0, (21, 21))
    frame = torch.cat(list(UserMovie(tmp_path / "m.npz").pieces(display)))[0]
    assert frame[0, 0] == 0.0
    assert frame[10, 10] == -1.0
    assert float(-frame.sum()) == pytest.approx(64)  # 4 x 4 degrees at half a degree per pixel


def test_what_lies_off_the_field_is_said(tmp_path):
    movie = np.full((2, 108, 192), 0.5)
    np.savez(tmp_path / "wide.npz", movie=movie, rate_hz=60.0, deg_per_px=1.0)
    line = UserMovie(tmp_path / "wide.npz").describe(Display(60, 1.0, 0.498, (83, 83)))
    assert "57% of its width lies off the field" in line
    assert "23% of its height lies off the field" in line
    line = UserMovie(tmp_path / "wide.npz", rate_hz=30).describe(Display(60, 1.0, 0.5, (108, 192)))
    assert "off the field" not in line
    assert "flag --movie-rate, the file says 60" in line


def test_another_background_than_the_configured_one_is_said(caplog):
    movies = {5: torch.ones(4, 9, 9)}
    movies[5][2, 3:6, 3:6] = 0.0
    config = {"sampling_rate": 60.0, "mov_res": 1.0, "mov_bg_int": 0.498}
    display = display_of(config, movies)
    assert display.field == (9, 9)
    assert "most pixels at the movies' edges are 1" in caplog.text
    caplog.clear()
    display_of({**config, "mov_bg_int": 1.0}, movies)
    assert not caplog.text
    assert commonest_grey(movies) == 1.0


@pytest.mark.parametrize(("background", "word"), [(0.0, "dark"), (1.0, "bright"), (0.498, None)])
def test_stimuli_that_cannot_be_seen_are_said(background, word, caplog):
    model = SimpleNamespace(display=Display(60.0, 1.0, background, (51, 51)))
    family_stimuli(model, "looming")
    assert [record.args[1] for record in caplog.records] == [word][: bool(word)]


def test_a_lens_of_other_pixels_is_refused():
    """Movies of 0.5 degrees per pixel were blurred half as far as the lens does."""
    settings = {"dataset": {"mov_res": 0.5}, "model": {"pr": {"ds_input": [1, 1]}}}
    line = r"takes pixels of 1 x 1 degrees; set model\.pr\.ds_input=\[0\.5,0\.5\]"
    with pytest.raises(InputError, match=line):
        check_lens(settings)
    settings["model"]["pr"]["ds_input"] = [0.5, 0.502]
    check_lens(settings)
    check_lens({"dataset": {"mov_res": 0.5}})  # of a model's file, which has its own


def test_a_trunk_of_another_rate_is_refused(tiny_args, tiny_run, tmp_path):
    from runs.configuration import compose_settings

    config = json.loads((tiny_run / "config.json").read_text())
    assert config["display"]["rate_hz"] == 60
    config["display"]["rate_hz"] = 180
    trunk = tmp_path / "trunk"
    trunk.mkdir()
    (trunk / "config.json").write_text(json.dumps(config))
    (trunk / "model_chkpnt_2.pt").write_bytes((tiny_run / "model_chkpnt_2.pt").read_bytes())
    settings = compose_settings([*tiny_args, "n_epochs=1", f"trunk={trunk}"])
    with pytest.raises(InputError, match=r"another display than this data set \(Hz: 60 and 180\)"):
        train(settings, run_dir=tmp_path / "run")


def test_a_run_stores_its_display(tiny_run):
    model = model_from_config(read_config(tiny_run / "config.json"))
    assert model.display.field == (51, 51)
    assert model.display.origin["background"] == "dataset.mov_bg_int"
