"""Cases of gpu_check.py: the same numbers on a GPU as on the processor, and its speed.

Clips are drawn on the spot. ``exact`` cases switch TF32 off, so that only the order of sums
differs; their ``as shipped`` twins leave TensorFlow's defaults, which users get. Source:
specification, sections 5 to 7.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from common.cases import difference, gradient_difference, median_seconds, run_cases, within
from common.device import quiet_start

with quiet_start():
    import keras
    import tensorflow as tf

from network.checkpoints import load_weights, save_weights
from network.model_zoo import make_optimizer, two_stream
from network.start import device_note, start_tensorflow
from runs.training import make_train_step

CPU = "/CPU:0"


@contextlib.contextmanager
def tf32(allowed: bool | None) -> Iterator[None]:
    """Allow or forbid TF32 for a block; None leaves TensorFlow's default."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    if allowed is not None:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


class Cases:
    """Methods that gpu_check.py runs by name; each returns numbers and whether they hold."""

    def __init__(self, device: str, tiny: bool):
        self.device = "/GPU:0" if device == "gpu" else CPU
        self.size = (8, 16, 16) if tiny else (32, 112, 112)
        self.shape = {"depth": 18, "width": 4 if tiny else 64, "input_size": self.size}
        self.strategy = tf.distribute.get_strategy()

    def all(self) -> dict[str, Callable[[], dict]]:
        """Return {name: case} in the order in which they run."""
        return {
            "forward and gradient, exact": lambda: self.step(False, (1e-4, 1e-3)),
            "forward and gradient, as shipped": lambda: self.step(None, (5e-3, 1e-1)),
            "10 steps, exact": lambda: self.losses(False, 1e-3),
            "10 steps, as shipped": lambda: self.losses(None, 5e-2),
            "weights there and back": self.weights,
            "seconds a training step": self.speed,
        }

    def draw(self, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return random clips {grey (2, T, H, W, 1), of (2, T, H, W, 2)} and labels (2,)."""
        random = np.random.default_rng(seed)
        clips = {
            stream: random.normal(size=(2, *self.size, channels)).astype(np.float32)
            for stream, channels in (("grey", 1), ("of", 2))
        }
        return clips, np.array([0.0, 1.0], np.float32)

    def model(self, device: str) -> keras.Model:
        """Return the two-stream network of seed 0 with its variables on ``device``."""
        keras.utils.set_random_seed(0)
        with tf.device(device):
            return two_stream(**self.shape)

    def step(self, allowed: bool | None, limits: tuple[float, float]) -> dict:
        """Compare probabilities and gradients of one batch."""
        clips, labels = self.draw()
        outputs, gradients = [], []
        with tf32(allowed):
            for device in (self.device, CPU):
                model = self.model(device)
                with tf.device(device), tf.GradientTape() as tape:
                    probs = model(clips, training=True)
                    loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels[:, None], probs))
                slopes = tape.gradient(loss, model.trainable_variables)
                outputs.append(probs.numpy())
                gradients.append([slope.numpy() for slope in slopes])
        output = within("output", difference(*outputs), limits[0])
        gradient = within("gradient", gradient_difference(*gradients), limits[1])
        return output | gradient | {"passed": output["passed"] and gradient["passed"]}

    def train_step(self, device: str) -> Callable[[int], float]:
        """Return the function that takes step number ``seed`` and returns its loss."""
        model = self.model(device)
        with tf.device(device):
            optimizer = make_optimizer(model, 1e-4)
        update = make_train_step(model, optimizer, clip_loss, self.strategy)

        def take(seed: int) -> float:
            clips, labels = self.draw(seed)
            with tf.device(device):
                return float(update(clips, labels, np.ones(2, np.float32), 2)[0])

        return take

    def losses(self, allowed: bool | None, limit: float) -> dict:
        """Compare the losses of 10 steps."""
        per_place = []
        with tf32(allowed):
            for device in (self.device, CPU):
                take = self.train_step(device)
                per_place.append([take(seed) for seed in range(10)])
        return within("losses", difference(*per_place), limit)

    def weights(self) -> dict:
        """Write the weights of the device's network and read them on the processor."""
        clips, _ = self.draw()
        outputs = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "two_stream.weights.h5"
            first = self.model(self.device)
            save_weights(first, path, {"kind": "two_stream"})
            with tf.device(CPU):
                second = two_stream(**self.shape)
                load_weights(second, path)
        for model, device in ((first, self.device), (second, CPU)):
            with tf32(False), tf.device(device):
                outputs.append(model(clips, training=False).numpy())
        return within("output", difference(*outputs), 1e-4)

    def speed(self) -> dict:
        """Return seconds of a training step of two clips on the device and on the processor."""
        row = {}
        for device in dict.fromkeys((self.device, CPU)):
            take = self.train_step(device)
            row[f"{device}, s"] = median_seconds(
                lambda take=take: take(0),
                lambda: None,  # the loss comes back as a number: the step has ended
                repeats=5 if device != CPU else 1,
            )
        if self.device != CPU:
            row["peak, MB"] = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
        return row


def clip_loss(labels: tf.Tensor, probs: tf.Tensor) -> tf.Tensor:
    """Return the binary cross-entropy (B,) of labels (B,) and probabilities (B, 1)."""
    return keras.losses.binary_crossentropy(labels[:, None], probs)


def check(chosen: argparse.Namespace) -> int:
    """Run the cases on ``chosen.device``; return 1 when one fails."""
    strategy = start_tensorflow(device=chosen.device)
    print(device_note(strategy, chosen.device), flush=True)
    cards = tf.config.get_visible_devices("GPU")
    names = [tf.config.experimental.get_device_details(card).get("device_name") for card in cards]
    about = {"folder": "rvf_twostream", "device": "gpu" if cards else "cpu"}
    about |= {"card": names[0] if names else None, "tensorflow": tf.__version__}
    cases = Cases(about["device"], chosen.tiny).all()
    return run_cases(cases, chosen.out, about=about, budget_s=chosen.budget_s, only=chosen.only)
