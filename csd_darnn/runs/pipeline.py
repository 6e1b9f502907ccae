"""One run from recording to results: read, check, preprocess, train, predict, show.

A run lives in one folder. It is complete when its four result files and ``network.json`` are
there, unfinished when only ``checkpoint.pt`` is; the displays can be drawn again from the files.
"""

import csv
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from analysis.plots import plot_whole_record
from common.files import (
    InputError,
    atomic_path,
    check_own,
    check_same,
    read_json,
    write_json,
    write_settings,
)
from common.locks import hold
from common.report import close_run
from inputs.custom_types import DaRnnNet, TrainConfig
from inputs.prepare import Prepared, prepare, read_recording
from inputs.recording import Recording
from network.build import Progress, da_rnn
from network.checkpoints import (
    load_checkpoint,
    network_record,
    save_checkpoint,
    save_network,
    save_tensors,
)
from network.device import choose_device
from network.prediction import predict_windows
from runs.displays import show_run
from runs.run_report import Page, write_run_report
from runs.training import Course, train
from settings import RunSettings, number_settings

LIBRARIES = ("torch", "numpy", "scipy", "matplotlib", "tifffile", "pillow", "safetensors")
# Settings that change pictures, never numbers: a finished run is drawn again from its files.
DISPLAYS = (
    "save_plots", "maps", "map", "clim", "align", "fps", "movie", "block", "importance_every",
    "importance_repeats", "error_rate", "frame_rate_hz", "frame_times", "pixel_um", "row_um",
    "offset",
)  # fmt: skip
REPORT_EVERY = 5  # epochs between two looks at the test part
LOG_COLUMNS = ("epoch", "loss", "rate", "seconds", "validation", "test_mae")
GIGABYTE = 1e9


def result_files(settings: RunSettings, run_dir: Path) -> dict:
    """Return the four published result files of a run: weight tensor, losses, prediction."""
    names = {
        "weight_tensor_dir": "weight_tensor_rs.pt",
        "iter_loss_dir": "iter_loss.npy",
        "epoch_loss_dir": "epoch_loss.npy",
        "final_y_pred_dir": "final_y_pred.npy",
    }
    return {key: Path(getattr(settings, key) or run_dir / name) for key, name in names.items()}


def saves_full(settings: RunSettings, prepared: Prepared) -> bool:
    """Tell whether the weight tensor (n_test, S, N) is saved whole: auto means below 1 GB."""
    size = 4 * len(prepared.test_starts) * prepared.rule.steps * len(prepared.features)
    return {"full": True, "compact": False, "auto": size < GIGABYTE}[settings.save_weight_tensor]


def run_state(settings: RunSettings, run_dir: Path) -> str:
    """Return "complete", "unfinished" or "none"."""
    files = result_files(settings, run_dir)
    network = run_dir / "network.json"
    if network.exists() and not read_json(network).get("weight_tensor", True):
        files["weight_tensor_dir"] = run_dir / "attention.npz"  # the compact form comes last
    if network.exists() and all(file.exists() for file in files.values()):
        return "complete"
    return "unfinished" if (run_dir / "checkpoint.pt").exists() else "none"


def identity_of(settings: RunSettings, recording: Recording) -> dict:
    """Return the settings and data that make the numbers of a run what they are."""
    return number_settings(settings) | {"data_sha256": recording.sha256}


def run(settings: RunSettings) -> Path:
    """Run everything that is missing in the run's folder and return the folder.

    Raises:
        InputError: when the folder holds another or an unfinished run and neither ``resume`` nor
            ``overwrite`` is set.
    """
    began = time.perf_counter()
    run_dir = Path(settings.run_dir)
    choose_device(settings.device)  # first of all, so that a bad setting changes no file
    recording = read_recording(settings)
    print(recording.words(), flush=True)
    identity = identity_of(settings, recording)
    if not settings.overwrite and is_shown(settings, run_dir, identity):
        # Nothing is written, so nothing is locked: a finished run can lie on a read-only disk.
        print(f"{run_dir} is complete; --fresh starts anew")
        close_run(run_dir)
        return run_dir
    prepared = prepare(settings, recording)  # all faults of the data, before a folder is made
    hold(run_dir)
    check_own(run_dir)
    state = run_state(settings, run_dir)
    if state != "none" and not settings.overwrite:
        check_identity(run_dir, identity, settings)
    if state == "unfinished" and not (settings.resume or settings.overwrite):
        raise InputError(
            f"{run_dir}: found an unfinished run, expected none; --resume goes on with it,"
            " --fresh starts anew"
        )
    if state != "complete" or settings.overwrite:
        if settings.overwrite:
            clear_run(run_dir, settings)
        train_and_predict(prepared, settings, run_dir, identity)
    else:
        clear_displays(settings, run_dir)
    finish(prepared, settings, run_dir, began)
    return run_dir


