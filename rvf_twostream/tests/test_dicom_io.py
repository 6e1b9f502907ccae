"""Reading DICOM: every transfer syntax at hand, colour, regions, frame rates, damaged files."""

import subprocess
import sys

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from common.files import InputError
from inputs.crop import sector_mask, tissue_region
from inputs.dicom_io import frame_rate_hz, read_frames
from little import FOLDER, texture, write_dicom


def sample(name):
    """Return the path of a file of pydicom or pydicom-data, without a download."""
    path = get_testdata_file(name, download=False)
    assert path, f"{name} is in neither pydicom nor pydicom-data"
    return path


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("examples_ybr_color.dcm", (30, 240, 320)),  # JPEG baseline, YBR_FULL_422
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", (1, 768, 1024)),  # JPEG lossless
        ("US1_J2KR.dcm", (1, 480, 640)),  # JPEG 2000 lossless, YBR_RCT
        ("US1_J2KI.dcm", (1, 480, 640)),  # JPEG 2000, YBR_ICT
        ("OBXXXX1A_rle_2frame.dcm", (2, 600, 800)),  # RLE, palette
        ("OBXXXX1A_2frame.dcm", (2, 600, 800)),  # explicit little endian, palette
        ("OBXXXX1A_expb_2frame.dcm", (2, 600, 800)),  # explicit big endian, palette
        ("gdcm-US-ALOKA-16.dcm", (1, 480, 640)),  # implicit, 16-bit palette
        ("US1_UNCR.dcm", (1, 480, 640)),  # uncompressed RGB
        ("ExplVR_BigEnd.dcm", (1, 60, 80)),  # big endian RGB
        ("examples_rgb_color.dcm", (1, 240, 320)),
    ],
)
def test_every_transfer_syntax_gives_grey_frames(name, shape):
    frames, info = read_frames(sample(name))
    assert frames.shape == shape
    assert frames.dtype == np.float32
    assert 0 <= frames.min() < frames.max() <= 255
    assert (info["n_frames"], info["rows"], info["columns"]) == shape


def test_same_picture_in_three_encodings_gives_the_same_grey():
    plain, _ = read_frames(sample("US1_UNCR.dcm"))
    lossless, _ = read_frames(sample("US1_J2KR.dcm"))
    np.testing.assert_allclose(plain, lossless, atol=1e-3)
    tables = [
        read_frames(sample(f"OBXXXX1A{kind}_2frame.dcm"))[0] for kind in ("", "_rle", "_expb")
    ]
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])


def test_palette_goes_through_its_colour_table():
    path = sample("OBXXXX1A_rle_2frame.dcm")
    indices = pydicom.dcmread(path).pixel_array[0]
    frames, _ = read_frames(path)
    assert abs(float(frames[0].mean()) - float(indices.mean())) > 1


def test_ybr_is_converted_once_compressed_or_not():
    rgb, _ = read_frames(sample("SC_rgb.dcm"))
    for name in ("SC_ybr_full_uncompressed.dcm", "SC_ybr_full_422_uncompressed.dcm"):
        frames, _ = read_frames(sample(name))
        assert np.abs(frames - rgb).mean() < 3


def test_single_rgb_frame_is_one_frame(tmp_path):
    frames, _ = read_frames(sample("US1_UNCR.dcm"))
    assert frames.shape == (1, 480, 640)


