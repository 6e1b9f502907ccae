"""Frame rates with their origin, what is no cine, video inside DICOM and video files, cm/s."""

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate

from common.files import InputError
from inputs.augment import translation_matrix, warp_clip
from inputs.cine import why_no_cine
from inputs.dicom_io import read_frames
from inputs.echonet import read_file_list
from inputs.flow import video2OF
from inputs.frames import make_movie, open_movie, read_movie
from inputs.timing import timing
from inputs.video import read_video
from little import texture, write_dicom

OPTIONS = {"crop": "none", "grey": "luma", "resample_fps": 0.0, "nrows": 32, "ncols": 32}
VECTOR, TIME = 0x00181065, 0x00181063


@pytest.mark.parametrize(
    ("elements", "rate", "origin", "note"),
    [
        (
            {"FrameTime": "33.333", "FrameTimeVector": [0] + [20] * 35, "pointer": VECTOR},
            50,
            "FrameTimeVector",
            "FrameTimeVector is used",
        ),
        (
            {"FrameTimeVector": [0] + [20] * 34 + [5000], "pointer": VECTOR},
            50,
            "FrameTimeVector",
            "20 to 5000 ms",
        ),
        ({"FrameTimeVector": [20] * 36, "pointer": VECTOR}, 50, "FrameTimeVector", None),
        ({"FrameTime": "0.033333", "pointer": TIME}, None, "unknown", "give --frame_rate"),
        ({"FrameTime": "1000", "CineRate": 30, "pointer": TIME}, 30, "CineRate", "not used"),
        ({"FrameTime": "33.333", "CineRate": 30, "pointer": TIME}, 30.0003, "FrameTime", None),
        ({"FrameTime": "20", "CineRate": 30, "pointer": TIME}, 50, "FrameTime", "CineRate"),
        ({"ActualFrameDuration": "20"}, 50, "ActualFrameDuration", None),
        ({"CineRate": 1000}, None, "unknown", "not used"),
        ({}, None, "unknown", None),
    ],
)
def test_the_rate_the_pointer_means_if_an_echo_can_have_it(elements, rate, origin, note):
    data = pydicom.Dataset()
    pointer = elements.pop("pointer", None) if (elements := dict(elements)) else None
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    if pointer is not None:
        data.FrameIncrementPointer = pointer
    told = timing(data, 36)
    assert told.rate_hz == (None if rate is None else pytest.approx(rate, abs=1e-3))
    assert origin in told.origin
    assert (note in " ".join(told.notes)) if note else not told.notes


def test_resampling_follows_the_times_and_fills_no_gap(tmp_path):
    steps = {"FrameTime": None, "CineRate": None, "FrameIncrementPointer": VECTOR}
    even = [0] + [20] * 20 + [60] * 15  # 1.3 s
    path = write_dicom(tmp_path / "a.dcm", texture(36), "p", **steps, FrameTimeVector=even)
    frames, info = read_movie(path, OPTIONS | {"resample_fps": 25.0})
    assert len(frames) == 33
    assert info["frame_rate_hz"] == 25
    # At 0.04 s stands frame 2, at 1.0 s frame 30: 0.4 s of 20 ms steps, then ten of 60 ms.
    np.testing.assert_allclose(frames[1], texture(36)[2], atol=1e-3)
    np.testing.assert_allclose(frames[25], texture(36)[30], atol=1e-3)
    gap = [0] + [20] * 34 + [5000]
    path = write_dicom(tmp_path / "b.dcm", texture(36), "p", **steps, FrameTimeVector=gap)
    with pytest.raises(InputError, match=r"b.dcm: .*gap of 5000 ms.*would invent frames"):
        read_movie(path, OPTIONS | {"resample_fps": 25.0})


