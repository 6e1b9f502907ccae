"""Counts of voxels and spark peaks for grids of thresholds and radii, and metrics from them.

Source: section 8.9 of the specification.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.location_metrics import (
    exclusion_levels,
    location_metrics,
    match_sparks,
    pixel_metrics,
    threshold_counts,
)
from analysis.metrics_tools import add_counts
from analysis.preds_processing_tools import calibrated_post, otsu_classes, threshold_mask
from common.files import InputError, raise_faults, read_json, write_json
from common.locks import visible, writing
from inputs.calibration import ScaledPost
from inputs.data_processing import annotated_spark_peaks, drop_marginal_points, spark_peaks
from inputs.movie_io import (
    movie_file,
    movie_ids,
    read_class_labels,
    read_event_labels,
    read_movie,
    read_probabilities,
    same_shape,
)
from settings.config import CLASSES, EVENT_CLASSES, IGNORE_INDEX
from settings.recording import Given

GROUPS = {
    "sparks": ("sparks",),
    "puffs": ("puffs",),
    "waves": ("waves",),
    "sparks_puffs": ("sparks", "puffs"),
    "puffs_waves": ("puffs", "waves"),
    "all": EVENT_CLASSES,
}
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(21))
SPARK_RADII = (0, 1)  # minimal radii, voxels
OTHER_RADII = (0, 1, 2, 3, 4, 5)
EXCLUSION_RADII = (0, 1, 2, 3, 4, 5)
PIXEL_KEYS = {"tp", "tn", "fp", "fn"}
PEAK_KEYS = {"tp", "tp_fp", "tp_fn"}


def pixel_results(
    probabilities: dict[str, np.ndarray],
    argmax: np.ndarray,
    classes: np.ndarray,
    *,
    group: str,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, dict]:
    """Return threshold or "argmax" -> min radius -> exclusion radius -> counts of one movie.

    Args:
        probabilities: {"sparks", "waves", "puffs"}: (T, H, W) float32.
        argmax: (T, H, W) predicted classes.
        classes: (T, H, W) annotated classes.
        group: key of GROUPS; the probabilities of its classes are added.
        thresholds: rising numbers.
    """
    names = GROUPS[group]
    numbers = [CLASSES[name] for name in names]
    truth, ignore = np.isin(classes, numbers), classes == IGNORE_INDEX
    levels = exclusion_levels(truth, ignore, EXCLUSION_RADII, sparks=group == "sparks")
    probability = sum(probabilities[name] for name in names)
    radii = SPARK_RADII if group == "sparks" else OTHER_RADII
    by_threshold = threshold_counts(truth, levels, probability, thresholds)
    results = {}
    for threshold, plain in zip(thresholds, by_threshold, strict=True):
        rows = {}
        for radius in radii:
            counts = plain
            if radius > 0:
                mask = threshold_mask(probability, threshold, min_radius=radius)
                counts = threshold_counts(truth, levels, mask, (0.5,))[0]
            rows[str(radius)] = _by_exclusion(counts)
        results[f"{threshold:g}"] = rows
    mask = np.isin(argmax, numbers)
    results["argmax"] = {}
    for radius in radii:
        kept = threshold_mask(mask, 0, min_radius=radius)
        counts = threshold_counts(truth, levels, kept, (0.5,))[0]
        results["argmax"][str(radius)] = _by_exclusion(counts)
    return results


def peak_results(
    movie: np.ndarray,
    probability: np.ndarray,
    argmax: np.ndarray,
    true_peaks: np.ndarray,
    post: ScaledPost,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, dict]:
    """Return threshold or "argmax" -> min radius -> {"tp", "tp_fp", "tp_fn"} of one movie.

    Args:
        movie: (T, H, W) counts.
        probability: (T, H, W) of sparks.
        argmax: (T, H, W) predicted classes.
        true_peaks: (N, 3) of annotated_spark_peaks.
        post: config.PostParams.
        thresholds: rising numbers.
    """
    distance = {
        "distance_px": post.spark_distance_px,
        "distance_frames": post.spark_distance_frames,
    }
    true_peaks = drop_marginal_points(true_peaks, len(movie), post.ignore_frames)

    def counts(mask):
        peaks = spark_peaks(movie, mask, sigma=post.sigma_peaks_dataset, **distance)
        peaks = drop_marginal_points(peaks, len(movie), post.ignore_frames)
        paired = match_sparks(true_peaks, peaks, **distance)[0]
        return {"tp": len(paired), "tp_fp": len(peaks), "tp_fn": len(true_peaks)}

    masks = {f"{t:g}": (probability, t) for t in thresholds}
    masks["argmax"] = (argmax == CLASSES["sparks"], 0)
    return {
        key: {
            str(radius): counts(threshold_mask(values, threshold, min_radius=radius))
            for radius in SPARK_RADII
        }
        for key, (values, threshold) in masks.items()
    }


def find_predictions(
    folder: str | Path, movie_id: str, known: Sequence[str] = ()
) -> dict[str, Path]:
    """Return {"sparks": path, ...} of the probability movies of one recording.

    The id stands just before the way of assembly: numbers in the name of the run are no ids.

    Args:
        folder: of the predictions.
        movie_id: NN.
        known: ids of all movies; a file belongs to the longest one that fits its name.

    Raises:
        InputError: a class is missing or there are several files for it.
    """
    files, faults = {}, []
    longer = [one for one in known if one.endswith(f"_{movie_id}")]
    for name in EVENT_CLASSES:
        paths = []
        for ending in (rf"_(?:[a-z]+_)?raw_{name}", f"_{name}"):
            paths = paths or [
                path
                for path in visible(folder, f"*_{name}.tif")
                if re.search(rf"(?:^|_){re.escape(movie_id)}{ending}$", path.stem)
                and not any(
                    re.search(rf"(?:^|_){re.escape(x)}{ending}$", path.stem) for x in longer
                )
            ]
        if len(paths) != 1:
            faults.append(
                f"{folder}: {len(paths)} files *_{movie_id}_*raw_{name}.tif; expected one"
            )
        files[name] = paths[0] if paths else None
    raise_faults(faults)
    return files


def _by_exclusion(counts):
    return {str(radius): one for radius, one in zip(EXCLUSION_RADII, counts, strict=True)}


def _with_sum(results):
    """Add the counts of all movies under "sum" and "average"."""
    total = add_counts(list(results.values()))
    # Faithful: the published code calls the sum "average".
    return results | {"sum": total, "average": total}


def _read(preds, data, movie_id, given):
    """Return (movie counts, probabilities, classes, true peaks, PostParams) of one recording."""
    movie = read_movie(movie_file(data, movie_id), given)
    shape = movie.data.shape
    classes = read_class_labels(movie_file(data, movie_id, "class_label"), shape)
    events = read_event_labels(movie_file(data, movie_id, "event_label"), shape)
    probabilities = {}
    for name, path in find_predictions(preds, movie_id, movie_ids(data)).items():
        stack = read_probabilities(path)
        same_shape(stack, movie)
        probabilities[name] = stack.data.astype(np.float32)
    peaks = annotated_spark_peaks(movie.data, classes, events)
    post = calibrated_post(movie)
    return movie.data, probabilities, classes, peaks, post


def write_counts(
    preds: str | Path,
    data: str | Path,
    ids: Sequence[str],
    out: Path,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    given: Given | None = None,
) -> None:
    """Count recordings; write ``per_pixel_results`` and ``spark_peaks_results`` into ``out``.

    Args:
        preds: folder of probability movies.
        data: folder of recordings.
        ids: ids of the movies.
        out: folder.
        thresholds: rising numbers from 0 to 1.
        given: settings.recording.Given, what the user says about the movies, or None.
    """
    thresholds = list(thresholds)
    ids = list(dict.fromkeys(ids))
    # the names of the results, of six digits, must differ as well
    rising = len({f"{t:g}" for t in thresholds}) == len(thresholds)
    rising &= sorted(set(thresholds)) == thresholds
    if not rising or not all(0 <= t <= 1 for t in thresholds):
        raise InputError(
            f"--thresholds {thresholds}: expected rising numbers from 0 to 1 of at most six digits"
        )
    with writing(out):
        _count(preds, data, ids, out, thresholds, given)


def _count(preds, data, ids, out, thresholds, given):
    """Count and write while the folder is held."""
    for movie_id in ids:  # a missing file is found before the long count starts
        find_predictions(preds, movie_id, movie_ids(data))
    by_group, peaks = {group: {} for group in GROUPS}, {}
    for movie_id in ids:
        movie, probabilities, classes, true_peaks, post = _read(preds, data, movie_id, given)
        argmax = otsu_classes(probabilities)
        for group, results in by_group.items():
            results[movie_id] = pixel_results(
                probabilities, argmax, classes, group=group, thresholds=thresholds
            )
        peaks[movie_id] = peak_results(
            movie - movie.min(),
            probabilities["sparks"],
            argmax,
            true_peaks,
            post,
            thresholds=thresholds,
        )
    for group, results in by_group.items():
        write_json(out / "per_pixel_results" / f"{group}_results.json", _with_sum(results))
    write_json(out / "spark_peaks_results" / "sparks_results.json", _with_sum(peaks))


def metrics_tree(counts: dict) -> dict:
    """Return nested dicts in which every leaf of counts is replaced by its metrics."""
    if set(counts) == PIXEL_KEYS:
        return pixel_metrics(**counts)
    if set(counts) == PEAK_KEYS:
        return location_metrics(counts["tp"], counts["tp_fp"], counts["tp_fn"])
    return {key: metrics_tree(value) for key, value in counts.items()}


def holds_counts(tree: object) -> bool:
    """Return whether nested dicts hold nothing but the two kinds of counts."""
    if not isinstance(tree, dict) or not tree:
        return False
    if set(tree) not in (PIXEL_KEYS, PEAK_KEYS):
        return all(holds_counts(branch) for branch in tree.values())
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in tree.values()):
        return False
    return set(tree) == PIXEL_KEYS or tree["tp"] <= min(tree["tp_fp"], tree["tp_fn"])


def read_counts(path: Path) -> dict:
    """Read one file of counts."""
    tree = read_json(path, remedy="expected counts of save_results_to_json.py")
    if not holds_counts(tree):
        raise InputError(f"{path}: not the counts of save_results_to_json.py; run it again")
    return tree


def write_count_metrics(results: Path, out: Path) -> None:
    """Write the metrics of the counts in ``results`` into ``out``, with the same nesting."""
    pairs = [*(("per_pixel", group) for group in GROUPS), ("spark_peaks", "sparks")]
    trees = {
        (kind, group): metrics_tree(
            read_counts(results / f"{kind}_results" / f"{group}_results.json")
        )
        for kind, group in pairs
    }
    with writing(out):
        for (kind, group), tree in trees.items():
            write_json(out / f"{kind}_metrics" / f"{group}_metrics.json", tree)
