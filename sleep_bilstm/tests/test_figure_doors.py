"""The doors that draw and count results: clock, epoch length, states and kinds of maps."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from analysis.attention_figures import attention_statistics, plot_in_time, plot_means, read_weights
from analysis.label_files import read_labels
from analysis.map_figures import read_maps
from common.files import InputError
from fragmented_sleep import main as fragmented_sleep
from plot_gradcam import main as plot_gradcam
from plot_hypnogram import main as plot_hypnogram
from plot_scoring_length import main as plot_scoring_length
from utils import main as utils
from visualize_attention_weights import main as visualize_attention_weights

STATES = np.r_[np.zeros(10), np.ones(20), 2 * np.ones(5), np.zeros(10)].astype(int)


def table(path, step_s=10.0, first_s=0.0, **more):
    """Write a result of one run with epochs of ``step_s``."""
    number = np.arange(STATES.size)
    columns = {"run": 1, "epoch": number, "time_s": first_s + number * step_s, "pred": STATES}
    pd.DataFrame({**columns, **more}).to_csv(path, index=False)
    return path


def refused(capsys, main, *argv):
    """Return the one line with which a door refuses its arguments."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    assert stop.value.code == 2
    return capsys.readouterr().err.strip()


def bouts(capsys, *argv):
    """Return what fragmented_sleep prints."""
    fragmented_sleep([str(a) for a in argv])
    return capsys.readouterr().out


def test_length_of_an_epoch_is_that_of_the_file(tmp_path, capsys):
    shown = bouts(capsys, table(tmp_path / "four.csv", 4.0))
    assert "Wakefulness 40 s, NREM 80 s, REM 20 s; transitions: 3" in shown
    assert "epochs of 4 s: file" in shown
    held = json.loads((tmp_path / "four_bouts.json").read_text())
    assert (held["epoch_s"], held["key"], held["NREM"]["total_s"]) == (4, "pred", 80)
    assert "10 s are used" in bouts(capsys, tmp_path / "four.csv", "--epoch_seconds", 10)
    scipy.io.savemat(tmp_path / "half.mat", {"y_preds": STATES[None], "epoch_s": 2.5})
    assert "NREM 50 s" in bouts(capsys, tmp_path / "half.mat")
    scipy.io.savemat(tmp_path / "published.mat", {"y_preds": STATES[None]})
    shown = bouts(capsys, tmp_path / "published.mat")
    assert "NREM 200 s" in shown
    assert "10 s taken, as published" in shown
    for seconds in ("0", "-4", "nan", "inf", "x"):
        line = refused(capsys, fragmented_sleep, "four.csv", f"--epoch_seconds={seconds}")
        assert "expected a number above 0" in line


def test_a_gap_ends_a_bout_also_without_numbers(tmp_path, capsys):
    states = STATES.astype(float)
    states[12:15] = np.nan
    pd.DataFrame({"pred": states}).to_csv(tmp_path / "a.csv", index=False)
    assert "NREM 85 s" in bouts(capsys, tmp_path / "a.csv")
    assert "NREM 170 s" in bouts(capsys, tmp_path / "a.csv", "--ignore_gaps")


def test_two_classes_join_and_are_not_split_again(tmp_path, capsys):
    path = table(tmp_path / "a.csv")
    assert "Wakefulness 100 s, Sleep 250 s" in bouts(capsys, path, "--num_classes", 2)
    plot_hypnogram([str(path), "--keys", "pred", "--num_classes", "2"])
    drawn = pd.read_csv(tmp_path / "a_hypnogram.csv")["Attention CNN-BiLSTM"]
    assert sorted(set(drawn)) == [0, 1]
    two = table(tmp_path / "two.csv", pred=np.minimum(STATES, 1), p_sleep=0.5)
    assert "cannot be told apart" in refused(capsys, fragmented_sleep, two, "--num_classes", 3)
    line = refused(capsys, plot_hypnogram, path, two, "--keys", "pred")
    assert "give --num_classes 2" in line


