"""The scripts around predictions, run as a user runs them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import classical_baseline
import get_sparks_from_preds
import save_results_to_json
import separate_events
import track_objects_from_preds
from analysis.spark_locations import bandstop_filter
from common.files import InputError
from demo.synthetic import SMALL, make_demo_data
from inputs.calibration import Calibration
from inputs.movie_io import read_movie, read_probabilities, write_stack
from make_demo_data import main as make_demo_main

FOLDER = Path(__file__).resolve().parents[1]
NAMES = ("sparks", "waves", "puffs")
MASKS = (("classes", "class"), ("events", "event"))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A recording with blurred truth as probabilities."""
    folder = tmp_path_factory.mktemp("case")
    make_demo_data(folder, **SMALL | {"movies": 1, "rates": (6, 2, 1), "seed": 2, "frames": 100})
    classes = read_movie(folder / "01_class_label.tif").data
    for number, name in enumerate(NAMES, start=1):
        probability = 0.97 * ndimage.gaussian_filter((classes == number).astype(np.float32), 0.6)
        write_stack(folder / f"run_10_01_overlap_raw_{name}.tif", probability)
    return folder


def run(script, *arguments):
    """Run a script from another folder; return (exit code, output, error text)."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("main", [separate_events.main, get_sparks_from_preds.main])
def test_probabilities_below_0_are_refused(case, tmp_path, capsys, main):
    whole = case / "run_10_01_overlap_raw_sparks.tif"
    values = read_movie(whole).data.copy()
    values.view(np.uint32)[50, 5, 5] ^= 0xFF000000  # four bytes of a disk
    write_stack(tmp_path / "a.tif", values)
    parts = ["--sparks", tmp_path / "a.tif", *(f"--{n}={whole}" for n in ("waves", "puffs"))]
    first = parts if main is separate_events.main else [tmp_path / "a.tif"]
    with pytest.raises(SystemExit) as caught:
        main(
            [
                str(one)
                for one in (*first, "--movie", case / "01_video.tif", "--out", tmp_path / "o")
            ]
        )
    assert caught.value.code == 2
    # Lines before are of the log, whose stream a test before this one may have closed.
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {tmp_path / 'a.tif'}: values from -")
    assert "expected probabilities from 0 to 1" in told


def test_spark_table(case):
    sparks = case / "run_10_01_overlap_raw_sparks.tif"
    options = ("--movie", case / "01_video.tif", "--threshold", 0.5, "--min-radius", 2)
    masks = [f"--{n}={case / f'01_{k}_label.tif'}" for n, k in MASKS]
    code, out, _ = run("get_sparks_from_preds.py", sparks, *options, *masks)
    table = sparks.with_name("run_10_01_overlap_raw_sparks_locations.csv")
    assert code == 0
    assert str(table) in out
    with open(table, newline="") as handle:
        header, *rows = csv.reader(handle)
    assert header == ["frame", "x", "y"]
    classes = read_movie(case / "01_class_label.tif").data
    assert rows
    pairs = sparks.with_name("run_10_01_overlap_raw_sparks_pairs.txt").read_text().splitlines()[2:]
    assert sum(line.startswith(("pair", "extra")) for line in pairs) == len(rows)
    assert "precision" in out
    with Image.open(sparks.with_name("run_10_01_overlap_raw_sparks_check.gif")) as gif:
        assert gif.n_frames == 100
    assert all(classes[int(t), int(y), int(x)] in (1, 4) for t, x, y in rows)


def test_separate_events(case, tmp_path):
    stacks = [f"--{n}={case / f'run_10_01_overlap_raw_{n}.tif'}" for n in NAMES]
    code, out, error = run(
        *("separate_events.py", *stacks, "--movie", case / "01_video.tif", "--out", tmp_path),
        "--overlay",
    )
    assert (code, error) == (0, "")
    for name in ("overlay", "instances"):
        with Image.open(tmp_path / f"01_video_{name}.gif") as gif:
            assert gif.n_frames == 100
    assert (tmp_path / "01_video_white.tif").is_file()
    assert "1 waves" in out
    instances = read_movie(tmp_path / "01_video_instances.tif").data
    with open(tmp_path / "01_video_events.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == instances.max()
    with open(tmp_path / "01_video_events_full.csv", newline="") as handle:
        full = list(csv.DictReader(handle))
    assert sum(int(row["n_pixels"]) for row in full) == np.count_nonzero(instances)
    first = full[0]
    x, y = map(int, first["pixels_x_y"].split()[0].split(":"))
    assert instances[int(first["frame"]), y, x] == int(first["id"])


def test_pixel_size_changes_every_length(case, tmp_path):
    stacks = [f"--{n}={case / f'run_10_01_overlap_raw_{n}.tif'}" for n in NAMES]
    movie = ("--movie", str(case / "01_video.tif"))
    tables = []
    for size in ("0.2", "0.267"):
        out = tmp_path / size
        separate_events.main([*stacks, *movie, "--out", str(out), "--pixel-um", size])
        with open(out / "01_video_events.csv", newline="") as handle:
            tables.append([row for row in csv.DictReader(handle) if row["class"] == "puffs"])
    for first, second in zip(*tables, strict=True):
        for column, power in (("width_um", 1), ("x_peak_um", 1), ("area_max_um2", 2)):
            ratio = float(second[column]) / float(first[column])
            assert ratio == pytest.approx((0.267 / 0.2) ** power, rel=1e-4)


def test_track_objects(case):
    path = case / "run_10_01_overlap_raw_puffs.tif"
    code, out, _ = run("track_objects_from_preds.py", path, "--min-radius", 2)
    events = read_movie(path.with_name(f"{path.stem}_events.tif")).data
    assert code == 0
    assert out.startswith(f"{events.max()} events")
    assert events.max() >= 1


def test_counts_and_metrics_as_json(case, tmp_path):
    arguments = ("--preds", case, "--data", case, "--ids", "01")
    small = ("--thresholds", "0.5", "0.9")
    code, _, error = run("save_results_to_json.py", *arguments, "--out", tmp_path, *small)
    assert (code, error) == (0, "")
    code, _, _ = run("save_metrics_to_json.py", "--results", tmp_path, "--out", tmp_path)
    assert code == 0
    counts = json.loads((tmp_path / "per_pixel_results" / "waves_results.json").read_text())
    leaf = counts["01"]["0.5"]["0"]["0"]
    metrics = json.loads((tmp_path / "per_pixel_metrics" / "waves_metrics.json").read_text())
    truth = read_movie(case / "01_class_label.tif").data
    predicted = read_movie(case / "run_10_01_overlap_raw_waves.tif").data > 0.5
    kept = truth != 4
    assert leaf["tp"] == np.count_nonzero((truth == 2) & predicted & kept)
    assert sum(leaf.values()) == np.count_nonzero(kept)
    assert metrics["01"]["0.5"]["0"]["0"]["recall"] == leaf["tp"] / (leaf["tp"] + leaf["fn"])
    assert counts["sum"] == counts["average"] == counts["01"]
    assert set(counts["01"]) == {"0.5", "0.9", "argmax"}
    peaks = json.loads((tmp_path / "spark_peaks_metrics" / "sparks_metrics.json").read_text())
    assert peaks["sum"]["argmax"]["0"]["recall"] > 0.8


def fault(main, capsys, *arguments):
    """Call ``main``, which must end with exit code 2 and one line; return the line."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_missing_prediction_is_named(case, tmp_path, capsys):
    main = save_results_to_json.main
    error = fault(main, capsys, "--preds", tmp_path, "--data", case, "--ids", "01")
    assert "*_01_*raw_sparks.tif; expected one" in error


