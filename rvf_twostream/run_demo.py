"""The demo: synthetic patients with planted RV function, every step, the planted truth found again.

    python run_demo.py [--quick]        the same as: python main.py --demo [--quick]

Writes the cohort and an EchoNet look-alike below data/rvf_twostream/<run>/, results as main.py
does, and beside them scores against the planted truth: TAPSE decides the failure (truth.json),
heart rate does not (negative control). Source: specification 4.7 and 8.4.
"""

import itertools
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from common.files import InputError, atomic_path, read_json, write_json, write_settings

# Presets: the demo must end within 4 minutes on 2 cores; --full is the larger one.
COMMON = {
    "depth": 18,
    "width": 8,
    "lr": 1e-3,
    "batch_size": 8,
    "pretrain_epoch": 1,
    "class_weight": "balanced",
    # The AUC of few validation patients is noise; the loss also minds how high probabilities are.
    "ckpt_monitor": "val_loss",
    "val_clips": 2,
    "nsamples": 2,
}
SMALL = COMMON | {
    "epoch": 24,
    "nframes": 16,  # 0.8 s at the frame rate below, about one beat
    "resample_fps": 20.0,
    "nrows": 32,
    "ncols": 32,
    "val_fraction": 0.12,
    "test_fraction": 0.36,
}
FULL = COMMON | {
    "epoch": 14,
    "nframes": 32,
    "nrows": 56,
    "ncols": 56,
    "val_fraction": 0.1,
    "test_fraction": 0.25,
}
QUICK = COMMON | {
    "width": 4,
    "epoch": 1,
    "nframes": 8,
    "nrows": 32,
    "ncols": 32,
    "val_fraction": 0.2,
    "test_fraction": 0.35,
    "nsamples": 1,
}
COHORTS = {  # patients, rows, columns, frames, movies per patient, EchoNet videos and their frames
    "small": (220, 120, 160, 48, (1, 1), 12, (36, 48)),
    "full": (110, 300, 400, 40, (1, 2), 40, (60, 250)),
    "quick": (12, 96, 128, 32, (1, 1), 8, (34, 36)),
}
TARGETS = {"strong": (0.8, 1.0), "realistic": (0.0, 1.0), "none": (0.3, 0.7)}


def preset_name(settings):
    """Return small, full or quick."""
    return "full" if settings["full"] else "quick" if settings["quick"] else "small"


def demo_settings(settings, given):
    """Return ``settings`` with the preset of the demo, except for the flags in ``given``."""
    if settings["root"] is not None:
        raise InputError("--demo makes its own cohort: leave --root away")
    preset = {"small": SMALL, "full": FULL, "quick": QUICK}[preset_name(settings)]
    return settings | {key: value for key, value in preset.items() if key not in given}


def make_data(settings, folder, *, fresh=False):
    """Write cohort and EchoNet look-alike below ``folder``, or reuse those of the same settings.

    ``made.json`` says what is there and whether all of it is. It is written first, so that only
    folders that hold it are ever removed: any other may be the user's own data.
    """
    from make_synthetic import write_cohort, write_echonet

    n_patients, rows, cols, frames, per_patient, n_videos, video_frames = COHORTS[
        preset_name(settings)
    ]
    wanted = {
        "seed": settings["seed"],
        "effect": settings["effect"],
        "cohort": json.loads(json.dumps(COHORTS[preset_name(settings)])),
    }
    made = folder / "made.json"
    if made.exists():
        found = read_json(made, remedy="use --fresh")
        if not fresh and found == {**wanted, "complete": True}:
            return
        if not fresh and found != {**wanted, "complete": False}:
            raise InputError(f"{folder}: holds other synthetic data; use --fresh or another --run")
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds data that the demo did not make; give another --run")
    write_json(made, {**wanted, "complete": False})
    print("-- synthetic cohort and EchoNet look-alike", flush=True)
    write_cohort(
        folder / "cohort",
        n_patients=n_patients,
        seed=settings["seed"],
        effect=settings["effect"],
        rows=rows,
        cols=cols,
        frames=frames,
        movies_per_patient=per_patient,
        workers=settings["workers"],
    )
    write_echonet(
        folder / "echonet",
        n_videos=n_videos,
        seed=settings["seed"],
        frames=video_frames,
        workers=settings["workers"],
    )
    write_json(made, {**wanted, "complete": True})