def test_codes_of_a_recording_and_words_keep_their_meaning(tmp_path, capsys):
    raw = np.array([[0, 0, 1, 1, 2, 2, 1, 1, 0]])
    scipy.io.savemat(tmp_path / "raw.mat", {"scoringindex_file": raw})
    shown = bouts(capsys, tmp_path / "raw.mat", "--key", "scoringindex_file")
    assert "NREM 20 s, REM - s" in shown  # 2 is an artifact there
    assert "read as 2 artifact, 3 REM" in shown
    scipy.io.savemat(tmp_path / "accusleep.mat", {"labels": np.array([[2, 2, 3, 3, 1]])})
    shown = bouts(capsys, tmp_path / "accusleep.mat", "--key", "labels")
    assert "Wakefulness 20 s, NREM 20 s, REM 10 s" in shown
    words = ["wake", "NREM", "NREM", "artifact", "REM"]
    pd.DataFrame({"state": words}).to_csv(tmp_path / "words.csv", index=False)
    assert "Wakefulness 10 s, NREM 20 s, REM 10 s" in bouts(
        capsys, tmp_path / "words.csv", "--key", "state"
    )
    pd.DataFrame({"state": ["wake", "N2b"]}).to_csv(tmp_path / "words.csv", index=False)
    assert "'N2b'" in refused(capsys, fragmented_sleep, tmp_path / "words.csv", "--key", "state")


def test_rows_stand_at_their_times(tmp_path, capsys):
    path = table(tmp_path / "late.csv", 4.0, first_s=40.0)
    part = pd.read_csv(path).drop(index=range(12, 18))
    part.to_csv(path, index=False)
    plot_hypnogram([str(path), "--keys", "pred"])
    drawn = pd.read_csv(tmp_path / "late_hypnogram.csv")
    assert drawn["time_s"].iloc[-1] == 40 + 44 * 4
    series = drawn["Attention CNN-BiLSTM"]
    assert series.isna().to_numpy().nonzero()[0].tolist() == [*range(10), *range(22, 28)]
    assert series[10 + 30] == 2
    plot_hypnogram([str(path), "--keys", "pred", "--ignore_gaps"])
    assert len(pd.read_csv(tmp_path / "late_hypnogram.csv")) == 39
    assert capsys.readouterr().out.count("epochs of 4 s: file") == 2


def test_several_files_keep_a_column_each(tmp_path, capsys):
    one, two = table(tmp_path / "one.csv"), table(tmp_path / "two.csv", pred=0)
    plot_hypnogram([str(one), str(two), "--keys", "pred", "--out", str(tmp_path / "h.png")])
    drawn = pd.read_csv(tmp_path / "h.csv")
    assert drawn["Attention CNN-BiLSTM, one"].tolist() == STATES.tolist()
    assert drawn["Attention CNN-BiLSTM, two"].tolist() == [0] * STATES.size
    both = [str(one), str(two), "--keys", "pred", "--titles", "a", "a"]
    plot_hypnogram([*both, "--out", str(tmp_path / "h.png")])
    assert list(pd.read_csv(tmp_path / "h.csv"))[2:] == ["a", "a (2)"]
    other = table(tmp_path / "other.csv", 4.0)
    assert "unequal length" in refused(capsys, plot_hypnogram, one, other, "--keys", "pred")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"mouse": ["a"] * 20 + ["b"] * 25}, "several mice"),
        ({"time_s": np.arange(45)[::-1]}, "not in time order"),
        ({"epoch": 7}, "not in time order"),
        ({"time_s": np.arange(45) ** 2.0}, "equal length"),
        ({"run": 0.5}, "not whole"),
        ({"pred": np.inf}, "not whole"),
    ],
)
def test_clocks_that_contradict_themselves_are_refused(tmp_path, columns, words):
    path = table(tmp_path / "a.csv", **columns)
    with pytest.raises(InputError, match=words):
        read_labels(path, ["pred"])