def test_wrong_shape_is_one_line(case, tmp_path, capsys):
    path = write_stack(tmp_path / "p.tif", np.zeros((4, 5, 6), np.float32))
    main = get_sparks_from_preds.main
    error = fault(main, capsys, path, "--movie", case / "01_video.tif")
    assert "(4, 5, 6)" in error
    assert "(100, 32, 96)" in error


def test_a_folder_that_cannot_be_written_is_one_line(case, capsys):
    path = case / "run_10_01_overlap_raw_puffs.tif"
    main = track_objects_from_preds.main
    assert "give a folder that may be written" in fault(
        main, capsys, path, "--out", path / "events.tif"
    )


def test_a_full_disk_leaves_no_half_file(tmp_path, small_disk, capsys):
    small_disk(50_000)
    assert fault(make_demo_main, capsys, "--out", tmp_path, "--preset", "small").startswith(
        "error: "
    )
    assert not list(tmp_path.iterdir())


def test_bandstop_takes_out_an_oscillation():
    t = np.arange(300)
    movie = 300 + 20 * np.sin(2 * np.pi * 20 * t / 150)[:, None, None] * np.ones((1, 3, 4))
    middle = bandstop_filter(movie)[100:200]
    assert np.abs(middle - 300).max() < 2


@pytest.mark.parametrize(
    ("kind", "factor"), [(np.float32, 100), (np.uint8, 255), (np.uint16, 65535)]
)
def test_percent_and_grey_levels_are_no_probabilities(case, tmp_path, capsys, kind, factor):
    whole = read_movie(case / "run_10_01_overlap_raw_sparks.tif").data
    path = write_stack(tmp_path / "a_sparks.tif", (whole * factor).astype(kind))
    movie = case / "01_video.tif"
    for script, *arguments in (
        (get_sparks_from_preds, path, "--movie", movie),
        (track_objects_from_preds, path),
        (separate_events, "--movie", movie, *(f"--{name}={path}" for name in NAMES)),
    ):
        told = fault(script.main, capsys, *arguments, "--out", tmp_path / "out.tif")
        assert "divide them by 100, 255 or 65535" in told
    assert not list(tmp_path.glob("out*"))


