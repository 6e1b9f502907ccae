"""What common/ promises: JSON and CSV with faults in one line, figures with their numbers."""

import numpy as np
import pytest

from common.figures import new_figure, save_figure
from common.files import DATA_DIR, FOLDER, RESULTS_DIR, InputError, open_run, read_json, write_json
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
