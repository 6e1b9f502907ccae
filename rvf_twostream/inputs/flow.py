"""Optical flow of frames by Farneback's method (specification section 5.6).

Letters in shape comments: n frames, r rows, c columns.
"""

import cv2
import numpy as np

from common.files import InputError
from inputs.resize import resize_frame
from settings import FARNEBACK, FLOW_UNITS, NCOLS, NROWS


def flow_unit(options: dict) -> str:
    """Return the unit of a flow made with ``options``; older files know ``per_second`` only."""
    return options.get("flow_unit") or FLOW_UNITS[bool(options.get("per_second"))]


def unit_factors(options: dict, info: dict) -> np.ndarray:
    """Return what turns flow (x, y) in full-size pixels per frame into the unit of ``options``.

    Args:
        info: of the movie: frame_rate_hz, and pixel_cm (width, height) for cm_per_s.

    Raises:
        InputError: the header does not tell what the unit needs.
    """
    unit = flow_unit(options)
    if unit == FLOW_UNITS[0]:
        return np.ones(2, np.float32)
    if not info["frame_rate_hz"]:
        raise InputError(
            "no frame rate in the header (FrameTime (0018,1063)), needed by --flow_unit "
            f"{unit} (--per_second); give --frame_rate"
        )
    factors = np.full(2, info["frame_rate_hz"], np.float32)
    if unit == "cm_per_s":
        if not info.get("pixel_cm"):
            raise InputError(
                "no pixel size in cm in the header (PhysicalDeltaX (0018,602C) of a 2-D tissue "
                "region), needed by --flow_unit cm_per_s; use px_per_s"
            )
        factors *= np.array(info["pixel_cm"], np.float32)
    return factors


class FlowMaker:
    """The flow of a movie whose frames come one by one.

    Args:
        options: nrows, ncols, flow_size, flow_unit and farneback.
        info: of the movie: bits_stored, frame_rate_hz, pixel_cm.

    Source: section 5.6. The method is not invariant to scale: frames are brought to 0..255.
    """

    def __init__(self, options: dict, info: dict):
        cv2.setNumThreads(1)  # one process per file
        self._size = options["nrows"], options["ncols"]
        self._at = tuple(options["flow_size"]) if options["flow_size"] else None
        self._method = {**farneback_defaults(), **options["farneback"]}
        self._unit = unit_factors(options, info)
        top = 2.0 ** info["bits_stored"] - 1
        self._scale = np.float32(255 / top) if top > 255 else None
        self._before, self._fields, self._ratio, self._n = None, [], None, 0

    def add(self, frame: np.ndarray) -> None:
        """Take the next grey frame (r, c)."""
        if self._scale is not None:
            frame = frame * self._scale
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
            raise InputError(f"{self._n} frame has no flow, at least 2 needed")
        unit = self._unit if self._ratio is None else self._unit * self._ratio
        return np.stack([*self._fields, self._fields[-1]]) * unit


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
