"""Where the cell is in a recording: from the user, or from its edges where there are clear ones.

A frame that the cell fills has no edge; a frame whose brightness falls smoothly from cell to ground
does not show where the cell ends. The published mask (``data_processing.cell_mask``) splits every
frame at a threshold, whether there is an edge or not; it stays for the signal-to-noise ratio.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roifile
import tifffile
from scipy import ndimage
from skimage.draw import polygon2mask

from common.files import InputError
from inputs.calibration import UNKNOWN
from inputs.movie_io import Movie
from settings.config import logger

SMOOTHING_UM = 0.9  # removes sarcomeres (period 1.8 um) and noise, keeps edges
MAX_FRAMES = 200  # frames of which the mean image is made
EDGE_SLOPE = 0.2  # of the brightness beside it per um: steeper is an edge
DARK = 0.4  # of the brightest place; slopes in darker ones count as a share of this
FADED = 0.25  # without an edge: the darkest place is at least this share of the brightest
GROUND = 0.65  # ground is darker than this share of the cell beside it
EDGE_UM = 2.2  # between a quarter and three quarters of its height an edge is at most so wide
MIN_CELL = 0.1  # of the frame; less may be a bright spot in a cell
MIN_PART = 0.05  # smaller pieces (of the largest one) are dirt or holes
ROUNDS = 4


@dataclass(frozen=True)
class Cell:
    """Where the cell is.

    Attributes:
        mask: (H, W) bool, or None where it is not known.
        origin: ``file: <name>``, ``edges of the mean image``, ``fills the frame`` or ``unknown``.
        why: reason of an unknown one.
    """

    mask: np.ndarray | None
    origin: str
    why: str = ""


def find_cell(
    movie: np.ndarray,
    good: np.ndarray | None = None,
    *,
    pixel_um: tuple[float, float] = (0.2, 0.2),
    offset: float = 0.0,
) -> Cell:
    """Return where the cell is in a movie (T, H, W) of counts.

    Args:
        movie: counts.
        good: (T,) bool, frames that count; None: all.
        pixel_um: width and height of a pixel.
        offset: counts without light, if known.
    """
    frames = np.arange(len(movie)) if good is None else np.flatnonzero(good)
    frames = frames[:: max(1, math.ceil(len(frames) / MAX_FRAMES))]
    image = np.zeros(movie.shape[1:])
    for t in frames:
        image += movie[t]
    image = image / max(len(frames), 1) - offset
    sizes = pixel_um[::-1]
    smooth = _smoothed(image, sizes)
    low, high = (float(smooth.min()), float(np.percentile(smooth, 99)))
    if high <= 0:
        return Cell(None, UNKNOWN, "the mean image is not above the offset")
    steep = _slopes(smooth, sizes)
    if steep.max() < EDGE_SLOPE:
        if low < FADED * high:
            return Cell(None, UNKNOWN, "the brightness falls smoothly and shows no edge of a cell")
        return Cell(np.ones(image.shape, bool), "fills the frame")
    mask, level = _inside(image, smooth, steep, sizes)
    fault = _doubt(mask, level, sizes)
    if fault:
        return Cell(None, UNKNOWN, fault)
    return Cell(mask, "edges of the mean image" if not mask.all() else "fills the frame")


def _smoothed(image, sizes, share=1.0):
    """Return the image without sarcomeres; short sides are smoothed less."""
    pairs = zip(sizes, image.shape, strict=True)
    sigma = [share * min(SMOOTHING_UM / size, n / 10) for size, n in pairs]
    return ndimage.gaussian_filter(image, sigma, mode="nearest")


def _slopes(smooth, sizes):
    """Return the slope (H, W) of an image per um, as a share of the brightness beside it."""
    parts = [
        np.gradient(smooth, size, axis=axis)
        for axis, size in enumerate(sizes)
        if smooth.shape[axis] > 1
    ]
    reach = tuple(2 * math.ceil(2 * SMOOTHING_UM / size) + 1 for size in sizes)
    beside = ndimage.maximum_filter(smooth, reach, mode="nearest")
    return np.sqrt(sum(part**2 for part in parts)) / np.maximum(beside, DARK * smooth.max())


def _inside(image, smooth, steep, sizes):
    """Return (mask, level): level is 0 on the ground and 1 in the cell, beside each place.

    The first threshold is the mean brightness of the steep places; then each place is compared with
    the cell and the ground next to it, because a cell may be graded.
    """
    weight = np.where(steep > EDGE_SLOPE / 2, steep, 0)
    threshold = float((smooth * weight).sum() / weight.sum())
    level = smooth / (2 * threshold)
    fine = ndimage.gaussian_filter(image, [0.2 / size for size in sizes], mode="nearest")
    # half of the smoothing for the place of the edge: beside a thin strip of ground it moves it
    sharp = _smoothed(image, sizes, 0.5)
    for _ in range(ROUNDS):
        mask = _solid(level > 0.5)
        if mask.all() or not mask.any():
            break
        cell = _nearest(smooth, mask, sizes)
        ground = _nearest(fine, ~mask, sizes)
        level = (sharp - ground) / np.maximum(cell - ground, 1e-9 * smooth.max())
        level = np.where(ground > GROUND * cell, 1.0, level)  # no ground there
    return _solid(level > 0.5), level


def _solid(mask):
    """Return the mask without small pieces and without holes."""
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    if n > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = (sizes >= MIN_PART * sizes.max())[labels]
    mask = ndimage.binary_fill_holes(mask)
    # dark specks at the border of the frame are no ground either
    labels, n = ndimage.label(~mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = mask.size
    return mask | (sizes < 0.002 * mask.size)[labels]


def _nearest(image, mask, sizes):
    """Return at each place the value of the nearest place well inside a mask."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, "edge"), sizes)[1:-1, 1:-1]
    deep = depth > min(2 * SMOOTHING_UM, 0.9 * depth.max())
    at = ndimage.distance_transform_edt(~deep, sizes, return_distances=False, return_indices=True)
    return image[tuple(at)]


