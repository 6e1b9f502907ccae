"""The modes of main.py: train, test, maps of where and when the network looks, and prediction.

Every function takes the resolved settings; results go to `<run>/<mode>/`. Source: specification
section 8.1.
"""

import glob
import logging
from pathlib import Path

import pandas as pd

from analysis.band_power import baselines
from analysis.evaluation import add_smoothed, prediction_table, write_results
from analysis.learning_curve import save_learning_curve
from analysis.maps import export_maps
from analysis.utils import class_metrics, text_of
from analysis.visualize_lstm_attention_weights import export_attention
from common.figures import show_picture
from common.files import InputError, read_json, write_json, write_settings
from common.locks import hold, visible
from inputs.hypnogram import Hypnogram, hypnograms_of
from inputs.shards import read_manifest
from inputs.states import seconds_of
from network.forward import states_of
from runs.adapt import adapted_to
from runs.context import load_context, second_stage, states_with
from runs.folds import run_folds
from runs.predict import (
    check_recordings,
    labels_learnt,
    predict_folder,
    storage_of_network,
    write_predictions,
)
from runs.setup import (
    LIBRARIES,
    choose_device,
    claim_run,
    data_folder,
    fit_split,
    load_split,
    prepare,
    run_folder,
    say_device,
    seeded,
)
from runs.trained import load_network, test_sets, view_of_network
from settings import Settings

log = logging.getLogger(__name__)
BASELINE_CONTEXT = 3  # neighbours on each side that the second band-power baseline sees
OPTICAL_MODES = ("gradcam", "attention_weights", "occlusion")


def run_train(settings: Settings) -> int:
    """Train one network, or with --folds one per group of test mice."""
    folder, run_dir = data_folder(settings), run_folder(settings)
    hold(run_dir)  # before the first look at what is there
    settings = seeded(settings, run_dir)
    if settings.folds:
        return run_folds(settings, folder, run_dir)
    split, mice = load_split(settings, folder)
    choose_device(settings.device)
    prepare(settings, split, mice, folder, run_dir)  # its faults come before --fresh removes a run
    claim_run(run_dir, settings)
    _, history = fit_split(settings, split, mice, folder, run_dir)
    save_learning_curve(pd.DataFrame(history), run_dir / "learning_curve.png")
    best = min(history, key=lambda row: row["val_loss"])
    log.info(
        "best validation loss %.4f in epoch %d, kappa %.3f (%s); weights in %s",
        best["val_loss"],
        best["epoch"],
        best["val_kappa"],
        split.text,
        run_dir,
    )
    return 0


def output_folder(settings: Settings, axes: dict[str, Hypnogram]) -> Path:
    """Return the folder of the results of this mode, with settings.json in it; say what is read."""
    for axis in axes.values():
        log.info("%s", axis.describe())
    out = (
        Path(settings.result_savedir) if settings.result_savedir else run_folder(settings)
    ) / settings.mode
    hold(out)
    for mouse, paths in older_mice(out, axes).items():
        if settings.mode == "predict":
            for path in paths:
                path.unlink()
            log.info("%s: removed %d files of an earlier call, mouse %s", out, len(paths), mouse)
        else:
            log.info("%s: %d files of an earlier call stay, mouse %s", out, len(paths), mouse)
    recordings = {mouse: axis.record() for mouse, axis in axes.items()}
    write_settings(out, {**settings.values, "recordings": recordings}, libraries=LIBRARIES)
    return out


def older_mice(out: Path, axes: dict[str, Hypnogram]) -> dict[str, list[Path]]:
    """Return the files of mice that an earlier call left in ``out`` and that are not in ``axes``.

    Which mice those are stands in its settings.json, of older runs in predictions.csv.
    """
    record, table = out / "settings.json", out / "predictions.csv"
    mice = set()
    if record.is_file():
        held = read_json(record, remedy="remove it").get("settings", {})
        mice = set(held.get("recordings", {}))
    if not mice and table.is_file():
        mice = set(pd.read_csv(table, dtype=str).get("mouse", pd.Series(dtype=str)))
    files = {
        m: visible(out, f"{glob.escape(m)}_*", recursive=True) for m in sorted(mice - set(axes))
    }
    return {mouse: paths for mouse, paths in files.items() if paths}


