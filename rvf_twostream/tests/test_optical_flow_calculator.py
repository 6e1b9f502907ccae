"""optical_flow_calculator.py: units, sizes, options, bad inputs."""

import json

import numpy as np
import pytest

from common.files import InputError
from inputs.flow import flow_of_frames, video2OF
from little import (
    assert_one_line,
    call_script,
    compute_flow,
    preprocess,
    run_script,
    texture,
    write_data_set,
    write_dicom,
)


def inner(flow):
    return flow[:-1, 20:-20, 20:-20].mean(axis=(0, 1, 2))


def test_a_texture_that_moves_one_pixel_right_and_down_has_flow_one():
    right = texture(6, 200, 240).astype(np.float32)
    flow = video2OF(right)
    assert flow.shape == (6, 112, 112, 2)
    np.testing.assert_allclose(inner(flow), (1, 0), atol=0.05)
    np.testing.assert_array_equal(flow[-1], flow[-2])
    np.testing.assert_allclose(inner(video2OF(right.transpose(0, 2, 1))), (0, 1), atol=0.05)


def test_per_second_and_flow_size_keep_the_meaning_of_the_unit():
    frames = texture(4, 200, 240).astype(np.float32)
    np.testing.assert_allclose(inner(video2OF(frames, frame_rate_hz=30.0)), (30, 0), atol=1.5)
    np.testing.assert_allclose(inner(video2OF(frames, flow_size=(100, 120))), (1, 0), atol=0.1)


def test_deep_grey_values_are_brought_to_8_bits():
    frames = texture(4, 120, 120).astype(np.float32)
    options = {"nrows": 112, "ncols": 112, "flow_size": None, "per_second": False, "farneback": {}}
    shallow = flow_of_frames(frames, options, {"bits_stored": 8, "frame_rate_hz": None})
    deep = flow_of_frames(frames * (65535 / 255), options, {"bits_stored": 16})
    np.testing.assert_allclose(deep, shallow, atol=1e-3)
    info = {"bits_stored": 8, "frame_rate_hz": None}
    with pytest.raises(InputError, match="FrameTime"):
        flow_of_frames(frames, {**options, "per_second": True}, info)


def test_script(tmp_path):
    root = write_data_set(tmp_path / "set", ids=("p01", "p02"))
    assert_one_line(call_script("optical_flow_calculator.py", "-r", root), "run preprocess.py")
    assert preprocess(root, nrows=40, ncols=48) == 0
    done = call_script("optical_flow_calculator.py", "-r", root)
    assert_one_line(done, "--nrows 112", "40 x 48")
    done = run_script("optical_flow_calculator.py", "-r", root, "--nrows", 40, "--ncols", 48)
    assert done.returncode == 0, done.stderr
    flows = [np.load(root / "processed_OF" / f"p0{k}a.npy") for k in (1, 2)]
    assert flows[0].shape == (34, 40, 48, 2)
    assert flows[0].dtype == np.float16
    stats = json.loads((root / "data_mean_std_OF.json").read_text())
    mean = np.mean([f.astype(float).mean() for f in flows])
    std = np.sqrt(np.mean([f.astype(float).var() for f in flows]))
    np.testing.assert_allclose([stats["mean"], stats["std"]], [mean, std], atol=1e-9)
    assert stats["values"] == "raw"
    with pytest.raises(InputError, match="other options"):
        compute_flow(root, nrows=40, ncols=48, per_second=True)
    assert compute_flow(root, nrows=40, ncols=48, per_second=True, recalculate=True) == 0
    fast = np.load(root / "processed_OF" / "p02a.npy")
    np.testing.assert_allclose(fast, 30 * flows[1], rtol=2e-3, atol=1e-3)


def test_a_damaged_dicom_is_a_failure_after_all_others(tmp_path, capsys):
    root = write_data_set(tmp_path / "set", ids=("p01", "p02"))
    assert preprocess(root) == 0
    path = root / "severe" / "p02a.dcm"
    path.unlink()
    write_dicom(path, texture(34), "p02", NumberOfFrames=40)
    assert compute_flow(root) == 1
    assert "34 complete frames found, 40 expected" in capsys.readouterr().err
    assert (root / "processed_OF" / "p01a.npy").exists()
    assert not (root / "processed_OF" / "p02a.npy").exists()


def test_no_flow_is_made_of_another_file_than_the_movie(tmp_path, capsys):
    root = write_data_set(tmp_path / "set", ids=("p01", "p02"))
    assert preprocess(root) == 0
    path = root / "severe" / "p02a.dcm"
    path.unlink()
    write_dicom(path, texture(34, seed=9), "p02")
    assert compute_flow(root) == 1
    assert "p02a.dcm: changed since preprocess.py read it" in capsys.readouterr().err
    assert not (root / "processed_OF" / "p02a.npy").exists()
    assert preprocess(root) == 0
    assert compute_flow(root) == 0
    assert (root / "processed_OF" / "p02a.npy").exists()
