"""Splits joined into one frame, from new runs and from old results."""

import json

import numpy as np
import pytest
import torch

from common.files import InputError
from helpers import call, run_script
from inputs.movie_files import read_movie, write_tiff
from inputs.resizing import crop_numpy_width
from runs.combining import background, concat_weight_tensors

F, HEIGHT, WIDTH, N_TEST = 20, 4, 11, 6
TARGET = (2, 5)  # lies in the second of three splits (4, 4 and 3 columns)


@pytest.fixture
def results(tmp_path):
    """Movie, splits and results_1..3 whose weighted input at step 1 is the movie itself."""
    movie = np.random.default_rng(0).random((F, HEIGHT, WIDTH), np.float32)
    write_tiff(tmp_path / "movie.tif", movie)
    crop_numpy_width(movie, tmp_path / "splits", None, 3, target_rc=TARGET)
    told = json.loads((tmp_path / "splits" / "splits.json").read_text())
    for index, entry in enumerate(told["splits"]):
        strip = movie[-N_TEST:, :, entry["left"] : entry["right"]].reshape(N_TEST, -1)
        pixels = np.arange(strip.shape[1])
        if entry["contains_target"]:
            pixels = np.delete(pixels, entry["target_column"])
        folder = tmp_path / f"results_{index + 1}"
        folder.mkdir()
        weighted = np.zeros((N_TEST, 9, len(pixels)), np.float32)
        weighted[:, 1] = strip[:, pixels]
        torch.save(torch.from_numpy(weighted), folder / "weight_tensor_rs.pt")
        attention = np.full((N_TEST, len(pixels)), 1 / len(pixels), np.float32)
        target = entry["target_column"] if entry["contains_target"] else -1
        np.savez(
            folder / "attention.npz", attention=attention, feature_pixels=pixels,
            target_pixels=[target], shape=[HEIGHT, entry["width"]], first_frame=F - N_TEST, T=10,
            permutation=np.arange(len(pixels)),
        )  # fmt: skip
    return tmp_path


def words(root):
    """Return the flags of combine_weights.py for the splits in ``root``."""
    return ["--root_folder", root, "--video", root / "movie.tif", "--splits",
            root / "splits" / "splits.json", "--out_dir", root / "combined"]  # fmt: skip


def test_joined_frame_is_the_movie_with_zero_at_the_target(results):
    expected = read_movie(results / "movie.tif")[-N_TEST:]
    expected[:, TARGET[0], TARGET[1]] = 0
    for splits in (results / "splits" / "splits.json", None):
        joined = concat_weight_tensors(results, splits=splits, raw=True)
        np.testing.assert_array_equal(joined["maps"], expected)
        assert joined["target_pixels"] == [TARGET[0] * WIDTH + TARGET[1]]
        assert joined["n_total"] == F
    scaled = concat_weight_tensors(results)["maps"]
    np.testing.assert_allclose(scaled[:, :, :4], expected[:, :, :4] * 16, rtol=1e-6)
    np.testing.assert_allclose(scaled[:, :, 4:8], expected[:, :, 4:8] * 15, rtol=1e-6)


def test_uniform_attention_is_one_in_every_split(results):
    maps = concat_weight_tensors(results, kind="attention")["maps"]
    maps[:, TARGET[0], TARGET[1]] = 1
    np.testing.assert_allclose(maps, 1, rtol=1e-6)


def test_numbers_from_zero_and_beyond_nine(results):
    for index in (1, 2, 3):
        (results / f"results_{index}").rename(results / f"results_{index - 1}")
    first = concat_weight_tensors(results, raw=True)["maps"]
    assert first.shape == (N_TEST, HEIGHT, WIDTH)
    for index in range(3, 12):  # text order would put results_10 behind results_1
        folder = results / f"results_{index}"
        folder.mkdir()
        for name in ("weight_tensor_rs.pt", "attention.npz"):
            (folder / name).write_bytes((results / "results_0" / name).read_bytes())
    many = concat_weight_tensors(results, raw=True)["maps"]
    assert many.shape == (N_TEST, HEIGHT, WIDTH + 9 * 4)
    np.testing.assert_array_equal(many[:, :, :WIDTH], first)


def test_old_results_need_height_and_target_place(results):
    for index in range(1, 4):
        (results / f"results_{index}" / "attention.npz").unlink()
    local = TARGET[0] * 4 + TARGET[1] - 4
    joined = concat_weight_tensors(results, height=HEIGHT, target_local=local, raw=True)
    assert joined["target_pixels"] == [TARGET[0] * WIDTH + TARGET[1]]
    for options, word in (
        ({}, "height"),
        ({"height": HEIGHT}, "--target_local"),
        ({"height": 5, "target_local": 1}, "--height"),
        ({"height": HEIGHT, "target_local": local, "frameNo": 7}, "expected 7"),
    ):
        with pytest.raises(InputError, match=word):
            concat_weight_tensors(results, **options)


