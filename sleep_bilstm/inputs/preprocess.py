"""From raw frames to model input: epoch composition, block averaging and normalisation (NumPy
only).

Shapes: F frames of an epoch, P pixels inside the brain mask, H rows, W columns. Signals are (F, P)
float32 in the units of the recording; normalised signals have no unit.

Source: specification section 5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from common.files import InputError
from inputs.states import EPOCH_S, FRAMES_PER_EPOCH, MAX_SECONDS

NORMALIZATIONS = ("temporal", "spatial", "minmax", "none")
EDGES = ("zeros", "drop", "reflect")


def frames_per_side(seconds: int) -> int:
    """Return the frames taken from each neighbour: 0 up to 10 s, 42 for 15 s, 84 for 20 s."""
    return 0 if seconds <= EPOCH_S else round(8.4 * (seconds - EPOCH_S))


def frames_of(seconds: int) -> int:
    """Return the number of frames of an input of ``seconds`` s (1 to 30): 151, 168, 252, 336 for 9,
    10, 15, 20.
    """
    if not 1 <= seconds <= MAX_SECONDS or seconds != int(seconds):
        raise InputError(f"seconds is {seconds}: expected a whole number from 1 to {MAX_SECONDS}")
    if seconds <= EPOCH_S:
        return FRAMES_PER_EPOCH * int(seconds) // EPOCH_S
    return FRAMES_PER_EPOCH + 2 * frames_per_side(int(seconds))


@dataclass(frozen=True)
class Composition:
    """How an input is cut from a recording.

    Attributes:
        seconds: length of an input in s, 1 to 30.
        edge: what stands for a missing neighbour: zeros, reflect, or drop (no input at all).
        use_artifacts: artifact epochs serve as neighbours; otherwise they count as missing.
    """

    seconds: int = EPOCH_S
    edge: str = "zeros"
    use_artifacts: bool = True


def compose(
    read: Callable[[int], np.ndarray], epoch: int, how: Composition, *, is_artifact: np.ndarray
) -> np.ndarray | None:
    """Cut the input of one epoch out of a recording.

    Args:
        read: function that returns the (168, P) frames of an epoch by its index in the recording.
        epoch: index of the epoch, counted before artifacts are dropped.
        how: length and edge rules.
        is_artifact: (E,) bool, one value per epoch of the recording.

    Returns:
        (F, P) float32, or None when the edge rule drops the epoch.

    Neighbours are taken in recording order. Differs: the published script indexes them in the list
    left after artifacts are removed, where a neighbour may be minutes away.
    """
    centre = read(epoch)
    side = frames_per_side(how.seconds)
    if not side:
        return centre[: frames_of(how.seconds)]
    parts = []
    for neighbour, frames in ((epoch - 1, slice(-side, None)), (epoch + 1, slice(0, side))):
        there = 0 <= neighbour < len(is_artifact)
        if there and (how.use_artifacts or not is_artifact[neighbour]):
            parts.append(read(neighbour)[frames])
        elif how.edge == "drop":
            return None
        elif how.edge == "reflect":
            mirrored = centre[::-1]
            parts.append(mirrored[frames] if neighbour < epoch else mirrored[:side])
        else:
            # Faithful: the zeros are inserted before z-scoring and take part in mean and deviation.
            parts.append(np.zeros((side, centre.shape[1]), np.float32))
    return np.concatenate([parts[0], centre, parts[1]])  # (F, P)


STILL = 0.01  # fraction of pixels in the mask that never change that raises a warning


def still_text(count: int, pixels: int) -> str:
    """Return what to say of ``count`` of ``pixels`` in the mask that never change, or nothing."""
    if count <= STILL * pixels:
        return ""
    return (
        f"{count} of {pixels} pixels inside the brain mask never change; the mask may be "
        "transposed, or that of another recording"
    )


def unchanged(signals: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return those of ``pixels`` whose signal (F, P) is one value, or missing, in all frames."""
    own = signals if pixels.size == signals.shape[1] else signals[:, pixels]
    # Most pixels change from the first frame to the second: the others are looked at in full.
    calm = np.flatnonzero((own[:2] == own[:1]).all(axis=0) | np.isnan(own[0]))
    held = own[:, calm]
    return pixels[calm[((held == held[:1]) | np.isnan(held)).all(axis=0)]]