def test_a_given_rate_is_for_files_that_tell_none(tmp_path):
    none = {"FrameTime": None, "CineRate": None, "FrameIncrementPointer": None}
    path = write_dicom(tmp_path / "a.dcm", texture(10), "p", **none)
    with pytest.raises(InputError, match="give --frame_rate"):
        read_movie(path, OPTIONS | {"resample_fps": 25.0})
    _, info = open_movie(path, OPTIONS | {"frame_rate": 40.0})
    assert (info["frame_rate_hz"], info["frame_rate_origin"]) == (40.0, "flag --frame_rate")
    _, info = open_movie(write_dicom(tmp_path / "b.dcm", texture(10), "p"), OPTIONS)
    assert "FrameTime (0018,1063)" in info["frame_rate_origin"]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({}, None),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, "Enhanced US Volume"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "Modality": "CT"}, "Enhanced CT"),
        ({"Modality": "MR"}, "Modality"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2", "Modality": "OT"}, None),
        ({"SOPClassUID": "1.2.3.4.5"}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"]}, "VOLUME"),
        ({"regions": [(2, 1)]}, "M-mode"),
        ({"regions": [(3, 3), (4, 10)]}, "spectral, waveform"),
        ({"regions": [(1, 1), (2, 1)]}, None),
        ({"regions": [(1, 2)]}, None),
    ],
)
def test_what_is_no_cine_is_named(elements, reason):
    data = pydicom.Dataset()
    data.Modality, data.SOPClassUID = "US", "1.2.840.10008.5.1.4.1.1.3.1"
    for keyword, value in elements.items():
        if keyword == "regions":
            data.SequenceOfUltrasoundRegions = [pydicom.Dataset() for _ in value]
            for item, kind in zip(data.SequenceOfUltrasoundRegions, value, strict=True):
                item.RegionSpatialFormat, item.RegionDataType = kind
        else:
            setattr(data, keyword, value)
    why = why_no_cine(data)
    assert (reason in why) if reason else why is None


