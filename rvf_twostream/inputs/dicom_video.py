"""Pictures of MPEG-2, H.264 and H.265 inside DICOM, decoded by PyAV (FFmpeg)."""

import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from common.files import InputError

CODECS = {  # transfer syntax: the codec it names
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{k}" for k in ("100", "100.1", "101", "101.1")), "mpeg2video"
    ),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.10{k}" for k in ("2", "2.1", "3", "3.1")), "h264"),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.10{k}" for k in ("4", "4.1", "5", "5.1", "6", "6.1")), "h264"
    ),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.10{k}" for k in ("7", "8")), "hevc"),
}


def video_pictures(path: Path, value: bytes) -> Iterator[np.ndarray]:
    """Yield the RGB pictures (r, c, 3) uint8 of a video stream, one by one."""
    try:
        with av.open(io.BytesIO(value)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InputError(
            f"{path}: video in the pixel data not decodable ({error}); it is damaged or cut"
        ) from None


def codec_note(syntax: str, value: bytes) -> str | None:
    """Return a line when the video is of another codec than the transfer syntax names."""
    try:
        with av.open(io.BytesIO(value)) as container:
            codec = container.streams.video[0].codec_context.name
    except (av.FFmpegError, IndexError, ValueError):
        return None
    if codec == CODECS[syntax]:
        return None
    return f"transfer syntax {syntax} means {CODECS[syntax]}, the video is {codec}: read as {codec}"
