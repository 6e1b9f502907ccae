"""Guided back-propagation and Grad-CAM of a two-stream model's logit (specification 8.3).

Guided gradient: the ordinary gradient of the trained logit with the backward pass of every ReLU
replaced by dy * [dy > 0] * [x > 0]. Letters: t frames, r rows, c columns, f features.

Source: J. Springenberg et al., Striving for simplicity (2015); R. Selvaraju et al., Grad-CAM
(2017).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.files import InputError
from resize import resize_frame, resize_img_list

HERE = Path(__file__).resolve().parent
SCRIPTS = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
ENGINE_PYTHON = HERE.parent / ".venvs" / "rvf_innvestigate" / SCRIPTS


def guided_model(model):
    """Return a copy of ``model`` with guided ReLUs and a linear head."""
    import keras
    import tensorflow as tf

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


def guided_gradients(guided, clips, *, target="rvf"):
    """Return (grey gradient, flow gradient, logits) of a batch of clips.

    Args:
        guided: from ``guided_model``.
        clips: {"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}.
        target: ``rvf`` starts the backward pass at the logit, ``normal`` at minus the logit; the
            two pictures differ by more than a sign.
    """
    import tensorflow as tf

    inputs = [tf.constant(clips["grey"]), tf.constant(clips["of"])]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        logits = guided(inputs, training=False)
        start = logits if target == "rvf" else -logits
    grey, flow = tape.gradient(start, inputs)
    return grey.numpy(), flow.numpy(), logits.numpy()[:, 0]


def innvestigate_gradients(model, info, clips, *, target="rvf", python=ENGINE_PYTHON):
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
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        shape = {key: info[key] for key in ("depth", "width", "input_size")}
        arrays = {variable.path: np.asarray(variable) for variable in model.weights}
        # innvestigate scales its result by the output and starts backwards with the output's sign:
        # the head is turned to the target and lifted by its bias until all outputs are positive.
        sign = 1.0 if target == "rvf" else -1.0
        arrays["preds/kernel"] = sign * arrays["preds/kernel"]
        arrays["preds/bias"] = sign * arrays["preds/bias"] + 1.0 + np.abs(logits).max()
        clips = {f"clip/{stream}": clip for stream, clip in clips.items()}
        np.savez(given, shape=np.array(json.dumps(shape)), **arrays, **clips)
        command = [str(python), str(HERE / "innvestigate_worker.py"), str(given), str(found)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"innvestigate in {python} failed: {last}")
        with np.load(found, allow_pickle=False) as arrays:
            return arrays["grey"], arrays["of"], logits


def logits_of(model, clips):
    """Return the logits (b,) of clips: joined features times head."""
    import keras

    features = keras.Model(model.inputs, model.get_layer("concat").output)
    head = model.get_layer("preds")
    joined = np.asarray(features([clips["grey"], clips["of"]], training=False))  # (b, 2 f)
    return joined @ np.asarray(head.kernel)[:, 0] + np.asarray(head.bias)[0]


def grad_cam(model, clips, *, target="rvf"):
    """Return {"grey", "of"}: Grad-CAM of each stream's last stage, (b, r, c), 0 or more.

    Pooling over all places and a linear head make the gradient at every place the head's kernel
    divided by the number of places, so no backward pass is needed. The largest value over time is
    taken and resized to the clip.
    """
    import keras

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


def stack_streams(grey, flow):
    """Return grey, flow x and flow y one under the other: (t,r,c,1), (t,r,c,2) -> (t, 3 r, c)."""
    return np.concatenate([grey[..., 0], flow[..., 0], flow[..., 1]], axis=1)


def scaled_frames(stack, *, size=(1152, 384), center=True):
    """Return the frames of the pictures: resized, divided by the largest absolute value, centred.

    Args:
        stack: (t, 3 r, c) gradient.
        size: rows and columns of the pictures.
        center: subtract the mean. Faithful: a gradient of zero is then not exactly white.

    Raises:
        InputError: the gradient is zero everywhere.
    """
    frames = np.stack([resize_frame(frame, *size) for frame in stack])
    largest = np.abs(frames).max()
    if not largest > 0:
        raise InputError(
            "gradient is zero everywhere: a dead network, or weights that are all zero"
        )
    frames = frames / largest
    return frames - frames.mean() if center else frames


def projection(frames):
    """Return min over frames of the negative part plus max over frames of the positive part."""
    return np.minimum(frames, 0).min(axis=0) + np.maximum(frames, 0).max(axis=0)