def is_shown(settings: RunSettings, run_dir: Path, identity: dict) -> bool:
    """Return whether the folder holds this very run, complete, and shown as the settings ask.

    Raises:
        InputError: the folder holds another run.
    """
    if not check_own(run_dir) or run_state(settings, run_dir) != "complete":
        return False
    check_identity(run_dir, identity, settings)
    return (run_dir / "summary.json").exists() and not changed_displays(settings, run_dir)


def changed_displays(settings: RunSettings, run_dir: Path) -> list[str]:
    """Return the settings of displays that differ from those that the run was shown with.

    A run that knows nothing of a setting was shown with its default.
    """
    shown = read_json(run_dir / "settings.json").get("settings", {})
    names = [name for name in DISPLAYS if shown.get(name, getattr(RunSettings, name))
             != getattr(settings, name)]  # fmt: skip
    return names


def clear_displays(settings: RunSettings, run_dir: Path) -> None:
    """Take note of changed displays and remove the pictures that would tell the old ones."""
    changed, path = changed_displays(settings, run_dir), run_dir / "settings.json"
    if not changed:
        return
    print(f"{run_dir}: shown again from its files ({', '.join(changed)})")
    (run_dir / "summary.json").unlink(missing_ok=True)
    for name in (
        "heatmap*.mp4",
        "heatmap*.gif",
        "onset*.*",
        "plots/onset_map.*",
        "drivers.csv",
        "plots/drivers*.*",
    ):
        for old in run_dir.glob(name):
            old.unlink()
    record = read_json(path)
    record["settings"] |= {name: getattr(settings, name) for name in changed}
    write_json(path, record)


def finish(prepared: Prepared, settings: RunSettings, run_dir: Path, began: float) -> None:
    """Show a finished run and write its report; ``summary.json`` comes last."""
    shown = show_run(prepared, settings, run_dir, load_results(settings, run_dir))
    errors = {}
    for row in shown["rows"]:
        errors.setdefault(row["model"], row["rmse"])  # the first row of a model: test, in z
    words = {"network": "the network", "persistence": "the last value again (persistence)"}
    scores = [
        {
            "name": f"test RMSE of {what}",
            "value": errors[model],
            "unit": "z",
            "target": "",
            "passed": None,
            "control": False,
        }
        for model, what in words.items()
        if model in errors
    ]
    page = Page(
        title=f"csd_darnn: {run_dir.name}",
        data=str(prepared.recording.source.name),
        seconds=time.perf_counter() - began,
        seed=settings.seed,
        scores=scores,
        planted_truth=None,
        main_picture=shown["picture"] and shown["picture"].name,
        lead=shown["verdict"],
    )
    write_run_report(run_dir, page)
    close_run(run_dir)


def check_identity(run_dir: Path, identity: dict, settings: RunSettings) -> None:
    """Refuse a folder that holds a run of other settings or data."""
    path = run_dir / "settings.json"
    stored = read_json(path).get("settings", {}) if path.exists() else {}
    wanted = identity | {"n_epochs": settings.n_epochs}
    check_same(run_dir, stored.get("identity", {}), wanted)


def clear_run(run_dir: Path, settings: RunSettings) -> None:
    """Remove the files of an earlier run from its folder, and nothing else."""
    names = (
        "checkpoint.pt", "network.json", "*_kwargs.json", "encoder.*", "decoder.*",
        "scaler.json", "settings.json", "summary.json", "report.html", "log.csv", "metrics.*",
        "attention.npz", "importance.*", "onset*.*", "heatmap*.mp4", "heatmap*.gif", "drivers.csv",
        "plots/*.png", "plots/*.csv",
    )  # fmt: skip
    for name in names:
        for path in run_dir.glob(name):
            path.unlink()
    for path in result_files(settings, run_dir).values():
        path.unlink(missing_ok=True)


