"""Our part and the published way of working, measured in processes of their own (benchmark.py)."""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import focal_loss
import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from skimage.transform import resize

from analysis.gradcam import GradCam, upsample
from common.files import FOLDER, read_json, write_json
from demo.benchmark_rows import (
    CAM,
    CAM_EPOCHS,
    CHUNKED_EPOCHS,
    CHUNKS,
    EPOCHS,
    FORWARD,
    STEP,
    STEP_BATCH,
    TARGETS,
    TOLERANCE,
    WHAT,
)
from demo.brain_shape import brain_mask
from inputs.dataloader_sleep import Epochs, View, shuffle_order
from inputs.feed import make_dataset
from inputs.mat_writer import write_recording
from inputs.recordings import Recording
from inputs.shards import find_records, read_epoch
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create
from network.AttentionLayer import LSTMAttentionLayer
from network.model_attention_bilstm import LEAKY_SLOPE, Architecture, AttentionBiLSTM, build

REPEATS = 3
CLOCK = time.process_time  # CPU seconds of all threads: other work on the machine does not count


def make_recording(work: Path) -> Path:
    """Write one full-size recording (once) and return its path."""
    path = work / "raw" / "200128-L2-fc1-GSR_Ben.mat"
    if not path.is_file():
        rng = np.random.default_rng(0)
        movie = rng.standard_normal((EPOCHS, 168, 128, 128), dtype=np.float32)
        write_recording(path, movie, brain_mask(128), [0, 1, 3] * (EPOCHS // 3))
    return path


def ours_create(work: Path) -> tuple[float, np.ndarray]:
    """Convert the recording to a shard; return (seconds, first epoch)."""
    make_recording(work)
    start = CLOCK()
    create(work / "raw", work / "shards", Storage(), Conversion(overwrite=True))
    seconds = CLOCK() - start
    return seconds, read_epoch(find_records(work / "shards")[0])


def baseline_create(work: Path) -> tuple[float, np.ndarray]:
    """Convert it as the published script does: whole file, masked float64 arrays, lists."""
    path = make_recording(work)
    out = work / "reference"
    out.mkdir(exist_ok=True)
    start = CLOCK()
    with h5py.File(path) as file:
        data = file["data"][()].transpose(3, 2, 1, 0)  # (H, W, F, E)
        scores, mask = file["scoringindex_file"][()].ravel(), file["xform_mask"][()].T
    outside = np.repeat((mask == 0)[:, :, None], data.shape[2], axis=2)
    first = None
    for epoch in range(data.shape[3]):
        values = np.ma.masked_array(data[..., epoch].astype(np.float64), outside)
        mean, deviation = values.mean(axis=2), values.std(axis=2)
        z = ((values - mean[..., None]) / deviation[..., None]).filled(0).astype(np.float32)
        features = {
            "features": tf.train.Feature(float_list=tf.train.FloatList(value=z.ravel().tolist())),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(scores[epoch])])),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        with tf.io.TFRecordWriter(str(out / f"epoch{epoch}.tfrecords")) as writer:
            writer.write(example.SerializeToString())
        first = z if first is None else first
    return CLOCK() - start, first.transpose(2, 0, 1)


def make_chunked(work: Path) -> Path:
    """Write a recording whose chunks hold all epochs, compressed as MATLAB does; return it."""
    path = work / "chunked" / "200128-L2-fc1-GSR_Ben.mat"
    if not path.is_file():
        rng, shape = np.random.default_rng(0), (CHUNKED_EPOCHS, 168, 128, 128)
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            data = file.create_dataset(
                "data", shape, "f4", chunks=(CHUNKED_EPOCHS, *CHUNKS), compression=3, shuffle=False
            )
            for row in range(0, 128, 3):
                block = rng.integers(0, 99, (*shape[:3], min(3, 128 - row)))
                data[..., row : row + 3] = block / 100
            file["xform_mask"] = brain_mask(128).T.astype(float)
    return path


def ours_chunked(work: Path) -> tuple[float, np.ndarray]:
    """Read all epochs of it, one after another; return (seconds, sums)."""
    path = make_chunked(work)
    start = CLOCK()
    with Recording(path, scores=False, spool_dir=work) as recording:
        sums = [recording.read(e).sum(dtype=float) for e in range(CHUNKED_EPOCHS)]
    return CLOCK() - start, np.array(sums)


def baseline_chunked(work: Path) -> tuple[float, np.ndarray]:
    """Read it epoch by epoch from the file, which inflates every chunk once per epoch."""
    path, mask = make_chunked(work), np.flatnonzero(brain_mask(128).T)
    start = CLOCK()
    with h5py.File(path) as file:
        frames = (file["data"][e].reshape(168, -1)[:, mask] for e in range(CHUNKED_EPOCHS))
        sums = [one.sum(dtype=float) for one in frames]
    return CLOCK() - start, np.array(sums)


