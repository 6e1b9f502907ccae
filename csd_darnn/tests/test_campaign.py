"""A thousand damaged copies of a file for every reader: one-line error, equal data, no surprise."""

import contextlib
import json
import resource
import signal
import subprocess
import time

import h5py
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from common.files import InputError, read_json
from inputs.movie_files import read_movie, write_tiff
from inputs.reading import load_recording
from inputs.resizing import convert_csv
from inputs.safe_read import load_tensors
from test_recording import damaged, movie_of

pytestmark = pytest.mark.slow
COPIES = 1000
VIDEOS = ("video", "AVI video", "deep video")
SIZE_TOLD_ONCE = ("JSON", "GIF", *VIDEOS)
HANG_S = 30  # a reader that takes longer is stopped and counts as hung
MEMORY_MB = 300  # growth of the process over one reader's campaign


def write_npz(path):
    np.savez_compressed(path, movie=movie_of("uint16", (5, 8, 9)))


def write_video(path, *options):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt",
               "gray16le", "-s", "48x32", "-r", "10", "-i", "-", *options, str(path)]  # fmt: skip
    frames = movie_of("uint16", (6, 32, 48)).astype("<u2")
    subprocess.run(command, input=frames.tobytes(), check=True)


def write_mp4(path):
    write_video(path, "-c:v", "libx264", "-pix_fmt", "yuv420p")


def write_avi(path):
    write_video(path, "-c:v", "rawvideo", "-pix_fmt", "gray")


def write_deep(path):
    write_video(path, "-c:v", "ffv1", "-level", "3", "-slicecrc", "1", "-pix_fmt", "gray12le")


def write_hdf5(path):
    with h5py.File(path, "w") as out:
        out.create_dataset("movie", data=movie_of("uint16", (5, 8, 9)), compression="gzip")


def read_gray(path):
    return read_movie(path, gray=True)


def write_gif(path):
    frames = [Image.fromarray(frame) for frame in movie_of("uint8", (5, 8, 9))]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def read_tensors(path):
    """Return the tensors of a file as one vector."""
    return torch.cat([value.ravel() for value in load_tensors(path).values()]).numpy()


def write_tensors(path):
    random = torch.Generator().manual_seed(0)
    torch.save({name: torch.randn(4, 3, generator=random) for name in ("encoder", "decoder")}, path)


def read_numbers(path):
    return load_recording(path).values


def read_object(path):
    return np.array([json.dumps(read_json(path))])


def write_object(path):
    path.write_text(json.dumps({"F": 20, "H": 4, "W": 5, "columns": ["0", "1", "target"]}))


READERS = {  # name: (file, writer, reader)
    "TIFF": ("a.tif", lambda p: write_tiff(p, movie_of("uint16", (5, 8, 9))), read_movie),
    "NPY": ("a.npy", lambda p: np.save(p, movie_of("uint16", (5, 8, 9))), read_movie),
    "NPZ": ("a.npz", write_npz, read_movie),
    "GIF": ("a.gif", write_gif, read_movie),
    "HDF5": ("a.h5", write_hdf5, read_movie),
    "video": ("a.mp4", write_mp4, read_gray),
    "AVI video": ("a.avi", write_avi, read_gray),
    "deep video": ("a.mkv", write_deep, read_gray),
    "CSV": ("a.csv", lambda p: convert_csv(movie_of("float32", (4, 2, 3)), p), read_numbers),
    "JSON": ("a.json", write_object, read_object),
    "tensors": ("a.pt", write_tensors, read_tensors),
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


@pytest.mark.parametrize("name", READERS)
def test_thousand_damaged_files(name, tmp_path, record_testsuite_property):
    file, write, read = READERS[name]
    path = tmp_path / file
    write(path)
    whole, expected = path.read_bytes(), read(path)
    random = np.random.default_rng(0)
    counts = {"refused": 0, "equal": 0, "other values": 0}
    longest, memory = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for copy in range(COPIES):
        cut = copy % 2 == 0
        kept = random.random() if cut else 1
        flips = [] if cut else [(random.random(), random.integers(8)) for _ in range(copy % 3 + 1)]
        path.write_bytes(damaged(whole, kept, flips))
        fault, start = None, time.monotonic()
        try:
            with time_limit():
                values = read(path)
        except InputError as error:
            fault = str(error)
        longest = max(longest, time.monotonic() - start)
        if fault is not None:
            assert "\n" not in fault
            assert path.name in fault
            counts["refused"] += 1
            continue
        same = values.shape == expected.shape and np.array_equal(values, expected)
        counts["equal" if same else "other values"] += 1
        if not same:
            # Without a checksum a flipped pixel cannot be seen; a lost frame must be, except where
            # the flip hits the only place that tells the size (SIZE_TOLD_ONCE). A video tells its
            # length only to about one frame.
            lost = len(expected) - len(values)
            assert not cut or lost <= int(name in VIDEOS), copy
            assert cut or name in SIZE_TOLD_ONCE or values.shape == expected.shape, copy
    if name == "deep video":  # FFV1: each picture has a checksum
        assert not counts["other values"]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEMORY_MB
    row = f"{name}: {counts}, longest {longest:.2f} s, memory +{grown:.0f} MB"
    record_testsuite_property(name, row)
    print(row)
