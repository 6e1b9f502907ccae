"""Videos: the time of every frame, and its grey values. Read with PyAV. Letters: T frames."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from common.files import InputError
from inputs.pictures import grey
from inputs.safe_load import DAMAGE

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif")
DAMAGED = (*DAMAGE, av.error.FFmpegError)
LAST_STEPS = 5  # where a file does not say how long its last frame stays, these do
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
GIF_PICTURE, GIF_EXTENSION, GIF_END = 0x2C, 0x21, 0x3B
CHECKSUMS = ("ffv1",)  # codecs whose pictures carry one
HEAD_BYTES = 4096  # of a file; what says how long it should be lies in them


@dataclass(frozen=True)
class VideoClock:
    """When the frames of a video appear."""

    times: tuple[float, ...]  # s from the first frame
    last_s: float  # how long the last frame stays
    size: tuple[int, int]  # rows and columns, as shown
    rate_hz: float  # frames per second, on the mean where it varies
    varies: bool
    last_known: bool = True  # the file says how long the last frame stays
    aspect: float = 1.0  # width of a pixel over its height, as shown

    @classmethod
    def of(cls, path: Path) -> "VideoClock":
        """Return the clock of the first video stream, from its packets; nothing is decoded."""
        try:
            with av.open(str(path)) as container:
                stream = _video_stream(container, path)
                base, average, kind = stream.time_base, stream.average_rate, container.format.name
                packets = [
                    (packet.pts, packet.dts, packet.duration or 0)
                    for packet in container.demux(stream)
                    if packet.size and not packet.is_discard
                ]
                end = _stated_end(container, stream)
            size, aspect = _first_look(path)
            _check_pictures(path)
        except DAMAGED as error:
            raise InputError(f"{path}: no readable video ({type(error).__name__})") from None
        _check_whole(path)
        if not packets:
            raise InputError(f"{path}: no readable video (it holds no frame)")
        # AVI keeps the order of decoding alone; what libavformat says of its display is a guess
        stored = [dts if "avi" in kind or pts is None else pts for pts, dts, _ in packets]
        if any(at is None for at in stored) or not base:
            if not average:
                raise InputError(f"{path}: its frames have no times; give --movie-rate HZ")
            stored, base, packets, end = range(len(packets)), 1 / average, [(0, 0, 0)], None
        starts = np.array([float((at - min(stored)) * base) for at in sorted(stored)])
        if end is None and any(name in kind for name in ("mov", "gif")):
            # of frames that are stored out of order only the last one stored has its own duration
            last_s = float(packets[-1][2] * base)
        else:
            last_s = 0.0 if end is None else end - float(max(stored) * base)
        clock = cls.of_times(starts, last_s, average, size, tick=float(base))
        if clock.varies and "avi" in kind and _reordered(path):
            raise InputError(
                f"{path}: an AVI file whose rate varies and whose frames are stored out of order; "
                "it does not say when they appear: save the movie as MP4 or MKV"
            )
        return replace(clock, aspect=aspect)

    @classmethod
    def of_times(cls, starts, last_s, average, size, *, tick):
        """Return the clock of frames that appear at ``starts``, s, in units of ``tick`` s."""
        n, steps = len(starts), np.diff(starts)
        known = last_s >= 0.5 * (float(steps.min()) if n > 1 else 1e-3)
        if not known:
            last_s = float(np.median(steps[-LAST_STEPS:])) if n > 1 else 1.0 / float(average or 30)
        step = float(starts[-1]) / (n - 1) if n > 1 else last_s
        if average and abs(float(average) * step - 1.0) < 0.01:
            step = 1.0 / float(average)
        places = np.arange(n) * step
        # times are rounded to the container's clock (1 ms in Matroska): the rate is not
        if n == 1 or np.abs(starts - places).max() <= 1.01 * tick:
            last_s = last_s if n == 1 else step
            return cls(tuple(places.tolist()), last_s, size, 1.0 / step, False, known)
        rate = n / (float(starts[-1]) + last_s)
        return cls(tuple(starts.tolist()), last_s, size, rate, True, known)

    @property
    def n_frames(self) -> int:
        """T."""
        return len(self.times)

    @property
    def seconds(self) -> float:
        """How long the video lasts."""
        return self.times[-1] + self.last_s

    @property
    def shortest(self) -> float:
        """How long the shortest frame stays, s."""
        return min((b - a for a, b in itertools.pairwise(self.times)), default=self.last_s)

    def spans(self) -> Iterator[tuple[float, float]]:
        """Yield when each frame appears and vanishes, s."""
        return zip(self.times, [*self.times[1:], self.seconds], strict=True)


def video_frames(path: Path, n_frames: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield (grey, opacity) of the ``n_frames`` of a video, each (rows, columns) float32 0..1.

    Grey is 0 black to 1 white; opacity is None where the frame has no clear part.
    """
    seen = 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                seen += 1
                yield _grey(frame)
    except DAMAGED as error:
        raise InputError(f"{path}: broken off video ({type(error).__name__})") from None
    if seen < n_frames:
        raise InputError(f"{path}: broken off video: {seen} of {n_frames} frames can be decoded")