def ours_reading(work: Path) -> tuple[float, np.ndarray]:
    """Read the epochs of the shard, shuffled, with two workers; return seconds per epoch."""
    if not (work / "shards").is_dir():
        ours_create(work)
    epochs = Epochs(find_records(work / "shards"), View(168))
    order = np.concatenate([shuffle_order(len(epochs), 0, e) for e in range(6)])
    for _ in make_dataset(epochs, order[:4], 4, workers=2):
        pass
    start = CLOCK()
    for _ in make_dataset(epochs, order, 4, workers=2):
        pass
    return (CLOCK() - start) / len(order), np.zeros(1)


def published_network(shape: dict) -> tuple[AttentionBiLSTM, keras.Model, keras.Model]:
    """Build the network layer by layer with TimeDistributed, as published, with our weights."""
    own = build(Architecture(**shape, dropout=0.0), seed=0)
    a = own.architecture
    x = movie = keras.Input((a.num_frames, a.height, a.width, 1))
    for block in range(1, a.num_blocks + 1):
        for _ in range(2):
            x = layers.TimeDistributed(layers.Conv2D(a.num_filters, 3, padding="same"))(x)
            x = layers.TimeDistributed(layers.LeakyReLU(LEAKY_SLOPE))(x)
        last = x
        if block < a.num_blocks:
            x = layers.TimeDistributed(layers.MaxPooling2D(2, padding="same"))(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    lstm = layers.LSTM(a.num_rnn_units, return_sequences=True, return_state=True)
    sequence, forward, _, backward, _ = layers.Bidirectional(lstm)(x)
    query = layers.Concatenate()([forward, backward])
    context, _ = LSTMAttentionLayer()([query, sequence])
    probs = layers.Dense(a.num_classes, activation="softmax")(layers.Flatten()(context))
    model, both = keras.Model(movie, probs), keras.Model(movie, [last, probs])
    model.set_weights(own.model.get_weights())
    return own, model, both


def movies_of(shape: dict, n: int) -> np.ndarray:
    """Return n random inputs (n, F, H, W)."""
    size = (n, shape["num_frames"], shape["height"], shape["width"])
    return np.random.default_rng(1).standard_normal(size, dtype=np.float32)


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the shortest time of ``work()`` in s."""
    times = []
    for _ in range(repeats):
        start = CLOCK()
        work()
        times.append(CLOCK() - start)
    return min(times)


def ours_first(_work: Path) -> tuple[float, np.ndarray]:
    """Build the folded network and run one full-size input: what a short evaluation waits for."""
    movie, start = movies_of(FORWARD, 1), CLOCK()
    probs = build(Architecture(**FORWARD, dropout=0.0), seed=0).infer(movie)["probs"]
    return CLOCK() - start, probs


def baseline_first(_work: Path) -> tuple[float, np.ndarray]:
    """Build the published form, which holds every layer once per frame, and run it."""
    movie, start = movies_of(FORWARD, 1)[..., None], CLOCK()
    probs = published_network(FORWARD)[1].predict(movie, verbose=0)
    return CLOCK() - start, probs


def ours_forward(_work: Path) -> tuple[float, np.ndarray]:
    """Run one full-size input through the folded network."""
    network, movie = build(Architecture(**FORWARD, dropout=0.0), seed=0), movies_of(FORWARD, 1)
    probs = network.infer(movie)["probs"]
    return fastest(lambda: network.infer(movie)), probs


def baseline_forward(_work: Path) -> tuple[float, np.ndarray]:
    """Run it through the published form with predict, one epoch a call."""
    _, model, _ = published_network(FORWARD)
    movie = movies_of(FORWARD, 1)[..., None]
    probs = model.predict(movie, verbose=0)
    return fastest(lambda: model.predict(movie, verbose=0)), probs


def _step(model):

    model.compile(keras.optimizers.Adam(1e-4), focal_loss.SparseCategoricalFocalLoss(2))
    frames, labels = movies_of(STEP, STEP_BATCH)[..., None], np.arange(STEP_BATCH) % 3
    model.train_on_batch(frames, labels)
    probs = np.asarray(model(frames, training=False))
    return fastest(lambda: model.train_on_batch(frames, labels)), probs


def ours_step(_work: Path) -> tuple[float, np.ndarray]:
    """Train the folded network by one batch."""
    return _step(build(Architecture(**STEP, dropout=0.0), seed=0).model)


def baseline_step(_work: Path) -> tuple[float, np.ndarray]:
    """Train the published form by one batch."""
    return _step(published_network(STEP)[1])


def ours_gradcam(_work: Path) -> tuple[float, np.ndarray]:
    """Map all epochs and states in one pass; return the subject map of every state."""
    network, movies = build(Architecture(**CAM, dropout=0.0), seed=0), movies_of(CAM, CAM_EPOCHS)
    method = GradCam(network, frame_chunk=168)
    method(movies[:4])

    def work():
        sums, counts = np.zeros((3, *method(movies[:4])[0].shape[1:])), np.zeros(3)
        for start in range(0, CAM_EPOCHS, 4):
            maps, probs = method(movies[start : start + 4])
            for one, state in zip(maps, probs.argmax(axis=1), strict=True):
                sums[state] += one
                counts[state] += 1
        means = sums / np.maximum(counts, 1)[:, None, None]
        return upsample(means, CAM["height"], CAM["width"])

    seconds = fastest(work, 1)
    return seconds, work()


def baseline_gradcam(_work: Path) -> tuple[float, np.ndarray]:
    """Map them as published: one pass per state, one epoch a time, all full-size maps kept."""
    _, _, both = published_network(CAM)
    movies = movies_of(CAM, CAM_EPOCHS)[..., None]
    predict = tf.function(lambda x: both(x, training=False))
    predict(movies[:1])

    @tf.function
    def slopes(movie):
        with tf.GradientTape() as tape:
            activation, probs = both(movie, training=False)
            value = tf.reduce_max(probs, axis=1)
        return activation, probs, tape.gradient(value, activation)

    slopes(movies[:1])
    start = CLOCK()
    averages = []
    for state in range(3):
        kept = []
        for movie in movies:
            activation, probs, gradient = (np.asarray(v)[0] for v in slopes(movie[None]))
            if probs.argmax() != state:
                continue
            weights = gradient.mean(axis=(1, 2))
            maps = []
            for frame, weight in zip(activation, weights, strict=True):
                heat = np.zeros(frame.shape[:2], np.float32)
                for channel in range(frame.shape[-1]):
                    heat += frame[..., channel] * weight[channel]
                maps.append(heat)
            maps = np.maximum(np.array(maps), 0)
            maps = (maps - maps.min()) / (maps.max() - maps.min() + 1e-7)
            kept.append(resize(maps, (len(maps), CAM["height"], CAM["width"]), order=1))
        averages.append(
            np.mean(kept, axis=(0, 1)) if kept else np.zeros((CAM["height"], CAM["width"]))
        )
    return CLOCK() - start, np.array(averages)


def measure(name: str, work: Path, *, onednn: bool = True) -> tuple[float, float, np.ndarray]:
    """Run function ``name`` in its own process; return seconds, peak memory in MB, numbers."""
    out = work / f"{name}.npz"
    command = [sys.executable, str(FOLDER / "benchmark.py"), "--child", name, "--work", str(work)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["TF_ENABLE_ONEDNN_OPTS"] = str(int(onednn))
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    with np.load(out) as held:
        return float(held["seconds"]), float(held["mb"]), held["numbers"]


def run_child(name: str, work: Path) -> None:
    """Measure one function and leave its result in ``work``."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, numbers = globals()[name](work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez(work / f"{name}.npz", seconds=seconds, mb=(peak - before) / 1024, numbers=numbers)


def run_row(name: str, work: Path) -> dict:
    """Measure one row: ours and, where there is one, the baseline."""
    own = "forward" if name == "published" else name  # the same work in another environment
    ours_s, ours_mb, ours = measure(f"ours_{own}", work)
    row = {"what": WHAT[name], "ours_s": ours_s, "baseline_s": None, "ratio": None}
    row.update(ours_mb=ours_mb, baseline_mb=None, target=TARGETS[name])
    if name == "reading":
        row["what"] += f": {1 / ours_s:.0f} epochs per CPU second"
        return row
    onednn = name != "published"
    baseline_s, baseline_mb, baseline = measure(f"baseline_{own}", work, onednn=onednn)
    np.testing.assert_allclose(ours, baseline, atol=TOLERANCE.get(name, 1e-5))
    return {
        **row,
        "baseline_s": baseline_s,
        "ratio": baseline_s / ours_s,
        "baseline_mb": baseline_mb,
    }


def run_rows(names: list[str], out: Path) -> None:
    """Measure the rows ``names``, print each, and write them with the older rows to ``out``."""
    held = read_json(out, remedy="remove it")["rows"] if out.is_file() else []
    # Rows of --only replace their like; those of an older benchmark are dropped.
    rows = {name: row for row in held if (name := row["what"].split(":")[0]) in WHAT.values()}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row = run_row(name, Path(folder))
            rows[row["what"].split(":")[0]] = row
            numbers = "  ".join(f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
            print(f"{row['what']}: {numbers}  target {row['target']}", flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores; CPU seconds of all threads"
    write_json(out, {"machine": machine, "rows": list(rows.values())})
