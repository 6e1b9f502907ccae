"""Turn the spark probabilities of one movie into a table of spark locations.

Follows section 8.6 of the specification: threshold, removal of small objects, peaks of section 8.4.

    python get_sparks_from_preds.py run_100000_05_overlap_raw_sparks.tif --movie 05_video.tif
    python get_sparks_from_preds.py PRED.tif --movie 05_video.tif --bandstop
    python get_sparks_from_preds.py PRED.tif --movie 05_video.tif --classes C.tif --events E.tif

Files read: probabilities or a mask (T, H, W), the movie (T, H, W), with --classes and --events the
annotation (T, H, W).
Files written: ``<name>_locations.csv`` with the columns frame,x,y; with an annotation
``<name>_check.gif`` (matched, extra and missed sparks as balls) and ``<name>_pairs.txt``.
"""

import dataclasses
from pathlib import Path

from common.files import InputError, Parser, atomic_path, one_line_faults

SAMPLING_HZ = 150.0
BANDSTOP_ORDER = 4
FIRST_BIN = 7  # slower peaks of the spectrum are signal
PROMINENCE = 2.0  # counts
HALF_WIDTH_BINS = 2


def band_limits(trace, sampling_hz=SAMPLING_HZ):
    """Return the stop bands of a mean trace (T,): one for every sharp spectral peak.

    Returns:
        List of (low, high) in Hz. Source: section 8.6.
    """
    import numpy as np
    from scipy import signal

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


def one_sided_spectrum(trace):
    """Return amplitudes of the first T // 2 Fourier bins: 2 |F| / T, half of it at both ends."""
    import numpy as np

    amplitude = np.abs(np.fft.fft(trace))[: len(trace) // 2] * 2 / len(trace)
    # Faithful: the last bin is halved as well, although it is not the Nyquist bin.
    amplitude[[0, -1]] /= 2
    return amplitude


def bandstop_filter(movie, sampling_hz=SAMPLING_HZ):
    """Remove mains and laser oscillations from a movie.

    Args:
        movie: (T, H, W).
        sampling_hz: frames per second.

    Returns:
        (T, H, W) float64, filtered forwards and backwards at every stop band.
    """
    from scipy import signal

    filtered = movie.astype(float)
    for limits in band_limits(filtered.mean(axis=(1, 2)), sampling_hz):
        sections = signal.butter(
            BANDSTOP_ORDER, limits, btype="bandstop", fs=sampling_hz, output="sos"
        )
        filtered = signal.sosfiltfilt(sections, filtered, axis=0)
    return filtered


def write_check(stem, movie, annotation, peaks, post):
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
    from data_processing import annotated_spark_peaks, drop_marginal_points
    from disc_output_tools import spark_check_frames, write_view
    from location_metrics import location_metrics, match_sparks

    true = annotated_spark_peaks(movie.data, *annotation)
    true = drop_marginal_points(true, len(movie.data), post.ignore_frames)
    distance = {
        "distance_px": post.spark_distance_px,
        "distance_frames": post.spark_distance_frames,
    }
    paired_true, paired_found, extra, missed = match_sparks(true, peaks, **distance)
    frames = spark_check_frames(movie.data, paired_true, paired_found, extra, missed)
    physical = {"pixel_um": post.pixel_size_um, "frame_ms": post.frame_ms}
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


@one_line_faults
def main(argv=None):
    """Parse the command line and write the table."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("prediction", type=Path, help="spark probabilities or mask (TIFF)")
    parser.add_argument("--movie", type=Path, required=True, help="movie of the prediction (TIFF)")
    parser.add_argument("--out", type=Path, help="CSV; default <prediction>_locations.csv")
    parser.add_argument("--threshold", type=float, default=0.9, help="probability above it: spark")
    parser.add_argument("--min-radius", type=int, default=3, help="objects below (2r)^3 voxels go")
    parser.add_argument(
        "--ignore-frames", type=int, default=6, help="first and last frames to skip"
    )
    parser.add_argument("--sigma", type=float, default=3.0, help="smoothing before the peak search")
    parser.add_argument("--classes", type=Path, help="annotated class mask to compare with")
    parser.add_argument("--events", type=Path, help="annotated event mask to compare with")
    parser.add_argument("--bandstop", action="store_true", help="remove oscillations first")
    parser.add_argument("--pixel-um", type=float, help="pixel size; default from the file, else .2")
    parser.add_argument(
        "--frame-ms", type=float, help="frame time; default from the file, else 6.8"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)

    from data_processing import drop_marginal_points, spark_peaks
    from disc_output_tools import write_locations
    from movie_io import read_class_labels, read_event_labels, read_movie, same_shape
    from preds_processing_tools import calibrated_post, threshold_mask

    prediction, movie = read_movie(args.prediction), read_movie(args.movie)
    same_shape(prediction, movie)
    if not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold {args.threshold}: expected a number from 0 to 1")
    if (args.classes is None) != (args.events is None):
        raise InputError("--classes and --events: give both or none")
    if args.classes is not None:
        shape = movie.data.shape
        annotation = read_class_labels(args.classes, shape), read_event_labels(args.events, shape)
    post = calibrated_post(movie, pixel_um=args.pixel_um, frame_ms=args.frame_ms)
    post = dataclasses.replace(post, ignore_frames=args.ignore_frames)
    data = movie.data
    if args.bandstop:
        data = bandstop_filter(data, 1e3 / post.frame_ms)
    mask = threshold_mask(prediction.data, args.threshold, min_radius=args.min_radius)
    peaks = spark_peaks(
        data - data.min(),
        mask,
        sigma=args.sigma,
        distance_px=post.spark_distance_px,
        distance_frames=post.spark_distance_frames,
    )
    peaks = drop_marginal_points(peaks, len(data), args.ignore_frames)
    out = args.out or args.prediction.with_name(f"{args.prediction.stem}_locations.csv")
    write_locations(out, peaks)
    print(f"{len(peaks)} sparks in {out}")
    if args.classes is not None:
        print(write_check(args.prediction.with_suffix(""), movie, annotation, peaks, post))


if __name__ == "__main__":
    main()
