"""The demo: a synthetic movie with planted truth, the whole run, and whether the truth is found.

The negative control is a second movie whose target does not repeat the driver patch: the same
training must then find no driver.
"""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.metrics import auc
from common.files import DATA_DIR, RESULTS_DIR, check_own
from common.locks import hold
from common.report import close_run
from demo.synthetic import make_demo
from inputs.prepare import prepare
from network.device import choose_device
from runs.displays import compute_importance, show_run
from runs.pipeline import (
    build,
    check_identity,
    clear_run,
    fit,
    identity_of,
    load_results,
    run_state,
    train_and_predict,
)
from runs.run_report import Page, write_run_report
from settings import DemoMovie, RunSettings

FULL_SIZE = (72, 91)  # rows, columns
PERMUTATION_TARGET, GRADIENT_TARGET, SPEED_TARGET = 0.80, 0.90, 0.10
CONTROL_RANGE = (0.25, 0.75)
ERROR_RATE = 0.05  # of the search for drivers
GRADIENT_EPOCHS = 4  # of five; chosen on seeds 10 to 14
# Half the published rate: at that one five epochs may end on a bad step. Seed 3 with AVX2 kernels
# did: its network read other pixels than the planted ones, AUC 0.64 instead of 0.94.
LEARNING_RATE = 0.005


def run_demo(settings: RunSettings, *, named: bool = False, full: bool = False) -> int:
    """Make the data, run everything, score it, write the report; return the exit code.

    Args:
        settings: RunSettings from the command line.
        named: the user named the run; it is called demo otherwise.
        full: make movies of 72 x 91 pixels instead of 18 x 23.
    """
    began = time.perf_counter()
    name = settings.run if named else "demo"
    run_dir = RESULTS_DIR / name
    choose_device(settings.device)  # a device that is not there changes no file
    hold(run_dir)
    check_own(run_dir)
    data_dir = DATA_DIR / ("demo" if name == "demo" else f"demo_{name}")
    size = dict(zip(("height", "width"), FULL_SIZE, strict=True)) if full else {}
    recipe = DemoMovie(seed=settings.seed, **size)
    truth = make_demo(data_dir, recipe)
    settings = replace(
        settings,
        data=data_dir / truth["movie"],
        target=",".join(map(str, truth["target"])),
        run_dir=run_dir,
        resume=True,
        gradient_epochs=gradient_epochs(settings),
        learning_rate=learning_rate(settings),
        error_rate=settings.error_rate or ERROR_RATE,
    )
    if settings.overwrite:
        clear_run(run_dir, settings)
    prepared = prepare(settings)
    identity = identity_of(settings, prepared.recording)
    if run_state(settings, run_dir) != "none":
        check_identity(run_dir, identity, settings)
        if (run_dir / "summary.json").exists():
            print(f"{run_dir} is complete; --fresh starts anew")
            return close_run(run_dir)
    print(prepared.recording.words(), flush=True)
    if run_state(settings, run_dir) != "complete":
        train_and_predict(prepared, settings, run_dir, identity)
    mask = np.array(truth["driver_mask"], bool)
    shown = show_run(
        prepared,
        settings,
        run_dir,
        load_results(settings, run_dir),
        before=math.floor(truth["csd_start_frame"]),
        outline=mask,
    )
    drivers = mask.ravel()[prepared.feature_pixels]
    control = negative_control(settings, data_dir / "control", recipe)
    scores = score_demo(shown, drivers, truth, control)
    page = Page(
        title="Spreading depression with planted truth",
        data=f"synthetic movie, {len(prepared.recording.values)} frames of"
        f" {mask.shape[0]} x {mask.shape[1]} pixels",
        seconds=time.perf_counter() - began,
        seed=settings.seed,
        scores=scores,
        planted_truth=scores[0],
        main_picture=shown["picture"] and shown["picture"].name,
        lead="Are the planted driver of the target pixel and the speed of the depression found?",
    )
    write_run_report(run_dir, page)
    return close_run(run_dir)


def learning_rate(settings: RunSettings) -> float:
    """Return the rate of Adam of a demo: the user's where one was given."""
    default = RunSettings.learning_rate
    return settings.learning_rate if settings.learning_rate != default else LEARNING_RATE


def gradient_epochs(settings: RunSettings) -> int:
    """Return over how many last epochs the demo averages its gradient map.

    The network of the last epoch alone gives AUCs of 0.955 to 0.999 on seeds 10 to 14, the mean
    of the last four 0.996 to 1.000.
    """
    if settings.gradient_epochs != RunSettings.gradient_epochs:
        return settings.gradient_epochs
    return max(1, min(GRADIENT_EPOCHS, settings.n_epochs))


def negative_control(settings: RunSettings, folder: Path, recipe: DemoMovie) -> dict:
    """Train on a movie whose target does not repeat the driver; return its importance."""
    truth = make_demo(folder, replace(recipe, driver=False))
    prepared = prepare(replace(settings, data=folder / truth["movie"]))
    device, _ = choose_device(settings.device)
    t_cfg, net = build(prepared, settings, device)
    progress = fit(prepared, settings, net, t_cfg)
    return compute_importance(prepared, settings, net, progress.permutation, progress.recent)


def score_demo(shown: dict, drivers: np.ndarray, truth: dict, control: dict) -> list[dict]:
    """Return the scores of a demo; the first one is the planted truth of the summary.

    Args:
        shown: what show_run returned.
        drivers: (N,) bool, driving series that lie in the planted driver patch.
        truth: content of truth.json.
        control: importance of the negative control.
    """

    def score(name, value, *, unit="", target="", passed=None, is_control=False):
        return {
            "name": name, "value": value, "unit": unit, "target": target, "passed": passed,
            "control": is_control,
        }  # fmt: skip

    gradient, permutation = (auc(shown[name][0], drivers) for name in ("gradient", "permutation"))
    rmse = {
        row["model"]: row["rmse"]
        for row in shown["rows"]
        if row["part"] == "before_csd" and row["units"] == "z"
    }
    ratio = rmse["network"] / rmse["persistence"]
    speed = shown["onset"]["speed_mm_min"]
    planted = truth["speed_mm_min"]
    near = speed is not None and abs(speed / planted - 1) <= SPEED_TARGET
    scores = [
        score(
            "AUC of permutation importance for driver pixels",
            permutation,
            target=f">= {PERMUTATION_TARGET}",
            passed=permutation >= PERMUTATION_TARGET,
        ),
        score(
            "AUC of the gradient for driver pixels",
            gradient,
            target=f">= {GRADIENT_TARGET}",
            passed=gradient >= GRADIENT_TARGET,
        ),
        score(
            "speed of the depression from the onset map",
            speed,
            unit="mm/min",
            target=f"within {SPEED_TARGET:.0%} of {planted}",
            passed=near,
        ),
        score(
            "test RMSE before the depression / persistence",
            ratio,
            target="< 1",
            passed=ratio < 1,
        ),
    ]
    low, high = CONTROL_RANGE
    for name, label in (("permutation", "permutation importance"), ("gradient", "gradient")):
        value = auc(control[name][0], drivers)
        scores.append(
            score(
                f"negative control, driver removed: AUC of {label}",
                value,
                target=f"{low} to {high}" if name == "permutation" else "",
                passed=low <= value <= high if name == "permutation" else None,
                is_control=True,
            )
        )
    return scores
