"""What became of the events, planted numbers, waves in space and time, and traces of the report."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.event_traces import Trace, read_traces, traces_block, write_traces
from analysis.kinetics import event_table
from analysis.outcome_figures import (
    event_outcomes,
    matched_truth,
    plot_outcomes,
    plot_space_time,
    plot_truth,
)
from analysis.overlays import pace_words
from analysis.preds_processing_tools import instances_from_classes
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post

SCALE = {"calibration": Calibration.of(0.2, 6.8)}
POST = scaled_post(SCALE["calibration"])


@pytest.fixture(scope="module")
def case():
    """A movie of sparks and a wave; one spark is not predicted, one is where there is none."""
    settings = DemoSettings(**SMALL | {"rates": (4, 0, 1)})
    movie, classes, events, truth = make_movie(settings, 1)
    lost = next(row["id"] for row in truth if row["class"] == "sparks" and row["label"] == 1)
    drawn = np.where(classes == 4, 0, classes).astype(np.uint8)
    drawn[events == lost] = 0
    free = classes[100:104, 4:10, 20:26]
    assert not free.any()
    drawn[100:104, 4:10, 20:26] = 1
    prediction = instances_from_classes(movie, drawn, POST)
    table = event_table(movie, prediction, **SCALE)
    rows = [{key: str(value) for key, value in row.items()} for row in truth]
    return movie, (classes, events), prediction, table, rows


@pytest.fixture(scope="module")
def calm():
    """A movie of single sparks, predicted as annotated."""
    settings = DemoSettings(**SMALL | {"rates": (4, 0, 0)})
    movie, classes, events, truth = make_movie(settings, 0)
    drawn = np.where(classes == 4, 0, classes).astype(np.uint8)
    prediction = instances_from_classes(movie, drawn, POST)
    traces = {}
    table = event_table(movie, prediction, traces=traces, **SCALE)
    rows = [{key: str(value) for key, value in row.items()} for row in truth]
    return events, prediction, table, traces, rows


def test_found_missed_and_false_events(case, tmp_path):
    movie, (classes, events), prediction, *_ = case
    outcomes = event_outcomes(classes, events, prediction, POST)
    names = [one.outcome for one in outcomes]
    n_true = len({(c, e) for c, e in zip(classes[classes > 0], events[classes > 0]) if c < 4})
    assert (names.count("missed"), names.count("false")) == (1, 1)
    assert names.count("found") == n_true - 1
    wrong = next(one for one in outcomes if one.outcome == "false")
    assert 100 <= wrong.frame < 104
    assert abs(wrong.y - 6.5) <= 1
    assert abs(wrong.x - 22.5) <= 1
    labels = prediction.classes, classes
    path = plot_outcomes(tmp_path / "o.png", [("01", movie, labels, outcomes)], **SCALE)
    assert path.stat().st_size > 10_000
    with Image.open(path) as picture:
        white = (np.asarray(picture.convert("L")) == 255).all(axis=1)
    assert white.mean() < 0.25  # rows as high as their pictures; of one height: 0.39 in the demo
    table = pd.read_csv(path.with_suffix(".csv"))
    assert sorted(table["outcome"]) == sorted(names)


def test_planted_numbers_beside_measured_ones(case, calm, tmp_path):
    _, (_, events), prediction, table, truth = case
    pairs = matched_truth(events, prediction, table, truth)
    speeds = [pair for pair in pairs if pair[1] == "speed_um_s"]
    assert len(speeds) == 1
    assert speeds[0][3] == pytest.approx(speeds[0][2], rel=0.05)
    events, prediction, table, _, truth = calm
    pairs = matched_truth(events, prediction, table, truth)
    widths = np.array([pair[2:] for pair in pairs if pair[1] == "fwhm_um"])
    assert len(widths) >= 2
    np.testing.assert_allclose(widths[:, 1], widths[:, 0], rtol=0.15)
    path = plot_truth(tmp_path / "t.png", pairs)
    assert len(pd.read_csv(path.with_suffix(".csv"))) == len(pairs)
    assert plot_truth(tmp_path / "none.png", []).is_file()


def test_a_wave_in_space_and_time(case, tmp_path):
    movie, _, _, table, _ = case
    row = table[table["class"] == "waves"].iloc[0]
    numbers = pd.read_csv(
        plot_space_time(tmp_path / "w.png", movie, row, **SCALE).with_suffix(".csv")
    )
    assert numbers.shape[1] == 1 + movie.shape[2]
    beside = numbers.isna().all()
    assert beside.iloc[1]  # no light beside the cell: no share of it
    light = numbers.loc[:, ~beside].iloc[:, 1:]
    # the front in each column: its slope is the speed
    times = numbers["time_ms"].to_numpy()[(light >= light.max() / 2).to_numpy().argmax(axis=0)]
    x_um = np.array([float(name.split("=")[1].split()[0]) for name in light.columns])
    slope = np.polyfit(x_um, times, 1)[0]
    assert 1e3 / abs(slope) == pytest.approx(row["speed_um_s"], rel=0.1)


def test_traces_and_their_pictures(calm, tmp_path):
    _, _, table, traces, _ = calm
    path = write_traces(tmp_path / "a_traces.csv", traces, SCALE["calibration"])
    back = read_traces(path)
    assert back.keys() == traces.keys()
    assert len(traces) >= 2
    for number, one in traces.items():
        assert back[number].first_frame == one.first_frame
        np.testing.assert_allclose(back[number].values, one.values, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(back[number].fit, one.fit, rtol=1e-5, atol=1e-9)
        # the fit belongs to the trace: it leaves little of it
        assert np.std(one.values - one.fit) < 0.5 * np.std(one.values)
    rows = {int(row["id"]): row for _, row in table.iterrows()}
    block = traces_block([("<b>1", rows[n], one) for n, one in back.items()], 6.8)
    assert "<script" not in block
    assert "<b>1" not in block
    assert block.count("<svg") == len(traces)
    assert block.count("stroke-dasharray") == len(traces)


def test_the_reader_chooses_the_order_of_traces():
    flat = Trace(0, np.zeros(5), np.full(5, np.nan))
    rows = [
        {"quality": "saturated", "fit_error": 0.1, "peak_df_f0": 3.0},
        {"quality": "good", "fit_error": 0.2, "peak_df_f0": 1.0},
        {"quality": "good", "fit_error": 0.05, "peak_df_f0": 2.0},
    ]
    place = {"start_frame": 1, "end_frame": 2, "class": "sparks"}
    events = [("1", pd.Series(row | place | {"id": i}), flat) for i, row in enumerate(rows)]
    block = traces_block(events, None)
    orders = {
        int(number): (int(quality), int(error), int(height))
        for quality, error, height, number in re.findall(
            r"--quality:(\d);--error:(\d);--height:(\d).*?<title>movie 1, spark (\d)", block
        )
    }
    assert orders == {0: (2, 1, 0), 1: (1, 0, 2), 2: (0, 2, 1)}
    assert "stroke-dasharray" not in block


@pytest.mark.parametrize(
    ("frame_ms", "every", "words"),
    [
        (6.8, 1, "played at 25 pictures/s, 5.88 times slower than recorded"),
        (6.8, 12, "played at 25 pictures/s, 2.04 times faster than recorded"),
        (40.0, 1, "played at 25 pictures/s, as fast as recorded"),
    ],
)
def test_the_film_says_how_fast_it_is_played(frame_ms, every, words):
    assert pace_words(frame_ms, every) == words
