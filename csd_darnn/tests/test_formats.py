"""Recordings of others: every kind is read with the right frames and scales, or asked for."""

import subprocess

import h5py
import imageio_ffmpeg
import numpy as np
import pytest
import tifffile
from PIL import Image

from common.files import InputError
from helpers import call
from inputs.movie_files import open_movie, write_tiff
from inputs.reading import load_film, load_recording
from inputs.resizing import convert_csv, crop_numpy_width, crop_tiff_time, resize_video
from inputs.scales import UNKNOWN, Known, Scales
from inputs.sidecars import sidecar_path
from inputs.video_files import decoded_as
from settings import RunSettings

FRAMES = np.random.default_rng(0).integers(90, 200, (24, 6, 8)).astype(np.uint16)
SCALES = Scales(Known(5.0, "flag"), row_um=Known(20.0, "flag"), column_um=Known(10.0, "flag"))


def movie(path, **given):
    """Return the frames of a file, lazily and in memory the same, and its Scales."""
    recording = load_recording(path, given=RunSettings(**given))
    film = load_film(path, RunSettings(**given))
    np.testing.assert_array_equal(np.concatenate(list(film.blocks())), recording.movie())
    assert film.size == recording.movie().shape
    return recording.movie(), recording.scales


def asked(path, *words, **given):
    """Assert that a file is refused, in memory and lazily, in a line that holds all words."""
    for load in (load_recording, load_film):
        with pytest.raises(InputError) as caught:
            load(path, **({"given": RunSettings(**given)}))
        for word in words:
            assert word in str(caught.value)


def test_folder_of_single_frames_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(FRAMES[:12], start=1):
        tifffile.imwrite(folder / f"Chan_{number}.tif", frame)  # 10 comes before 2 as text
    (folder / ".Chan_3.123.tmp.tif").write_bytes(b"left by a killed writer")
    np.testing.assert_array_equal(movie(folder)[0], FRAMES[:12])
    tifffile.imwrite(folder / "Chan_13.tif", FRAMES[0, :3])
    asked(folder, "Chan_13.tif", "as in Chan_1.tif")
    tifffile.imwrite(folder / "Chan_13.tif", FRAMES[:3], photometric="minisblack")
    asked(folder, "found 3 frames, expected one")
    empty = tmp_path / "empty"
    empty.mkdir()
    asked(empty, "without TIFFs")


def test_hdf5_dataset_is_chosen_by_name(tmp_path):
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as out:
        out["data/green"] = FRAMES
        out["trace"] = np.arange(5)
    np.testing.assert_array_equal(movie(path)[0], FRAMES)
    with h5py.File(path, "a") as out:
        out["data/red"] = FRAMES[:, ::-1]
    asked(path, "2 datasets", "data/green, data/red", "--dataset")
    np.testing.assert_array_equal(movie(path, dataset="data/red")[0], FRAMES[:, ::-1])
    asked(path, "no dataset 'blue'", dataset="blue")
    with h5py.File(path, "w") as out:
        out["m"] = FRAMES.transpose(1, 2, 0)
    np.testing.assert_array_equal(movie(path, axes="HWF")[0], FRAMES)
    with h5py.File(tmp_path / "movie.mat", "w") as out:
        out["Y"] = FRAMES.transpose(0, 2, 1)  # (H, W, F) of MATLAB lies the other way round
        out["Y"].attrs["MATLAB_class"] = np.bytes_("uint16")
    np.testing.assert_array_equal(movie(tmp_path / "movie.mat")[0], FRAMES)
    path.write_bytes(path.read_bytes()[:3000])
    asked(path, "movie.h5")


def test_binary_of_wfield(tmp_path):
    path = tmp_path / "frames_2_6_8_uint16.dat"
    FRAMES.tofile(path)
    asked(path, "2 channels", "--channel 1/2")
    np.testing.assert_array_equal(movie(path, channel="2/2")[0], FRAMES[1::2])
    FRAMES[:23].tofile(path)
    asked(path, "the file is cut", channel="1/2")
    other = path.rename(tmp_path / "movie.dat")
    asked(other, "unknown layout")


