"""Parity with the published project: numbers of its own functions, and independent ones where it is
wrong.

Sizes, seeds, exponents and lengths are taken from the fixture: from its arrays, or from their names
(``sparse_g0p5``: gamma 0.5). A file is found by the prefix of its name.
"""

import re
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from analysis.attention_figures import attention_statistics, probability_histogram
from analysis.bouts import sleep_statistics
from analysis.gradcam import GradCam, heatmaps, upsample
from analysis.utils import class_metrics
from inputs.dataloader_sleep import View, split_names
from inputs.mat_writer import write_recording
from inputs.preprocess import min_max, spatial_zscore, temporal_zscore
from inputs.recordings import Recording
from inputs.shards import in_time_order, read_epoch, reference_record
from inputs.states import STATE_NAMES
from inputs.storage import Storage
from inputs.tfrecords import epochs_of
from network.AttentionLayer import ChannelAttention, LSTMAttentionLayer, SimAM, SpatialAttention
from network.checkpoints import find_tf2_prefix, load_tf2, published_variables
from network.forward import states_of
from network.losses_metrics import CohenKappa, make_loss
from network.model_attention_bilstm import Architecture, build
from parity_data import close, load, named, number, partner

SIZE = 128  # of the published frames
BIG_SEED = 42  # of the published big split, where the fixture does not name another
STATE_KEYS = ("wake", "nrem", "rem")


def pytest_generate_tests(metafunc):
    """Run each test once per file of its prefix; skip a prefix without files."""
    wanted = metafunc.definition.get_closest_marker("fixture_prefix")
    if wanted:
        folder = Path(metafunc.config.getoption("--fixtures"))
        files = sorted(folder.glob(f"{wanted.args[0]}*.npz"))
        reason = f"no {wanted.args[0]}*.npz in {folder.name}"
        params = files or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
        metafunc.parametrize(
            "path", params, ids=lambda p: p.stem if isinstance(p, Path) else "absent"
        )


@lru_cache
def built(architecture):
    """Build a network once for all tests that take this architecture."""
    return build(architecture, seed=0)


def small_network(d, **changes):
    """Return the network of model_small without dropout; its weights are set afterwards."""
    x = d["x"]
    kernels = [value for value in plain_weights(d).values() if value.ndim == 4]
    sizes = {
        "num_frames": x.shape[1],
        "height": x.shape[2],
        "width": x.shape[3],
        "num_classes": d["probs"].shape[1],
        "num_rnn_units": int(d["units"]),
        "num_filters": kernels[0].shape[-1],
        "num_blocks": len(kernels) // 2,
    }
    return built(Architecture(**{**sizes, "dropout": 0.0, **changes}))


def set_weights(network, weights):
    for name, variable in published_variables(network).items():
        variable.assign(weights[name])


def plain_weights(d):
    return {key[2:]: value for key, value in d.items() if key.startswith("w:")}


@pytest.mark.fixture_prefix("normalisation")
def test_normalisation(path):
    d = load(path)
    values = d["values"].T  # (F, P)
    # float32 rounds a signal of deviation 1 around 100 to 1e-5 of its deviation, both times.
    size = np.nanmax(np.abs(d["values"]), axis=1, initial=0)
    spread = np.nan_to_num(np.nanstd(np.where(np.isfinite(d["values"]), d["values"], 0), axis=1))
    offset = size > 50 * spread
    found = temporal_zscore(values)[0].T
    close(found[~offset], d["temporal_zscore"][~offset], 1e-5)
    close(found[offset], d["temporal_zscore"][offset], 2e-4)
    close(spatial_zscore(values)[0].T, d["spatial_zscore"], 1e-5)
    close(min_max(values)[0].T, d["min_max"], 1e-5)


