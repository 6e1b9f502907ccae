"""Parity checks of events, annotations and metrics; ``test_parity.py`` calls them by file prefix.

Every check takes the arrays of one fixture and its file stem. Sizes come from the arrays, settings
from the names of the arrays (``snr_p99_f64``: the 99th percentile).
"""

import dataclasses
import re

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from analysis.disc_output_tools import simple_events
from analysis.kinetics import region_statistics
from analysis.location_metrics import (
    exclusion_levels,
    f_beta,
    location_metrics,
    match_sparks,
    matthews,
    pixel_metrics,
    threshold_counts,
)
from analysis.metrics_tools import (
    annotated_instances,
    event_metrics,
    event_scores,
    match_counts,
    metrics_from_counts,
    movie_counts,
    segmentation_counts,
)
from analysis.preds_processing_tools import (
    CHANNELS,
    Prediction,
    foreground_threshold,
    instances_from_classes,
    merge_over_time,
    minimum_extent,
    otsu_classes,
    process_predictions,
    remove_small,
    threshold_mask,
)
from analysis.spark_locations import bandstop_filter, one_sided_spectrum
from analysis.spark_separation import separate_sparks
from analysis.tracking import track_objects
from inputs.annotations import dilated_annotations, peak_annotations, small_annotations
from inputs.calibration import Calibration, scaled_post
from inputs.data_processing import (
    annotated_spark_peaks,
    blank_margins,
    cell_mask,
    class_contour,
    connected_components,
    moving_average,
    moving_mean,
    peak_footprint,
    self_ratio,
    signal_to_noise,
    spark_peaks,
)
from settings.config import CLASSES, EVENT_CLASSES

SCALE = Calibration.of(0.2, 6.8)  # of the published recordings
POST = scaled_post(SCALE)
SUBSAMPLED = (slice(None), slice(None, None, 4), slice(None, None, 6))
MOVING_FRAMES = 32  # half window of the analysis helper's moving background


def settings_in_names(arrays, pattern):
    """Return [(array, numbers in its name)] of the names that match ``pattern`` as a whole."""
    matches = [(name, re.fullmatch(pattern, name)) for name in arrays]
    chosen = [(arrays[name], [*map(int, match.groups())]) for name, match in matches if match]
    assert chosen, f"no array is named {pattern}"
    return chosen


