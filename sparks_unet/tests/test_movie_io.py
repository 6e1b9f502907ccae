"""TIFF reading and writing: round trips, calibration, and every fault as one clear line."""

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.files import InputError
from inputs.calibration import Calibration
from inputs.movie_io import (
    label_warnings,
    movie_ids,
    read_class_labels,
    read_event_labels,
    read_movie,
    write_stack,
)

STACK = (np.random.default_rng(0).random((6, 9, 11)) * 60000).astype(np.uint16)
FRAME_TIMES = "\r\n".join(f"{i}\t{0.0072 * i:.4f}\tx" for i in range(len(STACK)))
WRITERS = {
    "imagej": lambda path: write_stack(path, STACK, calibration=Calibration.of(0.2, 6.8)),
    "pages": lambda path: tifffile.imwrite(path, STACK, contiguous=False, metadata=None),
    "shaped": lambda path: tifffile.imwrite(path, STACK),
    "zlib": lambda path: tifffile.imwrite(path, STACK, compression="zlib"),
    "bigtiff": lambda path: tifffile.imwrite(path, STACK, bigtiff=True),
    "big endian": lambda path: tifffile.imwrite(path, STACK, byteorder=">"),
    "one channel": lambda path: tifffile.imwrite(
        path, STACK[:, None], imagej=True, metadata={"axes": "TCYX"}
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_layout_reads_back(tmp_path, kind):
    WRITERS[kind](tmp_path / "01_video.tif")
    movie = read_movie(tmp_path / "01_video.tif")
    np.testing.assert_array_equal(movie.data, STACK)
    assert movie.data.dtype == np.uint16
    assert movie.data.dtype.isnative


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "float32"])
def test_written_stack_has_axes_and_calibration(tmp_path, dtype):
    array = (STACK > 30000) if dtype == "bool" else STACK.astype(dtype)
    path = write_stack(tmp_path / "a.tif", array, calibration=Calibration.of(0.267, 7.2))
    movie = read_movie(path)
    np.testing.assert_array_equal(movie.data, array)
    scale = movie.calibration
    assert (scale.pixel_um, scale.frame_ms) == (pytest.approx(0.267), pytest.approx(7.2))
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == "TYX"
        assert tif.imagej_metadata["finterval"] == pytest.approx(0.0072)


def test_colour_stack_is_written_for_imagej(tmp_path):
    colours = np.zeros((4, 8, 10, 3), np.uint8)
    colours[..., 1] = np.arange(4)[:, None, None]
    path = write_stack(tmp_path / "c.tif", colours, calibration=Calibration.of(0.2, 6.8))
    np.testing.assert_array_equal(tifffile.imread(path), colours)


def test_frame_times_of_tag_270(tmp_path):
    path = tmp_path / "01_video.tif"
    tifffile.imwrite(path, STACK, description=FRAME_TIMES, metadata=None)
    movie = read_movie(path)
    assert movie.calibration.frame_ms == pytest.approx(7.2)
    np.testing.assert_allclose(movie.calibration.frame_times_s, 0.0072 * np.arange(6))


