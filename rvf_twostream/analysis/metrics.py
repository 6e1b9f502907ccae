"""How well probabilities separate two classes: AUC with intervals, operating points, calibration.

``summarise`` gives all numbers of specification 8.2 for one set; where it holds one class only, the
values are null and the reason is said.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Z95 = 1.959964  # 97.5th percentile of the normal distribution


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Return P(s+ > s-) + 0.5 P(s+ = s-) for labels ``y`` (n,) bool and ``score`` (n,)."""
    return float(roc_auc_score(y, score))


def average_precision(y: np.ndarray, score: np.ndarray) -> float:
    """Return the area under precision over recall, summed by steps."""
    return float(average_precision_score(y, score))


def delong(
    y: np.ndarray, score: np.ndarray
) -> tuple[float, float | None, tuple[float, float] | None]:
    """Return (AUC, standard error, (low, high)): DeLong's error, 95 % interval clipped to [0, 1].

    With fewer than two of a class there is no error: it and the interval are None.

    Source: E. DeLong et al., Biometrics 44 (1988), 837-845.
    """
    y, score = np.asarray(y, bool), np.asarray(score, float)
    positive, negative = score[y], score[~y]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)  # (P, N)
    area = float(wins.mean())
    if min(len(positive), len(negative)) < 2:
        return area, None, None
    variance = wins.mean(axis=1).var(ddof=1) / len(positive)
    variance += wins.mean(axis=0).var(ddof=1) / len(negative)
    error = float(np.sqrt(variance))
    low, high = np.clip((area - Z95 * error, area + Z95 * error), 0, 1)
    return area, error, (float(low), float(high))


