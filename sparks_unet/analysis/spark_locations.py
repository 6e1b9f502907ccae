"""From spark probabilities to a table of spark locations, and its comparison with an annotation.

Source: section 8.6 of the specification: threshold, small objects, peaks of section 8.4.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import signal

from analysis.disc_output_tools import saved_steps, write_locations
from analysis.location_metrics import location_metrics, match_sparks
from analysis.overlays import spark_check_frames, write_view
from analysis.preds_processing_tools import calibrated_post, tell_skipped, threshold_mask
from common.files import InputError, atomic_path
from common.locks import writing
from inputs.calibration import ScaledPost
from inputs.data_processing import annotated_spark_peaks, drop_marginal_points, spark_peaks
from inputs.movie_io import (
    Movie,
    keep_inputs,
    read_class_labels,
    read_event_labels,
    read_movie,
    read_probabilities,
    same_shape,
)
from settings.recording import Given

SAMPLING_HZ = 150.0
BANDSTOP_ORDER = 4
PADDING = 6 * BANDSTOP_ORDER + 3  # frames that the filter needs before and behind a movie
FIRST_BIN = 7  # slower peaks of the spectrum are signal
PROMINENCE = 2.0  # counts
HALF_WIDTH_BINS = 2


def band_limits(trace: np.ndarray, sampling_hz: float = SAMPLING_HZ) -> list[tuple[float, float]]:
    """Return the stop bands of a mean trace (T,): one for every sharp spectral peak.

    Returns:
        List of (low, high) in Hz. Source: section 8.6.
    """
    half = len(trace) // 2
    spectrum = one_sided_spectrum(trace)
    # Faithful: the axis ends at the Nyquist frequency, so bins are wider than sampling_hz / T.
    frequencies = np.linspace(0, sampling_hz / 2, half)
    peaks, _ = signal.find_peaks(spectrum, prominence=PROMINENCE)
    limits = []
    for peak in peaks[peaks >= FIRST_BIN]:
        high = min(peak + HALF_WIDTH_BINS, half - 2)
        limits.append((frequencies[peak - HALF_WIDTH_BINS], frequencies[high]))
    return limits


def one_sided_spectrum(trace: np.ndarray) -> np.ndarray:
    """Return amplitudes of the first T // 2 Fourier bins: 2 |F| / T, half of it at both ends."""
    amplitude = np.abs(np.fft.fft(trace))[: len(trace) // 2] * 2 / len(trace)
    # Faithful: the last bin is halved as well, although it is not the Nyquist bin.
    amplitude[[0, -1]] /= 2
    return amplitude


def bandstop_filter(movie: np.ndarray, sampling_hz: float = SAMPLING_HZ) -> np.ndarray:
    """Remove mains and laser oscillations from a movie.

    Args:
        movie: (T, H, W).
        sampling_hz: frames per second.

    Returns:
        (T, H, W) float64, filtered forwards and backwards at every stop band.

    Raises:
        InputError: the movie has no more frames than PADDING.
    """
    filtered = movie.astype(float)
    if len(movie) <= PADDING:
        raise InputError(
            f"--bandstop: found {len(movie)} frames, expected at least {PADDING + 1}; leave it out"
        )
    for limits in band_limits(filtered.mean(axis=(1, 2)), sampling_hz):
        sections = signal.butter(
            BANDSTOP_ORDER, limits, btype="bandstop", fs=sampling_hz, output="sos"
        )
        filtered = signal.sosfiltfilt(sections, filtered, axis=0)
    return filtered


def write_check(
    stem: Path,
    movie: Movie,
    annotation: tuple[np.ndarray, np.ndarray],
    peaks: np.ndarray,
    post: ScaledPost,
) -> str:
    """Compare peaks with an annotation: a coloured movie and a text file with the pairs.

    Args:
        stem: path without ending.
        movie: movie_io.Movie.
        annotation: (class mask, event mask), (T, H, W) each.
        peaks: (N, 3) found peaks (t, y, x).
        post: config.PostParams.

    Returns:
        One line of text with precision and recall. Source: sections 8.9 and 8.12.
    """
    true = annotated_spark_peaks(movie.data, *annotation)
    true = drop_marginal_points(true, len(movie.data), post.ignore_frames)
    distance = {
        "distance_px": post.spark_distance_px,
        "distance_frames": post.spark_distance_frames,
    }
    paired_true, paired_found, extra, missed = match_sparks(true, peaks, **distance)
    frames = spark_check_frames(movie.data, paired_true, paired_found, extra, missed)
    physical = {"calibration": post.calibration}
    write_view(stem.with_name(f"{stem.name}_check.gif"), frames, legend=False, **physical)
    lines = [
        "green: annotated and found; cyan: found and annotated; yellow: extra; red: missed",
        "kind frame_true y_true x_true frame_found y_found x_found",
    ]
    for one, other in zip(paired_true, paired_found, strict=True):
        lines.append(f"pair {' '.join(f'{v:g}' for v in (*one, *other))}")
    lines += [f"extra - - - {' '.join(f'{v:g}' for v in point)}" for point in extra]
    lines += [f"missed {' '.join(f'{v:g}' for v in point)} - - -" for point in missed]
    with atomic_path(stem.with_name(f"{stem.name}_pairs.txt")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    metrics = location_metrics(len(paired_true), len(peaks), len(true))
    return f"precision {metrics['precision']:.3f}, recall {metrics['recall']:.3f}"


@dataclass(frozen=True)
class SparkSearch:
    """How sparks are looked for in their probabilities.

    Attributes:
        threshold: probability above it is spark.
        min_radius: objects below (2r)^3 voxels go.
        ignore_frames: first and last frames to skip.
        sigma: smoothing before the peak search.
        bandstop: remove oscillations first.
    """

    threshold: float = 0.9
    min_radius: int = 3
    ignore_frames: int = 6
    sigma: float = 3.0
    bandstop: bool = False


def write_spark_locations(
    prediction_path: Path,
    movie_path: Path,
    *,
    out: Path | None = None,
    search: SparkSearch | None = None,
    annotation: tuple[Path | None, Path | None] = (None, None),
    given: Given | None = None,
) -> list[str]:
    """Write the table of sparks; return the lines that tell what was found.

    Args:
        prediction_path: spark probabilities or mask (TIFF).
        movie_path: its movie (TIFF).
        out: CSV; None: beside the prediction.
        search: how sparks are looked for; None: the published way.
        annotation: paths of the class and the event mask to compare with, or None.
        given: settings.recording.Given, what the user says about the movie, or None.
    """
    search = search or SparkSearch()
    out = out or prediction_path.with_name(f"{prediction_path.stem}_locations.csv")
    keep_inputs([out], [prediction_path, movie_path, *annotation])
    # the comparison lies beside the prediction, the table where the user wants it
    with writing(out.parent), writing(prediction_path.parent if annotation[0] else out.parent):
        return _written(prediction_path, movie_path, out, search, annotation, given)


def _written(prediction_path, movie_path, out, search, annotation, given):
    """Search, compare and write; return the lines that tell what was found."""
    prediction, movie = read_probabilities(prediction_path), read_movie(movie_path, given)
    same_shape(prediction, movie)
    if not 0 <= search.threshold <= 1:
        raise InputError(f"--threshold {search.threshold}: expected a number from 0 to 1")
    if (annotation[0] is None) != (annotation[1] is None):
        raise InputError("--classes and --events: give both or none")
    masks = None
    if annotation[0] is not None:
        shape = movie.data.shape
        masks = read_class_labels(annotation[0], shape), read_event_labels(annotation[1], shape)
    post = calibrated_post(movie)
    post = dataclasses.replace(post, ignore_frames=search.ignore_frames)
    data = movie.data
    if search.bandstop:
        data = bandstop_filter(data, 1e3 / post.calibration.frame_ms)
    mask = threshold_mask(prediction.data, search.threshold, min_radius=search.min_radius)
    peaks = spark_peaks(
        data - data.min(),
        mask,
        sigma=search.sigma,
        distance_px=post.spark_distance_px,
        distance_frames=post.spark_distance_frames,
    )
    peaks = drop_marginal_points(peaks, len(data), search.ignore_frames)
    tell_skipped(prediction_path, len(data), search.ignore_frames)
    write_locations(out, peaks)
    lines = [f"{len(peaks)} sparks in {out}"]
    if bits := saved_steps(prediction.data):
        lines.append(f"{prediction_path}: probabilities rounded to steps of 2^-{bits}")
    if masks is not None:
        lines.append(write_check(prediction_path.with_suffix(""), movie, masks, peaks, post))
    return lines
