"""Scores, report.html and summary.json of the demo."""

import shutil
from pathlib import Path

import pandas as pd

from analysis.bouts import sleep_statistics, statistics_table
from analysis.learning_curve import save_learning_curve
from analysis.tables import write_table
from common.files import read_json
from common.report import (
    figure_block,
    score_table,
    settings_table,
    table_block,
    write_report,
    write_summary,
)
from demo.presets import (
    FULL,
    OCCLUSION_EVERY,
    SMALL,
    TARGET_CONTROL,
    TARGET_KAPPA,
    TARGET_QUADRANT,
    TARGET_RECALL,
    TARGET_SUM,
    TARGET_TOY,
)
from inputs.hypnogram import stretches
from inputs.states import STATE_NAMES
from settings import Settings


def score(
    name: str, value: float | None, target: str, passed: bool | None, *, control: bool = False
) -> dict:
    """Return one score as summary.json holds it."""
    return {
        "name": name,
        "value": value,
        "unit": "",
        "target": target,
        "passed": None if passed is None else bool(passed),
        "control": control,
    }


def demo_scores(results: dict) -> list[dict]:
    """Return all scores of the demo; the first is the main one."""
    metrics, waves = results["metrics"], results["waves"]
    kappa = metrics["kappa"]
    scores = [
        score(
            "Cohen's kappa, held-out mouse",
            kappa,
            f">= {TARGET_KAPPA:.2f}",
            kappa is not None and kappa >= TARGET_KAPPA,
        ),
        score(
            f"kappa, trained on shuffled labels for {results['control_passes']} passes (control)",
            results["control"],
            f"|kappa| < {TARGET_CONTROL}",
            abs(results["control"]) < TARGET_CONTROL,
            control=True,
        ),
        score("kappa, band-power baseline", results["baseline"]["kappa"], "", None),
    ]
    for name, recall in zip(STATE_NAMES[3], metrics["recall"], strict=True):
        passed = recall is not None and recall >= TARGET_RECALL
        scores.append(score(f"recall of {name}", recall, f">= {TARGET_RECALL}", passed))
    mean, limit = waves["mean"], waves["shuffled_95"]
    beats = mean is not None and mean > 0 and mean > limit
    shown = "> 0" if limit is None else f"> 0 and > {limit:.3f} (95 % of 1,000 shuffles)"
    scores.append(score("attention against planted slow waves, mean r", mean, shown, beats))
    name = f"steps over which the attention of NREM is spread, of {results['num_frames']}"
    scores.append(score(name, waves["steps"], "", None))
    off = results["row_sums"]
    scores.append(score("attention of an epoch, sum - 1", off, f"< {TARGET_SUM}", off < TARGET_SUM))
    quadrant = results["quadrant"].set_index("method")
    # A rate over few correct epochs says nothing, so the second network must know its states.
    share = float(quadrant.loc["occlusion", "n"] / quadrant.loc["occlusion", "epochs"])
    name = "accuracy on recordings with one telling quadrant"
    scores.append(score(name, share, f">= {TARGET_TOY}", share >= TARGET_TOY))
    for method, rate in quadrant["rate"].items():
        main = method == "occlusion"
        name = f"planted quadrant found by {method}"
        target = f">= {TARGET_QUADRANT}" if main else ""
        value = None if pd.isna(rate) else float(rate)
        scores.append(score(name, value, target, rate >= TARGET_QUADRANT if main else None))
    return scores


def demo_figures(mouse: str, name: str, cam_shape: tuple[int, int]) -> list[dict]:
    """Return the figures of the report, the main one first.

    Args:
        mouse: held-out mouse.
        name: stem of the files of its hypnogram.
        cam_shape: rows and columns of a Grad-CAM map before it is enlarged.
    """
    rows, columns = cam_shape
    figures = (
        (
            f"{name}_hypnogram.png",
            f"Hypnogram of the held-out mouse {mouse}: network above, planted states below. Runs "
            "are laid end to end; artifacts are gaps.",
            "Hypnogram that the network predicts for a synthetic mouse, above the planted one",
        ),
        (
            "confusion.png",
            "Confusion matrix of the held-out mouse: counts and row percentages.",
            "Matrix of epochs by planted and predicted state",
        ),
        (
            "learning_curve.png",
            "Loss and kappa in training; the lowest validation loss is used.",
            "Curves of loss and kappa over the epochs of training and validation",
        ),
        (
            "reliability.png",
            "Are the probabilities right? Accuracy of epochs against their confidence.",
            "Curve of the accuracy over the confidence, beside the diagonal of perfect calibration",
        ),
        (
            f"{mouse}_attention_means.png",
            "When the network looks: mean attention per time step and predicted state; 1 is even.",
            "Mean attention over the time steps of an epoch, one panel for each state",
        ),
        (
            f"{mouse}_attention_in_time.png",
            "Attention weights of the whole recording, coloured by predicted state.",
            "Attention weights over the time of the recording in the colours of the states",
        ),
        (
            "occlusion/occlusion.png",
            "Where the evidence lies: drop of the probability of the predicted state when a patch "
            f"is hidden; one epoch in {OCCLUSION_EVERY}.",
            "Occlusion maps of the three states inside the brain",
        ),
        (
            "gradcam/gradcam.png",
            f"Grad-CAM of all epochs, as published, from {rows} x {columns} values per frame, half "
            "transparent over a frame of the recording. On "
            "small frames it does not show where the evidence lies: see the table of quadrants.",
            "Grad-CAM maps of the three states over a frame of the recording",
        ),
    )
    return [{"path": path, "caption": caption, "alt": alt} for path, caption, alt in figures]


