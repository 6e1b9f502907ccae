"""A thousand damaged copies of a file for every reader: one-line error, equal data, no surprise.

Nothing but the innvestigate worker reads ``.npz``, and that is a file of the same process tree.
"""

import contextlib
import functools
import json
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import tiny_split
from common.files import InputError
from inputs.dicom_io import read_frames
from inputs.echonet import read_file_list
from inputs.published_files import checked, read_pickle
from inputs.utils import (
    check_finite,
    load_movie,
    read_classes,
    read_classmap,
    read_split,
    read_stats,
)
from inputs.video import read_video
from little import texture, write_dicom
from published import fill
from test_predict import write_published

pytestmark = pytest.mark.slow
COPIES = 1000
HANG_S = 30  # a reader that takes longer is stopped and counts as hung
MEMORY_MB = 300  # growth of the process over one reader's campaign
PICKLES = Path(__file__).resolve().parent / "fixtures" / "reference_pickles"
PATIENTS = [f"p{k:02d}" for k in range(12)]
# What no file of the kind can tell: a table cut at the end of a line is a shorter table.
TELLS_NO_LENGTH = ("class table", "split table", "FileList.csv")
# A name without a checksum may turn into another one, and a line into a part of a field.
TELLS_NO_NAMES = (*TELLS_NO_LENGTH, "classmap", "pickled table")


def write_dicoms(path, **how):
    write_dicom(path, texture(6, 32, 40), "p", **how)


def write_rle(path):
    import pydicom
    from pydicom.uid import RLELossless

    write_dicoms(path)
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)


def read_dicom(path):
    """Return the frames; a file that warns of itself may have lost some."""
    frames, info = read_frames(path)
    return frames, bool(info["warnings"])


def write_table(path, values):
    lines = [f"{patient},{values[k % len(values)]}" for k, patient in enumerate(PATIENTS)]
    path.write_text("\n".join(["id,class", *lines, ""]))


def write_file_list(path):
    lines = [f"0X{k:04X},{40 + k}.25,{('TRAIN', 'VAL', 'TEST')[k % 3]}" for k in range(12)]
    path.write_text("\n".join(["FileName,EF,Split", *lines, ""]))


def write_avi(path):
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (48, 32))
    for frame in texture(8, 32, 48):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()


def read_clip_values(path):
    movie = np.array(load_movie(path))  # a copy: the map follows the file that is overwritten
    check_finite(path, movie)
    return movie


def write_movie(path):
    np.save(path, np.random.default_rng(0).standard_normal((6, 8, 9, 2)).astype(np.float32))


def write_stats(path):
    options = {"crop": "none", "grey": "luma", "resample_fps": 0.0, "nrows": 112, "ncols": 112}
    stats = {"mean": 0.21, "std": 0.17, "n_movies": 9, "files": "all", "options": options}
    path.write_text(json.dumps(stats, indent=1))


@functools.cache
def grey_model():
    from network.model_zoo import single_stream

    return single_stream("grey", input_size=tiny_split.SIZE, depth=18, width=2)


def values(model):
    """Return all weights of a model as one vector."""
    return np.concatenate([np.ravel(np.asarray(variable)) for variable in model.weights])


def write_weights(path):
    from network.checkpoints import save_weights

    info = {"kind": "grey", "depth": 18, "width": 2, "input_size": list(tiny_split.SIZE)}
    save_weights(fill(grey_model(), 1), path, info)


def read_weights(path):
    from network.checkpoints import load_weights, read_info

    read_info(path)
    load_weights(grey_model(), path)
    return values(grey_model())


def read_published(path):
    from network.published_weights import load_published, published_shape

    published_shape(path, depth=18)
    load_published(grey_model(), path)
    return values(grey_model())


