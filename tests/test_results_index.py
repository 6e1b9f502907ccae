"""The index page: what it shows, and how it looks in a browser."""

import base64
import json
import re
import shutil
import subprocess
import sys

import pytest

from repository import ROOT

sys.path.insert(0, str(ROOT))
import results_index

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FIGURE = {"path": "plots/extra.png", "caption": "loss < 1", "alt": "a curve"}
SUMMARY = {
    "title": "A run",
    "data": "synthetic",
    "seconds": 12.3,
    "main_picture": "plots/main.png",
    "main_picture_alt": 'a "map"',
    "figures": [FIGURE, {"path": "plots/absent.png", "caption": "absent", "alt": "absent"}],
    "planted_truth": {"name": "AUC", "value": 0.912, "target": ">= 0.8", "passed": True},
    "scores": [
        {"name": "AUC", "value": 0.912, "target": ">= 0.8", "passed": True},
        {"name": "shuffled", "value": None, "passed": False, "control": True},
    ],
    "report": "report.html",
}


@pytest.fixture
def results(tmp_path):
    run = tmp_path / "folder" / "demo"
    (run / "plots").mkdir(parents=True)
    for name in ("main.png", "extra.png"):
        (run / "plots" / name).write_bytes(PIXEL)
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    broken = tmp_path / "folder" / "broken"
    broken.mkdir()
    (broken / "summary.json").write_text("{")
    return tmp_path


def test_a_share_has_three_digits_and_a_count_none():
    shown = {1.0: "1.00", 0.93954: "0.940", 0: "0", 138.2: "138", 1097.4: "1097"}
    for value, text in shown.items():
        assert results_index.score_text({"name": "x", "value": value}) == f"x {text}"


def test_page_shows_runs_and_escapes_text(results):
    page = results_index.write_index(results).read_text()
    assert page.count("<td>AUC</td><td>0.912 (target &gt;= 0.8)") == 1
    assert "<h2>folder: A run</h2>" in page
    assert "<td>negative control: shuffled</td><td>not available" in page
    assert 'href="folder/demo/report.html"' in page
    assert "loss &lt; 1" in page
    assert "absent" not in page
    assert 'alt="a &quot;map&quot;"' in page
    assert "summary.json is broken; run it again with --fresh" in page
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page


def test_failed_runs_come_first_and_scores_beyond_four_are_folded(results):
    fine = SUMMARY | {"scores": SUMMARY["scores"][:1]}
    (results / "folder" / "demo" / "summary.json").write_text(json.dumps(fine))
    run = results / "folder" / "a_missed"
    run.mkdir()
    scores = [{"name": f"score {i}", "value": i, "passed": i != 5} for i in range(6)]
    (run / "summary.json").write_text(json.dumps(SUMMARY | {"scores": scores, "title": "Missed"}))
    page = results_index.write_index(results).read_text()
    assert "Finished runs: 3, of which 2 missed a target or are broken" in page
    places = [page.index(text) for text in ("Missed</h2>", "folder/broken</h2>", "A run</h2>")]
    assert places == sorted(places)
    shown, folded = page.split("3 more scores")
    assert "score 5" in shown  # the one that failed is not folded away
    assert "score 4" in folded.split("</details>")[0]


def test_a_control_stands_among_the_scores_shown_and_figures_are_folded(results):
    scores = [{"name": f"score {i}", "value": i, "control": i == 5} for i in range(6)]
    summary = SUMMARY | {"scores": scores, "title": "Controlled"}
    (results / "folder" / "demo" / "summary.json").write_text(json.dumps(summary))
    page = results_index.write_index(results).read_text()
    assert "negative control: score 5" in page.split("3 more scores")[0]
    assert "<details open" not in page
    assert "<details><summary>figures (1)</summary>" in page


def test_of_several_controls_the_one_with_a_target_comes_first(results):
    controls = [{"name": f"control {i}", "value": 0.6, "control": True} for i in range(4)]
    controls[3] |= {"target": "< 0.3", "passed": True}
    rest = [{"name": "told", "value": 1.0}, {"name": "asked", "value": 1.0, "passed": True}]
    block = results_index.score_block([*controls, *rest])
    places = [
        block.index(name) for name in ("control 3", "control 0", "control 2", "asked", "told")
    ]
    assert places == sorted(places)


def test_page_without_runs_says_what_to_do(tmp_path):
    assert "python3 run.py demo" in results_index.write_index(tmp_path / "results").read_text()


LOOK = """<!doctype html><iframe id="f" src="{page}" style="width:{width}px;height:3000px"></iframe>
<script>onload = () => {{
  const page = document.getElementById("f").contentDocument, images = [...page.images];
  document.title = JSON.stringify({{
    overflow: page.documentElement.scrollWidth - {width},
    broken: images.filter(i => !i.naturalWidth).length,
    unnamed: images.filter(i => !i.alt).length, images: images.length}});
}}</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_screen(results, width, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on the PATH")
    page = results_index.write_index(results)
    frame = results / "frame.html"
    frame.write_text(LOOK.format(page=page.name, width=width))
    done = subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update"),
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width + 40},3200",
            "--virtual-time-budget=5000",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1))
    assert seen == {"overflow": seen["overflow"], "broken": 0, "unnamed": 0, "images": 2}
    assert seen["overflow"] <= 0
