"""Flow at one size of a pixel, between recorded frames: the speed of tissue at any scanner."""

import json

import cv2
import numpy as np
import pytest

from common.files import InputError
from inputs.flow import farneback_defaults, mean_steps, physical_size
from inputs.frames import make_movie, resampled
from inputs.recipe import Recipe
from little import assert_one_line, call_script, write_dicom
from settings import flow_size_of_text

OPTIONS = {"crop": "none", "grey": "luma", "nrows": 32, "ncols": 32, "resample_fps": 20.0}
FLOW = {**OPTIONS, "flow_unit": "cm_per_s", "flow_size": "1.5mm", "farneback": farneback_defaults()}
SPEED_CM_S = 5.0


def film(path, *, rate_hz, pixel_mm, seconds=0.6, fov_mm=150.0):
    """Write a texture of the same field of view that moves right at SPEED_CM_S; return the path."""
    rng = np.random.default_rng(5)
    step_mm = 0.5
    wide = rng.random((int(fov_mm / step_mm) + 2, int(2 * fov_mm / step_mm))).astype(np.float32)
    wide = cv2.GaussianBlur(wide, (0, 0), 6)  # 3 mm
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    size, frames = int(fov_mm / pixel_mm), []
    y, x = np.mgrid[:size, :size].astype(np.float32) * np.float32(pixel_mm / step_mm)
    for k in range(round(seconds * rate_hz)):
        moved = x + np.float32((fov_mm / 2 - 10 * SPEED_CM_S * k / rate_hz) / step_mm)
        frames.append(cv2.remap(wide, moved, y, cv2.INTER_LINEAR))
    pixel_cm = pixel_mm / 10
    write_dicom(path, np.round(frames).astype(np.uint8), "p01", frame_rate_hz=rate_hz)
    import pydicom

    data = pydicom.dcmread(path)
    region = data.SequenceOfUltrasoundRegions[0]
    region.PhysicalDeltaX = region.PhysicalDeltaY = pixel_cm
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    ("rate_hz", "pixel_mm"), [(25, 1.0), (25, 1.8), (37, 1.3), (80, 1.0), (80, 1.8), (20, 1.5)]
)
def test_the_speed_of_tissue_at_any_depth_and_rate(tmp_path, rate_hz, pixel_mm):
    path = film(tmp_path / "a.dcm", rate_hz=rate_hz, pixel_mm=pixel_mm)
    made = make_movie(path, OPTIONS, FLOW)
    assert len(made.flow) == len(made.grey)
    inner = made.flow[:, 6:-6, 6:-6]
    assert inner[..., 0].mean() == pytest.approx(SPEED_CM_S, rel=0.03)
    assert np.abs(inner[..., 1]).mean() < 0.1 * SPEED_CM_S


def test_pixels_per_frame_of_the_same_way(tmp_path):
    path = film(tmp_path / "a.dcm", rate_hz=50, pixel_mm=1.0)
    flow = make_movie(path, OPTIONS, FLOW | {"flow_unit": "px_per_frame"}).flow
    # 50 mm/s over 1/20 s, in pixels of 1 mm of the full-size picture.
    assert flow[:, 6:-6, 6:-6, 0].mean() == pytest.approx(2.5, rel=0.03)


def test_mean_steps_are_parts_of_steps():
    steps = np.arange(1.0, 7).reshape(6, 1, 1, 1) * np.ones((1, 2, 3, 2))
    times_s = np.arange(7) / 60
    half = mean_steps(steps, times_s, 20.0)  # three steps an interval
    np.testing.assert_allclose(half[:, 0, 0, 0], [6, 15])
    np.testing.assert_allclose(mean_steps(steps, times_s, 60.0), steps)
    np.testing.assert_allclose(
        mean_steps(steps, times_s, 120.0)[:, 0, 0, 0], np.repeat(steps[:, 0, 0, 0] / 2, 2)
    )
    uneven = mean_steps(steps[:3], np.array([0, 0.1, 0.15, 0.4]), 10.0)  # 1, 2 in 0.05 s, 3 in 0.25
    np.testing.assert_allclose(uneven[:, 0, 0, 0], [1, 2 + 3 / 5, 6 / 5, 6 / 5], rtol=1e-6)


@pytest.mark.parametrize("rate_hz", [25, 29.97, 33, 50, 60, 80.1])
@pytest.mark.parametrize("n", [2, 3, 31, 60])
def test_a_flow_for_every_resampled_frame(rate_hz, n):
    frames = np.zeros((n, 4, 4), np.float32)
    there = len(list(resampled(frames, rate_hz, 20.0)))
    steps = np.zeros((n - 1, 4, 4, 2), np.float32)
    assert len(mean_steps(steps, np.arange(n) / rate_hz, 20.0)) + 1 == max(there, 1)


def test_what_it_needs_is_told(tmp_path):
    path = film(tmp_path / "a.dcm", rate_hz=50, pixel_mm=1.5)
    with pytest.raises(InputError, match=r"20 x 20 at --flow_size 7\.5mm"):
        make_movie(path, OPTIONS, FLOW | {"flow_size": "7.5mm"})
    with pytest.raises(InputError, match=r"no pixel size in cm .* --flow_size 1.5mm"):
        physical_size((100, 100), FLOW, {"pixel_cm": None})
    bare = write_dicom(
        tmp_path / "b.dcm", np.zeros((9, 64, 64), np.uint8) + 9, "p", FrameTime=None, CineRate=None
    )
    with pytest.raises(InputError, match="no frame rate"):
        make_movie(bare, OPTIONS, FLOW | {"flow_unit": "px_per_frame"})


@pytest.mark.parametrize(
    ("text", "size"), [("240x320", (240, 320)), ("1.50mm", "1.5mm"), (".5 mm", "0.5mm")]
)
def test_flow_size_as_written(text, size):
    assert flow_size_of_text(text) == size


@pytest.mark.parametrize("text", ["mm", "0mm", "9mm", "1.5", "1,5mm", "20x20", "1e0mm", "-1mm"])
def test_no_flow_size(text):
    done = call_script("optical_flow_calculator.py", "--root", "x", f"--flow_size={text}")
    assert_one_line(done, "--flow_size", text)


def test_the_recipe_holds_it():
    grey = {"mean": 0.0, "std": 1.0, "options": OPTIONS}
    flow = json.loads(json.dumps({"mean": 0.0, "std": 1.0, "options": FLOW}))
    recipe = Recipe.of_stats(grey, flow, "here")
    flow["options"]["flow_size"] = None
    other = Recipe.of_stats(grey, flow, "here")
    assert recipe.making != other.making
    assert recipe.differences(other) == ["flow_size 1.5mm -> None"]
    assert "flow at 1.5mm a pixel, between the frames as recorded, in cm/s" in recipe.line()
