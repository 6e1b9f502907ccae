"""Items: padding, shifts, windows, order, splits, workers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import InputError
from inputs.ca_dataloader import (
    CalciumDataset,
    EpochOrder,
    Layout,
    last_index_before,
    make_loader,
    shift_movie,
    split_rows,
)


def small_dataset(azimuth=0.0, elevation=0.0, **layout):
    """One neuron, two stimuli of 60 Hz on 20 x 20 pixels."""
    generator = torch.Generator().manual_seed(0)
    t_axis = (torch.arange(90) - 30) / 60
    neuron = {
        "traces": torch.rand(3, 90, generator=generator),
        "azi_shift": azimuth,
        "ele_shift": elevation,
    }
    session = {n: {"t_axis": t_axis, "neuron": {7: neuron}} for n in (1, 2)}
    movies = {n: torch.rand(40, 20, 20, generator=generator) for n in (1, 2)}
    settings_ = {"loss_start_s": -0.25, "n_prepad": 10, **layout}
    return CalciumDataset({"lc11": {"a.pt": session}}, movies, Layout(**settings_))


@pytest.mark.parametrize(("azimuth", "elevation"), [(200.0, 0.0), (0.0, -200.0), (20.0, 20.0)])
def test_shift_beyond_the_picture_leaves_background(azimuth, elevation):
    """Check 16."""
    movie = small_dataset(azimuth, elevation)[0]["movie"]
    assert movie.shape == (100, 1, 20, 20)
    assert not movie.any()


def test_directions_and_half_even_rounding():
    dataset = small_dataset(2.5, -4.5)
    assert dataset.pixel_shift(dataset.items[0]) == (4, 2)
    shifted, plain = dataset[0]["movie"], small_dataset()[0]["movie"]
    # Positive azimuth moves the picture left, negative elevation moves it up.
    torch.testing.assert_close(shifted[50, 0, :16, :18], plain[50, 0, 4:, 2:])


def test_a_pair_shows_one_stimulus_with_the_trace_of_another():
    """The picture starts where the other recording has its onset."""
    dataset = small_dataset(4.0, 1.0)
    entry = dataset.recordings["lc11"]["a.pt"][1]
    neuron = {**entry["neuron"][7], "traces": 1.0 - entry["neuron"][7]["traces"]}
    late = {"t_axis": (torch.arange(90) - 35) / 60, "neuron": {7: neuron}}
    session = {1: entry, 2: late}
    dataset = CalciumDataset({"lc11": {"a.pt": session}}, dataset.movies, dataset.layout)
    one, other, pair = dataset[0], dataset[1], dataset[0, 1]
    assert dataset.onset(dataset.items[1]) == dataset.onset(dataset.items[0]) + 5
    torch.testing.assert_close(pair["movie"][5:], one["movie"][:-5])
    for key in ("ca_trace", "recording_indices", "scored"):
        assert torch.equal(pair[key], other[key])
        assert not torch.equal(pair[key], one[key])
    for key in ("lc_type", "neuron_num", "vstim_barcode"):
        assert pair[key] == one[key]


def test_item_layout_by_hand():
    dataset = small_dataset()
    item = dataset[0]
    trace = dataset.recordings["lc11"]["a.pt"][1]["neuron"][7]["traces"].mean(0)
    np.testing.assert_allclose(item["ca_trace"][:10], trace[:18].mean(), rtol=1e-6)
    np.testing.assert_array_equal(item["ca_trace"][10:], trace)
    assert item["recording_indices"].tolist() == [
        25,
        99,
    ]  # -0.25 s is sample 15; last sample unscored
    assert not item["movie"][:40].any()
    np.testing.assert_allclose(item["movie"][40:80, 0], dataset.movies[1] - 0.498, atol=1e-7)


def test_too_long_movie_is_cut_with_a_warning(caplog):
    dataset = small_dataset()
    dataset.movies[1] = torch.rand(200, 20, 20)
    assert dataset[0]["movie"].shape[0] == 100
    assert "longer than its trace" in caplog.text


def test_time_before_the_recording_is_refused():
    assert last_index_before(torch.tensor([-1.0, -0.5, 1e-6]), 0.0) == 2
    with pytest.raises(InputError, match=r"starts at -1\.000 s"):
        last_index_before(torch.tensor([-1.0, 0.0]), -2.0)


def test_workers_give_the_same_batches():
    """Check 18."""
    dataset = small_dataset()
    batches = []
    for workers in (0, 2):
        order = EpochOrder(range(len(dataset)), seed=3)
        batches.append(list(make_loader(dataset, order, batch_size=2, num_workers=workers)))
    for a, b in zip(*batches, strict=True):
        torch.testing.assert_close(a["movie"], b["movie"])
        torch.testing.assert_close(a["uid"], b["uid"])


def test_order_is_a_function_of_seed_and_epoch():
    order = EpochOrder(range(50), seed=1, repeats=[2] * 50)
    order.epoch = 4
    first = list(order)
    assert sorted(first) == sorted([*range(50), *range(50)])
    twin = EpochOrder(range(50), seed=1, repeats=[2] * 50)
    twin.epoch = 4
    assert list(twin) == first
    twin.epoch = 5
    assert list(twin) != first


def test_split_holds_out_whole_stimuli_and_families():
    dataset = small_dataset()
    kept, held = split_rows(dataset, fraction=0.5, seed=0)
    assert len(kept) == len(held) == 1
    kept, held = split_rows(dataset, fraction=0.0, held_out={2})
    assert [dataset.items[row].barcode for row in held] == [2]
    with pytest.raises(InputError, match="no item is left"):
        split_rows(dataset, fraction=0.0, held_out={1, 2})


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(-30, 30), columns=st.integers(-30, 30))
def test_shift_there_and_back_keeps_what_stayed_inside(rows, columns):
    contrast = torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(0)) + 0.1
    there = shift_movie(contrast, (rows, columns))
    back = shift_movie(there, (-rows, -columns))
    assert there.shape == contrast.shape
    inside = back != 0
    torch.testing.assert_close(back[inside], contrast[inside])
    assert int(inside[0].sum()) == max(12 - abs(rows), 0) * max(15 - abs(columns), 0)
