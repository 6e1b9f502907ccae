"""A finished run again: its network, and a recording that fits it."""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from analysis.plots import plot_prediction
from common.device import describe_device
from common.files import RESULTS_DIR, InputError, read_json, write_json
from common.locks import hold
from common.tables import write_rows
from inputs.custom_types import DaRnnNet
from inputs.prepare import Prepared, prepare, read_recording
from inputs.preprocessing import load_scaler
from inputs.recording import Recording
from inputs.safe_read import read_published_scaler
from inputs.scales import DIFFERENT
from network.checkpoints import load_network
from network.device import choose_device
from network.prediction import predict_windows
from runs.displays import evaluate
from runs.pipeline import save_array, save_attention
from settings import SCALE_NAMES, RunSettings

FAR_Z = 3.0  # standard deviations of the training that a recording may lie off
FAR_SPREAD = 5.0  # times that it may vary more or less
READ_ALIKE = ("channel", "haemodynamic", "crop", "axes", "mask")  # change what a network gets


def run_folder(text: str) -> Path:
    """Return the folder of a run from its name below results/csd_darnn/, or from a path."""
    named = RESULTS_DIR / text
    folder = named if named.is_dir() else Path(text)
    if not (folder / "network.json").is_file():
        raise InputError(
            f"{folder}: found no network.json, expected the folder of a finished run of main.py"
        )
    return folder


def reading_settings(
    run_dir: Path,
    data: str | Path = "",
    chosen: argparse.Namespace | None = None,
    *,
    quiet: bool = False,
) -> RunSettings:
    """Return the settings of a run for its recording, or for another one, ``data``.

    Scales and channel that the run was given belong to its own recording: another one has those of
    its file, and those of ``chosen`` (SCALE_NAMES; ``given`` says which of them count).
    """
    saved = read_json(run_dir / "settings.json").get("settings", {})
    known = {field.name for field in fields(RunSettings)}
    # A run of before knows no clock in a table: all columns are series.
    saved = {"time_column": "none"} | saved
    settings = RunSettings(**{name: value for name, value in saved.items() if name in known})
    names = () if chosen is None else [name for name in SCALE_NAMES if name in chosen.given]
    given = {name: getattr(chosen, name) for name in names}
    if data:
        left = [name for name in READ_ALIKE if getattr(settings, name) and name not in given]
        if left and not quiet:
            flags = " ".join(f"--{name} {getattr(settings, name)}" for name in left)
            print(
                f"warning: {data}: is read without the {flags} of {run_dir}, which belong to the"
                " recording of that run; give them again where they hold here, too",
                file=sys.stderr,
            )
        settings = replace(settings, **{name: getattr(RunSettings, name) for name in SCALE_NAMES})
    return replace(settings, data=Path(data or settings.data), map="attention", **given)


def warn_of_scales(recording: Recording, run_dir: Path) -> None:
    """Say when the frames or pixels of a recording are others than those of the training."""
    told = read_json(run_dir / "settings.json").get("settings", {}).get("recording", {})
    for name, words, unit in (
        ("rate_hz", "frame rate", "Hz"),
        ("column_um", "width of a pixel", "um"),
        ("row_um", "height of a pixel", "um"),
    ):
        here, there = getattr(recording.scales, name), told.get(name, {}).get("value")
        if here.value and there and abs(here.value / there - 1) > DIFFERENT:
            print(
                f"warning: {recording.source}: found a {words} of {here.value:g} {unit}"
                f" ({here.origin}), that of the training of {run_dir} is {there:g} {unit}: the"
                " network takes frames and pixels for those of its training",
                file=sys.stderr,
            )


def record_of(prepared: Prepared, **more: str) -> dict:
    """Return what results of a reloaded run belong to: file, digest, scales with their origin."""
    recording = prepared.recording
    told = {"data": str(recording.source), "data_sha256": recording.sha256}
    return told | {"recording": recording.scales.record()} | more


