"""Traces as other programs save them: semicolons, tabs, decimal commas, other codes of text."""

import numpy as np
import pytest
import torch

from common.files import InputError
from inputs.csv_traces import read_long_csv

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