def train_and_predict(
    prepared: Prepared, settings: RunSettings, run_dir: Path, identity: dict
) -> None:
    """Train or go on training, then predict the test part; writes every result file."""
    run_dir.mkdir(parents=True, exist_ok=True)
    device, _ = choose_device(settings.device)
    record = {
        key: value for key, value in asdict(settings).items() if key not in ("resume", "overwrite")
    }
    record["recording"] = prepared.recording.scales.record()
    write_settings(
        run_dir,
        record | {"identity": identity | {"n_epochs": settings.n_epochs}, "device_used": device},
        inputs={str(settings.data): prepared.recording.sha256},
        libraries=LIBRARIES,
    )
    net, progress = train_stage(prepared, settings, run_dir, identity, device)
    prepared.scaler.save(run_dir / "scaler.json")
    save_network(run_dir, net, describe(prepared, net, progress, settings))
    files = result_files(settings, run_dir)
    save_array(files["iter_loss_dir"], np.asarray(progress.iter_losses, np.float64))
    save_array(files["epoch_loss_dir"], np.asarray(progress.epoch_losses, np.float64))
    predict_stage(prepared, settings, run_dir, net, progress.permutation)
    if settings.save_plots:
        draw_record(
            prepared,
            net,
            progress.permutation,
            run_dir / "plots" / "pred_final.png",
            "Trained network",
        )


def build(prepared: Prepared, settings: RunSettings, device: str) -> tuple[TrainConfig, DaRnnNet]:
    """Return (TrainConfig, DaRnnNet) with fresh parameters for a prepared recording."""
    return da_rnn(
        prepared.data,
        len(prepared.targets),
        settings.encoder_hidden_size,
        settings.decoder_hidden_size,
        settings.T,
        settings.learning_rate,
        settings.batch_size,
        train_size=prepared.train_size,
        rule=prepared.rule,
        options=prepared.options,
        seed=settings.seed,
        device=device,
    )


def fit(
    prepared: Prepared,
    settings: RunSettings,
    net: DaRnnNet,
    t_cfg: TrainConfig,
    *,
    progress: Progress | None = None,
    on_epoch: Callable | None = None,
) -> Progress:
    """Train ``net`` as the settings say and return its Progress."""
    course = Course(
        prepared.rule, settings.seed, settings.shuffle_pixels, fit_size=prepared.fit_size,
        keep=settings.gradient_epochs if settings.gradient_epochs > 1 else 0,
    )  # fmt: skip
    return train(
        net,
        prepared.data,
        t_cfg,
        settings.n_epochs,
        course=course,
        progress=progress,
        on_epoch=on_epoch,
    )


def train_stage(
    prepared: Prepared, settings: RunSettings, run_dir: Path, identity: dict, device: str
) -> tuple[DaRnnNet, Progress]:
    """Train the network with a checkpoint and a line of log.csv after every epoch."""
    t_cfg, net = build(prepared, settings, device)
    checkpoint, log_path = run_dir / "checkpoint.pt", run_dir / "log.csv"
    progress, log = Progress(np.arange(len(prepared.features)), settings.seed), []
    if settings.resume and checkpoint.exists():
        progress = load_checkpoint(checkpoint, net, identity)
        log = [row for row in read_log(log_path) if int(row["epoch"]) < progress.epoch]
        print(f"resuming after epoch {progress.epoch} of {settings.n_epochs}")
    else:
        save_checkpoint(checkpoint, net, progress, identity)  # the state to fall back to
    began = time.perf_counter()

    def on_epoch(progress, row):
        row["seconds"] = round(time.perf_counter() - began, 3)
        if row["epoch"] % REPORT_EVERY == 0:
            row["test_mae"] = look_at_test(prepared, net, progress, row["epoch"], run_dir, settings)
        log.append(row)
        write_log(log_path, log)
        save_checkpoint(checkpoint, net, progress, identity)

    return net, fit(prepared, settings, net, t_cfg, progress=progress, on_epoch=on_epoch)


def read_log(path: Path) -> list[dict]:
    """Return the rows of log.csv, or none when it is not there."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def write_log(path: Path, rows: list[dict]) -> None:
    """Write log.csv; an empty cell means that the number was not taken in that epoch."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, LOG_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def look_at_test(
    prepared: Prepared,
    net: DaRnnNet,
    progress: Progress,
    epoch: int,
    run_dir: Path,
    settings: RunSettings,
) -> float:
    """Draw pred_<epoch>.png and return the mean absolute test error in z-units.

    Differs: the published log calls this number the validation loss. It chooses nothing here.
    """
    path = run_dir / "plots" / f"pred_{epoch}.png" if settings.save_plots else None
    return draw_record(prepared, net, progress.permutation, path, f"Epoch {epoch}")


