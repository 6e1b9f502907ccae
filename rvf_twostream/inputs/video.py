"""Read a video as grey frames. Letters in shape comments: n frames, r rows, c columns."""

from pathlib import Path

import av
import cv2
import numpy as np

from common.files import InputError
from inputs.colour import LUMA

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm")
HIDDEN = ("vp8", "vp9", "av1")  # codecs whose packets may hold pictures that are never shown
CHECKSUMS = ("ffv1",)  # codecs whose pictures carry one
AVI_INDEX = np.dtype(
    [("stream", "S2"), ("kind", "S2"), ("flags", "<u4"), ("at", "<u4"), ("length", "<u4")]
)
EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"  # Matroska: head of the file, the rest of it


def read_video(path: Path) -> tuple[np.ndarray, float | None]:
    """Return grey frames (n, r, c) float32 0..255 and the frame rate (None when unknown).

    Grey is the mean of the channels when they are equal, else luma.

    Raises:
        InputError: no file, no video, cut (the container is longer than the file), or pictures
            that cannot be decoded. The container's count of pictures is not believed: AVI counts
            dropped ones, MP4 those before an edit, Matroska guesses from the sound's length.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: not found")
    check_whole(path)
    promised = max(_pictures(path), _indexed(path))
    video = cv2.VideoCapture(str(path))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        frames = []
        while True:
            good, frame = video.read()
            if not good:
                break
            blue, green, red = (frame[..., k].astype(np.float32) for k in range(3))
            equal = np.array_equal(red, green) and np.array_equal(red, blue)
            weights = (1 / 3, 1 / 3, 1 / 3) if equal else LUMA["luma"]
            frames.append(red * weights[0] + green * weights[1] + blue * weights[2])
    except cv2.error as error:
        raise InputError(f"{path}: not decodable ({error.err}); copy the file again") from None
    finally:
        video.release()
    if not frames:
        raise InputError(f"{path}: not decodable as video; copy the file again")
    if len(frames) < promised:
        raise InputError(
            f"{path}: {len(frames)} of {promised} pictures decodable; the file is damaged"
        )
    return np.stack(frames), (rate if rate and np.isfinite(rate) and rate > 0 else None)


def _pictures(path):
    """Return how many pictures the stream holds to be shown; 0 where its packets do not tell."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context.name in CHECKSUMS:
                return _checked(container, path)
            if stream.codec_context.name in HIDDEN:
                return 0
            return sum(
                packet.size > 0 and not packet.is_discard for packet in container.demux(stream)
            )
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"{path}: not decodable as video ({error}); copy the file again") from None


def _checked(container, path):
    """Return the number of pictures of a codec with checksums, each of them right.

    A decoder guesses a picture whose checksum is wrong and tells so only in its log.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as complaints:
            count = sum(1 for _ in container.decode(video=0))
    finally:
        av.logging.set_level(level)
    if complaints:
        raise InputError(
            f"{path}: a picture is damaged ({complaints[0][2].strip()}); copy the file again"
        )
    return count


def _indexed(path):
    """Return how many pictures the index of an AVI file points at; 0 for other files.

    One of which the name is damaged is passed over by every decoder, but not by the index.
    """
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return 0
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"idx1":
                data = file.read(size)
                entries = np.frombuffer(data[: len(data) // 16 * 16], AVI_INDEX)
                shown = (entries["length"] > 0) & np.isin(entries["kind"], (b"dc", b"db"))
                return int(shown.sum())
            file.seek(size + size % 2, 1)
    return 0


def check_whole(path: Path) -> None:
    """Raise InputError when a video is shorter than its container says.

    The decoder fills the rest of a cut frame with grey and counts it as read.
    """
    n_bytes = Path(path).stat().st_size
    with open(path, "rb") as handle:
        head = handle.read(12)
        if head[:4] == b"RIFF":
            wanted = int.from_bytes(head[4:8], "little") + 8
            wanted = None if wanted == 0xFFFFFFFF + 8 else wanted  # written to a pipe
        elif head[:4] == EBML:
            wanted = _matroska_size(handle)
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            wanted = _mp4_size(path, handle, n_bytes)
        else:
            return
    if wanted is not None and n_bytes < wanted:
        raise InputError(f"{path}: {n_bytes} bytes found, {wanted} expected; the file is cut")


def _mp4_size(path, handle, n_bytes):
    """Return where the last box of an MP4 ends; without its index it is cut as well."""
    place, names = 0, set()
    while place + 8 <= n_bytes:
        handle.seek(place)
        head = handle.read(16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        names.add(name)
        if size == 0:  # up to the end
            place = n_bytes
        elif size < 8:
            break
        place += size
    if b"moov" not in names:
        raise InputError(f"{path}: no index (moov) in the MP4; the file is cut, copy it again")
    return place


def _matroska_size(handle):
    """Return where the segment of a Matroska file ends, None when it does not say."""
    handle.seek(4)
    _skip = _number(handle)
    handle.seek((_skip or 0), 1)
    if handle.read(4) != SEGMENT:
        return None
    size = _number(handle)
    return None if size is None else handle.tell() + size


def _number(handle):
    """Return a variable-length number of EBML, None when it means unknown."""
    first = handle.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = first[0] & ((1 << (8 - length)) - 1)
    rest = handle.read(length - 1)
    number = value << (8 * len(rest)) | int.from_bytes(rest, "big")
    return None if number == (1 << (7 * length)) - 1 else number
