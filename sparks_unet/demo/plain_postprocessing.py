"""Post-processing and evaluation against the plain computation of the specification.

The baseline works as section 12 of the specification describes the published code: whole-movie
masks for every event. Both must give the same numbers, or the benchmark stops with an error.
"""

import time
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage, sparse
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from analysis.metrics_tools import annotated_instances, event_scores
from analysis.preds_processing_tools import minimum_extent, process_predictions
from analysis.spark_separation import COMPACTNESS
from demo.synthetic import DemoSettings, make_movie
from inputs.calibration import Calibration, ScaledPost, scaled_post
from inputs.data_processing import CUBE, MAX_FILTER_PX, annotated_spark_peaks, peak_footprint
from inputs.dataset_tools import class_weights
from inputs.preprocessing import pad_frames, padding
from settings.config import CLASSES, EVENT_CLASSES, IGNORE_INDEX

STANDARD = (904, 64, 512)
EVENTS = (70, 21)  # sparks and puffs planted, beside two waves
CHUNK = (256, 32)  # duration and stride of the class weights
SMEAR = (1.0, 1.0, 1.0)  # sigma by which the annotation is blurred into probabilities


def make_case(
    shape: tuple[int, int, int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (movie, classes, events, probabilities) of a synthetic recording of a given shape."""
    settings = DemoSettings(
        movies=1,
        frames=shape[0],
        height=shape[1],
        width=shape[2],
        seed=seed,
        rates=(*EVENTS, 0),
        exact=True,
        waves=(2,),
    )
    movie, classes, events, _ = make_movie(settings, 0)
    rng = np.random.default_rng(seed)
    probabilities = np.zeros((4, *shape), np.float32)
    for name in EVENT_CLASSES:
        blurred = ndimage.gaussian_filter((classes == CLASSES[name]).astype(np.float32), SMEAR)
        noise = rng.random(shape, dtype=np.float32)
        probabilities[CLASSES[name]] = 0.96 * blurred + 0.01 * noise
    probabilities[0] = 1 - probabilities[1:].sum(axis=0)
    scaled = (movie - np.float32(movie.min())) / np.float32(65535 - movie.min())
    return scaled.astype(np.float32), classes, events, probabilities


def plain_processing(
    movie: np.ndarray, probabilities: np.ndarray, post: ScaledPost
) -> tuple[np.ndarray, np.ndarray]:
    """Return (classes, instances) by whole-movie operations (sections 8.3 to 8.5)."""
    sparks, waves, puffs = probabilities[1:]
    foreground = sparks + puffs + waves
    background = 1 - (sparks + waves + puffs)
    stacked = np.stack([background, sparks, waves, puffs])
    classes = np.where(foreground > threshold_otsu(foreground), np.argmax(stacked, axis=0), 0)
    labels = {n: ndimage.label(classes == CLASSES[n], CUBE)[0] for n in ("waves", "puffs")}
    labels["sparks"] = _plain_sparks(movie, classes == CLASSES["sparks"], post)
    for name, gap in (("waves", post.gap_waves), ("puffs", post.gap_puffs)):
        grown = ndimage.binary_dilation(labels[name] > 0, np.ones((gap + 1, 1, 1), bool))
        merged, n_merged = ndimage.label(grown, CUBE)
        if n_merged < len(np.unique(labels[name])) - 1:
            labels[name] = np.where(labels[name] > 0, merged, 0)
    for name in EVENT_CLASSES:
        plain_remove_small(labels[name], minimum_extent(name, post))
    instances, class_of_id = np.zeros(movie.shape, np.int32), [0]
    for name in EVENT_CLASSES:
        for number in np.unique(labels[name])[1:]:
            instances[labels[name] == number] = len(class_of_id)
            class_of_id.append(CLASSES[name])
    classes = np.zeros(movie.shape, np.uint8)
    for name in EVENT_CLASSES:
        classes[labels[name] > 0] = CLASSES[name]
    return classes, instances


def _plain_sparks(movie, mask, post):
    """Return the spark ids (section 8.4)."""
    smoothed = ndimage.gaussian_filter(
        np.where(mask, movie, 0).astype(np.float64), post.sigma_peaks
    )
    smoothed[~mask] = 0
    footprint = peak_footprint(post.spark_distance_px, post.spark_distance_frames)
    maxima = (smoothed == ndimage.maximum_filter(smoothed, footprint=footprint)) & (smoothed > 0)
    markers, n = ndimage.label(maxima, CUBE)
    surface = -ndimage.gaussian_filter(movie.astype(np.float64), post.sigma_peaks)
    labels = watershed(surface, markers, CUBE, mask=mask, compactness=COMPACTNESS)
    rest, _ = ndimage.label(mask & (labels == 0), CUBE)
    labels[rest > 0] = rest[rest > 0] + n
    return labels


def plain_remove_small(labels: np.ndarray, minimum: tuple[int, int, int, int]) -> None:
    """Empty too small events by one whole-movie mask an event; changes ``labels``."""
    for number in np.unique(labels)[1:]:
        coordinates = np.argwhere(labels == number)
        extent = (coordinates.max(axis=0) - coordinates.min(axis=0) + 1).tolist()
        extent.append(max(extent[1:]))
        if any(n < least for n, least in zip(extent, minimum, strict=True)):
            labels[labels == number] = 0


def plain_annotated_peaks(
    movie: np.ndarray, classes: np.ndarray, events: np.ndarray, sigma: float = 2.0
) -> np.ndarray:
    """Return the peak of every annotated spark by whole-movie masks (section 5.7)."""
    smoothed = ndimage.gaussian_filter(movie.astype(np.float64), (0, sigma, sigma))
    sparks = np.where(classes == CLASSES["sparks"], events, 0)
    peaks = []
    for number in np.unique(sparks)[1:]:
        region = np.where(sparks == number, smoothed, 0)
        score = region.max(axis=0) * region.std(axis=0)
        maxima = (score == ndimage.maximum_filter(score, size=MAX_FILTER_PX)) & (score != 0)
        best = None
        for y, x in np.argwhere(maxima):
            t = int(np.argmax(region[:, y, x]))
            if best is None or region[t, y, x] > region[tuple(best)]:
                best = (t, y, x)
        peaks.append(best)
    return np.array(peaks)


def plain_class_instances(classes: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return annotated instances numbered over the classes, by a mask for each event."""
    instances, n = np.zeros(classes.shape, np.int32), 0
    for name in EVENT_CLASSES:
        of_class = np.where(classes == CLASSES[name], events, 0)
        for number in np.unique(of_class)[1:]:
            n += 1
            instances[of_class == number] = n
    return instances


def plain_scores(annotated: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the IoMin matrix by one sparse mask an event and one product a pair (section 8.7)."""
    rows, columns = (
        [sparse.csr_matrix((ids == n).reshape(1, -1)) for n in range(1, int(ids.max()) + 1)]
        for ids in (annotated, predicted)
    )
    matrix = np.zeros((len(rows), len(columns)))
    for i, one in enumerate(rows):
        for j, other in enumerate(columns):
            matrix[i, j] = one.multiply(other).nnz / max(min(one.nnz, other.nnz), 1)
    return matrix


def plain_class_weights(labels: Sequence[np.ndarray], duration: int, stride: int) -> np.ndarray:
    """Return class weights of padded labels by walking through all chunks (section 7.2)."""
    counts = np.zeros(4)
    for movie in labels:
        for start in range(0, len(movie) - duration + 1, stride):
            chunk = movie[start : start + duration]
            counts += [np.count_nonzero(chunk == number) for number in range(4)]
    return np.divide(counts.sum(), 4 * counts, out=np.zeros(4), where=counts > 0)


def measured(
    function: Callable, *args: object, memory: bool = False
) -> tuple[object, float, float | None]:
    """Return (result, CPU seconds, peak MB of arrays or None).

    Memory is traced only where few and large arrays are made; elsewhere tracing costs more time
    than the work itself.
    """
    if memory:
        tracemalloc.start()
    start = time.process_time()
    result = function(*args)
    seconds = time.process_time() - start
    peak = None
    if memory:
        peak = round(tracemalloc.get_traced_memory()[1] / 1e6, 1)
        tracemalloc.stop()
    return result, seconds, peak


def _row(what, target, ours, baseline):
    return {
        "what": what,
        "ours_s": round(ours[1], 4),
        "baseline_s": round(baseline[1], 4),
        "ratio": round(baseline[1] / max(ours[1], 1e-9), 2),
        "ours_mb": ours[2],
        "baseline_mb": baseline[2],
        "target": target,
    }


def rows(movie_shape: tuple[int, int, int] = STANDARD, seed: int = 0) -> list[dict]:
    """Return one dict for each comparison; see the keys of _row.

    Raises:
        AssertionError: our numbers differ from the plain ones.
    """
    movie, classes, events, probabilities = make_case(movie_shape, seed)
    settings, table = DemoSettings(), []
    post = scaled_post(Calibration.of(settings.pixel_um, settings.frame_ms, "synthetic"))
    process_predictions(movie[:32], probabilities[:, :32], post)  # loads what is loaded lazily

    ours = measured(process_predictions, movie, probabilities, post, memory=True)
    plain = measured(plain_processing, movie, probabilities, post, memory=True)
    prediction = ours[0]
    np.testing.assert_array_equal(prediction.classes, plain[0][0])
    np.testing.assert_array_equal(prediction.instances > 0, plain[0][1] > 0)
    pairs = np.unique(np.stack([prediction.instances.ravel(), plain[0][1].ravel()]), axis=1)
    assert len(pairs[0]) == len(prediction.class_of_id) == len(np.unique(pairs[1])), (
        "other instances"
    )
    size = " x ".join(map(str, movie_shape))
    n = len(prediction.class_of_id) - 1
    table.append(_row(f"post-processing, {size}, {n} events", ">= 6x", ours, plain))

    ours = measured(annotated_spark_peaks, movie, classes, events)
    plain = measured(plain_annotated_peaks, movie, classes, events)
    np.testing.assert_array_equal(ours[0], plain[0])
    table.append(_row(f"peaks of {len(ours[0])} annotated sparks", ">= 100x", ours, plain))

    ours = measured(annotated_instances, classes, events)
    plain = measured(plain_class_instances, classes, events)
    np.testing.assert_array_equal(ours[0][0], plain[0])
    table.append(_row("event ids to instances by class", ">= 10x", ours, plain))

    annotated = ours[0][0]
    ours = measured(event_scores, classes, events, prediction)
    plain = measured(plain_scores, annotated, prediction.instances)
    np.testing.assert_array_equal(ours[0].iomin, plain[0])
    size = " x ".join(map(str, ours[0].iomin.shape))
    table.append(_row(f"IoMin score matrix, {size}", ">= 8x", ours, plain))

    before, after = padding(len(classes), *CHUNK)
    labels = [pad_frames(classes.astype(np.int8), before, after, IGNORE_INDEX)]
    ours = measured(class_weights, labels, *CHUNK)
    plain = measured(plain_class_weights, labels, *CHUNK)
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-6)
    table.append(_row("class weights over all chunks", ">= 1x", ours, plain))
    return table
