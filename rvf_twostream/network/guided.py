"""Guided back-propagation and Grad-CAM of a two-stream model's logit (specification 8.3).

Guided gradient: the ordinary gradient of the trained logit with the backward pass of every ReLU
replaced by dy * [dy > 0] * [x > 0]. Letters: t frames, r rows, c columns, f features.

Source: J. Springenberg et al., Striving for simplicity (2015); R. Selvaraju et al., Grad-CAM
(2017).
"""

import json
import subprocess
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common.files import InputError
from inputs.resize import resize_img_list
from settings import ENGINE_PYTHON

HERE = Path(__file__).resolve().parent


def guided_model(model: keras.Model) -> keras.Model:
    """Return a copy of ``model`` with guided ReLUs and a linear head."""

    @tf.custom_gradient
    def guided_relu(x):
        def backward(dy):
            return tf.where((dy > 0) & (x > 0), dy, 0)

        return tf.nn.relu(x), backward

    class GuidedReLU(keras.layers.Layer):
        def call(self, x):
            return guided_relu(x)

    def clone(layer):
        if isinstance(layer, keras.layers.Activation):
            return GuidedReLU(name=layer.name)
        config = layer.get_config()
        if layer.name == "preds":
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    guided = keras.models.clone_model(model, clone_function=clone)
    guided.set_weights(model.get_weights())
    return guided


def guided_gradients(
    guided: keras.Model, clips: dict[str, np.ndarray], *, target: str = "rvf"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (grey gradient, flow gradient, logits) of a batch of clips.

    Args:
        guided: from ``guided_model``.
        clips: {"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}.
        target: ``rvf`` starts the backward pass at the logit, ``normal`` at minus the logit; the
            two pictures differ by more than a sign.
    """
    inputs = [tf.constant(clips["grey"]), tf.constant(clips["of"])]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        logits = guided(inputs, training=False)
        start = logits if target == "rvf" else -logits
    grey, flow = tape.gradient(start, inputs)
    return grey.numpy(), flow.numpy(), logits.numpy()[:, 0]


def innvestigate_gradients(
    model: keras.Model,
    info: dict,
    clips: dict[str, np.ndarray],
    *,
    target: str = "rvf",
    python: Path = ENGINE_PYTHON,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do the same as ``guided_gradients`` with innvestigate, in its own environment.

    Weights and clips go over as arrays by layer name: that environment cannot read Keras 3 files.

    Args:
        model: the two-stream model.
        info: its description.
        clips: as in ``guided_gradients``.
        python: interpreter of the environment ``rvf_innvestigate``.
    """
    if not Path(python).is_file():
        raise InputError(
            f"{python}: not found; run 'python3 run.py env rvf_innvestigate' "
            "or name its interpreter with --engine_python"
        )
    logits = logits_of(model, clips)
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "given.npz", Path(folder) / "found.npz"
        shape = {key: info[key] for key in ("depth", "width", "input_size")}
        arrays = {variable.path: np.asarray(variable) for variable in model.weights}
        # innvestigate scales its result by the output and starts backwards with the output's sign:
        # the head is turned to the target and lifted by its bias until all outputs are positive.
        sign = 1.0 if target == "rvf" else -1.0
        arrays["preds/kernel"] = sign * arrays["preds/kernel"]
        arrays["preds/bias"] = sign * arrays["preds/bias"] + 1.0 + np.abs(logits).max()
        clips = {f"clip/{stream}": clip for stream, clip in clips.items()}
        np.savez(given, shape=np.array(json.dumps(shape)), **arrays, **clips)
        command = [str(python), str(HERE / "innvestigate_worker.py"), str(given), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"innvestigate in {python} failed: {last}")
        with np.load(answer, allow_pickle=False) as arrays:
            return arrays["grey"], arrays["of"], logits


def logits_of(model: keras.Model, clips: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits (b,) of clips: joined features times head."""
    features = keras.Model(model.inputs, model.get_layer("concat").output)
    head = model.get_layer("preds")
    joined = np.asarray(features([clips["grey"], clips["of"]], training=False))  # (b, 2 f)
    return joined @ np.asarray(head.kernel)[:, 0] + np.asarray(head.bias)[0]


def grad_cam(
    model: keras.Model, clips: dict[str, np.ndarray], *, target: str = "rvf"
) -> dict[str, np.ndarray]:
    """Return {"grey", "of"}: Grad-CAM of each stream's last stage, (b, r, c), 0 or more.

    Pooling over all places and a linear head make the gradient at every place the head's kernel
    divided by the number of places, so no backward pass is needed. The largest value over time is
    taken and resized to the clip.
    """
    names = ("grey_final_relu", "of_final_relu")
    stages = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    kernel = np.asarray(model.get_layer("preds").kernel)[:, 0] * (1 if target == "rvf" else -1)
    n_features = len(kernel) // 2
    r, c = clips["grey"].shape[2:4]
    maps = {}
    outputs = stages([clips["grey"], clips["of"]], training=False)
    for k, (stream, activation) in enumerate(zip(("grey", "of"), outputs, strict=True)):
        activation = np.asarray(activation)  # (b, t', r', c', f)
        weights = kernel[k * n_features : (k + 1) * n_features] / np.prod(activation.shape[1:4])
        strength = np.maximum(activation @ weights, 0).max(axis=1)  # (b, r', c')
        maps[stream] = resize_img_list(strength, r, c)
    return maps
