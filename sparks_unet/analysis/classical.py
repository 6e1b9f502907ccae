"""Detect events without a network: a threshold in units of the noise, and rules of size.

Source: section 13.8 of the specification.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from analysis.disc_output_tools import own_name, write_prediction, write_table
from analysis.kinetics import event_frequency, event_table
from analysis.preds_processing_tools import Prediction, calibrated_post, instances_from_classes
from common.files import InputError
from common.locks import writing
from inputs.calibration import ScaledPost
from inputs.cell import Cell, cell_of, find_cell
from inputs.data_processing import connected_components
from inputs.movie_io import read_movie
from inputs.movie_state import MovieState, filled, look_at
from inputs.preprocessing import FULL_SCALE
from settings.config import CLASSES
from settings.recording import Given

THRESHOLD_SD = 2.5  # noise standard deviations of the smoothed movie
SMOOTHING = (1.0, 2.0, 2.0)  # frames, pixels, pixels
RESTING_PERCENTILE = 30  # of each pixel's trace: the resting level under rare events
MIN_LINE_VOXELS = 15  # the same of a line scan
MIN_VOXELS = 60  # smaller components are noise
WAVE_WIDTH_UM = 10.0  # components at least this wide are waves
PUFF_WIDTH_UM = 3.2  # narrower and short ones are sparks
PUFF_MS = 75.0  # components that last this long are puffs
LARGEST_BYTE = 255  # larger values above the darkest one are counts of a camera
NOISE_FACTOR = 1.4826  # standard deviation of Gaussian noise over its median absolute deviation


def classical_events(
    movie: np.ndarray,
    post: ScaledPost,
    *,
    threshold_sd: float = THRESHOLD_SD,
    detrend: bool = False,
    whole_frame: bool = False,
    state: MovieState | None = None,
    cell: Cell | None = None,
) -> Prediction:
    """Return the events of a movie (T, H, W) of counts as preds_processing_tools.Prediction.

    Args:
        movie: (T, H, W) counts.
        post: config.PostParams; sizes in um and ms.
        threshold_sd: threshold in standard deviations of the noise of the smoothed movie.
        detrend: divide by a parabola through the median of every frame (slow bleaching).
        whole_frame: search outside the cell too.
        state: MovieState of the movie; None looks at it. Black frames show the nearest good one.
        cell: inputs.cell.Cell; None looks for it. Where it is unknown the whole frame is searched.
    """
    state = look_at(movie, post.calibration.offset_counts) if state is None else state
    if cell is None and not whole_frame:
        sizes = post.calibration.pixel_x_um, post.calibration.pixel_y_um
        cell = find_cell(movie, state.good, pixel_um=sizes)
    movie = filled(movie, state.good).astype(np.float32)
    if movie.min() == movie.max():
        return instances_from_classes(movie, np.zeros(movie.shape, np.uint8), post)
    flat = movie
    if detrend:
        frames = np.arange(len(movie))
        level = np.median(movie, axis=(1, 2))
        course = np.polyval(np.polyfit(frames, level, 2), frames)
        if course.min() <= 0:
            raise InputError(
                f"--detrend: the level of the movie falls to {course.min():.4g}, expected counts "
                "above 0 by which the frames can be divided; leave it out"
            )
        flat = movie / course[:, None, None]
    resting = ndimage.gaussian_filter(np.percentile(flat, RESTING_PERCENTILE, axis=0), 1.0)
    signal = ndimage.gaussian_filter(flat - resting, SMOOTHING)
    centred = signal - np.median(signal, axis=0)
    noise = NOISE_FACTOR * np.median(np.abs(centred), axis=0)
    mask = centred > threshold_sd * np.maximum(noise, np.finfo(np.float32).tiny)
    if not whole_frame and cell.mask is not None:
        mask &= cell.mask
    classes = classes_by_size(mask, post)
    movie = movie - movie.min()
    return instances_from_classes(movie, classes, post, grey_scale=_grey_scale(movie))


def _grey_scale(movie):
    """Return the factor that lets brightness, not distance, separate the sparks of a movie from 0.

    By distance alone, as at the scale of the network's movies, grains in the fading tail of a spark
    would become sparks of their own. Counts are large enough as they are, 8 bits and normalised
    values are not.
    """
    highest = float(movie.max())
    return 1.0 if highest > LARGEST_BYTE else FULL_SCALE / highest


def classes_by_size(mask: np.ndarray, post: ScaledPost) -> np.ndarray:
    """Name the components of a mask by width and duration, (T, H, W) uint8."""
    labels, boxes = connected_components(mask)
    volume = np.bincount(labels.ravel(), minlength=len(boxes) + 1)
    names = np.zeros(len(boxes) + 1, np.uint8)
    least = MIN_VOXELS if mask.shape[1] > 1 else MIN_LINE_VOXELS
    for number, box in enumerate(boxes, start=1):
        if volume[number] < least:
            continue
        duration = (box[0].stop - box[0].start) * post.calibration.frame_ms
        sizes = post.calibration.pixel_y_um, post.calibration.pixel_x_um
        width = max((o.stop - o.start) * size for o, size in zip(box[1:], sizes, strict=True))
        if width >= WAVE_WIDTH_UM:
            kind = "waves"
        elif width >= PUFF_WIDTH_UM and duration >= PUFF_MS:
            kind = "puffs"
        else:
            kind = "sparks"
        names[number] = CLASSES[kind]
    return names[labels]


def write_classical(
    path: Path, out: Path, *, given: Given | None = None, **options: Any
) -> dict[str, int]:
    """Write masks and the event table of the movie at ``path``; return {class: events}.

    Args:
        path: movie (TIFF).
        out: folder.
        given: settings.recording.Given, what the user says about the movie.
        options: threshold_sd, detrend, whole_frame of ``classical_events``.
    """
    with writing(out):
        return _write_classical(path, out, given, options)


def _write_classical(path, out, given, options):
    """Detect and write while the folder is held; return {class: events}."""
    movie = read_movie(path, given)
    post = calibrated_post(movie)
    print(post.calibration.line())
    seen = {"state": movie.state, "cell": cell_of(movie)}
    prediction = classical_events(movie.data, post, **options, **seen)
    physical = {"calibration": post.calibration}
    table = event_table(movie.data, prediction, **physical, **seen)
    frequency = event_frequency(table, movie.data, **physical, **seen)
    own_name(out, path.stem, movie, post.calibration, given, **options)
    write_table(out / f"{path.stem}_frequency.csv", frequency)
    write_prediction(out, path.stem, movie.data, prediction, None, table=table, **physical)
    return prediction.counts()
