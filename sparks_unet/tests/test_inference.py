"""Chunks, assembly, prediction of movies, and the command line of the prediction."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import InputError
from common.hashes import sha256
from compare_runs import main as compare_main
from helpers import make_tiny_data, script, write_ini
from inputs.calibration import Calibration
from inputs.datasets import MovieDataset
from inputs.preprocessing import count_chunks, normalise, padding
from load_trainings_predict import main
from network.checkpoints import save_checkpoint
from network.inference_tools import Assembly, predict_probabilities, receptive_reach
from runs.prediction import predict_movie
from runs.training_tools import seeded_model
from settings.config import Params
from settings.read_config import load_config
from test_shared_prediction import decided_model

CPU = torch.device("cpu")

METHODS = ("overlap", "average", "gaussian", "max")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return (INI file, data folder, run folder) with a network that saw nothing yet."""
    folder = tmp_path_factory.mktemp("run")
    data = make_tiny_data(tmp_path_factory.mktemp("data"))
    path = write_ini(folder / "a.ini", data, folder)
    model = seeded_model(load_config(path), CPU)
    save_checkpoint(folder / "tiny", 6, {"network": model.state_dict()})
    return path, data, folder / "tiny"


@pytest.mark.parametrize(
    ("frames", "padded", "chunks"),
    [(200, 256, 1), (500, 512, 9), (904, 928, 22), (1000, 1024, 25), (256, 256, 1)],
)
def test_published_chunks(frames, padded, chunks):
    before, after = padding(frames, 256, 32)
    assert before + frames + after == padded
    assert before == (padded - frames) // 2
    assert count_chunks(padded, 256, 32) == chunks


def test_nine_test_movies_give_158_chunks():
    lengths = [500] * 4 + [1000] * 4 + [904]
    assert sum(count_chunks(n + sum(padding(n, 256, 32)), 256, 32) for n in lengths) == 158


@given(
    frames=st.integers(1, 60),
    duration=st.integers(2, 16),
    data=st.data(),
    method=st.sampled_from(METHODS),
)
@settings(max_examples=60, deadline=None)
def test_assembly_returns_the_frame_index(frames, duration, data, method):
    steps = [s for s in range(1, duration + 1) if method != "overlap" or (duration - s) % 2 == 0]
    stride = data.draw(st.sampled_from(steps))
    pads = padding(frames, duration, stride)
    total = frames + sum(pads)
    index = np.arange(total, dtype=np.float32) - pads[0] + 1
    assembly = Assembly(method, total, duration, stride, 1, (1, 1))
    for chunk in range(count_chunks(total, duration, stride)):
        part = index[chunk * stride : chunk * stride + duration]
        # max keeps the surer chunk: values must not be negative
        assembly.add(chunk, np.maximum(part, 0)[None, :, None, None])
    assembled = assembly.result(pads)[0, :, 0, 0]
    np.testing.assert_allclose(assembled, np.arange(1, frames + 1), rtol=1e-5)


def test_odd_difference_is_refused_with_overlap():
    with pytest.raises(InputError, match="even number with overlap"):
        Assembly("overlap", 20, 8, 3, 4, (2, 2))


@pytest.mark.parametrize("method", METHODS)
def test_prediction_has_the_size_of_the_movie(method):
    params = Params(unet_steps=1, first_layer_channels=2, data_duration=8, data_stride=4)
    model = seeded_model(params, CPU)
    movie = np.random.default_rng(0).integers(0, 5000, (21, 9, 10)).astype(np.uint16)
    values, clean = predict_probabilities(model, movie, params, method=method)
    assert values.shape == (4, 21, 9, 10)
    np.testing.assert_allclose(values.sum(axis=0), 1, atol=1e-4)
    assert clean.min() == 0
    classes, instances, probabilities, peaks = predict_movie(
        model, movie, params, calibration=Calibration.of(0.2, 6.8)
    )
    assert classes.shape == instances.shape == movie.shape
    assert probabilities.shape == (4, *movie.shape)
    assert peaks.shape[1] == 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unet_steps": 2},
        {"dilation": 2},
        {"nn_architecture": "github_unet"},
        {"nn_architecture": "github_unet", "up_mode": "resizeconv_linear", "attention": True},
        {"temporal_reduction": True, "num_channels": 4},
    ],
)
def test_tiles_give_the_whole_frame(changes):
    sizes = {"unet_steps": 1, "first_layer_channels": 2, "data_duration": 8, "data_stride": 8}
    params = Params(norm_video="std_dev", **sizes | changes)
    model = decided_model(params)
    even = params.temporal_reduction or params.attention
    shape = (8, 50, 90) if even else (8, 51, 93)
    movie = np.random.default_rng(0).integers(0, 65535, shape).astype(np.uint16)
    whole, _ = predict_probabilities(model, movie, params, plain=True)
    tiled = dataclasses.replace(params, tile=(15, 0) if even else (7, 22))
    parts, _ = predict_probabilities(model, movie, tiled)
    assert whole.std(axis=(1, 2, 3)).max() > 0.01
    np.testing.assert_allclose(parts, whole, atol=1e-5, rtol=0)


