"""Probabilities that are written as they are found are those of the whole movie."""

import mmap
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from helpers import make_tiny_data, write_ini
from inputs import lazy_movie
from inputs.calibration import Calibration
from inputs.movie_io import read_stack
from inputs.movie_state import look_at
from inputs.pages import extremes, forget_pages, frames_of
from load_trainings_predict import main
from network.checkpoints import save_checkpoint
from network.inference_tools import predict_probabilities
from runs.streamed_prediction import can_be_streamed, write_probabilities
from runs.training_tools import seeded_model
from settings.config import Params
from settings.read_config import load_config

CPU = torch.device("cpu")
SMALL = {"unet_steps": 2, "first_layer_channels": 2, "data_duration": 16, "data_stride": 4}


@pytest.mark.parametrize(
    "changes", [{}, {"raw_bits": 24}, {"border_mode": "valid", "unet_steps": 1, "raw_bits": 0}]
)
def test_same_probabilities_as_of_the_whole_movie(tmp_path, changes):
    params = Params(**SMALL | changes)
    model = seeded_model(params, CPU)
    movie = np.random.default_rng(0).integers(0, 5000, (41, 12, 20)).astype(np.uint16)
    assert can_be_streamed(params, "overlap")
    scale = Calibration.of(0.2, 6.8)
    written = write_probabilities(model, movie, params, tmp_path / "a", calibration=scale)
    wanted, _ = predict_probabilities(model, movie, params, method="overlap")
    for number, kind in ((1, "sparks"), (2, "waves"), (3, "puffs")):
        stack = read_stack(written[f"raw_{kind}"])
        limit = 0 if "raw_bits" in changes else 2.0**-15  # rounded to steps of 2^-14
        assert np.abs(stack.data - wanted[number]).max() <= limit
        assert (stack.calibration.pixel_um, stack.calibration.frame_ms) == (0.2, 6.8)


def test_movie_in_a_file_keeps_no_pages(tmp_path):
    counts = np.random.default_rng(0).integers(0, 5000, (20, 64, 64)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", counts)
    movie = np.ascontiguousarray(tifffile.memmap(tmp_path / "a.tif", mode="r"))
    params = Params(**SMALL)
    lazy = lazy_movie.LazyMovie(movie, params)
    np.testing.assert_array_equal(lazy.prepared(), lazy_movie.LazyMovie(counts, params).prepared())
    base = movie
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)  # the movie was not copied


def test_written_memory_is_never_given_back():
    movie = np.arange(12).reshape(3, 2, 2)
    forget_pages(movie)
    forget_pages(movie[1:])
    np.testing.assert_array_equal(movie.ravel(), np.arange(12))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc on this system")
def test_a_movie_in_a_file_is_read_without_filling_the_memory(tmp_path):
    counts = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint16, (400, 256, 512))
    counts[::50, 3, 3] = 7  # 105 MB, nearly all of it a hole in the file
    counts.flush()
    del counts
    movie = np.load(tmp_path / "a.npy", mmap_mode="r")

    def mapped_mb():
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"RssFile:\s+(\d+)", text)[1]) / 1e3

    before, seen = mapped_mb(), []
    for t, frame in enumerate(frames_of(movie)):
        assert frame.shape == (256, 512)
        assert frame[3, 3] == (7 if t % 50 == 0 else 0)
        seen.append(mapped_mb())
    assert len(seen) == 400
    assert max(seen) - before < 40
    assert extremes(movie) == (0, 7)
    look_at(movie)
    assert mapped_mb() - before < 40


@pytest.mark.usefixtures("single_thread")
def test_raw_only_writes_while_it_predicts(tmp_path, monkeypatch):
    data = make_tiny_data(tmp_path / "data")
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    model = seeded_model(load_config(path), CPU)
    save_checkpoint(tmp_path / "tiny", 6, {"network": model.state_dict()})

    def refuse(*_args, **_options):
        raise AssertionError("the whole movie was predicted in memory")

    monkeypatch.setattr("runs.prediction.predict_probabilities", refuse)
    flags = ["--raw-only", "--out", str(tmp_path / "out"), "--set", "dataset.norm_video=abs_max"]
    assert main([str(path), "--ids", "03", *flags]) == 0
    names = sorted(one.name for one in (tmp_path / "out" / "inference_overlap").iterdir())
    kinds = [one for one in names if one.endswith(".tif")]
    assert [one.rpartition("_")[2] for one in kinds] == ["puffs.tif", "sparks.tif", "waves.tif"]