def test_channels_in_turn_are_asked_for_and_taken_apart(tmp_path):
    path = tmp_path / "two.tif"
    both = np.repeat(FRAMES, 2, axis=0)
    both[1::2] = FRAMES[::-1] // 4
    tifffile.imwrite(
        path, both, imagej=True, metadata={"axes": "TYX", "finterval": 0.05, "unit": "um"}
    )
    asked(path, "brighter and darker in turn", "--channel 1/2", "--haemodynamic")
    taken, scales = movie(path, channel="1/2")
    np.testing.assert_array_equal(taken, FRAMES)
    assert scales.rate_hz == (pytest.approx(10), "file: finterval, 2 channels in turn")
    np.testing.assert_array_equal(movie(path, channel="2/2")[0], FRAMES[::-1] // 4)
    np.testing.assert_array_equal(movie(path, channel="1/1")[0], both)
    for wrong in ("3/2", "0/2", "1", "a/b"):
        asked(path, "--channel", channel=wrong)
    # A file that tells of its channels tells the rate of one.
    stack = np.stack((FRAMES, FRAMES[::-1]), axis=1)
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX", "finterval": 0.1})
    asked(path, "--channel 1/2")
    taken, scales = movie(path, channel="2/2")
    np.testing.assert_array_equal(taken, FRAMES[::-1])
    assert scales.rate_hz.value == pytest.approx(10)


def test_scanimage_tells_channels_and_time_stamps(tmp_path):
    path = tmp_path / "si.tif"
    told = ("SI.VERSION_MAJOR = 2018\nSI.hChannels.channelSave = [1;2]\n"
            "SI.hRoiManager.scanFrameRate = 30\n")  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as out:
        for number, frame in enumerate(FRAMES.astype(np.int16)):
            out.write(frame, photometric="minisblack", software=told if not number else None,
                      description=f"frameTimestamps_sec = {number // 2 * 0.1:.6f}\n",
                      metadata=None)  # fmt: skip
    asked(path, "2 channels")
    taken, scales = movie(path, channel="1/2")
    np.testing.assert_array_equal(taken, FRAMES[::2])
    np.testing.assert_allclose(scales.frame_times_s.value, np.arange(12) * 0.1)
    assert scales.rate_hz.value == pytest.approx(10)


def test_set_of_micro_manager_over_two_files(tmp_path):
    names = ["MM_Pos0.ome.tif", "MM_Pos0_1.ome.tif"]
    planes = "".join(
        f'<TiffData FirstT="{t}" IFD="{t % 12}" PlaneCount="1"><UUID'
        f' FileName="{names[t // 12]}">urn:uuid:{t // 12}</UUID></TiffData>'
        for t in range(24)
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2013-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="8"'
        ' SizeY="6" SizeC="1" SizeZ="1" SizeT="24" PhysicalSizeX="60" PhysicalSizeY="60"'
        f' TimeIncrement="0.1"><Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
    )
    for index, name in enumerate(names):
        with tifffile.TiffWriter(tmp_path / name) as out:
            for number, frame in enumerate(FRAMES[12 * index : 12 * index + 12]):
                out.write(frame, photometric="minisblack", metadata=None, contiguous=True,
                          description=None if number else xml)  # fmt: skip
    for name in names:
        taken, scales = movie(tmp_path / name)
        np.testing.assert_array_equal(taken, FRAMES)
        assert (scales.rate_hz.value, scales.column_um.value) == (pytest.approx(10), 60)
    (tmp_path / names[1]).unlink()
    asked(tmp_path / names[0], "1 of the 2 files", names[1])


def video(path, *options, frames=FRAMES):
    """Write frames, each pixel 4 x 4, as a video and return its path."""
    large = frames.astype(np.uint8).repeat(4, 1).repeat(4, 2)
    height, width = large.shape[1:]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo",
               "-pix_fmt", "gray", "-s", f"{width}x{height}", "-r", "20", "-i", "-",
               *options, str(path)]  # fmt: skip
    subprocess.run(command, input=large.tobytes(), check=True)
    return path


@pytest.mark.parametrize(
    ("pixels", "largest", "factor"),
    [
        ("gray10le", 1023, 1),  # a camera's counts, to which --offset belongs
        ("gray12le", 4095, 1),
        ("gray16le", 65535, 1),
        ("gbrp10le", 1023, 64),  # written from 16 bits, read back as counts
        ("gbrp16le", 65535, 1),
    ],
)
def test_deep_videos_keep_every_bit(tmp_path, pixels, largest, factor):
    counts = np.random.default_rng(0).integers(0, largest + 1, (5, 24, 32)).astype("<u2")
    path = tmp_path / "deep.mkv"
    raw = pixels if pixels.startswith("gray") else "gray16le"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt",
               raw, "-s", "32x24", "-r", "20", "-i", "-", "-c:v", "ffv1", "-pix_fmt", pixels,
               str(path)]  # fmt: skip
    subprocess.run(command, input=(counts * factor).astype("<u2").tobytes(), check=True)
    found = open_movie(path).read()
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, counts)


