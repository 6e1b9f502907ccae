"""Readers of every format, and what they say about damaged files."""

import gzip
import io
import json
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.files import InputError
from inputs.movie_files import open_movie, read_movie, write_tiff
from inputs.reading import load_recording
from inputs.recording import OUTSIDE, find_duplicate_series, resolve_targets
from inputs.resizing import convert_csv, crop_numpy_width
from inputs.scales import UNKNOWN, Known, Scales

KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


def movie_of(dtype="uint16", shape=(6, 5, 7), seed=0):
    """Return a movie (F, H, W) of random values of one type."""
    values = np.random.default_rng(seed).normal(90, 20, shape)
    return np.clip(values, 1, 127).astype(dtype)


def refused(path, *words, **options):
    """Assert that loading ``path`` gives one InputError that holds all ``words``."""
    with pytest.raises(InputError) as caught:
        load_recording(path, **options)
    text = str(caught.value)
    assert path.name in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"metadata": None},
        {"rowsperstrip": 2, "compression": "zstd"},
        {"tile": (16, 16)},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_tiff_of_every_type(tmp_path, dtype, options):
    if options.get("predictor") and not np.issubdtype(dtype, np.integer):
        options = {"compression": "lzw"}
    movie, path = movie_of(dtype), tmp_path / "movie.tif"
    tifffile.imwrite(path, movie, photometric="minisblack", **options)
    recording = load_recording(path)
    assert recording.shape == (5, 7)
    assert recording.values.dtype.isnative
    np.testing.assert_array_equal(recording.movie(), movie)


def test_tiff_appended_page_by_page_is_read_whole(tmp_path):
    movie = movie_of()
    for metadata in ({}, None):
        path = tmp_path / f"appended_{metadata is None}.tif"
        for frame in movie:
            tifffile.imwrite(path, frame, append=True, photometric="minisblack", metadata=metadata)
        np.testing.assert_array_equal(read_movie(path), movie)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_imagej_stack_is_native_and_tells_its_scales(tmp_path, byteorder):
    movie, path = movie_of("float32"), tmp_path / "movie.tif"
    if byteorder == "<":
        size = Known(44.0, "flag")
        write_tiff(path, movie, Scales(Known(12.5, "flag"), row_um=size, column_um=size))
    else:
        scales = {"axes": "TYX", "finterval": 1 / 12.5, "unit": "um"}
        resolution = (1 / 44, 1 / 44)
        tifffile.imwrite(
            path, movie, imagej=True, byteorder=">", metadata=scales, resolution=resolution
        )
        assert path.read_bytes()[:2] == b"MM"
    recording = load_recording(path)
    np.testing.assert_array_equal(recording.movie(), movie)
    scales = recording.scales
    assert scales.rate_hz == (pytest.approx(12.5), "file: finterval")
    assert scales.column_um == (pytest.approx(44.0, rel=1e-4), "file: XResolution in um")
    assert scales.row_um == (pytest.approx(44.0, rel=1e-4), "file: YResolution in um")


def test_one_page_that_stands_for_all_frames(tmp_path):
    """ImageJ writes stacks above 4 GB with a single page; cut ones must not become shorter."""
    movie, path = movie_of("uint16", (9, 4, 6)), tmp_path / "virtual.tif"
    text = f"ImageJ=1.53t\nimages={len(movie)}\nslices={len(movie)}\n".encode() + b"\0"
    tags = [
        (256, 3, 1, 6), (257, 3, 1, 4), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
        (270, 2, len(text), 150), (273, 4, 1, 150 + len(text)), (277, 3, 1, 1), (278, 3, 1, 4),
        (279, 4, 1, 4 * 6 * 2),
    ]  # fmt: skip
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags))
    for code, kind, count, value in tags:
        packed = struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        head += struct.pack(">HHI", code, kind, count) + packed
    head = (head + bytes(4)).ljust(150, b"\0") + text
    path.write_bytes(head + movie.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_movie(path), movie)
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "cut")


def test_truncated_tiff_is_an_error(tmp_path):
    movie = movie_of("uint16", (20, 16, 16))
    for name, options in {
        "plain": {}, "packed": {"compression": "zlib"}, "imagej": {"imagej": True},
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, movie, photometric="minisblack", **options)
        whole = path.read_bytes()
        for kept in (1.0 - 1 / len(whole), 0.9, 0.5, 0.1):
            path.write_bytes(whole[: int(len(whole) * kept)])
            try:
                # The last bytes of a file may belong to a tag that nobody needs.
                np.testing.assert_array_equal(read_movie(path), movie)
                assert kept > 0.99
            except InputError:
                continue
    (tmp_path / "empty.tif").write_bytes(b"")
    refused(tmp_path / "empty.tif", "empty", "0 bytes")
    refused(tmp_path / "missing.tif", "not found")


