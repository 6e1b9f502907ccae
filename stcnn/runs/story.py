"""From a trained run to the story that main.py tells: figures, report.

Reads the run folder of training.py; writes figures, CSV, report.html and summary.json into the
folder of the whole run.
"""

from pathlib import Path

import numpy as np

from analysis.animations import animate_row
from analysis.metrics import predict_rows
from analysis.util_analysis import plot_kernels, plot_loss_history, plot_trace_grid
from common.files import read_json
from common.report import (
    figure_block,
    score_table,
    settings_table,
    table_block,
    write_report,
    write_summary,
)
from common.tables import read_rows, write_rows
from inputs.ca_dataloader import CalciumDataset
from network.checkpoints import checkpoint_epochs, load_history, load_model
from network.models import STCNN
from runs.data import open_dataset
from runs.training import sampler_of

SHOWN_TRACES = 6
PICTURE_HZ = 5  # frames of the stimulus drawn per second of it


def read_items(run_dir: Path) -> list[dict]:
    """Return the rows of items.csv as text."""
    return read_rows(Path(run_dir) / "items.csv")


def draw_story(run_dir: Path, model_dir: Path, settings: dict) -> list[dict]:
    """Draw every figure of the model and the main picture; return the figures for the report."""
    dataset = open_dataset(settings)
    model = load_model(model_dir)
    dataset.sample = sampler_of(model)
    items = read_items(model_dir)
    figures = []

    def add(path, caption, alt):
        figures.append({"path": str(path.relative_to(run_dir)), "caption": caption, "alt": alt})

    held = {int(row["barcode"]) for row in items if row["part"] == "held_out"}
    held = held or {int(row["barcode"]) for row in items}
    for kind in model.cell_types:
        path = draw_traces(run_dir / f"traces_{kind}.png", dataset, model, kind, held)
        add(path, f"{kind}: recorded (orange, mean over trials) and predicted (blue) traces of its "
            "first neuron on the stimuli with the largest responses among those held out.",
            f"{kind}: recorded and predicted calcium traces")  # fmt: skip
    history, _ = load_history(model_dir)
    epochs = checkpoint_epochs(model_dir)
    path = plot_loss_history(run_dir / "training_loss_hist.png", history, max(max(epochs), 1))
    add(path, "Training loss per batch and its rolling mean.",
        "Curves of the training loss per batch and of its rolling mean")  # fmt: skip
    kernels = {
        "hidden_layer0": model.network[0],
        **dict(zip(model.cell_types, model.lc_layers, strict=True)),
    }
    for name, layer in kernels.items():
        path = plot_kernels(run_dir / f"kernels_{name}.png", layer.x_weight.detach().numpy(), name)
        add(path, f"{name}: spatial weights after training.", f"Pictures of the kernels of {name}")
    draw_picture(run_dir / "main_picture.gif", dataset, model, held)
    return figures


def strongest(dataset: CalciumDataset, kind: str, held: set[int]) -> list[int]:
    """Return items of the first neuron of ``kind`` on held stimuli, largest response first."""
    rows = [
        row
        for row, item in enumerate(dataset.items)
        if item.cell_type == kind
        and item.neuron_num == 0
        and item.barcode in held
        and not item.trial
    ]
    return sorted(rows, key=lambda row: -float(dataset.trace(dataset.items[row]).max()))


def draw_traces(
    path: Path, dataset: CalciumDataset, model: STCNN, kind: str, held: set[int]
) -> Path:
    """Draw recorded and predicted traces of one neuron and write them beside as CSV."""
    rows = strongest(dataset, kind, held)[:SHOWN_TRACES]
    curves = predict_rows(model, dataset, rows)
    recorded = np.stack([dataset.trace(dataset.items[row]).numpy() for row in rows])
    seconds = (np.arange(curves.shape[1]) - dataset.onset(dataset.items[rows[0]])) * model.dt
    titles = [f"vstim_{dataset.items[row].barcode}" for row in rows]
    columns = [
        {"seconds": float(seconds[i]),
         **{f"{titles[k]}_recorded": float(recorded[k, i]) for k in range(len(rows))},
         **{f"{titles[k]}_predicted": float(curves[k, i]) for k in range(len(rows))}}
        for i in range(len(seconds))
    ]  # fmt: skip
    write_rows(path.with_suffix(".csv"), columns)
    top = 1.1 * max(recorded.max(), curves.max(), 0.3)
    return plot_trace_grid(
        path, seconds, curves, titles, shape=(1, len(rows)), y=(-0.2, top), onset_s=0.0,
        recorded=[(seconds, trace[None]) for trace in recorded], strong=True,
    )  # fmt: skip


def draw_picture(path: Path, dataset: CalciumDataset, model: STCNN, held: set[int]) -> Path:
    """Animate a held-out stimulus per type: the movie above recorded and predicted traces."""
    panels = []
    for kind in model.cell_types[:3]:
        row = strongest(dataset, kind, held)[0]
        item = dataset.items[row]
        onset, (_, stop) = dataset.onset(item), dataset.window(item)
        curve = predict_rows(model, dataset, [row])[0]
        panels.append(
            {
                "title": f"{kind}, vstim_{item.barcode}",
                "movie": dataset.movie(item)[onset:stop, 0].numpy(),
                "seconds": np.arange(stop - onset) * model.dt,
                "traces": [dataset.trace(item).numpy()[onset:stop], curve[onset:stop]],
                "labels": ["recorded", "predicted"],
            }
        )
    top = max(float(np.max(panel["traces"])) for panel in panels)
    step = max(1, round(1 / model.dt / PICTURE_HZ))
    y = (-0.2, 1.1 * max(top, 0.3))
    animate_row(path, panels, step=step, y=y, fps=1 / model.dt / step)  # at its real speed
    return path


def write_story(
    run_dir: Path,
    *,
    title: str,
    data: str,
    seconds: float,
    seed: int,
    scores: list[dict],
    main_score: dict | None,
    figures: list[dict],
    quality: list[dict],
) -> None:
    """Write report.html, then summary.json."""
    sections = [("Scores", score_table(scores))] if scores else []
    header = list(quality[0])
    sections.append(
        (
            "Fit to the recordings",
            table_block(header, [[_short(row[key]) for key in header] for row in quality]),
        )
    )
    sections.append(("Figures", figure_block(run_dir, figures)))
    record = read_json(Path(run_dir) / "settings.json", remedy="use --fresh")
    sections.append(("Settings", settings_table(record)))
    lead = f"{data}. Seed {seed}; {seconds:.0f} s on this machine."
    write_report(run_dir, title, lead, sections)
    write_summary(
        run_dir,
        {
            "folder": "stcnn",
            "run": run_dir.name,
            "title": title,
            "seconds": round(seconds, 1),
            "seed": seed,
            "data": data,
            "main_picture": "main_picture.gif",
            "main_picture_alt": "Stimulus movies above recorded and predicted calcium traces",
            "figures": figures,
            "scores": scores,
            "planted_truth": main_score,
            "report": "report.html",
        },
    )


def _short(value):
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value