@pytest.mark.fixture_prefix("epochs_and_artifacts")
def test_epochs_and_artifacts(path, tmp_path):
    d = load(path)
    rows, columns = d["pixels_rc"].T
    values = d["values"]  # (P, 168, E)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[rows, columns] = True
    movie = np.full((values.shape[2], values.shape[1], SIZE, SIZE), d["outside_value"], np.float32)
    movie[:, :, rows, columns] = values.transpose(2, 1, 0)
    file = tmp_path / "200128-L2-fc1-GSR_Ben.mat"
    write_recording(file, movie, mask, d["scores_raw"])
    order = np.argsort(rows * SIZE + columns)  # row-major order of the fixture's pixels
    for (seconds,), wanted in named(d, r"z(\d+)s_correct"):
        with Recording(file) as recording:
            epochs = list(epochs_of(recording, Storage(seconds=int(seconds))))
        assert [epoch for epoch, *_ in epochs] == d["correct_epoch_used"].tolist()
        assert [label for _, label, *_ in epochs] == d["labels"].tolist()
        for (*_, signals), one in zip(epochs, wanted, strict=True):
            close(signals.T, one[order], 2e-5)
    # After the first artifact the published data belong to other epochs than its labels.
    same = np.flatnonzero(d["correct_epoch_used"] == d["reference_epoch_used"])
    assert same.size
    for (seconds,), wanted in named(d, r"z(\d+)s_reference"):
        if int(seconds) > 10:
            continue  # its neighbours are taken from the list without artifacts
        with Recording(file) as recording:
            epochs = [s for *_, s in epochs_of(recording, Storage(seconds=int(seconds)))]
        for k in same[same < len(wanted)]:
            close(epochs[k].T, wanted[k][order], 2e-5)


def reference_file(d, folder):
    file = folder / "200128-L2-fc1-GSR_Ben_epoch0.tfrecords"
    file.write_bytes(d["file_bytes"].tobytes())
    return reference_record(file)


@pytest.mark.fixture_prefix("reference_tfrecord")
def test_reference_tfrecord(path, tmp_path):
    d = load(path)
    record = reference_file(d, tmp_path)
    movie = read_epoch(record)
    assert record.label == int(d["label"])
    rows, columns = d["pixels_rc"].T
    np.testing.assert_array_equal(movie[:, rows, columns].T, d["values"])
    movie[:, rows, columns] = 0
    assert not movie.any()


@pytest.mark.fixture_prefix("loader")
def test_loader(path, tmp_path):
    d = load(path)
    movie = read_epoch(reference_file(partner(path, "loader", "reference_tfrecord"), tmp_path))
    full = View(movie.shape[0]).frames(movie)[0]
    half = View(movie.shape[0], hemisphere="left").frames(movie)[0]
    assert (1, *full.shape, 1) == tuple(d["shape_full"])
    assert (1, *half.shape, 1) == tuple(d["shape_hemi"])
    close(full.mean(axis=(1, 2)), d["frame_mean_full"], 1e-6)
    close(half.mean(axis=(1, 2)), d["frame_mean_hemi"], 1e-6)
    two = View(movie.shape[0], num_classes=2)
    assert [two.label(int(v)) for v in d["labels_3class"]] == d["labels_2class"].tolist()


@pytest.mark.fixture_prefix("split")
def test_split(path, tmp_path):
    d = load(path)
    names = [name.decode() for name in d["names_sorted"]]
    assert sorted(names) == names
    for part, key in zip(
        split_names(len(names), int(d["seed"])), ("train", "val", "test"), strict=True
    ):
        np.testing.assert_array_equal(part, d[f"{key}_idx"])
    big = split_names(int(d["big_counts"].sum()), int(d.get("big_seed", BIG_SEED)))
    assert [len(part) for part in big] == d["big_counts"].tolist()
    for part, key in zip(big, ("train", "val", "test"), strict=True):
        ((_, first),) = named(d, rf"(big_first\d+_{key})")
        np.testing.assert_array_equal(part[: len(first)], first)
    wanted = [name.decode() for name in d["subjectwise_order"]]
    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                "features": tf.train.Feature(
                    float_list=tf.train.FloatList(value=np.zeros(SIZE * SIZE))
                ),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
            }
        )
    ).SerializeToString()
    for name in wanted:
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            writer.write(example)
    records = [reference_record(tmp_path / name) for name in sorted(wanted)]
    assert [record.name for record in in_time_order(records)] == wanted