def test_pages_of_other_size_and_channels_are_refused(tmp_path):
    mixed, colour = tmp_path / "mixed.tif", tmp_path / "colour.tif"
    with tifffile.TiffWriter(mixed) as tif:
        for size in (8, 8, 4):
            tif.write(np.ones((size, 8), np.uint8), photometric="minisblack")
    refused(mixed, "page 2")
    frames = np.random.default_rng(0).integers(0, 255, (4, 6, 7, 3)).astype(np.uint8)
    tifffile.imwrite(colour, frames, photometric="rgb")
    refused(colour, "RGB", "--gray")
    mean = load_recording(colour, gray=True).movie()
    np.testing.assert_allclose(mean, frames.mean(axis=-1), rtol=1e-6)
    channels = tmp_path / "channels.tif"
    tifffile.imwrite(
        channels, movie_of("uint16", (4, 2, 6, 7)), imagej=True, metadata={"axes": "TCYX"}
    )
    refused(channels, "one channel")


def test_numpy_files(tmp_path):
    movie = movie_of(">i2")
    np.save(tmp_path / "movie.npy", movie)
    np.savez_compressed(tmp_path / "movie.npz", movie=movie)
    np.save(tmp_path / "matrix.npy", movie.reshape(6, -1))
    for name in ("movie.npy", "movie.npz"):
        recording = load_recording(tmp_path / name)
        np.testing.assert_array_equal(recording.movie(), movie)
    matrix = load_recording(tmp_path / "matrix.npy", shape=(5, 7))
    np.testing.assert_array_equal(matrix.movie(), movie)
    refused(tmp_path / "matrix.npy", "35 pixels", "4 x 7", shape=(4, 7))
    with open(tmp_path / "objects.npy", "wb") as handle:  # an array of pickled objects
        header = {"descr": "|O", "fortran_order": False, "shape": (2,)}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(b"\x80\x04]\x94.")
    refused(tmp_path / "objects.npy")
    np.save(tmp_path / "complex.npy", movie.astype(complex))
    refused(tmp_path / "complex.npy", "complex")


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mov"])
def test_video_files(tmp_path, suffix):
    import imageio_ffmpeg

    rows = np.arange(32)[:, None] * 4 + np.arange(48)[None]
    movie = np.stack([(rows + 5 * k) % 200 for k in range(12)]).astype(np.uint8)
    for name, colour in (("gray", np.repeat(movie[..., None], 3, -1)), ("colour", None)):
        if colour is None:
            colour = np.stack((movie, movie // 2, 200 - movie), axis=-1)
        path = tmp_path / f"{name}{suffix}"
        writer = imageio_ffmpeg.write_frames(str(path), (48, 32), fps=10, quality=10)
        writer.send(None)
        for frame in colour:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
    recording = load_recording(tmp_path / f"gray{suffix}")
    assert recording.movie().shape == movie.shape
    assert np.abs(recording.movie() - movie).mean() < 3
    assert recording.scales.rate_hz == UNKNOWN  # the header holds a playback rate
    assert "10 frames/s in the header is a playback rate" in recording.words()
    refused(tmp_path / f"colour{suffix}", "--gray")
    assert load_recording(tmp_path / f"colour{suffix}", gray=True).movie().shape == movie.shape
    path = tmp_path / f"gray{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


def test_gif(tmp_path):
    movie, path = movie_of("uint8", (5, 12, 16)), tmp_path / "movie.gif"
    frames = [Image.fromarray(frame) for frame in movie]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    np.testing.assert_array_equal(load_recording(path).movie(), movie)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "cut")


def test_pixel_csv_is_exact_and_knows_its_image(tmp_path):
    movie = movie_of("float32")
    path = convert_csv(movie, tmp_path / "resized_data.csv")
    assert path.read_text().splitlines()[0] == ",".join(str(k) for k in range(35))
    recording = load_recording(path)
    assert recording.shape == (5, 7)
    assert recording.kind == "pixels"
    np.testing.assert_array_equal(recording.movie().astype(np.float32), movie)
    bare = tmp_path / "bare.csv"
    bare.write_bytes(path.read_bytes())
    assert load_recording(bare).shape is None
    refused(bare, "35 pixels", "6 x 7", shape=(6, 7))
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    refused(path, "cut")
    path.write_text(path.read_text()[:-25])
    refused(path, "line 6", "cells, expected 35")


def test_split_knows_its_target(tmp_path):
    movie = movie_of("float32")
    for index, path in enumerate(crop_numpy_width(movie, tmp_path, None, 3, target_rc=(2, 4))):
        recording = load_recording(path)
        (target,) = resolve_targets(recording)
        series = recording.values[:, target].astype(np.float32)
        np.testing.assert_array_equal(series, movie[:, 2, 4])
        assert recording.split["index"] == index
        assert recording.kind == "split"
        if index == 1:
            assert recording.target_label == "5"  # row 2 of width 2, column 4 - 3
            assert recording.pixels[target] == 2 * 2 + 1
        else:
            assert recording.pixels[target] == OUTSIDE
            assert recording.target_label == str(5 * recording.shape[1])


def test_named_table(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress("\ufeffa, b ,NDX\n1,2,3\n4,5,6e0\n".encode()))
    recording = load_recording(path)
    assert recording.columns == ["a", "b", "NDX"]
    assert (recording.kind, recording.shape, recording.pixels) == ("table", None, None)
    np.testing.assert_array_equal(recording.values, [[1, 2, 3], [4, 5, 6]])
    assert resolve_targets(recording) == [2]
    refused(path, "named columns", shape=(1, 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,1,2\n1,2,3\n4,5\n", ("line 3", "row 1", "2 cells")),
        ("0,1,2\n1,2,3\n4,5,6,7\n", ("line 3", "4 cells")),
        ("0,1,2\n1,2,3\n4,dog,6\n", ("line 3", "column 1", "dog")),
        ("0,1,2\n1,,3\n4,5,6\n", ("line 2", "column 1")),
        ("0,1,2\n", ("no row",)),
        ("", ("no header",)),
        ("1.5,2.5,3.5\n1,2,3\n", ("header",)),
        ("a,b\n1,2,3\n", ("2 names", "3 cells")),
        ("a,a,b\n1,2,3\n", ("twice",)),
        (",a,b\n5,1,2\n", ("no name",)),
        ("a,,b\n5,1,2\n", ("column 2 has no name",)),
        ("a|b\n1;2\n", ("commas",)),
        ("a;b\n1;2\n3;x\n", ("line 3", "column b", "'x'")),
        ("a;b\n1,5;2\n3;1.000,5\n", ("line 3", "column b")),
        ("0,1,2\n1,2,3\n4,nan,6\n", ("1 values", "frame 1", "column 1")),
        ("0,1,2\n1,inf,3\n4,inf,6\n", ("2 values", "frame 0", "column 1")),
        ("# 1,2,3,4\n1,2,3\n", ("4 names", "3 cells")),
    ],
)
def test_bad_csv_is_named_by_place(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    refused(path, *words)


def test_no_finite_number_is_named_by_frame_and_pixel(tmp_path):
    movie = movie_of("float32")
    movie[3, 2, 4] = np.nan
    movie[4, 0, 0] = np.inf
    tifffile.imwrite(tmp_path / "movie.tif", movie)
    refused(tmp_path / "movie.tif", "2 values", "frame 3", "row 2, column 4")


def test_targets_keep_file_order_and_unknown_ones_are_explained(tmp_path, capsys):
    np.save(tmp_path / "movie.npy", movie_of())
    recording = load_recording(tmp_path / "movie.npy")
    assert resolve_targets(recording, [" 20", 3, "20"]) == [3, 20]
    assert resolve_targets(recording, target_rc=(2, 4)) == [18]
    assert resolve_targets(recording, target_rc=[(2, 4), (0, 1)]) == [1, 18]
    for wrong, word in (("935", "nearest"), ("99", "0 to 34")):
        with pytest.raises(InputError, match=word):
            resolve_targets(recording, [wrong])
    with pytest.raises(InputError, match=r"rows 0\.\.4"):
        resolve_targets(recording, target_rc=(5, 0))
    with pytest.raises(InputError, match="no target"):
        resolve_targets(recording, [])
    with pytest.raises(InputError, match="all 35 columns"):
        resolve_targets(recording, range(35))
    values = np.array([[1, 2, 1], [3, 4, 3]])
    assert find_duplicate_series(values, [2]) == [(0, 2)]
    assert capsys.readouterr().err == ""


def damaged(data, kept, flips):
    """Return ``data`` cut to ``kept`` of its length and with single bits flipped."""
    data = bytearray(data[: int(len(data) * kept)])
    for place, bit in flips:
        if data:
            data[int(place * (len(data) - 1))] ^= 1 << bit
    return bytes(data)


FRACTIONS = st.floats(0, 1, allow_nan=False)
FLIPS = st.lists(st.tuples(FRACTIONS, st.integers(0, 7)), min_size=1, max_size=3)
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tiff_bytes(**options):
    """Return a movie and the bytes of its TIFF."""
    movie, out = movie_of("uint16", (5, 8, 9)), io.BytesIO()
    tifffile.imwrite(out, movie, photometric="minisblack", **options)
    return movie, out.getvalue()


@QUIET
@given(kept=FRACTIONS, packed=st.booleans())
def test_cut_tiff_is_an_error_or_whole(tmp_path, kept, packed):
    movie, data = tiff_bytes(compression="zlib") if packed else tiff_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(damaged(data, kept, []))
    try:
        read = open_movie(path).read()
    except InputError:
        return
    np.testing.assert_array_equal(read, movie)


@QUIET
@given(flips=FLIPS, packed=st.booleans())
def test_flipped_tiff_is_an_error_or_all_frames(tmp_path, flips, packed):
    """A flipped pixel or offset cannot be seen without a checksum, a lost frame must be."""
    movie, data = tiff_bytes(compression="zlib") if packed else tiff_bytes()
    path = tmp_path / "flipped.tif"
    path.write_bytes(damaged(data, 1, flips))
    try:
        read = open_movie(path).read()
    except InputError:
        return
    assert len(read) == len(movie)


@QUIET
@given(place=FRACTIONS, bit=st.integers(0, 7))
def test_flipped_pixels_of_a_compressed_tiff_are_noticed(tmp_path, place, bit):
    movie, data = tiff_bytes(compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = tif.pages[2]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    broken = bytearray(data)
    broken[offset + int(place * (count - 1))] ^= 1 << bit
    path = tmp_path / "pixels.tif"
    path.write_bytes(broken)
    try:
        zlib.decompress(bytes(broken[offset : offset + count]))
    except zlib.error:
        with pytest.raises(InputError):
            open_movie(path).read()
    else:
        np.testing.assert_array_equal(open_movie(path).read(), movie)


@QUIET
@given(kept=FRACTIONS, flips=st.just([]) | FLIPS)
def test_damaged_csv_is_an_error_or_numbers(tmp_path, kept, flips):
    """With its JSON file a cut CSV is always noticed; a flipped digit is still a number."""
    movie = movie_of("float32", (4, 2, 3))
    path = convert_csv(movie, tmp_path / "data.csv")
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, kept, flips))
    try:
        recording = load_recording(path)
    except InputError:
        return
    assert len(path.read_bytes()) == len(whole)
    assert recording.values.shape[0] == 4
    assert np.isfinite(recording.values).all()
    if not flips:
        np.testing.assert_array_equal(recording.movie().astype(np.float32), movie)


def test_damaged_sidecar_and_splits_are_named(tmp_path):
    path = convert_csv(movie_of("float32"), tmp_path / "data.csv")
    (tmp_path / "data.csv.json").write_text("{")
    with pytest.raises(InputError, match=r"data\.csv\.json"):
        load_recording(path)
    crops = crop_numpy_width(movie_of("float32"), tmp_path / "splits", None, 2, target_rc=(0, 0))
    record = tmp_path / "splits" / "splits.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"splits": told["splits"][:1]}))
    with pytest.raises(InputError, match=r"splits\.json"):
        load_recording(crops[1])


@pytest.mark.data
def test_real_movies_are_read_whole(real_dir):
    astrocytes = load_recording(real_dir / "astrocast_sample_1.tiff")
    assert astrocytes.movie().shape == (75, 100, 100)
    assert astrocytes.values.min() >= 32768
    regions = load_recording(real_dir / "EMXJ13_Trial016_regressed_g_step3_7roi_200Hz.csv")
    assert regions.columns == [f"ROI{k}" for k in range(1, 8)]
    assert regions.values.shape == (4096, 7)
    stocks = load_recording(real_dir / "nasdaq100_padding_first4517.csv.gz")
    assert stocks.values.shape == (4517, 82)
    assert stocks.columns[-1] == "NDX"
