"""Parity with the published code: every file in --fixtures, found by the prefix of its name.

Sizes, depths and seeds come from the files. What is not stored is generated (``published.py``).
"""

from pathlib import Path

import numpy as np
import pytest

from parity_data import CHECKS as DATA_CHECKS
from published import fill, generated_clips


def sibling(path, prefix):
    """Return the file in the same folder that belongs to ``path``: same ending, else the plain."""
    own = next(name for name in sorted(CHECKS, key=len, reverse=True) if path.stem.startswith(name))
    for name in (prefix + path.stem.removeprefix(own), prefix):
        paths = sorted(path.parent.glob(f"{name}.*"))
        if paths:
            return paths[0]
    return None


def step_clips(path, batch, size, seed):
    """Return the inputs that files beside train_step.npz share: stored there, else generated."""
    stored = sibling(path, "train_step")
    if stored is not None:
        with np.load(stored, allow_pickle=False) as data:
            if "x_grey" in data and data["x_grey"].shape[:4] == (batch, *size):
                return {"grey": data["x_grey"], "of": data["x_of"]}
    return generated_clips(batch, size, seed)


def two_stream_of(meta, **settings):
    """Return the filled model, batch, size and seed of a ``meta`` array."""
    from network.model_zoo import two_stream

    depth, width, batch, seed, *size = (int(value) for value in meta[:7])
    model = two_stream(input_size=tuple(size), depth=depth, width=width, **settings)
    return fill(model, seed), batch, tuple(size), seed


def features_and_probability(model, clips):
    """Return (grey features, flow features, probability) in inference mode."""
    import keras

    names = ("grey_flat", "of_flat", "preds")
    outputs = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    return [np.asarray(v) for v in outputs([clips["grey"], clips["of"]], training=False)]


def check_forward_case(data, tag, *, feature, probability):
    """Check one model: parameter count, features relative to the largest, probability, logit."""
    model, batch, size, seed = two_stream_of(data[f"{tag}meta"])
    clips = generated_clips(batch, size, seed)
    if f"{tag}x_grey" in data:
        clips = {"grey": data[f"{tag}x_grey"], "of": data[f"{tag}x_of"]}
    assert model.count_params() == int(data[f"{tag}nparams"])
    grey, flow, prob = features_and_probability(model, clips)
    for features, name in ((grey, "feat_grey"), (flow, "feat_of")):
        wanted = data[f"{tag}{name}"]
        np.testing.assert_allclose(features, wanted, atol=feature * np.abs(wanted).max(), rtol=0)
    np.testing.assert_allclose(prob, data[f"{tag}prob"], atol=probability, rtol=0)
    logit = np.log(prob.astype(float) / (1 - prob.astype(float)))
    np.testing.assert_allclose(logit, data[f"{tag}logit"], atol=10 * probability, rtol=1e-4)


def check_model_forward(path):
    """All models of the file. Check 1."""
    with np.load(path, allow_pickle=False) as data:
        tags = [key.removesuffix("meta") for key in data.files if key.endswith("meta")]
        assert tags
        for tag in tags:
            check_forward_case(data, tag, feature=1e-4, probability=1e-5)


def check_model_forward_full(path):
    """The published size, 235,169,473 parameters. Check 1."""
    with np.load(path, allow_pickle=False) as data:
        check_forward_case(data, "", feature=1e-3, probability=1e-4)


def penalty(model):
    """Return the L2 penalty of the model."""
    return sum(float(loss) for loss in model.losses)


def named(model):
    """Return {path: value} of all weights."""
    return {variable.path: np.asarray(variable) for variable in model.weights}


