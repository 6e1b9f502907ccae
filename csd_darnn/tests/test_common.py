"""What common/ promises: JSON and CSV with faults in one line, figures with their numbers."""

import re

import numpy as np
import pytest

from common.figures import new_figure, save_figure
from common.files import DATA_DIR, FOLDER, RESULTS_DIR, InputError, open_run, read_json, write_json
from common.report import (
    figure_block,
    needs_row,
    number_text,
    plain_name,
    score_table,
    write_report,
)
from common.tables import read_rows, write_columns, write_rows


def test_places_are_those_of_this_folder():
    assert (FOLDER / "main.py").is_file()
    assert FOLDER.parent / "data" / FOLDER.name == DATA_DIR
    assert FOLDER.parent / "results" / FOLDER.name == RESULTS_DIR


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not found; make it again"),
        ("{", "no valid JSON"),
        ('{"a": 1, "a": 2}', "no valid JSON (a name occurs twice)"),
        ("[1]", "holds a list, expected a dict; make it again"),
        ("[" * 100_000, "no valid JSON"),
    ],
)
def test_a_bad_json_file_is_one_line(tmp_path, text, said):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_json(path, remedy="make it again")
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("; make it again")


def test_json_is_read_with_a_byte_order_mark_and_of_another_kind(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\ufeff[1, 2]", encoding="utf-8")
    assert read_json(path, kind=list) == [1, 2]
    assert read_json(path, kind=(dict, list)) == [1, 2]


def test_a_damaged_record_of_a_run_names_fresh(tmp_path):
    (tmp_path / "log.csv").write_text("epoch\n")
    for text in ("{", "{}", '{"settings": 3}'):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(InputError, match=r"settings\.json: .*; use --fresh"):
            open_run(tmp_path, {"seed": 0})
    write_json(tmp_path / "settings.json", {"settings": {"seed": 0}})
    assert open_run(tmp_path, {"seed": 0}) is False  # begun, not complete
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        open_run(tmp_path, {"seed": 1})


def test_tables_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "a.csv"
    write_columns(path, {"x": [1, 2], "y": [np.float32(0.1), 1 / 3, 3.0], "z": ["a,b"]})
    assert path.read_bytes() == b'x,y,z\n1,0.100000001,"a,b"\n2,0.333333333,\n,3,\n'
    rows = read_rows(path, needed=("x", "z"))
    assert rows[0] == {"x": "1", "y": "0.100000001", "z": "a,b"}
    write_rows(path, rows, columns=("z", "x"))
    assert read_rows(path)[1] == {"z": "", "x": "2"}
    with pytest.raises(InputError, match="no column y, q among z, x; add it"):
        read_rows(path, needed=("x", "y", "q"))
    with pytest.raises(InputError, match="not found"):
        read_rows(tmp_path / "b.csv")
    path.write_bytes(b"x\n\xff\n")
    with pytest.raises(InputError, match="not readable as CSV"):
        read_rows(path)


@pytest.mark.parametrize("table", [{"x": [1, 2], "y": [3, 4]}, (("x", "y"), [(1, 3), (2, 4)])])
def test_a_figure_is_saved_with_its_numbers(tmp_path, table):
    figure, axes = new_figure(3, 2)
    axes.plot([1, 2], [3, 4])
    assert not axes.spines["top"].get_visible()
    path = save_figure(figure, tmp_path / "deep" / "a.png", table, pdf=True)
    assert path == tmp_path / "deep" / "a.png"
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
    assert path.with_suffix(".csv").read_text() == "x,y\n1,3\n2,4\n"
    assert {one.suffix for one in path.parent.iterdir()} == {".png", ".pdf", ".csv"}
    assert figure.axes == []


def test_a_figure_has_a_row_where_half_a_row_would_make_its_letters_tiny(tmp_path):
    """8 points on 550 pixels: 9 pixels high up to 6.8 inches, whatever the dots per inch."""
    for dpi in (80, 120, 200):
        for inches, row in ((6.5, False), (7.0, True), (12.0, True)):
            path = save_figure(new_figure(inches, 1)[0], tmp_path / "a.png", dpi=dpi)
            assert needs_row(path) is row, (dpi, inches)
    for width, row in ((416, False), (688, True)):  # a movie: its letters have fixed pixels
        (tmp_path / "a.gif").write_bytes(b"GIF89a" + width.to_bytes(2, "little") + bytes(20))
        assert needs_row(tmp_path / "a.gif") is row


def test_no_place_of_a_row_stays_empty_and_a_picture_links_its_file(tmp_path):
    """Halves fill rows of two; the last of an odd number has a row of its own."""
    for name, inches in (("a", 5), ("b", 12), ("c", 5), ("d", 5), ("e", 12)):
        save_figure(new_figure(inches, 1)[0], tmp_path / f"{name}.png", {"x": [1]}, dpi=40)

    def kinds(names):
        figures = [{"path": f"{name}.png", "caption": "", "alt": name} for name in names]
        block = figure_block(tmp_path, figures)
        assert re.findall(r'<a href="(\w\.png)"><img', block) == [f"{name}.png" for name in names]
        return re.findall(r'<figure(?: class="(\w+)")?>', block)

    assert kinds("abcde") == ["", "wide", "", "alone", "wide"]
    assert kinds("abce") == ["", "wide", "", "wide"]
    assert kinds("b") == ["wide"]


def test_a_share_has_three_digits_and_a_count_none():
    shown = {1.0: "1.00", 0.0: "0.00", 0.93954: "0.940", -0.07343: "-0.0734", 84.33: "84.3"}
    shown |= {1097.4: "1097", 138.2: "138", 1.788e-07: "1.79e-07"}
    assert {value: number_text(value) for value in shown} == shown
    assert (number_text(0), number_text(6)) == ("0", "6")


def test_columns_have_plain_names_in_a_report():
    names = {
        "rise_ms": "rise (ms)",
        "speed_um_s": "speed (um/s)",
        "area_max_um2": "area max (um2)",
        "amplitude_df_f0": "amplitude (dF/F0)",
        "test_mae": "test MAE",
        "n": "number",
        "precision": "precision",
        "f1-score": "F1",
        "pearson_r": "Pearson r",
    }
    assert {name: plain_name(name) for name in names} == names


def test_a_report_tells_missed_targets_first_and_links_what_exists(monkeypatch, tmp_path):
    monkeypatch.setattr("common.report.RESULTS_DIR", tmp_path / "results" / FOLDER.name)
    monkeypatch.setattr("common.report.FOLDER", tmp_path / FOLDER.name)
    run = tmp_path / "results" / FOLDER.name / "sweep" / "one"
    run.mkdir(parents=True)
    (tmp_path / FOLDER.name).mkdir()
    for path in (tmp_path / FOLDER.name / "README.md", tmp_path / "results" / "index.html"):
        path.write_text("x")
    write_columns(run / "log.csv", {"epoch": [0]})
    scores = [
        {"name": "good", "value": 1.0, "target": "> 0", "passed": True},
        {"name": "bad", "value": 0.0, "target": "> 0", "passed": False},
        {"name": "told", "value": 0.0},
        {"name": "without truth", "value": 0.0, "control": True},
        {"name": "the control", "value": 0.0, "control": True},
    ]
    page = write_report(run, "T", "L", [("Scores", score_table(scores))]).read_text()
    assert page.index("1 of 2 targets reached; missed: bad.") < page.index("<table>")
    assert "<td>negative control: without truth</td>" in page
    assert "<td>the control</td>" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 3
    assert all((run / link).is_file() for link in links), links
    own_data = score_table(scores[2:])
    assert "targets reached" not in own_data
    assert re.findall("<th>(.*?)</th>", own_data) == ["score", "value"]
    elsewhere = write_report(tmp_path, "T", "L", []).read_text()  # a page to be passed on
    assert ".." not in elsewhere
