"""Scores, report.html and summary.json of the demo."""

import shutil
from pathlib import Path

import pandas as pd

from demo import (
    OCCLUSION_EVERY,
    TARGET_CONTROL,
    TARGET_KAPPA,
    TARGET_QUADRANT,
    TARGET_RECALL,
    TARGET_SUM,
    TARGET_TOY,
)
from evaluation import write_table
from fragmented_sleep import sleep_statistics, statistics_table, stretches
from learning_curve import save_learning_curve
from report import figure_block, score_table, table_block, write_report, write_summary
from states import STATE_NAMES


def score(name: str, value, target: str, passed, *, control: bool = False) -> dict:
    """Return one score as summary.json holds it."""
    return {
        "name": name,
        "value": value,
        "unit": "",
        "target": target,
        "passed": None if passed is None else bool(passed),
        "control": control,
    }


def demo_scores(found: dict) -> list[dict]:
    """Return all scores of the demo; the first is the main one."""
    metrics, waves = found["metrics"], found["waves"]
    kappa = metrics["kappa"]
    scores = [
        score(
            "Cohen's kappa, held-out mouse",
            kappa,
            f">= {TARGET_KAPPA:.2f}",
            kappa is not None and kappa >= TARGET_KAPPA,
        ),
        score(
            f"kappa, trained on shuffled labels for {found['control_passes']} passes (control)",
            found["control"],
            f"|kappa| < {TARGET_CONTROL}",
            abs(found["control"]) < TARGET_CONTROL,
            control=True,
        ),
        score("kappa, band-power baseline", found["baseline"]["kappa"], "for comparison", None),
    ]
    for name, recall in zip(STATE_NAMES[3], metrics["recall"], strict=True):
        passed = recall is not None and recall >= TARGET_RECALL
        scores.append(score(f"recall of {name}", recall, f">= {TARGET_RECALL}", passed))
    mean, limit = waves["mean"], waves["shuffled_95"]
    beats = mean is not None and mean > 0 and mean > limit
    shown = "> 0" if limit is None else f"> 0 and > {limit:.3f} (95 % of 1,000 shuffles)"
    scores.append(score("attention against planted slow waves, mean r", mean, shown, beats))
    name = f"steps over which the attention of NREM is spread, of {found['num_frames']}"
    scores.append(score(name, waves["steps"], "for information", None))
    off = found["row_sums"]
    scores.append(score("attention of an epoch, sum - 1", off, f"< {TARGET_SUM}", off < TARGET_SUM))
    quadrant = found["quadrant"].set_index("method")
    # A rate over few correct epochs says nothing, so the second network must know its states.
    share = float(quadrant.loc["occlusion", "n"] / quadrant.loc["occlusion", "epochs"])
    name = "accuracy on recordings with one telling quadrant"
    scores.append(score(name, share, f">= {TARGET_TOY}", share >= TARGET_TOY))
    for method, rate in quadrant["rate"].items():
        main = method == "occlusion"
        name = f"planted quadrant found by {method}"
        target = f">= {TARGET_QUADRANT}" if main else "chance 0.25"
        value = None if pd.isna(rate) else float(rate)
        scores.append(score(name, value, target, rate >= TARGET_QUADRANT if main else None))
    return scores