def test_tiles_that_would_change_the_numbers_are_refused():
    sizes = {"first_layer_channels": 8, "data_duration": 8, "data_stride": 8, "tile": (16, 16)}
    movie = np.zeros((8, 51, 93), np.uint16)
    for changes, message in (
        ({"border_mode": "valid"}, "border_mode = valid mirrors"),
        ({"nn_architecture": "github_unet", "batch_normalization": "group4"}, "= group4 takes"),
        ({"temporal_reduction": True, "num_channels": 4}, "no multiple of 2"),
        ({"nn_architecture": "github_unet", "attention": True}, "attention stretches"),
    ):
        params = Params(unet_steps=1, **sizes | changes)
        with pytest.raises(InputError, match=message):
            predict_probabilities(seeded_model(params, CPU), movie, params)


def test_halo_of_the_published_network():
    assert receptive_reach(Params()) == 443


def test_batches_and_borders_change_nothing():
    params = Params(unet_steps=1, first_layer_channels=2, data_duration=8, data_stride=4)
    model = seeded_model(params, CPU)
    movie = np.random.default_rng(0).integers(0, 5000, (30, 8, 8)).astype(np.uint16)
    one, _ = predict_probabilities(model, movie, params, batch_size=1)
    many, _ = predict_probabilities(model, movie, params, batch_size=5)
    np.testing.assert_allclose(one, many, atol=1e-6)


def test_movie_with_sinusoids_and_reduction():
    movie = np.random.default_rng(0).integers(0, 5000, (20, 8, 8)).astype(np.uint16)
    base = {"unet_steps": 1, "first_layer_channels": 2, "data_duration": 8, "data_stride": 4}
    for extra in (
        {"sin_channels": True, "n_sin_channels": (1, 1, 2)},
        {"temporal_reduction": True, "num_channels": 4},
    ):
        params = Params(**base, **extra)
        probabilities, _ = predict_probabilities(seeded_model(params, CPU), movie, params)
        assert probabilities.shape == (4, 20, 8, 8)


def test_constant_movie_has_no_events(caplog):
    params = Params(unet_steps=1, first_layer_channels=2, data_duration=8, data_stride=8)
    movie = np.full((8, 8, 8), 700, np.uint16)
    assert len(MovieDataset(movie, params)) == 1
    assert "no event can be found" in caplog.text
    scaled, _ = normalise(movie, "std_dev")
    assert not scaled.any()


def test_prediction_of_a_file_without_labels(trained, tmp_path):
    path, data, run_dir = trained
    out = tmp_path / "out"
    script("load_trainings_predict.py", path, "--movie", data / "03_video.tif", "--out", out)
    stem = out / "inference_overlap" / "tiny_6_03_overlap"
    with tifffile.TiffFile(f"{stem}_classes.tif") as tif:
        assert tif.series[0].axes == "TYX"
        assert tif.asarray().shape == (24, 16, 80)
        assert tif.imagej_metadata["finterval"] == pytest.approx(0.0068)
    with open(f"{stem}_spark_locations.csv", encoding="utf-8") as handle:
        assert next(csv.reader(handle)) == ["frame", "x", "y"]
    assert not (out / "inference_overlap" / "metrics.json").exists()
    assert run_dir.is_dir()


