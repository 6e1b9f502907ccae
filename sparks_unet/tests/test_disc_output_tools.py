"""Masks, tables, pictures and movies on disk."""

import csv

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from analysis.disc_output_tools import (
    rounded,
    rounding_words,
    saved_steps,
    sixteen_bit,
    write_locations,
    write_prediction,
)
from analysis.event_figures import (
    plot_class_bars,
    plot_confusion,
    plot_curves,
    plot_event,
    plot_iou,
    plot_montage,
    plot_snr,
)
from analysis.kinetics import event_table
from analysis.metrics_tools import metrics_from_counts, movie_counts
from analysis.overlays import (
    COLOURS,
    instance_frames,
    overlay_frames,
    spark_check_frames,
    write_overlay,
    write_view,
)
from analysis.preds_processing_tools import instances_from_classes, process_predictions
from analysis.resampling import bootstrap_intervals
from common.files import InputError
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post
from inputs.movie_io import read_movie, write_stack
from inputs.stack_writer import StackWriter
from runs.separation import separate
from settings.config import Params

CALIBRATION = Calibration.of(0.2, 6.8)
SCALE = {"calibration": CALIBRATION}
POST = scaled_post(CALIBRATION)


@pytest.fixture(scope="module")
def case():
    settings = DemoSettings(**SMALL | {"frames": 60, "rates": (3, 1, 0)})
    movie, classes, events, _ = make_movie(settings, 0)
    prediction = instances_from_classes(
        movie, np.where(classes == 4, 0, classes).astype(np.uint8), POST
    )
    return movie, classes, events, prediction


def test_all_files_of_a_prediction(case, tmp_path):
    movie, _, _, prediction = case
    probabilities = np.stack([prediction.classes == n for n in range(4)]).astype(np.float32)
    table = event_table(movie, prediction, probabilities=probabilities, **SCALE)
    options = {"table": table, "source": True, **SCALE}
    written = write_prediction(
        tmp_path, "run_5_01_overlap", movie, prediction, probabilities, **options
    )
    assert len(written) == 14
    instances = read_movie(written["instances"])
    assert instances.data.dtype == np.uint16
    np.testing.assert_array_equal(instances.data, prediction.instances)
    scale = instances.calibration
    assert (scale.pixel_um, scale.frame_ms) == (pytest.approx(0.2), pytest.approx(6.8))
    np.testing.assert_array_equal(read_movie(written["xs"]).data, movie)
    sparks = read_movie(written["segmented_sparks"]).data
    np.testing.assert_array_equal(sparks, prediction.classes == 1)
    with open(written["events"], newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["id"]) for row in rows] == list(range(1, len(prediction.class_of_id)))
    assert all(float(row["mean_probability"]) == 1 for row in rows)
    assert {path.name[:17] for path in written.values()} == {"run_5_01_overlap_"}
    for kind in ("classes", "segmented_waves", "instances", "instances_puffs"):
        with tifffile.TiffFile(written[kind]) as tif:
            assert tif.is_imagej
            assert len(tif.pages) == len(movie)  # what ImageJ reads of compressed stacks
            assert {page.compression.name for page in tif.pages} == {"ADOBE_DEFLATE"}
            assert {page.predictor for page in tif.pages} == {1}
            assert sum(sum(page.databytecounts) for page in tif.pages) < movie.nbytes / 20


def test_raw_only(case, tmp_path):
    written = write_prediction(
        tmp_path, "a", case[0], None, np.zeros((4, *case[0].shape), np.float32), **SCALE
    )
    assert sorted(written) == ["raw_puffs", "raw_sparks", "raw_waves"]


def test_more_events_than_16_bits_is_an_error():
    with pytest.raises(InputError, match="70000 events"):
        sixteen_bit(np.full((1, 1, 1), 70000))


def test_locations_have_the_published_column_order(tmp_path):
    path = write_locations(tmp_path / "a.csv", np.array([[7, 3, 50]]))
    assert path.read_text() == "frame,x,y\n7,50,3\n"