def write_demo_report(run_dir: Path, settings, found: dict, seconds: float) -> int:
    """Write the last figures, the report and, last of all, summary.json; return the exit code."""
    mouse, metrics = found["mouse"], found["metrics"]
    history = pd.read_csv(run_dir / "training" / "log.csv")
    shutil.copy(run_dir / "training" / "log.csv", run_dir / "log.csv")
    save_learning_curve(history, run_dir / "learning_curve.png")
    write_table(found["quadrant"], run_dir / "quadrants.csv")
    scores = demo_scores(found)
    name = f"{mouse}_{found['seconds']:g}s"
    table = pd.read_csv(run_dir / f"{name}.csv")
    parts = stretches(table["run"].to_numpy(), table["epoch"].to_numpy())
    bouts = statistics_table(sleep_statistics(table["pred"].to_numpy(), parts)).fillna("-").round(1)
    figures = [
        {
            "path": f"{name}_hypnogram.png",
            "caption": f"Hypnogram of the held-out mouse {mouse}: network above, planted states "
            "below. Time counts scored epochs; artifacts are left out.",
            "alt": "Two hypnograms, predicted and planted, of one synthetic mouse",
        },
        {
            "path": "confusion.png",
            "caption": "Confusion matrix of the held-out mouse: counts and row percentages.",
            "alt": "Confusion matrix of three states",
        },
        {
            "path": "learning_curve.png",
            "caption": "Loss and kappa in training; the lowest validation loss is used.",
            "alt": "Learning curves",
        },
        {
            "path": "reliability.png",
            "caption": "Are the probabilities right? Accuracy of epochs against their confidence.",
            "alt": "Reliability diagram",
        },
        {
            "path": f"{mouse}_attention_means.png",
            "caption": "When the network looks: mean attention per time step and predicted state.",
            "alt": "Mean attention weights of three states",
        },
        {
            "path": f"{mouse}_attention_in_time.png",
            "caption": "Attention weights of the whole recording, coloured by predicted state.",
            "alt": "Attention weights in time",
        },
        {
            "path": "occlusion/occlusion.png",
            "caption": "Where the evidence lies: drop of the probability of the predicted state "
            f"when a patch is hidden; one epoch in {OCCLUSION_EVERY}.",
            "alt": "Occlusion maps of three states",
        },
        {
            "path": "gradcam/gradcam.png",
            "caption": "Grad-CAM of all epochs, as published, from {} x {} values per frame. On "
            "small frames it does not show where the evidence lies: see the table of "
            "quadrants.".format(*found["cam_shape"]),
            "alt": "Grad-CAM maps of three states",
        },
    ]
    size = "full" if settings.full else "small"
    data = f"synthetic, 4 mice, seed {settings.seed}, {size} preset; {found['text']}"
    quadrants = [
        (r.method, f"{r.n} of {r.epochs}", r.hits, f"{r.rate:.2f}")
        for r in found["quadrant"].itertuples()
    ]
    interval = metrics["kappa_interval_95"]
    interval_text = "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    rows = [
        (
            n,
            s,
            *(
                "n/a" if metrics[k][i] is None else f"{metrics[k][i]:.2f}"
                for k in ("precision", "recall", "f1")
            ),
        )
        for i, (n, s) in enumerate(zip(metrics["states"], metrics["support"], strict=True))
    ]
    summary_line = (
        f"accuracy {metrics['accuracy']:.3f}, kappa {metrics['kappa']:.3f} (95 % interval "
        f"{interval_text}, "
        f"blocks of 5 minutes), weighted F1 {metrics['f1_weighted']:.3f}, expected calibration "
        "error "
        f"{metrics['expected_calibration_error']:.3f}"
    )
    sections = [
        ("Scores", score_table(scores)),
        (
            "Held-out mouse",
            table_block(("state", "epochs", "precision", "recall", "F1"), rows)
            + f"<p>{summary_line}</p>",
        ),
        ("Figures", figure_block(run_dir, figures)),
        ("Bouts of the predicted hypnogram", table_block(bouts.columns, bouts.to_numpy())),
        (
            "Does a map find a planted place?",
            "<p>A second network is trained on recordings whose only evidence lies in one "
            "quadrant. A map is right "
            "when it is strongest there; chance is 0.25. Occlusion localises; Grad-CAM, whose "
            "layer sees more than "
            "the whole small frame, does not do so reliably.</p>"
            + table_block(("map", "correct epochs", "right quadrant", "rate"), quadrants),
        ),
    ]
    lead = f"Attention CNN-BiLSTM on synthetic wide-field recordings. Data: {data}."
    report = write_report(run_dir, "Sleep states from wide-field calcium imaging", lead, sections)
    write_summary(
        run_dir,
        {
            "folder": "sleep_bilstm",
            "run": settings.run,
            "title": "Sleep states from wide-field calcium imaging",
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
    failed = [item["name"] for item in scores if item["passed"] is False]
    if failed:
        print(f"missed: {'; '.join(failed)}")
    print(f"kappa {metrics['kappa']:.3f} on the held-out mouse, {seconds:.0f} s, {report}")
    return 0 if scores[0]["passed"] else 1
