"""Numbers of events only where the data decide them: noise, plateaus, waves, cells."""

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from scipy import ndimage

from analysis.classical import classical_events
from analysis.kinetics import event_frequency, event_table
from analysis.preds_processing_tools import Prediction, process_predictions
from common.files import InputError
from inputs.calibration import Calibration, scaled_post
from inputs.cell import cell_of, find_cell, read_cell_mask
from inputs.movie_io import read_movie
from inputs.movie_state import BLACK, look_at, state_words
from settings.recording import Given

CALIBRATION = Calibration.of(0.2, 6.8)
SCALE = {"calibration": CALIBRATION}
T, H, W = 100, 48, 96
tt, yy, xx = np.ogrid[:T, :H, :W]


def counts(light, gain=20, seed=0):
    """Return a movie (T, H, W) uint16 with shot noise."""
    return (np.random.default_rng(seed).poisson(light / gain) * gain).astype(np.uint16)


def one_event(mask, number):
    """Return the Prediction of one event of class ``number`` in a mask."""
    ids = mask.astype(np.int32)
    classes, names = (ids * number).astype(np.uint8), np.array([0, number], np.uint8)
    return Prediction(classes, ids, names, np.empty((0, 3), np.int64))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("size", [(3, 5, 6), (10, 10, 12)])
def test_noise_gets_no_widths_and_no_amplitudes(number, size):
    movie = counts(np.full((T, H, W), 2000.0))
    ids, n = np.zeros((T, H, W), np.int32), 0
    for t in (0, 40, T - size[0]):
        for y in range(2, H - size[1], size[1] + 3):
            for x in range(2, W - size[2], size[2] + 4):
                n += 1
                ids[t : t + size[0], y : y + size[1], x : x + size[2]] = n
    names = np.r_[0, np.full(n, number)].astype(np.uint8)
    prediction = Prediction(names[ids], ids, names, np.empty((0, 3), np.int64))
    table = event_table(movie, prediction, **SCALE)
    given = table[["fwhm_um", "fdhm_ms", "speed_um_s"]].notna().any(axis=1).sum()
    assert given <= 0.02 * n
    assert (table["amplitude_df_f0"].notna()).sum() <= 0.02 * n
    assert table["quality"].str.contains("above the noise").sum() >= 0.98 * n


@pytest.mark.parametrize(("rise", "hold", "tau"), [(0, 20, 0), (3, 20, 3), (5, 10, 5)])
def test_a_plateau_puff(rise, hold, tau):
    a = tt - 40
    course = np.where(a < rise, np.clip(a / max(rise, 1), 0, 1), 1.0) * (a >= 0)
    end = np.exp(-np.clip((a - rise - hold) / tau, 0, 50)) if tau else a < hold
    light = 0.6 * course * end / (1 + np.exp((np.hypot(yy - 24, xx - 48) - 7) * 1.5))
    row = event_table(counts(2000 * (1 + light)), one_event(light > 0.25, 3), **SCALE).iloc[0]
    duration = rise / 2 + hold + tau * np.log(2)
    assert row["quality"] == "good"
    assert row["amplitude_df_f0"] == pytest.approx(0.6, rel=0.05)
    assert row["fwhm_um"] == pytest.approx(2.8, rel=0.05)
    assert row["fdhm_ms"] == pytest.approx(6.8 * duration, rel=0.05)
    assert row["trace_fdhm_ms"] == pytest.approx(6.8 * duration, rel=0.05)
    assert row["rise_ms"] == pytest.approx(6.8 * max(rise, 1), rel=0.1)


@pytest.mark.parametrize(("speed", "fade"), [(2.0, None), (2.0, 60.0), (1.5, 100.0)])
def test_a_fading_wave(speed, fade):
    frames = np.arange(160)[:, None, None]
    behind = (frames - 30) * speed - xx
    shape = np.where(behind >= 0, np.exp(-behind / 50), np.exp(-(behind**2) / 50))
    local = np.exp(-xx[0, 0] / fade) if fade else np.ones(W)
    light = local * shape * np.ones((1, H, 1))
    row = event_table(counts(2000 * (1 + light)), one_event(light > 0.2, 2), **SCALE).iloc[0]
    duration = (50 * np.log(2) + 5 * np.sqrt(2 * np.log(2))) / speed
    assert row["speed_um_s"] == pytest.approx(speed * 0.2 / 0.0068, rel=0.03)
    assert row["amplitude_df_f0"] == pytest.approx(np.median(local), rel=0.05)
    assert row["fdhm_ms"] == pytest.approx(6.8 * duration, rel=0.07)
    rise = 5 * (np.sqrt(2 * np.log(10)) - np.sqrt(2 * np.log(1 / 0.9))) / speed / 0.8
    assert row["rise_ms"] == pytest.approx(6.8 * rise, rel=0.07)


