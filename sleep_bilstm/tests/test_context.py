"""The second stage: neighbours by the clock, gain from their order only, and its place in a run."""

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

import context_study
from common.files import DATA_DIR, RESULTS_DIR, InputError
from demo.context_study import shuffled
from main import main
from network.context import windows
from runs.context import fit_context, load_context, save_context
from test_main import fails, use


def test_neighbours_are_those_of_the_clock():
    """Runs 1 and 2; epoch 1 of run 1 is an artifact and absent."""
    keys = [("d", "m", 1, 0), ("d", "m", 1, 2), ("d", "m", 1, 3), ("d", "m", 2, 4)]
    held, known = windows(np.arange(1.0, 5.0)[:, None], keys, 1)
    assert held[..., 0].tolist() == [[0, 1, 0], [0, 2, 3], [2, 3, 0], [0, 4, 0]]
    assert known.tolist() == [[0, 1, 0], [0, 1, 1], [1, 1, 0], [0, 1, 0]]


def noisy_night(seed, count):
    """Return vectors (N, 4) that tell states badly, their keys and labels in bouts."""
    rng = np.random.default_rng(seed)
    labels = []
    while len(labels) < count:
        labels += [int(rng.integers(3))] * int(rng.integers(4, 12))
    labels = np.array(labels[:count])
    vectors = np.column_stack([np.eye(3)[labels], np.zeros(count)]) + rng.normal(0, 1, (count, 4))
    return vectors.astype(np.float32), [("d", "m", 1, e) for e in range(count)], labels


def test_order_of_epochs_helps_and_nothing_else():
    """Control: with epochs in random order neighbours say nothing."""
    nights = [noisy_night(seed, count) for seed, count in ((0, 240), (1, 120), (2, 240))]
    vectors, keys, labels = zip(*nights, strict=True)
    alone = (vectors[2][:, :3].argmax(axis=1) == labels[2]).mean()
    rng = np.random.default_rng(0)
    accuracy = {}
    for kind in ("in order", "shuffled"):
        own = [list(k) for k in keys]
        if kind == "shuffled":
            own = [[k[i] for i in rng.permutation(len(k))] for k in own]
        net, _ = fit_context(vectors[:2], own[:2], labels[:2], 2, 3, seed=0)
        states = net.probabilities(vectors[2], own[2]).argmax(axis=1)
        accuracy[kind] = (states == labels[2]).mean()
    assert accuracy["in order"] > alone + 0.1
    assert accuracy["shuffled"] < alone + 0.04


def test_second_stage_is_stored(tmp_path):
    vectors, keys, labels = noisy_night(0, 40)
    net, losses = fit_context((vectors,) * 2, (keys,) * 2, (labels,) * 2, 1, 3, seed=0)
    assert min(losses) < losses[0]
    assert load_context(tmp_path) is None
    save_context(net, tmp_path)
    again = load_context(tmp_path)
    np.testing.assert_array_equal(
        again.probabilities(vectors, keys), net.probabilities(vectors, keys)
    )
    with h5py.File(tmp_path / "context.weights.h5", "r+") as file:
        del file["003"]
    with pytest.raises(InputError, match="is no second stage of this run"):
        load_context(tmp_path)


def test_run_with_context(trained, tiny_flags, tfrecords, recordings, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    flags = ["--context", "1", "--result_savedir", str(tmp_path / "a")]
    fails(
        capsys,
        ["--mode", "test", "--data_path", str(tfrecords), "--model_savedir", str(run), *flags],
        "was trained without a second stage",
    )
    weights = (run / "best.weights.h5").read_bytes()
    more = ["--context", "1", "--model_continue", "--model_savedir", str(run)]
    assert main(["--mode", "train", *tiny_flags, *more]) == 0
    assert (run / "best.weights.h5").read_bytes() == weights
    assert use(run, tfrecords, "test_subjectwise", "--result_savedir", str(tmp_path / "a")) == 0
    metrics = json.loads((tmp_path / "a" / "test_subjectwise" / "metrics.json").read_text())
    assert metrics["stage"] == "second stage: 1 epochs on each side"
    assert metrics["single_epochs"]["n"] == metrics["n"]
    off = ("--context", "0", "--result_savedir", str(tmp_path / "b"))
    assert use(run, tfrecords, "test_subjectwise", *off) == 0
    single = json.loads((tmp_path / "b" / "test_subjectwise" / "metrics.json").read_text())
    assert single["kappa"] == metrics["single_epochs"]["kappa"]
    assert "stage" not in single
    for source, name in ((recordings / "990104", "c"), (tfrecords, "d")):
        out = ("--keep_artifacts", "--result_savedir", str(tmp_path / name))
        assert use(run, source, "predict", *out) == 0
    both = [pd.read_csv(tmp_path / n / "predict" / "predictions.csv") for n in "cd"]
    both[1] = both[1][both[1]["date"].astype(str) == "990104"]
    same = both[0].merge(both[1], on=["date", "run", "epoch"])
    # Recordings hold artifacts as well, which are neighbours of others there: few rows differ.
    close = np.isclose(same["p_wake_x"], same["p_wake_y"], atol=1e-5)
    assert close.mean() > 0.5


def test_shuffled_order_deals_epochs_out_within_each_mouse():
    keys = [("d", mouse, run, e) for mouse in "ab" for run in (1, 2) for e in range(20)]
    mixed = shuffled(keys, np.random.default_rng(0))
    assert sorted(mixed) == keys
    assert [key[1] for key in mixed] == [key[1] for key in keys]
    assert sum(a == b for a, b in zip(keys, mixed, strict=True)) < 10


@pytest.mark.slow
def test_context_study(tmp_path):
    """The second call finds the seed done; another number of mice is another study."""
    run = "pytest_context"
    flags = ["--seeds", "5", "--train", "2", "--val", "1", "--test", "1", "--no-cost"]
    flags += ["--run", run]
    out = RESULTS_DIR / run
    try:
        for _ in range(2):
            context_study.main([*flags, "--minutes", "5"])
        table = pd.read_csv(out / "context.csv")
        assert len(table) == 6
        assert table["states_from"].is_unique
        assert table["epochs"].nunique() == 1
        assert table["kappa"].between(-1, 1).all()
        mean = pd.read_csv(out / "mean.csv")
        np.testing.assert_allclose(mean["kappa"], table["kappa"])
        with pytest.raises(SystemExit):
            context_study.main([*flags, "--minutes", "6"])
    finally:
        for folder in (out, DATA_DIR / run):
            shutil.rmtree(folder, ignore_errors=True)
