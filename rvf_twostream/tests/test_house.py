"""The folder without demo/: own data run; the published names of scripts are where they were."""

import importlib
import os
import shutil
import subprocess
import sys

import pytest

from little import FOLDER, write_data_set

SHORT = "--nframes 8 --nrows 32 --ncols 32 --depth 18 --width 2 --epoch 1 --val_fraction 0.3"
SHORT += " --test_fraction 0.3 --val_clips 1 --n_sample 1 --nsamples 1 --device cpu"


@pytest.fixture
def copy(tmp_path):
    """A copy of the folder without demo/ and tests/."""
    left_out = shutil.ignore_patterns("demo", "tests", "__pycache__", ".*")
    return shutil.copytree(FOLDER, tmp_path / FOLDER.name, ignore=left_out)


def run(copy, script, *flags):
    command = [sys.executable, script, *map(str, flags)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_own_data_are_prepared_without_the_demo(copy, tmp_path):
    root = write_data_set(tmp_path / "set", rows=64, cols=80)
    run(copy, "preprocess.py", "--root", root, "--nrows", 32, "--ncols", 32)
    assert len(list((root / "processed_dicoms").glob("*.npy"))) == 4


@pytest.mark.slow
def test_a_whole_run_without_the_demo(copy, tmp_path):
    ids = [f"p{k:02d}" for k in range(16)]
    root = write_data_set(tmp_path / "set", ids=ids, rows=64, cols=80)
    done = run(copy, "main.py", "--root", root, *SHORT.split())
    assert done.stdout.strip().splitlines()[-1].endswith("report.html")


@pytest.mark.parametrize(
    "script",
    [
        "preprocess",
        "optical_flow_calculator",
        "split_data",
        "prepare_echonet",
        "train_twostream",
        "predict",
        "make_synthetic",
    ],
)
def test_published_functions_are_found_in_their_script(script):
    module = importlib.import_module(script)
    for name in module.PUBLISHED:
        assert callable(getattr(module, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