def test_missing_number_of_frames_counts_as_one(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", texture(1), "p", NumberOfFrames=None)
    assert read_frames(path)[0].shape == (1, 96, 128)


def test_luma_and_reference_weights(tmp_path):
    path = sample("US1_UNCR.dcm")
    red, green, blue = np.moveaxis(pydicom.dcmread(path).pixel_array.astype(float), -1, 0)
    luma = 0.2989 * red + 0.5870 * green + 0.1140 * blue
    swapped = 0.2989 * red + 0.1140 * green + 0.5870 * blue
    np.testing.assert_allclose(read_frames(path)[0][0], luma, atol=1e-3)
    np.testing.assert_allclose(read_frames(path, grey="reference")[0][0], swapped, atol=1e-3)


def test_monochrome1_is_inverted(tmp_path):
    movie = texture(2)
    path = write_dicom(tmp_path / "a.dcm", movie, "p", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_frames(path)[0], 255.0 - movie)


def test_jpeg_and_rgb_of_the_generator_read_back(tmp_path):
    movie = texture(3)
    rgb, _ = read_frames(write_dicom(tmp_path / "rgb.dcm", movie, "p", rgb=True))
    np.testing.assert_allclose(rgb, movie, atol=0.05)
    jpeg, info = read_frames(write_dicom(tmp_path / "jpeg.dcm", movie, "p", jpeg=True))
    assert np.abs(jpeg - movie).mean() < 2
    assert info["photometric"] == "YBR_FULL_422"


@pytest.mark.parametrize(
    ("elements", "rate"),
    [
        ({"FrameTime": "20"}, 50.0),
        ({"FrameTime": "20", "CineRate": 30}, 50.0),
        ({"FrameTimeVector": [0, 40, 40, 40]}, 25.0),
        ({"CineRate": 42}, 42.0),
        ({"RecommendedDisplayFrameRate": 24}, 24.0),
        ({"FrameTime": "0", "CineRate": 30}, 30.0),
        ({}, None),
    ],
)
def test_frame_rate_comes_from_the_right_tag(elements, rate):
    data = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    assert frame_rate_hz(data) == rate


def region(row0, row1, col0, col1, kind=(1, 1)):
    item = pydicom.Dataset()
    item.RegionSpatialFormat, item.RegionDataType = kind
    item.RegionLocationMinY0, item.RegionLocationMaxY1 = row0, row1
    item.RegionLocationMinX0, item.RegionLocationMaxX1 = col0, col1
    return item


def test_region_crop_takes_the_largest_tissue_region(tmp_path):
    regions = [region(0, 9, 0, 9), region(10, 80, 20, 100), region(0, 95, 0, 127, kind=(2, 1))]
    movie = texture(2)
    path = write_dicom(tmp_path / "a.dcm", movie, "p", SequenceOfUltrasoundRegions=regions)
    frames, info = read_frames(path, crop="region")
    np.testing.assert_array_equal(frames, movie[:, 10:81, 20:101])
    assert info["crop"] == [10, 80, 20, 100]


def test_region_one_pixel_too_large_is_clipped_silently(tmp_path):
    regions = [region(10, 96, 20, 128)]
    path = write_dicom(tmp_path / "a.dcm", texture(2), "p", SequenceOfUltrasoundRegions=regions)
    frames, info = read_frames(path, crop="region")
    assert frames.shape == (2, 86, 108)
    assert not info["warnings"]


def test_region_outside_the_frame_warns_and_does_not_crop():
    frames, info = read_frames(sample("examples_ybr_color.dcm"), crop="region")
    assert frames.shape == (30, 240, 320)
    assert any("outside the frame" in note for note in info["warnings"])


def test_region_of_a_real_philips_file():
    data = pydicom.dcmread(sample("OBXXXX1A_rle_2frame.dcm"))
    assert tissue_region(data) == (60, 518, 120, 800)
    frames, _info = read_frames(sample("OBXXXX1A_rle_2frame.dcm"), crop="region")
    assert frames.shape == (2, 459, 680)


def test_sector_crop_blanks_text_outside_the_fan(tmp_path):
    movie = np.zeros((20, 200, 240), np.uint8)
    rows, cols = np.mgrid[-5:195, -120:120]
    fan = (np.hypot(rows, cols) < 180) & (np.abs(cols) < 0.7 * rows)
    noise = np.random.default_rng(0).integers(30, 255, movie.shape)
    movie[:, fan] = noise[:, fan]
    movie[:, 5:15, 5:40] = 200  # still text
    mask = sector_mask(movie.astype(np.float32))
    assert not mask[5:15, 5:40].any()
    assert (mask & fan).sum() > 0.97 * fan.sum()
    path = write_dicom(tmp_path / "a.dcm", movie, "p")
    frames, info = read_frames(path, crop="sector")
    assert info["crop"] is not None
    assert frames.max() > 0


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Rows": 97}, ("frames found", "expected")),
        ({"NumberOfFrames": 9}, ("8 complete frames found, 9 expected",)),
        ({"PhotometricInterpretation": "RGB"}, ("(0028,0004)", "(0028,0002)")),
        ({"Columns": None}, ("Columns (0028,0011)",)),
        ({"PixelData": None}, ("PixelData (7FE0,0010)",)),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ("colour table",)),
    ],
)
def test_a_header_that_does_not_fit_its_pixels_is_one_error(tmp_path, elements, words):
    path = write_dicom(tmp_path / "a.dcm", texture(8), "p", **elements)
    with pytest.raises(InputError) as error:
        read_frames(path)
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "elements", [{"NumberOfFrames": 7}, {"Rows": 95}, {"BitsStored": 4, "HighBit": 3}]
)
def test_a_header_that_promises_less_than_there_is_warns(tmp_path, elements):
    path = write_dicom(tmp_path / "a.dcm", texture(8), "p", **elements)
    assert read_frames(path)[1]["warnings"]


