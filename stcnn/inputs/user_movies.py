"""Read any movie as a stimulus: .npy, .npz, TIFF, video or image folder, on the model's grid.

Frames are placed on the model's ticks by their times (inputs/clocks.py) and averaged over areas
onto the model's pixels; outside the picture lies the grey background of the model's display.
Letters: T frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.files import InputError
from common.locks import visible
from inputs.clocks import TOLERANCE_S, axis_fault, hold_fault, on_ticks, rate_of
from inputs.display import TOLERANCE, Display
from inputs.levels import Levels, find_levels
from inputs.pictures import IMAGES, TIFFS, count_pictures, grey, read_pictures
from inputs.recordings import natural_key
from inputs.safe_load import DAMAGE, load_arrays
from inputs.videos import VIDEOS, VideoClock, video_frames

PIECE_FRAMES = 60
KEYS = ("rate_hz", "deg_per_px", "t_axis")  # beside the movie of an .npz


@dataclass(frozen=True)
class View:
    """How a user's movie is shown: what its file says, and what the user says of it.

    Args:
        rate_hz: frames per second; None takes the file's times.
        deg_per_px: degrees that a pixel of the file covers; None takes the file's, or the picture
            just fits the field.
        levels: of parse_levels: which numbers are black and white.
        azimuth, elevation: degrees from the middle of the field to the middle of the picture,
            positive nearer the midline (to the right) and nearer the north pole (up).
        eye: same as the recordings', or other: the picture is mirrored.
        polarity: as stored, or inverted: black and white change places.
    """

    rate_hz: float | None = None
    deg_per_px: float | None = None
    levels: str | tuple[float, float] = "auto"
    azimuth: float = 0.0
    elevation: float = 0.0
    eye: str = "same"
    polarity: str = "normal"

    def describe(self) -> str:
        """Return where and how the picture is shown, in words."""
        eye = "mirrored for the other eye" if self.eye == "other" else "eye as recorded"
        return (
            f"middle at azimuth {self.azimuth:g}, elevation {self.elevation:g} deg; {eye}; "
            f"polarity {'inverted' if self.polarity == 'inverted' else 'as stored'}"
        )


class UserMovie:
    """A movie file: its size, times and grey frames one after the other."""

    def __init__(self, path, *, rate_hz=None, deg_per_px=None, view=None):
        """Open ``path``.

        Args:
            path: .npy or .npz (key movie, or its only 3-D array; optional rate_hz, t_axis (times
                of the frames, s) and deg_per_px), a TIFF of several pages, a video or GIF, or a
                folder of images.
            rate_hz, deg_per_px: of View, for short.
            view: View.
        """
        self.path = Path(path)
        self.view = view or View(rate_hz, deg_per_px)
        if not self.path.exists():
            raise InputError(f"{path}: movie not found")
        self.levels, self.clock = None, None
        own_rate, own_scale, self.n_frames, self.size = self._open()
        self.rate_hz = self.view.rate_hz or own_rate
        self.deg_per_px = self.view.deg_per_px or own_scale
        if not self.rate_hz:
            raise InputError(f"{path}: holds no frame rate; give it with --movie-rate HZ")
        self.aspect = self.clock.aspect if self.clock else 1.0
        if self.view.rate_hz:
            self.clock = None
        self.origin = {
            "rate_hz": _origin("--movie-rate", self.view.rate_hz, own_rate),
            "deg_per_px": _origin("--deg-per-px", self.view.deg_per_px, own_scale,
                                  unknown="just fits"),
        }  # fmt: skip
        self.seconds = self.clock.seconds if self.clock else self.n_frames / self.rate_hz

    def _open(self):
        suffix = self.path.suffix.lower()
        if self.path.is_dir():
            files = [p for p in visible(self.path, "*") if p.suffix.lower() in IMAGES]
            files.sort(key=lambda p: natural_key(p.name))
            if not files:
                raise InputError(f"{self.path}: no image inside (looked for {', '.join(IMAGES)})")
            return None, None, *self._open_pictures(files)
        if suffix in TIFFS:
            return None, None, *self._open_pictures([self.path])
        if suffix in (".npy", ".npz"):
            array, rate, scale, times = _read_array(self.path)
            if array.ndim != 3 or not array.size:
                raise InputError(
                    f"{self.path}: shape {array.shape}; expected (frames, rows, columns)"
                )
            self.levels = find_levels(array, self.path, self.view.levels)
            self._frames = lambda: ((self.levels.unit(frame), None) for frame in array)
            if times is not None:
                self.clock = _clock_of(times, array.shape, rate, self.path)
                rate = self.clock.rate_hz
            return rate, scale, len(array), array.shape[1:]
        if suffix in VIDEOS:
            self.clock = VideoClock.of(self.path)
            unread = "" if self.view.levels == "auto" else "; --levels is for numbers, not videos"
            self.levels = Levels(0.0, 1.0, f"file: video{unread}")
            count = self.clock.n_frames
            self._frames = lambda: video_frames(self.path, count)
            return self.clock.rate_hz, None, self.clock.n_frames, self.clock.size
        raise InputError(
            f"{self.path}: unknown kind of movie; expected .npy, .npz, .tif, an image folder or "
            f"one of {', '.join(VIDEOS)}"
        )

    def _open_pictures(self, files):
        """Return (frames, size) of the pictures in ``files``, after a look at their levels."""
        first, _ = next(read_pictures(files[0]))
        size, kind = first.shape[:2], first.dtype

        def stored():
            for path in files:
                for values, opacity in read_pictures(path):
                    if values.shape[:2] != size:
                        raise InputError(
                            f"{path}: {values.shape[:2]} pixels, the first image has {size}; "
                            "expected one size"
                        )
                    if values.dtype != kind:
                        raise InputError(
                            f"{path}: holds {values.dtype.name}, the first image {kind.name}; "
                            "expected one kind"
                        )
                    yield values, opacity

        self.levels = find_levels((values for values, _ in stored()), self.path, self.view.levels)
        self._frames = lambda: (
            (grey(self.levels.unit(values)), opacity) for values, opacity in stored()
        )
        return sum(count_pictures(path) for path in files), size

    def frames(self, background: float) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield (begin, end, grey frame (rows, columns) 0..1); clear parts show ``background``."""
        spans = self.clock.spans() if self.clock else _even_spans(self.rate_hz)
        for (values, opacity), (begin, end) in zip(self._frames(), spans, strict=False):
            if self.view.polarity == "inverted":
                values = 1.0 - values
            if opacity is not None:
                values = opacity * values + (1.0 - opacity) * np.float32(background)
            yield begin, end, values[:, ::-1] if self.view.eye == "other" else values

    def pieces(self, display: Display) -> Iterator[torch.Tensor]:
        """Yield contrast pieces (n, rows, columns) at the rate and on the pixels of ``display``."""
        rows, columns = self._matrices(display)
        background = display.background
        outside = 1.0 - torch.outer(
            rows.sum(1), columns.sum(1)
        )  # share of each pixel off the picture

        def contrasts():
            for begin, end, frame in self.frames(background):
                picture = rows @ torch.from_numpy(np.ascontiguousarray(frame)).float() @ columns.T
                yield begin, end, picture + outside * background - background

        shortest = self.clock.shortest if self.clock else 1.0 / self.rate_hz
        waiting = []
        for shown in on_ticks(contrasts(), display.rate_hz, shortest_s=shortest):
            waiting.append(shown)
            if len(waiting) == PIECE_FRAMES:
                yield torch.stack(waiting)
                waiting = []
        if waiting:
            yield torch.stack(waiting)

    def describe(self, display: Display) -> str:
        """Return one line that says how the movie is resampled, and what lies off the field."""
        scale = self._scale(display)
        wide = "" if self.aspect == 1.0 else f" high and {scale * self.aspect:.3g} wide"
        degrees = [n * display.deg_per_px for n in display.field]
        rate = f"at {self.rate_hz:g} Hz"
        if self.clock and self.clock.varies:
            rate = f"at a varying rate, {self.rate_hz:.4g} Hz on the mean"
            if not self.clock.last_known:
                rate += ", its last frame held as long as those before it"
        text = (
            f"{self.path.name}: {self.n_frames} frames of {self.size[0]} x {self.size[1]} px "
            f"{rate} ({self.origin['rate_hz']}), {self.seconds:.3f} s, {self.levels.describe()}, "
            f"resampled to {display.rate_hz:g} Hz "
            f"and {display.deg_per_px:g} degree per pixel ({scale:.3g} degrees per file pixel"
            f"{wide}, {self.origin['deg_per_px']}) on a field of "
            f"{degrees[0]:g} x {degrees[1]:g} degrees"
        )
        text += f"; {self.view.describe()}"
        for matrix, covers, name in zip(
            self._matrices(display), self._degrees(scale), ("height", "width"), strict=True
        ):
            off = 1.0 - float(matrix.sum()) / (covers / display.deg_per_px)
            if off > 0.005:
                text += f"; {off:.0%} of its {name} lies off the field and is not seen"
        return text

    def _scale(self, display):
        """Return degrees per pixel of the file, along its height."""
        if self.deg_per_px:
            return self.deg_per_px
        sides = zip(display.field, self._degrees(1.0), strict=True)
        return min(n * display.deg_per_px / own for n, own in sides)

    def _degrees(self, scale):
        """Return the degrees that the picture is high and wide."""
        return self.size[0] * scale, self.size[1] * scale * self.aspect

    def _matrices(self, display):
        """Return the (rows, file rows) and (columns, file columns) matrices of area averaging.

        The middle of the picture lies on the middle of the field, or on the display's own
        placement. Pixels of the model's size are laid pixel on pixel, none is smeared over two.
        """
        high = self._scale(display) / display.deg_per_px  # pixels of the field per file pixel
        moved = (-self.view.elevation / display.deg_per_px, self.view.azimuth / display.deg_per_px)
        overlaps = []
        for axis, (n, own, centre) in enumerate(
            zip(display.field, self.size, display.centre, strict=True)
        ):
            scale = high * self.aspect if axis else high
            middle = centre if display.placement else (n - 1) / 2
            start = middle - own * scale / 2
            if abs(scale - 1.0) < 1e-6:
                scale, start = 1.0, centre - own // 2 - 0.5
            edges = np.arange(own + 1) * scale + start + moved[axis]  # of file pixels
            low = np.arange(n)[:, None] - 0.5
            overlap = np.minimum(edges[1:], low + 1.0) - np.maximum(edges[:-1], low)
            overlaps.append(torch.from_numpy(np.clip(overlap, 0.0, None)).float())
            if not overlaps[-1].any():
                reach = (edges[[0, -1]] - centre) * display.deg_per_px * (1 if axis else -1)
                raise InputError(
                    f"{self.path}: nothing of the picture lies on the field: its "
                    f"{('elevation', 'azimuth')[axis]} is {min(reach):.4g} to {max(reach):.4g} "
                    f"degrees, the field's {n * display.deg_per_px:g} in all; give another "
                    f"--{('elevation', 'azimuth')[axis]}"
                )
        return overlaps


