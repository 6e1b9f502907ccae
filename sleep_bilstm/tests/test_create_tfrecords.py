"""Recordings to shards: labels, lengths, formats, index, faults."""

import contextlib
import json
import logging

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from check_data import main as check_data
from common.files import InputError
from create_tfrecords import main
from inputs.mat_writer import write_recording
from inputs.preprocess import BlockAverage, frames_of, temporal_zscore, to_frames
from inputs.recordings import Recording, map_labels
from inputs.shards import find_records, read_epoch, read_shard_index
from inputs.storage import Conversion, Storage
from inputs.tfrecords import create, epochs_of, serialise
from scripts import run_scripts

NAME = "200128-L2-fc7-GSR_Ben.mat"


def movie_of(epochs, size=16, seed=0):
    return np.random.default_rng(seed).normal(size=(epochs, 168, size, size)).astype(np.float32)


def write(folder, codes, *, name=NAME, movie=None, mask=None):
    movie = movie_of(len(codes)) if movie is None else movie
    mask = np.ones(movie.shape[2:], bool) if mask is None else mask
    write_recording(folder / name, movie, mask, codes)
    return folder / name


def test_labels_stay_with_their_epochs(tmp_path):
    path = write(tmp_path, [0, 0, 2, 1, 3])
    with Recording(path) as recording:
        epochs = list(epochs_of(recording, Storage()))
        raw = [recording.read(epoch) for epoch in (0, 1, 3, 4)]
    assert [label for _, label, *_ in epochs] == [0, 0, 1, 2]
    assert [epoch for epoch, *_ in epochs] == [0, 1, 3, 4]
    for (*_, signals), wanted in zip(epochs, raw, strict=True):
        np.testing.assert_array_equal(signals, temporal_zscore(wanted)[0])


def test_pixels_keep_their_place(tmp_path):
    movie = movie_of(2)
    mask = np.random.default_rng(1).random((16, 16)) > 0.4
    path = write(tmp_path, [0, 1], movie=movie, mask=mask)
    with Recording(path) as recording:
        np.testing.assert_array_equal(to_frames(recording.read(1), mask), movie[1] * mask)
    old = tmp_path / "v5" / NAME
    old.parent.mkdir()
    data = {"data": movie.transpose(2, 3, 1, 0), "xform_mask": mask.astype(np.uint8)}
    scipy.io.savemat(old, {**data, "scoringindex_file": np.array([0, 1])})
    with Recording(old) as recording:
        np.testing.assert_array_equal(to_frames(recording.read(1), mask), movie[1] * mask)
        assert recording.raw_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("seconds", "frames"), [(1, 16), (9, 151), (10, 168), (15, 252), (20, 336)]
)
def test_frames_of_a_length(seconds, frames):
    assert frames_of(seconds) == frames


def test_lengths_at_the_ends_of_a_recording(tmp_path):
    path = write(tmp_path, [0, 1, 2, 1], movie=movie_of(4) + 5)
    with Recording(path) as recording:
        raw = [recording.read(epoch) for epoch in range(4)]
        inputs = {
            e: s for e, *_, s in epochs_of(recording, Storage(seconds=20, normalization="none"))
        }
        dropped = [e for e, *_ in epochs_of(recording, Storage(seconds=20, edge="drop"))]
        no_artifact = Storage(seconds=20, normalization="none", artifact_neighbours="zeros")
        without = {e: s for e, *_, s in epochs_of(recording, no_artifact)}
        mirror = Storage(seconds=20, normalization="none", edge="reflect")
        reflected = {e: s for e, *_, s in epochs_of(recording, mirror)}
    assert all(signals.shape[0] == 336 for signals in inputs.values())
    assert not inputs[0][:84].any()
    assert not inputs[3][-84:].any()
    # The neighbour of epoch 1 is the artifact epoch 2, in recording order.
    np.testing.assert_array_equal(inputs[1], np.concatenate([raw[0][-84:], raw[1], raw[2][:84]]))
    assert not without[1][-84:].any()
    np.testing.assert_array_equal(reflected[0][:84], raw[0][:84][::-1])
    np.testing.assert_array_equal(reflected[3][-84:], raw[3][-84:][::-1])
    assert dropped == [1]


