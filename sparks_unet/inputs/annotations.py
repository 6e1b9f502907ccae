"""Raw annotations and the class masks that a network is trained on.

Source: section 5.6 of the specification. One module for what were two scripts in the published
project.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from common.files import InputError
from inputs.calibration import Calibration, scaled_post
from inputs.data_processing import (
    TRUNCATE,
    connected_components,
    drop_marginal_points,
    filled_hull,
    kernel_radius,
    padded_box,
    spark_peaks,
)
from inputs.movie_io import (
    Movie,
    label_warnings,
    movie_file,
    movie_ids,
    read_class_labels,
    read_event_labels,
    read_movie,
    write_stack,
)
from settings.config import CLASSES, IGNORE_INDEX
from settings.recording import Given

SUFFIX = {
    "peaks": "class_label_peaks",
    "small": "class_label_small_peaks",
    "dilated": "class_label_dilated",
}
RING_RADII = {"sparks": 1, "puffs": 2, "waves": 3}  # voxels, in the order of writing
ERODED = ("puffs", "waves")  # classes whose ring also reaches inwards
CROSS_2D = ndimage.generate_binary_structure(2, 1)[None]
CROSS_3D = ndimage.generate_binary_structure(3, 1)
MIN_CORE_EXTENT = 2  # voxels along each axis; a smaller core grows by one voxel


def peak_annotations(
    movie: np.ndarray,
    classes: np.ndarray,
    *,
    calibration: Calibration,
    radius: int = 3,
    ignore_radius: int = 1,
    ignore_frames: int = 0,
    sigma: float = 2.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Replace every spark by a ball around its peak.

    Args:
        movie: (T, H, W) counts.
        classes: (T, H, W) class labels.
        calibration: Calibration of the movie: how near two peaks may be.
        radius: of the ball of class 1, in voxels of time and space alike.
        ignore_radius: thickness of the shell of class 4 around it.
        ignore_frames: peaks in this many first and last frames are dropped.
        sigma: of the peak search.

    Returns:
        (labels (T, H, W) uint8, peaks (N, 3)). Balls may overwrite neighbours.
    """
    post = scaled_post(calibration)
    peaks = spark_peaks(
        movie,
        classes == CLASSES["sparks"],
        sigma=sigma,
        distance_px=post.spark_distance_px,
        distance_frames=post.spark_distance_frames,
    )
    peaks = drop_marginal_points(peaks, len(movie), ignore_frames)
    labels = np.where(classes == CLASSES["sparks"], 0, classes).astype(np.uint8)
    reach = radius + ignore_radius
    distance = np.full(classes.shape, np.inf, np.float32)
    for peak in peaks:
        box = padded_box([slice(p, p + 1) for p in peak], classes.shape, (reach,) * 3)
        squared = sum((axis - p) ** 2 for axis, p in zip(np.ogrid[box], peak, strict=True))
        np.minimum(distance[box], np.sqrt(squared, dtype=np.float32), out=distance[box])
    labels[distance < reach] = IGNORE_INDEX
    labels[distance < radius] = CLASSES["sparks"]
    return labels, peaks


def small_annotations(
    movie: np.ndarray,
    classes: np.ndarray,
    events: np.ndarray,
    *,
    percentile: float = 75,
    sigma: float = 2.0,
) -> np.ndarray:
    """Shrink every spark to its bright core; the rest of it becomes label 4.

    Args:
        movie: (T, H, W) counts or values in 0..1.
        classes: (T, H, W) class labels.
        events: (T, H, W) event ids.
        percentile: of the positive smoothed values of a spark; the core lies above it.
        sigma: of the Gaussian filter over (t, y, x).

    Returns:
        (T, H, W) uint8 labels.
    """
    low, high = float(movie.min()), float(movie.max())
    if high <= 1:
        low, high = 0.0, 1.0
    sparks = np.where(classes == CLASSES["sparks"], events, 0)
    labels = np.where(sparks > 0, IGNORE_INDEX, classes).astype(np.uint8)
    labels[(classes == CLASSES["sparks"]) & (events == 0)] = IGNORE_INDEX
    for number, box in enumerate(ndimage.find_objects(sparks), start=1):
        if box is None:
            continue
        wide = padded_box(box, movie.shape, (kernel_radius(sigma),) * 3)
        scaled = (movie[wide].astype(np.float64) - low) / (high - low)
        smoothed = ndimage.gaussian_filter(scaled, sigma, truncate=TRUNCATE)
        event = sparks[box] == number
        labels[box][_core(smoothed[_within(box, wide)], event, percentile)] = CLASSES["sparks"]
    return labels


