"""A thousand damaged copies of a file for every reader: one-line error, equal data, no surprise."""

import contextlib
import json
import resource
import signal
import time

import h5py
import numpy as np
import pytest
import scipy.io
import yaml

from analysis.atlas import PARCELS, read_atlas
from common.files import InputError, write_json
from inputs.dataloader_sleep import read_mouse_split
from inputs.mat_writer import write_recording
from inputs.preprocess import to_frames
from inputs.recordings import Recording, map_labels
from inputs.shards import read_epoch, reference_record, shard_records
from inputs.tfrecords import serialise
from network.checkpoints import load_training_state, load_weights, save_training_state, save_weights
from settings import read_config_file

pytestmark = pytest.mark.slow
COPIES = 1000
HANG_S = 30  # a reader that takes longer is stopped and counts as hung
MEMORY_MB = 300  # growth of the process over one reader's campaign
CUT_UNSEEN = ("YAML",)  # a YAML file cut after a line is a valid file with fewer settings
STEM = "990101-S1-fc1-synthetic"


def movie_and_mask():
    movie = np.random.default_rng(0).normal(size=(2, 168, 16, 16)).astype(np.float32)
    mask = np.zeros((16, 16), bool)
    mask[3:9, 4:12] = True
    return movie, mask


def write_mat73(path):
    write_recording(path, *movie_and_mask(), [0, 3])


def write_mat5(path):
    movie, mask = movie_and_mask()
    held = {"data": movie.transpose(2, 3, 1, 0), "xform_mask": mask.astype(float)}
    scipy.io.savemat(path, held | {"scoringindex_file": [[0.0], [3.0]]}, do_compression=True)


def read_recording(path):
    with Recording(path) as recording:
        labels = map_labels(recording)
        frames = [to_frames(recording.read(e), recording.mask) for e in range(len(labels))]
    return [np.stack(frames), labels]


def read_shard(path):
    shard = path if path.suffix == ".tfrecord" else path.with_name(f"{STEM}.tfrecord")
    records = shard_records(shard)
    return [np.stack([read_epoch(r) for r in records]), np.array([r.label for r in records])]


def read_shard_alone(path):
    path.with_suffix(".index.json").unlink(missing_ok=True)
    return read_shard(path)


def write_published(path):
    import tensorflow as tf

    frames = np.random.default_rng(0).normal(size=128 * 128 * 2).astype(np.float32)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(serialise({"features": frames, "label": 1}))


def read_published(path):
    record = reference_record(path)
    return [read_epoch(record), np.array([record.label])]


def write_atlas(path):
    parcels = np.random.default_rng(0).integers(0, PARCELS + 1, (16, 16))
    with h5py.File(path, "w") as file:
        file["AtlasSeeds"], file["parcelisbrain"] = parcels.astype(float), (parcels > 0) * 1.0
        for i in range(PARCELS):
            file[f"#refs#/{i}"] = np.frombuffer(f"V{i} L".encode("utf-16-le"), np.uint16)
        names = [file[f"#refs#/{i}"].ref for i in range(PARCELS)]
        file.create_dataset("parcelnames", data=names, dtype=h5py.ref_dtype)


def read_parcels(path):
    atlas = read_atlas(path)
    return [atlas.parcels, atlas.mask, np.array(len(atlas.names))]


def as_text(held):
    return [np.array(json.dumps(held, sort_keys=True, default=str))]


SETTINGS = {"num_rnn_units": 32, "lr_init": 0.5, "hemispheric": True, "loss": "focal"}
SPLIT = {"train": ["990101", 990102], "val": ["990103"], "test": "990104"}
READERS = {  # name: (file, writer, reader); None: written by the fixtures below
    "MAT 5": ("200128-L2-fc7-x.mat", write_mat5, read_recording),
    "MAT 7.3": ("200128-L2-fc7-x.mat", write_mat73, read_recording),
    "shard": (f"{STEM}.tfrecord", None, read_shard),
    "shard, no index": (f"{STEM}.tfrecord", None, read_shard_alone),
    "shard index": (f"{STEM}.index.json", None, read_shard),
    "published": (f"{STEM}_epoch0.tfrecords", write_published, read_published),
    "atlas": ("atlas.mat", write_atlas, read_parcels),
    "split": (
        "split.json",
        lambda path: write_json(path, SPLIT),
        lambda path: as_text(vars(read_mouse_split(path))),
    ),
    "JSON": (
        "a.json",
        lambda path: write_json(path, SETTINGS),
        lambda path: as_text(read_config_file(path)),
    ),
    "YAML": (
        "a.yml",
        lambda path: path.write_text(yaml.safe_dump(SETTINGS)),
        lambda path: as_text(read_config_file(path)),
    ),
}