def test_gap_other_frames_and_other_splits_are_refused(results):
    record = results / "splits" / "splits.json"
    told = json.loads(record.read_text())
    other = results / "other.json"
    other.write_text(json.dumps(told | {"target_col": 0}))
    with pytest.raises(InputError, match="results_1"):
        concat_weight_tensors(results, splits=other)
    other.write_text(json.dumps(told | {"splits": told["splits"][:2]}))
    with pytest.raises(InputError, match="2 splits"):
        concat_weight_tensors(results, splits=other)
    other.write_text("[]")
    with pytest.raises(InputError, match=r"other\.json"):
        concat_weight_tensors(results, splits=other)
    tensor = torch.load(results / "results_3" / "weight_tensor_rs.pt", weights_only=True)
    torch.save(tensor[:-1], results / "results_3" / "weight_tensor_rs.pt")
    with pytest.raises(InputError, match="results_3 5 frames"):
        concat_weight_tensors(results, splits=record)
    (results / "results_2").rename(results / "kept")
    with pytest.raises(InputError, match="without results_2"):
        concat_weight_tensors(results, splits=record)
    with pytest.raises(InputError, match="no folder"):
        concat_weight_tensors(results / "splits")


def test_background_is_the_test_part(results):
    maps = np.zeros((N_TEST, HEIGHT, WIDTH))
    movie = read_movie(results / "movie.tif")
    np.testing.assert_array_equal(background(results / "movie.tif", maps, F), movie[-N_TEST:])
    write_tiff(results / "part.tif", movie[-N_TEST:])
    np.testing.assert_array_equal(background(results / "part.tif", maps, 0), movie[-N_TEST:])
    with pytest.raises(InputError, match="20 frames"):
        background(results / "movie.tif", maps, 0)
    with pytest.raises(InputError, match="4 x 11"):
        background(results / "movie.tif", maps[:, :, :5], F)


def test_script_writes_the_movie(results):
    done = run_script("combine_weights.py", *words(results))
    assert done.returncode == 0, done.stderr
    out = results / "combined"
    assert read_movie(out / "heatmap_final.mp4", gray=True).shape[0] == N_TEST
    assert np.load(out / "combined.npy").shape == (N_TEST, HEIGHT, WIDTH)
    names = [
        "combined.json",
        "combined.npy",
        "heatmap_final.gif",
        "heatmap_final.mp4",
        "mean_map.csv",
        "mean_map.png",
    ]
    assert sorted(path.name for path in out.iterdir()) == names


def test_script_refuses_in_one_line(results):
    (results / "results_2").rename(results / "kept")
    done = call("combine_weights.py", *words(results))
    assert done.returncode == 2
    assert "results_2" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (results / "combined").exists()


def test_the_joined_maps_tell_what_they_are(results):
    assert call("combine_weights.py", *words(results)).returncode == 0
    told = json.loads((results / "combined" / "combined.json").read_text())
    assert (told["map"], told["values"]) == ("attention", "N_i alpha")
    assert (told["first_frame"], told["target_pixels"]) == (F - N_TEST, [2 * WIDTH + 5])
    done = call("combine_weights.py", *words(results), "--map", "reference", "--raw")
    assert done.returncode == 0, done.stderr
    told = json.loads((results / "combined" / "combined.json").read_text())
    assert (told["map"], told["values"]) == ("reference", "|alpha x| at step 1")
    done = call("combine_weights.py", *words(results), "--height", HEIGHT + 1)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"--height: found {HEIGHT + 1}, expected {HEIGHT}" in done.stderr


def test_splits_of_one_width_in_another_order_are_refused(results):
    def tell(crops):
        for index, crop in enumerate(crops, start=1):
            told = {"settings": {"data": f"splits/crop_{crop}.csv"}}
            (results / f"results_{index}" / "settings.json").write_text(json.dumps(told))

    tell((0, 1, 2))
    whole = concat_weight_tensors(results, raw=True)["maps"]
    assert whole.shape == (N_TEST, HEIGHT, WIDTH)
    for crops in ((2, 1, 0), (0, 0, 2)):
        tell(crops)
        with pytest.raises(InputError, match=f"was trained on crop_{crops[0] or crops[1]}.csv"):
            concat_weight_tensors(results, raw=True)