def _video_stream(container, path):
    if not container.streams.video:
        raise InputError(f"{path}: no readable video (it holds no picture stream)")
    return container.streams.video[0]


def _stated_end(container, stream):
    """Return when a file says that its stream ends, s on the clock of its packets, or None."""
    kind = container.format.name
    if "matroska" in kind:
        hours, minutes, seconds = (stream.metadata.get("DURATION", "") + "::").split(":")[:3]
        if seconds:
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        alone = len(container.streams) == 1 and container.duration
        return container.duration / av.time_base if alone else None
    if "avi" in kind and stream.duration:
        return float(stream.duration * stream.time_base)
    return None


def _reordered(path):
    """Return whether a decoder has to wait for later packets before it can show the first frame."""
    with av.open(str(path)) as container:
        stream = _video_stream(container, path)
        for packet in container.demux(stream):
            if packet.size:
                return not stream.decode(packet)
    return False


def _check_whole(path):
    """Refuse a file that is shorter than it says itself: a copy that was broken off."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        stated = _stated_size(head) if head[4:8] != b"ftyp" else _end_of_boxes(file, size)
        if head[:3] == b"GIF" and not _gif_ends(head + file.read()):
            raise InputError(f"{path}: broken off video: a GIF without its end; copy it again")
    if stated and size < stated:
        raise InputError(
            f"{path}: broken off video: {size} bytes, by what it says itself {stated}; copy it "
            "again"
        )


def _check_pictures(path):
    """Refuse a video with a picture whose checksum is wrong.

    A decoder guesses such a picture and tells so only in its log.
    """
    level = av.logging.get_level()
    with av.open(str(path)) as container:
        if _video_stream(container, path).codec_context.name not in CHECKSUMS:
            return
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture(local=False) as complaints:
                for _ in container.decode(video=0):
                    pass
        finally:
            av.logging.set_level(level)
    if complaints:
        raise InputError(
            f"{path}: a picture is damaged ({complaints[0][2].strip()}); copy the file again"
        )


def _stated_size(head):
    """Return the bytes of an AVI, Matroska or WebM file by its first bytes, or None."""
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != EBML or SEGMENT not in head[:-9]:
        return None
    at = head.index(SEGMENT) + 4
    length = 9 - head[at].bit_length()  # bytes of an EBML number, by its leading zeros
    most = (1 << 7 * length) - 1  # stands for a size that was not known, as of a live stream
    value = int.from_bytes(head[at : at + length], "big") & most
    return None if value == most else at + length + value


def _end_of_boxes(file, size):
    """Return where the last box of an MP4 or QuickTime file of ``size`` bytes ends."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the size follows in 64 bits
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isalnum():  # 0: to the end of the file; or no box at all
            return None
        at += length
    return at


def _gif_ends(data):
    """Return whether the blocks of a GIF lead to the byte that marks its end."""

    def colours(flags):
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    try:
        at = 13 + colours(data[10])
        while data[at] != GIF_END:
            if data[at] == GIF_PICTURE:
                at += 11 + colours(data[at + 9])
            elif data[at] == GIF_EXTENSION:
                at += 2
            else:
                return False
            while data[at]:  # blocks of that many bytes, the last of none
                at += 1 + data[at]
            at += 1
    except IndexError:
        return False
    return True


def _first_look(path):
    """Return the size of the first frame and the aspect of its pixels, turned as the file says."""
    with av.open(str(path)) as container:
        stream = _video_stream(container, path)
        for frame in container.decode(stream):
            size = _turned(frame, np.empty((frame.height, frame.width), np.bool_)).shape
            aspect = float(stream.sample_aspect_ratio or 1)
            return size, aspect if size == (frame.height, frame.width) else 1.0 / aspect
    raise InputError(f"{path}: no readable video (its first frame cannot be decoded)")


def _grey(frame):
    if any(component.is_alpha for component in frame.format.components):
        values = _turned(frame, frame.to_ndarray(format="rgba")).astype(np.float32)
        values /= np.float32(255.0)
        opacity = values[..., 3]
        return grey(values[..., :3]), None if (opacity == 1.0).all() else opacity
    values = _turned(frame, frame.to_ndarray(format="gray"))
    return values.astype(np.float32) / np.float32(255.0), None


def _turned(frame, values):
    quarter = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(values, quarter) if quarter else values