def check_train_step(path):
    """Losses, gradients, schedule, weights after updates. Check 2."""
    import keras
    import tensorflow as tf

    from analysis.metrics import cross_entropy
    from network.CLR_callback import CosineAnnealing
    from network.model_zoo import make_optimizer
    from runs.training import make_train_step, total_loss

    data = np.load(path, allow_pickle=False)
    total = int(data["meta"][7])
    model, batch, size, seed = two_stream_of(data["meta"])
    clips = generated_clips(batch, size, seed)
    if "x_grey" in data:
        clips = {"grey": data["x_grey"], "of": data["x_of"]}
    y = data["y"].astype(np.float32)
    weight = data["class_weight"].astype(np.float32)[data["y"].astype(int)]

    def sample_loss(labels, outputs):
        return keras.losses.binary_crossentropy(labels[:, None], outputs)

    prob = np.asarray(model([clips["grey"], clips["of"]], training=False))[:, 0]
    np.testing.assert_allclose(prob, data["eval_prob"], atol=1e-5)
    bce = cross_entropy(y, prob)
    np.testing.assert_allclose(bce, data["eval_bce"], atol=1e-5)
    np.testing.assert_allclose(penalty(model), data["l2_penalty"], rtol=1e-5)
    np.testing.assert_allclose(bce + penalty(model), data["eval_loss_total"], rtol=1e-5)

    statistics = [np.asarray(v) for v in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss, _ = total_loss(model, clips, y, weight, float(batch), sample_loss)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    gradients = dict(zip([v.path for v in model.trainable_variables], gradients, strict=True))
    for variable, value in zip(model.non_trainable_variables, statistics, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(float(loss), data["train_loss_step0"], atol=1e-5)
    for key in data.files:
        if key.startswith("grad0/"):
            wanted = data[key]
            atol = 1e-3 * np.abs(wanted).max() + 1e-6
            gradient = gradients[key.removeprefix("grad0/")]
            np.testing.assert_allclose(gradient, wanted, atol=atol, rtol=0, err_msg=key)

    unit = CosineAnnealing(1.0, total)
    eta = [float(unit(t)) for t in range(len(data["eta_t_used"]))]
    np.testing.assert_allclose(eta, data["eta_t_used"], atol=1e-6)
    optimizer = make_optimizer(model, CosineAnnealing(1e-4, total), lr_weight={"conv3d": 1})
    step = make_train_step(model, optimizer, sample_loss, tf.distribute.get_strategy())
    for index, wanted in enumerate(data["train_losses_correct"], start=1):
        loss, _ = step(clips, y, weight, batch)
        np.testing.assert_allclose(float(loss), wanted, atol=5e-4)
        check_after(data, f"after{index}/", named(model))
    prob = np.asarray(model([clips["grey"], clips["of"]], training=False))[:, 0]
    after = cross_entropy(y, prob) + penalty(model)
    np.testing.assert_allclose(after, data["eval_loss_after_correct"], atol=2e-3)


def check_after(data, prefix, weights):
    """Check the weights and running statistics that the fixture stores after an update."""
    for key in data.files:
        if not key.startswith(prefix):
            continue
        stepped, wanted = weights[key.removeprefix(prefix)], data[key]
        if key.endswith("moving_variance"):
            # The published code takes the sample variance, Keras 3 the batch's.
            np.testing.assert_allclose(stepped, wanted, rtol=0.02, err_msg=key)
        else:
            atol = 1e-6 if key.endswith("moving_mean") else 2e-5
            np.testing.assert_allclose(stepped, wanted, atol=atol, rtol=0, err_msg=key)


def check_regression_outputs(model, data, clips):
    """Check predictions and loss of a single-stream model against regression.npz."""
    pred = np.asarray(model(clips, training=False))
    np.testing.assert_allclose(pred, data["pred"], atol=1e-5)
    loss = np.mean((pred[:, 0] - data["ef"]) ** 2) + penalty(model)
    np.testing.assert_allclose(loss, data["eval_loss_total"], rtol=1e-4)
    np.testing.assert_allclose(penalty(model), data["l2_penalty"], rtol=1e-4)


def check_regression(path):
    """The pre-training model of the grey stream."""
    from network.model_zoo import single_stream

    with np.load(path, allow_pickle=False) as data:
        depth, width, batch, seed, *size = (int(value) for value in data["meta"][:7])
        model = single_stream("grey", input_size=tuple(size), depth=depth, width=width)
        clips = step_clips(path, batch, tuple(size), seed - 1)
        check_regression_outputs(fill(model, seed), data, clips["grey"])


def check_keras231_twostream(path):
    """A two-stream file of Keras 2.3.1 loads with the right outputs. Check 3."""
    from network.model_zoo import two_stream
    from network.published_weights import load_published, published_shape

    if path.suffix == ".npz":
        return
    expected = sibling(path, "keras231_twostream_expected")
    if expected is None:
        pytest.skip(f"no keras231_twostream_expected.npz beside {path.name}")
    with np.load(expected, allow_pickle=False) as data:
        depth, width, batch, seed, *size = (int(value) for value in data["meta"][:7])
        assert published_shape(path) == ("two_stream", depth, width)
        model = two_stream(input_size=tuple(size), depth=depth, width=width)
        load_published(model, path)
        clips = step_clips(path, batch, tuple(size), seed - 2)
        grey, flow, prob = features_and_probability(model, clips)
        np.testing.assert_allclose(prob, data["prob"], atol=1e-5)
        for features, name in ((grey, "feat_grey"), (flow, "feat_of")):
            np.testing.assert_allclose(features, data[name], atol=1e-5 * np.abs(data[name]).max())


def check_keras231_pretrain_grey(path):
    """A pre-training file of Keras 2.3.1 loads with the right outputs. Check 3."""
    from network.model_zoo import single_stream
    from network.published_weights import load_published, published_shape

    expected = sibling(path, "regression")
    if expected is None:
        pytest.skip(f"no regression.npz beside {path.name}")
    with np.load(expected, allow_pickle=False) as data:
        depth, width, batch, seed, *size = (int(value) for value in data["meta"][:7])
        assert published_shape(path) == ("grey", depth, width)
        model = single_stream("grey", input_size=tuple(size), depth=depth, width=width)
        load_published(model, path)
        clips = step_clips(path, batch, tuple(size), seed - 1)
        check_regression_outputs(model, data, clips["grey"])


def check_guided_backprop(path):
    """Guided gradients, frames and projection of the pictures. Check 16."""
    from analysis.gradient_maps import projection, scaled_frames, stack_streams
    from network.guided import guided_gradients, guided_model

    data = np.load(path, allow_pickle=False)
    model, batch, size, seed = two_stream_of(data["meta"])
    clips = {name: x[:1] for name, x in generated_clips(batch, size, seed).items()}
    grey, flow, logit = guided_gradients(guided_model(model), clips)
    np.testing.assert_allclose(logit, data["logit"][:, 0], rtol=1e-4)
    for gradient, key in ((grey, "guided_grad_grey"), (flow, "guided_grad_of")):
        atol = 1e-4 * np.abs(data[key]).max()
        np.testing.assert_allclose(gradient, data[key], atol=atol, rtol=0)
    stack = stack_streams(grey[0], flow[0])
    assert stack.shape == tuple(data["stack_shape"])
    for key in data.files:
        name, _, picture = key.rpartition("_")
        if name not in ("frames_resized", "projection"):
            continue
        frames = scaled_frames(stack, size=tuple(int(n) for n in picture.split("x")))
        wanted = data[key]
        gradient = projection(frames) if name == "projection" else frames[: len(wanted)]
        np.testing.assert_allclose(gradient, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


def check_schedules_metrics(path):
    """Cyclic and cosine rates, AUC, DeLong, operating points. Check 18."""
    from analysis.metrics import auc, delong, operating_points
    from network.CLR_callback import MODES, CosineAnnealing, CyclicLR
    from runs.prediction import patient_rows

    data = np.load(path, allow_pickle=False)
    base, top, step_size, gamma = (float(value) for value in data["params"])
    modes = [mode for mode in MODES if mode in data]
    assert modes
    for mode in modes:
        rate = CyclicLR(base, top, step_size, mode, gamma)
        rates = [float(rate(it)) for it in range(len(data[mode]))]
        np.testing.assert_allclose(rates, data[mode], atol=1e-9, rtol=0)
    eta = CosineAnnealing(1.0, int(data["cosine_T"]))
    rates = [float(eta(t)) for t in range(len(data["cosine_eta"]))]
    np.testing.assert_allclose(rates, data["cosine_eta"], atol=1e-9, rtol=0)
    y, clip_scores = data["m_y"], data["m_score"]
    assert abs(auc(y, clip_scores) - data["auc_clip"]) < 1e-9
    clips = zip(data["m_patient"].tolist(), y.tolist(), clip_scores.tolist(), strict=True)
    rows = [{"set": "", "id": p, "class": "", "y": c, "probability": s} for p, c, s in clips]
    patients = patient_rows(rows)
    patient_y = np.array([row["y"] for row in patients], bool)
    patient_scores = np.array([row["probability"] for row in patients])
    area, error, interval = delong(patient_y, patient_scores)
    assert abs(area - data["auc_patient_mean"]) < 1e-9
    assert abs(error - data["auc_patient_se_delong"]) < 1e-9
    np.testing.assert_allclose(interval, data["auc_patient_ci95"], atol=1e-9)
    points = operating_points(patient_y, patient_scores)
    wanted = data["spec_at_sens80"], data["sens_at_spec80"]
    np.testing.assert_allclose(points, wanted, atol=1e-9)


CHECKS = {
    "model_forward_full": check_model_forward_full,
    "model_forward": check_model_forward,
    "train_step": check_train_step,
    "regression": check_regression,
    "keras231_twostream_expected": None,  # read by keras231_twostream
    "keras231_twostream": check_keras231_twostream,
    "keras231_pretrain_grey": check_keras231_pretrain_grey,
    "guided_backprop": check_guided_backprop,
    "schedules_metrics": check_schedules_metrics,
    **DATA_CHECKS,
}
SLOW = ("model_forward_full",)


def prefix_of(name):
    """Return the longest prefix of CHECKS with which ``name`` begins, or None."""
    fitting = [prefix for prefix in CHECKS if name.startswith(prefix)]
    return max(fitting, key=len, default=None)


def pytest_generate_tests(metafunc):
    folder = Path(metafunc.config.getoption("--fixtures"))
    by_prefix = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        by_prefix.setdefault(prefix_of(path.name), []).append(path)
    cases = []
    for prefix, check in CHECKS.items():
        if check is None:
            continue
        marks = [pytest.mark.slow] if prefix in SLOW else []
        for path in by_prefix.get(prefix, [None]):
            name = prefix if path is None else path.name
            cases.append(pytest.param(prefix, path, id=name, marks=marks))
    metafunc.parametrize(("prefix", "path"), cases)


def test_parity(prefix, path, request):
    """The fixture agrees within the tolerances of its README."""
    if path is None:
        pytest.skip(f"no {prefix}* in {request.config.getoption('--fixtures')}")
    CHECKS[prefix](path)