def draw_record(
    prepared: Prepared, net: DaRnnNet, permutation: np.ndarray, path: Path | None, state: str
) -> float:
    """Draw the predictions of the whole record; return the mean absolute test error in z-units.

    Args:
        path: PNG, None draws nothing.
        state: of the network, in one word or two.
    """
    rule, parts = prepared.rule, {}
    for name, starts in (
        ("Train", rule.on_train_starts(prepared.train_size)),
        ("Test", prepared.test_starts),
    ):
        y_pred = predict_windows(net, prepared.data, starts, rule, permutation=permutation).y_pred
        parts[name] = rule.target_rows(starts), y_pred
    if path is not None:
        plot_whole_record(
            prepared.data.targs[:, 0],
            {name: (rows, y_pred[:, 0]) for name, (rows, y_pred) in parts.items()},
            path,
            title=f"{state}, target {prepared.target_words[0]}",
            rate_hz=prepared.recording.scales.rate_hz.value,
        )
    rows, y_pred = parts["Test"]
    return float(np.abs(y_pred - prepared.data.targs[rows]).mean())


def save_array(path: Path, values: np.ndarray) -> None:
    """Write a NumPy file atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, values)


def describe(prepared: Prepared, net: DaRnnNet, progress: Progress, settings: RunSettings) -> dict:
    """Return ``network.json``: everything that a later prediction needs beside the weights."""

    def listed(values):
        return None if values is None else [int(value) for value in values]

    recording = prepared.recording
    return network_record(net, prepared.rule, prepared.options) | {
        "permutation": listed(progress.permutation),
        "columns": list(recording.columns),
        "target_columns": prepared.target_labels,
        "feature_pixels": listed(prepared.feature_pixels),
        "target_pixels": listed(prepared.target_pixels),
        "shape": listed(recording.shape),
        "n_rows": len(recording.values),
        "train_size": prepared.train_size,
        "fit_size": prepared.fit_size,
        "batch_size": settings.batch_size,
        "weight_tensor": saves_full(settings, prepared),
        "epoch_chosen": progress.best["epoch"] if progress.best else settings.n_epochs - 1,
        "validation_mse": progress.best["error"] if progress.best else None,
    }


def predict_stage(
    prepared: Prepared, settings: RunSettings, run_dir: Path, net: DaRnnNet, permutation: np.ndarray
) -> None:
    """Predict the test part and write prediction, attention and weight tensor, in this order."""
    files, starts = result_files(settings, run_dir), prepared.test_starts
    shape = len(starts), prepared.rule.steps, len(prepared.features)
    out, spill = None, run_dir / f".weighted.{shape[0]}.tmp"
    if saves_full(settings, prepared):
        if 4 * np.prod(shape, dtype=float) > settings.max_ram * GIGABYTE:
            out = np.memmap(spill, np.float32, "w+", shape=shape)
        else:
            out = np.empty(shape, np.float32)
    result = predict_windows(
        net,
        prepared.data,
        starts,
        prepared.rule,
        permutation=permutation,
        attention=True,
        weighted_out=out,
    )
    if not (np.isfinite(result.y_pred).all() and np.isfinite(result.attention).all()):
        raise InputError(f"{run_dir}: the prediction is not finite; lower --learning_rate")
    save_array(files["final_y_pred_dir"], result.y_pred)
    save_attention(run_dir / "attention.npz", prepared, permutation, result.attention)
    if out is not None:
        save_tensors(files["weight_tensor_dir"], torch.from_numpy(out))
        spill.unlink(missing_ok=True)


def save_attention(
    path: Path,
    prepared: Prepared,
    permutation: np.ndarray,
    attention: np.ndarray,
    first_frame: int | None = None,
) -> None:
    """Write ``attention.npz`` (section 4.2); for named series the pixels are column positions."""
    recording, places = prepared.recording, prepared.recording.pixels
    places = np.arange(len(recording.columns)) if places is None else places
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(
            handle,
            attention=attention.astype(np.float32),
            feature_pixels=places[prepared.features],
            target_pixels=places[prepared.targets],
            shape=np.array(recording.shape or (1, len(recording.columns))),
            first_frame=prepared.train_size if first_frame is None else first_frame,
            T=prepared.rule.T,
            permutation=permutation,
        )


def load_results(settings: RunSettings, run_dir: Path) -> dict:
    """Return the saved prediction, attention and losses of a finished run as a dict."""
    files = result_files(settings, run_dir)
    names = ("iter_loss_dir", "iter_losses"), ("epoch_loss_dir", "epoch_losses")
    results = {name: load_array(files[key]) for key, name in names}
    results["y_pred"] = load_array(files["final_y_pred_dir"])
    results["attention"] = load_array(run_dir / "attention.npz")["attention"]
    return results


def load_array(path: Path) -> np.ndarray:
    """Read a NumPy file without pickled objects; a fault is an InputError."""
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: found no readable NumPy file ({type(error).__name__}), expected results of"
            " main.py; use --overwrite"
        ) from None
