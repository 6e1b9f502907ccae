"""Optical flow of frames by Farneback's method (specification section 5.6).

Letters in shape comments: n frames, r rows, c columns.
"""

import itertools
from collections.abc import Iterable

import cv2
import numpy as np

from common.files import InputError
from inputs.resize import resize_frame
from settings import FARNEBACK, FLOW_UNITS, NCOLS, NROWS

LARGEST = 4096  # rows or columns of a frame resized to a pixel size: more is a wrong header


class FlowFault(InputError):
    """A movie has no flow of the wanted kind; its grey movie may be sound."""


def flow_unit(options: dict) -> str:
    """Return the unit of a flow made with ``options``; older files know ``per_second`` only."""
    return options.get("flow_unit") or FLOW_UNITS[bool(options.get("per_second"))]


def unit_factors(options: dict, info: dict) -> np.ndarray:
    """Return what turns flow (x, y) in full-size pixels per frame into the unit of ``options``.

    Args:
        info: of the movie: frame_rate_hz, and pixel_cm (width, height) for cm_per_s.

    Raises:
        FlowFault: the header does not tell what the unit needs.
    """
    unit = flow_unit(options)
    if unit == FLOW_UNITS[0]:
        return np.ones(2, np.float32)
    if not info["frame_rate_hz"]:
        raise FlowFault(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --flow_unit "
            f"{unit} (--per_second); give --frame_rate"
        )
    factors = np.full(2, info["frame_rate_hz"], np.float32)
    if unit == "cm_per_s":
        if not info.get("pixel_cm"):
            raise FlowFault(
                "no pixel size in cm in the header (PhysicalDeltaX (0018,602C) of a 2-D tissue "
                "region), needed by --flow_unit cm_per_s; use px_per_s"
            )
        factors *= np.array(info["pixel_cm"], np.float32)
    return factors


def is_physical(options: dict) -> bool:
    """Say whether flow is computed at one size of a pixel in mm, between recorded frames."""
    return isinstance(options.get("flow_size"), str)


def physical_size(shape: tuple[int, int], options: dict, info: dict) -> tuple[int, int]:
    """Return rows and columns of a frame of ``shape`` at the pixel size of ``options``.

    Raises:
        FlowFault: the header tells no pixel size, or the frame would be hardly there.
    """
    wanted = options["flow_size"]
    if not info.get("pixel_cm"):
        raise FlowFault(
            "no pixel size in cm in the header (PhysicalDeltaX (0018,602C) of a 2-D tissue "
            f"region), needed by --flow_size {wanted}; give ROWSxCOLS"
        )
    mm = float(wanted.removesuffix("mm"))
    width, height = (10 * size for size in info["pixel_cm"])
    size = round(shape[0] * height / mm), round(shape[1] * width / mm)
    if not 32 <= min(size) <= max(size) <= LARGEST:
        raise FlowFault(
            f"frames of {shape[0]} x {shape[1]} pixels of {width:.3g} mm are {size[0]} x {size[1]} "
            f"at --flow_size {wanted}; 32 to {LARGEST} rows and columns are needed"
        )
    return size