def test_single_epoch(tmp_path):
    path = write(tmp_path, [3])
    with Recording(path) as recording:
        assert recording.shape == (1, 16, 16)
        ((epoch, label, _, signals),) = epochs_of(recording, Storage(seconds=20))
    assert (epoch, label, signals.shape[0]) == (0, 2, 336)


def test_single_epoch_as_matlab_stores_it(tmp_path):
    """MATLAB drops the last axis of a single epoch: 3-D in both versions of the file."""
    movie = movie_of(1)
    path = write(tmp_path, [3], movie=movie)
    with h5py.File(path, "r+") as file:
        frames = file["data"][0]
        del file["data"]
        file["data"] = frames
    old = tmp_path / "v5" / NAME
    old.parent.mkdir()
    data = {"data": movie[0].transpose(1, 2, 0), "xform_mask": np.ones((16, 16))}
    scipy.io.savemat(old, {**data, "scoringindex_file": 3.0})
    for file in (path, old):
        with Recording(file) as recording:
            assert recording.shape == (1, 16, 16)
            ((_, label, mask, signals),) = epochs_of(recording, Storage(normalization="none"))
        assert label == 2
        np.testing.assert_array_equal(to_frames(signals, mask), movie[0])


def test_block_average_ignores_what_is_outside():
    mask = np.ones((4, 4), bool)
    mask[0, :3] = False  # the first block keeps 2 of 4 pixels, the second 3 of 4
    mask[2:, 2:] = [[True, False], [False, False]]  # 1 of 4: the block is dropped
    average = BlockAverage(mask, 2)
    assert average.mask.tolist() == [[True, True], [True, False]]
    signals = np.arange(mask.sum(), dtype=np.float32)[None]
    frame = to_frames(signals, mask)[0]
    blocks = average(signals)[0]
    assert blocks[0] == frame[1, :2].mean()
    assert blocks[1] == pytest.approx(frame[:2, 2:][mask[:2, 2:]].mean())
    signals[0, 0] = np.nan
    assert average(signals)[0, 1] == pytest.approx(frame[1, 2:].mean())


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 0),
        ({"layout": "dense"}, 0),
        ({"compression": "gzip"}, 0),
        ({"dtype": "float16"}, 4e-3),
        ({"dtype": "float16", "layout": "dense", "compression": "gzip"}, 4e-3),
    ],
)
def test_storage_forms_hold_the_same(tmp_path, changes, tolerance):
    raw, out = tmp_path / "raw", tmp_path / "out"
    mask = np.ones((16, 16), bool)
    mask[:3] = False
    write(raw, [0, 3, 2, 1], mask=mask)
    create(raw, out, Storage(**changes))
    records = find_records(out)
    assert [r.label for r in records] == [0, 2, 1]
    assert [(r.epoch, r.kept) for r in records] == [(0, 0), (1, 1), (3, 2)]
    with Recording(raw / NAME) as recording:
        for record in records:
            wanted = to_frames(temporal_zscore(recording.read(record.epoch))[0], mask)
            np.testing.assert_allclose(read_epoch(record), wanted, atol=tolerance)
    manifest = json.loads((out / "dataset.json").read_text())
    assert manifest["counts"] == {"200128": {"Wakefulness": 1, "NREM": 1, "REM": 1}}


def test_reference_file_and_shard_give_the_same_tensor(tmp_path):
    raw = tmp_path / "raw"
    mask = np.zeros((128, 128), bool)
    mask[40:60, 30:90] = True
    write(raw, [1], movie=movie_of(1, size=128), mask=mask)
    create(raw, tmp_path / "new", Storage())
    create(raw, tmp_path / "old", Storage(reference_format=True))
    (new,), (old,) = find_records(tmp_path / "new"), find_records(tmp_path / "old")
    assert old.path.name == "200128-L2-fc7-GSR_Ben_epoch0.tfrecords"
    assert old.path.stat().st_size == 11_010_115
    assert (old.label, old.frames, old.name) == (new.label, new.frames, new.name)
    np.testing.assert_allclose(read_epoch(old), read_epoch(new), atol=1e-6)


