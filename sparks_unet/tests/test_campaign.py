"""A thousand damaged copies of a file for every reader: one-line error, equal data, no surprise."""

import json
import resource
import time
import warnings

import numpy as np
import pytest
import torch

from analysis.metrics_tools import movie_counts
from analysis.preds_processing_tools import instances_from_classes
from analysis.run_comparison import read_counts
from analysis.voxel_counts import read_counts as read_pixel_counts
from common.files import InputError
from demo.synthetic import SMALL, DemoSettings, make_movie
from inputs.calibration import Calibration, scaled_post
from inputs.movie_io import read_class_labels, read_event_labels, read_movie, write_stack
from network.checkpoints import load_network, save_state
from runs.training_tools import seeded_model
from settings.config import Params, to_dict, to_ini
from settings.read_config import load_config

pytestmark = pytest.mark.slow
COPIES = 1000
SLOWEST_S = 5  # the longest that one file may take
MEMORY_MB = 300  # growth of the process over one reader's campaign
STACK = np.random.default_rng(0).integers(0, 60000, (5, 8, 9)).astype(np.uint16)
POST = scaled_post(Calibration.of(0.2, 6.8))
NETWORK = Params(unet_steps=1, first_layer_channels=2)


def read_weights(path):
    model = seeded_model(NETWORK, torch.device("cpu"))
    load_network(model, path)
    return torch.cat([value.ravel() for value in model.state_dict().values()]).numpy()


def write_weights(path):
    save_state(path, seeded_model(NETWORK, torch.device("cpu")).state_dict())


def write_ini_file(path):
    params = Params(relative_path="movies", train_ids=("01", "02"), wandb_notes="50 % of it")
    path.write_text(to_ini(params), encoding="utf-8")


def write_counts(path):
    movie, classes, events, _ = make_movie(DemoSettings(**SMALL | {"frames": 40}), 1)
    prediction = instances_from_classes(movie, np.where(classes == 4, 0, classes), POST)
    counts = movie_counts(classes, events, prediction, post=POST, ignore_frames=0)
    path.write_text(json.dumps({"counts": {"01": counts}}))


def write_pixel_counts(path):
    leaf = {"tp": 10, "tn": 200, "fp": 3, "fn": 4}
    path.write_text(json.dumps({"01": {"0.5": {"0": {"0": leaf, "1": leaf}}}}))


def as_text(read):
    return lambda path: np.array([json.dumps(read(path), sort_keys=True)])


READERS = {  # name: (file, writer, reader)
    "TIFF movie": (
        "a.tif",
        lambda p: write_stack(p, STACK, calibration=Calibration(frame_ms=7)),
        lambda p: read_movie(p).data,
    ),
    "TIFF classes": (
        "a.tif",
        lambda p: write_stack(p, (STACK % 5).astype(np.uint8)),
        lambda p: read_class_labels(p, STACK.shape),
    ),
    "TIFF event ids": (
        "a.tif",
        lambda p: write_stack(p, STACK % 40),
        lambda p: read_event_labels(p, STACK.shape),
    ),
    "checkpoint": ("network_000001.pth", write_weights, read_weights),
    "INI": ("a.ini", write_ini_file, as_text(lambda path: to_dict(load_config(path)))),
    "JSON of a run": ("metrics.json", write_counts, as_text(read_counts)),
    "JSON of counts": ("all_results.json", write_pixel_counts, as_text(read_pixel_counts)),
}


@pytest.mark.parametrize("name", READERS)
def test_thousand_damaged_files(name, tmp_path, record_testsuite_property):
    file, write, read = READERS[name]
    path = tmp_path / file
    write(path)
    whole, expected = path.read_bytes(), read(path)
    rng = np.random.default_rng(0)
    counts = {"refused": 0, "equal": 0, "other values": 0}
    longest, memory = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for copy in range(COPIES):
        cut = copy % 2 == 0
        content = bytearray(whole[: int(rng.random() * len(whole))] if cut else whole)
        for _ in range(0 if cut else copy % 3 + 1):
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        fault, start = None, time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = read(path)
        except InputError as error:
            fault = str(error)
        longest = max(longest, time.monotonic() - start)
        if fault is not None:
            assert file in fault
            counts["refused"] += 1
            continue
        same = value.shape == expected.shape and np.array_equal(value, expected)
        counts["equal" if same else "other values"] += 1
        if not same:
            # A flipped pixel or number that stays a number cannot be seen without a checksum; a
            # file that lost its end must never pass, except an INI file, whose keys have defaults.
            assert not cut or name == "INI", copy
            assert value.ndim == expected.ndim, copy
            if value.dtype.kind == "f":
                assert np.isfinite(value).all(), copy
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert longest < SLOWEST_S
    assert grown < MEMORY_MB
    row = f"{name}: {counts}, longest {longest:.2f} s, memory +{grown:.0f} MB"
    record_testsuite_property(name, row)
    print(row)