def planted(root):
    """Return {patient: {"TAPSE_mm", "FAC_pct", "hr_per_min"}}: means over the patient's movies."""
    truth = read_json(Path(root) / "truth.json")["movies"].values()
    groups = {}
    for movie in truth:
        groups.setdefault(movie["id"], []).append(movie)
    names = ("TAPSE_mm", "FAC_pct", "hr_per_min")
    return {
        patient: {name: float(np.mean([movie[name] for movie in movies])) for name in names}
        for patient, movies in groups.items()
    }


IMAGE_TARGETS = (  # measured on real apical four-chamber movies, specification 4.7
    ("mean grey inside the sector", "30 to 62"),
    ("standard deviation inside the sector", "29 to 60"),
    ("95th percentile inside the sector", "92 to 185"),
    ("dark pixels (12 or less) inside the sector, %", "24 to 37"),
    ("correlation of consecutive frames", "0.94 to 0.98"),
    ("mean |flow| in pixels per frame, scaled to 480 rows and 30 frames/s", "1.4"),
)


def image_statistics(root, n_movies=4):
    """Return the means over movies of the numbers of IMAGE_TARGETS.

    Args:
        root: folder of the cohort after optical_flow_calculator.py.
        n_movies: movies looked at, the first by name.
    """
    from crop import sector_mask
    from dicom_io import read_frames
    from pipeline import read_rows
    from preprocess import STATS_FILE

    resampled_hz = read_json(root / STATS_FILE)["options"]["resample_fps"]
    used = [r for r in read_rows(root / "manifest.csv") if r["status"] not in ("skipped", "failed")]
    rows = []
    for entry in sorted(used, key=lambda r: r["name"])[:n_movies]:
        frames, _ = read_frames(root / entry["source"])
        inside = frames[:, sector_mask(frames)]  # (n, pixels of the sector)
        flow = np.load(root / "processed_OF" / f"{Path(entry['name']).stem}.npy", mmap_mode="r")
        rows.append(
            (
                inside.mean(),
                inside.std(),
                np.percentile(inside, 95),
                100 * np.mean(inside <= 12),
                np.mean([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(inside)]),
                np.linalg.norm(flow, axis=-1).mean()
                * (480 / frames.shape[1])
                * ((resampled_hz or float(entry["fps"])) / 30),
            )
        )
    return [float(value) for value in np.mean(rows, axis=0)]


def score(name, value, target="", *, unit="", passed=None, control=False):
    """Return one entry of summary.json's scores."""
    value = None if value is None else round(float(value), 4)
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "target": target,
        "passed": passed,
        "control": control,
    }


def planted_scores(patients, truth, effect, *, interval, judged):
    """Return (main score, all scores) of the test patients.

    Args:
        patients: rows of patients.csv of the test set.
        truth: from ``planted``.
        effect: strong, realistic or none.
        interval: 95 % interval of their AUC, or None.
        judged: False for the quick demo, which is too small for a verdict.
    """
    from scipy.stats import spearmanr

    from metrics import auc

    y = np.array([row["y"] == "1" for row in patients])
    probability = np.array([float(row["probability"]) for row in patients])
    tapse, rate = (
        np.array([truth[row["id"]][name] for row in patients])
        for name in ("TAPSE_mm", "hr_per_min")
    )
    low, high = TARGETS[effect]
    both = 0 < y.sum() < len(y)
    area = auc(y, probability) if both else None
    target = f"{low} to {high}" if high < 1 else f">= {low}"
    if effect == "realistic" or not judged:
        target, passed = "", None
    else:
        passed = area is not None and low <= area <= high
    main = score("test AUC over patients", area, target, passed=passed, control=effect == "none")
    fast = rate > np.median(rate)
    control = auc(fast, probability) if 0 < fast.sum() < len(fast) else None
    scores = [
        main,
        score("lower end of its 95 % interval (bootstrap of patients)", interval and interval[0]),
        score("upper end of its 95 % interval (bootstrap of patients)", interval and interval[1]),
        score("AUC of the planted TAPSE, the upper bound", auc(y, -tapse) if both else None),
        score(
            "Spearman correlation of probability and planted TAPSE",
            spearmanr(probability, tapse).statistic,
        ),
        score(
            "AUC for a fast heart rate, planted without effect",
            control,
            "0.3 to 0.7",
            passed=control is not None and 0.3 <= control <= 0.7 if judged else None,
            control=True,
        ),
    ]
    return main, scores, {"y": y, "probability": probability, "tapse": tapse}