@contextlib.contextmanager
def time_limit():
    def stop(number, frame):
        raise TimeoutError(f"no answer within {HANG_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damage(whole, copy, random):
    """Return a cut copy (even numbers) or one with 1 to 3 flipped bits."""
    if copy % 2 == 0:
        return whole[: int(random.random() * len(whole))]
    data = bytearray(whole)
    for _ in range(copy % 3 + 1):
        data[int(random.random() * len(data))] ^= 1 << random.integers(8)
    return bytes(data)


def campaign(name, path, read):
    """Read ``COPIES`` damaged copies of ``path``; print one row."""
    whole, expected = path.read_bytes(), read(path)
    random = np.random.default_rng(0)
    counts = {"refused": 0, "equal": 0, "other values": 0}
    longest, memory = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for copy in range(COPIES):
        path.write_bytes(damage(whole, copy, random))
        fault, start = None, time.monotonic()
        try:
            with time_limit():
                values = read(path)
        except InputError as error:
            fault = " ".join(str(error).split())  # files.one_line_faults does the same
        longest = max(longest, time.monotonic() - start)
        if fault is not None:
            assert path.name.split(".")[0] in fault, copy
            counts["refused"] += 1
            continue
        pairs = list(zip(values, expected, strict=True))
        same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
        counts["equal" if same else "other values"] += 1
        if not same:
            assert copy % 2 or name in CUT_UNSEEN, f"copy {copy} is cut and gives other data"
            assert [a.shape for a, _ in pairs] == [b.shape for _, b in pairs], copy
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEMORY_MB
    print(f"{name}: {counts}, longest {longest:.2f} s, memory +{grown:.0f} MB")


@pytest.mark.parametrize("name", READERS)
def test_thousand_damaged_files(name, tmp_path):
    file, write, read = READERS[name]
    if write is None:
        from inputs.storage import Storage
        from inputs.tfrecords import create

        write_mat73(tmp_path / "raw" / f"{STEM}.mat")
        create(tmp_path / "raw", tmp_path / "out", Storage())
        for suffix in (".tfrecord", ".index.json"):
            (made,) = (tmp_path / "out" / "990101").glob(f"*{suffix}")
            made.rename(tmp_path / f"{STEM}{suffix}")
    else:
        write(tmp_path / file)
    campaign(name, tmp_path / file, read)


@pytest.fixture(scope="module")
def network():
    from network.model_attention_bilstm import Architecture, build
    from runs.train import Training, compile_network

    shape = {"num_frames": 4, "height": 16, "width": 16, "num_filters": 2, "num_blocks": 2}
    built = build(Architecture(**shape, num_rnn_units=2), seed=0)
    return built, compile_network(built, Training())


@pytest.mark.parametrize("name", ["weights", "training state"])
def test_thousand_damaged_checkpoints(name, network, tmp_path):
    built, optimizer = network

    def read_weights(path):
        load_weights(built, path)
        return [v.numpy().copy() for v in built.model.weights]

    def read_state(path):
        record = load_training_state(path, built, optimizer)
        arrays = [v.numpy().copy() for v in (*built.model.variables, *optimizer.variables)]
        return [*arrays, *as_text(record)]

    if name == "weights":
        path, read = tmp_path / "best.weights.h5", read_weights
        save_weights(built, path)
    else:
        path, read = tmp_path / "training_state.h5", read_state
        save_training_state(path, built, optimizer, {"history": [], "best": {"epoch": 0}})
    campaign(name, path, read)
