"""Permutation importance from two sums is that of the whole network run again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.importance import (
    block_importance,
    changed_sums,
    changed_windows,
    gradient_importance,
    gradient_of_states,
    has_sums,
    pixel_blocks,
    take_windows,
)
from inputs.custom_types import ModelOptions, TrainData
from inputs.windows import WindowRule
from network.build import build_net, state_of


def windows_of(n_series, *, n=40, options=None, targets=1, sharp=1.0, seed=0):
    """Return windows of random series and a network; ``sharp`` multiplies its attention."""
    rule, rng = WindowRule(6), np.random.default_rng(seed)
    sizes = {"N": n_series, "m": 8, "p": 8, "o": targets}
    net = build_net(
        sizes, rule=rule, options=options or ModelOptions(), learning_rate=0.01, seed=seed
    )
    if net.encoder.attention == "linear":
        with torch.no_grad():
            net.encoder.attn_linear.weight *= sharp
    feats = rng.normal(size=(n + 10, n_series)).astype(np.float32)
    targs = rng.normal(size=(n + 10, targets)).astype(np.float32)
    permutation = rng.permutation(n_series)
    return take_windows(net, TrainData(feats, targs), np.arange(n), rule, permutation)


@pytest.mark.parametrize("sharp", [1.0, 30.0])
@pytest.mark.parametrize("repeats", [0, 3])
@pytest.mark.parametrize(
    "options",
    [ModelOptions(), ModelOptions(layers=1, attention_scale="n"), ModelOptions(layers=3)],
)
def test_two_sums_give_the_error_of_the_changed_windows(options, repeats, sharp):
    windows = windows_of(30, options=options, targets=2, sharp=sharp)
    blocks = pixel_blocks(30, np.arange(30), (5, 6), 2)
    assert has_sums(windows, blocks)
    slow = list(changed_windows(windows, blocks, repeats, 7))
    quick = list(changed_sums(windows, blocks, repeats, 7))
    assert len(quick) == len(slow) == 1 + len(blocks)
    for ours, wanted in zip(quick, slow, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6)


def test_a_block_that_holds_nearly_all_of_the_attention_leaves_the_others_whole():
    windows = windows_of(12)
    windows = replace(windows, X=windows.X[:])
    w_x = windows.net.encoder.attn_linear.weight[0, 16:]
    with torch.no_grad():  # series 4 has an energy 60 above the others in every other window
        windows.X[::2, :, 4] += 60 * w_x / (w_x**2).sum()
    blocks = [np.array([4]), np.setdiff1d(np.arange(12), 4)]
    for repeats in (0, 2):
        for ours, wanted in zip(
            changed_sums(windows, blocks, repeats, 1),
            changed_windows(windows, blocks, repeats, 1),
            strict=True,
        ):
            np.testing.assert_allclose(ours, wanted, rtol=2e-6)


def test_windows_gathered_when_asked_for_are_those_of_the_whole_tensor():
    windows = windows_of(12)
    lazy, whole = windows.X, windows.X[:]
    assert lazy.shape == tuple(whole.shape)
    assert len(lazy) == len(whole)
    series, order = torch.tensor([7, 2]), torch.tensor([5, 0, 3])
    for key in (slice(2, 6), order, (slice(None), slice(None), series)):
        assert torch.equal(lazy[key], whole[key])
    for part in (slice(0, 0), slice(len(whole) - 1, None)):
        assert torch.equal(lazy[part], whole[part])
    # The recording itself is held, not its windows.
    assert lazy.values.numel() * 2 < whole.numel()
    held = replace(windows, X=whole)
    blocks = pixel_blocks(12, np.arange(12), (3, 4), 2)
    for replaced in ("permute", "zero"):
        for ours, wanted in zip(
            block_importance(windows, blocks, replace=replaced),
            block_importance(held, blocks, replace=replaced),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(gradient_importance(windows), gradient_importance(held))


def test_other_attention_and_blocks_go_through_the_whole_network():
    windows = windows_of(10, options=ModelOptions(attention="tanh"))
    blocks = pixel_blocks(10)
    assert not has_sums(windows, blocks)
    base, mean, spread = block_importance(windows, blocks, repeats=2)
    assert base.shape == (1,)
    assert mean.shape == spread.shape == (1, 10)
    linear = windows_of(10)
    assert not has_sums(linear, [np.array([0, 1])])
    _, mean, _ = block_importance(linear, [np.array([0, 1])], replace="zero")
    assert (mean[0, 2:] == 0).all()
    assert mean[0, 0] == mean[0, 1] != 0


def test_the_gradient_of_states_is_the_mean_of_theirs():
    windows = windows_of(12)
    other = windows_of(12, seed=3)
    orders = np.arange(12)[::-1].copy(), np.roll(np.arange(12), 5)
    states = [state_of(w.net, order) for w, order in zip((windows, other), orders, strict=True)]
    before = gradient_importance(windows)
    alone = [
        gradient_importance(replace(windows, net=w.net, slots=torch.from_numpy(order)))
        for w, order in zip((windows, other), orders, strict=True)
    ]
    np.testing.assert_allclose(gradient_of_states(windows, states), np.mean(alone, 0), rtol=1e-6)
    np.testing.assert_array_equal(gradient_importance(windows), before)  # its network is untouched