def run_test(settings: Settings, *, subjectwise: bool) -> int:
    """Test on the test part of the split, or on all epochs of the test mouse."""
    folder = data_folder(settings)
    choose_device(settings.device)
    network, data = load_network(settings, run_folder(settings), folder)
    epochs, train, text = test_sets(settings, folder, network, data, subjectwise=subjectwise)
    learnt = train
    if settings.smooth == "hmm" and train is None:
        learnt = labels_learnt(data)
    if settings.baseline and train is None:
        raise InputError(
            "baseline needs the training epochs: they are not known for this network, or not in "
            f"{folder}"
        )
    axes = hypnograms_of(epochs.records, epochs.labels, epochs.view.num_classes)
    out = output_folder(settings, axes)
    net = second_stage(settings, run_folder(settings))
    probs, single = states_with(network, epochs, settings, net)
    table = prediction_table(epochs, probs, min_confidence=settings.min_confidence)
    table = add_smoothed(table, settings.smooth, learnt)
    seconds = seconds_of(network.architecture.num_frames)
    metrics = write_results(table, axes, out, text, seconds=seconds, hypnograms=subjectwise)
    if net is not None:
        metrics["stage"] = f"second stage: {net.context} epochs on each side"
        metrics["single_epochs"] = class_metrics(
            epochs.labels, states_of(single), network.architecture.num_classes
        )
        write_json(out / "metrics.json", metrics)
        log.info("single epochs, without context:\n%s", text_of(metrics["single_epochs"]))
    if settings.baseline:
        band_power = baselines(train, epochs, (0, BASELINE_CONTEXT))
        smoothed = add_smoothed(prediction_table(epochs, single), "hmm", train)["smoothed"]
        for name, states in (
            ("band_power_baseline", band_power[0]),
            (f"band_power_{BASELINE_CONTEXT}_neighbours", band_power[1]),
            ("single_epochs_hmm", smoothed.to_numpy()),
        ):
            metrics[name] = class_metrics(epochs.labels, states, network.architecture.num_classes)
            log.info("%s:\n%s", name.replace("_", " "), text_of(metrics[name]))
        write_json(out / "metrics.json", metrics)
    log.info("results in %s", out)
    show_pictures(settings, out)
    return 0


def show_pictures(settings: Settings, out: Path) -> None:
    """Open the pictures of ``out`` in windows when --result_action asks for it."""
    if settings.result_action != "save":
        for path in visible(out, "*.png", recursive=True):
            show_picture(path)


def run_optical(settings: Settings) -> int:
    """Run gradcam, attention_weights or occlusion over the test mouse."""
    folder = data_folder(settings)
    choose_device(settings.device)
    network, data = load_network(settings, run_folder(settings), folder)
    epochs, _, text = test_sets(settings, folder, network, data, subjectwise=True)
    out = output_folder(
        settings, hypnograms_of(epochs.records, epochs.labels, epochs.view.num_classes)
    )
    log.info("%s", text)
    if load_context(run_folder(settings)) is not None:
        log.info("this picture explains the first stage, single epochs; not the context behind it")
    if settings.mode == "attention_weights":
        export_attention(network, epochs, out, settings)
    else:
        storage = data.get("storage") or read_manifest(folder)
        normalization = storage.get("normalization", "temporal")
        export_maps(network, epochs, out, settings, normalization)
    log.info("results in %s", out)
    show_pictures(settings, out)
    return 0


def run_predict(settings: Settings) -> int:
    """Predict the states of recordings (.mat) or tfrecords without looking at labels."""
    folder = data_folder(settings)
    choose_device(settings.device)
    network, data = load_network(settings, run_folder(settings), folder)
    net = second_stage(settings, run_folder(settings))
    adaptation = about = None
    if settings.adapt:
        if net is not None:
            raise InputError(
                "adapt fits the last layer of the first stage, this run has a second one: give "
                "--context 0 as well"
            )
        view, how = view_of_network(network, data), storage_of_network(network, data)
        check_recordings(network, [Path(settings.adapt)], how, view, settings)
        adaptation, about = adapted_to(network, how, view, settings)
    table, axes = predict_folder(network, data, folder, settings, net, adaptation)
    out = output_folder(settings, axes)
    if about is not None:
        write_json(out / "adapt.json", about)
    else:
        (out / "adapt.json").unlink(missing_ok=True)  # of an earlier call
    write_predictions(table, axes, out, network.architecture.num_frames)
    log.info("results in %s", out)
    show_pictures(settings, out)
    return 0


def run_mode(settings: Settings) -> int:
    """Run the mode of the settings; return the exit code."""
    say_device(settings.device)
    if settings.mode == "train":
        return run_train(settings)
    if settings.mode in ("test", "test_subjectwise"):
        return run_test(settings, subjectwise=settings.mode == "test_subjectwise")
    if settings.mode in OPTICAL_MODES:
        return run_optical(settings)
    return run_predict(settings)
