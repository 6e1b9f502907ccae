"""From a trained run to the story that main.py tells: figures, report.

Reads the run folder of training.py; writes figures, CSV, report.html and summary.json into the
folder of the whole run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.animations import animate_row
from analysis.metrics import predict_rows
from analysis.util_analysis import (
    PREDICTED_COLOUR,
    RECORDED_COLOUR,
    Traces,
    plot_kernels,
    plot_loss_history,
    plot_trace_grid,
    plot_tuning,
)
from common.files import read_json
from common.report import (
    figure_block,
    paragraph,
    score_table,
    settings_table,
    table_block,
    write_report,
    write_summary,
)
from common.tables import read_rows, write_rows
from inputs.ca_dataloader import CalciumDataset
from inputs.stimuli import SIZES_DEG, make_family
from network.checkpoints import checkpoint_epochs, load_history, load_model, read_config
from network.models import STCNN
from runs.data import is_synthetic, open_dataset, stimulus_names
from runs.model_figures import kernel_degrees
from runs.predictions import How, Shown, predict_family
from runs.training import show_through

SHOWN_TRACES = 6
TRACES_A_ROW = 3  # more would be unreadable on a narrow page
PICTURE_HZ = 10  # drawn per second of a stimulus: more than twice the fastest flicker, 4 Hz
FIT_NOTE = (
    "Errors in (dF/F)². Correlations are means over traces; their ceiling is what a perfect model "
    "would reach with this noise. Normalised values count all traces as one recording and take its "
    "noise out: 1 is perfect; an empty cell: what trials share is not surely above the noise."
)


def read_items(run_dir: Path) -> list[dict]:
    """Return the rows of items.csv as text."""
    return read_rows(Path(run_dir) / "items.csv")


@dataclass(frozen=True)
class Told:
    """What the report tells of a run besides its files."""

    data: str  # one line
    seconds: float  # of the whole run
    seed: int
    synthetic: bool  # made by us, recorded from no animal
    scores: list[dict]
    main_score: dict | None
    figures: list[dict]  # path, caption, alt
    quality: list[dict]  # rows of scores.csv


def figure_of(run_dir: Path, path: Path, caption: str, alt: str) -> dict:
    """Return the entry of a figure in report and summary."""
    return {"path": str(path.relative_to(run_dir)), "caption": caption, "alt": alt}


def draw_tuning(run_dir: Path, model_dir: Path) -> list[dict]:
    """Draw size tuning and looming of the model, stimuli that no training needs to hold."""
    model = load_model(model_dir)
    families = {name: make_family(name, model.display) for name in ("size_tuning", "looming")}
    peaks = {
        name: predict_family([model], Shown(name, stimuli), How()).peaks
        for name, stimuli in families.items()
    }
    labels = [stimulus.label for stimulus in families["looming"]]
    maps = {kind: values.reshape(7, 7) for kind, values in peaks["size_tuning"].items()}
    path = plot_tuning(run_dir / "tuning.png", SIZES_DEG, maps, labels, peaks["looming"])
    return [figure_of(
        run_dir, path,
        "Predicted peaks of every cell type: a dark rectangle of each width and height moving at "
        "100 deg/s (above), and discs and rings that grow, loom and shrink (below).",
        "Maps of size tuning above points of looming responses, a column per cell type",
    )]  # fmt: skip


def draw_story(run_dir: Path, model_dir: Path, settings: dict) -> list[dict]:
    """Draw every figure of the model and the main picture; return the figures for the report."""
    dataset = open_dataset(settings)
    model = load_model(model_dir)
    show_through(dataset, model)
    names, word = stimulus_names(settings), data_word(is_synthetic(settings))
    items = read_items(model_dir)
    figures = []

    def add(path, caption, alt):
        figures.append(figure_of(run_dir, path, caption, alt))

    held = {int(row["barcode"]) for row in items if row["part"] == "held_out"}
    held = held or {int(row["barcode"]) for row in items}
    for kind in model.cell_types:
        rows = strongest(dataset, kind, held)[:SHOWN_TRACES]
        path = draw_traces(run_dir / f"traces_{kind}.png", dataset, model, rows, names, word)
        add(path, f"{kind}: {word} (orange, mean over trials) and predicted (blue) traces of its "
            "first neuron on the stimuli with the largest responses among those held out.",
            f"{kind}: {word} and predicted calcium traces")  # fmt: skip
    add(
        draw_picture(run_dir / "main_picture.gif", dataset, model, held, names, word),
        f"Held-out stimuli above {word} (orange) and predicted (blue) traces, at their real speed.",
        f"Stimulus movies above {word} and predicted calcium traces",
    )
    history, _ = load_history(model_dir)
    epochs = checkpoint_epochs(model_dir)
    path = plot_loss_history(run_dir / "training_loss_hist.png", history, max(max(epochs), 1))
    add(path, "Training loss per batch and its rolling mean.",
        "Curves of the training loss per batch and of its rolling mean")  # fmt: skip
    degrees = kernel_degrees(read_config(Path(model_dir) / "config.json"))
    kernels = {
        "hidden_layer0": (model.network[0], degrees[0]),
        **{
            kind: (layer, degrees[-1])
            for kind, layer in zip(model.cell_types, model.lc_layers, strict=True)
        },
    }
    for name, (layer, step) in kernels.items():
        weights = layer.x_weight.detach().numpy()
        path = plot_kernels(run_dir / f"kernels_{name}.png", weights, name, step)
        add(path, f"{name}: spatial weights after training, orange above 0, purple below.",
            f"Pictures of the kernels of {name}")  # fmt: skip
    return figures


def data_word(synthetic: bool) -> str:
    """Return what the traces of the data are called: only those of an animal are recorded."""
    return "synthetic" if synthetic else "recorded"


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
    path: Path,
    dataset: CalciumDataset,
    model: STCNN,
    rows: Sequence[int],
    names: dict[int, str],
    word: str,
) -> Path:
    """Draw the traces of the data (``word``) and predicted ones of items; write them as CSV."""
    curves = predict_rows(model, dataset, rows)
    given = np.stack([dataset.trace(dataset.items[row]).numpy() for row in rows])
    seconds = (np.arange(curves.shape[1]) - dataset.onset(dataset.items[rows[0]])) * model.dt
    codes = [dataset.items[row].barcode for row in rows]
    columns = [
        {"seconds": float(seconds[i]),
         **{f"vstim_{code}_{word}": float(given[k, i]) for k, code in enumerate(codes)},
         **{f"vstim_{code}_predicted": float(curves[k, i]) for k, code in enumerate(codes)}}
        for i in range(len(seconds))
    ]  # fmt: skip
    write_rows(path.with_suffix(".csv"), columns)
    top = 1.1 * max(given.max(), curves.max(), 0.3)
    traces = Traces(seconds, curves, recorded=[(seconds, trace[None]) for trace in given])
    titles = [names.get(code, f"vstim_{code}") for code in codes]
    columns = min(TRACES_A_ROW, len(rows))
    shape = (math.ceil(len(rows) / columns), columns)
    return plot_trace_grid(path, traces, titles, shape=shape, y=(-0.2, top), onset_s=0.0)


def draw_picture(
    path: Path,
    dataset: CalciumDataset,
    model: STCNN,
    held: set[int],
    names: dict[int, str],
    word: str,
) -> Path:
    """Animate a held-out stimulus per type: the movie above traces of the data and predicted."""
    panels = []
    for kind in model.cell_types[:3]:
        row = strongest(dataset, kind, held)[0]
        item = dataset.items[row]
        onset, (_, stop) = dataset.onset(item), dataset.window(item)
        curve = predict_rows(model, dataset, [row])[0]
        panels.append(
            {
                "title": f"{kind}\n{names.get(item.barcode, f'vstim_{item.barcode}')}",
                "movie": dataset.movie(item)[onset:stop, 0].numpy(),
                "seconds": np.arange(stop - onset) * model.dt,
                "traces": [dataset.trace(item).numpy()[onset:stop], curve[onset:stop]],
                "labels": [word, "predicted"],
                "colours": [RECORDED_COLOUR, PREDICTED_COLOUR],
            }
        )
    top = max(float(np.max(panel["traces"])) for panel in panels)
    step = max(1, round(1 / model.dt / PICTURE_HZ))
    y = (-0.2, 1.1 * max(top, 0.3))
    animate_row(path, panels, step=step, y=y, fps=1 / model.dt / step)  # at its real speed
    return path


def write_story(run_dir: Path, told: Told) -> None:
    """Write report.html, then summary.json."""
    title = "Calcium of fly visual neurons from movies"
    sections = [("Scores", score_table(told.scores))] if told.scores else []
    header = list(told.quality[0])
    rows = [[_short(row[key]) for key in header] for row in told.quality]
    fit = "Fit to the synthetic traces" if told.synthetic else "Fit to the recordings"
    sections.append(("Figures", figure_block(run_dir, told.figures)))
    rows = [[cell.replace("held_out", "held out") for cell in row] for row in rows]
    names = {"mse": "mean squared error", "r2": "R2"}
    table = table_block([names.get(name, name) for name in header], rows)
    sections.append((fit, table + paragraph(FIT_NOTE)))
    record = read_json(Path(run_dir) / "settings.json", remedy="use --fresh")
    sections.append(("Settings", settings_table(record)))
    lead = "What do visual neurons of the fly answer to a movie that the model has never seen? "
    lead += f"Data: {told.data}; seed {told.seed}; {told.seconds:.0f} s."
    write_report(run_dir, title, lead, sections)
    write_summary(
        run_dir,
        {
            "folder": "stcnn",
            "run": run_dir.name,
            "title": title,
            "seconds": round(told.seconds, 1),
            "seed": told.seed,
            "data": told.data,
            "main_picture": "main_picture.gif",
            "main_picture_alt": f"Stimulus movies above {data_word(told.synthetic)} and predicted "
            "calcium traces",
            "figures": told.figures,
            "scores": told.scores,
            "planted_truth": told.main_score,
            "report": "report.html",
        },
    )


def _short(value):
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value
