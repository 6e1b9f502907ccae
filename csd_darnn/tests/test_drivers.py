"""The search for drivers: where, how many frames before, and how rarely where there is none."""

import csv
import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import main
from analysis.drivers import (
    Drivers,
    chances,
    find_drivers,
    held_out_gain,
)
from analysis.map_figures import draw_bars
from analysis.shared_light import light_radius
from demo.driver_cases import recorded
from helpers import SMALL
from inputs.custom_types import TrainData
from inputs.windows import WindowRule
from runs.drivers import sentence

RULE = WindowRule(10)


def test_chances_of_known_gains():
    """The second chance is that of the best candidate, with three standard errors on top."""
    shifted = np.zeros((2, 99))
    shifted[:, :20] = 1.0  # quantile 0.9: the unit; the median is 0
    shifted[0, :4] = 3.0  # of the first candidate, in other records than those of the second
    shifted[1, 50:52] = 5.0
    alone, together = chances(np.array([2.0, 5.0]), shifted, apart=400)
    np.testing.assert_allclose(alone, [5 / 100, 3 / 100])
    share = np.array([7 / 100, 3 / 100])
    np.testing.assert_allclose(together, share + 3 * np.sqrt(share * (1 - share) / 400))


def test_what_is_found_is_sure_and_large_enough():
    q, gain = np.array([0.01, 0.05, 0.06, 0.01]), np.array([0.02, 0.01, 0.3, 0.0099])
    drivers = Drivers(gain, np.full(4, 3), q, q, np.tile(gain, (2, 1)), np.array([2, 3]))
    assert drivers.found(0.05).tolist() == [True, True, False, False]
    assert drivers.found(0.1).tolist() == [True, True, True, False]


def test_a_held_out_gain_is_the_share_that_the_series_explains():
    random = np.random.default_rng(0)
    x, noise = random.normal(size=(2, 4000, 1)).astype(np.float32)
    gain = held_out_gain(np.hstack((x, random.normal(size=(4000, 1)))), 3 * x + 4 * noise)
    assert gain[0, 0] == pytest.approx(9 / 25, abs=0.03)
    assert -0.002 < gain[1, 0] < 0.002  # a series of chance gains nothing where it was not fitted


@pytest.mark.parametrize(("seed", "blur"), [(30, 0.0), (31, 1.5)])
def test_the_planted_driver_is_found_with_its_lag(seed, blur):
    case = recorded(seed, blur=blur)
    drivers = find_drivers(case.data, case.blocks, RULE, near=case.near, seed=seed)
    hit = drivers.found(0.05)
    surest = np.lexsort((-drivers.gain, drivers.q))[0]
    assert case.planted[surest]
    assert abs(drivers.lag[surest] - 3) <= 1
    assert not (hit & ~case.planted).any()


def test_chances_are_even_where_nothing_drives():
    alone, discovered = [], 0
    for seed in range(30, 34):
        case = recorded(seed, driver=False, blur=1.5 * (seed % 2))
        drivers = find_drivers(case.data, case.blocks, RULE, near=case.near, seed=seed)
        alone.append(np.mean(drivers.p))
        discovered += drivers.found(0.05).any()
    assert 0.35 < np.mean(alone) < 0.65
    assert discovered <= 1  # one in twenty is what the rate promises


def test_a_lag_of_named_series_and_a_record_too_short():
    random = np.random.default_rng(4)
    feats = random.normal(size=(900, 6)).astype(np.float32)
    target = np.roll(feats[:, 2], 5) + random.normal(size=900)
    data = TrainData(feats, target[:, None].astype(np.float32))
    blocks = [np.array([series]) for series in range(6)]
    drivers = find_drivers(data, blocks, RULE)
    assert np.flatnonzero(drivers.found(0.05)).tolist() == [2]
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
    assert told[0].startswith("Target row 6, column 8: ")
    assert "rows 0 to 1, columns 0 to 1, 4 frames (2 s) before" in told[0]
    assert told[0] in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Search for drivers" in page
    assert (tmp_path / "run" / "plots" / "drivers.png").stat().st_size > 1000


def test_a_lone_driver_among_many_is_seen_with_its_lag():
    """What one candidate needs to stand out does not grow with the shifts that can be told."""
    random = np.random.default_rng(0)
    feats, target = random.normal(size=(1200, 400)), random.normal(size=1200)
    target[3:] += feats[:-3, 7]
    blocks = [np.array([series]) for series in range(400)]
    drivers = find_drivers(TrainData(feats, target[:, None]), blocks, RULE)
    assert np.flatnonzero(drivers.found(0.05)).tolist() == [7]
    assert drivers.lag[7] == 3
    rows = [
        {"target": "goal", "row_first": "", "q": q, "discovered": False} for q in np.sort(drivers.q)
    ]
    told = sentence(rows, "row 3, column 4", 0.0001, drivers.least_q, None)
    assert told.startswith("Target row 3, column 4: no driver found where at most 0.01 % of")
    assert drivers.least_q == pytest.approx(1 / 1001 + 3 * np.sqrt(1000 / 1001**2 / 132))
    assert "tells no q below 0.0092; take a longer one or a larger --error_rate" in told
    assert "no evidence" not in sentence(rows, "goal", 0.05, drivers.least_q, None)


def test_light_reaches_as_far_as_a_movie_is_blurred():
    random = np.random.default_rng(3)
    movie = random.normal(size=(600, 24, 30)) + 5 * random.normal(size=(600, 1, 1))
    pixels = np.arange(24 * 30)
    reach = [
        light_radius(gaussian_filter(movie, (0, blur, blur)).reshape(600, -1), pixels, (24, 30))
        for blur in (0, 1.0, 1.5, 2.5)
    ]
    # exp(-d^2 / (4 blur^2)) is 0.1 at d = 3.03 blur
    assert reach == pytest.approx([1, 3, 5, 8], abs=1)
    assert reach[0] == 1
    few = np.delete(pixels, np.arange(50, 300))  # pixels without data
    assert light_radius(movie.reshape(600, -1)[:, few], few, (24, 30)) == 1


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