def test_a_picture_with_a_wrong_checksum_is_not_guessed(tmp_path):
    path = video(tmp_path / "movie.mkv", "-c:v", "ffv1", "-level", "3", "-slicecrc", "1")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)
    with pytest.raises(InputError, match="a picture is damaged"):
        open_movie(path)


def test_pixel_formats_of_videos(tmp_path):
    kinds = {
        "yuv420p10le(tv, progressive)": ("rgb48le", 10),
        "p010le": ("rgb48le", 10),
        "rgb48le": ("rgb48le", 16),
        "gray12be": ("gray12le", 12),
        "rgb565le": ("rgb24", 8),
        "yuv420p(tv)": ("rgb24", 8),
        "gray": ("rgb24", 8),
        "pal8": ("rgb24", 8),
    }
    for name, (pixel_format, bits) in kinds.items():
        found = decoded_as(name, tmp_path)
        assert (found.pixel_format, found.bits) == (pixel_format, bits)
    with pytest.raises(InputError, match="floating-point pixels"):
        decoded_as("gbrpf32le", tmp_path)


def test_video_in_mkv_and_turned_video(tmp_path):
    path = video(tmp_path / "movie.mkv", "-c:v", "ffv1", "-pix_fmt", "gray")
    taken, scales = movie(path)
    np.testing.assert_array_equal(taken[:, ::4, ::4], FRAMES.astype(np.uint8))
    assert (scales.rate_hz, scales.frame_times_s) == (UNKNOWN, UNKNOWN)
    assert "20 frames/s in the header is a playback rate" in scales.note
    flat = video(tmp_path / "flat.mp4", "-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv420p")
    turned = tmp_path / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-display_rotation", "90",
               "-i", str(flat), "-c", "copy", str(turned)]  # fmt: skip
    subprocess.run(command, check=True)
    straight, bent = open_movie(flat).read(), open_movie(turned).read()
    np.testing.assert_array_equal(np.rot90(straight, 1, axes=(1, 2)), bent)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("raw.avi", ("-c:v", "rawvideo", "-pix_fmt", "gray")),
        ("front.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart")),
        ("whole.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray")),
    ],
)
def test_a_cut_video_is_refused_and_not_read_as_a_shorter_one(tmp_path, name, options):
    noise = np.random.default_rng(0).integers(0, 200, FRAMES.shape)  # so that frames fill the file
    whole = video(tmp_path / name, *options, frames=noise)
    assert len(open_movie(whole).read()) == len(FRAMES)
    told = whole.read_bytes()
    for share in (0.5, 0.9):
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(told[: int(share * len(told))])
        with pytest.raises(InputError, match=f"found {int(share * len(told))} bytes.*is cut"):
            open_movie(cut)
    (tmp_path / f"long_{name}").write_bytes(told + bytes(999))  # what follows is no fault
    assert len(open_movie(tmp_path / f"long_{name}").read()) == len(FRAMES)


def test_a_recorder_that_was_not_closed_leaves_a_size_of_0_that_says_nothing(tmp_path):
    whole = video(tmp_path / "open.avi", "-c:v", "rawvideo", "-pix_fmt", "gray")
    told = whole.read_bytes()
    whole.write_bytes(told[:4] + bytes(4) + told[8:])
    assert len(open_movie(whole).read()) == len(FRAMES)


def test_another_kind_under_the_name_of_an_array_is_named(tmp_path):
    for name, kind in (("a.npy", "NPY"), ("a.npz", "NPZ")):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
        with pytest.raises(InputError, match=f"found no {kind} file"):
            open_movie(tmp_path / name)


def test_uneven_times_of_videos_and_gifs_are_a_clock_without_a_rate(tmp_path):
    path = video(tmp_path / "uneven.mkv", "-vf", "select='mod(n,5)'", "-fps_mode", "vfr", "-c:v",
                 "ffv1", "-pix_fmt", "gray")  # fmt: skip
    kept = np.array([n for n in range(24) if n % 5])
    _, scales = movie(path)
    assert scales.rate_hz == UNKNOWN
    np.testing.assert_allclose(scales.frame_times_s.value, (kept - 1) / 20, atol=1e-3)
    np.testing.assert_allclose(scales.clock(np.arange(19.0)), kept - 1, atol=0.03)
    scales = load_recording(path, given=RunSettings(frame_rate_hz=10)).scales
    np.testing.assert_allclose(scales.times(np.arange(19.0)), (kept - 1) / 10, atol=3e-3)
    pictures = [Image.fromarray(frame.astype(np.uint8)) for frame in FRAMES[:4]]
    path = tmp_path / "uneven.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 100])
    _, scales = movie(path)
    np.testing.assert_allclose(scales.frame_times_s.value, [0, 0.1, 0.4, 0.5])
    assert "playback" in scales.words()


