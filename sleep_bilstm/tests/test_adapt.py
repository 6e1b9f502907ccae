"""Prior and last layer fitted to one animal: only where there is evidence, only states scored."""

import json
import logging
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score

from common.files import InputError
from inputs.names import find_recordings
from main import main
from network.forward import states_of
from runs.adapt import (
    adapt,
    blocks_of,
    control_of,
    doubt_of_codes,
    moves_of,
    say_adapted,
    try_kinds,
)
from test_main import fails


def animal(seed, n, *, shift=(0.0, 0.0, 0.0), turn=0.0):
    """Return vectors (n, 7) and states (n,) in bouts of six epochs: logits of a last layer that
    reads its summary (n, 4) as it was trained, of an animal whose layer would be another one.
    """
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.integers(0, 3, n // 6), 6)
    summary = rng.normal(size=(n, 4))
    summary[np.arange(n), states] += 2.0
    turned = summary.copy()
    turned[:, 0] += turn * summary[:, 3]
    logits = 1.5 * turned[:, :3] + np.array(shift)
    return np.concatenate([logits, summary], axis=1).astype(np.float32), states


def kappa(probs, states):
    return cohen_kappa_score(states, states_of(probs))


@pytest.mark.parametrize(
    "other", [{"shift": (3.0, 0.0, 0.0)}, {"turn": 2.0, "shift": (0.0, 1.0, 0.0)}]
)
def test_an_animal_unlike_those_of_training_gains_and_moved_labels_do_not(other):
    gains, bounds = [], []
    for seed in (1, 2):
        vectors, states = animal(seed, 60, **other)
        fitted, about = adapt(vectors, states, 3)
        assert about["used"] != "none"
        bounds.append(about["control"]["bound_95"])
        assert bounds[-1] < 0.6 * about["fall_of_loss"]["mean"]
        later, truth = animal(seed + 100, 600, **other)
        before = kappa(softmax(later[:, :3], axis=1), truth)
        gains.append(kappa(fitted.probabilities(later), truth) - before)
    assert min(gains) > 0.05
    assert all(bounds)  # there are bouts enough for a control


@pytest.mark.parametrize("bout", [6, 10, 15])
def test_moves_that_are_only_other_names_are_no_control(bout):
    """Two states that take turns: moved by a bout each is the other, which a last layer learns. Of
    three states half of the epochs keep theirs, the others change: kappa 0.25 and much to learn.
    """
    two = np.tile(np.repeat([0, 1], bout), 6)
    assert cohen_kappa_score(two, np.roll(two, bout)) == pytest.approx(-1)
    assert not {bout, 3 * bout, len(two) // 2} & set(moves_of(two))
    three = np.tile(np.repeat([0, 1, 0, 2], bout), 4)
    for move in moves_of(three):
        moved = np.roll(three, move)
        table = np.histogram2d(three, moved, bins=3)[0]
        assert table.max(axis=1).sum() / len(three) < 0.75  # 0.5 is what one state always gives


def test_control_of_states_that_take_turns():
    """Moved by one bout they are each other: the loss falls as it never does with right labels."""
    rng = np.random.default_rng(0)
    states = np.repeat(np.arange(20) % 2, rng.integers(3, 10, 20))
    summary = rng.normal(size=(len(states), 4))
    summary[np.arange(len(states)), states] += 3.0
    logits = np.column_stack([1.5 * summary[:, :2], np.full(len(states), -5.0)])
    both = np.arange(2)
    turned = try_kinds(logits, summary, 1 - states, both)
    control = control_of(logits, summary, states, both)
    assert turned.fall > 0.5
    assert control["moves"] == 40
    assert control["highest"] < 0.2


def test_too_few_bouts_have_no_control_and_that_is_said(caplog):
    vectors, states = animal(1, 180, shift=(3.0, 0.0, 0.0))
    first = [np.flatnonzero(states == state)[:18] for state in (0, 1)]
    vectors, states = (values[np.concatenate(first)] for values in (vectors, states))
    _, about = adapt(vectors, states, 3)
    assert about["used"] != "none"
    assert about["control"]["moves"] < 19
    assert about["control"]["bound_95"] is None
    with caplog.at_level(logging.INFO):
        say_adapted(about, "scored.mat")
    assert "no control: only" in caplog.text
    assert "give more --adapt_minutes" in caplog.text


@pytest.mark.parametrize("codes", [[1, 0, 2], [0, 2, 1], [1, 2, 0]])
def test_scores_in_other_codes_never_pass_as_help(codes, caplog):
    vectors, states = animal(11, 60)
    assert doubt_of_codes(vectors[:, :3], states, np.arange(3)) == ""
    fitted, about = adapt(vectors, np.array(codes)[states], 3)
    assert about["used"] == "none"
    assert "were they renamed" in about["doubt"]
    expected = softmax(vectors[:, :3].astype(float), axis=1)
    np.testing.assert_allclose(fitted.probabilities(vectors), expected, atol=1e-6)
    with caplog.at_level(logging.INFO):
        say_adapted(about, "scored.mat")
    assert "the scores are doubted, nothing is changed" in caplog.text
    assert "no evidence" not in caplog.text
    assert "scored.mat: the scores contradict the network" in caplog.text
    assert "--codes 1=REM,2=wake,3=NREM" in caplog.text


def test_codes_that_leave_a_state_out_are_doubted():
    """1 wake, 2 NREM, 3 REM: read as NREM, artifact (left out) and REM."""
    vectors, states = animal(11, 90)
    scored = states != 1
    read = np.array([1, 0, 2])[states[scored]]  # wakefulness is called NREM
    about = adapt(vectors[scored], read, 3)[1]
    assert "were they renamed" in about["doubt"]
    assert about["used"] == "none"
    right = np.array([0, 1, 2])[states[scored]]
    assert adapt(vectors[scored], right, 3)[1]["doubt"] == ""


def test_codes_that_are_given_are_not_doubted():
    vectors, states = animal(11, 60)
    others = np.array([1, 0, 2])[states]
    assert adapt(vectors, others, 3, codes_given=True)[1]["used"] != "none"


def test_nothing_is_changed_without_evidence():
    """Scores of another time say nothing about the signals; a usual animal needs no change."""
    cases = [(animal(seed, 60)[0], animal(seed + 50, 60)[1]) for seed in range(6)]
    for vectors, states in [*cases, animal(7, 60)]:
        fitted, about = adapt(vectors, states, 3)
        assert about["used"] == "none"
        expected = softmax(vectors[:, :3].astype(float), axis=1)
        np.testing.assert_allclose(fitted.probabilities(vectors), expected, atol=1e-6)


def test_a_state_that_nobody_scored_keeps_its_logit():
    vectors, states = animal(1, 120, shift=(2.0, 0.0, 0.0))
    two = states < 2
    fitted, about = adapt(vectors[two], states[two], 3)
    assert about["epochs"]["REM"] == 0
    assert fitted.shift[2] == 0
    assert not fitted.weights[:, 2].any()
    assert fitted.shift[0] < 0 < fitted.shift[1]


def test_two_states_have_one_logit():
    vectors, states = animal(2, 120, shift=(2.0, 0.0, 0.0))
    asleep = (states > 0).astype(int)
    one = np.concatenate([vectors[:, 1:2] - vectors[:, :1], vectors[:, 3:]], axis=1)
    fitted, _ = adapt(one, asleep, 2)
    probs = fitted.probabilities(one)
    assert probs.shape == (120, 1)
    assert kappa(probs, asleep) > kappa(1 / (1 + np.exp(-one[:, :1])), asleep)


def test_too_few_scores_are_refused():
    vectors, _ = animal(0, 60)
    with pytest.raises(InputError, match="hold Wakefulness 60, NREM 0, REM 0 epochs"):
        adapt(vectors, np.zeros(60, int), 3)


def test_the_least_minutes_are_enough_to_try():
    vectors, _ = animal(3, 6)
    fitted, about = adapt(vectors, np.array([0, 0, 0, 1, 1, 1]), 3)
    assert about["epochs"] == {"Wakefulness": 3, "NREM": 3, "REM": 0}
    assert all(np.isfinite(value) for value in about["fall_of_loss"].values())
    assert np.isfinite(fitted.probabilities(vectors)).all()
    assert [len(block) for block in blocks_of(6)] == [1] * 6
    assert [len(block) for block in blocks_of(60)] == [6] * 10


def predicting(trained, data, out, *more):
    """Return the flags of --mode predict --adapt."""
    places = ["--model_savedir", str(trained), "--data_path", str(data)]
    return ["--mode", "predict", *places, "--result_savedir", str(out), *map(str, more)]


def test_scores_in_other_codes_are_told_and_read(recordings, trained, tmp_path, capsys):
    """0, 1, 2, 3 of the laboratory as AccuSleep's 2, 3, 4, 1: REM would be taken for NREM."""
    usual = find_recordings(recordings)[-1]
    other = tmp_path / usual.name
    shutil.copy(usual, other)
    with h5py.File(other, "r+") as file:
        scores = file["scoringindex_file"]
        scores[...] = np.array([2, 3, 4, 1])[scores[()].astype(int)]
    with_codes = ["--codes", "1=REM,2=wake,3=NREM,4=artifact"]
    held = []
    for path, more in ((usual, []), (other, with_codes)):
        out = tmp_path / f"out{len(held)}"
        assert main(predicting(trained, usual, out, "--adapt", path, *more)) == 0
        held.append(json.loads((out / "predict" / "adapt.json").read_text())["epochs"])
    assert held[0] == held[1]
    with h5py.File(other, "r+") as file:
        scores = file["scoringindex_file"]
        scores[...] = np.where(scores[()] == 4, 2, scores[()])
    capsys.readouterr()
    flags = predicting(trained, usual, tmp_path / "out2", "--adapt", other)
    with pytest.raises(SystemExit):  # what is left of two states is too little, too
        main(flags)
    said = capsys.readouterr().out
    assert "warning: mouse 990104-S4: no epoch is wake; REM (7 epochs) outnumbers NREM (2)" in said
    assert "--codes 1=REM,2=wake,3=NREM" in said


def test_a_recording_that_cannot_be_adapted_to_is_refused(recordings, trained, tmp_path, capsys):
    usual = find_recordings(recordings)[-1]
    large, bare = tmp_path / usual.name, tmp_path / "bare" / usual.name
    bare.parent.mkdir()
    shutil.copy(usual, bare)
    with h5py.File(bare, "r+") as file:
        del file["scoringindex_file"]
    shutil.copy(usual, large)
    with h5py.File(large, "r+") as file:
        for name in ("data", "xform_mask"):
            values = file[name][()].repeat(2, axis=-1).repeat(2, axis=-2)
            del file[name]
            file.create_dataset(name, data=values)
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, text in (
        (folder, f"{folder}: is a folder; expected one file (.mat)"),
        (large, f"{large}: an input is (24, 32, 32)"),
        (bare, f"{bare}: variable scoringindex_file is missing; --adapt needs"),
    ):
        fails(capsys, predicting(trained, usual, tmp_path, "--adapt", path), text)
    unscored = tmp_path / "unscored" / usual.name
    unscored.parent.mkdir()
    shutil.copy(usual, unscored)
    with h5py.File(unscored, "r+") as file:
        file["scoringindex_file"][...] = np.nan
    with pytest.raises(SystemExit):
        main(predicting(trained, usual, tmp_path, "--adapt", unscored))
    said = capsys.readouterr()
    assert "holds no scored epoch" in said.err
    assert "never change" not in said.out  # nothing was read
    flags = predicting(trained, usual, tmp_path, "--adapt", usual)
    fails(capsys, [*flags, "--adapt_minutes", "inf"], "adapt_minutes is inf: expected 1 to 1440")
    fails(capsys, [*flags, "--codes", "7=nap"], "codes 7=nap")
    fails(capsys, [*flags[:-2], "--codes", "1=REM"], "--codes belongs to --adapt")


def test_predict_adapts_and_says_so(recordings, trained, tmp_path, capsys):
    scored = find_recordings(recordings)[-1]
    own = ["--mode", "predict", "--model_savedir", str(trained), "--data_path", str(scored)]
    out = ["--result_savedir", str(tmp_path)]
    assert main([*own, *out, "--adapt", str(scored), "--adapt_minutes", "2"]) == 0
    held = json.loads((tmp_path / "predict" / "adapt.json").read_text())
    assert held["file"] == str(scored)
    assert held["used"] in ("none", held["best"])
    assert sum(held["epochs"].values()) <= 12
    table = pd.read_csv(tmp_path / "predict" / "predictions.csv")
    assert main([*own, *out]) == 0
    assert not (tmp_path / "predict" / "adapt.json").exists()
    plain = pd.read_csv(tmp_path / "predict" / "predictions.csv")
    assert table["epoch"].tolist() == plain["epoch"].tolist()
    fails(capsys, [*own[2:], "--mode", "test", "--adapt", str(scored)], "belongs to --mode predict")
    fails(capsys, [*own, "--adapt", str(tmp_path / "none.mat")], "none.mat")