@pytest.mark.parametrize("content", [b"", b"hello " * 50])
def test_damaged_mat_files_are_one_line(tmp_path, capsys, content):
    path = tmp_path / "m_avg_label0.mat"
    path.write_bytes(content)
    for main in (fragmented_sleep, plot_hypnogram, visualize_attention_weights):
        assert "cannot be read as .mat" in refused(capsys, main, path)
    line = refused(capsys, plot_gradcam, "--folder", tmp_path, "--mice", "m")
    assert "holds no subject map" in line


def maps(folder, mouse, states, *, shape=(8, 8), kind="_avg"):
    """Write the maps of one mouse, each of its own number."""
    for state in states:
        held = {"subject_avg_gradcam": np.full(shape, state + 0.5), "num_classes": 3}
        held["subject_avg_gradcam"][0, 0] = 0
        name = f"{mouse}{kind}_label{state}.mat"
        scipy.io.savemat(folder / name, {**held, "example_data": np.ones((4, *shape))})


def test_maps_of_halves_and_whole_frames_are_not_mixed(tmp_path, capsys):
    maps(tmp_path, "a", range(3))
    maps(tmp_path, "a", range(3), shape=(8, 4), kind="_avg_hemis")
    with pytest.raises(InputError, match="give --hemisphere yes or no"):
        read_maps(tmp_path, ["a"])
    assert read_maps(tmp_path, ["a"], hemisphere=True)[0]["a"]["REM"].shape == (8, 4)
    assert read_maps(tmp_path, ["a"], hemisphere=False)[0]["a"]["REM"].shape == (8, 8)
    maps(tmp_path, "b", (2, 0))
    found = read_maps(tmp_path, ["b", "a"], hemisphere=False)[0]
    assert list(found["b"]) == ["Wakefulness", "NREM", "REM"]  # also where a file is missing
    assert np.isnan(found["b"]["NREM"]).all()
    assert found["b"]["REM"][1, 1] == 2.5
    out = ["--out", str(tmp_path / "g.png"), "--hemisphere", "no"]
    plot_gradcam(["--folder", str(tmp_path), "--mice", "b", "a", *out])
    base = ["--folder", tmp_path, "--mice", "b"]
    assert "expected 0 to 1" in refused(capsys, plot_gradcam, *base, "--opacity", 7)
    line = refused(capsys, plot_gradcam, *base, "--colour_map", "viridiss")
    assert "did you mean viridis" in line
    maps(tmp_path, "c", [5])
    assert "expected one of 0 to 2" in refused(
        capsys, plot_gradcam, "--folder", tmp_path, "--mice", "c"
    )
    maps(tmp_path, "d", [0], shape=(8, 8, 2))
    assert "H x W" in refused(capsys, plot_gradcam, "--folder", tmp_path, "--mice", "d")


def weights(path, y_preds, **more):
    """Write attention weights of 45 epochs."""
    rng = np.random.default_rng(0)
    held = {"att_weights": rng.random((45, 20)), "y_preds": np.asarray(y_preds, float)[None]}
    scipy.io.savemat(path, {**held, **more})
    return path


def test_attention_keeps_times_and_epochs_without_a_state(tmp_path, capsys):
    number = np.arange(45)[None]
    clock = {"run": np.ones((1, 45)), "epoch": number, "time_s": number * 2.5}
    path = weights(tmp_path / "a_attention_weights.mat", STATES, **clock)
    visualize_attention_weights([str(path)])
    assert pd.read_csv(tmp_path / "a_attention_in_time.csv")["time_s"].tolist()[:3] == [0, 2.5, 5]
    assert "epochs of 2.5 s: file" in capsys.readouterr().out
    some = STATES.astype(float)
    some[[3, 20]] = np.nan
    held = read_weights(weights(tmp_path / "b.mat", some, y_trues=some[None]), None, 2)
    assert held.y_pred[[3, 20]].tolist() == [-1, -1]
    assert set(held.y_pred) == {-1, 0, 1}
    # A hole in the truth is no transition: wake to sleep and back are the only ones.
    statistics = attention_statistics(
        held.weights, held.y_pred, held.y_true, 2, num_classes=held.num_classes
    )
    assert statistics.transition.size == 2 * 5
    assert plot_means(statistics, 2.5).axes[0].get_xlabel() == "Time step (20 in 2.5 s)"
    legend = plot_in_time(statistics, held.y_pred).legends[0]
    assert [text.get_text() for text in legend.get_texts()][-1] == "no state"