@pytest.mark.fixture_prefix("losses")
def test_losses(path):
    d = load(path)
    labels, probs, logits = d["labels"], tf.constant(d["probs"]), tf.constant(d["logits"])
    soft, classes = tf.nn.softmax(logits), d["probs"].shape[1]
    safe = (d["probs"] > 1e-6).all(axis=1)
    for (gamma, kind), wanted in named(
        d, r"sparse_g(\d+(?:p\d+)?)(|_softmax|_mean|_dmean_dprobs|_dmean_dlogits)"
    ):
        mean = make_loss("focal", classes, number(gamma))
        rowwise = make_loss("focal", classes, number(gamma))
        rowwise.reduction = None
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([probs, logits])
            by_probs, by_logits = mean(labels, probs), mean(labels, tf.nn.softmax(logits))
        if kind == "_dmean_dprobs":
            close(tape.gradient(by_probs, probs)[safe], wanted[safe], 1e-7, 1e-4)
        elif kind == "_dmean_dlogits":
            close(tape.gradient(by_logits, logits), wanted, 1e-7, 1e-4)
        else:
            values = {"": rowwise(labels, probs), "_mean": by_probs}
            close(values.get(kind, rowwise(labels, soft)), wanted, 1e-6, 1e-5)
    entropy = make_loss("cross_entropy", classes, 0.0)
    entropy.reduction = None
    given = probs if np.abs(entropy(labels, probs) - d["cross_entropy"]).max() < 1e-3 else soft
    close(entropy(labels, given), d["cross_entropy"], 1e-6, 1e-5)
    for name, key in (("poly", "poly1_ce"), ("polyfocal", "poly1_focal")):
        loss = make_loss(name, classes, 0.0)
        loss.reduction = None
        close(loss(labels, soft), d[key], 1e-6, 1e-5)


@pytest.mark.fixture_prefix("losses")
def test_losses_of_two_classes(path):
    d = load(path)
    bprobs = tf.constant(d["bprobs"])
    inner = (d["bprobs"] > 1e-6) & (d["bprobs"] < 1 - 1e-6)
    for (gamma, kind), wanted in named(d, r"binary_g(\d+(?:p\d+)?)(|_mean|_dmean_dprobs)"):
        loss = make_loss("focal", 2, number(gamma))
        with tf.GradientTape() as tape:
            tape.watch(bprobs)
            value = loss(d["blabels"], bprobs)
        if kind == "_mean":
            close(value, wanted, 1e-6, 1e-5)
        elif kind == "_dmean_dprobs":
            close(np.asarray(tape.gradient(value, bprobs))[inner], wanted[inner], 1e-7, 1e-4)
        else:
            loss.reduction = None
            close(np.ravel(loss(d["blabels"], bprobs)), wanted.ravel(), 1e-6, 1e-5)


@pytest.mark.fixture_prefix("metrics")
def test_metrics(path):
    d = load(path)
    for (case,), confusion in named(d, r"([a-z]+)_confusion"):
        true = d.get(f"{case}_y_true", d["y_true"])
        if f"{case}_prob" in d:
            pred = (d[f"{case}_prob"].ravel() > 0.5).astype(int)
        elif case == "c":
            pred = np.zeros_like(true)  # a predictor that only says wake
        else:
            pred = d.get(f"{case}_y_pred", d["y_pred"])
        metrics = class_metrics(true, pred, len(confusion))
        for key in ("confusion", "confusion_rownorm", "precision", "recall", "f1", "support"):
            values = np.array([0 if v is None else v for v in metrics[key]])
            close(values, d[f"{case}_{key}"], 1e-6)
        for key in ("accuracy", "kappa", "f1_micro", "f1_macro", "f1_weighted"):
            close(metrics[key], d[f"{case}_{key}"], 1e-6)
    (((step,), wanted),) = named(d, r"tfa_kappa_running_batch(\d+)")
    metric, running, step = CohenKappa(d["scores"].shape[1]), [], int(step)
    for k in range(len(wanted)):
        part = slice(k * step, (k + 1) * step)
        metric.update_state(d["y_true"][part], d["scores"][part])
        running.append(float(metric.result()))
    close(np.nan_to_num(running), np.nan_to_num(wanted), 1e-6)
    two = CohenKappa(2)
    two.update_state(d["d_y_true"], d["d_prob"].reshape(-1, 1))
    close(two.result(), d["d_tfa_kappa"], 1e-6)


