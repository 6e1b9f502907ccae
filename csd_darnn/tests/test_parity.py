"""Parity with the published project: every fixture of DIR (--fixtures) is found by its stem."""

from pathlib import Path

import numpy as np
import pytest
import torch

import parity_images
from analysis.importance import WindowSet, block_importance
from analysis.metrics import regression_metrics
from inputs.custom_types import DaRnnNet, ModelOptions, TrainConfig, TrainData
from inputs.preprocessing import preprocess_data
from inputs.windows import WindowRule, prep_train_data
from network.build import Adam, build_net, da_rnn
from network.modules import Decoder, Encoder
from network.prediction import predict, predict_windows
from runs.training import DECAY, DECAY_EVERY, Course, adjust_learning_rate, train


def arrays_of(path):
    """Return the arrays of a fixture as a dict."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def state_of(arrays, prefix):
    """Return the tensors whose names start with ``prefix``, without it."""
    return {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def near(ours, wanted, tolerance):
    """Assert that two arrays have the same shape and differ by less than ``tolerance``."""
    if torch.is_tensor(ours):
        ours = ours.detach().numpy()
    assert np.shape(ours) == np.shape(wanted)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=tolerance)


def count_layers(state):
    """Return the number of LSTM layers in a state dict."""
    return sum(name.startswith("lstm_layer.weight_hh") for name in state)


def options_of(encoder):
    """Return the ModelOptions that an encoder's state dict tells."""
    attention = "tanh" if "attn_v.weight" in encoder else "linear"
    return ModelOptions(attention=attention, layers=count_layers(encoder))


def networks_of(arrays, readout="bottom"):
    """Return the Encoder and Decoder of a fixture with its parameters, loaded strictly.

    Every size comes from the arrays; the decoder is None when the fixture holds none.
    """
    enc_state, dec_state = state_of(arrays, "enc."), state_of(arrays, "dec.")
    _, steps, n_feats = arrays["X"].shape
    T = arrays["y_history"].shape[1] + 1 if "y_history" in arrays else steps + 1
    m, options = enc_state["lstm_layer.weight_hh_l0"].shape[1], options_of(enc_state)
    encoder = Encoder(
        n_feats, m, T, attention=options.attention, layers=options.layers, steps=steps
    )
    encoder.load_state_dict(enc_state, strict=True)
    decoder = None
    if dec_state:
        p, o = dec_state["lstm_layer.weight_hh_l0"].shape[1], dec_state["fc.bias"].shape[0]
        decoder = Decoder(m, p, T, o, layers=count_layers(dec_state), readout=readout)
        decoder.load_state_dict(dec_state, strict=True)
    return encoder, decoder


def check_model(path, _):
    """Outputs, loss, gradients, alpha, beta and both readouts within 1e-5."""
    arrays = arrays_of(path)
    y_history = torch.from_numpy(arrays["y_history"])
    bottom = "y_pred_first" if "y_pred_first" in arrays else "y_pred"
    for readout, name in (("bottom", bottom), ("top", "y_pred_top")):
        encoder, decoder = networks_of(arrays, readout)
        X = torch.from_numpy(arrays["X"]).requires_grad_()
        weighted, encoded, alpha = encoder.encode(X)
        y_pred, beta = decoder.decode(encoded, y_history)
        near(weighted, arrays["input_weighted"], 1e-5)
        near(encoded, arrays["input_encoded"], 1e-5)
        near(
            alpha.expand_as(X) if arrays["alpha"].ndim == 3 else alpha[:, 0], arrays["alpha"], 1e-5
        )
        near(beta, arrays["beta"], 1e-5)
        near(y_pred, arrays[name], 1e-5)
        if readout == "bottom" and "loss" in arrays:
            check_gradients(arrays, encoder, decoder, X, y_pred)


