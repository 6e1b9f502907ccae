"""report.html and summary.json of a run of the whole story."""

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.uid import UID

from analysis.figures import CALIBRATION
from analysis.metrics import against_baselines, beside_table, decisions
from common.files import DATA_DIR as DATA
from common.files import read_json
from common.report import (
    close_run,
    figure_block,
    paragraph,
    score_table,
    settings_table,
    table_block,
    write_report,
    write_summary,
)
from common.tables import read_rows


def cohort_table(root: Path) -> tuple[tuple, list[tuple]]:
    """Return (header, rows) of the cohort: each fact of the manifest with the number of files."""
    rows = read_rows(Path(root) / "manifest.csv")
    used = [row for row in rows if row["status"] not in ("skipped", "failed")]
    facts = [("DICOM files", len(rows)), ("movies used", len(used))]
    facts.append(("patients", len({row["id"] for row in used})))
    for column, text, shown in (
        ("class", "movies of class {}", str),
        ("fps", "movies at {} frames/s", lambda rate: f"{float(rate):g}" if rate else "unknown"),
        ("transfer_syntax", "movies of transfer syntax {}", lambda uid: UID(uid).name),
    ):
        for value in sorted({row[column] for row in used}):
            facts.append((text.format(shown(value)), sum(row[column] == value for row in used)))
    frames = sorted(int(row["frames"]) for row in used)
    if frames:
        span = f"{frames[0]}" if frames[0] == frames[-1] else f"{frames[0]} to {frames[-1]}"
        facts.append(("frames per movie", span))
    for reason in sorted({row["reason"] for row in rows if row["reason"]}):
        facts.append((f"left out: {reason}", sum(row["reason"] == reason for row in rows)))
    return ("fact", "number"), facts


def result_figures(run_dir: Path, results: dict) -> list[dict]:
    """Return the figure entries that every report shows: curves, ROC, calibration, gallery."""
    run_dir = Path(run_dir)
    figures = [
        (
            f"{results['name']}_curves.png",
            "Training and validation over the epochs.",
            "Curves of training and validation over the epochs",
        ),
        (
            results["predictions"] / "roc.png",
            "ROC over patients.",
            "ROC curves of movies and patients",
        ),
        (
            results["predictions"] / "calibration.png",
            CALIBRATION,
            "Observed share of RV failure over the predicted probability",
        ),
    ]
    for row in read_rows(results["pictures"] / "index.csv"):
        text = f"{row['file']}: {row['kind']}, probability {float(row['movie_probability']):.2f}"
        text += f" ({float(row['probability']):.2f} of this clip)"
        for suffix, what in (
            (".gif", "Input movie above the guided gradient of the logit"),
            ("_gradcam.png", "Grad-CAM of both streams over the mean picture"),
        ):
            path = results["pictures"] / f"{row['name']}{suffix}"
            if suffix == ".gif" or tells_a_place(run_dir / path.with_name(f"{row['name']}.npz")):
                figures.append((path, f"{text}. {what}.", what))
    return [
        {"path": str((run_dir / path).relative_to(run_dir)), "caption": caption, "alt": alt}
        for path, caption, alt in figures
    ]


def tells_a_place(path: Path) -> bool:
    """Return whether Grad-CAM of a stream, kept in ``path`` (.npz), is not the same everywhere.

    A small clip leaves one place in the last stage: a picture of that would show nothing.
    """
    with np.load(path, allow_pickle=False) as arrays:
        cams = [arrays[name] for name in ("cam_grey", "cam_of")]
    return any(float(np.ptp(cam)) > 1e-6 * float(np.abs(cam).max()) for cam in cams)


OUTSIDE = (
    "Outside the fan lie text, scales and black. What lies there shows no heart: a gradient there "
    "says that the probability would move if these pixels did, not that it came from them. A share "
    "near that of the area means that the gradient points nowhere in particular. What these pixels "
    "do to the result stands above: the AUC with all of them blanked. Text that differs between "
    "patients (names, dates, settings) can be learnt by heart: cut it off with --crop."
)