def test_two_movies_of_one_name_do_not_mix(trained, tmp_path, capsys):
    path, data, run_dir = trained
    for folder, number in (("a", "03"), ("b", "02")):
        (tmp_path / folder).mkdir()
        shutil.copy(data / f"{number}_video.tif", tmp_path / folder / "03_video.tif")
    wanted = [str(path), "--raw-only", "--out", str(tmp_path / "out"), "--movie"]
    for _ in range(2):  # again for the same movie
        assert main([*wanted, str(tmp_path / "a" / "03_video.tif")]) == 0
    out = tmp_path / "out" / "inference_overlap"
    told = json.loads((out / "tiny_6_03_overlap_source.json").read_text())
    assert told["movie"] == str(tmp_path / "a" / "03_video.tif")
    assert told["sha256"] == sha256(data / "03_video.tif")
    assert told["network_sha256"] == sha256(run_dir / "network_000006.pth")
    assert (told["calibration"]["frame_ms"], told["settings"]["stride"]) == (6.8, 4)
    kept = {file.name: file.read_bytes() for file in out.iterdir()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*wanted, str(tmp_path / "b" / "03_video.tif")])
    assert caught.value.code == 2
    assert "another movie of this name" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == kept
    with pytest.raises(SystemExit):
        main([*wanted, str(tmp_path / "a" / "03_video.tif"), "--batch-size", "0"])
    assert "--batch-size: 0: expected a whole number > 0" in capsys.readouterr().err


def test_prediction_with_labels_is_measured(trained, tmp_path, capsys):
    path, _, _ = trained
    arguments = ["--out", str(tmp_path), "--inference", "average", "max", "--stride", "8"]
    assert main([str(path), *arguments, "--overlay", "--compare-strides", "--source"]) == 0
    shown = capsys.readouterr().out
    assert "mean absolute difference of stride 8 and 4" in shown
    for method in ("average", "max"):
        record = json.loads((tmp_path / f"inference_{method}" / "metrics.json").read_text())
        assert record["movies"] == ["03"]
        assert list(tmp_path.glob(f"inference_{method}/*_overlay*.gif"))
        for kind in ("xs", "ys"):
            (stack,) = tmp_path.glob(f"inference_{method}/*_{kind}.tif")
            assert tifffile.imread(stack).shape == (24, 16, 80)
    files = [str(tmp_path / f"inference_{method}" / "metrics.json") for method in ("max", "max")]
    with pytest.raises(SystemExit):  # the table would replace what it is made from
        compare_main([*files, "--draws", "20", "--out", files[0]])
    assert "would replace it" in capsys.readouterr().err
    assert compare_main([*files, "--draws", "20"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "average/detected,0.0000,0.0000,0.0000" in table


@pytest.mark.usefixtures("single_thread")
def test_workers_change_nothing(trained, tmp_path):
    path, _, _ = trained
    # few events, whose fits take most of the time of a network that saw nothing
    options = ["--ids", "01", "02", "03", "--set", "postprocessing.segmentation=threshold"]
    for workers in ("1", "2"):
        out = ["--out", str(tmp_path / workers), "--workers", workers, "--threads", workers]
        assert main([str(path), *options, *out]) == 0
    names = sorted(one.name for one in (tmp_path / "1" / "inference_overlap").iterdir())
    assert len([name for name in names if name.endswith("_events.csv")]) == 3
    for name in names:
        contents = [(tmp_path / n / "inference_overlap" / name).read_bytes() for n in "12"]
        assert contents[0] == contents[1], name


@pytest.mark.slow
@pytest.mark.usefixtures("single_thread")
def test_a_cluster_writes_the_files_of_one_process(trained, tmp_path):
    pytest.importorskip("distributed", reason="requirements-cluster.txt")
    path, _, _ = trained
    options = ["--ids", "01", "02", "03", "--set", "postprocessing.segmentation=threshold"]
    for name, where in (("here", []), ("far", ["--cluster", "local:2"])):
        assert main([str(path), *options, "--out", str(tmp_path / name), *where]) == 0
    folders = [
        {one.name: one.read_bytes() for one in (tmp_path / name / "inference_overlap").iterdir()}
        for name in ("here", "far")
    ]
    assert len([name for name in folders[0] if name.endswith("_events.csv")]) == 3
    assert folders[0] == folders[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "expected at least 1"),
        (["--ids", "99"], "unknown movie id 99"),
        (["--movie", "none.tif"], "none.tif"),
        (["--ids", "03", "--movie", "a.tif"], "give one of them"),
        (["--load-epoch", "5"], "iterations available there: 6"),
        (["--stride", "3"], "even number with overlap"),
        (["--checkpoint", "none.pth"], "no such checkpoint"),
        (["--nonsense"], "unknown argument --nonsense"),
    ],
)
def test_faults_leave_with_code_2(trained, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main([str(trained[0]), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
