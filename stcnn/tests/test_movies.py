"""User movies of every kind: their numbers, their times, their place on the field."""

import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from common.files import InputError
from inputs.display import Display
from inputs.levels import parse_levels
from inputs.user_movies import UserMovie, View

FIELD = Display(60.0, 1.0, 0.498, (41, 41))


def contrast(path, display=FIELD, **view):
    view = {"rate_hz": display.rate_hz, **view}
    return torch.cat(list(UserMovie(path, view=View(**view)).pieces(display)))


def greys(path, **view):
    """Return the grey of the middle pixel of every frame."""
    return (contrast(path, **view)[:, 20, 20] + 0.498).numpy()


def picture(value, dtype):
    return np.full((40, 40), value, dtype)


def save_cmyk(path):
    Image.fromarray(np.full((40, 40, 3), 51, np.uint8)).convert("CMYK").save(path)


def save_white_is_zero(path):
    tifffile.imwrite(path, picture(51, np.uint8), photometric="miniswhite")


def save_palette(path):
    image = Image.fromarray(picture(1, np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    image.save(path)


def save_opaque_half(path):
    planes = [picture(255, np.uint8), picture(51, np.uint8)]
    Image.fromarray(np.dstack(planes), "LA").save(path)


def save_lzw(path):
    Image.fromarray(picture(102, np.uint8)).save(path, compression="tiff_lzw")


def save_deep_colour(path):
    """Write a PNG of 48 bits a pixel: PIL shows the upper half of its numbers."""
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = 40, 40, "rgb48be"
    codec.time_base = Fraction(1, 1)
    pixels = np.full((40, 40, 3), 32768 + 77, np.uint16)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le").reformat(format="rgb48be")
    packets = [*codec.encode(frame), *codec.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


def save_planes(path):
    planes = np.full((3, 40, 40), 51, np.uint8)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")


KINDS = {
    "bit.png": (lambda p: Image.fromarray(picture(1, bool)).save(p), 1.0),
    "bit.tif": (lambda p: Image.fromarray(picture(1, bool)).save(p), 1.0),
    "eight.png": (lambda p: Image.fromarray(picture(51, np.uint8)).save(p), 0.2),
    "sixteen.png": (lambda p: Image.fromarray(picture(32768, np.uint16)).save(p), 0.5),
    "sixteen.tif": (lambda p: tifffile.imwrite(p, picture(32768, np.uint16)), 0.5),
    "float.tif": (lambda p: tifffile.imwrite(p, picture(0.25, np.float32)), 0.25),
    "double.tif": (lambda p: tifffile.imwrite(p, picture(0.25, np.float64)), 0.25),
    "cmyk.tif": (save_cmyk, 0.2),
    "cmyk.jpg": (save_cmyk, 0.2),
    "white.tif": (save_white_is_zero, 0.8),
    "palette.png": (save_palette, 1.0),
    "lzw.tif": (save_lzw, 0.4),
    "half.png": (save_opaque_half, 0.2 * 1.0 + 0.8 * 0.498),
    "rgb.png": (lambda p: Image.fromarray(np.full((40, 40, 3), 51, np.uint8)).save(p), 0.2),
    "deep.png": (save_deep_colour, (32768 + 77) / 65535),
    "planes.tif": (save_planes, 0.2),
    "big_endian.tif": (
        lambda p: tifffile.imwrite(p, picture(32768, np.uint16), byteorder=">"), 0.5,
    ),
    "tiles.tif": (lambda p: tifffile.imwrite(p, picture(51, np.uint8), tile=(16, 16)), 0.2),
    "rgb.tif": (
        lambda p: tifffile.imwrite(p, np.full((40, 40, 3), 51, np.uint8), photometric="rgb"), 0.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_pictures_of_every_kind(tmp_path, name):
    save, grey = KINDS[name]
    save(tmp_path / name)
    np.testing.assert_allclose(greys(tmp_path), grey, atol=0.004)


def test_twelve_bits_of_a_colour_png_are_asked_for(tmp_path):
    """PIL's bytes of such a picture reach 15: it was read as black."""
    path = tmp_path / "a.png"
    save_deep_colour(path)
    np.testing.assert_allclose(greys(tmp_path, levels=(0.0, 65535.0)), 32845 / 65535, atol=1e-6)
    with pytest.raises(InputError, match=r"values from 32845 to 32845 lie outside --levels 0,4095"):
        greys(tmp_path, levels=(0.0, 4095.0))


def test_what_is_no_grey_level_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture(0.25, np.complex64))
    with pytest.raises(InputError, match=r"holds complex64; expected one grey or three colours"):
        UserMovie(tmp_path / "a.tif", rate_hz=60.0)
    np.save(tmp_path / "a.npy", np.full((2, 9, 9), np.nan))
    for levels in ("auto", (0.0, 1.0)):
        with pytest.raises(InputError, match=r"a\.npy: holds NaN or infinity"):
            UserMovie(tmp_path / "a.npy", view=View(60.0, levels=levels))


def test_frames_of_an_npz_appear_at_its_times(tmp_path):
    path, times = tmp_path / "m.npz", np.array([0.0, 0.1, 0.15, 0.3, 0.35]) - 0.5
    frames = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None] * np.ones((1, 9, 9), np.float32)
    np.savez(path, movie=frames, t_axis=times, note="a word")
    shown = contrast(path, Display(20, 1.0, 0.498, (9, 9)), rate_hz=None)[:, 4, 4] + 0.498
    np.testing.assert_allclose(shown, np.array([0, 0, 1, 2, 2, 2, 3, 4, 4]) / 4, atol=1e-6)
    assert UserMovie(path, rate_hz=10.0).seconds == 0.5  # the flag wins over the file's times
    for more, reason in (
        ({"t_axis": times, "rate_hz": 30.0}, "t_axis runs at 20 Hz, rate_hz is 30"),
        ({"t_axis": times[:4]}, "t_axis has 4 entries for 5 frames"),
        ({"t_axis": times * 1000}, "divide milliseconds by 1000"),
        ({"t_axis": [0, 0.1, 0.2, 1.7, 1.8]}, r"t_axis has a gap of 1.5 s after frame 2"),
    ):
        np.savez(path, movie=frames, **more)
        with pytest.raises(InputError, match=reason):
            UserMovie(path)


@pytest.mark.parametrize("writer", ["tifffile", "pil", "imagej"])
def test_pages_of_a_tiff_are_frames(tmp_path, writer):
    frames = (np.arange(20)[:, None, None] * 10 + np.zeros((1, 40, 40))).astype(np.uint8)
    path = tmp_path / "stack" / "m.tif"
    path.parent.mkdir()
    if writer == "pil":
        pages = [Image.fromarray(frame) for frame in frames]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        tifffile.imwrite(path, frames, imagej=writer == "imagej")
    for given in (path, path.parent):
        np.testing.assert_allclose(greys(given), np.arange(20) * 10 / 255, atol=1e-4)


def test_a_stack_of_two_axes_is_refused(tmp_path):
    frames = np.zeros((2, 5, 40, 40), np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", frames, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="a stack of 2 T x 5 Z"):
        UserMovie(tmp_path / "m.tif", rate_hz=60.0)


AMBIGUOUS = [
    (np.uint8, 1, r"white may be 1 or 255; give --levels 0,1 or --levels 0,255", "0,1", 1.0),
    (np.uint16, 2048, r"white may be 4095 or 65535", "12bits", 2048 / 4095),
    (np.uint16, 2048, r"white may be 4095 or 65535", "bits", 2048 / 65535),
    (np.uint16, 900, r"white may be 1023 or 65535", "0,1023", 900 / 1023),
    (np.int32, 128, r"values from 128 to 128 \(int32\)", "0,255", 128 / 255),
    (np.int16, -3, r"values from -3 to -3 \(int16\)", "-6,6", 0.25),
    (np.float32, 128.0, r"values from 128 to 128 \(float32\)", "0,255", 128 / 255),
    (np.float32, -0.5, r"values from -0.5 to -0.5", "-1,1", 0.25),
]


@pytest.mark.parametrize(("dtype", "value", "question", "answer", "grey"), AMBIGUOUS)
def test_levels_that_cannot_be_known_are_asked_for(tmp_path, dtype, value, question, answer, grey):
    path = tmp_path / "m.npz"
    np.savez(path, movie=np.full((3, 40, 40), value, dtype), rate_hz=60.0)
    with pytest.raises(InputError, match=question):
        UserMovie(path)
    np.testing.assert_allclose(greys(path, levels=parse_levels(answer)), grey, atol=1e-4)
    with pytest.raises(InputError, match="lie outside --levels"):
        UserMovie(path, view=View(levels=(1000.0, 1001.0)))


def test_levels_are_said_and_misspelt_ones_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.full((3, 40, 40), 200, np.uint8))
    movie = UserMovie(tmp_path / "m.npy", rate_hz=60.0)
    assert "black 0, white 255 (file: 8 bits)" in movie.describe(FIELD)
    for text in ("white", "1,1", "0;1", "nan,1", "0bits"):
        with pytest.raises(InputError, match=f"--levels {text}: expected"):
            parse_levels(text)
    np.save(tmp_path / "m.npy", np.full((3, 40, 40), np.nan, np.float32))
    with pytest.raises(InputError, match="holds NaN or infinity"):
        UserMovie(tmp_path / "m.npy", rate_hz=60.0)


def test_pictures_of_two_kinds_in_a_folder_are_refused(tmp_path):
    Image.fromarray(picture(200, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(picture(40000, np.uint16)).save(tmp_path / "b.png")
    movie = UserMovie(tmp_path, rate_hz=60.0)
    with pytest.raises(InputError, match=r"b\.png: holds uint16, the first image uint8"):
        list(movie.pieces(FIELD))


@pytest.mark.parametrize(("own", "field"), [(50, 50), (50, 51), (51, 50), (51, 51)])
def test_pixels_of_the_models_size_are_not_smeared(tmp_path, own, field):
    movie = np.full((1, own, own), 0.498, np.float32)
    movie[0, own // 2, own // 2] = 0.0
    np.savez(tmp_path / "m.npz", movie=movie, rate_hz=60.0, deg_per_px=1.0)
    shown = contrast(tmp_path / "m.npz", Display(60, 1.0, 0.498, (field, field)))[0]
    assert (shown.abs() > 0.01).nonzero().tolist() == [[field // 2, field // 2]]
    assert shown[field // 2, field // 2] == pytest.approx(-0.498)


def test_a_picture_that_just_fits_covers_an_even_field(tmp_path):
    np.savez(tmp_path / "m.npz", movie=np.zeros((1, 100, 100), np.float32), rate_hz=60.0)
    shown = contrast(tmp_path / "m.npz", Display(60, 1.0, 0.498, (50, 50)))[0]
    np.testing.assert_allclose(shown, -0.498, atol=1e-5)


def test_place_eye_and_polarity(tmp_path):
    movie = np.full((1, 41, 41), 0.498, np.float32)
    movie[0, 20, 25] = 0.0  # five degrees right of the middle
    np.savez(tmp_path / "m.npz", movie=movie, rate_hz=60.0, deg_per_px=1.0)

    def dark_at(display=FIELD, **view):
        shown = contrast(tmp_path / "m.npz", display, **view)[0]
        return (shown.abs() > 0.1).nonzero().tolist()[0], float(shown.min())

    assert dark_at() == ([20, 25], pytest.approx(-0.498))
    assert dark_at(azimuth=3.0, elevation=2.0)[0] == [18, 28]
    assert dark_at(eye="other")[0] == [20, 15]
    shown = contrast(tmp_path / "m.npz", polarity="inverted")[0]
    assert float(shown[20, 25]) == pytest.approx(1.0 - 0.498)
    assert dark_at(FIELD.placed("10,12"))[0] == [10, 17]
    line = UserMovie(tmp_path / "m.npz", view=View(azimuth=3.0, eye="other")).describe(FIELD)
    assert "middle at azimuth 3, elevation 0 deg; mirrored for the other eye" in line
    for text in ("10", "10,", "-1,3", "99,1"):
        with pytest.raises(InputError, match="placement"):
            FIELD.placed(text)


def write_video(path, times, values, *, base=1000, codec="libx264", form="yuv420p", **options):
    """Write grey frames that appear at ``times`` (s), on a clock of 1 / ``base`` s."""
    options = options or ({"qp": "0", "bf": "0"} if codec == "libx264" else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=base, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, form
        for at, value in zip(times, values, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64), value, np.uint8), format="gray")
            frame = frame.reformat(format=form)
            frame.pts = round(at * base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


VARYING = np.array([*np.arange(30) / 30, *(1.0 + np.arange(20) / 10)])  # s; 30, then 10 frames/s


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "webm"])
def test_a_video_of_varying_rate_keeps_its_times(tmp_path, suffix):
    """30, then 10 frames/s, 3.0 s, black from 1.5 s; the last frame has no end in the file."""
    path = tmp_path / f"vfr.{suffix}"
    codec = "libvpx" if suffix == "webm" else "libx264"
    write_video(path, VARYING, [127 if at < 1.45 else 0 for at in VARYING], codec=codec)
    movie = UserMovie(path)
    assert movie.clock.varies
    assert movie.n_frames == 50
    assert movie.seconds == pytest.approx(3.0, abs=2e-3)
    shown = torch.cat(list(movie.pieces(FIELD)))[:, 20, 20]
    assert len(shown) == 180
    assert int((shown < -0.3).nonzero()[0]) == 90
    assert movie.clock.times[-1] == pytest.approx(2.9, abs=1e-3)
    assert "at a varying rate" in movie.describe(FIELD)
    assert "its last frame held as long as those before it" in movie.describe(FIELD)


def concat_by_ffmpeg(path, *, last_s):
    """Let ffmpeg write pictures at 25 Hz that are held: 0 to 1 s, to 1.4 s, to 2 s; then one."""
    for name, value in (("g", 127), ("k", 0)):
        Image.fromarray(picture(value, np.uint8)).save(path.parent / f"{name}.png")
    entries = [("g", 0.04)] * 25 + [("g", 0.2)] * 2 + [("k", 0.2)] * 3 + [("k", last_s)]
    text = "".join(f"file {name}.png\nduration {held}\n" for name, held in entries)
    (path.parent / "list.txt").write_text(text)
    codec = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
    codec = {".gif": [], ".webm": ["-c:v", "libvpx"]}.get(path.suffix, codec)
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "concat", "-i",
         str(path.parent / "list.txt"), "-fps_mode", "vfr", *codec, str(path)], check=True,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm", "gif"])
def test_the_last_frame_of_a_video_stays_as_long_as_the_file_says(tmp_path, suffix):
    """MP4 with frames stored out of order said 0.2 s, the step between two of them; it is 0.04.

    A list that names its last picture once more, as ffmpeg's manual asks for, makes a film that is
    one step longer than the durations add up to: its last frame begins at their sum.
    """
    path = tmp_path / f"m.{suffix}"
    concat_by_ffmpeg(path, last_s=0.04)
    movie = UserMovie(path)
    assert movie.n_frames == 31
    assert movie.seconds == pytest.approx(2.04, abs=1e-6)
    shown = torch.cat(list(movie.pieces(Display(25, 1.0, 0.498, (41, 41)))))[:, 20, 20]
    np.testing.assert_array_equal(np.flatnonzero(shown < -0.3), np.arange(35, 51))
    assert "held as long" not in movie.describe(FIELD)


def test_an_avi_that_does_not_know_its_times_is_refused(tmp_path):
    concat_by_ffmpeg(tmp_path / "m.avi", last_s=0.04)
    with pytest.raises(InputError, match="stored out of order; it does not say when they appear"):
        UserMovie(tmp_path / "m.avi")
    write_video(tmp_path / "n.avi", np.arange(30) / 30, range(30), base=30, bf="2", qp="0")
    assert UserMovie(tmp_path / "n.avi").seconds == pytest.approx(1.0)  # one rate: nothing to say


def test_delays_of_a_gif_and_its_clear_parts(tmp_path):
    pages = [Image.fromarray(picture(index, np.uint8), "P") for index in (2, 1, 0)]
    for page in pages:
        page.putpalette([0, 0, 0, 255, 255, 255, 9, 9, 9] + [0] * 759)
    pages[0].save(tmp_path / "m.gif", save_all=True, append_images=pages[1:], transparency=2,
                  disposal=2, duration=[100, 300, 600], optimize=False)  # fmt: skip
    movie = UserMovie(tmp_path / "m.gif")
    assert movie.clock.times == pytest.approx((0.0, 0.1, 0.4))
    assert movie.seconds == pytest.approx(1.0)
    shown = torch.cat(list(movie.pieces(Display(10, 1.0, 0.498, (41, 41)))))[:, 20, 20]
    want = [0.0] + [0.502] * 3 + [-0.498] * 6  # the clear picture shows the grey behind it
    np.testing.assert_allclose(shown, want, atol=0.004)


@pytest.mark.parametrize("rates", [(30, 25), (24, 30), (60, 50)])
def test_two_rates_that_are_close_are_not_one(tmp_path, rates):
    """30 and 25 frames/s were called one rate of 27.3: off by 0.1 s where they change."""
    times = [*np.arange(rates[0]) / rates[0], *(1 + np.arange(rates[1]) / rates[1])]
    write_video(tmp_path / "m.mp4", times, [127] * rates[0] + [0] * rates[1], base=12000)
    shown = torch.cat(list(UserMovie(tmp_path / "m.mp4").pieces(FIELD)))[:, 20, 20]
    assert len(shown) == 120
    assert int((shown < -0.3).nonzero()[0]) == 60


@pytest.mark.parametrize(
    ("suffix", "codec", "form"),
    [
        ("mp4", "libx264", "yuv420p10le"),
        ("mkv", "libx264", "yuv422p"),
        ("mov", "libx264", "yuv444p"),
        ("mkv", "ffv1", "gray"),
        ("mkv", "ffv1", "gray16le"),
        ("mkv", "ffv1", "yuv422p10le"),
        ("mov", "prores", "yuv422p10le"),
        ("mov", "png", "rgb24"),
        ("avi", "rawvideo", "bgr24"),
        ("avi", "mjpeg", "yuvj420p"),
        ("mpg", "mpeg2video", "yuv420p"),
        ("wmv", "wmv2", "yuv420p"),
    ],
)
def test_greys_of_every_kind_of_video(tmp_path, suffix, codec, form):
    values = [0, 64, 128, 191, 255] * 3
    options = {"qp": "0", "bf": "0"} if codec == "libx264" else {"qscale": "1"}
    path = tmp_path / f"m.{suffix}"
    write_video(path, np.arange(15) / 25, values, base=25, codec=codec, form=form, **options)
    shown = contrast(path, Display(25, 1.0, 0.498, (41, 41)), rate_hz=None)
    np.testing.assert_allclose(shown[:, 20, 20] + 0.498, np.array(values) / 255, atol=0.01)


def test_a_picture_with_a_wrong_checksum_is_not_guessed(tmp_path):
    path = tmp_path / "m.mkv"
    options = {"level": "3", "slicecrc": "1"}
    write_video(path, np.arange(15) / 25, range(15), base=25, codec="ffv1", form="gray", **options)
    assert UserMovie(path).seconds == pytest.approx(0.6)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="a picture is damaged"):
        UserMovie(path)


def test_a_video_of_one_rate_is_not_called_varying(tmp_path):
    write_video(tmp_path / "m.mkv", np.arange(30) / 30, [100] * 30)
    movie = UserMovie(tmp_path / "m.mkv")  # Matroska rounds to 1 ms
    assert not movie.clock.varies
    assert movie.rate_hz == pytest.approx(30.0, rel=1e-3)
    assert UserMovie(tmp_path / "m.mkv", rate_hz=15.0).seconds == pytest.approx(2.0)


@pytest.mark.parametrize("span", ["tv", "pc"])
def test_video_greys_are_those_of_the_pictures(tmp_path, span):
    for i, value in enumerate((0, 64, 127, 191, 255)):
        Image.fromarray(np.full((64, 64), value, np.uint8)).save(tmp_path / f"{i}.png")
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-framerate", "10",
         "-i", str(tmp_path / "%d.png"), "-vf", f"scale=out_range={span},format=yuv420p",
         "-color_range", span, "-c:v", "libx264", "-qp", "0", str(tmp_path / "m.mp4")],
        check=True,
    )  # fmt: skip
    shown = contrast(tmp_path / "m.mp4", Display(10, 1.0, 0.498, (41, 41)), rate_hz=None)
    np.testing.assert_allclose(
        shown[:, 20, 20] + 0.498, [0, 64 / 255, 127 / 255, 191 / 255, 1], atol=0.003
    )


@pytest.mark.parametrize(
    ("view", "line"),
    [
        ({"azimuth": 200.0}, "its azimuth is 179.5 to 219.5 degrees, the field's 41 in all"),
        ({"elevation": 50.0}, "its elevation is 30.5 to 70.5 degrees, the field's 41 in all"),
        ({"elevation": -90.0, "deg_per_px": 0.5}, "its elevation is -100 to -80 degrees"),
    ],
)
def test_a_picture_off_the_field_is_refused(tmp_path, view, line):
    np.save(tmp_path / "m.npy", np.full((2, 40, 40), 0.25, np.float32))
    view = View(60.0, **{"deg_per_px": 1.0, **view})
    movie = UserMovie(tmp_path / "m.npy", view=view)
    with pytest.raises(InputError, match=line):
        movie.describe(FIELD)
    with pytest.raises(InputError, match="nothing of the picture lies on the field"):
        next(movie.pieces(FIELD))


@pytest.mark.parametrize("rate_hz", [None, 10.0])
def test_pixels_that_are_wider_than_high_stay_so(tmp_path, rate_hz):
    """A square of 40 x 40 degrees, stored as 40 x 20 pixels of twice the width."""
    frame = np.full((40, 20), 255, np.uint8)
    frame[:, 10:] = 0
    Image.fromarray(frame).save(tmp_path / "0.png")
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-framerate", "10", "-i",
         str(tmp_path / "%d.png"), "-vf", "setsar=2/1", "-c:v", "libx264", "-qp", "0",
         str(tmp_path / "m.mp4")], check=True,
    )  # fmt: skip
    for scale in (1.0, None):
        view = View(rate_hz, scale)
        movie = UserMovie(tmp_path / "m.mp4", view=view)
        assert "--levels" not in movie.levels.describe()
        shown = next(movie.pieces(Display(10, 1.0, 0.5, (40, 40))))[0]
        assert (shown[:, :20] > 0.49).all()
        assert (shown[:, 20:] < -0.49).all()
        said = movie.describe(Display(10, 1.0, 0.5, (40, 40)))
        assert "1 degrees per file pixel high and 2 wide" in said
        assert "lies off" not in said


def test_our_own_videos_play_everywhere(tmp_path):
    from analysis.animations import animate_maps

    animate_maps(tmp_path / "m.mp4", np.random.default_rng(0).random((8, 2, 9, 9)), "x", rate_hz=60)
    with av.open(str(tmp_path / "m.mp4")) as container:
        assert container.streams.video[0].format.name == "yuv420p"


@pytest.mark.parametrize("share", [0.1, 0.35, 0.7, 0.97])
@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_a_cut_animation_or_stack_is_no_shorter_movie(tmp_path, suffix, share):
    path = tmp_path / f"m.{suffix}"
    frames = [Image.fromarray(picture(20 * i, np.uint8)) for i in range(12)]
    more = {"duration": 40} if suffix == "gif" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **more)
    assert UserMovie(path, rate_hz=60.0).n_frames == 12
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        InputError, match=r"broken off video|damaged or cut|no readable (image|video)"
    ):
        contrast(path)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "avi", "mp4", "mov"])
@pytest.mark.parametrize("share", [0.02, 0.35, 0.9, 0.999])
def test_a_broken_off_video_is_named(tmp_path, suffix, share):
    path = tmp_path / f"m.{suffix}"
    codec = "libvpx" if suffix == "webm" else "libx264"
    write_video(path, np.arange(60) / 30, range(60), base=30, codec=codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=rf"m\.{suffix}: (broken off|no readable) video"):
        contrast(path, rate_hz=None)