def _doubt(mask, level, sizes):
    """Return why an edge is no clear one, or an empty text."""
    if mask.mean() < MIN_CELL:
        return f"what is bright fills {mask.mean():.1%} of the frame only"
    if mask.all():
        return ""
    edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
    between = np.count_nonzero((level > 0.25) & (level < 0.75))
    width = between / max(np.count_nonzero(edge), 1) * math.sqrt(sizes[0] * sizes[1])
    if width > EDGE_UM:
        return f"the brightness falls over {width:.1f} um: there is no clear edge of a cell"
    return ""


def cell_of(movie: Movie, *, tell: bool = True) -> Cell:
    """Return the cell of a recording: the one that the user gave, else the one found.

    Args:
        movie: recording.
        tell: warn where the cell is not known.
    """
    path, calibration = movie.cell_mask, movie.calibration
    if path is not None:
        return Cell(read_cell_mask(path, movie.data.shape[1:]), f"file: {path.name}")
    sizes = calibration.pixel_x_um or 0.2, calibration.pixel_y_um or 0.2
    good = None if movie.state is None else movie.state.good
    cell = find_cell(movie.data, good, pixel_um=sizes, offset=calibration.offset_counts or 0.0)
    if cell.mask is None and tell:
        logger.warning(
            "%s: the cell is unknown (%s); give --cell-mask: no area and no frequency per area",
            *(movie.source, cell.why),
        )
    return cell


def read_cell_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the cell (H, W) bool of an ImageJ ROI (.roi, .zip) or of a TIFF whose cell is not 0.

    Raises:
        InputError: no such file, another size, an empty mask, a ROI that encloses nothing.
    """
    if not path.is_file():
        raise InputError(f"{path}: file not found; expected an ImageJ ROI or a TIFF of the cell")
    if path.suffix.lower() in (".roi", ".zip"):
        mask = _roi_mask(path, shape)
    else:
        try:
            mask = np.squeeze(tifffile.imread(path)) > 0
        except (tifffile.TiffFileError, ValueError, OSError) as error:
            raise InputError(
                f"{path}: neither ROI nor TIFF ({error}); draw the cell anew"
            ) from None
        if mask.shape != tuple(shape):
            raise InputError(
                f"{path}: cell mask of shape {mask.shape}, the movie's frames {tuple(shape)}; "
                "expected equal shapes"
            )
    if not mask.any():
        raise InputError(f"{path}: the cell mask is empty; draw the cell anew")
    return mask


def _roi_mask(path, shape):
    """Return what the ROIs of a file enclose together."""
    try:
        rois = roifile.roiread(path)
    except Exception as error:  # roifile raises many kinds for damaged files
        raise InputError(f"{path}: damaged ImageJ ROI ({error}); draw the cell anew") from None
    mask = np.zeros(shape, bool)
    for roi in rois if isinstance(rois, list) else [rois]:
        mask |= roi_area(roi, shape)
    return mask


def roi_area(roi: roifile.ImagejRoi, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels (H, W) bool whose centres a ROI of ImageJ encloses."""
    if roi.roitype == roifile.ROI_TYPE.RECT and not roi.composite:
        # a ROI may lie beyond the frame; a negative end would count from the other side
        top, left, bottom, right = (max(n, 0) for n in (roi.top, roi.left, roi.bottom, roi.right))
        mask = np.zeros(shape, bool)
        mask[top:bottom, left:right] = True
        return mask
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    if roi.roitype == roifile.ROI_TYPE.OVAL:
        half = (roi.bottom - roi.top) / 2, (roi.right - roi.left) / 2
        centre = (roi.bottom + roi.top) / 2, (roi.right + roi.left) / 2
        return ((rows - centre[0]) / half[0]) ** 2 + ((columns - centre[1]) / half[1]) ** 2 <= 1
    mask = np.zeros(shape, bool)
    parts = roi.coordinates(multi=True)
    for points in parts if isinstance(parts, list) else [parts]:
        # the corners of pixels are whole numbers in ImageJ, their centres are in scikit-image;
        # parts of one ROI that lie in each other are holes
        mask ^= polygon2mask(shape, np.asarray(points, float)[:, ::-1] - 0.5)
    return mask
