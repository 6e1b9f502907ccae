"""Read any movie as a stimulus: array, .npy, .npz, video or image folder, on the model's grid.

A movie is held frame by frame at the model's rate (the last frame shown before each tick) and
averaged over areas onto the model's pixels; outside the picture lies the grey background of the
model's display. Letters: T frames."""

from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import torch

from common.files import InputError
from inputs.display import TOLERANCE, Display
from inputs.recordings import natural_key
from inputs.safe_load import DAMAGE

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
PIECE_FRAMES = 60


class UserMovie:
    """A movie file: its size, rate and grey frames one after the other."""

    def __init__(self, path, *, rate_hz=None, deg_per_px=None):
        """Open ``path``.

        Args:
            path: .npy or .npz (key movie, or its only 3-D array; optional rate_hz and
            deg_per_px), a
                video, or a folder of images.
            rate_hz: frames per second; needed for .npy and folders, overrides what a file says.
            deg_per_px: degrees a pixel of the file covers; default: the picture just fits the
            field.
        """
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{path}: movie not found")
        own_rate, own_scale, self.n_frames, self.size, self._frames = self._open()
        self.rate_hz, self.deg_per_px = rate_hz or own_rate, deg_per_px or own_scale
        if not self.rate_hz:
            raise InputError(f"{path}: holds no frame rate; give it with --movie-rate HZ")
        self.origin = {
            "rate_hz": _origin("--movie-rate", rate_hz, own_rate),
            "deg_per_px": _origin("--deg-per-px", deg_per_px, own_scale, unknown="just fits"),
        }

    def _open(self):
        suffix = self.path.suffix.lower()
        if self.path.is_dir():
            files = [p for p in self.path.iterdir() if p.suffix.lower() in IMAGES]
            files.sort(key=lambda p: natural_key(p.name))
            if not files:
                raise InputError(f"{self.path}: no image inside (looked for {', '.join(IMAGES)})")
            size = _read_image(files[0]).shape[:2]
            return None, None, len(files), size, lambda: _images(files, size)
        if suffix in (".npy", ".npz"):
            array, rate, scale = _read_array(self.path)
            frames = _unit(array, self.path)
            return rate, scale, len(frames), frames.shape[1:], lambda: iter(frames)
        if suffix in VIDEOS:
            try:
                reader = imageio_ffmpeg.read_frames(str(self.path), pix_fmt="gray")
                meta = next(reader)
                reader.close()
                count = imageio_ffmpeg.count_frames_and_secs(str(self.path))[0]
            except (*DAMAGE, StopIteration) as error:
                raise InputError(
                    f"{self.path}: no readable video ({type(error).__name__})"
                ) from None
            columns, rows = meta["size"]
            return (
                meta["fps"],
                None,
                count,
                (rows, columns),
                lambda: _video(self.path, rows, columns),
            )
        raise InputError(
            f"{self.path}: unknown kind of movie; expected .npy, .npz, an image folder or one of "
            f"{', '.join(VIDEOS)}"
        )

    def pieces(self, display: Display) -> Iterator[torch.Tensor]:
        """Yield contrast pieces (n, rows, columns) at the rate and on the pixels of ``display``."""
        rows, columns = self._matrices(display)
        background = display.background
        outside = 1.0 - torch.outer(
            rows.sum(1), columns.sum(1)
        )  # share of each pixel off the picture
        waiting, shown = [], 0
        for i, frame in enumerate(self._frames()):
            frame = _opaque(frame, background)
            picture = rows @ torch.from_numpy(np.ascontiguousarray(frame)).float() @ columns.T
            contrast = picture + outside * background - background
            until = round((i + 1) * display.rate_hz / self.rate_hz)
            waiting += [contrast] * (until - shown)
            shown = until
            while len(waiting) >= PIECE_FRAMES:
                yield torch.stack(waiting[:PIECE_FRAMES])
                waiting = waiting[PIECE_FRAMES:]
        if waiting:
            yield torch.stack(waiting)

    def describe(self, display: Display) -> str:
        """Return one line that says how the movie is resampled, and what lies off the field."""
        scale, (rows, columns) = self._scale(display), display.field
        degrees = [n * display.deg_per_px for n in display.field]
        text = (
            f"{self.path.name}: {self.n_frames} frames of {self.size[0]} x {self.size[1]} px at "
            f"{self.rate_hz:g} Hz ({self.origin['rate_hz']}), resampled to {display.rate_hz:g} Hz "
            f"and {display.deg_per_px:g} degree per pixel ({scale:.3g} degrees per file pixel, "
            f"{self.origin['deg_per_px']}) on a field of {degrees[0]:g} x {degrees[1]:g} degrees"
        )
        for own, n, name in zip(self.size, (rows, columns), ("height", "width"), strict=True):
            off = 1.0 - n * display.deg_per_px / (own * scale)
            if off > 0.005:
                text += f"; {off:.0%} of its {name} lies off the field and is not seen"
        return text

    def _scale(self, display):
        """Return degrees per pixel of the file."""
        if self.deg_per_px:
            return self.deg_per_px
        sides = zip(display.field, self.size, strict=True)
        return min(n * display.deg_per_px / own for n, own in sides)

    def _matrices(self, display):
        """Return the (rows, file rows) and (columns, file columns) matrices of area averaging."""
        scale = self._scale(display) / display.deg_per_px  # pixels of the field per file pixel
        found = []
        for n, own, centre in zip(display.field, self.size, display.centre, strict=True):
            edges = (np.arange(own + 1) - own / 2) * scale + centre  # of file pixels, field pixels
            low = np.arange(n)[:, None] - 0.5
            overlap = np.minimum(edges[1:], low + 1.0) - np.maximum(edges[:-1], low)
            found.append(torch.from_numpy(np.clip(overlap, 0.0, None)).float())
        return found


