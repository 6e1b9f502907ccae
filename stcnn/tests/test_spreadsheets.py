"""Traces as other programs save them: semicolons, tabs, decimal commas, other codes of text."""

import numpy as np
import pytest
import torch

from common.files import InputError
from inputs.csv_traces import read_long_csv
from inputs.recordings import read_recordings

HEAD = ["stimulus", "neuron", "seconds", "dff", "azi_shift", "ele_shift", "note"]
ROWS = [["5", "7", f"{second:.3f}", f"{second + 0.0625:.4f}", "1.5", "-2.25", "größe"]
        for second in (-0.133, 0.0, 0.133, 0.267)]  # fmt: skip


def text(separator=",", decimal=".", head=HEAD, end="\n"):
    rows = [[cell.replace(".", decimal) for cell in row] for row in ROWS]
    return "".join(separator.join(row) + end for row in [head, *rows])


def check(path):
    session = read_long_csv(path)
    assert list(session) == ["vstim_5"]
    own = session["vstim_5"]["neuron"]["7"]
    np.testing.assert_allclose(session["vstim_5"]["t_axis"], [-0.133, 0, 0.133, 0.267], atol=1e-6)
    np.testing.assert_allclose(own["traces"], [[-0.0705, 0.0625, 0.1955, 0.3295]], atol=1e-6)
    assert (float(own["azi_shift"]), float(own["ele_shift"])) == (1.5, -2.25)
    assert own["traces"].dtype == torch.float32


FILES = {
    "commas": text().encode(),
    "Excel UTF-8": text(end="\r\n").encode("utf-8-sig"),
    "German Excel": text(";", ",", end="\r\n").encode("cp1252"),
    "German Excel UTF-8": text(";", ",", end="\r\n").encode("utf-8-sig"),
    "semicolons and points": text(";").encode(),
    "Unicode text": text("\t", ",", end="\r\n").encode("utf-16"),
    "tabs": text("\t").encode(),
    "sep=": ("sep=;\r\n" + text(";", ",", end="\r\n")).encode(),
    "names in capitals": text(";", ",", [name.title() for name in HEAD]).encode(),
    "quoted": "\n".join(
        ";".join(f'"{cell}"' for cell in row)
        for row in [HEAD, *([c.replace(".", ",") for c in row] for row in ROWS)]
    ).encode(),
    "floats of pandas": text().replace("\n5,7,", "\n5.0,7.0,").encode(),
    "empty lines and cells": (text(",", ".", [*HEAD, "", ""]) + "\n\n").encode(),
    "spaces": text(", ").encode(),
}


HEAD_OF_TRIALS = "stimulus,neuron,trial,seconds,dff,azi_shift,ele_shift\n"
TRIALS = [["5", "7", str(trial), f"{0.1 * t:.1f}", f"{trial + 0.01 * t:.2f}", "1.5", "-2"]
          for trial in (1, 2) for t in range(-2, 3)]  # fmt: skip


def of_trials(rows=TRIALS, *, head=HEAD_OF_TRIALS):
    return head + "".join(",".join(row) + "\n" for row in rows)


def changed(i, column, value):
    """Return the table with ``value`` in place of one cell of row ``i``."""
    names = HEAD_OF_TRIALS.strip().split(",")
    rows = [list(row) for row in TRIALS]
    rows[i][names.index(column)] = value
    return of_trials(rows)


