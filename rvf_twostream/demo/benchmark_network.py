"""Time of the network beside straightforward calls. Source: specification 12."""

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common.files import read_json, write_json
from demo.benchmark_data import BENCHES, fastest, in_own_process, row
from network.guided import guided_gradients, guided_model
from network.model_zoo import make_optimizer, two_stream
from network.start import start_tensorflow
from runs.training import make_forward, make_train_step
from settings import MEASUREMENTS

# model of the row guided: the one that specification 12 gives innvestigate's time of
GUIDED = {"depth": 18, "width": 64, "size": (8, 32, 32)}


def two_stream_of(shape: dict) -> tuple[keras.Model, tf.distribute.Strategy]:
    """Return a two-stream model with random weights from a fixed seed, on the CPU.

    Args:
        shape: dict with depth, width and size (frames, rows, columns).
    """
    strategy = start_tensorflow(device="cpu")
    model = two_stream(input_size=shape["size"], depth=shape["depth"], width=shape["width"])
    return model, strategy


def random_clips(shape: dict, n: int) -> dict[str, np.ndarray]:
    """Return {"grey": (n,t,r,c,1), "of": (n,t,r,c,2)}."""
    rng = np.random.default_rng(0)
    return {
        stream: rng.standard_normal((n, *shape["size"], channels)).astype(np.float32)
        for stream, channels in (("grey", 1), ("of", 2))
    }


def warm(function: Callable) -> tuple[float, object]:
    """Return (seconds, result) of a call after one that traces and allocates."""
    function()
    return fastest(function)


def ours_predict(shape: dict) -> tuple:
    """Time five clips in one batch."""
    forward = make_forward(two_stream_of(shape)[0])
    clips = random_clips(shape, 5)
    return warm(lambda: forward(clips))


def published_predict(shape: dict) -> tuple:
    """Time five clips one by one, each with Keras' predict."""
    model, _ = two_stream_of(shape)
    clips = random_clips(shape, 5)

    def one_by_one():
        outputs = [
            model.predict([clips["grey"][k : k + 1], clips["of"][k : k + 1]], verbose=0)
            for k in range(5)
        ]
        return np.concatenate(outputs)

    return warm(one_by_one)


def ours_guided(shape: dict) -> tuple:
    """Time the guided gradient of one clip."""
    guided = guided_model(two_stream_of(shape)[0])
    clip = random_clips(shape, 1)
    return warm(lambda: guided_gradients(guided, clip))


def ours_step(shape: dict) -> tuple:
    """Time one update of the weights with a batch of four clips."""
    model, strategy = two_stream_of(shape)

    def sample_loss(y, outputs):
        return keras.losses.binary_crossentropy(y[:, None], outputs)

    step = make_train_step(model, make_optimizer(model, 1e-4), sample_loss, strategy)
    clips, y = random_clips(shape, 4), np.array([0, 1, 0, 1], np.float32)
    weight = np.ones(4, np.float32)
    return warm(lambda: float(step(clips, y, weight, 4)[0]))


def describe(shape: dict) -> str:
    """Return a model's shape in words."""
    size = "x".join(map(str, shape["size"]))
    return f"two-stream depth {shape['depth']}, width {shape['width']}, {size}"


def network_row(name: str, shape: dict) -> dict:
    """Return the row ``predict``, ``guided`` or ``step``."""
    if name == "predict":
        ours, baseline = (in_own_process(f, shape) for f in (ours_predict, published_predict))
        np.testing.assert_allclose(ours[1], baseline[1], atol=1e-5)
        return row(f"predict a movie of 5 clips, {describe(shape)}", ours, baseline, ">= 2x")
    if name == "guided":
        ours = in_own_process(ours_guided, GUIDED)
        return row(f"guided gradient of a clip, {describe(GUIDED)}", ours, target="< 1 s")
    ours = in_own_process(ours_step, shape)
    rate = f"{4 * shape['size'][0] / ours[0]:.0f} pictures/s"
    return row(f"training step of 4 clips, {describe(shape)}: {rate}", ours)


def machine() -> str:
    """Return one line about this machine."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def measure(only: Sequence[str], shape: dict, path: Path) -> list[dict]:
    """Measure what ``only`` names, write ``path`` and return all rows, those of earlier calls too.

    Args:
        shape: dict with depth, width and size (frames, rows, columns) of the network.
    """
    # Rows of an earlier call stay: flow wants idle cores, the others do not mind.
    earlier = read_json(path)["rows"] if path.exists() else []
    measured = {
        name: [entry for entry in earlier if entry["name"] == name] for name in MEASUREMENTS
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in MEASUREMENTS if name in only]:
            print(f"measuring {name}", flush=True)
            if name in BENCHES:
                measured[name] = BENCHES[name](Path(folder))
            else:
                measured[name] = [network_row(name, shape)]
    rows = [{"name": name, **entry} for name, entries in measured.items() for entry in entries]
    write_json(path, {"machine": machine(), "rows": rows})
    return rows


def print_table(rows: list[dict]) -> None:
    """Print the rows, one a line."""
    keys = ("ours_s", "baseline_s", "ratio", "ours_mb", "baseline_mb")
    print(*(f"{text:>11}" for text in ("ours, s", "plain, s", "ratio", "ours, MB", "plain, MB")))
    for entry in rows:
        cells = ["-" if entry[key] is None else f"{entry[key]:.3f}" for key in keys[:3]]
        cells += ["-" if entry[key] is None else f"{entry[key]:.0f}" for key in keys[3:]]
        target = f" (target {entry['target']})" if entry["target"] else ""
        print(*(f"{cell:>11}" for cell in cells), f" {entry['what']}{target}")