def attention(d, prefix, scoring):
    layer = LSTMAttentionLayer(scoring)
    layer.build([d["query"].shape, d["value"].shape])
    layer.W1.kernel.assign(d[f"{prefix}W1"])
    layer.W2.kernel.assign(d[f"{prefix}W2"])
    return layer


@pytest.mark.fixture_prefix("attention_layers")
def test_temporal_attention(path):
    d = load(path)
    for prefix in ("", "tf_"):
        layer = attention(d, prefix, "scale")
        layer.scale.assign(d[f"{prefix}scale"])
        query, value = tf.constant(d["query"]), tf.constant(d["value"])
        with tf.GradientTape() as tape:
            tape.watch([query, value])
            context, weights = layer([query, value])
            total = tf.reduce_sum(context * d["gout"])
        close(context, d[f"{prefix}context"], 1e-5)
        close(weights, d[f"{prefix}weights"], 1e-5)
        if not prefix:
            variables = [layer.W1.kernel.value, layer.W2.kernel.value, layer.scale.value]
            names = ("d_value", "d_query", "d_W1", "d_W2", "d_scale")
            for found, name in zip(
                tape.gradient(total, [value, query, *variables]), names, strict=True
            ):
                close(found, d[name], 1e-5)
    layer = attention(d, "dense_", "dense")
    layer.V.kernel.assign(d["dense_V"])
    layer.V.bias.assign(d["dense_Vb"])
    context, weights = layer([d["query"], d["value"]])
    close(context[:, 0], d["dense_context"], 1e-5)
    close(weights[:, 0], d["dense_weights"][..., 0], 1e-5)


@pytest.mark.fixture_prefix("attention_layers")
def test_spatial_attention(path):
    d = load(path)
    kernel = d["spatial_conv_kernel"]
    channels, hidden = d["channel_dense1_kernel"].shape
    layers = {
        "simam": SimAM(1e-4),
        "channel": ChannelAttention(channels // hidden),
        "spatial": SpatialAttention(kernel.shape[0]),
    }
    for layer in layers.values():
        layer.build(d["x"].shape)
    for dense, position in (
        (layers["channel"].shared_layer_one, 1),
        (layers["channel"].shared_layer_two, 2),
    ):
        dense.kernel.assign(d[f"channel_dense{position}_kernel"])
        dense.bias.assign(d[f"channel_dense{position}_bias"])
    layers["spatial"].conv2d.kernel.assign(kernel)
    for name, layer in layers.items():
        x = tf.constant(d["x"])
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x)
            total = tf.reduce_sum(out * d["gx"])
        close(out, d[f"{name}_out"], 1e-5)
        close(tape.gradient(total, x), d[f"{name}_dx"], 1e-5)


