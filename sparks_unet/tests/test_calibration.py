"""The scale of a recording: where it comes from, what wins, and what happens without one."""

import numpy as np
import pytest
import tifffile

from analysis.classical import write_classical
from common.files import InputError
from inputs.calibration import Calibration, interval_of_times, scaled_post
from inputs.movie_io import read_movie, write_stack
from settings.recording import Given

STACK = np.random.default_rng(0).integers(0, 60000, (6, 8, 9)).astype(np.uint16)


def ome(path, planes="", **pixels):
    """Write an OME-TIFF whose XML holds ``pixels`` and the element ``planes``."""
    values = {"SizeX": 9, "SizeY": 8, "SizeZ": 1, "SizeC": 1, "SizeT": 6, "ID": "Pixels:0"}
    values |= {"DimensionOrder": "XYZCT", "Type": "uint16", **pixels}
    text = " ".join(f'{key}="{value}"' for key, value in values.items())
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        f'OME/2016-06"><Image ID="Image:0"><Pixels {text}><TiffData/>{planes}</Pixels></Image>'
        "</OME>"
    )
    tifffile.imwrite(path, STACK, description=xml, metadata=None)
    return read_movie(path).calibration


def test_times_of_ome_planes(tmp_path):
    planes = "".join(
        f'<Plane TheZ="0" TheC="0" TheT="{t}" DeltaT="{20 * t}" DeltaTUnit="ms"/>' for t in range(6)
    )
    scale = ome(tmp_path / "a.ome.tif", planes)
    assert scale.frame_ms == pytest.approx(20)
    assert scale.frame_origin == "file: OME DeltaT"
    assert scale.pixel_origin == "unknown"


def test_the_playback_rate_of_imagej_is_no_frame_interval(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX", "fps": 7.0})
    scale = read_movie(tmp_path / "a.tif").calibration
    assert scale.frame_ms is None
    assert scale.frame_origin == "unknown"


@pytest.mark.parametrize(
    ("unit", "resolution", "pixel_um"),
    [("CENTIMETER", 100_000, 0.1), ("INCH", 254_000, 0.1), ("INCH", 72, None), ("NONE", 10, None)],
)
def test_resolution_of_a_plain_tiff(tmp_path, unit, resolution, pixel_um):
    options = {"resolution": (resolution, resolution), "resolutionunit": unit, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", STACK, **options)
    scale = read_movie(tmp_path / "a.tif").calibration
    assert scale.pixel_um == (None if pixel_um is None else pytest.approx(pixel_um))
    assert (scale.pixel_origin == "unknown") == (pixel_um is None)


def test_imagej_unit_inch(tmp_path):
    options = {"imagej": True, "resolution": (254_000, 254_000)}
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata={"axes": "TYX", "unit": "inch"}, **options)
    assert read_movie(tmp_path / "a.tif").calibration.pixel_um == pytest.approx(0.1)


def test_a_pause_moves_no_interval_and_is_told(caplog):
    times = np.array([0.0, 0.02, 0.04, 2.04, 2.06, 2.08])
    assert interval_of_times(times, "a.tif") == pytest.approx(20)
    assert "1 of 5 intervals" in caplog.text
    assert "after frame 2 (2000 ms)" in caplog.text


def test_given_values_win_and_a_difference_is_told(caplog):
    scale = Calibration.of(0.2, 6.8, "file: ImageJ")
    assert scale.given(Given((0.201, 0.201))).pixel_um == 0.201
    assert not caplog.text
    given = scale.given(Given((0.1, 0.1), 20.0, flagged=("pixel_um", "frame_ms")), source="a.tif")
    assert (given.pixel_um, given.frame_ms, given.pixel_origin) == (0.1, 20.0, "flag")
    assert "a.tif: pixel size 0.1 um is used, the file says 0.2 um (file: ImageJ)" in caplog.text
    assert "frame interval 20 ms is used, the file says 6.8 ms" in caplog.text


def test_an_unknown_scale_stops_with_the_flag(tmp_path):
    write_stack(tmp_path / "a.tif", STACK, calibration=Calibration(frame_ms=6.8))
    with pytest.raises(
        InputError, match=r"a\.tif: the file does not say its pixel size: give --pi"
    ):
        write_classical(tmp_path / "a.tif", tmp_path)
    with pytest.raises(
        InputError, match=r"pixel size: .*; nor its frame interval: give --frame-ms"
    ):
        scaled_post(Calibration())


def test_line_and_record_say_the_origins():
    scale = Calibration.of(0.2, 6.8, "file: ImageJ")
    assert (
        scale.line() == "pixel 0.2 um (file: ImageJ), frame 6.8 ms (file: ImageJ), offset unknown"
    )
    assert scale.record()["frame_origin"] == "file: ImageJ"
    assert Calibration().line() == "pixel unknown, frame unknown, offset unknown"