def test_a_mask_is_one_whatever_its_value(case, tmp_path):
    whole = read_movie(case / "run_10_01_overlap_raw_sparks.tif").data
    mask = whole > 0.5
    for value, kind in ((1, np.uint8), (255, np.uint8), (65535, np.uint16), (7, np.float32)):
        path = write_stack(tmp_path / "mask.tif", (mask * value).astype(kind))
        read = read_probabilities(path)
        np.testing.assert_array_equal(read.data, mask)
    sure = write_stack(tmp_path / "sure.tif", np.minimum(whole * 1.04, 1.0002).astype(np.float32))
    assert read_probabilities(sure).data.max() > 1  # rounding


def test_no_result_replaces_what_it_is_made_from(case, tmp_path, capsys):
    movie = case / "01_video.tif"
    path = tmp_path / "p_sparks.tif"
    path.write_bytes((case / "run_10_01_overlap_raw_sparks.tif").read_bytes())
    before = path.read_bytes(), movie.read_bytes()
    get = path, "--movie", movie
    assert "would replace it" in fault(get_sparks_from_preds.main, capsys, *get, "--out", path)
    assert "would replace it" in fault(get_sparks_from_preds.main, capsys, *get, "--out", movie)
    assert "would replace it" in fault(track_objects_from_preds.main, capsys, path, "--out", path)
    assert (path.read_bytes(), movie.read_bytes()) == before


@pytest.mark.parametrize(
    "flags",
    [("--min-radius", "-2"), ("--ignore-frames", "-1"), ("--sigma", "nan"), ("--sigma", "-1")],
)
def test_impossible_numbers_are_one_line(case, capsys, flags):
    path = case / "run_10_01_overlap_raw_sparks.tif"
    told = fault(get_sparks_from_preds.main, capsys, path, "--movie", case / "01_video.tif", *flags)
    assert f"{flags[0]}: {flags[1]}: expected" in told.replace("argument ", "")


