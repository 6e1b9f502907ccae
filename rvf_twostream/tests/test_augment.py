"""Augmentation: one warp, the same for grey and flow. Check 17."""

import numpy as np
import pytest

from inputs.augment import (
    augment_clip,
    draw_transform,
    rotation_matrix,
    translation_matrix,
    warp_clip,
    zoom_matrix,
)


@pytest.fixture(scope="module")
def clip():
    """A smooth clip (32, 112, 112, 3)."""
    rows, cols = np.mgrid[:112, :112] / 112
    waves = [np.sin(6 * rows + k) * np.cos(5 * cols) for k in range(96)]
    return np.stack(waves, axis=-1).reshape(112, 112, 32, 3).transpose(2, 0, 1, 3).astype("f4")


def test_nothing_drawn_returns_the_clip_unchanged(clip):
    assert augment_clip(clip, np.random.default_rng(0), p=0) is clip


def test_all_frames_and_channels_move_together(clip):
    same = np.repeat(clip[:1, ..., :1], 32, axis=0).repeat(3, axis=-1)
    out = augment_clip(same, np.random.default_rng(1), p=1)
    assert out.shape == same.shape
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.broadcast_to(out[:1, ..., :1], out.shape))
    assert not np.array_equal(out, same)


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_zoom_keeps_the_shape(clip, scale):
    spare = abs(int(112 * scale) - 112)
    out = warp_clip(clip, zoom_matrix(scale, 112, 112, spare // 2, spare // 3))
    assert out.shape == (32, 112, 112, 3)
    if scale < 1:
        assert (out[:, : spare // 2 - 1] == 0).all()
        assert (out[:, :, : spare // 3 - 1] == 0).all()


def test_one_warp_equals_the_steps_one_by_one(clip):
    turn, move = rotation_matrix(17, 112, 112), translation_matrix(4, -6)
    together = warp_clip(clip, move @ turn)
    stepwise = warp_clip(warp_clip(clip, turn), move)
    inside = np.s_[:, 25:-25, 25:-25]
    np.testing.assert_allclose(together[inside], stepwise[inside], atol=0.02)


def test_rotation_is_counter_clockwise():
    clip = np.zeros((1, 112, 112, 3), np.float32)
    clip[:, 50:62, 100:110] = 1  # a block on the right
    turned = warp_clip(clip, rotation_matrix(90, 112, 112))
    assert turned[0, 2:12, 50:62, 0].mean() > 0.9  # is on top now


def test_rotate_flow_turns_the_vectors():
    clip = np.zeros((1, 112, 112, 3), np.float32)
    clip[..., 1] = 1  # everything moves right
    for seed in range(40):
        rng = np.random.default_rng(seed)
        matrix, angle = draw_transform(np.random.default_rng(seed), 112, 112)
        out = augment_clip(clip, rng, rotate_flow=True)
        centre = out[0, 56, 56]
        if matrix is not None:
            expected = np.cos(np.deg2rad(angle)), -np.sin(np.deg2rad(angle))
            np.testing.assert_allclose(centre[1:], expected, atol=0.01)
    kept = augment_clip(clip, np.random.default_rng(3), p=1)
    np.testing.assert_allclose(kept[0, 56, 56], (0, 1, 0), atol=1e-5)


def test_the_draw_depends_on_the_generator_only(clip):
    one = augment_clip(clip, np.random.default_rng([1, 2, 3]))
    two = augment_clip(clip, np.random.default_rng([1, 2, 3]))
    np.testing.assert_array_equal(one, two)


def test_each_step_has_probability_one_half():
    drawn = [draw_transform(np.random.default_rng(k), 112, 112)[0] is None for k in range(2000)]
    assert abs(np.mean(drawn) - 0.125) < 0.025