def encoded(movie, codec, container):
    """Return a video of a grey movie (n, r, c)."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        video = out.add_stream(codec, rate=Fraction(30))
        video.height, video.width, video.pix_fmt = *movie.shape[1:], "yuv420p"
        video.bit_rate = 4_000_000
        for frame in movie:
            rgb = np.ascontiguousarray(np.repeat(frame[..., None], 3, axis=2))
            out.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(video.encode())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("codec", "container", "syntax"),
    [
        ("mpeg2video", "mpegts", "1.2.840.10008.1.2.4.100"),
        ("libx264", "mp4", "1.2.840.10008.1.2.4.102"),
        ("libx265", "mp4", "1.2.840.10008.1.2.4.107"),
    ],
)
def test_video_in_dicom_is_read(tmp_path, codec, container, syntax):
    movie = cv2.GaussianBlur(texture(34, 64, 80).transpose(1, 2, 0), (0, 0), 2).transpose(2, 0, 1)
    path = write_dicom(tmp_path / "a.dcm", movie, "p", rgb=True)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = syntax
    data.PhotometricInterpretation = "YBR_PARTIAL_420"
    data.PixelData = encapsulate([encoded(movie, codec, container)])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    frames, info = read_frames(path)
    assert frames.shape == movie.shape
    assert np.abs(frames - movie).mean() < 4
    assert not info["warnings"]
    data.NumberOfFrames = 40
    data.save_as(path)
    with pytest.raises(InputError, match="34 frames found, 40 expected"):
        read_frames(path)
    data.PixelData = encapsulate([b"no video at all" * 40])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    with pytest.raises(InputError, match="not decodable"):
        read_frames(path)


@pytest.mark.parametrize(("codec", "container"), [("mpeg4", "mp4"), ("mpeg4", "matroska")])
def test_a_cut_video_is_told_by_its_container(tmp_path, codec, container):
    path = tmp_path / {"mp4": "a.mp4", "matroska": "a.mkv"}[container]
    content = encoded(texture(40, 64, 80), codec, container)
    path.write_bytes(content)
    assert len(read_video(path)[0]) == 40
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"cut|not decodable"):
        read_video(path)


def test_a_picture_with_a_wrong_checksum_is_not_guessed(tmp_path):
    path = tmp_path / "a.mkv"
    movie = texture(12, 64, 80)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=Fraction(30), options={"level": "3", "slicecrc": "1"})
        stream.height, stream.width, stream.pix_fmt = 64, 80, "gray"
        for frame in movie:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        out.mux(stream.encode())
    np.testing.assert_allclose(read_video(path)[0], movie, atol=0.01)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="a picture is damaged"):
        read_video(path)


def test_a_video_whose_sound_is_longer_is_whole(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=Fraction(30))
        video.height, video.width, video.pix_fmt = 64, 80, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=8000)
        for frame in texture(34, 64, 80):
            rgb = np.ascontiguousarray(np.repeat(frame[..., None], 3, axis=2))
            out.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(video.encode())
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 40000), np.int16), format="s16", layout="mono"
        )
        silence.sample_rate = 8000  # 5 s of sound for 1.1 s of pictures
        out.mux(sound.encode(silence))
        out.mux(sound.encode())
    assert len(read_video(path)[0]) == 34


def test_dropped_frames_of_an_avi_are_no_cut(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (80, 64))
    for frame in texture(40, 64, 80):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    content = bytearray(path.read_bytes())
    header = content.find(b"avih") + 8 + 16  # dwTotalFrames, and dwLength of the stream
    content[header : header + 4] = (45).to_bytes(4, "little")
    length = content.find(b"strh") + 8 + 32
    content[length : length + 4] = (45).to_bytes(4, "little")
    path.write_bytes(content)
    assert len(read_video(path)[0]) == 40


def test_cm_per_second_does_not_depend_on_depth_or_rate(tmp_path):
    """A texture that moves 30 px/s: the unit takes pixel size and rate out again."""
    flow = {**OPTIONS, "flow_size": None, "farneback": {}, "flow_unit": "cm_per_s"}
    speed = {}
    for rate, pixel_cm in ((30, 0.05), (60, 0.1)):
        movie = texture(12, 96, 128)
        path = write_dicom(tmp_path / f"{rate}.dcm", movie, "p", frame_rate_hz=rate)
        data = pydicom.dcmread(path)
        (item,) = data.SequenceOfUltrasoundRegions
        item.PhysicalDeltaX = item.PhysicalDeltaY = pixel_cm
        data.save_as(path)
        made = make_movie(path, OPTIONS, flow)
        speed[rate] = made.flow[:-1, 8:-8, 8:-8, 0].mean()  # one pixel right per frame
        pixels = make_movie(path, OPTIONS, {**flow, "flow_unit": "px_per_frame"}).flow
        np.testing.assert_allclose(made.flow, pixels * np.float32(rate * pixel_cm), rtol=1e-5)
    assert speed[30] == pytest.approx(30 * 0.05, rel=0.1)
    assert speed[60] == pytest.approx(60 * 0.1, rel=0.1)
    path = write_dicom(tmp_path / "no.dcm", texture(12), "p", SequenceOfUltrasoundRegions=None)
    with pytest.raises(InputError, match=r"no pixel size in cm .* use px_per_s"):
        make_movie(path, OPTIONS, flow)


def test_clips_of_any_length_are_warped_exactly():
    clip = np.random.default_rng(0).standard_normal((64, 40, 40, 3)).astype(np.float32)
    moved = warp_clip(clip, translation_matrix(0.3, 0))
    exact = 0.7 * clip[:, :, 1:-1] + 0.3 * clip[:, :, :-2]
    np.testing.assert_allclose(moved[:, :, 1:-1], exact, atol=1e-5)


def test_flow_is_made_of_pairs():
    frames = texture(4, 64, 64).astype(np.float32)
    np.testing.assert_array_equal(video2OF(frames)[1], video2OF(frames[1:3])[0])


def test_a_split_of_folds_is_asked_for(tmp_path):
    rows = "".join(f"X{k},50,{k % 10}\n" for k in range(20))
    (tmp_path / "FileList.csv").write_text("FileName,EF,Split\n" + rows)
    with pytest.raises(InputError, match=r"Split holds the numbers .* write these words"):
        read_file_list(tmp_path)