def test_axes_that_look_swapped_are_asked_for(tmp_path):
    path = tmp_path / "movie.npy"
    long = np.random.default_rng(1).normal(100, 1, (6, 8, 120)).astype(np.float32)
    np.save(path, long)
    asked(path, "--axes HWF")
    np.testing.assert_array_equal(movie(path, axes="HWF")[0], long.transpose(2, 0, 1))
    np.testing.assert_array_equal(movie(path, axes="YXT")[0], long.transpose(2, 0, 1))
    np.testing.assert_array_equal(movie(path, axes="FHW")[0], long)
    asked(path, "one letter an axis", axes="HHF")
    rois = np.cumsum(np.random.default_rng(2).normal(size=(9, 200)), axis=1)
    np.save(tmp_path / "F.npy", rois)
    with pytest.raises(InputError, match="--axes KF"):
        load_recording(tmp_path / "F.npy")
    turned = load_recording(tmp_path / "F.npy", given=RunSettings(axes="KF"))
    np.testing.assert_array_equal(turned.values, rois.T)
    np.save(tmp_path / "pixels.npy", np.random.default_rng(3).normal(size=(50, 400)))
    assert load_recording(tmp_path / "pixels.npy").values.shape == (50, 400)


def test_crop_and_haemodynamic_correction(tmp_path):
    rng = np.random.default_rng(4)
    blood = 1 + 0.05 * np.sin(np.arange(200) / 7)[:, None, None] * np.ones((6, 8))
    calcium = 1 + 0.1 * (rng.random((200, 6, 8)) < 0.1) + rng.normal(0, 1e-4, (200, 6, 8))
    both = np.empty((400, 6, 8), np.float32)
    both[0::2] = 1000 * blood**2 * calcium  # the signal suffers twice as much
    both[1::2] = 300 * blood + rng.normal(0, 0.01, (200, 6, 8))
    np.save(tmp_path / "pair.npy", both)

    def left(**given):
        out = movie(tmp_path / "pair.npy", **given)[0]
        return np.corrcoef(out.reshape(200, -1).mean(axis=1), blood[:, 0, 0])[0, 1]

    assert abs(left(channel="1/2")) > 0.99
    assert abs(left(haemodynamic="regress")) < 0.05
    ratio, _ = movie(tmp_path / "pair.npy", haemodynamic="ratio")
    np.testing.assert_allclose(ratio, both[0::2] / both[1::2] * both[1::2].mean(0), rtol=1e-5)
    other, _ = movie(tmp_path / "pair.npy", haemodynamic="ratio", channel="2/2")
    np.testing.assert_allclose(other, both[1::2] / both[0::2] * both[0::2].mean(0), rtol=1e-5)
    part, _ = movie(tmp_path / "pair.npy", channel="1/2", crop="1,2,3,4")
    np.testing.assert_array_equal(part, both[0::2, 1:4, 2:6])
    asked(tmp_path / "pair.npy", "6 x 8 image", channel="1/2", crop="1,2,6,4")
    asked(tmp_path / "pair.npy", "--haemodynamic", channel="1/3", haemodynamic="ratio")


def test_repeated_and_listed_frames_are_filled(tmp_path):
    frames = FRAMES.astype(np.float32)
    frames[5] = frames[4]
    frames[9] = 0
    np.save(tmp_path / "movie.npy", frames)
    assert load_recording(tmp_path / "movie.npy").scales.bad_frames.value.tolist() == [9]
    taken, scales = movie(tmp_path / "movie.npy", bad_frames="auto")
    assert scales.bad_frames.value.tolist() == [5, 9]
    assert "equal to the frame before" in scales.words()
    np.testing.assert_allclose(taken[5], (frames[4] + frames[6]) / 2)
    (tmp_path / "bad.txt").write_text("0\n9\n22-23\n")
    taken, scales = movie(tmp_path / "movie.npy", bad_frames=str(tmp_path / "bad.txt"))
    assert scales.bad_frames.value.tolist() == [0, 9, 22, 23]
    np.testing.assert_array_equal(taken[[0, 22, 23]], frames[[1, 21, 21]])