def test_a_movie_too_short_for_what_is_asked_is_said(tmp_path, caplog):
    movie = np.random.default_rng(0).poisson(100, (12, 8, 9)).astype(np.uint16)
    with pytest.raises(InputError, match="found 12 frames, expected at least 28"):
        bandstop_filter(movie)
    write_stack(tmp_path / "m.tif", movie, calibration=Calibration.of(0.2, 5.0))
    write_stack(tmp_path / "p.tif", np.zeros(movie.shape, np.float32))
    get_sparks_from_preds.main([str(tmp_path / "p.tif"), "--movie", str(tmp_path / "m.tif")])
    assert "--ignore-frames 6 skips all of its 12 frames" in caplog.text


def test_results_of_two_movies_of_one_name_never_mix(tmp_path, capsys):
    random = np.random.default_rng(1)
    out = tmp_path / "out"
    for folder in ("a", "b"):
        movie = random.poisson(100, (20, 8, 9)).astype(np.uint16)
        write_stack(tmp_path / folder / "05.tif", movie, calibration=Calibration.of(0.2, 5.0))
    given = "--out", out, "--threshold-sd", "9"
    for _ in range(2):  # again for the same movie
        classical_baseline.main([str(tmp_path / "a" / "05.tif"), *map(str, given)])
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    told = json.loads(kept["05_source.json"])
    assert told["settings"]["threshold_sd"] == 9
    assert (told["calibration"]["frame_ms"], told["calibration"]["frame_origin"][:4]) == (5, "file")
    told = fault(classical_baseline.main, capsys, tmp_path / "b" / "05.tif", *given)
    assert "another movie of this name" in told
    again = tmp_path / "a" / "05.tif", *given, "--axes", "TYX"
    assert "read with another --axes, --channel" in fault(classical_baseline.main, capsys, *again)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


@pytest.mark.parametrize("thresholds", [("nan",), ("0.5", "0.5000001"), ("0.5", "0.2"), ("1.5",)])
def test_thresholds_that_share_a_name_are_refused(case, tmp_path, capsys, thresholds):
    given = "--preds", case, "--data", case, "--ids", "01", "--out", tmp_path, "--thresholds"
    assert "expected rising numbers" in fault(
        save_results_to_json.main, capsys, *given, *thresholds
    )
    assert not list(tmp_path.rglob("*.json"))


def test_probabilities_of_another_scale_are_said(tmp_path, caplog):
    movie = np.random.default_rng(0).poisson(100, (20, 8, 9)).astype(np.uint16)
    write_stack(tmp_path / "m.tif", movie, calibration=Calibration.of(0.2, 5.0))
    write_stack(tmp_path / "p.tif", np.zeros(movie.shape, np.float32),
                calibration=Calibration.of(0.2, 10.0))  # fmt: skip
    given = [str(tmp_path / "p.tif"), "--movie", str(tmp_path / "m.tif")]
    get_sparks_from_preds.main(given)
    assert "frame interval of 10 ms, its movie m.tif frame interval of 5 ms" in caplog.text
    assert "pixel of" not in caplog.text
    caplog.clear()
    get_sparks_from_preds.main([*given, "--frame-ms", "10"])  # the flag corrects the movie
    assert "belong together" not in caplog.text


def test_a_level_around_0_cannot_be_divided_by(tmp_path, capsys):
    movie = np.random.default_rng(0).normal(0, 5, (20, 8, 9)).astype(np.float32)
    path = write_stack(tmp_path / "m.tif", movie, calibration=Calibration.of(0.2, 5.0))
    given = path, "--out", tmp_path / "out", "--detrend"
    assert "expected counts above 0" in fault(classical_baseline.main, capsys, *given)


def test_one_image_is_no_movie_of_probabilities(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((20, 30), np.float32))
    told = fault(track_objects_from_preds.main, capsys, tmp_path / "p.tif")
    assert "a line scan of T lines has the shape (T, 1, X)" in told
    assert "--linescan" not in told  # no flag of this script
    tifffile.imwrite(tmp_path / "line.tif", np.zeros((20, 1, 30), np.float32))
    track_objects_from_preds.main([str(tmp_path / "line.tif")])
    assert read_movie(tmp_path / "line_events.tif").data.shape == (20, 1, 30)