def _core(values, event, percentile):
    """Return the voxels of the convex hull of the bright core of one event, inside the event."""
    inside = values[event]
    positive = inside[inside > 0]
    if positive.size == 0:
        return event
    core = event & (values >= np.percentile(positive, percentile))
    points = np.argwhere(core)
    if (points.max(axis=0) - points.min(axis=0) < MIN_CORE_EXTENT).any():
        core = ndimage.binary_dilation(np.pad(core, 1), CROSS_3D)
        event = np.pad(event, 1)
        return (filled_hull(core) & event)[1:-1, 1:-1, 1:-1]
    return filled_hull(core) & event


def dilated_annotations(
    classes: np.ndarray, *, radii: dict[str, int] | None = None, mode: str = "rings"
) -> np.ndarray:
    """Put a ring of label 4 around the events of every class.

    Args:
        classes: (T, H, W) class labels 0..4.
        radii: {"sparks": r, "puffs": r, "waves": r} in voxels.
        mode: "rings" works frame by frame, erodes puffs and waves by half the radius and dilates
            them by the rest; "3d-2022" dilates and erodes all classes by the radius in 3D.

    Returns:
        (T, H, W) uint8 labels; rings are written in the order sparks, puffs, waves. Events of one
        class that touch have one ring around both.
    """
    radii = RING_RADII if radii is None else radii
    labels = classes.astype(np.uint8)
    for name in RING_RADII:
        # Differs: the published function of 2025 overwrites one class by the next.
        if radii[name]:
            labels[_ring(classes == CLASSES[name], radii[name], name, mode)] = IGNORE_INDEX
    return labels


def _ring(mask, radius, name, mode):
    """Return the voxels between the dilated and the eroded mask of a class, (T, H, W) bool."""
    if mode == "3d-2022":
        structure, inwards, outwards = CROSS_3D, radius, radius
    else:
        inwards = radius // 2 if name in ERODED else 0
        structure, outwards = CROSS_2D, radius - inwards
    outer, inner = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for box in connected_components(mask)[1]:
        wide = padded_box(box, mask.shape, (radius,) * 3)
        region = mask[wide]
        outer[wide] |= ndimage.binary_dilation(region, structure, iterations=outwards)
        if inwards:
            eroded = ndimage.binary_erosion(mask[wide], structure, iterations=inwards)
        inner[box] |= (eroded if inwards else region)[_within(box, wide)]
    return outer & ~inner


