"""The negative control: whose trace is dealt to whom, in training, over epochs and when resumed."""

import json

import numpy as np
import pytest

from common.files import InputError
from inputs.ca_dataloader import EpochOrder, Item
from inputs.dealing import DealtOrder, dealt
from network.checkpoints import load_history
from runs.configuration import compose_settings
from runs.training import train


def test_shuffled_labels_change_the_training(tiny_args, tmp_path):
    for name, word in (("plain", "false"), ("shuffled", "true")):
        settings = compose_settings([*tiny_args, "n_epochs=1", f"shuffle_labels={word}"])
        train(settings, run_dir=tmp_path / name)
    plain, shuffled = (load_history(tmp_path / name)[0]["lc11"] for name in ("plain", "shuffled"))
    assert not np.allclose(plain, shuffled)


def test_a_control_of_an_older_version_is_not_resumed(tiny_args, tmp_path):
    settings = compose_settings([*tiny_args, "n_epochs=1", "shuffle_labels=true"])
    train(settings, run_dir=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config.pop("labels") == "dealt anew each epoch"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="a control of an older version"):
        train({**settings, "resume": str(tmp_path / "run"), "n_epochs": 2})


def items_of(n_stimuli, n_neurons):
    """Return the items of two cell types, an item per stimulus and neuron."""
    return [
        Item(kind, "a.pt", code, 10 * k + neuron, neuron, None)
        for k, kind in enumerate(("lc11", "lplc2"))
        for code in range(300, 300 + n_stimuli)
        for neuron in range(n_neurons)
    ]


def test_the_control_draws_what_the_model_draws_with_traces_of_others():
    items = items_of(40, 3)
    rows = [row for row, item in enumerate(items) if item.barcode % 5]
    repeats = [3 if items[row].barcode < 310 else 1 for row in rows]
    plain = EpochOrder(rows, seed=4, repeats=repeats)
    order = DealtOrder(rows, items=items, seed=4, repeats=repeats)
    epochs = []
    for order.epoch in (1, 2, 1):
        plain.epoch = order.epoch
        epochs.append(list(order))
        shown, told = ([pair[k] for pair in epochs[-1]] for k in (0, 1))
        assert shown == list(plain)
        assert sorted(told) == sorted(plain)
        pairs = [(items[a], items[b]) for a, b in epochs[-1]]
        assert all(a.cell_type == b.cell_type for a, b in pairs)
        # One in three draws keeps its neuron and one in 32 its stimulus by chance.
        assert np.mean([a.neuron_num == b.neuron_num for a, b in pairs]) == pytest.approx(
            1 / 3, abs=0.12
        )
        assert np.mean([a.barcode == b.barcode for a, b in pairs]) < 0.06
        close = [abs(a.barcode - b.barcode) < 4 for a, b in pairs]
        assert np.mean(close) < 0.25
    assert epochs[0] == epochs[2]
    assert dict(epochs[0]) != dict(epochs[1])


def test_dealt_labels_keep_no_family():
    """A run of neighbours gets labels from both halves of the list alike; none keeps its own."""
    for n, allowed in ((9, 0.5), (57, 0.15), (113, 0.1), (117, 0.1)):
        for seed in range(5):
            other = dealt(list(range(n)), seed)
            assert sorted(other) == list(range(n))
            assert all(a != b for a, b in enumerate(other))
            for first in range(0, n - n // 5, n // 5):
                share = np.mean(np.array(other[first : first + n // 5]) < n / 2)
                assert abs(share - 0.5) <= allowed
    assert dealt([7], 0) == [7]
    assert dealt([1, 2], 0) == [2, 1]
