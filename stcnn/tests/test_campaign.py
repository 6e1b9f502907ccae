"""A thousand damaged copies of a file for every reader: one-line error, equal data, no surprise."""

import json
import resource
import shutil
import signal
import time

import imageio_ffmpeg
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from common.files import InputError
from convert_checkpoint import main as convert
from inputs.csv_traces import write_long_csv
from inputs.display import Display
from inputs.nwb_files import write_nwb
from inputs.recordings import read_movies, read_recordings
from inputs.safe_load import read_pickled_history
from inputs.user_movies import UserMovie
from network.checkpoints import load_history, load_model, model_from_config, read_config
from runs import configuration

pytestmark = pytest.mark.slow
COPIES = 1000
HANG_S = 30  # a reader that takes longer is stopped and fails
MEMORY_MB = 300  # growth of the process over one reader's campaign


def session_tree():
    """Return a recording of one neuron, one stimulus, two trials."""
    generator = torch.Generator().manual_seed(0)
    neuron = {
        "traces": torch.rand(2, 40, generator=generator),
        "azi_shift": torch.tensor(1.0),
        "ele_shift": torch.tensor(0.0),
    }
    t_axis = (torch.arange(40) - 20) / 60
    return {"vstim_5": {"t_axis": t_axis, "Hz": torch.tensor(60), "neuron": {7: neuron}}}


def film_tree():
    """Return a stimulus movie."""
    frames = torch.rand(8, 6, 7, generator=torch.Generator().manual_seed(0))
    return {"vstim_5": {"rect_mov": frames, "t_axis": torch.arange(8) / 60}}


def session(path):
    save(path, session_tree())


def film(path):
    save(path, film_tree())


def save(path, tree):
    if path.suffix == ".csv":
        write_long_csv(path, tree)
        return
    if path.suffix == ".nwb":
        pytest.importorskip("pynwb", reason="an extra: requirements-nwb.txt")
        write_nwb(path, session_tree(), film_tree(), identifier="campaign")
        return
    torch.save(tree, path.with_suffix(".pt"))
    if path.suffix != ".pt":
        convert([str(path.with_suffix(".pt")), "--out", str(path.parent)]
                + ["--npz"] * (path.suffix == ".npz"))  # fmt: skip
        path.with_suffix(".pt").unlink()


def read_traces(path):
    data = read_recordings(path.parents[1])
    (kind,) = data.values()
    (stimuli,) = kind.values()
    return [
        array
        for barcode, entry in stimuli.items()
        for uid, neuron in entry["neuron"].items()
        for array in (
            np.array([barcode, uid, neuron["azi_shift"], neuron["ele_shift"]]),
            entry["t_axis"].numpy(),
            neuron["traces"].numpy(),
        )
    ]


def read_films(path):
    return [movie.numpy() for movie in read_movies(path.parent, rate_hz=60).values()]


def read_user_movie(path, rate_hz=60):
    movie = UserMovie(path, rate_hz=rate_hz)
    return [torch.cat(list(movie.pieces(Display(60, 1.0, 0.498, (21, 21))))).numpy()]


def read_images(path):
    return read_user_movie(path.parent)