def test_attention_weights_that_are_none_are_refused(tmp_path, capsys):
    path = weights(tmp_path / "a.mat", STATES, y_trues=STATES[None, :30])
    assert "lengths [45, 30]" in refused(capsys, visualize_attention_weights, path)
    broken = np.full((45, 20), 0.05)
    broken[4, 3] = np.nan
    path = weights(tmp_path / "a.mat", STATES, att_weights=broken)
    assert "row 4 (from 0)" in refused(capsys, visualize_attention_weights, path)
    path = weights(tmp_path / "a.mat", STATES)
    assert "0 samples or more" in refused(capsys, visualize_attention_weights, path, "--gap", -3)
    assert "num_classes is 5" in refused(
        capsys, visualize_attention_weights, weights(tmp_path / "a.mat", STATES, num_classes=5)
    )


def test_lengths_outside_the_published_axis_are_drawn(tmp_path, capsys):
    from analysis.scoring_length import plot_scoring_length as figure_of

    (tmp_path / "m.json").write_text(json.dumps({"f1_weighted": 0.8, "kappa": -0.13}))
    (tmp_path / "k.json").write_text(json.dumps({"f1_weighted": 0.8, "kappa": None}))
    own = [f"30={tmp_path / 'm.json'}", f"5={tmp_path / 'k.json'}"]
    plot_scoring_length(["--metrics", *own, "--out", str(tmp_path / "s.png")])
    drawn = pd.read_csv(tmp_path / "s.csv")
    assert drawn["seconds"].tolist() == [5, 30]
    left, right = figure_of(drawn).axes
    assert left.get_xlim()[1] >= 30
    assert right.get_ylim()[0] <= -0.13
    for text, words in (
        ("5,83.1,70", "83.1; expected 0 to 1, a fraction"),
        ("five,0.8,0.7", "seconds holds no numbers"),
        ("nan,0.8,0.7", "seconds is nan"),
        ("5,0.8,0.7\n5,0.7,0.6", "5 s comes twice"),
    ):
        (tmp_path / "t.csv").write_text(f"seconds,f1_weighted,kappa\n{text}\n")
        assert words in refused(capsys, plot_scoring_length, "--table", tmp_path / "t.csv")
    (tmp_path / "l.json").write_text("[1]")
    line = refused(capsys, plot_scoring_length, "--metrics", f"5={tmp_path / 'l.json'}")
    assert "expected <seconds>=<metrics.json>" in line


def test_raters_say_what_is_left_out(tmp_path, capsys):
    second = STATES.astype(float)
    second[:5] = np.nan
    pd.DataFrame({"a": STATES, "b": second}).to_csv(tmp_path / "r.csv", index=False)
    arguments = ["compare", str(tmp_path / "r.csv"), "--keys", "a", "b", "--out", str(tmp_path)]
    utils(arguments)
    assert "5 epochs without a state of both are left out" in capsys.readouterr().out
    held = json.loads((tmp_path / "metrics.json").read_text())
    assert (held["n"], held["left_out"]) == (40, 5)
    pd.DataFrame({"a": STATES, "b": np.nan}).to_csv(tmp_path / "r.csv", index=False)
    assert "none of 45 epochs" in refused(capsys, utils, *arguments)