def _even_spans(rate_hz):
    i = 0
    while True:
        yield i / rate_hz, (i + 1) / rate_hz
        i += 1


def _read_array(path):
    try:
        if path.suffix.lower() == ".npz":
            arrays = load_arrays(path)
        else:
            # frames are read as they are needed: the movie may be larger than the memory
            arrays = {"movie": np.load(path, allow_pickle=False, mmap_mode="r")}
    except DAMAGE as error:
        raise InputError(
            f"{path}: no readable {path.suffix} file ({type(error).__name__})"
        ) from None
    arrays = {
        key: value for key, value in arrays.items()
        if key in (*KEYS, "movie") or value.ndim == 3
    }  # fmt: skip
    if not all(value.dtype.kind in "fiub" for value in arrays.values()):
        raise InputError(f"{path}: expected arrays of numbers")
    movies = [value for value in arrays.values() if value.ndim == 3]
    if "movie" not in arrays and len(movies) != 1:
        raise InputError(f"{path}: no array called movie; expected (frames, rows, columns)")
    movie = arrays["movie"] if "movie" in arrays else movies[0]
    rate, scale = (_positive(arrays.get(key), f"{path}: {key}") for key in KEYS[:2])
    return movie, rate, scale, arrays.get("t_axis")


def _clock_of(times, shape, rate, path):
    """Return the clock of frames that appear at ``times`` (T,), s; ``rate`` must agree, or None."""
    times = torch.from_numpy(np.asarray(times, dtype=np.float64))
    fault = axis_fault(times)
    if fault is None and len(times) != shape[0]:
        fault = f"t_axis has {len(times)} entries for {shape[0]} frames"
    fault = fault or hold_fault(times)
    own = rate_of(times) if fault is None else None
    if rate and own and abs(own - rate) > TOLERANCE * rate:
        fault = f"t_axis runs at {own:g} Hz, rate_hz is {rate:g}; keep the right one"
    if fault:
        raise InputError(f"{path}: {fault}")
    starts = (times - times[0]).numpy()
    return VideoClock.of_times(starts, 0.0, rate or own, shape[1:], tick=TOLERANCE_S)


def _positive(value, what):
    if value is None:
        return None
    if value.size != 1 or not (np.isfinite(value).all() and (value > 0).all()):
        raise InputError(f"{what} is {value.tolist()}; expected one number above 0")
    return float(value.item())


def _origin(flag, given, own, unknown=""):
    """Return where a value comes from; a flag that differs from the file by 1 % is said."""
    if given and own and abs(given - own) > TOLERANCE * own:
        return f"flag {flag}, the file says {own:g}"
    return f"flag {flag}" if given else "file" if own else unknown
