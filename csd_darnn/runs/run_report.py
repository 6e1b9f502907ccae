"""Put everything that a run has written on one page: report.html, and summary.json behind it."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.heatmap import MAP_LABELS
from analysis.onset import describe
from common.files import RESULTS_DIR, InputError, read_json
from common.locks import hold, visible
from common.report import (
    figure_block,
    paragraph,
    score_table,
    settings_table,
    table_block,
    write_report,
    write_summary,
)

LARGEST_INLINE = 1_500_000  # bytes; a larger GIF is linked instead of shown
# Figures in the order of the page: pattern of the file's stem, heading, caption, alternative text.
FIGURES = (
    (
        r"maps(_.+)?",
        "Maps of what mattered",
        "Mean maps over the test part, permutation and gradient over training windows. The control "
        "map |x| uses no network: a map that looks like it only repeats brightness.",
        "Maps of the image side by side: attention, control, gradient and permutation importance",
    ),
    (
        r"drivers(_.+)?",
        "Search for drivers",
        "Candidates tested against records shifted in time: q, the chance that the best of all "
        "candidates stands out as far without any driver; how many frames before the target the "
        "discovered ones tell most; and how much they add.",
        "Maps of the chance of a false discovery, the lag and the gain of every block of pixels",
    ),
    (
        r"onset_map",
        "Onset of the depression",
        "Arrival of the wave at every pixel and over the distance from its origin, found without "
        "the network.",
        "Map of the arrival time of the wave, and arrival time over the distance from its origin",
    ),
    (
        r"final_predicted(_.+)?",
        "Predictions",
        "Test part: true and predicted intensity.",
        "Curves of the true and the predicted intensity over the test part",
    ),
    (
        r"pred_final",
        "Predictions",
        "Whole record, trained network: true intensity, prediction of the training part and of the "
        "test part.",
        "Curves of the true intensity and its predictions over the whole record",
    ),
    (
        r"pred_\d+(_.+)?",
        "Predictions",
        "Whole record: true intensity, prediction of the training part and of the test part.",
        "Curves of the true intensity and its predictions over the whole record",
    ),
    (
        r"epoch_loss",
        "Training",
        "Mean training loss of every epoch.",
        "Curve of the mean training loss over the epochs",
    ),
    (
        r"iter_loss",
        "Training",
        "Training loss of every iteration.",
        "Curve of the training loss over the iterations",
    ),
    (r".+", "Further figures", "", "Further figure of the run"),
)
MAP_NOTE = (
    "The published heat map is |alpha x| at input step 1: attention times brightness. Attention "
    "differs between seeds and is the same at all steps of a window; permutation and gradient "
    "importance are the maps to trust. AUC for bright pixels: chance that a pixel of the "
    "brightest tenth of the control map ranks above another one; near 1 the map repeats brightness."
)
MOVIE_WORDS = {
    "permutation": "Permutation importance, one map and one scale, over the frames of the test",
}
PARTS = {"before_csd": "test, before the depression"}
SPLIT_NOTE = (
    "z: standardised units of the training part; data: units of the recording. MSE, RMSE, MAE and "
    "MAPE: mean squared, root mean squared, mean absolute and mean relative error."
)


def natural_order(stem: str) -> list:
    """Return a sorting key by which pred_5 comes before pred_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", stem)]


def shown_figures(run_dir: Path) -> list:
    """Return [(heading, [{"path", "caption", "alt"}])] of plots/*.png in the order of FIGURES."""
    groups = {}
    left = {path.stem: path for path in visible(Path(run_dir) / "plots", "*.png")}
    drawn = set(left)
    for pattern, heading, caption, alt in FIGURES:
        stems = [stem for stem in left if re.fullmatch(pattern, stem)]
        stems.sort(key=natural_order)
        if heading == "Predictions" and "pred_final" in drawn and pattern.startswith(r"pred_\d"):
            for stem in stems:
                left.pop(stem)  # unfinished networks: their figures stay in plots/
            continue
        for stem in stems:
            path = left.pop(stem)
            words = stem.replace("_", " ")
            # Several figures of a kind (epochs, targets) are told apart by their name.
            several = len(stems) > 1 or not caption
            figure = {
                "path": f"plots/{path.name}",
                "caption": f"{words}. {caption}".strip() if several else caption,
                "alt": f"{alt} ({words})" if several else alt,
            }
            groups.setdefault(heading, []).append(figure)
    return list(groups.items())


def number(value: Any) -> str:
    """Return a number with 4 digits, text as it is, a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_number(text: str) -> str:
    """Return the text of a CSV cell, a fraction rounded to 4 digits."""
    return f"{float(text):.4g}" if re.fullmatch(r"-?\d+\.\d+(e[-+]\d+)?", text) else text


def metric_table(rows: list[dict]) -> str:
    """Return the table of metrics.json's rows; a target is called by its place where it is told."""
    rows = [
        row
        | {
            "target": row.get("target_place", row["target"]),
            "part": PARTS.get(row["part"], row["part"]),
        }
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "target_place"))
    cells = [[number(row.get(name)) for name in names] for row in rows]
    return table_block(names, cells)


def map_table(maps: dict) -> str:
    """Return the table: how far each map agrees with the control map."""
    called = {"reference": "published"}
    rows = [
        (called.get(name, name), number(m.get("correlation")), number(m.get("auc")))
        for name, m in maps.items()
    ]
    return table_block(("map", "correlation with the control", "AUC for bright pixels"), rows)


