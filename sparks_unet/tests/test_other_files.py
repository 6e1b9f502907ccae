"""Movies as other microscopes and programs write them: axes, completeness, units, values."""

import os
import struct

import numpy as np
import pytest
import tifffile

from classical_baseline import main as classical
from common.files import InputError
from inputs.movie_io import movie_file, movie_ids, read_movie, read_stack
from inputs.movie_state import look_at
from inputs.units import length_um, time_ms
from settings.recording import Given, parse_axes, parse_pixel

T, H, W = 6, 9, 11
STACK = np.random.default_rng(0).integers(50, 4000, (T, H, W)).astype(np.uint16)
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def imagej(text, n=T):
    """Return the options of imwrite for ImageJ's text with these lines."""
    lines = f"ImageJ=1.54f\nimages={n}\n{text}\n"
    return {"description": lines, "metadata": None}


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        *(("micron", 1), ("microns", 1), ("um", 1), ("\u00b5m", 1), ("\u03bcm", 1), ("UM ", 1)),
        *(("\\u00B5m", 1), ("micrometer", 1), ("micrometres", 1), ("nm", 1e-3), ("mm", 1e3)),
        *(("cm", 1e4), ("inch", 25400), ("Inches", 25400), ("m", 1e6), ("pixel", None), ("", None)),
    ],
)
def test_spellings_of_lengths(unit, um):
    assert length_um(2, unit) == (None if um is None else pytest.approx(2 * um))


@pytest.mark.parametrize(
    ("unit", "ms"),
    [
        *(("s", 1e3), ("sec", 1e3), ("Seconds", 1e3), ("ms", 1), ("msec", 1), ("milliseconds", 1)),
        *(("\u00b5s", 1e-3), ("usec", 1e-3), ("min", 6e4), ("minutes", 6e4), ("hr", 3.6e6)),
        ("frame", None),
    ],
)
def test_spellings_of_times(unit, ms):
    assert time_ms(0.5, unit) == (None if ms is None else pytest.approx(ms / 2))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "?", None])
def test_what_is_no_size_is_unknown(value):
    assert length_um(value, "um") is None


@pytest.mark.parametrize("text", ["nan", "0", "-1", "inf", "1,2,3", "wide"])
def test_flags_refuse_what_is_no_pixel_size(text, tmp_path, capsys):
    with pytest.raises(ValueError, match=r".*"):
        parse_pixel(text)
    with pytest.raises(SystemExit) as left:
        classical([str(tmp_path / "a.tif"), f"--pixel-um={text}"])
    assert left.value.code == 2
    assert f"{text}: expected um > 0" in capsys.readouterr().err


def test_oblong_pixels_keep_both_edges(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", STACK, resolution=(10, 5), **imagej(f"frames={T}\nunit=micron")
    )
    scale = read_movie(tmp_path / "a.tif").calibration
    assert (scale.pixel_x_um, scale.pixel_y_um) == (pytest.approx(0.1), pytest.approx(0.2))
    assert "0.1 x 0.2 um" in scale.line()
    assert scale.pixel_um2 == pytest.approx(0.02)
    assert parse_pixel("0.1,0.2") == (0.1, 0.2)


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (f"slices={T}\nunit=micron", "6 planes of depth"),
        (f"channels={T}", "6 channels"),
        ("unit=micron", None),
        (f"frames={T}", None),
    ],
)
def test_imagej_axes_count(tmp_path, lines, wrong):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, **imagej(lines))
    if wrong:
        with pytest.raises(InputError, match=f"{wrong}.*and no time.*--axes TYX"):
            read_movie(path)
    np.testing.assert_array_equal(read_movie(path, Given(axes="TYX")).data, STACK)
    np.testing.assert_array_equal(read_stack(path).data, STACK)  # a mask has the axes of its movie


@pytest.mark.parametrize("axes", ["TYX", "YXT", "TXY", "XYT"])
def test_stated_axes_are_obeyed(tmp_path, axes):
    order = ["TYX".index(letter) for letter in axes]
    stored = np.ascontiguousarray(np.transpose(STACK, order))
    tifffile.imwrite(tmp_path / "s.tif", stored, metadata={"axes": axes}, photometric="minisblack")
    np.testing.assert_array_equal(read_movie(tmp_path / "s.tif").data, STACK)
    tifffile.imwrite(tmp_path / "p.tif", stored, metadata=None, photometric="minisblack")
    np.testing.assert_array_equal(read_movie(tmp_path / "p.tif", Given(axes=axes)).data, STACK)