def test_compressed_movie_with_too_few_or_too_many_frames(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", texture(8), "p", jpeg=True, NumberOfFrames=9)
    with pytest.raises(InputError, match="8 frames found, 9 expected"):
        read_frames(path)
    path = write_dicom(tmp_path / "b.dcm", texture(8), "p", jpeg=True, NumberOfFrames=5)
    assert any("8 frames found" in note for note in read_frames(path)[1]["warnings"])


@pytest.mark.parametrize(("rows", "cols"), [(128, 96), (96, 64)])
def test_a_compressed_picture_of_another_size_than_the_header_is_an_error(tmp_path, rows, cols):
    path = write_dicom(tmp_path / "a.dcm", texture(2), "p", jpeg=True, Rows=rows, Columns=cols)
    with pytest.raises(InputError, match=f"96 x 128 found.*say {rows} x {cols}"):
        read_frames(path)


def test_a_colour_jpeg_in_a_grey_header_is_an_error(tmp_path):
    grey = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    path = write_dicom(tmp_path / "a.dcm", texture(2), "p", jpeg=True, **grey)
    with pytest.raises(InputError, match="not decodable"):
        read_frames(path)


def test_jpeg_colours_equal_those_of_pydicom():
    path = sample("examples_ybr_color.dcm")
    rgb = pydicom.dcmread(path).pixel_array.astype(np.float32)
    luma = rgb @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    # Decoders differ by a grey level or two in lossy JPEG.
    assert np.abs(read_frames(path)[0] - luma).mean() < 0.1


def test_missing_decoder_names_both_packages(tmp_path):
    code = (
        "import sys\n"
        "for name in ('libjpeg', '_libjpeg', 'pylibjpeg', 'gdcm'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "from inputs.dicom_io import read_frames\n"
        "from common.files import InputError\n"
        "try:\n"
        f"    read_frames({sample('JPGLosslessP14SV1_1s_1f_8b.dcm')!r})\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pylibjpeg-libjpeg" in done.stdout
    assert "gdcm" in done.stdout
    assert "JPEG Lossless" in done.stdout


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """Return the bytes and true frames of a plain and a JPEG movie."""
    folder = tmp_path_factory.mktemp("sound")
    sound = []
    for jpeg in (False, True):
        path = write_dicom(folder / f"{jpeg}.dcm", texture(6, 32, 40), "p", jpeg=jpeg)
        sound.append((path.read_bytes(), read_frames(path)[0]))
    return folder, sound


def read_or_fault(path):
    """Return frames, info and None, or None, None and the one-line fault that names the file."""
    try:
        return *read_frames(path), None
    except InputError as error:
        fault = str(error)
    assert str(path) in fault
    assert "\n" not in fault
    return None, None, fault


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(which=st.integers(0, 1), part=st.floats(0, 0.999))
def test_a_cut_file_is_an_error_never_a_movie(sound_files, which, part):
    folder, sound = sound_files
    content, _ = sound[which]
    path = folder / "cut.dcm"
    path.write_bytes(content[: int(part * len(content))])
    frames, info, fault = read_or_fault(path)
    if fault is None:
        # Only padding may be gone.
        np.testing.assert_array_equal(frames, sound[which][1])
        assert len(content) - path.stat().st_size <= 8 or info["warnings"]


@settings(max_examples=150, deadline=None)
@given(which=st.integers(0, 1), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_header_is_an_error_a_warning_or_harmless(
    sound_files, which, place, bit
):
    folder, sound = sound_files
    content, true = sound[which]
    header = content.rfind(b"\xe0\x7f\x10\x00")
    damaged = bytearray(content)
    damaged[int(place * (header - 1))] ^= 1 << bit
    path = folder / "flipped.dcm"
    path.write_bytes(damaged)
    frames, info, fault = read_or_fault(path)
    if fault is not None:
        return
    assert frames.shape == true.shape or info["warnings"]
    if frames.shape != true.shape or info["warnings"]:
        return
    # A JPEG file labelled with another JPEG syntax is read by another decoder, which rounds by one
    # grey level; the header cannot tell a MONOCHROME1 from a MONOCHROME2 picture.
    if np.abs(frames - true).max() > 1.001:
        np.testing.assert_allclose(255 - frames, true, atol=1e-3)


def test_a_baseline_stream_labelled_lossless_is_the_same_picture(tmp_path):
    """1.2.840.10008.1.2.4.50 and .70 differ by one bit: another decoder, one grey level at most."""
    path = write_dicom(tmp_path / "a.dcm", texture(6, 32, 40), "p", jpeg=True)
    true, _ = read_frames(path)
    content = path.read_bytes()
    assert content.count(b"1.2.840.10008.1.2.4.50") == 1
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.70"))
    frames, _ = read_frames(path)
    np.testing.assert_allclose(frames, true, atol=1.001)
