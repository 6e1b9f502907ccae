"""Epochs of any chunk layout: the same values, and every chunk is inflated once."""

import h5py
import numpy as np
import pytest
import scipy.io

from create_tfrecords import main as create_tfrecords
from inputs.frames import EpochReader, tile_shape
from inputs.mat_writer import write_recording
from inputs.recordings import Recording
from inputs.states import FRAMES_PER_EPOCH

SHAPE = (5, 168, 16, 16)  # epochs, frames, columns, rows
BUDGET = 100_000  # bytes: an epoch takes 172 kB


@pytest.fixture(scope="module")
def movie():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def mask():
    mask = np.random.default_rng(1).random((16, 16)) > 0.4
    mask[:5] = False  # a whole tile may lie outside the brain
    return mask


@pytest.mark.parametrize("kind", ["f4", "f8", "u2"])
@pytest.mark.parametrize(
    "chunks",
    [
        None,
        (1, 168, 16, 16),
        (5, 168, 16, 3),
        (5, 1, 16, 16),
        (2, 50, 5, 7),
        (3, 168, 16, 16),
        (5, 168, 1, 1),
    ],
)
@pytest.mark.parametrize("budget", [BUDGET, 10**9])
def test_values_of_any_layout(tmp_path, movie, mask, chunks, kind, budget):
    data = (1000 + 100 * movie).astype(kind)
    flat = np.flatnonzero(mask)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        held = file.create_dataset("data", data=data, chunks=chunks)
        reader = EpochReader(held, mask, spool_dir=tmp_path, budget=budget)
        for epoch in (0, 1, 2, 3, 4, 1):
            wanted = data[epoch].swapaxes(1, 2).reshape(168, -1)[:, flat].astype(np.float32)
            np.testing.assert_array_equal(reader.read(epoch), wanted)
        reader.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("chunks", [(5, 168, 16, 3), (2, 50, 5, 7), (5, 168, 1, 1)])
def test_every_chunk_is_inflated_once(tmp_path, movie, mask, chunks, monkeypatch):
    """Reads are counted per chunk: what is selected of the file never meets a chunk twice."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        held = file.create_dataset("data", data=movie, chunks=chunks)
        reader, seen = EpochReader(held, mask, budget=BUDGET), []

        class Watched:
            shape, ndim, dtype, chunks = held.shape, 4, held.dtype, held.chunks

            def __getitem__(self, key):
                key = key if isinstance(key, tuple) else (key,)
                key += (slice(None),) * (4 - len(key))
                starts = [k.indices(n)[:2] for k, n in zip(key, held.shape, strict=True)]
                sizes = held.chunks
                grids = [range(a // c, -(-b // c)) for (a, b), c in zip(starts, sizes, strict=True)]
                seen.extend(np.stack(np.meshgrid(*grids), -1).reshape(-1, 4).tolist())
                return held[key]

        reader._data = Watched()
        for epoch in range(5):
            reader.read(epoch)
        assert len({tuple(c) for c in seen}) == len(seen)
        reader.close()


def test_tiles_are_whole_chunks_within_the_budget():
    shape, chunks = (95, 168, 128, 128), (95, 168, 128, 3)
    tile = tile_shape(chunks, shape, 4, 192 << 20)
    assert tile == (168, 128, 24)
    assert 95 * np.prod(tile) * 4 <= 192 << 20
    assert tile_shape((95, 1, 1, 1), shape, 4, 192 << 20)[2] % 1 == 0
    assert tile_shape((95, 168, 128, 128), shape, 4, 1) == (168, 128, 128)


def test_recording_reads_a_file_chunked_over_epochs(tmp_path):
    movie = np.random.default_rng(0).normal(size=(3, 168, 16, 16)).astype(np.float32)
    path = tmp_path / "200128-L2-fc1-a.mat"
    write_recording(path, movie, np.ones((16, 16), bool), [0, 1, 3])
    with h5py.File(path, "r+") as file:
        data = file["data"][()]
        del file["data"]
        file.create_dataset("data", data=data, chunks=(3, 21, 16, 16), compression="gzip")
    with Recording(path, spool_dir=tmp_path) as recording:
        for epoch in range(3):
            np.testing.assert_array_equal(recording.read(epoch), movie[epoch].reshape(168, -1))


def recording_with(path, scale=1.0, **more):
    """Write a recording of two epochs of 16 x 16 pixels with further variables."""
    data = scale * np.random.default_rng(0).normal(size=(16, 16, FRAMES_PER_EPOCH, 2))
    held = {"data": data, "xform_mask": np.ones((16, 16)), "scoringindex_file": [[0.0], [1.0]]}
    scipy.io.savemat(path, {**held, **more})
    return path


def test_a_rate_that_contradicts_the_epochs_is_said(tmp_path, caplog):
    name = tmp_path / "200128-M1-fc1-GSR_Ben.mat"
    for rate, said in ((8.4, "168 frames are 20 s"), (0.0, "nan s"), (16.8067, ""), (16.8, "")):
        caplog.clear()
        with Recording(recording_with(name, Frame_rate=rate)):
            pass
        assert said in caplog.text
        assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize("scale", [1e5, 1e-7])
def test_values_that_float16_cannot_hold_are_refused(tmp_path, capsys, scale):
    recording_with(tmp_path / "200128-M1-fc1-GSR_Ben.mat", scale)
    flags = ["--data_path", str(tmp_path), "--des_path", str(tmp_path / "out"), "--dtype=float16"]
    with pytest.raises(SystemExit) as stop:
        create_tfrecords([*flags, "--normalization", "none"])
    assert stop.value.code == 2
    assert "give --dtype float32" in capsys.readouterr().err
    assert not [*tmp_path.rglob("*.tfrecord")]
    flags[3] = str(tmp_path / "scaled")
    create_tfrecords(flags)
