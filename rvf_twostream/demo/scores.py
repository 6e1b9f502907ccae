"""Scores of the demo against the planted truth (specification 4.7 and 8.4)."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from analysis.metrics import auc
from demo.presets import TARGETS


def score(
    name: str,
    value: float | None,
    target: str = "",
    *,
    unit: str = "",
    passed: bool | None = None,
    control: bool = False,
) -> dict:
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


def planted_scores(
    patients: list[dict],
    truth: dict,
    effect: str,
    *,
    interval: Sequence[float] | None,
    judged: bool,
) -> tuple[dict, list[dict], dict]:
    """Return (main score, all scores) of the test patients.

    Args:
        patients: rows of patients.csv of the test set.
        truth: from ``planted``.
        effect: strong, realistic or none.
        interval: 95 % interval of their AUC, or None.
        judged: False for the quick demo, which is too small for a verdict.
    """
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