def _zscore(signals: np.ndarray, axis: int) -> np.ndarray:
    """Return the population z-score of signals (F, P) along ``axis``; undefined values are 0."""
    missing = ~np.isfinite(signals)
    whole = not missing.any()
    count = (
        signals.shape[axis] if whole else np.maximum((~missing).sum(axis=axis, keepdims=True), 1)
    )
    centred = signals.copy() if whole else np.where(missing, np.float32(0), signals)
    # Sums in float64 make the mean of a constant line exact, so that its deviation is exactly zero;
    # the second pass removes what rounding the mean to float32 leaves behind.
    for _ in range(2):
        centred -= (centred.sum(axis=axis, keepdims=True, dtype=np.float64) / count).astype(
            np.float32
        )
        if not whole:
            centred[missing] = 0
    squares = np.einsum("fp,fp->p" if axis == 0 else "fp,fp->f", centred, centred)
    deviation = np.sqrt(np.expand_dims(squares, axis) / count).astype(np.float32)
    centred *= np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return centred


def temporal_zscore(signals: np.ndarray) -> tuple[np.ndarray, int]:
    """Z-score every pixel over its frames.

    Args:
        signals: (F, P) float32; NaN frames are left out of mean and population deviation.

    Returns:
        z (F, P) float32, 0 where undefined (NaN, constant pixel, pixel with an infinity); and the
        number of pixels that held an infinity.
    """
    infinite = np.isinf(signals).any(axis=0)
    z = _zscore(signals, axis=0)
    z[:, infinite] = 0
    return z, int(infinite.sum())


def spatial_zscore(signals: np.ndarray) -> tuple[np.ndarray, int]:
    """Z-score every frame over the pixels of the mask; same arguments and returns as
    temporal_zscore.
    """
    infinite = np.isinf(signals).any(axis=0)
    return _zscore(np.where(infinite, np.float32(np.nan), signals), axis=1), int(infinite.sum())


def min_max(signals: np.ndarray) -> tuple[np.ndarray, int]:
    """Scale the whole epoch (F, P) to 0..1; NaN and a constant epoch become 0."""
    infinite = np.isinf(signals).any(axis=0)
    values = np.where(infinite, np.float32(np.nan), signals)
    if np.isnan(values).all():
        return np.zeros_like(values), int(infinite.sum())
    low, high = np.nanmin(values), np.nanmax(values)
    if high == low:
        return np.zeros_like(values), int(infinite.sum())
    return np.nan_to_num((values - low) / (high - low), nan=0.0), int(infinite.sum())


def keep(signals: np.ndarray) -> tuple[np.ndarray, int]:
    """Leave the values as they are, NaN as 0, pixels with an infinity as 0."""
    infinite = np.isinf(signals).any(axis=0)
    values = np.nan_to_num(signals, nan=0.0)
    values[:, infinite] = 0
    return values, int(infinite.sum())


NORMALIZE = {
    "temporal": temporal_zscore,
    "spatial": spatial_zscore,
    "minmax": min_max,
    "none": keep,
}


class BlockAverage:
    """Mean over the in-mask pixels of square blocks; a block is kept when at least half of it is in
    the mask.

    Attributes:
        mask: (H / d, W / d) bool mask of the kept blocks.
    """

    def __init__(self, mask: np.ndarray, factor: int):
        height, width = mask.shape
        if height % factor or width % factor:
            raise InputError(
                f"downsample {factor} does not divide the frame of {height} x {width} pixels"
            )
        rows, columns = np.nonzero(mask)
        blocks = (rows // factor) * (width // factor) + columns // factor
        filled = np.bincount(blocks, minlength=(height // factor) * (width // factor))
        kept = np.flatnonzero(filled * 2 >= factor**2)
        self.mask = np.isin(np.arange(filled.size), kept).reshape(height // factor, width // factor)
        number = np.full(filled.size, -1)
        number[kept] = np.arange(kept.size)
        inside = number[blocks] >= 0
        pixels = np.flatnonzero(inside)
        self._sum = sparse.csr_array(
            (np.ones(pixels.size, np.float32), (number[blocks][inside], pixels)),
            shape=(kept.size, rows.size),
        )

    def __call__(self, signals: np.ndarray) -> np.ndarray:
        """Average signals (F, P) to (F, blocks); a block without any value is NaN."""
        there = ~np.isnan(signals)
        if there.all():
            count = self._sum.sum(axis=1)[:, None]
            total = self._sum @ signals.T
        else:
            count = self._sum @ there.T.astype(np.float32)
            total = self._sum @ np.where(there, signals, np.float32(0)).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.ascontiguousarray((total / count).T, dtype=np.float32)


def to_frames(signals: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put masked signals (F, P) back into frames (F, H, W), 0 outside the mask."""
    frames = np.zeros((signals.shape[0], mask.size), np.float32)
    frames[:, np.flatnonzero(mask)] = signals
    return frames.reshape(-1, *mask.shape)