def test_ome_calibration(tmp_path):
    size = {f"PhysicalSize{axis}": 300 for axis in "XY"}
    size |= {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    metadata = {"axes": "TYX", **size, "TimeIncrement": 8, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata)
    movie = read_movie(tmp_path / "a.ome.tif")
    scale = movie.calibration
    assert (scale.pixel_um, scale.frame_ms) == (pytest.approx(0.3), pytest.approx(8))


def test_plain_file_has_no_invented_calibration(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    movie = read_movie(tmp_path / "a.tif")
    assert movie.calibration == Calibration()


def test_signed_imagej_stack_loses_its_offset(tmp_path):
    description = "ImageJ=1.53c\nimages=6\nframes=6\ncf=0\nc0=-32768.0\nc1=1.0\nvunit=Gray Value\n"
    stored = (STACK // 2 + 32768).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, description=description, metadata=None)
    np.testing.assert_array_equal(read_movie(tmp_path / "a.tif").data, STACK // 2)


def faulty(path, kind):
    """Write one faulty file."""
    nan = STACK.astype(np.float32)
    nan[3, 2, 1] = np.nan
    rgb = np.repeat(STACK[0, ..., None], 3, axis=-1).astype(np.uint8)
    if kind == "two-dimensional":
        tifffile.imwrite(path, STACK[0])
    elif kind == "colour image":
        tifffile.imwrite(path, rgb, photometric="rgb")
    elif kind == "first in frame 3":
        tifffile.imwrite(path, nan)
    elif kind == "expected \\(t, y, x\\), one channel":
        two = np.stack([STACK, STACK], axis=1)
        tifffile.imwrite(path, two, imagej=True, metadata={"axes": "TCYX"})
    elif kind == "of 6 pages are complete":
        write_stack(path, STACK, calibration=Calibration.of(0.2, 6.8))
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "frame times for 6 frames":
        tifffile.imwrite(path, STACK, description="0\t0.0\n1\t0.1", metadata=None)
    else:
        path.write_bytes(b"no TIFF at all")


@pytest.mark.parametrize(
    "kind",
    [
        *("two-dimensional", "colour image", "first in frame 3", "damaged"),
        *("expected \\(t, y, x\\), one channel", "of 6 pages are complete"),
        "frame times for 6 frames",
    ],
)
def test_faults_name_the_file(tmp_path, kind):
    path = tmp_path / "05_video.tif"
    faulty(path, kind)
    with pytest.raises(InputError, match=kind) as caught:
        read_movie(path)
    assert "05_video.tif" in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"07_video\.tif: file not found"):
        read_movie(tmp_path / "07_video.tif")


QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(kind=st.sampled_from(sorted(WRITERS)), share=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_an_error_or_whole(tmp_path, kind, share):
    path = tmp_path / "a.tif"
    WRITERS[kind](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    try:
        data = read_movie(path).data
    except InputError:
        return
    np.testing.assert_array_equal(data, STACK)


@QUICK
@given(kind=st.sampled_from(sorted(WRITERS)), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_crashes(tmp_path, kind, place, bit):
    path = tmp_path / "a.tif"
    WRITERS[kind](path)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    try:
        movie = read_movie(path)
    except InputError:
        return
    assert movie.data.ndim == 3


def test_class_masks_are_checked(tmp_path):
    labels = np.zeros(STACK.shape, np.uint8)
    labels[4, 1, 1] = 7
    write_stack(tmp_path / "01_class_label.tif", labels)
    with pytest.raises(InputError, match="class value 7 first in frame 4"):
        read_class_labels(tmp_path / "01_class_label.tif", labels.shape)
    with pytest.raises(InputError, match=r"shape \(6, 9, 11\), its movie \(6, 9, 12\)"):
        read_class_labels(tmp_path / "01_class_label.tif", (6, 9, 12))


def test_event_masks_are_checked(tmp_path):
    events = np.zeros(STACK.shape, np.int16)
    events[2, 0, 0] = -3
    tifffile.imwrite(tmp_path / "01_event_label.tif", events)
    with pytest.raises(InputError, match="negative event id -3"):
        read_event_labels(tmp_path / "01_event_label.tif", events.shape)


def test_masks_that_disagree_give_warnings():
    classes, events = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.int32)
    classes[0, 0, :2], events[0, 0, 0] = 1, 5
    classes[1, 1, :], events[1, 1, :] = (2, 2, 3, 3), 9
    warnings = label_warnings("01", classes, events)
    assert "1 voxels have a class and no event id" in warnings[0]
    assert warnings[1].endswith("more than one class: 9")


def test_ids_of_a_folder(tmp_path):
    for name in ("02_video.tif", "01_video.tif", "01_smoothed_video.tif", "x.tif"):
        (tmp_path / name).touch()
    assert movie_ids(tmp_path) == ["01", "02"]
