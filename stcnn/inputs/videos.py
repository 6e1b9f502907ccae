"""Videos: the time of every frame, and its grey values. Read with PyAV. Letters: T frames."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from common.files import InputError
from inputs.safe_load import DAMAGE

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
DAMAGED = (*DAMAGE, av.error.FFmpegError)
EVEN = 0.3  # steps that differ from the median by less than this share are one rate, rounded


@dataclass(frozen=True)
class VideoClock:
    """When the frames of a video appear."""

    times: tuple[float, ...]  # s from the first frame
    last_s: float  # how long the last frame stays
    size: tuple[int, int]  # rows and columns, as shown
    rate_hz: float  # frames per second, on the mean where it varies
    varies: bool

    @classmethod
    def of(cls, path: Path) -> "VideoClock":
        """Return the clock of the first video stream, from its packets; nothing is decoded."""
        try:
            with av.open(str(path)) as container:
                stream = _video_stream(container, path)
                base, average = stream.time_base, stream.average_rate
                packets = []
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        at = packet.pts if packet.pts is not None else packet.dts
                        packets.append((at, packet.duration))
            size = _first_size(path)
        except DAMAGED as error:
            raise InputError(f"{path}: no readable video ({type(error).__name__})") from None
        if not packets:
            raise InputError(f"{path}: no readable video (it holds no frame)")
        timed = all(at is not None for at, _ in packets) and base
        if not timed and not average:
            raise InputError(f"{path}: its frames have no times; give --movie-rate HZ")
        if not timed:
            packets, base = [(i, 1) for i in range(len(packets))], 1 / average
        packets.sort()
        starts = np.array([float((at - packets[0][0]) * base) for at, _ in packets])
        return cls._of_times(starts, float((packets[-1][1] or 0) * base), average, size)

    @classmethod
    def _of_times(cls, starts, last_s, average, size):
        steps = np.diff(starts)
        median = float(np.median(steps)) if len(steps) else last_s or 1.0 / float(average or 30)
        even = not len(steps) or bool((np.abs(steps - median) < EVEN * median).all())
        n = len(starts)
        if even:
            # times are rounded to the container's clock (1 ms in Matroska): the rate is not
            rate = (n - 1) / float(starts[-1]) if n > 1 else 1.0 / median
            if average and abs(float(average) / rate - 1.0) < 0.01:
                rate = float(average)
            return cls(tuple((np.arange(n) / rate).tolist()), 1.0 / rate, size, rate, False)
        last_s = last_s or median
        return cls(tuple(starts.tolist()), last_s, size, n / (float(starts[-1]) + last_s), True)

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


def video_frames(path: Path, n_frames: int) -> Iterator[np.ndarray]:
    """Yield the ``n_frames`` of a video as grey (rows, columns) float32, 0 black to 1 white."""
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


def _first_size(path):
    """Return the size of the first frame as it is shown, turned where the file says so."""
    with av.open(str(path)) as container:
        for frame in container.decode(_video_stream(container, path)):
            return _turned(frame, np.empty((frame.height, frame.width), np.bool_)).shape
    raise InputError(f"{path}: no readable video (its first frame cannot be decoded)")


def _grey(frame):
    values = frame.to_ndarray(format="gray")
    return _turned(frame, values).astype(np.float32) / np.float32(255.0)


def _turned(frame, values):
    quarter = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(values, quarter) if quarter else values