def test_tables_of_other_programs(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(" ,Mean1,Mean2\n" + "".join(f"{k},{k % 3},{k % 2}\n" for k in range(1, 9)))
    table = load_recording(path)  # Results of Fiji
    assert table.columns == ["Mean1", "Mean2"]
    path.write_text("roi1;roi2\n1,5;2\n-3e-1;0,25\n")
    np.testing.assert_array_equal(load_recording(path).values, [[1.5, 2], [-0.3, 0.25]])
    path.write_text("roi1\troi2\n1.5\t2\n3\t4\n")
    np.testing.assert_array_equal(load_recording(path).values, [[1.5, 2], [3, 4]])
    rows = np.c_[np.random.default_rng(0).random((20, 2)), 7 + np.arange(20) * 0.5]
    np.savetxt(path, rows, delimiter=",", header="a,b,clock", comments="")
    table = load_recording(path)
    assert table.columns == ["a", "b"]
    assert "column clock is a clock of unknown unit and no driving series" in table.words()
    assert load_recording(path, given=RunSettings(time_column="none")).columns[-1] == "clock"
    rows = np.c_[np.arange(20), np.arange(20) * 0.1, rows[:, :2]]
    np.savetxt(path, rows, delimiter=",", header="frame,time_s,a,b", comments="")
    table = load_recording(path)
    assert table.columns == ["a", "b"]
    assert table.scales.rate_hz.value == pytest.approx(10)


def test_sidecars_are_named_after_the_whole_file_and_carry_the_scales(tmp_path):
    path = convert_csv(FRAMES, tmp_path / "mouse1.trial2.csv", scales=SCALES)
    assert sidecar_path(path).name == "mouse1.trial2.csv.json"
    told = load_recording(path)
    assert told.shape == (6, 8)
    assert told.scales.row_um == (20, "file: mouse1.trial2.csv.json")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:12]))
    with pytest.raises(InputError, match="the file is cut"):
        load_recording(path)
    older = convert_csv(FRAMES, tmp_path / "old.csv")  # of an earlier version
    sidecar_path(older).rename(tmp_path / "old.json")
    assert load_recording(older).shape == (6, 8)
    older.write_text("".join(older.read_text().splitlines(keepends=True)[:12]))
    with pytest.raises(InputError, match=r"old\.json"):
        load_recording(older)


def test_scales_survive_every_way_of_cutting(tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.1, 0.3, 24))
    source = tmp_path / "source.tif"
    clocked = Scales(Known(5.0, "flag"), Known(times, "flag"), SCALES.row_um, SCALES.column_um)
    write_tiff(source, FRAMES, clocked)
    resized = resize_video(source, tmp_path / "resized_video.tiff", 4, 3)
    part = crop_tiff_time(source, tmp_path / "part.tif", 4, 20)
    wide = tmp_path / "wide.tif"
    write_tiff(wide, FRAMES.astype(np.float64), clocked)  # a type that ImageJ does not know
    for path, factor, kept in (
        (tmp_path / "resized_video.tiff", 2, times),
        (tmp_path / "resized.npy", 2, times),
        (part, 1, times[4:20]),
        (wide, 1, times),
    ):
        scales = load_recording(path).scales
        assert scales.column_um.value == pytest.approx(10 * factor), path
        assert scales.row_um.value == pytest.approx(20 * factor), path
        np.testing.assert_allclose(scales.frame_times_s.value, kept)
    crops = crop_numpy_width(resized, tmp_path / "splits", None, 2, target_rc=(0, 0), scales=SCALES)
    assert load_recording(crops[1]).scales.rate_hz.value == 5
    assert load_recording(tmp_path / "splits/video_1.tiff").scales.rate_hz.value == pytest.approx(5)


def test_csv_of_the_resized_movie_does_not_cost_the_cache(tmp_path):
    source = tmp_path / "source.tif"
    write_tiff(source, FRAMES, SCALES)
    arguments = ("--video_dir", source, "--output_dir", tmp_path / "out", "--new_width", 4,
                 "--new_height", 3, "--number_splits", 2, "--target", "0,0", "--csv_path",
                 "resized.csv")  # fmt: skip
    for reused in (False, True):
        done = call("resize.py", *arguments)
        assert done.returncode == 0, done.stderr
        assert ("reused" in done.stdout) == reused
    assert load_recording(tmp_path / "out/resized.csv").scales.column_um.value == pytest.approx(20)
