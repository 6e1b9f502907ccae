"""The network: parameter counts, graph, saving, variants, one batch learnt by heart."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.files import InputError
from network.checkpoints import load_own, save_config, save_weights
from network.losses_metrics import CohenKappa
from network.model_attention_bilstm import Architecture, build
from runs.train import Training, compile_network

SMALL = Architecture(
    num_frames=12, height=16, width=16, num_filters=4, num_blocks=3, num_rnn_units=6
)


def changed(**values):
    return Architecture(**{**SMALL.to_json(), **values})


def batch_of(architecture, n=4, seed=0):
    shape = (n, architecture.num_frames, architecture.height, architecture.width)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 432_323),
        ({"num_rnn_units": 32}, 366_275),
        ({"spatial_attention": "cbam"}, 432_323 + 5_970),
        ({"spatial_attention": "simam"}, 432_323),
        ({"num_classes": 2}, 432_065),
        ({"width": 64}, 432_323),
    ],
)
def test_parameter_counts(changes, count):
    assert build(Architecture(**changes), seed=0).model.count_params() == count


def test_graph_is_not_unrolled():
    network = build(Architecture(), seed=0)
    infer = tf.function(lambda x: network.model(x, training=False))
    graph = infer.get_concrete_function(tf.TensorSpec((1, 168, 128, 128, 1))).graph
    assert len(graph.as_graph_def().node) < 1500


def test_chunks_do_not_change_the_result():
    network = build(SMALL, seed=0)
    frames = batch_of(SMALL)
    whole = network.model(frames[..., None], training=False)
    for chunk in (1, 5, 100):
        outputs = network.infer(frames, chunk)
        np.testing.assert_allclose(outputs["probs"], whole, atol=1e-6)
        np.testing.assert_allclose(outputs["weights"].sum(axis=-1), 1, atol=1e-5)


def test_reloaded_network_predicts_the_same(tmp_path):
    network = build(changed(spatial_attention="cbam"), seed=1)
    compile_network(network, Training(lr_init=1e-2))
    frames, labels = batch_of(SMALL), np.array([0, 1, 2, 1])
    for _ in range(2):
        network.model.train_on_batch(frames[..., None], labels)
    save_config(tmp_path, network.architecture, {})
    save_weights(network, tmp_path / "best.weights.h5")
    again, _ = load_own(tmp_path / "best.weights.h5")
    np.testing.assert_allclose(
        again.infer(frames)["probs"], network.infer(frames)["probs"], atol=1e-6
    )


def test_another_architecture_is_refused(tmp_path):
    network = build(SMALL, seed=1)
    save_weights(network, tmp_path / "best.weights.h5")
    save_config(tmp_path, changed(num_rnn_units=7), {})
    with pytest.raises(InputError, match="does not hold the weights of the network"):
        load_own(tmp_path / "best.weights.h5")
    save_config(tmp_path, SMALL, {})
    with pytest.raises(InputError, match="num_filters is 4, 8 is asked for"):
        load_own(tmp_path / "best.weights.h5", expected={"num_filters": 8})


@pytest.mark.parametrize(
    ("variant", "temporal"),
    [(v, "lstm") for v in ("none", "simam", "channel", "spatial", "cbam")]
    + [("none", "dense"), ("cbam", "none")],
)
def test_variants_run(variant, temporal):
    architecture = changed(
        spatial_attention=variant, temporal_attention=temporal, kernel_init="he_normal"
    )
    outputs = build(architecture, seed=0).infer(batch_of(architecture))
    assert outputs["probs"].shape == (4, 3)
    np.testing.assert_allclose(outputs["probs"].sum(axis=1), 1, atol=1e-6)
    assert ("weights" in outputs) == (temporal != "none")


@pytest.mark.parametrize("changes", [{"grad_checkpoint": True}, {"mixed_precision": "bfloat16"}])
def test_memory_savers_give_the_same_gradients(changes):
    frames, labels = batch_of(SMALL)[..., None], np.array([0, 1, 2, 1])
    gradients = []
    for architecture in (changed(dropout=0.0), changed(dropout=0.0, **changes)):
        network = build(architecture, seed=0)
        with tf.GradientTape() as tape:
            probs = network.model(frames, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, probs))
        assert probs.dtype == tf.float32
        slopes = tape.gradient(loss, [v.value for v in network.model.trainable_variables])
        gradients.append(np.concatenate([np.ravel(slope) for slope in slopes]))
    tolerance = 1e-6 if "grad_checkpoint" in changes else 0.05 * np.abs(gradients[0]).max()
    np.testing.assert_allclose(gradients[1], gradients[0], atol=tolerance)


def test_frame_too_small_for_the_blocks():
    with pytest.raises(InputError, match="too small for 8 blocks"):
        build(changed(num_blocks=8), seed=0)


def test_one_batch_is_learnt_by_heart():
    network = build(changed(dropout=0.0, kernel_init="he_normal"), seed=0)
    compile_network(network, Training(lr_init=1e-2))
    frames, labels = batch_of(SMALL)[..., None], np.array([0, 1, 2, 1])
    for _ in range(60):
        network.model.train_on_batch(frames, labels)
    assert network.model.evaluate(frames, labels, verbose=0, return_dict=True)["kappa"] == 1


def test_same_seed_same_first_step():
    losses = []
    for _ in range(2):
        network = build(SMALL, seed=5)
        compile_network(network, Training())
        losses.append(
            network.model.train_on_batch(batch_of(SMALL)[..., None], np.array([0, 1, 2, 1]))[0]
        )
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_kappa_of_one_class():
    metric = CohenKappa(3)
    metric.update_state(np.array([0, 1, 2]), np.eye(3)[[1, 1, 1]])
    assert float(metric.result()) == 0
    metric.reset_state()
    metric.update_state(np.array([1, 1]), np.eye(3)[[1, 1]])
    assert np.isnan(float(metric.result()))
