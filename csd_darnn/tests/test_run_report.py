"""The page of a run: every figure, the verdict, the control beside the attention."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.map_figures import draw_stills
from common.files import write_json
from helpers import FOLDER, call, run_script
from inputs.windows import WindowRule
from runs import run_report
from runs.displays import frame_maps
from runs.run_report import Page, movie_block, training_table, write_run_report


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A run with maps, two epochs of figures, metrics and a log, read only."""
    folder = tmp_path_factory.mktemp("drawn") / "run"
    (folder / "plots").mkdir(parents=True)
    for name in ("maps", "pred_10", "pred_5", "epoch_loss"):
        draw_stills(
            folder / "plots" / f"{name}.png", {"control": np.eye(3), "attention": np.eye(3)}
        )
    row = {
        "model": "ridge",
        "part": "test",
        "target": "5",
        "units": "z",
        "rmse": 0.123456,
        "r2": None,
    }
    maps = {"attention": {"correlation": 0.5, "auc": 0.75}}
    write_json(
        folder / "metrics.json", {"rows": [row], "verdict": "ridge is <best>.", "maps": maps}
    )
    write_json(folder / "settings.json", {"settings": {"T": 10}, "libraries": {"numpy": "2"}})
    (folder / "log.csv").write_text(
        "epoch,loss\n" + "".join(f"{k},0.123456789\n" for k in range(9))
    )
    return folder


@pytest.fixture
def run_dir(drawn, tmp_path):
    """A copy of that run."""
    return shutil.copytree(drawn, tmp_path / "run")


def score(value):
    """Return a score as write_summary wants it."""
    return {"name": "AUC", "value": value, "unit": "", "target": ">= 0.8", "passed": True,
            "control": False}  # fmt: skip


def write(run_dir, **options):
    """Write the report of ``run_dir`` and return its text."""
    told = {
        "title": "A <run>", "data": "movie", "seconds": 3.25, "seed": 0, "scores": [score(0.9)],
        "planted_truth": score(0.9),
    }  # fmt: skip
    return write_run_report(run_dir, Page(**told | options)).read_text()


def test_page_holds_everything_and_needs_nothing(run_dir):
    page = write(run_dir)
    assert page.count("data:image/png;base64,") == 4
    assert "<script" not in page
    assert 'src="http' not in page
    for text in (
        "ridge is &lt;best&gt;.",
        "<td>0.1235</td>",
        "0.75",
        "A &lt;run&gt;",
        "library numpy",
    ):
        assert text in page, text
    assert page.index("Mean maps") < page.index("pred 5") < page.index("pred 10")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert summary["main_picture"] == "plots/maps.png"
    assert summary["planted_truth"]["value"] == 0.9
    assert summary["figures"][0]["path"] == "plots/maps.png"
    for figure in summary["figures"]:
        assert (run_dir / figure["path"]).is_file()


def test_the_whole_record_is_shown_with_the_trained_network_alone(run_dir):
    shutil.copy(run_dir / "plots" / "pred_10.png", run_dir / "plots" / "pred_final.png")
    page = write(run_dir)
    assert "Whole record, trained network" in page
    assert "pred 5" not in page
    assert "pred 10" not in page
    assert (run_dir / "plots" / "pred_5.png").is_file()
    figures = json.loads((run_dir / "summary.json").read_text())["figures"]
    assert [f["path"] for f in figures if "pred_" in f["path"]] == ["plots/pred_final.png"]


def test_the_training_table_holds_what_was_taken(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,rate,validation,test_mae\n0,0.5,0.01,,2.25\n1,0.25,0.01,,\n")
    table = training_table(path)
    assert re.findall("<th>(.*?)</th>", table) == ["epoch", "loss", "learning rate", "test MAE"]
    assert re.findall("<td>(.*?)</td>", table) == [
        "0",
        "0.5",
        "0.01",
        "2.25",
        "1",
        "0.25",
        "0.01",
        "",
    ]


def test_the_movies_say_which_map_they_show(tmp_path):
    (tmp_path / "heatmap.mp4").write_bytes(b"")
    block = movie_block(tmp_path, None, "permutation", "reference")
    assert "heatmap.mp4 has every frame of |alpha x| at step 1 (published map):" in block
    assert 'href="heatmap.mp4"' in block


def test_the_metric_table_calls_a_target_by_its_place(run_dir):
    assert "<td>5</td>" in write(run_dir)  # an older run tells labels alone
    metrics = json.loads((run_dir / "metrics.json").read_text())
    metrics["rows"][0]["target_place"] = "row 1, column 2"
    write_json(run_dir / "metrics.json", metrics)
    page = write(run_dir)
    assert "<td>row 1, column 2</td>" in page
    assert "<td>5</td>" not in page


def test_a_window_of_one_step_has_the_attention_map_alone():
    prepared, attention = SimpleNamespace(rule=WindowRule(2)), np.ones((3, 4))
    assert frame_maps(prepared, attention, ("control",)) == {}
    assert list(frame_maps(prepared, attention)) == ["attention"]


def test_onset_is_told_in_words(run_dir):
    draw_stills(run_dir / "plots" / "onset_map.png", {"control": np.eye(3)})
    write_json(
        run_dir / "onset.json",
        {"speed_mm_min": 3.5, "speed_low": 3.4, "speed_high": 3.6, "origin": [1, 2],
         "n_pixels": 9, "note": ""},
    )  # fmt: skip
    assert "<p>Speed 3.50 mm/min (95 % interval 3.40 to 3.60)" in write(run_dir)


def test_script_writes_the_same_page_again(run_dir):
    first = write(run_dir, planted_truth=None)
    done = run_script("run_report.py", "--run", run_dir)
    assert done.returncode == 0, done.stderr
    again = (run_dir / "report.html").read_text()
    assert again == first
    missing = call("run_report.py", "--run", "no such run")
    assert missing.returncode == 2
    assert "summary.json" in missing.stderr


def test_a_run_called_like_a_wing_is_found_by_its_name(run_dir, tmp_path, monkeypatch):
    write(run_dir, planted_truth=None)
    run_dir.rename(tmp_path / "demo")
    monkeypatch.setattr(run_report, "RESULTS_DIR", tmp_path)
    monkeypatch.chdir(FOLDER)  # where demo/ is a wing
    done = call("run_report.py", "--run", "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "demo" / "report.html")
