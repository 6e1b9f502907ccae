"""Every command of the README runs in short form, in a copy of the folder, on tiny data."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from skimage.measure import label

from helpers import FOLDER, make_tiny_data
from inputs.movie_io import read_movie, write_stack

pytestmark = pytest.mark.slow
TINY = {
    "network": {"unet_steps": 1, "first_layer_channels": 2},
    "dataset": {"data_duration": 8, "data_stride": 4, "batch_size": 2},
    "training": {"train_epochs": 2, "ignore_frames_loss": 2},
}
SETTINGS = " ".join(f"--set {s}.{k}={v}" for s, part in TINY.items() for k, v in part.items())
OWN_DATA = f"{SETTINGS} --set dataset.train_ids=01 --set dataset.test_ids=05,34 --threads 1"
SHORT = {  # start of a command -> flags that make it short
    # an untrained network finds thousands of events by arg-max, each of which is fitted
    "main.py --demo": f"{SETTINGS} --threads 1 --set postprocessing.segmentation=threshold",
    "main.py": OWN_DATA,
    "training.py": OWN_DATA,
    "load_trainings_predict.py": OWN_DATA,
    "attention_maps.py": OWN_DATA.replace(" --threads 1", ""),
    "generate_unet_annotations.py": "",
    "get_sparks_from_preds.py": "",
    "separate_events.py": "",
    "track_objects_from_preds.py": "",
    "save_results_to_json.py": "",
    "save_metrics_to_json.py": "",
    "compare_runs.py": "--draws 10",
    "classical_baseline.py": "",
    "event_rois.py": "",
    "make_demo_data.py": "--frames 24 --height 16",
    "benchmark.py": "--only assembly",
}
SHORTER = {"--stride 128": "--stride 2"}  # chunks are 8 frames here
MISSES_TARGETS = ("main.py --demo",)  # two iterations find no planted event: exit code 1
ELSEWHERE = {  # commands that are not run here, and why
    "pip install -r requirements.txt": "run.py builds the environment of this test from that file",
    "torchrun --nproc_per_node 4 training.py config_files/final_model.ini": "test_training.py runs "
    "two processes; four do not fit a small machine",
    "python import_checkpoint.py saved_models.zip.001 saved_models.zip.002": "the released "
    "archive is not here; test_import_checkpoint.py imports one in two parts",
    "python view.py cell.tif": "opens a window of napari, an optional package",
    "python view.py cell.tif --instances RUN_instances.tif --classes RUN_classes.tif --edit --out "
    "corrected": "as well; test_event_rois.py corrects and closes",
    "python -m pytest": "is this test run",
    "python -m pytest tests/test_parity.py --fixtures DIR": "is part of this test run",
}


def readme_commands():
    """Return the commands of the bash blocks of README.md and DETAILS.md, each once, in order."""
    pages = [(FOLDER / name).read_text(encoding="utf-8") for name in ("DETAILS.md", "README.md")]
    text = "\n".join(pages)
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def short_form(command):
    """Return the arguments after ``python`` of the short form of ``command``."""
    keys = [key for key in SHORT if command.startswith(f"python {key}")]
    assert keys, f"the README's command has no short form here: {command}"
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    return shlex.split(command.removeprefix("python ")) + shlex.split(SHORT[keys[0]])


def test_every_command_runs(tmp_path):
    home, data = tmp_path / FOLDER.name, tmp_path / "data" / FOLDER.name
    shutil.copytree(FOLDER, home, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    make_tiny_data(data)
    for new, old in (("05", "02"), ("34", "03")):
        for path in data.glob(f"{old}_*.tif"):
            shutil.copy(path, data / path.name.replace(old, new, 1))
    shutil.copy(data / "34_video.tif", home / "cell.tif")
    classes = read_movie(data / "34_class_label.tif").data
    events = np.where(classes <= 3, classes, 0)
    write_stack(home / "RUN_classes.tif", events.astype(np.uint8))
    write_stack(home / "RUN_instances.tif", label(events, connectivity=3).astype(np.uint16))
    for name in ("PRED", "S", "W", "P"):  # probabilities of the four commands that read them
        number = {"W": 2, "P": 3}.get(name, 1)
        write_stack(home / f"{name}.tif", (classes == number).astype(np.float32))
    commands = [command for command in readme_commands() if command not in ELSEWHERE]
    assert len(commands) > 14
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for command in commands:
        done = subprocess.run(
            [sys.executable, *short_form(command)],
            cwd=home, capture_output=True, text=True, timeout=600, check=False, env=environment,
        )  # fmt: skip
        misses = any(part in command for part in MISSES_TARGETS)
        assert done.returncode in ((0, 1) if misses else (0,)), f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        trained = tmp_path / "results" / FOLDER.name / "final_model" / "network_000002.pth"
        if trained.is_file():
            shutil.copy(trained, home / "network_100000.pth")