def test_a_wave_in_the_tail_of_another():
    frames, light, ids = np.arange(220)[:, None, None], 0.0, np.zeros((220, H, W), np.int32)
    for number, (start, speed) in enumerate(((20, 2.0), (85, 1.5)), start=1):
        behind = (frames - start) * speed - xx
        one = np.where(behind >= 0, np.exp(-behind / 50), np.exp(-(behind**2) / 50))
        one = np.broadcast_to(one, ids.shape)
        light = light + one
        ids[one > 0.2] = number
    names = np.array([0, 2, 2], np.uint8)
    prediction = Prediction(names[ids], ids, names, np.empty((0, 3), np.int64))
    table = event_table(counts(2000 * (1 + light)), prediction, **SCALE)
    speeds = np.array([2.0, 1.5]) * 0.2 / 0.0068
    np.testing.assert_allclose(table["speed_um_s"], speeds, rtol=0.03)
    front, tail = 5 * np.sqrt(2 * np.log(2)), 50 * np.log(2)
    durations = 6.8 * (front + tail) / np.array([2.0, 1.5])
    assert table["fdhm_ms"][0] == pytest.approx(durations[0], rel=0.05)
    # it stands on the fading light of the first, which is no part of its half maximum
    assert table["fdhm_ms"][1] == pytest.approx(durations[1], rel=0.15)


def sampled(onset, rise, tau, exposure, n=50):
    """Return a linear rise and an exponential decay (n,), sampled or averaged over each frame."""
    steps = (np.arange(50) + 0.5) / 50 - 0.5
    t = np.arange(n)[:, None] + exposure * steps - onset
    return np.minimum(np.clip(t / rise, 0, 1), np.exp(-np.clip((t - rise) / tau, 0, 50))).mean(1)


@pytest.mark.parametrize("exposure", [0.0, 1.0])
def test_sparks_of_a_few_frames_get_what_the_frames_decide(exposure):
    rng, rows, truth, rises = np.random.default_rng(5), [], [], []
    y, x = np.ogrid[:24, :24]
    spot = np.exp(-((y - 12.2) ** 2 + (x - 11.9) ** 2) / 2 / 4.0**2)
    for seed in range(12):
        rise, duration = rng.uniform(5, 10) / 6.8, rng.uniform(20, 30) / 6.8
        tau = (duration - rise / 2) / np.log(2)
        light = sampled(20 + rng.uniform(), rise, tau, exposure)[:, None, None] * spot
        table = event_table(
            counts(2000 * (1 + light), seed=seed), one_event(light > 0.25, 1), **SCALE
        )
        rows.append(table.iloc[0])
        truth.append(duration * 6.8)
        rises.append(max(rise, 1) * 6.8)
    table = pd.DataFrame(rows)
    given = table["fdhm_ms"].notna()
    assert given.sum() >= 3
    np.testing.assert_allclose(table["fdhm_ms"][given], np.array(truth)[given], rtol=0.1)
    np.testing.assert_allclose(table["amplitude_df_f0"], 1.0, rtol=0.12)
    assert table["quality"][~given].str.contains("duration undetermined").all()
    # one frame on the rise, none within the fall to a half: no measure without a model
    assert table[["trace_rise_ms", "trace_fdhm_ms"]].isna().all(axis=None)
    # the frames decide few rises: those of at most a frame, which are given as one
    told = table["rise_ms"].notna()
    assert told.sum() <= 8
    np.testing.assert_allclose(table["rise_ms"][told], np.array(rises)[told], rtol=0.15)


