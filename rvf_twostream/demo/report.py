"""The demo's overview and report: TAPSE decides the failure, heart rate does not.

Source: specification 4.7 and 8.4.
"""

import shutil
import time
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from analysis.figures import BLUE, GREY, ORANGE
from analysis.gradient_maps import projection
from common.figures import save_figure
from common.files import read_json
from common.report import (
    figure_block,
    score_table,
    settings_table,
    table_block,
)
from common.tables import read_rows
from demo.data import IMAGE_TARGETS, image_statistics, planted
from demo.scores import planted_scores
from inputs.utils import write_table
from runs.run_report import Page, cohort_table, finish_run, number_sections, result_figures


def heart_and_gradient(path: Path) -> np.ndarray:
    """Return a picture (2 r, 2 c, 3): mean frame, mean |flow|; below their guided gradients.

    The gradients, of grey and of flow y, are projected over time (``projection``), each on
    a scale of its own.

    Args:
        path: ``.npz`` of visualize_GBP.py.
    """
    with np.load(path, allow_pickle=False) as arrays:
        clips = arrays["clip_grey"][..., 0], np.linalg.norm(arrays["clip_of"], axis=-1)
        maps = [projection(arrays["grey"][..., 0]), projection(arrays["of"][..., 1])]
    means = [clip.mean(axis=0) for clip in clips]
    above = [colormaps["gray"]((m - m.min()) / max(float(np.ptp(m)), 1e-12)) for m in means]
    below = [colormaps["seismic"](0.5 + m / max(float(np.abs(m).max()), 1e-12) / 2) for m in maps]
    return np.vstack([np.hstack(above), np.hstack(below)])[..., :3]


def draw_overview(path: Path, values: dict[str, np.ndarray], pictures: Path) -> None:
    """Draw the demo at a glance: a heart and its gradient, probability over planted TAPSE, ROC.

    Args:
        path: PNG.
        values: "y", "probability", "tapse" of the test patients, (n,).
        pictures: folder of visualize_GBP.py.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1.2, 1))
    row = read_rows(pictures / "index.csv")[0]
    picture = heart_and_gradient(pictures / f"{row['name']}.npz")
    axes[0].imshow(picture, extent=(0, 2, 2, 0))
    axes[0].set_title(f"{row['kind']} ({row['file']}), gradient below", fontsize=9)
    axes[0].set(
        xticks=(0.5, 1.5), xticklabels=("mean frame, grey", "mean |flow|, flow y"), yticks=()
    )
    axes[0].tick_params(length=0, labelsize=9)
    axes[0].spines[:].set_visible(False)
    y, probability, tapse = values["y"], values["probability"], values["tapse"]
    for failed, colour, marker, label in (
        (False, BLUE, "o", "no failure"),
        (True, ORANGE, "^", "RV failure"),
    ):
        axes[1].plot(
            tapse[y == failed], probability[y == failed], marker, color=colour, label=label
        )
    axes[1].set(
        xlabel="planted TAPSE (mm)",
        ylabel="predicted probability of RV failure",
        ylim=(-0.03, 1.03),
    )
    axes[1].set_title("test patients", fontsize=9)
    if 0 < y.sum() < len(y):
        for scores, style, colour, label in (
            (-tapse, "--", GREY, "planted TAPSE"),
            (probability, "-", BLUE, "network"),
        ):
            false_rate, true_rate, _ = roc_curve(y, scores)
            axes[2].plot(false_rate, true_rate, style, color=colour, label=label)
    axes[2].plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    axes[2].set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    axes[2].set_title("ROC", fontsize=9)
    for axis in axes[1:]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    save_figure(figure, path)


def report_demo(results: dict, run_dir: Path, settings: dict, *, root: Path, begun: float) -> int:
    """Score and report the demo; return the exit code: 1 when a score missed its target.

    Args:
        results: of ``run_networks``.
        run_dir, settings: of the run.
        root: folder of the synthetic cohort.
        begun: ``time.perf_counter`` at the start of the run.
    """
    shutil.copy(run_dir / "two_stream_csv" / f"{results['name']}.csv", run_dir / "log.csv")
    patients = [
        row for row in read_rows(results["predictions"] / "patients.csv") if row["set"] == "test"
    ]
    effect, truth = settings["effect"], planted(root)
    main_score, scores, values = planted_scores(
        patients,
        truth,
        effect,
        interval=results["metrics"]["test"]["patients"]["auc_ci95_bootstrap"],
        judged=not settings["quick"],
    )
    write_planted(run_dir / "overview.csv", patients, truth)
    draw_overview(run_dir / "overview.png", values, results["pictures"])
    caption = (
        "A test movie and the guided gradient of the trained logit (red raises it, blue lowers it, "
        "each stream on its own scale; a movie of every kind, called right and wrong, below); "
        "probability over planted TAPSE; ROC."
    )
    alt = "A movie above its guided gradient, probability over planted TAPSE, and the ROC curve"
    overview = {"path": "overview.png", "caption": caption, "alt": alt}
    figures = [overview, *result_figures(run_dir, results)]
    data = f"synthetic, {len(truth)} patients, {len(patients)} in the test set, effect {effect}"
    if "no_text" in settings:
        data += ", control without text burnt into the pictures"
    sections = [
        ("Scores", score_table(scores)),
        ("Figures", figure_block(run_dir, figures)),
        *number_sections(results),
        ("Cohort", table_block(*cohort_table(root))),
    ]
    statistics = [
        (name, f"{value:.3g}", target)
        for (name, target), value in zip(IMAGE_TARGETS, image_statistics(root), strict=True)
    ]
    print("synthetic pictures (in brackets: real movies):")
    for name, value, target in statistics:
        print(f"  {name}: {value} ({target})")
    sections.append(
        ("Synthetic pictures", table_block(("number", "here", "real movies"), statistics))
    )
    sections.append(("Settings", settings_table(read_json(run_dir / "settings.json"))))
    page = Page(
        title="RV failure from synthetic echocardiograms",
        lead="Does the network tell from a movie which right ventricle fails? Data: "
        f"{data}; seed {settings['seed']}; {time.perf_counter() - begun:.0f} s.",
        data=data,
        sections=sections,
        figures=figures,
        main_figure=overview,
        scores=scores,
        planted_truth=main_score,
    )
    return finish_run(run_dir, page, seed=settings["seed"], begun=begun)


def write_planted(path: Path, patients: list[dict], truth: dict) -> None:
    """Write the numbers behind overview.png: a row per test patient."""
    rows = [
        {"id": r["id"], "y": r["y"], "probability": r["probability"], **truth[r["id"]]}
        for r in patients
    ]
    write_table(path, rows, tuple(rows[0]))
