"""The hypnogram of an animal: a time axis without holes, gaps that nothing is joined across."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis.attention_figures import attention_statistics
from analysis.bouts import sleep_statistics
from analysis.evaluation import add_smoothed, prediction_table, write_results
from common.files import InputError
from inputs.dataloader_sleep import Epochs, MouseSplit, View, of_mice, split_records
from inputs.hypnogram import CLOCK, CLOCK_SHORT, hypnograms_of, mouse_names, stretches
from inputs.mat_writer import write_recording
from inputs.shards import find_records, in_time_order
from inputs.storage import Storage
from inputs.tfrecords import create

# Per run 6 epochs of wakefulness, 6 artifacts, 6 of NREM.
CODES = [0] * 6 + [2] * 6 + [1] * 6


def make(folder, names, codes=CODES):
    """Write recordings of noise and their shards; return the records in time order."""
    movie = np.random.default_rng(0).normal(size=(len(codes), 168, 16, 16)).astype(np.float32)
    for name in names:
        path = folder / "raw" / f"{name}-GSR_Ben.mat"
        write_recording(path, movie, np.ones((16, 16), bool), codes)
    create(folder / "raw", folder / "data", Storage(downsample=4))
    return in_time_order(find_records(folder / "data"))


def epochs_of(records):
    return Epochs(records, View(4))


def sure(epochs):
    """Return probabilities that name the true states."""
    return np.eye(3)[epochs.labels] * 0.97 + 0.01


@pytest.fixture(scope="module")
def one_mouse(tmp_path_factory):
    return make(tmp_path_factory.mktemp("one"), [f"200128-L2-fc{run}" for run in (1, 2, 3, 4)])


@pytest.fixture(scope="module")
def two_mice(tmp_path_factory):
    names = [f"200128-{tag}-fc{run}" for tag in ("L2", "M5") for run in (1, 2)]
    return make(tmp_path_factory.mktemp("two"), names)


def test_axis_holds_artifacts_and_runs_follow_each_other(one_mouse, tmp_path):
    epochs = epochs_of(one_mouse)
    axes = hypnograms_of(one_mouse, epochs.labels)
    (axis,) = axes.values()
    assert (axis.mouse, axis.session, axis.tag, axis.clock) == ("200128", "200128", "L2", CLOCK)
    assert axis.states.tolist() == [*[0] * 6, *[-2] * 6, *[1] * 6] * 4
    assert axis.time_s[-1] == 710
    assert "4 runs, 72 epochs of 10 s (12 min; 24 Wakefulness, 24 NREM, 0 REM, 24 artifacts, 0" in (
        axis.describe()
    )
    table = prediction_table(epochs, sure(epochs))
    assert table["time_s"].tolist() == (np.flatnonzero(axis.states >= 0) * 10).tolist()
    write_results(table, axes, tmp_path, "text", seconds=10)
    drawn = pd.read_csv(tmp_path / "200128_10s_hypnogram.csv")
    assert len(drawn) == 72
    assert drawn["time_s"].tolist() == axis.time_s.tolist()
    series = drawn["Attention CNN-BiLSTM"]
    assert series.isna().tolist() == (axis.states < 0).tolist()
    assert series[12] == 1


def test_nothing_is_joined_across_a_gap(one_mouse):
    """Neither bouts nor changes of attention cross artifacts and the ends of runs."""
    epochs = epochs_of(one_mouse)
    (axis,) = hypnograms_of(one_mouse, epochs.labels).values()
    places = axis.places([r.run for r in one_mouse], [r.epoch for r in one_mouse])
    parts = axis.stretches(places)
    assert parts == [slice(i, i + 6) for i in range(0, 48, 6)]
    assert sleep_statistics(epochs.labels, parts)["transitions"] == 0
    weights = np.random.default_rng(0).random((48, 5))
    statistics = attention_statistics(weights, epochs.labels, epochs.labels, parts=parts)
    assert statistics.transition.size == 0
    assert statistics.other.size == weights.size
    assert attention_statistics(weights, epochs.labels, epochs.labels).transition.size > 0


def test_samples_around_a_change_end_with_their_stretch():
    weights = np.arange(24.0).reshape(4, 6)
    true = np.array([0, 1, 1, 0])
    statistics = attention_statistics(weights, true, true, 8, parts=[slice(0, 2), slice(2, 4)])
    # Each change lies in the middle of 12 samples; 8 on each side would reach into the next.
    assert statistics.transition.size == 24
    assert statistics.other.size == 0


def test_two_animals_of_one_date_stay_two(two_mice, tmp_path):
    assert sorted(set(mouse_names(two_mice))) == ["200128-L2", "200128-M5"]
    epochs = epochs_of(two_mice)
    axes = hypnograms_of(two_mice, epochs.labels)
    table = add_smoothed(prediction_table(epochs, sure(epochs)), "hmm", epochs)
    assert not table.duplicated(["mouse", "run", "epoch"]).any()
    assert set(table["tag"]) == {"L2", "M5"}
    assert (table["smoothed"] == table["true"]).all()
    write_results(table, axes, tmp_path, "text", seconds=10)
    mice = pd.read_csv(tmp_path / "per_mouse.csv")["mouse"].tolist()
    assert mice == ["200128-L2", "200128-M5", "mean", "sd"]
    for mouse in mice[:2]:
        assert len(pd.read_csv(tmp_path / f"{mouse}_10s_hypnogram.csv")) == 36
    assert {r.mouse for r in of_mice(two_mice, ["200128-M5"], tmp_path)} == {"M5"}
    assert len(of_mice(two_mice, ["200128"], tmp_path)) == len(two_mice)


def test_animal_on_both_sides_is_named(tmp_path, caplog):
    names = [
        f"{date}-{tag}-fc1" for date, tag in (("200127", "L2"), ("200128", "L2"), ("200204", "M5"))
    ]
    records = make(tmp_path, names, [0, 1])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        split = split_records(
            records,
            MouseSplit(("200127",), ("200204",), ("200128",)),
            "mouse",
            seed=1,
            where=tmp_path,
        )
    assert "tag L2 is in training and, on another date, in the test" in split.text
    assert caplog.messages == [f"warning: {split.text}"]
    caplog.clear()
    other = MouseSplit(("200127",), ("200128",), ("200204",))
    split = split_records(records, other, "mouse", seed=1, where=tmp_path)
    assert split.text == "mouse split: no mouse of the test set is in training or validation"
    assert not caplog.messages


def test_epoch_that_comes_twice_is_refused(one_mouse):
    with pytest.raises(InputError, match="epoch 0 of run 1 of mouse 200128 comes twice"):
        hypnograms_of([*one_mouse, one_mouse[0]], [0] * (len(one_mouse) + 1))


def test_older_shards_end_with_their_last_known_epoch(one_mouse, tmp_path):
    """Without the codes of the whole recording a gap is not called an artifact."""
    data = shutil.copytree(one_mouse[0].path.parents[1], tmp_path / "data")
    for path in data.rglob("*.index.json"):
        index = json.loads(path.read_text())
        del index["codes"]
        path.write_text(json.dumps(index))
    records = in_time_order(find_records(data))
    (axis,) = hypnograms_of(records, [r.label for r in records]).values()
    assert axis.states.tolist() == [*[0] * 6, *[-1] * 6, *[1] * 6] * 4
    assert axis.clock == CLOCK_SHORT


def test_stretches_of_nothing():
    assert stretches(np.array([], int), np.array([], int)) == []