def test_index_is_rebuilt(tfrecords):
    shard = sorted(tfrecords.rglob("*.tfrecord"))[0]
    index_path = shard.with_suffix(".index.json")
    before = index_path.read_text()
    index_path.unlink()
    rebuilt = read_shard_index(shard)
    wanted = json.loads(before)
    index_path.write_text(before)
    for row, old in zip(rebuilt["records"], wanted["records"], strict=True):
        assert row == {key: old[key] for key in row}
    for key in ("bytes", "base", "date", "mouse", "run", "frames", "height", "width"):
        assert rebuilt[key] == wanted[key]


@pytest.mark.parametrize("place", ["header", "signals"])
def test_flipped_bit_of_a_published_file_is_found(tmp_path, place):
    """Published files have no index: the checksums of the TFRecord itself are compared."""
    import tensorflow as tf

    path = tmp_path / "200128-L2-fc7-GSR_Ben_epoch0.tfrecords"
    frames = np.zeros(128 * 128, np.float32)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(serialise({"features": frames, "label": 1}))
    (record,) = find_records(tmp_path)
    assert read_epoch(record).shape == (1, 128, 128)
    data = bytearray(path.read_bytes())
    data[8 if place == "header" else len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_epoch(find_records(tmp_path)[0])


def test_shard_reads_with_tensorflow(tfrecords):
    import tensorflow as tf

    shard = sorted(tfrecords.rglob("*.tfrecord"))[0]
    record = next(r for r in find_records(tfrecords) if r.path == shard and r.kept == 0)
    payload = next(iter(tf.data.TFRecordDataset(str(shard)))).numpy()
    feature = tf.train.Example.FromString(payload).features.feature
    values = np.frombuffer(feature["x"].bytes_list.value[0], "<f4").reshape(-1, record.frames)
    mask = np.unpackbits(np.frombuffer(feature["mask"].bytes_list.value[0], np.uint8)).astype(bool)
    assert feature["label"].int64_list.value[0] == record.label
    np.testing.assert_array_equal(read_epoch(record).reshape(record.frames, -1)[:, mask].T, values)


def test_second_run_resumes_or_refuses(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, [0, 1])
    create(raw, out, Storage())
    shard = next(out.rglob("*.tfrecord"))
    stamp = shard.stat().st_mtime_ns
    with pytest.raises(InputError, match="--resume or --overwrite"):
        create(raw, out, Storage())
    create(raw, out, Storage(), Conversion(resume=True))
    assert shard.stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="another normalization"):
        create(raw, out, Storage(normalization="spatial"), Conversion(resume=True))
    shard.write_bytes(shard.read_bytes()[:-100])
    create(raw, out, Storage(), Conversion(resume=True))
    assert len(find_records(out)) == 2


def mice_of(out):
    return {record.date for record in find_records(out)}


