"""Train and test on the two series of the DA-RNN paper: SML2010 and an excerpt of NASDAQ 100.

Options of Qin et al. 2017, tables 1 and 2, that reach the paper's numbers (specification,
sections 1 and 6.5).
"""

import argparse
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from analysis.metrics import regression_metrics
from common.files import RESULTS_DIR, InputError, write_json
from common.tables import write_rows
from inputs.custom_types import DaRnnNet, ModelOptions
from inputs.prepare import prepare
from inputs.preprocessing import Scaler
from inputs.reading import load_recording
from inputs.recording import Recording
from inputs.windows import WindowRule
from network.build import build_net
from network.checkpoints import infer_sizes, load_parameters
from network.device import choose_device
from network.prediction import predict_windows
from runs.displays import evaluate
from runs.pipeline import build, fit
from settings import RunSettings

SML_FILES = ("NEW-DATA-1.T15.txt", "NEW-DATA-2.T15.txt")
SML_TARGET = "Temperature_Comedor_Sensor"
SML_LEFT_OUT = (
    "Exterior_Entalpic_1", "Exterior_Entalpic_2", "Exterior_Entalpic_turbo", "Day_Of_Week",
    "Precipitacion",
)  # fmt: skip
NASDAQ_FILE, NASDAQ_WEIGHTS = "nasdaq100_padding_first4517.csv.gz", "nasdaq_T10_m64_weights.npz"
SML_ROWS, NASDAQ_ROWS = (3200, 400, 537), (3909, 304, 304)  # training, validation, test
PAPER = {"SML2010": 0.0202}  # RMSE of DA-RNN with m = p = 64, degrees C