def training_table(path: Path) -> str:
    """Return the table of log.csv: the first and the last three epochs, the numbers taken."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    body = [[as_number(cell) for cell in row] for row in rows[1:]]
    used = [i for i in range(len(rows[0])) if any(row[i] for row in body)]  # taken in some epoch
    head = ["learning rate" if rows[0][i] == "rate" else rows[0][i] for i in used]
    body = [[row[i] for i in used] for row in body]
    if len(body) > 6:
        body = [*body[:3], ["..."] * len(head), *body[-3:]]
    return table_block(head, body)


def movie_block(
    run_dir: Path,
    main_picture: str | None,
    shown_map: str | None = None,
    full_map: str | None = None,
) -> str:
    """Return the small GIF inline and links to the full movies.

    Args:
        shown_map: name of the map that the small GIF shows.
        full_map: name of the map of the full movies, --map.
    """
    what = MOVIE_WORDS.get(shown_map, "Heat map of --map over the recording")
    links = [path.name for path in visible(run_dir, "heatmap*") if path.is_file()]
    blocks = []
    if main_picture and (Path(run_dir) / main_picture).stat().st_size <= LARGEST_INLINE:
        alt = f"{what}, as a movie"
        caption = f"{what}; the target is hatched."
        blocks.append(
            figure_block(run_dir, [{"path": main_picture, "caption": caption, "alt": alt}])
        )
    full = MAP_LABELS.get(full_map, "the map of --map")
    text = f"Movies in the folder of this run; heatmap.mp4 has every frame of {full}:"
    blocks.append(paragraph(text, links=links))
    return "".join(blocks)


@dataclass(frozen=True)
class Page:
    """What a report tells that the files of the run do not hold.

    Attributes:
        title: heading of the page.
        data: one line about the recording.
        seconds: time of the whole run.
        seed: seed of the run.
        scores: list of dicts name, value, unit, target, passed, control (see write_summary).
        planted_truth: the main one of them, None for a recording without planted truth.
        main_picture: GIF or PNG in the run's folder that shows the result at a glance.
        lead: sentence under the heading; default: the verdict of metrics.json.
    """

    title: str
    data: str
    seconds: float
    seed: int
    scores: list[dict]
    planted_truth: dict | None
    main_picture: str | None = None
    lead: str | None = None


def write_run_report(run_dir: Path, page: Page) -> Path:
    """Write report.html from the files of a run, then summary.json; return the report's path."""
    run_dir, main_picture = Path(run_dir), page.main_picture
    groups = dict(shown_figures(run_dir))
    if main_picture is None and (run_dir / "plots" / "maps.png").is_file():
        main_picture = "plots/maps.png"
    metrics = read_json(run_dir / "metrics.json")
    sections = [("Scores", score_table(page.scores))]
    rows = paragraph(metrics["verdict"]) + metric_table(metrics["rows"]) + paragraph(SPLIT_NOTE)
    sections.append(("Network and baselines", rows))
    for heading, figures in groups.items():
        block = figure_block(run_dir, figures)
        if heading.startswith("Maps"):
            block = paragraph(MAP_NOTE) + block + map_table(metrics.get("maps", {}))
        elif heading.startswith("Search"):
            block = "".join(paragraph(text) for text in metrics.get("drivers", [])) + block
        elif heading.startswith("Onset") and (run_dir / "onset.json").is_file():
            told = describe(read_json(run_dir / "onset.json"))
            block = paragraph(f"{told[0].upper()}{told[1:]}.") + block
        elif heading == "Training" and (run_dir / "log.csv").is_file():
            block += training_table(run_dir / "log.csv")
        sections.append((heading, block))
    kept = run_dir / "settings.json"
    record = read_json(kept) if kept.is_file() else {}
    if visible(run_dir, "heatmap*"):
        picture = main_picture if main_picture and main_picture.endswith(".gif") else None
        named = metrics.get("picture_map"), record.get("settings", {}).get("map")
        sections.insert(2, ("Movie", movie_block(run_dir, picture, *named)))
    if record:
        record.get("settings", {}).pop("identity", None)  # repeats some of the settings
        sections.append(("Settings", settings_table(record)))
    facts = f"Data: {page.data}; seed {page.seed}; {page.seconds:.0f} s."
    path = write_report(run_dir, page.title, f"{page.lead or metrics['verdict']} {facts}", sections)
    write_summary(
        run_dir,
        {
            "folder": "csd_darnn",
            "run": run_dir.name,
            "title": page.title,
            "lead": page.lead or metrics["verdict"],
            "seconds": round(page.seconds, 1),
            "seed": page.seed,
            "data": page.data,
            "main_picture": main_picture,
            "main_picture_alt": "Heat map of what drives the prediction, over the recording",
            "figures": [figure for figures in groups.values() for figure in figures],
            "scores": page.scores,
            "planted_truth": page.planted_truth,
            "report": path.name,
        },
    )
    return path


def rewrite_report(run: str) -> Path:
    """Write the report of a finished run again, from its name or folder; return its path."""
    named = RESULTS_DIR / run  # first: a run called demo is not the wing of that name
    run_dir = named if named.is_dir() else Path(run)
    if not (run_dir / "summary.json").is_file():
        raise InputError(f"{run_dir}: no summary.json, expected a finished run; run main.py")
    hold(run_dir)
    told = read_json(run_dir / "summary.json")
    names = ("title", "data", "seconds", "seed", "scores", "planted_truth", "main_picture", "lead")
    missing = [name for name in names if name not in told]
    if missing:
        raise InputError(f"{run_dir / 'summary.json'}: lacks {missing[0]}; run main.py again")
    return write_run_report(run_dir, Page(**{name: told[name] for name in names}))