def _within(box, wide):
    """Return ``box`` in the coordinates of the box ``wide`` around it."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, wide, strict=True))


def ignore_marginal_events(classes: np.ndarray, events: np.ndarray, margin: int) -> np.ndarray:
    """Return class labels in which events touching the first or last frames have label 4."""
    ends = np.concatenate([events[:margin].ravel(), events[len(events) - margin :].ravel()])
    touching = np.zeros(int(events.max(initial=0)) + 1, bool)
    touching[np.unique(ends)] = True
    touching[0] = False
    return np.where(touching[events], IGNORE_INDEX, classes).astype(np.uint8)


@dataclass(frozen=True)
class LabelRules:
    """How raw annotations become the class mask that a network is trained on.

    Attributes:
        sparks_type: raw, peaks, small or dilated.
        peak_radius, ignore_radius: peaks: ball of class 1 and shell of class 4, in voxels.
        ignore_frames: peaks: frames at both ends without.
        radii: dilated: {"sparks": r, "puffs": r, "waves": r} in voxels.
        mode: dilated: rings or 3d-2022.
        mark_margins: events that touch so many end frames become label 4.
    """

    sparks_type: str = "raw"
    peak_radius: int = 3
    ignore_radius: int = 1
    ignore_frames: int = 0
    radii: dict = field(default_factory=lambda: dict(RING_RADII))
    mode: str = "rings"
    mark_margins: int = 0

    def check(self) -> None:
        """Raise InputError where a number is below 0."""
        numbers = {f"{name}-radius": radius for name, radius in self.radii.items()}
        for name in ("peak_radius", "ignore_radius", "ignore_frames", "mark_margins"):
            numbers[name.replace("_", "-")] = getattr(self, name)
        for name, value in numbers.items():
            if value < 0:
                raise InputError(f"--{name} {value}: expected >= 0")

    @property
    def suffix(self) -> str:
        """Last part of the names of the masks."""
        return SUFFIX.get(self.sparks_type, "class_label_margins")


def annotated(
    movie: Movie, classes: np.ndarray, events: np.ndarray, rules: LabelRules
) -> np.ndarray:
    """Return the labels (T, H, W) uint8 of one recording as ``rules`` want them."""
    if rules.mark_margins:
        classes = ignore_marginal_events(classes, events, rules.mark_margins)
    if rules.sparks_type == "peaks":
        reach = {"radius": rules.peak_radius, "ignore_radius": rules.ignore_radius}
        reach |= {"ignore_frames": rules.ignore_frames, "calibration": movie.calibration}
        return peak_annotations(movie.data, classes, **reach)[0]
    if rules.sparks_type == "small":
        return small_annotations(movie.data, classes, events)
    if rules.sparks_type == "dilated":
        return dilated_annotations(classes, radii=rules.radii, mode=rules.mode)
    return classes


def _read(folder, movie_id, suffix, rules, given):
    """Return (Movie, classes, events) of one recording; print warnings about its masks."""
    movie = read_movie(movie_file(folder, movie_id, suffix), given)
    if rules.sparks_type == "peaks":
        movie.calibration.needed(movie.source)
    shape = movie.data.shape
    classes = read_class_labels(movie_file(folder, movie_id, "class_label"), shape)
    event_path = movie_file(folder, movie_id, "event_label")
    events = read_event_labels(event_path, shape)
    for text in label_warnings(event_path, classes, events):
        print(f"warning: {text}")
    return movie, classes, events


def write_annotations(
    folder: Path,
    rules: LabelRules,
    *,
    ids: list[str] | None = None,
    suffix: str = "video",
    out: Path | None = None,
    given: Given | None = None,
) -> None:
    """Write the masks of the recordings in a folder.

    Args:
        folder: of the recordings.
        rules: how the labels are made.
        ids: movies; None: all.
        suffix: ``NN_<suffix>.tif`` is the movie.
        out: folder of the masks; None: that of the recordings.
        given: what the user says about the movies.

    Raises:
        InputError: an unknown id, a number below 0, a fault in a file.
    """
    available = movie_ids(folder, suffix)
    unknown = [one for one in ids or () if one not in available]
    if unknown or not available:
        raise InputError(
            f"{folder}: no {(unknown or ['NN'])[0]}_{suffix}.tif; "
            f"available ids: {', '.join(available) or 'none'}"
        )
    rules.check()
    if rules.sparks_type == "raw" and not rules.mark_margins:
        for one in ids or available:
            _read(folder, one, suffix, rules, given)
        print("raw: the labels are used as they are, no file is needed")
        return
    recordings = [(one, _read(folder, one, suffix, rules, given)) for one in ids or available]
    for one, (movie, classes, events) in recordings:
        labels = annotated(movie, classes, events, rules)
        path = (out or folder) / f"{one}_{rules.suffix}.tif"
        write_stack(path, labels, calibration=movie.calibration)
        scale = f"; {movie.calibration.line()}" if rules.sparks_type == "peaks" else ""
        print(f"{path}: {int((labels == IGNORE_INDEX).sum())} voxels to ignore{scale}")