def sparks(amplitude=1.5, base=1000.0):
    """Return (light (60, 40, 60), mask) of two sparks of FWHM 0.71 um at 0.1 um, tau 100 ms."""
    t, y, x = np.ogrid[:60, :40, :60]
    light = np.full((60, 40, 60), base)
    ids = np.zeros(light.shape, np.int32)
    for number, (t0, y0, x0) in enumerate(((20, 12, 15), (35, 28, 44)), start=1):
        course = np.where(t < t0, 0, np.exp(-(t - t0) / 5))
        one = course * np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / 2 / 3.0**2)
        light = light + base * amplitude * one
        ids[one > 0.3] = number
    prediction = Prediction(
        (ids > 0).astype(np.uint8), ids, np.array([0, 1, 1], np.uint8), ids[:0, 0]
    )
    return light, prediction


FINE = Calibration.of(0.1, 20.0)


@pytest.mark.parametrize("kind", ["counts", "float 0..1", "offset", "oblong"])
def test_amplitudes_do_not_depend_on_how_values_are_stored(kind):
    light, prediction = sparks()
    movie, scale = counts(light, 10), FINE
    if kind == "float 0..1":
        movie = (movie / 65535).astype(np.float32)
    if kind == "offset":
        movie, scale = movie + 500, FINE.given(Given(offset_counts=500.0))
    if kind == "oblong":
        scale = FINE.given(Given((0.1, 0.2)))
    table = event_table(movie, prediction, calibration=scale)
    assert table["amplitude_df_f0"].to_numpy() == pytest.approx(1.5, rel=0.1)
    if kind != "oblong":
        assert table["fwhm_um"].to_numpy() == pytest.approx(0.71, rel=0.06)
        assert table["amplitude_df_f0"].mean() == pytest.approx(1.5, rel=0.05)
        assert (table["rise_ms"] == 20).all()  # a sharp onset is given as one frame
        assert table["fdhm_ms"].to_numpy() == pytest.approx(100 * np.log(2), rel=0.11)
    assert table["tau_ms"].to_numpy() == pytest.approx(100, rel=0.1)
    assert set(table["quality"]) == {"good"}
    assert (table["pixel_y_um"] == scale.pixel_y_um).all()


def test_oblong_pixels_of_a_round_spark():
    t, y, x = np.ogrid[:60, :30, :60]
    radius = np.hypot((y - 15) * 2, x - 30)  # pixels twice as high as wide
    light = np.exp(-(radius**2) / 2 / 4.0**2) * np.where(t < 25, 0, np.exp(-(t - 25) / 6))
    movie = counts(2000 * (1 + light), 5)
    scale = Calibration(0.1, 0.2, 6.8)
    row = event_table(movie, one_event(light > 0.3, 1), calibration=scale).iloc[0]
    assert row["fwhm_um"] == pytest.approx(0.4 * 2.355, rel=0.03)
    area = (light > 0.3).sum(axis=(1, 2)).max() * 0.02
    assert row["area_max_um2"] == pytest.approx(area)


def test_counts_and_normalised_movies_are_separated_alike():
    rng = np.random.default_rng(3)
    blobs = ndimage.gaussian_filter(rng.standard_normal((40, 48, 96)), (2, 3, 3))
    blobs /= blobs.std()
    movie = (rng.poisson(100 + 25 * np.clip(blobs, 0, 4)) * 20).astype(np.uint16)
    sparks_p = (1 / (1 + np.exp(-6 * (blobs - 1)))).astype(np.float32)
    nothing = np.zeros_like(sparks_p)
    probabilities = {"sparks": sparks_p, "waves": nothing, "puffs": nothing}
    post, low = scaled_post(CALIBRATION), movie.min()
    published = (movie - low).astype(np.float32) / (65535 - low)
    wanted = process_predictions(published, probabilities, post)
    assert wanted.instances.max() > 50
    for same in (movie - low, movie.astype(np.float32) - low):
        prediction = process_predictions(same, probabilities, post)
        np.testing.assert_array_equal(prediction.instances, wanted.instances)


def test_clipped_events_are_named_and_get_lower_bounds():
    light, prediction = sparks()
    table = event_table(np.minimum(counts(light, 10), 1700), prediction, calibration=FINE)
    assert (table["saturated_voxels"] > 50).all()
    assert table["quality"].str.contains("saturated").all()
    assert table["fwhm_um"].isna().all()
    assert (table["amplitude_df_f0"] <= 0.75).all()


