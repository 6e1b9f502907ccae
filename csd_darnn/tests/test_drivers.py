"""The search for drivers: where, how many frames before, and how rarely where there is none."""

import csv
import json

import numpy as np
import pytest

import main
from analysis.drivers import (
    false_discovery_rates,
    find_drivers,
    held_out_gain,
    least_together,
)
from analysis.map_figures import draw_bars
from demo.driver_cases import recorded
from helpers import SMALL
from inputs.custom_types import TrainData
from inputs.windows import WindowRule
from runs.drivers import sentence

RULE = WindowRule(10)


def test_q_values_of_a_known_list():
    p = np.array([0.04, 0.001, 0.5, 0.01, 0.02])
    np.testing.assert_allclose(false_discovery_rates(p), [0.05, 0.005, 0.5, 0.025, 1 / 30])


def test_a_held_out_gain_is_the_share_that_the_series_explains():
    random = np.random.default_rng(0)
    x, noise = random.normal(size=(2, 4000, 1)).astype(np.float32)
    gain = held_out_gain(np.hstack((x, random.normal(size=(4000, 1)))), 3 * x + 4 * noise)
    assert gain[0, 0] == pytest.approx(9 / 25, abs=0.03)
    assert -0.002 < gain[1, 0] < 0.002  # a series of chance gains nothing where it was not fitted


@pytest.mark.parametrize(("seed", "blur"), [(30, 0.0), (30, 1.5)])
def test_the_planted_driver_is_found_with_its_lag(seed, blur):
    case = recorded(seed, blur=blur)
    drivers = find_drivers(case.data, case.blocks, RULE, near=case.near, seed=seed)
    hit = drivers.q <= 0.05
    surest = np.lexsort((-drivers.gain, drivers.q))[0]
    assert case.planted[surest]
    assert abs(drivers.lag[surest] - 3) <= 1
    assert (hit & ~case.planted).sum() <= max(1, hit.sum() // 3)


def test_chances_are_even_where_nothing_drives():
    chances, discovered = [], 0
    for seed in range(30, 34):
        case = recorded(seed, driver=False)
        drivers = find_drivers(case.data, case.blocks, RULE, near=case.near, seed=seed)
        chances.append(drivers.p)
        discovered += (drivers.q <= 0.05).any()
    assert 0.4 < np.mean(chances) < 0.6
    assert np.mean(np.array(chances) <= 0.1) < 0.2
    assert discovered <= 1  # one in twenty is what the rate promises


def test_a_lag_of_named_series_and_a_record_too_short():
    random = np.random.default_rng(4)
    feats = random.normal(size=(900, 6)).astype(np.float32)
    target = np.roll(feats[:, 2], 5) + random.normal(size=900)
    data = TrainData(feats, target[:, None].astype(np.float32))
    blocks = [np.array([series]) for series in range(6)]
    drivers = find_drivers(data, blocks, RULE)
    assert np.flatnonzero(drivers.q <= 0.05).tolist() == [2]
    assert drivers.lag[2] == 5
    assert find_drivers(TrainData(*(part[:150] for part in data)), blocks, RULE) is None


def test_a_run_tells_drivers_in_a_table_a_map_and_a_sentence(tmp_path, capsys):
    random = np.random.default_rng(7)
    movie = 100 + random.normal(size=(600, 8, 10))
    movie[4:, 6, 8] += 3 * (movie[:-4, 1, 1] - 100)
    np.save(tmp_path / "movie.npy", movie.astype(np.float32))
    settings = SMALL | {"T": 8, "n_epochs": 1, "block": 2, "frame_rate_hz": 2.0}
    main.run_all(tmp_path / "movie.npy", **settings, target="6,8", error_rate=0.05,
                 run_dir=tmp_path / "run")  # fmt: skip
    with open(tmp_path / "run" / "drivers.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    first = rows[0]
    assert (first["row_first"], first["column_last"], first["discovered"]) == ("0", "1", "True")
    assert (first["lag_frames"], float(first["lag_s"])) == ("4", 2.0)
    assert not any(
        abs(int(row["row_first"]) - 6) < 2 and row["column_first"] == "8" for row in rows
    )
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())["drivers"]
    assert "rows 0 to 1, columns 0 to 1, 4 frames (2 s) before" in told[0]
    assert told[0] in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Search for drivers" in page
    assert (tmp_path / "run" / "plots" / "drivers.png").stat().st_size > 1000


def test_a_search_says_when_it_cannot_see_a_lone_driver():
    """1,000 shifts tell no chance below 1/1001: of 120 candidates three must stand out at 5 %."""
    assert [least_together(count, 0.05) for count in (50, 51, 120, 1655)] == [1, 2, 3, 34]
    random = np.random.default_rng(0)
    feats, target = random.normal(size=(800, 120)), random.normal(size=800)
    target[3:] += 2 * feats[:-3, 7]
    blocks = [np.array([series]) for series in range(120)]
    drivers = find_drivers(TrainData(feats, target[:, None]), blocks, RULE)
    assert drivers.gain[7] > 0.7  # of the variance, and yet:
    assert drivers.q[7] == drivers.q.min() == pytest.approx(120 / 1001)
    rows = [
        {"target": "goal", "row_first": "", "q": q, "discovered": False} for q in np.sort(drivers.q)
    ]
    told = sentence(rows, 0.05, None)
    assert "rate of 5 % (smallest q 0.12 of 120 candidates). That is no evidence" in told
    assert "of 120 candidates at least 3 must stand out together; fewer series" in told
    assert sentence(rows[:50], 0.05, None).endswith("of 50 candidates).")
    assert "rate of 0.5 %" in sentence(rows, 0.005, None)


def test_bars_of_a_search_show_the_surest_series(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.set_yticks",
        lambda axis, places, labels=(), **_: drawn.append(list(labels)),
    )
    values = {"q": np.array([0.9, 0.01, 0.5]), "lag": np.array([np.nan, 4, np.nan])}
    order = np.array([1, 2, 0])
    draw_bars(tmp_path / "bars.png", values, ["a", "b", "c"], most=2, order=order)
    assert drawn == [["c", "b"]] * 2  # from the bottom
    with open(tmp_path / "bars.csv", newline="") as handle:
        lags = [row["lag"] for row in csv.DictReader(handle)]
    assert lags == ["nan", "4", "nan"]  # none of what is not discovered