def test_mice_are_matched_exactly_and_sources_are_kept(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    other = NAME.replace("200128", "20012")
    for name in (NAME, other):
        write(raw, [0, 1], name=name)
    flags = ["--data_path", str(raw), "--des_path", str(out), "--mice"]
    main([*flags, "20012"])
    assert mice_of(out) == {"20012"}
    main([*flags, "200128"])
    assert mice_of(out) == {"20012", "200128"}
    manifest = json.loads((out / "dataset.json").read_text())
    assert manifest["sources"] == {n: (raw / n).stat().st_size for n in (other, NAME)}
    assert set(manifest["counts"]) == {"20012", "200128"}
    next((out / "20012").glob("*.tfrecord")).unlink()
    main([*flags, "200128", "--resume"])
    assert list(json.loads((out / "dataset.json").read_text())["sources"]) == [NAME]


def test_overwrite_replaces(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, [0, 1])
    flags = ["--data_path", str(raw), "--des_path", str(out)]
    main(flags)
    write(raw, [3, 3, 3], movie=movie_of(3, seed=1))
    main([*flags, "--overwrite"])
    records = find_records(out)
    assert [record.label for record in records] == [2, 2, 2]
    wanted = temporal_zscore(movie_of(3, seed=1)[1].reshape(168, -1))[0]
    np.testing.assert_array_equal(read_epoch(records[1]).reshape(168, -1), wanted)


def refused(capsys, said, *flags, script=main):
    with pytest.raises(SystemExit) as stop:
        script(list(map(str, flags)))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_check_data_shows_no_table_of_nothing(tmp_path, capsys):
    path = tmp_path / "raw" / NAME
    path.parent.mkdir()
    path.write_bytes(b"no recording")
    table = tmp_path / "table.csv"
    with pytest.raises(SystemExit) as stop:
        check_data(["--data_path", str(path.parent), "--table", str(table)])
    shown = capsys.readouterr()
    assert stop.value.code == 2
    assert shown.out == ""
    assert f"{path}: cannot be read as a MATLAB file" in shown.err
    assert not table.exists()


def test_frames_of_two_sizes_are_refused(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for run in (1, 2):
        write(raw, [0, 1], name=NAME.replace("fc7", f"fc{run}"))
    large = write(raw, [0, 1], movie=movie_of(2, size=32))
    said = f"{large}: frames are 32 x 32 pixels, those of most recordings here 16 x 16"
    refused(capsys, said, "--data_path", raw, script=check_data)
    refused(capsys, said, "--data_path", raw, "--des_path", out)
    assert not out.exists()
    main(["--data_path", str(raw), "--des_path", str(out), "--pattern", "*fc1*"])
    before = (out / "dataset.json").read_bytes()
    only = ["--data_path", raw, "--des_path", out, "--pattern", "*fc7*"]
    refused(capsys, "made with another height, width", *only)
    assert (out / "dataset.json").read_bytes() == before


def test_reference_format_needs_full_frames(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, [0], movie=np.zeros((1, 168, 128, 128), np.float32))
    flags = ["--data_path", raw, "--des_path", out, "--reference_format", "--downsample", "2"]
    refused(
        capsys, "--reference_format holds frames of 128 x 128 pixels, these are 64 x 64", *flags
    )
    write(raw, [0, 1])
    refused(capsys, "these are 16 x 16 after --downsample 1", *flags[:-2])
    assert not out.exists()


def test_formats_are_not_mixed(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, [0], movie=np.zeros((1, 168, 128, 128), np.float32))
    flags = ["--data_path", raw, "--des_path", out]
    main(list(map(str, [*flags, "--reference_format"])))
    refused(capsys, "_epoch0.tfrecords: is of the other format", *flags)
    assert len(find_records(out)) == 1


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_manifest_is_one_line(tmp_path, capsys, text):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, [0, 1])
    out.mkdir()
    (out / "dataset.json").write_text(text)
    flags = ["--data_path", raw, "--des_path", out]
    refused(capsys, "dataset.json: is no readable JSON", *flags)
    assert [path.name for path in out.iterdir()] == ["dataset.json"]
    refused(capsys, "workers is 0: expected 1 or more", *flags, "--workers", "0")


def test_run_as_a_user_does(tmp_path):
    write(tmp_path / "raw", [0, 1, 2])
    lengths = (("create_tfrecords.py", 168), ("create_tfrecords_over_10s.py", 336))
    calls = [(name, ["--data_path", "raw", "--des_path", name]) for name, _ in lengths]
    *_, shown = run_scripts([*calls, ("check_data.py", ["--data_path", "raw"])], tmp_path)
    for name, frames in lengths:
        assert [r.frames for r in find_records(tmp_path / name)] == [frames, frames]
    assert NAME in shown


def break_file(folder, how):
    """Write a recording with one fault; return its path."""
    movie, codes, mask = movie_of(3), [0, 1, 3], None
    if how == "127 x 128":
        movie = np.zeros((3, 168, 16, 15), np.float32)
        mask = np.ones((16, 15), bool)
    elif how == "labels":
        codes = [0, 1, 3, 0]
    elif how == "code 7":
        codes = [0, 7, 3]
    elif how == "mask is empty":
        mask = np.zeros((16, 16), bool)
    path = write(folder, codes, movie=movie, mask=mask)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if how == "data is missing":
        scipy.io.savemat(path, {"xform_mask": np.ones((16, 16)), "scoringindex_file": codes})
    return path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("127 x 128", "data is 16 x 15 x 168 x 3; expected 128 x 128"),
        ("labels", "has 4 labels, data has 3 epochs"),
        ("code 7", "epoch 1 has the unknown code 7"),
        ("mask is empty", "mask is empty"),
        ("truncated", "truncated"),
        ("data is missing", "variable data is missing"),
    ],
)
def test_bad_recordings(tmp_path, capsys, how, said):
    path = break_file(tmp_path / "raw", how)
    for script in (main, check_data):
        flags = ["--data_path", str(tmp_path / "raw")]
        if script is main:
            flags += ["--des_path", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as stop:
            script(flags)
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert str(path) in error
        assert said in error
        assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.tfrecord"))


def test_bad_folders(tmp_path, capsys):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "mouse.mat").write_bytes(b"x")
    for folder, said in (("none", "no such folder"), ("odd", "no recording")):
        with pytest.raises(SystemExit) as stop:
            main(["--data_path", str(tmp_path / folder), "--des_path", str(tmp_path / "out")])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--data_path", "x", "--des_path", "y", "--secnds", "5"])
    assert "did you mean --seconds" in capsys.readouterr().err


