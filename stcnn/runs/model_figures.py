"""Figures and tables of a run's training loss and weights. Source: specification 8.2."""

import sys
from pathlib import Path

import numpy as np

from analysis.util_analysis import plot_kernels, plot_loss_history, plot_parameter_histograms
from common.files import InputError
from common.tables import write_rows
from inputs.display import Display
from network.checkpoints import checkpoint_epochs, load_history, model_state, read_config

SHOWN_EPOCHS = (0, 5, 10)  # besides the last one
PATTERNS = (".x_weight", ".tau", ".bias")


def draw_loss(run_dir: Path, out: Path, n_epochs: int) -> Path:
    """Draw the loss history and write it as CSV; return the figure's path."""
    history, _ = load_history(run_dir)
    rows = [
        {"cell_type": name, "iteration": i, "loss": value}
        for name, values in history.items()
        for i, value in enumerate(values)
    ]
    if rows:
        write_rows(out / "training_loss.csv", rows)
    return plot_loss_history(out / "training_loss_hist.png", history, n_epochs)


def kernel_degrees(config: dict) -> list[tuple[float, float]]:
    """Return the degrees between neighbouring weights, along rows and columns.

    One pair for each hidden layer, the last one for the read-outs: the pixels of the movie times
    the strides of the lens and of the layers before.
    """
    step = np.full(2, Display.of_config(config).deg_per_px)
    strides = [config["pr_config"]["x_stride"], *config["network_config"]["x_stride"]]
    steps = []
    for stride in strides:
        step = step * np.broadcast_to(stride, 2)
        steps.append((float(step[0]), float(step[1])))
    return steps


def draw_checkpoint(path: Path, config: dict, out: Path) -> list[Path]:
    """Draw the weights of one checkpoint and write its tables; return the figures' paths."""
    state = model_state(path)
    label, figures = path.stem, []
    hidden = [name for name in state if name.startswith("network.") and name.endswith(".x_weight")]
    *degrees, last = kernel_degrees(config)
    for i, name in enumerate(hidden):
        weights = state[name].numpy()
        layer = f"hidden_layer{i}"
        figures.append(plot_kernels(out / f"{label}_{layer}.png", weights, layer, degrees[i]))
    for j, kind in enumerate(config["L_config"]["lc_types"]):
        weights = state[f"lc_layers.{j}.x_weight"].numpy()
        figures.append(plot_kernels(out / f"{label}_{kind}.png", weights, kind, last))
    groups = {
        pattern: {name: value.numpy() for name, value in state.items() if pattern in name}
        for pattern in PATTERNS
    }
    figures.append(plot_parameter_histograms(out / f"{label}_parameter_hist.png", groups))
    write_rows(
        out / f"{label}_parameters.csv",
        [
            {
                "name": name,
                "shape": " x ".join(map(str, value.shape)) or "1",
                "min": float(value.min()),
                "max": float(value.max()),
                "mean": float(value.double().mean()),
            }
            for name, value in state.items()
        ],
    )
    times = [name for name in state if name.endswith(".tau") or name == "global_ca_tau"]
    write_rows(
        out / f"{label}_time_constants.csv",
        [
            {"name": name, "channel": i, "tau_ms": 1000 * float(value)}
            for name in times
            for i, value in enumerate(state[name].flatten())
        ],
    )
    return figures


def draw_run(run_dir: Path, out: Path) -> list[Path]:
    """Draw loss and the shown checkpoints of a run folder; return the figures' paths."""
    run_dir = Path(run_dir)
    epochs = checkpoint_epochs(run_dir)
    if not epochs:
        raise InputError(
            f"{run_dir}: no model_chkpnt_<epoch> inside; give a run folder of train.py"
        )
    config = read_config(run_dir / "config.json")
    out.mkdir(parents=True, exist_ok=True)
    figures = []
    try:
        figures.append(draw_loss(run_dir, out, max(max(epochs), 1)))
    except InputError as error:
        print(f"no loss curve: {error}", file=sys.stderr)
    for epoch, path in epochs.items():
        if epoch in SHOWN_EPOCHS or epoch == max(epochs):
            figures += draw_checkpoint(path, config, out)
    return figures
