"""The event table finds planted amplitudes, widths, times and speeds."""

import numpy as np
import pytest
from scipy import ndimage

from analysis.event_fit import course_times, fit_event, spark_course, spot, spot_slopes
from analysis.kinetics import (
    COLUMNS,
    background_counts,
    event_frequency,
    event_table,
    region_statistics,
)
from analysis.preds_processing_tools import instances_from_classes
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post
from settings.config import CLASSES

CALIBRATION = Calibration.of(0.2, 6.8)
SCALE = {"calibration": CALIBRATION}
POST = scaled_post(CALIBRATION)


def measured(settings, n_movies):
    """Return (table row, truth row) of every planted event that is not ignored."""
    pairs = []
    for index in range(n_movies):
        movie, classes, events, truths = make_movie(settings, index)
        kept = np.where(classes == CLASSES["ignore"], 0, classes).astype(np.uint8)
        prediction = instances_from_classes(movie, kept, POST)
        for row in event_table(movie, prediction, **SCALE).to_dict("records"):
            ids = np.bincount(events[prediction.instances == row["id"]])
            pairs.append((row, truths[int(ids.argmax()) - 5]))
    return pairs


def median_ratio(pairs, column, truth):
    return np.nanmedian([row[column] / true[truth] for row, true in pairs])


def test_sparks():
    pairs = measured(DemoSettings(**SMALL | {"rates": (4, 0, 0)}), 4)
    assert len(pairs) >= 10
    # The glow beside the cell, taken as background, makes amplitudes 6 % larger.
    assert median_ratio(pairs, "amplitude_df_f0", "amplitude_df_f0") == pytest.approx(
        1.04, abs=0.08
    )
    assert median_ratio(pairs, "fwhm_um", "fwhm_um") == pytest.approx(1, abs=0.08)
    assert median_ratio(pairs, "fdhm_ms", "fdhm_ms") == pytest.approx(1, abs=0.1)
    for row, true in pairs:
        assert np.hypot(row["x_peak"] - true["x"], row["y_peak"] - true["y"]) < 4


def test_puffs():
    pairs = measured(DemoSettings(**SMALL | {"rates": (0, 2, 0)}), 4)
    assert len(pairs) >= 4
    assert median_ratio(pairs, "fwhm_um", "fwhm_um") == pytest.approx(1, abs=0.08)
    assert median_ratio(pairs, "fdhm_ms", "fdhm_ms") == pytest.approx(1, abs=0.2)
    assert median_ratio(pairs, "rise_ms", "rise_ms") == pytest.approx(1, abs=0.15)


def test_wave_speed():
    pairs = measured(DemoSettings(**SMALL | {"rates": (0, 0, 1)}), 3)
    assert len(pairs) == 3
    for row, true in pairs:
        assert row["class"] == "waves"
        assert row["speed_um_s"] == pytest.approx(true["speed_um_s"], rel=0.05)
        assert row["amplitude_df_f0"] == pytest.approx(true["amplitude_df_f0"], rel=0.15)


@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_fit_of_a_noise_free_spark(blur):
    t, y, x = np.arange(60.0), *np.mgrid[:31, :41]
    course = spark_course(t, 20.0, 5.0, 8.0, blur)
    ratio = 0.8 * course[:, None, None] * spot(np.hypot(y - 14, x - 22), 5.0, 2.0)
    fitted = fit_event(ratio, np.ones(ratio.shape), (25, 14, 22), CALIBRATION, flat=False)
    top, _, duration = course_times(5.0, 8.0, blur)
    assert fitted["amplitude_df_f0"] == pytest.approx(0.8 * top, rel=0.02)
    assert fitted["fwhm_um"] == pytest.approx(2.0, rel=0.01)
    assert fitted["fdhm_ms"] == pytest.approx(duration * 6.8, rel=0.03)


def test_sharp_course_has_the_stated_duration():
    assert course_times(4.0, 10.0, 0.0) == (1.0, 4.0, pytest.approx(2 + 10 * np.log(2)))
    top, to_peak, duration = course_times(4.0, 10.0, 0.3)
    assert (top, duration) == (pytest.approx(1, abs=0.1), pytest.approx(8.93, abs=0.5))
    assert to_peak > 0


def test_linescan_is_a_movie_of_one_row():
    t, x = np.arange(50.0), np.arange(60)
    ratio = 1.5 * spark_course(t, 10, 4, 9)[:, None] * spot(np.abs(x - 30.0), 8.0, 2.0)
    fitted = fit_event(
        ratio[:, None], np.ones((50, 1, 60)), (14, 0, 30), Calibration.of(1, 1), flat=False
    )
    assert fitted["amplitude_df_f0"] == pytest.approx(1.5, rel=0.02)
    assert fitted["fwhm_um"] == pytest.approx(16, rel=0.01)


def test_background_is_taken_outside_the_cell_only():
    movie, *_ = make_movie(DemoSettings(**SMALL), 0)
    assert 1500 < background_counts(movie) < 2100
    full = ndimage.gaussian_filter(np.random.default_rng(0).random((9, 20, 30)), 3) + 5
    assert background_counts(full * 1000) == 0.0


def test_table_of_a_movie_without_events():
    movie = np.full((20, 10, 12), 100, np.uint16)
    prediction = instances_from_classes(movie, np.zeros(movie.shape, np.uint8), POST)
    table = event_table(movie, prediction, **SCALE)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 0
    rates = event_frequency(table, movie, **SCALE)
    assert (rates["n"] == 0).all()


def test_frequency_counts_per_area_and_time():
    movie, classes, *_ = make_movie(DemoSettings(**SMALL | {"rates": (4, 0, 0)}), 0)
    prediction = instances_from_classes(
        movie, np.where(classes == 4, 0, classes).astype(np.uint8), POST
    )
    rates = event_frequency(event_table(movie, prediction, **SCALE), movie, **SCALE)
    sparks = rates[rates["class"] == "sparks"].iloc[0]
    assert sparks["n"] == prediction.counts()["sparks"]
    expected = sparks["n"] / sparks["cell_um2"] / (160 * 0.0068) * 100
    assert sparks["per_100um2_s"] == pytest.approx(expected)


def numeric_slopes(model, values, step=1e-6):
    """Return the central differences of ``model`` at ``values``, one column for each."""
    shifts = step * np.eye(len(values))
    return np.stack([(model(values + d) - model(values - d)) / (2 * step) for d in shifts], axis=1)


def test_the_largest_disk_of_an_event_is_that_of_all_its_frames():
    rng = np.random.default_rng(2)
    ids = (ndimage.gaussian_filter(rng.normal(size=(12, 40, 60)), (1, 3, 3)) > 0.02).astype(
        np.int32
    )
    box = (slice(0, 12), slice(0, 40), slice(0, 60))
    for sizes in ((1.0, 1.0), (0.4, 0.2)):
        plain = max(ndimage.distance_transform_edt(frame, sizes).max() for frame in ids)
        assert region_statistics(ids, 1, box, sizes) == (12, plain, int(ids.sum()))


def test_slopes_of_a_spot_are_its_derivatives():
    rows, columns = (axis.ravel().astype(float) for axis in np.mgrid[:15, :17])

    def model(values):
        height, column, half, row, order = values
        return height * spot(np.hypot(rows - row, columns - column), half, order)

    values = np.array([0.7, 8.0, 4.1, 7.0, 3.1])  # the centre is a pixel
    slopes = spot_slopes(rows - 7.0, columns - 8.0, 0.7, 4.1, 3.1)
    np.testing.assert_allclose(slopes, numeric_slopes(model, values), atol=1e-7)