def check_gradients(arrays, encoder, decoder, X, y_pred):
    """The loss and every gradient.

    A parameter without use has gradient None here; there it is recorded as zeros, or as the
    rounding noise of what softmax cancels.
    """
    loss = torch.nn.functional.mse_loss(y_pred, torch.from_numpy(arrays["y_target"]))
    near(loss, arrays["loss"].astype(np.float32), 1e-5)
    loss.backward()
    near(X.grad, arrays["grad_X"], 1e-5)
    for prefix, part in (("grad_enc.", encoder), ("grad_dec.", decoder)):
        recorded = {name for name in arrays if name.startswith(prefix)}
        assert recorded == {prefix + name for name, _ in part.named_parameters()}
        for name, value in part.named_parameters():
            wanted = arrays[prefix + name]
            if value.grad is None:
                near(value * 0, wanted, 1e-6)
            else:
                near(value.grad, wanted, 1e-5)
        used = [name for name, value in part.named_parameters() if value.grad is not None]
        assert len(used) >= 5  # a first LSTM layer and an output or attention weight


def check_init_seed(path, _):
    """The same seed and creation order give the same first parameters."""
    arrays = arrays_of(path)
    T, n_feats, m, p, o, seed = map(int, arrays["meta"])
    net = build_net(
        {"N": n_feats, "m": m, "p": p, "o": o},
        rule=WindowRule(T),
        options=options_of(state_of(arrays, "enc.")),
        learning_rate=0.01,
        seed=seed,
    )
    for prefix, part in (("enc.", net.encoder), ("dec.", net.decoder)):
        wanted = state_of(arrays, prefix)
        assert set(wanted) == set(part.state_dict())
        for name, value in part.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), wanted[name].numpy())


def check_preprocess(path, _):
    """Mean, scale, driving series and targets; fitted on all rows and on the training rows."""
    arrays = arrays_of(path)
    raw, columns = arrays["raw"], [str(k) for k in range(arrays["raw"].shape[1])]
    labels = [columns[int(k)] for k in np.atleast_1d(arrays["target_cols"])]
    for mode, prefix in (("all", "ref_"), ("train", "train_")):
        data, scaler = preprocess_data(
            raw,
            labels,
            scaler=mode,
            train_size=int(arrays["train_size"]),
            columns=columns,
            dtype=np.float64,
        )
        for name, values in (
            ("mean", scaler.mean),
            ("scale", scaler.scale),
            ("feats", data.feats),
            ("targs", data.targs),
        ):
            np.testing.assert_allclose(values, arrays[prefix + name], rtol=1e-12, atol=1e-12)


def check_windows(path, _):
    """Training, test and drawn windows, exactly."""
    arrays = arrays_of(path)
    data = TrainData(arrays["feats"], arrays["targs"])
    T, train_size = int(arrays["T"]), int(arrays["train_size"])
    rule = WindowRule(T)
    config = TrainConfig(T, train_size, len(arrays["batch_idx"]), None)
    windows = prep_train_data(arrays["batch_idx"], config, data)
    for name, value in zip(("X", "y_history", "y_target"), windows, strict=True):
        np.testing.assert_array_equal(value, arrays[f"train_{name}"])
    for prefix, starts, rows in (
        ("test", rule.test_starts(len(data.feats), train_size), arrays["test_target_index"]),
        ("ontrain", rule.on_train_starts(train_size), arrays["ontrain_target_index_correct"]),
    ):
        np.testing.assert_array_equal(data.feats[rule.x_rows(starts)], arrays[f"{prefix}_X"])
        history = data.targs[rule.history_rows(starts)]
        np.testing.assert_array_equal(history, arrays[f"{prefix}_y_history"])
        np.testing.assert_array_equal(rule.target_rows(starts), rows)


def without_gradient(name, steps, n_feats):
    """Tell whether softmax cancels a parameter: Adam turns its rounding noise into drift."""
    if name in ("attn_linear.bias", "attn_layer.2.bias"):
        return True
    # A softmax over one series or one step is 1 whatever feeds it.
    return (n_feats == 1 and name.startswith("attn_linear")) or (
        steps == 1 and name.startswith("attn_layer")
    )