@pytest.mark.fixture_prefix("model_small")
def test_model_small(path):
    d = load(path)
    network = small_network(d)
    weights = plain_weights(d)
    set_weights(network, weights)
    movies = d["x"][..., 0]
    outputs = network.infer(movies, frame_chunk=7)
    close(outputs["probs"], d["probs"], 2e-5)
    close(network.model(d["x"], training=False), d["probs"], 2e-5)
    close(network.features(movies, 7), d["features_gap"], 1e-4)
    close(outputs["sequence"], d["bilstm_sequence"], 1e-4)
    close(outputs["context"], d["context"], 1e-4)
    close(outputs["weights"], d["attention"], 2e-5)
    variables = published_variables(network)
    with tf.GradientTape() as tape:
        loss = make_loss("focal", 3, 2.0)(d["y"], network.model(d["x"], training=True))
    close(loss, d["focal_loss_mean"], 1e-5)
    names = [name.decode() for name in d["grad_names"]]
    gradients = tape.gradient(loss, [variables[name].value for name in names])
    for name, gradient, norm in zip(names, gradients, d["grad_norms"], strict=True):
        close(np.linalg.norm(gradient), norm, 1e-8, 2e-3)
        if f"g:{name}" in d:
            wanted = d[f"g:{name}"]
            close(gradient, wanted, 2e-3 * np.abs(wanted).max() + 1e-8)


@pytest.mark.fixture_prefix("model_variants")
def test_model_variants(path):
    d, base = load(path), partner(path, "model_variants", "model_small")
    plain = plain_weights(base)
    movies = base["x"][..., 0]
    network = small_network(base, spatial_attention="simam")
    set_weights(network, plain)
    close(network.infer(movies)["probs"], d["simam_probs"], 5e-5)
    close(network.features(movies, 42), d["simam_gap"], 5e-5)
    network = small_network(base, spatial_attention="cbam")
    variables = published_variables(network)
    assert list(variables) == [name.decode() for name in d["cbam_names"]]
    rest = iter(plain.values())
    for name, variable in variables.items():
        variable.assign(d[f"cbam:{name}"] if f"cbam:{name}" in d else next(rest))
    close(network.infer(movies)["probs"], d["cbam_probs"], 5e-5)
    close(network.features(movies, 42), d["cbam_gap"], 5e-5)


@pytest.mark.fixture_prefix("model_2class")
def test_model_two_classes(path):
    d, base = load(path), partner(path, "model_2class", "model_small")
    network = small_network(base, num_classes=2)
    # The two weights of the output are the last ones.
    *_, kernel, bias = published_variables(network)
    head = {kernel: d["dense_kernel"], bias: d["dense_bias"]}
    set_weights(network, {**plain_weights(base), **head})
    probs = network.infer(base["x"][..., 0])["probs"]
    close(probs, d["probs"], 2e-5)
    close(make_loss("focal", 2, 2.0)(d["y"][:, None], probs), d["binary_focal_mean"], 2e-5)


@pytest.mark.fixture_prefix("checkpoint_tf2")
def test_released_checkpoint_layout(path, tmp_path):
    d, base = load(path), partner(path, "checkpoint_tf2", "model_small")
    latest = re.search(rb'model_checkpoint_path: "([^"]+)"', d["checkpoint"].tobytes())[1].decode()
    for name, key in (
        (f"{latest}.index", "index"),
        (f"{latest}.data-00000-of-00001", "data"),
        ("checkpoint", "checkpoint"),
    ):
        (tmp_path / name).write_bytes(d[key].tobytes())
    assert find_tf2_prefix(tmp_path) == tmp_path / latest
    network = load_tf2(tmp_path / latest, frames=base["x"].shape[1:4])
    close(network.infer(base["x"][..., 0])["probs"], d["expected_probs"], 2e-5)


@pytest.mark.fixture_prefix("adam_step")
def test_adam_step(path):
    d, base = load(path), partner(path, "adam_step", "model_small")
    network = small_network(base)
    set_weights(network, plain_weights(base))
    loss = make_loss("focal", 3, 2.0)
    network.model.compile(keras.optimizers.Adam(1e-4), loss)
    before = network.model.train_on_batch(base["x"], base["y"])
    close(before, d["loss_before"], 1e-5)
    variables = published_variables(network)
    for name, wanted in d.items():
        if name in variables:
            close(variables[name], wanted, 2e-6)
    # The loss is 1.5 here and steep in the weights: their rounding shows in its sixth digit.
    after = loss(base["y"], network.model(base["x"], training=False))
    close(after, d["loss_after"], 1e-5, 2e-5)