def test_black_frames_change_no_number():
    light, prediction = sparks()
    movie = counts(light, 10)
    before = event_table(movie, prediction, calibration=FINE)
    movie[8:12] = 0
    after = event_table(movie, prediction, calibration=FINE)
    for name in ("amplitude_df_f0", "fwhm_um", "tau_ms"):
        assert after[name].to_numpy() == pytest.approx(before[name].to_numpy(), rel=0.03)
    post = scaled_post(FINE)
    events = classical_events(movie, post, threshold_sd=5, whole_frame=True)
    assert sum(events.counts().values()) == 2
    rate = event_frequency(after, movie, calibration=FINE)
    assert rate["duration_s"].to_numpy() == pytest.approx(56 * 0.02)


@pytest.mark.parametrize("scale", [1, 257])
def test_few_grey_levels_are_named(tmp_path, caplog, scale):
    light, prediction = sparks()
    movie = counts(light, 10)
    fine = event_table(movie, prediction, calibration=FINE)
    assert fine["step_df_f0"].to_numpy() == pytest.approx(0.01, rel=0.05)
    assert set(fine["quality"]) == {"good"}
    movie = (movie >> 8).astype(np.uint16) * scale  # an 8-bit export, and it spread to 16 bits
    table = event_table(movie, prediction, calibration=FINE)
    assert table["step_df_f0"].to_numpy() == pytest.approx(1 / 3.4, rel=0.1)
    assert table["quality"].str.contains("few grey levels: one step is 0.[23]").all()
    tifffile.imwrite(tmp_path / "01_video.tif", movie, metadata={"axes": "TYX"})
    state = read_movie(tmp_path / "01_video.tif", Given((0.1, 0.1), 20.0)).state
    assert "few grey levels" in caplog.text
    assert "few grey levels" in state_words(state)


@pytest.mark.parametrize("shift", [1000.0, 1010.0])
def test_a_movie_around_0_is_named_and_has_no_grey_levels(tmp_path, caplog, shift):
    movie = ((counts(sparks()[0], 10) - shift) / 100).astype(np.float32)
    tifffile.imwrite(tmp_path / "01_video.tif", movie, metadata={"axes": "TYX"})
    state = read_movie(tmp_path / "01_video.tif", Given((0.1, 0.1), 20.0)).state
    assert state.coarse is None
    assert state.step == pytest.approx(0.1, rel=1e-4)
    assert "lie around 0" in caplog.text
    assert "few grey levels" not in caplog.text


@pytest.mark.parametrize("stored", ["counts", "0 to 1", "share of 16 bits", "8 bits"])
def test_a_fading_tail_is_no_spark_of_its_own(stored):
    f = np.full((60, 40, 60), 1000.0)
    t, y, x = np.mgrid[:60, :40, :60]
    for t0, y0, x0 in ((20, 12, 15), (35, 28, 44)):  # a sharp rise, then 100 ms of decay
        spot = np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / 18)
        f += 1500 * spot * np.where(t < t0, 0, np.exp(-(t - t0) / 5))
    movie = (np.random.default_rng(0).poisson(f / 10) * 10).astype(np.uint16)
    forms = {
        "counts": movie,
        "0 to 1": (movie / movie.max()).astype(np.float32),
        "share of 16 bits": (movie / 65535).astype(np.float32),
        "8 bits": (movie >> 8).astype(np.uint8),
    }
    events = classical_events(forms[stored], scaled_post(FINE), threshold_sd=5)
    assert events.counts() == {"sparks": 2, "waves": 0, "puffs": 0}