def check_train_run(path, _):
    """A whole training with given parameters and orders: losses, predictions, weights."""
    arrays = arrays_of(path)
    T, batch, epochs, train_size = (int(arrays["meta"][k]) for k in (2, 3, 5, 7))
    data = TrainData(arrays["feats"], arrays["targs"])
    enc_state, dec_state = state_of(arrays, "enc."), state_of(arrays, "dec.")
    m, p = (state["lstm_layer.weight_hh_l0"].shape[1] for state in (enc_state, dec_state))
    n_feats, n_targs = data.feats.shape[1], data.targs.shape[1]
    config, net = da_rnn(
        data, n_targs, m, p, T, float(arrays["lr"]), batch, train_size=train_size,
        options=options_of(enc_state),
    )  # fmt: skip
    net.encoder.load_state_dict(enc_state, strict=True)
    net.decoder.load_state_dict(dec_state, strict=True)
    orders = Course(shuffle_pixels="none", order=lambda seed, epoch, count: arrays["perms"][epoch])
    progress = train(net, data, config, epochs, course=orders)
    prefix = "correct_" if "correct_iter_losses" in arrays else ""
    near(progress.iter_losses, arrays[f"{prefix}iter_losses"], 1e-5)
    near(progress.epoch_losses, arrays[f"{prefix}epoch_losses"], 1e-5)
    y_pred, weighted = predict(net, data, train_size, batch, T)
    near(y_pred, arrays[f"{prefix}y_pred_test"], 1e-5)
    near(weighted, arrays[f"{prefix}weight_tensor"], 1e-5)
    if f"{prefix}y_pred_train" in arrays:
        y_pred, _ = predict(net, data, train_size, batch, T, True)
        near(y_pred, arrays[f"{prefix}y_pred_train"], 1e-5)
    for start, part in (("final_enc.", net.encoder), ("final_dec.", net.decoder)):
        for name, wanted in state_of(arrays, prefix + start).items():
            if without_gradient(name, T - 1, n_feats):
                continue
            columns = slice(2 * m, None) if name == "attn_linear.weight" else slice(None)
            trained = part.state_dict()[name]
            near(trained[..., columns], wanted.numpy()[..., columns], 1e-4)


