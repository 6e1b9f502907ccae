"""What the numbers of a recording mean: from the file, from a flag, or unknown and named so."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from analysis.onset import onset_map, write_onset
from common.files import InputError
from demo.synthetic import synthesise
from helpers import SMALL, call, tiny_movie
from inputs.film import open_film
from inputs.movie_files import open_movie, write_tiff
from inputs.reading import load_recording
from inputs.resizing import resize_video
from inputs.scales import (
    NO_SCALES,
    SECONDS,
    UM,
    UNKNOWN,
    Known,
    Scales,
    frame_numbers,
    give,
    plain_unit,
    read_mask,
    read_times,
)
from runs.many import run_all
from settings import DemoMovie, OnsetSettings, RunSettings

FAST = OnsetSettings(bootstrap=0)
FRAMES = np.random.default_rng(0).integers(90, 110, (6, 5, 7)).astype(np.uint16)


def imagej(path, *, resolution=(1 / 60, 1 / 60), **metadata):
    """Write an ImageJ stack with its metadata and return the Scales that are read from it."""
    tifffile.imwrite(
        path, FRAMES, imagej=True, metadata={"axes": "TYX", **metadata}, resolution=resolution
    )
    return load_recording(path).scales


@pytest.mark.parametrize(
    ("metadata", "rate_hz"),
    [
        ({"finterval": 0.1, "fps": 7.0}, 10),
        ({"finterval": 100.0, "tunit": "ms"}, 10),
        ({"finterval": 0.5, "tunit": "min"}, 1 / 30),
        ({"finterval": 2.0, "tunit": "sec"}, 0.5),
        ({"fps": 7.0}, None),
        ({"finterval": 3.0, "tunit": "frame"}, None),
        ({"finterval": 0.0}, None),
    ],
)
def test_imagej_interval_is_in_its_unit_and_fps_is_no_rate(tmp_path, metadata, rate_hz):
    scales = imagej(tmp_path / "movie.tif", **metadata)
    if rate_hz is None:
        assert scales.rate_hz == UNKNOWN
        assert "frame rate unknown (--frame_rate_hz)" in scales.words()
    else:
        assert scales.rate_hz.value == pytest.approx(rate_hz)
        assert scales.rate_hz.origin.startswith("file: finterval")


@pytest.mark.parametrize(
    ("unit", "um"),
    [("um", 60), ("\\u00B5m", 60), ("micron", 60), ("micrometer", 60),
     ("mm", 60_000), ("nm", 0.06), ("pixel", None), ("inch", 60 * 25400)],
)  # fmt: skip
def test_imagej_units_of_length(tmp_path, unit, um):
    scales = imagej(tmp_path / "movie.tif", unit=unit)
    if um is None:
        assert scales.column_um == UNKNOWN
        assert scales.missing() == ["--frame_rate_hz", "--pixel_um"]
    else:
        assert scales.column_um.value == pytest.approx(um, rel=1e-4)
        assert scales.row_um.value == pytest.approx(um, rel=1e-4)


def test_a_run_says_what_its_clock_assumes_and_that_a_camera_stalled(tmp_path):
    movie = np.random.default_rng(0).normal(100, 5, (60, 5, 6)).astype(np.float32)
    movie[[20, 31]] = movie[[19, 30]]
    path, times = tmp_path / "movie.npy", tmp_path / "times.txt"
    np.save(path, movie)
    np.savetxt(times, np.arange(60) * 0.1)
    even = load_recording(path, given=RunSettings(frame_rate_hz=10)).scales
    assert even.even_clock
    assert "times of the frames unknown, taken as even: none lost (--frame_times)" in even.words()
    assert even.words().count("2 frames repeat the one before (20, 31; --bad_frames auto") == 1
    assert open_film(open_movie(path), RunSettings()).words().count("2 frames repeat") == 1
    told = load_recording(path, given=RunSettings(frame_times=times, bad_frames="auto")).scales
    assert not told.even_clock
    assert "taken as even" not in told.words()
    assert "repeat the one" not in told.words()
    assert "taken as even" not in load_recording(path).scales.words()  # no clock, no speed in s


def test_every_micro_sign_is_read():
    for unit in ("\u00b5m", "\u03bcm", "\\u00B5m", "\\u03BCm", " um ", "UM"):
        assert plain_unit(unit) == "um"


def test_pixels_may_be_higher_than_wide(tmp_path):
    scales = imagej(tmp_path / "movie.tif", unit="um", resolution=(1 / 60, 1 / 120))
    assert (scales.column_um.value, scales.row_um.value) == (pytest.approx(60), pytest.approx(120))
    assert scales.row_ratio == pytest.approx(2)
    assert "120 um high, 60 um wide" in scales.words()


def test_ome_tiff_tells_sizes_and_times(tmp_path):
    path = tmp_path / "movie.ome.tif"
    metadata = {
        "axes": "TYX", "PhysicalSizeX": 0.06, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 60.0,
        "PhysicalSizeYUnit": "µm", "TimeIncrement": 100.0, "TimeIncrementUnit": "ms",
    }  # fmt: skip
    tifffile.imwrite(path, FRAMES, ome=True, metadata=metadata)
    scales = load_recording(path).scales
    assert scales.column_um == (pytest.approx(60), "file: PhysicalSizeX")
    assert scales.row_um == (pytest.approx(60), "file: PhysicalSizeY")
    assert scales.rate_hz == (pytest.approx(10), "file: TimeIncrement")
    plane = {"DeltaT": [0.0, 0.1, 0.2, 0.5, 0.6, 0.7], "DeltaTUnit": ["s"] * 6}
    tifffile.imwrite(path, FRAMES, ome=True, metadata={"axes": "TYX", "Plane": plane})
    scales = load_recording(path).scales
    np.testing.assert_allclose(scales.frame_times_s.value, plane["DeltaT"])
    assert scales.rate_hz == (pytest.approx(10), "file: DeltaT")


def test_a_flag_wins_and_a_difference_is_said(tmp_path, capsys):
    path = tmp_path / "movie.tif"
    imagej(path, finterval=0.1, unit="um")
    same = load_recording(path, given=RunSettings(frame_rate_hz=10.05, pixel_um=60)).scales
    assert capsys.readouterr().err == ""
    assert same.rate_hz == (10.05, "flag")
    other = load_recording(path, given=RunSettings(frame_rate_hz=20, pixel_um=30, row_um=60))
    error = capsys.readouterr().err
    assert "--frame_rate_hz 20 differs from 10 (file: finterval); the flag is used" in error
    assert "--pixel_um 30 differs from 60" in error
    assert (other.scales.column_um.value, other.scales.row_um.value) == (30, 60)
    assert "frame rate 20 Hz (flag); pixel 60 um high, 30 um wide (flag)" in other.words()
    with pytest.raises(InputError, match="--row_um"):
        load_recording(path, given=RunSettings(row_um=60))


def test_scales_go_with_a_resized_movie(tmp_path):
    path = tmp_path / "movie.tif"
    frames = np.random.default_rng(1).integers(0, 99, (8, 20, 30)).astype(np.uint16)
    size = Known(10.0, "flag")
    write_tiff(path, frames, Scales(Known(5.0, "flag"), row_um=size, column_um=size))
    resize_video(path, tmp_path / "resized_video.tiff", 10, 5)
    for name in ("resized_video.tiff", "resized.npy"):
        scales = load_recording(tmp_path / name).scales
        assert scales.rate_hz.value == pytest.approx(5), name
        assert scales.column_um.value == pytest.approx(30, rel=1e-4), name
        assert scales.row_um.value == pytest.approx(40, rel=1e-4), name


def test_pixels_without_data_are_a_mask(tmp_path):
    movie = np.random.default_rng(2).normal(100, 5, (30, 6, 7)).astype(np.float32)
    for empty in (0, np.nan):
        movie[:, 0] = empty
        np.save(tmp_path / "movie.npy", movie)
        recording = load_recording(tmp_path / "movie.npy")
        assert recording.scales.mask.value.sum() == 5 * 7
        assert "35 of 42 pixels hold data" in recording.words()
        assert (recording.movie()[:, 0] == 0).all()
        np.testing.assert_array_equal(recording.movie()[:, 1:], movie[:, 1:])
    mask = np.zeros((6, 7), np.uint8)
    mask[2:, 2:] = 1
    np.save(tmp_path / "mask.npy", mask)
    given = RunSettings(mask=str(tmp_path / "mask.npy"))
    assert load_recording(tmp_path / "movie.npy", given=given).scales.mask.value.sum() == 20
    np.save(tmp_path / "mask.npy", mask[:3])
    with pytest.raises(InputError, match="6 x 7 pixels"):
        load_recording(tmp_path / "movie.npy", given=given)
    movie[7, 3, 3] = np.nan  # a hole in time is no mask
    np.save(tmp_path / "movie.npy", movie)
    with pytest.raises(InputError, match="frame 7, pixel row 3, column 3"):
        load_recording(tmp_path / "movie.npy")


def test_frames_without_a_picture_are_named_and_filled(tmp_path):
    movie = np.arange(10.0)[:, None, None] + np.arange(12.0).reshape(3, 4)
    black = movie.copy()
    black[[0, 4, 5, 9]] = 0
    np.save(tmp_path / "movie.npy", black)
    recording = load_recording(tmp_path / "movie.npy")
    assert recording.scales.bad_frames.value.tolist() == [0, 4, 5, 9]
    assert "4 bad frames (0, 4, 5, 9; file: all pixels are equal)" in recording.words()
    np.testing.assert_allclose(recording.movie()[1:9], movie[1:9])
    np.testing.assert_allclose(recording.movie()[[0, 9]], movie[[1, 8]])
    bordered = np.pad(black, ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
    np.save(tmp_path / "bordered.npy", bordered)
    assert load_recording(tmp_path / "bordered.npy").scales.bad_frames.value.tolist() == [
        0,
        4,
        5,
        9,
    ]
    kept = load_recording(tmp_path / "movie.npy", given=RunSettings(bad_frames="none"))
    np.testing.assert_array_equal(kept.movie(), black)
    counts = np.random.default_rng(5).poisson(0.1, (200, 3, 4)).astype(np.float32)
    counts[7] = 0  # no photon in a frame is nothing rare
    np.save(tmp_path / "counts.npy", counts)
    assert load_recording(tmp_path / "counts.npy").scales.bad_frames == UNKNOWN
    assert frame_numbers("3,17-20").tolist() == [3, 17, 18, 19, 20]
    for wrong, word in (("99", "0 to 9"), ("a-b", "--bad_frames")):
        with pytest.raises(InputError, match=word):
            load_recording(tmp_path / "movie.npy", given=RunSettings(bad_frames=wrong))


def test_clock_of_a_table_is_no_driving_series(tmp_path):
    path = tmp_path / "table.csv"
    rows = np.c_[np.arange(20) * 100, np.random.default_rng(3).random((20, 3))]
    for name, rate_hz in (("time_ms", 10.0), ("Time (s)", 0.01), ("frame", None)):
        np.savetxt(path, rows, delimiter=",", header=f"{name},a,b,c", comments="")
        table = load_recording(path)
        assert table.columns == ["a", "b", "c"]
        assert table.scales.rate_hz.value == (rate_hz and pytest.approx(rate_hz))
        assert "no driving series" in table.words()
        kept = load_recording(path, given=RunSettings(time_column="none"))
        assert kept.columns == [name, "a", "b", "c"]
    with pytest.raises(InputError, match="--time_column"):
        load_recording(path, given=RunSettings(time_column="t"))
    np.savetxt(path, rows[::-1], delimiter=",", header="time_s,a,b,c", comments="")
    assert load_recording(path).columns[0] == "time_s"  # it does not grow: no clock


def test_dropped_frames_with_their_times_keep_the_speed(tmp_path):
    movie, truth = synthesise(DemoMovie())
    kept = np.sort(np.random.default_rng(4).permutation(3000)[:2400])
    size = Known(truth["pixel_um"], "flag")
    scales = Scales(Known(10.0, "flag"), row_um=size, column_um=size)
    wrong = onset_map(movie[kept], scales, FAST)
    assert wrong["speed_mm_min"] > 4
    np.save(tmp_path / "times.npy", kept / 10)
    np.save(tmp_path / "movie.npy", movie[kept])
    given = RunSettings(frame_times=str(tmp_path / "times.npy"), pixel_um=truth["pixel_um"])
    recording = load_recording(tmp_path / "movie.npy", given=given)
    result = onset_map(recording.movie(), recording.scales, FAST)
    assert result["speed_mm_min"] == pytest.approx(3.5, rel=0.03)
    np.save(tmp_path / "times.npy", kept[:-1] / 10)
    with pytest.raises(InputError, match=r"2399 times .* for 2400 frames"):
        load_recording(tmp_path / "movie.npy", given=given)


def test_anisotropic_pixels_mask_and_offset_in_the_onset_map():
    movie, truth = synthesise(DemoMovie())
    squeezed = movie.reshape(3000, 9, 2, 23).mean(axis=2)  # pixels twice as high as wide
    squeezed[:, 0] = 0
    mask = np.ones((9, 23), bool)
    mask[0] = False
    um = truth["pixel_um"]
    scales = Scales(
        Known(10.0, "flag"), row_um=Known(2 * um, "flag"), column_um=Known(um, "flag"),
        mask=Known(mask, "flag"),
    )  # fmt: skip
    result = onset_map(squeezed, scales, FAST)
    assert result["speed_mm_min"] == pytest.approx(3.5, rel=0.05)
    assert result["n_pixels"] == 8 * 23
    low = movie - 120  # a camera that tells darkness as -120
    size = Known(um, "flag")
    square = Scales(Known(10.0, "flag"), row_um=size, column_um=size, offset=Known(-120.0, "flag"))
    # An arrival needs no level of darkness; a height in dF/F does.
    bare = onset_map(low, replace(square, offset=UNKNOWN), FAST)
    assert bare["peak_unit"] == "recording"
    told = onset_map(low, square, FAST)
    assert (told["peak_unit"], bare["speed"]) == ("dff", told["speed"])
    assert told["speed_mm_min"] == pytest.approx(3.5, rel=0.02)
    assert np.nanmedian(told["peak"]) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("rate_hz", "pixel_um", "unit", "factor"),
    [(10, 100, "mm/min", 1), (0, 100, "mm/frame", 1 / 600), (10, 0, "pixel/min", 10),
     (0, 0, "pixel/frame", 10 / 600)],
)  # fmt: skip
def test_unknown_scales_leave_frames_and_pixels(tmp_path, rate_hz, pixel_um, unit, factor):
    movie, _ = synthesise(DemoMovie(n_frames=1500, field_mm=2.3))  # pixels of 100 um
    size = Known(pixel_um, "flag") if pixel_um else UNKNOWN
    rate = Known(rate_hz, "flag") if rate_hz else UNKNOWN
    result = write_onset(tmp_path, movie, Scales(rate, row_um=size, column_um=size), FAST)
    assert result["speed_unit"] == unit
    assert result["speed"] == pytest.approx(3.5 * factor, rel=0.05)
    assert (result["speed_mm_min"] is None) == (unit != "mm/min")
    head = (tmp_path / "plots/onset_map.csv").read_text().splitlines()[0].split(",")
    assert ("arrival_s" in head, "distance_mm" in head) == (bool(rate_hz), bool(pixel_um))
    told = json.loads((tmp_path / "onset.json").read_text())
    assert told["recording"]["column_um"]["origin"] == ("flag" if pixel_um else "unknown")


def test_run_tells_its_scales_and_keeps_them_in_settings(tmp_path, capsys):
    movie = tiny_movie(tmp_path / "movie.npy")
    settings = SMALL | {"maps": False, "n_epochs": 1}
    run_all(movie, **settings, run_dir=tmp_path / "run", frame_rate_hz=4.0)
    out = capsys.readouterr().out
    assert "movie.npy: 120 frames of 4 x 5 pixels; frame rate 4 Hz (flag)" in out
    assert "the onset map is left out: give --pixel_um" in out
    told = json.loads((tmp_path / "run/settings.json").read_text())["settings"]
    assert told["recording"]["rate_hz"] == {"value": 4.0, "origin": "flag"}
    assert told["recording"]["column_um"] == {"value": None, "origin": "unknown"}
    # A run that knows nothing of the newer settings goes on: their defaults do not count.
    assert not {"mask", "bad_frames", "time_column"} & told["identity"].keys()


def test_playback_rates_are_not_taken(tmp_path):
    done = call("onset.py", "--data", tmp_path / "none.tif")
    assert done.returncode == 2
    movie = open_movie(gif_of(tmp_path / "movie.gif"))
    assert movie.scales.rate_hz == UNKNOWN
    assert movie.scales.note == "10 frames/s in the header is a playback rate and is not used"


def gif_of(path):
    """Write a GIF of 10 frames/s and return its path."""
    from PIL import Image

    frames = [Image.fromarray(frame.astype(np.uint8)) for frame in FRAMES]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return path


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("nanometer", 1e-3), ("nanometers", 1e-3), ("micron", 1), ("Microns", 1), ("\u00b5m", 1),
     ("\u03bcm", 1), ("micrometers", 1), ("um.", 1), ("Millimetres", 1e3), ("(mm)", 1e3),
     ("centimeters", 1e4), ("metres", 1e6), ("inches", 25400), ("Angstrom", 1e-4),
     ("km", 1e9), ("Kilometers", 1e9), ("um/pixel", 1), ("\u00b5m/px", 1), ("mm per pixel", 1e3),
     ("micron / pixels", 1), ("[um/pix]", 1), ("nm/voxel", 1e-3)],
)  # fmt: skip
def test_usual_spellings_of_lengths(unit, factor):
    assert UM[plain_unit(unit)] == factor


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("hr", 3600), ("hrs", 3600), ("h", 3600), ("Hours", 3600), ("min.", 60), ("mins", 60),
     ("sec", 1), ("Seconds", 1), ("msec", 1e-3), ("msecs", 1e-3), ("milliseconds", 1e-3),
     ("\u00b5s", 1e-6), ("usec", 1e-6), ("ns", 1e-9), ("days", 86400),
     ("s/frame", 1), ("ms per frame", 1e-3), ("sec/image", 1)],
)  # fmt: skip
def test_usual_spellings_of_times(unit, factor):
    assert SECONDS[plain_unit(unit)] == factor


def test_what_is_no_unit_stays_none():
    for unit in (
        "pixel",
        "frames",
        "u",
        "ss",
        "",
        "dpi",
        "pixel/um",
        "/px",
        "per frame",
        "frames/s",
    ):
        assert plain_unit(unit) not in UM | SECONDS


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_counts_from_white_is_read_as_light(tmp_path, dtype, compression):
    light = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(dtype)
    top = {"u1": 255, "u2": 65535, "f4": 0}[dtype]
    stored = (top - light).astype(dtype) if top else light
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, stored, photometric="miniswhite", compression=compression)
    recording = load_recording(path)
    np.testing.assert_array_equal(recording.movie(), light)
    word = "inverted on reading" if top else "read as they are"
    assert word in recording.scales.note
    tifffile.imwrite(path, light, photometric="minisblack")
    assert "white" not in load_recording(path).scales.note


def test_a_mask_of_colours_is_what_is_not_black_however_opaque(tmp_path):
    levels = np.array([[0, 255], [7, 0]], np.uint8)
    solid = np.full_like(levels, 255)
    for name, planes in (("LA", (levels, solid)), ("RGBA", (levels, levels, levels, solid)),
                         ("RGB", (levels, levels, levels))):  # fmt: skip
        Image.fromarray(np.dstack(planes), name).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png", (2, 2)), levels > 0)


def test_frame_numbers_that_run_backwards_are_refused():
    np.testing.assert_array_equal(frame_numbers("3,5-7"), [3, 5, 6, 7])
    with pytest.raises(InputError, match="found '9-5'"):
        frame_numbers("9-5")


def test_times_and_a_rate_that_differ_are_said(tmp_path, capsys):
    np.savetxt(tmp_path / "times.txt", 40 + np.arange(5) / 10)
    given = RunSettings(frame_times=str(tmp_path / "times.txt"), frame_rate_hz=20.0)
    scales = give(NO_SCALES, given, tmp_path / "a.tif", (2, 2))
    assert "--frame_rate_hz 20 differs from 10" in capsys.readouterr().err
    np.testing.assert_allclose(scales.times(np.array([0.0, 4.0])), [0, 0.4])
    assert "the first at 40 s, from which results count" in scales.words()


def test_times_of_another_kind_are_refused(tmp_path):
    spans = np.arange(4) * np.timedelta64(100, "ms")
    for name, values in (("span", spans), ("date", np.datetime64("2026-01-01") + spans)):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(InputError, match="values of type"):
            read_times(tmp_path / f"{name}.npy")
    np.save(tmp_path / "whole.npy", np.arange(4))
    np.testing.assert_array_equal(read_times(tmp_path / "whole.npy"), [0, 1, 2, 3])


def test_nan_in_a_mask_is_no_data(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([[1.0, np.nan], [0.0, -2.0]]))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.npy", (2, 2)), [[1, 0], [0, 1]])


def test_a_flag_for_every_frame_is_no_list_of_bad_frames(tmp_path):
    (tmp_path / "flags.txt").write_text("0\n0\n1\n0\n")
    with pytest.raises(InputError, match="each once"):
        frame_numbers(str(tmp_path / "flags.txt"))
    (tmp_path / "numbers.txt").write_text("2\n0, 7\n")
    np.testing.assert_array_equal(frame_numbers(str(tmp_path / "numbers.txt")), [0, 2, 7])