def _read_array(path):
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as loaded:
                arrays = dict(loaded)
        else:
            arrays = {"movie": np.load(path, allow_pickle=False)}
    except DAMAGE as error:
        raise InputError(
            f"{path}: no readable {path.suffix} file ({type(error).__name__})"
        ) from None
    if not all(
        isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in arrays.values()
    ):
        raise InputError(f"{path}: expected arrays of numbers")
    movies = [value for value in arrays.values() if value.ndim == 3]
    if "movie" not in arrays and len(movies) != 1:
        raise InputError(f"{path}: no array called movie; expected (frames, rows, columns)")
    movie = arrays["movie"] if "movie" in arrays else movies[0]
    return movie, *(
        _positive(arrays.get(key), f"{path}: {key}") for key in ("rate_hz", "deg_per_px")
    )


def _positive(value, what):
    if value is None:
        return None
    if value.size != 1 or not (np.isfinite(value).all() and (value > 0).all()):
        raise InputError(f"{what} is {value.tolist()}; expected one number above 0")
    return float(value.item())


def _unit(array, path):
    if array.ndim != 3 or not array.size:
        raise InputError(f"{path}: shape {array.shape}; expected (frames, rows, columns)")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255.0
    low, high = float(np.min(array)), float(np.max(array))
    if not (low >= 0.0 and high <= 1.0):
        raise InputError(
            f"{path}: values from {low:.3g} to {high:.3g}; expected 0 (black) to 1 (white), "
            "or uint8"
        )
    return array.astype(np.float32)


def _origin(flag, given, own, unknown=""):
    """Return where a value comes from; a flag that differs from the file by 1 % is said."""
    if given and own and abs(given - own) > TOLERANCE * own:
        return f"flag {flag}, the file says {own:g}"
    return f"flag {flag}" if given else "file" if own else unknown


def _opaque(frame, background):
    """Return a grey frame; where its second plane, opacity, is below 1 the background shows."""
    if frame.ndim == 2:
        return frame
    return frame[..., 1] * frame[..., 0] + (1.0 - frame[..., 1]) * np.float32(background)


def _grey(picture):
    """Return luminance 0..1 of a grey, RGB or RGBA picture; with opacity as a second plane."""
    values = np.asarray(picture)
    top = 255.0 if values.dtype == np.uint8 else float(np.iinfo(values.dtype).max)
    values = values.astype(np.float32) / top
    if values.ndim == 2:
        return values
    grey = values[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    if values.shape[-1] == 4:
        return np.stack([grey, values[..., 3]], axis=-1)
    return grey


def _read_image(path):
    try:
        return _grey(imageio.imread(path))
    except DAMAGE as error:
        raise InputError(f"{path}: no readable image ({type(error).__name__})") from None


def _images(files, size):
    for path in files:
        frame = _read_image(path)
        if frame.shape[:2] != size:
            raise InputError(
                f"{path}: {frame.shape[:2]} pixels, the first image has {size}; expected one size"
            )
        yield frame


def _video(path, rows, columns):
    try:
        reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="gray", bits_per_pixel=8)
        next(reader)
        for buffer in reader:
            frame = np.frombuffer(buffer, dtype=np.uint8).reshape(rows, columns)
            yield frame.astype(np.float32) / 255.0
    except DAMAGE as error:
        raise InputError(f"{path}: broken off video ({type(error).__name__})") from None