def read_sml(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return SML2010 as (values (4137, 17) float64, names): 16 driving series and the target.

    The first line starts with "#" and two blanks; splitting on single blanks would shift every
    name by two. The name is what follows the colon.
    """
    parts, names = [], None
    for file in SML_FILES:
        path = Path(folder) / file
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is no text ({error}); download it again") from None
        if len(lines) < 2:
            raise InputError(f"{path}: found {len(lines)} lines, expected names and rows")
        names = [token.split(":")[-1] for token in lines[0].lstrip("# ").split()]
        try:
            rows = [[float(cell) for cell in line.split()[2:]] for line in lines[1:] if line]
            parts.append(np.array(rows))
        except ValueError as error:
            raise InputError(f"{path}: {error}; expected numbers after date and time") from None
        if parts[-1].shape[1:] != (len(names) - 2,):
            raise InputError(f"{path}: found {len(names)} names, expected one for each column")
    missing = sorted({SML_TARGET, *SML_LEFT_OUT} - set(names))
    if missing:
        raise InputError(f"{path}: found no column {missing[0]}, expected those of SML2010")
    if parts[0].shape[1] != parts[1].shape[1]:
        raise InputError(f"{path}: found other columns than in {SML_FILES[0]}, expected the same")
    values, names = np.concatenate(parts), names[2:]
    driving = [name for name in names if name != SML_TARGET and name not in SML_LEFT_OUT]
    order = [names.index(name) for name in [*driving, SML_TARGET]]
    return values[:, order], [*driving, SML_TARGET]


def check_rows(path: Path, values: np.ndarray, rows: tuple[int, int, int]) -> None:
    """Refuse a series that is not as long as the paper's parts of it."""
    if len(values) != sum(rows):
        raise InputError(
            f"{path}: found {len(values)} rows, expected {sum(rows)}; download the series again"
        )


def series_settings(rows: tuple[int, int, int], **changes) -> RunSettings:
    """Return the settings of section 14, check 8, for parts of ``rows`` = (train, val, test)."""
    held_in, total = rows[0] + rows[1], sum(rows)
    return replace(
        RunSettings(),
        current_x=True,
        horizon=1,
        predict="change",
        layers=1,
        batch_size=128,
        learning_rate=0.001,
        shuffle_pixels="none",  # named series: their places are meant to be learned
        train_fraction=(held_in + 0.5) / total,  # half a row against truncation
        validation=rows[1] / held_in,
        **changes,
    )


def train_series(recording: Recording, settings: RunSettings) -> tuple[list[dict], int]:
    """Train on a table, keep the epoch of the best validation, return the metric rows."""
    prepared = prepare(settings, recording)
    device, _ = choose_device(settings.device)
    t_cfg, net = build(prepared, settings, device)
    progress = fit(prepared, settings, net, t_cfg)
    y_pred = predict_windows(
        net, prepared.data, prepared.test_starts, prepared.rule, permutation=progress.permutation
    ).y_pred
    return evaluate(prepared, y_pred), progress.best["epoch"]


def least_squares(values: np.ndarray, n_train: int, n_test: int, lags: int = 9) -> np.ndarray:
    """Return the predictions (n_test,) of least squares from x_T, x_{T-1} and ``lags`` y values.

    Args:
        values: (n, K), target last; fitted on the first ``n_train`` rows, tested on the last ones.
    """
    x, y = values[:, :-1], values[:, -1]

    def design(rows):
        history = y[rows[:, None] - np.arange(1, lags + 1)]
        return np.hstack([x[rows], x[rows - 1], history, np.ones((len(rows), 1))])

    fit_rows, test_rows = np.arange(lags, n_train), np.arange(len(y) - n_test, len(y))
    weights = np.linalg.lstsq(design(fit_rows), y[fit_rows], rcond=None)[0]
    return design(test_rows) @ weights


def table_row(
    data: str, model: str, errors: dict, seconds: float | None = None, note: str = ""
) -> dict:
    """Return one row of the result table from regression metrics in data units."""
    measures = {key: errors[key] for key in ("rmse", "mae", "mape_percent")}
    return {"data": data, "model": model, **measures, "seconds": seconds, "note": note}


def run_series(
    name: str,
    recording: Recording,
    rows: tuple[int, int, int],
    *,
    n_epochs: int,
    seeds: int,
    attention: str,
    device: str,
) -> list[dict]:
    """Return the table rows of one series: network (every seed), persistence, ridge, regression."""
    table = []
    for seed in range(seeds):
        began = time.perf_counter()
        settings = series_settings(
            rows, n_epochs=n_epochs, seed=seed, attention=attention, device=device
        )
        train_rows, epoch = train_series(recording, settings)
        seconds = time.perf_counter() - began
        for row in train_rows:
            if row["units"] == "data" and (row["model"] == "network" or seed == 0):
                network = row["model"] == "network"
                label = f"network {attention}, seed {seed}" if network else row["model"]
                note = f"epoch {epoch} of {n_epochs}" if network else ""
                table.append(table_row(name, label, row, seconds if network else None, note))
    target = recording.values[-rows[2] :, -1]
    y_pred = least_squares(recording.values, rows[0], rows[2])
    errors = regression_metrics(target, y_pred)
    table.append(table_row(name, "least squares (x_T, x_T-1, 9 y lags)", errors))
    return table


def load_derivative(path: Path) -> tuple[DaRnnNet, Scaler, dict]:
    """Return (DaRnnNet, Scaler, arrays) of the NASDAQ weights of a public derivative."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no weights in it ({error}); download it again") from None
    states = {
        part: {
            name[4:]: torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith(part)
        }
        for part in ("enc.", "dec.")
    }
    sizes = infer_sizes(states["enc."], states["dec."], path)
    # The derivative attends to T steps and keeps a history of T - 1.
    rule = WindowRule(sizes["steps"], horizon=1, current_x=True)
    options = ModelOptions(layers=sizes["layers"])
    net = build_net(sizes, rule=rule, options=options, learning_rate=0.001)
    load_parameters(net.encoder, states["enc."], path)
    load_parameters(net.decoder, states["dec."], path)
    mean, scale = (arrays[f"scaler_{name}"].astype(np.float64) for name in ("mean", "scale"))
    return net, Scaler(mean, scale, tuple(map(str, range(mean.size))), "derivative"), arrays


def predict_derivative(
    net: DaRnnNet, scaler: Scaler, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict NDX with the derivative's windows: x rows i..i+9, history i..i+8, target row i+10.

    Returns:
        predictions (n,) in index points, targets (n,), attention (n, 81).
    """
    steps = net.encoder.steps
    z = torch.from_numpy(scaler.transform(values))
    starts = np.arange(len(values) - steps)
    rows = torch.from_numpy(starts[:, None] + np.arange(steps))
    with torch.no_grad():
        _, encoded, alpha = net.encoder.encode(z[:, :-1][rows])
        y_pred = net.decoder(encoded, z[:, -1:][rows[:, :-1]])
    last = values.shape[1] - 1
    return scaler.invert(y_pred.numpy(), [last])[:, 0], values[steps:, -1], alpha[:, 0].numpy()


def derivative_rows(values: np.ndarray, path: Path) -> list[dict]:
    """Return the table rows of the derivative's weights on the whole excerpt."""
    net, scaler, _ = load_derivative(path)
    y_pred, target, _ = predict_derivative(net, scaler, values)
    note = f"{len(target)} windows"
    steps = net.encoder.steps
    rows = [("derivative weights", y_pred)]
    rows += [(f"persistence, {back} back", values[steps - back : -back, -1]) for back in (1, 2)]
    return [
        table_row("NASDAQ excerpt", model, regression_metrics(target, values_), note=note)
        for model, values_ in rows
    ]


def run_what_is_there(chosen: argparse.Namespace) -> None:
    """Run the series that the folder holds, print and write the table; ``chosen``: the flags."""
    folder = chosen.real_dir
    table, absent = [], []
    common = {"seeds": chosen.seeds, "attention": chosen.attention}
    common["device"] = chosen.device
    if all((folder / file).exists() for file in SML_FILES):
        values, names = read_sml(folder)
        check_rows(folder, values, SML_ROWS)
        recording = Recording(
            values, names, None, None, "table", folder / SML_FILES[0], target_label=names[-1]
        )
        table += run_series("SML2010", recording, SML_ROWS, n_epochs=chosen.n_epochs, **common)
    else:
        absent.append(SML_FILES[0])
    if (folder / NASDAQ_FILE).exists():
        recording = load_recording(folder / NASDAQ_FILE)
        check_rows(folder / NASDAQ_FILE, recording.values, NASDAQ_ROWS)
        if (folder / NASDAQ_WEIGHTS).exists():
            table += derivative_rows(recording.values, folder / NASDAQ_WEIGHTS)
        if chosen.nasdaq_epochs:
            table += run_series(
                "NASDAQ excerpt", recording, NASDAQ_ROWS, n_epochs=chosen.nasdaq_epochs, **common
            )
    else:
        absent.append(NASDAQ_FILE)
    if not table:
        raise InputError(f"{folder}: found none of {', '.join(absent)}; give --real_dir")
    for row in table:
        mape = "-" if row["mape_percent"] is None else f"{row['mape_percent']:.4f} %"
        print(
            f"{row['data']:15s} {row['model']:40s} RMSE {row['rmse']:.4f}  MAE {row['mae']:.4f}"
            f"  MAPE {mape}  {row['note']}"
        )
    for name, value in PAPER.items():
        print(f"{name:15s} {'paper, DA-RNN m=p=64':40s} RMSE {value:.4f}")
    for file in absent:
        print(f"{folder / file} is absent: left out")
    out = RESULTS_DIR / "benchmark_series"
    write_json(out / "series.json", {"rows": table, "paper_rmse": PAPER, "absent": absent})
    write_rows(out / "series.csv", table)
