"""Names, CSV tables and movie files."""

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import InputError
from inputs.utils import (
    CLASSES,
    load_movie,
    make_redcapmap,
    movie_id,
    movie_letter,
    num_movies,
    read_classes,
    read_split,
    save_array,
)

IDS = st.text(st.characters(categories=("L", "Nd"), include_characters='-_ ,"'), min_size=1)


def table(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def test_names():
    assert movie_id("stanford0002a.npy") == "stanford0002"
    assert movie_id("x.y1b") == "x.y1"
    letters = [movie_letter(k, "p") for k in range(36)]
    assert letters[0] + letters[25] + letters[26] + letters[35] == "az09"
    with pytest.raises(InputError, match="p17"):
        movie_letter(36, "p17")


@pytest.mark.parametrize(
    "content",
    [
        "id,class\np1,normal\np2,severe\n",
        "p1,normal\np2,severe\n",
        "\ufeffid,class\r\np1, normal \r\n\r\np2,severe,extra,columns\r\n",
        "REDCap ID,Outcome\np1,normal\np2,severe\np1,normal\n",
    ],
)
def test_header_is_optional_and_blanks_do_not_matter(tmp_path, content):
    path = table(tmp_path, content)
    assert read_classes(path) == {"p1": "normal", "p2": "severe"}
    assert make_redcapmap(path) == {"p1": 0, "p2": 3}


def test_ids_stay_text(tmp_path):
    assert read_split(table(tmp_path, "id,set\n0012,train\n12,test\n")) == {
        "0012": "train",
        "12": "test",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("p1,sever\np2,normal\n", ("row 1", "sever")),
        ("id,sever\np2,normal\n", ("row 1", "sever")),
        ("p1,normal\np2\n", ("row 2",)),
        ("p1,normal\n,severe\n", ("row 2", "empty")),
        ("p1,normal\np1,mild\n", ("p1", "normal and mild")),
        ("id,class\n", ("no rows",)),
        (b"p1,normal\np\xff2,mild\n", ("UTF-8",)),
    ],
)
def test_faulty_tables(tmp_path, content, words):
    path = table(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_classes(path)
    for word in (str(path), *words):
        assert word in str(error.value)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(
        IDS.map(str.strip).filter(lambda x: x and x[0] not in ".-" and any(c.isdigit() for c in x)),
        st.sampled_from(CLASSES),
        min_size=1,
    )
)
def test_any_written_table_reads_back(tmp_path_factory, rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows.items())
    assert read_classes(table(tmp_path_factory.mktemp("csv"), text.getvalue())) == rows


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 60), flip=st.none() | st.tuples(st.integers(0, 59), st.integers(0, 7)))
def test_a_damaged_table_is_an_error_or_loses_no_row_silently(tmp_path_factory, cut, flip):
    content = bytearray(b"id,class\np01,normal\np02,severe\np03,mild\np04,moderate\n")[:cut]
    if flip and flip[0] < len(content):
        content[flip[0]] ^= 1 << flip[1]
    path = table(tmp_path_factory.mktemp("csv"), bytes(content))
    try:
        classes = read_classes(path)
    except InputError:
        return
    assert set(classes.values()) <= set(CLASSES)
    # Each line that still holds an id and a comma is a patient (or the header).
    # As the csv module ends lines: str.splitlines ends them at a form feed too.
    lines = [x for x in re.split("\r\n|\r|\n", content.decode()) if x.strip()]
    assert len(lines) - 1 <= len(classes) + content.count(b'"') <= len(lines)


@settings(max_examples=60, deadline=None)
@given(part=st.floats(0, 0.999))
def test_a_cut_movie_is_an_error(tmp_path_factory, part):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    save_array(path, np.ones((3, 8, 8, 1), np.float32))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"a\.npy"):
        load_movie(path)


def test_a_zip_under_the_name_of_a_movie_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        np.savez(file, np.ones((3, 8, 8, 1), np.float32))
    for content in (path.read_bytes(), b"PK\x03\x04 no zip"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npy: not a complete .npy movie"):
            load_movie(path)


def test_movies_are_checked(tmp_path):
    path = tmp_path / "a.npy"
    save_array(path, np.ones((3, 100, 112, 1), np.float32))
    assert load_movie(path).shape == (3, 100, 112, 1)
    assert num_movies(tmp_path) == 1
    with pytest.raises(InputError, match=r"\(3, 100, 112, 1\).*\(n, 112, 112, 1\)"):
        load_movie(path, channels=1, nrows=112, ncols=112)
    save_array(path, np.ones((3, 8, 8, 1), np.int16))
    with pytest.raises(InputError, match="int16"):
        load_movie(path)
    with pytest.raises(InputError, match="not found"):
        load_movie(tmp_path / "b.npy")