def outside_section(results: dict) -> str:
    """Return the table of the gradient outside the fan, and what it means."""

    def percent(value):
        return f"{100 * float(value):.0f} %" if value else "-"

    header = ("movie", "kind", "outside the fan: area", "gradient of grey", "gradient of flow")
    names = ("outside_area", "outside_grey", "outside_of")
    rows = [
        (row["file"], row["kind"], *(percent(row[name]) for name in names))
        for row in read_rows(results["pictures"] / "index.csv")
    ]
    return table_block(header, rows) + paragraph(OUTSIDE)


def number_sections(results: dict) -> list[tuple[str, str]]:
    """Return the sections of every report: beside the network, decisions, gradient outside."""
    metrics = results["metrics"]
    return [
        (
            "Beside the network",
            table_block(*beside_table(metrics, results["beside"]))
            + "".join(map(paragraph, against_baselines(metrics, results["beside"]))),
        ),
        ("Decisions at probability 0.5", table_block(*decisions(metrics))),
        ("Gradient outside the fan", outside_section(results)),
    ]


class Page(NamedTuple):
    """What the report and the summary of a run say."""

    title: str
    lead: str
    data: str  # one line
    sections: list[tuple[str, str]]  # heading and HTML
    figures: list[dict]
    main_figure: dict
    scores: list[dict]
    planted_truth: dict | None  # the main score of a demo


def finish_run(run_dir: Path, page: Page, *, seed: int, begun: float) -> int:
    """Write report.html and summary.json and return the exit code of the run.

    Args:
        begun: ``time.perf_counter`` at the start of the run.
    """
    write_report(run_dir, page.title, page.lead, page.sections)
    write_summary(
        run_dir,
        {
            "folder": DATA.name,
            "run": run_dir.name,
            "title": page.title,
            "seconds": round(time.perf_counter() - begun, 1),
            "seed": seed,
            "data": page.data,
            "main_picture": page.main_figure["path"],
            "main_picture_alt": page.main_figure["alt"],
            "figures": page.figures,
            "scores": page.scores,
            "planted_truth": page.planted_truth,
            "report": "report.html",
        },
    )
    return close_run(run_dir)


def report_own_data(results: dict, run_dir: Path, settings: dict, *, begun: float) -> int:
    """Report a run on the user's cohort and return its exit code.

    Args:
        results: of ``run_networks``.
        run_dir, settings: of the run.
        begun: ``time.perf_counter`` at its start.
    """
    root = Path(settings["root"])
    shutil.copy(run_dir / "two_stream_csv" / f"{results['name']}.csv", run_dir / "log.csv")
    figures = result_figures(run_dir, results)
    patients = results["metrics"]["test"]["patients"]
    low, high = patients["auc_ci95_bootstrap"] or (None, None)
    scores = [
        {
            "name": f"test {name}",
            "value": value,
            "unit": "",
            "target": "",
            "passed": None,
            "control": False,
        }
        for name, value in (
            ("AUC over patients", patients["auc"]),
            ("AUC, lower end of its 95 % interval (bootstrap of patients)", low),
            ("AUC, upper end of its 95 % interval (bootstrap of patients)", high),
            ("specificity at 80 % sensitivity", patients["spec_at_sens80"]),
            ("sensitivity at 80 % specificity", patients["sens_at_spec80"]),
            ("Brier score", patients["brier"]),
            ("patients", patients["n"]),
            ("patients with RV failure", patients["n_positive"]),
        )
    ]
    record = read_json(run_dir / "settings.json")
    # The name of a DICOM file may be that of a person: the page that is passed on leaves it out.
    tables = {name: value for name, value in record["inputs"].items() if name.endswith(".csv")}
    sections = [
        ("Scores", score_table(scores)),
        ("Figures", figure_block(run_dir, figures)),
        *number_sections(results),
        ("Cohort", table_block(*cohort_table(root))),
        ("Settings", settings_table(record | {"inputs": tables})),
    ]
    page = Page(
        title=f"RV failure: {run_dir.name}",
        lead="Two-stream network on your cohort.",
        data=f"{patients['n']} test patients of {root.name}",
        sections=sections,
        figures=figures,
        main_figure=figures[1],
        scores=scores,
        planted_truth=None,
    )
    return finish_run(run_dir, page, seed=settings["seed"], begun=begun)
