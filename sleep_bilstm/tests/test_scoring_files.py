"""Hypnograms of other programs: round trips, what a format cannot hold, and faults."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import scipy.io

from common.files import InputError
from hypnogram import main
from inputs.scoring import Scoring
from inputs.scoring_files import FORMATS, convert_scoring, read_scoring
from test_main import fails

START = datetime(2018, 10, 18, 23, 59, 40)
STATES = np.array([0, 0, 1, -2, 1, 2, 2, -1, 0, 1])


@pytest.mark.parametrize("named", FORMATS)
@pytest.mark.parametrize("epoch_s", [10.0, 2.5])
def test_round_trip(tmp_path, named, epoch_s):
    if named == "nwb":
        pytest.importorskip("pynwb", reason="an extra: requirements-nwb.txt")
    if named == "sleepsign" and epoch_s != 10:
        pytest.skip("SleepSign writes whole seconds")
    kind = FORMATS[named]
    states = np.where(np.isin(STATES, kind.drops), -1, STATES)
    path = tmp_path / f"a{kind.suffix}"
    convert_scoring(Scoring(STATES, epoch_s, START), path, named)
    scoring = read_scoring(path)
    assert scoring.states.tolist() == states.tolist()
    if named != "accusleep-csv":  # holds neither clock nor length
        assert scoring.epoch_s == epoch_s
    if named in ("csv", "edf", "sleepsign", "nwb"):
        assert scoring.start == START


def test_real_export_of_sleepsign(real_dir, tmp_path, capsys):
    path = real_dir / "D1798_short.txt"
    scoring = read_scoring(path)
    assert (len(scoring.states), scoring.epoch_s) == (80, 10.0)
    assert scoring.start == datetime(2018, 10, 18, 11, 5, 10)
    assert (scoring.states == 0).all()
    main(["convert", str(path), str(tmp_path / "a.edf")])
    again = read_scoring(tmp_path / "a.edf")
    assert (again.start, again.states.tolist()) == (scoring.start, scoring.states.tolist())
    assert "80 epochs of 10 s, 800 s in all" in capsys.readouterr().out


@pytest.mark.parametrize("named", ["csv", "edf", "nwb"])
def test_the_clock_keeps_its_fraction_and_its_zone(tmp_path, named):
    if named == "nwb":
        pytest.importorskip("pynwb", reason="an extra: requirements-nwb.txt")
    path = tmp_path / f"a{FORMATS[named].suffix}"
    start = START.replace(microsecond=750_000)
    convert_scoring(Scoring(STATES, 2.5, start), path, named)
    assert read_scoring(path).start == start
    abroad = start.replace(tzinfo=timezone(timedelta(hours=-5)))
    convert_scoring(Scoring(STATES, 2.5, abroad), path, named)
    found = read_scoring(path).start
    if named == "edf":  # its clock is that of the place, without a zone
        assert found == start
    else:
        assert (found, found.utcoffset()) == (abroad, timedelta(hours=-5))


def test_what_whole_seconds_cannot_hold_is_said(tmp_path, caplog):
    path = tmp_path / "a.txt"
    convert_scoring(Scoring(STATES, 10.0, START.replace(microsecond=750_000)), path, "sleepsign")
    assert "its clock is 0.75 s early" in caplog.text
    assert read_scoring(path).start == START
    with pytest.raises(InputError, match=r"whole seconds, epochs are 2\.5 s long"):
        convert_scoring(Scoring(STATES, 2.5, START), tmp_path / "b.txt", "sleepsign")
    assert not (tmp_path / "b.txt").exists()


def test_a_table_that_begins_late_keeps_its_clock(tmp_path):
    """Four epochs of artifacts before the first row are part of the axis."""
    path = tmp_path / "a.csv"
    path.write_text("time_s,state,clock\n40,wake,2024-03-25T11:00:40\n50,REM,2024-03-25T11:00:50\n")
    scoring = read_scoring(path)
    assert scoring.states.tolist() == [-1, -1, -1, -1, 0, 2]
    assert (scoring.epoch_s, scoring.start) == (10, datetime(2024, 3, 25, 11))


def test_a_first_epoch_off_the_grid_is_said(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("time_s,state\n3,wake\n13,REM\n")
    assert read_scoring(path).states.tolist() == [0, 2]
    assert "its first epoch begins at 3 s, which is called 0 s here" in caplog.text


@pytest.mark.parametrize("named", ["accusleep", "accusleep-csv", "labchart"])
def test_what_has_no_place_for_the_clock_is_said(tmp_path, caplog, named):
    states = np.where(np.isin(STATES, FORMATS[named].drops), -1, STATES)
    path = tmp_path / f"a{FORMATS[named].suffix}"
    convert_scoring(Scoring(states, 10.0, START), path, named)
    assert "has no place for its clock" in caplog.text
    assert "(epochs of 10 s, from 2018-10-18T23:59:40)" in caplog.text
    assert ("the length of an epoch" in caplog.text) == (named == "accusleep-csv")


def test_predictions_keep_their_gaps(tmp_path):
    """Artifacts between predicted epochs are gaps of the axis, not fewer epochs."""
    path = tmp_path / "200128_10s.csv"
    path.write_text("mouse,run,epoch,time_s,pred\n1,1,0,0,0\n1,1,1,10,1\n1,1,4,40,2\n1,1,5,50,-1\n")
    scoring = read_scoring(path)
    assert scoring.states.tolist() == [0, 1, -1, -1, 2, -1]
    assert scoring.epoch_s == 10


def test_bouts_of_an_edf_file_are_cut_into_epochs(tmp_path):
    import edfio

    notes = [
        edfio.EdfAnnotation(0, 30, "Sleep stage W"),
        edfio.EdfAnnotation(30, 20, "Sleep stage N2"),
        edfio.EdfAnnotation(70, 10, "Sleep stage R"),
        edfio.EdfAnnotation(12, None, "Lights off"),
    ]
    edfio.Edf([], annotations=notes).write(tmp_path / "a.edf")
    scoring = read_scoring(tmp_path / "a.edf")
    assert (scoring.epoch_s, scoring.start) == (10.0, None)
    assert scoring.states.tolist() == [0, 0, 0, 1, 1, -1, -1, 2]


def test_accusleep_numbers(tmp_path):
    convert_scoring(Scoring(STATES, 10.0), tmp_path / "a.mat", "accusleep")
    held = np.ravel(scipy.io.loadmat(tmp_path / "a.mat")["labels"])
    assert held.tolist() == [2, 2, 3, 4, 3, 1, 1, 4, 2, 3]


def test_what_is_not_known_is_asked_for(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("brain_state\n1\n2\n3\n-1\n")
    flags = ["convert", str(path), str(tmp_path / "b.csv")]
    fails(capsys, flags, "give --epoch_seconds", main)
    main([*flags, "--epoch_seconds", "4"])
    scoring = read_scoring(tmp_path / "b.csv")
    assert (scoring.states.tolist(), scoring.epoch_s) == ([2, 0, 1, -1], 4.0)
    fails(capsys, ["convert", str(tmp_path / "b.csv"), str(tmp_path / "c.txt")], "--start", main)
    fails(capsys, ["convert", str(tmp_path / "b.csv"), str(tmp_path / "c.mat")], "--to", main)
    fails(capsys, ["convert", str(tmp_path / "b.csv"), str(tmp_path / "c.xyz")], "ending", main)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "state\nwake\ndrowsy\n", "state 'drowsy' is not known"),
        ("a.csv", "time,x\n1,2\n", "no column state, brain_state"),
        ("a.csv", "time_s,pred\n0,1\n0,1\n", "times do not rise"),
        ("a.csv", "time_s,pred\n0,1\n10,1\n25,1\n", "do not lie 10 s apart"),
        ("a.csv", "brain_state\n7\n", "label 7"),
        ("a.txt", "hello", "expected a SleepSign export"),
        ("a.edf", "hello", "cannot be read as EDF"),
        ("a.csv", "state,clock\nwake,25.3.2024 11:00\n", "clock is '25.3.2024 11:00'; expected"),
        ("a.mat", "hello", "cannot be read as .mat"),
    ],
)
def test_faults_are_one_line(tmp_path, capsys, name, text, said):
    (tmp_path / name).write_text(text)
    fails(capsys, ["convert", str(tmp_path / name), str(tmp_path / "b.csv")], said, main)


def test_codes_of_another_laboratory(tmp_path):
    (tmp_path / "a.csv").write_text("time_s,score\n0,5\n10,6\n20,7\n")
    scoring = read_scoring(tmp_path / "a.csv", key="score", codes="5=wake,6=NREM,7=artifact")
    assert scoring.states.tolist() == [0, 1, -2]
    with pytest.raises(InputError, match="no such file"):
        read_scoring(tmp_path / "b.csv")
