"""How far a demo's score is inside its target, for every way in which a target is written."""

import pytest

from demo_margin import margin


@pytest.mark.parametrize(
    ("value", "target", "inside"),
    [
        (0.9, ">= 0.75", 0.15),
        (0.9, "< 1", 0.1),
        (-0.5, "|kappa| < 0.2", -0.3),
        (-0.1, "within +-0.3", 0.2),
        (0.4, "0.3 to 0.7", 0.1),
        (3.4, "within 10% of 3.5", 0.25),
        # The tighter of two bounds: against 0 alone a score below chance would look safe.
        (0.08, "> 0 and > 0.055 (95 % of 1,000 shuffles)", 0.025),
        (-0.02, "> 0 and > -0.05 (95 % of 1,000 shuffles)", -0.02),
    ],
)
def test_margin(value, target, inside):
    assert margin(value, target) == pytest.approx(inside)


def test_without_a_bound_there_is_no_margin():
    assert margin(1.0, "") is None
    assert margin(None, ">= 0.75") is None