def test_epoch_of_nan_is_a_warning(tmp_path, caplog):
    movie = movie_of(2)
    movie[1] = np.nan
    movie[0, 3, 5, 5] = np.inf
    write(tmp_path / "raw", [0, 1], movie=movie)
    with caplog.at_level(logging.WARNING):
        create(tmp_path / "raw", tmp_path / "out", Storage())
    assert "epoch 1 is 100 % NaN" in caplog.text
    assert "epoch 0 has 1 pixels with infinite values" in caplog.text
    first, second = find_records(tmp_path / "out")
    assert not read_epoch(second).any()
    assert not read_epoch(first)[:, 5, 5].any()
    assert np.isfinite(read_epoch(first)).all()


def test_unknown_codes_can_be_dropped(tmp_path):
    path = write(tmp_path, [0, 7, 3])
    with Recording(path) as recording:
        assert map_labels(recording, unknown="drop").tolist() == [0, -1, 2]


FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(cut=st.integers(0, 2_000_000), flips=st.lists(st.integers(0, 4000), max_size=4))
def test_damaged_recordings_never_crash(tmp_path_factory, cut, flips):
    folder = tmp_path_factory.mktemp("fuzz")
    data = bytearray(write(folder, [0, 1, 3]).read_bytes())
    for place in flips:
        data[place % len(data)] ^= 0xFF
    (folder / NAME).write_bytes(data[: max(1, cut % (len(data) + 1))])
    with contextlib.suppress(InputError), Recording(folder / NAME) as recording:
        for epoch in range(recording.shape[0]):
            assert recording.read(epoch).shape == (168, recording.mask.sum())


@FUZZ
@given(cut=st.integers(1, 10**6), flips=st.lists(st.integers(0, 10**6), min_size=0, max_size=4))
def test_damaged_shards_are_refused_or_read_as_written(tmp_path_factory, tfrecords, cut, flips):
    folder = tmp_path_factory.mktemp("fuzz")
    source = sorted(tfrecords.rglob("*.tfrecord"))[0]
    whole = {r.kept: r for r in find_records(tfrecords) if r.path == source}
    data = bytearray(source.read_bytes())
    for place in flips:
        data[place % len(data)] ^= 0xFF
    target = folder / source.name
    target.write_bytes(data[: max(1, cut % (len(data) + 1))])
    if cut % 2:
        index = source.with_suffix(".index.json").read_text()
        target.with_suffix(".index.json").write_text(index)
    with contextlib.suppress(InputError):
        for record in find_records(folder):
            frames = read_epoch(record)
            assert record.label == whole[record.kept].label
            np.testing.assert_array_equal(frames, read_epoch(whole[record.kept]))