def mean_steps(steps: np.ndarray, times_s: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return the displacement in every interval of another frame rate, (m, r, c, 2) float32.

    Args:
        steps: (n - 1, r, c, 2) displacement from each frame to the next.
        times_s: (n,) when the frames were taken.
        rate_hz: frames/s of the result, whose frames lie where ``frames.resampled`` puts them.

    Between two frames the speed is constant, so what moves in an interval is the sum of its parts
    of steps, at any frame rate of the recording.
    """
    first = np.zeros((1, *steps.shape[1:]), np.float64)
    path = np.concatenate([first, np.cumsum(steps, axis=0, dtype=np.float64)])
    times_s = times_s - times_s[0]
    at = np.arange(int((times_s[-1] + 1e-9) * rate_hz) + 1) / rate_hz
    k = np.clip(np.searchsorted(times_s, at, side="right") - 1, 0, len(steps) - 1)
    part = np.clip((at - times_s[k]) / np.diff(times_s)[k], 0, 1)[:, None, None, None]
    return np.diff(path[k] * (1 - part) + path[k + 1] * part, axis=0).astype(np.float32)


class FlowMaker:
    """The flow of a movie whose frames come one by one.

    Args:
        options: nrows, ncols, flow_size, flow_unit and farneback. A pixel size as flow_size
            brings every movie to one scale, and frames come as recorded.
        info: of the movie: bits_stored, frame_rate_hz (of the flow), pixel_cm.
        times_s: when the frames were taken, where they have another rate than the flow.

    Source: section 5.6. The method is not invariant to scale: frames are brought to 0..255, and
    its window in pixels is another length at every depth of the picture, unless flow_size is a
    length.
    """

    def __init__(self, options: dict, info: dict, times_s: Iterable[float] | None = None):
        cv2.setNumThreads(1)  # one process per file
        self._size = options["nrows"], options["ncols"]
        self._options, self._info, self._times_s = options, info, times_s
        size = options["flow_size"]
        self._at = tuple(size) if size and not is_physical(options) else None
        self._method = {**farneback_defaults(), **options["farneback"]}
        self._unit = unit_factors(options, info)
        top = 2.0 ** info["bits_stored"] - 1
        self._scale = np.float32(255 / top) if top > 255 else None
        self._before, self._fields, self._ratio, self._n = None, [], None, 0

    def add(self, frame: np.ndarray) -> None:
        """Take the next grey frame (r, c)."""
        if self._scale is not None:
            frame = frame * self._scale
        if self._at is None and is_physical(self._options):
            self._at = physical_size(frame.shape, self._options, self._info)
        if self._at is not None:
            r, c = frame.shape
            self._ratio = np.array([c / self._at[1], r / self._at[0]], np.float32)
            frame = resize_frame(frame, *self._at)
        if self._before is not None:
            field = cv2.calcOpticalFlowFarneback(self._before, frame, None, flags=0, **self._method)
            self._fields.append(resize_frame(field, *self._size))
        self._before, self._n = frame, self._n + 1

    def fields(self) -> np.ndarray:
        """Return the flow (n, nrows, ncols, 2) float32; the last field is repeated."""
        if not self._fields:
            raise FlowFault(f"{self._n} frame has no flow, at least 2 needed")
        unit = self._unit if self._ratio is None else self._unit * self._ratio
        fields = self._fields
        if self._times_s is not None:
            times_s = np.fromiter(itertools.islice(self._times_s, self._n), float)
            fields = mean_steps(np.stack(fields), times_s, self._info["frame_rate_hz"])
            if not len(fields):
                raise FlowFault("1 frame after --resample_fps has no flow, at least 2 needed")
        flow = np.empty((len(fields) + 1, *fields[0].shape), np.float32)  # one copy, not three
        for k, field in enumerate(fields):
            np.multiply(field, unit, out=flow[k])
        flow[-1] = flow[-2]
        return flow


def video2OF(
    frames: np.ndarray,
    *,
    nrows: int = NROWS,
    ncols: int = NCOLS,
    flow_size: tuple[int, int] | None = None,
    frame_rate_hz: float | None = None,
    **farneback: float,
) -> np.ndarray:
    """Return the flow (n, nrows, ncols, 2) float32 of frames (n, r, c) with values 0..255.

    Channel 0 is x (right positive), 1 is y (down positive). The last field is repeated, so that
    fields equal frames. Vectors keep the unit of full-size pixels when they are resized.

    Args:
        flow_size: (rows, columns) at which to compute, or None for full size.
        frame_rate_hz: multiply by it, for pixels per second; None keeps pixels per frame.
        farneback: pyr_scale, levels, winsize, iterations, poly_n, poly_sigma of the method, as in
            ``farneback_defaults`` unless given.

    Source: section 5.6.
    """
    options = {
        "nrows": nrows,
        "ncols": ncols,
        "flow_size": flow_size,
        "flow_unit": FLOW_UNITS[bool(frame_rate_hz)],
        "farneback": farneback,
    }
    return flow_of_frames(frames, options, {"bits_stored": 8, "frame_rate_hz": frame_rate_hz})


def flow_of_frames(frames: np.ndarray, options: dict, info: dict) -> np.ndarray:
    """Return the flow of frames (n, r, c) under the options of data_mean_std_OF.json."""
    maker = FlowMaker(options, info)
    for frame in frames:
        maker.add(frame)
    return maker.fields()


def farneback_defaults() -> dict[str, float]:
    """Return the method's six numbers as set in settings.py."""
    return {name.lower(): setting.default for name, setting in FARNEBACK.items()}