READERS = {  # name: (file, writer, reader)
    "DICOM": ("a.dcm", write_dicoms, read_dicom),
    "DICOM JPEG": ("a.dcm", lambda p: write_dicoms(p, jpeg=True), read_dicom),
    "DICOM RLE": ("a.dcm", write_rle, read_dicom),
    "class table": (
        "REDcap_class.csv",
        lambda p: write_table(p, ("normal", "mild", "moderate", "severe")),
        read_classes,
    ),
    "split table": (
        "split_allocation_0.csv",
        lambda p: write_table(p, ("train", "val", "test")),
        read_split,
    ),
    "FileList.csv": ("FileList.csv", write_file_list, lambda p: read_file_list(p.parent)),
    "movie": ("a.npy", write_movie, read_clip_values),
    "video": ("a.avi", write_avi, lambda p: read_video(p)[0]),
    "classmap": (
        "classmap.json",
        lambda p: p.write_text(json.dumps({f"{x}a": k % 4 for k, x in enumerate(PATIENTS)})),
        lambda p: read_classmap(p.parent),
    ),
    "statistics": ("data_mean_std.json", write_stats, lambda p: flat(read_stats(p))),
    "pickled movie": (
        "a.pkl",
        lambda p: shutil.copy(PICKLES / "stanford0002a.pkl", p),
        lambda p: checked(p, read_pickle(p)),
    ),
    "pickled table": (
        "a.pkl",
        lambda p: shutil.copy(PICKLES / "classmap.pkl", p),
        lambda p: checked(p, read_pickle(p)),
    ),
    "weights": ("a.weights.h5", write_weights, read_weights),
    "published weights": (
        "a.hdf5",
        lambda p: write_published(fill(grey_model(), 1), p),
        read_published,
    ),
}


def flat(stats):
    return {**stats, "options": json.dumps(stats["options"], sort_keys=True)}


def damaged(data, kept, flips):
    """Return ``data`` cut to ``kept`` of its length and with single bits flipped."""
    data = bytearray(data[: int(len(data) * kept)])
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    return bytes(data)


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


def equal(value, expected):
    if isinstance(expected, np.ndarray):
        return value.shape == expected.shape and np.array_equal(value, expected)
    return value == expected


def judge(name, value, expected, *, cut, warned):
    """Return what became of a copy that was read, or raise AssertionError."""
    if equal(value, expected):
        return "equal"
    if warned:
        return "warned"
    if isinstance(expected, np.ndarray):
        # Without a checksum a flipped pixel cannot be seen; a lost frame must be.
        assert not cut
        assert value.shape == expected.shape
        return "other values"
    if cut:
        assert name in TELLS_NO_LENGTH
        assert value.items() <= expected.items()
        return "shorter"
    assert len(value) == len(expected) or name in TELLS_NO_NAMES
    return "other values" if len(value) == len(expected) else "shorter"


@pytest.mark.parametrize("name", READERS)
def test_thousand_damaged_files(name, tmp_path, record_testsuite_property):
    file, write, read = READERS[name]
    path = tmp_path / file
    write(path)
    whole, expected = path.read_bytes(), read(path)
    if name.startswith("DICOM"):
        expected, _ = expected
    random = np.random.default_rng(0)
    counts, bad = {}, []
    longest, memory = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for copy in range(COPIES):
        cut = copy % 2 == 0
        kept = random.random() if cut else 1
        flips = [] if cut else [(random.random(), random.integers(8)) for _ in range(copy % 3 + 1)]
        path.write_bytes(damaged(whole, kept, flips))
        start, warned = time.monotonic(), False
        try:
            with time_limit():
                value = read(path)
            if name.startswith("DICOM"):
                value, warned = value
            outcome = judge(name, value, expected, cut=cut, warned=warned)
        except InputError as error:
            outcome = "refused"
            if "\n" in str(error) or path.name not in str(error):
                bad.append(f"copy {copy}: {str(error)[:300]!r}")
        except Exception as error:
            bad.append(f"copy {copy}: {type(error).__name__}: {str(error)[:300]}")
            outcome = "bad"
        longest = max(longest, time.monotonic() - start)
        counts[outcome] = counts.get(outcome, 0) + 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    row = f"{name}: {counts}, longest {longest:.2f} s, memory +{grown:.0f} MB"
    record_testsuite_property(name, row)
    print(row)
    assert not bad, "\n".join(bad[:20])
    assert grown < MEMORY_MB
