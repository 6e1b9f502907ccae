"""A finished run again: its network, and a recording that fits it."""

import argparse
from dataclasses import fields, replace
from pathlib import Path

from analysis.plots import plot_prediction
from common.device import describe_device
from common.files import RESULTS_DIR, InputError, read_json
from common.tables import write_rows
from inputs.custom_types import DaRnnNet
from inputs.prepare import Prepared, prepare, read_recording
from inputs.preprocessing import load_scaler
from inputs.safe_read import read_published_scaler
from network.checkpoints import load_network
from network.device import choose_device
from network.prediction import predict_windows
from runs.displays import evaluate
from runs.pipeline import save_array, save_attention
from settings import SCALE_NAMES, RunSettings


def run_folder(text: str) -> Path:
    """Return the folder of a run from its name below results/csd_darnn/, or from a path."""
    named = RESULTS_DIR / text
    folder = named if named.is_dir() else Path(text)
    if not (folder / "network.json").is_file():
        raise InputError(
            f"{folder}: found no network.json, expected the folder of a finished run of main.py"
        )
    return folder


def reload_run(
    run_dir: Path, data: str | Path = "", scaler: str = "run", device: str = "auto"
) -> tuple[DaRnnNet, dict, Prepared]:
    """Load the network of a run and a recording that fits it.

    Returns:
        (DaRnnNet, record of network.json, Prepared). The prepared recording is standardised with
        the run's scaler, or with one of its own.

    Raises:
        InputError: when the recording's columns are not those of the run.
    """
    chosen, _ = choose_device(device)
    print(describe_device("torch", chosen, asked=device != "auto"), flush=True)
    net, record = load_network(run_dir, chosen)
    saved = read_json(run_dir / "settings.json").get("settings", {})
    known = {field.name for field in fields(RunSettings)}
    # A run of before knows no clock in a table: all columns are series.
    saved = {"time_column": "none"} | saved
    settings = RunSettings(**{name: value for name, value in saved.items() if name in known})
    if data:  # the scales that were given belong to the other recording
        settings = replace(settings, **{name: getattr(RunSettings, name) for name in SCALE_NAMES})
    settings = replace(settings, data=Path(data or settings.data), map="attention")
    recording = read_recording(settings)
    print(recording.words(), flush=True)
    if list(recording.columns) != record["columns"]:
        raise InputError(
            f"{recording.source}: found {len(recording.columns)} columns, expected the"
            f" {len(record['columns'])} columns of {run_dir} ({record['columns'][0]} to"
            f" {record['columns'][-1]}); resize the recording like that of the run"
        )
    fitted = None
    if scaler == "run":
        published = run_dir / "scaler.pkl"
        if published.exists() and not (run_dir / "scaler.json").exists():
            fitted = read_published_scaler(published, recording.columns)
        else:
            fitted = load_scaler(run_dir / "scaler.json")
    settings = replace(settings, targ_cols=tuple(record["target_columns"]), target="")
    return net, record, prepare(settings, recording, fitted)


def predict_again(run_dir: Path, chosen: argparse.Namespace) -> None:
    """Predict with the network of a run, draw and write; ``chosen``: flags of main_predict.py."""
    net, record, prepared = reload_run(run_dir, chosen.data, chosen.scaler, chosen.device)
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
    network = next(row for row in rows if row["model"] == "network")
    print(f"RMSE {network['rmse']:.4g} z over {len(starts)} frames, {path}")