def test_a_channel_and_a_plane_are_chosen(tmp_path):
    data = np.random.default_rng(1).integers(0, 999, (T, 2, 3, H, W)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TZCYX"})
    path = tmp_path / "a.tif"
    with pytest.raises(InputError, match=r"3 channels.*choose one with --channel 0 to 2"):
        read_movie(path)
    with pytest.raises(InputError, match=r"2 planes of depth.*choose one with --z 0 to 1"):
        read_movie(path, Given(channel=2))
    np.testing.assert_array_equal(read_movie(path, Given(channel=2, z=1)).data, data[:, 1, 2])
    with pytest.raises(InputError, match="--channel 3: expected 0 to 2"):
        read_movie(path, Given(channel=3, z=0))
    with pytest.raises(InputError, match="--axes TYX names 3 axes, the file has 5"):
        read_movie(path, Given(axes="TYX"))
    with pytest.raises(ValueError, match="TTX"):
        parse_axes("TTX")


def test_a_line_scan_is_read_where_it_is_said(tmp_path):
    path, scan = tmp_path / "xt.tif", STACK[:, 4]
    tifffile.imwrite(path, scan, metadata=None)
    with pytest.raises(InputError, match=r"two-dimensional image.*--linescan"):
        read_movie(path)
    np.testing.assert_array_equal(read_movie(path, Given(linescan="rows")).data[:, 0], scan)
    np.testing.assert_array_equal(read_movie(path, Given(linescan="columns")).data[:, 0], scan.T)
    tifffile.imwrite(path, np.repeat(scan[..., None].astype(np.uint8), 3, -1), photometric="rgb")
    assert read_movie(path, Given(linescan="rows")).data.shape == (T, 1, W)
    tifffile.imwrite(path, STACK)
    with pytest.raises(InputError, match="--linescan: the file is a movie"):
        read_movie(path, Given(linescan="rows"))


def ome_set(folder, increment='TimeIncrement="0.02"'):
    """Write a movie over two OME-TIFF files."""
    uid = [f"urn:uuid:00000000-0000-4000-8000-00000000000{i}" for i in (1, 2)]
    parts = "".join(
        f'<TiffData FirstT="{3 * k}" FirstC="0" FirstZ="0" IFD="0" PlaneCount="3">'
        f'<UUID FileName="m_{k}.ome.tif">{uid[k]}</UUID></TiffData>'
        for k in (0, 1)
    )
    for k in (0, 1):
        xml = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}" UUID="{uid[k]}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{W}" SizeY="{H}" SizeC="1" SizeZ="1" SizeT="{T}" {increment}>'
            f'<Channel ID="Channel:0:0"/>{parts}</Pixels></Image></OME>'
        )
        data = STACK[3 * k : 3 * k + 3]
        options = {"description": xml, "metadata": None, "photometric": "minisblack"}
        tifffile.imwrite(folder / f"m_{k}.ome.tif", data, **options)