@pytest.mark.parametrize("stored", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("height", [0.5, 5.0])
def test_frames_at_rest_of_a_movie_without_noise_are_not_black(stored, height):
    course = np.exp(-np.abs(np.arange(60) - 30) / 15.0)
    course[np.abs(np.arange(60) - 30) > 20] = 0  # events in most frames, rest in the others
    light = 1 + height * course[:, None, None] * np.exp(-((yy - 20) ** 2 + (xx - 40) ** 2) / 800)
    movie = (40 * light).astype(stored)
    assert look_at(movie).good[[0, 59]].all()
    movie[3] = 0
    assert look_at(movie).frames[3] == BLACK
    noisy = counts(np.full((30, H, W), 2000.0))
    noisy[4] = 1500  # a shutter and the offset of the detector
    assert look_at(noisy).frames[4] == BLACK


def test_a_spark_of_a_line_scan_is_found_and_measured():
    line = counts(sparks()[0], 10)[:, 12:13]
    events = classical_events(line, scaled_post(FINE), threshold_sd=5, whole_frame=True)
    assert events.counts()["sparks"] == 1
    row = event_table(line, events, calibration=FINE).iloc[0]
    assert row["amplitude_df_f0"] == pytest.approx(1.5, rel=0.1)
    assert row["fwhm_um"] == pytest.approx(0.71, rel=0.06)


def cell_movie(kind, share, seed=0):
    """Return (movie, true mask) of a cell that fills ``share`` of the rows of the frame."""
    rows, columns = 64, 256
    y, x = np.mgrid[:rows, :columns]
    height = round(rows * share)
    top = (rows - height) // 2
    mask = (y >= top) & (y < top + height)
    level = np.ones((rows, columns))
    if "striated" in kind:
        level *= 1 + 0.2 * np.sin(2 * np.pi * x / 9)
    if "graded" in kind:
        level *= 1 + 0.3 * np.linspace(-1, 1, columns)
    inside = ndimage.gaussian_filter(mask.astype(float), 1, mode="nearest")
    light = 1000 * (level * inside + 0.06 * (1 - inside))
    return counts(np.broadcast_to(light, (40, rows, columns)), 10, seed), mask


@pytest.mark.parametrize("kind", ["uniform", "striated", "graded", "striated graded"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.85, 1.0])
def test_area_of_cells_that_fill_half_to_all_of_the_frame(kind, share):
    movie, mask = cell_movie(kind, share)
    cell = find_cell(movie)
    assert cell.mask.sum() == pytest.approx(mask.sum(), rel=0.05)
    rates = event_frequency(
        event_table(movie[:, :4], one_event(movie[:, :4] < 0, 1), **SCALE), movie, **SCALE
    )
    assert rates["cell_um2"].to_numpy() == pytest.approx(mask.sum() * 0.04, rel=0.05)
    assert (rates["cell_origin"] == cell.origin).all()


def test_a_cell_without_an_edge_is_asked_for(tmp_path, caplog):
    light = np.broadcast_to(1000 * np.linspace(0.05, 1, W), (T, H, W))
    movie = counts(light, 10)
    assert find_cell(movie).mask is None
    tifffile.imwrite(tmp_path / "01_video.tif", movie, metadata={"axes": "TYX"})
    read = read_movie(tmp_path / "01_video.tif", Given((0.2, 0.2), 6.8))
    assert cell_of(read).mask is None
    assert "give --cell-mask" in caplog.text
    table = event_table(movie, one_event(movie < 0, 1), **SCALE)
    rates = event_frequency(table, movie, **SCALE, cell=cell_of(read))
    assert rates["cell_um2"].isna().all()
    assert rates["per_100um2_s"].isna().all()
    # a mask beside the movie or of the user answers
    roi = roifile.ImagejRoi.frompoints([[10, 5], [60, 5], [60, 35], [10, 35]])
    roi.tofile(tmp_path / "01_cell_mask.roi")
    read = read_movie(tmp_path / "01_video.tif", Given((0.2, 0.2), 6.8))
    assert cell_of(read).mask.sum() == 50 * 30
    assert cell_of(read).origin == "file: 01_cell_mask.roi"


def test_masks_of_a_cell(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[4:10, 5:25] = 255
    tifffile.imwrite(tmp_path / "m.tif", mask)
    np.testing.assert_array_equal(read_cell_mask(tmp_path / "m.tif", (20, 30)), mask > 0)
    with pytest.raises(InputError, match=r"shape \(20, 30\), the movie's frames \(20, 31\)"):
        read_cell_mask(tmp_path / "m.tif", (20, 31))
    box = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=5, top=4, right=25, bottom=10)
    box.tofile(tmp_path / "m.roi")
    np.testing.assert_array_equal(read_cell_mask(tmp_path / "m.roi", (20, 30)), mask > 0)
    (tmp_path / "bad.roi").write_bytes(b"Iout nothing")
    with pytest.raises(InputError, match=r"bad\.roi: (damaged|the cell mask is empty)"):
        read_cell_mask(tmp_path / "bad.roi", (20, 30))
