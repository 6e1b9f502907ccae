"""Real recordings go through reading, preprocessing and flow (--real DIR). Checks 5 to 7."""

import csv

import cv2
import numpy as np
import pydicom
import pytest

from inputs.crop import sector_mask
from inputs.dicom_io import read_frames
from inputs.echonet import prepare
from inputs.video import read_video
from little import call_script
from settings import echonet_settings

pytestmark = pytest.mark.data

EF = {  # percent, from the list of the data set
    "0X10A28877E97DF540": 63.1,
    "0X1167650B8BEFF863": 68.2,
    "0X132C1E8DBB715D1D": 65.3,
    "0X13CE2039E2D706A": 25.4,
    "0X18BA5512BE5D6FFA": 55.3,
    "0X1E12EEE43FD913E5": 63.2,
}


def real(folder, name):
    path = folder / name
    if not path.is_file():
        pytest.skip(f"no {name} in {folder}")
    return path


@pytest.fixture
def root(real_dir, tmp_path):
    """A data set of the four real DICOM files, class files for their ids."""
    ids = set()
    for name in (
        "plax_jpeg_baseline_40f.dcm",
        "examples_ybr_color.dcm",
        "OBXXXX1A_rle_2frame.dcm",
        "US-PAL-8-10x-echo.dcm",
    ):
        data = pydicom.dcmread(real(real_dir, name))
        if not data.get("PatientID"):  # the palette echo has none
            data.PatientID = "nameless1"
        data.save_as(tmp_path / name)
        ids.add(str(data.PatientID))
    rows = "".join(f"{name},severe\n" for name in sorted(ids))
    (tmp_path / "REDcap_class.csv").write_text(rows)
    return tmp_path


def test_four_chamber_movie_through_preprocess_and_flow(root):
    refused = call_script("preprocess.py", "--root", root)
    assert refused.returncode == 2
    assert "PatientName" in refused.stderr
    done = call_script("preprocess.py", "--root", root, "--deid", "warn")
    assert done.returncode == 0, done.stderr
    assert "30 frames, 32 needed" in done.stdout
    with open(root / "manifest.csv", newline="") as handle:
        rows = {row["source"]: row for row in csv.DictReader(handle)}
    stem = rows["plax_jpeg_baseline_40f.dcm"]["name"]
    assert rows["plax_jpeg_baseline_40f.dcm"]["status"] == "processed"
    assert float(rows["US-PAL-8-10x-echo.dcm"]["fps"]) == pytest.approx(1000 / 76, abs=1e-3)
    movie = np.load(root / "processed_dicoms" / f"{stem}.npy")
    assert movie.shape == (40, 112, 112, 1)
    assert movie.dtype == np.uint8
    assert movie.max() == 255
    report = (root / "deid_report.csv").read_text()
    assert "PatientName" in report
    assert "PLA" not in report
    done = call_script("optical_flow_calculator.py", "--root", root)
    assert done.returncode == 0, done.stderr
    flow = np.load(root / "processed_OF" / f"{stem}.npy")
    assert flow.shape == (40, 112, 112, 2)
    assert np.isfinite(flow).all()
    assert 0.1 < np.hypot(flow[..., 0], flow[..., 1]).mean() < 5


def test_regions_and_palette(real_dir):
    frames, info = read_frames(real(real_dir, "examples_ybr_color.dcm"), crop="region")
    assert frames.shape == (30, 240, 320)
    assert any("outside the frame" in note for note in info["warnings"])
    frames, info = read_frames(real(real_dir, "plax_jpeg_baseline_40f.dcm"), crop="region")
    assert frames.shape == (40, 384, 512)
    assert info["frame_rate_hz"] == pytest.approx(30, abs=0.01)
    path = real(real_dir, "OBXXXX1A_rle_2frame.dcm")
    frames, _ = read_frames(path)
    assert abs(frames[0].mean() - pydicom.dcmread(path).pixel_array[0].mean()) > 1


def test_sector_of_the_ten_frame_echo_leaves_most_text_out(real_dir):
    frames, _ = read_frames(real(real_dir, "US-PAL-8-10x-echo.dcm"))
    mask = sector_mask(frames)
    still = (frames.max(axis=0) > 100) & (np.ptp(frames, axis=0) <= 2)  # text and bars
    assert 0.1 < mask.mean() < 0.7
    assert (still & mask).sum() < 0.3 * still.sum()


def test_echonet_clips(real_dir, tmp_path):
    (tmp_path / "Videos").mkdir()
    lines = ["FileName,EF,Split"]
    for k, (name, ef) in enumerate(EF.items()):
        frames, _ = read_video(real(real_dir, f"{name}.mp4"))
        clip = frames[:48, :, :112].round().astype(np.uint8)  # the left half is the clip
        fourcc = cv2.VideoWriter_fourcc(*"MJPG")
        target = str(tmp_path / "Videos" / f"{name}.avi")
        writer = cv2.VideoWriter(target, fourcc, 50, (112, 112))
        for frame in clip:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        writer.release()
        lines.append(f"{name},{ef},{'TRAIN' if k < 4 else 'VAL'}")
    (tmp_path / "FileList.csv").write_text("\n".join(lines))
    assert prepare(tmp_path, echonet_settings(dtype="float32")) == 0
    movies = sorted(tmp_path.glob("*_norm1/*.npy"))
    flows = sorted(tmp_path.glob("*_norm_OF/*.npy"))
    assert len(movies) == len(flows) == 6
    for grey, flow in zip(movies, flows, strict=True):
        assert np.load(grey).shape == (48, 112, 112, 1)
        assert np.isfinite(np.load(flow)).all()


def test_sector_of_the_full_picture(real_dir):
    frames, rate = read_video(real(real_dir, "echonet_Example1.mp4"))
    assert frames.shape == (120, 582, 582)
    assert rate == pytest.approx(30, abs=0.1)
    assert 0.2 < sector_mask(frames).mean() < 0.8