def test_a_set_of_files_is_read_whole_or_refused(tmp_path):
    ome_set(tmp_path)
    for k in (0, 1):
        movie = read_movie(tmp_path / f"m_{k}.ome.tif")
        np.testing.assert_array_equal(movie.data, STACK)
        assert movie.calibration.frame_ms == pytest.approx(20)
    os.rename(tmp_path / "m_1.ome.tif", tmp_path / "other.tif")
    with pytest.raises(InputError, match="3 of the 6 pages lie in other files of its set"):
        read_movie(tmp_path / "m_0.ome.tif")
    half = (tmp_path / "other.tif").read_bytes()
    (tmp_path / "m_1.ome.tif").write_bytes(half[: len(half) * 2 // 3])
    with pytest.raises(InputError, match=r"m_1\.ome\.tif.*|m_0\.ome\.tif"):
        read_movie(tmp_path / "m_0.ome.tif")


def test_frames_written_one_by_one_are_a_movie(tmp_path):
    for name, options in (("shaped", {}), ("plain", {"metadata": None})):
        for frame in STACK:
            path = tmp_path / f"{name}.tif"
            tifffile.imwrite(path, frame, append=path.is_file(), **options)
        np.testing.assert_array_equal(read_movie(path).data, STACK)
    tifffile.imwrite(path, STACK[0, :4], append=True)
    with pytest.raises(InputError, match=r"7 images|2 images"):
        read_movie(path)


@pytest.mark.parametrize("kind", ["lzw", "zstd", "deflate", "packbits", "lzma"])
def test_compressed_files(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression=kind, metadata=None)
    np.testing.assert_array_equal(read_movie(tmp_path / "a.tif").data, STACK)


def packed_12_bits(path):
    """Write STACK with 12 bits a value, one strip a page."""
    pages, data = [], b""
    for frame in STACK:
        rows = []
        for row in frame:
            bits = "".join(f"{value:012b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            rows.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
        pages.append(b"".join(rows))
    offset = 8
    body = b""
    for number, strip in enumerate(pages):
        data_at = offset + len(body)
        body += strip + b"\0" * (len(strip) % 2)
        tags = [(256, W), (257, H), (258, 12), (259, 1), (262, 1), (273, data_at), (277, 1)]
        tags += [(278, H), (279, len(strip))]
        ifd_at = offset + len(body)
        size = 2 + 12 * len(tags) + 4
        last = number == len(pages) - 1
        following = 0 if last else ifd_at + size + len(pages[number + 1])
        following += following % 2
        entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
        data = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
        body += data
        if number == 0:
            first = ifd_at
    path.write_bytes(struct.pack("<2sHI", b"II", 42, first) + body)


def test_12_packed_bits(tmp_path):
    packed_12_bits(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_movie(tmp_path / "a.tif").data, STACK)


def metamorph(path, times_ms, distances=None):
    """Write an STK: one directory, all planes behind it, and ImageJ's text left from elsewhere."""
    rows = [
        (int(d), 1, 2451545, int(ms), 2451545, int(ms))
        for d, ms in zip(distances or [0] * T, times_ms, strict=True)
    ]
    values = [n for row in rows for n in row]
    scale = [3, 1, 4, 0xA0A0A0A0, 5, 0xA0A0A0A0, 6, 0xB0B0B0B0]  # offsets are filled in below
    tags = [(33628, 4, len(scale), scale, True), (33629, 4, len(values), values, True)]
    options = {"description": "ImageJ=1.48v\nimages=4000\n", "metadata": None}
    tifffile.imwrite(path, STACK, extratags=tags, **options)
    content = path.read_bytes()
    for old, new in (((33628, 4, len(scale)), (33628, 4, 4)), ((33629, 4, 36), (33629, 5, T))):
        entry = struct.pack("<HHI", *old)
        assert content.count(entry) == 1
        content = content.replace(entry, struct.pack("<HHI", *new))
    at = len(content)
    content = content.replace(struct.pack("<I", 0xA0A0A0A0), struct.pack("<I", at))
    content = content.replace(struct.pack("<I", 0xB0B0B0B0), struct.pack("<I", at + 8))
    path.write_bytes(content + struct.pack("<III2s", 1, 10, 2, b"um"))


def test_metamorph_stacks_are_read_with_their_times(tmp_path):
    path = tmp_path / "a.stk"
    metamorph(path, 20 * np.arange(T))
    movie = read_movie(path)
    np.testing.assert_array_equal(movie.data, STACK)
    assert movie.calibration.frame_ms == pytest.approx(20)
    assert movie.calibration.frame_origin == "file: STK plane times"
    assert movie.calibration.pixel_um == pytest.approx(0.1)
    metamorph(path, np.zeros(T))
    assert read_movie(path).calibration.frame_ms is None


def test_a_stale_text_of_imagej_is_named_as_the_reason(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, **imagej("frames=40", n=40))
    with pytest.raises(InputError, match=r"6 of 40 pages.*as its ImageJ text counts them"):
        read_movie(tmp_path / "a.tif")


@pytest.mark.parametrize(("tunit", "ms"), [("ms", 20), ("sec", 20e3), ("minutes", 12e5)])
def test_units_of_the_frame_interval(tmp_path, tunit, ms):
    lines = imagej(f"frames={T}\nfinterval=20\ntunit={tunit}\nfps=7")
    tifffile.imwrite(tmp_path / "a.tif", STACK, **lines)
    assert read_movie(tmp_path / "a.tif").calibration.frame_ms == pytest.approx(ms)


def test_black_and_repeated_frames_are_named(tmp_path, caplog):
    movie = np.repeat(STACK + 500, 5, axis=0)[::5].copy()
    movie = np.concatenate([movie, movie + 1, movie + 2])
    movie[4:6] = 0
    movie[10] = movie[9]
    tifffile.imwrite(tmp_path / "a.tif", movie)
    read = read_movie(tmp_path / "a.tif")
    assert list(np.flatnonzero(~read.state.good)) == [4, 5, 10]
    assert "2 frames are black (4 to 5)" in caplog.text
    assert "1 frames are equal to the frame before (10)" in caplog.text
    np.testing.assert_array_equal(read.data, movie)  # told, not repaired


def test_a_dim_or_bleaching_movie_is_not_black():
    rng = np.random.default_rng(0)
    level = 3000 * np.exp(-np.arange(60) / 40)[:, None, None]
    assert look_at(rng.poisson(np.broadcast_to(level, (60, 20, 30)))).good.all()
    step = np.where(np.arange(60) < 40, 3000, 1800)[:, None, None]
    assert look_at(rng.poisson(np.broadcast_to(step, (60, 20, 30)))).good.all()


@pytest.mark.parametrize(("limit", "ceiling"), [(None, None), (1700, 1700), (255, 255)])
def test_clipped_values_are_seen(limit, ceiling):
    movie = np.random.default_rng(0).poisson(100, (30, 20, 30)) * 10
    movie[10, 5:12, 5:12] = 2200
    movie = movie // 8 if limit == 255 else movie
    noise = np.random.default_rng(1).poisson(5, movie.shape)
    assert look_at(np.minimum(movie, limit) if limit else movie + noise).ceiling == ceiling


def test_an_offset_above_the_movie_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with pytest.raises(InputError, match="--offset 60000: the movie's mean is"):
        read_movie(tmp_path / "a.tif", Given(offset_counts=60000.0))
    assert read_movie(tmp_path / "a.tif", Given(offset_counts=100.0)).calibration.offset_counts


def test_ids_and_endings_of_a_folder(tmp_path):
    for name in ("a_1_video.tif", "02_video.tiff", "02_smoothed_video.tif", "b_video.TIF", "x.tif"):
        (tmp_path / name).touch()
    assert movie_ids(tmp_path) == ["02", "a_1", "b"]
    assert movie_file(tmp_path, "02").name == "02_video.tiff"
    (tmp_path / "02_video.tif").touch()
    with pytest.raises(InputError, match="two files of one name"):
        movie_file(tmp_path, "02")


def test_a_vendors_file_names_the_package(tmp_path):
    pytest.importorskip("tifffile")
    path = tmp_path / "a.nd2"
    path.write_bytes(b"no nd2")
    with pytest.raises(
        InputError, match=r"a\.nd2: .*(requirements-vendors|cannot be read|no reader)"
    ):
        read_movie(path)


def test_a_czi_file_of_zeiss_is_read(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi", reason="requirements-vendors.txt")
    movie = np.random.default_rng(0).integers(90, 4000, (7, 12, 20)).astype(np.uint16)
    with czi.create_czi(str(tmp_path / "a.czi")) as out:
        for t, frame in enumerate(movie):
            out.write(data=frame[..., None], plane={"T": t, "C": 0, "Z": 0})
        out.write_metadata("a", scale_x=0.2e-6, scale_y=0.3e-6)
    read = read_movie(tmp_path / "a.czi", Given(None, 6.8))
    np.testing.assert_array_equal(read.data, movie)
    scale = read.calibration
    assert (scale.pixel_x_um, scale.pixel_y_um) == pytest.approx((0.2, 0.3))
    assert (scale.pixel_origin, scale.frame_ms) == ("file: .czi pixel size", 6.8)
    assert read_movie(tmp_path / "a.czi").calibration.frame_ms is None  # the file does not say it
