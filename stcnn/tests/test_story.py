"""The report's figures: what traces are called, stimuli by name, kernels in degrees, tuning."""

import json

import numpy as np
import pytest
from PIL import Image

from analysis.util_analysis import loss_limits, plot_kernels
from common.report import pixel_width
from common.tables import read_rows
from inputs.display import Display
from network.checkpoints import load_model
from runs.configuration import compose_settings
from runs.data import open_dataset, stimulus_names
from runs.model_figures import kernel_degrees
from runs.story import (
    Told,
    draw_picture,
    draw_traces,
    draw_tuning,
    strongest,
    write_story,
)
from runs.training import sampler_of


def config_of(strides, deg_per_px=0.5):
    display = Display(60.0, deg_per_px, 0.498, (83, 83)).record()
    return {
        "display": display,
        "pr_config": {"x_stride": [4, 4]},
        "network_config": {"x_stride": strides},
    }


def test_kernels_are_as_far_apart_as_the_strides_before_them():
    assert kernel_degrees(config_of([1, 1], 1.0)) == [(4.0, 4.0)] * 3
    assert kernel_degrees(config_of([[2, 1], 3])) == [(2.0, 2.0), (4.0, 2.0), (12.0, 6.0)]


def test_the_table_of_kernels_places_every_weight(tmp_path):
    weights = np.arange(6.0).reshape(1, 1, 2, 3) - 2.0
    plot_kernels(tmp_path / "k.png", weights, "lc11", (4.0, 2.0))
    rows = read_rows(tmp_path / "k.csv")
    places = [[float(row[k]) for k in ("weight", "up_deg", "right_deg")] for row in rows]
    assert places[0] == [-2.0, 2.0, -2.0]  # the first row is the upper one
    assert places[5] == [3.0, -2.0, 2.0]


def test_the_axis_of_a_loss_holds_it():
    assert loss_limits([]) == (1e-3, 1e-1)  # the published range
    assert loss_limits([0.002, 0.05]) == (1e-3, 1e-1)
    low, high = loss_limits(np.geomspace(1e-6, 3.0, 1000).tolist())
    assert 1e-6 < low < 2e-6
    assert 2.0 < high < 3.0


def test_synthetic_traces_are_called_so_and_stimuli_by_name(tiny_run, tiny_args, tmp_path):
    settings = compose_settings(tiny_args)
    dataset, model = open_dataset(settings), load_model(tiny_run)
    dataset.sample = sampler_of(model)
    names = stimulus_names(settings)
    assert names[300] == "expanding disc 100 deg/s"
    rows = dataset.rows_of("lc11", 300)
    draw_traces(tmp_path / "t.png", dataset, model, rows, names, "synthetic")
    table = read_rows(tmp_path / "t.csv")
    assert list(table[0]) == ["seconds", "vstim_300_synthetic", "vstim_300_predicted"]
    given = [float(row["vstim_300_synthetic"]) for row in table]
    np.testing.assert_allclose(given, dataset.trace(dataset.items[rows[0]]), rtol=1e-6)
    path = draw_traces(tmp_path / "six.png", dataset, model, 6 * rows[:1], names, "synthetic")
    assert pixel_width(path) < 1000  # three panels in a row: six would be tiny on a telephone
    elsewhere = compose_settings([*tiny_args, f"dataset.ca_path={tmp_path}/ca_traces"])
    assert stimulus_names(elsewhere) == {}


def test_the_main_picture_plays_at_its_real_speed(tiny_run, tiny_args, tmp_path):
    settings = compose_settings(tiny_args)
    dataset, model = open_dataset(settings), load_model(tiny_run)
    dataset.sample = sampler_of(model)
    held = {item.barcode for item in dataset.items}
    path = draw_picture(tmp_path / "p.gif", dataset, model, held, {}, "synthetic")
    seconds = []
    for kind in model.cell_types:
        item = dataset.items[strongest(dataset, kind, held)[0]]
        seconds.append((dataset.window(item)[1] - dataset.onset(item)) * model.dt)
    with Image.open(path) as picture:
        assert picture.n_frames * 0.1 == pytest.approx(max(seconds), abs=0.11)
        assert picture.info["duration"] == 100  # of a flicker of 4 Hz both halves are seen


def test_tuning_leads_the_report(tiny_run, tmp_path):
    figures = draw_tuning(tmp_path, tiny_run)
    table = read_rows(tmp_path / "tuning.csv")
    assert len(table) == 3 * (49 + 5)
    assert table[1]["stimulus"] == "4.5 x 2.25 deg"
    assert table[-1]["stimulus"] == "disc looms r/v 40 ms"
    assert all(np.isfinite(float(row["peak_dff"])) for row in table)
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {}}))
    told = Told(
        "synthetic traces", 1.0, 0, True, [], None, figures, [{"part": "training", "r2": 1}]
    )
    write_story(tmp_path, told)
    page = (tmp_path / "report.html").read_text()
    assert page.index("Predicted peaks of every cell type") < page.index("Fit to the synthetic")
    assert "recorded" not in page.replace("recorded from no animal", "")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (
        summary["main_picture_alt"]
        == "Stimulus movies above synthetic and predicted calcium traces"
    )