def bootstrap_auc(
    y: np.ndarray, score: np.ndarray, patients: Sequence[str], *, n_draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval (low, high) of the AUC over ``n_draws`` draws of patients.

    Args:
        y, score: (n,) labels and scores of movies.
        patients: (n,) patient of each movie; all movies of a drawn patient come along.

    Draws without both classes are left out; None when fewer than half remain, or when a class has
    fewer than two patients, of whom every draw would be the same.
    """
    y, score = np.asarray(y, bool), np.asarray(score, float)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    if min(len(np.unique(owner[y])), len(np.unique(owner[~y]))) < 2:
        return None
    rng = np.random.default_rng(seed)
    order = np.argsort(score, kind="stable")
    values, labels, owner = score[order], y[order], owner[order]
    starts = np.flatnonzero(np.r_[True, np.diff(values) > 0])  # first movie of each tied group
    draws = rng.integers(len(names), size=(n_draws, len(names)))
    counts = np.stack([np.bincount(d, minlength=len(names)) for d in draws])  # (draws, patients)
    weight = counts[:, owner].astype(float)  # (draws, n)
    up = np.add.reduceat(weight * labels, starts, axis=1)
    down = np.add.reduceat(weight * ~labels, starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    n_up, n_down = up.sum(axis=1), down.sum(axis=1)
    good = (n_up > 0) & (n_down > 0)
    if good.sum() < n_draws / 2:
        return None
    areas = (up * (below + 0.5 * down)).sum(axis=1)[good] / (n_up * n_down)[good]
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


def operating_points(y: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Return the best (specificity at sensitivity >= 0.80, sensitivity at specificity >= 0.80).

    A movie is called positive when its score reaches the threshold; every score is tried.
    """
    fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
    # Rates are ratios of counts: 0.8 itself must count in spite of rounding.
    specificity = (1 - fpr)[tpr >= 0.8 - 1e-12].max()
    sensitivity = tpr[1 - fpr >= 0.8 - 1e-12].max()
    return float(specificity), float(sensitivity)


def confusion(
    y: np.ndarray, score: np.ndarray, threshold: float = 0.5
) -> tuple[int, int, int, int]:
    """Return (TP, TN, FP, FN) at ``score > threshold``, as Keras counts them."""
    y, called = np.asarray(y, bool), np.asarray(score) > threshold
    return tuple(
        int(n)
        for n in (
            (called & y).sum(),
            (~called & ~y).sum(),
            (called & ~y).sum(),
            (~called & y).sum(),
        )
    )


def summarise(
    y: np.ndarray, score: np.ndarray, patients: Sequence[str] | None = None, *, seed: int = 0
) -> dict:
    """Return a dict of all numbers for one set of movies (or patients).

    Args:
        y, score: (n,) labels and probabilities.
        patients: (n,) patient of each entry for the bootstrap; None: every entry its own.
    """
    y, score = np.asarray(y, bool), np.asarray(score, float)
    tp, tn, fp, fn = confusion(y, score)
    result = {"n": len(y), "n_positive": int(y.sum()), "TP": tp, "TN": tn, "FP": fp, "FN": fn}
    result["accuracy"] = (tp + tn) / len(y) if len(y) else None
    result["sensitivity"] = tp / (tp + fn) if tp + fn else None
    result["specificity"] = tn / (tn + fp) if tn + fp else None
    result["brier"] = float(np.mean((score - y) ** 2)) if len(y) else None
    ranked = (
        "auc",
        "auc_se_delong",
        "auc_ci95_delong",
        "auc_ci95_bootstrap",
        "spec_at_sens80",
        "sens_at_spec80",
        "average_precision",
    )
    if len(np.unique(y)) < 2:
        result.update(dict.fromkeys(ranked))
        result["reason"] = "no movies" if not len(y) else "one class only"
        return result
    result["auc"] = auc(y, score)
    _, result["auc_se_delong"], result["auc_ci95_delong"] = delong(y, score)
    patients = np.arange(len(y)) if patients is None else patients
    result["auc_ci95_bootstrap"] = bootstrap_auc(y, score, patients, seed=seed)
    result["spec_at_sens80"], result["sens_at_spec80"] = operating_points(y, score)
    result["average_precision"] = average_precision(y, score)
    return result


def text(value: float | Sequence[float] | None) -> str:
    """Return a number or an interval with three decimals, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" if np.isscalar(value) else " to ".join(f"{v:.3f}" for v in value)


SETS = {"val": "validation"}  # names of the split's files -> words of a page


def decisions(result: dict) -> tuple[tuple, list[tuple]]:
    """Return (header, rows): what a cut at probability 0.5 gets right and wrong.

    Args:
        result: {set: {level: summary}}, the contents of metrics.json.
    """
    header = ("set", "of", "failures called failure", "failures missed", "others called failure")
    header += ("others called none", "sensitivity", "specificity")
    counts, shares = ("TP", "FN", "FP", "TN"), ("sensitivity", "specificity")
    rows = [
        (
            SETS.get(name, name),
            level,
            *(m[key] for key in counts),
            *(text(m[key]) for key in shares),
        )
        for name, levels in result.items()
        for level, m in levels.items()
    ]
    return header, rows


def beside_table(result: dict, beside: dict) -> tuple[tuple, list[tuple]]:
    """Return (header, rows): AUC over patients of the network and of what stands beside it.

    Args:
        result: contents of metrics.json.
        beside: {what: {set: summary over patients}}, the contents of beside.json.
    """
    header = ("what", "set", "patients", "AUC", "95 % bootstrap of patients")
    network = {name: levels["patients"] for name, levels in result.items()}
    rows = [
        (what, SETS.get(name, name), m["n"], text(m["auc"]), text(m["auc_ci95_bootstrap"]))
        for what, sets in {"the network": network, **beside}.items()
        for name, m in sets.items()
    ]
    return header, rows


def against_baselines(result: dict, beside: dict) -> list[str]:
    """Return a sentence for each baseline: whether the network tells more of the test patients.

    Args:
        result: contents of metrics.json.
        beside: contents of beside.json; what begins with "logistic" is a baseline.
    """
    network = result.get("test", {}).get("patients", {})
    sentences = []
    for what, sets in beside.items():
        other = sets.get("test", {}).get("auc")
        if not what.startswith("logistic") or other is None or network.get("auc") is None:
            continue
        told = f"of the test patients (AUC {network['auc']:.3f}) than the {what} ({other:.3f})"
        if network["auc"] <= other:
            sentences.append(f"The network does not tell more {told}.")
        elif other >= network["auc_ci95_bootstrap"][0]:
            sentences.append(f"The network tells more {told}, which lies within its interval.")
        else:
            sentences.append(f"The network tells more {told}, which lies below its interval.")
    return sentences


def calibration_bins(
    y: np.ndarray, score: np.ndarray, n_bins: int = 5
) -> list[tuple[float, float, int]]:
    """Return [(mean probability, observed share, n)] of ``n_bins`` groups of equal size."""
    order = np.argsort(np.asarray(score, float), kind="stable")
    y, score = np.asarray(y, float)[order], np.asarray(score, float)[order]
    groups = [g for g in np.array_split(np.arange(len(y)), n_bins) if len(g)]
    return [(float(score[g].mean()), float(y[g].mean()), len(g)) for g in groups]


def epoch_metrics(y: np.ndarray, score: np.ndarray) -> dict:
    """Return the columns that the training table has for each set (None where undefined)."""
    tp, tn, fp, fn = confusion(y, score)
    both = 0 < tp + fn < len(y)
    columns = {"accuracy": (tp + tn) / len(y), "auc": auc(y, score) if both else None}
    columns |= {"TP": tp, "TN": tn, "FP": fp, "FN": fn}
    columns["average_precision"] = average_precision(y, score) if both else None
    return columns


def cross_entropy(y: np.ndarray, score: np.ndarray) -> float:
    """Return the mean binary cross-entropy of probabilities ``score``, cut at 1e-7 from 0 and 1."""
    y, score = np.asarray(y, float), np.clip(np.asarray(score, float), 1e-7, 1 - 1e-7)
    return float(-np.mean(y * np.log(score) + (1 - y) * np.log1p(-score)))