def reload_run(
    run_dir: Path,
    data: str | Path = "",
    scaler: str = "run",
    device: str = "auto",
    *,
    chosen: argparse.Namespace | None = None,
) -> tuple[DaRnnNet, dict, Prepared]:
    """Load the network of a run and a recording that fits it.

    ``chosen``: see ``reading_settings``.

    Returns:
        (DaRnnNet, record of network.json, Prepared). The prepared recording is standardised with
        the run's scaler, or with one of its own.

    Raises:
        InputError: when the recording's columns are not those of the run.
    """
    place, _ = choose_device(device)
    print(describe_device("torch", place, asked=device != "auto"), flush=True)
    net, record = load_network(run_dir, place)
    settings = reading_settings(run_dir, data, chosen)
    recording = read_recording(settings)
    print(recording.words(), flush=True)
    if list(recording.columns) != record["columns"]:
        raise InputError(
            f"{recording.source}: found {len(recording.columns)} columns, expected the"
            f" {len(record['columns'])} columns of {run_dir} ({record['columns'][0]} to"
            f" {record['columns'][-1]}); resize the recording like that of the run"
        )
    if record.get("shape") and recording.shape and list(recording.shape) != record["shape"]:
        raise InputError(
            f"{recording.source}: found {recording.shape[0]} x {recording.shape[1]} pixels,"
            f" expected {record['shape'][0]} x {record['shape'][1]} as in {run_dir}; resize the"
            " recording like that of the run"
        )
    warn_of_scales(recording, run_dir)
    fitted = None
    if scaler == "run":
        published = run_dir / "scaler.pkl"
        if published.exists() and not (run_dir / "scaler.json").exists():
            fitted = read_published_scaler(published, recording.columns)
        else:
            fitted = load_scaler(run_dir / "scaler.json")
    settings = replace(settings, targ_cols=tuple(record["target_columns"]), target="")
    prepared = prepare(settings, recording, fitted)
    if fitted is not None:
        warn_of_range(prepared, run_dir)
    return net, record, prepared


def warn_of_range(prepared: Prepared, run_dir: Path) -> None:
    """Say when a recording lies where the network has never been, by the scaler of its run."""
    middle = np.median(np.abs(np.median(prepared.data.feats, axis=0)))
    spread = np.median(prepared.data.feats.std(axis=0))
    if middle > FAR_Z or not 1 / FAR_SPREAD < spread < FAR_SPREAD:
        print(
            f"warning: {prepared.recording.source}: by the scaler of {run_dir} the series lie"
            f" {middle:.3g} standard deviations from those of its training and vary {spread:.3g}"
            " times as much: the network has never seen such values; --scaler own takes their own",
            file=sys.stderr,
        )


def predict_again(run_dir: Path, chosen: argparse.Namespace) -> None:
    """Predict with the network of a run, draw and write; ``chosen``: flags of main_predict.py."""
    net, record, prepared = reload_run(
        run_dir, chosen.data, chosen.scaler, chosen.device, chosen=chosen
    )
    rule, starts = prepared.rule, prepared.test_starts
    if chosen.part == "all":
        starts = rule.starts(rule.reach, len(prepared.data.feats))
    result = predict_windows(
        net,
        prepared.data,
        starts,
        rule,
        permutation=record["permutation"],
        attention=True,
    )
    out = run_dir / "reloaded"
    hold(run_dir)
    (out / "recording.json").unlink(missing_ok=True)  # written last, of what lies here
    save_array(out / "final_y_pred.npy", result.y_pred)
    first = int(rule.target_rows(starts)[0])
    save_attention(out / "attention.npz", prepared, record["permutation"], result.attention, first)
    rows = evaluate(prepared, result.y_pred, starts=starts)
    write_rows(out / "metrics.csv", rows)
    truth = prepared.data.targs[rule.target_rows(starts)]
    for position, label in enumerate(prepared.target_labels):
        suffix = f"_{label}" if position else ""
        path = plot_prediction(
            truth[:, position],
            result.y_pred[:, position],
            out / "plots" / f"final_predicted_reloaded{suffix}.png",
            first_frame=first,
            label=label,
        )
    write_json(out / "recording.json", record_of(prepared, scaler=chosen.scaler, part=chosen.part))
    network = next(row for row in rows if row["model"] == "network")
    print(f"RMSE {network['rmse']:.4g} z over {len(starts)} frames, {path}")