def write_images(path):
    random = np.random.default_rng(0)
    for name in ("image0.png", path.name):
        pixels = random.integers(0, 255, (9, 12, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(path.with_name(name))


def write_pages(path):
    """Write a TIFF of six pages, or a GIF of six pictures with delays of their own."""
    frames = np.random.default_rng(0).integers(0, 255, (6, 9, 12), dtype=np.uint8)
    if path.suffix == ".tif":
        tifffile.imwrite(path, frames, photometric="minisblack")
        return
    first, *others = map(Image.fromarray, frames)
    delays = [40, 60, 100, 40, 40, 200]
    first.save(path, save_all=True, append_images=others, duration=delays)


def write_array(path):
    movie = np.random.default_rng(0).random((6, 9, 8)).astype(np.float32)
    if path.suffix == ".npy":
        np.save(path, movie)
    else:
        np.savez(path, movie=movie, rate_hz=60.0)


def write_video(path):
    writer = imageio_ffmpeg.write_frames(str(path), (48, 32), fps=30, quality=8)
    writer.send(None)
    for frame in np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8):
        writer.send(frame.tobytes())
    writer.close()


def write_pickle(path):
    path.write_bytes(b"(dp0\nVlc11\np1\n(lp2\nF0.5\naF0.25\nasVlc18\np3\n(lp4\nF1.5\nas.")


def read_pickle(path):
    return [np.array([json.dumps(read_pickled_history(path))])]


def write_history(path):
    np.savez(path, **{"lc11": np.arange(4.0), "epoch/lc11": np.arange(4)})


def read_history(path):
    history, epochs = load_history(path.parent)
    return [np.array([json.dumps([history, epochs])])]


def read_weights(path):
    return [value.numpy() for value in load_model(path).state_dict().values()]


def read_built(path):
    model = model_from_config(read_config(path))
    return [np.array([json.dumps(read_config(path), sort_keys=True)]), *shapes(model)]


def shapes(model):
    return [np.array(value.shape) for value in model.state_dict().values()]


def read_yaml(path):
    return [np.array([json.dumps(configuration.compose_settings([]), sort_keys=True)])]


TRACES, FILM = "ca/lc11/a", "mov/vstim_5"
READERS = {  # name: (file, writer, reader)
    "traces .pt": (f"{TRACES}.pt", session, read_traces),
    "traces .npz": (f"{TRACES}.npz", session, read_traces),
    "traces .safetensors": (f"{TRACES}.safetensors", session, read_traces),
    "traces .csv": (f"{TRACES}.csv", session, read_traces),
    "traces .nwb": (f"{TRACES}.nwb", session, read_traces),
    "movie .nwb": (f"{FILM}.nwb", film, read_films),
    "movie .pt": (f"{FILM}.pt", film, read_films),
    "movie .npz": (f"{FILM}.npz", film, read_films),
    "movie .safetensors": (f"{FILM}.safetensors", film, read_films),
    "array .npy": ("a.npy", write_array, read_user_movie),
    "array .npz": ("a.npz", write_array, read_user_movie),
    "video": ("a.mp4", write_video, read_user_movie),
    "video .mkv": ("a.mkv", write_video, read_user_movie),
    "video .avi": ("a.avi", write_video, read_user_movie),
    "animation .gif": ("a.gif", write_pages, read_user_movie),
    "pages .tif": ("a.tif", write_pages, read_user_movie),
    "image folder": ("images/image1.png", write_images, read_images),
    "history .pkl": ("avg_loss_hist.pkl", write_pickle, read_pickle),
    "history .npz": ("loss_hist.npz", write_history, read_history),
    "checkpoint .pt": ("model_chkpnt_2.pt", None, read_weights),
    "checkpoint .safetensors": ("model_chkpnt_2.safetensors", None, read_weights),
    "config.json": ("config.json", None, read_built),
    "config.yaml": ("conf/config.yaml", None, read_yaml),
}
CHECKSUM = ("traces .pt", "traces .npz", "movie .pt", "movie .npz", "array .npz", "image folder",
            "history .npz", "checkpoint .pt")  # fmt: skip
TEXT = (
    "traces .csv",
    "history .pkl",
    "config.json",
    "config.yaml",
)  # a flipped letter is another text


def damaged(whole, copy, random):
    """Return the bytes cut (even copies) or with one to three flipped bits (odd ones)."""
    if copy % 2 == 0:
        return whole[: int(len(whole) * random.random())]
    data = bytearray(whole)
    for _ in range(copy % 3 + 1):
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
    return bytes(data)


def stop(number, frame):
    raise AssertionError(f"no answer within {HANG_S} s")


@pytest.fixture
def limited_time():
    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_thousand_damaged_files(name, tmp_path, tiny_run, monkeypatch, limited_time, capsys):
    file, write, read = READERS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "config.yaml":
        shutil.copytree(configuration.FOLDER / "conf", path.parent, dirs_exist_ok=True)
        (tmp_path / "demo").mkdir()  # without it a set that is made on first use is refused
        monkeypatch.setattr(configuration, "FOLDER", tmp_path)
    elif write is None:
        shutil.copy(tiny_run / path.name, path)
        if path.name != "config.json":
            shutil.copy(tiny_run / "config.json", tmp_path)
    else:
        write(path)
    whole, expected = path.read_bytes(), read(path)
    random = np.random.default_rng(0)
    counts = {"refused": 0, "equal": 0, "other values": 0}
    longest, memory = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for copy in range(COPIES):
        path.write_bytes(damaged(whole, copy, random))
        signal.alarm(HANG_S)
        begun = time.monotonic()
        try:
            arrays = read(path)
        except InputError:
            counts["refused"] += 1
            continue
        finally:
            longest = max(longest, time.monotonic() - begun)
            signal.alarm(0)
        if len(arrays) == len(expected) and all(map(np.array_equal, arrays, expected)):
            counts["equal"] += 1
            continue
        counts["other values"] += 1
        assert name not in CHECKSUM, f"copy {copy}: changed values were not noticed"
        if name not in TEXT:
            assert copy % 2 == 1, f"copy {copy}: a cut file was read as whole"
            numbers = [array for array in arrays if array.dtype.kind == "f"]
            assert all(np.isfinite(array).all() for array in numbers)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEMORY_MB
    with capsys.disabled():
        print(f"\n{name}: {counts}, longest {longest:.2f} s, memory +{grown:.0f} MB")
