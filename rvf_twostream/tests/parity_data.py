"""Parity checks of reading, flow, augmentation and published pickles, used by test_parity.py.

Every function takes the path of a fixture and takes all sizes from its arrays.
"""

import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from common.files import InputError
from inputs.augment import rotation_matrix, translation_matrix, warp_clip, zoom_matrix
from inputs.dicom_io import to_grey
from inputs.flow import video2OF
from inputs.frames import movie_from_frames
from inputs.published_files import checked, convert_root, read_pickle
from inputs.scaling import dataset_mean_std, zscore


def check_preprocess_flow(path):
    """Grey conversion, movies, mean and standard deviation, flow. Check 4."""
    given = np.load(path, allow_pickle=False)
    names = [key.removesuffix("_frames") for key in given.files if key.endswith("_frames")]
    sources = {}
    for name in sorted({*names} - {"flow"}):
        frames = given[f"{name}_frames"]
        if frames.ndim < 4:
            sources[name] = frames.astype(np.float32)
            _check_movie(given, f"{name}_movie_ref", sources[name], 0.01)
        else:
            sources[name] = to_grey(frames)
            swapped = to_grey(frames, "reference")
            np.testing.assert_allclose(swapped, given[f"{name}_list_ref"], atol=1e-3)
            np.testing.assert_allclose(sources[name], given[f"{name}_luma_correct"], atol=1e-3)
            _check_movie(given, f"{name}_movie_ref", swapped, 0.01)
        _check_movie(given, f"{name}_movie_correct", sources[name], 1e-5)
    assert sources
    if "norm_mean_std" in given:
        _check_normalisation(given, sources)
    colour = [name for name in sources if given[f"{name}_frames"].ndim == 4]
    _check_flow(given, sources[colour[0]] if colour else None)


def _check_movie(given, key, frames, tolerance):
    if key in given:
        movie = movie_from_frames(frames, *given[key].shape[1:3])
        np.testing.assert_allclose(movie, given[key], atol=tolerance)


def _check_normalisation(given, sources):
    """The published movies, of colour the right ones: theirs have green and blue exchanged."""
    movies = {}
    for name in sources:
        kind = "correct" if given[f"{name}_frames"].ndim == 4 else "ref"
        if f"{name}_movie_{kind}" in given:
            movies[name] = given[f"{name}_movie_{kind}"]
    pairs = [(m.mean(dtype=np.float64), m.var(dtype=np.float64)) for m in movies.values()]
    np.testing.assert_allclose(dataset_mean_std(pairs), given["norm_mean_std"], atol=1e-6)
    scaled = [name for name in movies if f"norm_{name}" in given]
    assert scaled
    for name in scaled:
        normal = zscore(movies[name], *given["norm_mean_std"])
        np.testing.assert_allclose(normal, given[f"norm_{name}"], atol=1e-6)


def _check_flow(given, luma):
    frames = given["flow_frames"]
    wanted = given["flow_resized_ref"]
    for kind in (np.uint8, np.float32):
        flow = video2OF(frames.astype(kind), nrows=wanted.shape[1], ncols=wanted.shape[2])
        assert flow.shape == wanted.shape
        np.testing.assert_allclose(flow, wanted, atol=1e-4)
    np.testing.assert_array_equal(flow[-1], flow[-2])
    # Keys name two frames and the rows they hold: flow_full_01_rows40_80 is rows 40 to 79.
    for key in given.files:
        if key.startswith("flow_full_"):
            first, second, top, end = (
                int(part) for part in re.search(r"_(\d)(\d)_rows(\d+)_(\d+)$", key).groups()
            )
            pair = (luma if "luma" in key else frames)[[first, second]]
            flow = video2OF(pair, nrows=pair.shape[1], ncols=pair.shape[2])
            np.testing.assert_allclose(flow[0, top:end], given[key], atol=1e-4)


def check_augment(path):
    """Rotation, translation and zoom against scikit-image. Check 17."""
    given = np.load(path, allow_pickle=False)
    clip = given["clip"].astype(np.float32)
    _, r, c, _ = clip.shape
    for key in given.files:
        kind, _, index = key.rpartition("_")
        if kind == "rotate" and index.isdigit():
            angle = float(given[f"rotate_angle_{index}"])
            error = np.abs(warp_clip(clip, rotation_matrix(angle, r, c)) - given[key])
            assert error.mean() < 0.01
            assert error.max() < 0.06
        elif kind == "translate" and index.isdigit():
            dx, dy = given[f"translate_xy_{index}"]
            moved = warp_clip(clip, translation_matrix(dx, dy))
            np.testing.assert_allclose(moved, given[key], atol=1e-6)
        elif key.startswith("zoom") and f"{key}_params" in given:
            scale, size, row, col = given[f"{key}_params"]
            assert int(r * scale) == size
            zoomed = warp_clip(clip, zoom_matrix(scale, r, c, row, col))
            wanted = given[key]
            assert zoomed.shape == wanted.shape
            for channel in range(wanted.shape[-1]):
                pair = zoomed[..., channel].ravel(), wanted[..., channel].ravel()
                assert np.corrcoef(*pair)[0, 1] > 0.995


def check_reference_pickles(folder):
    """Published pickles convert; a malicious one is refused. Check 9."""
    expected = np.load(Path(folder) / "expected.npz", allow_pickle=False)
    with tempfile.TemporaryDirectory() as copy:
        copy = Path(copy) / "set"
        shutil.copytree(folder, copy)
        refused = sorted(copy.glob("*must_be_refused*.pkl"))
        for path in refused:
            with pytest.raises(InputError, match="refused"):
                read_pickle(path)
            path.unlink()
        convert_root(copy)
        pickles = sorted(copy.glob("*.pkl"))
        assert pickles
        compared = 0
        for path in pickles:
            value = checked(path, read_pickle(path))
            if isinstance(value, np.ndarray):
                written = np.load(path.with_suffix(".npy"), allow_pickle=False)
                np.testing.assert_array_equal(written, value)
                names = [k for k in expected.files if expected[k].shape == value.shape]
                assert any(np.array_equal(expected[k].astype(np.float32), value) for k in names)
                compared += 1
            elif not isinstance(value, int | float):
                assert path.with_suffix(".json").is_file()
        assert compared == len(expected.files)


CHECKS = {
    "preprocess_flow": check_preprocess_flow,
    "augment": check_augment,
    "reference_pickles": check_reference_pickles,
}
