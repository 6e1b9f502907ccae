"""Options shared by the tests of this folder."""

import logging
import os
from pathlib import Path

import pytest

# Quiet TensorFlow; the networks of the tests are tiny, so threads would only wait for each other.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The parity numbers come from TensorFlow 2.7, which computed without oneDNN: its convolutions round
# differently, enough to move single gradients across the kinks of LeakyReLU.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent.name


def pytest_addoption(parser):
    # pytest has a switch --fixtures of its own (its other name, --funcargs, stays): take the name.
    parser._anonymous._arggroup.conflict_handler = "resolve"
    parser.addoption(
        "--fixtures", default=str(TESTS / "fixtures"), help="folder of parity fixtures"
    )
    parser.addoption("--real", default=None, help="folder with the real data files")


@pytest.fixture(scope="session")
def real_dir(request):
    """Folder of real data; a test that needs it is skipped, with the reason, when it is absent."""
    given = request.config.getoption("--real")
    folder = Path(given) if given else TESTS.parents[1] / "data" / FOLDER / "real"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: pass --real DIR")
    return folder


def pytest_collection_finish(session):
    """Give TensorFlow a second CPU before it starts, when a test asks for two devices."""
    if any("two_devices" in getattr(item, "fixturenames", ()) for item in session.items):
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, parts)


@pytest.fixture(autouse=True)
def logging_ends_with_its_test():
    """Take off the handler that a main() binds to the stdout of its own test, closed afterwards."""
    yield
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def two_devices():
    """Names of two logical CPUs."""
    return ["CPU:0", "CPU:1"]


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Folder with four synthetic mice of 24 epochs, 16 x 16 pixels."""
    from demo.synthetic import Plan, make_data_set

    out = tmp_path_factory.mktemp("recordings")
    plan = Plan(mice=4, minutes=4, epochs_per_run=12, size=16, snr=2.0, rem_boost=0.7, seed=3)
    make_data_set(out, plan)
    return out


@pytest.fixture(scope="session")
def tfrecords(recordings, tmp_path_factory):
    """Folder with the shards of ``recordings`` and a mouse split beside them."""
    from common.files import write_json
    from inputs.storage import Storage
    from inputs.tfrecords import create

    out = tmp_path_factory.mktemp("tfrecords")
    create(recordings, out, Storage())
    split = {"train": ["990101", "990102"], "val": ["990103"], "test": ["990104"]}
    write_json(out / "split.json", split)
    return out


TINY = {"num_filters": 4, "num_blocks": 2, "num_rnn_units": 4, "num_frames": 24}


@pytest.fixture(scope="session")
def tiny_flags(tfrecords):
    """Flags of a network that trains in seconds, on the mouse split."""
    flags = ["--data_path", str(tfrecords), "--split_file", str(tfrecords / "split.json")]
    flags += ["--split", "mouse", "--num_epochs", "1", "--lr_init", "3e-3", "--device", "cpu"]
    return flags + [part for key, value in TINY.items() for part in (f"--{key}", str(value))]


@pytest.fixture(scope="session")
def trained(tiny_flags, tmp_path_factory):
    """Run folder of a network trained through main.py."""
    from main import main

    out = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["--mode", "train", *tiny_flags, "--model_savedir", str(out), "--tensorboard"]) == 0
    return out