def read(tmp_path, content, name="a.csv", **how):
    (tmp_path / "lc11").mkdir(exist_ok=True)
    (tmp_path / "lc11" / name).write_text(content)
    ((entry,),) = (
        session.values() for session in read_recordings(tmp_path, **how)["lc11"].values()
    )
    return entry["t_axis"].numpy(), entry["neuron"][7]


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv"])
@pytest.mark.parametrize(
    "content",
    [
        of_trials(TRIALS[::-1][5:] + TRIALS[::-1][:5]),
        of_trials().replace("5,7,1,", "005,07,1.0,"),  # one stimulus, neuron, trial all the same
        of_trials().replace("5,7,2,0.2", "5,7,2,0.20000000000000004"),
        of_trials().replace("5,7,", "vstim_5,7,"),
    ],
)
def test_trials_are_whole_however_they_are_written(tmp_path, content, name):
    """Rows of stimulus 005 took the place of those of stimulus 5."""
    axis, neuron = read(tmp_path, content, name)
    np.testing.assert_allclose(axis, np.arange(-2, 3) * 0.1, atol=1e-6)
    want = np.array([[1.0], [2.0]]) + 0.01 * np.arange(-2, 3)
    np.testing.assert_allclose(neuron["traces"], want, atol=1e-6)
    assert (neuron["azi_shift"], neuron["ele_shift"]) == (1.5, -2.0)


@pytest.mark.parametrize("word", ["", "NA", "NaN", "#N/A", "null"])
def test_what_is_not_known_is_a_trial_that_may_be_dropped(tmp_path, word):
    content = changed(7, "dff", word)
    with pytest.raises(InputError, match="traces hold NaN or infinity in 1 of 2 trials"):
        read(tmp_path, content)
    _, neuron = read(tmp_path, content, nan="drop_trial")
    np.testing.assert_allclose(neuron["traces"], 1 + 0.01 * np.arange(-2, 3)[None], atol=1e-6)


def test_a_place_that_is_not_known_needs_no_column(tmp_path):
    content = of_trials([row[:5] for row in TRIALS], head="stimulus,neuron,trial,seconds,dff\n")
    with pytest.raises(InputError, match=r"azi_shift is nan; .* or train with position=learned"):
        read(tmp_path, content)
    assert np.isnan(read(tmp_path, content, unplaced=True)[1]["azi_shift"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (of_trials([*TRIALS, TRIALS[2]]), r"trial 1: two samples at 0 s \(rows 4 and 12\)"),
        (of_trials().replace("trial", "sweep"), r"two samples at -0.2 s .* in a column trial"),
        (of_trials(TRIALS[:-1]), r"trial 2: other times .*\(4 samples .* to 0.1 s, not 5 from"),
        (of_trials(head=HEAD_OF_TRIALS.replace("trial", "dff")), "two columns are called dff"),
        (of_trials(head=HEAD_OF_TRIALS.replace("seconds", "ms")), "no column seconds among"),
        (changed(3, "seconds", "inf"), "row 5: seconds is 'inf'; expected a number"),
        (changed(3, "seconds", ""), "row 5: seconds is ''; expected a number"),
        (changed(3, "azi_shift", "1.5 deg"), "row 5: azi_shift is '1.5 deg'; expected a number"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path, content, reason):
    with pytest.raises(InputError, match=reason):
        read(tmp_path, content)


@pytest.mark.parametrize("name", FILES)
def test_a_table_of_every_program_is_the_same_session(tmp_path, name):
    path = tmp_path / "a.csv"
    path.write_bytes(FILES[name])
    check(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (text(",", ","), r"row 2: 11 cells under 7 columns; cells are separated by commas, so "),
        (text(";", ",").replace("0,1955", "0.1955"), r"dff is '0\.1955'; expected decimal commas"),
        (text(";", ",").replace("0,1955", "1.000,1955"), r"dff is '1\.000,1955'; expected decimal"),
        (text(";", ",").replace("dff", "df"), r"no column dff among .*separated by semicolons"),
        (text().replace("0.1955", '"0,1955"'), r"row 4: dff is '0,1955'; expected a number"),
        ("", r"a\.csv: is empty; expected a header"),
        (text(";") + "5;7;1;1;0;0;x;more\n", r"row 6: 8 cells under 7 columns"),
        (text().replace("0.1955", "0.19\0"), r"holds zero bytes"),
        (text().split("\n")[0] + "\n", r"holds a header and no row"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=reason):
        read_long_csv(path)