def mouse_block(metrics: dict) -> str:
    """Return the table of the states of the held-out mouse, and a sentence of its totals."""

    def cell(key, state):
        value = metrics[key][state]
        return "n/a" if value is None else f"{value:.2f}"

    rows = [
        (name, support, *(cell(key, state) for key in ("precision", "recall", "f1")))
        for state, (name, support) in enumerate(
            zip(metrics["states"], metrics["support"], strict=True)
        )
    ]
    interval = metrics["kappa_interval_95"]
    shown = "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    totals = ", ".join(
        (
            f"Accuracy {metrics['accuracy']:.3f}",
            f"kappa {metrics['kappa']:.3f} (95 % interval {shown}, blocks of 5 minutes)",
            f"weighted F1 {metrics['f1_weighted']:.3f}",
            f"expected calibration error {metrics['expected_calibration_error']:.3f}",
        )
    )
    return table_block(("state", "epochs", "precision", "recall", "F1"), rows) + f"<p>{totals}.</p>"


def bouts_block(run_dir: Path, name: str) -> str:
    """Return the table of the bouts in the predicted hypnogram ``<name>.csv``."""
    table = pd.read_csv(run_dir / f"{name}.csv")
    parts = stretches(table["run"].to_numpy(), table["epoch"].to_numpy())
    bouts = statistics_table(sleep_statistics(table["pred"].to_numpy(), parts)).fillna("-").round(1)
    names = {"n": "bouts", "max_s": "longest_s", "percent": "% of the epochs"}
    return table_block([names.get(name, name) for name in bouts.columns], bouts.to_numpy())


def quadrant_block(quadrant: pd.DataFrame) -> str:
    """Return what the maps of the second network found, one row for each kind of map."""
    rows = [
        (row.method, f"{row.n} of {row.epochs}", row.hits, f"{row.rate:.2f}")
        for row in quadrant.itertuples()
    ]
    return (
        "<p>A second network is trained on recordings whose only evidence lies in one quadrant. A "
        "map is right when it is strongest there; chance is 0.25. Occlusion localises; Grad-CAM, "
        "whose layer sees more than the whole small frame, does not do so reliably.</p>"
    ) + table_block(("map", "correct epochs", "right quadrant", "rate"), rows)


def write_demo_report(run_dir: Path, settings: Settings, results: dict, seconds: float) -> None:
    """Write the last figures, the report and, last of all, summary.json."""
    mouse = results["mouse"]
    name = f"{mouse}_{results['seconds']:g}s"
    shutil.copy(run_dir / "training" / "log.csv", run_dir / "log.csv")
    save_learning_curve(pd.read_csv(run_dir / "log.csv"), run_dir / "learning_curve.png")
    write_table(results["quadrant"], run_dir / "quadrants.csv")
    scores = demo_scores(results)
    figures = demo_figures(mouse, name, results["cam_shape"])
    record = read_json(run_dir / "settings.json", remedy="use --fresh")
    sections = [
        ("Scores", score_table(scores)),
        ("Held-out mouse", mouse_block(results["metrics"])),
        ("Figures", figure_block(run_dir, figures)),
        ("Bouts of the predicted hypnogram", bouts_block(run_dir, name)),
        ("Does a map find a planted place?", quadrant_block(results["quadrant"])),
        ("Settings", settings_table(record)),
    ]
    size, preset = ("full", FULL) if settings.full else ("small", SMALL)
    mice = preset.plan["mice"]
    data = f"synthetic, {mice} mice, seed {settings.seed}, {size} preset; {results['text']}"
    title = "Sleep states from wide-field calcium imaging"
    lead = (
        "Are the states of a mouse that the network has never seen found, and where and when does "
    )
    lead += f"it look? Data: {data}; {seconds:.0f} s."
    report = write_report(run_dir, title, lead, sections)
    write_summary(
        run_dir,
        {
            "folder": "sleep_bilstm",
            "run": settings.run,
            "title": title,
            "seconds": round(seconds, 1),
            "seed": settings.seed,
            "data": data,
            "main_picture": figures[0]["path"],
            "main_picture_alt": figures[0]["alt"],
            "figures": figures,
            "scores": scores,
            "planted_truth": scores[0],
            "report": report.name,
        },
    )