def assert_same_instances(ours, recorded):
    """Assert that two id arrays are equal up to a one-to-one renumbering."""
    pairs = np.unique(np.stack([ours.ravel(), recorded.ravel()]).astype(np.int64), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert_array_equal(ours > 0, recorded > 0)


def check_analysis(arrays, stem):
    movie, classes, events = (arrays[n] for n in ("movie", "class_label", "event_label"))
    assert_array_equal(cell_mask(movie), arrays["cell_mask"])
    for recorded, (percentile,) in settings_in_names(arrays, r"snr_p(\d+)_f64"):
        ratio = signal_to_noise(movie, classes, percentile=percentile)
        # recorded in float64: the tolerance of the README would let other rules pass
        assert_allclose(ratio, recorded, rtol=1e-9)
    for recorded, (frames,) in settings_in_names(arrays, r"moving_average_k(\d+)"):
        assert_allclose(moving_average(movie, frames)[SUBSAMPLED], recorded, rtol=1e-4)
    ratio = self_ratio(movie, arrays["self_ratio_roi"])[SUBSAMPLED]
    assert_allclose(ratio, arrays["self_ratio"], rtol=1e-4, atol=1e-5)
    rows = simple_events(classes, events)
    assert_allclose(rows, arrays["event_simple_id_class_start_end_x_y"], rtol=1e-4)
    assert_array_equal([row[0] for row in rows], arrays["ids"])
    # The published contours add class numbers where they meet.
    added = sum(np.uint8(n) * class_contour(classes == n) for n in (1, 2, 3))
    assert_array_equal(added, arrays["contour_classes"])
    values = movie.astype(np.float64)
    every7 = (slice(None, None, 7), *SUBSAMPLED[1:])
    offline = (values - values.mean(axis=0))[every7]
    assert_allclose(offline, arrays["bg_removed_offline"], rtol=1e-4, atol=1e-2)
    moving = (values - moving_mean(values, MOVING_FRAMES, MOVING_FRAMES))[every7]
    assert_allclose(moving, arrays["bg_removed_moving"], rtol=1e-4, atol=1e-2)
    boxes = ndimage.find_objects(events)
    shown = arrays["ids"][: len(arrays["reduce_analyse_roi"])]
    statistics = [region_statistics(events, number, boxes[number - 1]) for number in shown]
    assert_allclose(statistics, arrays["reduce_analyse_roi"], rtol=1e-4)


def check_annotations(arrays, stem):
    movie, classes, events = (arrays[n] for n in ("movie", "class_label", "event_label"))
    assert_array_equal(annotated_spark_peaks(movie, classes, events), arrays["peaks_float"])
    for recorded, (percentile, sigma) in settings_in_names(arrays, r"reduced_sparks_k(\d+)_s(\d+)"):
        small = small_annotations(movie, classes, events, percentile=percentile, sigma=sigma)
        assert_array_equal(small, recorded)
    labels, peaks = peak_annotations(movie, classes, calibration=SCALE)
    assert_array_equal(peaks, arrays["peaks_locs"])
    assert_array_equal(labels, arrays["class_label_peaks"])
    pattern = r"class_label_peaks_r(\d+)_ignore(\d+)"
    for recorded, (shell, frames) in settings_in_names(arrays, pattern):
        labels, peaks = peak_annotations(
            movie, classes, calibration=SCALE, ignore_radius=shell, ignore_frames=frames
        )
        assert_array_equal(peaks, arrays[f"peaks_locs_ignore{frames}"])
        assert_array_equal(labels, recorded)
    assert_array_equal(dilated_annotations(classes), arrays["dilated_CORRECT"])
    pattern = r"ignore_regions_2022_(\d+)_(\d+)_(\d+)"
    for recorded, radii in settings_in_names(arrays, pattern):
        radii = dict(zip(("sparks", "puffs", "waves"), radii, strict=True))
        assert_array_equal(dilated_annotations(classes, radii=radii, mode="3d-2022"), recorded)
    for recorded, (frames,) in settings_in_names(arrays, r"trim_pad_(\d+)"):
        assert_array_equal(blank_margins(classes, frames), recorded)


def check_butterworth(arrays, stem):
    n_frames = len(arrays["movie_f64"])
    sampling_hz = round(float(arrays["freqs"][1]) * n_frames, 3)
    filtered = bandstop_filter(arrays["movie_f64"], sampling_hz)
    assert_allclose(filtered, arrays["filtered_f64"], rtol=1e-6)
    frequencies = np.fft.fftfreq(n_frames, 1 / sampling_hz)[: n_frames // 2]
    assert_allclose(frequencies, arrays["freqs"], rtol=1e-6)
    for name, movie in (("spectrum", arrays["movie_f64"]), ("spectrum_filtered", filtered)):
        spectrum = one_sided_spectrum(movie.mean(axis=(1, 2)))
        assert_allclose(spectrum, arrays[name], rtol=1e-5, atol=1e-6)


def check_f_beta(arrays, stem):
    ours = [[f_beta(p, r, b) for b in arrays["betas"]] for p, r in arrays["precision_recall"]]
    assert_allclose(ours, arrays["CORRECT"], atol=1e-6)


def check_metrics(arrays, stem):
    classes, events = arrays["class_label"], arrays["event_label"]
    by_class = {name: arrays[f"pred_instances_{name}"] for name in EVENT_CLASSES}
    instances = sum(by_class.values())
    class_of_id = np.zeros(int(instances.max(initial=0)) + 1, np.uint8)
    for name, ids in by_class.items():
        class_of_id[np.unique(ids[ids > 0])] = CLASSES[name]
    prediction = Prediction(arrays["pred_classes"], instances, class_of_id, np.empty((0, 3), int))
    annotated, _ = annotated_instances(classes, events)
    recorded = sum(arrays[f"ys_instances_{name}"] for name in EVENT_CLASSES)
    assert_array_equal(annotated, recorded)
    scores = event_scores(classes, events, prediction)
    assert_allclose(scores.iomin, arrays["score_matrix_CORRECT_f64"], atol=1e-9)
    assert_allclose(scores.iomin, arrays["score_matrix_REFERENCE_float16"], atol=3e-4)
    counts = match_counts(scores, 0.5)
    truth = [
        [counts["annotated"][d], *counts["annotated_matched"][d].values(), counts["undetected"][d]]
        for d in EVENT_CLASSES
    ]
    assert_array_equal(truth, arrays["ys_summary_rows_tot_sparks_waves_puffs_undetected"])
    values = [
        [
            counts["predicted"][c],
            *counts["predicted_matched"][c].values(),
            counts["ignored"][c],
            counts["unlabeled"][c],
        ]
        for c in EVENT_CLASSES
    ]
    name = "preds_summary_rows_tot_sparks_waves_puffs_ignored_unlabeled"
    assert_array_equal(values, arrays[name])
    metrics, _ = event_metrics(counts)
    ours = [metrics[name] for name in arrays["metric_names"]]
    assert_allclose(ours, arrays["metric_values_f64"], atol=1e-6)
    whole = metrics_from_counts(
        [movie_counts(classes, events, prediction, post=POST, ignore_frames=0)]
    )
    iou = [whole[f"segmentation/{name}_IoU"] for name in EVENT_CLASSES]
    assert_allclose(iou, arrays["iou_sparks_waves_puffs"], atol=1e-6)
    legacy = whole["segmentation/binary_IoU_legacy"]
    assert_allclose(legacy, arrays["iou_binary_all_nonzero"], atol=1e-6)
    confusion = segmentation_counts(classes, arrays["pred_classes"], ignore_frames=0)["confusion"]
    assert_array_equal(confusion, arrays["confusion_rows_true_0123"])
    n_pairs = round(len(arrays["iomin_pairs"]) ** 0.5)
    assert_allclose(scores.iomin[:n_pairs, :n_pairs].ravel(), arrays["iomin_pairs"], atol=1e-6)
    # f_beta_05_1_2: a beta that starts with 0 is a decimal number
    (name,) = [n for n in arrays if re.fullmatch(r"f_beta(_\d+)+", n)]
    betas = [float(f"0.{n[1:]}" if n[0] == "0" else n) for n in name.split("_")[2:]]
    f_scores = [[f_beta(p, r, b) for b in betas] for p, r in arrays["f_beta_inputs"]]
    assert_allclose(f_scores, arrays[name], atol=1e-6)
    correlations = [matthews(*map(int, row)) for row in arrays["mcc_inputs_tp_tn_fp_fn"]]
    assert_allclose(correlations, arrays["mcc"], atol=1e-6)


def check_pixel_metrics(arrays, stem):
    names = ("dice", "iou", "precision", "recall", "accuracy", "mcc")
    rows = arrays["rows_sparkflag_exclusion_useignore_tp_tn_fp_fn"]
    ratios = arrays["diceREFERENCEBUG_diceCORRECT_iou_prec_rec_acc_mcc"][:, 1:]
    for (sparks, radius, use_ignore, *expected), recorded in zip(rows, ratios, strict=True):
        ignore = arrays["ignore"] if use_ignore else None
        levels = exclusion_levels(arrays["ys"], ignore, [int(radius)], sparks=bool(sparks))
        counts = threshold_counts(arrays["ys"], levels, arrays["preds"], (0.5,))[0][0]
        assert [counts[key] for key in ("tp", "tn", "fp", "fn")] == list(expected)
        ours = pixel_metrics(**counts)
        assert_allclose([ours[name] for name in names], recorded, atol=1e-6)


def check_postprocessing(arrays, stem):
    movie, probabilities = arrays["movie"], arrays["raw_preds"]
    channels = dict(zip(CHANNELS, probabilities, strict=True))
    foreground = channels["sparks"] + channels["puffs"] + channels["waves"]
    threshold = foreground_threshold(foreground)
    assert_allclose(threshold, arrays["otsu_threshold_f64"], atol=1e-6)
    classes = otsu_classes(channels)
    assert_array_equal(classes, arrays["otsu_argmax"])
    assert_array_equal(np.argmax(probabilities, axis=0), arrays["plain_argmax"])
    post = post_of_footprint(arrays["conn_mask"])
    distances = {
        "distance_px": post.spark_distance_px,
        "distance_frames": post.spark_distance_frames,
    }
    footprint = peak_footprint(post.spark_distance_px, post.spark_distance_frames)
    assert_array_equal(footprint, arrays["conn_mask"])
    sparks = classes == CLASSES["sparks"]
    for recorded, (sigma,) in settings_in_names(arrays, r"nms_peaks_sigma(\d+)"):
        assert_array_equal(spark_peaks(movie, sparks, sigma=sigma, **distances), recorded)
    for mode, limit in (("infer", None), ("train", post.max_events_training)):
        labels, peaks, _ = separate_sparks(movie, classes, post, limit)
        assert_same_instances(labels, arrays[f"separated_{mode}_sparks"])
        assert_array_equal(peaks, arrays[f"separated_{mode}_spark_coords"])
        for name in ("waves", "puffs"):
            labels, _ = connected_components(classes == CLASSES[name])
            assert_same_instances(labels, arrays[f"separated_{mode}_{name}"])
        prediction = process_predictions(movie, probabilities, post, training_mode=mode == "train")
        assert_array_equal(prediction.classes, arrays[f"processed_{mode}_classes"])
        assert_array_equal(prediction.spark_peaks, arrays[f"processed_{mode}_spark_coords"])
        for name in EVENT_CLASSES:
            recorded = arrays[f"processed_{mode}_instances_{name}"]
            assert_same_instances(prediction.instances_of(name), recorded)
    check_filled_holes(movie, classes, arrays, post)
    for recorded, (gap,) in settings_in_names(arrays, r"merge_gap(\d+)"):
        assert_same_instances(merge_over_time(arrays["merge_in"], gap), recorded)
    kept = remove_small(arrays["remove_small_in"], minimum_extent("sparks", post))
    assert_same_instances(kept, arrays["remove_small_sparks"])


def post_of_footprint(footprint):
    """Return PostParams whose smallest distance of two sparks makes ``footprint`` (t, y, x)."""
    radius_px = footprint.shape[1] // 2
    # radius 5 stands for 9 and 10 pixels: the footprint is the same
    return dataclasses.replace(
        POST,
        min_spark_distance_um=(2 * radius_px - 1) * SCALE.pixel_um,
        min_spark_distance_ms=len(footprint) * SCALE.frame_ms,
    )


def check_filled_holes(movie, classes, arrays, post):
    filled = instances_from_classes(movie, classes, dataclasses.replace(post, fill_holes=True))
    assert_array_equal(filled.classes, arrays["processed_fillholes_classes"])
    assert_same_instances(filled.instances, arrays["processed_fillholes_instances"])


def check_spark_location_matching(arrays, stem):
    frames, pixels = arrays["match_distance_t_xy"].tolist()
    scale = {"distance_frames": frames, "distance_px": pixels}
    true, predicted = arrays["coords_true"], arrays["coords_pred"]
    paired_true, paired_pred, extra, missed = match_sparks(true, predicted, **scale)
    numbers = [len(paired_true), len(predicted), len(true)]
    assert_array_equal(numbers, arrays["tp_tpfp_tpfn"])
    assert len(paired_pred) == len(arrays["paired_pred"])
    assert (len(extra), len(missed)) == (
        len(arrays["false_positives"]),
        len(arrays["false_negatives"]),
    )
    gaps = (paired_true - paired_pred) / (frames, pixels, pixels)
    assert (np.linalg.norm(gaps, axis=1) <= 1).all()
    metrics = location_metrics(*numbers)
    ours = [metrics[key] for key in ("precision", "recall", "f1")]
    assert_allclose(ours, arrays["precision_recall_f1"], atol=1e-6)
    none = np.empty((0, 3))
    cases = {"no_true": (none, predicted), "no_pred": (true, none), "both_empty": (none, none)}
    for name, (some_true, some_predicted) in cases.items():
        n = len(match_sparks(some_true, some_predicted, **scale)[0])
        metrics = location_metrics(n, len(some_predicted), len(some_true))
        ours = [metrics["precision"], metrics["recall"], metrics["f1"]]
        ours += [n, len(some_predicted), len(some_true)]
        assert_allclose(ours, arrays[name], atol=1e-6)


def check_threshold_processing(arrays, stem):
    puffs = arrays["puff_prob"]
    names = [name for name in arrays if name.startswith("puffs_t")]
    assert names
    for name in names:
        percent, radius, margin = (int(part.lstrip("trignoe")) for part in name.split("_")[1:])
        mask = threshold_mask(puffs, percent / 100, min_radius=radius, ignore_frames=margin)
        assert_array_equal(mask, arrays[name])
    # the recorder removed no spark, whatever radius the name says
    for recorded, (percent, _) in settings_in_names(arrays, r"sparks_mask_t(\d+)_r(\d+)"):
        assert_array_equal(threshold_mask(arrays["spark_prob"], percent / 100), recorded)
    for recorded, (percent, radius) in settings_in_names(arrays, r"separate_events_t(\d+)_r(\d+)"):
        events = track_objects(puffs, percent / 100, min_radius=radius)
        assert int(events.max()) == int(arrays["separate_events_n"])
        assert_same_instances(events, recorded)


CHECKS = {
    "analysis": check_analysis,
    "annotations": check_annotations,
    "butterworth": check_butterworth,
    "f_beta": check_f_beta,
    "metrics": check_metrics,
    "pixel_metrics": check_pixel_metrics,
    "postprocessing": check_postprocessing,
    "spark_location_matching": check_spark_location_matching,
    "threshold_processing": check_threshold_processing,
}