def test_gif_shows_the_colours_of_the_overlay(case, tmp_path):
    movie, classes, _, prediction = case
    path = write_overlay(
        tmp_path / "o.gif", movie, prediction.classes, truth_classes=classes, **SCALE
    )
    frames = overlay_frames(movie, prediction.classes, truth_classes=classes)
    zoom = 4
    with Image.open(path) as gif:
        for t in (0, len(movie) // 2, len(movie) - 1):
            gif.seek(t)
            shown = np.asarray(gif.convert("RGB"))[::zoom, ::zoom][: movie.shape[1]]
            np.testing.assert_array_equal(shown, frames[t] // 8 * 8)


def test_gif_of_more_colours_than_a_palette_has(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 400, 3)).astype(np.uint8)
    with Image.open(write_view(tmp_path / "o.gif", frames, **SCALE)) as gif:
        gif.seek(2)
        shown = np.asarray(gif.convert("RGB"))[:20, :400].astype(int)
    assert np.abs(shown - frames[2]).mean() < 40


def test_gif_has_all_frames_or_says_so(case, tmp_path):
    movie, classes, _, prediction = case
    path = write_overlay(
        tmp_path / "o.gif", movie, prediction.classes, truth_classes=classes, **SCALE
    )
    with Image.open(path) as gif:
        assert gif.n_frames == len(movie)
        assert gif.size[0] % 2 == gif.size[1] % 2 == 0
        assert gif.size[0] == 4 * movie.shape[2]
    small = write_overlay(tmp_path / "s.gif", movie, prediction.classes, max_mb=0.3, **SCALE)
    every = int(small.stem.removeprefix("s_every"))
    with Image.open(small) as gif:
        assert gif.n_frames == -(-len(movie) // every)
    assert small.stat().st_size <= 300_000


def test_mp4_and_tif(case, tmp_path):
    movie, _, _, prediction = case
    assert (
        write_overlay(tmp_path / "o.mp4", movie, prediction.classes, **SCALE).stat().st_size > 1000
    )
    path = write_overlay(tmp_path / "o.tif", movie, prediction.classes, **SCALE)
    with Image.open(path) as image:
        assert image.n_frames == len(movie)
    with pytest.raises(InputError, match=r"expected \.gif"):
        write_overlay(tmp_path / "o.avi", movie, prediction.classes, **SCALE)


def test_colours_lie_where_the_classes_are():
    movie = np.zeros((2, 6, 8), np.uint16)
    classes = np.zeros(movie.shape, np.uint8)
    classes[1, 2:4, 2:4] = 2
    frames = overlay_frames(movie, classes)
    assert not frames[0].any()
    expected = np.round(50 / 255 * np.array(COLOURS["waves"]))
    np.testing.assert_array_equal(frames[1, 2, 2], expected)
    white = overlay_frames(movie, classes, white=True)
    assert tuple(white[1, 2, 2]) == (138, 43, 226)
    assert tuple(white[0, 0, 0]) == (255, 255, 255)


def test_event_colours_repeat():
    movie, ids = np.zeros((1, 4, 4), np.uint16), np.zeros((1, 4, 4), np.int32)
    ids[0, :2], ids[0, 2:] = 1, 2
    first, second = (instance_frames(movie, ids, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0, 0, 0], first[0, 3, 0])


def test_spark_check_marks_points():
    movie = np.zeros((9, 20, 20), np.uint16)
    none = np.empty((0, 3))
    frames = spark_check_frames(movie, none, none, [(4, 10, 10)], [(4, 2, 2)])
    assert tuple(frames[4, 10, 10]) == (45, 45, 0)
    assert tuple(frames[4, 2, 2]) == (45, 0, 0)
    assert not frames[4, 10, 16].any()


def test_every_figure_has_its_numbers(case, tmp_path):
    movie, classes, events, prediction = case
    counts = [movie_counts(classes, events, prediction, post=POST, ignore_frames=6)]
    metrics = metrics_from_counts(counts)
    row = event_table(movie, prediction, **SCALE).iloc[0]
    loss = tmp_path / "loss.csv"
    loss.write_text("iteration,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(40)))
    validation = tmp_path / "metrics.csv"
    validation.write_text("iteration,average/detected\n10,.5\n20,.75\n")
    paths = [
        plot_confusion(tmp_path / "confusion.png", metrics["confusion"]),
        plot_class_bars(
            tmp_path / "bars.png", metrics, bootstrap_intervals(counts, ["sparks/recall"], draws=5)
        ),
        plot_iou(tmp_path / "iou.png", metrics),
        plot_snr(tmp_path / "snr.png", {"01": 3.5, "02": None}),
        plot_curves(tmp_path / "curves.png", loss, validation),
        plot_event(tmp_path / "event.png", movie, row, **SCALE),
        plot_montage(tmp_path / "montage.png", movie, prediction.classes, classes, **SCALE),
    ]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 200
        with open(path.with_suffix(".csv"), newline="") as handle:
            assert len(list(csv.reader(handle))) >= 3


def test_probabilities_in_steps_take_less_room(case, tmp_path):
    shape = case[0].shape
    rng = np.random.default_rng(0)
    probabilities = (rng.random((4, *shape)) ** 20).astype(np.float32)
    sizes = {}
    for bits in (0, 12):
        written = write_prediction(
            tmp_path / str(bits), "a", case[0], None, probabilities, raw_bits=bits, **SCALE
        )
        waves = read_movie(written["raw_waves"]).data
        assert waves.dtype == np.float32
        limit = 2.0 ** -(bits + 1) if bits else 0
        assert np.abs(waves - probabilities[2]).max() <= limit
        sizes[bits] = written["raw_waves"].stat().st_size
    assert sizes[12] < sizes[0] / 2


def test_stack_that_misses_frames_is_not_there(tmp_path):
    with (
        pytest.raises(ValueError, match="2 of 3 frames written"),
        StackWriter(tmp_path / "a.tif", (3, 4, 5), np.uint8) as stack,
    ):
        stack.write(np.zeros((2, 4, 5)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", [0, 24])
def test_all_bits_are_kept_on_request(case, tmp_path, bits):
    rng = np.random.default_rng(0)
    probabilities = rng.random((4, *case[0].shape)).astype(np.float32)
    options = {"raw_bits": bits, **SCALE}
    written = write_prediction(tmp_path, "a", case[0], None, probabilities, **options)
    saved = read_movie(written["raw_puffs"]).data
    np.testing.assert_array_equal(saved, probabilities[3])
    assert saved_steps(saved) == 0
    assert Params().raw_bits == 14
    assert saved_steps(rounded(saved, 14)) == 14
    assert saved_steps((saved > 0.5).astype(np.uint8)) == 0
    assert "steps of 2^-14" in rounding_words(14)
    assert "all bits" in rounding_words(bits)


def test_saved_probabilities_give_the_events_of_the_exact_ones(tmp_path, capsys):
    movie, classes, *_ = make_movie(DemoSettings(**SMALL | {"frames": 90}), 0)
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=movie.shape), 1.5)
    exact = []
    for number in (1, 2, 3):
        sure = ndimage.gaussian_filter((classes == number).astype(float), 1.5)
        exact.append((0.98 / (1 + np.exp(-8 * (sure - 0.5 + noise)))).astype(np.float32))
    exact = np.stack([1 - sum(exact), *exact])
    calibration = Calibration.of(0.2, 6.8)
    post = scaled_post(calibration)
    wanted = process_predictions(movie - movie.min(), exact, post)
    table = event_table(movie, wanted, calibration=calibration)
    options = {"raw_bits": Params().raw_bits, "calibration": calibration}
    written = write_prediction(tmp_path, "a", movie, None, exact, **options)
    write_stack(tmp_path / "m.tif", movie, calibration=calibration)
    stacks = {name: written[f"raw_{name}"] for name in ("sparks", "waves", "puffs")}
    counts = separate(tmp_path / "m.tif", stacks, tmp_path / "out")
    assert "rounded to steps of 2^-14" in capsys.readouterr().out
    assert counts == wanted.counts()
    assert sum(counts.values()) >= 3
    instances = read_movie(tmp_path / "out" / "m_instances.tif").data
    assert (instances != wanted.instances).sum() <= 2e-4 * (instances > 0).sum()
    again = pd.read_csv(tmp_path / "out" / "m_events.csv")
    for name in ("t_peak", "y_peak", "x_peak", "duration_ms"):
        np.testing.assert_allclose(again[name], table[name], rtol=1e-5)
    np.testing.assert_allclose(again["amplitude_df_f0"], table["amplitude_df_f0"], rtol=0.01)