@pytest.mark.fixture_prefix("gradcam")
def test_gradcam(path):
    d, base = load(path), partner(path, "gradcam", "model_small")
    network = small_network(base)
    set_weights(network, plain_weights(base))
    movies, labels = base["x"][..., 0], base["y"]
    activation = network.activations(movies, 5)
    probs = network.from_features(activation.mean(axis=(2, 3)))["probs"]
    predicted = states_of(probs)
    gradients = network.gradients(activation, predicted, "prob")
    assert activation.shape[1:] == tuple(d["last_conv_layer_shape"])
    close(probs.max(axis=1), d["prob_of_prediction"], 5e-5)
    close(gradients.mean(axis=(2, 3)), d["pooled_grads"], 5e-5)
    close(activation[0], d["activations_sample0"], 1e-4)
    close(gradients[0], d["gradients_sample0"], 5e-5)
    low = heatmaps(gradients, activation)
    close(low, d["heatmap_lowres"], 5e-5)
    close(upsample(low[0], *movies.shape[2:]), d["heatmap_fullres_sample0"], 5e-5)
    mean, _ = GradCam(network, frame_chunk=5)(movies)
    for state in range(probs.shape[1]):
        use = (predicted == labels) & (labels == state)
        assert use.sum() == d[f"count_label{state}"]
        if use.any():
            found = upsample(mean[use].mean(axis=0), *movies.shape[2:])
            close(found, d[f"subject_avg_label{state}"], 5e-5)
    plus, _ = GradCam(network, method="gradcam++").volumes(movies)
    close(plus, d["gradcampp_logit_lowres"], 5e-5)


@pytest.mark.fixture_prefix("attention_export")
def test_attention_export(path):
    d, base = load(path), partner(path, "attention_export", "model_small")
    network = small_network(base)
    set_weights(network, plain_weights(base))
    close(network.infer(base["x"][..., 0])["weights"][:, 0], d["att_weights"], 1e-5)


@pytest.mark.fixture_prefix("hypnogram_stats")
def test_hypnogram_statistics(path):
    d = load(path)
    for case in sorted({key.split("_")[0] for key in d}):
        statistics = sleep_statistics(d[f"{case}_labels"])
        for key, name in zip(STATE_KEYS, STATE_NAMES[3], strict=True):
            assert statistics[name]["bouts"] == d[f"{case}_bouts_{key}"].tolist()
            close(statistics[name]["mean_s"], d[f"{case}_mean_s_{key}"], 0, 1e-6)
        assert statistics["transitions"] == d[f"{case}_transitions"]
        np.testing.assert_array_equal(statistics["pair_counts"], d[f"{case}_pair_counts"])


@pytest.mark.fixture_prefix("attention_stats")
def test_attention_statistics(path):
    d = load(path)
    statistics = attention_statistics(d["weights"], d["y_pred"], d["y_true"], int(d["gap"]))
    close(statistics.rescaled, d["rescaled"], 1e-6)
    for state, key in enumerate(STATE_KEYS):
        assert statistics.counts[state] == d[f"count_{key}"]
        if statistics.counts[state]:
            close(statistics.means[state], d[f"mean_{key}"], 1e-6)
            close(statistics.means[state].sum(), d[f"sum_of_mean_{key}"], 1e-4)
        close(statistics.histograms[state], d[f"hist_{key}"], 1e-6)
    assert len(statistics.transition) == d["n_transition_samples"]
    assert len(statistics.other) == d["n_other_samples"]
    close(np.sort(statistics.transition), np.sort(d["transition_samples"]), 1e-6)
    close(statistics.transition.mean(), d["transition_mean"], 1e-6)
    close(statistics.other.mean(), d["other_mean"], 1e-6)
    close(probability_histogram(statistics.transition), d["hist_transition"], 1e-6)
    close(probability_histogram(statistics.other), d["hist_other"], 1e-6)
