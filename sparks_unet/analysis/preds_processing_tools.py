"""From probability movies to class masks and event instances.

Sections 8.2 to 8.6 of the specification. Everything runs on the bounding boxes of what is there;
the result equals the plain computation on whole movies.

Letters: T frames, H rows, W columns, N events or points. Arrays are ordered (t, y, x).
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from analysis.puff_split import split_puffs
from analysis.spark_separation import separate_sparks
from analysis.wave_rims import join_rims
from common.files import InputError
from inputs.calibration import ScaledPost, scaled_post
from inputs.data_processing import (
    blank_margins,
    connected_components,
    label_components,
    renumber,
)
from inputs.movie_io import Movie
from settings.config import CLASSES, EVENT_CLASSES, IGNORE_INDEX, PostParams, logger

OTSU_BINS = 256
CHANNELS = ("background", *EVENT_CLASSES)  # order of the network's output channels
BIN_GUARD = 1e-3  # share of a histogram bin in which float32 rounding could change the bin
CONVEX_STEPS = 5


@dataclass(frozen=True)
class Prediction:
    """Classes and event instances of one movie.

    Attributes:
        classes: (T, H, W) uint8, class numbers of ``config.CLASSES``.
        instances: (T, H, W) int32, event ids 1..n: sparks first, then waves, then puffs.
        class_of_id: (n + 1,) uint8, class number of every id; 0 for id 0.
        spark_peaks: (N, 3) int64, (t, y, x) of the peaks of the sparks.
    """

    classes: np.ndarray
    instances: np.ndarray
    class_of_id: np.ndarray
    spark_peaks: np.ndarray

    def instances_of(self, name: str) -> np.ndarray:
        """Return the ids of one class, (T, H, W) int32, 0 elsewhere."""
        table = np.where(self.class_of_id == CLASSES[name], np.arange(len(self.class_of_id)), 0)
        return table.astype(np.int32)[self.instances]

    def counts(self) -> dict[str, int]:
        """Return the number of events of every class, {"sparks": n, "waves": n, "puffs": n}."""
        return {n: int(np.count_nonzero(self.class_of_id == CLASSES[n])) for n in EVENT_CLASSES}


@dataclass
class Labelled:
    """Instances of one class in a crop of the movie, while they are being cleaned."""

    labels: np.ndarray  # (t, y, x) ids 1..n of the crop
    box: tuple  # slices of the crop in the movie


def process_predictions(
    movie: np.ndarray,
    probabilities: np.ndarray | dict[str, np.ndarray],
    post: ScaledPost,
    *,
    training_mode: bool = False,
) -> Prediction:
    """Turn probabilities into classes and instances.

    Args:
        movie: (T, H, W) float or integer, non-negative; the peak search sees values above 0 only.
        probabilities: (4, T, H, W) float32 in the order background, sparks, waves, puffs, or a dict
            with the keys sparks, waves, puffs of (T, H, W) arrays. Not modified.
        post: config.PostParams.
        training_mode: leave spark voxels without a peak unlabelled, and give up beyond
            ``post.max_events_training`` events, as the published validation does.

    Returns:
        Prediction.

    Source: sections 8.3 to 8.6.
    """
    channels = _event_channels(probabilities, movie.shape)
    if movie.shape[2] < post.wave_width_px and post.min_wave_extent == "x":
        warnings.warn(
            f"a movie of {movie.shape[2]} columns is narrower than the minimal wave width of "
            f"{post.wave_width_px} pixels: no wave can survive",
            stacklevel=2,
        )
    if post.segmentation == "threshold":
        classes = threshold_classes(channels, post)
    else:
        classes = otsu_classes(channels)
    options = {"training_mode": training_mode, "puffs": channels["puffs"]}
    return instances_from_classes(movie, classes, post, **options)


def instances_from_classes(
    movie: np.ndarray,
    classes: np.ndarray,
    post: ScaledPost,
    *,
    training_mode: bool = False,
    grey_scale: float | None = None,
    puffs: np.ndarray | None = None,
) -> Prediction:
    """Separate, merge and clean the events of a class mask.

    Args:
        movie: (T, H, W), non-negative.
        classes: (T, H, W) uint8, 1 sparks, 2 waves, 3 puffs; other values are no event.
        post: config.PostParams.
        training_mode: see process_predictions.
        grey_scale: of the watershed; None: that of ``watershed_scale``.
        puffs: (T, H, W) probability of puffs, for ``post.split_puffs``; None splits none.

    Returns:
        Prediction.

    Source: sections 8.4 and 8.5.
    """
    boxes = _class_boxes(classes)
    parts, total = {}, 0
    for name in ("waves", "puffs"):
        box = boxes.get(name)
        if box is not None:
            labels, sizes = connected_components(classes[box] == CLASSES[name])
            parts[name] = Labelled(labels, box)
            total += len(sizes)
    peaks = np.empty((0, 3), np.int64)
    if "sparks" in boxes:
        limit = post.max_events_training - total if training_mode else None
        labels, peaks, n_sparks = separate_sparks(movie, classes, post, limit, grey_scale)
        total += n_sparks
        if labels is not None:
            parts["sparks"] = Labelled(labels[boxes["sparks"]], boxes["sparks"])
    if training_mode and total > post.max_events_training:
        warnings.warn(
            f"{total} events exceed max_events_training = {post.max_events_training}: "
            "this movie is evaluated without events",
            stacklevel=2,
        )
        return _assemble(classes.shape, {}, np.empty((0, 3), np.int64))
    for name, gap in (("waves", post.gap_waves), ("puffs", post.gap_puffs)):
        if name in parts:
            parts[name].labels = merge_over_time(parts[name].labels, gap)
    if post.split_puffs and puffs is not None and "puffs" in parts:
        part = parts["puffs"]
        part.labels = split_puffs(part.labels, puffs[part.box], post.split_puffs)
    for name, part in parts.items():
        least = list(minimum_extent(name, post))
        least[1] = min(least[1], classes.shape[1])  # a line scan has one row
        part.labels = remove_small(part.labels, least)
    if post.fill_holes:
        _fill_holes(parts, classes.shape)
    prediction = _assemble(classes.shape, parts, peaks)
    if post.wave_rims:
        ids, kinds = join_rims(prediction.instances, prediction.class_of_id, post.wave_rims)
        prediction = Prediction(kinds[ids], ids, kinds, prediction.spark_peaks)
    return ignore_marginal(prediction, post.mark_margins) if post.mark_margins else prediction


def otsu_classes(channels: dict[str, np.ndarray]) -> np.ndarray:
    """Return the class with the highest probability where the foreground passes Otsu's threshold.

    Args:
        channels: dict of (T, H, W) float32 probabilities with the keys sparks, waves, puffs.

    Returns:
        (T, H, W) uint8 class numbers.

    Source: section 8.3.
    """
    sparks, waves, puffs = (channels[name] for name in EVENT_CLASSES)
    foreground = sparks + puffs
    foreground += waves  # (T, H, W)
    classes = np.zeros(foreground.shape, np.uint8)
    at = np.flatnonzero(foreground > foreground_threshold(foreground))
    chosen = [channel.ravel()[at] for channel in (sparks, waves, puffs)]
    background = 1 - (chosen[0] + chosen[1] + chosen[2])
    classes.ravel()[at] = np.argmax([background, *chosen], axis=0)
    return classes


def foreground_threshold(foreground: np.ndarray) -> float:
    """Return Otsu's threshold of a float32 array, the same number as scikit-image gives.

    The histogram is the costly part: voxels far from the edges of a bin are counted by bincount,
    the others by numpy.histogram.
    """
    low, high = foreground.min(), foreground.max()
    if high - low <= 2 * OTSU_BINS * np.spacing(np.abs(high)):
        # So narrow a range holds no OTSU_BINS float32 numbers.
        return threshold_otsu(foreground.astype(np.float64)) if low < high else low
    scale = np.float32(OTSU_BINS / (float(high) - float(low)))
    counts = np.zeros(OTSU_BINS, np.int64)
    near_edge = []
    for frames in np.array_split(foreground.reshape(-1), max(1, foreground.size >> 20)):
        position = (frames - low) * scale
        index = position.astype(np.int16)
        rest = position - index
        inner = (index > 0) & (index < OTSU_BINS - 1)
        unsure = inner & ((rest < BIN_GUARD) | (rest > 1 - BIN_GUARD))
        unsure |= (rest > 1 - BIN_GUARD) & ~inner
        unsure |= (rest < BIN_GUARD) & (index == OTSU_BINS - 1)
        near_edge.append(frames[unsure])
        sure = np.minimum(index[~unsure], OTSU_BINS - 1)
        counts += np.bincount(sure, minlength=OTSU_BINS)
    edge_counts, edges = np.histogram(np.concatenate(near_edge), bins=OTSU_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    return threshold_otsu(hist=(counts + edge_counts, centres))


def threshold_classes(channels: dict[str, np.ndarray], post: PostParams) -> np.ndarray:
    """Return classes from one threshold and one minimal radius for each class.

    Overlaps go to the class with the larger probability. Source: section 8.6.
    """
    settings = {
        "sparks": (post.t_sparks, post.sparks_min_radius),
        "waves": (post.t_waves, post.waves_min_radius),
        "puffs": (post.t_puffs, post.puffs_min_radius),
    }
    classes = np.zeros(channels["sparks"].shape, np.uint8)
    best = np.zeros(classes.shape, np.float32)
    for name, (threshold, radius) in settings.items():
        if post.fixed_threshold is not None:
            threshold = post.fixed_threshold
        mask = threshold_mask(
            channels[name], threshold, min_radius=radius, ignore_frames=post.ignore_frames
        )
        if name == "puffs" and post.convex_puffs:
            mask = convex_mask(mask)
        wins = mask & (channels[name] > best)
        classes[wins] = CLASSES[name]
        best[wins] = channels[name][wins]
    return classes


def threshold_mask(
    probability: np.ndarray, threshold: float, *, min_radius: int = 0, ignore_frames: int = 0
) -> np.ndarray:
    """Return where a probability (T, H, W) exceeds a threshold, without small objects, bool.

    Args:
        probability: (T, H, W) in 0..1.
        threshold: voxels above it are kept.
        min_radius: 6-connected objects of fewer than (2 min_radius)^3 voxels are removed.
        ignore_frames: this many first and last frames are emptied.
    """
    mask = probability > threshold
    if min_radius > 0:
        labels, _ = ndimage.label(mask)  # 6-connected
        mask = mask & (np.bincount(labels.ravel())[labels] >= (2 * min_radius) ** 3)
    return blank_margins(mask, ignore_frames)


def tell_skipped(path: object, n_frames: int, ignore_frames: int) -> None:
    """Say when the first and last frames that are skipped are all frames of a movie."""
    if 2 * ignore_frames >= n_frames:
        logger.warning(
            "%s: --ignore-frames %d skips all of its %d frames", *(path, ignore_frames, n_frames)
        )


def convex_mask(mask: np.ndarray) -> np.ndarray:
    """Return five dilations followed by five erosions of a mask; the border counts as inside."""
    cross = ndimage.generate_binary_structure(3, 1)
    mask = ndimage.binary_dilation(mask, cross, iterations=CONVEX_STEPS)
    return ndimage.binary_erosion(mask, cross, iterations=CONVEX_STEPS, border_value=1)


def minimum_extent(name: str, post: ScaledPost) -> tuple[int, int, int, int]:
    """Return the minimal (frames, rows, columns) of an event, and of rows and columns together."""
    if name == "sparks":
        return (*post.min_spark, 0)
    if name == "puffs":
        return (post.min_puff_frames, 0, 0, 0)
    # Faithful: the minimum applies to x only unless min_wave_extent = max.
    width = post.wave_width_px
    return (0, 0, width, 0) if post.min_wave_extent == "x" else (0, 0, 0, width)


def merge_over_time(labels: np.ndarray, gap: int) -> np.ndarray:
    """Give parts of one event, separated by at most ``gap`` empty frames, one id.

    Args:
        labels: (T, H, W) integer ids.
        gap: number of frames; 0 changes nothing.

    Returns:
        (T, H, W) ids. Source: section 8.5 (a).
    """
    if gap < 1:
        return labels
    mask = labels > 0
    joined = mask.copy()
    for shift in range(1, gap - gap // 2 + 1):
        joined[shift:] |= mask[:-shift]
    for shift in range(1, gap // 2 + 1):
        joined[:-shift] |= mask[shift:]
    merged, n_merged = label_components(joined)
    if n_merged < np.count_nonzero(np.bincount(labels[mask])):
        return np.where(mask, merged, 0)
    return labels


def remove_small(labels: np.ndarray, minimum: tuple[int, int, int, int]) -> np.ndarray:
    """Remove events whose bounding box is too small.

    Args:
        labels: (T, H, W) integer ids.
        minimum: (frames, rows, columns, larger of rows and columns) that an event must reach.

    Returns:
        (T, H, W) ids. Source: section 8.5 (b).
    """
    labels = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            extent = [one.stop - one.start for one in box]
            extent.append(max(extent[1:]))
            if any(n < least for n, least in zip(extent, minimum, strict=True)):
                labels[box][labels[box] == number] = 0
    return labels


def ignore_marginal(prediction: Prediction, margin: int) -> Prediction:
    """Return a Prediction in which events that touch the first or last frames are class 4.

    Args:
        prediction: Prediction.
        margin: number of frames at both ends.
    """
    n_frames = len(prediction.instances)
    ends = np.concatenate(
        [prediction.instances[:margin].ravel(), prediction.instances[n_frames - margin :].ravel()]
    )
    marginal = np.unique(ends)
    class_of_id = prediction.class_of_id.copy()
    class_of_id[marginal[marginal > 0]] = IGNORE_INDEX
    peaks = prediction.spark_peaks
    own = class_of_id[prediction.instances[tuple(peaks.T)]] == CLASSES["sparks"]
    classes = class_of_id[prediction.instances]
    return Prediction(classes, prediction.instances, class_of_id, peaks[own])


def calibrated_post(movie: Movie, *, post: PostParams | None = None) -> ScaledPost:
    """Return the settings of post-processing with the calibration of a movie.

    Args:
        movie: recording.
        post: None takes the defaults.

    Raises:
        InputError: neither the file nor the user says the scale.
    """
    return scaled_post(movie.calibration, post, source=movie.source)


def _event_channels(probabilities, shape):
    """Return {"sparks": ..., "waves": ..., "puffs": ...} without touching the caller's arrays."""
    if not isinstance(probabilities, dict):
        probabilities = dict(zip(CHANNELS, probabilities, strict=True))
    channels = {name: np.asarray(probabilities[name], np.float32) for name in EVENT_CLASSES}
    for name, channel in channels.items():
        if channel.shape != shape:
            raise InputError(
                f"probabilities of {name} have shape {channel.shape}, the movie {shape}; "
                "expected equal shapes: use the prediction of this movie"
            )
    return channels


