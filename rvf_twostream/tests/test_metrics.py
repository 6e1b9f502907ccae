"""Metrics: definitions, ties, one class, intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics import (
    auc,
    bootstrap_auc,
    calibration_bins,
    delong,
    epoch_metrics,
    operating_points,
    summarise,
)

LABELS = st.lists(st.booleans(), min_size=4, max_size=30).filter(lambda y: 0 < sum(y) < len(y))


@settings(max_examples=50, deadline=None)
@given(LABELS, st.data())
def test_auc_counts_pairs(y, data):
    score = data.draw(st.lists(st.integers(0, 4), min_size=len(y), max_size=len(y)))
    y, score = np.array(y), np.array(score, float)
    pairs = [(p > n) + 0.5 * (p == n) for p in score[y] for n in score[~y]]
    assert auc(y, score) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert delong(y, score)[0] == pytest.approx(np.mean(pairs), abs=1e-12)
    specificity, sensitivity = operating_points(y, score)
    cuts = [(np.mean(score[y] >= c), np.mean(score[~y] < c)) for c in [*score, np.inf]]
    assert specificity == pytest.approx(max(s for t, s in cuts if t >= 0.8))
    assert sensitivity == pytest.approx(max(t for t, s in cuts if s >= 0.8))


def test_one_class_gives_null_and_a_reason():
    result = summarise([True, True], [0.2, 0.9])
    assert result["auc"] is None
    assert result["average_precision"] is None
    assert result["reason"] == "one class only"
    assert result["sensitivity"] == 0.5
    assert summarise([], [])["reason"] == "no movies"
    assert epoch_metrics([0, 0], np.array([0.1, 0.7]))["auc"] is None


def test_bootstrap_holds_the_area_and_is_seeded():
    rng = np.random.default_rng(0)
    y = rng.random(80) < 0.4
    score = rng.normal(size=80) + y
    patients = np.arange(80) // 2
    low, high = bootstrap_auc(y, score, patients, n_draws=500, seed=3)
    assert low < auc(y, score) < high
    assert (low, high) == bootstrap_auc(y, score, patients, n_draws=500, seed=3)
    order = rng.permutation(80)
    assert bootstrap_auc(y[order], score[order], patients[order], n_draws=500, seed=3) == (
        low,
        high,
    )


def test_calibration_bins_cover_everything():
    bins = calibration_bins([0, 1, 1, 0, 1, 1, 0], np.linspace(0, 1, 7), n_bins=3)
    assert sum(n for *_, n in bins) == 7
    assert bins[0][0] < bins[-1][0]