def heart_and_gradient(path):
    """Return a picture (2 r, 2 c, 3): mean frame, mean |flow|; below their guided gradients.

    The gradients, of grey and of flow y, are projected over time (``guided.projection``), each on
    a scale of its own.

    Args:
        path: ``.npz`` of visualize_GBP.py.
    """
    from matplotlib import colormaps

    from guided import projection

    with np.load(path, allow_pickle=False) as arrays:
        clips = arrays["clip_grey"][..., 0], np.linalg.norm(arrays["clip_of"], axis=-1)
        maps = [projection(arrays["grey"][..., 0]), projection(arrays["of"][..., 1])]
    means = [clip.mean(axis=0) for clip in clips]
    above = [colormaps["gray"]((m - m.min()) / max(float(np.ptp(m)), 1e-12)) for m in means]
    below = [colormaps["seismic"](0.5 + m / max(float(np.abs(m).max()), 1e-12) / 2) for m in maps]
    return np.vstack([np.hstack(above), np.hstack(below)])[..., :3]


def draw_overview(path, values, pictures):
    """Draw the demo at a glance: a heart and its gradient, probability over planted TAPSE, ROC.

    Args:
        path: PNG.
        values: "y", "probability", "tapse" of the test patients, (n,).
        pictures: folder of visualize_GBP.py.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    from figures import BLUE, GREY, ORANGE
    from pipeline import read_rows

    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1.2, 1))
    row = read_rows(pictures / "index.csv")[0]
    picture = heart_and_gradient(pictures / f"{row['name']}.npz")
    axes[0].imshow(picture, extent=(0, 2, 2, 0))
    axes[0].set_title(f"movie {row['file']}, guided gradient below", fontsize=9)
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
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def demo(settings, run_dir, data_dir, *, fresh=False):
    """Run the demo and return the exit code: 1 when a score missed its target.

    Args:
        settings: of ``main.py`` after ``demo_settings``.
        run_dir, data_dir: folders of results and of synthetic data.
        fresh: make the data anew.
    """
    from common.report import (
        close_run,
        figure_block,
        score_table,
        settings_table,
        table_block,
        write_report,
        write_summary,
    )
    from main import LIBRARIES
    from pipeline import cohort_table, read_rows, result_figures, run_pipeline

    begun = time.perf_counter()
    make_data(settings, data_dir, fresh=fresh)
    root = data_dir / "cohort"
    write_settings(run_dir, settings, inputs=[root / "truth.json"], libraries=LIBRARIES)
    results = run_pipeline(root, run_dir, settings, echonet=data_dir / "echonet")
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
        "each stream on its own scale); probability over planted TAPSE; ROC."
    )
    alt = "A movie above its guided gradient, probability over planted TAPSE, and the ROC curve"
    overview = {"path": "overview.png", "caption": caption, "alt": alt}
    figures = [overview, *result_figures(run_dir, results)]
    data = f"synthetic, {len(truth)} patients, {len(patients)} in the test set, effect {effect}"
    sections = [
        ("Scores", score_table(scores)),
        ("Cohort", table_block(*cohort_table(root))),
        ("Figures", figure_block(run_dir, figures)),
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
    title = "RV failure from synthetic echocardiograms"
    lead = f"Demo with planted RV function: {data}."
    write_report(run_dir, title, lead, sections)
    seconds = round(time.perf_counter() - begun, 1)
    write_summary(
        run_dir,
        {
            "folder": "rvf_twostream",
            "run": run_dir.name,
            "title": title,
            "seconds": seconds,
            "seed": settings["seed"],
            "data": data,
            "main_picture": "overview.png",
            "main_picture_alt": overview["alt"],
            "figures": figures,
            "scores": scores,
            "planted_truth": main_score,
            "report": "report.html",
        },
    )
    return close_run(run_dir)


def write_planted(path, patients, truth):
    """Write the numbers behind overview.png: a row per test patient."""
    from predict import write_table

    rows = [
        {"id": r["id"], "y": r["y"], "probability": r["probability"], **truth[r["id"]]}
        for r in patients
    ]
    write_table(path, rows, tuple(rows[0]))


def main(argv=None):
    """Hand the flags to ``main.py --demo``."""
    import main as story

    return story.main(["--demo", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