def check_lr_schedule(path, _):
    """The rate after each iteration, for every first rate that the columns start from."""
    arrays = arrays_of(path)
    n_iter, wanted = arrays["n_iter"], arrays["lr_after"].reshape(len(arrays["n_iter"]), -1)
    assert len(n_iter) > 1
    for column in wanted.T:
        # The first rate is not recorded: the first row tells it, the others are checked.
        start = column[0] / DECAY ** (n_iter[0] // DECAY_EVERY)
        parameter = [torch.nn.Parameter(torch.zeros(1))]
        net = DaRnnNet(None, None, *(Adam(parameter, lr=start) for _ in range(2)))
        rates = []
        for iteration in range(1, int(n_iter.max()) + 1):
            adjust_learning_rate(net, iteration)
            if iteration in n_iter:
                rates.append(net.dec_opt.param_groups[0]["lr"])
                assert net.enc_opt.param_groups[0]["lr"] == rates[-1]
        near(rates, column, 1e-12)


def check_shuffle(path, _):
    """Shuffled input, weighted input by slot and un-permuted by pixel."""
    arrays = arrays_of(path)
    X, perm = arrays["X"], arrays["perm"]
    np.testing.assert_array_equal(np.argsort(perm), arrays["inverse_perm"])
    np.testing.assert_array_equal(X[..., perm], arrays["X_shuffled"])
    encoder, _ = networks_of(arrays)
    slots, encoded = encoder(torch.from_numpy(arrays["X_shuffled"]))
    near(slots, arrays["input_weighted_shuffled_slots"], 1e-6)
    near(encoded, arrays["input_encoded_shuffled"], 1e-6)
    # The same through predict_windows: windows in a row, of which the first rows are X.
    batch, steps, n_feats = X.shape
    rule = WindowRule(steps + 1)
    net = build_net(
        {"N": n_feats, "m": encoder.hidden_size, "p": 3, "o": 1},  # the decoder is not looked at
        rule=rule,
        options=options_of(encoder.state_dict()),
        learning_rate=0.01,
    )
    net.encoder.load_state_dict(encoder.state_dict())
    rows = X.reshape(batch * steps, n_feats)
    data = TrainData(rows, np.zeros((len(rows), 1), np.float32))
    out = np.empty((batch, steps, n_feats), np.float32)
    predict_windows(net, data, np.arange(batch) * steps, rule, permutation=perm, weighted_out=out)
    near(out, arrays["input_weighted_by_pixel"], 1e-6)


def check_metrics(path, _):
    """Error measures within 1e-9, and persistence as many rows back as the fixture tells."""
    arrays = arrays_of(path)
    y, measures = arrays["y"], regression_metrics(arrays["y"], arrays["y_pred"])
    for name in ("mse", "rmse", "mae", "mape_percent", "pearson_r", "r2"):
        if measures[name] is None:  # a value near 0, or no variance: not defined
            assert not np.isfinite(arrays.get(name, np.nan))
        else:
            near(measures[name], arrays[name], 1e-9)
    horizons = [name for name in arrays if name.startswith("persist_rmse_h")]
    assert horizons
    for name in horizons:
        back = int(name.removeprefix("persist_rmse_h"))
        near(regression_metrics(y[back:], y[:-back])["rmse"], arrays[name], 1e-9)


def check_occlusion(path, _):
    """Growth of the error with one series after the other set to 0."""
    arrays = arrays_of(path)
    encoder, decoder = networks_of(arrays)
    net = DaRnnNet(encoder, decoder, None, None)
    names = ("X", "y_history", "y_target")
    windows = WindowSet(net, *(torch.from_numpy(arrays[name]) for name in names))
    blocks = [np.array([k]) for k in range(windows.X.shape[2])]
    base, importance, _ = block_importance(windows, blocks, replace="zero")
    near(base.mean(), arrays["base_mse"], 1e-5)
    near(importance.mean(axis=0), arrays["importance"], 1e-5)


CHECKS = {
    "model_": check_model,
    "init_seed": check_init_seed,
    "preprocess": check_preprocess,
    "windows": check_windows,
    "train_run": check_train_run,
    "lr_schedule": check_lr_schedule,
    "shuffle": check_shuffle,
    "metrics": check_metrics,
    "occlusion": check_occlusion,
}
CHECKS |= {name: check for name, check in parity_images.CHECKS.items()}


def pytest_generate_tests(metafunc):
    """Make one test of every fixture file, and one that is skipped for every absent prefix."""
    if "fixture_file" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("--fixtures"))
    cases = []
    for prefix in CHECKS:
        files = sorted(folder.glob(f"{prefix}*.npz"))
        skip = pytest.mark.skip(reason=f"no {prefix}*.npz in {folder}")
        cases += [pytest.param((prefix, file), id=file.stem) for file in files]
        if not files:
            cases.append(pytest.param((prefix, None), id=f"{prefix}absent", marks=skip))
    metafunc.parametrize("fixture_file", cases)


def test_fixture(fixture_file, tmp_path):
    prefix, path = fixture_file
    CHECKS[prefix](path, tmp_path)


def test_every_fixture_file_has_a_check(pytestconfig):
    folder = Path(pytestconfig.getoption("--fixtures"))
    names = [path.name for path in folder.glob("*.npz")]
    assert names
    assert [name for name in names if not name.startswith(tuple(CHECKS))] == []
