"""Cases of gpu_check.py: the same numbers on a GPU as on the processor, and its speed.

Epochs are drawn on the spot. ``exact`` cases switch TF32 off, so that only the order of sums
differs; their ``as shipped`` twins leave TensorFlow's defaults, which users get. Source:
specification, sections 4 and 5.
"""

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.cases import difference, gradient_difference, median_seconds, run_cases, within
from common.device import quiet_start

with quiet_start():
    import keras
    import tensorflow as tf

from network.checkpoints import load_training_state, save_training_state
from network.model_attention_bilstm import Architecture, AttentionBiLSTM, build
from runs.setup import say_device
from runs.train import Training, compile_network

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
        frames, side, filters = (12, 8, 4) if tiny else (168, 128, 64)
        self.architecture = Architecture(
            num_frames=frames, height=side, width=side, num_filters=filters,
            num_blocks=2 if tiny else 5, num_rnn_units=filters, dropout=0.0,
        )  # fmt: skip
        self.training = Training(batch_size=4, lr_init=1e-4)

    def all(self) -> dict[str, Callable[[], dict]]:
        """Return {name: case} in the order in which they run."""
        return {
            "forward and gradient, exact": lambda: self.step(False, (1e-4, 1e-3)),
            "forward and gradient, as shipped": lambda: self.step(None, (5e-3, 5e-2)),
            "20 steps, exact": lambda: self.losses(False, 1e-3),
            "20 steps, as shipped": lambda: self.losses(None, 5e-2),
            "bfloat16 against float32": self.low_precision,
            "resume on the device": self.resume,
            "seconds a training step": self.speed,
        }

    def draw(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return random epochs (B, F, H, W, 1) and their states (B,)."""
        random, a = np.random.default_rng(seed), self.architecture
        shape = (self.training.batch_size, a.num_frames, a.height, a.width, 1)
        return random.normal(size=shape).astype(np.float32), random.integers(0, 3, shape[0])

    def network(self, device: str, **changes: Any) -> tuple[AttentionBiLSTM, keras.Optimizer]:
        """Return the compiled network of seed 0 with its variables on ``device``."""
        with tf.device(device):
            network = build(dataclasses.replace(self.architecture, **changes), seed=0)
            return network, compile_network(network, self.training)

    def step(self, allowed: bool | None, limits: tuple[float, float]) -> dict:
        """Compare probabilities and gradients of one batch."""
        frames, states = self.draw()
        outputs, gradients = [], []
        with tf32(allowed):
            for device in (self.device, CPU):
                model = self.network(device)[0].model
                with tf.device(device), tf.GradientTape() as tape:
                    probs = model(frames, training=True)
                    picked = tf.gather(probs, states[:, None], batch_dims=1)
                    loss = -tf.reduce_mean(tf.math.log(picked))
                slopes = tape.gradient(loss, model.trainable_variables)
                outputs.append(probs.numpy())
                gradients.append([slope.numpy() for slope in slopes])
        output = within("output", difference(*outputs), limits[0])
        gradient = within("gradient", gradient_difference(*gradients), limits[1])
        return output | gradient | {"passed": output["passed"] and gradient["passed"]}

    def losses(self, allowed: bool | None, limit: float) -> dict:
        """Compare the losses of 20 steps."""
        with tf32(allowed):
            values = [
                self.trained(self.network(device), 20, device) for device in (self.device, CPU)
            ]
        return within("losses", difference(*values), limit)

    def trained(self, made: tuple, steps: int, device: str, first: int = 0) -> list[float]:
        """Take ``steps`` steps with a network of ``network`` and return their losses."""
        network, _ = made
        losses = []
        with tf.device(device):
            for number in range(first, first + steps):
                network.model.reset_metrics()
                frames, states = self.draw(number)
                losses.append(float(network.model.train_on_batch(frames, states)[0]))
        return losses

    def low_precision(self) -> dict:
        """Compare probabilities in bfloat16 with those in float32, both on the device."""
        frames, _ = self.draw()
        probs = []
        for kind in ("bfloat16", "off"):
            network, _ = self.network(self.device, mixed_precision=kind)
            with tf.device(self.device):
                probs.append(np.asarray(network.model(frames, training=False), np.float32))
        return within("probability", float(np.abs(probs[0] - probs[1]).max()), 5e-2)

    def resume(self) -> dict:
        """Compare four steps with two, a saved state, and two more."""
        whole, half, again = (self.network(self.device) for _ in range(3))
        self.trained(whole, 4, self.device)
        self.trained(half, 2, self.device)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.h5"
            save_training_state(path, *half, {})
            load_training_state(path, *again)
        self.trained(again, 2, self.device, first=2)
        weights = [made[0].model.get_weights() for made in (again, whole)]
        return within("weights", difference(*weights), 1e-5)

    def speed(self) -> dict:
        """Return seconds of a training step on the device and on the processor."""
        row = {}
        frames, states = self.draw()
        for device in dict.fromkeys((self.device, CPU)):
            network, _ = self.network(device)
            with tf.device(device):
                row[f"{device}, s"] = median_seconds(
                    lambda network=network: network.model.train_on_batch(frames, states),
                    lambda: None,  # the loss comes back as a number: the step has ended
                    repeats=5 if device != CPU else 1,
                )
        if self.device != CPU:
            row["peak, MB"] = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
        return row


def check(chosen: argparse.Namespace) -> int:
    """Run the cases on ``chosen.device``; return 1 when one fails."""
    device = say_device(chosen.device)
    cards = tf.config.get_visible_devices("GPU")
    names = [tf.config.experimental.get_device_details(card).get("device_name") for card in cards]
    about = {"folder": "sleep_bilstm", "device": device, "card": names[0] if names else None}
    about["tensorflow"] = tf.__version__
    cases = Cases(device, chosen.tiny).all()
    return run_cases(cases, chosen.out, about=about, budget_s=chosen.budget_s, only=chosen.only)