def _class_boxes(classes):
    """Return the box around all voxels of each event class that is present."""
    boxes = ndimage.find_objects(classes, max_label=max(CLASSES[name] for name in EVENT_CLASSES))
    return {n: boxes[CLASSES[n] - 1] for n in EVENT_CLASSES if boxes[CLASSES[n] - 1] is not None}


def _fill_holes(parts, shape):
    """Fill the holes of every event in every frame where no event is; changes ``parts``.

    Source: section 8.5 (c).
    """
    taken = np.zeros(shape, bool)
    for part in parts.values():
        taken[part.box] |= part.labels > 0
    cross = ndimage.generate_binary_structure(2, 1)[None]
    for name in EVENT_CLASSES:
        if name not in parts:
            continue
        part = parts[name]
        for number, box in enumerate(ndimage.find_objects(part.labels), start=1):
            if box is not None:
                region = part.labels[box] == number
                free = ~taken[part.box][box]
                holes = ndimage.binary_fill_holes(region, cross) & ~region & free
                part.labels[box][holes] = number
                taken[part.box][box] |= holes


def _assemble(shape, parts, peaks):
    """Number the events of all classes consecutively and drop the peaks of removed sparks.

    Source: section 8.5 (d) to (f).
    """
    instances, classes = np.zeros(shape, np.int32), np.zeros(shape, np.uint8)
    class_of_id = [0]
    for name in EVENT_CLASSES:
        if name in parts:
            part = parts[name]
            mask = part.labels > 0
            labels = part.labels[mask]
            kept = np.flatnonzero(np.bincount(labels))
            # a later class wins where two overlap
            instances[part.box][mask] = renumber(labels, kept, start=len(class_of_id))
            classes[part.box][mask] = CLASSES[name]
            class_of_id += [CLASSES[name]] * len(kept)
    own = classes[tuple(peaks.T)] == CLASSES["sparks"]
    return Prediction(classes, instances, np.array(class_of_id, np.uint8), peaks[own])
